//! A directory tree that a layer is written into, by descriptors, and never outside of it.
//!
//! Symbolic links among the parents of an entry are legal, and lead to where they would lead if the tree were the root:
//! `openat2(2)` with `RESOLVE_IN_ROOT` (Linux 5.6), or a walk of our own that takes one name at a time. Nobody else writes to
//! the tree meanwhile: it stands in a directory closed to others.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CStr, CString, OsStr};
use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::xattr;

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;
/// Names that the walk takes for one layer altogether: an archive may not have each entry walk far.
const STEPS_MAX: u64 = 4_000_000;
/// Directories that are kept open: entries come directory by directory.
const RECENT: usize = 8;
/// What a name that is remembered takes beside its bytes.
pub(super) const NAME_COST: u64 = 64;
/// The directories beside a tree that go once it stands.
pub(super) const TRASH: &str = "trash";
pub(super) const LINKS: &str = "links";
const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// overlayfs's mark of a directory that hides those below it; the second counts with the mount option `userxattr`, which
/// mounts in a user namespace have. The one that does not count is an attribute as any other, and is copied up with what has
/// it: so what is unpacked gets neither, see [`hide`](super::hide).
pub(super) const OPAQUE: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];

/// A path below the root: names joined by `/`, none of them `.` or `..`; empty for the root itself.
pub(super) type InRoot = Vec<u8>;

/// The path without what means nothing. A leading `/` is the tree's root; `..` is refused, as no honest layer has it.
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

/// Its directory, and its own name; none for the root.
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

