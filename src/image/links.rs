//! Hard links to files of lower layers. overlayfs has no hard links between layers: so the layer
//! gets a copy of the file, under the names that the archive links, and under the file's own names,
//! unless the layer replaces these.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstatat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Gid, Uid, UnlinkatFlags, Whence, fchownat, ftruncate, lseek, symlinkat, unlinkat};

use super::attributes::copy_attributes;
use super::lowers::{Found, Lowers};
use super::tree::{EntryAt, InRoot, is_whiteout, kind_of, push, shown, split};
use super::unpack::{Ids, Link, Unpacked, failed, link, permissions};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{by_fd, file_size};

const BUFFER: usize = 128 << 10;

/// A file of the lower layers that the layer has a copy of.
#[derive(Debug)]
pub(super) struct Copied {
    /// The number of the placeholder, which has become the copy.
    number: usize,
    /// The file's path in the lower layers, and whether it has other names there.
    path: InRoot,
    others: bool,
}

/// Copied files by their inode in the lower layers, which are all on one file system.
pub(super) type CopiedByInode = BTreeMap<u64, Copied>;

/// The placeholder of a link: its number, its place, and its inode before it became a copy.
struct Placeholder {
    number: usize,
    place: EntryAt,
    inode: u64,
}

/// Records which link targets the layer replaces by other files. Must run before entries move to
/// where links of lower layers lead.
pub(super) fn mark_replaced(layer: &mut Unpacked) -> Result<()> {
    for link in &mut layer.links {
        let fail = |errno| failed(errno, &link.target);
        if let Some(place) = layer.tree.find(&link.target).map_err(fail)? {
            link.is_replaced = place.stat().map_err(fail)?.is_some();
        }
    }
    Ok(())
}

/// Turns all placeholders into copies of the files that they stand for.
pub(super) fn fill(layer: &mut Unpacked, lowers: &Lowers, ids: Ids) -> Result<CopiedByInode> {
    let mut copied = BTreeMap::new();
    for number in 0..layer.links.len() {
        let Some(link) = layer.links.get_mut(number).map(std::mem::take) else { break };
        let fail = |errno| failed(errno, &link.target);
        let place = layer.tree.placeholder(number).map_err(fail)?;
        // If the placeholder has only one name, later entries have replaced all its links.
        if let Some(stat) = place.stat().map_err(fail)?.filter(|stat| stat.st_nlink > 1) {
            let placeholder = Placeholder { number, place, inode: stat.st_ino };
            fill_one(layer, lowers, ids, &link, &placeholder, &mut copied)?;
        }
    }
    Ok(copied)
}

fn missing(link: &Link) -> Error {
    let detail = format!("a hard link to {}, which is not there", shown(&link.target));
    let error = Error::message(ErrorKind::Corrupt, Step::UnpackLayer, detail);
    error.at(shown(link.names.first().map(Vec::as_slice).unwrap_or_default()))
}

fn fill_one(
    layer: &mut Unpacked,
    lowers: &Lowers,
    ids: Ids,
    link: &Link,
    placeholder: &Placeholder,
    copied: &mut CopiedByInode,
) -> Result<()> {
    let fail = |errno| failed(errno, &link.target);
    let (dir, name) = split(&link.target).unwrap_or_default();
    let mut path = lowers.resolve(dir).map_err(fail)?.ok_or_else(|| missing(link))?;
    push(&mut path, name);
    let is_moved = path != link.target || !link.is_replaced;
    if is_moved && link_to_own(layer, lowers, link, placeholder, &path)? {
        return Ok(());
    }
    let Found::Other(dir, stat) = lowers.find(&path).map_err(fail)? else { return Err(missing(link)) };
    if link.is_removed {
        return Err(missing(link));
    }
    if let Some(copied) = copied.get(&stat.st_ino) {
        let copy = layer.tree.placeholder(copied.number).map_err(fail)?;
        return replace_names(layer, lowers, link, placeholder, &copy);
    }
    let from = EntryAt { dir: dir.into(), name: CString::new(name).map_err(|_| fail(Errno::EINVAL))? };
    let source = if kind_of(&stat) == SFlag::S_IFREG { from.open(OFlag::O_RDONLY) } else { Err(Errno::EACCES) };
    match source {
        Ok(source) => copy_file(layer, ids, &File::from(source), &stat, placeholder, &link.target)?,
        Err(Errno::EACCES) => {
            copy_other(ids, &from, &stat, &placeholder.place).map_err(fail)?;
            replace_names(layer, lowers, link, placeholder, &placeholder.place)?;
        }
        Err(errno) => return Err(fail(errno)),
    }
    copied.insert(stat.st_ino, Copied { number: placeholder.number, path, others: stat.st_nlink > 1 });
    Ok(())
}

