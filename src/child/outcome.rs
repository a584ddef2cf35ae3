//! How a program ended, why, and what it used.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::units::Bytes;

/// Why the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, sent by itself, by the kernel, or with [`Child::signal`](crate::Child::signal) and
    /// [`Child::kill`](crate::Child::kill).
    Signaled(i32),
    /// It failed after the kernel had killed it, or a process of its, at the memory limit.
    OutOfMemory,
    /// It was killed at [`wall_time`](crate::Sandbox::wall_time).
    WallTime,
    /// It was killed at [`cpu_time`](crate::Sandbox::cpu_time).
    CpuTime,
    /// It was killed at [`output_limit`](crate::Sandbox::output_limit).
    OutputLimit,
    /// It made a system call for which its [`seccomp`](crate::Sandbox::seccomp) profile kills, or did not survive a trap
    /// ([`Action::Trap`](crate::Action::Trap)): it ended by SIGSYS. That one of its children did is not told here.
    Seccomp,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Exited(code) => write!(f, "exited with {code}"),
            Verdict::Signaled(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
            Verdict::OutOfMemory => f.write_str("out of memory"),
            Verdict::WallTime => f.write_str("out of wall time"),
            Verdict::CpuTime => f.write_str("out of processor time"),
            Verdict::OutputLimit => f.write_str("too much output"),
            Verdict::Seccomp => f.write_str("killed for a forbidden system call"),
        }
    }
}

/// What everything in the sandbox used, taken before its control group was removed. Where there was no group to count,
/// the figures are those of the program and the children that it has waited for: getrusage(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// From the program's exec until its end, whenever it is waited for: a thread of the library's notes the ends that nobody
    /// waits for, to within the time that it takes to be scheduled.
    pub wall: Duration,
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The most memory at one time. With a memory limit that of the control group, page cache included; else the largest
    /// resident set of one process. `None` where no control group counts and the program took no more than the caller: its
    /// process begins as one that shares the caller's memory, and what getrusage(2) tells of it is the caller's.
    pub peak_memory: Option<Bytes>,
    /// Read from block devices; `None` where no control group counts it.
    pub io_read: Option<Bytes>,
    /// Written to block devices; `None` where no control group counts it.
    pub io_written: Option<Bytes>,
    /// How many processes the kernel killed at the memory limit; `None` where no control group counts them.
    pub oom_kills: Option<u64>,
    /// How many forks failed at the limit of processes; `None` where no control group counts them.
    pub pids_limit_hits: Option<u64>,
}

/// How a program ended: `std::process::ExitStatus`, the reason, and the usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    status: ExitStatus,
    verdict: Verdict,
    usage: Usage,
}

impl Outcome {
    pub(super) fn new(wait_status: i32, reason: Option<Verdict>, usage: Usage) -> Self {
        let status = ExitStatus::from_raw(wait_status);
        let by_itself = match (status.code(), status.signal()) {
            (Some(code), _) => Verdict::Exited(code),
            (None, signal) => Verdict::Signaled(signal.unwrap_or(0)),
        };
        let ran_out = usage.oom_kills.is_some_and(|kills| kills > 0) && !status.success();
        let verdict = match reason {
            // A limit that struck while the program was ending by itself did not end it.
            Some(reason) if status.signal().is_some() => reason,
            _ if ran_out => Verdict::OutOfMemory,
            _ => by_itself,
        };
        Outcome { status, verdict, usage }
    }

    /// The same end, told otherwise.
    pub(super) fn with_verdict(self, verdict: Verdict) -> Self {
        Outcome { verdict, ..self }
    }

    /// The status, as std tells it.
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// Whether the program exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code, if the program exited by itself.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Why it ended.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What it used.
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

/// What a program wrote, and how it ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote to stdout, if that was piped.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, if that was piped.
    pub stderr: Vec<u8>,
    /// The program wrote more than [`output_limit`](crate::Sandbox::output_limit), and the rest is not here.
    pub truncated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_came_too_late_is_no_verdict() {
        let usage = Usage::default();
        assert_eq!(Outcome::new(0, Some(Verdict::WallTime), usage).verdict(), Verdict::Exited(0));
        assert_eq!(Outcome::new(9, Some(Verdict::WallTime), usage).verdict(), Verdict::WallTime);
        assert_eq!(Outcome::new(9, None, usage).verdict(), Verdict::Signaled(9));
    }

    #[test]
    fn a_killed_child_of_a_program_that_copes_is_no_verdict() {
        let usage = Usage { oom_kills: Some(1), ..Usage::default() };
        assert_eq!(Outcome::new(0, None, usage).verdict(), Verdict::Exited(0));
        assert_eq!(Outcome::new(137 << 8, None, usage).verdict(), Verdict::OutOfMemory);
        assert_eq!(Verdict::Signaled(11).to_string(), "killed by SIGSEGV");
    }
}
