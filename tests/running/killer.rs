//! Kills from other threads than the one that waits.

use std::io::{BufRead, BufReader};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::common;
use crate::sorts;
use ringfence::{Child, ErrorKind, Killer, Sandbox, Stdio, Verdict};

/// Starts a program that ignores what can be ignored, and waits until it does.
fn started(sandbox: &Sandbox) -> Child {
    let script = "trap '' TERM INT HUP; echo ready; while :; do sleep 1000; done";
    let mut child = common::shell(sandbox.clone(), script).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

#[test]
fn a_killer_ends_what_another_thread_waits_for() {
    let _clean = common::clean();
    let waits: [fn(Child) -> Verdict; 3] = [
        |mut child| child.wait().unwrap().verdict(),
        |child| child.wait_with_output().unwrap().outcome.verdict(),
        |mut child| child.wait_timeout(Duration::from_secs(60)).unwrap().unwrap().verdict(),
    ];
    for (what, sandbox) in sorts().into_iter().skip(1) {
        for wait in waits {
            let child = started(&sandbox);
            let killer = child.killer();
            let start = Instant::now();
            thread::scope(|scope| {
                let waiter = scope.spawn(move || wait(child));
                thread::sleep(Duration::from_millis(20));
                assert!(!waiter.is_finished(), "{what}: it ended by itself");
                killer.kill().unwrap();
                assert_eq!(waiter.join().unwrap(), Verdict::Killed, "{what}");
            });
            assert!(start.elapsed() < Duration::from_secs(10), "{what}: {:?}", start.elapsed());
        }
    }
}

/// Without a namespace, a group or a limit, the program itself is what can be killed.
#[test]
fn a_plain_program_is_killed_too() {
    let _clean = common::clean();
    let child = common::sandbox().command("/bin/sleep").arg("1000").spawn().unwrap();
    let killer = child.killer();
    let waiter = thread::spawn(move || child.wait_with_output().unwrap());
    killer.kill().unwrap();
    let outcome = waiter.join().unwrap().outcome;
    assert_eq!((outcome.verdict(), outcome.code()), (Verdict::Killed, None));
    assert_eq!(outcome.verdict().to_string(), "killed by the caller");
}

#[test]
fn a_program_that_ended_before_keeps_its_own_verdict() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let ends = [("exit 7", Verdict::Exited(7)), ("exit 0", Verdict::Exited(0))];
        for (script, verdict) in ends {
            let mut child = common::shell(sandbox.clone(), script).spawn().unwrap();
            let pidfd = child.pidfd().unwrap();
            let mut fds = [nix::poll::PollFd::new(pidfd, nix::poll::PollFlags::POLLIN)];
            assert_eq!(nix::poll::poll(&mut fds, 10_000u16).unwrap(), 1, "{what}");
            let killer = child.killer();
            killer.kill().unwrap();
            let outcome = child.wait().unwrap();
            assert_eq!(outcome.verdict(), verdict, "{what}");
            killer.kill().unwrap();
            assert_eq!(child.wait().unwrap(), outcome, "{what}: a kill after the wait");
        }
    }
    // A crash is not a cancelled run, not even one by SIGKILL.
    let mut child = common::sh("kill -KILL $$").spawn().unwrap();
    thread::sleep(Duration::from_millis(200));
    child.killer().kill().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(libc::SIGKILL));
    // Nor is what Child::kill ends.
    let mut child = started(&common::sandbox().pid_ns());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(libc::SIGKILL));
}

#[test]
fn a_limit_that_came_first_is_the_verdict() {
    let _clean = common::clean();
    let mut child = common::sh("exec sleep 1000").wall_time(Duration::from_millis(30)).spawn().unwrap();
    let killer = child.killer();
    thread::sleep(Duration::from_millis(300));
    killer.kill().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::WallTime);
}

#[test]
fn eight_threads_kill_at_once() {
    let _clean = common::clean();
    for (what, sandbox) in sorts().into_iter().skip(1) {
        for _ in 0..10 {
            let mut child = started(&sandbox);
            let (killer, together) = (child.killer(), Barrier::new(9));
            let outcome = thread::scope(|scope| {
                for _ in 0..8 {
                    let killer = killer.clone();
                    let together = &together;
                    scope.spawn(move || {
                        together.wait();
                        killer.kill().unwrap();
                    });
                }
                together.wait();
                child.wait().unwrap()
            });
            assert_eq!(outcome.verdict(), Verdict::Killed, "{what}");
        }
    }
}

#[test]
fn a_killer_outlives_the_child_and_holds_nothing() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let _clean = common::clean();
    let killers: Vec<Killer> = sorts()
        .iter()
        .flat_map(|(_, sandbox)| {
            let dropped = sandbox.clone().command("/bin/sleep").arg("1000").spawn().unwrap();
            let mut waited = sandbox.clone().command("/bin/true").spawn().unwrap();
            waited.wait().unwrap();
            [dropped.killer(), waited.killer()]
        })
        .collect();
    for killer in &killers {
        is_shared(killer);
        killer.kill().unwrap();
    }
    // `_clean` looks for leaks while the killers live on.
    drop(_clean);
    for killer in killers {
        killer.kill().unwrap();
    }
}

#[test]
fn a_frozen_sandbox_is_killed() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let limited = common::sandbox().cgroup_parent(common::cgroup_parent()).pids_limit(50);
    for sandbox in [limited.clone(), limited.pid_ns(), common::sandbox().pid_ns().init(true)] {
        let child = started(&sandbox);
        if child.freeze().is_err() {
            continue; // it has no group
        }
        let killer = child.killer();
        let waiter = thread::spawn(move || child.wait_with_output().unwrap());
        killer.kill().unwrap();
        assert_eq!(waiter.join().unwrap().outcome.verdict(), Verdict::Killed);
    }
}

#[test]
fn a_detached_program_can_still_be_killed() {
    let _clean = common::clean();
    let mut child = started(&common::sandbox().pid_ns());
    let (killer, mut stdout) = (child.killer(), child.stdout.take().unwrap());
    child.detach().unwrap();
    killer.kill().unwrap();
    assert_eq!(std::io::Read::read(&mut stdout, &mut [0; 8]).unwrap(), 0, "it still writes");
}

#[test]
fn a_further_program_is_killed_alone() {
    let _clean = common::clean();
    let mut child = started(&common::sandbox().pid_ns());
    match child.exec(ringfence::Command::new("/bin/sleep").arg("1000")) {
        Ok(mut further) => {
            further.killer().kill().unwrap();
            assert_eq!(further.wait().unwrap().verdict(), Verdict::Killed);
            assert!(child.try_wait().unwrap().is_none(), "the sandbox goes on");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            common::skip(&error.to_string(), true);
        }
    }
    child.killer().kill().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
}

#[test]
fn a_killer_has_no_power_in_a_fork() {
    let _clean = common::clean();
    let mut child = started(&common::sandbox().pid_ns());
    let killer = child.killer();
    // SAFETY: the fork makes one call and exits.
    let fork = match unsafe { libc::fork() } {
        0 => {
            let refused = killer.kill().is_err_and(|error| error.kind() == ErrorKind::Control);
            // SAFETY: ends the fork without the destructors of the parent.
            unsafe { libc::_exit(i32::from(!refused)) }
        }
        pid => nix::unistd::Pid::from_raw(pid),
    };
    let status = nix::sys::wait::waitpid(fork, None).unwrap();
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(fork, 0), "the kill was not refused");
    assert!(child.try_wait().unwrap().is_none(), "the fork ended it");
    killer.kill().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
}
