//! Pools of sandboxes whose setup is done, so that a spawn needs only one message to the waiting
//! stub.

mod filler;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::child::{Child, Outcome, Output};
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::launch::{Parked, Run, no_terminal_in_pool};
use crate::sandbox::{Prepared, Sandbox};
use crate::spawn::Misfire;
use crate::stdio::Stdio;
use crate::sys::mutex;
use filler::{Filler, Need, Refill};

/// The time that a drop waits for the sandboxes that are being made. After that, the threads that
/// make them remove them.
const DROP_PATIENCE: Duration = Duration::from_millis(50);
/// The pause after a first failure to make a sandbox, and the longest pause after repeated
/// failures.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A pool of sandboxes with one policy, made in advance in the background, that wait for their
/// programs.
///
/// Most of the time of a spawn goes into making the sandbox: namespaces (above all a network
/// namespace), mounts, control groups. A pool keeps `size` sandboxes ready, each with a process
/// that has done the whole setup and waits. [`spawn`](Pool::spawn) sends the program and its
/// streams to one of them, and returns an ordinary [`Child`]. Threads make new sandboxes for all
/// pools of the process in the background: one, and while several sandboxes are missing, up to one
/// for each core, four at most. Network namespaces are made in advance, too,
/// including those within a user namespace of the sandbox, which could not be added later. If no
/// sandbox is ready, the spawn makes one itself: this is slower, and otherwise the same.
///
/// ```
/// use ringfence::{Command, RootFs, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// # let sandbox = Sandbox::new();
/// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
/// let pool = sandbox.rootfs(RootFs::host()).pid_ns().net_ns().pool(2)?;
/// for word in ["one", "two", "three"] {
///     let output = pool.output(Command::new("echo").arg(word))?;
///     assert_eq!(output.stdout, format!("{word}\n").as_bytes());
/// }
/// assert_eq!(pool.stats().hits + pool.stats().misses, 3);
/// # Ok(())
/// # }
/// ```
///
/// [`try_spawn`](Pool::try_spawn) starts a program only if a sandbox is ready. `docs/pool.md` in
/// the crate says how many sandboxes a pool needs, and what they cost.
///
/// # One program each
///
/// A sandbox runs one program and is then discarded, with its files, processes, network and control
/// group: nothing is left for the next program. Before that, only the waiting process runs in it.
/// Other processes of the same user cannot inspect this process (prctl(2), `PR_SET_DUMPABLE`). It
/// holds none of the caller's streams, and the policy is in force, except for what must come last:
/// the limits of the process, and the filter of [`seccomp`](Sandbox::seccomp), which is installed
/// before the program is executed. A sandbox that has died is replaced, and never used.
///
/// # What is from when
///
/// The documentation of [`Prepared`] applies here, with one difference: what a spawn looks up was
/// looked up when the pool made the sandbox. If a root directory is replaced, sandboxes that are
/// ready still have the old one. The umask, the working directory of a policy with neither a root
/// nor a `cwd`, and descriptors passed by [`fd`](Sandbox::fd) are from that time, too.
/// [`clear`](Pool::clear) discards all sandboxes, and makes new ones.
///
/// Limits of time and output start with the spawn. Usage does not include the setup if a control
/// group counts it, except for peak memory on cgroup v2, where another process cannot reset the
/// counter. A program's mounts are released in the background, about a millisecond after the wait
/// for the program returned: until then, unmounting what was bound fails with EBUSY.
///
/// # Drop, forks and the owner's death
///
/// Dropping a pool ends the waiting sandboxes, and removes what was made for them; running programs
/// continue. The threads end with the last pool. Waiting sandboxes die with the process, even if it
/// is killed by SIGKILL, and even with [`die_with_owner(false)`](Sandbox::die_with_owner), which
/// applies to programs. In a fork of the caller the pool has no effect: a spawn is an error, and
/// dropping the pool does nothing.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// The statistics of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// The number of sandboxes that the pool keeps ready.
    pub size: usize,
    /// The number of sandboxes that are ready now.
    pub ready: usize,
    /// The number of spawns that found a sandbox ready, those by [`Pool::try_spawn`] included.
    pub hits: u64,
    /// The number of spawns that had to make a sandbox.
    pub misses: u64,
    /// The number of calls of [`Pool::try_spawn`] that found no sandbox ready, and started nothing.
    pub declined: u64,
    /// The number of sandboxes made in advance.
    pub refills: u64,
    /// The total time that these took to make.
    pub refill_time: Duration,
    /// The number of failures to make a sandbox.
    pub failures: u64,
    /// The number of sandboxes that died while they waited.
    pub died: u64,
}

