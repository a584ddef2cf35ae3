//! Chooses the hierarchies and directories in which the groups of a sandbox stand.

use std::path::{Component, Path, PathBuf};

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::host::Host;
use super::limits::Limits;
use super::parents::ParentGuard;
use super::{adopt, devices};
use crate::error::{Error, Problem, Result, Step};

/// Returns the problem of a path that names no group of a sandbox's own.
pub(crate) fn invalid_group(path: &Path) -> Option<Problem> {
    let plain = |part: Component<'_>| match part {
        Component::RootDir => true,
        Component::Normal(name) => name.to_str().is_some_and(|name| !name.contains(['\0', '\n'])),
        _ => false,
    };
    if path.is_absolute() && path.file_name().is_some() && path.components().all(plain) {
        return None;
    }
    let reason = format!("{path:?} is no absolute path of a group, without .. and in UTF-8");
    Some(Problem::invalid("cgroup", reason, "give the path from the root of the hierarchies, as in /jobs/one"))
}

impl Host {
    /// Returns why an existing group at `path` cannot be a sandbox's own.
    pub(crate) fn unadoptable(&self, path: &Path) -> Option<Problem> {
        self.hierarchies.iter().find_map(|hierarchy| {
            let dir = hierarchy.base(Some(path))?;
            let part = adopt::open(hierarchy, &dir).ok()?;
            let (_, reason) = adopt::in_use(&part, None).ok()??;
            Some(Problem::unsupported("cgroup", format!("{}: {reason}", dir.display()), adopt::NAME_ANOTHER))
        })
    }

    /// Returns the directories in which a group with these limits may stand.
    pub(crate) fn bases(&self, limits: &Limits, parent: Option<&Path>) -> Vec<PathBuf> {
        self.serving(limits).filter_map(|hierarchy| hierarchy.base(parent)).collect()
    }

    /// Keeps the parent groups above groups with these limits, once they are made.
    pub(crate) fn hold(&self, limits: &Limits, parent: &Path) -> Result<ParentGuard> {
        let bases = self.serving(limits).filter_map(|h| Some((h.base(Some(parent))?, h.mount.clone()))).collect();
        ParentGuard::new(bases).map_err(|errno| Error::new(Step::CreateCgroup, errno))
    }

    /// Returns the hierarchies in which a group with these limits may stand.
    pub(super) fn serving(&self, limits: &Limits) -> impl Iterator<Item = &Hierarchy> {
        let useful = limits.controllers() | Controllers::CPUACCT | Controllers::FREEZER | Controllers::PIDS;
        self.hierarchies.iter().filter(move |h| h.version == Version::V2 || h.controllers.intersects(useful))
    }

    /// Returns the hierarchy that enforces device rules for a group below `parent`: v2 if the
    /// caller may load programs, else v1.
    pub(super) fn device_hierarchy(&self, parent: Option<&Path>) -> Option<&Hierarchy> {
        let v1 = self.hierarchies.iter().find(|h| h.is_v1_with(Controllers::DEVICES));
        let v2 = self.v2().filter(|_| self.filters_devices());
        match (v1, v2) {
            (Some(v1), Some(v2)) if v2.creation_obstacle(Controllers::DEVICES, parent).is_some() => Some(v1),
            _ => v2.or(v1),
        }
    }

    fn filters_devices(&self) -> bool {
        if self.filters_devices.get().is_some() {
            return true;
        }
        let able = devices::filter::obstacle().is_none();
        if able {
            self.filters_devices.get_or_init(|| ());
        }
        able
    }
}
