//! The location of a sandbox's control group.

use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "systemd")]
use super::scope;
#[cfg(feature = "oci")]
use crate::cgroup;
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
    /// The boundary around the location, if the caller may not put the child there.
    #[cfg(feature = "systemd")]
    pub(super) boundary: Option<scope::DelegationBoundary>,
}

impl Location {
    /// Returns the host as groups at this location see it.
    pub(super) fn host<'s>(&'s self, host: &'s Host) -> &'s Host {
        #[cfg(feature = "systemd")]
        if let Some(boundary) = &self.boundary {
            return &boundary.host;
        }
        host
    }

    /// Returns a function that puts a child into its group, if the caller may not.
    pub(super) fn group_mover(&self, _group: Option<&Group>, _patience: Duration) -> Option<GroupMover> {
        #[cfg(feature = "systemd")]
        if let (Some(boundary), Some(group)) = (&self.boundary, _group) {
            return Some(boundary.group_mover(group, _patience));
        }
        None
    }
}

/// A function that puts a child into its group.
pub(super) type GroupMover = Box<dyn Fn(i32) -> Result<()>>;

/// Returns a function that has systemd put a child into `group`, or into a group `below` it, if
/// that is the group of a scope, and the caller may not put it there.
pub(super) fn scope_mover(
    _group: Option<&Group>,
    _below: Option<&Group>,
    _patience: Duration,
) -> Result<Option<GroupMover>> {
    #[cfg(feature = "oci")]
    if let Some(group) = _group {
        let host = cgroup::host()?;
        let boundary =
            group.scope_across_boundary(host).map(|unit| scope::DelegationBoundary::of_scope(unit, host, group.name()));
        return Ok(boundary.map(|boundary| boundary.group_mover(_below.unwrap_or(group), _patience)));
    }
    Ok(None)
}

impl Policy {
    /// Replaces the error of a group in a scope by that of `check`, which knows the reasons.
    pub(super) fn explain_by_check(&self, error: Error) -> Error {
        #[cfg(feature = "systemd")]
        if self.systemd_scope.is_some() || self.has_unit() {
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
            boundary: None,
        })
    }

    /// Returns the location in the scope, which is made if it does not exist yet.
    #[cfg(feature = "systemd")]
    fn location_in_scope(&self, scope: &SystemdScope, limits: &Limits, host: &Host) -> Result<Location> {
        if !host.is_unified_for(limits) {
            self.judge(true)?;
        }
        match scope::locate(scope, host, self.setup_timeout()) {
            Ok(location) => Ok(Location { parent: Some(location.parent), boundary: location.boundary }),
            Err(error) => Err(self.explain_by_check(error)),
        }
    }
}
