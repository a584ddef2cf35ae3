//! Finds the limits that this host cannot enforce, with the reason and the remedy.

use std::path::{Component, Path};

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::host::Host;
use super::limits::{Limits, controller_of};
use super::{devices, hugetlb, support};
use crate::error::Problem;
use crate::feature::{Enforcement, Feature};

const NO_SWAP: &str = "this kernel does not account for swap";
const WEIGHED: &str = "only on disks with the scheduler bfq, or with io.cost.qos switched on";
const SWAP_REMEDY: &str = "boot with swapaccount=1";

impl Host {
    /// Returns the parts of the policy that cannot be enforced below `parent`. The check opens and
    /// reads about a dozen files: it serves explicit checks and the explanation of a failure, and
    /// does not run at each spawn.
    pub(crate) fn problems(&self, limits: &Limits, account_cpu: bool, parent: Option<&Path>) -> Vec<Problem> {
        if parent.is_some_and(|parent| invalid_parent(parent).is_some()) {
            // The check of the policy itself has reported this path.
            return Vec::new();
        }
        let mut features = limits.features();
        features.extend(account_cpu.then_some(Feature::CpuTime));
        let mut problems: Vec<_> = features.iter().filter_map(|f| self.problem(*f, parent)).collect();
        if limits.swap_stands_alone()
            && self.hierarchy_of(Controllers::MEMORY).is_some_and(|h| h.version == Version::V1)
        {
            let reason = "cgroup v1 limits only the sum of memory and swap";
            problems.push(
                Problem::unsupported("swap_limit", reason, "set memory_limit too").for_feature(Feature::SwapLimit),
            );
        }
        let inexpressible = limits.devices.as_ref().is_some_and(|rules| devices::v1::List::new(rules).is_none());
        if inexpressible && self.device_hierarchy(parent).is_some_and(|h| h.version == Version::V1) {
            let (reason, remedy) = devices::v1::NOT_EXPRESSIBLE;
            problems.push(Problem::unsupported("devices", reason, remedy).for_feature(Feature::Devices));
        }
        problems.extend(hugetlb::unknown_size(limits));
        if let Some(v2) = self.v2() {
            problems.extend(support::unified_without(limits, v2.controllers));
        }
        problems.extend(self.unprotected(limits, parent));
        problems
    }

    /// Returns the memory protection that `parent` and the groups above it do not have to give.
    pub(super) fn unprotected(&self, limits: &Limits, parent: Option<&Path>) -> Vec<Problem> {
        if limits.memory_low.is_none() && limits.memory_min.is_none() {
            return Vec::new();
        }
        let hierarchy = self.hierarchy_of(Controllers::MEMORY).filter(|hierarchy| hierarchy.version == Version::V2);
        let based = hierarchy.and_then(|hierarchy| Some((hierarchy, hierarchy.base(parent)?)));
        based.map_or(Vec::new(), |(hierarchy, base)| support::unprotected(&hierarchy.mount, limits, &base))
    }

    /// Returns why `feature` cannot be enforced below `parent`.
    fn problem(&self, feature: Feature, parent: Option<&Path>) -> Option<Problem> {
        let controller = controller_of(feature);
        let mut candidates: Vec<_> = self.hierarchies.iter().filter(|h| h.controllers.contains(controller)).collect();
        if feature == Feature::Devices {
            candidates = self.device_hierarchy(parent).into_iter().collect();
        }
        let base = self.hierarchy_of(controller).and_then(|hierarchy| hierarchy.base(parent));
        let missing =
            self.hierarchy_of(controller).and_then(|hierarchy| hierarchy.unsupported(feature, base.as_deref()));
        let (reason, remedy) = if candidates.is_empty() {
            self.absence(feature)
        } else if let Some((reason, remedy)) = missing {
            (reason.to_owned(), remedy)
        } else if feature == Feature::SwapLimit && !self.swap {
            (NO_SWAP.to_owned(), SWAP_REMEDY)
        } else {
            // Two hierarchies can count CPU time, and one of them is enough.
            let obstacles: Option<Vec<_>> =
                candidates.iter().map(|hierarchy| hierarchy.creation_obstacle(controller, parent)).collect();
            obstacles?.swap_remove(0)
        };
        Some(Problem::unsupported(feature.as_str(), reason, remedy).for_feature(feature))
    }