/// The state that the handle and the threads share.
#[derive(Debug)]
struct Shared {
    filler: &'static Filler,
    prepared: Prepared,
    state: Mutex<State>,
    /// Notified when a sandbox was made, or could not be made.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Parked>,
    stats: PoolStats,
    closed: bool,
    /// The number of sandboxes that are being made.
    making: usize,
    /// The number of those that are to be discarded, because they were begun before a `clear`.
    stale: usize,
    /// The number of calls of `clear`.
    generation: u64,
    failure: Option<Error>,
    pause: Duration,
    /// The earliest time of the next attempt.
    not_before: Option<Instant>,
}

/// # Sandboxes that wait
impl Sandbox {
    /// Creates a [`Pool`] that keeps `size` sandboxes of this policy ready for programs.
    ///
    /// The sandboxes are made in the background. [`Pool::wait_ready`] waits for them.
    ///
    /// # Errors
    ///
    /// The errors of [`prepare`](Sandbox::prepare); [`ErrorKind::Unsupported`] for a profile with
    /// [`Action::Notify`](crate::Action::Notify), as each of its programs needs a supervisor.
    pub fn pool(&self, size: usize) -> Result<Pool> {
        Pool::new(&self.prepare()?, size)
    }
}

/// # Runs in sandboxes that wait
impl Pool {
    /// Creates a pool for a policy that is already prepared.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] as for [`Sandbox::pool`]; the errno if the first thread cannot be
    /// started.
    pub fn new(prepared: &Prepared, size: usize) -> Result<Pool> {
        prepared.can_park()?;
        let filler = Filler::get()?;
        let state = State { stats: PoolStats { size, ..PoolStats::default() }, ..State::default() };
        let shared = Shared { filler, prepared: prepared.clone(), state: Mutex::new(state), changed: Condvar::new() };
        let shared = Arc::new(shared);
        let pool: Arc<dyn Refill> = shared.clone();
        filler.add_pool(Arc::downgrade(&pool))?;
        Ok(Pool { shared })
    }

    /// Starts a program in a sandbox that is ready. By default, the program inherits the caller's
    /// streams.
    ///
    /// # Errors
    ///
    /// The errors of [`Prepared::spawn`]; [`ErrorKind::Control`] in a fork of the caller.
    pub fn spawn(&self, command: impl Into<Command>) -> Result<Child> {
        self.launch(&command.into(), &Stdio::inherited())
    }

    /// Starts a program in a sandbox that is ready, or returns `None` if there is none. This call
    /// never makes a sandbox, so a caller that has more work than the pool has sandboxes can wait,
    /// refuse the work, or do it elsewhere. By default, the program inherits the caller's streams.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::Sandbox;
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let pool = Sandbox::new().pool(1)?;
    /// pool.wait_ready(Duration::from_secs(30))?;
    /// match pool.try_spawn("true")? {
    ///     Some(mut child) => assert!(child.wait()?.success()),
    ///     None => println!("too busy"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Pool::spawn), except for those of making a sandbox, which
    /// [`wait_ready`](Pool::wait_ready) returns.
    pub fn try_spawn(&self, command: impl Into<Command>) -> Result<Option<Child>> {
        let shared = &self.shared;
        shared.require_home()?;
        let child = shared.fire(&mut shared.run(&command.into(), &Stdio::inherited())?)?;
        shared.state().stats.declined += u64::from(child.is_none());
        Ok(child)
    }

    /// Runs a program to its end and collects its output. By default, stdout and stderr are
    /// captured, and stdin is empty.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Pool::spawn) and of [`Child::wait_with_output`].
    pub fn output(&self, command: impl Into<Command>) -> Result<Output> {
        self.launch(&command.into(), &Stdio::captured())?.wait_with_output()
    }

    /// Runs a program to its end. By default, the program inherits the caller's streams.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Pool::spawn) and of [`Child::wait`].
    pub fn status(&self, command: impl Into<Command>) -> Result<Outcome> {
        self.spawn(command)?.wait()
    }

