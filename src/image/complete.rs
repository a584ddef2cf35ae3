//! Completes a layer with what depends on the layers below, once these are there.
//!
//! An archive may leave out directories that a lower layer has: `usr/bin/x` without `usr` and
//! `usr/bin`. overlayfs needs these directories, and shows their owner, mode and attributes; so
//! they get those of the lower layer. Where the lower layer has a symbolic link in place of such a
//! directory, the entries move to the link's target. Hard links to files of a lower layer need
//! [copies](super::links). The names that the layer [hides](super::hide) are found in the lower
//! layers.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat, futimens};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::attributes::copy_attributes;
use super::hide::hide;
use super::links;
use super::lowers::{Found, Lowers};
use super::tree::{self, InRoot, at_or_below, kind_of};
use super::unpack::{Directory, Ids, Unpacked, failed, permissions, time};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::by_fd;

/// The largest number of directories that links of lower layers may move, and of names in them.
const MOVES_MAX: usize = 10_000;
const ALONG_MAX: usize = 1_000_000;

/// Completes the layer. Modes and times are set last: other changes would alter the times, and the
/// modes would prevent other changes.
pub(super) fn complete(layer: &mut Unpacked, lowers: &Lowers, ids: Ids) -> Result<()> {
    links::mark_replaced(layer)?;
    resolve_opaque(layer, lowers)?;
    move_implied(layer, lowers, ids)?;
    let copied = links::fill(layer, lowers, ids)?;
    links::link_back(layer, lowers, &copied)?;
    hide(layer, lowers)?;
    finish_directories(layer, lowers, ids)
}

/// Replaces the paths of opaque directories that the layer does not have itself by those that links
/// of lower layers lead to.
fn resolve_opaque(layer: &mut Unpacked, lowers: &Lowers) -> Result<()> {
    for path in layer.tree.opaque.clone() {
        if path.is_empty() || is_dir(layer, &path)? {
            continue;
        }
        if let Some(target) = lowers.resolve(&path).map_err(|errno| failed(errno, &path))?.filter(|real| *real != path)
        {
            layer.tree.opaque.remove(&path);
            layer.tree.add_opaque(target);
        }
    }
    layer.count(b"")
}

/// Moves the entries of implied directories that are links in a lower layer.
fn move_implied(layer: &mut Unpacked, lowers: &Lowers, ids: Ids) -> Result<()> {
    let mut todo = layer.tree.implied.clone();
    let (mut moves, mut along) = (0, 0);
    while let Some(path) = todo.pop_first() {
        let fail = |errno| failed(errno, &path);
        if layer.tree.is_hidden(&path) {
            continue;
        }
        let Found::Other(_, stat) = lowers.find(&path).map_err(fail)? else { continue };
        if kind_of(&stat) != SFlag::S_IFLNK {
            continue;
        }
        let Some(target) = lowers.resolve(&path).map_err(fail)? else { continue };
        let within = target.starts_with(&path) && target.get(path.len()).is_none_or(|byte| *byte == b'/');
        let file = matches!(lowers.find(&target).map_err(fail)?, Found::Other(..));
        if within || file || !is_dir(layer, &path)? {
            continue;
        }
        relocate(layer, ids, &path, &target).map_err(fail)?;
        let moved = rename_all(layer, &path, &target);
        (moves, along) = (moves + 1, along + moved.len());
        if moves > MOVES_MAX || along > ALONG_MAX {
            let detail = "too many directories that are links in lower layers";
            return Err(Error::message(ErrorKind::TooLarge, Step::UnpackLayer, detail));
        }
        layer.count(&path)?;
        for (old, new) in moved {
            todo.remove(&old);
            todo.extend(new);
        }
    }
    Ok(())
}

