//! What this host cannot enforce, by name and with the remedy.

use std::ffi::CStr;
use std::path::{Component, Path};

use caps::{CapSet, Capability};
use nix::errno::Errno;

use super::host::{Hierarchy, Host, can_write, nearest};
use super::limits::{Limits, controller_of};
use super::{Controllers, Version, devices, hugetlb, support, v2};
use crate::{Enforcement, Feature, Problem};

pub(super) const DELEGATE: &str = "run as root, or in a delegated group (systemd-run --user --scope -p Delegate=yes), \
                                   or name one with cgroup_parent";
const NO_SWAP: &str = "this kernel does not account for swap";
const WEIGHED: &str = "only on disks with the scheduler bfq, or with io.cost.qos switched on";
const SWAP_REMEDY: &str = "boot with swapaccount=1";

impl Host {
    /// What of the policy cannot be enforced below `parent`. It opens and reads a dozen files: for checks and for the
    /// explanation of a failure, not for each spawn.
    pub(crate) fn problems(&self, limits: &Limits, account_cpu: bool, parent: Option<&Path>) -> Vec<Problem> {
        if parent.is_some_and(|parent| invalid_parent(parent).is_some()) {
            // Said already, as a contradiction of the policy.
            return Vec::new();
        }
        let mut features = limits.features();
        features.extend(account_cpu.then_some(Feature::CpuTime));
        let mut problems: Vec<_> = features.iter().filter_map(|f| self.problem(*f, parent)).collect();
        let swap_alone = limits.swap.is_some() && limits.memory.is_none();
        if swap_alone && self.home(Controllers::MEMORY).is_some_and(|h| h.version == Version::V1) {
            let reason = "cgroup v1 limits only the sum of memory and swap";
            problems.push(
                Problem::unsupported("swap_limit", reason, "set memory_limit too").for_feature(Feature::SwapLimit),
            );
        }
        let unsaid = limits.devices.as_ref().is_some_and(|rules| devices::v1::List::new(rules).is_none());
        if unsaid && self.device_home(parent).is_some_and(|h| h.version == Version::V1) {
            let (reason, remedy) = devices::v1::HOLE;
            problems.push(Problem::unsupported("devices", reason, remedy).for_feature(Feature::Devices));
        }
        problems.extend(hugetlb::unknown_size(limits));
        problems.extend(self.unprotected(limits, parent));
        problems
    }

    /// Protection of memory that the groups above `parent`, and itself, do not have to give.
    pub(super) fn unprotected(&self, limits: &Limits, parent: Option<&Path>) -> Vec<Problem> {
        if limits.memory_low.is_none() && limits.memory_min.is_none() {
            return Vec::new();
        }
        let home = self.home(Controllers::MEMORY).filter(|home| home.version == Version::V2);
        let based = home.and_then(|home| Some((home, home.base(parent)?)));
        based.map_or(Vec::new(), |(home, base)| support::unprotected(&home.mount, limits, &base))
    }

    fn problem(&self, feature: Feature, parent: Option<&Path>) -> Option<Problem> {
        let controller = controller_of(feature);
        let mut homes: Vec<_> = self.hierarchies.iter().filter(|h| h.controllers.contains(controller)).collect();
        if feature == Feature::Devices {
            homes = self.device_home(parent).into_iter().collect();
        }
        let base = self.home(controller).and_then(|home| home.base(parent));
        let lack = self.home(controller).and_then(|home| home.lacks(feature, base.as_deref()));
        let (reason, remedy) = if homes.is_empty() {
            self.absence(feature)
        } else if let Some((reason, remedy)) = lack {
            (reason.to_owned(), remedy)
        } else if feature == Feature::SwapLimit && !self.swap {
            (NO_SWAP.to_owned(), SWAP_REMEDY)
        } else {
            // Cpu time can be had from two hierarchies, and one is enough.
            let refusals: Option<Vec<_>> = homes.iter().map(|home| home.refusal(controller, parent)).collect();
            refusals?.swap_remove(0)
        };
        Some(Problem::unsupported(feature.as_str(), reason, remedy).for_feature(feature))
    }

