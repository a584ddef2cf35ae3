//! The process: `process`, and of `linux` what a process has, `personality` and `memoryPolicy`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caps::Capability;
use oci_spec::runtime::{
    Capabilities as Names, IOPriorityClass, LinuxCapabilities, LinuxIOPriority, LinuxMemoryPolicy,
    LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType,
    PosixRlimitType, Process, Scheduler as ListedScheduler, Spec,
};

use super::namespaces::check_paths;
use crate::command::Command;
use crate::oci::problems::{Problems, is_plain_absolute};
use crate::passwd::{home_at, home_by};
use crate::program::{
    IoPriority, MemoryPolicy, MemoryPolicyFlags, Personality, Resource, Scheduler, SchedulerFlags, Session,
};
use crate::sandbox::Sandbox;
use crate::security::Capabilities;
use crate::stdio::{Stdio, TerminalSize};

/// The longest list of processors or memory nodes.
const NUMBER_MAX: usize = 8192;
/// The umask of a process that says none, as with other runtimes.
const UMASK: u32 = 0o022;

pub(super) fn with_process(mut sandbox: Sandbox, spec: &Spec, bundle: &Path, problems: &mut Problems) -> Sandbox {
    let Some(process) = spec.process() else {
        return with_linux(without_process(sandbox), spec, problems);
    };
    check_words(process, problems);
    if let Some((program, args)) = process.args().as_deref().unwrap_or_default().split_first() {
        sandbox = sandbox.command(program).args(args);
    }
    sandbox = sandbox.env_clear().session(Session::New).with_streams_given();
    for (name, value) in process.env().iter().flatten().filter_map(|variable| variable.split_once('=')) {
        sandbox = sandbox.env(name, value);
    }
    if let Some(home) = missing_home(spec, bundle) {
        sandbox = sandbox.env("HOME", home);
    }
    sandbox = sandbox.cwd(process.cwd()).make_cwd(true);
    if process.terminal().unwrap_or(false) {
        sandbox = sandbox.stdin(Stdio::pty(size(process, problems)));
    }
    let user = process.user();
    sandbox = sandbox.user(user.uid(), user.gid());
    if let Some(groups) = user.additional_gids() {
        sandbox = sandbox.groups(groups.iter().copied());
    }
    sandbox = sandbox.umask(umask(process, problems).unwrap_or(UMASK));
    sandbox = sandbox.no_new_privs(process.no_new_privileges().unwrap_or(false));
    sandbox = sandbox.capabilities(capabilities(process.capabilities().as_ref(), problems));
    if let Some(profile) = process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty()) {
        sandbox = sandbox.apparmor_profile(profile);
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
        sandbox = sandbox.selinux_label(label);
    }
    for (resource, soft, hard) in rlimits(process, problems) {
        sandbox = sandbox.rlimit(resource, soft, hard);
    }
    sandbox = with_scheduling(sandbox, process, problems);
    if let Some(all) = all_processors() {
        sandbox = sandbox.cpu_affinity(all);
    }
    with_linux(sandbox, spec, problems)
}

/// A container whose configuration has no process can be created, and not started: its first
/// process has nothing to do, and no rights.
fn without_process(sandbox: Sandbox) -> Sandbox {
    let sandbox = sandbox.without_program().env_clear().session(Session::New).cwd("/").make_cwd(true);
    let sandbox = sandbox.user(0, 0).umask(UMASK).no_new_privs(true);
    sandbox.capabilities(Capabilities::none())
}

/// Returns whether the environment of a process has a home directory, which is not empty. One
/// without it gets that of its user, as with other runtimes.
pub(in crate::oci) fn has_home(process: &Process) -> bool {
    let mut homes = process.env().iter().flatten().filter_map(|variable| variable.strip_prefix("HOME="));
    homes.next_back().is_some_and(|home| !home.is_empty())
}

/// Returns the home directory that the environment of the container's process does not have.
pub(super) fn missing_home(spec: &Spec, bundle: &Path) -> Option<PathBuf> {
    let process = spec.process().as_ref().filter(|process| !has_home(process))?;
    Some(first_home(spec, bundle, process.user().uid()).unwrap_or_else(|| "/".into()))
}