/// Links the names to a file of this layer instead, if a link of a lower layer has moved that file,
/// or the hard link, to the same path. The archive may have the file after the hard link; both
/// orders give the same result.
fn link_to_own(
    layer: &mut Unpacked,
    lowers: &Lowers,
    link: &Link,
    placeholder: &Placeholder,
    path: &[u8],
) -> Result<bool> {
    let fail = |errno| failed(errno, path);
    let Some(own) = layer.tree.find(path).map_err(fail)? else { return Ok(false) };
    let Some(stat) = own.stat().map_err(fail)? else { return Ok(false) };
    if is_whiteout(&stat) || kind_of(&stat) == SFlag::S_IFDIR || stat.st_ino == placeholder.inode {
        return Ok(false);
    }
    replace_names(layer, lowers, link, placeholder, &own)?;
    if let Some(other) = layer.placeholders.get(&stat.st_ino).and_then(|number| layer.links.get_mut(*number)) {
        other.names.extend_from_slice(&link.names);
    }
    Ok(true)
}

/// Replaces all names of the placeholder by links to `to`.
fn replace_names(
    layer: &mut Unpacked,
    lowers: &Lowers,
    wanted: &Link,
    placeholder: &Placeholder,
    to: &EntryAt,
) -> Result<()> {
    for name in &wanted.names {
        let fail = |errno| failed(errno, name);
        let (dir, own) = split(name).unwrap_or_default();
        let mut led = lowers.resolve(dir).map_err(fail)?.unwrap_or_default();
        push(&mut led, own);
        for name in [name, &led] {
            let Some(place) = layer.tree.find(name).map_err(fail)? else { continue };
            if place.stat().map_err(fail)?.is_some_and(|stat| stat.st_ino == placeholder.inode) {
                unlinkat(&place.dir, place.name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(fail)?;
                link(to, &place).map_err(fail)?;
            }
        }
    }
    Ok(())
}

fn copy_file(
    layer: &mut Unpacked,
    ids: Ids,
    source: &File,
    stat: &FileStat,
    to: &Placeholder,
    path: &[u8],
) -> Result<()> {
    let fail = |errno| failed(errno, path);
    let copy = File::from(to.place.open(OFlag::O_WRONLY).map_err(fail)?);
    copy_contents(layer, source, &copy, stat.st_size, path)?;
    copy_attributes(ids, source.as_fd(), stat, &copy).map_err(fail)
}

/// Copies the contents of a file, and keeps its holes, as they can be terabytes.
fn copy_contents(layer: &mut Unpacked, from: &File, to: &File, size: i64, path: &[u8]) -> Result<()> {
    let fail = |errno| failed(errno, path);
    file_size::check(size.unsigned_abs()).map_err(fail)?;
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < size {
        let start = match lseek(from.as_fd(), at, Whence::SeekData) {
            // The rest of the file is a hole.
            Err(Errno::ENXIO) => break,
            start => start.map_err(fail)?,
        };
        let end = lseek(from.as_fd(), start, Whence::SeekHole).map_err(fail)?;
        layer.quota.take_bytes(end.abs_diff(start), path)?;
        at = start;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
            let count = pread(from, buffer.get_mut(..most).unwrap_or_default(), at).map_err(fail)?;
            if count == 0 {
                return Err(fail(Errno::EIO));
            }
            let mut part = buffer.get(..count).unwrap_or_default();
            while !part.is_empty() {
                let written = pwrite(to, part, at).map_err(fail)?;
                part = part.get(written..).unwrap_or_default();
                at += written as i64;
            }
        }
    }
    ftruncate(to, size).map_err(fail)
}