    /// Why no hierarchy has the controller of `feature`, and the remedy.
    fn absence(&self, feature: Feature) -> (String, &'static str) {
        let controller = controller_of(feature);
        if let Some((reason, remedy)) = support::v1_lacks(feature).filter(|_| controller == Controllers::CORE) {
            return (reason.to_owned(), remedy);
        }
        let name = controller.name();
        if controller == Controllers::DEVICES
            && self.v2().is_some()
            && let Some(obstacle) = devices::filter::obstacle()
        {
            return obstacle;
        }
        // Only the root group, which has every controller of the kernel, is without a type (4.14).
        let inner = |h: &&Hierarchy| h.version == Version::V2 && h.mount.join("cgroup.type").exists();
        if let Some(v2) = self.hierarchies.iter().find(inner) {
            let reason = format!("the group that {} shows was not given the {name} controller", v2.mount.display());
            return (reason, "on the host: enable it in cgroup.subtree_control of the groups above");
        }
        if self.hierarchies.is_empty() {
            return ("no cgroup hierarchy is mounted".to_owned(), absence_remedy(controller));
        }
        let mounts: Vec<_> = self.hierarchies.iter().map(|h| h.mount.display().to_string()).collect();
        let reason = format!("no hierarchy has the {name} controller (looked at {})", mounts.join(", "));
        (reason, absence_remedy(controller))
    }

    /// How well the kernel enforces `feature`, wherever the group is.
    pub(crate) fn enforcement(&self, feature: Feature) -> Enforcement {
        let controller = controller_of(feature);
        let home = if feature == Feature::Devices { self.device_home(None) } else { self.home(controller) };
        match (home, feature) {
            (None, _) => {
                let (reason, remedy) = self.absence(feature);
                Enforcement::Missing(format!("{reason}; {remedy}"))
            }
            (Some(_), Feature::SwapLimit) if !self.swap => Enforcement::Missing(format!("{NO_SWAP}; {SWAP_REMEDY}")),
            (Some(home), Feature::IoLimit) if home.version == Version::V1 => {
                Enforcement::Partial("cgroup v1 limits reads and direct writes only; buffered writes are not throttled")
            }
            (Some(home), _) => match home.lacks(feature, None) {
                Some((reason, remedy)) => Enforcement::Missing(format!("{reason}; {remedy}")),
                None if feature == Feature::MemoryLimit => {
                    self.uncounted.map_or(Enforcement::Full, Enforcement::Partial)
                }
                None if feature == Feature::IoWeight => Enforcement::Partial(WEIGHED),
                None => Enforcement::Full,
            },
        }
    }
}

impl Hierarchy {
    /// Why no group with `controller` can be made below `parent`.
    pub(super) fn refusal(&self, controller: Controllers, parent: Option<&Path>) -> Option<(String, &'static str)> {
        let Some(base) = self.base(parent) else {
            let reason = format!("{} does not show the caller's own group", self.mount.display());
            return Some((reason, "name a visible group with cgroup_parent"));
        };
        let Some((dir, fd)) = nearest(&base).filter(|(dir, _)| dir.starts_with(&self.mount)) else {
            return Some((format!("{} cannot be opened", base.display()), "make the mount accessible"));
        };
        match can_write(&fd, c".") {
            Ok(()) => {}
            Err(Errno::EROFS) => {
                let reason = format!("{} is mounted read-only", dir.display());
                return Some((reason, "mount it writable (container engines: a private cgroup namespace, privileged)"));
            }
            Err(_) => return Some((format!("{} is not writable", dir.display()), DELEGATE)),
        }
        if self.version == Version::V1 {
            let privileged = || caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false);
            let denied = controller == Controllers::DEVICES && !privileged();
            return denied.then(|| ("writing devices.deny needs CAP_SYS_ADMIN".to_owned(), "run as root"));
        }
        let obstacle = match controller {
            inherent if Controllers::INHERENT.contains(inherent) => None,
            Controllers::DEVICES => devices::filter::obstacle_above(&self.mount, &base),
            _ => v2::obstacle(&self.mount, &base, controller),
        };
        obstacle.or_else(|| self.fence(&base))
    }

    /// v2 moves a process (or clones it into a group) only for who may write `cgroup.procs` of the nearest common
    /// ancestor of both groups.
    pub(super) fn fence(&self, base: &Path) -> Option<(String, &'static str)> {
        let own = self.own.as_deref()?;
        let common = own.ancestors().find(|dir| base.starts_with(dir))?;
        let (_, fd) = nearest(common)?;
        const PROCS: &CStr = c"cgroup.procs";
        can_write(&fd, PROCS).err()?;
        let reason = format!(
            "processes cannot be moved to {}: {}/cgroup.procs is not writable",
            base.display(),
            common.display()
        );
        Some((reason, DELEGATE))
    }
}

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
