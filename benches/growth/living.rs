//! Many living sandboxes at once: the cost of one more spawn, and the cost of each sandbox for its
//! caller.

use super::caller::{self, Kind, State};
use super::fixture::Fixture;

/// The number of blocks of runs. Each block starts and ends all living sandboxes again, which takes
/// longer with strict ones.
const fn blocks(kind: Kind) -> usize {
    match kind {
        Kind::Full => 5,
        Kind::Strict => 2,
    }
}

/// Prints the row, and the costs.
pub fn run(fixture: &Fixture, kind: Kind, alive: usize, rounds: usize) -> Result<(), String> {
    // The case without living sandboxes is measured while none lives, in the same process: they
    // would slow the kernel down for all.
    let mut caller = caller::start(State::Nothing, fixture)?;
    let mut times = [Vec::new(), Vec::new()];
    let mut costs = Vec::new();
    for _ in 0..blocks(kind) {
        for (i, count) in [0, alive].into_iter().enumerate() {
            let before = look(&mut caller)?;
            caller.time(&kind.live(count))?;
            if count > 0 {
                costs.push((before, look(&mut caller)?));
            }
            for run in 0..rounds / blocks(kind) + 3 {
                let time = caller.time(kind.run())?;
                if run > 2 {
                    times[i].push(time);
                }
            }
        }
    }
    let [mut without, mut with] = times;
    super::tell(kind, &format!("{alive} living sandboxes"), super::median(&mut without), super::median(&mut with), 1.2);
    // Only the first time counts: later, the memory that the caller's allocator already has hides
    // the cost.
    if let Some((before, after)) = costs.first() {
        println!("what each of these sandboxes costs its caller");
        let each = |i: usize| (after[i] as f64 - before[i] as f64) / alive as f64;
        let rows =
            [("memory, KiB", each(0), 64.0), ("threads", each(1), 0.0), ("helper processes", each(3) - 1.0, 0.0)];
        for (name, cost, goal) in rows {
            let verdict = if cost <= goal { "reached" } else { "missed" };
            println!("{name:32} {cost:9.2}   goal <= {goal} {verdict}");
        }
        println!("{:32} {:9.2}", "descriptors", each(2));
    }
    Ok(())
}

/// Returns KiB, threads, descriptors and children.
fn look(caller: &mut super::served::Served) -> Result<Vec<usize>, String> {
    let answer = caller.ask("look")?;
    let numbers: Result<Vec<usize>, _> = answer.split(' ').map(str::parse).collect();
    numbers.ok().filter(|all| all.len() == 4).ok_or_else(|| format!("it said {answer:?}"))
}
