//! Files that are covered up, and files that can only be read.
//!
//! Stage: inside. The covers come before the root, the paths after the last mount of the list, before the pivot. Every place is opened below the new root once, and
//! what is mounted there is mounted on that descriptor: whoever exchanges the path meanwhile changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::emit::{self, MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH};
use super::fast::Before;
use super::fsmount::emit_new_mount;
use super::{Context, MountFlags, Policy};
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};
use crate::sys::fork_mark::PerProcess;

/// Files that tell of the machine as a whole, of its memory, keys, timers, heat and hardware.
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
/// Files by which the kernel, as a whole, lets itself be told things.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const OPEN_TREE_CLONE: u64 = 1;
const AT_RECURSIVE: u64 = 0x8000;
const AT_EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;

/// A path and how it is found: in the kernel's own file systems no symbolic link leads anywhere, and elsewhere the way to
/// it is made fast.
type Place<'p> = (&'p Path, PlaceFlags);

/// What is mounted on masked paths: the null device on a file, an empty directory on a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covers {
    null: Slot,
    empty: Slot,
    /// What the mount of the null device has, and a copy of it must not.
    clear: MountFlags,
}

impl Policy {
    /// Writes the ops that get the covers, before there is a root.
    pub(super) fn emit_covers(&self, plan: &mut Plan, context: Context) -> Option<Covers> {
        if !self.default_masks && self.masks.is_empty() {
            return None;
        }
        let clear = if context.template { MountFlags::NO_DEV } else { MountFlags::empty() };
        let covers = Covers { null: plan.slot(), empty: plan.slot(), clear };
        if context.template {
            emit_own(plan, covers)
        } else {
            emit_of_host(plan, covers)
        }
        Some(covers)
    }

    /// Writes the ops for all paths. `root` is the new root. Gives what their ways have needed.
    pub(super) fn emit_masks(
        &self,
        plan: &mut Plan,
        root: Slot,
        covers: Option<Covers>,
        groups: &[PathBuf],
        before: Before<'_>,
    ) -> PlaceFlags {
        let masks = || given(&self.masks, before);
        let read_only = || given(&self.read_only_paths, before).chain(given(groups, before));
        let own = |paths: &'static [&str]| {
            let paths = if self.default_masks { paths } else { &[] };
            paths.iter().map(|path| (Path::new(path), PlaceFlags::NO_SYMLINKS))
        };
        let heat = if self.default_masks { thermal() } else { &[] };
        let heat = heat.iter().map(|path| (path.as_path(), PlaceFlags::NO_SYMLINKS));
        if let Some(covers) = covers {
            for place in own(&MASKED).chain(heat).chain(masks()) {
                emit_cover(plan, root, place, covers);
            }
            plan.close(Step::Mask, covers.empty);
            plan.close(Step::Mask, covers.null);
        }
        own(&READ_ONLY).for_each(|place| emit_read_only(plan, root, place));
        for (path, way) in read_only() {
            let needed = if way.is_empty() { way } else { PlaceFlags::NOT_TO_BE_MADE };
            emit_read_only(plan, root, (path, way | needed));
        }
        masks().chain(read_only()).fold(PlaceFlags::empty(), |ways, (_, way)| ways | way)
    }
}

fn given<'p>(paths: &'p [PathBuf], before: Before<'p>) -> impl Iterator<Item = Place<'p>> {
    paths.iter().map(move |path| (path.as_path(), before.way_to(path, true)))
}

/// How often each processor was throttled, which tells what other programs compute.
fn thermal() -> &'static [PathBuf] {
    static FILES: PerProcess<Vec<PathBuf>> = PerProcess::new();
    let find = || {
        let dirs = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let files = dirs.map(|dir| dir.path().join("thermal_throttle")).filter(|path| path.is_dir());
        Ok::<_, Errno>(files.collect())
    };
    FILES.get_or_try(find).map_or(&[], Vec::as_slice)
}

/// The host's null device, which has to be that (CVE-2025-31133).
fn emit_of_host(plan: &mut Plan, Covers { null, empty, .. }: Covers) {
    let name = plan.string("/dev/null");
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let device = plan.call(Step::Mask, libc::SYS_openat, [libc::AT_FDCWD.into(), name.into(), flags.into()]);
    device.at("/dev/null").hint("masked files are covered with the caller's null device").store(null);
    plan.check_null_device(null)
        .at("/dev/null")
        .hint("the caller's /dev/null is not the null device (character device 1:3)");
    let quiet = MountFlags::READ_ONLY | MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
    let options = [("source", "tmpfs"), ("size", "4k"), ("nr_inodes", "2"), ("mode", "555")];
    emit_new_mount(plan, "tmpfs", &options, quiet, empty, Path::new("masked directories"));
}

