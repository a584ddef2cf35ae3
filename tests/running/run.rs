//! The example `run`, with a profile.

use std::fs;
use std::process::Stdio;

use crate::common::{self, TempDir, probe};

#[path = "../../examples/run.rs"]
mod example;

common::callers! {
    |_words|
    "run" => std::process::exit(example::run(std::env::args_os()).into()),
}

/// What `run` prints with these words, and its exit code.
fn run(words: &[&str]) -> (String, String, Option<i32>) {
    let output = probe::caller("run").args(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// A profile that an ordinary user can have, too.
fn profile() -> String {
    let namespaces = if common::is_root() { "" } else { "\"user\", " };
    format!(
        "version = 1\nnamespaces = [{namespaces}\"uts\"]\nhostname = \"by-profile\"\nrootfs = {{ base = \"host\" }}\n"
    )
}

#[test]
fn a_profile_is_where_the_options_begin() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let (toml, json) = (dir.path().join("a.toml"), dir.path().join("a.json"));
    fs::write(&toml, profile() + "env = { A = \"of the profile\" }\n").unwrap();
    let sandbox = ringfence::Profile::from_toml(&fs::read_to_string(&toml).unwrap()).unwrap();
    fs::write(&json, sandbox.to_json().unwrap()).unwrap();
    for file in [&toml, &json] {
        let script = "hostname; echo $A; exit 3";
        let words = ["--profile", file.to_str().unwrap(), "--time", "60", "--", "/bin/sh", "-c", script];
        assert_eq!(run(&words), ("by-profile\nof the profile\n".into(), String::new(), Some(3)));
    }
    let file = toml.to_str().unwrap();
    let (_, said, code) = run(&["--profile", file, "--time", "50ms", "--", "sleep", "1000"]);
    assert_eq!((said.trim(), code), ("run: out of wall time", Some(137)));
}

#[test]
fn a_profile_that_is_none_starts_nothing() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let file = dir.path().join("a.toml");
    for (text, why) in [(profile() + "memory = 1\n", "memory"), (String::new(), "version")] {
        fs::write(&file, &text).unwrap();
        let (shown, said, code) = run(&["--profile", file.to_str().unwrap(), "--", "echo", "ran"]);
        assert_eq!((&*shown, code), ("", Some(125)), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(why != "memory" || said.contains(&format!("line {}", text.lines().count())), "{said}");
    }
    // What a profile says is not said twice.
    fs::write(&file, profile()).unwrap();
    let (shown, said, code) = run(&["--profile", file.to_str().unwrap(), "--hostname", "other", "--", "echo", "ran"]);
    assert_eq!((&*shown, code), ("", Some(125)), "{said}");
    assert!(said.contains("cannot be used with"), "{said}");
}
