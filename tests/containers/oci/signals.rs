//! Signals for the runtime, which are meant for the program.

use std::cell::RefCell;
use std::process::{Child, Command};

use serde_json::json;

use super::{Bundle, PATIENT};
use crate::common;

/// SIGALRM, SIGCONT, SIGPROF, SIGWINCH, SIGIO, and two realtime signals.
const SIGNALS: [i32; 7] = [14, 18, 27, 28, 29, 40, 64];
/// SIGURG, which the runtime keeps.
const KEPT: i32 = 23;

/// A program that tells each of its signals.
fn telling() -> String {
    let all = SIGNALS.map(|signal| signal.to_string()).join(" ");
    format!(
        "for s in {all} {KEPT}; do trap \"echo got $s\" $s; done; trap 'exit 7' TERM; echo ready; \
         while :; do sleep 0.1; done"
    )
}

fn signal(runtime: &Child, number: i32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{number} {}", runtime.id())]).status().unwrap();
    assert!(sent.success(), "{number}");
}

/// Sends all signals to a runtime in whose hands the program is, which writes to `out`.
fn passes_all_on(bundle: &Bundle, runtime: Child, out: &str) {
    let runtime = RefCell::new(runtime);
    let signal = |number| signal(&runtime.borrow(), number);
    let told = |line: &str| bundle.read(out).lines().any(|one| one == line);
    common::eventually("it has begun", || told("ready"));
    signal(KEPT);
    for number in SIGNALS {
        signal(number);
        common::eventually(&format!("signal {number} has come"), || {
            assert_eq!(runtime.borrow_mut().try_wait().unwrap(), None, "signal {number}");
            told(&format!("got {number}"))
        });
    }
    signal(15);
    assert_eq!(runtime.borrow_mut().wait().unwrap().code(), Some(7));
    assert!(!told(&format!("got {KEPT}")));
}

#[test]
fn a_run_passes_on_whatever_would_end_it() {
    let _clean = common::clean();
    let bundle = Bundle::new(&telling());
    passes_all_on(&bundle, bundle.command(&["run", "box"]).spawn().unwrap(), "out");
    assert!(bundle.is_empty());
}

#[test]
fn an_exec_passes_on_whatever_would_end_it() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "-d", "box"]);
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["sh", "-c", telling()]);
    let file = bundle.path("process");
    std::fs::write(&file, process.to_string()).unwrap();
    passes_all_on(
        &bundle,
        bundle.command(&["exec", "--process", file.to_str().unwrap(), "box"]).spawn().unwrap(),
        "exec-out",
    );
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn a_hook_has_no_signals_blocked() {
    let _clean = common::clean();
    let bundle = Bundle::new("grep SigBlk /proc/self/status");
    // Shells empty the mask by themselves.
    let hook = json!({"path": "/bin/cp", "args": ["cp", "/proc/self/status", bundle.path("told")]});
    let bundle = bundle.with("/hooks", json!({ "createRuntime": [hook] }));
    let none = format!("SigBlk:\t{}\n", "0".repeat(16));
    assert_eq!(bundle.does(&["run", "box"]), none);
    assert!(bundle.read("told").contains(&none), "{}", bundle.read("told"));
}

#[test]
fn a_container_that_waits_for_its_start_ends_when_it_is_asked_to() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        bundle.does(&["create", "box"]);
        bundle.does(&["kill", "box", signal]);
        bundle.becomes("stopped");
        bundle.does(&["delete", "box"]);
        assert_eq!(bundle.read("out"), "", "{signal}");
    }
    // The program itself is asked once it runs: as an init without handlers it is not ended.
    let bundle = bundle.with("/process/args", json!(["sleep", "1000"]));
    bundle.does(&["create", "box"]);
    bundle.does(&["start", "box"]);
    bundle.does(&["kill", "box", "TERM"]);
    bundle.does(&["exec", "box", "true"]);
    assert_eq!(bundle.state()["status"], "running");
}
