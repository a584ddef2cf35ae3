//! A directory tree that a layer is written into. All access is by file descriptors, and never
//! outside of the tree.
//!
//! The parent directories of an entry may be symbolic links, which are resolved as if the tree were
//! the root: with `openat2(2)` and `RESOLVE_IN_ROOT` (Linux 5.6), or by a walk that takes one name
//! at a time. No other process writes to the tree, which is in a directory closed to others.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, ResolveFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::{by_fd, xattr};

/// The largest number of links in a path, which is that of the kernel.
const LINKS_MAX: usize = 40;
/// The largest number of names that the walk takes for one layer: an archive must not make every
/// entry expensive.
const STEPS_MAX: u64 = 4_000_000;
/// The number of directories that are kept open. Archives list entries directory by directory.
const RECENT: usize = 8;
/// The number of bytes that a remembered name uses, in addition to its own.
pub(super) const NAME_COST: u64 = 64;
/// The directory beside a tree for replaced directories, which are removed when the tree is
/// complete.
pub(super) const TRASH: &str = "trash";
pub(super) const LINKS: &str = "links";
const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The marks by which overlayfs recognises an opaque directory. The second one applies to mounts
/// with the option `userxattr`, which all mounts in a user namespace have. overlayfs treats the
/// mark that does not apply as an ordinary attribute, and copies it up with its directory. So
/// unpacked layers get neither, see [`hide`](super::hide).
pub(super) const OPAQUE: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];

/// A path below the root: names joined by `/`, without `.` and `..`. The root itself is the empty
/// path.
pub(super) type InRoot = Vec<u8>;

/// Normalises a path. A leading `/` means the root of the tree. Returns `None` for a path with
/// `..`, which no valid layer has.
pub(super) fn in_root(path: &[u8]) -> Option<InRoot> {
    let mut all = InRoot::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        if name == b".." || name.contains(&0) {
            return None;
        }
        push(&mut all, name);
    }
    Some(all)
}

pub(super) fn push(path: &mut InRoot, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Splits a path into its parent directory and its last name. Returns `None` for the root.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => Some((path.get(..at)?, path.get(at + 1..)?)),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}

pub(super) fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

fn c_string(name: &[u8]) -> nix::Result<CString> {
    CString::new(name).map_err(|_| Errno::EINVAL)
}

pub(super) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Returns a path for error messages, cut off after 256 bytes.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path.get(..path.len().min(256)).unwrap_or(path)).into_owned()
}

