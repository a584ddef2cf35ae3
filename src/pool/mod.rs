//! Sandboxes that stand ready: their setup is done, and a spawn is one message to the stub that waits in them.

mod keeper;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::child::{Child, Outcome, Output};
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::{Parked, Prepared, Sandbox};
use crate::spawn::Misfire;
use crate::stdio::Stdio;
use keeper::Keeper;

/// How long a drop waits for a sandbox that is just being made; the thread that makes it then takes it away.
const DROP_PATIENCE: Duration = Duration::from_millis(50);
/// How long after a first failure the next sandbox is tried, and the longest that becomes when each fails.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Sandboxes of one policy that wait for their programs, made ahead in the background.
///
/// Making a sandbox is most of what a spawn costs: namespaces (a network namespace above all), mounts, control groups.
/// A pool keeps `size` of them ready, each with a process that has done the whole setup and waits. [`spawn`](Pool::spawn)
/// tells one of them its program and its streams, and gives the ordinary [`Child`]. One thread makes new ones for all pools
/// of the process, off the caller's path. So network namespaces are made ahead, too: also those within a user namespace of the
/// sandbox's own, which nobody could be given later. Where none is ready, the spawn is an ordinary one: slower, and otherwise the same.
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
/// # One program each
///
/// Every sandbox is used for one program and then discarded, with its files, processes, network and control group: nothing
/// is left for the next. Until then nothing runs in it but the waiting process, which nobody of the same user can look
/// into (prctl(2), `PR_SET_DUMPABLE`), holds none of the caller's streams, and has the policy in force but for what the
/// kernel has to be told last: limits of the process, and the filter of [`seccomp`](Sandbox::seccomp), which stands before
/// the program is executed. One that has died is replaced, and never handed out.
///
/// # What is from when
///
/// What [`Prepared`] says holds here, with one difference: what a spawn looks up, a pool has looked up when it made the
/// sandbox. A root directory that is replaced by another is the old one in those that stand ready. The umask, the working
/// directory of a policy that has neither a root nor a `cwd`, and descriptors passed by [`fd`](Sandbox::fd) are from then,
/// too; [`clear`](Pool::clear) has all of them made anew.
///
/// Limits of time and output count from the spawn. Usage does not contain the setup where a control group counts it; peak
/// memory does on cgroup v2, whose counter cannot be reset by others. A program's mounts are taken down about a millisecond
/// after its end was waited for, off the caller's path: until then unmounting what was bound says EBUSY.
///
/// # Drop, forks and the owner's death
///
/// Dropping a pool ends the sandboxes that wait, and removes what was made for them; programs that run go on. With the last
/// pool the thread ends. Waiting sandboxes die with the process, also by SIGKILL and with
/// [`die_with_owner(false)`](Sandbox::die_with_owner), which is for programs. In a fork of the caller the pool has no power: a
/// spawn is an error, and dropping it does nothing.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What a pool has done until now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// How many sandboxes are to stand ready.
    pub size: usize,
    /// How many do.
    pub ready: usize,
    /// Spawns that found one.
    pub hits: u64,
    /// Spawns that found none, and made their own.
    pub misses: u64,
    /// Sandboxes that were made ahead.
    pub refills: u64,
    /// How long it took to make these, all together.
    pub refill_time: Duration,
    /// Sandboxes that could not be made.
    pub failures: u64,
    /// Sandboxes that died while they waited.
    pub died: u64,
}

/// What the handle and the thread share.
#[derive(Debug)]
struct Shared {
    keeper: &'static Keeper,
    prepared: Prepared,
    state: Mutex<State>,
    /// Told when a sandbox has been made, or could not be.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Parked>,
    stats: PoolStats,
    closed: bool,
    /// The thread makes one for this pool.
    refilling: bool,
    /// Those that are being made are of no use any more.
    stale: bool,
    failure: Option<Error>,
    pause: Duration,
    /// No new one is tried before.
    not_before: Option<Instant>,
}

impl Sandbox {
    /// Keeps `size` sandboxes of this policy ready for programs that are told later: [`Pool`].
    ///
    /// They are made in the background: [`Pool::wait_ready`] waits for them.
    ///
    /// # Errors
    ///
    /// Those of [`prepare`](Sandbox::prepare); [`ErrorKind::Unsupported`] for a profile with
    /// [`Action::Notify`](crate::Action::Notify), whose programs each need a supervisor.
    pub fn pool(&self, size: usize) -> Result<Pool> {
        Pool::new(&self.prepare()?, size)
    }
}

impl Pool {
    /// A pool for a policy that is prepared already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] as for [`Sandbox::pool`]; the errno of a thread that cannot be started.
    pub fn new(prepared: &Prepared, size: usize) -> Result<Pool> {
        prepared.can_park()?;
        let keeper = Keeper::get()?;
        let state = State { stats: PoolStats { size, ..PoolStats::default() }, ..State::default() };
        let shared = Shared { keeper, prepared: prepared.clone(), state: Mutex::new(state), changed: Condvar::new() };
        let shared = Arc::new(shared);
        keeper.take_on(&shared)?;
        Ok(Pool { shared })
    }

    /// Starts a program in a sandbox that is ready; streams that nobody told are the caller's own.
    ///
    /// # Errors
    ///
    /// Those of [`Prepared::spawn`]; [`ErrorKind::Control`] in a fork of the caller.
    pub fn spawn(&self, command: impl Into<Command>) -> Result<Child> {
        self.launch(&command.into(), &Stdio::inherited())
    }

