//! The owner's part of a spawn: answers the requests of the stub, reads the report, and removes
//! everything after a failure.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{Shutdown, shutdown};

use super::guests::Guest;
use super::hint;
use super::launch::{FailurePage, Launch};
use super::report::{self, BURST, Event, Waited};
use super::running::Stub;
use super::spawner::Ticket;
use super::stub_file::stub_name;
use super::timings::Stopwatch;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::stub::wire::{self, Record, record};
use crate::sys::{mount, pidfd, timeout};

/// The time between two checks of a setup that neither ends nor reports.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// The time after which a clone counts as blocked in the kernel.
const BLOCKED_AFTER: Duration = Duration::from_millis(500);
/// The records beside one for each op that may come before the spawner's record of the clone.
const EARLY: usize = 64;

/// The state of a sandbox whose setup runs.
pub(super) struct Attempt<'a> {
    launch: &'a Launch<'a>,
    pub(super) report: OwnedFd,
    /// `None` if the child existed from the beginning.
    pub(super) ticket: Option<Ticket>,
    until: Instant,
    /// The time at which the stub must be about to execute the program. `None` if there is no such
    /// limit.
    pub(super) begins_by: Option<Instant>,
    pub(super) child: Option<(i32, OwnedFd)>,
    /// The child as one that enters a pid namespace.
    pub(super) guest: Option<Guest>,
    /// The pidfd of the stub that a sibling has replaced.
    replaced: Option<OwnedFd>,
    /// The records of the stub, or of its init, that came before the spawner's record of the clone.
    early: VecDeque<(Record, Option<OwnedFd>)>,
    pub(super) executing: bool,
    has_listener: bool,
    /// The master of the program's terminal, if the stub has made one.
    terminal: Option<OwnedFd>,
    /// The pid of a child whose pidfd did not fit into the caller's table.
    without_pidfd: Option<i32>,
    pub(super) stopwatch: Option<Stopwatch>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(launch: &'a Launch<'a>, report: OwnedFd, until: Instant) -> Self {
        Attempt {
            launch,
            report,
            ticket: None,
            until,
            begins_by: None,
            child: None,
            guest: None,
            replaced: None,
            early: VecDeque::new(),
            executing: false,
            has_listener: false,
            terminal: None,
            without_pidfd: None,
            stopwatch: None,
        }
    }

    /// Reads the report to its end. After a failure, the processes are gone when this function
    /// returns.
    pub(super) fn follow(&mut self) -> Result<()> {
        let result = self.read().and_then(|()| self.silent_failure());
        if result.is_err() {
            self.abandon();
            self.guest.take().into_iter().for_each(|guest| guest.reaped());
        }
        if let Some(stub) = self.replaced.take() {
            reap(stub.as_fd());
        }
        result
    }

    fn read(&mut self) -> Result<()> {
        // With these features, the stub or its init sends records that cannot wait for the end.
        let Launch { init, parks, id_maps, listener, supervisor, enter, schedule, save, hooks, rule_files, .. } =
            self.launch;
        let moves = enter.is_some() || schedule.is_some();
        let asks = id_maps.is_some() || moves || save.is_some() || hooks.is_some();
        let sends = listener.is_some() || supervisor.is_some() || rule_files.is_some();
        let talks = *init || *parks || sends || asks;
        loop {
            let watched = self.child_fd().map(|fd| fd.as_raw_fd());
            // A fork that another thread makes at this moment may keep the socket open: check from
            // time to time.
            let slice = Instant::now() + CHECK_INTERVAL;
            let only_end = !talks && !self.executing;
            let waited = report::wait(self.report.as_fd(), self.child_fd(), slice.min(self.until), only_end)
                .map_err(|errno| Error::new(Step::Report, errno))?;
            if self.drain()? {
                return Ok(());
            }
            if waited == Waited::Ready && Instant::now() >= self.until {
                return Err(self.timeout());
            }
            match waited {
                // The process that died is the stub that a sibling has just replaced.
                Waited::Died if self.child_fd().map(|fd| fd.as_raw_fd()) != watched => {}
                Waited::Died if self.executing && !self.launch.init => return Ok(()),
                Waited::Died => return Err(self.died()),
                Waited::TimedOut if Instant::now() >= self.until || self.is_late() => return Err(self.timeout()),
                Waited::TimedOut if self.has_executed() => return Ok(()),
                _ => {}
            }
        }
    }

    fn is_late(&self) -> bool {
        !self.executing && self.begins_by.is_some_and(|by| Instant::now() >= by)
    }

    /// Returns true if a stub that was killed had reported before that it executes the program.
    pub(super) fn had_begun(&mut self) -> bool {
        // The records of the stub count here, not its end.
        let _ = self.drain();
        self.executing
    }

    /// Returns an error if the stub failed without a report. A stub that may not write to the
    /// socket leaves the same end of file that otherwise means success.
    fn silent_failure(&self) -> Result<()> {
        match self.launch.failure.and_then(FailurePage::errno) {
            Some(errno) => {
                let op = self.launch.plan.len().saturating_sub(1) as u32;
                Err(self.failure(Record { kind: record::FAILED, op, errno, value: 0 }))
            }
            None => Ok(()),
        }
    }

    fn child_fd(&self) -> Option<BorrowedFd<'_>> {
        self.child.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// Reads the records that have arrived, or a [`BURST`] of them. Returns true if the program has
    /// been executed.
    fn drain(&mut self) -> Result<bool> {
        for _ in 0..BURST {
            match report::receive(self.report.as_fd()).map_err(|errno| Error::new(Step::Report, errno))? {
                Event::Nothing => return Ok(false),
                Event::Record(record, fd) if self.child.is_none() && is_from_inside(record) => {
                    if self.early.len() > self.launch.plan.len() + EARLY {
                        return Err(Error::new(Step::Report, Errno::EPROTO));
                    }
                    self.early.push_back((record, fd));
                }
                Event::Record(record, fd) => {
                    let mut done = self.take(record, fd)?;
                    while !done && let Some((record, fd)) = self.early.pop_front() {
                        done = self.take(record, fd)?;
                    }
                    if done {
                        return Ok(true);
                    }
                }
                Event::End if self.child.is_none() => return Err(Error::new(Step::Spawner, Errno::EPROTO)),
                Event::End if self.executing && !self.launch.init => return Ok(true),
                Event::End => return Err(self.died()),
            }
        }
        Ok(false)
    }

    /// Handles one record. Returns true if this was the last record of a success.
    fn take(&mut self, record: Record, fd: Option<OwnedFd>) -> Result<bool> {
        let missing = || Error::new(Step::Report, Errno::EPROTO);
        let no_room = || Error::new(Step::Terminal, Errno::EMFILE);
        match record.kind {
            record::CLONED => self.child = Some((record.value, self.own_pidfd(record, fd)?)),
            // Once the program may run, it could send this record as well. So could a process
            // inside that may inspect the stub: its own pidfd is not that of a child of this
            // process.
            record::RECLONED if !self.executing && self.replaced.is_none() => {
                let fd = self.own_pidfd(record, fd)?;
                if self.launch.plan.reclones_sibling() != pidfd::is_child(fd.as_fd()) {
                    return Err(missing());
                }
                let pid = pidfd::find_pid(fd.as_fd()).map_err(|errno| match errno {
                    Errno::ESRCH => missing(),
                    errno => Error::new(Step::Report, errno),
                })?;
                self.guest.iter().for_each(|guest| guest.entered(pid));
                let stub = self.child.replace((pid, fd)).ok_or_else(missing)?;
                self.replaced = Some(stub.1);
            }
            record::PARKED if self.launch.parks => return Ok(true),
            record::EXEC => self.executing = true,
            record::STAMP if !self.executing => {
                let plan = self.launch.plan;
                self.stopwatch.iter_mut().for_each(|watch| watch.stamp(record, plan));
            }
            // A stub that waits for its start has sent it before anything else can run.
            record::LISTENER if self.executing || self.launch.save.is_some() => {
                self.hand_listener_on(fd.ok_or_else(missing)?)?;
            }
            record::STARTED if self.executing && self.launch.init => return Ok(true),
            // Once the program may run, it could send this record as well.
            record::TERMINAL if !self.executing => self.terminal = Some(fd.ok_or_else(no_room)?),
            // One that finds no room here is missed by whoever counts them.
            record::RULE_FILE if !self.executing => {
                self.launch.rule_files.zip(fd).into_iter().for_each(|(take, fd)| take(fd))
            }
            record::NEED_MAPS => self.write_maps()?,
            record::NEED_SAVE => self.save()?,
            record::CREATED if self.launch.save.is_some() => return Ok(true),
            record::NEED_GROUP => self.enter_group()?,
            record::NEED_HOOKS => self.run_hooks()?,
            record::NEED_SCHEDULING => self.schedule()?,
            _ => return Err(self.failure(record)),
        }
        Ok(false)
    }

    /// Passes the listener on. Only the first one counts: it came before the program could send
    /// anything.
    fn hand_listener_on(&mut self, fd: OwnedFd) -> Result<()> {
        if let Some(supervisor) = self.launch.supervisor.filter(|_| !self.has_listener) {
            self.has_listener = true;
            let (pid, _) = self.child.as_ref().ok_or_else(|| Error::new(Step::Report, Errno::EPROTO))?;
            supervisor.send(fd.as_fd(), *pid)?;
            return report::answer(&self.report).map_err(|errno| Error::new(Step::HandListenerOver, errno));
        }
        if let Some(listener) = self.launch.listener.filter(|_| !self.has_listener) {
            // If no receiver is left, the listener is closed, and the calls fail with ENOSYS.
            let _ = listener.send(fd);
            self.has_listener = true;
        }
        Ok(())
    }

    /// Returns the pidfd that came with the record. If the caller's table had no room for the
    /// pidfd, opens another one by the pid, and fails if there is still no room.
    fn own_pidfd(&mut self, record: Record, fd: Option<OwnedFd>) -> Result<OwnedFd> {
        let fd = fd.map_or_else(|| pidfd::open(record.value), Ok);
        fd.map_err(|errno| {
            self.without_pidfd = Some(record.value);
            Error::new(Step::Report, errno)
        })
    }

    fn failure(&self, record: Record) -> Error {
        let errno = Errno::from_raw(record.errno);
        let (error, step) = match record.kind {
            record::FAILED_BEFORE_STUB => {
                let step = match record.value {
                    wire::BEFORE_STUB_CLONE => Step::Clone,
                    wire::BEFORE_STUB_FDS => Step::PlaceFd,
                    _ => Step::LoadStub,
                };
                (Error::new(step, errno), step)
            }
            record::FAILED => {
                let note = self.launch.plan.note(record.op);
                if note.hint.is_some() {
                    return note.error(errno);
                }
                (note.error(errno), note.step)
            }
            // STARTED without EXEC: the process under init was killed before its exec.
            _ => return self.died(),
        };
        match hint::for_failure(step, errno) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn write_maps(&self) -> Result<()> {
        let (Some((pid, _)), Some(maps)) = (&self.child, self.launch.id_maps) else {
            return Err(Error::new(Step::WriteIdMap, Errno::EPROTO));
        };
        maps.write(*pid, self.until).map_err(|error| {
            let hint = error.raw_os_error().and_then(|errno| hint::for_failure(error.step(), Errno::from_raw(errno)));
            hint.into_iter().fold(error, Error::hint)
        })?;
        self.map_mounts(*pid)?;
        report::answer(&self.report).map_err(|errno| Error::new(Step::WriteIdMap, errno))
    }

    /// Sets the id maps of detached mounts to those of the user namespace, which has its maps now.
    fn map_mounts(&self, pid: i32) -> Result<()> {
        let mounts = self.launch.plan.id_mapped();
        if mounts.is_empty() {
            return Ok(());
        }
        let path = format!("/proc/{pid}/ns/user");
        let user_ns = std::fs::File::open(&path).map_err(|error| Error::io(Step::WriteIdMap, &error).at(path))?;
        for mount in mounts {
            mount::map_ids(mount.tree.as_fd(), user_ns.as_fd(), mount.recursive).map_err(|errno| {
                let error = Error::new(Step::IdMapMount, errno).at(&mount.path);
                hint::for_failure(Step::IdMapMount, errno).into_iter().fold(error, Error::hint)
            })?;
        }
        Ok(())
    }

    /// Returns true if the process behind the report runs another program than the stub.
    fn has_executed(&self) -> bool {
        let Some((pid, _)) = &self.child else { return false };
        self.executing
            && !self.launch.init
            && std::fs::read(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim_ascii_end() != stub_name().to_bytes())
    }

    fn enter_group(&self) -> Result<()> {
        let (Some((pid, _)), Some(enter)) = (&self.child, self.launch.enter) else {
            return Err(Error::new(Step::JoinCgroup, Errno::EPROTO));
        };
        enter(*pid)?;
        report::answer(&self.report).map_err(|errno| Error::new(Step::JoinCgroup, errno))
    }

    fn schedule(&self) -> Result<()> {
        let (Some((pid, _)), Some(schedule)) = (&self.child, self.launch.schedule) else {
            return Err(Error::new(Step::Scheduler, Errno::EPROTO));
        };
        schedule(*pid)?;
        report::answer(&self.report).map_err(|errno| Error::new(Step::Scheduler, errno))
    }

    fn run_hooks(&mut self) -> Result<()> {
        let (Some(pidfd), Some(run)) = (self.child_fd(), self.launch.hooks) else {
            return Err(Error::new(Step::Create, Errno::EPROTO));
        };
        let began = Instant::now();
        run(pidfd)?;
        // Hooks have limits of their own.
        self.until += began.elapsed();
        match report::answer(&self.report) {
            Ok(()) => Ok(()),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(self.died()),
            Err(errno) => Err(Error::new(Step::Create, errno)),
        }
    }

    fn save(&self) -> Result<()> {
        let (Some(pidfd), Some(save)) = (self.child_fd(), self.launch.save) else {
            return Err(Error::new(Step::Create, Errno::EPROTO));
        };
        save(pidfd)?;
        report::answer(&self.report).map_err(|errno| Error::new(Step::Create, errno))
    }

    /// Returns the error for a stub that ended without a report: the stub was killed, most likely
    /// because memory was short.
    fn died(&self) -> Error {
        let status = self.child_fd().and_then(|fd| pidfd::wait(fd, true).ok().flatten());
        const OTHERS: &str =
            "either a memory limit is too small for the setup itself, or another process killed the setup";
        let (how, hint) = match status.map(|ended| ended.wait_status) {
            Some(status) if libc::WIFSIGNALED(status) => {
                let signal = libc::WTERMSIG(status);
                let hint = match signal {
                    libc::SIGSEGV => "the caller's RLIMIT_STACK may be too small for the setup, which takes 64 KiB",
                    libc::SIGXFSZ => "the caller's RLIMIT_FSIZE may be too small for the files that the setup writes",
                    _ => OTHERS,
                };
                (format!("the setup was killed by signal {signal}"), hint)
            }
            Some(status) => (format!("the setup ended with status {}", libc::WEXITSTATUS(status)), OTHERS),
            None => ("the setup ended".to_owned(), OTHERS),
        };
        Error::message(ErrorKind::SetupDied, Step::Report, how).hint(hint)
    }

    fn timeout(&self) -> Error {
        // If the caller's deadline is short, a missing clone says nothing about the thread.
        if self.child.is_none() && self.launch.deadline >= BLOCKED_AFTER {
            self.ticket.iter().for_each(Ticket::stuck);
        }
        let text = format!("not done after {:?}", self.launch.deadline);
        Error::message(ErrorKind::Timeout, Step::Report, text)
            .hint("a source may hang (a network file system), or a control group may be frozen; see setup_timeout()")
    }

    /// Reads the records that have arrived, or a [`BURST`] of them, and notes the processes in them,
    /// so that they can be killed. Returns true if more records may come.
    fn note_processes(&mut self) -> bool {
        for _ in 0..BURST {
            match report::receive(self.report.as_fd()) {
                Ok(Event::Record(record, fd)) => match (record.kind, fd) {
                    (record::CLONED, Some(fd)) => self.child = Some((record.value, fd)),
                    (record::CLONED, None) => self.without_pidfd = Some(record.value),
                    (_, Some(fd)) => self.early.push_back((record, Some(fd))),
                    (_, None) => {}
                },
                Ok(Event::Nothing) => return true,
                _ => return false,
            }
        }
        true
    }

    /// Kills and reaps the processes of the setup. The stub's record can come before the spawner's,
    /// which this function then waits for. If a clone does not return in time, the spawner finds
    /// this socket closed, and kills the child.
    fn abandon(&mut self) {
        while self.note_processes() && self.child.is_none() && self.without_pidfd.is_none() {
            if report::wait(self.report.as_fd(), None, self.until, false) != Ok(Waited::Ready) {
                break;
            }
        }
        // From here on no process can send a record; the records sent until now are read.
        let _ = shutdown(self.report.as_raw_fd(), Shutdown::Both);
        self.note_processes();
        if let Some(pid) = self.without_pidfd {
            // A child that nobody has waited for keeps its pid.
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::__WALL));
        }
        let early = std::mem::take(&mut self.early).into_iter().filter_map(|(_, fd)| fd);
        for fd in self.child.take().map(|(_, fd)| fd).into_iter().chain(self.replaced.take()).chain(early) {
            // ESRCH: the process has ended by itself. The wait fails only if another thread has
            // reaped the process.
            let _ = pidfd::send_signal(fd.as_fd(), libc::SIGKILL);
            reap(fd.as_fd());
        }
    }

    pub(super) fn finish(mut self) -> Result<Stub> {
        let Some((pid, pidfd)) = self.child.take() else {
            return Err(Error::new(Step::Report, Errno::EPROTO));
        };
        let ended = self.early.iter().find(|(record, _)| record.kind == record::ENDED).map(|(record, _)| record.value);
        let timings = self.stopwatch.map(Stopwatch::stop);
        let (report, terminal, guest, has_init) = (self.report, self.terminal, self.guest, self.launch.init);
        Ok(Stub { pid, pidfd, guest, report, terminal, ended, has_init, timings })
    }
}

