//! The hierarchies of this host, as systemd scopes use them.

use std::path::{Path, PathBuf};

use crate::cgroup::controllers::{Controllers, Version};
#[cfg(feature = "oci")]
use crate::cgroup::group::Group;
use crate::cgroup::host::Host;
use crate::cgroup::limits::Limits;
#[cfg(feature = "oci")]
use crate::cgroup::unit_id::is_scope;
use crate::sys::by_fd;

/// Where systemd looks for its hierarchies: one of v2 there is the only one that it has.
#[cfg(feature = "oci")]
const TOP: &str = "/sys/fs/cgroup";

#[cfg(feature = "oci")]
impl Host {
    /// Returns whether systemd has all its controllers on v2. Else it has those of v1, and keeps
    /// processes apart in `name=systemd`, beside which a hybrid host has a v2 hierarchy for them.
    pub(crate) fn is_unified(&self) -> bool {
        let is_alone = || self.hierarchies.iter().all(|hierarchy| hierarchy.version == Version::V2);
        self.v2().is_some_and(|v2| v2.mount == Path::new(TOP) || is_alone())
    }

    /// Returns whether there is a hierarchy in which systemd keeps processes apart.
    pub(super) fn keeps_units(&self) -> bool {
        self.hierarchies
            .iter()
            .any(|hierarchy| hierarchy.version == Version::V2 || hierarchy.controllers.contains(Controllers::SYSTEMD))
    }

    /// Returns the group of the unit that the process `pid` is in, counted from the root of the
    /// hierarchies.
    pub(crate) fn unit_group_of(&self, pid: i32) -> Option<PathBuf> {
        let text = by_fd::short_text(format!("/proc/{pid}/cgroup").as_ref()).ok()?;
        let named = |line: &str| line.split_once(':')?.1.strip_prefix("name=systemd:").map(PathBuf::from);
        let kept_apart = text.lines().find_map(named).filter(|_| !self.is_unified());
        kept_apart.or_else(|| Host::v2_group_of(pid))
    }
}

impl Host {
    /// Returns the v2 group of the process `pid`, counted from the root of the hierarchy as the
    /// caller sees it.
    pub(crate) fn v2_group_of(pid: i32) -> Option<PathBuf> {
        let text = by_fd::short_text(format!("/proc/{pid}/cgroup").as_ref()).ok()?;
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

#[cfg(all(test, feature = "oci"))]
mod tests {
    use super::*;
    use crate::cgroup::host::tests::{HYBRID, parse};

    #[test]
    fn systemd_has_its_controllers_where_it_looks_for_them() {
        let at = |mounts: &str| Host::parse(mounts, "0::/\n", Path::new("/"), |_, _| true).unwrap().is_unified();
        let v2 = |path: &str| format!("30 23 0:26 / {path} rw - cgroup2 cgroup2 rw\n");
        let v1 = |options: &str| format!("31 23 0:27 / /mnt/{options} rw - cgroup cgroup rw,{options}\n");
        // Others may mount what they like beside it.
        for others in [String::new(), v1("name=systemd"), v1("net_cls")] {
            assert!(at(&(v2(TOP) + &others)), "{others}");
        }
        assert!(at(&v2("/elsewhere")));
        assert!(!at(&(v2("/sys/fs/cgroup/unified") + &v1("memory"))));
        assert!(!at(&v1("name=systemd")) && !at(""));
        assert!(!parse(HYBRID, "").is_unified() && parse(HYBRID, "").keeps_units());
        assert!(!parse(&v1("memory"), "").keeps_units());
    }
}
