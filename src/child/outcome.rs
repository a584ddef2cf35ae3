//! The end of a program: its status, the reason, and what the program used.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cgroup::Stats;
use crate::security::Denials;
use crate::units::Bytes;

/// The reason why the program ended.
///
/// ```
/// use ringfence::{Sandbox, Verdict};
///
/// let script = "kill -SEGV $$";
/// match Sandbox::new().args(["-c", script]).status()?.verdict() {
///     Verdict::Exited(0) => println!("done"),
///     Verdict::OutOfMemory | Verdict::WallTime | Verdict::CpuTime => println!("over a limit"),
///     verdict => assert_eq!(verdict.to_string(), "killed by SIGSEGV"),
/// }
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The program exited by itself, with this code.
    Exited(i32),
    /// This signal ended the program. The program itself, the kernel,
    /// [`Child::signal`](crate::Child::signal) or [`Child::kill`](crate::Child::kill) sent the
    /// signal.
    Signaled(i32),
    /// The program failed after the kernel had killed the program, or one of its processes, at the
    /// memory limit.
    OutOfMemory,
    /// The program was killed at [`wall_time`](crate::Sandbox::wall_time).
    WallTime,
    /// The program was killed at [`cpu_time`](crate::Sandbox::cpu_time).
    CpuTime,
    /// The program was killed at [`output_limit`](crate::Sandbox::output_limit).
    OutputLimit,
    /// The caller killed the program with a [`Killer`](crate::Killer): the run was cancelled.
    Killed,
    /// SIGSYS ended the program: it made a system call for which its
    /// [`seccomp`](crate::Sandbox::seccomp) profile kills, or did not survive a trap
    /// ([`Action::Trap`](crate::Action::Trap)). This verdict does not cover the children of the
    /// program.
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
            Verdict::Killed => f.write_str("killed by the caller"),
            Verdict::Seccomp => f.write_str("killed for a forbidden system call"),
        }
    }
}

/// The resources that everything in the sandbox used, counted before its control group was removed.
/// Without a control group that counts, the numbers are those of the program and of the children
/// that the program has waited for: getrusage(2).
///
/// ```
/// use ringfence::Sandbox;
///
/// let script = "i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done";
/// let outcome = Sandbox::new().command("sh").args(["-c", script]).status()?;
/// let usage = outcome.usage();
/// println!("{:?} of processor time in {:?}", usage.user + usage.system, usage.wall);
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The time from the program's exec until its end. The time of the wait does not matter: a
    /// thread of this library notes the end of a program that nobody waits for, as soon as the
    /// kernel schedules the thread.
    pub wall: Duration,
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The most memory in use at one time. With a memory limit, this is the number of the control
    /// group, which includes the page cache; otherwise it is the largest resident set of one
    /// process. `None` if no control group counts and the program used no more than the caller: the
    /// process of the program starts with the caller's memory, and getrusage(2) then returns the
    /// caller's number.
    pub peak_memory: Option<Bytes>,
    /// The bytes read from block devices; `None` if no control group counts them.
    pub io_read: Option<Bytes>,
    /// The bytes written to block devices; `None` if no control group counts them.
    pub io_written: Option<Bytes>,
    /// The number of processes that the kernel killed at the memory limit; `None` if no control
    /// group counts them.
    pub oom_kills: Option<u64>,
    /// The number of forks that failed at the limit of processes; `None` if no control group counts
    /// them.
    pub pids_limit_hits: Option<u64>,
}

impl Usage {
    /// Returns the usage of a sandbox that another process has started, from the numbers of its
    /// control group.
    pub(crate) fn of_other(wall: Duration, stats: &Stats) -> Self {
        Usage {
            wall,
            user: stats.cpu_user.unwrap_or_default(),
            system: stats.cpu_system.unwrap_or_default(),
            peak_memory: stats.memory_peak,
            io_read: stats.io_read,
            io_written: stats.io_written,
            oom_kills: stats.oom_kills,
            pids_limit_hits: stats.pids_limit_hits,
        }
    }
}

/// The end of a program: `std::process::ExitStatus`, the reason, and the usage.
///
/// ```
/// use ringfence::Sandbox;
///
/// let outcome = Sandbox::new().args(["-c", "exit 3"]).status()?;
/// assert!(!outcome.success());
/// assert_eq!(outcome.code(), Some(3));
/// println!("{} after {:?}", outcome.verdict(), outcome.usage().wall);
/// # Ok::<(), ringfence::Error>(())
/// ```
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
            // A limit that was reached while the program was ending by itself did not end it.
            Some(reason) if status.signal().is_some() => reason,
            _ if ran_out => Verdict::OutOfMemory,
            _ => by_itself,
        };
        Outcome { status, verdict, usage }
    }

    /// Returns the outcome of a program that another process has started.
    pub(crate) fn of_other(wait_status: i32, usage: Usage) -> Self {
        Outcome::new(wait_status, None, usage)
    }

    /// Returns the same outcome with another verdict.
    pub(super) fn with_verdict(self, verdict: Verdict) -> Self {
        Outcome { verdict, ..self }
    }

    /// Returns the status as the standard library shows it.
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// Returns true if the program exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Returns the exit code, if the program exited by itself.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let outcome = Sandbox::new().command("sh").args(["-c", "exit 4"]).status()?;
    /// assert_eq!((outcome.code(), outcome.success()), (Some(4), false));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns the reason why the program ended.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns true if the kernel killed a process of the sandbox because memory ran out, also if
    /// the program coped with that and ended by itself. The call needs a
    /// [`memory_limit`](crate::Sandbox::memory_limit), whose control group counts.
    pub fn ran_out_of_memory(&self) -> bool {
        self.usage.oom_kills.is_some_and(|kills| kills > 0)
    }

    /// Returns the resources that the sandbox used.
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

/// The output of a program, and how the program ended.
///
/// ```
/// use ringfence::{Sandbox, Verdict};
///
/// let script = "echo out; echo err >&2; exit 3";
/// let output = Sandbox::new().command("sh").args(["-c", script]).output()?;
/// assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
/// assert_eq!(output.outcome.verdict(), Verdict::Exited(3));
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Output {
    /// The end of the program.
    pub outcome: Outcome,
    /// The bytes that the program wrote to stdout, if stdout was piped.
    pub stdout: Vec<u8>,
    /// The bytes that the program wrote to stderr, if stderr was piped.
    pub stderr: Vec<u8>,
    /// True if the program wrote more than [`output_limit`](crate::Sandbox::output_limit) allows;
    /// the rest is not here.
    pub truncated: bool,
    /// The system calls that the program was refused: [`Child::denials`](crate::Child::denials).
    pub denials: Option<Denials>,
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
        let coped = Outcome::new(0, None, usage);
        assert_eq!((coped.verdict(), coped.ran_out_of_memory()), (Verdict::Exited(0), true));
        assert!(!Outcome::new(0, None, Usage::default()).ran_out_of_memory());
        assert_eq!(Outcome::new(137 << 8, None, usage).verdict(), Verdict::OutOfMemory);
        assert_eq!(Verdict::Signaled(11).to_string(), "killed by SIGSEGV");
    }
}
