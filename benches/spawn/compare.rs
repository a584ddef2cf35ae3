//! The comparison with reliable ratios: all rows take turns in one run, so that noise meets all of
//! them alike.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::fixture::Ballast;
use super::floor::Profile;
use super::rows::{Company, Row};

/// The rows of the comparison.
pub const NAMES: [&str; 19] = [
    "std",
    "plain",
    "sandbox",
    "prepared",
    "pool",
    "sandbox-cgroup",
    "floor",
    "floor-template",
    "sandbox-net",
    "prepared-net",
    "pool-net",
    "floor-net",
    "floor-template-net",
    "std-dynamic",
    "strict",
    "strict-prepared",
    "strict-pool",
    "strict-exec",
    "floor-strict",
];
const BLOCKS: usize = 10;
/// The rounds at the start of a block that are not counted.
const WARM_UP: usize = 10;

/// The times of one row, without ballast and with it.
#[derive(Debug, Default, Clone)]
struct Times([Vec<Duration>; 2]);

impl Times {
    fn percentile(&self, heavy: bool, percent: usize) -> Option<f64> {
        percentile(&self.0[usize::from(heavy)], percent)
    }
}

fn percentile(times: &[Duration], percent: usize) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?);
    Some(sorted[index].as_secs_f64() * 1e6)
}

/// Runs `rounds` rounds over the rows, in blocks without and with ballast by turns, and prints the
/// tables.
pub fn run(rows: &mut [Row], rounds: usize) -> Result<(), String> {
    let mut times = vec![Times::default(); rows.len()];
    let mut random = 0x9e37_79b9_7f4a_7c15;
    let heavy_too = Ballast::fits(Ballast::USUAL);
    if !heavy_too {
        println!("left out: 2 GiB in the caller (not enough memory)");
    }
    for _ in 0..BLOCKS {
        block(rows, &mut times, rounds.div_ceil(BLOCKS), false, &mut random)?;
        if heavy_too {
            let ballast = Ballast::new(Ballast::USUAL);
            block(rows, &mut times, rounds.div_ceil(BLOCKS), true, &mut random)?;
            drop(ballast);
        }
    }
    print_times(rows, &times);
    print_ratios(rows, &times);
    for row in rows {
        let profiles: Result<Vec<Profile>, String> = (0..rounds).map_while(|_| row.profile()).collect();
        print_profile(row.name, &profiles?);
    }
    Ok(())
}

fn block(rows: &mut [Row], times: &mut [Times], rounds: usize, heavy: bool, random: &mut u64) -> Result<(), String> {
    for company in Company::ALL {
        let mut order: Vec<usize> = (0..rows.len()).filter(|i| Company::of(rows[*i].name) == company).collect();
        for round in 0..rounds + WARM_UP {
            shuffle(&mut order, random);
            for &i in &order {
                rows[i].make_ready()?;
                let start = Instant::now();
                rows[i].run().map_err(|error| format!("{}: {error}", rows[i].name))?;
                let time = start.elapsed();
                if round >= WARM_UP {
                    times[i].0[usize::from(heavy)].push(time);
                }
            }
        }
    }
    Ok(())
}

/// Shuffles the order as Fisher and Yates do, with xorshift.
fn shuffle(order: &mut [usize], random: &mut u64) {
    for i in (1..order.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        order.swap(i, (*random % (i as u64 + 1)) as usize);
    }
}

fn print_times(rows: &[Row], times: &[Times]) {
    println!("\nspawn + wait of a static `true`, by turns, {} rounds, µs", times.first().map_or(0, |t| t.0[0].len()));
    println!("{:18} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "min", "p50", "p95", "2GiB p50", "2GiB p95");
    for (row, times) in rows.iter().zip(times) {
        let cells = [(false, 0), (false, 50), (false, 95), (true, 50), (true, 95)];
        let cells = cells.map(|(heavy, percent)| match times.percentile(heavy, percent) {
            Some(time) => format!("{time:9.1}"),
            None => format!("{:>9}", "-"),
        });
        println!("{:18} {}", row.name, cells.join(" "));
    }
}

fn print_ratios(rows: &[Row], times: &[Times]) {
    let time = |name: &str, heavy, percent| {
        let (_, times) = rows.iter().zip(times).find(|(row, _)| row.name == name)?;
        times.percentile(heavy, percent)
    };
    println!("\n{:34} {:>9} {:>9}", "", "min", "p50");
    for (above, heavy, below) in [
        ("sandbox", false, "floor"),
        ("sandbox", false, "floor-template"),
        ("sandbox-net", false, "floor-net"),
        ("sandbox-net", false, "floor-template-net"),
        ("prepared", false, "sandbox"),
        ("prepared-net", false, "sandbox-net"),
        ("pool", false, "std"),
        ("pool-net", false, "std"),
        ("strict", false, "floor-strict"),
        ("strict-prepared", false, "floor-strict"),
        ("strict-pool", false, "std-dynamic"),
        ("strict-exec", false, "strict"),
        ("sandbox", true, "sandbox"),
        ("std", true, "std"),
        ("strict", true, "strict"),
    ] {
        let ratio = |percent| Some(time(above, heavy, percent)? / time(below, false, percent)?);
        if let (Some(min), Some(p50)) = (ratio(0), ratio(50)) {
            let name = format!("{above}{} / {below}", if heavy { "-2GiB" } else { "" });
            println!("{name:34} {min:9.2} {p50:9.2}");
        }
    }
}

/// Prints the median of each step over all runs, with a bar for each.
fn print_profile(name: &str, profiles: &[Profile]) {
    let Some(first) = profiles.first() else { return };
    println!("\nwhere {name} spends its time, p50 in µs");
    let mut by_step: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    for (i, (_, time)) in profiles.iter().flat_map(|profile| profile.iter().enumerate()) {
        by_step.entry(i).or_default().push(*time);
    }
    let medians: Vec<f64> = by_step.values().filter_map(|times| percentile(times, 50)).collect();
    let longest = medians.iter().copied().fold(1.0, f64::max);
    for ((step, _), time) in first.iter().zip(medians) {
        println!("  {step:24} {time:7.1} {}", "#".repeat((40.0 * time / longest).ceil() as usize));
    }
}
