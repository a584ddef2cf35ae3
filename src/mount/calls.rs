//! Ops for the system calls on mounts: open_tree(2), move_mount(2), mount_setattr(2), mount(2).

use std::ffi::OsStr;
use std::path::Path;

use super::attributes::Attributes;
use super::flags::MountFlags;
use super::paths::clean;
use crate::error::Step;
use crate::plan::{Added, Arg, PlaceFlags, Plan, Slot};

const AT_RECURSIVE: u64 = 0x8000;
const AT_EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
const MOVE_MOUNT_F_EMPTY_PATH: u64 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u64 = 0x40;
const OPEN_TREE_CLONE: u64 = 1;
const O_PATH_DIR: u64 = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
/// The directory descriptor by which a call starts from the working directory.
pub(super) const CWD: i32 = libc::AT_FDCWD;

/// Opens the directory `path`, looked up from the directory `dir`, and leaves it in `slot`.
pub(super) fn open_dir<'p>(plan: &'p mut Plan, step: Step, dir: Arg, path: impl AsRef<OsStr>, slot: Slot) -> Added<'p> {
    let name = plan.string(path);
    plan.call(step, libc::SYS_openat, [dir, name.into(), O_PATH_DIR.into()]).store(slot)
}

/// Makes the directory `name` in the directory `dir`.
pub(super) fn make_dir<'p>(plan: &'p mut Plan, step: Step, dir: Arg, name: impl AsRef<OsStr>) -> Added<'p> {
    let name = plan.string(name);
    plan.call(step, libc::SYS_mkdirat, [dir, name.into(), 0o755.into()])
}

/// Makes the empty file `name` in the directory `dir`.
pub(super) fn make_file<'p>(plan: &'p mut Plan, step: Step, dir: Arg, name: impl AsRef<OsStr>) -> Added<'p> {
    let name = plan.string(name);
    plan.call(step, libc::SYS_mknodat, [dir, name.into(), (libc::S_IFREG | 0o644).into(), 0.into()])
}

/// Writes `bytes` to the file `name` in the directory `dir`, which does not exist yet.
pub(super) fn write_new_file(plan: &mut Plan, dir: Slot, name: &str, bytes: &[u8], mode: u32, at: &Path) {
    let (name, data, file) = (plan.string(name), plan.bytes(bytes), plan.slot());
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let args = [dir.into(), name.into(), flags.into(), mode.into()];
    plan.call(Step::Mount, libc::SYS_openat, args).at(at).store(file);
    plan.call(Step::Mount, libc::SYS_write, [file.into(), data.into(), bytes.len().into()]).at(at);
    plan.close(Step::Mount, file);
}

/// Makes the symbolic link `name` to `target` in the directory `dir`.
pub(super) fn make_link<'p>(
    plan: &'p mut Plan,
    step: Step,
    target: impl AsRef<OsStr>,
    dir: Arg,
    name: impl AsRef<OsStr>,
) -> Added<'p> {
    let (target, name) = (plan.string(target), plan.string(name));
    plan.call(step, libc::SYS_symlinkat, [target.into(), dir, name.into()])
}

/// Opens the place of a mount below `root`, makes it where it is missing, and leaves it in `slot`.
pub(super) fn emit_target<'p>(plan: &'p mut Plan, root: Slot, path: &Path, flags: PlaceFlags, slot: Slot) -> Added<'p> {
    plan.find_place(root, &clean(path), flags, slot).at(path)
}

/// Makes the place of a mount the working directory: mount(2) then needs no path that could be
/// turned elsewhere.
pub(super) fn enter_target(plan: &mut Plan, root: Slot, path: &Path, flags: PlaceFlags) {
    let slot = enter_open_target(plan, root, path, flags);
    plan.close(Step::MountTarget, slot);
}

/// Does the same as [`enter_target`], and returns the place, which stays open.
pub(super) fn enter_open_target(plan: &mut Plan, root: Slot, path: &Path, flags: PlaceFlags) -> Slot {
    let slot = plan.slot();
    let found = emit_target(plan, root, path, flags, slot);
    if flags.contains(PlaceFlags::NO_SYMLINKS) {
        // In the words of other runtimes.
        found.hint(
            "proc and sysfs must be mounted on ordinary directory: where a link leads to one, name the path that it \
             leads to, since a process that may write to the directory of a link can replace the link",
        );
    }
    plan.call(Step::MountTarget, libc::SYS_fchdir, [slot.into()]).at(path);
    slot
}

