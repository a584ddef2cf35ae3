//! Groups in a scope of systemd's: with a systemd in a virtual machine (the row `systemd` of tests/vm/run), as root and as an
//! ordinary user inside and outside of its manager's subtree; and everywhere, what is said where there is none.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{self, no_systemd, probe};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use ringfence::{Bytes, Child, Enforcement, ErrorKind, Feature, Sandbox, SystemdScope, Verdict, reap_stale};

common::callers! {
    "is-in-another-pid-namespace" => is_in_another_pid_namespace(),
    "is-without-a-bus" => is_without_a_bus(),
    "owns-one" => owns_one(),
    "spawns-in-threads" => spawns_in_threads(),
}

const V2: &str = "/sys/fs/cgroup";
const PATIENCE: Duration = Duration::from_secs(20);

/// The scope of the test process stays with it: made before the first look at what is there.
fn clean() -> common::Clean {
    static WARM: OnceLock<()> = OnceLock::new();
    let turn = common::turn();
    WARM.get_or_init(|| {
        if common::runs_systemd() {
            assert!(scoped().command("/bin/true").status().unwrap().success());
        }
    });
    common::clean_in(turn)
}

fn scoped() -> Sandbox {
    common::sandbox().memory_limit(Bytes::mib(64)).pids_limit(50).systemd_scope(SystemdScope::new())
}

/// A program that waits, and the group that it runs in.
fn waiting(sandbox: &Sandbox) -> (Child, String) {
    let child = sandbox.clone().command("/bin/cat").stdin(ringfence::Stdio::piped()).spawn().unwrap();
    let group = group_of(child.id());
    (child, group)
}

fn group_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn scope_of(group: &str) -> PathBuf {
    Path::new(group).parent().unwrap().to_owned()
}

fn dir(group: impl AsRef<Path>) -> PathBuf {
    Path::new(V2).join(group.as_ref().strip_prefix("/").unwrap())
}

fn read(group: &str, file: &str) -> String {
    fs::read_to_string(dir(group).join(file)).unwrap().trim().to_owned()
}

