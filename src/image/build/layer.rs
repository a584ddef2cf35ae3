//! Writes a directory as a layer: a tar archive that depends on the directory's contents alone. The
//! directory may come from a hostile program: the walk uses file descriptors, follows no link, and
//! opens nothing but regular files and directories.
//!
//! The format is that of layers in the OCI image specification (layer.md), with pax headers where
//! ustar has no room. If the directory was the upper of an overlay, overlayfs's whiteouts and
//! opaque marks become those of the specification.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use super::xattrs::portable_xattrs;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::tree::{OPAQUE, is_whiteout};
use crate::image::unpack::WHITEOUT;
use crate::sys::xattr;

/// The longest path that is written, which is the longest that the kernel takes, without its NUL.
const LONGEST_PATH: usize = 4095;
const BLOCK: usize = 512;
const CHANGES: &str = "the directory changes while it is packed";

/// Options for writing a tree into a layer.
pub(crate) struct PackOptions<'s> {
    /// True if the tree was the upper of an overlay: its whiteouts and opaque directories then
    /// become entries of the layer.
    pub(crate) upper: bool,
    /// Maps the uid and gid of a file on disk to those in the image. Returns `None` for an owner
    /// that the image does not have.
    pub(crate) owner: &'s dyn Fn(u32, u32) -> Option<(u32, u32)>,
}

/// A writer of one layer.
pub(crate) struct LayerWriter<W: Write> {
    out: W,
    /// The latest modification time in the layer, in seconds since 1970. Later times are replaced
    /// by this one.
    latest: u64,
    /// The number of bytes of files that may still be written.
    room: u64,
    /// Files with several names: the first name, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

/// A file, directory or link that is written into the layer.
struct Item<'i> {
    path: &'i Path,
    stat: FileStat,
    owner: (u32, u32),
    xattrs: Vec<(String, Vec<u8>)>,
}

/// A directory whose entries are being written.
struct Level {
    /// The device and the inode.
    id: (u64, u64),
    names: std::vec::IntoIter<OsString>,
}

impl Level {
    fn of(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        Ok(Level { id: id_of(dir)?, names: names_in(dir)?.into_iter() })
    }

    /// Opens the directory from one in it: ESTALE if that is in another one by now.
    fn open_from(&self, below: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let above = open(below, OsStr::new(".."), OFlag::O_DIRECTORY)?;
        if id_of(above.as_fd())? == self.id { Ok(above) } else { Err(Errno::ESTALE) }
    }
}

fn id_of(dir: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    fstat(dir).map(|stat| (stat.st_dev, stat.st_ino))
}

impl<W: Write> LayerWriter<W> {
    /// Creates a layer. Writes at most `limit` bytes of files, and no time later than `latest`
    /// seconds since 1970.
    pub(crate) fn new(out: W, latest: u64, limit: u64) -> Self {
        LayerWriter { out, latest, room: limit, linked: HashMap::new() }
    }

