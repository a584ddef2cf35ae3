//! Runs a second, from as many threads as there are processors, without a pause between them.

use std::thread;
use std::time::{Duration, Instant};

use ringfence::Sandbox;

use super::group::Parents;
use super::rows::{self, PROGRAM, READY};

/// The names of the rates: strict sandboxes from a pool, and those of bare system calls.
pub const STRICT: [&str; 2] = ["strict-rate", "floor-strict-rate"];

/// Returns the number of threads.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the sum of the numbers that all threads make in a second.
pub fn together(work: impl Fn() -> Result<f64, String> + Sync) -> Result<f64, String> {
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads()).map(|_| scope.spawn(&work)).collect();
        all.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("a thread has panicked".to_owned()))).sum()
    })
}

/// Returns the runs of one thread in a second. The first `before` runs do not count.
pub fn for_a_turn(turn: Duration, before: usize, mut run: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    for _ in 0..before {
        run()?;
    }
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < turn {
        run()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// Returns the rates of [`STRICT`], one for each of the turns, which they take alternately. The
/// pool is empty when a turn begins to count: what counts is what it makes meanwhile.
pub fn strict(parents: &Parents, turns: usize, turn: Duration) -> Result<[Vec<f64>; 2], String> {
    let pool = Sandbox::strict().command(PROGRAM).pool(READY).map_err(|error| format!("{error:#}"))?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..turns {
        rates[0].push(together(|| {
            for_a_turn(turn, 2 * READY, || {
                let ended = pool.status(ringfence::Command::new(PROGRAM));
                rows::told(ended)
            })
        })?);
        rates[1].push(together(|| {
            let mut floor = rows::strict_floor(parents, &[PROGRAM.into()], rows::own_streams())?;
            for_a_turn(turn, 2 * READY, || floor.run().map_err(|error| error.to_string()))
        })?);
    }
    Ok(rates)
}
