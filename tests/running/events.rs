//! What happens to a sandbox while it runs is told, also what its program does not tell.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::common::{self, no_cgroups, shell};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence::{Bytes, Child, Command, Event, Events, PsiResource, PsiThreshold, Sandbox, Stdio};

/// The longest time that an event may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn limited() -> Sandbox {
    common::sandbox().cgroup_parent(common::cgroup_parent()).pid_ns().pids_limit(20)
}

fn next(events: &mut Events) -> Event {
    events.next(Some(PATIENCE)).unwrap().expect("no event after a minute")
}

/// The descriptor wakes, before anybody has looked.
fn wakes(events: &Events) {
    let ready = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], PollTimeout::from(60_000u16));
    assert_eq!(ready, Ok(1), "nothing woke");
}

/// The next event of a sort that the test is about: a memory limit is reached now and then before memory runs out.
fn next_but_reclaim(events: &mut Events) -> Event {
    loop {
        match next(events) {
            Event::MemoryLimit { .. } | Event::MemoryHigh { .. } => {}
            event => return event,
        }
    }
}

/// A shell that does what it reads, and says so.
fn obedient(sandbox: Sandbox) -> (Child, impl FnMut(&mut Child, &str)) {
    let text = "echo up; while read line; do eval \"$line\"; echo done; done";
    let mut child = shell(sandbox, text).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(answers.next().unwrap().unwrap(), "up");
    let order = move |child: &mut Child, line: &str| {
        writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), "done");
    };
    (child, order)
}

#[test]
fn memory_that_runs_out_is_told_while_the_program_lives_on() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let (mut child, mut order) = obedient(limited().memory_limit(Bytes::mib(32)).swap_limit(0));
    let mut events = child.events().unwrap();
    assert_eq!(events.next(Some(Duration::from_millis(1))).unwrap(), None);
    let hog = format!("RINGFENCE_PROBE='hog 200000000' {} >/dev/null 2>&1 &\nwait $!", exe.display());
    let hog = hog.replace('\n', " ");
    order(&mut child, &hog);
    wakes(&events);
    assert_eq!(next_but_reclaim(&mut events), Event::OutOfMemory { kills: 1 });
    // Twice between two looks is one event, which says so.
    order(&mut child, &hog);
    order(&mut child, &hog);
    loop {
        match next_but_reclaim(&mut events) {
            Event::OutOfMemory { kills: 2 } => {}
            event => break assert_eq!(event, Event::OutOfMemory { kills: 3 }),
        }
    }
    // Who comes late is told what happened before.
    assert_eq!(next_but_reclaim(&mut child.events().unwrap()), Event::OutOfMemory { kills: 3 });
    drop(child.stdin.take());
    assert_eq!(next_but_reclaim(&mut events), Event::Exited);
    assert!(events.has_ended());
    assert_eq!(events.next(None).unwrap(), None);
    let outcome = child.wait().unwrap();
    assert!(outcome.success() && outcome.ran_out_of_memory(), "{outcome:?}");
    assert!(!common::sh("true").status().unwrap().ran_out_of_memory());
}

#[test]
fn what_was_counted_last_is_told_after_the_group_is_gone() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let text = format!("RINGFENCE_PROBE='hog 200000000' {} >/dev/null 2>&1 & wait $!; exit 0", exe.display());
    let sandbox = limited().memory_limit(Bytes::mib(32)).swap_limit(0);
    let mut child = shell(sandbox, &format!("read line; {text}")).stdin(Stdio::piped()).spawn().unwrap();
    let mut events = child.events().unwrap();
    let outcome = child.wait().unwrap();
    assert!(outcome.ran_out_of_memory());
    assert_eq!(next_but_reclaim(&mut events), Event::OutOfMemory { kills: 1 });
    assert_eq!(next(&mut events), Event::Exited);
}

#[test]
fn forks_that_fail_at_the_limit_are_told() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let (mut child, mut order) = obedient(limited());
    let mut events = child.events().unwrap();
    order(&mut child, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done 2>/dev/null");
    assert_eq!(events.next(Some(Duration::from_millis(200))).unwrap(), None, "these are below the limit");
    order(&mut child, "(for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done) 2>/dev/null");
    wakes(&events);
    let Event::PidsLimit { hits } = next(&mut events) else { panic!("no failure was told") };
    assert!(hits >= 1);
    assert_eq!(child.stats().unwrap().pids_limit_hits, Some(hits));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn freezing_programs_and_the_end_are_told() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let mut child = limited().command("sleep").arg("1000").spawn().unwrap();
    let mut events = child.events().unwrap();
    child.freeze().unwrap();
    wakes(&events);
    assert_eq!(next(&mut events), Event::Frozen);
    child.thaw().unwrap();
    assert_eq!(next(&mut events), Event::Thawed);
    assert!(child.exec_output("true").unwrap().outcome.success());
    assert!(child.exec_output("true").unwrap().outcome.success());
    assert_eq!(next(&mut events), Event::Exec { count: 2 });
    assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), None);
    child.kill().unwrap();
    assert_eq!(next(&mut events), Event::Exited);
    child.wait().unwrap();
}

