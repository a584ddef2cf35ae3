//! Finds the limits that cannot be enforced in a scope.

use std::os::fd::AsFd;
use std::path::Path;
#[cfg(feature = "oci")]
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::manager::Manager;
use crate::cgroup::controllers::Controllers;
#[cfg(feature = "oci")]
use crate::cgroup::controllers::Version;
use crate::cgroup::host::Host;
#[cfg(feature = "oci")]
use crate::cgroup::host::host;
use crate::cgroup::limits::{Limits, controller_of};
use crate::cgroup::{devices, kernfs};
use crate::error::Problem;
#[cfg(feature = "oci")]
use crate::error::{Error, ErrorKind, Result, Step};
use crate::feature::Feature;

/// The longest wait for systemd in a check.
const CHECK_BOUND: Duration = Duration::from_secs(5);
const NOT_UNIFIED: &str = "boot with systemd.unified_cgroup_hierarchy=1, or leave systemd_scope out";
const NOT_DELEGATED: &str = "as root, for users' managers: Delegate=cpu cpuset io memory pids in a drop-in of \
                             user@.service";

#[cfg(feature = "oci")]
const REMEDY: &str = "use the driver cgroupfs where systemd does not manage the control groups";

/// Returns the parts of the policy that cannot be enforced in a scope: because cgroup v2,
/// systemd on its bus, or a controller of the user's manager is missing. The check makes
/// nothing.
pub(crate) fn problems_in_scope(host: &Host, limits: &Limits, account_cpu: bool) -> Vec<Problem> {
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

/// Returns the group below which the caller's manager makes its units, as the manager sees it.
/// Nothing is made.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] without systemd or its bus, and on a host with control groups of v1.
#[cfg(feature = "oci")]
pub(crate) fn root_of_units(until: Instant) -> Result<PathBuf> {
    let host = host()?;
    if host.v2().is_none() || host.hierarchies.iter().any(|hierarchy| hierarchy.version == Version::V1) {
        let reason = "scopes of containers are made with cgroup v2 alone, and this host has hierarchies of v1";
        let error = Error::message(ErrorKind::Unsupported, Step::SystemdScope, reason);
        return Err(error.hint("boot with systemd.unified_cgroup_hierarchy=1, or use the driver cgroupfs"));
    }
    let group = Manager::of_caller(until).and_then(|mut manager| manager.control_group());
    group.map_err(|error| match error.remedy() {
        Some(remedy) => {
            // The rest of it names other ways than a container has.
            let hint = format!("{}; {REMEDY}", remedy.split([':', ';']).next().unwrap_or_default());
            error.hint(hint)
        }
        None => error.hint(REMEDY),
    })
}
