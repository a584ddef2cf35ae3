//! One thread for all sandboxes: it ends those whose time is up, cleans up after those whose handle is gone, and notes when
//! those end that nobody waits for.
//!
//! It is started by the first sandbox, and sleeps until something is due. The end of a program that somebody waits for
//! does not wake it.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::outcome::Verdict;
use super::shared::{Key, Shared};
use crate::error::{Error, Result, Step};
use crate::sys::fork_mark::PerProcess;
use crate::sys::{table, timeout};

/// How often the removal of what would not go is tried again.
const RETRY: Duration = TURN;
/// How finely processor time is looked at when the limit is near.
const FINEST: Duration = Duration::from_millis(1);
/// How seldom, when the limit is near and nothing is used.
const COARSEST: Duration = Duration::from_millis(20);
/// When a time lies too far ahead to be told.
pub(super) const FAR: Duration = Duration::from_secs(3600);
/// How long the removal of one sandbox's things may keep the others waiting.
const TURN: Duration = Duration::from_millis(5);

/// What is to be looked at when a time has come.
#[derive(Debug, Clone)]
pub(super) enum Due {
    WallTime,
    /// The program was asked to end at its wall limit, and has had the time that it was given.
    EndOfGrace,
    CpuTime(CpuWatch),
    #[cfg(test)]
    Fault,
}

/// A limit of processor time, and what the last look at it found.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuWatch {
    limit: Duration,
    used: Duration,
    pause: Duration,
}

impl CpuWatch {
    pub(super) fn new(limit: Duration) -> Self {
        CpuWatch { limit, used: Duration::ZERO, pause: FINEST }
    }
}

#[derive(Debug)]
struct Watcher {
    /// An eventfd.
    wake: OwnedFd,
    /// The pidfds of those that nobody waits for.
    ends: Epoll,
    started: Mutex<bool>,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    deadlines: BTreeMap<Key, (Weak<Shared>, Due)>,
    orphans: Vec<Arc<Shared>>,
    asking: Vec<Weak<Shared>>,
    /// Those that nobody waits for, by their tickets.
    unattended: HashMap<u64, Weak<Shared>>,
    next: u64,
    /// Until when the thread sleeps; `None` while it is awake, and looks at the list before it sleeps again.
    asleep_until: Option<Instant>,
}

static WATCHER: PerProcess<Watcher> = PerProcess::new();

fn watcher() -> Result<&'static Watcher> {
    let failed = |errno: Errno| Error::new(Step::Spawner, errno);
    let watcher = WATCHER
        .get_or_try(|| {
            let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
            let wake = table::above_stdio(wake.into())?;
            let ends = Epoll(table::above_stdio(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0)?);
            Ok(Watcher { wake, ends, started: Mutex::new(false), list: Mutex::default() })
        })
        .map_err(failed)?;
    let mut started = watcher.started.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        let thread = thread::Builder::new().name("ringfence-watch".into()).stack_size(128 << 10);
        thread.spawn(move || watcher.run()).map_err(|error| Error::io(Step::Spawner, &error))?;
        *started = true;
    }
    drop(started);
    Ok(watcher)
}

/// Looks at the sandbox when `at` has come.
pub(super) fn at(at: Instant, shared: &Arc<Shared>, due: Due) -> Result<()> {
    let watcher = watcher()?;
    let key = watcher.insert(at, Arc::downgrade(shared), due);
    shared.add_deadline(key);
    Ok(())
}

/// Forgets deadlines of a sandbox that has ended.
pub(super) fn cancel(keys: Vec<Key>) {
    if keys.is_empty() {
        return;
    }
    if let Some(watcher) = WATCHER.get() {
        let mut list = watcher.list();
        for key in keys {
            list.deadlines.remove(&key);
        }
    }
}

/// Takes charge of a sandbox without a handle: waits for its end, then removes what was made for it.
pub(super) fn adopt(shared: Arc<Shared>) -> Result<()> {
    let watcher = watcher()?;
    watcher.list().orphans.push(shared);
    watcher.wake();
    Ok(())
}