    fn launch(&self, command: &Command, default: &[Stdio; 3]) -> Result<Child> {
        self.shared.launch(command, default)
    }

    /// Returns the start of a program for another thread, like [`spawn`](Pool::spawn). `default`
    /// has the streams that the command does not set.
    #[cfg(feature = "tokio")]
    pub(crate) fn launcher(
        &self,
        command: Command,
        default: [Stdio; 3],
    ) -> impl FnOnce() -> Result<Child> + Send + 'static {
        let shared = self.shared.clone();
        move || shared.launch(&command, &default)
    }

    /// Waits until all sandboxes of the pool are ready.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Command, Sandbox};
    ///
    /// let pool = Sandbox::new().pool(1)?;
    /// pool.wait_ready(Duration::from_secs(30))?;
    /// assert!(pool.status(Command::new("true"))?.success());
    /// assert_eq!(pool.stats().hits, 1);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the last sandbox that could not be made; [`ErrorKind::Timeout`] if the
    /// sandboxes are not ready within `timeout`.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.shared.require_home()?;
        let until = Instant::now().checked_add(timeout);
        let mut state = self.shared.state();
        loop {
            if let Some(error) = state.failure.take() {
                return Err(error);
            }
            if state.ready.len() >= state.stats.size {
                return Ok(());
            }
            let left = until.map_or(LONGEST_PAUSE, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                let text =
                    format!("{} of {} sandboxes are ready after {timeout:?}", state.ready.len(), state.stats.size);
                return Err(Error::message(ErrorKind::Timeout, Step::Spawner, text));
            }
            state = mutex::wait_timeout(&self.shared.changed, state, left);
        }
    }

    /// Changes the number of sandboxes that the pool keeps ready. Excess sandboxes are removed
    /// before this call returns.
    pub fn resize(&self, size: usize) {
        if !self.shared.is_home() {
            return;
        }
        let mut state = self.shared.state();
        state.stats.size = size;
        let kept = size.min(state.ready.len());
        let surplus = state.ready.split_off(kept);
        drop(state);
        end(surplus);
        self.shared.filler.wake();
    }

    /// Removes the sandboxes that are ready, and makes new ones. Call this after a change of
    /// something that the sandboxes have looked up.
    pub fn clear(&self) {
        if !self.shared.is_home() {
            return;
        }
        let mut state = self.shared.state();
        state.generation += 1;
        state.stale = state.making;
        let old = std::mem::take(&mut state.ready);
        drop(state);
        end(old);
        self.shared.filler.wake();
    }

    /// Returns the prepared policy, for spawns without the pool and for what the policy enforces.
    pub fn prepared(&self) -> &Prepared {
        &self.shared.prepared
    }

    /// Returns the statistics of the pool.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let pool = Sandbox::new().pool(2)?;
    /// pool.status("true")?;
    /// let stats = pool.stats();
    /// assert_eq!(stats.hits + stats.misses, 1);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn stats(&self) -> PoolStats {
        if !self.shared.is_home() {
            return PoolStats::default();
        }
        let state = self.shared.state();
        PoolStats { ready: state.ready.len(), ..state.stats }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // In a fork, a thread of the parent may hold the lock forever. Dropping the pool there ends
        // nothing.
        if self.shared.is_home() {
            self.shared.close();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        mutex::lock(&self.state)
    }

    /// Returns true in the process that made the pool, and false in a fork.
    fn is_home(&self) -> bool {
        self.filler.is_here()
    }

    /// Makes a run of a command, and refuses one that wants a terminal.
    fn run(&self, command: &Command, default: &[Stdio; 3]) -> Result<Run> {
        let run = self.prepared.run(Some(command), default)?;
        if run.streams.has_pty() { Err(no_terminal_in_pool()) } else { Ok(run) }
    }

    fn launch(&self, command: &Command, default: &[Stdio; 3]) -> Result<Child> {
        self.require_home()?;
        let mut run = self.run(command, default)?;
        if let Some(child) = self.fire(&mut run)? {
            return Ok(child);
        }
        self.state().stats.misses += 1;
        self.filler.wake();
        let _counted = self.filler.count_spawn();
        self.prepared.start(run, None)
    }

    fn require_home(&self) -> Result<()> {
        if self.is_home() {
            return Ok(());
        }
        let text = "the pool belongs to the process that made it, and this is a fork";
        Err(Error::message(ErrorKind::Control, Step::Spawner, text))
    }

    /// Records that a sandbox is no longer ready. While there are others, the new program has
    /// priority.
    fn used(&self, dead: bool) {
        let mut state = self.state();
        let stats = &mut state.stats;
        *(if dead { &mut stats.died } else { &mut stats.hits }) += 1;
        let is_low = state.ready.len() * 2 < state.stats.size;
        drop(state);
        if is_low { self.filler.wake() } else { self.filler.wake_soon() }
    }

    /// Starts a program in a sandbox that is ready, if there is one.
    fn fire(&self, run: &mut Run) -> Result<Option<Child>> {
        while let Some(parked) = self.take() {
            let fired = self.prepared.fire(parked, run, filler::release_mounts);
            self.used(matches!(fired, Err(Misfire::Dead)));
            match fired {
                Ok(child) => return Ok(Some(child)),
                Err(Misfire::Failed(error)) => return Err(error),
                Err(Misfire::Dead) => {}
            }
        }
        Ok(None)
    }

    fn take(&self) -> Option<Parked> {
        let parked = self.state().ready.pop_front()?;
        self.filler.unwatch(&parked);
        Some(parked)
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let all = std::mem::take(&mut state.ready);
        drop(state);
        end(all);
        self.filler.wake();
        let until = Instant::now() + DROP_PATIENCE;
        let mut state = self.state();
        while state.making > 0 && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            state = mutex::wait_timeout(&self.changed, state, left);
        }
        drop(state);
        self.filler.join_until(until);
    }
}

