//! The watching thread, one for all sandboxes. It ends the sandboxes whose time is up, cleans up
//! after those whose handle is gone, and notes the end of programs that nobody waits for.
//!
//! The first sandbox that needs the thread starts it. The thread sleeps until something is due. The
//! end of a program that a thread waits for does not wake the watching thread.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::clock::Left;
use super::outcome::Verdict;
use super::shared::{Key, Shared};
use crate::error::{Error, Result, Step};
use crate::spawn;
use crate::sys::fork_mark::PerProcess;
use crate::sys::{background, mutex, table, timeout};

/// The pause before a failed removal is tried again.
const RETRY: Duration = TURN;
/// The pause before the thread looks again at a program that a tracer has not let go.
const TRACED_RETRY: Duration = Duration::from_millis(50);
/// The pause before the thread looks for siblings of a program that has been reaped, and the longest
/// one before it looks again for those that still live.
const SIBLINGS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How many times longer than the last look the pause before the next one is: a program can make
/// siblings for ever.
const SIBLINGS_SHARE: u32 = 20;
/// The shortest pause between two checks of processor time, near the limit.
const FINEST: Duration = Duration::from_millis(1);
/// The longest pause between two checks, near the limit, if the program uses no processor time.
const COARSEST: Duration = Duration::from_millis(20);
/// The longest time that a thread sleeps at once. A deadline further away is checked again then.
pub(super) const FAR: Duration = Duration::from_secs(3600);
/// The longest time for which the removal for one sandbox may delay the other sandboxes.
const TURN: Duration = Duration::from_millis(5);

/// The check to make when a deadline has come.
#[derive(Debug, Clone)]
pub(super) enum Due {
    WallTime,
    /// The program was asked to end at its wall limit, and has had the time that it was given.
    EndOfGrace,
    CpuTime(CpuWatch),
    /// The handle is gone, and the kill may take a moment.
    Kill,
    /// To wake up for the next look for siblings.
    Siblings,
    #[cfg(test)]
    Fault,
}

/// A limit of processor time, and the result of the last check.
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
    /// An eventfd that wakes the thread.
    wake: OwnedFd,
    /// The pidfds of the programs that nobody waits for.
    ends: Epoll,
    started: Mutex<bool>,
    list: Mutex<List>,
}

/// A look for siblings of programs that have entered a pid namespace.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    pause: Duration,
    /// True if the last look has found none. The list of children may lack one, so this look is to
    /// confirm it.
    confirms: bool,
}

#[derive(Debug, Default)]
struct List {
    deadlines: BTreeMap<Key, (Weak<Shared>, Due)>,
    orphans: Vec<Arc<Shared>>,
    asking: Vec<Weak<Shared>>,
    /// The sandboxes that nobody waits for, by their tickets.
    unattended: HashMap<u64, Weak<Shared>>,
    /// The next look for siblings.
    siblings: Option<Look>,
    next: u64,
    /// The time until which the thread sleeps. `None` while the thread is awake; it then reads the
    /// list before it sleeps again.
    asleep_until: Option<Instant>,
}

impl List {
    /// Wakes the thread at `at`, for what it has on its lists.
    fn look_again(&mut self, at: Instant) {
        let key = (at, self.next);
        self.next += 1;
        self.deadlines.insert(key, (Weak::new(), Due::WallTime));
    }
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
    let mut started = mutex::lock(&watcher.started);
    if !*started {
        background::spawn("ringfence-watch", move || watcher.run())
            .map_err(|error| Error::io(Step::Spawner, &error))?;
        *started = true;
    }
    drop(started);
    Ok(watcher)
}

/// Adds a deadline: the thread checks the sandbox at the time `at`.
pub(super) fn add_deadline(at: Instant, shared: &Arc<Shared>, due: Due) -> Result<()> {
    let watcher = watcher()?;
    let key = watcher.insert(at, Arc::downgrade(shared), due);
    shared.add_deadline(key);
    Ok(())
}

