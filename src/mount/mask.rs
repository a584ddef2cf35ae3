//! Masked paths, which the program cannot see, and read-only paths.
//!
//! Stage: inside. The sources of masks come before the root, the paths after the last mount of the
//! list, before the pivot. Each target is opened below the new root once, and what is mounted there
//! is mounted on that descriptor: whoever exchanges the path meanwhile changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::calls::{CWD, attach_by_path, attach_to, copy_open_tree, emit_target, set_flags};
use super::context::Context;
use super::flags::MountFlags;
use super::fs_context::emit_new_mount;
use super::mounts::Mounts;
use super::pinning::MountsBefore;
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};
use crate::sys::fork_mark::PerProcess;

/// The files that tell of the machine as a whole, of its memory, keys, timers, heat and hardware.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// The files by which settings of the kernel as a whole can be changed. A trigger for pressure,
/// which everybody may set (6.5), is memory that no control group counts, and its end takes so long
/// that a process with a thousand of them dies half a minute after its SIGKILL.
const READ_ONLY: [&str; 6] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/pressure", "/proc/sys", "/proc/sysrq-trigger"];

/// A path, and the flags of its lookup: no symbolic link in the kernel's own file systems, pins
/// elsewhere.
type Target<'p> = (&'p Path, PlaceFlags);

/// The mounts that masked paths get: the null device on a file, an empty directory on a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaskSources {
    null: Slot,
    empty: Slot,
    /// The flags that the mount of the null device has, and that a copy of it must not have.
    clear: MountFlags,
}

/// Makes the sources of masks, if the policy masks anything, before there is a root.
pub(super) fn emit_mask_sources(plan: &mut Plan, policy: &Mounts, context: Context) -> Option<MaskSources> {
    if !policy.default_masks && policy.masks.is_empty() {
        return None;
    }
    let clear = if context.template { MountFlags::NO_DEV } else { MountFlags::empty() };
    let sources = MaskSources { null: plan.slot(), empty: plan.slot(), clear };
    if context.template {
        emit_own_sources(plan, sources)
    } else {
        emit_host_sources(plan, sources)
    }
    Some(sources)
}

/// Masks all masked paths below `root`, and makes all read-only paths read-only. Returns the pins
/// of the paths that the caller has named.
pub(super) fn emit_masks(
    plan: &mut Plan,
    policy: &Mounts,
    root: Slot,
    sources: Option<MaskSources>,
    groups: &[PathBuf],
    before: MountsBefore<'_>,
) -> PlaceFlags {
    let masks = || pinned(&policy.masks, before);
    let read_only = || pinned(&policy.read_only_paths, before).chain(pinned(groups, before));
    let own = |paths: &'static [&str]| {
        let paths = if policy.default_masks { paths } else { &[] };
        paths.iter().map(|path| (Path::new(path), PlaceFlags::NO_SYMLINKS))
    };
    let thermal = if policy.default_masks { thermal() } else { &[] };
    let thermal = thermal.iter().map(|path| (path.as_path(), PlaceFlags::NO_SYMLINKS));
    if let Some(sources) = sources {
        for target in own(&MASKED).chain(thermal).chain(masks()) {
            emit_mask(plan, root, target, sources);
        }
        plan.close(Step::Mask, sources.empty);
        plan.close(Step::Mask, sources.null);
    }
    own(&READ_ONLY).for_each(|target| emit_read_only(plan, root, target));
    for (path, pins) in read_only() {
        let needed = if pins.is_empty() { pins } else { PlaceFlags::NOT_TO_BE_MADE };
        emit_read_only(plan, root, (path, pins | needed));
    }
    masks().chain(read_only()).fold(PlaceFlags::empty(), |all, (_, pins)| all | pins)
}

/// Returns paths with their pins.
fn pinned<'p>(paths: &'p [PathBuf], before: MountsBefore<'p>) -> impl Iterator<Item = Target<'p>> {
    paths.iter().map(move |path| (path.as_path(), before.pins_for(path, true)))
}

/// Returns the directories that tell how often each processor was throttled, and so what other
/// programs compute.
fn thermal() -> &'static [PathBuf] {
    static FILES: PerProcess<Vec<PathBuf>> = PerProcess::new();
    let find = || {
        let dirs = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let files = dirs.map(|dir| dir.path().join("thermal_throttle")).filter(|path| path.is_dir());
        Ok::<_, Errno>(files.collect())
    };
    FILES.get_or_try(find).map_or(&[], Vec::as_slice)
}