impl Refill for Shared {
    fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn need(&self) -> Need {
        self.state().need()
    }

    fn refill(&self) -> bool {
        let mut state = self.state();
        if !matches!(state.need(), Need::Now(1..)) {
            return false;
        }
        state.making += 1;
        let generation = state.generation;
        drop(state);
        let begun = Instant::now();
        let made = self.prepared.park().and_then(|parked| self.filler.watch(&parked).map(|()| parked));
        let has_failed = made.is_err();
        let surplus = self.state().add_made(made, generation, begun);
        drop(surplus);
        self.changed.notify_all();
        if has_failed {
            // A thread has to wait for the time of the next attempt.
            self.filler.wake();
        }
        true
    }

    fn remove_dead(&self) {
        let mut state = self.state();
        let (dead, alive): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.ready).into_iter().partition(is_dead);
        state.ready = alive;
        state.stats.died += dead.len() as u64;
        drop(state);
        drop(dead);
    }
}

impl State {
    /// Returns the need beyond the sandboxes that are being made.
    fn need(&self) -> Need {
        let wanted = if self.closed { 0 } else { self.stats.size };
        let missing = wanted.saturating_sub(self.ready.len() + self.making - self.stale);
        match self.not_before.filter(|at| missing > 0 && *at > Instant::now()) {
            Some(at) => Need::At(at),
            None => Need::Now(missing),
        }
    }

    /// Adds a new sandbox, begun in `generation`, to the pool. Returns it if it is not wanted any
    /// more.
    fn add_made(&mut self, made: Result<Parked>, generation: u64, begun: Instant) -> Option<Parked> {
        let is_stale = generation != self.generation;
        self.making -= 1;
        self.stale -= usize::from(is_stale);
        match made {
            Ok(parked) => {
                self.stats.refills += 1;
                self.stats.refill_time += begun.elapsed();
                if is_stale {
                    return Some(parked);
                }
                (self.failure, self.not_before, self.pause) = (None, None, Duration::ZERO);
                if self.closed || self.ready.len() >= self.stats.size {
                    return Some(parked);
                }
                self.ready.push_back(parked);
            }
            Err(error) => {
                self.stats.failures += 1;
                if is_stale {
                    return None;
                }
                self.failure = Some(error);
                // Attempts that fail together are one failure.
                if self.not_before.is_none_or(|at| at <= begun) {
                    self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                    self.not_before = Some(Instant::now() + self.pause);
                }
            }
        }
        None
    }
}

fn is_dead(parked: &Parked) -> bool {
    let Some(pidfd) = parked.pidfd() else { return true };
    !matches!(poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::ZERO), Ok(0) | Err(Errno::EINTR))
}

/// Ends sandboxes: signals all before waiting for the first.
fn end(all: VecDeque<Parked>) {
    all.iter().for_each(Parked::kill);
    drop(all);
}
