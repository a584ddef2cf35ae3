//! Groups on hosts where systemd owns the tree: below a transient scope that it makes and hands over.
//!
//! One scope a process, not one a sandbox: making a unit costs systemd and the bus milliseconds, and every client that
//! listens hears of it, so hosts that start many sandboxes a second drown in it. Within a scope with `Delegate=yes` the
//! tree is ours: sandboxes get their groups by mkdir(2), as below any [`cgroup_parent`](crate::Sandbox::cgroup_parent).
//!
//! A scope stands as long as processes are in it, so one of ours stays there, parked, until its owner's end.

mod bus;
mod manager;
mod message;
#[cfg(test)]
mod tests;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use manager::Manager;

use super::host::Host;
use super::limits::controller_of;
use super::{Controllers, Limits, Version, devices, kernfs};
use crate::{Feature, Problem};

/// How long a check waits for systemd.
const CHECK_BOUND: Duration = Duration::from_secs(5);
const NOT_UNIFIED: &str = "boot with systemd.unified_cgroup_hierarchy=1, or leave systemd_scope out";
const NOT_DELEGATED: &str = "as root, for users' managers: Delegate=cpu cpuset io memory pids in a drop-in of \
                             user@.service";

/// A transient scope of systemd's, below which the groups of sandboxes are made: see
/// [`Sandbox::systemd_scope`](crate::Sandbox::systemd_scope).
///
/// Each process has one for each different value of this type, made with the first sandbox and gone with the process
/// and its last sandbox.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemdScope {
    pub(crate) slice: Option<String>,
    pub(crate) description: Option<String>,
}

impl SystemdScope {
    /// A scope where systemd puts those that ask for nothing: `system.slice`, or `app.slice` of the user.
    pub fn new() -> Self {
        SystemdScope::default()
    }

    /// The slice that it belongs to, as in `batch.slice`; made by systemd if missing. What limits that slice limits
    /// all sandboxes in it together. systemd.slice(5).
    pub fn slice(self, name: impl Into<String>) -> Self {
        SystemdScope { slice: Some(name.into()), ..self }
    }

    /// What `systemctl status` calls it. Without this call "Sandboxes of process 1234".
    pub fn description(self, text: impl Into<String>) -> Self {
        SystemdScope { description: Some(text.into()), ..self }
    }

    /// What systemd would take for no name or text.
    pub(crate) fn invalid(&self) -> Option<Problem> {
        let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if let Some(slice) = &self.slice {
            let stem = slice.strip_suffix(".slice").unwrap_or_default();
            if stem.is_empty() || !stem.chars().all(fits) || slice.len() > 255 {
                let reason = format!("{slice:?} is no name of a slice");
                return Some(Problem::invalid("systemd_scope", reason, "write it as in batch.slice"));
            }
        }
        let text = self.description.as_deref().unwrap_or_default();
        text.contains(char::is_control).then(|| {
            Problem::invalid("systemd_scope", "a description is one line of text", "leave control characters out")
        })
    }

    /// What of the policy cannot be enforced in a scope: for want of cgroup v2, of systemd on its bus, or of a controller
    /// that the user's manager was given. Nothing is made.
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
            let told = |(reason, remedy)| Problem::unsupported(feature.as_str(), reason, remedy).for_feature(feature);
            problems.extend(obstacle(host, group.as_deref().ok(), feature).map(told));
            problems.extend(group.as_ref().err().map(|error| error.problem(feature.as_str()).for_feature(feature)));
        }
        problems
    }
}

/// Why `feature` cannot be had in a scope of the manager whose group is `manager`, and the remedy.
fn obstacle(host: &Host, manager: Option<&Path>, feature: Feature) -> Option<(String, &'static str)> {
    let controller = controller_of(feature);
    if controller == Controllers::DEVICES {
        // On v2 a program of the caller's own, for which systemd has nothing to give.
        return devices::filter::obstacle();
    }
    let name = controller.name();
    let Some(v2) = host.v2().filter(|v2| v2.controllers.contains(controller)) else {
        return Some((format!("a scope is used with cgroup v2, which has no {name} controller here"), NOT_UNIFIED));
    };
    let dir = v2.base(Some(manager?))?;
    if let Some((reason, remedy)) = v2.lacks(feature, Some(&dir)) {
        return Some((reason.to_owned(), remedy));
    }
    if Controllers::INHERENT.contains(controller) {
        return None;
    }
    // systemd enables for a delegated scope what its manager has.
    let given = kernfs::open_dir(&dir).and_then(|fd| kernfs::read(fd.as_fd(), c"cgroup.controllers"));
    let given: Controllers = given.unwrap_or_default().split_whitespace().map(Controllers::named).collect();
    let reason = || format!("systemd was not given the {name} controller in {}", dir.display());
    (!given.contains(controller)).then(|| (reason(), NOT_DELEGATED))
}

impl Host {
    /// The group of the process `pid` on v2, from the root of the hierarchy as the caller sees it.
    pub(crate) fn v2_group_of(pid: i32) -> Option<PathBuf> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
    }

    /// The directory of a v2 group, given from the root of the hierarchy.
    pub(crate) fn v2_dir(&self, group: &Path) -> Option<PathBuf> {
        self.v2().and_then(|v2| v2.base(Some(group)))
    }

    /// Whether v2 has every controller that these limits need.
    pub(crate) fn is_unified_for(&self, limits: &Limits) -> bool {
        self.v2().is_some_and(|v2| v2.controllers.contains(limits.controllers() - Controllers::DEVICES))
    }

    /// This host as it looks to a process in `group`.
    pub(crate) fn seen_from(&self, group: &Path) -> Host {
        let mut host = self.clone();
        for v2 in host.hierarchies.iter_mut().filter(|hierarchy| hierarchy.version == Version::V2) {
            v2.own = v2.base(Some(group));
        }
        host
    }

    /// Whether the caller may not move a process of its own into `group`, though it may write there: that takes the right
    /// to write to the nearest group above both.
    pub(crate) fn is_fenced_off(&self, group: &Path) -> bool {
        self.v2().is_some_and(|v2| v2.base(Some(group)).is_some_and(|dir| v2.fence(&dir).is_some()))
    }
}
