//! The template: the library's empty mount namespace, from which a sandbox's can be made, instead
//! of from the caller's.

use std::os::fd::BorrowedFd;

use caps::Capability;

use super::capabilities::has_capability;
use crate::cgroup::{Device, DeviceAccess, Devices};
use crate::mount;
use crate::namespace::Namespaces;
use crate::policy::Policy;

impl Policy {
    /// Returns the template, if it can be used: it belongs to the caller's user namespace, and the
    /// host's files cannot be found from it.
    pub(crate) fn template(&self) -> Option<BorrowedFd<'static>> {
        if self.fits_template() && may_use_template() { self.mounts.template() } else { None }
    }

    /// Returns whether a sandbox with a user namespace of its own can start from the sparse mount
    /// namespace. `caller_copies`: the caller, and not the stub, copies the host's mounts.
    pub(crate) fn fits_sparse(&self, caller_copies: bool) -> bool {
        let apart = self.namespaces.new.contains(Namespaces::MOUNT | Namespaces::USER);
        apart && caller_copies && self.namespaces.join.is_empty() && self.mounts.fits_sparse() && may_use_template()
    }

    /// Returns whether the policy allows the template.
    fn fits_template(&self) -> bool {
        self.namespaces.new.contains(Namespaces::MOUNT)
            && !self.namespaces.new.contains(Namespaces::USER)
            && self.namespaces.join.is_empty()
            // If the device rules forbid making a node, /dev has to bind the host's node.
            && self.limits.devices.as_ref().is_none_or(may_make_nodes)
            && self.mounts.fits_template()
    }

    /// Returns whether the caller opens each source of a mount, and passes on its descriptor.
    pub(super) fn opens_mounts_ahead(&self) -> bool {
        let is_others = self.namespaces.new.contains(Namespaces::USER) && has_capability(Capability::CAP_SYS_ADMIN);
        is_others || (self.fits_template() && may_use_template())
    }
}

/// Returns whether the device rules let the setup make the nodes of a /dev.
fn may_make_nodes(rules: &Devices) -> bool {
    let mut nodes = mount::NODES.iter().map(|(_, major, minor)| Device::char(*major, *minor));
    nodes.all(|node| rules.allows(node, DeviceAccess::MKNOD))
}

/// Returns whether the caller has the capabilities for the template: setns(2), chroot(2) and
/// mknod(2) need one each, and the caller may have given up one of them.
fn may_use_template() -> bool {
    let needed = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT, Capability::CAP_MKNOD];
    needed.into_iter().all(has_capability)
}