/// As overlayfs has it: a character device 0/0.
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Whether a directory hides what is below it.
pub(super) fn is_opaque(dir: impl AsFd) -> nix::Result<bool> {
    for name in OPAQUE {
        if xattr::get(dir.as_fd(), name)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where in the tree something is: a directory and a name in it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: CString,
}

impl Place {
    pub(super) fn stat(&self) -> nix::Result<Option<FileStat>> {
        match fstatat(&self.dir, self.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens what is there, which is no link.
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
    /// What stands for hard links to files of layers below.
    links: OwnedFd,
    recent: VecDeque<Recent>,
    steps: u64,
    /// Directories that had to be there and that the layer does not tell about. These paths, and those below, have no links.
    pub(super) implied: BTreeSet<InRoot>,
    /// Directories that show nothing of those below: in what form is for [`hide`](super::hide) to say.
    pub(super) hiding: BTreeSet<InRoot>,
    pub(super) whiteouts: BTreeSet<InRoot>,
    /// Directories that were made without an entry, and whiteouts; and bytes of all that is remembered here.
    pub(super) made: u64,
    pub(super) names: u64,
}

/// A directory that was opened: under which path, and where that is without links.
#[derive(Debug)]
struct Recent {
    path: InRoot,
    real: InRoot,
    dir: Arc<OwnedFd>,
}

impl Tree {
    /// An empty tree at `staging/fs`; and beside it places for what entries of the layer replace, and for what links stand for.
    pub(super) fn make(staging: &Path) -> nix::Result<Tree> {
        let make = |name: &str| {
            let path = staging.join(name);
            let made = DirBuilder::new().mode(0o700).create(&path);
            made.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
            nix::fcntl::open(&path, DIRECTORY | OFlag::O_RDONLY, Mode::empty())
        };
        let (root, trash, links) = (Arc::new(make("fs")?), make(TRASH)?, make(LINKS)?);
        Ok(Tree {
            root,
            trash,
            trashed: 0,
            links,
            recent: VecDeque::new(),
            steps: 0,
            // The root as well, until the layer tells about it.
            implied: BTreeSet::from([InRoot::new()]),
            hiding: BTreeSet::new(),
            whiteouts: BTreeSet::new(),
            made: 0,
            names: 0,
        })
    }

    /// The place of what stands for the links of this number.
    pub(super) fn stand_in(&self, number: usize) -> nix::Result<Place> {
        let dir = self.links.try_clone().map_err(|_| Errno::EMFILE)?;
        Ok(Place { dir: dir.into(), name: c_string(number.to_string().as_bytes())? })
    }

    pub(super) fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// The directory at `path`, through links, and made if it is missing.
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

    /// Where the directory at `path` is: without links.
    pub(super) fn real_dir(&mut self, path: &[u8]) -> nix::Result<InRoot> {
        self.dir(path)?;
        Ok(self.recent.iter().find(|recent| recent.path == path).map(|recent| recent.real.clone()).unwrap_or_default())
    }

    /// The path without links among its directories.
    pub(super) fn real(&mut self, path: &[u8]) -> nix::Result<InRoot> {
        let Some((dir, name)) = split(path) else { return Ok(InRoot::new()) };
        let mut real = self.real_dir(dir)?;
        push(&mut real, name);
        Ok(real)
    }

    /// The same for a directory that need not be there.
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

    /// Remembers that a directory shows nothing of those below it.
    pub(super) fn hides(&mut self, real: InRoot) {
        self.names += real.len() as u64 + NAME_COST;
        self.hiding.insert(real);
    }

    /// Whether what the layers below have at `real` is not seen, as one of the directories above it shows nothing of theirs.
    pub(super) fn is_hidden(&self, real: &[u8]) -> bool {
        let mut path = real;
        while !self.hiding.is_empty() {
            let Some((dir, _)) = split(path) else { return false };
            if self.hiding.contains(dir) {
                return true;
            }
            path = dir;
        }
        false
    }

    /// The place of `path`, whose directories are made if they are missing; none for the root.
    pub(super) fn place(&mut self, path: &[u8]) -> nix::Result<Option<Place>> {
        let Some((dir, name)) = split(path) else { return Ok(None) };
        Ok(Some(Place { dir: self.dir(dir)?, name: c_string(name)? }))
    }

    /// The same without making anything.
    pub(super) fn find(&mut self, path: &[u8]) -> nix::Result<Option<Place>> {
        let Some((dir, name)) = split(path) else { return Ok(None) };
        let found = match self.open_in_root(dir, ResolveFlag::empty()) {
            Ok(found) => found,
            Err(_) => match self.walk(dir, false) {
                Ok((found, _)) => found,
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(errno) => return Err(errno),
            },
        };
        Ok(Some(Place { dir: Arc::new(found), name: c_string(name)? }))
    }

    fn open_in_root(&self, path: &[u8], more: ResolveFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
        let path = if path.is_empty() { b".".as_slice() } else { path };
        openat2(&self.root, OsStr::from_bytes(path), how)
    }

    /// The directory at `path`, one name at a time, and the path without links that leads there.
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
                            self.hides(done.join(&b'/'));
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

    /// Whether the layer removes what those below have on the way to `path`, on which links of its own may be: a
    /// directory shows nothing of theirs, or there is something else in its place.
    pub(super) fn hides_way(&mut self, path: &[u8]) -> nix::Result<bool> {
        let dir = split(path).unwrap_or_default().0;
        if self.is_hidden(path) || self.open_in_root(dir, ResolveFlag::RESOLVE_NO_SYMLINKS).is_ok() {
            return Ok(self.is_hidden(path));
        }
        match self.walk(dir, false) {
            Ok((_, real)) => Ok(self.hiding.contains(&real) || self.is_hidden(&real)),
            Err(Errno::ENOENT) => Ok(false),
            Err(Errno::ENOTDIR) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    /// The same for `real`, a path of theirs without links: of what may be in its place a link is one, wherever it leads.
    pub(super) fn hides_real_way(&mut self, real: &[u8]) -> nix::Result<bool> {
        Ok(self.is_hidden(real) || self.replaces(split(real).unwrap_or_default().0)?)
    }

    /// Whether the layer has something else in place of the directory `real` of theirs, or of one above it.
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

    /// Does what makes an entry at the place; if there is one, it goes first. Says whether that was no directory: then the layer
    /// hides what those below have there.
    pub(super) fn replace<T>(
        &mut self,
        path: &[u8],
        place: &Place,
        make: impl Fn(&Place) -> nix::Result<T>,
    ) -> nix::Result<(T, bool)> {
        match make(place) {
            Err(Errno::EEXIST) => {}
            result => return result.map(|made| (made, false)),
        }
        let was_other = place.stat()?.is_some_and(|stat| kind_of(&stat) != SFlag::S_IFDIR);
        self.clear(path, place)?;
        make(place).map(|made| (made, was_other))
    }

    /// Takes away what is at the place.
    pub(super) fn clear(&mut self, path: &[u8], place: &Place) -> nix::Result<()> {
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

    /// What is at or below `path` is not implied any more.
    fn forget(&mut self, path: &[u8]) {
        for path in at_or_below(&self.implied, path) {
            self.implied.remove(&path);
        }
    }

    /// Drops what is known of where directories are, after some were moved.
    pub(super) fn moved(&mut self) {
        self.recent.clear();
    }

    /// Hides `path` of the layers below. What this layer has there itself stays, and if it is a directory, hides theirs.
    pub(super) fn whiteout(&mut self, path: &[u8], place: &Place) -> nix::Result<()> {
        let made = mknodat(&place.dir, place.name.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0);
        let is_dir = match made {
            Err(Errno::EEXIST) => place.stat()?.is_some_and(|stat| kind_of(&stat) == SFlag::S_IFDIR),
            made => return made.and_then(|()| self.real(path)).map(|real| self.is_whiteout_at(real)),
        };
        if !is_dir {
            return Ok(());
        }
        let real = self.real(path)?;
        if self.implied.contains(&real) && self.only_hides(place.open_dir()?)? {
            self.clear(path, place)?;
            mknodat(&place.dir, place.name.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0)?;
            self.is_whiteout_at(real);
        } else {
            self.hides(real);
        }
        Ok(())
    }

    /// Whether there is nothing in a directory but what was made for whiteouts.
    pub(super) fn only_hides(&mut self, dir: OwnedFd) -> nix::Result<bool> {
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

/// Those of the paths that are `path`, or below it.
pub(super) fn at_or_below(paths: &BTreeSet<InRoot>, path: &[u8]) -> Vec<InRoot> {
    let below = |other: &InRoot| other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    let from = paths.range(path.to_vec()..).take_while(|other| other.starts_with(path));
    from.filter(|other| path.is_empty() || below(other)).cloned().collect()
}

/// A directory that the layer has at a place where it hides that of the layers below.
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
