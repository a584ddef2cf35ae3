//! A minimal /dev.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::lower::{attach_at, lower_single_tree, lower_target, mount_at, mount_on};
use super::{Context, Dev, MountFlags, Tmpfs};
use crate::error::Step;
use crate::plan::{Plan, Slot};
use crate::stub::wire::target;

/// The nodes that programs expect, with their numbers: the kernel's Documentation/admin-guide/devices.txt.
const NODES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

pub(super) fn lower_dev(plan: &mut Plan, dev: &Dev, root: Slot, at: &Path, context: Context) {
    let quiet = MountFlags::NO_SUID | MountFlags::NO_EXEC;
    // A /dev that is a link would have the nodes made, and what stands there hidden, elsewhere.
    mount_at(plan, root, at, "tmpfs", quiet.ms(), "size=64k,nr_inodes=256,mode=755", target::NO_SYMLINKS);
    let dir = plan.slot();
    lower_target(plan, root, at, target::NO_SYMLINKS | target::EXISTING, dir);
    for (name, major, minor) in NODES {
        lower_node(plan, name, makedev(major, minor), dir, root, at);
    }
    for (to, name) in LINKS {
        let (text, link) = (plan.string(to), plan.string(name));
        plan.call(Step::Dev, libc::SYS_symlinkat, [text.into(), dir.into(), link.into()]).at(at.join(name));
    }
    // What follows stands in a file system made just now, which nobody else can write to: names lead nowhere else.
    plan.call(Step::Dev, libc::SYS_fchdir, [dir.into()]).at(at);
    plan.close(Step::Dev, dir);
    let group = if context.tty_group { ",gid=5" } else { "" };
    let terminals = format!("newinstance,ptmxmode=0666,mode=0620{group}");
    let shm = Tmpfs::new("/").size(dev.shm_size).mode(0o1777).noexec();
    mount_inside(plan, at, "pts", "devpts", quiet, &terminals);
    mount_inside(plan, at, "shm", "tmpfs", shm.flags, &shm.options());
}

fn mount_inside(plan: &mut Plan, dev: &Path, name: &str, fstype: &str, flags: MountFlags, options: &str) {
    let dir = plan.string(name);
    plan.call(Step::Dev, libc::SYS_mkdirat, [libc::AT_FDCWD.into(), dir.into(), 0o755.into()]).at(dev.join(name));
    mount_on(plan, name, fstype.as_ref(), fstype.as_ref(), flags.ms(), options.as_ref()).at(dev.join(name));
}

/// Makes the node; where that is forbidden (EPERM in a user namespace, or without CAP_MKNOD) binds the host's.
fn lower_node(plan: &mut Plan, name: &str, number: u64, dir: Slot, root: Slot, at: &Path) {
    let text = plan.string(name);
    let mode = libc::S_IFCHR | 0o666;
    plan.call(Step::Dev, libc::SYS_mknodat, [dir.into(), text.into(), mode.into(), number.into()])
        .at(at.join(name))
        .tolerate(Errno::EPERM);
    let fallback = plan.len();
    lower_bound_node(plan, name, root, at);
    plan.fallback_from(fallback);
}

fn lower_bound_node(plan: &mut Plan, name: &str, root: Slot, at: &Path) {
    let tree = plan.slot();
    lower_single_tree(plan, &PathBuf::from("/dev").join(name), tree);
    attach_at(plan, tree, root, &at.join(name), target::FILE);
}