fn is_dir(layer: &mut Unpacked, path: &[u8]) -> Result<bool> {
    let fail = |errno| failed(errno, path);
    let stat = match layer.tree.find(path).map_err(fail)? {
        Some(place) => place.stat().map_err(fail)?,
        None => None,
    };
    Ok(stat.is_some_and(|stat| kind_of(&stat) == SFlag::S_IFDIR))
}

fn relocate(layer: &mut Unpacked, ids: Ids, path: &[u8], target: &[u8]) -> nix::Result<()> {
    let Some(place) = layer.tree.find(path)? else { return Ok(()) };
    if layer.tree.has_only_whiteouts(place.open_dir()?)? && layer.tree.replaces(target)? {
        return layer.tree.clear(path, &place);
    }
    let to = match layer.tree.dir(target) {
        // A later entry has removed the whole directory.
        Err(Errno::ENOTDIR) => return layer.tree.clear(path, &place),
        to => to?,
    };
    merge(layer, ids, (path, &place.open_dir()?), (target, &to))?;
    unlinkat(&place.dir, place.name.as_c_str(), UnlinkatFlags::RemoveDir)?;
    layer.tree.moved();
    Ok(())
}

/// Renames a moved directory, and all below it, in the layer's lists. Returns the paths of the
/// directories, each with its new path if it is still implied.
fn rename_all(layer: &mut Unpacked, path: &[u8], target: &[u8]) -> Vec<(InRoot, Option<InRoot>)> {
    let renamed = |old: &InRoot| in_dir(target, old.get(path.len()..).unwrap_or_default());
    let explicit: BTreeSet<InRoot> = layer
        .directories
        .range(path.to_vec()..)
        .map(|(path, _)| path)
        .take_while(|p| p.starts_with(path))
        .cloned()
        .collect();
    for old in at_or_below(&explicit, path) {
        let new = renamed(&old);
        if let Some(directory) = layer.directories.remove(&old) {
            layer.tree.implied.remove(&new);
            layer.directories.entry(new).or_insert(directory);
        }
    }
    for set in [&mut layer.tree.opaque, &mut layer.tree.whiteouts] {
        for old in at_or_below(set, path) {
            set.remove(&old);
            set.insert(renamed(&old));
        }
    }
    let below = |name: &InRoot| name.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
    for name in layer.links.iter_mut().flat_map(|link| &mut link.names).filter(|name| below(name)) {
        *name = renamed(name);
    }
    let mut moved = Vec::new();
    for old in at_or_below(&layer.tree.implied, path) {
        layer.tree.implied.remove(&old);
        let new = renamed(&old);
        // The target itself was made, and recorded, when it was opened.
        let is_implied = old.as_slice() != path && !layer.directories.contains_key(&new);
        if is_implied {
            layer.tree.implied.insert(new.clone());
        }
        moved.push((old, is_implied.then_some(new)));
    }
    moved
}

/// Gives implied directories the attributes of the lower layers' directories, and other directories
/// those of the archive. Inner directories come first.
fn finish_directories(layer: &mut Unpacked, lowers: &Lowers, ids: Ids) -> Result<()> {
    let mut implied = std::mem::take(&mut layer.tree.implied);
    let mut explicit = std::mem::take(&mut layer.directories);
    loop {
        let is_explicit = explicit.last_key_value().map(|(path, _)| path) >= implied.last();
        let next = if is_explicit {
            explicit.pop_last().map(|(path, directory)| (path, Some(directory)))
        } else {
            implied.pop_last().map(|path| (path, None))
        };
        let Some((path, directory)) = next else { return Ok(()) };
        let fail = |errno| failed(errno, &path);
        let Some(dir) = open_dir(layer, &path).map_err(fail)? else { continue };
        match directory {
            Some(Directory { mode, mtime }) => {
                fchmod(&dir, permissions(mode)).map_err(fail)?;
                futimens(&dir, &time(mtime), &time(mtime)).map_err(fail)?;
            }
            None => copy_from_lower(layer, lowers, ids, &path, &dir).map_err(fail)?,
        }
    }
}

