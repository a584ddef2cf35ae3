//! The control groups that a sandbox shows its program without having been asked by name.

use caps::Capability;

use super::capabilities::has_capability;
use crate::cgroup::{self, Limits};
use crate::feature::{Enforced, Enforcement, Feature};
use crate::mount::{self, ShownGroups};
use crate::namespace::Namespaces;
use crate::policy::Policy;

impl Policy {
    /// Judges whether this host lets the program see its control groups, where a sandbox shows them
    /// by default. Returns false if they are left out. An ordinary user cannot try, so that only a
    /// spawn finds out.
    pub(super) fn judge_shown_groups(&self, limits: &Limits, thorough: bool, enforced: &mut Enforced) -> bool {
        if !self.shows_groups() || !self.mounts.shows_groups_by_default() {
            return true;
        }
        let Ok(host) = cgroup::host() else { return true };
        let cgroup::Shown { v1, v2, .. } = host.telling(limits);
        let groups = ShownGroups { v1, v2, ..ShownGroups::default() };
        let has_limits = !limits.is_empty() || self.cpu_time.is_some();
        if !has_limits || groups.is_empty() {
            return true;
        }
        let user_ns = self.namespaces.apart().contains(Namespaces::USER);
        let try_now =
            || if thorough && has_capability(Capability::CAP_SYS_ADMIN) { mount::try_groups(&groups) } else { None };
        let refused = mount::refused_groups(user_ns).or_else(try_now);
        let is_shown = refused.is_none();
        enforced.set(Feature::Cgroupfs, refused.map_or(Enforcement::Full, Enforcement::Missing));
        is_shown
    }
}
