//! Device nodes that the caller makes for a sandbox whose setup may make none: mknod(2) is for root
//! on the host alone, and the rules for devices of the control group, in which the setup is
//! already, may forbid it. They are in a file system of their own, which the setup attaches for as
//! long as it binds them.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknodat};
use nix::unistd::fchownat;

use super::calls::attach_to;
use super::dev::NODES;
use super::kinds::{Kind, Mount};
use super::mounts::Mounts;
use super::node::DeviceNode;
use crate::error::Step;
use crate::plan::{Plan, RunFd, Slot};
use crate::sys::mount;

impl Mounts {
    /// Makes the device nodes of the list. `outside` returns the ids that those of the sandbox are
    /// on the host. Returns nothing where there are none, and where this process may make none:
    /// then the setup binds those of the host. It makes the devices of every /dev itself, unless it
    /// is in a user namespace: no rule of a control group forbids these.
    pub(crate) fn make_nodes(
        &self,
        user_ns: bool,
        outside: impl Fn((u32, u32)) -> Option<(u32, u32)>,
    ) -> Option<OwnedFd> {
        let nodes: Vec<_> = nodes(&self.mounts).collect();
        let is_common = |node: &&DeviceNode| NODES.iter().any(|(_, major, minor)| node.number == (*major, *minor));
        let is_needed = nodes.iter().any(|node| user_ns || node.kind != libc::S_IFCHR || !is_common(node));
        self.root.as_ref().filter(|_| is_needed)?;
        let inodes = CString::new((nodes.len() + 1).to_string()).ok()?;
        let dir = mount::new_tmpfs(&inodes).ok()?;
        let make = |(index, node): (usize, &&DeviceNode)| -> Result<(), Errno> {
            let name = name(index);
            let (kind, mode) = (SFlag::from_bits_truncate(node.kind), Mode::from_bits_truncate(node.mode));
            mknodat(&dir, name.as_str(), kind, mode, makedev(node.number.0.into(), node.number.1.into()))?;
            // The umask is this process's.
            fchmodat(&dir, name.as_str(), mode, FchmodatFlags::FollowSymlink)?;
            if let Some((uid, gid)) = outside(node.owner.unwrap_or((0, 0))) {
                let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
                fchownat(dir.as_fd(), name.as_str(), Some(uid.into()), Some(gid.into()), flags)?;
            }
            Ok(())
        };
        nodes.iter().enumerate().try_for_each(make).ok().map(|()| dir)
    }
}

/// Returns the device nodes of a list.
fn nodes(mounts: &[Mount]) -> impl Iterator<Item = &DeviceNode> {
    mounts.iter().filter_map(|mount| match &mount.kind {
        Kind::Node(node) if node.is_device() => Some(node),
        _ => None,
    })
}

/// The file system with the nodes that the caller has made, while the mounts of the list are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Precreated {
    dir: Slot,
}

impl Precreated {
    /// Attaches the file system over the root, below which the mounts are made by a descriptor.
    /// Only what is attached can be copied: open_tree(2) before 6.15.
    pub(super) fn emit(plan: &mut Plan, root: Slot) -> Precreated {
        let (number, dir) = (plan.run_fd(RunFd::Nodes), plan.slot());
        let flags = libc::F_DUPFD_CLOEXEC;
        plan.call(Step::Dev, libc::SYS_fcntl, [number.into(), flags.into(), 0.into()]).store(dir);
        attach_to(plan, Step::MoveMount, dir, root, Path::new("/"));
        Precreated { dir }
    }

    /// Returns where the node is that comes behind those of `before` in the list.
    pub(super) fn place(self, before: &[Mount]) -> (Slot, String) {
        (self.dir, name(nodes(before).count()))
    }

    /// Detaches the file system. Copies of its nodes stay.
    pub(super) fn emit_end(self, plan: &mut Plan) {
        let here = plan.string(".");
        plan.call(Step::Dev, libc::SYS_fchdir, [self.dir.into()]);
        plan.call(Step::Mount, libc::SYS_umount2, [here.into(), libc::MNT_DETACH.into()]).at("device nodes");
        plan.close(Step::Dev, self.dir);
    }
}

fn name(index: usize) -> String {
    index.to_string()
}