    /// Ends the layer and returns the inner writer.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * BLOCK]).map_err(|error| Error::io(Step::PackLayer, &error))?;
        Ok(self.out)
    }

    /// Writes a parent directory that has no source: owned by root, with mode 755.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<()> {
        check_name(path)?;
        self.made(path, EntryType::Directory, 0o755)
    }

    /// Writes `name` in `dir`, and all below it, as `path` of the image.
    pub(crate) fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        options: &PackOptions<'_>,
    ) -> Result<()> {
        match self.one(dir, name, path, options)? {
            Some(inside) => self.contents(inside.as_fd(), path, options),
            None => Ok(()),
        }
    }

    /// Writes all entries of the directory, and all below them, into `path` of the image.
    ///
    /// A program may have nested directories to any depth, so nothing recurses, and two descriptors
    /// are open at a time. The way up leads through `..`: another process may have moved the
    /// directory meanwhile, and then `..` is not the one from which this went down.
    pub(crate) fn contents(&mut self, dir: BorrowedFd<'_>, path: &Path, options: &PackOptions<'_>) -> Result<()> {
        let at = |path: &Path, errno| Error::new(Step::PackLayer, errno).at(path);
        let mut path = path.to_owned();
        let mut here = dir.try_clone_to_owned().map_err(|_| at(&path, Errno::EMFILE))?;
        let mut levels = vec![Level::of(dir).map_err(|errno| at(&path, errno))?];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.names.next() {
                path.push(&name);
                let inside = self.one(here.as_fd(), &name, &path, options)?;
                let below = inside.as_ref().map(|inside| Level::of(inside.as_fd())).transpose();
                match (inside, below.map_err(|errno| at(&path, errno))?) {
                    (Some(inside), Some(below)) if !below.names.as_slice().is_empty() => {
                        here = inside;
                        levels.push(below);
                    }
                    _ => _ = path.pop(),
                }
                continue;
            }
            levels.pop();
            if let Some(above) = levels.last() {
                here = above.open_from(here.as_fd()).map_err(|errno| at(&path, errno).hint(CHANGES))?;
                path.pop();
            }
        }
        Ok(())
    }

    /// Writes one entry. Returns a directory, whose entries are still to be written.
    fn one(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        options: &PackOptions<'_>,
    ) -> Result<Option<OwnedFd>> {
        check_name(path)?;
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(Error::new(Step::PackLayer, Errno::ENAMETOOLONG).at(path));
        }
        let at = |errno| Error::new(Step::PackLayer, errno).at(path);
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(at)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if options.upper && is_whiteout(&stat) {
            return self.whiteout(path).map(|()| None);
        }
        let Some(owner) = (options.owner)(stat.st_uid, stat.st_gid) else {
            let text = format!("its owner {}:{} has no id in the image", stat.st_uid, stat.st_gid);
            return Err(Error::message(ErrorKind::Setup, Step::PackLayer, text).at(path));
        };
        let mut item = Item { path, stat, owner, xattrs: Vec::new() };
        match kind {
            SFlag::S_IFDIR => {
                let found = open(dir, name, OFlag::O_DIRECTORY).map_err(at)?;
                item.xattrs = portable_xattrs(found.as_fd(), path)?;
                let is_opaque = options.upper && look_at_marks(found.as_fd(), path)?;
                self.item(&item, EntryType::Directory, None, io::empty())?;
                if is_opaque {
                    self.made(&path.join(".wh..wh..opq"), EntryType::Regular, 0)?;
                }
                return Ok(Some(found));
            }
            SFlag::S_IFREG => {
                let file = open(dir, name, OFlag::O_NONBLOCK | OFlag::O_NOCTTY).map_err(at)?;
                if options.upper {
                    look_at_marks(file.as_fd(), path)?;
                }
                self.file(item, file)?;
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(dir, name).map_err(at)?;
                self.item(&item, EntryType::Symlink, Some(Path::new(&target)), io::empty())?;
            }
            SFlag::S_IFCHR => self.item(&item, EntryType::Char, None, io::empty())?,
            SFlag::S_IFBLK => self.item(&item, EntryType::Block, None, io::empty())?,
            SFlag::S_IFIFO => self.item(&item, EntryType::Fifo, None, io::empty())?,
            // A socket is of use only to the process that listens.
            _ => {}
        }
        Ok(None)
    }

    fn file(&mut self, mut item: Item<'_>, file: OwnedFd) -> Result<()> {
        let at = |errno| Error::new(Step::PackLayer, errno).at(item.path);
        // Another file may have taken the name between stat and open.
        item.stat = fstat(&file).map_err(at)?;
        if item.stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Err(at(Errno::ESTALE).hint(CHANGES));
        }
        if item.stat.st_nlink > 1 {
            let inode = (item.stat.st_dev, item.stat.st_ino);
            if let Some(first) = self.linked.get(&inode).cloned() {
                return self.item(&item, EntryType::Link, Some(&first), io::empty());
            }
            self.linked.insert(inode, item.path.to_owned());
        }
        item.xattrs = portable_xattrs(file.as_fd(), item.path)?;
        let size = u64::try_from(item.stat.st_size).unwrap_or_default();
        self.room = self.room.checked_sub(size).ok_or_else(|| {
            at(Errno::EFBIG).hint("the files are larger than the limit of a layer; raise the limit if this is intended")
        })?;
        let mut data = Exactly { file: File::from(file), left: size };
        self.item(&item, EntryType::Regular, None, &mut data)
    }

    fn item(&mut self, item: &Item<'_>, kind: EntryType, link: Option<&Path>, mut data: impl Read) -> Result<()> {
        let size = if kind == EntryType::Regular { u64::try_from(item.stat.st_size).unwrap_or_default() } else { 0 };
        let mtime = u64::try_from(item.stat.st_mtime).unwrap_or_default().min(self.latest);
        let (uid, gid) = item.owner;
        let header = || -> Result<Vec<u8>, tar_core::HeaderError> {
            let mut entry = entry(item.path, kind);
            entry.mode(item.stat.st_mode & 0o7777)?.uid(uid.into())?.gid(gid.into())?.size(size)?.mtime(mtime)?;
            if let Some(link) = link {
                let is_hard = kind == EntryType::Link;
                let target = if is_hard { link.strip_prefix("/").unwrap_or(link) } else { link };
                entry.link_name(target.as_os_str().as_bytes());
            }
            if matches!(kind, EntryType::Char | EntryType::Block) {
                let number = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
                entry.device(number(major(item.stat.st_rdev)), number(minor(item.stat.st_rdev)))?;
            }
            for (name, value) in &item.xattrs {
                entry.add_pax(&format!("SCHILY.xattr.{name}"), value);
            }
            Ok(entry.finish_bytes())
        };
        let header = header().map_err(|error| unwritable(&error, item.path))?;
        let mut copy = || -> io::Result<()> {
            self.out.write_all(&header)?;
            let written = io::copy(&mut data, &mut self.out)?;
            let over = usize::try_from(written % BLOCK as u64).unwrap_or_default();
            self.out.write_all([0; BLOCK].get(over..).filter(|_| over > 0).unwrap_or_default())
        };
        copy().map_err(|error| failed(&error, item.path))
    }

    /// Writes the whiteout that hides a file of a lower layer.
    fn whiteout(&mut self, path: &Path) -> Result<()> {
        let mut name = OsString::from(".wh.");
        name.push(path.file_name().unwrap_or_default());
        self.made(&path.with_file_name(name), EntryType::Regular, 0)
    }

    /// Writes an entry that has no source file.
    fn made(&mut self, path: &Path, kind: EntryType, mode: u32) -> Result<()> {
        let header = || -> Result<Vec<u8>, tar_core::HeaderError> {
            let mut entry = entry(path, kind);
            entry.mode(mode)?.uid(0)?.gid(0)?.size(0)?.mtime(self.latest)?;
            Ok(entry.finish_bytes())
        };
        let header = header().map_err(|error| unwritable(&error, path))?;
        self.out.write_all(&header).map_err(|error| failed(&error, path))
    }
}

