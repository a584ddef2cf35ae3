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
/// Where the setup may make no node, in a user namespace and by rules for
/// [`devices`](crate::Sandbox::devices), a caller with CAP_MKNOD on the host makes it, and it is
/// bound: read-only, which says nothing about the device. A caller who may make none either has the
/// host's of the same path bound, if it is that device, with its own mode and owner. What may be
/// done with the device is for [`devices`](crate::Sandbox::devices) to say.
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
    /// The node may stay in a directory of the host that the root is, and may be there already.
    pub(super) in_root: bool,
}

impl DeviceNode {
    fn new(target: impl Into<PathBuf>, kind: libc::mode_t, number: (u32, u32)) -> Self {
        DeviceNode { target: target.into(), kind, number, mode: 0o666, owner: None, in_root: false }
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

    /// Makes an empty file at `target`, for something that is mounted on it later.
    #[cfg(feature = "oci")]
    pub(crate) fn empty_file(target: impl Into<PathBuf>) -> Self {
        Self::new(target, libc::S_IFREG, (0, 0))
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

    /// Lets the node stay in a directory of the host, if the root is one. If it is there already,
    /// it has to be this device, and stays as it is.
    #[cfg(feature = "oci")]
    pub(crate) fn in_root(mut self) -> Self {
        self.in_root = true;
        self
    }

    pub(super) fn is_device(&self) -> bool {
        matches!(self.kind, libc::S_IFCHR | libc::S_IFBLK)
    }
}

/// The directory of a node that the caller has made, and the node's name there.
pub(super) type Ready = Option<(Slot, String)>;

/// Makes the node at the target `at`. `pins`: see [`pinning`](super::pinning).
pub(super) fn emit_device_node(
    plan: &mut Plan,
    node: &DeviceNode,
    root: Slot,
    at: &Path,
    pins: PlaceFlags,
    ready: Ready,
) {
    let path = clean(at);
    let (parent, dir) = (path.parent().unwrap_or(Path::new("/")), plan.slot());
    emit_target(plan, root, parent, PlaceFlags::NO_SYMLINKS | pins, dir);
    let name = path.file_name().unwrap_or_default();
    let text = plan.string(name);
    let number = makedev(node.number.0.into(), node.number.1.into());
    let args = [dir.into(), text.into(), (node.kind | node.mode).into(), number.into()];
    let found = node.in_root.then(|| emit_found(plan, node, dir, &path));
    let made = plan.call(Step::Dev, libc::SYS_mknodat, args).at(at).hint("a node replaces nothing");
    if node.is_device() {
        made.tolerate(Errno::EPERM);
        let fallback = plan.len();
        emit_bound(plan, node, dir, &path, ready);
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
    found.into_iter().for_each(|first| plan.fallback_from(first));
    plan.close(Step::Dev, dir);
}

/// Accepts a node that is there already, if it is the device. Returns where the ops begin that are
/// for a node which is not there.
fn emit_found(plan: &mut Plan, node: &DeviceNode, dir: Slot, path: &Path) -> usize {
    let (name, open) = (plan.string(path.file_name().unwrap_or_default()), plan.slot());
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    plan.call(Step::Dev, libc::SYS_openat, [dir.into(), name.into(), flags.into()])
        .at(path)
        .tolerate(Errno::ENOENT)
        .skip_on_tolerated(2)
        .store(open);
    plan.check_device(Step::Dev, open, node.kind, node.number)
        .at(path)
        .hint("something else is there already, and a node replaces nothing");
    plan.close(Step::Dev, open);
    plan.len()
}

/// Binds the node that the caller has made, or the host's, if it is the device.
fn emit_bound(plan: &mut Plan, node: &DeviceNode, dir: Slot, path: &Path, ready: Ready) {
    let (open, tree) = (plan.slot(), plan.slot());
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    match ready {
        Some((from, name)) => {
            let name = plan.string(name);
            plan.call(Step::Dev, libc::SYS_openat, [from.into(), name.into(), flags.into()]).at(path).store(open);
        }
        None => {
            let host = plan.string(path);
            plan.call(Step::Dev, libc::SYS_openat, [CWD.into(), host.into(), flags.into()])
                .at(path)
                .hint("the caller may not make nodes, and the host has none at this path to be bound")
                .store(open);
        }
    }
    plan.check_device(Step::Dev, open, node.kind, node.number)
        .at(path)
        .hint("the caller may not make nodes, and the host's at this path is another device");
    copy_file(plan, open, tree, path);
    show_device_in(plan, tree, dir, path.file_name().unwrap_or_default(), path);
    plan.close(Step::Dev, open);
}
