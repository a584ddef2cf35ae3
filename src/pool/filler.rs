//! The threads that make sandboxes for all pools of the process, and replace those that die while
//! they wait.
//!
//! The first pool starts a thread, which waits for events, and makes what is missing. While it
//! makes a sandbox, another thread waits for events. If more than one sandbox is missing, a thread
//! starts another, up to one for each core. Threads that nobody needs end after a while, and all
//! end with the last pool.

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use crate::error::{Error, Result, Step};
use crate::launch::Parked;
use crate::sys::fork_mark::PerProcess;
use crate::sys::{background, mutex, timeout};

/// The pause of the threads after a spawn, which leaves the processors to the program.
const GRACE: Duration = Duration::from_millis(1);
/// The most threads. More of them would wait for each other in the kernel, which has few locks for
/// all mounts and network namespaces.
const MOST_THREADS: usize = 4;
/// The time after which a thread ends that nobody needs.
const IDLE: Duration = Duration::from_secs(1);
/// The longest wait if nothing is due.
const FAR: Duration = Duration::from_secs(3600);

/// The sandboxes that a pool needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// As many more as this.
    Now(usize),
    /// Some, but not before this time.
    At(Instant),
}

/// A pool, as the threads see it.
pub(super) trait Refill: Debug + Send + Sync {
    fn is_closed(&self) -> bool;

    /// Removes the sandboxes that have died.
    fn remove_dead(&self);

    /// Returns the need beyond the sandboxes that are being made.
    fn need(&self) -> Need;

    /// Makes one sandbox if the pool needs one. Returns false if it does not.
    fn refill(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Filler {
    list: Mutex<List>,
    most_threads: usize,
    /// The number of spawns that make a sandbox by themselves.
    spawns: AtomicUsize,
    /// Notified when no thread waits for events.
    turn: Condvar,
    /// Notified when a thread ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct List {
    pools: Vec<Weak<dyn Refill>>,
    /// The events that a thread waits for, while there are threads for pools.
    wakeup: Option<Arc<Wakeup>>,
    threads: usize,
    /// The number of threads that make sandboxes.
    makers: usize,
    /// True if the thread that waits found sandboxes missing, and others at work.
    was_crowded: bool,
    /// The number of threads that neither make a sandbox nor wait for events.
    idle: usize,
    /// True while a thread waits for events, and looks for work.
    is_watched: bool,
    /// Mount namespaces of programs that have ended.
    ended_mounts: Vec<OwnedFd>,
}

/// The events that wake a thread: a call, a delayed call, or the end of a waiting sandbox.
#[derive(Debug)]
struct Wakeup {
    call: EventFd,
    timer: TimerFd,
    /// True while the timer runs.
    is_set: AtomicBool,
    epoll: Epoll,
}

static FILLER: PerProcess<Filler> = PerProcess::new();

/// Lets a thread release the mount namespace of a program that has ended. Without a thread, it is
/// released at once.
pub(super) fn release_mounts(mounts: OwnedFd) {
    let Some(filler) = FILLER.get() else { return };
    let mut list = filler.list();
    if let Some(wakeup) = list.wakeup.clone() {
        list.ended_mounts.push(mounts);
        drop(list);
        wakeup.wake_soon();
    }
}

impl Wakeup {
    fn new() -> Result<Self, Errno> {
        let call = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Edge-triggered: a fork of the caller keeps the descriptors in the list open as long as it
        // lives.
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        epoll.add(&call, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        Ok(Wakeup { call, timer, is_set: AtomicBool::new(false), epoll })
    }

    fn wake(&self) {
        // EAGAIN: many calls are pending already.
        let _ = self.call.write(1);
    }

    /// Wakes a thread after a short delay. Calls during the delay are combined.
    fn wake_soon(&self) {
        if self.is_set.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.timer.set(Expiration::OneShot(GRACE.into()), TimerSetTimeFlags::empty()).is_err() {
            self.wake();
        }
    }

    fn wait(&self, until: Instant) {
        // EINTR: the thread looks for work once more.
        let _ = self.epoll.wait(&mut [EpollEvent::empty(); 8], timeout::until(until));
        self.is_set.store(false, Ordering::Release);
    }
}

impl Filler {
    pub(super) fn get() -> Result<&'static Filler> {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let new = || {
            let (list, most_threads, spawns) = (Mutex::default(), cores().min(MOST_THREADS), AtomicUsize::new(0));
            Ok(Filler { list, most_threads, spawns, turn: Condvar::new(), ended: Condvar::new() })
        };
        FILLER.get_or_try(new).map_err(|errno: Errno| Error::new(Step::Spawner, errno))
    }

    /// Returns true in the process that started the threads, and false in a fork of it.
    pub(super) fn is_here(&self) -> bool {
        FILLER.is_current(self)
    }

    fn list(&self) -> MutexGuard<'_, List> {
        mutex::lock(&self.list)
    }

    /// Starts to fill the pool.
    pub(super) fn add_pool(&'static self, pool: Weak<dyn Refill>) -> Result<()> {
        let mut list = self.list();
        if list.wakeup.is_none() {
            let wakeup = Arc::new(Wakeup::new().map_err(|errno| Error::new(Step::Spawner, errno))?);
            self.start(&mut list).map_err(|error| Error::io(Step::Spawner, &error))?;
            list.wakeup = Some(wakeup);
        }
        list.pools.push(pool);
        drop(list);
        self.wake();
        Ok(())
    }

    fn start(&'static self, list: &mut List) -> io::Result<()> {
        background::spawn("ringfence-pool", || self.serve())?;
        list.threads += 1;
        Ok(())
    }

    pub(super) fn wake(&self) {
        self.list().wakeup.iter().for_each(|wakeup| wakeup.wake());
    }

