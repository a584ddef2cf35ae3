//! Files of the host's that are the program's by their owner: those that it is to find again by that, and those that it leaves.
//!
//! The owner on disk is an id that stays. A sandbox that has another id each time it runs would find its own files of the
//! last time to be somebody else's.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::root::{Base, RootFs, Upper};
use super::{Kind, MountFlags, Policy};

impl Policy {
    /// Whether the program can leave files in what stays after it, or is handed what belongs to `uid` or `gid`.
    pub(crate) fn hands_over(&self, uid: u32, gid: u32) -> bool {
        let Some(root) = &self.root else { return true };
        let is_theirs = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.uid() == uid || meta.gid() == gid);
        let read_only = root.read_only || self.read_only_root;
        root.hands_over(read_only, &is_theirs) || self.mounts.iter().any(|mount| mount.kind.hands_over(&is_theirs))
    }
}

impl RootFs {
    fn hands_over(&self, read_only: bool, is_theirs: &dyn Fn(&Path) -> bool) -> bool {
        match (&self.base, &self.upper) {
            (Base::Host | Base::Programs, _) => false,
            (Base::Dir(dir), _) => !read_only || is_theirs(dir),
            (_, Upper::Given(..)) if !read_only => true,
            (Base::Overlay(lowers), _) => !self.id_mapped && lowers.iter().any(|lower| is_theirs(lower)),
        }
    }
}

impl Kind {
    fn hands_over(&self, is_theirs: &dyn Fn(&Path) -> bool) -> bool {
        let is_node = |meta: Metadata| meta.file_type().is_char_device() || meta.file_type().is_block_device();
        match self {
            Kind::Bind(bind) => {
                let writable = !bind.flags(false).contains(MountFlags::READ_ONLY)
                    // Nothing is made on a device.
                    && !fs::metadata(&bind.source).is_ok_and(is_node);
                writable || is_theirs(&bind.source)
            }
            Kind::Overlay(overlay) => {
                let writable = overlay.upper.is_some() && !overlay.flags.contains(MountFlags::READ_ONLY);
                writable || !overlay.id_mapped && overlay.lowers.iter().any(|lower| is_theirs(lower))
            }
            // It may be of any kind.
            Kind::Raw(_) => true,
            Kind::Tmpfs(_) | Kind::Proc(_) | Kind::Dev(_) | Kind::Sysfs | Kind::Mqueue => false,
        }
    }
}
