//! Unpacks the archive of a layer into a directory for overlayfs: layer.md of the OCI image
//! specification.
//!
//! Unpacking needs no lower layer. What depends on lower layers (directories that the archive does
//! not list, hard links to files of a lower layer) is recorded, and [completed](super::complete)
//! when these are there.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, futimens, mkdirat, mknodat, utimensat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::sys::time::TimeSpec;
use nix::sys::uio::pwrite;
use nix::unistd::{Gid, Uid, fchown, fchownat, ftruncate, linkat, symlinkat};

use super::quota::{ImageQuota, LayerQuota};
use super::stream::read_error;
use super::tar::{Entries, Entry, Kind};
use super::tree::{self, EntryAt, InRoot, NAME_COST, Tree, shown};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{by_fd, file_size, xattr};

/// The prefix of the names of whiteouts.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The prefix of the opaque mark, and of other names of aufs that have no meaning in layers.
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The number of left-out files that are listed one by one.
const LEFT_OUT_MAX: usize = 64;

/// The ownership of the files in an unpacked layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Ids {
    /// Files have the owners that the image says.
    Kept,
    /// The unpacking user owns all files. An ordinary user cannot give files to other owners.
    Squashed,
}

/// Hard links to a file that this layer does not have. Until the lower layers are there, the names
/// lead to a placeholder, so that later entries of the archive find a file. The index of the link
/// is the number of its placeholder.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) target: InRoot,
    /// The names of the link, without links in their parent directories.
    pub(super) names: Vec<InRoot>,
    /// True if the layer hides the lower layers' file at the target.
    pub(super) is_removed: bool,
    /// True if a later entry of the layer replaces the target.
    pub(super) is_replaced: bool,
}

/// A summary of an unpacked layer, which its record contains.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Summary {
    /// The number of entries, including whiteouts and directories that the archive does not list.
    pub(super) entries: u64,
    /// The size of all files in bytes.
    pub(super) bytes: u64,
    /// True if the layer hides all lower layers.
    pub(super) opaque: bool,
    pub(super) skipped: u64,
    /// The first of the left-out files and attributes, each with the reason.
    pub(super) left_out: Vec<String>,
}

/// The attributes that a directory gets last: writing to the directory changes its time and needs
/// its permissions.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
}

/// A layer that is unpacked, except for what depends on lower layers.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) tree: Tree,
    pub(super) directories: BTreeMap<InRoot, Directory>,
    pub(super) links: Vec<Link>,
    /// The indexes of links by the inode of their placeholder.
    pub(super) placeholders: HashMap<u64, usize>,
    pub(super) quota: LayerQuota,
    /// The part of the tree's counts that the quota already includes.
    counted: (u64, u64),
    pub(super) summary: Summary,
}

pub(super) struct Unpacker {
    ids: Ids,
    layer: Unpacked,
    /// The indexes of links by their target.
    targets: HashMap<InRoot, usize>,
}

fn is_whiteout(path: &[u8]) -> bool {
    tree::split(path).is_some_and(|(_, name)| name.starts_with(WHITEOUT))
}

/// Returns the error for an errno: an error of the archive, or of the disk.
pub(super) fn failed(errno: Errno, path: &[u8]) -> Error {
    let kind = match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::EISDIR | Errno::EMLINK => {
            ErrorKind::Corrupt
        }
        _ => ErrorKind::Store,
    };
    Error::new(Step::UnpackLayer, errno).with_kind(kind).at(shown(path))
}

fn corrupt(path: &[u8], detail: &str) -> Error {
    Error::message(ErrorKind::Corrupt, Step::UnpackLayer, detail).at(shown(path))
}

pub(super) fn time((seconds, nanos): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, nanos.into())
}

pub(super) fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o7777)
}

impl Unpacked {
    /// Counts what was made for an entry. One entry makes at most one directory for each name in
    /// its path.
    pub(super) fn count(&mut self, path: &[u8]) -> Result<()> {
        let (made, names) = (self.tree.made, self.tree.names);
        let counted = std::mem::replace(&mut self.counted, (made, names));
        self.quota.take_entries(made - counted.0, path)?;
        self.quota.take_names(names - counted.1, path)
    }
}