    /// Wakes a thread after a short delay.
    pub(super) fn wake_soon(&self) {
        self.list().wakeup.iter().for_each(|wakeup| wakeup.wake_soon());
    }

    /// Wakes a thread when the sandbox ends.
    pub(super) fn watch(&self, parked: &Parked) -> Result<()> {
        let wakeup = self.list().wakeup.clone();
        let (Some(wakeup), Some(pidfd)) = (wakeup, parked.pidfd()) else { return Ok(()) };
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        wakeup.epoll.add(pidfd, event).map_err(|errno| Error::new(Step::Spawner, errno))
    }

    /// Stops waiting for the end of the sandbox. Otherwise a thread would wake when the program
    /// ends, and delay those who wait for the program.
    pub(super) fn unwatch(&self, parked: &Parked) {
        let wakeup = self.list().wakeup.clone();
        if let (Some(wakeup), Some(pidfd)) = (wakeup, parked.pidfd()) {
            // ENOENT: the sandbox was not watched.
            let _ = wakeup.epoll.delete(pidfd);
        }
    }

    /// Waits until the threads have ended, if no pool is left, but at most until `until`.
    pub(super) fn join_until(&self, until: Instant) {
        let mut list = self.list();
        while list.threads > 0 && list.open().is_empty() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            list = mutex::wait_timeout(&self.ended, list, left);
        }
    }

    /// Counts a spawn that makes a sandbox by itself, until the guard is dropped.
    pub(super) fn count_spawn(&self) -> Spawning<'_> {
        self.spawns.fetch_add(1, Ordering::Relaxed);
        Spawning(&self.spawns)
    }

    /// Runs a thread.
    fn serve(&'static self) {
        while self.await_turn() && self.await_work() {
            // Each pool gets one sandbox in turn, so that none waits until another is full.
            while self.goes_on(self.pools().into_iter().filter(|pool| pool.refill()).count() > 0) {}
        }
        self.list().threads -= 1;
        self.ended.notify_all();
    }

    fn pools(&self) -> Vec<Arc<dyn Refill>> {
        self.list().open()
    }

    /// Waits until no other thread waits for events. Returns false if the thread is not needed.
    fn await_turn(&self) -> bool {
        let until = Instant::now() + IDLE;
        let mut list = self.list();
        list.idle += 1;
        while list.is_watched && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            list = mutex::wait_timeout(&self.turn, list, left);
        }
        list.idle -= 1;
        let has_turn = !list.is_watched && list.wakeup.is_some();
        list.is_watched |= has_turn;
        has_turn
    }

    /// Waits until sandboxes are missing, and lets another thread wait then. Returns false if no
    /// pool is left.
    fn await_work(&'static self) -> bool {
        loop {
            let mut list = self.list();
            let ended_mounts = std::mem::take(&mut list.ended_mounts);
            let (pools, wakeup) = (list.open(), list.wakeup.clone());
            let Some(wakeup) = wakeup.filter(|_| !pools.is_empty() || !ended_mounts.is_empty()) else {
                list.wakeup = None;
                list.is_watched = false;
                self.turn.notify_all();
                return false;
            };
            drop(list);
            drop(ended_mounts);
            let (mut missing, mut due) = (0, Instant::now() + FAR);
            for pool in &pools {
                pool.remove_dead();
                match pool.need() {
                    Need::Now(count) => missing += count,
                    Need::At(at) => due = due.min(at),
                }
            }
            if missing > 0 && self.begin(missing > 1) {
                return true;
            }
            // Without a pool, only what arrived meanwhile is left to do.
            if !pools.is_empty() {
                drop(pools);
                wakeup.wait(due);
            }
        }
    }

    /// Lets this thread make sandboxes, unless others keep the cores busy with that, and another
    /// thread wait for events. With `more`, starts that thread if all are busy.
    fn begin(&'static self, more: bool) -> bool {
        let mut list = self.list();
        if list.makers > 0 && self.is_crowded(list.makers + 1) {
            list.was_crowded = true;
            return false;
        }
        list.makers += 1;
        list.is_watched = false;
        if more && list.idle == 0 && list.threads < self.most_threads && !self.is_crowded(list.makers + 1) {
            // EAGAIN: this thread makes what is missing, one after the other.
            let _ = self.start(&mut list);
        }
        drop(list);
        self.turn.notify_one();
        true
    }

    /// Returns whether this thread makes further sandboxes. It does not if nothing is missing, or
    /// if there are others that do, and spawns that need the cores.
    fn goes_on(&self, made: bool) -> bool {
        let mut list = self.list();
        if made && (list.makers == 1 || !self.is_crowded(list.makers)) {
            return true;
        }
        list.makers -= 1;
        if std::mem::take(&mut list.was_crowded) {
            list.wakeup.iter().for_each(|wakeup| wakeup.wake());
        }
        false
    }

    /// Returns whether `makers` threads, and the spawns that make a sandbox by themselves, are too
    /// many at once.
    fn is_crowded(&self, makers: usize) -> bool {
        makers + self.spawns.load(Ordering::Relaxed) > self.most_threads
    }
}

/// A spawn that makes a sandbox by itself.
#[derive(Debug)]
pub(super) struct Spawning<'f>(&'f AtomicUsize);

impl Drop for Spawning<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl List {
    fn open(&mut self) -> Vec<Arc<dyn Refill>> {
        self.pools.retain(|pool| pool.strong_count() > 0);
        let living = self.pools.iter().filter_map(Weak::upgrade);
        let open: Vec<_> = living.filter(|pool| !pool.is_closed()).collect();
        self.pools = open.iter().map(Arc::downgrade).collect();
        open
    }
}
