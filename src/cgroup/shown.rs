//! The hierarchies that tell a program its limits.

use std::path::PathBuf;
use std::sync::Arc;

use super::controllers::{Controllers, Version};
use super::group::Group;
use super::hierarchy::Hierarchy;
use super::host::Host;
use super::limits::Limits;

/// The controllers whose files tell limits and usage.
const TELLING: Controllers = Controllers::MEMORY
    .union(Controllers::PIDS)
    .union(Controllers::CPU)
    .union(Controllers::CPUACCT)
    .union(Controllers::CPUSET)
    .union(Controllers::IO)
    .union(Controllers::HUGETLB);
/// The controllers that a JVM needs on v1, with that of memory, before it believes in any.
const EXPECTED: Controllers = Controllers::CPU.union(Controllers::CPUACCT).union(Controllers::CPUSET);

/// The hierarchies of one group. A v1 hierarchy is named by the options with which it is mounted.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// True if the v2 group tells limits.
    pub(crate) v2: bool,
    /// The v1 hierarchies that tell limits.
    pub(crate) v1: Vec<Arc<str>>,
    /// The v1 hierarchies without the group that programs expect beside that of memory.
    pub(crate) expected: Vec<Arc<str>>,
    /// The v1 hierarchies in which the group is, that tell no limits.
    pub(crate) silent: Vec<Arc<str>>,
    /// The group's directory on v2.
    pub(crate) v2_dir: Option<PathBuf>,
    /// The group's directories on v1, with the options of their hierarchies.
    pub(crate) v1_dirs: Vec<(Arc<str>, PathBuf)>,
}

impl Host {
    /// Returns the hierarchies that would tell these limits, as far as that is known before there
    /// is a group.
    pub(crate) fn telling(&self, limits: &Limits) -> Shown {
        let telling = || self.serving(limits).filter(|h| h.controllers.intersects(TELLING));
        let v1: Vec<Arc<str>> = telling().filter(|h| h.version == Version::V1).map(|h| h.options.clone()).collect();
        let v2 = telling().any(|h| h.version == Version::V2 && (v1.is_empty() || has_limits(h.controllers)));
        Shown { v2, v1, ..Shown::default() }
    }
}

/// Returns whether files of these controllers on v2 tell limits.
fn has_limits(controllers: Controllers) -> bool {
    (controllers & TELLING).intersects(!Controllers::INHERENT)
}

impl Group {
    /// Returns the hierarchies of this group, and those that tell its limits.
    pub(crate) fn shown(&self, host: &Host) -> Shown {
        let has_part = |h: &Hierarchy| self.parts().any(|part| part.mount == h.mount);
        let options = |h: &Hierarchy| h.options.clone();
        let v1 = || host.hierarchies.iter().filter(|h| h.version == Version::V1);
        let (own, others): (Vec<_>, Vec<_>) = v1().partition(|h| has_part(h));
        let dir = |h: &&Hierarchy| {
            let part = self.parts().find(|part| part.mount == h.mount)?;
            Some((options(h), part.path.clone()))
        };
        let v1_dirs = own.iter().filter_map(dir).collect();
        let (telling, silent): (Vec<_>, Vec<_>) = own.into_iter().partition(|h| h.controllers.intersects(TELLING));
        let memory = telling.iter().any(|h| h.controllers.contains(Controllers::MEMORY));
        let expected = others.into_iter().filter(|h| memory && h.controllers.intersects(EXPECTED)).map(options);
        let own_v2 = self.parts().find(|part| part.version == Version::V2);
        Shown {
            v2: own_v2.is_some_and(|part| telling.is_empty() || has_limits(part.controllers)),
            v1: telling.into_iter().map(options).collect(),
            expected: expected.collect(),
            silent: silent.into_iter().map(options).collect(),
            v2_dir: own_v2.map(|part| part.path.clone()),
            v1_dirs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{HYBRID, parse};
    use super::*;
    use crate::units::Bytes;

    #[test]
    fn hierarchies_that_would_tell_are_known_before_there_is_a_group() {
        let host = parse(HYBRID, "4:memory:/\n3:cpu,cpuacct:/\n2:net_cls:/\n1:name=systemd:/\n0::/\n");
        let Shown { v1, v2, .. } = host.telling(&Limits::new().memory(Bytes::mib(1)));
        assert_eq!(
            (v1.iter().map(|options| &**options).collect::<Vec<_>>(), v2),
            (vec!["cpu,cpuacct", "memory"], false)
        );
    }
}
