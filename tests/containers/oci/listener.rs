//! Filters that ask: `linux.seccomp.listenerPath`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use ringfence::Notifications;
use serde_json::{Value, json};

use super::Bundle;
use crate::common::{self, handover::receive};

/// A container whose filter asks about making directories, of an agent at the socket `agent`.
fn bundle() -> Bundle {
    let bundle = Bundle::new("mkdir /no/such/dir && echo made");
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": bundle.path("agent"),
        "listenerMetadata": "of the engine",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]
    });
    bundle.with("/linux/seccomp", filter).with("/annotations", json!({"org.example.a": "b"}))
}

/// A filter that asks about a call which the process makes that waits for its start comes with the
/// start, and any other one with the create.
#[test]
fn the_agent_gets_the_listener_and_the_state_before_the_program_runs() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for (with_create, status, calls) in
        [(true, "creating", &["mkdir", "mkdirat"][..]), (false, "created", &["mkdir", "mkdirat", "accept4"])]
    {
        let bundle = bundle().with("/linux/seccomp/syscalls/0/names", json!(calls));
        let agent = UnixListener::bind(bundle.path("agent")).unwrap();
        let (got, gets) = std::sync::mpsc::channel();
        let answering = std::thread::spawn(move || {
            let (text, listener) = receive(&agent);
            got.send(serde_json::from_str::<Value>(&text).unwrap()).unwrap();
            let notifications = Notifications::from(listener);
            let notification = notifications.recv().unwrap().unwrap();
            assert!(["mkdir", "mkdirat"].contains(&notification.syscall().unwrap()));
            notification.value(0).unwrap();
        });
        bundle.does(&["create", "box"]);
        let pid = bundle.state()["pid"].clone();
        let filters = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert_eq!(filters.contains("Seccomp_filters:\t1\n"), with_create, "{filters}");
        let told = if with_create { Some(gets.recv().unwrap()) } else { None };
        assert!(gets.try_recv().is_err());
        bundle.does(&["start", "box"]);
        bundle.becomes("stopped");
        answering.join().unwrap();
        let told = told.unwrap_or_else(|| gets.recv().unwrap());
        assert_eq!((&told["ociVersion"], &told["fds"]), (&json!("1.3.0"), &json!(["seccompFd"])));
        assert_eq!((&told["pid"], &told["metadata"]), (&pid, &json!("of the engine")));
        let state = &told["state"];
        assert_eq!((&state["id"], &state["pid"], &state["status"]), (&json!("box"), &pid, &json!(status)));
        let (bundle_dir, annotation) = (&state["bundle"], &state["annotations"]["org.example.a"]);
        assert_eq!((bundle_dir, annotation), (&json!(bundle.dir.path()), &json!("b")));
        bundle.does(&["delete", "box"]);
    }
}

#[test]
fn a_container_that_waits_under_its_filter_is_ended_by_a_signal() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = bundle();
    let agent = UnixListener::bind(bundle.path("agent")).unwrap();
    bundle.does(&["create", "box"]);
    let _listener = receive(&agent).1;
    bundle.does(&["kill", "box", "TERM"]);
    bundle.becomes("stopped");
    bundle.does(&["delete", "box"]);
}

#[test]
fn a_hook_may_start_the_agent() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = bundle();
    let agent = UnixListener::bind(bundle.path("not-yet")).unwrap();
    let script = format!("mv {} {}", bundle.path("not-yet").display(), bundle.path("agent").display());
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
    let bundle = bundle.with("/hooks", json!({ "createRuntime": [hook] }));
    let answering = std::thread::spawn(move || answer(receive(&agent).1));
    assert_eq!(bundle.does(&["run", "box"]), "made\n");
    answering.join().unwrap();
    assert!(bundle.is_empty());
}

#[test]
fn a_filter_that_asks_about_write_is_refused_as_by_other_runtimes() {
    let _clean = common::clean();
    for names in [json!(["write"]), json!(["mkdir", "write"])] {
        let bundle = bundle();
        let rules = json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]);
        let said = bundle.with("/linux/seccomp/syscalls", rules).fails(&["create", "box"]);
        assert!(said.contains("SCMP_ACT_NOTIFY cannot be used for the write syscall"), "{said}");
        assert!(said.contains("linux.seccomp.syscalls: "), "{said}");
    }
}

#[test]
fn a_run_has_the_answers_of_the_agent() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = bundle();
    let agent = UnixListener::bind(bundle.path("agent")).unwrap();
    let answering = std::thread::spawn(move || {
        let notifications = Notifications::from(receive(&agent).1);
        notifications.recv().unwrap().unwrap().value(0).unwrap();
    });
    assert_eq!(bundle.does(&["run", "box"]), "made\n");
    answering.join().unwrap();
    assert!(bundle.is_empty());
}

