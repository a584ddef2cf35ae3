//! File systems that stand nowhere yet: fsopen(2), fsconfig(2), fsmount(2), 5.2.

use std::path::Path;

use super::MountFlags;
use crate::error::Step;
use crate::plan::{Arg, Plan, Slot};
use crate::sys::mount::{FSCONFIG_CMD_CREATE, FSCONFIG_SET_FD, FSCONFIG_SET_STRING, FSMOUNT_CLOEXEC, FSOPEN_CLOEXEC};

/// Leaves in `tree` a mount of a new file system.
pub(super) fn emit_new_mount(
    plan: &mut Plan,
    fstype: &str,
    options: &[(&str, &str)],
    flags: MountFlags,
    tree: Slot,
    at: &Path,
) {
    let context = open(plan, fstype, at);
    for (key, value) in options {
        set(plan, context, key, value, at);
    }
    make(plan, context, flags, tree, at);
}

/// Begins one; what it is to be is told to the descriptor.
pub(super) fn open(plan: &mut Plan, fstype: &str, at: &Path) -> Slot {
    let (context, fstype) = (plan.slot(), plan.string(fstype));
    plan.call(Step::Mount, libc::SYS_fsopen, [fstype.into(), FSOPEN_CLOEXEC.into()]).at(at).store(context);
    context
}

pub(super) fn set(plan: &mut Plan, context: Slot, key: &str, value: &str, at: &Path) {
    let value = plan.string(value);
    configure(plan, context, [FSCONFIG_SET_STRING.into(), value.into(), 0.into()], key, at);
}

pub(super) fn set_fd(plan: &mut Plan, context: Slot, key: &str, fd: Slot, at: &Path) {
    configure(plan, context, [FSCONFIG_SET_FD.into(), 0.into(), fd.into()], key, at);
}

fn configure(plan: &mut Plan, context: Slot, [how, value, number]: [Arg; 3], key: &str, at: &Path) {
    let key = plan.string(key);
    plan.call(Step::Mount, libc::SYS_fsconfig, [context.into(), how, key.into(), value, number]).at(at);
}

/// Leaves in `tree` the mount that was told of.
pub(super) fn make(plan: &mut Plan, context: Slot, flags: MountFlags, tree: Slot, at: &Path) {
    let create = FSCONFIG_CMD_CREATE.into();
    plan.call(Step::Mount, libc::SYS_fsconfig, [context.into(), create, 0.into(), 0.into(), 0.into()]).at(at);
    let attributes = flags.bits();
    plan.call(Step::Mount, libc::SYS_fsmount, [context.into(), FSMOUNT_CLOEXEC.into(), attributes.into()])
        .at(at)
        .store(tree);
    plan.close(Step::Mount, context);
}