    /// Runs a program to its end and collects what it writes; streams that nobody told are captured, and stdin is empty.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Pool::spawn) and of [`Child::wait_with_output`].
    pub fn output(&self, command: impl Into<Command>) -> Result<Output> {
        self.launch(&command.into(), &Stdio::captured())?.wait_with_output()
    }

    /// Runs a program to its end; streams that nobody told are the caller's own.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Pool::spawn) and of [`Child::wait`].
    pub fn status(&self, command: impl Into<Command>) -> Result<Outcome> {
        self.spawn(command)?.wait()
    }

    fn launch(&self, command: &Command, default: &[Stdio; 3]) -> Result<Child> {
        let shared = &self.shared;
        shared.require_home()?;
        let mut run = shared.prepared.run(Some(command), default)?;
        while let Some(parked) = shared.take() {
            let fired = parked.fire(&shared.prepared, &mut run, keeper::bury);
            shared.used(matches!(fired, Err(Misfire::Dead)));
            match fired {
                Ok(child) => return Ok(child),
                Err(Misfire::Failed(error)) => return Err(error),
                Err(Misfire::Dead) => {}
            }
        }
        shared.state().stats.misses += 1;
        shared.keeper.wake();
        shared.prepared.launch_run(run, None)
    }

    /// Waits until as many sandboxes stand ready as are to.
    ///
    /// # Errors
    ///
    /// Why the last one could not be made; [`ErrorKind::Timeout`] if they are not ready within `timeout`.
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
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Changes how many sandboxes stand ready. What is too many is taken away before this returns.
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
        self.shared.keeper.wake();
    }

    /// Takes away the sandboxes that stand ready, and has new ones made: where something that they have looked up is another
    /// by now.
    pub fn clear(&self) {
        if !self.shared.is_home() {
            return;
        }
        let mut state = self.shared.state();
        state.stale = state.refilling;
        let old = std::mem::take(&mut state.ready);
        drop(state);
        end(old);
        self.shared.keeper.wake();
    }

    /// The policy: for spawns that are not to take a sandbox of the pool's, and for what it enforces.
    pub fn prepared(&self) -> &Prepared {
        &self.shared.prepared
    }

    /// What the pool has done until now.
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
        // In a fork another thread of the parent may hold the lock for ever. What is dropped there ends nothing.
        if self.shared.is_home() {
            self.shared.close();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process made the pool, and is not a fork of the one that did.
    fn is_home(&self) -> bool {
        self.keeper.is_here()
    }

    fn require_home(&self) -> Result<()> {
        if self.is_home() {
            return Ok(());
        }
        let text = "the pool belongs to the process that made it, of which this is a fork";
        Err(Error::message(ErrorKind::Control, Step::Spawner, text))
    }

    /// A sandbox that was ready is one no more. While there are others, the program goes first.
    fn used(&self, dead: bool) {
        let mut state = self.state();
        let stats = &mut state.stats;
        *(if dead { &mut stats.died } else { &mut stats.hits }) += 1;
        let is_low = state.ready.len() * 2 < state.stats.size;
        drop(state);
        if is_low { self.keeper.wake() } else { self.keeper.wake_soon() }
    }

    fn take(&self) -> Option<Parked> {
        let parked = self.state().ready.pop_front()?;
        self.keeper.leave(&parked);
        Some(parked)
    }

    /// Makes one sandbox if one is missing. Gives when there is more to do, if there will be.
    fn refill(&self) -> Next {
        let mut state = self.state();
        if state.closed || state.ready.len() >= state.stats.size {
            return Next::Nothing;
        }
        if let Some(at) = state.not_before.filter(|at| *at > Instant::now()) {
            return Next::At(at);
        }
        state.refilling = true;
        state.stale = false;
        drop(state);
        let begun = Instant::now();
        let made = self.prepared.park().and_then(|parked| self.keeper.watch(&parked).map(|()| parked));
        let surplus = self.state().settle(made, begun.elapsed());
        drop(surplus);
        self.changed.notify_all();
        Next::More
    }

    /// Takes out those that have died.
    fn bury(&self) {
        let mut state = self.state();
        let (dead, alive): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.ready).into_iter().partition(is_dead);
        state.ready = alive;
        state.stats.died += dead.len() as u64;
        drop(state);
        drop(dead);
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let all = std::mem::take(&mut state.ready);
        drop(state);
        end(all);
        self.keeper.wake();
        let until = Instant::now() + DROP_PATIENCE;
        let mut state = self.state();
        while state.refilling && Instant::now() < until {
            state = self.changed.wait_timeout(state, DROP_PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.keeper.rest(until);
    }
}

/// When a pool needs the thread again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    At(Instant),
    More,
}

impl State {
    /// Takes in what was made; gives it back if it is not wanted any more.
    fn settle(&mut self, made: Result<Parked>, took: Duration) -> Option<Parked> {
        self.refilling = false;
        match made {
            Ok(parked) => {
                self.stats.refills += 1;
                self.stats.refill_time += took;
                (self.failure, self.not_before, self.pause) = (None, None, Duration::ZERO);
                if self.closed || self.stale || self.ready.len() >= self.stats.size {
                    return Some(parked);
                }
                self.ready.push_back(parked);
            }
            Err(error) => {
                self.stats.failures += 1;
                self.failure = Some(error);
                self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                self.not_before = Some(Instant::now() + self.pause);
            }
        }
        None
    }
}

fn is_dead(parked: &Parked) -> bool {
    let Some(pidfd) = parked.pidfd() else { return true };
    !matches!(poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::ZERO), Ok(0) | Err(Errno::EINTR))
}

/// Ends sandboxes: all are told before the first is waited for.
fn end(all: VecDeque<Parked>) {
    all.iter().for_each(Parked::kill);
    drop(all);
}
