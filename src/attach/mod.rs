//! A sandbox that another process has started, or this one long ago.

mod ticket;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

pub(crate) use ticket::Door;
pub use ticket::Ticket;

use crate::cgroup::{self, Group, Limits, Stats};
use crate::child::{self, Child, Events, Execs, Inside, Outcome, Output, Usage};
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;
use crate::stdio::Stdio;
use crate::sys::{by_fd, mutex, pidfd, timeout};

const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
/// The longest time that a wait waits for the control group to become empty.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);
/// The longest time that a program that has ended may take until its parent reaps it, if its status
/// is to be had only then.
const REAP_PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two looks whether a program has been reaped.
const REAP_STEP: Duration = Duration::from_millis(20);

/// A running sandbox that another process has started, or this process before: found again by its
/// [`Ticket`].
///
/// ```
/// use ringfence::{Attached, Sandbox};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), ringfence::Error> {
/// // One process starts the sandbox, and lets it go.
/// let child = Sandbox::new().die_with_owner(false).command("sleep").arg("600").spawn()?;
/// let text = child.ticket()?.to_string();
/// child.detach()?;
///
/// // A later one has the text, from a file or a database.
/// let sandbox = Attached::open(&text.parse()?)?;
/// assert!(sandbox.is_running());
/// let outcome = sandbox.stop(sandbox.stop_signal(), Duration::from_secs(5))?;
/// assert!(outcome.is_some());
/// # Ok(())
/// # }
/// ```
///
/// The value holds a pidfd: its calls are about the process that the ticket means, and never about
/// another one that got its number. Dropping the value leaves the sandbox running. Any number of
/// processes may attach to a sandbox.
///
/// # Whose sandbox
///
/// The kernel decides what a process may do to a sandbox: signals need the same user or
/// `CAP_KILL`, limits and freezing need write access to the control group, and
/// [`exec`](Attached::exec) needs what the owner needed.
#[derive(Debug)]
pub struct Attached {
    ticket: Ticket,
    pidfd: OwnedFd,
    group: Option<Group>,
    execs: Arc<Execs>,
    /// True if this process is the parent, and has no other handle of the program.
    reaps: bool,
    /// The outcome of a program that has ended. The inner one is `None` if its status is lost.
    ended: Mutex<Option<Option<Outcome>>>,
}

impl Attached {
    /// Finds a sandbox again.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NotFound`] if the sandbox has ended and was reaped, even if another process
    ///   has its pid now. [`reap_stale`](crate::reap_stale) removes what it left.
    /// - [`ErrorKind::Control`] if its control group is gone or its process is in another one, so
    ///   that the ticket is not that of this sandbox; if the process's pid means nothing here,
    ///   because this process is in another pid namespace; or if pidfds are not to be had.
    pub fn open(ticket: &Ticket) -> Result<Attached> {
        let failed = |errno| Error::new(Step::Attach, errno).with_kind(ErrorKind::Control);
        let gone = || {
            Error::message(ErrorKind::NotFound, Step::Attach, "the sandbox has ended")
                .hint("reap_stale() removes what it has left")
        };
        let pidfd = ticket.identity.find().map_err(failed)?.ok_or_else(gone)?;
        let group = if !ticket.named.is_empty() {
            Group::of_all_named(cgroup::host()?, &ticket.named)?
        } else if !ticket.places.is_empty() {
            Group::find(cgroup::host()?, &ticket.places)?
        } else {
            None
        };
        let mut attached = Attached {
            ticket: ticket.clone(),
            pidfd,
            group,
            execs: Arc::default(),
            reaps: false,
            ended: Mutex::new(None),
        };
        // Whoever writes a ticket finds a process that has ended, and somebody else's group.
        if !attached.is_in_group() {
            // A process that has ended is in no group, or not seen in any.
            attached.group = None;
            if attached.is_running() {
                return Err(Error::message(
                    ErrorKind::Control,
                    Step::Attach,
                    "the process is not in the ticket's group, or in another one",
                )
                .hint("the ticket is not that of this sandbox, or the group was removed"));
            }
        }
        Ok(attached)
    }

    /// Finds a sandbox of which this process may be the parent, without another handle of it.
    pub(crate) fn open_own(ticket: &Ticket) -> Result<Attached> {
        Ok(Attached { reaps: true, ..Attached::open(ticket)? })
    }

