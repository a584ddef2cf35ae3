//! The host's files that belong to the sandbox: those that the program finds as its own, and those
//! that the program leaves.
//!
//! The owner on disk is an id that stays. A sandbox that has another id each time it runs would
//! find its own files of the last time to be somebody else's. So its mounts exchange the two ids:
//! mount_setattr(2), `MOUNT_ATTR_IDMAP`. The files of the id that stays are shown as the sandbox's,
//! the files that the sandbox makes belong to the id that stays, and every other id is itself. Such
//! a mount gives nobody power over files of root's: its map is not the sandbox's own.
//!
//! Not every file system can map ids, and overlayfs takes the upper by its path. Where ids cannot
//! be mapped, the sandbox has outside the id to which the files belong.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use super::kinds::Kind;
use super::mounts::Mounts;
use super::overlay::builder::Upper;
use super::paths::belongs_to;
use super::root::{Base, RootFs};
use crate::sys::fork_mark::PerProcess;
use crate::sys::{mount, mutex};

/// The host's files that a policy lets the program leave, or find as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OwnedFiles {
    /// There are none.
    None,
    /// All of them are reached by mounts that can map ids.
    Mappable,
    /// Some are reached in another way.
    Unmappable,
}

/// A whole file system, by its device, or one file of it, by its inode as well.
type FileKey = (u64, Option<u64>);

/// The file systems that map no ids, and the files that have such a one mounted below.
static UNMAPPABLE: PerProcess<Mutex<BTreeSet<FileKey>>> = PerProcess::new();
/// The most entries of [`UNMAPPABLE`].
const UNMAPPABLE_MAX: usize = 1024;

/// Notes that the user namespace `ids` could not map the mount at `path`.
pub(crate) fn note_unmappable(path: &Path, ids: BorrowedFd<'_>) {
    let (Ok(unmappable), Ok(meta)) = (UNMAPPABLE.get_or_try(|| Ok::<_, Errno>(Mutex::default())), fs::metadata(path))
    else {
        return;
    };
    let alone = mount::clone_tree(path, false).and_then(|tree| mount::map_ids(tree.as_fd(), ids, false));
    let mut unmappable = mutex::lock(unmappable);
    if unmappable.len() >= UNMAPPABLE_MAX {
        unmappable.clear();
    }
    unmappable.insert((meta.dev(), alone.is_ok().then(|| meta.ino())));
}

/// Returns whether the mount at `path` can map ids, as far as is known.
fn mappable(path: &Path) -> OwnedFiles {
    let (Some(unmappable), Ok(meta)) = (UNMAPPABLE.get(), fs::metadata(path)) else { return OwnedFiles::Mappable };
    let unmappable = mutex::lock(unmappable);
    let refuses = [None, Some(meta.ino())].into_iter().any(|inode| unmappable.contains(&(meta.dev(), inode)));
    if refuses { OwnedFiles::Unmappable } else { OwnedFiles::Mappable }
}

/// Returns whether the program can make files below the open file, which /proc/self/fd opens once
/// more, or the file belongs to one of the ids.
pub(crate) fn exposes_files_of(fd: BorrowedFd<'_>, (uid, gid): (u32, u32)) -> bool {
    is_dir(fd) || fstat(fd).is_ok_and(|stat| stat.st_uid == uid || stat.st_gid == gid)
}

/// Returns whether the open file is a directory, below which a program may be able to make files.
pub(crate) fn is_dir(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

impl Mounts {
    /// Returns which files that stay on the host the program can leave, or finds as those of the
    /// user or group `ids`.
    pub(crate) fn owned_files(&self, ids: (u32, u32)) -> OwnedFiles {
        let Some(root) = self.final_root() else { return OwnedFiles::Unmappable };
        let mounts = self.mounts.iter().map(|mount| mount.kind.owned_files(ids));
        let owned = mounts.fold(root.owned_files(ids), OwnedFiles::max);
        // The scratch directory is made for the ids that the sandbox has outside, before it shows
        // whether ids are mapped.
        let is_scratch = matches!(root.upper, Upper::Scratch(_));
        if owned == OwnedFiles::Mappable && is_scratch { OwnedFiles::Unmappable } else { owned }
    }
}

impl RootFs {
    fn owned_files(&self, ids: (u32, u32)) -> OwnedFiles {
        let exposes = match (&self.base, &self.upper) {
            (Base::Dir(dir), _) if self.exposes_files_of(dir, ids) => return mappable(dir),
            (Base::Overlay(_), Upper::Given(..)) if !self.read_only => true,
            (Base::Overlay(lowers), _) => !self.id_mapped && lowers.iter().any(|lower| belongs_to(lower, ids)),
            _ => false,
        };
        if exposes { OwnedFiles::Unmappable } else { OwnedFiles::None }
    }
}

impl Kind {
    fn owned_files(&self, ids: (u32, u32)) -> OwnedFiles {
        let exposes = match self {
            // The maps say which ids the sandbox has outside.
            Kind::Bind(bind) if bind.id_maps().is_some() => true,
            Kind::Bind(bind) if bind.exposes_files_of(ids) => return mappable(&bind.source),
            Kind::Overlay(overlay) => {
                let writable = overlay.upper.is_some() && overlay.is_writable();
                writable || !overlay.id_mapped && overlay.lowers.iter().any(|lower| belongs_to(lower, ids))
            }
            // What it shows without maps is of the root, or of another mount of the list.
            #[cfg(feature = "oci")]
            Kind::Again(again) => again.ids().is_some(),
            // The file system may be of any kind.
            Kind::Raw(_) => true,
            Kind::Bind(_) | Kind::Tmpfs(_) | Kind::File(_) | Kind::Dir | Kind::Symlink(_) => false,
            Kind::Proc(_) | Kind::Dev(_) | Kind::Node(_) | Kind::Sysfs | Kind::Cgroupfs(_) | Kind::Mqueue => false,
        };
        if exposes { OwnedFiles::Unmappable } else { OwnedFiles::None }
    }
}