/// Returns the home directory of a user by the container's user database, which may be mounted by
/// itself.
fn first_home(spec: &Spec, bundle: &Path, uid: u32) -> Option<PathBuf> {
    let mounts = spec.mounts().iter().flatten();
    let database = mounts.rev().find_map(|mount| match mount.destination().to_str()? {
        "/etc/passwd" => Some(bundle.join(mount.source().as_ref()?)),
        "/etc" => Some(bundle.join(mount.source().as_ref()?).join("passwd")),
        _ => None,
    });
    match database {
        Some(database) => home_by(&database, uid),
        None => home_at(bundle.join(spec.root().as_ref()?.path()), uid),
    }
}

/// Checks the words of the process, and that it is one of Linux.
fn check_words(process: &Process, problems: &mut Problems) {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        problems.invalid("process.args", "it is empty", "name the program");
    }
    problems.refuse_if(process.command_line().is_some(), "process.commandLine", "it is for windows");
    problems.refuse_if(process.user().username().is_some(), "process.user.username", "it is for windows");
    for (property, words) in [("process.args", process.args()), ("process.env", process.env())] {
        if words.iter().flatten().any(|word| word.contains('\0')) {
            problems.invalid(property, "a word has a NUL byte", "leave it out");
        }
    }
    let named = |variable: &String| variable.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    if let Some(i) = process.env().iter().flatten().position(|variable| !named(variable)) {
        problems.invalid(format!("process.env[{i}]"), "it is not NAME=VALUE", "write it so");
    }
    if !is_plain_absolute(process.cwd()) {
        problems.invalid("process.cwd", "it is not absolute, or has `..`", "give the path inside the container");
    }
}

/// Returns the size of the terminal: the one that is not known without one.
fn size(process: &Process, problems: &mut Problems) -> TerminalSize {
    let Some(size) = process.console_size() else { return TerminalSize::default() };
    let [rows, columns] = [("height", size.height()), ("width", size.width())].map(|(name, value)| {
        u16::try_from(value).unwrap_or_else(|_| {
            let property = format!("process.consoleSize.{name}");
            problems.invalid(property, format!("{value} is more than the 65535 of a terminal"), "correct it");
            0
        })
    });
    TerminalSize { rows, columns }
}

/// Returns the name of a capability as the crate `caps` and filters have it.
fn names(set: Option<&Names>) -> BTreeSet<String> {
    // The type is written as a plain name.
    let name = |one| serde_json::to_value(one).ok().and_then(|value| value.as_str().map(str::to_owned));
    set.into_iter().flatten().filter_map(name).collect()
}

/// Returns the names of the capabilities on which the entries of a filter may depend: those that a
/// program of the container can have.
pub(super) fn bounding_names(process: Option<&Process>) -> Vec<String> {
    let listed = process.and_then(|process| process.capabilities().as_ref());
    names(listed.and_then(|listed| listed.bounding().as_ref())).into_iter().collect()
}

/// Without a list, the process has no capabilities.
fn capabilities(listed: Option<&LinuxCapabilities>, problems: &mut Problems) -> Capabilities {
    let Some(listed) = listed else { return Capabilities::none() };
    let mut set = |property: &str, set: &Option<Names>| -> Vec<Capability> {
        let mut known = Vec::new();
        for name in names(set.as_ref()) {
            match name.parse() {
                Ok(capability) => known.push(capability),
                Err(_) => {
                    let property = format!("process.capabilities.{property}");
                    problems.refused(property, format!("{name} is not a capability that this library knows"));
                }
            }
        }
        known
    };
    let (bounding, permitted) = (set("bounding", listed.bounding()), set("permitted", listed.permitted()));
    let (effective, inheritable) = (set("effective", listed.effective()), set("inheritable", listed.inheritable()));
    let ambient = set("ambient", listed.ambient());
    if let Some(extra) = effective.iter().find(|one| !permitted.contains(one)) {
        let reason = format!("{extra:?} is not in the permitted set, and the kernel would not make it effective");
        problems.invalid("process.capabilities.effective", reason, "add it to permitted");
    }
    if let Some(extra) = inheritable.iter().find(|one| !bounding.contains(one)) {
        let reason = format!("{extra:?} is not in the bounding set, and capset(2) would say EPERM");
        problems.invalid("process.capabilities.inheritable", reason, "add it to bounding");
    }
    if let Some(extra) = ambient.iter().find(|one| !permitted.contains(one) || !inheritable.contains(one)) {
        let reason = format!("{extra:?} is not in the permitted and the inheritable set, as the kernel wants");
        problems.invalid("process.capabilities.ambient", reason, "add it to both, or leave it out");
    }
    let sets = Capabilities::none().bounding(bounding).permitted(permitted).effective(effective);
    sets.inheritable(inheritable).ambient(ambient)
}