/// Returns true for a whiteout of overlayfs: a character device 0/0.
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Returns true if a directory has overlayfs's opaque mark.
pub(super) fn is_opaque(dir: impl AsFd) -> nix::Result<bool> {
    for name in OPAQUE {
        if xattr::get(dir.as_fd(), name)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A location in the tree: a directory and a name in it.
#[derive(Debug, Clone)]
pub(super) struct EntryAt {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: CString,
}

impl EntryAt {
    pub(super) fn stat(&self) -> nix::Result<Option<FileStat>> {
        match fstatat(&self.dir, self.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens the file, which must not be a link.
    pub(super) fn open(&self, flags: OFlag) -> nix::Result<OwnedFd> {
        openat(&self.dir, self.name.as_c_str(), flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    }

    pub(super) fn open_dir(&self) -> nix::Result<OwnedFd> {
        self.open(OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }
}

#[derive(Debug)]
pub(super) struct Tree {
    root: Arc<OwnedFd>,
    trash: OwnedFd,
    trashed: u64,
    /// The directory of the placeholders for hard links to files of lower layers.
    links: OwnedFd,
    recent: VecDeque<Recent>,
    steps: u64,
    /// The directories that were made because entries need them, and that the archive does not
    /// list. No path here, nor a path below one, contains a link.
    pub(super) implied: BTreeSet<InRoot>,
    /// The opaque directories. [`hide`](super::hide) later writes the whiteouts for them.
    pub(super) opaque: BTreeSet<InRoot>,
    pub(super) whiteouts: BTreeSet<InRoot>,
    /// The number of whiteouts, and of directories that were made without an entry; and the size of
    /// all remembered names.
    pub(super) made: u64,
    pub(super) names: u64,
}

/// A directory that was opened: the path used, and the path without links.
#[derive(Debug)]
struct Recent {
    path: InRoot,
    real: InRoot,
    dir: Arc<OwnedFd>,
}

impl Tree {
    /// Creates an empty tree at `staging/fs`, and beside it directories for replaced entries and
    /// for placeholders.
    pub(super) fn make(staging: BorrowedFd<'_>) -> nix::Result<Tree> {
        let make = |name: &str| {
            mkdirat(staging, name, Mode::S_IRWXU)?;
            openat(staging, name, DIRECTORY | OFlag::O_RDONLY, Mode::empty())
        };
        let (root, trash, links) = (Arc::new(make("fs")?), make(TRASH)?, make(LINKS)?);
        Ok(Tree {
            root,
            trash,
            trashed: 0,
            links,
            recent: VecDeque::new(),
            steps: 0,
            // The root is implied, too, until the archive lists it.
            implied: BTreeSet::from([InRoot::new()]),
            opaque: BTreeSet::new(),
            whiteouts: BTreeSet::new(),
            made: 0,
            names: 0,
        })
    }

    /// Returns the location of the placeholder with this number.
    pub(super) fn placeholder(&self, number: usize) -> nix::Result<EntryAt> {
        let dir = self.links.try_clone().map_err(|_| Errno::EMFILE)?;
        Ok(EntryAt { dir: dir.into(), name: c_string(number.to_string().as_bytes())? })
    }

    pub(super) fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// Opens the directory at `path`, following links. A missing directory is created.
    pub(super) fn dir(&mut self, path: &[u8]) -> nix::Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(recent) = self.recent.iter().find(|recent| recent.path == path) {
            return Ok(recent.dir.clone());
        }
        let (dir, real) = match self.open_in_root(path, ResolveFlag::RESOLVE_NO_SYMLINKS) {
            Ok(dir) => (dir, path.to_vec()),
            Err(_) => self.walk(path, true)?,
        };
        let dir = Arc::new(dir);
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(Recent { path: path.to_vec(), real, dir: dir.clone() });
        Ok(dir)
    }

    /// Returns the path without links of the directory at `path`.
    pub(super) fn real_dir(&mut self, path: &[u8]) -> nix::Result<InRoot> {
        self.dir(path)?;
        Ok(self.recent.iter().find(|recent| recent.path == path).map(|recent| recent.real.clone()).unwrap_or_default())
    }

    /// Resolves all links in the parent directories of `path`.
    pub(super) fn real(&mut self, path: &[u8]) -> nix::Result<InRoot> {
        let Some((dir, name)) = split(path) else { return Ok(InRoot::new()) };
        let mut real = self.real_dir(dir)?;
        push(&mut real, name);
        Ok(real)
    }

    /// Resolves the path of a directory that need not exist.
    pub(super) fn would_be(&mut self, path: &[u8]) -> nix::Result<InRoot> {
        let mut there = path;
        loop {
            match self.walk(there, false) {
                Ok((_, mut real)) => {
                    names(path.get(there.len()..).unwrap_or_default()).for_each(|name| push(&mut real, name));
                    return Ok(real);
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => there = split(there).unwrap_or_default().0,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Marks a directory as opaque.
    pub(super) fn add_opaque(&mut self, real: InRoot) {
        self.names += real.len() as u64 + NAME_COST;
        self.opaque.insert(real);
    }

    /// Returns true if this layer hides what the lower layers have at `real`, because one of the
    /// directories above is opaque.
    pub(super) fn is_hidden(&self, real: &[u8]) -> bool {
        let mut path = real;
        while !self.opaque.is_empty() {
            let Some((dir, _)) = split(path) else { return false };
            if self.opaque.contains(dir) {
                return true;
            }
            path = dir;
        }
        false
    }

    /// Returns the location of `path`, or `None` for the root. Missing parent directories are
    /// created.
    pub(super) fn place(&mut self, path: &[u8]) -> nix::Result<Option<EntryAt>> {
        let Some((dir, name)) = split(path) else { return Ok(None) };
        Ok(Some(EntryAt { dir: self.dir(dir)?, name: c_string(name)? }))
    }

    /// Returns the location of `path`, or `None` for the root or if a parent directory is missing.
    pub(super) fn find(&mut self, path: &[u8]) -> nix::Result<Option<EntryAt>> {
        let Some((dir, name)) = split(path) else { return Ok(None) };
        let found = match self.open_in_root(dir, ResolveFlag::empty()) {
            Ok(found) => found,
            Err(_) => match self.walk(dir, false) {
                Ok((found, _)) => found,
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(errno) => return Err(errno),
            },
        };
        Ok(Some(EntryAt { dir: Arc::new(found), name: c_string(name)? }))
    }

    fn open_in_root(&self, path: &[u8], more: ResolveFlag) -> nix::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let how = ResolveFlag::RESOLVE_IN_ROOT | more;
        by_fd::look_as(self.root.as_fd(), OsStr::from_bytes(path), OFlag::O_DIRECTORY, how)
    }

    /// Walks to the directory at `path`, one name at a time. Returns the directory and its path
    /// without links.
    fn walk(&mut self, path: &[u8], make: bool) -> nix::Result<(OwnedFd, InRoot)> {
        let mut todo: VecDeque<Vec<u8>> = names(path).map(<[u8]>::to_vec).collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut current = self.root.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            self.step()?;
            if name == b"." {
                continue;
            }
            if name == b".." {
                done.pop();
                current = self.root.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
                for name in &done {
                    self.step()?;
                    current = openat(&current, OsStr::from_bytes(name), DIRECTORY | OFlag::O_PATH, Mode::empty())?;
                }
                continue;
            }
            let name_c = c_string(&name)?;
            let open = || openat(&current, name_c.as_c_str(), DIRECTORY | OFlag::O_PATH, Mode::empty());
            match open() {
                Ok(next) => {
                    current = next;
                    done.push(name);
                }
                Err(Errno::ENOENT) if make => {
                    mkdirat(&current, name_c.as_c_str(), Mode::S_IRWXU)?;
                    current = open()?;
                    done.push(name);
                    self.imply(done.join(&b'/'));
                }
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let target = match readlinkat(&current, name_c.as_c_str()) {
                        Ok(target) => target.into_vec(),
                        Err(Errno::EINVAL) if make => {
                            current = instead_of_whiteout(&current, &name_c)?;
                            done.push(name);
                            self.add_opaque(done.join(&b'/'));
                            self.made += 1;
                            continue;
                        }
                        Err(Errno::EINVAL) => return Err(Errno::ENOTDIR),
                        Err(errno) => return Err(errno),
                    };
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::ELOOP);
                    }
                    if target.starts_with(b"/") {
                        done.clear();
                        current = self.root.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
                    }
                    let target: Vec<Vec<u8>> = names(&target).map(<[u8]>::to_vec).collect();
                    target.into_iter().rev().for_each(|name| todo.push_front(name));
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok((current, done.join(&b'/')))
    }

    /// Returns true if this layer removes what the lower layers have on the way to `path`, which
    /// may contain links of this layer: a directory on the way is opaque or is replaced by another
    /// file.
    pub(super) fn hides_way(&mut self, path: &[u8]) -> nix::Result<bool> {
        let dir = split(path).unwrap_or_default().0;
        if self.is_hidden(path) || self.open_in_root(dir, ResolveFlag::RESOLVE_NO_SYMLINKS).is_ok() {
            return Ok(self.is_hidden(path));
        }
        match self.walk(dir, false) {
            Ok((_, real)) => Ok(self.opaque.contains(&real) || self.is_hidden(&real)),
            Err(Errno::ENOENT) => Ok(false),
            Err(Errno::ENOTDIR) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    /// Returns true if this layer removes what the lower layers have on the way to `real`, a path
    /// without links in the lower layers. A link of this layer on the way replaces their directory,
    /// wherever it leads.
    pub(super) fn hides_real_way(&mut self, real: &[u8]) -> nix::Result<bool> {
        Ok(self.is_hidden(real) || self.replaces(split(real).unwrap_or_default().0)?)
    }

    /// Returns true if this layer replaces the lower layers' directory `real`, or one above it, by
    /// another file.
    pub(super) fn replaces(&mut self, real: &[u8]) -> nix::Result<bool> {
        let mut current = self.root.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        for name in names(real) {
            self.step()?;
            current = match openat(&current, OsStr::from_bytes(name), DIRECTORY | OFlag::O_PATH, Mode::empty()) {
                Err(Errno::ENOENT) => return Ok(false),
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(true),
                next => next?,
            };
        }
        Ok(false)
    }

    pub(super) fn imply(&mut self, real: InRoot) {
        self.made += 1;
        self.names += real.len() as u64 + NAME_COST;
        self.implied.insert(real);
    }

    fn step(&mut self) -> nix::Result<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX { Err(Errno::ELOOP) } else { Ok(()) }
    }

    /// Makes an entry with `make`, after removing an existing one. Returns true as well if the
    /// existing entry was not a directory: then the layer hides the lower layers' directory of that
    /// name.
    pub(super) fn replace<T>(
        &mut self,
        path: &[u8],
        place: &EntryAt,
        make: impl Fn(&EntryAt) -> nix::Result<T>,
    ) -> nix::Result<(T, bool)> {
        match make(place) {
            Err(Errno::EEXIST) => {}
            result => return result.map(|made| (made, false)),
        }
        let was_other = place.stat()?.is_some_and(|stat| kind_of(&stat) != SFlag::S_IFDIR);
        self.clear(path, place)?;
        make(place).map(|made| (made, was_other))
    }

    /// Removes the entry at `place`.
    pub(super) fn clear(&mut self, path: &[u8], place: &EntryAt) -> nix::Result<()> {
        let Some(stat) = place.stat()? else { return Ok(()) };
        let kind = kind_of(&stat);
        if kind == SFlag::S_IFLNK {
            self.recent.clear();
        }
        if kind != SFlag::S_IFDIR {
            return unlinkat(&place.dir, place.name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
        let real = self.real(path)?;
        self.recent.clear();
        self.forget(&real);
        self.trashed += 1;
        let name = CString::new(self.trashed.to_string()).map_err(|_| Errno::EINVAL)?;
        renameat(&place.dir, place.name.as_c_str(), &self.trash, name.as_c_str())
    }

    /// Removes `path`, and all below it, from the implied directories.
    fn forget(&mut self, path: &[u8]) {
        for path in at_or_below(&self.implied, path) {
            self.implied.remove(&path);
        }
    }

    /// Forgets the paths of open directories, after some were moved.
    pub(super) fn moved(&mut self) {
        self.recent.clear();
    }

    /// Hides `path` of the lower layers. An entry of this layer at `path` stays; if that is a
    /// directory, it becomes opaque.
    pub(super) fn whiteout(&mut self, path: &[u8], place: &EntryAt) -> nix::Result<()> {
        let made = mknodat(&place.dir, place.name.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0);
        let is_dir = match made {
            Err(Errno::EEXIST) => place.stat()?.is_some_and(|stat| kind_of(&stat) == SFlag::S_IFDIR),
            made => return made.and_then(|()| self.real(path)).map(|real| self.is_whiteout_at(real)),
        };
        if !is_dir {
            return Ok(());
        }
        let real = self.real(path)?;
        if self.implied.contains(&real) && self.has_only_whiteouts(place.open_dir()?)? {
            self.clear(path, place)?;
            mknodat(&place.dir, place.name.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0)?;
            self.is_whiteout_at(real);
        } else {
            self.add_opaque(real);
        }
        Ok(())
    }

    /// Returns true if a directory contains only directories that were made for whiteouts.
    pub(super) fn has_only_whiteouts(&mut self, dir: OwnedFd) -> nix::Result<bool> {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            for entry in Dir::openat(&dir, c".", DIRECTORY | OFlag::O_RDONLY, Mode::empty())?.iter() {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                self.step()?;
                let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                match kind_of(&stat) {
                    SFlag::S_IFDIR => todo.push(openat(&dir, name, DIRECTORY | OFlag::O_RDONLY, Mode::empty())?),
                    _ if is_whiteout(&stat) => {}
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    fn is_whiteout_at(&mut self, real: InRoot) {
        self.names += real.len() as u64 + NAME_COST;
        self.whiteouts.insert(real);
    }
}

/// Returns the paths that are `path` or below it.
pub(super) fn at_or_below(paths: &BTreeSet<InRoot>, path: &[u8]) -> Vec<InRoot> {
    let below = |other: &InRoot| other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    let from = paths.range(path.to_vec()..).take_while(|other| other.starts_with(path));
    from.filter(|other| path.is_empty() || below(other)).cloned().collect()
}

/// Opens the directory that the layer has in place of a whiteout.
fn instead_of_whiteout(dir: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
    if !is_whiteout(&fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?) {
        return Err(Errno::ENOTDIR);
    }
    unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
    mkdirat(dir, name, Mode::S_IRWXU)?;
    let made = openat(dir, name, DIRECTORY | OFlag::O_RDONLY, Mode::empty())?;
    fchmod(&made, Mode::from_bits_truncate(0o755))?;
    Ok(made)
}
