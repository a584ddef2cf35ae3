//! The judgement before a spawn: what contradicts itself, and what this host cannot do.

use std::fs;

use caps::{CapSet, Capability};
use nix::unistd::{Gid, Uid, getgroups};

use super::Sandbox;
use crate::cgroup;
use crate::error::{Error, Problem, Result};
use crate::feature::{Enforced, Enforcement, Feature};
use crate::mount::{Kind, Mount};
use crate::namespace::{IdMap, IdMaps, Namespaces};
use crate::security::{Landlock, Names};

/// The longest host name that the kernel takes (`__NEW_UTS_LEN`).
const NAME_MAX: usize = 64;
/// The highest number that a passed descriptor may have.
const FD_MAX: i32 = 1 << 16;

/// A policy that this host can carry out, and how.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) enforced: Enforced,
    /// The limits that hold: those asked for, less what the caller goes without.
    pub(super) limits: cgroup::Limits,
    /// The control group counts processor time, for `cpu_time`.
    pub(super) account_cpu: bool,
    pub(super) maps: Option<Maps>,
    /// The parts of the Landlock ruleset that hold.
    pub(super) landlock: Vec<Feature>,
    /// The bounding set of capabilities can be cut down.
    pub(super) bounding: bool,
}

/// The id maps of a user namespace, and who writes them.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) ids: IdMaps,
    pub(super) by_stub: bool,
}

impl Sandbox {
    /// `thorough`: also tries out whether the host's control groups will take the limits. A spawn does without, since
    /// their creation tells the same when it fails, unless the caller may go without some.
    pub(super) fn judge(&self, thorough: bool) -> Result<Judgement> {
        let mut problems = self.contradictions();
        let maps = self.id_maps(&mut problems);
        problems.extend(self.missing_privileges());
        let (limits, account_cpu, mut enforced) = self.judge_limits(thorough, &mut problems)?;
        let landlock = self.judge_landlock(&mut enforced, &mut problems);
        let bounding = self.judge_capabilities(&mut problems, &mut enforced);
        if problems.is_empty() {
            Ok(Judgement { enforced, limits, account_cpu, maps, landlock, bounding })
        } else if !thorough {
            self.judge(true)
        } else {
            Err(Error::refused(problems))
        }
    }

