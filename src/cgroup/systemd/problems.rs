//! Finds the limits that cannot be enforced in a scope.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::manager::Manager;
use super::scope::SystemdScope;
use crate::cgroup::controllers::Controllers;
use crate::cgroup::host::Host;
use crate::cgroup::limits::{Limits, controller_of};
use crate::cgroup::{devices, kernfs};
use crate::error::Problem;
use crate::feature::Feature;

/// The longest wait for systemd in a check.
const CHECK_BOUND: Duration = Duration::from_secs(5);
const NOT_UNIFIED: &str = "boot with systemd.unified_cgroup_hierarchy=1, or leave systemd_scope out";
const NOT_DELEGATED: &str = "as root, for users' managers: Delegate=cpu cpuset io memory pids in a drop-in of \
                             user@.service";

impl SystemdScope {
    /// Returns the parts of the policy that cannot be enforced in a scope: because cgroup v2,
    /// systemd on its bus, or a controller of the user's manager is missing. The check makes
    /// nothing.
    pub(crate) fn problems(&self, host: &Host, limits: &Limits, account_cpu: bool) -> Vec<Problem> {
        if self.invalid().is_some() {
            return Vec::new();
        }
        let until = Instant::now() + CHECK_BOUND;
        let group = Manager::of_caller(until).and_then(|mut manager| manager.control_group());
        let mut features = limits.features();
        features.extend(account_cpu.then_some(Feature::CpuTime));
        let mut problems = Vec::new();
        for feature in features {
            let unsupported =
                |(reason, remedy)| Problem::unsupported(feature.as_str(), reason, remedy).for_feature(feature);
            problems.extend(obstacle(host, group.as_deref().ok(), feature).map(unsupported));
            problems.extend(group.as_ref().err().map(|error| error.problem(feature.as_str()).for_feature(feature)));
        }
        problems
    }
}

/// Returns why `feature` cannot be enforced in a scope of the manager with the group `manager`, and
/// the remedy.
fn obstacle(host: &Host, manager: Option<&Path>, feature: Feature) -> Option<(String, &'static str)> {
    let controller = controller_of(feature);
    if controller == Controllers::DEVICES {
        // On v2 the caller loads its own device program, to which systemd has nothing to add.
        return devices::filter::obstacle();
    }
    let name = controller.name();
    let Some(v2) = host.v2().filter(|v2| v2.controllers.contains(controller)) else {
        return Some((format!("a scope is used with cgroup v2, which has no {name} controller here"), NOT_UNIFIED));
    };
    let dir = v2.base(Some(manager?))?;
    if let Some((reason, remedy)) = v2.unsupported(feature, Some(&dir)) {
        return Some((reason.to_owned(), remedy));
    }
    if Controllers::INHERENT.contains(controller) {
        return None;
    }
    // systemd enables for a delegated scope the controllers that its manager has.
    let given = kernfs::open_dir(&dir).and_then(|fd| kernfs::read(fd.as_fd(), c"cgroup.controllers"));
    let given: Controllers = given.unwrap_or_default().split_whitespace().map(Controllers::named).collect();
    let reason = || format!("systemd was not given the {name} controller in {}", dir.display());
    (!given.contains(controller)).then(|| (reason(), NOT_DELEGATED))
}