fn systemctl() -> Command {
    let mut command = Command::new("systemctl");
    command.args(if common::is_root() { &[][..] } else { &["--user"] });
    command
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn on_v1_a_scope_is_refused_with_what_to_do_instead() {
    let _clean = common::clean();
    if no_systemd() {
        return;
    }
    if common::is_v2() {
        return common::skip("systemd has its controllers on v2", true);
    }
    let sandbox = scoped().command("/bin/true");
    let error = sandbox.check().unwrap_err();
    assert_eq!((error.kind(), error.problems().len()), (ErrorKind::Unsupported, 2), "{error}");
    for problem in error.problems() {
        assert!(problem.reason.starts_with("a scope is used with cgroup v2"), "{error}");
        assert!(problem.remedy.contains("cgroup_parent"), "{error}");
    }
    assert_eq!(sandbox.spawn().unwrap_err().to_string(), error.to_string());
    let beside = common::sandbox().cgroup_parent(common::cgroup_parent()).memory_limit(Bytes::mib(64));
    assert!(beside.command("/bin/true").status().unwrap().success());
}

#[test]
fn sandboxes_stand_side_by_side_in_one_scope_and_their_limits_hold() {
    let _clean = clean();
    if no_systemd() {
        return;
    }
    let own = group_of(std::process::id());
    let (mut first, group) = waiting(&scoped());
    let (mut second, other) = waiting(&scoped().memory_limit(Bytes::mib(32)));
    assert_eq!(group_of(std::process::id()), own, "the caller was moved");
    let scope = scope_of(&group);
    assert_eq!(scope_of(&other), scope);
    let (parent, unit) = (scope.parent().unwrap().to_str().unwrap(), scope.file_name().unwrap().to_str().unwrap());
    assert!(unit.starts_with("ringfence-") && unit.ends_with(".scope"), "{unit}");
    if common::is_root() {
        assert_eq!(parent, "/system.slice");
    } else {
        let uid = nix::unistd::geteuid();
        assert!(parent.starts_with(&format!("/user.slice/user-{uid}.slice/user@{uid}.service/")), "{parent}");
    }
    assert_eq!((read(&group, "memory.max"), read(&other, "memory.max")), ("67108864".into(), "33554432".into()));
    assert_eq!(read(&group, "pids.max"), "50");
    let mut show = systemctl();
    show.args(["show", unit, "-p", "Delegate,CollectMode,TasksMax,Description"]);
    let shown = probe::succeeds(show);
    for line in [
        "Delegate=yes".to_owned(),
        "CollectMode=inactive-or-failed".to_owned(),
        "TasksMax=infinity".to_owned(),
        format!("Description=Sandboxes of process {}", std::process::id()),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    first.freeze().unwrap();
    first.thaw().unwrap();
    for child in [&mut first, &mut second] {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    let hog = probe::run(scoped(), "hog 200000000").status().unwrap();
    assert_eq!(hog.verdict(), Verdict::OutOfMemory);
    assert!(common::holds(&scoped().check().unwrap()));
}

#[test]
fn a_caller_outside_of_its_managers_subtree_has_its_programs_moved_in() {
    let _clean = clean();
    if no_systemd() {
        return;
    }
    let (mut child, group) = waiting(&scoped());
    let own = group_of(std::process::id());
    let inside = common::is_root() || own.contains(&format!("/user@{}.service/", nix::unistd::geteuid()));
    // By itself it may not, which is why.
    let unaided = common::sandbox().pids_limit(5).cgroup_parent(scope_of(&group)).command("/bin/true");
    match unaided.status() {
        Ok(outcome) => assert!(inside && outcome.success()),
        Err(error) => {
            assert_eq!((inside, error.raw_os_error()), (false, Some(libc::EACCES)), "{error}");
            assert!(unaided.check().unwrap_err().to_string().contains("processes cannot be moved to"));
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Says what a process hears that systemd would take for another.
fn is_in_another_pid_namespace() {
    let error = scoped().check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(scoped().spawn().unwrap_err().to_string(), error.to_string());
    println!("{error}");
}

#[test]
fn systemd_is_given_no_pid_that_means_another_process_to_it() {
    let _clean = clean();
    if no_systemd() || common::needs_root("a pid namespace for the caller") {
        return;
    }
    let mut caller = Command::new("unshare");
    caller.args(["--pid", "--fork", "--mount-proc"]).arg(std::env::current_exe().unwrap());
    caller.env("RINGFENCE_CALLER", "is-in-another-pid-namespace");
    let text = probe::succeeds(caller);
    assert!(text.contains("systemd knows this process by another pid"), "{text}");
}

#[test]
fn a_slice_can_be_chosen() {
    let _clean = clean();
    if no_systemd() {
        return;
    }
    // The process's scopes stay with it, so this one is another's.
    let text = probe::succeeds(probe::caller("spawns-in-threads"));
    let scopes: BTreeSet<PathBuf> = text.lines().map(scope_of).collect();
    assert_eq!(text.lines().count(), 24);
    assert_eq!(scopes.len(), 3, "one for each slice and description: {scopes:?}");
    let below = |slice| scopes.iter().filter(|scope| scope.parent().unwrap().ends_with(slice)).count();
    assert_eq!((below("rftest.slice"), below("rftest.slice/rftest-inner.slice")), (1, 1), "{scopes:?}");
    until("the scopes went with their owner", || scopes.iter().all(|scope| !dir(scope).exists()));
}

/// Spawns from several threads before any scope stands; says in which groups the programs were.
fn spawns_in_threads() {
    let scopes = [
        SystemdScope::new().slice("rftest.slice"),
        SystemdScope::new().slice("rftest-inner.slice"),
        SystemdScope::new().description("a third"),
    ];
    std::thread::scope(|threads| {
        for number in 0..24 {
            let sandbox = scoped().systemd_scope(scopes[number % scopes.len()].clone());
            threads.spawn(move || {
                let text = common::stdout(&sandbox.command("/bin/cat").arg("/proc/self/cgroup"));
                println!("{}", text.lines().find_map(|line| line.strip_prefix("0::")).unwrap());
            });
        }
    });
}

#[test]
fn what_holds_the_scope_is_no_child_of_the_callers() {
    let _clean = clean();
    if no_systemd() {
        return;
    }
    let any = || waitpid(None, Some(WaitPidFlag::WNOHANG));
    let (mut child, group) = waiting(&scoped());
    assert_eq!(any(), Ok(WaitStatus::StillAlive));
    let keeper = read(scope_of(&group).join("keeper").to_str().unwrap(), "cgroup.procs");
    assert_eq!(keeper.lines().count(), 1, "{keeper:?}");
    let status = fs::read_to_string(format!("/proc/{keeper}/status")).unwrap();
    assert!(status.contains("\nPPid:\t1\n") || !common::is_root(), "{status}");
    // It holds on to nothing of the caller's.
    let fds: Vec<_> = fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().flatten().map(|fd| fd.file_name()).collect();
    assert_eq!(fds.len(), 1, "{fds:?}");
    assert_eq!(fs::read_link(format!("/proc/{keeper}/cwd")).unwrap(), Path::new("/"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(any(), Err(Errno::ECHILD));
}

/// Runs a program that would survive its owner, says in which group, and waits to be killed.
fn owns_one() {
    let stubborn = scoped().die_with_owner(false).command("/bin/sleep").arg("1000").spawn().unwrap();
    let (_child, group) = waiting(&scoped());
    println!("{group} {} {}", stubborn.id(), group_of(stubborn.id()));
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_owner_leaves_a_scope_as_long_as_something_runs_in_it() {
    let _clean = clean();
    let _reaping = common::reaping();
    if no_systemd() {
        return;
    }
    let mut owner = probe::caller("owns-one").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (group, stubborn, kept) = (words[0], Pid::from_raw(words[1].parse().unwrap()), words[2]);
    owner.kill().unwrap();
    owner.wait().unwrap();
    let scope = scope_of(group);
    until("the owned program died", || !dir(group).exists() || read(group, "cgroup.events").contains("populated 0"));
    let keeper = dir(&scope).join("keeper/cgroup.procs");
    until("the scope's own process ended", || fs::read_to_string(&keeper).is_ok_and(|text| text.is_empty()));
    assert_eq!(read(kept, "cgroup.procs"), stubborn.to_string(), "what was to live on lives on");
    reap_stale().unwrap();
    assert!(!dir(group).exists() && dir(kept).exists());
    kill(stubborn, Signal::SIGKILL).unwrap();
    until("systemd removed the scope", || !dir(&scope).exists());
    reap_stale().unwrap();
    let mut show = systemctl();
    show.args(["show", scope.file_name().unwrap().to_str().unwrap(), "-p", "LoadState"]);
    assert_eq!(probe::succeeds(show), "LoadState=not-found");
}

#[test]
fn a_scope_that_was_stopped_is_made_anew() {
    let _clean = clean();
    if no_systemd() {
        return;
    }
    let (mut child, group) = waiting(&scoped());
    let scope = scope_of(&group);
    let mut stop = systemctl();
    stop.arg("stop").arg(scope.file_name().unwrap());
    probe::succeeds(stop);
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(libc::SIGTERM));
    let (mut again, group) = waiting(&scoped());
    assert_ne!(scope_of(&group), scope);
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn a_controller_that_the_users_manager_was_not_given_is_named() {
    let _clean = clean();
    if no_systemd() || common::is_root() {
        return;
    }
    let sandbox = scoped().cpuset("0").command("/bin/true");
    let error = sandbox.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let features: Vec<_> = error.problems().iter().map(|problem| problem.feature).collect();
    assert_eq!(features, [Some(Feature::Cpuset)], "{error}");
    assert!(error.to_string().contains("user@.service"), "{error}");
    assert_eq!(sandbox.spawn().unwrap_err().to_string(), error.to_string());
    let without = sandbox.best_effort(Feature::Cpuset);
    assert!(without.status().unwrap().success());
    assert!(matches!(without.check().unwrap().get(Feature::Cpuset), Some(Enforcement::Missing(_))));
}

/// Says what it is told.
fn is_without_a_bus() {
    let sandbox = scoped().command("/bin/true");
    let error = sandbox.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(sandbox.spawn().unwrap_err().to_string(), error.to_string());
    let without = sandbox.clone().best_effort(Feature::MemoryLimit).best_effort(Feature::PidsLimit);
    assert!(without.spawn().unwrap().wait().unwrap().success());
    assert!(matches!(without.check().unwrap().get(Feature::PidsLimit), Some(Enforcement::Missing(_))));
    println!("{error}");
}

#[test]
fn without_a_bus_it_says_what_it_needs() {
    let _clean = clean();
    let mut caller = probe::caller("is-without-a-bus");
    for variable in ["DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"] {
        caller.env(variable, "unix:path=/nowhere/bus");
    }
    let text = probe::succeeds(caller);
    let remedy = if common::is_root() {
        "it needs systemd and the system's message bus; without them name a group with cgroup_parent"
    } else {
        "it needs a user manager (loginctl enable-linger, or a login) with its bus, which XDG_RUNTIME_DIR or \
         DBUS_SESSION_BUS_ADDRESS names"
    };
    let about_the_bus: Vec<_> = text.lines().filter(|line| line.contains("/nowhere")).collect();
    let expected = ["memory_limit", "pids_limit"].map(|limit| {
        format!("{limit}: ask systemd for a scope /nowhere/bus: ENOENT (No such file or directory); {remedy}")
    });
    assert_eq!(about_the_bus, expected, "{text}");
}

#[test]
fn a_policy_that_names_two_places_or_no_slice_contradicts_itself() {
    let _clean = clean();
    let problems = |sandbox: Sandbox| {
        let error = sandbox.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.problems().iter().map(|problem| problem.reason.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        problems(common::sandbox().systemd_scope(SystemdScope::new()).cgroup_parent("/x")),
        ["a group cannot be below cgroup_parent and in a scope at the same time"]
    );
    for slice in ["", ".slice", "a.scope", "a/b.slice", "a b.slice", "\n.slice"] {
        let found = problems(common::sandbox().systemd_scope(SystemdScope::new().slice(slice)));
        assert_eq!(found, [format!("{slice:?} is no name of a slice")]);
    }
    let found = problems(common::sandbox().systemd_scope(SystemdScope::new().description("two\nlines")));
    assert_eq!(found, ["a description is one line of text"]);
}