/// In the template, which has no /dev, both are the sandbox's own. What has them lies below the root, where nothing leads.
fn emit_own(plan: &mut Plan, Covers { null, empty, .. }: Covers) {
    let (tree, at) = (plan.slot(), Path::new("covers of masked paths"));
    let options = [("source", "tmpfs"), ("size", "4k"), ("nr_inodes", "4"), ("mode", "555")];
    emit_new_mount(plan, "tmpfs", &options, MountFlags::QUIET | MountFlags::NO_EXEC, tree, at);
    let (file, dir, top) = (plan.string("null"), plan.string("empty"), plan.string("/"));
    let (mode, device) = (libc::S_IFCHR | 0o666, makedev(1, 3));
    plan.call(Step::Mask, libc::SYS_mknodat, [tree.into(), file.into(), mode.into(), device.into()]).at("/dev/null");
    plan.call(Step::Mask, libc::SYS_mkdirat, [tree.into(), dir.into(), 0o555.into()]).at(at);
    emit::attach(plan, tree, libc::AT_FDCWD.into(), top.into(), MOVE_MOUNT_F_EMPTY_PATH, at);
    emit::set_flags(plan, tree, MountFlags::READ_ONLY, MountFlags::empty(), false, at);
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    for (name, slot) in [(file, null), (dir, empty)] {
        plan.call(Step::Mask, libc::SYS_openat, [tree.into(), name.into(), flags.into()]).at(at).store(slot);
    }
    plan.close(Step::Mask, tree);
}

/// What is not there needs no cover.
fn emit_cover(plan: &mut Plan, root: Slot, (path, links): Place, Covers { null, empty, clear }: Covers) {
    const FILE_PART: u8 = 7;
    const DIRECTORY_PART: u8 = 5;
    let place = plan.slot();
    let tree = plan.slot();
    emit::emit_target(plan, root, path, PlaceFlags::EXISTING | links, place)
        .tolerate(Errno::ENOENT)
        .tolerate(Errno::ENOTDIR)
        .skip_on_tolerated(DIRECTORY_PART);
    // Before 6.15 only what is mounted somewhere can be copied, and the first directory takes the mount itself.
    open_tree(plan, empty, 0, tree, path).tolerate(Errno::EINVAL).skip_on_success(1);
    let duplicate = [empty.into(), libc::F_DUPFD_CLOEXEC.into(), 0.into()];
    plan.call(Step::Mask, libc::SYS_fcntl, duplicate).at(path).store(tree);
    move_to(plan, tree, place, path);
    plan.call(Step::Mask, libc::SYS_close, [tree.into()]);
    plan.call(Step::Mask, libc::SYS_close, [place.into()]).skip_on_success(FILE_PART);

    emit::emit_target(plan, root, path, PlaceFlags::EXISTING | PlaceFlags::FILE | links, place)
        .tolerate(Errno::ENOENT)
        .tolerate(Errno::ENOTDIR)
        .skip_on_tolerated(FILE_PART - 1);
    open_tree(plan, null, 0, tree, path);
    move_to(plan, tree, place, path);
    // It may be the host's own node: a device can be written to all the same, but its mode and owner stay what they are.
    let still = MountFlags::READ_ONLY | MountFlags::NO_SUID | MountFlags::NO_EXEC;
    emit::set_flags(plan, tree, still, clear, false, path);
    plan.close(Step::Mask, tree);
    plan.close(Step::Mask, place);
}

/// The path bound onto itself, with all that is mounted below it.
fn emit_read_only(plan: &mut Plan, root: Slot, (path, links): Place) {
    let (place, tree) = (plan.slot(), plan.slot());
    let found = emit::emit_target(plan, root, path, PlaceFlags::EXISTING | PlaceFlags::FILE | links, place);
    let found = if !links.contains(PlaceFlags::NOT_TO_BE_MADE) {
        found.tolerate(Errno::ENOENT).tolerate(Errno::ENOTDIR)
    } else {
        found.tolerate(Errno::ENODATA)
    };
    found.skip_on_tolerated(6);
    open_tree(plan, place, AT_RECURSIVE, tree, path);
    move_to(plan, tree, place, path);
    emit::set_flags(plan, tree, MountFlags::READ_ONLY, MountFlags::empty(), true, path);
    plan.close(Step::Mask, tree);
    plan.close(Step::Mask, place);
}

fn open_tree<'p>(plan: &'p mut Plan, from: Slot, flags: u64, tree: Slot, path: &Path) -> crate::plan::Added<'p> {
    let empty = plan.string("");
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u64 | AT_EMPTY_PATH | flags;
    plan.call(Step::Mask, libc::SYS_open_tree, [from.into(), empty.into(), flags.into()]).at(path).store(tree)
}

fn move_to(plan: &mut Plan, tree: Slot, place: Slot, path: &Path) {
    let empty = plan.string("");
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let args = [tree.into(), empty.into(), place.into(), empty.into(), flags.into()];
    plan.call(Step::Mask, libc::SYS_move_mount, args).at(path);
}
