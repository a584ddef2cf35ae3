//! Two commands at one container, and commands that are ended in the middle.

use std::fs::{self, File};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::killed::marked;
use super::{Bundle, PATIENT, groups};
use crate::common;

/// Ends long after every test.
const FOREVER: &str = "PATH=/usr/bin:/bin; echo > $DIR/began; while :; do sleep 0.2; done";
/// Ends once it is told to.
const TOLD: &str =
    "PATH=/usr/bin:/bin; cat > $DIR/told; echo > $DIR/began; while ! test -e $DIR/go; do sleep 0.1; done";

impl Bundle {
    /// A hook without a timeout.
    fn patient_hook(&self, script: &str) -> Value {
        let mut hook = self.hook("hook", script);
        hook.as_object_mut().unwrap().remove("timeout");
        hook
    }

    fn spawns(&self, words: &[&str]) -> Child {
        let _ = fs::remove_file(self.path("began"));
        self.command(words).spawn().unwrap()
    }

    /// Waits for the hook of a command.
    fn began(&self) {
        common::eventually("the hook has begun", || self.path("began").exists());
    }

    /// Holds the container's lock, as a call that takes long.
    fn held(&self) -> Flock<File> {
        let dir = File::open(self.path("containers/box")).unwrap();
        Flock::lock(dir, FlockArg::LockExclusive).unwrap()
    }

    /// Starts a command, and waits until it has found the container.
    fn finds(&self, words: &[&str]) -> Child {
        let child = self.command(words).spawn().unwrap();
        let (dir, fds) = (self.path("containers/box"), format!("/proc/{}/fd", child.id()));
        let links = || fs::read_dir(&fds).into_iter().flatten().flatten();
        let has = || links().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == dir));
        common::eventually("it has opened the directory", has);
        child
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

fn state_of(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().trim().chars().take(1).collect()
}

/// `process` "is REQUIRED when start is called", says the specification, and only then.
#[test]
fn a_container_without_a_process_is_created_and_never_started() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for mut bundle in [Bundle::new("true"), Bundle::of_an_ordinary_user("true")] {
        bundle.config.as_object_mut().unwrap().remove("process");
        // No program of the root is looked for.
        bundle.config["mounts"].as_array_mut().unwrap().pop();
        bundle.does(&["create", "box"]);
        assert_eq!(bundle.state()["status"], "created");
        let pid = bundle.state()["pid"].to_string();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in ["CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{status}");
        }
        let said = bundle.fails(&["start", "box"]);
        assert!(said.contains("its configuration has no process, which a start needs"), "{said}");
        assert_eq!(bundle.state()["status"], "created");
        assert!(bundle.says(&["exec", "box", "true"]).err.contains("its configuration has no process"));
        bundle.does(&["delete", "--force", "box"]);
        assert!(bundle.fails(&["run", "box"]).contains("its configuration has no process"));
        assert!(bundle.is_empty());
    }
}

#[test]
fn a_delete_that_comes_late_leaves_the_next_container_of_the_name_alone() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    for words in [&["delete", "--force", "box"][..], &["delete", "box"], &["start", "box"]] {
        bundle.does(&["create", "box"]);
        let held = bundle.held();
        let mut late = bundle.finds(words);
        signal(&late, Signal::SIGSTOP);
        common::eventually("it stands still", || state_of(late.id()) == "T");
        drop(held);
        bundle.does(&["delete", "--force", "box"]);
        bundle.does(&["create", "box"]);
        let before = bundle.state();
        signal(&late, Signal::SIGCONT);
        assert_eq!(late.wait().unwrap().success(), words.contains(&"--force"), "{words:?}");
        assert_eq!(bundle.state(), before, "{words:?}");
        bundle.does(&["start", "box"]);
        bundle.does(&["delete", "--force", "box"]);
    }
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn several_deletes_at_once_run_the_hooks_once() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    let notes = bundle.hook("poststop", "echo >> $DIR/ran");
    let bundle = bundle.with("/hooks", json!({"poststop": [notes]}));
    bundle.does(&["create", "box"]);
    let held = bundle.held();
    let all: Vec<Child> = (0..3).map(|_| bundle.finds(&["delete", "--force", "box"])).collect();
    drop(held);
    for mut one in all {
        assert!(one.wait().unwrap().success());
    }
    assert_eq!(bundle.read("ran"), "\n");
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn a_delete_that_was_interrupted_is_repeated() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let bundle = make(PATIENT);
        let hook = bundle.patient_hook(TOLD);
        let bundle = bundle.with("/hooks", json!({"poststop": [hook]}));
        bundle.does(&["create", "box"]);
        let mut delete = bundle.spawns(&["delete", "--force", "box"]);
        bundle.began();
        assert_eq!(bundle.state()["status"], "stopped", "while the hook runs");
        delete.kill().unwrap();
        delete.wait().unwrap();
        assert_eq!(bundle.state()["status"], "stopped");
        fs::write(bundle.path("go"), "").unwrap();
        bundle.does(&["delete", "box"]);
        assert!(bundle.is_empty() && groups().is_empty());
    }
}

#[test]
fn what_was_never_made_whole_is_no_container_that_is_being_created() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    bundle.does(&["create", "box"]);
    let state = fs::read(bundle.path("containers/box/state.json")).unwrap();
    bundle.does(&["delete", "box"]);
    for file in [None, Some(&state)] {
        fs::create_dir_all(bundle.path("containers/box")).unwrap();
        if let Some(text) = file {
            fs::write(bundle.path("containers/box/state.json"), text).unwrap();
            assert_eq!(bundle.state()["status"], "stopped");
        }
        bundle.does(&["delete", "box"]);
        assert!(bundle.is_empty());
    }
}