fn umask(process: &Process, problems: &mut Problems) -> Option<u32> {
    let mask = process.user().umask()?;
    if mask > 0o777 {
        problems.invalid("process.user.umask", format!("{mask:o} has other bits than permissions"), "correct it");
    }
    Some(mask)
}

fn rlimits(process: &Process, problems: &mut Problems) -> Vec<(Resource, u64, u64)> {
    let (mut seen, mut limits) = (Vec::new(), Vec::new());
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        let resource = resource_of(limit.typ());
        if seen.contains(&resource) {
            problems.invalid(format!("process.rlimits[{i}].type"), "it stands twice", "list each limit once");
        }
        seen.push(resource);
        if limit.soft() > limit.hard() {
            problems.invalid(format!("process.rlimits[{i}].soft"), "it is above the hard limit", "lower it");
        }
        limits.push((resource, limit.soft(), limit.hard()));
    }
    limits
}

fn resource_of(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::FileSize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::ResidentSet,
        PosixRlimitType::RlimitNproc => Resource::Processes,
        PosixRlimitType::RlimitNofile => Resource::OpenFiles,
        PosixRlimitType::RlimitMemlock => Resource::MemLock,
        PosixRlimitType::RlimitAs => Resource::AddressSpace,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::SignalsPending,
        PosixRlimitType::RlimitMsgqueue => Resource::MessageQueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::RealtimePriority,
        PosixRlimitType::RlimitRttime => Resource::RealtimeTime,
    }
}

fn with_scheduling(mut sandbox: Sandbox, process: &Process, problems: &mut Problems) -> Sandbox {
    if let Some(badness) = badness(process, problems) {
        sandbox = sandbox.oom_score_adj(badness);
    }
    if let Some(scheduler) = process.scheduler().as_ref().and_then(|listed| scheduler_of(listed, problems)) {
        sandbox = sandbox.scheduler(scheduler);
    }
    if let Some(priority) = process.io_priority().as_ref().and_then(|listed| io_priority(listed, problems)) {
        sandbox = sandbox.io_priority(priority);
    }
    sandbox
}

fn badness(process: &Process, problems: &mut Problems) -> Option<i32> {
    let badness = process.oom_score_adj()?;
    if !(-1000..=1000).contains(&badness) {
        problems.invalid("process.oomScoreAdj", format!("{badness} is not between -1000 and 1000"), "correct it");
    }
    Some(badness)
}

/// Returns whether the times of `SCHED_DEADLINE` are some that the kernel takes: sched_setattr(2).
/// Each fault is told by the property of its time.
fn has_fit_times(listed: &ListedScheduler, problems: &mut Problems) -> bool {
    // The kernel counts in nanoseconds of 63 bits, and takes no run time below these.
    const RUN_TIMES: std::ops::RangeInclusive<u64> = 1024..=i64::MAX as u64;
    let mut refuse = |time: &str, reason: String| {
        let reason = format!("sched_setattr: `SCHED_DEADLINE` {reason}");
        problems.invalid(format!("process.scheduler.{time}"), reason, "correct it");
        false
    };
    let (Some(runtime), Some(deadline)) = (*listed.runtime(), *listed.deadline()) else {
        let missing = if listed.runtime().is_none() { "runtime" } else { "deadline" };
        return refuse(missing, format!("requires `{missing}`"));
    };
    match listed.period().unwrap_or(0) {
        _ if runtime == 0 => refuse("runtime", "runtime must be greater than 0".into()),
        _ if !RUN_TIMES.contains(&runtime) => {
            let (least, most) = (RUN_TIMES.start(), RUN_TIMES.end());
            refuse("runtime", format!("runtime {runtime} must be between {least} and {most} ns"))
        }
        _ if runtime > deadline => refuse("runtime", format!("runtime {runtime} must be <= the deadline {deadline}")),
        period if period != 0 && deadline > period => {
            refuse("deadline", format!("deadline {deadline} must be <= the period {period}"))
        }
        _ if deadline > *RUN_TIMES.end() || listed.period().unwrap_or(0) > *RUN_TIMES.end() => {
            let time = if deadline > *RUN_TIMES.end() { "deadline" } else { "period" };
            refuse(time, format!("{time} must be at most {} ns", RUN_TIMES.end()))
        }
        _ => true,
    }
}

