//! The resources that are made outside of one sandbox, and removed with it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::cgroup::Group;
use crate::mount::RootGuard;
use crate::namespace::Lease;
use crate::owner::{Claim, Scratch};

/// The longest time that the removal of an unused group may take.
const UNDO_TIMEOUT: Duration = Duration::from_secs(1);

/// The resources of one sandbox, from their creation until the end of the sandbox. The setup owns
/// them first, then the handle.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    pub(crate) claim: Option<Claim>,
    pub(crate) scratch: Option<Scratch>,
    pub(crate) group: Option<Group>,
    /// The ids that belong to this sandbox alone.
    pub(crate) lease: Option<Lease>,
    /// The guard that keeps an image in its store.
    pub(crate) root_guard: Option<RootGuard>,
    pub(crate) mount_ns: Option<MountNamespace>,
}

impl Resources {
    /// Removes everything again. No process is in the group. In a fork of the owner this function
    /// does nothing, because the fork owns none of the resources.
    pub(crate) fn undo(&mut self) {
        if self.claim.as_ref().is_some_and(|claim| !claim.is_here()) {
            return self.scratch.take().into_iter().for_each(Scratch::forget);
        }
        let group_gone = self.group.take().is_none_or(|group| group.remove(UNDO_TIMEOUT).is_ok());
        let scratch_gone = self.scratch.as_mut().is_none_or(|scratch| scratch.remove(None).is_ok());
        if group_gone {
            self.lease.take().into_iter().for_each(|lease| lease.end(true));
        }
        if !(group_gone && scratch_gone) {
            self.claim.take().into_iter().for_each(Claim::leave);
        }
    }
}

/// The mount namespace of a sandbox whose program may have ended. A drop hands over its last
/// descriptor: the kernel needs as long to remove the mounts as a small program runs, and the
/// caller need not wait for that.
#[derive(Debug)]
pub(crate) struct MountNamespace {
    fd: Option<OwnedFd>,
    close: fn(OwnedFd),
}

impl MountNamespace {
    pub(crate) fn new(fd: OwnedFd, close: fn(OwnedFd)) -> Self {
        MountNamespace { fd: Some(fd), close }
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        self.fd.take().into_iter().for_each(self.close);
    }
}