/// Builds an entry whose name has no leading slash, and a trailing slash for a directory.
fn entry(path: &Path, kind: EntryType) -> EntryBuilder {
    let mut name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes().to_vec();
    if kind == EntryType::Directory {
        name.push(b'/');
    }
    let mut entry = EntryBuilder::new_ustar();
    entry.path(name).entry_type(kind);
    entry
}

fn unwritable(error: &tar_core::HeaderError, path: &Path) -> Error {
    Error::message(ErrorKind::Setup, Step::PackLayer, error.to_string()).at(path)
}

/// Refuses names that are whiteouts in a layer: layer.md of the OCI image specification,
/// "Whiteouts".
fn check_name(path: &Path) -> Result<()> {
    if !path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT)) {
        return Ok(());
    }
    let detail = "a name that begins with .wh. means something else in a layer";
    Err(Error::message(ErrorKind::Setup, Step::PackLayer, detail)
        .at(path)
        .hint("give it another name, or leave it out"))
}

/// Returns true if a directory of an upper hides the same directory of lower layers. overlayfs
/// honours `trusted` marks, or `user` marks with the mount option `userxattr`, and copies up the
/// other kind as ordinary attributes. overlayfs sets an origin on each directory that it copies up
/// (Linux 4.12): so a `user` mark beside a `trusted` one is such a copy.
fn look_at_marks(file: BorrowedFd<'_>, path: &Path) -> Result<bool> {
    let names = xattr::list(file).map_err(|errno| Error::new(Step::PackLayer, errno).at(path))?;
    let has = |name: &[u8]| names.iter().any(|found| found.to_bytes() == name);
    let elsewhere = [".overlay.redirect", ".overlay.metacopy"];
    let elsewhere = elsewhere.iter().flat_map(|mark| ["trusted", "user"].map(|kind| format!("{kind}{mark}")));
    if let Some(mark) = elsewhere.into_iter().find(|mark| has(mark.as_bytes())) {
        let detail = format!("the mark {mark}: a part of it is in another place of the layers below");
        let error = Error::message(ErrorKind::Setup, Step::PackLayer, detail).at(path);
        return Err(error.hint("mount the overlay with redirect_dir=off,metacopy=off"));
    }
    let [trusted, user] = OPAQUE;
    let is_trusted = names.iter().any(|found| found.to_bytes().starts_with(b"trusted.overlay."));
    let mark = if is_trusted { trusted } else { user };
    let value = xattr::get(file, mark).map_err(|errno| Error::new(Step::PackLayer, errno).at(path))?;
    Ok(value.as_deref() == Some(b"y"))
}