    /// Returns why no hierarchy has the controller of `feature`, and the remedy.
    fn absence(&self, feature: Feature) -> (String, &'static str) {
        let controller = controller_of(feature);
        if let Some((reason, remedy)) = support::unsupported_on_v1(feature).filter(|_| controller == Controllers::CORE)
        {
            return (reason.to_owned(), remedy);
        }
        let name = controller.name();
        if controller == Controllers::DEVICES
            && self.v2().is_some()
            && let Some(obstacle) = devices::filter::obstacle()
        {
            return obstacle;
        }
        // The root group has every controller of the kernel, and is the only one without
        // `cgroup.type` (4.14).
        let inner = |h: &&Hierarchy| h.version == Version::V2 && h.mount.join("cgroup.type").exists();
        if (Controllers::NET_CLS | Controllers::NET_PRIO).contains(controller) {
            let reason = format!("cgroup v2 has no {name}, and no v1 hierarchy with it is mounted");
            return (reason, "leave it out, and tell packets by the path of the group (nft: socket cgroupv2)");
        }
        if let Some(v2) = self.hierarchies.iter().find(inner) {
            let reason = format!("the group that {} shows was not given the {name} controller", v2.mount.display());
            return (reason, "on the host: enable it in cgroup.subtree_control of the groups above");
        }
        if self.hierarchies.is_empty() {
            let remedy = "mount cgroup2 on /sys/fs/cgroup; in a container or sandbox that shows none, leave the limit to the \
                          one around, and go without by best_effort() of the limit's Feature";
            return ("no cgroup hierarchy is mounted".to_owned(), remedy);
        }
        let mounts: Vec<_> = self.hierarchies.iter().map(|h| h.mount.display().to_string()).collect();
        let reason = format!("no hierarchy has the {name} controller (looked at {})", mounts.join(", "));
        (reason, absence_remedy(controller))
    }

    /// Returns the enforcement of a limit of swap that the kernel does not count.
    pub(crate) fn swap_uncounted(&self) -> Enforcement {
        Enforcement::Missing(format!("{NO_SWAP}; {SWAP_REMEDY}"))
    }

    /// Returns how well the kernel enforces `feature`, independent of the group's place.
    pub(crate) fn enforcement(&self, feature: Feature) -> Enforcement {
        let controller = controller_of(feature);
        let hierarchy =
            if feature == Feature::Devices { self.device_hierarchy(None) } else { self.hierarchy_of(controller) };
        match (hierarchy, feature) {
            (None, _) => {
                let (reason, remedy) = self.absence(feature);
                Enforcement::Missing(format!("{reason}; {remedy}"))
            }
            (Some(_), Feature::SwapLimit) if !self.swap => self.swap_uncounted(),
            (Some(hierarchy), Feature::IoLimit) if hierarchy.version == Version::V1 => {
                Enforcement::Partial("cgroup v1 limits reads and direct writes only; buffered writes are not throttled")
            }
            (Some(hierarchy), _) => match hierarchy.unsupported(feature, None) {
                Some((reason, remedy)) => Enforcement::Missing(format!("{reason}; {remedy}")),
                None if feature == Feature::MemoryLimit => {
                    self.uncounted_memory().map_or(Enforcement::Full, Enforcement::Partial)
                }
                None if feature == Feature::IoWeight => Enforcement::Partial(WEIGHED),
                None => Enforcement::Full,
            },
        }
    }
}

/// Returns the problem of a parent group whose path is not absolute or contains `..`.
pub(crate) fn invalid_parent(parent: &Path) -> Option<Problem> {
    let plain = |c: Component<'_>| c != Component::ParentDir && !c.as_os_str().as_encoded_bytes().contains(&0);
    if parent.is_absolute() && parent.components().all(plain) {
        return None;
    }
    let reason = format!("{} is no absolute path without ..", parent.display());
    Some(Problem::invalid("cgroup_parent", reason, "give the path from the root of the hierarchies, as in /jobs"))
}

fn absence_remedy(controller: Controllers) -> &'static str {
    if controller == Controllers::MEMORY {
        "boot with cgroup_enable=memory, or mount cgroup2 on /sys/fs/cgroup"
    } else {
        "mount cgroup2 on /sys/fs/cgroup, or use a kernel with the controller"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::host::tests::{HYBRID, parse};

    #[test]
    fn a_host_without_hierarchies_misses_every_feature() {
        let host = parse("23 1 0:20 / / rw - ext4 /dev/root rw\n", "");
        let limits = Limits::new().memory(1 << 20).pids(5);
        let problems = host.problems(&limits, true, None);
        let features: Vec<_> = problems.iter().filter_map(|p| p.feature).collect();
        assert_eq!(features, [Feature::MemoryLimit, Feature::PidsLimit, Feature::CpuTime]);
        assert!(Feature::ALL.iter().all(|f| matches!(host.enforcement(*f), Enforcement::Missing(_))));
        assert!(matches!(parse(HYBRID, "").enforcement(Feature::SwapLimit), Enforcement::Missing(_)));
    }
}
