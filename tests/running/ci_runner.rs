//! The example `ci-runner`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{self, TempDir, probe};

#[path = "../../examples/ci-runner.rs"]
mod example;

common::callers! {
    |words|
    "ci-runner" => std::process::exit(example::run(Path::new(words[1]), Path::new(words[2]))),
}

/// A tree that the steps may write to, and a file of steps beside it.
fn tree(steps: &str) -> (TempDir, String) {
    let dir = TempDir::new();
    let (tree, file) = (dir.path().join("tree"), dir.path().join("steps"));
    fs::create_dir(&tree).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&file, steps).unwrap();
    if common::is_root() {
        chown(&tree, Some(1234), Some(4321)).unwrap();
    }
    let caller = format!("ci-runner {} {}", file.display(), tree.display());
    (dir, caller)
}

/// What a run prints, without the time and memory of each step, and its exit code.
fn output(caller: &str) -> (Vec<String>, String, Option<i32>) {
    let output = probe::caller(caller).stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines = shown.lines().map(|line| line.split(" after ").next().unwrap().to_owned()).collect();
    (lines, String::from_utf8(output.stderr).unwrap(), output.status.code())
}

#[test]
fn steps_work_on_one_tree_each_in_its_own_sandbox() {
    let _clean = common::clean();
    let steps = "# what is done
steps:
  - name: build
    run: echo made >made; echo secret >/tmp/kept; printf 'half a \\033[2Jline'
    memory: 64M

  - name: test
    time: 30
    run: cat made; ls /tmp; id -u; echo wrong >&2; exit 3
  - run: echo never
";
    let (dir, caller) = tree(steps);
    let (mut lines, said, code) = output(&caller);
    // The two streams of one step are not in step.
    lines[2..5].sort();
    let shown = ["[build] half a [2Jline", "[build] -- exited with 0", "[test] 65534", "[test] made", "[test] wrong"];
    assert_eq!(lines[..5], shown, "{lines:?} {said}");
    assert_eq!(lines[5..], ["[test] -- exited with 3"]);
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(fs::read_to_string(dir.path().join("tree/made")).unwrap(), "made\n");
}

#[test]
fn a_file_that_is_no_list_of_steps_is_refused_with_its_line() {
    let _clean = common::clean();
    for (steps, why) in [
        ("", "the first line is `steps:`"),
        ("steps:\n  - name: a\n    image: b", "line 3: \"image\" is none of name, run, memory, time"),
        ("steps:\n\n  run: a", "line 3: a step begins with `- `"),
        ("steps:\n  - run: a\n    time: soon", "line 3: \"soon\" is no number of seconds"),
        ("steps:\n  - name: a", "a: nothing to `run`"),
    ] {
        let (_dir, caller) = tree(steps);
        let (lines, said, code) = output(&caller);
        assert!(lines.is_empty() && said.contains(why), "{steps}: {said}");
        assert_eq!(code, Some(125));
    }
}

#[test]
fn a_signal_ends_a_run_and_leaves_nothing() {
    let _clean = common::clean();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let steps = "steps:\n  - run: trap '' INT TERM HUP; sleep 1000 & echo started; while :; do wait; done\n  - run: echo never";
        let (_dir, caller) = tree(steps);
        let mut run = probe::caller(&caller).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(run.stdout.take().unwrap());
        let mut line = String::new();
        // It comes while the step runs.
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "[step 1] started\n");
        kill(Pid::from_raw(run.id() as i32), signal).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(128 + signal as i32), "{rest}");
        assert!(rest.starts_with("[step 1] -- ") && !rest.contains("never"), "{rest}");
    }
}