#[test]
fn a_container_without_its_agent_does_not_run() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let words = "failed to connect with seccomp agent";
    let bundle = bundle();
    for verb in ["create", "run"] {
        let said = bundle.fails(&[verb, "box"]);
        assert!(said.contains(bundle.path("agent").to_str().unwrap()) && said.contains("No such file"), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(bundle.is_empty() && super::groups().is_empty());
    }
    // Where the start brings the listener.
    let bundle = bundle.with("/linux/seccomp/syscalls/0/names", json!(["mkdir", "accept4"]));
    bundle.does(&["create", "box"]);
    let said = bundle.fails(&["start", "box"]);
    assert!(said.contains("No such file") && said.contains(words), "{said}");
    bundle.becomes("stopped");
    bundle.does(&["delete", "box"]);
    let said = bundle.fails(&["run", "box"]);
    assert!(said.contains("No such file"), "{said}");
    assert!(bundle.is_empty() && super::groups().is_empty());
    // What nobody could be asked about, or nobody would be told.
    let bundle = bundle.with("/linux/seccomp/listenerPath", json!("agent"));
    assert!(bundle.fails(&["create", "box"]).contains("linux.seccomp.listenerPath: it is not absolute"));
    let bundle = bundle.with("/linux/seccomp/listenerPath", json!(""));
    let said = bundle.fails(&["create", "box"]);
    assert!(said.contains("linux.seccomp.listenerPath: it is missing"), "{said}");
    assert!(said.contains("linux.seccomp.listenerMetadata: "), "{said}");
    // A path that is not needed is passed over, as other runtimes do it.
    let bundle = bundle.with("/linux/seccomp/listenerPath", json!("/no/agent"));
    let bundle = bundle.with("/linux/seccomp/syscalls/0/action", json!("SCMP_ACT_ALLOW"));
    let bundle = bundle.with("/process/args", json!(["true"]));
    bundle.does(&["run", "box"]);
    assert!(bundle.is_empty());
}

/// Answers a filter to its end: a directory is said to be made, and any other call goes on.
fn answer(listener: OwnedFd) {
    for notification in Notifications::from(listener).iter().map_while(Result::ok) {
        let makes = notification.syscall().is_some_and(|name| name.starts_with("mkdir"));
        let _ = if makes { notification.value(0) } else { notification.proceed() };
    }
}

#[test]
fn a_further_program_has_the_answers_of_the_agent_as_well() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    // The filter asks about the exec itself, too.
    let bundle = bundle()
        .with("/process/args", json!(["sleep", "1000"]))
        .with("/linux/seccomp/syscalls/0/names", json!(["mkdir", "mkdirat", "execve"]));
    let agent = UnixListener::bind(bundle.path("agent")).unwrap();
    let answering = std::thread::spawn(move || {
        let one = |_| {
            let (text, listener) = receive(&agent);
            (serde_json::from_str::<Value>(&text).unwrap(), std::thread::spawn(|| answer(listener)))
        };
        (0..3).map(one).collect::<Vec<_>>()
    });
    bundle.does(&["run", "-d", "box"]);
    let pid = bundle.state()["pid"].clone();
    bundle.does(&["exec", "box", "mkdir", "/no/such/dir"]);
    let pid_file = bundle.path("pid");
    bundle.does(&["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), "box", "mkdir", "/no/such/dir"]);
    let (told, answers): (Vec<_>, Vec<_>) = answering.join().unwrap().into_iter().unzip();
    for further in &told[1..] {
        assert_eq!((&further["fds"], &further["metadata"]), (&json!(["seccompFd"]), &json!("of the engine")));
        let state = &further["state"];
        assert_eq!((&state["id"], &state["pid"], &state["status"]), (&json!("box"), &pid, &json!("running")));
        assert_ne!(further["pid"], pid);
    }
    assert_eq!(told[2]["pid"].to_string(), bundle.read("pid"));
    // The agent is gone: nothing runs that nobody could be asked about.
    let said = bundle.says(&["exec", "box", "touch", "/dev/shm/ran"]);
    assert_eq!(said.status.code(), Some(255), "{said:?}");
    assert!(said.err.contains(bundle.path("agent").to_str().unwrap()), "{said:?}");
    assert!(!Path::new(&format!("/proc/{pid}/root/dev/shm/ran")).exists());
    bundle.does(&["delete", "--force", "box"]);
    answers.into_iter().for_each(|one| one.join().unwrap());
    assert!(bundle.is_empty() && super::groups().is_empty());
}

#[test]
fn a_hook_under_the_filter_has_the_answers_of_the_agent_as_well() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "mkdir /no/such/dir"],
        "env": ["PATH=/usr/bin:/bin"], "timeout": 60});
    let bundle = bundle().with("/hooks", json!({ "startContainer": [hook] }));
    let agent = UnixListener::bind(bundle.path("agent")).unwrap();
    let answering = std::thread::spawn(move || {
        let one = |_| {
            let (text, listener) = receive(&agent);
            (serde_json::from_str::<Value>(&text).unwrap(), std::thread::spawn(|| answer(listener)))
        };
        (0..2).map(one).collect::<Vec<_>>()
    });
    bundle.does(&["create", "box"]);
    let pid = bundle.state()["pid"].clone();
    bundle.does(&["start", "box"]);
    let (told, answers): (Vec<_>, Vec<_>) = answering.join().unwrap().into_iter().unzip();
    assert!(told.iter().all(|one| one["state"]["pid"] == pid), "{told:?}");
    assert_eq!((&told[0]["state"]["status"], &told[1]["state"]["status"]), (&json!("creating"), &json!("created")));
    assert!(told[0]["pid"] == pid && told[1]["pid"] != pid, "{told:?}");
    bundle.becomes("stopped");
    bundle.does(&["delete", "box"]);
    answers.into_iter().for_each(|one| one.join().unwrap());
    assert!(bundle.is_empty() && super::groups().is_empty());
}
