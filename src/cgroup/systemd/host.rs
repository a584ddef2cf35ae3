//! The v2 hierarchy of this host, as systemd scopes use it.

use std::path::{Path, PathBuf};

use crate::cgroup::controllers::{Controllers, Version};
#[cfg(feature = "oci")]
use crate::cgroup::group::Group;
use crate::cgroup::host::Host;
use crate::cgroup::limits::Limits;
#[cfg(feature = "oci")]
use crate::cgroup::unit_id::is_scope;

impl Host {
    /// Returns the v2 group of the process `pid`, counted from the root of the hierarchy as the
    /// caller sees it.
    pub(crate) fn v2_group_of(pid: i32) -> Option<PathBuf> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
    }

    /// Returns the directory of a v2 group that is given from the root of the hierarchy.
    pub(crate) fn v2_dir(&self, group: &Path) -> Option<PathBuf> {
        self.v2().and_then(|v2| v2.base(Some(group)))
    }

    /// Returns whether v2 has every controller that these limits need.
    pub(crate) fn is_unified_for(&self, limits: &Limits) -> bool {
        self.v2().is_some_and(|v2| v2.controllers.contains(limits.controllers() - Controllers::DEVICES))
    }

    /// Returns this host as a process in `group` sees it.
    pub(crate) fn seen_from(&self, group: &Path) -> Host {
        let mut host = self.clone();
        for v2 in host.hierarchies.iter_mut().filter(|hierarchy| hierarchy.version == Version::V2) {
            v2.own = v2.base(Some(group));
        }
        host
    }

    /// Returns whether the caller may not move its own processes into `group`, even if it may write
    /// there. Moving needs write access to the nearest group above both.
    pub(crate) fn is_across_boundary(&self, group: &Path) -> bool {
        self.v2().is_some_and(|v2| v2.base(Some(group)).is_some_and(|dir| v2.move_obstacle(&dir).is_some()))
    }
}

#[cfg(feature = "oci")]
impl Group {
    /// Returns the name of the scope whose own group this is, if only systemd may put the caller's
    /// processes there.
    pub(crate) fn scope_across_boundary(&self, host: &Host) -> Option<String> {
        let dir = &self.v2()?.path;
        let name = dir.file_name()?.to_str().filter(|name| is_scope(name))?;
        host.v2()?.move_obstacle(dir).map(|_| name.to_owned())
    }
}
