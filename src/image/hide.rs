//! How a layer hides what the layers below have: by whiteouts alone, one for each name that would be seen.
//!
//! overlayfs knows a mark for a whole directory as well. Of its two kinds a mount believes one, and takes the other for an
//! attribute as any, which it copies up with the directory: what is written to a layer would hide files for a mount of the other
//! kind, and for who makes a layer of the upper. Whiteouts serve both, and are never copied up.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::lowers::{Found, Lowers, within};
use super::tree::{InRoot, Place, Tree, is_whiteout, kind_of, push};
use super::unpack::{Unpacked, failed, whiteout_failed};
use crate::error::Result;

/// A directory of the layer, and those below it that are shown as one.
struct Pair {
    path: InRoot,
    own: OwnedFd,
    below: Vec<OwnedFd>,
}

/// Makes the whiteouts of the directories that show nothing of those below, and takes those away that hide nothing: overlayfs
/// lists a whiteout in a directory that it merges with nothing.
pub(super) fn hide(layer: &mut Unpacked, lowers: &Lowers) -> Result<()> {
    drop_hidden(layer)?;
    // All that is below is left out of the overlay.
    let alone = layer.tree.hiding.contains(&InRoot::new());
    if !alone {
        for path in layer.tree.hiding.clone() {
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

/// Takes away whiteouts in what shows nothing of those below, and directories that only these have implied.
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
    // Inner ones first.
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

/// The place of a whiteout, unless later entries have replaced it.
fn whiteout_at(tree: &mut Tree, path: &[u8]) -> nix::Result<Option<Place>> {
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
        // A later entry has replaced it.
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        own => own.map_err(fail)?,
    };
    layer.count(path)?;
    let mut todo = vec![Pair { path: path.to_vec(), own, below }];
    while let Some(pair) = todo.pop() {
        for (at, dir) in pair.below.iter().enumerate() {
            let fail = |errno| failed(errno, &pair.path);
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let mut reader = Dir::openat(dir, c".", flags, Mode::empty()).map_err(fail)?;
            for entry in reader.iter() {
                let entry = entry.map_err(fail)?;
                let name = entry.file_name();
                // What an upper one of them has was seen to there.
                if matches!(name.to_bytes(), b"." | b"..") || is_in(pair.below.get(..at), name) {
                    continue;
                }
                todo.extend(hide_name(layer, &pair, name)?);
            }
        }
    }
    Ok(())
}

fn is_in(dirs: Option<&[OwnedFd]>, name: &CStr) -> bool {
    dirs.unwrap_or_default().iter().any(|dir| fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok())
}

/// Hides one name. Directories that both have are given back: what is in them is to be hidden as well.
fn hide_name(layer: &mut Unpacked, pair: &Pair, name: &CStr) -> Result<Option<Pair>> {
    let mut path = pair.path.clone();
    push(&mut path, name.to_bytes());
    let fail = |errno| failed(errno, &path);
    let found = within(&pair.below, OsStr::from_bytes(name.to_bytes())).map_err(fail)?;
    if let Found::Nothing = found {
        return Ok(None);
    }
    match fstatat(&pair.own, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => {
            layer.account.take_entries(1, &path)?;
            let made = mknodat(&pair.own, name, SFlag::S_IFCHR, Mode::empty(), 0);
            made.map_err(|errno| whiteout_failed(errno, &layer.tree, &path)).map(|()| None)
        }
        Ok(stat) if kind_of(&stat) == SFlag::S_IFDIR => {
            let Found::Directory(below) = found else { return Ok(None) };
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let own = openat(pair.own.as_fd(), name, flags, Mode::empty()).map_err(fail)?;
            Ok(Some(Pair { path, own, below }))
        }
        stat => stat.map_err(fail).map(|_| None),
    }
}
