//! The sparse mount namespace: what of the host's mounts a sandbox with a user namespace of its own
//! needs to start from, and no more.
//!
//! The clone that makes such a sandbox copies the mount namespace of the cloning thread, mount by
//! mount, and the setup takes the copies off again. From the empty [`template`](super::template)
//! the sandbox cannot start: in a user namespace, the kernel mounts a /proc only where one is
//! mounted already, and a /dev binds the host's nodes. So each thread that clones such sandboxes
//! lives in a mount namespace with these two, and nothing else of the host's. All other files of
//! the host come as detached trees, which the caller makes. What is below the new root is taken off
//! as it is on a start from the host.

use super::kinds::Kind;
use super::mounts::Mounts;
use super::root::{Base, RootFs};
use crate::error::{Error, Step};
use crate::sys::mount::Relation;

/// Returns whether a step may have failed because the sandbox did not start from the host's mounts.
pub(crate) fn may_miss_mounts(error: &Error) -> bool {
    const STEPS: [Step; 8] = [
        Step::Spawner,
        Step::Clone,
        Step::OpenTree,
        Step::MoveMount,
        Step::Mount,
        Step::MountAttr,
        Step::Mask,
        Step::PivotRoot,
    ];
    STEPS.contains(&error.step())
}

impl Mounts {
    /// Returns whether all that the mounts need of the host is in the sparse namespace, or comes as
    /// a descriptor.
    pub(crate) fn fits_sparse(&self) -> bool {
        let fits = |kind: &Kind| match kind {
            // The host's mounts, which the bind is tied to, are not there.
            Kind::Bind(bind) => bind.relation(true) == Relation::Private,
            kind => !matches!(kind, Kind::Sysfs | Kind::Overlay(_) | Kind::Raw(_) | Kind::Node(_)),
        };
        let root_fits = matches!(&self.root, Some(RootFs { base: Base::Dir(_) | Base::Programs, .. }));
        let stays = !self.stops_before_entry && !self.no_pivot;
        stays && root_fits && self.mounts.iter().all(|mount| fits(&mount.kind))
    }
}