/// Creates a symbolic link, a device or a FIFO in place of the placeholder. A regular file that the
/// user may not read is linked to the lower layer's file.
fn copy_other(ids: Ids, from: &EntryAt, stat: &FileStat, to: &EntryAt) -> nix::Result<()> {
    let (dir, name) = (&to.dir, to.name.as_c_str());
    unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
    match kind_of(stat) {
        SFlag::S_IFREG => return link(from, to),
        SFlag::S_IFLNK => symlinkat(readlinkat(&from.dir, from.name.as_c_str())?.as_os_str(), dir, name)?,
        kind => mknodat(dir, name, kind, Mode::S_IRUSR, stat.st_rdev)?,
    }
    if ids == Ids::Kept {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    if kind_of(stat) != SFlag::S_IFLNK {
        by_fd::chmod(&by_fd::look(dir.as_fd(), name)?, permissions(stat.st_mode))?;
    }
    let time = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

/// Links the copies to the names that the files have in the lower layers, so that all names lead to
/// one file, except names that the layer replaces or hides.
pub(super) fn link_back(layer: &mut Unpacked, lowers: &Lowers, copied: &CopiedByInode) -> Result<()> {
    let others = if copied.values().any(|file| file.others) { other_names(lowers)? } else { HashMap::new() };
    for (inode, file) in copied {
        let source = layer.tree.placeholder(file.number).map_err(|errno| failed(errno, &file.path))?;
        let others = others.get(inode).filter(|_| file.others).into_iter().flatten();
        for path in others.chain([&file.path]) {
            let fail = |errno| failed(errno, path);
            let same = |stat: &FileStat| stat.st_ino == *inode;
            let seen = matches!(lowers.find(path).map_err(fail)?, Found::Other(_, stat) if same(&stat));
            if !seen || layer.tree.hides_real_way(path).map_err(fail)? {
                continue;
            }
            layer.quota.take_entries(1, path)?;
            let Some(place) = layer.tree.place(path).map_err(fail)? else { continue };
            match link(&source, &place) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
            layer.count(path)?;
        }
    }
    Ok(())
}

/// Returns all names of the files that have several in the lower layers, by inode.
fn other_names(lowers: &Lowers) -> Result<HashMap<u64, Vec<InRoot>>> {
    let mut all: HashMap<u64, Vec<InRoot>> = HashMap::new();
    for root in lowers.roots() {
        let mut todo = vec![InRoot::new()];
        while let Some(path) = todo.pop() {
            names_in(root, &path, &mut todo, &mut all).map_err(|errno| failed(errno, &path))?;
        }
    }
    Ok(all)
}

fn names_in(
    root: &OwnedFd,
    path: &[u8],
    todo: &mut Vec<InRoot>,
    all: &mut HashMap<u64, Vec<InRoot>>,
) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let here = if path.is_empty() { b".".as_slice() } else { path };
    let dir = openat(root, OsStr::from_bytes(here), flags, Mode::empty())?;
    let mut reader = Dir::openat(&dir, c".", flags, Mode::empty())?;
    for entry in reader.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || entry.file_type() == Some(Type::CharacterDevice) {
            continue;
        }
        let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let mut path = path.to_vec();
        push(&mut path, name.to_bytes());
        match kind_of(&stat) {
            SFlag::S_IFDIR => todo.push(path),
            _ if stat.st_nlink > 1 => all.entry(stat.st_ino).or_default().push(path),
            _ => {}
        }
    }
    Ok(())
}
