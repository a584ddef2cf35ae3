//! What the handle, and the thread that watches over limits, know of one sandbox.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::outcome::{Outcome, Usage, Verdict};
use super::{Past, Remains, watch};
use crate::cgroup::{Group, Stats};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::mount::RootGuard;
use crate::namespace::Lease;
use crate::owner::{Claim, Scratch};
use crate::spawn::Init;
use crate::sys::fork_mark::PerProcess;
use crate::sys::pidfd::{self, Ended};
use crate::sys::timeout;
use crate::units::Bytes;

/// Tells the process that spawned from its forks.
static PROCESS: PerProcess<u8> = PerProcess::new();

/// The program, and what is to be taken away with it.
#[derive(Debug)]
pub(super) struct Shared {
    home: &'static u8,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    init: Option<Init>,
    started: Instant,
    pub(super) group: Option<Group>,
    /// When the program ended, as far as anybody has seen it.
    ended_at: OnceLock<Instant>,
    /// By which the thread that watches is told that somebody waits; 0: it knows.
    ticket: AtomicU64,
    left: Mutex<Left>,
    /// Of two who take the status, one would come too late.
    reaping: Mutex<()>,
    removing: Mutex<()>,
    reason: AtomicU8,
    /// It has been frozen, and may still be.
    frozen: AtomicBool,
    killed: AtomicBool,
    own_pid_ns: bool,
    own_process_group: bool,
    cpu_rlimit: Option<Duration>,
    seccomp: bool,
    asks: bool,
    /// A stream is a file, whose size RLIMIT_FSIZE limits.
    writes_file: bool,
    /// Stays as long as the sandbox.
    _held: Option<RootGuard>,
    before: Stats,
}

/// What changes over the sandbox's life.
#[derive(Debug, Default)]
struct Left {
    outcome: Option<Outcome>,
    scratch: Option<Scratch>,
    claim: Option<Claim>,
    lease: Option<Lease>,
    deadlines: Vec<watch::Key>,
    mounts: Option<Remains>,
    removed: bool,
}

/// What a new sandbox consists of.
pub(super) struct New {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) init: Option<Init>,
    pub(super) started: Instant,
    pub(super) group: Option<Group>,
    pub(super) scratch: Option<Scratch>,
    pub(super) claim: Option<Claim>,
    pub(super) lease: Option<Lease>,
    pub(super) own_pid_ns: bool,
    pub(super) own_process_group: bool,
    /// The processor time that RLIMIT_CPU gives each process, where no control group counts it.
    pub(super) cpu_rlimit: Option<Duration>,
    pub(super) seccomp: bool,
    /// The watching thread waits for the program, too.
    pub(super) asks: bool,
    pub(super) writes_file: bool,
    pub(super) held: Option<RootGuard>,
    pub(super) past: Past,
}

const REASONS: [Verdict; 3] = [Verdict::WallTime, Verdict::CpuTime, Verdict::OutputLimit];

