//! Finds the limits that cannot be enforced in a scope.

use std::os::fd::AsFd;
use std::path::Path;
#[cfg(feature = "oci")]
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::manager::Manager;
#[cfg(feature = "oci")]
use super::terms::devices_obstacle;
use crate::cgroup::controllers::Controllers;
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
const NOT_UNIFIED: &str =
    "boot with systemd.unified_cgroup_hierarchy=1, or name a group with cgroup_parent in place of the scope";
const NOT_DELEGATED: &str = "as root, for users' managers: Delegate=cpu cpuset io memory pids in a drop-in of \
                             user@.service";

#[cfg(feature = "oci")]
const OF_USER: &str = "boot with systemd.unified_cgroup_hierarchy=1, or use the driver cgroupfs";

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

/// Returns the parts of the policy that cannot be enforced in a sandbox's own scope, whose group is
/// below `parent`. Where systemd has its controllers on v1, the group has the limits as any other
/// one has them there. The check makes nothing.
#[cfg(feature = "oci")]
pub(crate) fn problems_in_unit(host: &Host, limits: &Limits, account_cpu: bool, parent: Option<&Path>) -> Vec<Problem> {
    if host.is_unified() {
        return problems_in_scope(host, limits, account_cpu);
    }
    let mut problems = host.problems(limits, account_cpu, parent);
    problems.extend(devices_in_unit(host, limits, parent));
    problems
}

/// Returns the problem of rules for devices that systemd would undo. Each create looks for it: the
/// kernel takes such rules.
#[cfg(feature = "oci")]
pub(crate) fn devices_in_unit(host: &Host, limits: &Limits, parent: Option<&Path>) -> Option<Problem> {
    let (reason, remedy) = devices_obstacle(host, limits, parent)?;
    Some(Problem::unsupported(Feature::Devices.as_str(), reason, remedy).for_feature(Feature::Devices))
}

/// Returns the group below which the caller's manager makes its units, as the manager sees it.
/// Nothing is made.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] without systemd or its bus, and for the manager of an ordinary user
/// that has no controllers, as on every host where they are on v1.
#[cfg(feature = "oci")]
pub(crate) fn root_of_units(until: Instant) -> Result<PathBuf> {
    let host = host()?;
    let unsupported = |reason: &str| Error::message(ErrorKind::Unsupported, Step::SystemdScope, reason);
    if !host.keeps_units() {
        return Err(unsupported("no control groups are mounted in which systemd keeps its units apart").hint(REMEDY));
    }
    if !host.is_unified() && !Manager::is_of_root() {
        let reason = "systemd gives users' managers no controllers on this host, which has them on v1";
        return Err(unsupported(reason).hint(OF_USER));
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
