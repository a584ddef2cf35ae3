//! An ordinary user's control groups belong to that user, who outside is the program as well: their files are closed to it by
//! mounts that can only be read, by Landlock, or not at all.

use std::fs;
use std::path::PathBuf;

use caps::Capability;

use crate::feature::{Enforced, Enforcement, Feature};
use crate::namespace::{Namespaces, UserLimit};
use crate::policy::Policy;
use crate::proc::mountinfo::{self, ControlGroups};

const GAP: &str = "the group belongs to the caller's user, who is the program outside, so it could lift the limit or leave: \
                   add a rootfs() with cgroup_ns() or max_user_namespaces(0), without CAP_SYS_ADMIN, or landlock() without \
                   write() of /sys/fs/cgroup";

impl Policy {
    /// The paths inside that are to be made read-only, so that the program cannot write to its own group. Where it can all
    /// the same, limits hold in part. Who limits the groups that are made inside wants some made.
    pub(super) fn judge_own_group(&self, landlock: &[Feature], enforced: &mut Enforced) -> Vec<PathBuf> {
        if !self.owns_its_group() {
            return Vec::new();
        }
        let makes_groups = [Feature::CgroupMaxDescendants, Feature::CgroupMaxDepth];
        let makes_groups = self.limits.features().iter().any(|limit| makes_groups.contains(limit));
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let hierarchies = mountinfo::control_groups(&text);
        let has_mounts = self.namespaces.new.contains(Namespaces::MOUNT);
        // Whoever stands under rules about paths can mount nothing.
        let has_rules = landlock.contains(&Feature::LandlockFiles);
        let is_open = if makes_groups {
            true
        } else if has_mounts {
            !has_rules && self.may_mount_groups(&hierarchies)
        } else {
            let lets = |at: &ControlGroups| self.landlock.as_ref().is_none_or(|rules| rules.lets_write(&at.at));
            !has_rules || hierarchies.iter().any(lets)
        };
        if is_open {
            let limits = self.limits.features().into_iter().chain([Feature::CpuTime]);
            for limit in limits.filter(|limit| enforced.get(*limit) == Some(&Enforcement::Full)).collect::<Vec<_>>() {
                enforced.set(limit, Enforcement::Partial(GAP));
            }
        }
        let all: Vec<PathBuf> = hierarchies.into_iter().map(|groups| groups.at).collect();
        if has_mounts && !makes_groups { self.mounts.control_groups(&all) } else { Vec::new() }
    }

    /// Whether the program could mount control groups itself, and write to its own by that.
    fn may_mount_groups(&self, hierarchies: &[ControlGroups]) -> bool {
        // A namespace around the program's own group keeps it from the limits of that.
        let delegates = !hierarchies.is_empty() && hierarchies.iter().all(|groups| groups.delegates);
        if delegates && self.namespaces.new.contains(Namespaces::CGROUP) {
            return false;
        }
        let is_admin = self.privileges().capabilities.is_none_or(|given| given.reaches(Capability::CAP_SYS_ADMIN));
        is_admin || self.namespaces.user_limits.get(&UserLimit::UserNamespaces) != Some(&0)
    }
}