/// Opens the directory at `path`. Returns `None` if later entries have replaced it.
fn open_dir(layer: &mut Unpacked, path: &[u8]) -> nix::Result<Option<OwnedFd>> {
    let opened = match layer.tree.find(path)? {
        Some(place) => place.open_dir(),
        None if path.is_empty() => layer.tree.root().as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE),
        None => return Ok(None),
    };
    match opened {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn copy_from_lower(layer: &Unpacked, lowers: &Lowers, ids: Ids, path: &[u8], dir: &OwnedFd) -> nix::Result<()> {
    let below = if layer.tree.is_hidden(path) { Found::Nothing } else { lowers.find(path)? };
    match below.top()? {
        Some((from, stat)) => copy_attributes(ids, from.as_fd(), &stat, dir),
        None => {
            fchmod(dir, permissions(0o755))?;
            futimens(dir, &time((0, 0)), &time((0, 0)))
        }
    }
}

/// Moves the entries of one directory into another, and merges directories that both have. The
/// depth is limited, as paths in the archive are limited to PATH_MAX.
fn merge(
    layer: &Unpacked,
    ids: Ids,
    (from_path, from): (&[u8], &OwnedFd),
    (to_path, to): (&[u8], &OwnedFd),
) -> nix::Result<()> {
    let clone = |dir: &OwnedFd| dir.try_clone().map_err(|_| Errno::EMFILE);
    let mut pairs = vec![(clone(from)?, clone(to)?, InRoot::new())];
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut emptied = Vec::new();
    while let Some((from, to, rest)) = pairs.pop() {
        let mut reader = Dir::openat(&from, c".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let names: Vec<_> = reader.iter().map(|e| e.map(|e| e.file_name().to_owned())).collect::<nix::Result<_>>()?;
        for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
            let name_in = |dir| (dir, name.as_c_str());
            match by_fd::rename(name_in(from.as_fd()), name_in(to.as_fd()), libc::RENAME_NOREPLACE) {
                Err(Errno::EEXIST) => {}
                result => {
                    result?;
                    continue;
                }
            }
            let open = |dir: &OwnedFd| openat(dir, name.as_c_str(), flags, Mode::empty());
            match (open(&from), open(&to)) {
                (Ok(inner_from), Ok(inner_to)) => {
                    let rest = in_dir(&rest, name.to_bytes());
                    let tells = |dir: &[u8]| layer.directories.contains_key(&in_dir(dir, &rest));
                    if tells(from_path) && !tells(to_path) {
                        copy_attributes(ids, inner_from.as_fd(), &fstat(&inner_from)?, &inner_to)?;
                    }
                    pairs.push((inner_from, inner_to, rest));
                    emptied.push((clone(&from)?, name.clone()));
                }
                _ => merge_files(&from, &to, name)?,
            }
        }
    }
    emptied.iter().rev().try_for_each(|(dir, name)| unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir))
}

fn in_dir(dir: &[u8], rest: &[u8]) -> InRoot {
    let mut path = dir.to_vec();
    tree::names(rest).for_each(|name| tree::push(&mut path, name));
    path
}

/// Merges two entries of one name. If both paths have different files in the archive, the merge
/// fails. If one is a whiteout, the other one stays, as a file of the layer hides lower files by
/// itself.
fn merge_files(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> nix::Result<()> {
    let stat = |dir: &OwnedFd| fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    let (here, there) = (stat(from)?, stat(to)?);
    let has_dir = [here, there].iter().any(|stat| kind_of(stat) == SFlag::S_IFDIR);
    match (has_dir, tree::is_whiteout(&here), tree::is_whiteout(&there)) {
        (false, true, _) => unlinkat(from, name, UnlinkatFlags::NoRemoveDir),
        (false, false, true) => renameat(from, name, to, name),
        _ => Err(Errno::ENOTDIR),
    }
}
