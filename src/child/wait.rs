//! Waiting for the end of a sandbox's program: who notices it, and what its outcome is.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::outcome::{Outcome, Usage, Verdict};
use super::shared::{REASONS, Shared};
use super::watch;
use crate::cgroup::Stats;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spawn::Init;
use crate::sys::pidfd::{self, Ended};
use crate::units::Bytes;

impl Shared {
    /// Waits for the end: for ever, until a time, or not at all (a time that has passed).
    pub(super) fn wait(&self, until: Option<Instant>) -> Result<Option<Outcome>> {
        self.require_home(Step::Wait)?;
        if let Some(outcome) = self.state().outcome {
            return Ok(Some(outcome));
        }
        match until {
            Some(until) if !self.ends_by(until)? => return Ok(None),
            // The turn is taken when there is something to reap, so that nobody waits for it.
            None if self.facts.asks => while !self.ends_by(Instant::now() + watch::FAR)? {},
            _ => {}
        }
        let _turn = self.reaping.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = self.state().outcome {
            return Ok(Some(outcome));
        }
        let ended = match pidfd::wait(self.running.pidfd.as_fd(), true) {
            Ok(ended) => ended,
            Err(Errno::ECHILD) => None,
            Err(errno) => return Err(Self::control(Step::Wait)(errno)),
        };
        // The program can reach the socket on which its init speaks: an init that was killed has said nothing.
        let killed = ended.is_some_and(|e| libc::WIFSIGNALED(e.wait_status));
        let told = self.running.init.as_ref().filter(|_| !killed).and_then(Init::ended);
        let status = told.or(ended.map(|e| e.wait_status)).or_else(|| pidfd::exit_info(self.running.pidfd.as_fd()));
        let outcome = status.map(|status| self.outcome(status, ended));
        let mut state = self.state();
        state.outcome = outcome;
        watch::cancel(std::mem::take(&mut state.deadlines));
        drop(state);
        outcome.map(Some).ok_or_else(|| {
            let text = "the program has ended, but its status was taken by somebody else";
            Error::message(ErrorKind::StatusLost, Step::Wait, text)
                .hint("do not ignore SIGCHLD or wait for any child, or use init(true), or a kernel from 6.15 on")
        })
    }

    /// Has the end noted by the thread that watches, until somebody waits.
    pub(super) fn leave_unattended(self: &Arc<Self>) {
        if let Some(ticket) = watch::note_end(self) {
            self.ticket.store(ticket, Ordering::Release);
        }
    }

    /// The calling thread is about to wait: it sees the end by itself.
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
            .or_else(|| self.ran_into_rlimit(status, &usage))
            .or_else(|| self.ran_into_filter(status))
            .or_else(|| self.ran_into_size(status));
        Outcome::new(status, reason, usage)
    }

    /// RLIMIT_CPU sends SIGXCPU, and SIGKILL a second later to who has caught that.
    fn ran_into_rlimit(&self, status: i32, usage: &Usage) -> Option<Verdict> {
        let limit = self.facts.cpu_rlimit?;
        let used_up = usage.user + usage.system >= limit;
        match libc::WTERMSIG(status) {
            libc::SIGXCPU => Some(Verdict::CpuTime),
            libc::SIGKILL if used_up => Some(Verdict::CpuTime),
            _ => None,
        }
    }

    /// What SIGXFSZ says where the limit of output limits the size of files.
    fn ran_into_size(&self, status: i32) -> Option<Verdict> {
        let by_signal = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGXFSZ;
        (self.facts.writes_file && by_signal).then_some(Verdict::OutputLimit)
    }

    /// A filter kills with SIGSYS. A program can send that to itself as well, and deceive nobody but itself.
    fn ran_into_filter(&self, status: i32) -> Option<Verdict> {
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
            peak_memory: stats.memory_peak.or_else(|| Some(Bytes::new(ended?.largest()?))),
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
