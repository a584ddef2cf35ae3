//! A minimal /dev.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::emit::{attach_to, emit_single_tree, emit_target, mount_on, set_flags};
use super::fsmount::emit_new_mount;
use super::{Context, Dev, MountFlags, Tmpfs};
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};

/// The nodes that programs expect, with their numbers: the kernel's Documentation/admin-guide/devices.txt.
pub(crate) const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

pub(super) fn emit_dev(plan: &mut Plan, dev: &Dev, root: Slot, at: &Path, context: Context) {
    let quiet = MountFlags::NO_SUID | MountFlags::NO_EXEC;
    let options = [("source", "tmpfs"), ("size", "64k"), ("nr_inodes", "256"), ("mode", "755")];
    let dir = plan.slot();
    emit_new_mount(plan, "tmpfs", &options, quiet, dir, at);
    // A /dev that is a link would hide what stands elsewhere. It is found once: whoever may write to the root directory
    // can exchange it at any time.
    let place = plan.slot();
    emit_target(plan, root, at, PlaceFlags::NO_SYMLINKS | context.way, place);
    attach_to(plan, dir, place.into(), "", at);
    plan.close(Step::MoveMount, place);
    for (name, major, minor) in NODES {
        emit_node(plan, name, makedev(major.into(), minor.into()), dir, at);
    }
    for (to, name) in LINKS {
        let (text, link) = (plan.string(to), plan.string(name));
        plan.call(Step::Dev, libc::SYS_symlinkat, [text.into(), dir.into(), link.into()]).at(at.join(name));
    }
    // Names lead nowhere else in a file system made just now, in which nobody else can write.
    plan.call(Step::Dev, libc::SYS_fchdir, [dir.into()]).at(at);
    let group = if context.tty_group { ",gid=5" } else { "" };
    let terminals = format!("newinstance,ptmxmode=0666,mode=0620,max={}{group}", dev.terminals);
    let shm = Tmpfs::new("/").size(dev.shm_size).mode(0o1777).noexec();
    mount_inside(plan, at, "pts", "devpts", quiet, &terminals);
    mount_inside(plan, at, "shm", "tmpfs", shm.flags, &shm.options());
    if dev.read_only {
        set_flags(plan, dir, MountFlags::READ_ONLY, MountFlags::empty(), false, at);
    }
    plan.close(Step::Dev, dir);
}

fn mount_inside(plan: &mut Plan, dev: &Path, name: &str, fstype: &str, flags: MountFlags, options: &str) {
    let dir = plan.string(name);
    plan.call(Step::Dev, libc::SYS_mkdirat, [libc::AT_FDCWD.into(), dir.into(), 0o755.into()]).at(dev.join(name));
    mount_on(plan, name, fstype.as_ref(), fstype.as_ref(), flags.ms(), options.as_ref()).at(dev.join(name));
}

/// Makes the node; where that is forbidden (EPERM in a user namespace, without CAP_MKNOD or by rules for devices) binds the
/// host's. Read-only, which says nothing about the device, but keeps root inside from changing the node's mode and owner.
fn emit_node(plan: &mut Plan, name: &str, number: u64, dir: Slot, at: &Path) {
    let text = plan.string(name);
    let mode = libc::S_IFCHR | 0o666;
    let shown = at.join(name);
    plan.call(Step::Dev, libc::SYS_mknodat, [dir.into(), text.into(), mode.into(), number.into()])
        .at(&shown)
        .tolerate(Errno::EPERM);
    let fallback = plan.len();
    let (tree, mode) = (plan.slot(), libc::S_IFREG | 0o666);
    plan.call(Step::Dev, libc::SYS_mknodat, [dir.into(), text.into(), mode.into(), 0.into()]).at(&shown);
    emit_single_tree(plan, &PathBuf::from("/dev").join(name), tree);
    attach_to(plan, tree, dir.into(), name, &shown);
    set_flags(plan, tree, MountFlags::READ_ONLY, MountFlags::empty(), false, &shown);
    plan.close(Step::MoveMount, tree);
    plan.fallback_from(fallback);
}
