//! The order of the runs: every contender has its turn in each round, in a new order each time, so that
//! noise on the machine meets all of them alike.

use std::time::Duration;

use super::contenders::Contender;
use super::group::Parents;
use super::rate;
use super::rows::Company;

/// The runs of a turn that count. One run before them does not count: the contender before leaves work to
/// the kernel, above all mount and network namespaces to remove.
const COUNTED: usize = 4;

/// The pause between two runs, the same for all contenders: the kernel removes what the run before has
/// left, and a pool makes the next sandbox. Without the pause, a contender that starts at once would find
/// a processor that is awake, and a contender that waits for a pool would not.
const PAUSE: Duration = Duration::from_millis(2);

/// The rounds after which the next ones of [`Company`] have their turns.
const BLOCK: usize = 10;

/// The length of a turn of a rate.
const RATE_TURN: Duration = Duration::from_secs(1);

/// The results of one contender.
#[derive(Debug)]
pub struct Measured {
    pub name: &'static str,
    /// The times, sorted.
    times: Vec<Duration>,
}

impl Measured {
    /// Returns a percentile in µs.
    pub fn percentile(&self, percent: usize) -> f64 {
        let index = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    }
}

/// The runs a second of one contender, on all processors.
#[derive(Debug)]
pub struct Rate {
    pub name: &'static str,
    /// The rates of the turns, sorted.
    turns: Vec<f64>,
}

impl Rate {
    /// Returns the rate that this percentage of the turns did not reach.
    pub fn percentile(&self, percent: usize) -> f64 {
        let index = (self.turns.len() * percent / 100).min(self.turns.len().saturating_sub(1));
        self.turns.get(index).copied().unwrap_or(f64::NAN)
    }
}

/// Takes the turns of the rates, if they are wanted.
pub fn rates(parents: &Parents, rounds: usize, only: &[String], told: &mut Vec<String>) -> Vec<Rate> {
    if !only.is_empty() && !only.iter().any(|name| rate::STRICT.contains(&name.as_str())) {
        return Vec::new();
    }
    match rate::strict(parents, (rounds / 10).clamp(1, 10), RATE_TURN) {
        Ok(rates) => {
            let rates = rate::STRICT.into_iter().zip(rates).map(|(name, mut turns)| {
                turns.sort_unstable_by(f64::total_cmp);
                Rate { name, turns }
            });
            rates.collect()
        }
        Err(why) => {
            told.push(format!("left out: {} ({why})", rate::STRICT.join(", ")));
            Vec::new()
        }
    }
}

/// Runs each contender twice, which makes what is made once and kept. Reports and removes the contenders that
/// fail.
pub fn first(contenders: &mut Vec<Contender>, told: &mut Vec<String>) {
    contenders.retain_mut(|contender| match contender.first() {
        Ok(()) => true,
        Err(error) => {
            told.push(format!("left out: {} ({error})", contender.name));
            false
        }
    });
}

/// Runs all rounds. A failure is an error, as each contender has run before; only the failure of a tool
/// is reported, and the tool is removed.
pub fn take(contenders: &mut [Contender], rounds: usize, told: &mut Vec<String>) -> Result<Vec<Measured>, String> {
    let mut times = vec![Vec::new(); contenders.len()];
    let mut random = 0x9e37_79b9_7f4a_7c15;
    let mut broken = Vec::new();
    for block in 0..rounds.div_ceil(BLOCK) {
        for company in Company::ALL {
            let mut order: Vec<usize> = (0..contenders.len())
                .filter(|i| !broken.contains(i) && Company::of(contenders[*i].name) == company)
                .collect();
            for _ in 0..BLOCK.min(rounds - block * BLOCK) {
                shuffle(&mut order, &mut random);
                let mut failed = Vec::new();
                for &i in &order {
                    match turn(&mut contenders[i], &mut times[i]) {
                        Err(error) if contenders[i].is_own() => return Err(format!("{}: {error}", contenders[i].name)),
                        Err(error) => failed.push((i, error)),
                        Ok(()) => {}
                    }
                }
                for (i, error) in failed {
                    told.push(format!("left out: {} (after {} runs: {error})", contenders[i].name, times[i].len()));
                    order.retain(|&other| other != i);
                    broken.push(i);
                }
            }
        }
    }
    let whole = contenders.iter().zip(times).enumerate().filter(|(i, _)| !broken.contains(i));
    let measured = whole.map(|(_, (contender, mut times))| {
        times.sort_unstable();
        Measured { name: contender.name, times }
    });
    Ok(measured.collect())
}

fn turn(contender: &mut Contender, times: &mut Vec<Duration>) -> Result<(), String> {
    for run in 0..=COUNTED {
        std::thread::sleep(PAUSE);
        let time = contender.run()?;
        if run > 0 {
            times.push(time);
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
