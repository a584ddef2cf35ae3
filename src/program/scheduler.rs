//! How the program is scheduled: sched(7).

use std::time::Duration;

use crate::error::{Error, Problem, Result, Step};
use crate::plan::Plan;
use crate::sys::scheduling;
use crate::text::{hex, number, signed};

/// The hint for a scheduling that is refused.
const NEEDS: &str = "realtime, deadlines and a lower nice value need CAP_SYS_NICE on the host; on cgroup v1, realtime \
                     needs cpu.rt_runtime_us of the group as well";

const SCHED_OTHER: u32 = 0;
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;
const SCHED_DEADLINE: u32 = 6;

bitflags::bitflags! {
    /// The flags of a [`Scheduler`]: sched_setattr(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct SchedulerFlags: u64 {
        /// Children of the program begin without a realtime policy, and with no nice value below 0.
        const RESET_ON_FORK = 0x01;
        /// A deadline task may use processor time that others have reserved and do not use (4.13).
        const RECLAIM = 0x02;
        /// A deadline task gets SIGXCPU when it has used more than its run time (4.16).
        const DEADLINE_OVERRUN = 0x04;
    }
}

/// The scheduling policy of the program with its numbers: sched(7), sched_setattr(2).
///
/// ```
/// use ringfence::{Sandbox, Scheduler};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let polite = Sandbox::new().scheduler(Scheduler::batch(10));
/// let output = polite.command("cut").args(["-d ", "-f19", "/proc/self/stat"]).output()?;
/// assert_eq!(output.stdout, b"10\n");
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheduler {
    policy: u32,
    pub(crate) flags: SchedulerFlags,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: Duration,
    pub(crate) deadline: Duration,
    pub(crate) period: Duration,
}

impl Scheduler {
    fn of(policy: u32) -> Self {
        let none = Duration::ZERO;
        let flags = SchedulerFlags::empty();
        Scheduler { policy, flags, nice: 0, priority: 0, runtime: none, deadline: none, period: none }
    }

    /// The policy of most programs: `SCHED_OTHER`. `nice` is from -20, which gets most, to 19;
    /// below the caller's own it needs CAP_SYS_NICE, or a limit of
    /// [`Resource::Nice`](crate::Resource::Nice).
    pub fn other(nice: i32) -> Self {
        Scheduler { nice, ..Self::of(SCHED_OTHER) }
    }

    /// As [`other`](Scheduler::other), for programs that nobody waits for: `SCHED_BATCH`.
    pub fn batch(nice: i32) -> Self {
        Scheduler { nice, ..Self::of(SCHED_BATCH) }
    }

    /// Only while nobody else wants the processor: `SCHED_IDLE`.
    pub fn idle() -> Self {
        Self::of(SCHED_IDLE)
    }

    /// Before all others, until it waits: `SCHED_FIFO`. `priority` is from 1 to 99, which comes
    /// first. Needs CAP_SYS_NICE, or a limit of
    /// [`Resource::RealtimePriority`](crate::Resource::RealtimePriority).
    pub fn fifo(priority: u32) -> Self {
        Scheduler { priority, ..Self::of(SCHED_FIFO) }
    }

    /// As [`fifo`](Scheduler::fifo), by turns with others of the same priority: `SCHED_RR`.
    pub fn round_robin(priority: u32) -> Self {
        Scheduler { priority, ..Self::of(SCHED_RR) }
    }

    /// `runtime` of processor time within `deadline` of the begin of each `period`:
    /// `SCHED_DEADLINE`. Needs CAP_SYS_NICE, and a program that may use all processors. Such a
    /// program cannot fork, unless with [`reset_on_fork`](Scheduler::reset_on_fork).
    pub fn deadline(runtime: Duration, deadline: Duration, period: Duration) -> Self {
        Scheduler { runtime, deadline, period, ..Self::of(SCHED_DEADLINE) }
    }

    /// Adds flags.
    pub fn flags(self, flags: SchedulerFlags) -> Self {
        Scheduler { flags: self.flags | flags, ..self }
    }

    /// Adds [`SchedulerFlags::RESET_ON_FORK`].
    pub fn reset_on_fork(self) -> Self {
        self.flags(SchedulerFlags::RESET_ON_FORK)
    }

    /// Returns the scheduling as a word of letters, digits, `:` and `-` for a later process.
    pub(super) fn to_text(self) -> String {
        let (nice, priority) = (self.nice, self.priority);
        let times = [self.runtime, self.deadline, self.period].map(|time| time.as_nanos());
        let (policy, numbers) = match self.policy {
            SCHED_FIFO => ("fifo", format!(":{priority}")),
            SCHED_RR => ("rr", format!(":{priority}")),
            SCHED_BATCH => ("batch", format!(":{nice}")),
            SCHED_IDLE => ("idle", String::new()),
            SCHED_DEADLINE => ("deadline", times.map(|time| format!(":{time}")).concat()),
            _ => ("other", format!(":{nice}")),
        };
        format!("{policy}:{:x}{numbers}", self.flags.bits())
    }

