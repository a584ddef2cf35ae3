//! The stream of what happens to a sandbox while it runs.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::Child;
use super::execs::Execs;
use super::outcome::Usage;
use super::shared::Shared;
use crate::cgroup::{Counts, Group, GroupWatch, PressureTrigger, PsiResource, PsiThreshold};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{table, timeout};

/// Something that happened to a sandbox. Numbers are totals since the sandbox began: an event that
/// comes late says no less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The kernel has killed processes of the sandbox, `kills` so far, because memory ran out at
    /// its limit or at one above it. The program itself may go on. The event needs a memory limit,
    /// and Linux 4.13.
    OutOfMemory {
        /// The number of processes killed so far.
        kills: u64,
    },
    /// The sandbox was slowed down at [`memory_high`](crate::Limits::memory_high), so many times so
    /// far. On cgroup v2 only.
    MemoryHigh {
        /// The number of times so far.
        hits: u64,
    },
    /// The sandbox was at its memory limit, and the kernel took back memory that it could do
    /// without, so many times so far.
    MemoryLimit {
        /// The number of times so far.
        hits: u64,
    },
    /// So many forks have failed so far at the limit of processes. Since Linux 4.8.
    PidsLimit {
        /// The number of forks so far.
        hits: u64,
    },
    /// A resource was short, as [`watch_pressure`](Events::watch_pressure) asks.
    Pressure {
        /// The resource.
        resource: PsiResource,
        /// The time lost so far.
        lost: Duration,
    },
    /// Every process of the sandbox stands still.
    Frozen,
    /// The sandbox goes on.
    Thawed,
    /// This process has started further programs in the sandbox, so many so far.
    Exec {
        /// The number of programs so far.
        count: u64,
    },
    /// The program has ended. It is the last event.
    Exited,
}

/// A stream of what happens to a sandbox: [`Child::events`],
/// [`Attached::events`](crate::Attached::events).
///
/// [`next`](Events::next) waits. For poll(2), epoll(7) and async runtimes the stream gives its
/// descriptor ([`AsFd`]), which becomes readable when a look may find something: then call
/// `next(Some(Duration::ZERO))` until it returns `None`. No thread belongs to a stream.
///
/// Events are made of the kernel's counts, so that none is missed: what happened more than once
/// between two looks is one event with the last number, and what happened before the stream was
/// made is its first event. Being frozen is a state: a sandbox that was frozen and thawed between
/// two looks gives no event.
///
/// # Control groups
///
/// All events but [`Exec`](Event::Exec) and [`Exited`](Event::Exited) need the control group that a
/// limit brings, and the limit that they are about. On cgroup v2 the kernel wakes for each. On
/// cgroup v1 it wakes for memory that has run out. For the other limits and for a v1 freezer, the
/// stream wakes ten times in a second, and looks.
#[derive(Debug)]
pub struct Events {
    epoll: Epoll,
    /// Open only as long as the end has not been told.
    process: OwnedFd,
    group: Option<GroupWatch>,
    execs: Arc<Execs>,
    bell: Arc<EventFd>,
    /// The handle, which knows the last counts of a group that is gone.
    shared: Weak<Shared>,
    pressures: Vec<PressureWatch>,
    seen: Counts,
    seen_execs: u64,
    waiting: VecDeque<Event>,
    has_ended: bool,
}

/// A trigger for pressure, with the time lost when it was last told.
#[derive(Debug)]
struct PressureWatch {
    resource: PsiResource,
    threshold: PsiThreshold,
    trigger: PressureTrigger,
    told: Duration,
}

/// # Events
impl Child {
    /// Watches what happens to the sandbox: memory that runs out, also where the program goes on;
    /// limits that are reached; pressure; freezing; further programs; the end.
    ///
    /// ```
    /// use ringfence::{Event, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let mut child = Sandbox::new().command("true").spawn()?;
    /// let mut events = child.events()?;
    /// while let Some(event) = events.next(None)? {
    ///     match event {
    ///         Event::OutOfMemory { kills } => println!("{kills} processes had to go"),
    ///         Event::Exited => println!("it has ended"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// assert!(child.wait()?.success());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] in a fork of the caller, after the handle was given up, and
    /// if the kernel gives no more descriptors or watches (inotify(7)).
    pub fn events(&self) -> Result<Events> {
        let shared = self.shared()?;
        shared.require_home(Step::Events)?;
        let process = shared.pidfd().try_clone_to_owned().map_err(|error| Error::io(Step::Events, &error))?;
        let group = shared.group.as_ref().filter(|_| !shared.is_removed());
        Events::new(process, group, &shared.execs, Arc::downgrade(shared))
    }
}

impl Events {
    /// Watches a sandbox that another process has started.
    pub(crate) fn of_other(process: OwnedFd, group: Option<&Group>, execs: &Arc<Execs>) -> Result<Events> {
        Events::new(process, group, execs, Weak::new())
    }

