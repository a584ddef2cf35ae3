//! What the handle, and the thread that watches over limits, know of one sandbox.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::outcome::{Outcome, Verdict};
use super::resources::Resources;
use crate::cgroup::{Group, Stats};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner::Scratch;
use crate::spawn::Running;
use crate::sys::fork_mark::PerProcess;
use crate::sys::{pidfd, timeout};

/// A place in the list of deadlines of the thread that watches.
pub(super) type Key = (Instant, u64);

/// Tells the process that spawned from its forks.
static PROCESS: PerProcess<u8> = PerProcess::new();

/// The facts about a sandbox by which its handle ends it and tells how it ended.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) own_pid_ns: bool,
    pub(crate) own_process_group: bool,
    /// The processor time that RLIMIT_CPU gives each process, where no control group counts it.
    pub(crate) cpu_rlimit: Option<Duration>,
    /// The program stands under a filter of ours.
    pub(crate) seccomp: bool,
    /// That filter asks somebody, and the watching thread waits for the program, too.
    pub(crate) asks: bool,
    /// A stream is a file, whose size RLIMIT_FSIZE limits.
    pub(crate) writes_file: bool,
    /// The time between the signal at the wall limit and the kill.
    pub(crate) wall_time_grace: Option<Duration>,
    /// The signal that asks the program to end.
    pub(crate) stop_signal: i32,
    /// What the group had counted before the program was there.
    pub(crate) before: Stats,
}

/// The program, and what is to be taken away with it.
#[derive(Debug)]
pub(super) struct Shared {
    home: &'static u8,
    pub(super) running: Running,
    pub(super) started: Instant,
    pub(super) facts: Facts,
    pub(super) group: Option<Group>,
    /// When the program ended, as far as anybody has seen it.
    pub(super) ended_at: OnceLock<Instant>,
    /// By which the thread that watches is told that somebody waits; 0: it knows.
    pub(super) ticket: AtomicU64,
    state: Mutex<State>,
    /// Of two who take the status, one would come too late.
    pub(super) reaping: Mutex<()>,
    removing: Mutex<()>,
    pub(super) reason: AtomicU8,
    /// It has been frozen, and may still be.
    frozen: AtomicBool,
    killed: AtomicBool,
    /// The program was asked to end at a limit.
    pub(super) asked: AtomicBool,
}

/// What changes over the sandbox's life.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) outcome: Option<Outcome>,
    /// All but the group.
    resources: Resources,
    pub(super) deadlines: Vec<Key>,
    removed: bool,
}

pub(super) const REASONS: [Verdict; 3] = [Verdict::WallTime, Verdict::CpuTime, Verdict::OutputLimit];

