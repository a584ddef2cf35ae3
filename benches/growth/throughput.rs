//! Sandboxes per second, from as many threads as there are processors: those of the library, and
//! those of raw system calls.

use std::ffi::OsString;
use std::time::Duration;

use super::fixture::Fixture;
use super::floor::Floor;
use super::rate;
use super::rows;

/// The turns of each.
const TURNS: usize = 10;

/// Prints both numbers, and the ratio.
pub fn run(fixture: &Fixture, turn: Duration) -> Result<(), String> {
    let threads = rate::threads();
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        rates[0].push(rate::together(|| library(fixture, turn))?);
        rates[1].push(rate::together(|| floor(fixture, turn))?);
    }
    let [library, floor] = rates.map(|mut rates| {
        rates.sort_unstable_by(f64::total_cmp);
        rates[TURNS / 2]
    });
    println!("\nsandboxes per second, from {threads} threads");
    println!("{:32} {library:9.0}", "ringfence");
    println!("{:32} {floor:9.0}", "bare system calls");
    let share = library / floor;
    let verdict = if share >= 0.8 { "reached" } else { "missed" };
    println!("{:32} {share:9.2}   goal >= 0.8 {verdict}", "ratio");
    Ok(())
}

fn library(fixture: &Fixture, turn: Duration) -> Result<f64, String> {
    let sandbox = rows::full(&*fixture.root).command("/true");
    rate::for_a_turn(turn, 1, || sandbox.status().map(drop).map_err(|error| format!("{error:#}")))
}

fn floor(fixture: &Fixture, turn: Duration) -> Result<f64, String> {
    let mut floor = Floor::new(None, &fixture.root, &[OsString::from("/true")], rows::own_streams(), false, None);
    rate::for_a_turn(turn, 1, || floor.run().map_err(|error| error.to_string()))
}
