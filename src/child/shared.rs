//! The state of one sandbox that its handle and the watching thread share.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::clock::WallClock;
use super::execs::Execs;
use super::outcome::{Outcome, Verdict};
use super::resources::Resources;
use crate::cgroup::{Group, Stats};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner::Scratch;
use crate::spawn::Running;
use crate::sys::fork_mark::PerProcess;
use crate::sys::{mutex, pidfd, timeout};

/// A key in the watching thread's list of deadlines.
pub(super) type Key = (Instant, u64);

/// The mark that distinguishes the process that spawned from forks of it.
static PROCESS: PerProcess<u8> = PerProcess::new();

/// The process that spawned a sandbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home(&'static u8);

impl Home {
    /// Returns true in the process that spawned, and false in a fork of that process.
    pub(super) fn is_here(self) -> bool {
        PROCESS.is_current(self.0)
    }

    pub(super) fn require(self, step: Step) -> Result<()> {
        if self.is_here() {
            return Ok(());
        }
        let text = "the sandbox belongs to the process that spawned it, of which this is a fork";
        Err(Error::message(ErrorKind::Control, step, text))
    }
}

/// The facts about a sandbox by which its handle ends the sandbox and reports how it ended.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) own_pid_ns: bool,
    pub(crate) own_process_group: bool,
    /// The processor time that RLIMIT_CPU gives each process, if no control group counts that time.
    pub(crate) cpu_rlimit: Option<Duration>,
    /// True if the program runs under a filter of this library.
    pub(crate) seccomp: bool,
    /// True if the watching thread reaps the program as soon as it has ended: a filter that asks a
    /// supervisor stays until then, and so does the pid namespace that a further program has
    /// entered.
    pub(crate) reaped_at_once: bool,
    /// True if a filter keeps the program from making siblings, which would be children of this
    /// process.
    pub(crate) makes_no_siblings: bool,
    /// True if nobody here reaps the program once its handle is detached: this process ends, and
    /// the one that becomes the program's parent wants its status.
    pub(crate) left_to_parent: bool,
    /// True if a stream is a file, whose size RLIMIT_FSIZE limits.
    pub(crate) writes_file: bool,
    /// The time between the signal at the wall limit and the kill.
    pub(crate) wall_time_grace: Option<Duration>,
    /// The signal that asks the program to end.
    pub(crate) stop_signal: i32,
    /// The numbers that the group had counted before the program was in it.
    pub(crate) before: Stats,
}

/// The program, and the resources that are removed with it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) home: Home,
    pub(super) running: Running,
    pub(super) started: Instant,
    pub(super) facts: Facts,
    pub(super) group: Option<Group>,
    /// The time when the program ended, as early as any thread has seen the end.
    pub(super) ended_at: OnceLock<Instant>,
    /// The ticket with which the watching thread is told that another thread waits. 0 if the
    /// watching thread knows.
    pub(super) ticket: AtomicU64,
    state: Mutex<State>,
    /// Held while the status is taken. If two threads took the status at once, one would come too
    /// late.
    pub(super) reaping: Mutex<()>,
    removing: Mutex<()>,
    pub(super) reason: AtomicU8,
    /// True if the sandbox has been frozen, and may still be frozen.
    frozen: AtomicBool,
    killed: AtomicBool,
    /// The program was asked to end at a limit.
    pub(super) asked: AtomicBool,
    /// The further programs that this process has started in the sandbox.
    pub(super) execs: Arc<Execs>,
}

/// The state that changes during the life of the sandbox.
#[derive(Debug)]
pub(super) struct State {
    pub(super) outcome: Option<Outcome>,
    /// All resources except the group.
    resources: Resources,
    pub(super) deadlines: Vec<Key>,
    pub(super) clock: WallClock,
    /// The deadline of the wall time.
    pub(super) wall_key: Option<Key>,
    removed: bool,
}

pub(super) const REASONS: [Verdict; 4] = [Verdict::WallTime, Verdict::CpuTime, Verdict::OutputLimit, Verdict::Killed];

