//! The results, as text for people and as JSON for programs.

use std::fmt::Write;

use ringfence::Bytes;
use serde_json::json;

use super::turns::{Measured, Rate};

/// The state of the caller and the host.
#[derive(Debug)]
pub struct Conditions {
    pub heap: Bytes,
    pub mounts: usize,
    pub living: usize,
}

/// A ratio of two medians, and the largest or smallest value that it should have.
#[derive(Debug)]
struct Goal {
    above: &'static str,
    below: &'static str,
    limit: f64,
    at_least: bool,
}

/// The share of the bare system calls' rate that a pool of strict sandboxes should have.
const RATE_GOAL: f64 = 0.85;

const fn at_most(above: &'static str, below: &'static str, limit: f64) -> Goal {
    Goal { above, below, limit, at_least: false }
}

const fn at_least(above: &'static str, below: &'static str, limit: f64) -> Goal {
    Goal { above, below, limit, at_least: true }
}

impl Conditions {
    fn goals(&self) -> Vec<Goal> {
        let mut goals = vec![
            at_most("strict-pool", "std-dynamic", 1.2),
            at_most("strict-prepared", "floor-strict", 1.2),
            at_most("strict", "floor-strict", 1.4),
            at_most("strict-exec", "strict", 1.3),
            at_most("sandbox", "floor", 1.25),
            at_most("sandbox-net", "floor-net", 1.3),
            at_most("pool", "std", 1.3),
            at_most("image", "sandbox", 1.15),
        ];
        let libraries = if self.heap >= Bytes::gib(2) { 200.0 } else { 4.0 };
        let bwrap = if self.mounts >= 2000 { 80.0 } else { 7.0 };
        let peers =
            [("ferroday-cage", libraries), ("hakoniwa", libraries), ("bwrap", bwrap), ("crun", 15.0), ("runc", 60.0)];
        for own in ["sandbox", "pool"] {
            goals.extend(peers.map(|(peer, limit)| at_least(peer, own, limit)));
        }
        goals
    }
}

/// Returns the table, the goals, and the notes about the contenders.
pub fn text(measured: &[Measured], rates: &[Rate], told: &[String], conditions: &Conditions) -> String {
    let mut text = format!("spawn + wait of a static program that does nothing, in µs; {}\n", machine());
    let Conditions { heap, mounts, living } = conditions;
    let _ = writeln!(text, "in the caller: {heap}; more mounts on the host: {mounts}; living sandboxes: {living}\n");
    let median = |name: &str| measured.iter().find(|one| one.name == name).map(|one| one.percentile(50));
    let below = [median("std"), median("sandbox"), median("pool")];
    let _ = writeln!(text, "{:16} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p95", "/ std", "/ sandbox", "/ pool");
    for one in measured {
        let (p50, p95) = (one.percentile(50), one.percentile(95));
        let ratios = below.map(|below| below.map_or("-".to_owned(), |below| format!("{:.2}", p50 / below)));
        let [std, sandbox, pool] = ratios;
        let _ = writeln!(text, "{:16} {p50:9.1} {p95:9.1} {std:>9} {sandbox:>9} {pool:>9}", one.name);
    }
    text.push('\n');
    for Goal { above, below, limit, at_least } in conditions.goals() {
        let (Some(a), Some(b)) = (median(above), median(below)) else { continue };
        let (ratio, sign) = (a / b, if at_least { ">=" } else { "<=" });
        let reached = if at_least { ratio >= limit } else { ratio <= limit };
        let verdict = if reached { "reached" } else { "missed" };
        let _ = writeln!(text, "{:28} {ratio:8.2}   goal {sign} {limit:<5} {verdict}", format!("{above} / {below}"));
    }
    if let [own, floor] = rates {
        let share = own.percentile(50) / floor.percentile(50);
        let verdict = if share >= RATE_GOAL { "reached" } else { "missed" };
        let name = format!("{} / {}", own.name, floor.name);
        let _ = writeln!(text, "{name:28} {share:8.2}   goal >= {RATE_GOAL:<5} {verdict}");
        let _ = writeln!(text, "\nruns a second, from as many threads as there are processors");
        for rate in rates {
            let _ = writeln!(text, "{:28} {:8.0}", rate.name, rate.percentile(50));
        }
    }
    text.push('\n');
    for line in told {
        let _ = writeln!(text, "{line}");
    }
    text
}

pub fn json(measured: &[Measured], rates: &[Rate]) -> String {
    let round = |time: f64| (time * 10.0).round() / 10.0;
    let rows = measured
        .iter()
        .map(|one| json!({"name": one.name, "p50_us": round(one.percentile(50)), "p95_us": round(one.percentile(95))}));
    let rates = rates.iter().map(|one| {
        let time = |percent| round(1e6 / one.percentile(percent));
        let (half, slow) = (time(50), time(5));
        json!({"name": one.name, "per_second": round(one.percentile(50)), "p50_us": half, "p95_us": slow})
    });
    serde_json::Value::Array(rows.chain(rates).collect()).to_string()
}

/// Returns the kernel and the number of processors.
fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {cores} processors", kernel.trim())
}