#[test]
fn a_container_whose_record_is_garbled_is_deleted_by_force() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        for text in ["garbled", "", "ringfence-created1,boot=0\n"] {
            let bundle = make(PATIENT);
            let mark = format!("mark-{}", bundle.dir.path().display());
            let script = format!("{PATIENT} # {mark}");
            let bundle = bundle.with("/process/args", json!(["sh", "-c", script]));
            bundle.does(&["create", "box"]);
            bundle.does(&["start", "box"]);
            common::eventually("it runs", || marked(&mark) > 0);
            fs::write(bundle.path("containers/box/sandbox/record"), text).unwrap();
            bundle.does(&["delete", "--force", "box"]);
            assert!(bundle.is_empty() && groups().is_empty(), "{text:?} {:?}", groups());
            common::eventually("it has ended", || marked(&mark) == 0);
        }
    }
}

#[test]
fn a_container_of_which_nothing_can_be_read_stays_and_the_error_says_where() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["create", "box"]);
    let files = ["containers/box/sandbox/record", "containers/box/state.json"].map(|file| bundle.path(file));
    let texts = files.each_ref().map(|file| fs::read(file).unwrap());
    files.iter().for_each(|file| fs::write(file, "garbled").unwrap());
    let said = bundle.fails(&["delete", "--force", "box"]);
    assert!(said.contains("containers/box/sandbox") && said.contains("stay"), "{said}");
    files.iter().zip(texts).for_each(|(file, text)| fs::write(file, text).unwrap());
    assert_eq!(bundle.state()["status"], "created");
    bundle.does(&["delete", "--force", "box"]);
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn a_hook_without_an_end_keeps_nobody_from_ending_the_container() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        for kind in ["createRuntime", "createContainer", "startContainer"] {
            for ends in [&["kill", "box", "KILL"][..], &["delete", "--force", "box"]] {
                let bundle = make(PATIENT).with("/root/readonly", json!(false));
                let hook = bundle.patient_hook(FOREVER);
                let mut bundle = bundle.with("/hooks", json!({kind: [hook]}));
                let inside = kind == "startContainer";
                let mut waits = if inside {
                    bundle.config["hooks"][kind][0]["env"] = json!(["DIR=/"]);
                    bundle.does(&["create", "box"]);
                    bundle.spawns(&["start", "box"])
                } else {
                    bundle.spawns(&["create", "box"])
                };
                let began = if inside { bundle.root.path().join("began") } else { bundle.path("began") };
                common::eventually("the hook has begun", || began.exists());
                let start = Instant::now();
                bundle.does(ends);
                assert_eq!(waits.wait().unwrap().code(), Some(1), "{kind} {ends:?}");
                assert!(start.elapsed() < Duration::from_secs(300), "{kind} {ends:?}");
                assert!(bundle.is_empty() && groups().is_empty(), "{kind} {ends:?}");
                let _ = fs::remove_file(began);
            }
        }
    }
}

#[test]
fn a_hook_ends_with_its_children_and_with_its_command() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    let mark = format!("mark-{}", bundle.dir.path().display());
    let script = format!("PATH=/usr/bin:/bin; sh -c 'while :; do sleep 0.2; done; : {mark}' & wait");
    let mut late = bundle.hook("hook", &script);
    late["timeout"] = json!(1);
    let endless = bundle.patient_hook(&format!("{FOREVER}; : {mark}"));
    let bundle = bundle.with("/hooks", json!({"createRuntime": [late]}));
    let said = bundle.fails(&["create", "box"]);
    assert!(said.contains("it has not ended within 1 s"), "{said}");
    common::eventually("the children have ended", || marked(&mark) == 0);
    assert!(bundle.is_empty() && groups().is_empty());
    let bundle = bundle.with("/hooks", json!({"createRuntime": [endless]}));
    let mut create = bundle.spawns(&["create", "box"]);
    bundle.began();
    create.kill().unwrap();
    create.wait().unwrap();
    common::eventually("the hook has ended", || marked(&mark) == 0);
    bundle.does(&["delete", "--force", "box"]);
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn the_state_has_the_pid_while_hooks_run() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let bundle = make("true");
        let hook = bundle.hook("hook", TOLD);
        let bundle = bundle.with("/hooks", json!({"createRuntime": [hook]}));
        let mut create = bundle.spawns(&["create", "box"]);
        bundle.began();
        let told: Value = serde_json::from_str(&bundle.read("told")).unwrap();
        let state = bundle.state();
        assert_eq!((&state["status"], &state["pid"]), (&json!("creating"), &told["pid"]));
        assert!(told["pid"].as_u64().is_some_and(|pid| pid > 0), "{told}");
        fs::write(bundle.path("go"), "").unwrap();
        assert!(create.wait().unwrap().success());
        assert_eq!(bundle.state()["pid"], told["pid"]);
        bundle.does(&["delete", "box"]);
    }
}

#[test]
fn a_signal_ends_a_run_while_hooks_run() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for (kind, sent) in
        [("createRuntime", Signal::SIGTERM), ("createContainer", Signal::SIGINT), ("poststart", Signal::SIGHUP)]
    {
        let bundle = Bundle::new(PATIENT);
        let (hook, ended) = (bundle.patient_hook(FOREVER), bundle.hook("poststop", "echo >> $DIR/ended"));
        let bundle = bundle.with("/hooks", json!({kind: [hook], "poststop": [ended]}));
        let mut run = bundle.spawns(&["run", "box"]);
        bundle.began();
        signal(&run, sent);
        assert_eq!(run.wait().unwrap().code(), Some(128 + sent as i32), "{kind} {}", bundle.read("err"));
        assert_eq!(bundle.read("ended"), "\n", "{kind}");
        assert!(bundle.is_empty() && groups().is_empty(), "{kind}");
    }
}