    /// Returns whether the process is in the ticket's group, and in no other of a sandbox: a ticket
    /// must not lead a further program out of its limits, or to another sandbox.
    fn is_in_group(&self) -> bool {
        let pid = self.ticket.identity.pid();
        let theirs = by_fd::short_text(format!("/proc/{pid}/cgroup").as_ref());
        // As long as nobody has reaped the process, the pid is its own.
        let theirs = theirs.ok().filter(|_| pidfd::pid_of(self.pidfd()) == Some(pid));
        let (Some(theirs), Ok(own)) = (theirs, by_fd::short_text("/proc/self/cgroup".as_ref())) else { return false };
        let Ticket { places, named, .. } = &self.ticket;
        // Without control groups nobody is in one.
        let Ok(host) = cgroup::host() else { return places.is_empty() && named.is_empty() };
        let is_in = match (places.is_empty(), named.is_empty()) {
            (true, true) => true,
            (false, _) => self.group.is_some() && cgroup::holds(host, places, &theirs),
            (true, false) => self.group.is_some() && cgroup::is_in_named(host, named, self.owner(), &theirs),
        };
        let is_in_another = || named.is_empty() && cgroup::is_in_another_named(host, places, &theirs, &own);
        is_in && ticket::groups_of_sandboxes(&theirs, &own) <= places.len() && !is_in_another()
    }

    /// Returns the name of what the sandbox has on the host, by which a named group is marked.
    fn owner(&self) -> &str {
        self.ticket.name.as_deref().unwrap_or_default()
    }

    /// Returns the pid of the first process, as long as it runs.
    fn first_pid(&self) -> Option<i32> {
        if self.is_running() { pidfd::pid_of(self.pidfd()) } else { None }
    }

    /// Returns the pid of the program, or of its init, in this process's pid namespace.
    pub fn id(&self) -> u32 {
        self.ticket.id()
    }

    /// Returns the ticket.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Returns the pidfd of the program, pidfd_open(2). It becomes readable when the program has
    /// ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns whether the program runs.
    pub fn is_running(&self) -> bool {
        !self.ends_by(Instant::now()).unwrap_or(false)
    }

    /// Returns the signal that asks the program to end: SIGTERM, or the
    /// [`stop_signal`](crate::Sandbox::stop_signal).
    pub fn stop_signal(&self) -> i32 {
        self.ticket.entry.stop_signal()
    }

    /// Waits for the end of the program, then removes the control group and the scratch directory,
    /// if its owner is dead; a [`cgroup`](crate::Sandbox::cgroup) that another sandbox has taken
    /// since is left alone. Later calls return the same outcome. If the program had ended before
    /// [`open`](Attached::open), the ticket proves nothing about the control group on v1, nor on v2
    /// after the reaping: then the group is left to its owner, or to
    /// [`reap_stale`](crate::reap_stale).
    ///
    /// The verdict is by the status alone: limits that the owner watches are not known here. Where
    /// the sandbox has an [`init`](crate::Sandbox::init), a program that a signal has killed shows
    /// as one that exited with 128 and the signal's number, as in a shell. Without a control group,
    /// the usage has only the wall time.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::StatusLost`] if the kernel does not tell the status to a process that
    /// is not the parent. Root learns it as long as the parent has not reaped the program.
    /// Everybody does after that, since Linux 6.15, if this value was opened before; a parent that
    /// does not reap is waited for ten seconds. The sandbox has ended then, and is removed as well.
    pub fn wait(&self) -> Result<Outcome> {
        loop {
            if let Some(outcome) = self.wait_until(Instant::now() + Duration::from_secs(3600))? {
                return Ok(outcome);
            }
        }
    }

    /// Returns the outcome if the program has ended, and `None` otherwise, also as long as only the
    /// parent of a program that has ended can know its status. Does not wait for that.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`wait`](Attached::wait).
    pub fn try_wait(&self) -> Result<Option<Outcome>> {
        self.wait_until(Instant::now())
    }

