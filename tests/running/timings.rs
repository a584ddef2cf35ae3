//! Where a spawn says that its time went.

use std::time::{Duration, Instant};

use crate::common::{as_ourselves, clean, sandbox};
use ringfence::{Action, Child, Command, RootFs, Rule, Seccomp, Step, TimeOffset, Timings};

/// The timings of a spawn that took no longer than this one did.
#[track_caller]
fn timed(spawn: impl FnOnce() -> Child) -> Timings {
    let start = Instant::now();
    let mut child = spawn();
    let took = start.elapsed();
    let timings = child.timings().expect("asked for").clone();
    assert!(child.wait().unwrap().success());
    let total = timings.total();
    assert!(total <= took && took - total < Duration::from_millis(5) + took / 2, "{took:?}, of which\n{timings}");
    assert!(timings.ahead > Duration::ZERO && timings.clone > Duration::ZERO && timings.exec > Duration::ZERO);
    timings
}

fn has(timings: &Timings, step: Step) -> bool {
    timings.steps.iter().any(|(known, time)| *known == step && *time > Duration::ZERO)
}

#[test]
fn they_are_told_where_they_are_asked_for() {
    let _clean = clean();
    let mut child = sandbox().command("true").spawn().unwrap();
    assert_eq!(child.timings(), None);
    child.wait().unwrap();
    let policy = as_ourselves(sandbox().rootfs(RootFs::host()).pid_ns()).command("true").timings(true);
    let prepared = policy.prepare().unwrap();
    for timings in [timed(|| policy.spawn().unwrap()), timed(|| prepared.spawn().unwrap())] {
        assert!(has(&timings, Step::Mount) && has(&timings, Step::PivotRoot), "{timings}");
        assert!(!has(&timings, Step::Exec) && !has(&timings, Step::Seccomp), "{timings}");
        let mut steps: Vec<Step> = timings.steps.iter().map(|(step, _)| *step).collect();
        steps.dedup();
        assert_eq!(steps.len(), timings.steps.len());
        assert_eq!(timings.to_string().lines().count(), steps.len() + 4, "{timings}");
    }
    let other = prepared.with(Command::new("false")).spawn().unwrap();
    assert!(other.timings().is_some());
}

#[test]
fn an_init_a_filter_and_a_shifted_clock_change_nothing() {
    let _clean = clean();
    let year = Duration::from_secs(31_536_000);
    for policy in [
        sandbox().pid_ns().init(true),
        sandbox().seccomp(Seccomp::default()),
        // It would be killed for looking at the clock.
        sandbox().seccomp(Seccomp::deny_list().rule(Rule::new(["clock_gettime"], Action::KillProcess))),
        sandbox().time_ns().monotonic_offset(TimeOffset::Ahead(year)).boottime_offset(TimeOffset::Ahead(year)),
    ] {
        timed(|| policy.command("true").timings(true).spawn().unwrap());
    }
}
