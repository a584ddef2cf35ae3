//! Callers in different states. Each caller is a process of its own: this program again, with the
//! state in its environment.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringfence::{Child, Sandbox};

use super::fixture::{Ballast, Fixture};
use super::host::{self, Mounts};
use super::rows;
use super::served::Served;

/// The thing of which a caller has much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Nothing,
    Heap(usize),
    Descriptors(usize),
    Threads(usize),
    Mounts(usize),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Nothing => write!(f, "nothing"),
            State::Heap(bytes) => write!(f, "{} GiB resident in the caller", bytes >> 30),
            State::Descriptors(count) => write!(f, "{count} open descriptors"),
            State::Threads(count) => write!(f, "{count} threads"),
            State::Mounts(count) => write!(f, "{count} mounts on the host"),
        }
    }
}

const STATE: &str = "RINGFENCE_GROWTH_STATE";
const ROOT: &str = "RINGFENCE_GROWTH_ROOT";

impl State {
    /// Returns the state that this process must have, if it is a caller that [`start`] made.
    pub fn ordered() -> Option<State> {
        let text = std::env::var(STATE).ok()?;
        let (kind, count) = text.split_once(' ')?;
        let count = count.parse().ok()?;
        Some(match kind {
            "heap" => State::Heap(count),
            "descriptors" => State::Descriptors(count),
            "threads" => State::Threads(count),
            "mounts" => State::Mounts(count),
            _ => State::Nothing,
        })
    }

    fn order(self) -> String {
        match self {
            State::Nothing => "nothing 0".to_owned(),
            State::Heap(count) => format!("heap {count}"),
            State::Descriptors(count) => format!("descriptors {count}"),
            State::Threads(count) => format!("threads {count}"),
            State::Mounts(count) => format!("mounts {count}"),
        }
    }
}

/// Starts a caller in this state.
pub fn start(state: State, fixture: &Fixture) -> Result<Served, String> {
    if let State::Heap(bytes) = state
        && !Ballast::fits(bytes)
    {
        return Err("not enough memory".to_owned());
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.env(STATE, state.order()).env(ROOT, &fixture.root);
    Served::start(command)
}

/// The sandbox that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All but a network namespace and limits, on a directory.
    Full,
    Strict,
}

impl Kind {
    /// Returns the order for one run.
    pub fn run(self) -> &'static str {
        match self {
            Kind::Full => "run",
            Kind::Strict => "run-strict",
        }
    }

    /// Returns the order that keeps `count` sandboxes alive.
    pub fn live(self, count: usize) -> String {
        match self {
            Kind::Full => format!("live {count}"),
            Kind::Strict => format!("live-strict {count}"),
        }
    }
}

/// Returns the medians of a caller with nothing, and of one in the state, in µs.
pub fn ratio(state: State, kind: Kind, fixture: &Fixture, rounds: usize) -> Result<(f64, f64), String> {
    let run = kind.run();
    let mut callers = [start(State::Nothing, fixture)?, start(state, fixture)?];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for i in [round % 2, 1 - round % 2] {
            // The first run after the other caller's turn does the work that the other has left to
            // the kernel.
            callers[i].time(run)?;
            for _ in 0..2 {
                times[i].push(callers[i].time(run)?);
            }
        }
    }
    let [mut without, mut with] = times;
    Ok((super::median(&mut without), super::median(&mut with)))
}

/// Returns a value of this process from /proc/self/status, in KiB or as a plain number.
fn status(key: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Serves orders until their end: `run` is one spawn and wait, `live N` keeps this number of
/// sandboxes alive, `run-strict` and `live-strict N` do so with strict ones, `look` returns the numbers of this process: KiB of its own memory, threads,
/// descriptors, children.
pub fn serve(state: State) -> ExitCode {
    match try_to_serve(state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("growth: {state}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_to_serve(state: State) -> Result<(), Box<dyn std::error::Error>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let ballasts = Ballasts::new(state)?;
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap_or_default());
    let (sandbox, living) = (rows::full(&*root).command("/true"), rows::full(&*root).command("/pause"));
    let strict = Sandbox::strict().command(rows::PROGRAM);
    let strict_living = Sandbox::strict().command("/bin/sleep").arg("600").wall_time(Duration::from_secs(600));
    // These runs make what is made once and kept.
    for _ in 0..3 {
        sandbox.status()?;
    }
    let mut alive: Vec<Child> = Vec::new();
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let start = Instant::now();
        match line.split_once(' ') {
            None if line == Kind::Full.run() => drop(sandbox.status()?),
            None if line == Kind::Strict.run() => drop(strict.status()?),
            Some((order @ ("live" | "live-strict"), count)) => {
                let count: usize = count.parse()?;
                let living = if order == "live" { &living } else { &strict_living };
                alive.truncate(count);
                alive.reserve_exact(count - alive.len());
                while alive.len() < count {
                    alive.push(living.spawn()?);
                }
            }
            _ => {
                writeln!(out, "{}", look())?;
                continue;
            }
        }
        writeln!(out, "{}", start.elapsed().as_nanos())?;
    }
    drop(alive);
    drop(ballasts);
    Ok(())
}

fn look() -> String {
    let count = |dir: &str| std::fs::read_dir(dir).map_or(0, Iterator::count);
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children: usize = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .map(|text| text.split_whitespace().count())
        .sum();
    format!("{} {} {} {children}", status("RssAnon"), status("Threads"), count("/proc/self/fd"))
}

/// The resources that make up the state, while the caller serves.
enum Ballasts {
    Nothing,
    Heap { _ballast: Ballast },
    Descriptors { _files: Vec<File> },
    Mounts { _mounts: Mounts },
}

impl Ballasts {
    fn new(state: State) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(match state {
            State::Nothing => Ballasts::Nothing,
            State::Heap(bytes) => Ballasts::Heap { _ballast: Ballast::new(bytes) },
            State::Descriptors(count) => {
                let files: Result<_, _> = (0..count).map(|_| File::open("/dev/null")).collect();
                Ballasts::Descriptors { _files: files? }
            }
            State::Threads(count) => {
                for _ in 0..count {
                    // The threads end with the process.
                    thread::Builder::new().spawn(|| {
                        loop {
                            thread::sleep(Duration::from_secs(1));
                        }
                    })?;
                }
                Ballasts::Nothing
            }
            State::Mounts(count) => Ballasts::Mounts { _mounts: host::Mounts::new(count)? },
        })
    }
}