/// Opens the host's null device, which has to be that (CVE-2025-31133), and makes an empty tmpfs.
fn emit_host_sources(plan: &mut Plan, MaskSources { null, empty, .. }: MaskSources) {
    let name = plan.string("/dev/null");
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let device = plan.call(Step::Mask, libc::SYS_openat, [CWD.into(), name.into(), flags.into()]);
    device.at("/dev/null").hint("masked files are covered with the caller's null device").store(null);
    plan.check_device(Step::Mask, null, libc::S_IFCHR, (1, 3))
        .at("/dev/null")
        .hint("the caller's /dev/null is not the null device (character device 1:3)");
    let quiet = MountFlags::READ_ONLY | MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
    let options = [("source", "tmpfs"), ("size", "4k"), ("nr_inodes", "2"), ("mode", "555")];
    emit_new_mount(plan, "tmpfs", &options, quiet, empty, Path::new("masked directories"));
}

/// Makes both sources in a tmpfs, for the template, which has no /dev. The tmpfs lies below the
/// root, where nothing leads.
fn emit_own_sources(plan: &mut Plan, MaskSources { null, empty, .. }: MaskSources) {
    let (tree, at) = (plan.slot(), Path::new("covers of masked paths"));
    let options = [("source", "tmpfs"), ("size", "4k"), ("nr_inodes", "4"), ("mode", "555")];
    emit_new_mount(plan, "tmpfs", &options, MountFlags::QUIET | MountFlags::NO_EXEC, tree, at);
    let (file, dir) = (plan.string("null"), plan.string("empty"));
    let (mode, device) = (libc::S_IFCHR | 0o666, makedev(1, 3));
    plan.call(Step::Mask, libc::SYS_mknodat, [tree.into(), file.into(), mode.into(), device.into()]).at("/dev/null");
    plan.call(Step::Mask, libc::SYS_mkdirat, [tree.into(), dir.into(), 0o555.into()]).at(at);
    attach_by_path(plan, tree, Path::new("/"), at);
    set_flags(plan, tree, MountFlags::READ_ONLY, MountFlags::empty(), false, at);
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    for (name, slot) in [(file, null), (dir, empty)] {
        plan.call(Step::Mask, libc::SYS_openat, [tree.into(), name.into(), flags.into()]).at(at).store(slot);
    }
    plan.close(Step::Mask, tree);
}

/// Masks a path, unless nothing is there.
fn emit_mask(plan: &mut Plan, root: Slot, (path, flags): Target<'_>, sources: MaskSources) {
    const DIRECTORY_PART: u8 = 5;
    const FILE_PART: u8 = 6;
    let MaskSources { null, empty, clear } = sources;
    let place = plan.slot();
    let tree = plan.slot();
    emit_target(plan, root, path, PlaceFlags::EXISTING | PlaceFlags::FILE | flags, place)
        .tolerate(Errno::ENOENT)
        .tolerate(Errno::ENOTDIR)
        .skip_on_tolerated(1 + DIRECTORY_PART + FILE_PART);
    plan.check_device(Step::Mask, place, libc::S_IFDIR, (0, 0))
        .at(path)
        .tolerate(Errno::ENODEV)
        .skip_on_tolerated(DIRECTORY_PART);

    // Before 6.15 only what is mounted somewhere can be copied, and the first directory takes the
    // mount itself.
    copy_open_tree(plan, Step::Mask, empty, false, tree, path).tolerate(Errno::EINVAL).skip_on_success(1);
    let duplicate = [empty.into(), libc::F_DUPFD_CLOEXEC.into(), 0.into()];
    plan.call(Step::Mask, libc::SYS_fcntl, duplicate).at(path).store(tree);
    attach_to(plan, Step::Mask, tree, place, path);
    plan.call(Step::Mask, libc::SYS_close, [tree.into()]);
    plan.call(Step::Mask, libc::SYS_close, [place.into()]).skip_on_success(FILE_PART);

    copy_open_tree(plan, Step::Mask, null, false, tree, path);
    attach_to(plan, Step::Mask, tree, place, path);
    // The node may be the host's own: a device can be written to all the same, but its mode and
    // owner stay what they are.
    let still = MountFlags::READ_ONLY | MountFlags::NO_SUID | MountFlags::NO_EXEC;
    set_flags(plan, tree, still, clear, false, path);
    plan.close(Step::Mask, tree);
    plan.close(Step::Mask, place);
}

/// Makes a path read-only: binds the path onto itself, with all that is mounted below.
fn emit_read_only(plan: &mut Plan, root: Slot, (path, flags): Target<'_>) {
    let (place, tree) = (plan.slot(), plan.slot());
    let found = emit_target(plan, root, path, PlaceFlags::EXISTING | PlaceFlags::FILE | flags, place);
    let found = if !flags.contains(PlaceFlags::NOT_TO_BE_MADE) {
        found.tolerate(Errno::ENOENT).tolerate(Errno::ENOTDIR)
    } else {
        found.tolerate(Errno::ENODATA)
    };
    found.skip_on_tolerated(6);
    copy_open_tree(plan, Step::Mask, place, true, tree, path);
    attach_to(plan, Step::Mask, tree, place, path);
    set_flags(plan, tree, MountFlags::READ_ONLY, MountFlags::empty(), true, path);
    plan.close(Step::Mask, tree);
    plan.close(Step::Mask, place);
}
