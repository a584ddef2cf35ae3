//! Hides names of lower layers with whiteouts: one whiteout for each name that overlayfs would
//! show.
//!
//! overlayfs also has an opaque mark for a whole directory, in two kinds. A mount honours one kind,
//! and copies up the other as an ordinary attribute: such a mark in the upper of a sandbox would
//! then hide files from a mount of the other kind, and from a build that makes a layer of the
//! upper. Whiteouts work for both kinds of mounts, and are never copied up.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::lowers::{Found, Lowers, within_as};
use super::tree::{EntryAt, InRoot, Tree, is_whiteout, kind_of, names, push};
use super::unpack::{Unpacked, failed, whiteout_failed};
use crate::error::Result;
use crate::sys::by_fd;

/// A directory of the layer, and the lower directories that overlayfs merges with it.
struct MergedDir {
    path: InRoot,
    own: OwnedFd,
    below: Vec<OwnedFd>,
}

/// A directory in a [`MergedDir`] that is still to be looked through. An archive may have any number
/// of them, so none is open.
struct Pending {
    /// The path below the merged directory.
    path: InRoot,
    /// Which of the lower directories are merged here.
    below: Vec<usize>,
}

impl MergedDir {
    /// Opens a directory in this one.
    fn open(&self, pending: &Pending) -> nix::Result<MergedDir> {
        let mut path = self.path.clone();
        names(&pending.path).for_each(|name| push(&mut path, name));
        let own = by_fd::open_deep(self.own.as_fd(), &pending.path)?;
        let lowers = pending.below.iter().filter_map(|at| self.below.get(*at));
        let below = lowers.map(|dir| by_fd::open_deep(dir.as_fd(), &pending.path)).collect::<nix::Result<_>>()?;
        Ok(MergedDir { path, own, below })
    }
}

/// Adds the whiteouts of opaque directories, and removes whiteouts that hide nothing: overlayfs
/// lists a whiteout in a directory that is not merged with another.
pub(super) fn hide(layer: &mut Unpacked, lowers: &Lowers) -> Result<()> {
    drop_hidden(layer)?;
    // The overlay leaves out all lower layers.
    let alone = layer.tree.opaque.contains(&InRoot::new());
    if !alone {
        for path in layer.tree.opaque.clone() {
            hide_below(layer, lowers, &path)?;
        }
    }
    for path in std::mem::take(&mut layer.tree.whiteouts) {
        let fail = |errno| failed(errno, &path);
        if !alone && !matches!(lowers.find(&path).map_err(fail)?, Found::Nothing) {
            continue;
        }
        if let Some(place) = whiteout_at(&mut layer.tree, &path).map_err(fail)? {
            unlinkat(&place.dir, place.name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(fail)?;
        }
    }
    Ok(())
}

/// Removes whiteouts in opaque directories, and directories that only such whiteouts have implied.
fn drop_hidden(layer: &mut Unpacked) -> Result<()> {
    let tree = &mut layer.tree;
    let is_hidden = |path: &&InRoot| tree.is_hidden(path);
    let whiteouts: Vec<InRoot> = tree.whiteouts.iter().filter(is_hidden).cloned().collect();
    let implied: Vec<InRoot> = tree.implied.iter().filter(is_hidden).cloned().collect();
    for path in &whiteouts {
        let fail = |errno| failed(errno, path);
        if let Some(place) = whiteout_at(tree, path).map_err(fail)? {
            unlinkat(&place.dir, place.name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(fail)?;
        }
        tree.whiteouts.remove(path);
    }
    // Inner directories come first.
    for path in implied.iter().rev() {
        let fail = |errno| failed(errno, path);
        let Some(place) = tree.find(path).map_err(fail)? else { continue };
        match unlinkat(&place.dir, place.name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) => tree.implied.remove(path),
            Err(Errno::ENOTEMPTY | Errno::ENOTDIR | Errno::ENOENT) => false,
            Err(errno) => return Err(fail(errno)),
        };
    }
    tree.moved();
    layer.count(b"")
}

/// Returns the place of a whiteout, unless a later entry has replaced the whiteout.
fn whiteout_at(tree: &mut Tree, path: &[u8]) -> nix::Result<Option<EntryAt>> {
    let Some(place) = tree.find(path)? else { return Ok(None) };
    Ok(place.stat()?.filter(is_whiteout).map(|_| place))
}

fn hide_below(layer: &mut Unpacked, lowers: &Lowers, path: &[u8]) -> Result<()> {
    let fail = |errno| failed(errno, path);
    let Found::Directory(below) = lowers.find(path).map_err(fail)? else { return Ok(()) };
    if layer.tree.hides_real_way(path).map_err(fail)? {
        return Ok(());
    }
    let Some(place) = layer.tree.place(path).map_err(fail)? else { return Ok(()) };
    let own = match place.open_dir() {
        Err(Errno::ENOENT) => layer.tree.dir(path).and_then(|_| place.open_dir()).map_err(fail)?,
        // A later entry has replaced the directory.
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        own => own.map_err(fail)?,
    };
    layer.count(path)?;
    let mut todo = vec![Pending { path: InRoot::new(), below: (0..below.len()).collect() }];
    let top = MergedDir { path: path.to_vec(), own, below };
    while let Some(pending) = todo.pop() {
        let merged = top.open(&pending).map_err(fail)?;
        for (at, dir) in merged.below.iter().enumerate() {
            let fail = |errno| failed(errno, &merged.path);
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let mut reader = Dir::openat(dir, c".", flags, Mode::empty()).map_err(fail)?;
            for entry in reader.iter() {
                let entry = entry.map_err(fail)?;
                let name = entry.file_name();
                // A name that an upper one of these directories has was handled there.
                if matches!(name.to_bytes(), b"." | b"..") || is_in(merged.below.get(..at), name) {
                    continue;
                }
                let Some(places) = hide_name(layer, &merged, name)? else { continue };
                let mut path = pending.path.clone();
                push(&mut path, name.to_bytes());
                let below = places.iter().filter_map(|at| pending.below.get(*at).copied()).collect();
                todo.push(Pending { path, below });
            }
        }
    }
    Ok(())
}

fn is_in(dirs: Option<&[OwnedFd]>, name: &CStr) -> bool {
    dirs.unwrap_or_default().iter().any(|dir| fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok())
}

/// Hides one name. If the layer and the lower layers both have a directory of this name, whose
/// contents have to be hidden as well, returns which of the lower ones are merged with it.
fn hide_name(layer: &mut Unpacked, merged: &MergedDir, name: &CStr) -> Result<Option<Vec<usize>>> {
    let mut path = merged.path.clone();
    push(&mut path, name.to_bytes());
    let fail = |errno| failed(errno, &path);
    let (found, places) = within_as(&merged.below, OsStr::from_bytes(name.to_bytes())).map_err(fail)?;
    if let Found::Nothing = found {
        return Ok(None);
    }
    match fstatat(&merged.own, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => {
            layer.quota.take_entries(1, &path)?;
            let made = mknodat(&merged.own, name, SFlag::S_IFCHR, Mode::empty(), 0);
            made.map_err(|errno| whiteout_failed(errno, &layer.tree, &path)).map(|()| None)
        }
        Ok(stat) if kind_of(&stat) == SFlag::S_IFDIR => Ok(matches!(found, Found::Directory(_)).then_some(places)),
        stat => stat.map_err(fail).map(|_| None),
    }
}