fn scheduler_of(listed: &ListedScheduler, problems: &mut Problems) -> Option<Scheduler> {
    use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedIdle, SchedIso, SchedOther, SchedRr};
    let policy = *listed.policy();
    let nice = listed.nice().unwrap_or(0);
    let priority = listed.priority().unwrap_or(0);
    let times = [*listed.runtime(), *listed.deadline(), *listed.period()].map(|nanos| nanos.unwrap_or(0));
    let foreign = [
        // The kernel passes over it beside the times of a deadline, and so does runc.
        ("nice", nice != 0, matches!(policy, SchedOther | SchedBatch | SchedDeadline)),
        ("priority", priority != 0, matches!(policy, SchedFifo | SchedRr)),
        ("runtime", times[0] != 0, policy == SchedDeadline),
        ("deadline", times[1] != 0, policy == SchedDeadline),
        ("period", times[2] != 0, policy == SchedDeadline),
    ];
    for (name, is_set, fits) in foreign {
        if is_set && !fits {
            let reason = "the policy has no such number";
            problems.invalid(format!("process.scheduler.{name}"), reason, "leave it out, or choose another policy");
        }
    }
    if policy == SchedDeadline && !has_fit_times(listed, problems) {
        return None;
    }
    let [runtime, deadline, period] = times.map(Duration::from_nanos);
    // As the kernel has it.
    let period = if period.is_zero() { deadline } else { period };
    let priority = u32::try_from(priority).unwrap_or(0);
    let scheduler = match policy {
        SchedOther => Scheduler::other(nice),
        SchedBatch => Scheduler::batch(nice),
        SchedIdle => Scheduler::idle(),
        SchedFifo => Scheduler::fifo(priority),
        SchedRr => Scheduler::round_robin(priority),
        SchedDeadline => Scheduler::deadline(runtime, deadline, period),
        SchedIso => {
            problems.refused("process.scheduler.policy", "Linux has no SCHED_ISO");
            return None;
        }
    };
    let mut flags = SchedulerFlags::empty();
    for flag in listed.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => SchedulerFlags::RESET_ON_FORK,
            LinuxSchedulerFlag::SchedFlagReclaim => SchedulerFlags::RECLAIM,
            LinuxSchedulerFlag::SchedFlagDLOverrun => SchedulerFlags::DEADLINE_OVERRUN,
            LinuxSchedulerFlag::SchedFlagKeepPolicy
            | LinuxSchedulerFlag::SchedFlagKeepParams
            | LinuxSchedulerFlag::SchedFlagUtilClampMin
            | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
                problems.refused("process.scheduler.flags", format!("{flag} is not set for programs"));
                continue;
            }
        };
    }
    Some(scheduler.flags(flags))
}

fn io_priority(listed: &LinuxIOPriority, problems: &mut Problems) -> Option<IoPriority> {
    let Some(level) = u8::try_from(listed.priority()).ok().filter(|level| *level < 8) else {
        problems.invalid("process.ioPriority.priority", "it is not between 0 and 7", "correct it");
        return None;
    };
    Some(match listed.class() {
        IOPriorityClass::IoprioClassRt => IoPriority::realtime(level),
        IOPriorityClass::IoprioClassBe => IoPriority::best_effort(level),
        IOPriorityClass::IoprioClassIdle => IoPriority::idle_at(level),
    })
}

/// Returns the numbers of all processors that there can be. A container runs on those of its
/// cpuset, whatever its engine is bound to.
fn all_processors() -> Option<Vec<usize>> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
    numbers(text.trim()).filter(|all| !all.is_empty())
}

fn with_linux(mut sandbox: Sandbox, spec: &Spec, problems: &mut Problems) -> Sandbox {
    let Some(linux) = spec.linux() else { return sandbox };
    if let Some(personality) = linux.personality() {
        let flags = personality.flags().as_ref().is_some_and(|flags| !flags.is_empty());
        problems.refuse_if(flags, "linux.personality.flags", "the specification has no flags yet");
        sandbox = sandbox.personality(match personality.domain() {
            LinuxPersonalityDomain::PerLinux => Personality::empty(),
            LinuxPersonalityDomain::PerLinux32 => Personality::LINUX32,
        });
    }
    if let Some(policy) = linux.memory_policy().as_ref().and_then(|listed| memory_policy(listed, problems)) {
        sandbox = sandbox.memory_policy(policy);
    }
    let masked = linux.masked_paths().as_deref().unwrap_or_default();
    check_paths("linux.maskedPaths", masked, problems);
    let read_only = linux.readonly_paths().as_deref().unwrap_or_default();
    check_paths("linux.readonlyPaths", read_only, problems);
    let mut seen = BTreeSet::new();
    sandbox = masked.iter().filter(|path| seen.insert(*path)).fold(sandbox, Sandbox::mask);
    read_only.iter().fold(sandbox, Sandbox::read_only_path)
}

