//! The bounds of a spawn beyond namespaces and control groups: missing sources, and limits of the
//! caller.

use std::fs;
use std::path::Path;

use caps::Capability;

use super::capabilities::has_capability;
use crate::cgroup::Limits;
use crate::error::Problem;
use crate::feature::Feature;
use crate::mount::Kind;
use crate::namespace::Namespaces;
use crate::policy::Policy;
use crate::proc::user_ns;
use crate::program::Resource;

impl Policy {
    /// Returns the limits of the process that cannot be set: a hard limit above the caller's needs
    /// CAP_SYS_RESOURCE in the initial user namespace, and no limit of open files may be above
    /// `fs.nr_open`.
    pub(super) fn unreachable_rlimits(&self) -> Vec<Problem> {
        let apart = self.namespaces.apart().contains(Namespaces::USER);
        let may_raise = || !apart && has_capability(Capability::CAP_SYS_RESOURCE) && user_ns::is_initial();
        let most_files = || fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse::<u64>().ok();
        let problem = |(resource, _, hard): &(Resource, u64, u64)| {
            let own = resource.caller_limits().map_or(u64::MAX, |(_, own)| own);
            if *resource == Resource::OpenFiles && most_files().is_some_and(|most| *hard > most) {
                let reason = format!("{resource:?}: {hard} is above fs.nr_open");
                return Some(Problem::unsupported(
                    "rlimit",
                    reason,
                    "give a lower limit, or raise that sysctl as root",
                ));
            }
            (*hard > own && !may_raise()).then(|| {
                let reason = format!("{resource:?}: the hard limit {hard} is above the caller's, which is {own}");
                let remedy = "give at most that, or run as root without a user namespace around the program";
                Problem::unsupported("rlimit", reason, remedy)
            })
        };
        self.program.rlimits.iter().filter_map(problem).collect()
    }

    /// Returns a problem if the program is to run on a processor that the machine cannot have: the
    /// kernel would leave it out and say nothing.
    pub(crate) fn absent_affinity(&self) -> Option<Problem> {
        let wanted = *self.program.attributes.cpu_affinity.as_ref()?.last()?;
        let (there, most) = possible("cpu")?;
        (wanted > most).then(|| {
            let reason = format!("there is no {wanted} among the processors of this machine, {there}");
            Problem::unsupported("cpu_affinity", reason, "name only numbers of this list")
        })
    }

    /// Returns the paths of the policy that are missing on the host. If the sandbox joins a mount
    /// namespace, nothing is checked, because the paths may exist there.
    pub(super) fn missing_sources(&self) -> Vec<Problem> {
        if self.namespaces.joins(Namespaces::MOUNT) {
            return Vec::new();
        }
        let roots = self.mounts.root.iter().flat_map(|root| root.sources());
        let mut problems: Vec<Problem> = roots.filter_map(|path| missing("rootfs", path, true)).collect();
        for mount in &self.mounts.mounts {
            problems.extend(match &mount.kind {
                Kind::Bind(bind) if bind.optional => Vec::new(),
                Kind::Bind(_) => {
                    mount.kind.sources().into_iter().filter_map(|path| missing("bind", path, false)).collect()
                }
                Kind::Overlay(_) => {
                    mount.kind.sources().into_iter().filter_map(|path| missing("mount", path, true)).collect()
                }
                _ => Vec::new(),
            });
        }
        problems
    }

    /// Returns a problem if execve(2) cannot take the arguments and the current environment.
    pub(super) fn too_long_arguments(&self) -> Option<Problem> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        let each = 32 * u64::try_from(page).ok()?;
        let asked = self.program.rlimits.iter().rev().find(|(resource, ..)| *resource == Resource::Stack);
        let stack =
            asked.map(|(_, soft, _)| *soft).or_else(|| Resource::Stack.caller_limits().map(|(soft, _)| soft))?;
        let most = (stack / 4).min(6 << 20).max(each);
        let (longest, all) = self.invocation().size();
        let reason = if longest > each {
            format!("one argument or variable has {longest} bytes, and the kernel takes {each}")
        } else if all > most {
            format!("arguments and environment have {all} bytes together, and the kernel takes {most}")
        } else {
            return None;
        };
        let remedy = "pass the data on stdin (Stdio::bytes) or in a file";
        Some(Problem::unsupported("command", reason, remedy))
    }
}

/// Returns the list of what the machine can have, `cpu` or `node`, and its highest number.
fn possible(kind: &str) -> Option<(String, usize)> {
    let there = fs::read_to_string(format!("/sys/devices/system/{kind}/possible")).ok()?;
    let there = there.trim().to_owned();
    let most = highest(&there)?;
    Some((there, most))
}

fn highest(list: &str) -> Option<usize> {
    list.trim().split([',', '-']).filter_map(|number| number.parse().ok()).max()
}

/// Returns a problem if a list of processors or of memory nodes names one that the machine cannot
/// have.
pub(super) fn absent_processors(limits: &Limits) -> Option<Problem> {
    let lists = [("cpu", "processors", &limits.cpuset), ("node", "memory nodes", &limits.cpuset_mems)];
    lists.into_iter().find_map(|(kind, plural, list)| {
        let wanted = highest(list.as_deref()?)?;
        let (there, most) = possible(kind)?;
        (wanted > most).then(|| {
            let reason = format!("there is no {wanted} among the {plural} of this machine, {there}");
            Problem::unsupported("cpuset", reason, "name only numbers of this list").for_feature(Feature::Cpuset)
        })
    })
}

/// Returns a problem if the caller cannot find `path`, or if it has to be a directory and is not.
fn missing(call: &'static str, path: &Path, is_dir: bool) -> Option<Problem> {
    if path.as_os_str().is_empty() {
        // A contradiction, which is told already.
        return None;
    }
    let reason = match fs::metadata(path) {
        Ok(found) if is_dir && !found.is_dir() => "the path is no directory".to_owned(),
        Ok(_) => return None,
        Err(error) => error.to_string(),
    };
    let remedy = match path.is_absolute() {
        true => "name a path that exists on the host for the caller",
        false => {
            "name a path that exists on the host for the caller: this one begins at the caller's working directory"
        }
    };
    Some(Problem::unsupported(call, format!("{}: {reason}", path.display()), remedy))
}
