//! Sandboxes per second, from as many threads as there are processors: those of the library, and
//! those of raw system calls.

use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant};

use super::floor::Floor;
use super::ground::Ground;
use super::rows;

/// The turns of each.
const TURNS: usize = 10;

/// Prints both numbers, and the ratio.
pub fn run(ground: &Ground, turn: Duration) -> Result<(), String> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        rates[0].push(together(threads, || library(ground, turn))?);
        rates[1].push(together(threads, || floor(ground, turn))?);
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

/// Returns the sum of the numbers that all threads make in a second.
fn together(threads: usize, work: impl Fn() -> Result<f64, String> + Sync) -> Result<f64, String> {
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        all.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("a thread has panicked".to_owned()))).sum()
    })
}

fn library(ground: &Ground, turn: Duration) -> Result<f64, String> {
    let sandbox = rows::full(&*ground.root).command("/true");
    for_a_turn(turn, || sandbox.status().map(drop).map_err(|error| format!("{error:#}")))
}

fn floor(ground: &Ground, turn: Duration) -> Result<f64, String> {
    let mut floor = Floor::new(None, &ground.root, &[OsString::from("/true")], rows::own_streams(), false, None);
    for_a_turn(turn, || floor.run().map_err(|error| error.to_string()))
}

fn for_a_turn(turn: Duration, mut run: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    run()?;
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < turn {
        run()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
