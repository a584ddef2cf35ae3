//! The example `judge`: a submission gets at nothing but its input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{self, TempDir, probe};

#[path = "../../examples/judge.rs"]
mod example;

common::callers! {
    |words|
    "judge" => std::process::exit(i32::from(example::run(words.iter().map(std::ffi::OsString::from)))),
}

#[test]
fn a_submission_cannot_read_the_expected_output() {
    let _clean = common::clean();
    // Not below the /tmp that each sandbox has for itself: only the root keeps the tests away.
    let dir = TempDir::in_dir(Path::new("/var/tmp"));
    let tests = dir.path().join("tests");
    fs::create_dir(&tests).unwrap();
    for path in [dir.path(), &tests] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(tests.join("sum.in"), "19 23\n").unwrap();
    fs::write(tests.join("sum.out"), "42\n").unwrap();
    let judged = |name: &str, source: String| {
        fs::write(dir.path().join(name), source).unwrap();
        let words = format!("judge --json {}/{name} {}", dir.path().display(), tests.display());
        let output = probe::caller(&words).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}{}", String::from_utf8_lossy(&output.stderr));
        (text.split("\"verdict\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned(), output.status.code())
    };
    let is = |verdict: &str, code| (verdict.to_owned(), Some(code));
    assert_eq!(judged("right.sh", "read a b; echo $((a + b))".into()), is("OK", 0));
    let cheats = [
        // The input's descriptor would show the name of its file.
        "input=$(readlink /proc/self/fd/0); cat \"${input%.in}.out\" 2>/dev/null || echo none".to_owned(),
        format!(
            "cat {0}/sum.out /proc/*/root{0}/sum.out /proc/*/cwd/tests/sum.out 2>/dev/null || echo none",
            tests.display()
        ),
        format!("cat <{}/sum.out 2>/dev/null || echo none", tests.display()),
    ];
    for cheat in cheats {
        assert_eq!(judged("cheat.sh", cheat.clone()), is("WA", 1), "{cheat}");
    }
}