    /// Waits for the end of the program, for `timeout` at most. Returns `None` as
    /// [`try_wait`](Attached::try_wait) does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`wait`](Attached::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Outcome>> {
        let now = Instant::now();
        self.wait_until(now.checked_add(timeout).unwrap_or(now + Duration::from_secs(1 << 32)))
    }

    fn wait_until(&self, until: Instant) -> Result<Option<Outcome>> {
        if !self.ends_by(until)? {
            return Ok(None);
        }
        let patience = Instant::now() + REAP_PATIENCE;
        let known = *mutex::lock(&self.ended);
        if let Some(outcome) = known {
            return self.over(outcome);
        }
        let status = match self.status(until.min(patience)) {
            Status::Known(status) => Some(status),
            Status::Lost => None,
            // Its parent may still reap it, and give the status away by that.
            Status::Withheld if until < patience => return Ok(None),
            Status::Withheld => return self.over(None),
        };
        let mut ended = mutex::lock(&self.ended);
        // What the program has left is not counted as its own.
        let outcome = *ended.get_or_insert_with(|| status.map(|status| Outcome::of_other(status, self.usage())));
        drop(ended);
        self.over(outcome)
    }

    /// Removes what is left of a sandbox that has ended, and returns its outcome.
    fn over(&self, outcome: Option<Outcome>) -> Result<Option<Outcome>> {
        // What cannot be removed stays on record, for reap_stale.
        let _ = self.remove();
        outcome.map(Some).ok_or_else(|| {
            let text = "the program has ended, and the kernel does not tell its status to another process";
            Error::message(ErrorKind::StatusLost, Step::Wait, text).hint("Linux 6.15 keeps the status")
        })
    }

    /// Returns the status of a program that has ended. Waits until `until` for its parent to reap
    /// it, if this process may not look into it before.
    fn status(&self, until: Instant) -> Status {
        loop {
            if self.reaps
                && let Ok(Some(ended)) = pidfd::wait(self.pidfd(), false)
            {
                if !self.ticket.entry.own_pid_ns() {
                    child::look_for_siblings();
                }
                return Status::Known(ended.wait_status);
            }
            if let Some(status) = self.ticket.identity.zombie_status(self.pidfd()) {
                return Status::Known(status);
            }
            if pidfd::pid_of(self.pidfd()).is_none() {
                return pidfd::exit_info(self.pidfd()).map_or(Status::Lost, Status::Known);
            }
            let now = Instant::now();
            if now >= until {
                return Status::Withheld;
            }
            // On some kernels POLLHUP comes with the reaping.
            let _ =
                poll(&mut [PollFd::new(self.pidfd(), PollFlags::empty())], timeout::until(until.min(now + REAP_STEP)));
        }
    }

    fn usage(&self) -> Usage {
        let is_own = |group: &&Group| {
            !self.is_group_named() || group.is_held_by(self.owner(), &|| self.first_pid()).unwrap_or(false)
        };
        let group = self.group.as_ref().filter(is_own);
        let stats = group.and_then(|group| group.totals().ok()).unwrap_or_default();
        Usage::of_other(self.ticket.identity.age(), &stats)
    }

    /// Removes what was made for the sandbox, whose program has ended. Its owner does so itself, if
    /// it lives.
    fn remove(&self) -> Result<()> {
        match &self.group {
            // Another sandbox may have taken it since.
            Some(group) if self.is_group_named() => {
                group.end_named(self.owner(), &|| self.first_pid(), &|| Ok(None), REMOVE_PATIENCE)?;
            }
            Some(group) => {
                if !self.ticket.entry.own_pid_ns() {
                    group.kill()?;
                }
                group.remove(REMOVE_PATIENCE)?;
            }
            None => {}
        }
        self.ticket.name.as_deref().map_or(Ok(()), owner::reap_owner_of)
    }

    /// Sends a signal to the program; an [`init`](crate::Sandbox::init) passes the signal on.
    ///
    /// # Errors
    ///
    /// Returns ESRCH after the program has ended, EPERM for another user's program, and EINVAL for
    /// a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if !self.is_running() {
            return Err(control(Step::Signal)(Errno::ESRCH).hint("the program has ended"));
        }
        pidfd::send_signal(self.pidfd(), signal).map_err(control(Step::Signal))
    }

    /// Kills everything in the sandbox with SIGKILL: its control group, and its pid namespace. A
    /// sandbox with neither has only its program.
    ///
    /// # Errors
    ///
    /// Returns EPERM for another user's sandbox.
    pub fn kill(&self) -> Result<()> {
        // Before the first process ends: it may be what tells whose the group is.
        let named = self.group.as_ref().filter(|_| self.is_group_named());
        let group_killed = named.map_or(Ok(()), |group| group.kill_named(self.owner(), &|| self.first_pid()));
        let killed = match pidfd::send_signal(self.pidfd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(control(Step::Kill)(errno)),
        };
        if let Some(group) = self.group.as_ref().filter(|_| !self.is_group_named()) {
            group.kill()?;
        }
        killed.and(group_killed)
    }

    /// Asks the program to end with a signal, such as [`stop_signal`](Attached::stop_signal). If
    /// the program still runs after `grace`, kills everything in the sandbox, and waits for the
    /// end. The outcome is `None` if the status is lost.
    ///
    /// ```no_run
    /// use ringfence::Attached;
    /// use std::time::Duration;
    ///
    /// let ticket = std::fs::read_to_string("/run/server/ticket")?.parse()?;
    /// let server = Attached::open(&ticket)?;
    /// if let Some(outcome) = server.stop(server.stop_signal(), Duration::from_secs(10))? {
    ///     println!("{}", outcome.verdict());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`signal`](Attached::signal), except for a program that has ended, and
    /// of [`kill`](Attached::kill).
    pub fn stop(&self, signal: i32, grace: Duration) -> Result<Option<Outcome>> {
        match self.signal(signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
        let lost = |error: Error| if error.kind() == ErrorKind::StatusLost { Ok(None) } else { Err(error) };
        match self.wait_timeout(grace) {
            Ok(None) => {}
            ended => return ended.or_else(lost),
        }
        self.kill()?;
        self.wait().map(Some).or_else(lost)
    }

    /// Returns what everything in the sandbox uses now.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] without a control group, or after the sandbox has ended.
    pub fn stats(&self) -> Result<Stats> {
        self.need_group(Step::Stats)?.stats()
    }

    /// Returns the pids of all processes of the sandbox, in this process's pid namespace. 0 stands
    /// for a process that this pid namespace does not show. By the time of the return, a process
    /// may have ended, and another one may have its pid.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`stats`](Attached::stats).
    pub fn processes(&self) -> Result<Vec<u32>> {
        let pids = self.need_group(Step::Stats)?.processes()?;
        Ok(pids.into_iter().map(i32::unsigned_abs).collect())
    }

    /// Freezes everything in the sandbox, as [`Child::freeze`] does. If the owner of the sandbox
    /// lives, its wall time goes on.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::freeze`].
    pub fn freeze(&self) -> Result<()> {
        self.need_group(Step::Freeze)?.freeze(FREEZE_PATIENCE)
    }

    /// Lets a frozen sandbox continue.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] without a control group, or after the sandbox has ended.
    pub fn thaw(&self) -> Result<()> {
        self.need_group(Step::Freeze)?.thaw()
    }

    /// Changes limits while the program runs, as [`Child::update`] does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::update`].
    pub fn update(&self, limits: &Limits) -> Result<()> {
        let problems = limits.invalid();
        if !problems.is_empty() {
            return Err(Error::refused(problems));
        }
        self.need_group(Step::SetLimit)?.update(limits)
    }

    /// Watches what happens to the sandbox, as [`Child::events`] does.
    /// [`Exec`](crate::Event::Exec) counts the programs that were started by this value.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::events`].
    pub fn events(&self) -> Result<Events> {
        let process = self.pidfd.try_clone().map_err(|error| Error::io(Step::Events, &error))?;
        Events::of_other(process, self.group.as_ref(), &self.execs)
    }

    /// Starts another program in the running sandbox, as [`Child::exec`] does: with the sandbox's
    /// namespaces, root, control group, user, capabilities, filter, rules of Landlock, scheduling and
    /// limits of processes. The program's environment is empty, and has only what the command sets. Its
    /// handle belongs to this process.
    ///
    /// ```no_run
    /// use ringfence::{Attached, Command};
    ///
    /// let ticket = std::fs::read_to_string("/run/server/ticket")?.parse()?;
    /// let server = Attached::open(&ticket)?;
    /// server.exec(Command::new("server-ctl").arg("reload"))?.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Child::exec`], and [`ErrorKind::Unsupported`] where this process cannot start a program
    /// with the sandbox's walls around it:
    ///
    /// - the sandbox has rules of [`Landlock`](crate::Landlock), and a path of them leads elsewhere by
    ///   now than at its start: its program may have put something else there. Also where the ticket
    ///   does not have the rules: it has those of a sandbox with
    ///   [`die_with_owner(false)`](crate::Sandbox::die_with_owner), if they fit into 16 KiB. The owner
    ///   needs neither.
    /// - the sandbox has a label of a security module, which the command does not say itself.
    /// - the sandbox's programs keep the user, the groups or namespaces of its owner, and this
    ///   process has others.
    /// - the ticket would give the program more than the sandbox's first process has.
    ///
    /// [`ErrorKind::Control`] if the sandbox was [created](crate::Sandbox::create) and its program
    /// has not been started (EAGAIN), and where the directory of such a sandbox cannot be reached,
    /// which would tell.
    pub fn exec(&self, command: impl Into<Command>) -> Result<Child> {
        self.enter(&command.into(), &Stdio::inherited())
    }

    /// Runs another program in the running sandbox to its end, and collects its output, as
    /// [`Child::exec_output`] does.
    ///
    /// # Errors
    ///
    /// The errors of [`exec`](Attached::exec) and of [`Child::wait_with_output`].
    pub fn exec_output(&self, command: impl Into<Command>) -> Result<Output> {
        self.enter(&command.into(), &Stdio::captured())?.wait_with_output()
    }

    /// Starts a program in a sandbox that waits for its start.
    #[cfg(feature = "oci")]
    pub(crate) fn exec_ahead(&self, command: &Command) -> Result<Child> {
        self.enter_even_ahead(command, &Stdio::inherited())
    }

    fn enter(&self, command: &Command, default: &[Stdio; 3]) -> Result<Child> {
        if self.is_running() {
            self.ticket.door.as_ref().map_or(Ok(()), Door::refuse_waiting)?;
        }
        self.enter_even_ahead(command, default)
    }

    fn enter_even_ahead(&self, command: &Command, default: &[Stdio; 3]) -> Result<Child> {
        if !self.is_running() {
            return Err(child::has_ended());
        }
        let pid = self.ticket.identity.pid();
        let entrance = self.ticket.entry.entrance(pid, self.pidfd(), command);
        let entrance = entrance.map_err(|error| if self.is_running() { error } else { child::has_ended() })?;
        let running = Inside { pid, pidfd: self.pidfd(), group: self.group.as_ref() };
        let ends_by = |until| self.ends_by(until).unwrap_or(false);
        let started = child::enter_running(&*entrance, &running, command, default, ends_by);
        self.execs.note(&started);
        started
    }

    fn need_group(&self, step: Step) -> Result<&Group> {
        let group = self.group.as_ref().filter(|_| mutex::lock(&self.ended).is_none()).ok_or_else(|| {
            Error::message(ErrorKind::Control, step, "the sandbox has no control group, or has ended")
                .hint("set a limit, such as memory_limit() or pids_limit(), when the sandbox is started")
        })?;
        if self.is_group_named() && !group.is_held_by(self.owner(), &|| self.first_pid())? {
            let reason = "the sandbox has ended, and its control group may be that of another one by now";
            return Err(Error::message(ErrorKind::Control, step, reason).at(group.name()));
        }
        Ok(group)
    }

    /// Returns whether the caller has named the group.
    fn is_group_named(&self) -> bool {
        !self.ticket.named.is_empty()
    }

    /// Returns whether the program ends before `until`.
    fn ends_by(&self, until: Instant) -> Result<bool> {
        loop {
            match poll(&mut [PollFd::new(self.pidfd(), PollFlags::POLLIN)], timeout::until(until)) {
                Ok(0) if Instant::now() >= until => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(control(Step::Wait)(errno)),
            }
        }
    }
}

/// The status of a program that has ended.
#[derive(Debug, Clone, Copy)]
enum Status {
    Known(i32),
    Lost,
    /// Only the parent knows it, which has not reaped the program.
    Withheld,
}

fn control(step: Step) -> impl Fn(Errno) -> Error {
    move |errno| Error::new(step, errno).with_kind(ErrorKind::Control)
}
