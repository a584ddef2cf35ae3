//! The cost of a sandbox when there is much of something: memory, descriptors and threads in the
//! caller, mounts and living sandboxes on the host. Each row is the ratio to a caller with nothing
//! of it; the two callers take turns. Then follow the cost of a living sandbox for its caller, and
//! the number of sandboxes that both cores make in a second, and with the feature `tokio` what a
//! service makes of them.
//!
//! `cargo bench --bench growth --features tokio`; `-- --quick` for a short run; `-- 5000` for this number of living
//! sandboxes, instead of 1,000; `-- full` or `-- strict` for one kind of sandbox only.

#[path = "spawn/bare.rs"]
mod bare;
#[path = "growth/caller.rs"]
mod caller;
#[path = "spawn/fixture.rs"]
#[allow(dead_code, reason = "the bench of spawns has files of its own")]
mod fixture;
#[path = "spawn/floor.rs"]
#[allow(dead_code, reason = "the profile is not shown here")]
mod floor;
#[path = "spawn/group.rs"]
#[allow(dead_code, reason = "no sandbox here has a control group")]
mod group;
#[path = "spawn/host.rs"]
mod host;
#[path = "growth/living.rs"]
mod living;
#[path = "spawn/rate.rs"]
#[allow(dead_code, reason = "the rates of strict sandboxes are those of the comparison")]
mod rate;
#[path = "../src/sys/raw.rs"]
mod raw;
#[path = "spawn/rows.rs"]
#[allow(dead_code, reason = "rows of one's own")]
mod rows;
#[path = "spawn/served.rs"]
mod served;
#[cfg(feature = "playground")]
#[path = "growth/service.rs"]
mod service;
#[path = "spawn/strict.rs"]
#[allow(dead_code, reason = "the profile is not shown here")]
mod strict;
#[path = "growth/throughput.rs"]
mod throughput;

use std::process::ExitCode;
use std::time::Duration;

use caller::{Kind, State};
use fixture::Fixture;

/// The states of a caller. The second column is the goal for the ratio.
const STATES: [(State, f64); 4] = [
    (State::Heap(4 << 30), 1.2),
    (State::Descriptors(10_000), 1.2),
    (State::Threads(64), 1.2),
    (State::Mounts(2_000), 1.2),
];

/// The states of a caller of strict sandboxes.
const STRICT_STATES: [(State, f64); 3] =
    [(State::Heap(4 << 30), 1.2), (State::Threads(64), 1.2), (State::Mounts(2_000), 1.2)];

/// The arguments of the bench.
#[derive(Debug)]
struct Asked {
    kinds: Vec<Kind>,
    rounds: usize,
    alive: usize,
    seconds: f64,
}

impl Asked {
    fn read() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |name: &str| args.iter().any(|arg| arg == name);
        // `cargo test --benches` runs this program, too.
        let full = has("--bench") && !has("--quick");
        let alive = args.iter().find_map(|arg| arg.parse().ok());
        let kinds = match (has("full"), has("strict")) {
            (true, false) => vec![Kind::Full],
            (false, true) => vec![Kind::Strict],
            _ => vec![Kind::Full, Kind::Strict],
        };
        Asked {
            kinds,
            rounds: if full { 300 } else { 20 },
            alive: alive.unwrap_or(if full { 1_000 } else { 50 }),
            seconds: if full { 1.0 } else { 0.2 },
        }
    }
}

fn main() -> ExitCode {
    if let Some(state) = State::ordered() {
        return caller::serve(state);
    }
    match run(&Asked::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("growth: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &Asked) -> Result<(), String> {
    let fixture = Fixture::new().map_err(|error| format!("the root directory: {error}"))?;
    println!("spawn + wait of a `true` that is static, and dynamic where strict; by turns, p50 in µs");
    println!("{:40} {:>9} {:>9} {:>9}", "", "nothing", "with it", "ratio");
    for &kind in &asked.kinds {
        let (states, rounds) = match kind {
            Kind::Full => (&STATES[..], asked.rounds),
            Kind::Strict => (&STRICT_STATES[..], asked.rounds / 3),
        };
        for &(state, goal) in states {
            match caller::ratio(state, kind, &fixture, rounds) {
                Ok((without, with)) => tell(kind, &state.to_string(), without, with, goal),
                Err(error) => println!("left out: {state} ({error})"),
            }
        }
        living::run(&fixture, kind, asked.alive, rounds)?;
    }
    if asked.kinds.contains(&Kind::Full) {
        let turn = Duration::from_secs_f64(asked.seconds);
        throughput::run(&fixture, turn)?;
        #[cfg(feature = "playground")]
        service::run(&fixture, turn)?;
    }
    Ok(())
}

/// Prints one row of the table.
fn tell(kind: Kind, name: &str, without: f64, with: f64, goal: f64) {
    let name = format!("{}{name}", if kind == Kind::Strict { "strict: " } else { "" });
    let ratio = with / without;
    let verdict = if ratio <= goal { "reached" } else { "missed" };
    println!("{name:40} {without:9.1} {with:9.1} {ratio:9.2}   goal <= {goal} {verdict}");
}

/// Returns the median, in µs.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}
