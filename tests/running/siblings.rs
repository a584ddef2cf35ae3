//! The siblings of a further program are children of this process, which does not know of them, and the pid namespace
//! ends only when they are reaped: pid_namespaces(7). They hold up no sandbox, and no other child is taken for one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common;
use ringfence::{Attached, Child, Command, Namespaces, Sandbox, Seccomp, Stdio};

/// Longer than any look takes to come, and shorter than a test may hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sandbox on the caller's root, with a pid namespace, where CLONE_PARENT is not refused.
fn sleeping(sandbox: &Sandbox) -> Child {
    let sandbox = sandbox.clone().command("sleep").arg("1000").stdin(Stdio::null());
    sandbox.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn open_sandboxes() -> Vec<(&'static str, Sandbox)> {
    let base = || common::sandbox().pid_ns();
    vec![
        ("without a filter", base()),
        ("with an init", base().init(true)),
        ("with clone allowed", base().seccomp(Seccomp::default().allow(["clone"]))),
        ("with new privileges", base().seccomp(Seccomp::default().allow_new_privs(true))),
    ]
}

/// The program that makes a sibling.
fn maker(what: &str) -> Command {
    Command::new(std::env::current_exe().unwrap()).env("RINGFENCE_PROBE", what).stdout(Stdio::piped())
}

fn said(further: Child) -> String {
    String::from_utf8(further.wait_with_output().unwrap().stdout).unwrap()
}

/// The children of this process that are in another pid namespace, without the first ones of theirs.
fn strangers() -> BTreeSet<i32> {
    let of_thread = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let all: String = fs::read_dir("/proc/self/task").unwrap().flatten().map(of_thread).collect();
    let is_strange = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        pids.split_whitespace().count() > 1 && !pids.ends_with("\t1")
    };
    all.split_whitespace().map(|pid| pid.parse().unwrap()).filter(is_strange).collect()
}

fn ends(mut child: Child, what: &str) {
    let begun = Instant::now();
    child.kill().unwrap();
    assert!(child.wait_timeout(PATIENCE).unwrap().is_some(), "{what}: the sandbox does not end");
    assert!(begun.elapsed() < PATIENCE / 2, "{what}: {:?}", begun.elapsed());
}

#[test]
fn the_default_filter_lets_nobody_make_one() {
    let _clean = common::clean();
    for sandbox in [common::sandbox().pid_ns(), common::sandbox().pid_ns().init(true)] {
        let child = sleeping(&sandbox.seccomp(Seccomp::default()));
        assert_eq!(said(child.exec(maker("sibling")).unwrap()), "EINVAL\n");
        ends(child, "the default filter");
    }
}

#[test]
fn one_that_has_ended_holds_up_no_end() {
    let _clean = common::clean();
    for (name, sandbox) in open_sandboxes() {
        let child = sleeping(&sandbox);
        for _ in 0..5 {
            assert_eq!(said(child.exec(maker("sibling")).unwrap()), "made\n", "{name}: the attack itself works");
        }
        ends(child, name);
        assert_eq!(strangers(), BTreeSet::new(), "{name}");
    }
}

/// The kernel shows a process's name as the process has set it, whatever its bytes.
#[test]
fn one_whose_name_is_no_text_holds_up_no_end() {
    let _clean = common::clean();
    for (name, sandbox) in open_sandboxes() {
        let child = sleeping(&sandbox);
        assert_eq!(said(child.exec(maker("misnamed-sibling")).unwrap()), "made\n", "{name}: the attack itself works");
        ends(child, name);
        assert_eq!(strangers(), BTreeSet::new(), "{name}");
    }
}

#[test]
fn one_that_outlives_its_program_holds_up_no_end() {
    let _clean = common::clean();
    for (name, sandbox) in open_sandboxes() {
        let child = sleeping(&sandbox);
        assert_eq!(said(child.exec(maker("living-sibling")).unwrap()), "made\n", "{name}");
        thread::sleep(Duration::from_millis(300));
        assert_eq!(strangers().len(), 1, "{name}: it lives, and is left alone");
        ends(child, name);
        assert_eq!(strangers(), BTreeSet::new(), "{name}");
    }
}

#[test]
fn those_of_every_way_in_are_reaped() {
    let _clean = common::clean();
    let sandbox = common::sandbox().pid_ns();
    let child = sleeping(&sandbox);
    let attached = Attached::open(&child.ticket().unwrap()).unwrap();
    assert_eq!(said(attached.exec(maker("sibling")).unwrap()), "made\n");
    assert_eq!(said(attached.exec(maker("living-sibling")).unwrap()), "made\n");
    ends(child, "attached");
    if !common::needs_root("a pid namespace that belongs to nobody else") {
        let child = sleeping(&sandbox);
        let joined = common::sandbox().join_pid(Namespaces::PID, child.id());
        let output = common::probe::run(joined, "living-sibling").stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(said(output), "made\n");
        ends(child, "joined");
    }
    assert_eq!(strangers(), BTreeSet::new());
}