/// Has the thread look at a sandbox when its wall time is over.
pub(super) fn watch_wall_time(shared: &Arc<Shared>) -> Result<()> {
    let now = Instant::now();
    let left = shared.state().clock.left(now);
    let at = match left {
        Left::Over => now,
        Left::Until(end) => end,
        Left::Unknown => return Ok(()),
    };
    let key = watcher()?.insert(at, Arc::downgrade(shared), Due::WallTime);
    shared.add_deadline(key);
    cancel(shared.state().wall_key.replace(key).into_iter().collect());
    Ok(())
}

/// Removes deadlines of a sandbox that has ended.
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

/// Takes charge of a sandbox without a handle: waits for its end, then removes what was made for
/// it.
pub(super) fn adopt(shared: Arc<Shared>) -> Result<()> {
    let watcher = watcher()?;
    watcher.list().orphans.push(shared);
    watcher.wake();
    Ok(())
}

/// Lets the thread reap a program as soon as it has ended. The first process of a pid namespace
/// cannot end before a further program that has entered it is reaped, and a filter may ask a
/// supervisor. Before 6.11 a process keeps its filter until it is reaped, and until then the
/// supervisor does not learn that no process is left that could ask.
pub(super) fn reap(shared: &Arc<Shared>) -> Result<()> {
    let watcher = watcher()?;
    watcher.list().asking.push(Arc::downgrade(shared));
    watcher.wake();
    Ok(())
}

/// Has the thread look for siblings of a program that has been reaped: children of this process that
/// nobody knows, and before whose end their pid namespace cannot end. If the thread cannot be
/// started, they are left.
pub(crate) fn look_for_siblings() {
    if let Ok(watcher) = watcher() {
        let pause = SIBLINGS.0;
        watcher.plan_look(Look { at: Instant::now() + pause, pause, confirms: false });
    }
}

/// Lets the thread note the end of a sandbox while nobody waits for it. Returns the ticket for
/// [`attend`]. Returns `None` if the end cannot be seen from outside; then the next wait notes the
/// end.
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

/// Stops noting the end of a sandbox: from now on the caller waits for the end.
pub(super) fn attend(ticket: u64, pidfd: BorrowedFd<'_>) {
    if let Some(watcher) = WATCHER.get() {
        watcher.list().unattended.remove(&ticket);
        // ENOENT: the process had no pidfd.
        let _ = watcher.ends.delete(pidfd);
    }
}

/// Does some work for one sandbox. A panic in this work must not disable the limits of the other
/// sandboxes.
fn catch_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

