//! The times of the parts of a spawn.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::error::Step;
use crate::plan::Plan;
use crate::stub::wire::{self, Record};

/// The time that each part of a spawn took: [`Child::timings`](crate::Child::timings). Its
/// `Display` is a table with a bar for each row.
///
/// The steps inside the sandbox are timed with `clock_gettime(CLOCK_REALTIME)`, which no time
/// namespace shifts; if the clock is set meanwhile, the numbers are wrong. The stub reads the clock
/// only where one sort of step follows another, so that a spawn takes only a few µs longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// The time in the caller, before there was a child: judging the policy, making the control
    /// group, opening descriptors.
    pub ahead: Duration,
    /// The time of the clone into the namespaces, and of the exec of the stub, until the stub's
    /// first step.
    pub clone: Duration,
    /// The time of the stub's steps, by the sort of step, in the order in which each sort came
    /// first. Each sort is one entry.
    pub steps: Vec<(Step, Duration)>,
    /// The time of the program's exec, until the caller knew of it. A stub under a seccomp filter
    /// cannot read the clock: with a filter, this time begins when the filter is installed.
    pub exec: Duration,
}

impl Timings {
    /// Returns the time of the whole spawn, from the call of `spawn` on.
    pub fn total(&self) -> Duration {
        self.rows().fold(Duration::ZERO, |sum, (_, time)| sum.saturating_add(time))
    }

    /// Returns the rows of the table: name and time.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        let steps = self.steps.iter().map(|(step, time)| (step.as_str(), *time));
        [("ahead, outside", self.ahead), ("clone, exec of the stub", self.clone)]
            .into_iter()
            .chain(steps)
            .chain([("exec of the program", self.exec)])
    }
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: u128 = 40;
        let longest = self.rows().map(|(_, time)| time.as_nanos()).max().unwrap_or(0).max(1);
        for (name, time) in self.rows() {
            let bar = "#".repeat((time.as_nanos().saturating_mul(WIDTH)).div_ceil(longest) as usize);
            writeln!(f, "{name:24} {:9.1} µs {bar}", time.as_secs_f64() * 1e6)?;
        }
        write!(f, "{:24} {:9.1} µs", "total", self.total().as_secs_f64() * 1e6)
    }
}

/// The times that are measured while a plan runs.
#[derive(Debug)]
pub(super) struct Stopwatch {
    timings: Timings,
    handed_over: SystemTime,
    /// The time when the stub began, and the sum of the times that it has reported.
    inside: Option<(SystemTime, Duration)>,
}

impl Stopwatch {
    /// A number of records that no stub exceeds.
    const MOST: usize = 128;

    /// Starts the measurement, just before the plan is sent.
    pub(super) fn start(begun: Instant) -> Self {
        let timings = Timings { ahead: begun.elapsed(), ..Timings::default() };
        Stopwatch { timings, handed_over: SystemTime::now(), inside: None }
    }

    /// Adds a record of the stub ([`wire::record::STAMP`]).
    pub(super) fn stamp(&mut self, record: Record, plan: &Plan) {
        let nanos = u64::from(record.errno as u32) | u64::from(record.value as u32) << 32;
        let time = Duration::from_nanos(nanos);
        let Some((_, sum)) = self.inside.as_mut().filter(|_| record.op != wire::BEGIN) else {
            self.inside = SystemTime::UNIX_EPOCH.checked_add(time).map(|begin| (begin, Duration::ZERO));
            return;
        };
        let step = plan.note(record.op).step;
        // These steps have not ended yet.
        if !matches!(step, Step::Exec | Step::Seccomp) && self.timings.steps.len() < Self::MOST {
            *sum = sum.saturating_add(time);
            self.timings.steps.push((step, time));
        }
    }

    /// Ends the measurement: the program has been executed.
    pub(super) fn stop(self) -> Timings {
        let mut timings = self.timings;
        if let Some((begin, sum)) = self.inside {
            timings.clone = begin.duration_since(self.handed_over).unwrap_or_default();
            timings.exec = begin.elapsed().unwrap_or_default().saturating_sub(sum);
        }
        timings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::wire::record;

    fn stamp(op: u32, nanos: u64) -> Record {
        Record { kind: record::STAMP, op, errno: nanos as i32, value: (nanos >> 32) as i32 }
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
    }

    #[test]
    fn what_the_stub_tells_becomes_rows() {
        let mut plan = Plan::new();
        for step in [Step::Mount, Step::Cwd, Step::Exec] {
            plan.call(step, 0, []);
        }
        let mut watch = Stopwatch::start(Instant::now());
        for record in [stamp(wire::BEGIN, now()), stamp(0, 700), stamp(1, u64::from(u32::MAX) + 2), stamp(2, 0)] {
            watch.stamp(record, &plan);
        }
        let timings = watch.stop();
        let nanos = Duration::from_nanos;
        assert_eq!(timings.steps, [(Step::Mount, nanos(700)), (Step::Cwd, nanos(0x1_0000_0001))]);
        assert_eq!(timings.rows().map(|(_, time)| time).sum::<Duration>(), timings.total());
        assert_eq!(timings.to_string().lines().count(), 6);
    }

    #[test]
    fn hostile_stamps_are_survived() {
        let mut watch = Stopwatch::start(Instant::now());
        let plan = Plan::new();
        for nanos in [0, u64::MAX, 1, u64::MAX / 2].into_iter().cycle().take(1000) {
            watch.stamp(stamp(7, nanos), &plan);
        }
        watch.stamp(stamp(wire::BEGIN, u64::MAX), &plan);
        let timings = watch.stop();
        assert_eq!((timings.steps.len(), timings.exec), (Stopwatch::MOST, Duration::ZERO));
        assert!(timings.to_string().contains("total"));
    }
}
