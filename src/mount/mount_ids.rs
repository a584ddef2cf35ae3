//! The id maps of a mount: files have other owners there than on disk.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Problem, Result, Step};
use crate::idmap::{IdMap, LINES_MAX};

/// The id maps of a mount.
#[derive(Debug, Clone)]
pub(crate) enum MountIds {
    /// Those of the sandbox's user namespace.
    Sandbox,
    /// Maps of the mount's own.
    Given(GivenIds),
}

/// Maps of a mount's own, with the user namespace by which the kernel takes them.
#[derive(Debug, Clone)]
pub(crate) struct GivenIds {
    uid: Vec<IdMap>,
    gid: Vec<IdMap>,
    /// Made before the first spawn, and shared with all copies of the policy.
    user_ns: Arc<OnceLock<Arc<OwnedFd>>>,
}

impl GivenIds {
    pub(super) fn new(uid: Vec<IdMap>, gid: Vec<IdMap>) -> Self {
        GivenIds { uid, gid, user_ns: Arc::default() }
    }

    /// The maps of a user namespace that exists.
    #[cfg(feature = "oci")]
    pub(super) fn of_existing(user_ns: OwnedFd) -> Self {
        let given = GivenIds::new(Vec::new(), Vec::new());
        let _ = given.user_ns.set(Arc::new(user_ns));
        given
    }

    /// Makes the user namespace, if it has not been made.
    pub(super) fn make(&self, make: impl FnOnce(Vec<IdMap>, Vec<IdMap>) -> Result<OwnedFd>) -> Result<()> {
        if self.user_ns.get().is_none() {
            let made = make(self.uid.clone(), self.gid.clone())?;
            // Another thread may have been first.
            let _ = self.user_ns.set(Arc::new(made));
        }
        Ok(())
    }

    /// Takes the user namespace of `other`, if that has the same maps.
    pub(super) fn share(&self, other: &GivenIds) {
        if (&self.uid, &self.gid) == (&other.uid, &other.gid)
            && let Some(user_ns) = other.user_ns.get()
        {
            // Another thread may have been first.
            let _ = self.user_ns.set(user_ns.clone());
        }
    }

    /// Returns the user namespace.
    pub(super) fn user_ns(&self) -> Result<Arc<OwnedFd>> {
        self.user_ns.get().cloned().ok_or_else(|| Error::new(Step::IdMapMount, nix::errno::Errno::EBADF))
    }

    pub(super) fn invalid(&self) -> Option<Problem> {
        if self.uid.is_empty() && self.gid.is_empty() && self.user_ns.get().is_some() {
            return None;
        }
        let lines =
            |lines: &[IdMap]| !lines.is_empty() && lines.len() <= LINES_MAX && lines.iter().all(IdMap::is_valid);
        (!lines(&self.uid) || !lines(&self.gid)).then(|| {
            let reason = format!("the id maps of a mount have 1 to {LINES_MAX} lines each, of at least one id");
            Problem::invalid("id_mapped", reason, "give a map of users and one of groups")
        })
    }
}