fn memory_policy(listed: &LinuxMemoryPolicy, problems: &mut Problems) -> Option<MemoryPolicy> {
    let text = listed.nodes().as_deref().unwrap_or_default();
    let Some(nodes) = numbers(text) else {
        let reason = format!("invalid memory policy nodes: {text:?} is no list");
        problems.invalid("linux.memoryPolicy.nodes", reason, "write it as in 0-3,7");
        return None;
    };
    let takes_none = matches!(listed.mode(), MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal);
    if takes_none != nodes.is_empty() {
        let reason = match takes_none {
            true => format!("the mode requires 0 nodes but got {}", nodes.len()),
            false => "the mode needs nodes".to_owned(),
        };
        problems.invalid("linux.memoryPolicy.nodes", reason, "correct the nodes, or choose another mode");
        return None;
    }
    let policy = match listed.mode() {
        MemoryPolicyModeType::MpolDefault => MemoryPolicy::system_default(),
        MemoryPolicyModeType::MpolLocal => MemoryPolicy::local(),
        MemoryPolicyModeType::MpolBind => MemoryPolicy::bind(nodes),
        MemoryPolicyModeType::MpolInterleave => MemoryPolicy::interleave(nodes),
        MemoryPolicyModeType::MpolWeightedInterleave => MemoryPolicy::weighted_interleave(nodes),
        MemoryPolicyModeType::MpolPreferredMany => MemoryPolicy::preferred_many(nodes),
        MemoryPolicyModeType::MpolPreferred => match nodes[..] {
            [node] => MemoryPolicy::preferred(node),
            _ => {
                problems.invalid("linux.memoryPolicy.nodes", "the mode takes one node", "name one");
                return None;
            }
        },
    };
    let flags = listed.flags().iter().flatten().map(|flag| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => MemoryPolicyFlags::NUMA_BALANCING,
        MemoryPolicyFlagType::MpolFRelativeNodes => MemoryPolicyFlags::RELATIVE_NODES,
        MemoryPolicyFlagType::MpolFStaticNodes => MemoryPolicyFlags::STATIC_NODES,
    });
    Some(policy.flags(flags.collect()))
}

/// Reads a list of numbers, such as `0-3,7`.
fn numbers(text: &str) -> Option<Vec<usize>> {
    let mut all = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= NUMBER_MAX {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all.into_iter().collect())
}

/// Returns a further program for a container. What `process` does not say is that of the
/// container's `own` process.
pub(in crate::oci) fn further_command(process: &Process, own: Option<&Process>, problems: &mut Problems) -> Command {
    check_words(process, problems);
    let words = process.args().as_deref().unwrap_or_default();
    let (program, args) = words.split_first().map_or(("", words), |(first, rest)| (first.as_str(), rest));
    let variables = process.env().iter().flatten().filter_map(|variable| variable.split_once('='));
    let mut command = Command::new(program).args(args).env_clear().envs(variables).cwd(process.cwd());
    command = command.with_cwd_ahead().with_streams_given();
    if process.terminal().unwrap_or(false) {
        command = command.stdin(Stdio::pty(size(process, problems)));
    }
    let user = process.user();
    command = command.user(user.uid(), user.gid());
    // A user namespace that forbids setgroups(2) is content with none.
    if let Some(groups) = user.additional_gids().as_ref().filter(|groups| !groups.is_empty()) {
        command = command.groups(groups.iter().copied());
    }
    let own_mask = own.and_then(|own| own.user().umask());
    command = command.umask(umask(process, problems).or(own_mask).unwrap_or(UMASK));
    command = command.no_new_privs(process.no_new_privileges().unwrap_or(false));
    let listed = process.capabilities().as_ref().or_else(|| own.and_then(|own| own.capabilities().as_ref()));
    command = command.capabilities(capabilities(listed, problems));
    let said = |pick: fn(&Process) -> &Option<String>| {
        let given = |process: &Process| pick(process).clone().filter(|text| !text.is_empty());
        given(process).or_else(|| own.and_then(given))
    };
    if let Some(profile) = said(Process::apparmor_profile) {
        command = command.apparmor_profile(profile);
    }
    if let Some(label) = said(Process::selinux_label) {
        command = command.selinux_label(label);
    }
    for (resource, soft, hard) in rlimits(process, problems) {
        command = command.rlimit(resource, soft, hard);
    }
    with_further_scheduling(command, process, own, problems)
}

