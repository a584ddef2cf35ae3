//! The judgement before a spawn: contradictions in the policy, and requests that this host cannot
//! fulfil.

use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::unistd::{Gid, Uid};

use super::bounds::absent_processors;
use super::capabilities::{capability_mask, has_capability};
use crate::cgroup;
use crate::error::{Error, Problem, Result, Step};
use crate::feature::{Enforced, Enforcement, Feature};
use crate::mount::{self, Kind, Mount};
use crate::namespace::{IdMap, IdMaps, Namespaces, UserLimit};
use crate::owner;
use crate::policy::Policy;
use crate::program::Session;
use crate::security::{self, Landlock, Modules, Names, Seccomp};
use crate::stdio::{Sink, Stdio};

/// The longest host name that the kernel takes (`__NEW_UTS_LEN`).
const NAME_MAX: usize = 64;
/// The text for output that the library cannot count.
const UNCOUNTED: &str = "a stream is a descriptor with another reader, so its output cannot be counted";

/// The judgement of a policy that this host can carry out.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    pub(crate) enforced: Enforced,
    /// The limits that hold: those of the policy, without those that `best_effort` gives up.
    pub(crate) limits: cgroup::Limits,
    /// True if the control group counts processor time, for `cpu_time`.
    pub(crate) account_cpu: bool,
    pub(crate) maps: Option<IdMaps>,
    /// The parts of the Landlock ruleset that hold.
    pub(crate) landlock: Vec<Feature>,
    /// The privileges of the program, without those that could undo the sandbox's mounts.
    pub(crate) security: security::Privileges,
    /// True if the bounding set of capabilities can be cut down.
    pub(crate) bounding: bool,
    /// The filter of the program.
    pub(crate) seccomp: Option<Seccomp>,
    /// The paths inside at which the program would see its own control group, and must not write to
    /// it.
    pub(crate) control_groups: Vec<PathBuf>,
    /// True if the program is shown its control groups, where the policy says so.
    pub(crate) shows_groups: bool,
}

impl Judgement {
    /// Returns the features that are enforced in a run whose output goes to these sinks.
    pub(crate) fn enforced_with(&self, sinks: &[Sink; 2]) -> Enforced {
        let mut enforced = self.enforced.clone();
        if enforced.get(Feature::OutputLimit) == Some(&Enforcement::Full) {
            if sinks.contains(&Sink::External) {
                enforced.set(Feature::OutputLimit, Enforcement::Missing(UNCOUNTED.into()));
            } else if sinks.contains(&Sink::Inherited) {
                let gap = "what goes to the caller's own stdout or stderr, passed on, is not counted";
                enforced.set(Feature::OutputLimit, Enforcement::Partial(gap));
            }
        }
        enforced
    }

    /// Adds the seccomp profile's explanation to an error.
    pub(crate) fn explain_by_profile(&self, error: Error) -> Error {
        match &self.seccomp {
            Some(profile) => profile.explain(error),
            None => error,
        }
    }
}

