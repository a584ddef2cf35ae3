//! The protection of an ordinary user's control groups. These groups belong to the caller's user,
//! as which the program runs outside. Their files are closed to the program by read-only mounts, by
//! Landlock, or not at all.

use std::path::PathBuf;

use caps::Capability;

use crate::feature::{Enforced, Feature};
use crate::namespace::{Namespaces, UserLimit};
use crate::policy::Policy;
use crate::proc::mountinfo::{self, ControlGroups};

/// The text for limits of a group that the program may write to.
const GAP: &str = "the group belongs to the caller's user, as which the program runs outside, so it could raise the limit or \
                   leave the group: add a rootfs() with cgroup_ns() or max_user_namespaces(0), without CAP_SYS_ADMIN, or \
                   landlock() without write() of /sys/fs/cgroup";

/// The text for limits of a group that the program is shown writable.
const OPEN: &str = "the program is shown its control groups writable, so it could raise the limit: leave out \
                    Cgroupfs::writable(), or mount cgroup2 on the host with nsdelegate";

impl Policy {
    /// Returns the paths inside that have to be read-only, so that the program cannot write to its
    /// own group. Where the program can write to the group in spite of that, the limits hold in
    /// part. If the policy limits the groups below the sandbox's, the program is meant to make
    /// some, and nothing is read-only.
    pub(super) fn judge_own_group(&self, landlock: &[Feature], enforced: &mut Enforced) -> Vec<PathBuf> {
        if self.mounts.opens_groups() {
            self.note_open_groups(enforced);
        }
        if !self.owns_its_group() {
            return Vec::new();
        }
        let makes_groups = [Feature::CgroupMaxDescendants, Feature::CgroupMaxDepth];
        let makes_groups = self.limits.features().iter().any(|limit| makes_groups.contains(limit));
        let makes_groups = makes_groups || self.mounts.opens_groups();
        let text = mountinfo::read("/proc/self/mountinfo").unwrap_or_default();
        let hierarchies = mountinfo::control_groups(&text);
        let has_mounts = self.namespaces.new.contains(Namespaces::MOUNT);
        // A program under rules about paths can mount nothing.
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
            self.note_gap(enforced, GAP);
        }
        let all: Vec<PathBuf> = hierarchies.into_iter().map(|groups| groups.at).collect();
        if has_mounts && !makes_groups { self.mounts.control_groups(&all) } else { Vec::new() }
    }

    /// Notes that the limits of a group that the program is shown writable hold in part, unless the
    /// kernel keeps them from the processes of a cgroup namespace.
    fn note_open_groups(&self, enforced: &mut Enforced) {
        let text = mountinfo::read("/proc/self/mountinfo").unwrap_or_default();
        let hierarchies = mountinfo::control_groups(&text);
        if hierarchies.is_empty() || !hierarchies.iter().all(|groups| groups.delegates) {
            self.note_gap(enforced, OPEN);
        }
    }

    fn note_gap(&self, enforced: &mut Enforced, gap: &'static str) {
        let limits = self.limits.features().into_iter().chain([Feature::CpuTime]);
        limits.for_each(|limit| enforced.note_gap(limit, gap));
    }

    /// Returns whether the program could mount control groups itself, and so write to its own.
    fn may_mount_groups(&self, hierarchies: &[ControlGroups]) -> bool {
        // A cgroup namespace at the program's own group protects the limits of that group.
        let delegates = !hierarchies.is_empty() && hierarchies.iter().all(|groups| groups.delegates);
        if delegates && self.namespaces.new.contains(Namespaces::CGROUP) {
            return false;
        }
        let is_admin = self.privileges().capabilities.is_none_or(|given| given.reaches(Capability::CAP_SYS_ADMIN));
        is_admin || self.namespaces.user_limits.get(&UserLimit::UserNamespaces) != Some(&0)
    }
}
