//! Two processes at a time for the tests of a program. In one process they take turns, as each looks for what it leaves
//! behind; two processes see nothing of one another, and most tests wait most of the time.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

const WORKERS: usize = 2;
/// Programs with fewer tests are not worth further processes.
const WORTH_IT: usize = 20;
/// Set for the processes of the workers.
const IS_WORKER: &str = "RINGFENCE_WORKER";

/// Runs all tests, a module in each process, if `cargo test` asks for all, and ends this process then. To be called
/// before main.
pub fn run() {
    if std::env::var_os(IS_WORKER).is_some() {
        // SAFETY: no other thread has been started yet.
        unsafe { std::env::remove_var(IS_WORKER) };
        return;
    }
    let all = std::env::args_os().len() == 1 && std::env::var_os("CARGO_MANIFEST_DIR").is_some();
    if !all || thread::available_parallelism().map_or(1, usize::from) < WORKERS {
        return;
    }
    let tests = listed();
    if tests.len() < WORTH_IT {
        return;
    }
    let modules = Mutex::new(modules(tests).into_iter());
    let next = || modules.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut worst = 0;
        while let Some(tests) = next() {
            worst = worst.max(told(&worker(&tests).output().expect("the program starts again")));
        }
        worst
    };
    let worst = thread::scope(|scope| {
        let workers = [(); WORKERS].map(|()| scope.spawn(work));
        workers.map(|worker| worker.join().expect("a worker ends")).into_iter().max()
    });
    std::process::exit(worst.unwrap_or_default());
}

/// Passes on what the tests of a process have said. Returns its exit code.
fn told(output: &Output) -> i32 {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(&output.stdout).and_then(|()| stdout.flush());
    let _ = std::io::stderr().write_all(&output.stderr);
    output.status.code().unwrap_or(101)
}

fn worker(tests: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
    command.arg("--exact").args(tests).env(IS_WORKER, "").stdin(Stdio::null());
    command
}

fn listed() -> Vec<String> {
    let output = worker(&[]).args(["--list", "--format", "terse"]).output().expect("the program starts again");
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Returns the tests of each module, of the largest one first.
fn modules(tests: Vec<String>) -> Vec<Vec<String>> {
    let mut modules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for test in tests {
        let module = test.rsplit_once("::").map_or("", |(module, _)| module);
        modules.entry(module.to_owned()).or_default().push(test);
    }
    let mut modules: Vec<_> = modules.into_values().collect();
    modules.sort_by_key(|tests| std::cmp::Reverse(tests.len()));
    modules
}