    fn new(process: OwnedFd, group: Option<&Group>, execs: &Arc<Execs>, shared: Weak<Shared>) -> Result<Events> {
        let group = match group.map(Group::watch) {
            // The group may go in this very moment, with its last process.
            Some(Err(error)) if !has_ended(process.as_fd()) => return Err(error),
            watched => watched.and_then(Result::ok),
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let epoll = Epoll(table::above_stdio(epoll.0).map_err(failed)?);
        let bell = execs.bell().map_err(failed)?;
        let readable = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        epoll.add(&process, readable).map_err(failed)?;
        epoll.add(&*bell, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)).map_err(failed)?;
        group.iter().flat_map(GroupWatch::fds).try_for_each(|fd| epoll.add(fd, readable)).map_err(failed)?;
        Ok(Events {
            epoll,
            process,
            group,
            execs: execs.clone(),
            bell,
            shared,
            pressures: Vec::new(),
            seen: Counts::default(),
            seen_execs: 0,
            waiting: VecDeque::new(),
            has_ended: false,
        })
    }

    /// Adds [`Pressure`](Event::Pressure) to the events: the stream wakes when the sandbox loses
    /// more time within a window than `threshold` allows, and tells of it whenever that much time
    /// has been lost since it last told. The call needs a v2 group, which a hybrid host has too.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::pressure_trigger`].
    pub fn watch_pressure(&mut self, resource: PsiResource, threshold: PsiThreshold) -> Result<()> {
        let group = self.group.as_ref().ok_or_else(|| {
            Error::message(ErrorKind::Control, Step::Pressure, "the sandbox has no control group")
                .hint("set a limit, such as memory_limit() or pids_limit()")
        })?;
        let (trigger, told) = group.trigger(resource, threshold)?;
        // With edges, a trigger whose group is gone (EPOLLERR) wakes once.
        let flags = EpollFlags::EPOLLPRI | EpollFlags::EPOLLET;
        self.epoll.add(&trigger, EpollEvent::new(flags, 0)).map_err(failed)?;
        self.pressures.push(PressureWatch { resource, threshold, trigger, told });
        Ok(())
    }

    /// Returns the next event. Waits for it without end, or for `timeout`. Returns `None` if
    /// `timeout` has passed, and at once after [`Exited`](Event::Exited).
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] if the kernel fails to wait.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            if self.has_ended {
                return Ok(None);
            }
            self.look()?;
            if !self.waiting.is_empty() {
                continue;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
            let wait = until.map_or(PollTimeout::NONE, timeout::until);
            match poll(&mut [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// Returns whether [`Exited`](Event::Exited) has been told, after which nothing comes.
    pub fn has_ended(&self) -> bool {
        self.has_ended && self.waiting.is_empty()
    }

    /// Looks at all counts, and keeps what has changed.
    fn look(&mut self) -> Result<()> {
        // What changes after this wakes again.
        let mut none = [EpollEvent::empty(); 16];
        let _ = self.epoll.wait(&mut none, EpollTimeout::ZERO);
        let has_ended = has_ended(self.process.as_fd());
        let mut counts = self.seen;
        if let Some(group) = &self.group {
            group.hush();
            group.read(&mut counts);
        }
        if let Some(usage) = self.shared.upgrade().and_then(|shared| Some(shared.state().outcome?.usage())) {
            add_last(&mut counts, &usage);
        }
        let before = std::mem::replace(&mut self.seen, counts);
        let changed = |before: u64, now: u64| now > before;
        let events = [
            (
                changed(before.memory_high_hits, counts.memory_high_hits),
                Event::MemoryHigh { hits: counts.memory_high_hits },
            ),
            (
                changed(before.memory_limit_hits, counts.memory_limit_hits),
                Event::MemoryLimit { hits: counts.memory_limit_hits },
            ),
            (changed(before.oom_kills, counts.oom_kills), Event::OutOfMemory { kills: counts.oom_kills }),
            (
                changed(before.pids_limit_hits, counts.pids_limit_hits),
                Event::PidsLimit { hits: counts.pids_limit_hits },
            ),
            (!before.frozen && counts.frozen, Event::Frozen),
            (before.frozen && !counts.frozen, Event::Thawed),
        ];
        self.waiting.extend(events.into_iter().filter(|(is_new, _)| *is_new).map(|(_, event)| event));
        let count = self.execs.count();
        if changed(self.seen_execs, count) {
            self.seen_execs = count;
            self.waiting.push_back(Event::Exec { count });
        }
        for watch in &mut self.pressures {
            let lost = self.group.as_ref().and_then(|group| group.lost(watch.resource, watch.threshold));
            if let Some(lost) = lost.filter(|lost| *lost >= watch.told + watch.threshold.stall()) {
                watch.told = lost;
                self.waiting.push_back(Event::Pressure { resource: watch.resource, lost });
            }
        }
        if has_ended {
            self.end();
        }
        Ok(())
    }

    /// Tells the end, after which the descriptor is silent.
    fn end(&mut self) {
        self.has_ended = true;
        self.waiting.push_back(Event::Exited);
        let _ = self.epoll.delete(&self.process);
        let _ = self.epoll.delete(&*self.bell);
        for fd in self.group.iter().flat_map(GroupWatch::fds) {
            let _ = self.epoll.delete(fd);
        }
        for watch in self.pressures.drain(..) {
            let _ = self.epoll.delete(&watch.trigger);
        }
        self.group = None;
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Adds what was counted up to the end.
fn add_last(counts: &mut Counts, usage: &Usage) {
    counts.oom_kills = counts.oom_kills.max(usage.oom_kills.unwrap_or(0));
    counts.pids_limit_hits = counts.pids_limit_hits.max(usage.pids_limit_hits.unwrap_or(0));
}

fn has_ended(process: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn failed(errno: Errno) -> Error {
    Error::new(Step::Events, errno).with_kind(ErrorKind::Control)
}
