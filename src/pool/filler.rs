//! The thread that makes sandboxes for all pools of the process, and replaces those that die while
//! they wait.
//!
//! The first pool starts the thread, and it ends with the last pool.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
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

/// The pause of the thread after a spawn, which leaves the processors to the program.
const GRACE: Duration = Duration::from_millis(1);
/// The longest wait if nothing is due.
const FAR: Duration = Duration::from_secs(3600);

/// The time at which a pool needs the thread again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    At(Instant),
    More,
}

/// A pool, as the thread sees it.
pub(super) trait Refill: Debug + Send + Sync {
    fn is_closed(&self) -> bool;

    /// Removes the sandboxes that have died.
    fn remove_dead(&self);

    /// Makes one sandbox if one is missing. Returns when there is more to do.
    fn refill(&self) -> Next;
}

#[derive(Debug, Default)]
pub(super) struct Filler {
    list: Mutex<List>,
    /// Notified when the thread has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct List {
    pools: Vec<Weak<dyn Refill>>,
    /// The events that the thread waits for, while there is a thread.
    wakeup: Option<Arc<Wakeup>>,
    /// Mount namespaces of programs that have ended.
    ended_mounts: Vec<OwnedFd>,
}

/// The events that wake the thread: a call, a delayed call, or the end of a waiting sandbox.
#[derive(Debug)]
struct Wakeup {
    call: EventFd,
    timer: TimerFd,
    /// True while the timer runs.
    is_set: AtomicBool,
    epoll: Epoll,
}

static FILLER: PerProcess<Filler> = PerProcess::new();

/// Lets the thread release the mount namespace of a program that has ended. Without a thread, it is
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

    /// Wakes the thread after a short delay. Calls during the delay are combined.
    fn wake_soon(&self) {
        if self.is_set.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.timer.set(Expiration::OneShot(GRACE.into()), TimerSetTimeFlags::empty()).is_err() {
            self.wake();
        }
    }

    fn wait(&self, until: Instant) {
        // EINTR: the thread checks for work once more.
        let _ = self.epoll.wait(&mut [EpollEvent::empty(); 8], timeout::until(until));
        self.is_set.store(false, Ordering::Release);
    }
}

impl Filler {
    pub(super) fn get() -> Result<&'static Filler> {
        FILLER.get_or_try(|| Ok(Filler::default())).map_err(|errno: Errno| Error::new(Step::Spawner, errno))
    }

    /// Returns true in the process that started the thread, and false in a fork of it.
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
            let heard = wakeup.clone();
            background::spawn("ringfence-pool", move || self.serve(&heard))
                .map_err(|error| Error::io(Step::Spawner, &error))?;
            list.wakeup = Some(wakeup);
        }
        list.pools.push(pool);
        drop(list);
        self.wake();
        Ok(())
    }

    pub(super) fn wake(&self) {
        self.list().wakeup.iter().for_each(|wakeup| wakeup.wake());
    }

    /// Wakes the thread after a short delay.
    pub(super) fn wake_soon(&self) {
        self.list().wakeup.iter().for_each(|wakeup| wakeup.wake_soon());
    }

    /// Wakes the thread when the sandbox ends.
    pub(super) fn watch(&self, parked: &Parked) -> Result<()> {
        let wakeup = self.list().wakeup.clone();
        let (Some(wakeup), Some(pidfd)) = (wakeup, parked.pidfd()) else { return Ok(()) };
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        wakeup.epoll.add(pidfd, event).map_err(|errno| Error::new(Step::Spawner, errno))
    }

    /// Stops waiting for the end of the sandbox. Otherwise the thread would wake when the program
    /// ends, and delay those who wait for the program.
    pub(super) fn unwatch(&self, parked: &Parked) {
        let wakeup = self.list().wakeup.clone();
        if let (Some(wakeup), Some(pidfd)) = (wakeup, parked.pidfd()) {
            // ENOENT: the sandbox was not watched.
            let _ = wakeup.epoll.delete(pidfd);
        }
    }

    /// Waits until the thread has ended, if no pool is left, but at most until `until`.
    pub(super) fn join_until(&self, until: Instant) {
        let mut list = self.list();
        while list.wakeup.is_some() && list.open().is_empty() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            list = mutex::wait_timeout(&self.ended, list, left);
        }
    }

    /// Runs the thread.
    fn serve(&self, wakeup: &Arc<Wakeup>) {
        loop {
            let mut list = self.list();
            let ended_mounts = std::mem::take(&mut list.ended_mounts);
            let pools = list.open();
            if pools.is_empty() && ended_mounts.is_empty() {
                list.wakeup = None;
                self.ended.notify_all();
                return;
            }
            drop(list);
            drop(ended_mounts);
            // Without a pool, only what arrived meanwhile is left to do.
            let mut more = pools.is_empty();
            // Each pool gets one sandbox in turn, so that none waits until another is full.
            let mut due = Instant::now() + FAR;
            for pool in pools {
                pool.remove_dead();
                match pool.refill() {
                    Next::Nothing => {}
                    Next::At(at) => due = due.min(at),
                    Next::More => more = true,
                }
            }
            if !more {
                wakeup.wait(due);
            }
        }
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
