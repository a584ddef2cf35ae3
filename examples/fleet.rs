//! Fifty containers of one image, each with limits of its own, and a live table of what they use:
//!
//!     cargo run --release --features image --example fleet -- host:1
//!
//! `pack` makes the image `host:1` without any network. Ctrl-C ends them all.

use std::ffi::OsString;
use std::io::{IsTerminal, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use ringfence::image::{Reference, Store};
use ringfence::{Bytes, Child, Error, Outcome, Sandbox, Stats, Stdio};

/// The control group below which root's groups are made.
const PARENT: &str = "/ringfence-fleet";
/// The default command of a container: a little work, with pauses.
const WORK: &str =
    "i=0; while [ $i -lt 40 ]; do i=$((i+1)); j=0; while [ $j -lt 2000 ]; do j=$((j+1)); done; sleep 0.05; done";
/// The number of rows that are shown while the containers run.
const ROWS: usize = 16;

/// Runs many containers of one image, with a live table of what they use.
#[derive(Parser)]
#[command(name = "fleet")]
struct Args {
    /// The number of containers
    #[arg(long, default_value_t = 50)]
    count: usize,
    /// Most memory of each (64M)
    #[arg(long, value_name = "SIZE", default_value = "64M")]
    memory: Bytes,
    /// Most processes of each
    #[arg(long, value_name = "N", default_value_t = 16)]
    pids: u64,
    /// Most processors' worth of time of each
    #[arg(long, value_name = "CORES", default_value_t = 0.5)]
    cpus: f64,
    /// The store [default: ringfence/images in the user's data directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The image
    image: Reference,
    /// The command of each container
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

struct Container {
    child: Child,
    stats: Option<Stats>,
    outcome: Option<Outcome>,
}

fn main() -> ExitCode {
    match fleet(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns true if all of them exited with success.
fn fleet(args: &Args) -> Result<bool, Error> {
    let store = match &args.store {
        Some(dir) => Store::open(dir)?,
        None => Store::open_default()?,
    };
    let policy = policy(args, &store)?.prepare()?;
    let started = Instant::now();
    let mut fleet = Vec::with_capacity(args.count);
    for _ in 0..args.count {
        fleet.push(Container { child: policy.spawn()?, stats: None, outcome: None });
    }
    let took = started.elapsed();
    let live = stdout().is_terminal();
    while fleet.iter().any(|container| container.outcome.is_none()) {
        for container in &mut fleet {
            container.look()?;
        }
        if live {
            show(&fleet, ROWS, true);
        }
        sleep(Duration::from_millis(100));
    }
    show(&fleet, usize::MAX, live);
    println!("{} containers started in {took:.1?}, and ended after {:.1?}", fleet.len(), started.elapsed());
    Ok(fleet.iter().all(|container| container.outcome.as_ref().is_some_and(Outcome::success)))
}

fn policy(args: &Args, store: &Store) -> Result<Sandbox, Error> {
    let mut sandbox = Sandbox::from_image(&store.image(&args.image)?)?
        .net_ns()
        .memory_limit(args.memory)
        .pids_limit(args.pids)
        .cpu_limit(args.cpus)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if nix::unistd::geteuid().is_root() {
        sandbox = sandbox.cgroup_parent(PARENT);
    }
    Ok(match args.command.split_first() {
        Some((program, rest)) => sandbox.command(program).args(rest),
        None => sandbox.command("sh").args(["-c", WORK]),
    })
}

impl Container {
    fn look(&mut self) -> Result<(), Error> {
        if self.outcome.is_none() {
            self.outcome = self.child.try_wait()?;
        }
        if self.outcome.is_none() {
            // The container may have just ended.
            self.stats = self.child.stats().ok().or(self.stats.take());
        }
        Ok(())
    }

    fn row(&self, number: usize) -> String {
        let usage = self.outcome.as_ref().map(Outcome::usage);
        let stats = self.stats.as_ref();
        let state = match &self.outcome {
            Some(outcome) => outcome.verdict().to_string(),
            None => "runs".to_owned(),
        };
        let now = stats.and_then(|stats| stats.memory_current).filter(|_| self.outcome.is_none());
        let peak = usage.as_ref().and_then(|usage| usage.peak_memory);
        let peak = peak.or_else(|| stats.and_then(|stats| stats.memory_peak));
        let cpu = stats.and_then(|stats| stats.cpu_usage).filter(|_| usage.is_none());
        let cpu = cpu.or_else(|| usage.as_ref().map(|usage| usage.user + usage.system));
        let pids = stats.and_then(|stats| stats.pids_current).filter(|_| self.outcome.is_none());
        let kib = |bytes: Option<Bytes>| bytes.map_or("-".to_owned(), |bytes| format!("{} KiB", bytes.get() / 1024));
        let cpu = cpu.map_or("-".to_owned(), |time| format!("{:.0} ms", time.as_secs_f64() * 1000.0));
        let pids = pids.map_or("-".to_owned(), |count| count.to_string());
        format!("{number:>4} {:>11} {:>11} {cpu:>9} {pids:>5}  {state}", kib(now), kib(peak))
    }
}

fn show(fleet: &[Container], rows: usize, live: bool) {
    let mut text = String::new();
    if live {
        // This moves to the top left, and clears the screen.
        text.push_str("\x1b[H\x1b[J");
    }
    let running = fleet.iter().filter(|container| container.outcome.is_none()).count();
    text += &format!(
        "{:>4} {:>11} {:>11} {:>9} {:>5}  {running} of {} run\n",
        "",
        "memory",
        "peak",
        "cpu",
        "pids",
        fleet.len()
    );
    for (number, container) in fleet.iter().enumerate().take(rows) {
        text += &container.row(number + 1);
        text.push('\n');
    }
    // The reader of this output may be gone.
    let _ = stdout().write_all(text.as_bytes());
}