#[test]
fn the_descriptor_wakes_for_what_is_to_be_told_and_is_silent_else() {
    let _clean = common::clean();
    let mut child = common::sandbox().pid_ns().command("sleep").arg("1000").spawn().unwrap();
    let mut all: Vec<Events> = (0..3).map(|_| child.events().unwrap()).collect();
    let wakes = |events: &Events, wait: PollTimeout| {
        poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], wait).unwrap() == 1
    };
    assert!(!all.iter().any(|events| wakes(events, PollTimeout::from(50u8))));
    drop(child.exec("true").unwrap());
    for events in &mut all {
        assert!(wakes(events, PollTimeout::from(60_000u16)));
        assert_eq!(events.next(Some(Duration::ZERO)).unwrap(), Some(Event::Exec { count: 1 }));
        assert!(!wakes(events, PollTimeout::ZERO));
    }
    child.kill().unwrap();
    for events in &mut all {
        assert!(wakes(events, PollTimeout::from(60_000u16)));
        assert_eq!(next(events), Event::Exited);
        assert!(!wakes(events, PollTimeout::ZERO), "the end is told once");
    }
    child.wait().unwrap();
    assert_eq!(next(&mut child.events().unwrap()), Event::Exec { count: 1 });
}

#[test]
fn pressure_is_told_when_a_resource_is_short() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let text = format!("export RINGFENCE_PROBE='spin 60000'; {0} & {0}", exe.display());
    let mut child = shell(limited().cpuset("0"), &text).stdout(Stdio::null()).spawn().unwrap();
    let mut events = child.events().unwrap();
    let threshold = PsiThreshold::some(Duration::from_millis(200), Duration::from_secs(2));
    match events.watch_pressure(PsiResource::Cpu, threshold) {
        Ok(()) => {
            // Who polls the descriptor takes the trigger's edge, and loses nothing by that.
            let wakes = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], PollTimeout::from(60_000u16));
            assert_eq!(wakes, Ok(1));
            let Event::Pressure { resource, lost } = next(&mut events) else { panic!("no pressure") };
            assert!(resource == PsiResource::Cpu && lost >= Duration::from_millis(200), "{lost:?}");
        }
        Err(error) => common::skip(&format!("no pressure: {error}"), true),
    }
    child.kill().unwrap();
    while next(&mut events) != Event::Exited {}
    child.wait().unwrap();
}

#[test]
fn many_streams_need_no_thread() {
    let _clean = common::clean();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let mut child = common::sandbox().pid_ns().command("sleep").arg("1000").spawn().unwrap();
    let before = threads();
    let streams: Vec<Events> = (0..50).map(|_| child.events().unwrap()).collect();
    assert!(threads() <= before);
    drop(streams);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_sandbox_without_a_group_tells_of_programs_and_the_end() {
    let _clean = common::clean();
    let mut child = common::sandbox().pid_ns().command("cat").stdin(Stdio::piped()).spawn().unwrap();
    let mut events = child.events().unwrap();
    assert!(child.exec_output(Command::new("true")).unwrap().outcome.success());
    assert_eq!(next(&mut events), Event::Exec { count: 1 });
    let threshold = PsiThreshold::some(Duration::from_millis(200), Duration::from_secs(2));
    let error = events.watch_pressure(PsiResource::Memory, threshold).unwrap_err();
    assert!(error.to_string().contains("no control group"), "{error}");
    drop(child.stdin.take());
    assert_eq!(next(&mut events), Event::Exited);
    assert!(child.wait().unwrap().success());
}

#[cfg(feature = "tokio")]
#[test]
fn events_come_to_tasks() {
    let _clean = common::clean();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cat = common::sandbox().pid_ns().command("cat").stdin(Stdio::piped()).spawn_async().await;
        let mut child = cat.unwrap();
        let mut events = child.events().unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(20), events.next()).await;
        assert!(given_up.is_err());
        child.exec_output("true").await.unwrap();
        assert_eq!(events.next().await.unwrap(), Some(Event::Exec { count: 1 }));
        let ends = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(child.stdin.take());
        };
        let (told, ()) = tokio::join!(events.next(), ends);
        assert_eq!(told.unwrap(), Some(Event::Exited));
        assert_eq!(events.next().await.unwrap(), None);
        assert!(child.wait().await.unwrap().success());
    });
    drop(runtime);
}