impl Shared {
    pub(super) fn new(
        running: Running,
        started: Instant,
        wall_time: Option<Duration>,
        mut resources: Resources,
        facts: Facts,
    ) -> Result<Self> {
        let home = PROCESS.get_or_try(|| Ok(0)).map_err(|errno: Errno| Error::new(Step::Spawner, errno))?;
        Ok(Shared {
            home: Home(home),
            running,
            started,
            facts,
            group: resources.group.take(),
            ended_at: OnceLock::new(),
            ticket: AtomicU64::new(0),
            state: Mutex::new(State {
                outcome: None,
                resources,
                deadlines: Vec::new(),
                clock: WallClock::new(started, wall_time),
                wall_key: None,
                removed: false,
            }),
            reaping: Mutex::new(()),
            removing: Mutex::new(()),
            reason: AtomicU8::new(0),
            frozen: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            execs: Arc::default(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        mutex::lock(&self.state)
    }

    /// Returns true in the process that spawned the program, and false in a fork of that process.
    pub(super) fn is_home(&self) -> bool {
        self.home.is_here()
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
        self.home.require(step)
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

    /// Kills all processes of the sandbox. If the program is the first process of a pid namespace,
    /// the kernel kills the rest of the namespace. Otherwise the control group knows the processes
    /// of the sandbox; without a control group, the process group does.
    fn kill_tree(&self) -> Result<()> {
        self.killed.store(true, Ordering::SeqCst);
        let only_group = self.facts.own_process_group && !self.facts.own_pid_ns && self.group.is_none();
        if only_group && self.state().outcome.is_none() && pidfd::send_signal(self.running.pidfd.as_fd(), 0).is_ok() {
            // This kill comes before the kill of the program, whose end lets another thread wait
            // for it. Until then no other process can have the pid of the program, which is also
            // the id of the process group.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.running.pid), nix::sys::signal::SIGKILL);
        }
        let killed = match pidfd::send_signal(self.running.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Self::control(Step::Kill)(errno)),
        };
        // A frozen process ends only when it is thawed.
        match &self.group {
            Some(group) if !self.facts.own_pid_ns || self.frozen.load(Ordering::SeqCst) => group.kill()?,
            Some(group) => group.thaw_below(),
            None => {}
        }
        killed
    }

    /// Returns true if a kill is one system call or two. Before Linux 5.14, the kill of a control
    /// group waits for its processes.
    pub(super) fn kills_at_once(&self) -> bool {
        self.group.is_none() || (self.facts.own_pid_ns && !self.frozen.load(Ordering::SeqCst))
    }

    /// Returns the name of what the sandbox has on the host.
    pub(super) fn claim_name(&self) -> Option<String> {
        self.state().resources.claim.as_ref().map(|claim| claim.name().to_owned())
    }

    /// Returns true if what was made for the sandbox has been removed.
    pub(super) fn is_removed(&self) -> bool {
        self.state().removed
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
            // The kill may have come before the freeze was visible.
            group.kill()?;
        }
        if result.is_ok() {
            self.state().clock.freeze(Instant::now());
            // Another thread may have thawed the sandbox just now, and started the clock before.
            if !matches!(group.frozen_above(), Ok(Some(_))) {
                self.state().clock.thaw(Instant::now());
            }
        }
        result
    }

    pub(super) fn thaw(&self) -> Result<()> {
        // Another thread may freeze the sandbox again at this moment: a kill continues to treat the
        // sandbox as frozen.
        let group = self.need_group(Step::Freeze)?;
        group.thaw()?;
        self.state().clock.thaw(Instant::now());
        Ok(())
    }

    pub(super) fn need_group(&self, step: Step) -> Result<&Group> {
        self.require_home(step)?;
        self.group.as_ref().filter(|_| !self.state().removed).ok_or_else(|| {
            Error::message(ErrorKind::Control, step, "the sandbox has no control group").hint(
                "set a limit, such as memory_limit() or pids_limit(), and make this call before the program has ended",
            )
        })
    }

    /// Returns true if the program has ended, no matter which thread or process has reaped it.
    pub(super) fn has_ended(&self) -> bool {
        self.state().outcome.is_some() || self.ends_by(Instant::now()).unwrap_or(false)
    }

    /// Returns true if the program has ended, and nobody has reaped it.
    pub(super) fn is_over(&self) -> bool {
        self.state().outcome.is_none() && self.ends_by(Instant::now()).unwrap_or(false)
    }

    /// Notes the time of the end, for a later `wait`.
    pub(super) fn mark_ended(&self) {
        self.ended_at.get_or_init(Instant::now);
    }

    /// Returns true if the process ends before `until`.
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

    /// Returns the processor time that the group had counted before the program was in it.
    pub(super) fn cpu_before(&self) -> Duration {
        self.facts.before.cpu_usage.unwrap_or_default()
    }

    /// Removes what was made for the sandbox, whose program has ended. The call can be repeated for
    /// what cannot be removed in time; the owner's record lists that until it is gone.
    pub(super) fn remove(&self, timeout: Duration) -> Result<()> {
        let until = Instant::now().checked_add(timeout);
        let _turn = mutex::lock(&self.removing);
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

    /// Lets go of everything in a fork, without touching it. Another thread of the parent may have
    /// held the lock during the fork, and then nobody can ever take the lock in this process.
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