impl Policy {
    /// Judges the policy. `thorough` also tries out whether the host's control groups take the
    /// limits. A spawn goes without, because creating the groups shows the same problem, unless the
    /// caller may go without some of the limits.
    pub(crate) fn judge(&self, thorough: bool) -> Result<Judgement> {
        let mut problems = self.contradictions();
        let maps = self.id_maps(&mut problems);
        problems.extend(self.missing_privileges());
        let (limits, account_cpu, mut enforced) = self.judge_limits(thorough, &mut problems)?;
        let landlock = self.judge_landlock(&mut enforced, &mut problems);
        let control_groups = self.judge_own_group(&landlock, &mut enforced);
        let security = self.privileges();
        self.note_walls(&security, &mut enforced);
        problems.extend(self.reaches_host_root(&security));
        let shows_groups = self.judge_shown_groups(&limits, thorough, &mut enforced);
        let bounding = self.judge_capabilities(&security, &mut problems, &mut enforced);
        let seccomp = self.judge_seccomp(&mut enforced, &mut problems);
        let seccomp = self.judge_denials(seccomp, &mut enforced, &mut problems);
        note_uncounted_memory(seccomp.as_ref(), &mut enforced);
        self.judge_output(&mut enforced, &mut problems);
        if seccomp.is_some() && landlock.is_empty() {
            problems.extend(self.filter_bypass());
        }
        problems.extend(self.unreachable_rlimits());
        problems.extend(self.absent_affinity());
        problems.extend(self.security.labels.unsupported(Modules::default()));
        problems.extend(self.new_privs_unreachable());
        if thorough {
            problems.extend(self.missing_sources());
            if let Some(path) = self.cgroup.as_ref().filter(|_| !self.has_unit()) {
                problems.extend(cgroup::host()?.unadoptable(path));
            }
            problems.extend(self.too_many_descriptors(&[]));
            problems.extend(self.too_long_arguments());
        }
        if thorough && problems.is_empty() {
            problems.extend(self.refused_by_kernel());
        }
        if problems.is_empty() {
            Ok(Judgement {
                enforced,
                limits,
                account_cpu,
                maps,
                landlock,
                security,
                bounding,
                seccomp,
                control_groups,
                shows_groups,
            })
        } else if !thorough {
            self.judge(true)
        } else {
            Err(Error::refused(problems))
        }
    }

    /// Judges whether the library can count the program's output.
    fn judge_output(&self, enforced: &mut Enforced, problems: &mut Vec<Problem>) {
        if self.output_limit.is_none() {
            return;
        }
        let problem = self.uncounted(&self.stdio.streams);
        let missing = problem.is_some();
        problems.extend(problem.filter(|_| !self.best_effort.contains(&Feature::OutputLimit)));
        let whole = if missing { Enforcement::Missing(UNCOUNTED.into()) } else { Enforcement::Full };
        enforced.set(Feature::OutputLimit, whole);
    }

    /// Returns whether output that cannot be counted is an error.
    pub(crate) fn has_to_count(&self) -> bool {
        !self.best_effort.contains(&Feature::OutputLimit)
    }

    /// Returns a problem if the output has a limit, and a reader outside of the library.
    pub(crate) fn uncounted(&self, streams: &[Option<Stdio>; 3]) -> Option<Problem> {
        let external = streams[1..].iter().flatten().any(|stdio| stdio.sink() == Sink::External);
        (self.output_limit.is_some() && external).then(|| {
            let remedy = "use Stdio::piped() or a file, or best_effort(Feature::OutputLimit)";
            Problem::invalid("output_limit", UNCOUNTED, remedy).for_feature(Feature::OutputLimit)
        })
    }

    /// Returns a problem if a program with a terminal of its own would lead no session.
    pub(crate) fn terminal_without_session(&self, streams: &[Option<Stdio>; 3]) -> Option<Problem> {
        let leads = self.program.session.is_none_or(|session| session == Session::New);
        (!leads && streams.iter().flatten().any(Stdio::is_pty)).then(|| {
            let reason = "a program with a terminal of its own leads a session of its own";
            Problem::invalid("session", reason, "use Session::New, or leave out Stdio::pty()")
        })
    }

    /// Returns the profile that was asked for. The default one allows namespaces to whom user
    /// namespaces are allowed.
    fn profile(&self) -> Option<Seccomp> {
        let profile = self.seccomp.clone()?;
        let allowed = self.namespaces.user_limits.get(&UserLimit::UserNamespaces).is_some_and(|most| *most > 0);
        Some(if allowed && profile.is_default() { Seccomp::default_with_namespaces() } else { profile })
    }

