//! A runtime that is killed in the middle of a command: whatever it has done by then, one `delete --force` clears it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Bundle, PATIENT, groups};
use crate::common;

/// The container's processes and those of hooks: what has the mark in its arguments.
pub(super) fn marked(mark: &str) -> usize {
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
    pids.filter(|cmdline| fs::read(cmdline).is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))).count()
}

/// The bundle with a container and hooks of each kind whose processes have a mark, and the mark.
pub(super) fn with_marks(bundle: Bundle) -> (Bundle, String) {
    let mark = format!("mark-{}", bundle.dir.path().display());
    let notes = json!([bundle.hook("hook", &format!(": {mark}"))]);
    let script = format!("{PATIENT} # {mark}");
    let bundle = bundle.with("/process/args", json!(["sh", "-c", script])).with(
        "/hooks",
        json!({"createRuntime": notes, "createContainer": notes, "startContainer": notes, "poststart": notes}),
    );
    (bundle, mark)
}

/// Kills the command `words` at so many moments, each in a container to which `before` has been done. Then
/// `delete --force` clears everything, and `clear` waits for what goes a moment later.
pub(super) fn is_killed(bundle: &Bundle, before: &[&[&str]], words: &[&str], times: u32, clear: impl Fn()) {
    let prepare = || before.iter().for_each(|words| drop(bundle.does(words)));
    prepare();
    let began = Instant::now();
    let mut command = bundle.command(words);
    // An exec has no end of its own.
    let mut whole = command.spawn().unwrap();
    if words[0] == "exec" {
        std::thread::sleep(Duration::from_millis(500));
        let _ = whole.kill();
    }
    whole.wait().unwrap();
    let took = began.elapsed();
    bundle.does(&["delete", "--force", "box"]);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for time in 0..times {
        prepare();
        let mut runtime = bundle.command(words).spawn().unwrap();
        // The last moment lies behind the end.
        std::thread::sleep(took * 5 * time / (4 * (times - 1)));
        let _ = runtime.kill();
        runtime.wait().unwrap();
        let state = bundle.says(&["state", "box"]);
        let status =
            serde_json::from_str::<serde_json::Value>(&state.out).ok().map(|state| state["status"].to_string());
        *seen.entry(status.unwrap_or_else(|| "none".into())).or_default() += 1;
        bundle.does(&["delete", "--force", "box"]);
        assert!(bundle.is_empty(), "{words:?} {state:?}");
        clear();
    }
    println!("{words:?}: {seen:?} within {took:?}");
    bundle.does(&["delete", "--force", "box"]);
}

fn is_killed_for_all(before: &[&[&str]], words: &[&str]) {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let (bundle, mark) = with_marks(make(PATIENT));
        is_killed(&bundle, before, words, 6, || {
            common::eventually("all processes and groups are gone", || marked(&mark) == 0 && groups().is_empty());
        });
    }
}

#[test]
fn one_that_creates_is_killed() {
    is_killed_for_all(&[], &["create", "box"]);
}

#[test]
fn one_that_starts_is_killed() {
    is_killed_for_all(&[&["create", "box"]], &["start", "box"]);
}

#[test]
fn one_that_deletes_is_killed() {
    is_killed_for_all(&[&["create", "box"], &["start", "box"]], &["delete", "--force", "box"]);
}

#[test]
fn one_that_executes_a_further_program_is_killed() {
    is_killed_for_all(&[&["create", "box"], &["start", "box"]], &["exec", "box", "sleep", "1000"]);
}