impl Watcher {
    fn list(&self) -> MutexGuard<'_, List> {
        mutex::lock(&self.list)
    }

    fn wake(&self) {
        // EAGAIN: a wake-up is pending already.
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
        loop {
            self.handle_due();
            let mut running = self.handle_orphans();
            running.append(&mut self.handle_asking());
            self.handle_siblings();
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
            catch_panic(|| match due {
                Due::WallTime => self.check_wall_time(&shared, key),
                Due::EndOfGrace => drop(shared.stop(Some(Verdict::WallTime))),
                Due::CpuTime(watch) => self.check_cpu(&shared, key, watch),
                Due::Kill => drop(shared.stop(None)),
                Due::Siblings => {}
                #[cfg(test)]
                Due::Fault => panic!("a fault injected by the test"),
            });
        }
    }

    /// Ends a program whose wall time is over. Time for which the sandbox was frozen, or another
    /// limit, moves the deadline.
    fn check_wall_time(&self, shared: &Arc<Shared>, key: Key) {
        let left = shared.state().clock.left(Instant::now());
        match (left, shared.facts.wall_time_grace) {
            (Left::Over, Some(grace)) => self.begin_grace(shared, key, grace),
            // If the kill fails, no caller can be told here; wait and drop see it later.
            (Left::Over, None) => drop(shared.stop(Some(Verdict::WallTime))),
            (Left::Until(end), _) => {
                let new = self.insert(end, Arc::downgrade(shared), Due::WallTime);
                shared.replace_deadline(key, new);
                shared.state().wall_key = Some(new);
            }
            (Left::Unknown, _) => {}
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

    /// Checks the processor time, and adds the next check. All cores together need at least the
    /// remaining time divided by the number of cores to use up the limit. The checks of a program
    /// that uses no processor time become rarer.
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

    /// Reaps the sandboxes that have ended. Returns those that still run, and keeps those whose
    /// removal failed.
    fn handle_orphans(&self) -> Vec<Arc<Shared>> {
        let all = std::mem::take(&mut self.list().orphans);
        let now = Instant::now();
        let (mut running, mut stubborn) = (Vec::new(), Vec::new());
        for shared in all {
            match catch_panic(|| shared.wait(Some(now))) {
                Some(Ok(None)) => running.push(shared),
                // An error here is a lost status: the program has ended all the same.
                _ if catch_panic(|| shared.remove(TURN)).is_some_and(|removed| removed.is_ok()) => {}
                _ => stubborn.push(shared),
            }
        }
        let mut list = self.list();
        list.orphans.extend(running.iter().cloned());
        if !stubborn.is_empty() {
            list.look_again(now + RETRY);
            list.orphans.append(&mut stubborn);
        }
        drop(list);
        self.without_traced(running)
    }

    /// Returns those of `running` whose end the thread can wait for. The others have ended, and a
    /// tracer has not let them be reaped yet: the thread looks at them again after a while.
    fn without_traced(&self, running: Vec<Arc<Shared>>) -> Vec<Arc<Shared>> {
        let (traced, others): (Vec<_>, Vec<_>) = running.into_iter().partition(|shared| shared.is_over());
        if !traced.is_empty() {
            self.list().look_again(Instant::now() + TRACED_RETRY);
        }
        others
    }

    /// Reaps the programs that have ended, and returns those that still run. The handle removes
    /// what was made for them.
    fn handle_asking(&self) -> Vec<Arc<Shared>> {
        let all = std::mem::take(&mut self.list().asking);
        let now = Instant::now();
        let runs = |shared: &Arc<Shared>| matches!(catch_panic(|| shared.wait(Some(now))), Some(Ok(None)));
        let running: Vec<_> = all.iter().filter_map(Weak::upgrade).filter(runs).collect();
        self.list().asking.extend(running.iter().map(Arc::downgrade));
        self.without_traced(running)
    }

    /// Plans a look, unless one is due before.
    fn plan_look(&self, look: Look) {
        let mut list = self.list();
        let before = list.siblings.filter(|before| before.at <= look.at);
        let confirms = look.confirms && list.siblings.is_none_or(|before| before.confirms);
        list.siblings = Some(Look { at: before.map_or(look.at, |before| before.at), confirms, ..look });
        drop(list);
        if before.is_none() {
            self.insert(look.at, Weak::new(), Due::Siblings);
        }
    }

    /// Reaps siblings if it is time to look for them, and plans the next look as long as any may be
    /// left.
    fn handle_siblings(&self) {
        let begun = Instant::now();
        let due = self.list().siblings.take_if(|look| look.at <= begun);
        let Some(look) = due else { return };
        let lives = catch_panic(spawn::reap_siblings).unwrap_or(false);
        let now = Instant::now();
        let least = (now - begun) * SIBLINGS_SHARE;
        let pause = if lives { (look.pause * 2).min(SIBLINGS.1) } else { SIBLINGS.0 }.max(least);
        if lives || !look.confirms {
            self.plan_look(Look { at: now + pause, pause, confirms: !lives });
        }
    }

    fn handle_ends(&self) {
        let mut events = [EpollEvent::empty(); 16];
        while let Ok(count @ 1..) = self.ends.wait(&mut events, EpollTimeout::ZERO) {
            for event in events.iter().take(count) {
                let shared = self.list().unattended.remove(&event.data());
                // The handle may be gone already.
                shared.and_then(|shared| shared.upgrade()).into_iter().for_each(|shared| shared.mark_ended());
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
            // This comes first, because it notes the time of the end.
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
        let running = Running { pid, pidfd, guest: None, init: None, terminal: None, timings: None };
        let now = Instant::now();
        let shared = Shared::new(running, now, Some(Duration::from_millis(60)), Resources::default(), Facts::default());
        let shared = Arc::new(shared.unwrap());
        add_deadline(Instant::now(), &shared, Due::Fault).unwrap();
        thread::sleep(Duration::from_millis(50));
        add_deadline(Instant::now(), &shared, Due::Fault).unwrap();
        watch_wall_time(&shared).unwrap();
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