    /// Reads what [`to_text`](Scheduler::to_text) has written.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(':').take(6).collect();
        let time = |text| number(text).map(Duration::from_nanos);
        let scheduler = match words[..] {
            ["other", _, nice] => Self::other(signed(nice)?),
            ["batch", _, nice] => Self::batch(signed(nice)?),
            ["idle", _] => Self::idle(),
            ["fifo", _, priority] => Self::fifo(number(priority)?),
            ["rr", _, priority] => Self::round_robin(number(priority)?),
            ["deadline", _, runtime, deadline, period] => {
                Self::deadline(time(runtime)?, time(deadline)?, time(period)?)
            }
            _ => return None,
        };
        Some(scheduler.flags(SchedulerFlags::from_bits_retain(hex(words.get(1)?)?)))
    }

    /// Returns whether a child has the same scheduling.
    pub(crate) fn survives_fork(&self) -> bool {
        self.policy != SCHED_DEADLINE && !self.flags.contains(SchedulerFlags::RESET_ON_FORK)
    }

    /// Returns the problems that hold on every kernel.
    pub(super) fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |reason: String, remedy| problems.push(Problem::invalid("scheduler", reason, remedy));
        if !(-20..=19).contains(&self.nice) {
            refuse(format!("nice {} is not between -20 and 19", self.nice), "give a number of that range");
        }
        if matches!(self.policy, SCHED_FIFO | SCHED_RR) && !(1..=99).contains(&self.priority) {
            refuse(format!("priority {} is not between 1 and 99", self.priority), "give a number of that range");
        }
        let times = [self.runtime, self.deadline, self.period];
        // The kernel counts in nanoseconds of 63 bits, and takes no run time below 1,024.
        if times.iter().any(|time| time.as_nanos() > i64::MAX as u128) {
            refuse("a time is longer than 292 years".to_owned(), "give shorter times");
        } else if self.policy == SCHED_DEADLINE && !(self.runtime >= Duration::from_nanos(1024) && times.is_sorted()) {
            let reason = "not so: 1,024 ns <= run time <= deadline <= period".to_owned();
            refuse(reason, "give times in this order");
        }
        problems
    }

    /// Returns struct sched_attr in its first form.
    fn attr(&self) -> [u64; 6] {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let two = |low: u32, high: u32| {
            let [a, b, c, d] = low.to_ne_bytes();
            let [e, f, g, h] = high.to_ne_bytes();
            u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        };
        [
            two(scheduling::SIZE, self.policy),
            self.flags.bits(),
            two(self.nice as u32, self.priority),
            nanoseconds(self.runtime),
            nanoseconds(self.deadline),
            nanoseconds(self.period),
        ]
    }

    /// Emits sched_setattr(2).
    pub(super) fn emit(&self, plan: &mut Plan) {
        let attr = plan.words(&self.attr());
        plan.call(Step::Scheduler, libc::SYS_sched_setattr, [0.into(), attr.into(), 0.into()]).hint(NEEDS);
    }

    /// Sets the scheduling of a process that this one has forked, or had forked.
    pub(crate) fn set(&self, pid: i32) -> Result<()> {
        scheduling::set(pid, self.attr()).map_err(|errno| Error::new(Step::Scheduler, errno).hint(NEEDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_their_range_are_refused() {
        let fine = [
            Scheduler::other(-20),
            Scheduler::batch(19),
            Scheduler::idle(),
            Scheduler::fifo(1),
            Scheduler::round_robin(99),
            Scheduler::deadline(Duration::from_millis(1), Duration::from_millis(2), Duration::from_millis(2)),
        ];
        assert!(fine.iter().all(|scheduler| scheduler.invalid().is_empty()));
        let ms = Duration::from_millis;
        let refused = [
            Scheduler::other(20),
            Scheduler::batch(-21),
            Scheduler::fifo(0),
            Scheduler::round_robin(100),
            Scheduler::deadline(ms(3), ms(2), ms(4)),
            Scheduler::deadline(ms(1), ms(2), ms(1)),
            Scheduler::deadline(Duration::ZERO, ms(2), ms(2)),
            Scheduler::deadline(ms(1), ms(2), Duration::MAX),
        ];
        assert!(refused.iter().all(|scheduler| scheduler.invalid().len() == 1));
    }
}