impl Shared {
    pub(super) fn new(new: New) -> Result<Self> {
        let home = PROCESS.get_or_try(|| Ok(0)).map_err(|errno: Errno| Error::new(Step::Spawner, errno))?;
        let Past { before, mounts } = new.past;
        let left = Left { scratch: new.scratch, claim: new.claim, lease: new.lease, mounts, ..Left::default() };
        Ok(Shared {
            home,
            pid: new.pid,
            pidfd: new.pidfd,
            init: new.init,
            started: new.started,
            group: new.group,
            ended_at: OnceLock::new(),
            ticket: AtomicU64::new(0),
            left: Mutex::new(left),
            reaping: Mutex::new(()),
            removing: Mutex::new(()),
            reason: AtomicU8::new(0),
            frozen: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            own_pid_ns: new.own_pid_ns,
            own_process_group: new.own_process_group,
            cpu_rlimit: new.cpu_rlimit,
            seccomp: new.seccomp,
            asks: new.asks,
            writes_file: new.writes_file,
            _held: new.held,
            before,
        })
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process spawned it, and is not a fork of the one that did.
    pub(super) fn is_home(&self) -> bool {
        PROCESS.get().is_some_and(|here| std::ptr::eq(here, self.home))
    }

    pub(super) fn add_deadline(&self, key: watch::Key) {
        self.left().deadlines.push(key);
    }

    pub(super) fn replace_deadline(&self, old: watch::Key, new: watch::Key) {
        let mut left = self.left();
        left.deadlines.retain(|key| *key != old);
        left.deadlines.push(new);
    }

    fn control(step: Step) -> impl Fn(Errno) -> Error {
        move |errno| Error::new(step, errno).with_kind(ErrorKind::Control)
    }

    fn require_home(&self, step: Step) -> Result<()> {
        if self.is_home() {
            return Ok(());
        }
        let text = "the sandbox belongs to the process that spawned it, of which this is a fork";
        Err(Error::message(ErrorKind::Control, step, text))
    }

    /// Kills everything in the sandbox; `reason` becomes the verdict.
    pub(super) fn stop(&self, reason: Option<Verdict>) -> Result<()> {
        self.require_home(Step::Kill)?;
        let code = reason.and_then(|reason| REASONS.iter().position(|r| *r == reason)).map_or(0, |i| i as u8 + 1);
        // The first reason stays. A program that has ended by itself has not ended for this one.
        if code != 0 && !self.has_ended() {
            let _ = self.reason.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        }
        self.kill_tree()
    }

    /// The kernel kills a pid namespace with its first process. Without one, the control group tells who belongs to the
    /// sandbox; without that, its process group.
    fn kill_tree(&self) -> Result<()> {
        self.killed.store(true, Ordering::SeqCst);
        let only_group = self.own_process_group && !self.own_pid_ns && self.group.is_none();
        if only_group && self.left().outcome.is_none() && pidfd::send_signal(self.pidfd.as_fd(), 0).is_ok() {
            // Before the program itself, whose end lets another thread wait for it: until then its pid, which is its
            // group's id, is nobody else's.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.pid), nix::sys::signal::SIGKILL);
        }
        let killed = match pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Self::control(Step::Kill)(errno)),
        };
        // A frozen process takes its death only when it is thawed.
        match &self.group {
            Some(group) if !self.own_pid_ns || self.frozen.load(Ordering::SeqCst) => group.kill()?,
            _ => {}
        }
        killed
    }

    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        self.require_home(Step::Signal)?;
        if self.left().outcome.is_some() {
            return Err(Self::control(Step::Signal)(Errno::ESRCH).hint("the program has ended"));
        }
        pidfd::send_signal(self.pidfd.as_fd(), signal).map_err(Self::control(Step::Signal))
    }

    pub(super) fn freeze(&self, timeout: Duration) -> Result<()> {
        let group = self.need_group(Step::Freeze)?;
        self.frozen.store(true, Ordering::SeqCst);
        let result = group.freeze(timeout);
        if self.killed.load(Ordering::SeqCst) {
            // Who killed it may not have seen that it was to be frozen.
            group.kill()?;
        }
        result
    }

    pub(super) fn thaw(&self) -> Result<()> {
        // Another thread may freeze it again at this moment: a kill goes on taking it for frozen.
        self.need_group(Step::Freeze)?.thaw()
    }

    pub(super) fn need_group(&self, step: Step) -> Result<&Group> {
        self.require_home(step)?;
        self.group.as_ref().filter(|_| !self.left().removed).ok_or_else(|| {
            Error::message(ErrorKind::Control, step, "the sandbox has no control group").hint(
                "ask for a limit, such as memory_limit() or pids_limit(), and for nothing after the program has ended",
            )
        })
    }

    /// Waits for the end: for ever, until a time, or not at all (a time that has passed).
    pub(super) fn wait(&self, until: Option<Instant>) -> Result<Option<Outcome>> {
        self.require_home(Step::Wait)?;
        if let Some(outcome) = self.left().outcome {
            return Ok(Some(outcome));
        }
        match until {
            Some(until) if !self.ends_by(until)? => return Ok(None),
            // The turn is taken when there is something to reap, so that nobody waits for it.
            None if self.asks => while !self.ends_by(Instant::now() + watch::FAR)? {},
            _ => {}
        }
        let _turn = self.reaping.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = self.left().outcome {
            return Ok(Some(outcome));
        }
        let ended = match pidfd::wait(self.pidfd.as_fd(), true) {
            Ok(ended) => ended,
            Err(Errno::ECHILD) => None,
            Err(errno) => return Err(Self::control(Step::Wait)(errno)),
        };
        // The program can reach the socket on which its init speaks: an init that was killed has said nothing.
        let killed = ended.is_some_and(|e| libc::WIFSIGNALED(e.wait_status));
        let told = self.init.as_ref().filter(|_| !killed).and_then(Init::ended);
        let status = told.or(ended.map(|e| e.wait_status)).or_else(|| pidfd::exit_info(self.pidfd.as_fd()));
        let outcome = status.map(|status| self.outcome(status, ended));
        let mut left = self.left();
        left.outcome = outcome;
        watch::cancel(std::mem::take(&mut left.deadlines));
        drop(left);
        outcome.map(Some).ok_or_else(|| {
            let text = "the program has ended, but its status was taken by somebody else";
            Error::message(ErrorKind::StatusLost, Step::Wait, text)
                .hint("do not ignore SIGCHLD or wait for any child, or use init(true), or a kernel from 6.15 on")
        })
    }

    /// Whether the program has ended, whoever has reaped it.
    fn has_ended(&self) -> bool {
        self.left().outcome.is_some() || self.ends_by(Instant::now()).unwrap_or(false)
    }

    /// Notes the time of the end, for who asks later.
    pub(super) fn has_ended_now(&self) {
        self.ended_at.get_or_init(Instant::now);
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
            watch::attend(ticket, self.pidfd.as_fd());
        }
    }

    /// Whether the process ends before `until`.
    fn ends_by(&self, until: Instant) -> Result<bool> {
        loop {
            match poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout::until(until)) {
                Ok(0) if Instant::now() >= until => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(Self::control(Step::Wait)(errno)),
            }
        }
    }

    fn outcome(&self, status: i32, ended: Option<Ended>) -> Outcome {
        let stats = self.group.as_ref().and_then(|group| group.totals().ok()).unwrap_or_default();
        let reason = REASONS.get(usize::from(self.reason.load(Ordering::Acquire)).wrapping_sub(1)).copied();
        // Limits kill: whoever died of another signal was not ended by one.
        let reason = reason.filter(|_| libc::WTERMSIG(status) == libc::SIGKILL);
        let usage = self.usage(&stats, ended);
        let reason = reason
            .or_else(|| self.ran_into_rlimit(status, &usage))
            .or_else(|| self.ran_into_filter(status))
            .or_else(|| self.ran_into_size(status));
        Outcome::new(status, reason, usage)
    }

    /// RLIMIT_CPU sends SIGXCPU, and SIGKILL a second later to who has caught that.
    fn ran_into_rlimit(&self, status: i32, usage: &Usage) -> Option<Verdict> {
        let limit = self.cpu_rlimit?;
        let used_up = usage.user + usage.system >= limit;
        match libc::WTERMSIG(status) {
            libc::SIGXCPU => Some(Verdict::CpuTime),
            libc::SIGKILL if used_up => Some(Verdict::CpuTime),
            _ => None,
        }
    }

    /// A filter kills with SIGSYS. A program can send that to itself as well, and deceive nobody but itself.
    /// What SIGXFSZ says where the limit of output limits the size of files.
    fn ran_into_size(&self, status: i32) -> Option<Verdict> {
        let by_signal = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGXFSZ;
        (self.writes_file && by_signal).then_some(Verdict::OutputLimit)
    }

    fn ran_into_filter(&self, status: i32) -> Option<Verdict> {
        let by_signal = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS;
        (self.seccomp && by_signal).then_some(Verdict::Seccomp)
    }

    fn usage(&self, stats: &Stats, ended: Option<Ended>) -> Usage {
        let ended_user = ended.map_or(Duration::ZERO, |e| e.user);
        let ended_system = ended.map_or(Duration::ZERO, |e| e.system);
        let before = &self.before;
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

    /// The processor time that was used before the program was there.
    pub(super) fn cpu_before(&self) -> Duration {
        self.before.cpu_usage.unwrap_or_default()
    }

    /// Takes away what was made for the sandbox, whose program has ended. What does not go in time can be tried again,
    /// and is on the owner's record until it has gone.
    pub(super) fn remove(&self, timeout: Duration) -> Result<()> {
        let until = Instant::now().checked_add(timeout);
        let _turn = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.left().removed {
            return Ok(());
        }
        if let Some(group) = &self.group {
            if !self.own_pid_ns {
                group.kill()?;
            }
            group.remove(timeout)?;
        }
        let scratch = self.left().scratch.take();
        if let Some(mut scratch) = scratch
            && let Err(error) = scratch.remove(until)
        {
            self.left().scratch = Some(scratch);
            return Err(error);
        }
        let mut left = self.left();
        left.removed = true;
        left.claim = None;
        let for_certain = self.own_pid_ns || self.group.is_some();
        left.lease.take().into_iter().for_each(|lease| lease.end(for_certain));
        left.mounts = None;
        Ok(())
    }

    /// In a fork: lets go of everything without touching it. Another thread of the parent may have held the lock when it
    /// forked, and holds it here for ever.
    pub(super) fn abandon(&self) {
        if let Ok(mut left) = self.left.try_lock() {
            left.removed = true;
            left.scratch.take().into_iter().for_each(Scratch::forget);
        }
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
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