impl Shared {
    pub(super) fn new(running: Running, started: Instant, mut resources: Resources, facts: Facts) -> Result<Self> {
        let home = PROCESS.get_or_try(|| Ok(0)).map_err(|errno: Errno| Error::new(Step::Spawner, errno))?;
        Ok(Shared {
            home,
            running,
            started,
            facts,
            group: resources.group.take(),
            ended_at: OnceLock::new(),
            ticket: AtomicU64::new(0),
            state: Mutex::new(State { resources, ..State::default() }),
            reaping: Mutex::new(()),
            removing: Mutex::new(()),
            reason: AtomicU8::new(0),
            frozen: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process spawned it, and is not a fork of the one that did.
    pub(super) fn is_home(&self) -> bool {
        PROCESS.get().is_some_and(|here| std::ptr::eq(here, self.home))
    }

    pub(super) fn add_deadline(&self, key: Key) {
        self.state().deadlines.push(key);
    }

    pub(super) fn replace_deadline(&self, old: Key, new: Key) {
        let mut state = self.state();
        state.deadlines.retain(|key| *key != old);
        state.deadlines.push(new);
    }

    pub(super) fn control(step: Step) -> impl Fn(Errno) -> Error {
        move |errno| Error::new(step, errno).with_kind(ErrorKind::Control)
    }

    pub(super) fn require_home(&self, step: Step) -> Result<()> {
        if self.is_home() {
            return Ok(());
        }
        let text = "the sandbox belongs to the process that spawned it, of which this is a fork";
        Err(Error::message(ErrorKind::Control, step, text))
    }

    /// Kills everything in the sandbox; `reason` becomes the verdict.
    pub(super) fn stop(&self, reason: Option<Verdict>) -> Result<()> {
        self.require_home(Step::Kill)?;
        if let Some(reason) = reason {
            self.note_reason(reason);
        }
        self.kill_tree()
    }

    /// Asks the program to end; `reason` becomes the verdict, however the program ends. Returns
    /// false if the program has ended by itself.
    pub(super) fn ask_to_end(&self, reason: Verdict) -> bool {
        if !self.is_home() || !self.note_reason(reason) {
            return false;
        }
        self.asked.store(true, Ordering::Release);
        let _ = pidfd::send_signal(self.running.pidfd.as_fd(), self.facts.stop_signal);
        true
    }

    /// Notes why the program is ended. The first reason stays. Returns false for a program that has
    /// ended by itself, and so not for this reason.
    fn note_reason(&self, reason: Verdict) -> bool {
        let Some(place) = REASONS.iter().position(|known| *known == reason) else { return false };
        let runs = !self.has_ended();
        if runs {
            let _ = self.reason.compare_exchange(0, place as u8 + 1, Ordering::AcqRel, Ordering::Acquire);
        }
        runs
    }

    /// The kernel kills a pid namespace with its first process. Without one, the control group tells who belongs to the
    /// sandbox; without that, its process group.
    fn kill_tree(&self) -> Result<()> {
        self.killed.store(true, Ordering::SeqCst);
        let only_group = self.facts.own_process_group && !self.facts.own_pid_ns && self.group.is_none();
        if only_group && self.state().outcome.is_none() && pidfd::send_signal(self.running.pidfd.as_fd(), 0).is_ok() {
            // Before the program itself, whose end lets another thread wait for it: until then its pid, which is its
            // group's id, is nobody else's.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.running.pid), nix::sys::signal::SIGKILL);
        }
        let killed = match pidfd::send_signal(self.running.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Self::control(Step::Kill)(errno)),
        };
        // A frozen process takes its death only when it is thawed.
        match &self.group {
            Some(group) if !self.facts.own_pid_ns || self.frozen.load(Ordering::SeqCst) => group.kill()?,
            _ => {}
        }
        killed
    }

    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        self.require_home(Step::Signal)?;
        if self.state().outcome.is_some() {
            return Err(Self::control(Step::Signal)(Errno::ESRCH).hint("the program has ended"));
        }
        pidfd::send_signal(self.running.pidfd.as_fd(), signal).map_err(Self::control(Step::Signal))
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
        self.group.as_ref().filter(|_| !self.state().removed).ok_or_else(|| {
            Error::message(ErrorKind::Control, step, "the sandbox has no control group").hint(
                "ask for a limit, such as memory_limit() or pids_limit(), and for nothing after the program has ended",
            )
        })
    }

    /// Whether the program has ended, whoever has reaped it.
    fn has_ended(&self) -> bool {
        self.state().outcome.is_some() || self.ends_by(Instant::now()).unwrap_or(false)
    }

    /// Notes the time of the end, for who asks later.
    pub(super) fn has_ended_now(&self) {
        self.ended_at.get_or_init(Instant::now);
    }

    /// Whether the process ends before `until`.
    pub(super) fn ends_by(&self, until: Instant) -> Result<bool> {
        loop {
            match poll(&mut [PollFd::new(self.running.pidfd.as_fd(), PollFlags::POLLIN)], timeout::until(until)) {
                Ok(0) if Instant::now() >= until => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(Self::control(Step::Wait)(errno)),
            }
        }
    }

    /// The processor time that was used before the program was there.
    pub(super) fn cpu_before(&self) -> Duration {
        self.facts.before.cpu_usage.unwrap_or_default()
    }

    /// Takes away what was made for the sandbox, whose program has ended. What does not go in time can be tried again,
    /// and is on the owner's record until it has gone.
    pub(super) fn remove(&self, timeout: Duration) -> Result<()> {
        let until = Instant::now().checked_add(timeout);
        let _turn = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().removed {
            return Ok(());
        }
        if let Some(group) = &self.group {
            if !self.facts.own_pid_ns {
                group.kill()?;
            }
            group.remove(timeout)?;
        }
        let scratch = self.state().resources.scratch.take();
        if let Some(mut scratch) = scratch
            && let Err(error) = scratch.remove(until)
        {
            self.state().resources.scratch = Some(scratch);
            return Err(error);
        }
        let mut state = self.state();
        state.removed = true;
        let resources = &mut state.resources;
        resources.claim = None;
        let for_certain = self.facts.own_pid_ns || self.group.is_some();
        resources.lease.take().into_iter().for_each(|lease| lease.end(for_certain));
        resources.mount_ns = None;
        Ok(())
    }

    /// In a fork: lets go of everything without touching it. Another thread of the parent may have held the lock when it
    /// forked, and holds it here for ever.
    pub(super) fn abandon(&self) {
        if let Ok(mut state) = self.state.try_lock() {
            state.removed = true;
            state.resources.scratch.take().into_iter().for_each(Scratch::forget);
        }
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.running.pidfd.as_fd()
    }
}
