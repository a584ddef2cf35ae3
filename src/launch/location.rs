//! The location of a sandbox's control group.

use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "systemd")]
use super::scope;
use crate::cgroup::{Group, Host};
#[cfg(feature = "systemd")]
use crate::cgroup::{Limits, SystemdScope};
use crate::error::{Error, Result};
use crate::judge::Judgement;
use crate::policy::Policy;

/// The location of a control group.
#[derive(Debug, Default)]
pub(super) struct Location {
    pub(super) parent: Option<PathBuf>,
    /// The fence around the location, if the caller may not put the child there.
    #[cfg(feature = "systemd")]
    pub(super) fence: Option<scope::Fence>,
}

impl Location {
    /// Returns the host as groups at this location see it.
    pub(super) fn host<'s>(&'s self, host: &'s Host) -> &'s Host {
        #[cfg(feature = "systemd")]
        if let Some(fence) = &self.fence {
            return &fence.host;
        }
        host
    }

    /// Returns a function that puts a child into its group, if the caller may not.
    pub(super) fn group_mover(
        &self,
        _group: Option<&Group>,
        _patience: Duration,
    ) -> Option<Box<dyn Fn(i32) -> Result<()>>> {
        #[cfg(feature = "systemd")]
        if let (Some(fence), Some(group)) = (&self.fence, _group) {
            return Some(fence.group_mover(group, _patience));
        }
        None
    }
}

impl Policy {
    /// Replaces the error of a group in a scope by that of `check`, which knows the reasons.
    pub(super) fn explain_by_check(&self, error: Error) -> Error {
        #[cfg(feature = "systemd")]
        if self.systemd_scope.is_some() {
            return self.judge(true).err().unwrap_or(error);
        }
        error
    }

    /// Returns the location of the group: below `cgroup_parent`, or in the scope.
    pub(super) fn location(&self, _judgement: &Judgement, _host: &Host) -> Result<Location> {
        #[cfg(feature = "systemd")]
        if let Some(scope) = &self.systemd_scope {
            return self.location_in_scope(scope, &_judgement.limits, _host);
        }
        Ok(Location {
            parent: self.group_parent().map(PathBuf::from),
            #[cfg(feature = "systemd")]
            fence: None,
        })
    }

    /// Returns the location in the scope, which is made if it does not exist yet.
    #[cfg(feature = "systemd")]
    fn location_in_scope(&self, scope: &SystemdScope, limits: &Limits, host: &Host) -> Result<Location> {
        if !host.is_unified_for(limits) {
            self.judge(true)?;
        }
        match scope::locate(scope, host, self.setup_timeout()) {
            Ok(location) => Ok(Location { parent: Some(location.parent), fence: location.fence }),
            Err(error) => Err(self.explain_by_check(error)),
        }
    }
}