    /// What no host could carry out.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = self.limits.invalid();
        problems.extend(self.cgroup_parent.as_deref().and_then(cgroup::invalid_parent));
        problems.extend(self.mounts.invalid());
        problems.extend(self.program.invalid());
        problems.extend(self.landlock.iter().flat_map(Landlock::invalid));
        problems.extend(self.security.invalid());
        problems.extend(self.names_without_namespace());
        problems.extend(self.double_namespaces());
        problems.extend(self.descriptor_numbers());
        let pid_ns = self.namespaces.apart().contains(Namespaces::PID);
        if self.program.init && !self.namespaces.new.contains(Namespaces::PID) {
            problems.push(Problem::invalid("init", "an init is pid 1 of a pid namespace of its own", "add pid_ns()"));
        }
        let hides = |mount: &Mount| matches!(&mount.kind, Kind::Proc(proc) if proc.hidepid.is_some());
        if !pid_ns && self.mounts.mounts.iter().any(hides) {
            let reason = "hidepid without a pid namespace of the sandbox's own would hide the host's processes, from the host as well";
            problems.push(Problem::invalid("hidepid", reason, "add pid_ns()"));
        }
        for (name, limit) in [("wall_time", self.wall_time), ("cpu_time", self.cpu_time)] {
            if limit.is_some_and(|limit| limit.is_zero()) {
                problems.push(Problem::invalid(name, "a limit of no time at all", "give a duration above zero"));
            }
        }
        problems
    }

    fn names_without_namespace(&self) -> Vec<Problem> {
        let ns = &self.namespaces;
        let mut problems = Vec::new();
        for (call, name) in [("hostname", &ns.hostname), ("domainname", &ns.domainname)] {
            let Some(name) = name else { continue };
            if !ns.apart().contains(Namespaces::UTS) {
                problems.push(Problem::invalid(call, "it would change the host's own name", "add uts_ns()"));
            }
            if name.len() > NAME_MAX || name.contains('\0') {
                let reason = format!("{name:?} is no name for a host");
                problems.push(Problem::invalid(call, reason, "give at most 64 bytes without a NUL"));
            }
        }
        let offsets = [("monotonic_offset", ns.monotonic), ("boottime_offset", ns.boottime)];
        for (call, _) in offsets.iter().filter(|(_, offset)| offset.is_some()) {
            if !ns.new.contains(Namespaces::TIME) {
                problems.push(Problem::invalid(call, "clocks are set apart in a new time namespace", "add time_ns()"));
            }
        }
        let maps = [("uid_map", &ns.uid_map), ("gid_map", &ns.gid_map)];
        for (call, map) in maps.iter().filter(|(_, map)| !map.is_empty()) {
            if !ns.new.contains(Namespaces::USER) {
                problems.push(Problem::invalid(call, "ids are mapped in a new user namespace", "add user_ns()"));
            }
            if let Some(bad) = map.iter().find(|line| !line.is_valid()) {
                let reason = format!("{bad:?} is empty or goes beyond the last id");
                problems.push(Problem::invalid(call, reason, "ids end at 4,294,967,294"));
            }
        }
        problems
    }

    fn double_namespaces(&self) -> Vec<Problem> {
        let mut seen = self.namespaces.new;
        let mut problems = Vec::new();
        for (kind, _) in &self.namespaces.join {
            let name = kind.file().unwrap_or("?");
            if kind.file().is_none() {
                let reason = "join_fd takes one kind of namespace at a time";
                problems.push(Problem::invalid("join_fd", reason, "call it once for each descriptor"));
            } else if seen.contains(*kind) && *kind != Namespaces::MOUNT {
                let reason = format!("the {name} namespace is asked for twice");
                problems.push(Problem::invalid("join", reason, "either make one or join one"));
            }
            seen |= *kind;
        }
        problems
    }

    fn descriptor_numbers(&self) -> Vec<Problem> {
        let mut seen = Vec::new();
        let mut problems = Vec::new();
        for (number, _) in &self.stdio.extra {
            if !(3..FD_MAX).contains(number) || seen.contains(number) {
                let reason = format!("the number {number} is taken, or out of range");
                problems.push(Problem::invalid("fd", reason, "number passed descriptors from 3, each once"));
            }
            seen.push(*number);
        }
        problems
    }

    /// The maps of a new user namespace: those given, else the caller's own ids as the ones that the program runs as.
    fn id_maps(&self, problems: &mut Vec<Problem>) -> Option<Maps> {
        let ns = &self.namespaces;
        if !ns.new.contains(Namespaces::USER) {
            return None;
        }
        let (euid, egid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let (uid, gid) = self.program.user.unwrap_or((0, 0));
        let or_single =
            |map: &[IdMap], id, own| if map.is_empty() { vec![IdMap::new(id, own, 1)] } else { map.to_vec() };
        let mut ids = IdMaps {
            uid: or_single(&ns.uid_map, uid, euid),
            gid: or_single(&ns.gid_map, gid, egid),
            deny_setgroups: false,
        };
        for (call, map, id) in [("uid_map", &ids.uid, uid), ("gid_map", &ids.gid, gid)] {
            if !map.iter().any(|line| line.covers(id)) {
                let reason = format!("the program runs as id {id}, which has no meaning outside");
                problems.push(Problem::invalid(call, reason, "map that id, or choose another with user()"));
            }
        }
        let privileged = has(Capability::CAP_SETUID) && has(Capability::CAP_SETGID);
        let single = ids.is_single(euid, egid);
        let wants_groups = self.program.groups.as_ref().is_some_and(|groups| !groups.is_empty());
        if !single && !privileged {
            let reason = "an ordinary user may map one id, its own";
            problems.push(Problem::unsupported(
                "uid_map",
                reason,
                "map only the caller's own user and group, or run as root",
            ));
        }
        if wants_groups && !privileged {
            let reason = "an ordinary user's user namespace has no supplementary groups";
            problems.push(Problem::unsupported("groups", reason, "leave them out, or run as root"));
        }
        // Root's own supplementary groups can be dropped only if setgroups(2) is left allowed, which takes its hand.
        let drops_groups = privileged && (wants_groups || getgroups().is_ok_and(|groups| !groups.is_empty()));
        let by_stub = single && !drops_groups;
        ids.deny_setgroups = by_stub;
        Some(Maps { ids, by_stub })
    }

    /// What the caller may not do, and why.
    fn missing_privileges(&self) -> Vec<Problem> {
        let ns = &self.namespaces;
        let wants_namespaces = !ns.apart().is_empty();
        let with_user = ns.apart().contains(Namespaces::USER);
        let mut problems = Vec::new();
        if with_user && ns.new.contains(Namespaces::USER) && !has(Capability::CAP_SYS_ADMIN) {
            problems.extend(user_namespaces_blocked());
        }
        if wants_namespaces && !with_user && !has(Capability::CAP_SYS_ADMIN) {
            let reason = "making or joining a namespace needs CAP_SYS_ADMIN";
            problems.push(Problem::unsupported("namespaces", reason, "add user_ns(), or run as root"));
        }
        let own = (Uid::effective().as_raw(), Gid::effective().as_raw());
        if !with_user && self.program.user.is_some_and(|user| user != own) && !has(Capability::CAP_SETUID) {
            let reason = "running as another user needs CAP_SETUID and CAP_SETGID";
            problems.push(Problem::unsupported("user", reason, "add user_ns(), or run as root"));
        }
        if !with_user && self.program.groups.is_some() && !has(Capability::CAP_SETGID) {
            problems.push(Problem::unsupported("groups", "setting groups needs CAP_SETGID", "run as root"));
        }
        let needs_pid_ns = |mount: &Mount| matches!(mount.kind, Kind::Proc(_));
        if ns.new.contains(Namespaces::USER)
            && !ns.apart().contains(Namespaces::PID)
            && self.mounts.mounts.iter().any(needs_pid_ns)
        {
            let reason = "a user namespace may mount the /proc of its own pid namespace only";
            problems.push(Problem::invalid("mount", reason, "add pid_ns(), or bind the host's /proc"));
        }
        problems
    }

    /// The parts of the Landlock ruleset that will hold.
    fn judge_landlock(&self, enforced: &mut Enforced, problems: &mut Vec<Problem>) -> Vec<Feature> {
        let mut held = Vec::new();
        for part in self.landlock.iter().flat_map(Landlock::judge) {
            problems.extend(part.problem.filter(|_| !self.best_effort.contains(&part.feature)));
            if !matches!(part.enforcement, Enforcement::Missing(_)) {
                held.push(part.feature);
            }
            enforced.set(part.feature, part.enforcement);
        }
        held
    }

    /// Whether the bounding set of capabilities can be cut down. A user namespace gives the right to.
    fn judge_capabilities(&self, problems: &mut Vec<Problem>, enforced: &mut Enforced) -> bool {
        let Some(wanted) = &self.security.capabilities else { return false };
        enforced.set(Feature::BoundingSet, Enforcement::Full);
        let may = has(Capability::CAP_SETPCAP);
        if self.namespaces.apart().contains(Namespaces::USER) {
            return true;
        }
        let lacking = wanted.wanted() & !held(CapSet::Permitted);
        if lacking != 0 {
            let reason = format!("the caller itself lacks {}", Names(lacking));
            problems.push(Problem::unsupported("capabilities", reason, "leave it out, add user_ns(), or run as root"));
        }
        let remedy = "add user_ns(), or run as root";
        if !may && wanted.sets_securebits() {
            problems.push(Problem::unsupported("capabilities", "securebits need CAP_SETPCAP", remedy));
        }
        if !may && !wanted.bounds(held(CapSet::Bounding)) {
            let reason = "cutting down the bounding set needs CAP_SETPCAP";
            if self.best_effort.contains(&Feature::BoundingSet) {
                let gap =
                    "the bounding set is the caller's: a file with capabilities gives them, unless no_new_privs is set";
                enforced.set(Feature::BoundingSet, Enforcement::Partial(gap));
            } else {
                problems.push(Problem::unsupported("capabilities", reason, remedy).for_feature(Feature::BoundingSet));
            }
        }
        may
    }

    /// The limits that a control group will hold, with what is missing on this host.
    fn judge_limits(&self, thorough: bool, problems: &mut Vec<Problem>) -> Result<(cgroup::Limits, bool, Enforced)> {
        let mut enforced = Enforced::default();
        let mut limits = self.limits.clone();
        let mut account_cpu = self.cpu_time.is_some();
        if limits.is_empty() && !account_cpu {
            return Ok((limits, account_cpu, enforced));
        }
        let host = cgroup::host()?;
        for feature in limits.features().into_iter().chain(account_cpu.then_some(Feature::CpuTime)) {
            enforced.set(feature, host.enforcement(feature));
        }
        if !thorough && self.best_effort.is_empty() {
            return Ok((limits, account_cpu, enforced));
        }
        for problem in host.problems(&limits, account_cpu, self.cgroup_parent.as_deref()) {
            match problem.feature.filter(|feature| self.best_effort.contains(feature)) {
                Some(feature) => {
                    let missing = match feature {
                        Feature::CpuTime => {
                            account_cpu = false;
                            Enforcement::Partial("each process by itself, in whole seconds (RLIMIT_CPU)")
                        }
                        _ => {
                            limits = limits.without(feature);
                            Enforcement::Missing(format!("{}; {}", problem.reason, problem.remedy))
                        }
                    };
                    enforced.set(feature, missing);
                }
                None => problems.push(problem),
            }
        }
        Ok((limits, account_cpu, enforced))
    }
}

/// Whether the calling thread has the capability in effect.
fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// A set of the calling thread's.
fn held(set: CapSet) -> u64 {
    caps::read(None, set).map_or(0, |held| held.iter().fold(0, |all, capability| all | capability.bitmask()))
}

/// Why an ordinary user cannot have a user namespace here.
fn user_namespaces_blocked() -> Vec<Problem> {
    let setting = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let switches = [
        ("/proc/sys/user/max_user_namespaces", 0, "sysctl user.max_user_namespaces=10000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", 0, "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            1,
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows userns",
        ),
    ];
    let blocked = switches.into_iter().filter(|(path, value, _)| setting(path) == Some(*value));
    blocked
        .map(|(path, value, remedy)| {
            Problem::unsupported("user_ns", format!("{path} is {value}"), format!("as root: {remedy}"))
        })
        .collect()
}