/// Returns true if the spawner's own record still follows this one.
fn is_from_inside(record: Record) -> bool {
    let no_child = record.kind == record::FAILED_BEFORE_STUB && record.value != wire::BEFORE_STUB_EXEC;
    record.kind != record::CLONED && !no_child
}

/// Reaps a process that is about to end. Does not wait for a process that the kernel blocks (in a
/// file system that hangs).
pub(super) fn reap(pidfd: BorrowedFd<'_>) {
    let until = Instant::now() + Duration::from_secs(5);
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    while poll(&mut fds, timeout::until(until)) == Err(Errno::EINTR) {}
    let _ = pidfd::wait(pidfd, false);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

    use super::super::report::encode;
    use super::*;
    use crate::plan::Plan;

    /// Returns what the attempt says while a process inside sends this record without end.
    fn flooded(kind: u32, has_child: bool) -> Error {
        let plan = Plan::new();
        let launch = Launch::new(&plan, Duration::from_millis(100));
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let bytes = encode(Record { kind, op: 0, errno: 0, value: 0 });
        let floods = [(); 6].map(|()| {
            let theirs = theirs.try_clone().unwrap();
            thread::spawn(move || while send(theirs.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).is_ok() {})
        });
        let mut attempt = Attempt::new(&launch, ours, Instant::now() + launch.deadline);
        if has_child {
            let own = std::process::id() as i32;
            attempt.child = Some((own, pidfd::open(own).unwrap()));
        }
        let error = attempt.read().unwrap_err();
        drop(attempt);
        floods.into_iter().for_each(|flood| flood.join().unwrap());
        error
    }

    #[test]
    fn records_without_end_do_not_outlast_the_deadline() {
        for _ in 0..4 {
            let began = Instant::now();
            assert_eq!(flooded(record::STAMP, true).kind(), ErrorKind::Timeout);
            assert_eq!(flooded(record::RULE_FILE, true).kind(), ErrorKind::Timeout);
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
    }

    #[test]
    fn records_before_the_clone_are_no_more_than_a_setup_has() {
        let error = flooded(record::STAMP, false);
        assert_eq!(error.raw_os_error(), Some(libc::EPROTO), "{error}");
    }
}