/// Reaps a program whose filter asks a supervisor as soon as it has ended: before 6.11 a process keeps its filter until it
/// is reaped, and until then a supervisor is not told that nobody is left who could ask.
pub(super) fn reap(shared: &Arc<Shared>) -> Result<()> {
    let watcher = watcher()?;
    watcher.list().asking.push(Arc::downgrade(shared));
    watcher.wake();
    Ok(())
}

/// Has the end of a sandbox noted while nobody waits for it. Gives the ticket by which it is told to stop; none where the end
/// cannot be seen from outside, and is noted by whoever waits.
pub(super) fn note_end(shared: &Arc<Shared>) -> Option<u64> {
    let watcher = watcher().ok()?;
    let mut list = watcher.list();
    // 0 is no ticket.
    list.next += 1;
    let ticket = list.next;
    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, ticket);
    watcher.ends.add(shared.pidfd(), event).ok()?;
    list.unattended.insert(ticket, Arc::downgrade(shared));
    Some(ticket)
}

/// Leaves the end of a sandbox to who waits for it from now on.
pub(super) fn attend(ticket: u64, pidfd: BorrowedFd<'_>) {
    if let Some(watcher) = WATCHER.get() {
        watcher.list().unattended.remove(&ticket);
        // ENOENT: it was a process without a pidfd.
        let _ = watcher.ends.delete(pidfd);
    }
}

/// Does something for one sandbox: a fault in it is no reason for the others' limits not to hold.
fn alone<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

impl Watcher {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // EAGAIN: a wake-up is on its way already.
        let _ = nix::unistd::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn insert(&self, at: Instant, shared: Weak<Shared>, due: Due) -> Key {
        let mut list = self.list();
        let key = (at, list.next);
        list.next += 1;
        list.deadlines.insert(key, (shared, due));
        if list.asleep_until.is_some_and(|until| at < until) {
            self.wake();
        }
        key
    }

