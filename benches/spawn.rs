//! Spawn and wait of a static `true`: with the standard library, with this crate and more and more
//! isolation, and with raw system calls that do the kernel's part of the same sandbox (the floor).
//!
//! `cargo bench --features benches --bench spawn` runs criterion's rows one after the other, then a
//! comparison in which the main rows take turns; the ratios of the comparison are more reliable.
//! The same with `-- by-turns` runs only the comparison. For an ordinary user, the rows
//! with namespaces run inside a user namespace; the bench reports and leaves out the rows that
//! cannot run.

#[path = "spawn/bare.rs"]
mod bare;
#[path = "spawn/compare.rs"]
mod compare;
#[path = "spawn/fixture.rs"]
mod fixture;
#[path = "spawn/floor.rs"]
mod floor;
#[path = "spawn/group.rs"]
mod group;
#[path = "../src/sys/raw.rs"]
mod raw;
#[path = "spawn/rows.rs"]
mod rows;
#[path = "spawn/same.rs"]
mod same;
#[path = "spawn/strict.rs"]
mod strict;

use std::fs;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use criterion::Criterion;

use fixture::{Ballast, Fixture};
use group::Parents;
use rows::Row;

/// The name of the comparison, when rows are chosen by name.
const BY_TURNS: &str = "by-turns";

/// The arguments of the bench. Criterion reads them a second time for itself.
#[derive(Debug, Default)]
struct Asked {
    measure: bool,
    list: bool,
    quick: bool,
    filter: Option<String>,
}

impl Asked {
    fn read() -> Self {
        /// The options of criterion that take a value.
        const WITH_VALUE: [&str; 16] = [
            "--color",
            "--save-baseline",
            "--baseline",
            "--baseline-lenient",
            "--format",
            "--profile-time",
            "--load-baseline",
            "--sample-size",
            "--warm-up-time",
            "--measurement-time",
            "--nresamples",
            "--noise-threshold",
            "--confidence-level",
            "--significance-level",
            "--plotting-backend",
            "--output-format",
        ];
        let (mut asked, mut otherwise) = (Asked::default(), false);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => asked.measure = true,
                "--list" => asked.list = true,
                "--quick" => asked.quick = true,
                "--test" => otherwise = true,
                option if option.starts_with("--profile-time") => otherwise = true,
                option if WITH_VALUE.contains(&option) => drop(args.next()),
                option if option.starts_with('-') => {}
                _ => asked.filter = Some(arg),
            }
        }
        asked.measure &= !otherwise && !asked.list;
        asked
    }

    /// Returns the number of rounds of the comparison, if it is wanted.
    fn rounds(&self) -> Option<usize> {
        let chosen = self.filter.as_ref().is_none_or(|filter| BY_TURNS.contains(filter.as_str()));
        (self.measure && chosen).then_some(if self.quick { 100 } else { 400 })
    }
}

fn main() -> ExitCode {
    match run(&Asked::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spawn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &Asked) -> Result<(), String> {
    let fixture = Fixture::new().map_err(|error| format!("the root directory: {error}"))?;
    let parents = Parents::new();
    let mut rows = rows::all(&fixture, &parents);
    if asked.list {
        criterion(&mut rows, asked);
        return Ok(());
    }
    // Each row runs twice, since the first run of each kind starts threads and opens what is kept.
    rows.retain_mut(|row| match row.run().and_then(|()| row.run()) {
        Ok(()) => true,
        Err(error) => {
            println!("left out: {} ({error})", row.name);
            false
        }
    });
    match same::check(&fixture, &parents, rows.iter().any(|row| row.name == "floor-net"))? {
        Some(mounts) => println!("the floor's sandbox is the library's ({mounts} mounts)"),
        None => println!("left out: the comparison of the floor's sandbox with the library's"),
    }
    match same::check_strict(&fixture, &parents)? {
        Some(mounts) => println!("the strict floor's sandbox is the library's ({mounts} mounts)"),
        None => println!("left out: the comparison of the strict floor's sandbox with the library's"),
    }
    let before = descriptors();
    criterion(&mut rows, asked);
    if let Some(rounds) = asked.rounds() {
        rows.retain(|row| compare::NAMES.contains(&row.name));
        compare::run(&mut rows, rounds)?;
    }
    // This also drops the sandboxes that pools have ready.
    drop(rows);
    look_for_leaks(before)
}

fn criterion(rows: &mut [Row], asked: &Asked) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let mut group = criterion.benchmark_group("spawn");
    for row in rows.iter_mut() {
        group.bench_function(row.name, |bencher| bencher.iter_custom(|runs| timed(row, runs)));
    }
    for row in rows.iter_mut().filter(|row| ["std", "sandbox"].contains(&row.name)) {
        if asked.measure && !Ballast::fits(Ballast::USUAL) {
            println!("left out: {}-2GiB (not enough memory)", row.name);
            continue;
        }
        // The ballast is made only when the row is chosen.
        let mut ballast = None;
        group.bench_function(format!("{}-2GiB", row.name), |bencher| {
            if asked.measure {
                ballast.get_or_insert_with(|| Ballast::new(Ballast::USUAL));
            }
            bencher.iter_custom(|runs| timed(row, runs));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Returns the time of this number of runs, without the time to prepare each run.
fn timed(row: &mut Row, runs: u64) -> Duration {
    let mut sum = Duration::ZERO;
    for _ in 0..runs {
        if let Err(error) = row.make_ready() {
            panic!("{}: {error}", row.name);
        }
        let start = Instant::now();
        must(row);
        sum += start.elapsed();
    }
    sum
}

/// Runs a row that has run before: a failure is a failure of the library.
fn must(row: &mut Row) {
    if let Err(error) = black_box(row.run()) {
        panic!("{}: {error}", row.name);
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Checks that every child was waited for, and that every descriptor was closed.
fn look_for_leaks(before: usize) -> Result<(), String> {
    let after = descriptors();
    if after > before {
        return Err(format!("{} descriptors leaked", after - before));
    }
    match nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
        Err(nix::errno::Errno::ECHILD) => Ok(()),
        other => Err(format!("a child is left: {other:?}")),
    }
}