    /// Judges the seccomp profile, and returns the filter that will be installed.
    fn judge_seccomp(&self, enforced: &mut Enforced, problems: &mut Vec<Problem>) -> Option<Seccomp> {
        let profile = self.profile()?;
        let faults = profile.invalid();
        if !faults.is_empty() {
            problems.extend(faults);
            return None;
        }
        match profile.unsupported() {
            None => {
                enforced.set(Feature::Seccomp, Enforcement::Full);
                return Some(profile);
            }
            Some(problem) if self.best_effort.contains(&Feature::Seccomp) => {
                let text = format!("{}; {}", problem.reason, problem.remedy);
                enforced.set(Feature::Seccomp, Enforcement::Missing(text));
            }
            Some(problem) => problems.push(problem),
        }
        None
    }

    /// Returns the settings that contradict a filter without `no_new_privs`.
    fn new_privs_contradictions(&self) -> Option<Problem> {
        self.seccomp.as_ref().filter(|profile| profile.allows_new_privs())?;
        let (reason, remedy) = if self.security.no_new_privs {
            ("no_new_privs is asked for as well", "leave out one of the two")
        } else if self.landlock.is_some() {
            ("landlock() sets no_new_privs", "leave out one of the two")
        } else if self.program.init {
            ("an init would keep CAP_SYS_ADMIN, which the filter needs until the exec", "leave out init()")
        } else {
            return None;
        };
        Some(Problem::invalid("allow_new_privs", reason, remedy))
    }

    /// Returns a problem if the caller may not install a filter without `no_new_privs`.
    pub(crate) fn new_privs_unreachable(&self) -> Option<Problem> {
        self.seccomp.as_ref().filter(|profile| profile.allows_new_privs())?;
        let has_admin = self.namespaces.apart().contains(Namespaces::USER) || has_capability(Capability::CAP_SYS_ADMIN);
        (!has_admin).then(|| {
            let reason = "without no_new_privs, a filter needs CAP_SYS_ADMIN, which the caller has not";
            Problem::unsupported("allow_new_privs", reason, "add user_ns(), or run as root")
        })
    }

    /// Judges whether what the filter refuses can be recorded. Returns the filter, which asks then
    /// about each call that it refuses.
    fn judge_denials(
        &self,
        filter: Option<Seccomp>,
        enforced: &mut Enforced,
        problems: &mut Vec<Problem>,
    ) -> Option<Seccomp> {
        if !self.denials {
            return filter;
        }
        let problem = match &filter {
            // The problems of the profile itself are known already.
            None if self.seccomp.is_some() && enforced.get(Feature::Seccomp).is_none() => return None,
            None => {
                let reason = "without a filter, no refused call is seen";
                Some(Problem::invalid("denials", reason, "add seccomp(), or leave out denials()"))
            }
            Some(profile) if profile.asks() => {
                let reason = "the profile has Action::Notify, and a filter has one supervisor only";
                let remedy = "leave out the rules with Action::Notify, or denials()";
                Some(Problem::invalid("denials", reason, remedy))
            }
            Some(_) => Seccomp::cannot_report().map(|(reason, remedy)| Problem::unsupported("denials", reason, remedy)),
        };
        match problem.map(|problem| problem.for_feature(Feature::Denials)) {
            None => {
                enforced.set(Feature::Denials, Enforcement::Full);
                return filter.map(|profile| profile.reporting());
            }
            Some(problem) if self.best_effort.contains(&Feature::Denials) => {
                let text = format!("{}; {}", problem.reason, problem.remedy);
                enforced.set(Feature::Denials, Enforcement::Missing(text));
            }
            Some(problem) => problems.push(problem),
        }
        filter
    }

    /// Returns a problem if the program could write to its init, which has no filter.
    /// CAP_SYS_PTRACE in the user namespace of the init gives access to its memory. A Landlock
    /// domain, which begins with the program, keeps the program from all processes outside of that
    /// domain.
    fn filter_bypass(&self) -> Option<Problem> {
        let given = self.security.capabilities.as_ref()?;
        (self.program.init && given.reaches(Capability::CAP_SYS_PTRACE)).then(|| {
            let reason = "CAP_SYS_PTRACE lets the program write to its init, which stands outside of the filter";
            let remedy = "leave out the capability or init(), or add landlock(), which keeps the program off the init";
            Problem::invalid("capabilities", reason, remedy)
        })
    }