    fn run(&self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None);
        loop {
            self.handle_due();
            let mut running = self.handle_orphans();
            running.append(&mut self.handle_asking());
            self.sleep(&running);
        }
    }

    fn handle_due(&self) {
        let now = Instant::now();
        let mut list = self.list();
        list.asleep_until = None;
        let later = list.deadlines.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut list.deadlines, later);
        drop(list);
        for (key, (shared, due)) in due {
            let Some(shared) = shared.upgrade() else { continue };
            alone(|| match due {
                // A kill that fails leaves nobody to tell; wait and drop will see.
                Due::WallTime => match shared.facts.wall_time_grace {
                    Some(grace) => self.begin_grace(&shared, key, grace),
                    None => drop(shared.stop(Some(Verdict::WallTime))),
                },
                Due::EndOfGrace => drop(shared.stop(Some(Verdict::WallTime))),
                Due::CpuTime(watch) => self.check_cpu(&shared, key, watch),
                #[cfg(test)]
                Due::Fault => panic!("a fault of the test's"),
            });
        }
    }

    /// Asks the program to end, and looks again when its grace is over.
    fn begin_grace(&self, shared: &Arc<Shared>, key: Key, grace: Duration) {
        if shared.ask_to_end(Verdict::WallTime) {
            let end = Instant::now().checked_add(grace).unwrap_or_else(|| Instant::now() + FAR);
            let new = self.insert(end, Arc::downgrade(shared), Due::EndOfGrace);
            shared.replace_deadline(key, new);
        }
    }

    /// All cores together cannot use up what is left in less than its share of one. A program that uses nothing is looked
    /// at less and less often.
    fn check_cpu(&self, shared: &Arc<Shared>, key: Key, mut watch: CpuWatch) {
        let used = shared.group.as_ref().and_then(|group| group.cpu_usage().ok().flatten()).unwrap_or(watch.used);
        let Some(left) = watch.limit.checked_sub(used).filter(|left| !left.is_zero()) else {
            return drop(shared.stop(Some(Verdict::CpuTime)));
        };
        watch.pause = if used == watch.used { (watch.pause * 2).min(COARSEST) } else { FINEST };
        watch.used = used;
        let cores = thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let next = (left / cores).max(watch.pause).min(FAR);
        let new = self.insert(Instant::now() + next, Arc::downgrade(shared), Due::CpuTime(watch));
        shared.replace_deadline(key, new);
    }

    /// Reaps those that have ended. Gives those still running, and keeps those whose things would not go.
    fn handle_orphans(&self) -> Vec<Arc<Shared>> {
        let all = std::mem::take(&mut self.list().orphans);
        let now = Instant::now();
        let (mut running, mut stubborn) = (Vec::new(), Vec::new());
        for shared in all {
            match alone(|| shared.wait(Some(now))) {
                Some(Ok(None)) => running.push(shared),
                // An error here is a lost status: the program has ended all the same.
                _ if alone(|| shared.remove(TURN)).is_some_and(|removed| removed.is_ok()) => {}
                _ => stubborn.push(shared),
            }
        }
        let mut list = self.list();
        list.orphans.extend(running.iter().cloned());
        if !stubborn.is_empty() {
            let key = (now + RETRY, list.next);
            list.next += 1;
            list.deadlines.insert(key, (Weak::new(), Due::WallTime));
            list.orphans.append(&mut stubborn);
        }
        running
    }

    /// Reaps those that have ended, and gives those still running. What was made for them is left to the handle.
    fn handle_asking(&self) -> Vec<Arc<Shared>> {
        let all = std::mem::take(&mut self.list().asking);
        let now = Instant::now();
        let runs = |shared: &Arc<Shared>| matches!(alone(|| shared.wait(Some(now))), Some(Ok(None)));
        let running: Vec<_> = all.iter().filter_map(Weak::upgrade).filter(runs).collect();
        self.list().asking.extend(running.iter().map(Arc::downgrade));
        running
    }

    fn handle_ends(&self) {
        let mut events = [EpollEvent::empty(); 16];
        while let Ok(count @ 1..) = self.ends.wait(&mut events, EpollTimeout::ZERO) {
            for event in events.iter().take(count) {
                let shared = self.list().unattended.remove(&event.data());
                // The handle may have gone since.
                shared.and_then(|shared| shared.upgrade()).into_iter().for_each(|shared| shared.has_ended_now());
            }
        }
    }

    fn sleep(&self, running: &[Arc<Shared>]) {
        let now = Instant::now();
        let until = {
            let mut list = self.list();
            let until = list.deadlines.first_key_value().map_or(now + FAR, |((at, _), _)| *at);
            list.asleep_until = Some(until);
            until
        };
        let ends = PollFd::new(self.ends.0.as_fd(), PollFlags::POLLIN);
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN), ends];
        fds.extend(running.iter().map(|shared| PollFd::new(shared.pidfd(), PollFlags::POLLIN)));
        if let Ok(n) = poll(&mut fds, timeout::until(until))
            && n > 0
        {
            // First of all: what it tells is the time.
            self.handle_ends();
            let _ = nix::unistd::read(&self.wake, &mut [0; 8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::super::resources::Resources;
    use super::super::shared::Facts;
    use super::*;
    use crate::spawn::Running;

    #[test]
    fn a_fault_with_one_sandbox_leaves_the_limits_of_the_others() {
        let mut child = Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let pid = child.id() as i32;
        let pidfd = crate::sys::pidfd::open_any(pid).unwrap();
        let running = Running { pid, pidfd, init: None, timings: None };
        let shared = Shared::new(running, Instant::now(), Resources::default(), Facts::default());
        let shared = Arc::new(shared.unwrap());
        at(Instant::now(), &shared, Due::Fault).unwrap();
        thread::sleep(Duration::from_millis(50));
        at(Instant::now(), &shared, Due::Fault).unwrap();
        at(Instant::now() + Duration::from_millis(50), &shared, Due::WallTime).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let ended = loop {
            match child.try_wait().unwrap() {
                None if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
                ended => break ended,
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ended.and_then(|status| status.signal()), Some(libc::SIGKILL), "its time was not watched");
    }
}
