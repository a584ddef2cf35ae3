//! Ops that make a new file system by its context: fsopen(2), fsconfig(2), fsmount(2), 5.2.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::flags::MountFlags;
use crate::error::Step;
use crate::plan::{Arg, Plan, Slot};
use crate::sys::mount::{FSCONFIG_CMD_CREATE, FSCONFIG_SET_FD, FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING};
use crate::sys::mount::{FSMOUNT_CLOEXEC, FSOPEN_CLOEXEC};

/// Makes a new file system, and leaves a detached mount of it in `tree`.
pub(super) fn emit_new_mount(
    plan: &mut Plan,
    fstype: &str,
    options: &[(&str, &str)],
    flags: MountFlags,
    tree: Slot,
    at: &Path,
) {
    let context = open_context(plan, fstype, at);
    for (key, value) in options {
        set_option(plan, context, key, value, at);
    }
    make_mount(plan, context, flags, tree, at);
}

/// Opens the context in which a new file system gets its options.
pub(super) fn open_context(plan: &mut Plan, fstype: &str, at: &Path) -> Slot {
    let (context, fstype) = (plan.slot(), plan.string(fstype));
    plan.call(Step::Mount, libc::SYS_fsopen, [fstype.into(), FSOPEN_CLOEXEC.into()]).at(at).store(context);
    context
}

/// Sets an option without a value.
pub(super) fn set_flag(plan: &mut Plan, context: Slot, key: impl AsRef<OsStr>, at: &Path) {
    configure(plan, context, [FSCONFIG_SET_FLAG.into(), 0.into(), 0.into()], key, at);
}

/// Sets an option to a string.
pub(super) fn set_option(plan: &mut Plan, context: Slot, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>, at: &Path) {
    let value = plan.string(value);
    configure(plan, context, [FSCONFIG_SET_STRING.into(), value.into(), 0.into()], key, at);
}

/// Sets an option as mount(2) has it: `KEY=VALUE`, or a word without a value.
pub(super) fn set_word(plan: &mut Plan, context: Slot, word: &OsStr, at: &Path) {
    let bytes = word.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(end) => {
            let (key, value) = (OsStr::from_bytes(&bytes[..end]), OsStr::from_bytes(&bytes[end + 1..]));
            set_option(plan, context, key, value, at);
        }
        None => set_flag(plan, context, word, at),
    }
}

/// Sets an option to an open file.
pub(super) fn set_fd_option(plan: &mut Plan, context: Slot, key: impl AsRef<OsStr>, fd: Slot, at: &Path) {
    configure(plan, context, [FSCONFIG_SET_FD.into(), 0.into(), fd.into()], key, at);
}

fn configure(plan: &mut Plan, context: Slot, [command, value, number]: [Arg; 3], key: impl AsRef<OsStr>, at: &Path) {
    let key = plan.string(key);
    plan.call(Step::Mount, libc::SYS_fsconfig, [context.into(), command, key.into(), value, number]).at(at);
}

/// Makes the file system of a context, leaves a detached mount of it in `tree`, and closes the
/// context.
pub(super) fn make_mount(plan: &mut Plan, context: Slot, flags: MountFlags, tree: Slot, at: &Path) {
    let create = FSCONFIG_CMD_CREATE.into();
    plan.call(Step::Mount, libc::SYS_fsconfig, [context.into(), create, 0.into(), 0.into(), 0.into()]).at(at);
    let attributes = flags.bits();
    plan.call(Step::Mount, libc::SYS_fsmount, [context.into(), FSMOUNT_CLOEXEC.into(), attributes.into()])
        .at(at)
        .store(tree);
    plan.close(Step::Mount, context);
}