    /// Returns the problems that hold on every host.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.limits.is_empty() {
            problems.extend(self.limits.invalid());
            problems.extend(self.limits.incomplete());
        }
        problems.extend(self.cgroup_parent.as_deref().and_then(cgroup::invalid_parent));
        problems.extend(self.cgroup_contradictions());
        #[cfg(feature = "systemd")]
        problems.extend(self.scope_contradictions());
        problems.extend(self.mounts.invalid());
        problems.extend(self.program.invalid());
        problems.extend(self.program.attributes.invalid(self.program.init));
        if self.program.make_cwd {
            problems.extend(mount::invalid_workdir(self.program.cwd.as_deref(), self.mounts.root.is_some()));
        }
        problems.extend(self.namespaces.invalid_sysctls());
        problems.extend(self.new_privs_contradictions());
        if self.supervisor.is_some() && !self.seccomp.as_ref().is_some_and(Seccomp::asks) {
            let reason = "the supervisor would never be asked";
            let remedy = "add a rule with Action::Notify to the seccomp profile, or leave out notify_socket()";
            problems.push(Problem::invalid("notify_socket", reason, remedy));
        }
        problems.extend(self.terminal_without_session(&self.stdio.streams));
        problems.extend(self.landlock.iter().flat_map(Landlock::invalid));
        problems.extend(self.security.invalid());
        problems.extend(self.names_without_namespace());
        problems.extend(self.invalid_joins());
        problems.extend(self.descriptor_numbers(&[]));
        let pid_ns = self.namespaces.apart().contains(Namespaces::PID);
        if self.program.init && !self.namespaces.new.contains(Namespaces::PID) {
            problems.push(Problem::invalid("init", "an init is pid 1 of a pid namespace of its own", "add pid_ns()"));
        }
        let hides = |mount: &Mount| matches!(&mount.kind, Kind::Proc(proc) if proc.hidepid.is_some());
        if !pid_ns && self.mounts.mounts.iter().any(hides) {
            let reason = "hidepid without a pid namespace of the sandbox's own would hide the host's processes on the host as well";
            problems.push(Problem::invalid("hidepid", reason, "add pid_ns()"));
        }
        if self.mounts.lists_groups() {
            let has_group = !self.limits.is_empty() || self.cpu_time.is_some() || self.cgroup.is_some();
            let is_open = self.mounts.opens_groups() && self.binds_groups();
            let missing = if !has_group {
                Some(("a sandbox without a limit has no control group", "set memory_limit(), or another limit"))
            } else if is_open {
                Some(("control groups are writable in a cgroup namespace only", "add cgroup_ns()"))
            } else {
                None
            };
            problems.extend(missing.map(|(reason, remedy)| Problem::invalid("mount", reason, remedy)));
        }
        for (name, limit) in [("wall_time", self.wall_time), ("cpu_time", self.cpu_time)] {
            if limit.is_some_and(|limit| limit.is_zero()) {
                problems.push(Problem::invalid(name, "the limit leaves no time at all", "give a duration above zero"));
            }
        }
        problems
    }

    /// Returns the limits that cannot be enforced at the place of the group.
    fn group_problems(&self, host: &cgroup::Host, limits: &cgroup::Limits, account_cpu: bool) -> Vec<Problem> {
        #[cfg(feature = "systemd")]
        if let Some(scope) = &self.systemd_scope {
            let is_valid = scope.invalid().is_none();
            return if is_valid { cgroup::problems_in_scope(host, limits, account_cpu) } else { Vec::new() };
        }
        #[cfg(feature = "oci")]
        if self.unit.is_some() {
            return cgroup::problems_in_unit(host, limits, account_cpu, self.group_parent());
        }
        host.problems(limits, account_cpu, self.group_parent())
    }

    /// Returns the problem of a group that the caller names, and that contradicts the rest of the
    /// policy, or itself.
    fn cgroup_contradictions(&self) -> Option<Problem> {
        let path = self.cgroup.as_deref()?;
        #[cfg(feature = "systemd")]
        let is_below = self.cgroup_parent.is_some() || self.systemd_scope.is_some();
        #[cfg(not(feature = "systemd"))]
        let is_below = self.cgroup_parent.is_some();
        if is_below {
            let reason = "the path of the group says already where it stands";
            return Some(Problem::invalid("cgroup", reason, "leave out cgroup_parent and systemd_scope"));
        }
        cgroup::invalid_group(path)
    }

    /// Returns a problem of a systemd scope that contradicts the rest of the policy, or itself.
    #[cfg(feature = "systemd")]
    fn scope_contradictions(&self) -> Option<Problem> {
        let scope = self.systemd_scope.as_ref()?;
        if self.cgroup_parent.is_some() {
            let reason = "a group cannot be below cgroup_parent and in a scope at the same time";
            return Some(Problem::invalid("systemd_scope", reason, "choose one of the two"));
        }
        scope.invalid()
    }

    /// Returns the problems of host names, offsets, maps and limits that need a new namespace, or
    /// are invalid.
    fn names_without_namespace(&self) -> Vec<Problem> {
        let ns = &self.namespaces;
        let mut problems = Vec::new();
        for (call, name) in [("hostname", &ns.hostname), ("domainname", &ns.domainname)] {
            let Some(name) = name else { continue };
            if !ns.apart().contains(Namespaces::UTS) {
                problems.push(Problem::invalid(call, "the call would change the host's own name", "add uts_ns()"));
            }
            if name.len() > NAME_MAX || name.contains('\0') {
                let reason = format!("{name:?} is no name for a host");
                problems.push(Problem::invalid(call, reason, "give at most 64 bytes without a NUL"));
            }
        }
        let offsets = [("monotonic_offset", ns.monotonic), ("boottime_offset", ns.boottime)];
        for (call, _) in offsets.iter().filter(|(_, offset)| offset.is_some()) {
            if !ns.new.contains(Namespaces::TIME) {
                problems.push(Problem::invalid(
                    call,
                    "only a new time namespace has offsets of clocks",
                    "add time_ns()",
                ));
            }
        }
        if ns.subids && !ns.new.contains(Namespaces::USER) {
            problems.push(Problem::invalid("map_subids", "only a new user namespace has maps of ids", "add user_ns()"));
        }
        for limit in ns.user_limits.keys().filter(|_| !ns.new.contains(Namespaces::USER)) {
            let call = if *limit == UserLimit::UserNamespaces { "max_user_namespaces" } else { "user_limit" };
            problems.push(Problem::invalid(call, "only a new user namespace has this limit", "add user_ns()"));
        }
        let maps = [("uid_map", &ns.uid_map), ("gid_map", &ns.gid_map)];
        for (call, map) in maps.iter().filter(|(_, map)| !map.is_empty()) {
            if !ns.new.contains(Namespaces::USER) {
                problems.push(Problem::invalid(call, "only a new user namespace has maps of ids", "add user_ns()"));
            }
            if ns.subids {
                let reason = "map_subids() also sets the maps";
                problems.push(Problem::invalid(call, reason, "leave out one of the two"));
            }
            if let Some(bad) = map.iter().find(|line| !line.is_valid()) {
                let reason = format!("{bad:?} is empty, or has ids above the last");
                problems.push(Problem::invalid(call, reason, "give ids up to 4,294,967,294"));
            }
            if let Some((one, other)) = IdMap::overlap(map) {
                let reason = format!("{one:?} and {other:?} have ids in common, inside or outside");
                problems.push(Problem::invalid(call, reason, "map each id once on both sides"));
            }
        }
        problems
    }

    /// Returns the problems of namespaces that are asked for twice, or that are not what they are
    /// taken for.
    fn invalid_joins(&self) -> Vec<Problem> {
        let mut seen = self.namespaces.new;
        let mut problems = Vec::new();
        for (kind, source) in &self.namespaces.join {
            let name = kind.file().unwrap_or("?");
            if kind.file().is_none() {
                let reason = "this call takes one kind of namespace at a time";
                problems.push(Problem::invalid(source.call(), reason, "call it once for each namespace"));
            } else if seen.contains(*kind) && *kind != Namespaces::MOUNT {
                let reason = format!("the {name} namespace is asked for twice");
                problems.push(Problem::invalid("join", reason, "make a namespace or join one, not both"));
            }
            seen |= *kind;
        }
        problems.extend(self.namespaces.invalid_sources());
        problems
    }

    /// Returns the privileges that the policy needs and the caller does not have.
    fn missing_privileges(&self) -> Vec<Problem> {
        let ns = &self.namespaces;
        let wants_namespaces = !ns.apart().is_empty();
        let with_user = ns.apart().contains(Namespaces::USER);
        let mut problems = Vec::new();
        if wants_namespaces && !with_user && !has_capability(Capability::CAP_SYS_ADMIN) {
            let reason = "making or joining a namespace needs CAP_SYS_ADMIN";
            problems.push(Problem::unsupported("namespaces", reason, "add user_ns(), or run as root"));
        }
        let own = (Uid::effective().as_raw(), Gid::effective().as_raw());
        if !with_user && self.program.user.is_some_and(|user| user != own) && !has_capability(Capability::CAP_SETUID) {
            let reason = "running as another user needs CAP_SETUID and CAP_SETGID";
            problems.push(Problem::unsupported("user", reason, "add user_ns(), or run as root"));
        }
        if !with_user && self.program.groups.is_some() && !has_capability(Capability::CAP_SETGID) {
            problems.push(Problem::unsupported("groups", "setting groups needs CAP_SETGID", "run as root"));
        }
        if self.mounts.maps_ids() && !self.namespaces.new.contains(Namespaces::USER) {
            let reason = "without a user namespace of the sandbox's own, ids inside are those on disk";
            problems.push(Problem::invalid("id_mapped", reason, "add user_ns(), or leave out id_mapped()"));
        } else if self.mounts.maps_ids() || self.mounts.has_id_maps() {
            problems.extend(id_mapped_mounts());
        }
        problems.extend(self.mounts.disk_problems(
            ns.new.contains(Namespaces::USER),
            ns.joins(Namespaces::MOUNT),
            has_capability(Capability::CAP_SYS_ADMIN),
        ));
        problems.extend(self.mounts.limited_dirs().iter().filter_map(|dir| exchangeable(dir)));
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

    /// Judges the Landlock ruleset, and returns its parts that will hold.
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

    /// Judges the capabilities, and returns whether the bounding set can be cut down. A user
    /// namespace gives the right to do so.
    fn judge_capabilities(
        &self,
        security: &security::Privileges,
        problems: &mut Vec<Problem>,
        enforced: &mut Enforced,
    ) -> bool {
        let Some(wanted) = &security.capabilities else { return false };
        if self.security.capabilities.is_some() {
            enforced.set(Feature::BoundingSet, Enforcement::Full);
        }
        let may = has_capability(Capability::CAP_SETPCAP);
        if self.namespaces.apart().contains(Namespaces::USER) {
            return true;
        }
        let lacking = wanted.wanted() & !capability_mask(CapSet::Permitted);
        if lacking != 0 {
            let reason = format!("the caller itself lacks {}", Names(lacking));
            problems.push(Problem::unsupported(
                "capabilities",
                reason,
                "leave out these capabilities, add user_ns(), or run as root",
            ));
        }
        let remedy = "add user_ns(), or run as root";
        if !may && wanted.sets_securebits() {
            problems.push(Problem::unsupported("capabilities", "securebits need CAP_SETPCAP", remedy));
        }
        if !may && !wanted.bounds(capability_mask(CapSet::Bounding)) {
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

    /// Judges the capabilities that a further program gets beside those of this policy. Returns
    /// whether the bounding set can be cut down.
    pub(crate) fn judge_said_capabilities(&self, security: &security::Privileges, problems: &mut Vec<Problem>) -> bool {
        if self.seccomp.is_some() && self.landlock.is_none() {
            problems.extend(self.filter_bypass());
        }
        self.judge_capabilities(security, problems, &mut Enforced::default())
    }

    /// Judges the limits, and returns those that a control group will hold, whether the group
    /// counts processor time, and the enforcement of each limit.
    fn judge_limits(&self, thorough: bool, problems: &mut Vec<Problem>) -> Result<(cgroup::Limits, bool, Enforced)> {
        let mut enforced = Enforced::default();
        let mut limits = self.limits.clone();
        let mut account_cpu = self.cpu_time.is_some();
        if limits.is_empty() && !account_cpu {
            return Ok((limits, account_cpu, enforced));
        }
        let host = cgroup::host()?;
        let no_swap = self.takes_no_swap && limits.memory.is_some() && !limits.features().contains(&Feature::SwapLimit);
        if no_swap && host.counts_swap() {
            limits = limits.swap(0);
        } else if no_swap && cgroup::has_swap() {
            enforced.set(Feature::SwapLimit, host.swap_uncounted());
        }
        for feature in limits.features().into_iter().chain(account_cpu.then_some(Feature::CpuTime)) {
            enforced.set(feature, host.enforcement(feature));
        }
        if !thorough && self.best_effort.is_empty() {
            return Ok((limits, account_cpu, enforced));
        }
        let absent = absent_processors(&limits);
        for problem in self.group_problems(host, &limits, account_cpu).into_iter().chain(absent) {
            let goes_without =
                |feature: &Feature| self.best_effort.contains(feature) || no_swap && *feature == Feature::SwapLimit;
            match problem.feature.filter(goes_without) {
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

/// Notes that a limit of memory holds in part where the program, under this filter, can have memory
/// that no control group counts.
fn note_uncounted_memory(seccomp: Option<&Seccomp>, enforced: &mut Enforced) {
    let gap = seccomp.map_or(Some(security::WITHOUT_FILTER), Seccomp::uncounted_memory);
    gap.into_iter().for_each(|gap| enforced.note_gap(Feature::MemoryLimit, gap));
}

/// Returns a problem if somebody else could exchange a directory between its limit and its mount.
fn exchangeable(dir: &Path) -> Option<Problem> {
    let error = owner::refuse_exchangeable_name(dir, Step::DiskLimit).err()?;
    // A directory that is missing is told elsewhere.
    (error.raw_os_error() != Some(libc::ENOENT)).then(|| {
        let remedy = "limit a directory below directories of your own or root's, by a path without links";
        Problem::unsupported("disk_limit", error.to_string(), remedy)
    })
}

/// Returns a problem if the caller cannot map the ids of a mount.
fn id_mapped_mounts() -> Option<Problem> {
    let needed = [Capability::CAP_SYS_ADMIN, Capability::CAP_SETUID, Capability::CAP_SETGID];
    (!needed.into_iter().all(has_capability)).then(|| {
        let reason = "mapping the ids of a mount needs CAP_SYS_ADMIN where the file system was mounted";
        let remedy = "run as root, or give the files to the ids that the sandbox has outside (chown)";
        Problem::unsupported("id_mapped", reason, remedy)
    })
}