#[test]
fn a_created_sandbox_is_removed_all_the_same() {
    let _clean = common::clean();
    let base = common::TempDir::new();
    let sandbox = common::sandbox().pid_ns().command("sleep").arg("1000").stdin(Stdio::null());
    let created = sandbox.stdout(Stdio::null()).stderr(Stdio::null()).create(base.path().join("box")).unwrap();
    created.start().unwrap();
    let attached = created.attached().unwrap();
    for what in ["sibling", "living-sibling"] {
        assert_eq!(said(attached.exec(maker(what)).unwrap()), "made\n");
    }
    let begun = Instant::now();
    created.remove().unwrap();
    assert!(!attached.is_running());
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    assert_eq!(strangers(), BTreeSet::new());
}

/// The sandbox itself is not asked to end here: its end by other hands is as good.
#[test]
fn a_sandbox_that_ends_by_itself_is_not_held_up() {
    let _clean = common::clean();
    let sandbox = common::sandbox().pid_ns().command("sleep").arg("1").stdout(Stdio::null());
    let mut child = sandbox.spawn().unwrap();
    assert_eq!(said(child.exec(maker("living-sibling")).unwrap()), "made\n");
    assert!(child.wait_timeout(PATIENCE).unwrap().unwrap().success());
}

/// A child that the caller itself has put into the namespace is a child of another thread.
#[test]
fn a_child_of_the_callers_own_in_the_namespace_is_left_to_the_caller() {
    if common::needs_root("setns(2) into a pid namespace") {
        return;
    }
    let _clean = common::clean();
    let mut child = sleeping(&common::sandbox().pid_ns());
    let namespace = File::open(format!("/proc/{}/ns/pid", child.id())).unwrap();
    let mut own = thread::scope(|scope| {
        let enter = || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
            let own = process::Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
            assert_eq!(strangers(), BTreeSet::from([own.id() as i32]), "it looks like a sibling");
            assert_eq!(said(child.exec(maker("sibling")).unwrap()), "made\n");
            // Looks come, and take the sibling away.
            let until = Instant::now() + PATIENCE;
            while strangers().len() > 1 && Instant::now() < until {
                thread::sleep(Duration::from_millis(20));
            }
            thread::sleep(Duration::from_millis(300));
            own
        };
        scope.spawn(enter).join().unwrap()
    });
    child.kill().unwrap();
    let held = child.wait_timeout(Duration::from_secs(1)).unwrap();
    assert_eq!(held, None, "the caller's own zombie holds the namespace");
    assert_eq!(own.wait().unwrap().code(), Some(7));
    assert!(child.wait_timeout(PATIENCE).unwrap().is_some());
}

/// Until its handle waits, a program that has ended is a child like a sibling: the first of a namespace, or one that has
/// joined it.
#[test]
fn a_program_that_nobody_has_waited_for_yet_is_left_to_its_handle() {
    let _clean = common::clean();
    let child = sleeping(&common::sandbox().pid_ns());
    let mut others = vec![common::sandbox().pid_ns()];
    if !common::needs_root("a pid namespace that belongs to nobody else") {
        others.push(common::sandbox().join_pid(Namespaces::PID, child.id()));
    }
    let spawn = |sandbox: Sandbox| sandbox.command("/bin/sh").args(["-c", "exit 7"]).stdin(Stdio::null()).spawn();
    let others: Vec<Child> = others.into_iter().map(|sandbox| spawn(sandbox).unwrap()).collect();
    for _ in 0..3 {
        assert_eq!(said(child.exec(maker("sibling")).unwrap()), "made\n");
        thread::sleep(Duration::from_millis(300));
    }
    for mut other in others {
        // Since 6.15 the kernel tells a status also after another wait has taken it.
        let status = fs::read_to_string(format!("/proc/{}/status", other.id())).unwrap_or_default();
        assert!(status.contains("State:\tZ"), "it was reaped: {status}");
        assert_eq!(other.wait().unwrap().code(), Some(7));
    }
    ends(child, "the namespace");
    assert_eq!(strangers(), BTreeSet::new());
}

/// Further programs that come and go while siblings are looked for keep their status.
#[test]
fn no_further_program_is_taken_for_one() {
    let _clean = common::clean();
    let child = sleeping(&common::sandbox().pid_ns());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(said(child.exec(maker("sibling")).unwrap()), "made\n");
            }
        });
        // An emulated machine does as many as it can in a while.
        let until = Instant::now() + Duration::from_secs(4);
        for _ in (0..400).take_while(|_| Instant::now() < until) {
            let exits = Command::new("/bin/sh").args(["-c", "exit 7"]).stdin(Stdio::null());
            let mut further = child.exec(exits.stdout(Stdio::null())).unwrap();
            assert_eq!(further.wait().unwrap().code(), Some(7));
        }
        done.store(true, Ordering::Relaxed);
    });
    ends(child, "many");
    assert_eq!(strangers(), BTreeSet::new());
}
