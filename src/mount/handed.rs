//! Files of the host's that are the program's by their owner: those that it is to find again by that, and those that it leaves.
//!
//! The owner on disk is an id that stays. A sandbox that has another id each time it runs would find its own files of the
//! last time to be somebody else's. So its mounts exchange the two: mount_setattr(2), `MOUNT_ATTR_IDMAP`. What belongs to the
//! id that stays is shown as belonging to the sandbox's, what the sandbox makes belongs to the id that stays, and every other
//! id is itself. This gives nobody power over files of root's: the map of such a mount is not the sandbox's own.
//!
//! Not every file system can, and overlayfs takes the upper by its name: where it cannot be done, the sandbox is outside who
//! the files belong to.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use super::root::{Base, RootFs, Upper};
use super::{Bind, Kind, MountFlags, Policy};
use crate::sys::fork_mark::PerProcess;
use crate::sys::mount;

/// How a program is handed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Handed {
    Not,
    /// By mounts that can show them as another's.
    Mounts,
    Otherwise,
}

/// A whole file system by its device, or one file of it by its inode as well.
type Known = (u64, Option<u64>);

/// File systems that map no ids, and what has such a one mounted below it.
static REFUSING: PerProcess<Mutex<BTreeSet<Known>>> = PerProcess::new();
/// How many of them are known at a time.
const MOST_KNOWN: usize = 1024;

/// Takes note that what stands at `path` could not be mapped by the user namespace `ids`.
pub(crate) fn refuse_mapping(path: &Path, ids: BorrowedFd<'_>) {
    let (Ok(refusing), Ok(meta)) = (REFUSING.get_or_try(|| Ok::<_, Errno>(Mutex::default())), fs::metadata(path))
    else {
        return;
    };
    let alone = mount::clone_tree(path, false).and_then(|tree| mount::map_ids(tree.as_fd(), ids, false));
    let mut refusing = refusing.lock().unwrap_or_else(PoisonError::into_inner);
    if refusing.len() >= MOST_KNOWN {
        refusing.clear();
    }
    refusing.insert((meta.dev(), alone.is_ok().then(|| meta.ino())));
}

fn maps(path: &Path) -> Handed {
    let (Some(refusing), Ok(meta)) = (REFUSING.get(), fs::metadata(path)) else { return Handed::Mounts };
    let refusing = refusing.lock().unwrap_or_else(PoisonError::into_inner);
    let refuses = [None, Some(meta.ino())].into_iter().any(|inode| refusing.contains(&(meta.dev(), inode)));
    if refuses { Handed::Otherwise } else { Handed::Mounts }
}

/// Whether files can be made below what is open, or it belongs to one of the ids: /proc/self/fd opens it once more.
pub(crate) fn hands_over(fd: BorrowedFd<'_>, (uid, gid): (u32, u32)) -> bool {
    fstat(fd).is_ok_and(|stat| {
        let is_dir = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        is_dir || stat.st_uid == uid || stat.st_gid == gid
    })
}

/// Whether the file belongs to the user or the group.
fn is_theirs(path: &Path, (uid, gid): (u32, u32)) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.uid() == uid || meta.gid() == gid)
}

impl Policy {
    /// How the program can leave files in what stays after it, or is handed what belongs to the user or group `ids`.
    pub(crate) fn hands_over(&self, ids: (u32, u32)) -> Handed {
        let Some(root) = &self.root else { return Handed::Otherwise };
        let root = RootFs { read_only: root.read_only || self.read_only_root, ..root.clone() };
        let mounts = self.mounts.iter().map(|mount| mount.kind.hands_over(ids));
        let handed = mounts.fold(root.hands_over(ids), Handed::max);
        // Made for who the sandbox is, before it shows whether ids are mapped.
        let is_scratch = matches!(root.upper, Upper::Scratch(_));
        if handed == Handed::Mounts && is_scratch { Handed::Otherwise } else { handed }
    }
}

impl RootFs {
    fn hands_over(&self, ids: (u32, u32)) -> Handed {
        let handed = match (&self.base, &self.upper) {
            (Base::Dir(dir), _) if self.is_handed(dir, ids) => return maps(dir),
            (Base::Overlay(_), Upper::Given(..)) if !self.read_only => true,
            (Base::Overlay(lowers), _) => !self.id_mapped && lowers.iter().any(|lower| is_theirs(lower, ids)),
            _ => false,
        };
        if handed { Handed::Otherwise } else { Handed::Not }
    }

    /// Whether `dir`, which it is, can be written to, or belongs to one of `ids`.
    pub(super) fn is_handed(&self, dir: &Path, ids: (u32, u32)) -> bool {
        !self.read_only || is_theirs(dir, ids)
    }
}

impl Bind {
    /// Whether files can be made below it, or it belongs to one of `ids`.
    pub(super) fn is_handed(&self, ids: (u32, u32)) -> bool {
        let is_node = |meta: Metadata| meta.file_type().is_char_device() || meta.file_type().is_block_device();
        let writable = !self.flags(false).contains(MountFlags::READ_ONLY);
        writable && !fs::metadata(&self.source).is_ok_and(is_node) || is_theirs(&self.source, ids)
    }
}

impl Kind {
    fn hands_over(&self, ids: (u32, u32)) -> Handed {
        let handed = match self {
            Kind::Bind(bind) if bind.is_handed(ids) => return maps(&bind.source),
            Kind::Overlay(overlay) => {
                let writable = overlay.upper.is_some() && !overlay.flags.contains(MountFlags::READ_ONLY);
                writable || !overlay.id_mapped && overlay.lowers.iter().any(|lower| is_theirs(lower, ids))
            }
            // It may be of any kind.
            Kind::Raw(_) => true,
            Kind::Bind(_) | Kind::Tmpfs(_) | Kind::Proc(_) | Kind::Dev(_) | Kind::Sysfs | Kind::Mqueue => false,
        };
        if handed { Handed::Otherwise } else { Handed::Not }
    }
}
