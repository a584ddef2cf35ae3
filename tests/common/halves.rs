//! Two processes for the tests of a program. In one process they take turns, as each looks for what it leaves behind;
//! two processes see nothing of one another, and most tests wait most of the time.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;

/// Programs with fewer tests are not worth a second process.
const WORTH_IT: usize = 20;
/// Set for the two processes.
const IS_HALF: &str = "RINGFENCE_HALF";

/// Runs all tests in two processes if `cargo test` asks for all, and ends this one then. To be called before main.
pub fn run() {
    if std::env::var_os(IS_HALF).is_some() {
        // SAFETY: no other thread has been started yet.
        unsafe { std::env::remove_var(IS_HALF) };
        return;
    }
    let all = std::env::args_os().len() == 1 && std::env::var_os("CARGO_MANIFEST_DIR").is_some();
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    if !all || at_once < 2 {
        return;
    }
    let tests = listed();
    if tests.len() < WORTH_IT {
        return;
    }
    let [first, second] = halves(&tests);
    let second = thread::spawn(move || half(&second).output());
    let first = half(&first).status();
    let Output { status, stdout, stderr } = second.join().expect("the thread ends").expect("the program starts again");
    let _ = std::io::stdout().write_all(&stdout);
    let _ = std::io::stderr().write_all(&stderr);
    let code = |status: ExitStatus| status.code().unwrap_or(101);
    std::process::exit(code(first.expect("the program starts again")).max(code(status)));
}

fn half(names: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
    command.arg("--exact").args(names).env(IS_HALF, "").stdin(Stdio::null());
    command
}

fn listed() -> Vec<String> {
    let mut list = half(&[]);
    let output = list.args(["--list", "--format", "terse"]).output().expect("the program starts again");
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Shares the tests out, those of a module together: the largest module first, each to whoever has less.
fn halves(tests: &[String]) -> [Vec<String>; 2] {
    let mut modules: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for test in tests {
        modules.entry(test.rsplit_once("::").map_or("", |(module, _)| module)).or_default().push(test.clone());
    }
    let mut modules: Vec<_> = modules.into_values().collect();
    modules.sort_by_key(|module| std::cmp::Reverse(module.len()));
    let mut halves = [Vec::new(), Vec::new()];
    for module in modules {
        let less = usize::from(halves[1].len() < halves[0].len());
        halves[less].extend(module);
    }
    halves
}