/// Copies the mount at `path` of the host, with `recursive` also those below it, and leaves the
/// detached copy in `tree`: `open_tree(OPEN_TREE_CLONE)`, 5.2.
pub(super) fn copy_tree(plan: &mut Plan, path: &Path, recursive: bool, tree: Slot) {
    let name = plan.string(path);
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u64 | if recursive { AT_RECURSIVE } else { 0 };
    plan.call(Step::OpenTree, libc::SYS_open_tree, [CWD.into(), name.into(), flags.into()]).at(path).store(tree);
}

/// Copies the tree of the open file `from` as [`copy_tree`] does.
pub(super) fn copy_open_tree<'p>(
    plan: &'p mut Plan,
    step: Step,
    from: Slot,
    recursive: bool,
    tree: Slot,
    at: &Path,
) -> Added<'p> {
    let empty = plan.string("");
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u64 | AT_EMPTY_PATH | recursive;
    plan.call(step, libc::SYS_open_tree, [from.into(), empty.into(), flags.into()]).at(at).store(tree)
}

/// Attaches a detached tree at `path`, as the stub finds that.
pub(super) fn attach_by_path(plan: &mut Plan, tree: Slot, path: &Path, at: &Path) {
    let (name, empty, flags) = (plan.string(path), plan.string(""), MOVE_MOUNT_F_EMPTY_PATH);
    let args = [tree.into(), empty.into(), CWD.into(), name.into(), flags.into()];
    plan.call(Step::MoveMount, libc::SYS_move_mount, args).at(at);
}

/// Attaches a detached tree to the open file `place`.
pub(super) fn attach_to<'p>(plan: &'p mut Plan, step: Step, tree: Slot, place: Slot, at: &Path) -> Added<'p> {
    let (empty, flags) = (plan.string(""), MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    let args = [tree.into(), empty.into(), place.into(), empty.into(), flags.into()];
    plan.call(step, libc::SYS_move_mount, args).at(at)
}

/// Copies the mount of an open file, with nothing but this file: open_tree(2).
pub(super) fn copy_file(plan: &mut Plan, file: Slot, tree: Slot, at: &Path) {
    let (empty, flags) = (plan.string(""), OPEN_TREE_CLONE | AT_EMPTY_PATH | libc::O_CLOEXEC as u64);
    plan.call(Step::OpenTree, libc::SYS_open_tree, [file.into(), empty.into(), flags.into()]).at(at).store(tree);
}

/// Attaches a detached tree to `name` in the directory `dir`; a symbolic link is not followed.
pub(super) fn attach_in(plan: &mut Plan, tree: Slot, dir: Slot, name: impl AsRef<OsStr>, at: &Path) {
    let (name, empty, flags) = (plan.string(name), plan.string(""), MOVE_MOUNT_F_EMPTY_PATH);
    let args = [tree.into(), empty.into(), dir.into(), name.into(), flags.into()];
    plan.call(Step::MoveMount, libc::SYS_move_mount, args).at(at);
}

/// Shows a detached tree of one device as the new file `name` in the directory `dir`. The mount is
/// read-only, which says nothing about the device, but keeps root inside from changing the node's
/// mode and owner; nothing is executed on it.
pub(super) fn show_device_in(plan: &mut Plan, tree: Slot, dir: Slot, name: impl AsRef<OsStr>, at: &Path) {
    make_file(plan, Step::Dev, dir.into(), &name).at(at);
    attach_in(plan, tree, dir, name, at);
    let flags = MountFlags::READ_ONLY | MountFlags::NO_SUID | MountFlags::NO_EXEC;
    set_flags(plan, tree, flags, MountFlags::empty(), false, at);
    plan.close(Step::MoveMount, tree);
}

/// Attaches a detached tree at the target `at` below `root`.
pub(super) fn attach_at(plan: &mut Plan, tree: Slot, root: Slot, at: &Path, flags: PlaceFlags) {
    let place = plan.slot();
    emit_target(plan, root, at, flags, place);
    attach_to(plan, Step::MoveMount, tree, place, at);
    plan.close(Step::MoveMount, place);
}

/// Changes the flags of a mount that is attached, with `recursive` also of those below it:
/// mount_setattr(2), 5.12. Returns the fallback, which can do nothing to a detached tree.
pub(super) fn set_flags<'p>(
    plan: &'p mut Plan,
    tree: Slot,
    set: MountFlags,
    clear: MountFlags,
    recursive: bool,
    at: &Path,
) -> Added<'p> {
    try_set_flags(plan, tree, set, clear, recursive, at).may_be_missing().skip_on_success(1);
    plan.remount(tree, set.ms(), clear.ms(), recursive).at(at)
}

