//! How short of a resource a sandbox is, and the trigger that says so.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::common::{self, cgroup_parent, no_cgroups};
use nix::poll::{PollFd, PollFlags, poll};
use ringfence::{Bytes, Child, ErrorKind, Limits, PressureTrigger, PsiResource, PsiThreshold, Sandbox, Stdio, Verdict};

fn limited() -> Sandbox {
    common::sandbox().cgroup_parent(cgroup_parent()).pid_ns().pids_limit(50)
}

/// Two busy programs for one processor.
fn crowded() -> Child {
    let exe = std::env::current_exe().unwrap();
    let text = format!("export RINGFENCE_PROBE='spin 60000'; {0} & {0}", exe.display());
    let sandbox = limited().cpuset("0").command("/bin/sh").args(["-c", &text]);
    sandbox.stdout(Stdio::null()).spawn().unwrap()
}

fn idle() -> Child {
    limited().command("/bin/cat").stdin(Stdio::piped()).spawn().unwrap()
}

fn stop(mut child: Child) {
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(9));
}

/// True, after checking what is said of it, where the host has no v2 group or counts no pressure.
#[track_caller]
fn no_pressure() -> bool {
    if no_cgroups() {
        return true;
    }
    let child = idle();
    let figures = [PsiResource::Cpu, PsiResource::Memory, PsiResource::Io].map(|resource| child.pressure(resource));
    let trigger = child.pressure_trigger(PsiResource::Cpu, PsiThreshold::some(MILLI * 200, MILLI * 2000));
    let errors: Vec<_> = figures.into_iter().filter_map(Result::err).chain(trigger.err()).collect();
    stop(child);
    let hybrid = fs::read_to_string("/proc/self/mounts").unwrap().lines().any(|line| line.contains(" cgroup2 "));
    let Some(error) = errors.first() else {
        assert!(hybrid);
        return false;
    };
    if hybrid && fs::exists("/proc/pressure").unwrap() && common::is_root() {
        panic!("{error}");
    }
    if !hybrid {
        assert_eq!(errors.len(), 4);
        assert!(errors.iter().all(|error| error.kind() == ErrorKind::Unsupported), "{errors:?}");
        assert!(error.to_string().contains("cgroup v1 counts no pressure; mount cgroup2"), "{error}");
    }
    common::skip(&format!("no pressure: {error}"), true);
    true
}

const MILLI: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(2);

fn trigger(child: &Child) -> PressureTrigger {
    child.pressure_trigger(PsiResource::Cpu, PsiThreshold::some(MILLI * 200, WINDOW)).unwrap()
}

#[test]
fn a_crowded_sandbox_shows_pressure_and_an_idle_one_none() {
    let _clean = common::clean();
    if no_pressure() {
        return;
    }
    let (crowded, idle) = (crowded(), idle());
    let before = Instant::now();
    let some = |child: &Child| child.pressure(PsiResource::Cpu).unwrap().some;
    while some(&crowded).avg10 < 10.0 || some(&crowded).total < MILLI * 500 {
        assert!(before.elapsed() < Duration::from_secs(60), "{:?}", some(&crowded));
        std::thread::sleep(MILLI * 100);
    }
    let resting = some(&idle);
    assert!(resting.total < some(&crowded).total / 2, "{resting:?} beside {:?}", some(&crowded));
    let memory = crowded.pressure(PsiResource::Memory).unwrap();
    assert!(memory.full.is_some_and(|full| full.total < MILLI * 200), "{memory:?}");
    stop(crowded);
    stop(idle);
}

#[test]
fn memory_that_has_to_be_reclaimed_is_pressure() {
    let _clean = common::clean();
    if no_pressure() {
        return;
    }
    let dir = common::TempDir::new();
    let file = dir.path().join("file");
    fs::write(&file, vec![7u8; 64 << 20]).unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
    let lost = |limit: Bytes| {
        let text = format!("cp {0} {0}.copy && rm {0}.copy; echo done; read line", file.display());
        let sandbox = limited().memory_limit(limit).swap_limit(0).command("/bin/sh").args(["-c", &text]);
        let mut child = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
        let lost = child.pressure(PsiResource::Memory).unwrap().some.total;
        stop(child);
        lost
    };
    let (tight, wide) = (lost(Bytes::mib(8)), lost(Bytes::gib(1)));
    assert!(tight > MILLI && tight > wide * 4, "{tight:?} within 8 MiB, {wide:?} with room");
}

#[test]
fn a_trigger_fires_under_pressure_and_not_without() {
    let _clean = common::clean();
    if no_pressure() {
        return;
    }
    let (crowded, idle) = (crowded(), idle());
    let (fires, rests) = (trigger(&crowded), trigger(&idle));
    assert!(fires.wait(Some(Duration::from_secs(30))).unwrap());
    // Once a window, and then again.
    assert!(!fires.wait(Some(Duration::ZERO)).unwrap());
    assert!(fires.wait(None).unwrap());
    // For those who poll by themselves it is POLLPRI.
    let mut fds = [PollFd::new(fires.as_fd(), PollFlags::POLLPRI)];
    assert_eq!(poll(&mut fds, 30_000u16).unwrap(), 1);
    assert_eq!(fds[0].revents(), Some(PollFlags::POLLPRI));
    assert!(!rests.wait(Some(MILLI * 300)).unwrap(), "nothing happens in there");
    stop(crowded);
    stop(idle);
}

#[test]
fn a_trigger_goes_with_its_sandbox() {
    let _clean = common::clean();
    if no_pressure() {
        return;
    }
    let child = idle();
    let trigger = trigger(&child);
    let error = std::thread::scope(|scope| {
        let waits = scope.spawn(|| trigger.wait(Some(Duration::from_secs(60))));
        std::thread::sleep(MILLI * 100);
        stop(child);
        waits.join().unwrap().unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Control);
    assert!(error.to_string().contains("has ended"), "{error}");
    assert_eq!(trigger.wait(None).unwrap_err().kind(), ErrorKind::Control);
}

#[test]
fn windows_that_the_kernel_does_not_take_are_errors() {
    let _clean = common::clean();
    if no_pressure() {
        return;
    }
    let child = idle();
    let ask = |stall, window| child.pressure_trigger(PsiResource::Io, PsiThreshold::full(stall, window));
    for (stall, window) in [(MILLI, MILLI * 499), (MILLI * 3, MILLI * 10_001), (MILLI * 2001, WINDOW)] {
        assert_eq!(ask(stall, window).unwrap_err().kind(), ErrorKind::Invalid, "{stall:?} {window:?}");
    }
    // Windows of any other length are for who has CAP_SYS_RESOURCE.
    if let Err(error) = ask(MILLI * 150, MILLI * 1000) {
        assert_eq!(error.kind(), ErrorKind::Control);
        assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
    }
    stop(child);
    let mut child = Sandbox::new().command("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
    let error = child.pressure(PsiResource::Cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Control);
    assert!(error.to_string().contains("no control group"), "{error}");
    assert!(child.update(&Limits::new().pids(5)).is_err());
    assert!(child.wait().unwrap().success());
}