impl Unpacker {
    pub(super) fn new(tree: Tree, ids: Ids, image_quota: Arc<ImageQuota>) -> Unpacker {
        let (directories, links, placeholders) = (BTreeMap::new(), Vec::new(), HashMap::new());
        let (quota, summary) = (LayerQuota::new(image_quota), Summary::default());
        let layer = Unpacked { tree, directories, links, placeholders, quota, counted: (0, 0), summary };
        Unpacker { ids, layer, targets: HashMap::new() }
    }

    /// Unpacks every entry of the archive.
    pub(super) fn unpack<R: BufRead>(mut self, entries: &mut Entries<R>) -> Result<Unpacked> {
        while let Some(entry) = entries.next().map_err(read_error)? {
            self.layer.quota.take_entries(1, &entry.path)?;
            self.take(&entry, entries)?;
            self.layer.count(&entry.path)?;
        }
        Ok(self.layer)
    }

    fn take<R: BufRead>(&mut self, entry: &Entry, entries: &mut Entries<R>) -> Result<()> {
        let path = tree::in_root(&entry.path)
            .ok_or_else(|| corrupt(&entry.path, "a path with .. or a NUL in it: it could lead out of the image"))?;
        if let Some(at_meta) = tree::names(&path).position(|name| name.starts_with(META)) {
            // A name of aufs, or a path below one.
            let is_last = tree::names(&path).count() == at_meta + 1;
            return if is_last && path.ends_with(OPAQUE) { self.opaque(&path) } else { Ok(()) };
        }
        if entry.kind == Kind::Directory {
            return self.directory(&path, entry);
        }
        let place = match self.layer.tree.place(&path) {
            // umoci writes whiteouts for the contents of a directory that the layer replaces by a
            // file. The file hides these contents already.
            Err(Errno::ENOTDIR) if is_whiteout(&path) => return Ok(()),
            place => place.map_err(|errno| failed(errno, &path))?,
        };
        let place = place.ok_or_else(|| corrupt(&entry.path, "the root is not a directory"))?;
        if let Some(hidden) = place.name.to_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&path, &place, hidden);
        }
        match entry.kind {
            Kind::File => self.file(&path, &place, entry, entries),
            Kind::Symlink => self.symlink(&path, &place, entry),
            Kind::HardLink => self.hard_link(path, &place, entry),
            Kind::Fifo => self.node(&path, &place, entry, SFlag::S_IFIFO, 0),
            Kind::Character(device) => self.node(&path, &place, entry, SFlag::S_IFCHR, device),
            Kind::Block(device) => self.node(&path, &place, entry, SFlag::S_IFBLK, device),
            Kind::Other(byte) => Err(corrupt(&path, &format!("an entry of the unknown type {:?}", char::from(byte)))),
            Kind::Directory => Ok(()),
        }
    }

    /// Counts a remembered name.
    fn remember(&mut self, path: &[u8]) -> Result<()> {
        self.layer.quota.take_names(path.len() as u64 + NAME_COST, path)
    }

    fn leave_out(&mut self, path: &[u8], why: &str) {
        self.layer.summary.skipped += 1;
        if self.layer.summary.left_out.len() < LEFT_OUT_MAX {
            self.layer.summary.left_out.push(format!("{}: {why}", shown(path)));
        }
    }

    fn owner(&self, entry: &Entry, path: &[u8]) -> Result<Option<(Uid, Gid)>> {
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        match (id(entry.uid), id(entry.gid)) {
            (Some(uid), Some(gid)) => Ok((self.ids == Ids::Kept).then(|| (Uid::from_raw(uid), Gid::from_raw(gid)))),
            _ => {
                let detail = format!("the owner {}:{}, and ids have 32 bits", entry.uid, entry.gid);
                Err(corrupt(path, &detail))
            }
        }
    }

    fn whiteout(&mut self, path: &[u8], place: &EntryAt, hidden: &[u8]) -> Result<()> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(corrupt(path, "a whiteout of nothing"));
        }
        let name = CString::new(hidden).map_err(|_| failed(Errno::EINVAL, path))?;
        let place = EntryAt { dir: place.dir.clone(), name };
        let mut hides = tree::split(path).unwrap_or_default().0.to_vec();
        tree::push(&mut hides, hidden);
        self.layer.tree.whiteout(&hides, &place).map_err(|errno| whiteout_failed(errno, &self.layer.tree, path))
    }

    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        let (dir, _) = tree::split(path).unwrap_or_default();
        // No directory is created for the whiteout: a later whiteout may remove that directory.
        let real = self.layer.tree.would_be(dir).map_err(|errno| failed(errno, path))?;
        self.layer.summary.opaque |= real.is_empty();
        self.layer.tree.add_opaque(real);
        Ok(())
    }

    fn directory(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let fail = |errno| failed(errno, path);
        let owner = self.owner(entry, path)?;
        let dir = match self.layer.tree.place(path).map_err(fail)? {
            None => self.layer.tree.root().as_fd().try_clone_to_owned().map_err(|_| fail(Errno::EMFILE))?,
            Some(place) => self.make_directory(path, &place)?,
        };
        let real = self.layer.tree.real(path).map_err(fail)?;
        self.layer.tree.implied.remove(&real);
        if let Some((uid, gid)) = owner {
            fchown(&dir, Some(uid), Some(gid)).map_err(|errno| chown_failed(errno, path))?;
        }
        self.xattrs(path, entry, |name, value| xattr::set(dir.as_fd(), name, value))?;
        self.remember(path)?;
        // If the archive lists a directory twice, the last entry counts.
        self.layer.directories.insert(real, Directory { mode: entry.mode, mtime: entry.mtime });
        Ok(())
    }

    fn make_directory(&mut self, path: &[u8], place: &EntryAt) -> Result<OwnedFd> {
        let fail = |errno| failed(errno, path);
        let make = |place: &EntryAt| match mkdirat(&place.dir, place.name.as_c_str(), Mode::S_IRWXU) {
            // A directory that exists already is used.
            Err(Errno::EEXIST) => place.open_dir().map_err(|_| Errno::EEXIST),
            made => made.and_then(|()| place.open_dir()),
        };
        let (dir, was_other) = self.layer.tree.replace(path, place, make).map_err(fail)?;
        if was_other {
            let real = self.layer.tree.real(path).map_err(fail)?;
            self.layer.tree.add_opaque(real);
        }
        Ok(dir)
    }

    fn file<R: BufRead>(
        &mut self,
        path: &[u8],
        place: &EntryAt,
        entry: &Entry,
        entries: &mut Entries<R>,
    ) -> Result<()> {
        let owner = self.owner(entry, path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let make = |place: &EntryAt| openat(&place.dir, place.name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let (file, _) = self.layer.tree.replace(path, place, make).map_err(|errno| failed(errno, path))?;
        let file = std::fs::File::from(file);
        let mut count = |bytes: usize| self.layer.quota.take_bytes(bytes as u64, path).map_err(io::Error::from);
        write_contents(&file, entry, entries, &mut count).map_err(|error| read_error(error).at(shown(path)))?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid)).map_err(|errno| chown_failed(errno, path))?;
        }
        // Attributes come after the owner, as changing the owner removes the setuid bit and
        // capabilities.
        self.xattrs(path, entry, |name, value| xattr::set(file.as_fd(), name, value))?;
        let mtime = time(entry.mtime);
        fchmod(&file, permissions(entry.mode)).map_err(|errno| failed(errno, path))?;
        futimens(&file, &mtime, &mtime).map_err(|errno| failed(errno, path))
    }

    fn symlink(&mut self, path: &[u8], place: &EntryAt, entry: &Entry) -> Result<()> {
        let target = CString::new(entry.target.as_slice()).ok().filter(|target| !target.is_empty());
        let target = target.ok_or_else(|| corrupt(path, "a symbolic link to nothing"))?;
        let make = |place: &EntryAt| symlinkat(target.as_c_str(), &place.dir, place.name.as_c_str());
        self.layer.tree.replace(path, place, make).map_err(|errno| failed(errno, path))?;
        self.finish_by_name(path, place, entry)
    }

    /// Sets the owner, attributes and time of a file that cannot be opened.
    fn finish_by_name(&mut self, path: &[u8], place: &EntryAt, entry: &Entry) -> Result<()> {
        let fail = |errno| failed(errno, path);
        if let Some((uid, gid)) = self.owner(entry, path)? {
            fchownat(&place.dir, place.name.as_c_str(), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(|errno| chown_failed(errno, path))?;
        }
        if !entry.xattrs.is_empty() {
            let file = place.open(OFlag::O_PATH).map_err(fail)?;
            self.xattrs(path, entry, |name, value| xattr::set_by_path(file.as_fd(), name, value))?;
        }
        if entry.kind != Kind::Symlink {
            let made = by_fd::look(place.dir.as_fd(), place.name.as_c_str()).map_err(fail)?;
            by_fd::chmod(&made, permissions(entry.mode)).map_err(fail)?;
        }
        let mtime = time(entry.mtime);
        utimensat(&place.dir, place.name.as_c_str(), &mtime, &mtime, UtimensatFlags::NoFollowSymlink).map_err(fail)
    }

    fn node(&mut self, path: &[u8], place: &EntryAt, entry: &Entry, kind: SFlag, device: u64) -> Result<()> {
        if kind == SFlag::S_IFCHR && device == 0 {
            self.leave_out(path, "a character device 0/0, which is overlayfs's whiteout");
            return Ok(());
        }
        let make = |place: &EntryAt| mknodat(&place.dir, place.name.as_c_str(), kind, Mode::S_IRUSR, device);
        match self.layer.tree.replace(path, place, make) {
            Ok(_) => self.finish_by_name(path, place, entry),
            Err(Errno::EPERM) if kind != SFlag::S_IFIFO => {
                self.leave_out(path, "a device node, which needs CAP_MKNOD");
                Ok(())
            }
            Err(errno) => Err(failed(errno, path)),
        }
    }

    /// Makes a hard link. The owner, mode and time of the file stay; those of the entry are
    /// ignored.
    fn hard_link(&mut self, path: InRoot, place: &EntryAt, entry: &Entry) -> Result<()> {
        let fail = |errno| failed(errno, &path);
        let target = tree::in_root(&entry.target).filter(|target| !target.is_empty());
        let target = target.ok_or_else(|| corrupt(&path, "a hard link to nothing, or with .. in it"))?;
        let source = match self.layer.tree.find(&target).map_err(fail)? {
            Some(source) => source.stat().map_err(fail)?.map(|stat| (source, stat)),
            None => None,
        };
        match source {
            Some((_, stat)) if tree::is_whiteout(&stat) => Err(corrupt(&path, "a hard link to what the layer removes")),
            Some((_, stat)) if tree::kind_of(&stat) == SFlag::S_IFDIR => {
                Err(corrupt(&path, "a hard link to a directory"))
            }
            Some((source, stat)) => {
                let same = place.stat().map_err(fail)?.is_some_and(|own| own.st_ino == stat.st_ino);
                if same {
                    return Ok(());
                }
                self.layer.tree.replace(&path, place, |place| link(&source, place)).map_err(fail)?;
                match self.layer.placeholders.get(&stat.st_ino).copied() {
                    Some(number) => self.add_name(number, &path),
                    None => Ok(()),
                }
            }
            None => self.add_placeholder(&path, place, target),
        }
    }

    /// Makes a placeholder for a hard link to a file of a lower layer.
    fn add_placeholder(&mut self, path: &[u8], place: &EntryAt, target: InRoot) -> Result<()> {
        let fail = |errno| failed(errno, path);
        let is_removed = self.layer.tree.hides_way(&target).map_err(fail)?;
        let number = self.targets.get(&target).copied().unwrap_or(self.layer.links.len());
        let source = self.layer.tree.placeholder(number).map_err(fail)?;
        if number == self.layer.links.len() {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            openat(&source.dir, source.name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(fail)?;
            let inode = source.stat().map_err(fail)?.map_or(0, |stat| stat.st_ino);
            [&target, &target].into_iter().try_for_each(|target| self.remember(target))?;
            self.layer.placeholders.insert(inode, number);
            self.layer.links.push(Link { target: target.clone(), is_removed, ..Link::default() });
            self.targets.insert(target, number);
        }
        self.layer.tree.replace(path, place, |place| link(&source, place)).map_err(fail)?;
        self.add_name(number, path)
    }

    fn add_name(&mut self, number: usize, path: &[u8]) -> Result<()> {
        self.remember(path)?;
        let real = self.layer.tree.real(path).map_err(|errno| failed(errno, path))?;
        if let Some(link) = self.layer.links.get_mut(number) {
            link.names.push(real);
        }
        Ok(())
    }

    /// Sets the extended attributes that an image may have. overlayfs's own are left out, as the
    /// kernel would act on them.
    fn xattrs(
        &mut self,
        path: &[u8],
        entry: &Entry,
        set: impl Fn(&std::ffi::CStr, &[u8]) -> nix::Result<()>,
    ) -> Result<()> {
        for (name, value) in &entry.xattrs {
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                self.leave_out(path, &format!("the attribute {}, which is overlayfs's", shown(name)));
                continue;
            }
            let name =
                CString::new(name.as_slice()).map_err(|_| corrupt(path, "an attribute with a NUL in its name"))?;
            match set(&name, value) {
                Ok(()) => {}
                Err(errno @ (Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES)) => {
                    self.leave_out(path, &format!("the attribute {}: {errno}", shown(name.to_bytes())));
                }
                Err(errno @ (Errno::EINVAL | Errno::ERANGE | Errno::E2BIG)) => {
                    return Err(failed(errno, path).with_kind(ErrorKind::Corrupt));
                }
                Err(errno) => return Err(failed(errno, path)),
            }
        }
        Ok(())
    }
}

