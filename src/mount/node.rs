//! Device nodes beside those of every /dev.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::calls::{CWD, copy_file, emit_target, show_device_in};
use super::paths::clean;
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};

/// A device node, or a FIFO: mknod(2).
///
/// It stands in its place among the [mounts](crate::Sandbox::mount), on a /dev or a tmpfs of the
/// sandbox's, or on a root whose changes vanish with it: nothing is made in a directory of the
/// host. No component of the path may be a link, and the node replaces nothing.
///
/// Where a node cannot be made (in a user namespace, or without CAP_MKNOD), the host's of the same
/// path is bound, if it is that device, with its own mode and owner. What may be done with the
/// device is for [`devices`](crate::Sandbox::devices) to say.
///
/// ```
/// use ringfence::{Dev, DeviceNode, Sandbox};
///
/// let fuse = DeviceNode::character("/dev/fuse", 10, 229).mode(0o666);
/// let sandbox = Sandbox::new().rootfs("/srv/alpine").mount(Dev::new("/dev")).mount(fuse);
/// # drop(sandbox);
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct DeviceNode {
    pub(super) target: PathBuf,
    /// The type of the file, as st_mode has it.
    pub(crate) kind: libc::mode_t,
    pub(crate) number: (u32, u32),
    pub(crate) mode: libc::mode_t,
    pub(crate) owner: Option<(u32, u32)>,
}

impl DeviceNode {
    fn new(target: impl Into<PathBuf>, kind: libc::mode_t, number: (u32, u32)) -> Self {
        DeviceNode { target: target.into(), kind, number, mode: 0o666, owner: None }
    }

    /// Makes a character device at `target`, mode 0666.
    pub fn character(target: impl Into<PathBuf>, major: u32, minor: u32) -> Self {
        Self::new(target, libc::S_IFCHR, (major, minor))
    }

    /// Makes a block device at `target`, mode 0666.
    pub fn block(target: impl Into<PathBuf>, major: u32, minor: u32) -> Self {
        Self::new(target, libc::S_IFBLK, (major, minor))
    }

    /// Makes a FIFO at `target`, mode 0666.
    pub fn fifo(target: impl Into<PathBuf>) -> Self {
        Self::new(target, libc::S_IFIFO, (0, 0))
    }

    /// Sets the permission bits.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Sets the user and the group, as the program sees them. By default the node belongs to root.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    pub(super) fn is_device(&self) -> bool {
        self.kind != libc::S_IFIFO
    }
}

/// Makes the node at the target `at`. `pins`: see [`pinning`](super::pinning).
pub(super) fn emit_device_node(plan: &mut Plan, node: &DeviceNode, root: Slot, at: &Path, pins: PlaceFlags) {
    let path = clean(at);
    let (parent, dir) = (path.parent().unwrap_or(Path::new("/")), plan.slot());
    emit_target(plan, root, parent, PlaceFlags::NO_SYMLINKS | pins, dir);
    let name = path.file_name().unwrap_or_default();
    let text = plan.string(name);
    let number = makedev(node.number.0.into(), node.number.1.into());
    let args = [dir.into(), text.into(), (node.kind | node.mode).into(), number.into()];
    let made = plan.call(Step::Dev, libc::SYS_mknodat, args).at(at).hint("a node replaces nothing");
    if node.is_device() {
        made.tolerate(Errno::EPERM);
        let fallback = plan.len();
        emit_bound(plan, node, dir, &path);
        plan.fallback_from(fallback);
    }
    if let Some((uid, gid)) = node.owner {
        let nofollow = libc::AT_SYMLINK_NOFOLLOW;
        let args = [dir.into(), text.into(), uid.into(), gid.into(), nofollow.into()];
        let given = plan.call(Step::Dev, libc::SYS_fchownat, args).at(at);
        if node.is_device() {
            // The host's node, which is bound read-only, keeps its owner.
            given.tolerate(Errno::EROFS);
        }
    }
    plan.close(Step::Dev, dir);
}

/// Binds the host's node, if it is the device.
fn emit_bound(plan: &mut Plan, node: &DeviceNode, dir: Slot, path: &Path) {
    let (host, open, tree) = (plan.string(path), plan.slot(), plan.slot());
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    plan.call(Step::Dev, libc::SYS_openat, [CWD.into(), host.into(), flags.into()])
        .at(path)
        .hint("the caller may not make nodes, and the host has none at this path to be bound")
        .store(open);
    plan.check_device(Step::Dev, open, node.kind, node.number)
        .at(path)
        .hint("the caller may not make nodes, and the host's at this path is another device");
    copy_file(plan, open, tree, path);
    show_device_in(plan, tree, dir, path.file_name().unwrap_or_default(), path);
    plan.close(Step::Dev, open);
}