fn with_further_scheduling(
    mut command: Command,
    process: &Process,
    own: Option<&Process>,
    problems: &mut Problems,
) -> Command {
    if let Some(badness) = badness(process, problems) {
        command = command.oom_score_adj(badness);
    }
    if let Some(scheduler) = process.scheduler().as_ref().and_then(|listed| scheduler_of(listed, problems)) {
        command = command.scheduler(scheduler);
    }
    if let Some(priority) = process.io_priority().as_ref().and_then(|listed| io_priority(listed, problems)) {
        command = command.io_priority(priority);
    }
    let affinity =
        process.exec_cpu_affinity().as_ref().or_else(|| own.and_then(|own| own.exec_cpu_affinity().as_ref()));
    let Some(affinity) = affinity else {
        return match all_processors() {
            Some(all) => command.cpu_affinity(all),
            None => command,
        };
    };
    let mut listed = |name: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty())?;
        let read = numbers(text).filter(|numbers| !numbers.is_empty());
        if read.is_none() {
            let property = format!("process.execCPUAffinity.{name}");
            problems.invalid(property, format!("{text:?} is no list of processors"), "write it as in 0-3,7");
        }
        read
    };
    let (first, last) = (listed("initial", affinity.initial()), listed("final", affinity.cpu_affinity_final()));
    if let Some(first) = first {
        command = command.with_first_affinity(first.into_iter().collect());
    }
    match last {
        Some(last) => command.cpu_affinity(last),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_deadline_are_those_that_the_kernel_takes() {
        let scheduler = |times: serde_json::Value| {
            let mut listed = serde_json::json!({"policy": "SCHED_DEADLINE"});
            listed.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
            let mut problems = Problems::default();
            let scheduler = scheduler_of(&serde_json::from_value(listed).unwrap(), &mut problems);
            problems.unless_any(scheduler)
        };
        // Without a period, the deadline is the period.
        let whole = scheduler(serde_json::json!({"runtime": 2000, "deadline": 4000, "period": 4000})).unwrap();
        assert_eq!(scheduler(serde_json::json!({"runtime": 2000, "deadline": 4000})).unwrap(), whole);
        // The kernel passes over the nice value.
        assert!(scheduler(serde_json::json!({"runtime": 2000, "deadline": 4000, "nice": 19})).is_ok());
        for (times, subject, words) in [
            (serde_json::json!({"deadline": 4000}), "runtime", "requires `runtime`"),
            (serde_json::json!({"runtime": 2000}), "deadline", "requires `deadline`"),
            (serde_json::json!({"runtime": 0, "deadline": 4000}), "runtime", "greater than 0"),
            (serde_json::json!({"runtime": 1023, "deadline": 4000}), "runtime", "between 1024 and"),
            (serde_json::json!({"runtime": u64::MAX, "deadline": u64::MAX}), "runtime", "between 1024 and"),
            (serde_json::json!({"runtime": 5000, "deadline": 4000}), "runtime", "<= the deadline 4000"),
            (serde_json::json!({"runtime": 2000, "deadline": 4000, "period": 3000}), "deadline", "<= the period 3000"),
            (serde_json::json!({"runtime": 2000, "deadline": u64::MAX}), "deadline", "at most"),
            (serde_json::json!({"runtime": 2000, "deadline": 4000, "period": u64::MAX}), "period", "at most"),
        ] {
            let error = scheduler(times.clone()).unwrap_err();
            assert_eq!(error.problems().len(), 1, "{times}");
            assert_eq!(error.problems()[0].subject, format!("process.scheduler.{subject}"), "{times}");
            assert!(error.to_string().contains(words), "{times}: {error}");
        }
    }

    #[test]
    fn lists_of_numbers_are_read_and_bounded() {
        assert_eq!(numbers("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(numbers(""), Some(vec![]));
        for text in ["a", "3-1", "0-99999999999", "-1", "1-", "8192"] {
            assert_eq!(numbers(text), None, "{text}");
        }
        crate::fuzz::texts(&["0-2,7"], |text| _ = numbers(text));
    }
}
