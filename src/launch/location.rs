//! The place where the control group of a sandbox stands.

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

/// Where the control group stands.
#[derive(Debug, Default)]
pub(super) struct Location {
    pub(super) parent: Option<PathBuf>,
    /// The caller may not put the child there by itself.
    #[cfg(feature = "systemd")]
    pub(super) fence: Option<scope::Fence>,
}

impl Location {
    /// The host as it is for groups here.
    pub(super) fn host<'s>(&'s self, host: &'s Host) -> &'s Host {
        #[cfg(feature = "systemd")]
        if let Some(fence) = &self.fence {
            return &fence.host;
        }
        host
    }

    /// What puts a child into its group where the caller may not.
    pub(super) fn entrance(
        &self,
        _group: Option<&Group>,
        _patience: Duration,
    ) -> Option<Box<dyn Fn(i32) -> Result<()>>> {
        #[cfg(feature = "systemd")]
        if let (Some(fence), Some(group)) = (&self.fence, _group) {
            return Some(fence.entrance(group, _patience));
        }
        None
    }
}

impl Policy {
    /// What `check` says to a failure of a group in a scope.
    pub(super) fn as_checked(&self, error: Error) -> Error {
        #[cfg(feature = "systemd")]
        if self.systemd_scope.is_some() {
            return self.judge(true).err().unwrap_or(error);
        }
        error
    }

    pub(super) fn location(&self, _judgement: &Judgement, _host: &Host) -> Result<Location> {
        #[cfg(feature = "systemd")]
        if let Some(scope) = &self.systemd_scope {
            return self.location_in_scope(scope, &_judgement.limits, _host);
        }
        Ok(Location {
            parent: self.cgroup_parent.clone(),
            #[cfg(feature = "systemd")]
            fence: None,
        })
    }

    #[cfg(feature = "systemd")]
    /// The scope is made if it does not stand yet.
    fn location_in_scope(&self, scope: &SystemdScope, limits: &Limits, host: &Host) -> Result<Location> {
        if !host.is_unified_for(limits) {
            self.judge(true)?;
        }
        match scope::place(scope, host, self.setup_timeout()) {
            Ok(place) => Ok(Location { parent: Some(place.parent), fence: place.fence }),
            Err(error) => Err(self.as_checked(error)),
        }
    }
}
