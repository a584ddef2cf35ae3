//! A tmpfs that begins with a copy of the directory that it covers.

use std::ffi::OsStr;
use std::path::Path;

use super::calls::{emit_target, mount_here, set_flags};
use super::flags::MountFlags;
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};

/// A tmpfs as mount(2) takes it, and what it takes over from the directory that it covers.
#[derive(Debug)]
pub(super) struct CopyUp<'t> {
    pub(super) source: &'t OsStr,
    pub(super) ms_flags: u64,
    pub(super) data: &'t OsStr,
    /// The top directory keeps the mode, or the owner, that the options give it.
    pub(super) keeps_mode: bool,
    pub(super) keeps_owner: bool,
}

/// Mounts a tmpfs at the target `at`, and copies what was there. `pins`: see
/// [`pinning`](super::pinning).
///
/// The stub copies, and not the caller: only the stub sees an overlay put together, it has the
/// sandbox's rights to the files and its ids, and the memory is the sandbox's. The directory is held
/// open by a descriptor from before the mount, and nobody else is there who could see the tmpfs
/// half full.
pub(super) fn emit_copy_up(plan: &mut Plan, tmpfs: &CopyUp<'_>, root: Slot, at: &Path, pins: PlaceFlags) {
    let (covered, top) = (plan.slot(), plan.slot());
    emit_target(plan, root, at, pins, covered);
    plan.call(Step::MountTarget, libc::SYS_fchdir, [covered.into()]).at(at);
    mount_here(plan, "tmpfs".as_ref(), tmpfs.source, tmpfs.ms_flags & !libc::MS_RDONLY, tmpfs.data, at);
    // What is mounted at the target now is found by its name once more.
    emit_target(plan, root, at, PlaceFlags::EXISTING | pins & PlaceFlags::NO_SYMLINKS, top);
    plan.copy_up(covered, top, tmpfs.keeps_mode, tmpfs.keeps_owner).at(at);
    if tmpfs.ms_flags & libc::MS_RDONLY != 0 {
        set_flags(plan, top, MountFlags::READ_ONLY, MountFlags::empty(), false, at);
    }
    plan.close(Step::CopyUp, top);
    plan.close(Step::CopyUp, covered);
}