fn failed(error: &io::Error, path: &Path) -> Error {
    Error::io(Step::PackLayer, error).at(path)
}

fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(dir, name, flags | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Returns the names in a directory sorted by bytes, so that the same tree gives the same layer.
fn names_in(dir: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A reader of a file that fails if the file's length differs from the length in its header.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = self.file.read(buffer)?;
        if count == 0 {
            return Err(io::Error::other("the file became shorter while it was packed"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const ENOUGH: u64 = 1 << 20;
    const LATEST: u64 = 1_000_000_000;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("ringfence-layer-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Tree(dir)
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn pack(&self, upper: bool, limit: u64) -> Result<Vec<u8>> {
            let dir = fs::File::open(&self.0).unwrap();
            let mut layer = LayerWriter::new(Vec::new(), LATEST, limit);
            layer.contents(dir.as_fd(), Path::new("/"), &PackOptions { upper, owner: &|_, _| Some((0, 0)) })?;
            layer.finish()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Returns, by path, the type, the link target and the contents of each entry.
    fn read(layer: &[u8]) -> BTreeMap<String, (tar::EntryType, Option<String>, String)> {
        let mut archive = tar::Archive::new(layer);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let link = entry.link_name().unwrap().map(|link| link.to_str().unwrap().to_owned());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(entry.header().mtime().unwrap() <= LATEST, "{path}");
            (path, (entry.header().entry_type(), link, text))
        });
        entries.collect()
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let tree = Tree::new("tree");
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
        tree.file("bin/tool", "tool");
        tree.file(&long, "deep");
        fs::set_permissions(tree.0.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(tree.0.join("bin/tool"), tree.0.join("bin/zwilling")).unwrap();
        symlink("t".repeat(300), tree.0.join("link")).unwrap();
        nix::unistd::mkfifo(&tree.0.join("fifo"), Mode::S_IRUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tree.0.join("socket")).unwrap();
        let entries = read(&tree.pack(false, ENOUGH).unwrap());
        let names: Vec<_> = entries.keys().map(String::as_str).collect();
        let dir = format!("{}/", "d".repeat(120));
        assert_eq!(names, ["bin/", "bin/tool", "bin/zwilling", &dir, &long, "fifo", "link"]);
        assert_eq!(entries["bin/tool"], (tar::EntryType::Regular, None, "tool".into()));
        assert_eq!(entries["bin/zwilling"], (tar::EntryType::Link, Some("bin/tool".into()), String::new()));
        assert_eq!(entries[&long].2, "deep");
        assert_eq!(entries["link"].1, Some("t".repeat(300)));
        assert_eq!(entries["fifo"].0, tar::EntryType::Fifo);
    }

    /// A program inside may nest directories to any depth, and the caller has one stack.
    #[test]
    fn a_tree_of_any_depth_takes_neither_the_stack_nor_the_descriptors() {
        for (depth, name, is_packed) in [(2000, "d", true), (2100, "d", false), (200, &"d".repeat(255)[..], false)] {
            let tree = Tree::new("deep");
            let mut dir: OwnedFd = File::open(&tree.0).unwrap().into();
            for _ in 0..depth {
                nix::sys::stat::mkdirat(&dir, name, Mode::S_IRWXU).unwrap();
                dir = open(dir.as_fd(), OsStr::new(name), OFlag::O_DIRECTORY).unwrap();
            }
            for file in [c"after", c"z"] {
                nix::sys::stat::mknodat(&dir, file, SFlag::S_IFREG, Mode::S_IRUSR, 0).unwrap();
            }
            fs::write(tree.0.join("z"), "last").unwrap();
            let packed = std::thread::scope(|scope| {
                let small = std::thread::Builder::new().stack_size(256 << 10);
                small.spawn_scoped(scope, || tree.pack(true, ENOUGH)).unwrap().join().unwrap()
            });
            let deepest = |kept: usize| format!("{}after", format!("{name}/").repeat(kept));
            match packed {
                Ok(layer) => {
                    let entries = read(&layer);
                    assert_eq!((entries.len(), entries.contains_key(&deepest(depth))), (depth + 3, is_packed));
                    assert_eq!(entries["z"].2, "last");
                }
                Err(error) => assert_eq!((error.raw_os_error(), is_packed), (Some(libc::ENAMETOOLONG), false)),
            }
            // The way up of std takes a descriptor for each directory.
            assert!(std::process::Command::new("rm").arg("-rf").arg(&tree.0).status().unwrap().success());
        }
    }

    /// What is packed may change meanwhile: a process outside of the build may write there.
    #[test]
    fn what_is_exchanged_for_a_link_is_not_packed_through_it() {
        let tree = Tree::new("swapped");
        tree.file("victim/file", "secret");
        tree.file("packed/file", "harmless");
        tree.file("packed/dir/file", "harmless");
        symlink(tree.0.join("victim/file"), tree.0.join("link-to-file")).unwrap();
        symlink(tree.0.join("victim"), tree.0.join("link-to-dir")).unwrap();
        let pairs = [("packed/file", "link-to-file"), ("packed/dir", "link-to-dir")].map(|(packed, link)| {
            let path = |name: &str| std::ffi::CString::new(tree.0.join(name).into_os_string().into_vec()).unwrap();
            (path(packed), path(link))
        });
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    for (packed, link) in &pairs {
                        let (cwd, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
                        let _ = nix::fcntl::renameat2(cwd, packed.as_c_str(), cwd, link.as_c_str(), flags);
                    }
                }
            });
            let (mut packed, mut refused) = (0, 0);
            let began = std::time::Instant::now();
            let is_short = |seconds| began.elapsed() < std::time::Duration::from_secs(seconds);
            while is_short(2) || (packed == 0 || refused == 0) && is_short(60) {
                let dir = fs::File::open(tree.0.join("packed")).unwrap();
                let mut layer = LayerWriter::new(Vec::new(), LATEST, ENOUGH);
                let options = PackOptions { upper: false, owner: &|_, _| Some((0, 0)) };
                match layer.contents(dir.as_fd(), Path::new("/"), &options) {
                    Ok(()) => packed += 1,
                    Err(_) => {
                        refused += 1;
                        continue;
                    }
                }
                let entries = read(&layer.finish().unwrap());
                if entries.values().any(|(.., text)| text.contains("secret")) {
                    over.store(true, std::sync::atomic::Ordering::Relaxed);
                    panic!("packed through a link: {entries:?}");
                }
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(packed > 0 && refused > 0, "nothing was raced: {packed} {refused}");
        });
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let names = ["z", "a", "m/1", "m/0", "b"];
        let [one, other] = ["one", "other"].map(Tree::new);
        names.iter().for_each(|name| one.file(name, name));
        names.iter().rev().for_each(|name| other.file(name, name));
        let layer = one.pack(false, ENOUGH).unwrap();
        assert_eq!(layer, other.pack(false, ENOUGH).unwrap());
        other.file("b", "B");
        assert_ne!(layer, other.pack(false, ENOUGH).unwrap());
    }

    #[test]
    fn the_marks_of_an_upper_become_the_specifications() {
        let tree = Tree::new("upper");
        tree.file("opaque/kept", "kept");
        let gone = tree.0.join("opaque/gone");
        nix::sys::stat::mknod(&gone, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        let opaque = fs::File::open(tree.0.join("opaque")).unwrap();
        xattr::set(opaque.as_fd(), c"user.overlay.opaque", b"y").unwrap();
        let entries = read(&tree.pack(true, ENOUGH).unwrap());
        let names: Vec<_> = entries.keys().map(String::as_str).collect();
        assert_eq!(names, ["opaque/", "opaque/.wh..wh..opq", "opaque/.wh.gone", "opaque/kept"]);
        // A directory that was not an upper has no such marks.
        let entries = read(&tree.pack(false, ENOUGH).unwrap());
        assert_eq!(entries["opaque/gone"].0, tar::EntryType::Char);
    }

    #[test]
    fn a_mark_that_was_copied_up_is_not_believed() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let tree = Tree::new("copied");
        tree.file("dir/kept", "kept");
        let dir = fs::File::open(tree.0.join("dir")).unwrap();
        xattr::set(dir.as_fd(), c"user.overlay.opaque", b"y").unwrap();
        xattr::set(dir.as_fd(), c"trusted.overlay.origin", b"").unwrap();
        let names = |layer: Vec<u8>| read(&layer).into_keys().collect::<Vec<_>>();
        assert_eq!(names(tree.pack(true, ENOUGH).unwrap()), ["dir/", "dir/kept"]);
        xattr::set(dir.as_fd(), c"trusted.overlay.opaque", b"y").unwrap();
        assert_eq!(names(tree.pack(true, ENOUGH).unwrap()), ["dir/", "dir/.wh..wh..opq", "dir/kept"]);
    }

    #[test]
    fn what_is_in_another_place_below_is_refused() {
        for name in [c"user.overlay.redirect", c"user.overlay.metacopy"] {
            for path in ["dir/file", "dir"] {
                let tree = Tree::new("elsewhere");
                tree.file("dir/file", "x");
                let marked = fs::File::open(tree.0.join(path)).unwrap();
                xattr::set(marked.as_fd(), name, b"/x").unwrap();
                let error = tree.pack(true, ENOUGH).unwrap_err();
                assert!(error.path().unwrap().ends_with(path), "{error}");
                assert!(error.to_string().contains(name.to_str().unwrap()), "{error}");
                assert!(tree.pack(false, ENOUGH).is_ok());
            }
        }
    }

    #[test]
    fn names_that_are_whiteouts_in_a_layer_are_refused() {
        for name in ["dir/.wh..wh..opq", "dir/.wh.file", ".wh.", ".wh.dir/file"] {
            let tree = Tree::new("names");
            tree.file(name, "x");
            for upper in [false, true] {
                let error = tree.pack(upper, ENOUGH).unwrap_err();
                let path = error.path().unwrap().to_str().unwrap().to_owned();
                assert!(path.contains("/.wh."), "{error}");
            }
        }
        assert!(LayerWriter::new(Vec::new(), LATEST, ENOUGH).directory(Path::new("/.wh.x")).is_err());
    }

    #[test]
    fn attributes_travel_and_those_of_the_host_do_not() {
        let tree = Tree::new("xattr");
        tree.file("file", "x");
        let file = fs::File::open(tree.0.join("file")).unwrap();
        xattr::set(file.as_fd(), c"user.note", b"a\0b").unwrap();
        xattr::set(file.as_fd(), c"user.overlay.origin", b"o").unwrap();
        let layer = tree.pack(true, ENOUGH).unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let records = entry.pax_extensions().unwrap().unwrap().map(|record| record.unwrap());
        let records: Vec<_> =
            records.map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec())).collect();
        assert_eq!(records, [("SCHILY.xattr.user.note".to_owned(), b"a\0b".to_vec())]);
        // A pax header would hold another name.
        for name in [c"user.a=b", c"user.\xff"] {
            let tree = Tree::new("xattr-name");
            tree.file("file", "x");
            let file = fs::File::open(tree.0.join("file")).unwrap();
            xattr::set(file.as_fd(), name, b"c").unwrap();
            let error = tree.pack(true, ENOUGH).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EILSEQ), "{error}");
            assert!(error.to_string().contains("extended attribute"), "{error}");
        }
    }

    #[test]
    fn a_file_of_an_exbibyte_of_nothing_is_refused() {
        let tree = Tree::new("sparse");
        let file = fs::File::create(tree.0.join("sparse")).unwrap();
        file.set_len(ENOUGH + 1).unwrap();
        let error = tree.pack(false, ENOUGH).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        assert!(error.path().unwrap().ends_with("sparse"));
        file.set_len(ENOUGH).unwrap();
        assert!(tree.pack(false, ENOUGH).is_ok());
    }

    #[test]
    fn an_owner_without_an_id_is_refused() {
        let tree = Tree::new("owner");
        tree.file("file", "x");
        let dir = fs::File::open(&tree.0).unwrap();
        let mut layer = LayerWriter::new(Vec::new(), LATEST, ENOUGH);
        let error = layer
            .contents(dir.as_fd(), Path::new("/"), &PackOptions { upper: false, owner: &|_, _| None })
            .unwrap_err();
        assert!(error.to_string().contains("owner"), "{error}");
    }
}
