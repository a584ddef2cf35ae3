//! The cost of a sandbox on this machine: with this crate, with raw system calls (the floor), with
//! `std::process` without any sandbox, and with every other tool and library that is installed.
//!
//!     cargo run --release --features image --example compare
//!     cargo run --release --example compare -- --heap 2G --libraries
//!     cargo run --release --example compare -- --json --only std,floor,sandbox
//!
//! All of them spawn the same static program, which does nothing, on one root directory, and wait
//! for it. The strict rows spawn /bin/true, as untrusted code is run. They take turns in one run: compare ratios, not times of different runs. See `--help`.

#[path = "../../benches/spawn/bare.rs"]
mod bare;
mod contenders;
mod elsewhere;
#[path = "../../benches/spawn/fixture.rs"]
#[allow(dead_code, reason = "the bench has files of its own")]
mod fixture;
#[path = "../../benches/spawn/floor.rs"]
#[allow(dead_code, reason = "the bench's profile is not shown here")]
mod floor;
#[path = "../../benches/spawn/group.rs"]
mod group;
#[path = "../../benches/spawn/host.rs"]
mod host;
mod library;
mod peers;
mod plots;
#[path = "../../benches/spawn/rate.rs"]
mod rate;
#[path = "../../src/sys/raw.rs"]
mod raw;
mod report;
#[path = "../../benches/spawn/rows.rs"]
#[allow(dead_code, reason = "the bench's profile is not shown here")]
mod rows;
#[path = "../../benches/spawn/served.rs"]
mod served;
#[path = "../../benches/spawn/strict.rs"]
#[allow(dead_code, reason = "the bench's profile is not shown here")]
mod strict;
mod turns;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ringfence::Bytes;

use fixture::{Ballast, Fixture};
use group::Parents;
use report::Conditions;

/// Measures spawn + wait of a program that does nothing: this crate, bare system calls, and what
/// else is on the machine.
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Args {
    /// The number of turns for each: one run that does not count, then four that do.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Memory of the caller, all of it in use: 2G.
    #[arg(long, default_value = "0")]
    heap: Bytes,
    /// The number of additional mounts on the host, in a mount namespace of their own.
    #[arg(long, default_value_t = 0)]
    mounts: usize,
    /// The number of sandboxes of this crate that live meanwhile.
    #[arg(long, default_value_t = 0)]
    living: usize,
    /// Only these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Build the harness of the libraries (benches/peers) first, which takes the network and some
    /// minutes.
    #[arg(long)]
    libraries: bool,
    /// `[{"name":…,"p50_us":…,"p95_us":…}]` on stdout; what is told goes to stderr. The rates have
    /// `per_second` as well, and µs for each run of all processors together.
    #[arg(long)]
    json: bool,
    /// Measure over the caller's memory, mounts and living sandboxes, and draw growth.svg into this
    /// directory; takes minutes.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["heap", "mounts", "living", "json"])]
    plots: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    if args.libraries {
        library::build()?;
    }
    if let Some(dir) = &args.plots {
        return plots::draw_all(dir, args.rounds);
    }
    // This happens while there is one thread: the later threads are in its mount namespace.
    let _mounts = host::Mounts::new(args.mounts).map_err(|error| format!("--mounts: {error}"))?;
    let fixture = Fixture::new().map_err(|error| format!("the root directory: {error}"))?;
    let parents = Parents::new();
    let (mut contenders, mut told) = contenders::all(&fixture, &parents, args.heap, &args.only)?;
    let heap = usize::try_from(args.heap.get()).map_err(|error| format!("--heap: {error}"))?;
    if !Ballast::fits(heap) {
        return Err(format!("--heap: the machine has not {} to spare", args.heap));
    }
    let _ballast = Ballast::new(heap);
    let living = contenders::living(&fixture, args.living).map_err(|error| format!("--living: {error:#}"))?;
    turns::first(&mut contenders, &mut told);
    let conditions = Conditions { heap: args.heap, mounts: args.mounts, living: living.len() };
    let measured = turns::take(&mut contenders, args.rounds, &mut told)?;
    drop(contenders);
    let rates = turns::rates(&parents, args.rounds, &args.only, &mut told);
    if args.json {
        told.iter().for_each(|line| eprintln!("{line}"));
        println!("{}", report::json(&measured, &rates));
    } else {
        println!("{}", report::text(&measured, &rates, &told, &conditions));
    }
    Ok(())
}