pub(super) fn link(source: &EntryAt, place: &EntryAt) -> nix::Result<()> {
    linkat(&source.dir, source.name.as_c_str(), &place.dir, place.name.as_c_str(), AtFlags::empty())
}

/// Returns the error for a failed whiteout: overlayfs does not accept new whiteouts on its mounts,
/// as the kernel's `ovl_mknod` refuses them.
pub(super) fn whiteout_failed(errno: Errno, tree: &Tree, path: &[u8]) -> Error {
    let is_overlay = fstatfs(tree.root()).is_ok_and(|stat| stat.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
    match errno {
        Errno::EPERM if is_overlay => failed(errno, path)
            .hint("the store is on an overlay, which takes no whiteouts: put it on another file system"),
        Errno::EPERM => failed(errno, path).hint("whiteouts of an ordinary user need Linux 5.8"),
        errno => failed(errno, path),
    }
}

fn chown_failed(errno: Errno, path: &[u8]) -> Error {
    let error = failed(errno, path);
    match errno {
        Errno::EINVAL => {
            error.hint("the file's owner has no id in this user namespace: map more ids, or use Store::squash_ids()")
        }
        Errno::EPERM => error.hint("changing owners needs CAP_CHOWN: Store::squash_ids() goes without"),
        _ => error,
    }
}

fn write_contents<R: BufRead>(
    mut file: &std::fs::File,
    entry: &Entry,
    entries: &mut Entries<R>,
    count: &mut impl FnMut(usize) -> io::Result<()>,
) -> io::Result<()> {
    file_size::check(entry.sparse.as_ref().map_or(entry.size, |(_, size)| *size))?;
    let Some((map, size)) = &entry.sparse else {
        return entries.copy(entry.size, |part| count(part.len()).and_then(|()| file.write_all(part)));
    };
    let end = |at: u64| i64::try_from(at).map_err(|_| io::Error::from(Errno::EFBIG));
    for (offset, length) in map {
        let mut at = *offset;
        if offset.checked_add(*length).is_none_or(|end| end > *size) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a sparse file with data after its end"));
        }
        entries.copy(*length, |mut part| {
            count(part.len())?;
            while !part.is_empty() {
                let count = pwrite(file, part, end(at)?)?;
                part = part.get(count..).unwrap_or_default();
                at += count as u64;
            }
            Ok(())
        })?;
    }
    Ok(ftruncate(file, end(*size)?)?)
}