/// Changes the flags of a mount with mount_setattr(2), and without a fallback.
pub(super) fn try_set_flags<'p>(
    plan: &'p mut Plan,
    tree: Slot,
    set: MountFlags,
    clear: MountFlags,
    recursive: bool,
    at: &Path,
) -> Added<'p> {
    set_attr(plan, Step::MountAttr, tree, [set.bits(), clear.bits(), 0, 0], recursive).at(at)
}

/// Changes the attributes of a mount that is attached, with `recursive` also of those below it.
/// `kept`: the flags that the mount had on the host, where the sandbox has a user namespace. The
/// kernel may refuse to take them away there (EPERM); then they stay.
pub(super) fn set_attributes(
    plan: &mut Plan,
    tree: Slot,
    attributes: Attributes,
    kept: MountFlags,
    recursive: bool,
    at: &Path,
) {
    let less = attributes.keeping(kept);
    if less != attributes && !kept.is_empty() {
        let (set, clear) = attributes.flags();
        try_set_flags(plan, tree, set, clear, recursive, at).may_be_missing();
        let first = plan.len();
        set_asked(plan, tree, less, recursive, at);
        plan.fallback_from(first);
    } else {
        set_asked(plan, tree, attributes, recursive, at);
    }
}

fn set_asked(plan: &mut Plan, tree: Slot, attributes: Attributes, recursive: bool, at: &Path) {
    let (set, clear) = attributes.flags();
    if attributes.is_empty() {
        return;
    }
    // mount(2) of an older kernel would pass over the flag.
    if (set | clear).contains(MountFlags::NO_SYMFOLLOW) {
        try_set_flags(plan, tree, set, clear, recursive, at).hint("nosymfollow needs Linux 5.14");
    } else {
        set_flags(plan, tree, set, clear, recursive, at);
    }
}

/// Sets the propagation of a mount, as a flag of mount(2), and with `recursive` also of those below
/// it: mount_setattr(2), 5.12.
pub(super) fn set_propagation<'p>(
    plan: &'p mut Plan,
    tree: Slot,
    propagation: u64,
    recursive: bool,
    at: &Path,
) -> Added<'p> {
    set_attr(plan, Step::Propagation, tree, [0, 0, propagation, 0], recursive).at(at)
}

/// Maps the ids of the files of a detached tree by the user namespace whose descriptor has this
/// number, with `recursive` also of those mounted below: mount_setattr(2), 5.12.
#[cfg(feature = "oci")]
pub(super) fn map_ids(plan: &mut Plan, tree: Slot, user_ns: i32, recursive: bool, at: &Path) {
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    set_attr(plan, Step::IdMapMount, tree, [MOUNT_ATTR_IDMAP, 0, 0, user_ns as u64], recursive).at(at);
}

/// Calls mount_setattr(2) with a struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
fn set_attr(plan: &mut Plan, step: Step, tree: Slot, attr: [u64; 4], recursive: bool) -> Added<'_> {
    let (attr, empty) = (plan.words(&attr), plan.string(""));
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    plan.call(step, libc::SYS_mount_setattr, [tree.into(), empty.into(), flags.into(), attr.into(), 32.into()])
}

/// Unmounts the file system that was mounted over `/` last, to which `/..` leads, with all that is
/// mounted in it. Copies of its mounts stay.
pub(super) fn unmount_top(plan: &mut Plan) {
    let top = plan.string("/..");
    plan.call(Step::Mount, libc::SYS_umount2, [top.into(), libc::MNT_DETACH.into()]).at("staging file system");
}

/// Mounts a file system on the working directory: mount(2).
pub(super) fn mount_here(plan: &mut Plan, fstype: &OsStr, source: &OsStr, flags: u64, options: &OsStr, at: &Path) {
    mount_on(plan, ".", fstype, source, flags, options).at(at);
}

/// Mounts a file system on `place` in the working directory: mount(2).
pub(super) fn mount_on<'p>(
    plan: &'p mut Plan,
    place: &str,
    fstype: &OsStr,
    source: &OsStr,
    flags: u64,
    options: &OsStr,
) -> Added<'p> {
    let (source, place, fstype, options) =
        (plan.string(source), plan.string(place), plan.string(fstype), plan.string(options));
    plan.call(Step::Mount, libc::SYS_mount, [source.into(), place.into(), fstype.into(), flags.into(), options.into()])
}

/// Mounts a file system at the target `at` below `root`: mount(2).
pub(super) fn mount_at(
    plan: &mut Plan,
    root: Slot,
    at: &Path,
    fstype: &str,
    flags: u64,
    options: &str,
    target: PlaceFlags,
) {
    enter_target(plan, root, at, target);
    mount_here(plan, fstype.as_ref(), fstype.as_ref(), flags, options.as_ref(), at);
}
