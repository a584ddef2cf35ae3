//! The wait for the end of a sandbox's program, and the outcome of the program.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::outcome::{Outcome, Usage, Verdict};
use super::shared::{REASONS, Shared};
use super::watch;
use crate::cgroup::Stats;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spawn::Init;
use crate::sys::mutex;
use crate::sys::pidfd::{self, Ended};
use crate::units::Bytes;

/// The pause before another attempt to reap a program that a tracer has not let go: ptrace(2). A
/// process of the sandbox can hold a program that way for as long as the process lives.
const TRACED_PAUSE: Duration = Duration::from_millis(2);

impl Shared {
    /// Waits for the end of the program: without a limit for `None`, or until the given time.
    /// Returns at once if that time has passed.
    pub(super) fn wait(&self, until: Option<Instant>) -> Result<Option<Outcome>> {
        self.require_home(Step::Wait)?;
        if let Some(outcome) = self.state().outcome {
            return Ok(Some(outcome));
        }
        let blocks = until.is_none() && !self.facts.reaped_at_once;
        match until {
            Some(until) if !self.ends_by(until)? => return Ok(None),
            // The turn is taken only when there is something to reap, so that no thread waits for
            // the turn.
            None if !blocks => while !self.ends_by(Instant::now() + watch::FAR)? {},
            _ => {}
        }
        loop {
            let turn = mutex::lock(&self.reaping);
            if let Some(outcome) = self.state().outcome {
                return Ok(Some(outcome));
            }
            match pidfd::wait(self.running.pidfd.as_fd(), blocks) {
                Ok(None) if !blocks => {}
                Ok(ended) => return self.reaped(ended),
                Err(Errno::ECHILD) => return self.reaped(None),
                Err(errno) => return Err(Self::control(Step::Wait)(errno)),
            }
            drop(turn);
            // The program has ended, and its tracer has not seen that yet.
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
            thread::sleep(TRACED_PAUSE);
        }
    }

    /// Notes the outcome of a program that has been reaped, here or elsewhere.
    fn reaped(&self, ended: Option<Ended>) -> Result<Option<Outcome>> {
        // The program can reach the socket on which its init speaks: an init that was killed has
        // said nothing.
        let killed = ended.is_some_and(|e| libc::WIFSIGNALED(e.wait_status));
        let from_init = self.running.init.as_ref().filter(|_| !killed).and_then(Init::ended);
        let status =
            from_init.or(ended.map(|e| e.wait_status)).or_else(|| pidfd::exit_info(self.running.pidfd.as_fd()));
        let outcome = status.map(|status| self.outcome(status, ended));
        if let Some(guest) = &self.running.guest {
            guest.reaped();
            if !self.facts.makes_no_siblings {
                watch::look_for_siblings();
            }
        }
        let mut state = self.state();
        state.outcome = outcome;
        watch::cancel(std::mem::take(&mut state.deadlines));
        drop(state);
        outcome.map(Some).ok_or_else(|| {
            let text = "the program has ended, but another wait took its status, or SIGCHLD is ignored";
            Error::message(ErrorKind::StatusLost, Step::Wait, text)
                .hint("do not ignore SIGCHLD or wait for any child, or use init(true), or a kernel from 6.15 on")
        })
    }

    /// Lets the watching thread note the end, until a thread waits for the program.
    pub(super) fn leave_unattended(self: &Arc<Self>) {
        if let Some(ticket) = watch::note_end(self) {
            self.ticket.store(ticket, Ordering::Release);
        }
    }

    /// Tells the watching thread that the calling thread waits, and sees the end by itself.
    pub(super) fn attend(&self) {
        let ticket = self.ticket.swap(0, Ordering::AcqRel);
        if ticket != 0 && self.is_home() {
            watch::attend(ticket, self.running.pidfd.as_fd());
        }
    }

    fn outcome(&self, status: i32, ended: Option<Ended>) -> Outcome {
        let stats = self.group.as_ref().and_then(|group| group.totals().ok()).unwrap_or_default();
        let reason = REASONS.get(usize::from(self.reason.load(Ordering::Acquire)).wrapping_sub(1)).copied();
        let usage = self.usage(&stats, ended);
        // A program that was asked to end may end in any way.
        if let Some(reason) = reason.filter(|_| self.asked.load(Ordering::Acquire)) {
            return Outcome::new(status, None, usage).with_verdict(reason);
        }
        // Limits kill: a program that died of another signal was not ended by one.
        let reason = reason.filter(|_| libc::WTERMSIG(status) == libc::SIGKILL);
        let reason = reason
            .or_else(|| self.rlimit_verdict(status, &usage))
            .or_else(|| self.filter_verdict(status))
            .or_else(|| self.file_size_verdict(status));
        Outcome::new(status, reason, usage)
    }

    /// Returns the verdict for RLIMIT_CPU, which sends SIGXCPU, and SIGKILL a second later to a
    /// program that has caught SIGXCPU.
    fn rlimit_verdict(&self, status: i32, usage: &Usage) -> Option<Verdict> {
        let limit = self.facts.cpu_rlimit?;
        let used_up = usage.user + usage.system >= limit;
        match libc::WTERMSIG(status) {
            libc::SIGXCPU => Some(Verdict::CpuTime),
            libc::SIGKILL if used_up => Some(Verdict::CpuTime),
            _ => None,
        }
    }

    /// Returns the verdict for SIGXFSZ, if the limit of output limits the size of files.
    fn file_size_verdict(&self, status: i32) -> Option<Verdict> {
        let by_signal = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGXFSZ;
        (self.facts.writes_file && by_signal).then_some(Verdict::OutputLimit)
    }

    /// Returns the verdict for SIGSYS, with which a filter kills. A program can send this signal to
    /// itself as well, but deceives nobody else with that.
    fn filter_verdict(&self, status: i32) -> Option<Verdict> {
        let by_signal = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS;
        (self.facts.seccomp && by_signal).then_some(Verdict::Seccomp)
    }

    fn usage(&self, stats: &Stats, ended: Option<Ended>) -> Usage {
        let ended_user = ended.map_or(Duration::ZERO, |e| e.user);
        let ended_system = ended.map_or(Duration::ZERO, |e| e.system);
        let before = &self.facts.before;
        let since =
            |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before.unwrap_or_default()));
        Usage {
            wall: self.ended_at.get_or_init(Instant::now).saturating_duration_since(self.started),
            user: since(stats.cpu_user, before.cpu_user).unwrap_or(ended_user),
            system: since(stats.cpu_system, before.cpu_system).unwrap_or(ended_system),
            peak_memory: stats.memory_peak.or_else(|| Some(Bytes::new(ended?.peak_memory()?))),
            io_read: bytes_since(stats.io_read, before.io_read),
            io_written: bytes_since(stats.io_written, before.io_written),
            oom_kills: stats.oom_kills,
            pids_limit_hits: stats.pids_limit_hits,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.attend();
    }
}

fn bytes_since(now: Option<Bytes>, before: Option<Bytes>) -> Option<Bytes> {
    let before = before.map_or(0, Bytes::get);
    now.map(|now| Bytes::new(now.get().saturating_sub(before)))
}
