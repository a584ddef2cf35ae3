//! Sandboxes that one process creates and a later one starts.

mod create;
mod dir;
mod record;
mod remove;
mod start;

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::attach::{Attached, Ticket};
#[cfg(feature = "oci")]
use crate::cgroup::{self, Group};
#[cfg(feature = "oci")]
use crate::child::Child;
use crate::child::Terminal;
#[cfg(feature = "oci")]
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner::Claim;
use crate::proc::identity;
use crate::spawn::Waits;
use crate::sys::{pidfd, timeout};
use dir::RecordDir;
use record::Record;

/// A sandbox that is ready for its program, and that outlives the process which has created it:
/// [`Sandbox::create`](crate::Sandbox::create).
///
/// ```
/// use ringfence::{Created, CreatedState, Sandbox, Stdio};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let above = std::env::temp_dir().join(format!("rf-doc-created-{}", std::process::id()));
/// # std::fs::create_dir(&above)?;
/// # let dir = above.join("box");
/// // One process creates the sandbox, and exits.
/// Sandbox::new().command("true").stdin(Stdio::null()).create(&dir)?;
///
/// // A later one, perhaps of a newer version, starts the program.
/// let created = Created::open(&dir)?;
/// assert_eq!(created.state()?, CreatedState::Created);
/// let program = created.attached()?;
/// created.start()?;
/// assert!(program.wait()?.success());
/// created.remove()?;
/// # std::fs::remove_dir(&above)?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping the value changes nothing. [`remove`](Created::remove) ends the sandbox.
///
/// # What waits
///
/// The first process of the sandbox waits, and no other: a few pages of memory, with the program's
/// user, capabilities, mounts and control group, and with no descriptors but the program's own and
/// the socket `start` in the sandbox's directory. Only the owner of that directory, and root, can
/// reach the socket. No process of the same user can look into the one that waits
/// (`PR_SET_DUMPABLE`), unless it is in the user namespace in which the sandbox's was made. Signals
/// have their default actions: as the first process of a [`pid_ns`](crate::Sandbox::pid_ns), it
/// ends by SIGKILL alone.
///
/// What the start has left to do is to set the limits of the process, to install the
/// [`seccomp`](crate::Sandbox::seccomp) filter, and to execute the program. The protocol of the
/// start is eight bytes one way and a few records the other, and is the same in every version.
///
/// # If the creator is killed
///
/// The sandbox waits only once it is on record. A process that is killed in the middle of a create
/// takes the sandbox with it, and leaves a directory on which [`open`](Created::open) and
/// [`remove`](Created::remove) work.
#[derive(Debug)]
pub struct Created {
    /// The other end of the program's terminal, if it has one of its own
    /// ([`Stdio::pty`](crate::Stdio::pty)) and this process has created the sandbox: take it, and
    /// keep it, or hand it to a process that stays. When the last copy is dropped, the terminal is
    /// hung up.
    pub terminal: Option<Terminal>,
    place: RecordDir,
    record: Record,
    /// The first process of the sandbox, until it is reaped.
    process: Option<OwnedFd>,
    /// What this process has made for the sandbox.
    claim: Option<Claim>,
    started: Cell<bool>,
}

/// The state of a [`Created`] sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CreatedState {
    /// The process that was to create it has ended before it was ready. There is nothing to start.
    Unfinished,
    /// It waits for [`Created::start`].
    Created,
    /// Its program was started, and runs.
    Running,
    /// Its program has ended, or its first process was killed before that.
    Stopped,
}

impl Created {
    /// Finds a sandbox by its directory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such directory. [`ErrorKind::Control`] for a
    /// directory that is not a sandbox's, or not this user's alone; for a record that this version
    /// cannot read; and with EWOULDBLOCK while another process creates the sandbox.
    pub fn open(dir: impl AsRef<Path>) -> Result<Created> {
        let place = RecordDir::open(dir.as_ref())?;
        let unread = |reason: &str| {
            Error::message(ErrorKind::Control, Step::Attach, reason)
                .at(place.path())
                .hint("pass the directory that was given to create(), to this version of the library or a later one")
        };
        let read = || match place.read()? {
            // An empty one is of a machine that went down.
            Some(text) if !text.is_empty() => {
                Record::from_text(&text).ok_or_else(|| unread("the record is not that of a sandbox"))
            }
            _ => Ok(Record::default()),
        };
        let mut record = read()?;
        if record.ready.is_none() {
            if !place.is_of_a_sandbox()? {
                return Err(unread("the directory is not that of a sandbox"));
            }
            // The lock is the creator's while the creator lives.
            let _lock = place.lock(Step::Attach)?;
            record = read()?;
        }
        Created::of_record(place, record)
    }

    /// Finds a sandbox whose own record cannot be read, by a copy of the record.
    #[cfg(feature = "oci")]
    pub(crate) fn open_by_copy(dir: &Path, record: &str) -> Result<Created> {
        let place = RecordDir::open(dir)?;
        let record = Record::from_text(record).ok_or_else(|| {
            let reason = "the copy of the record is not that of a sandbox";
            Error::message(ErrorKind::Control, Step::Attach, reason).at(place.path())
        })?;
        Created::of_record(place, record)
    }

    /// Returns the record, for [`open_by_copy`](Created::open_by_copy).
    #[cfg(feature = "oci")]
    pub(crate) fn copy_of_record(&self) -> String {
        self.record.to_text()
    }

    /// Returns whether the record is that of a sandbox that was ready.
    #[cfg(feature = "oci")]
    pub(crate) fn is_whole(&self) -> bool {
        self.record.ready.is_some()
    }

    fn of_record(place: RecordDir, record: Record) -> Result<Created> {
        let failed = |errno| Error::new(Step::Attach, errno).at(place.path()).with_kind(ErrorKind::Control);
        let process = record.ready.as_ref().map(|ready| ready.process.find()).transpose().map_err(failed)?.flatten();
        let started = Cell::new(record.started);
        Ok(Created { terminal: None, place, record, process, claim: None, started })
    }

    /// Returns the directory.
    pub fn dir(&self) -> &Path {
        self.place.path()
    }

    /// Returns the pid of the first process of the sandbox, in this process's pid namespace: it
    /// becomes the program, or is its init. `None` for a sandbox that was never ready, and for one
    /// that has ended and was reaped.
    pub fn id(&self) -> Option<u32> {
        self.pidfd().and_then(pidfd::pid_of).map(i32::unsigned_abs)
    }

    /// Returns the pidfd of that process, pidfd_open(2). It becomes readable when the program has
    /// ended.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(AsFd::as_fd)
    }

    fn is_of_this_boot(&self, step: Step) -> Result<bool> {
        let boot = identity::boot_id().map_err(|errno| self.control(step, errno))?;
        Ok(self.record.boot.as_ref() == Some(&boot))
    }

    /// Refuses a process in another pid namespace than the creator's, where the pid of the record
    /// is that of another process or of none. After a reboot there is no process either way.
    fn refuse_elsewhere(&self, step: Step) -> Result<()> {
        let Some(theirs) = self.record.pid_ns else { return Ok(()) };
        let own = identity::pid_ns().map_err(|errno| self.control(step, errno))?;
        if own == theirs || !self.is_of_this_boot(step)? {
            return Ok(());
        }
        let text = "the sandbox was created in another pid namespace";
        let error = Error::message(ErrorKind::Control, step, text).at(self.dir());
        Err(error.hint("call in the pid namespace of the process that has created it"))
    }

    fn control(&self, step: Step, errno: Errno) -> Error {
        Error::new(step, errno).at(self.dir()).with_kind(ErrorKind::Control)
    }

    /// Returns what has become of the sandbox.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if the socket of the sandbox cannot be reached, and in another pid
    /// namespace than the creator's, where no process of the sandbox can be found.
    pub fn state(&self) -> Result<CreatedState> {
        Ok(self.look()?.0)
    }

    /// Returns what has become of the sandbox, with the connection by which that was found out if the
    /// sandbox waits: a start can go on with it.
    pub(crate) fn look(&self) -> Result<(CreatedState, Option<OwnedFd>)> {
        if self.record.ready.is_none() {
            return Ok((CreatedState::Unfinished, None));
        }
        self.refuse_elsewhere(Step::Attach)?;
        if self.has_ended() {
            return Ok((CreatedState::Stopped, None));
        }
        if !self.started.get()
            && let Waits::Yes(connection) = self.connect()?
        {
            return Ok((CreatedState::Created, Some(connection)));
        }
        Ok((if self.runs() { CreatedState::Running } else { CreatedState::Stopped }, None))
    }

    /// Returns the ticket of the sandbox, which is valid before the start as well.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a sandbox that was never ready; [`ErrorKind::Invalid`] for the
    /// ticket of another version of the library.
    pub fn ticket(&self) -> Result<Ticket> {
        let refuse = |text: &str| Error::message(ErrorKind::Control, Step::Attach, text).at(self.dir());
        match self.record.ready.as_ref().map(|ready| &ready.ticket) {
            Some(Ok(text)) => text.parse(),
            Some(Err(reason)) => Err(refuse(&format!("the sandbox has no ticket: {reason}"))),
            None => Err(refuse("the sandbox was never ready")),
        }
    }

    /// Attaches to the sandbox, before the start or after it. Who attaches before the end of the
    /// program learns its status. [`exec`](Attached::exec) is refused before the start.
    ///
    /// # Errors
    ///
    /// The errors of [`ticket`](Created::ticket) and of [`Attached::open`].
    pub fn attached(&self) -> Result<Attached> {
        Attached::open_own(&self.ticket()?)
    }

    /// Sends a signal to the program, or to the process that waits to become it. That one ends by
    /// SIGHUP, SIGINT, SIGQUIT and SIGTERM, with 128 and the number as its exit code, also as the
    /// init of a pid namespace, of which the kernel keeps signals without a handler.
    ///
    /// # Errors
    ///
    /// ESRCH after the end, EINVAL for a number that is no signal, and [`ErrorKind::Control`]
    /// without an errno in another pid namespace than the creator's.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let failed = |errno| Error::new(Step::Signal, errno).at(self.dir()).with_kind(ErrorKind::Control);
        self.refuse_elsewhere(Step::Signal)?;
        let process = self.pidfd().filter(|_| !self.has_ended()).ok_or_else(|| failed(Errno::ESRCH))?;
        pidfd::send_signal(process, signal).map_err(failed)
    }

    /// Returns the pid of the first process, as long as it runs.
    fn first_pid(&self) -> Option<i32> {
        self.pidfd().filter(|_| !self.has_ended()).and_then(pidfd::pid_of)
    }

    /// Returns the pid of the first process as the sandbox's processes see it.
    #[cfg(feature = "oci")]
    pub(crate) fn pid_inside(&self) -> Result<u32> {
        let gone = || self.control(Step::Attach, Errno::ESRCH);
        let pid = self.first_pid().ok_or_else(gone)?;
        let inside = identity::pid_inside(pid).map_err(|errno| self.control(Step::Attach, errno))?;
        // As long as nobody has reaped the process, the pid is its own.
        Some(inside).filter(|_| self.first_pid() == Some(pid)).ok_or_else(gone)
    }

    /// Starts a program in the sandbox while that waits for its start. No program of the sandbox
    /// may have run before.
    #[cfg(feature = "oci")]
    pub(crate) fn exec_ahead(&self, command: &Command) -> Result<Child> {
        self.attached()?.exec_ahead(command)
    }

    /// Returns the group that the caller has named; `None` if it is gone, or another sandbox has
    /// taken it since.
    #[cfg(feature = "oci")]
    pub(crate) fn group(&self) -> Result<Option<Group>> {
        let named = self.record.belongings.as_ref().filter(|belongings| !belongings.named.is_empty());
        let Some(belongings) = named.filter(|_| self.is_of_this_boot(Step::Attach).unwrap_or(false)) else {
            return Ok(None);
        };
        let Some(group) = Group::of_named(cgroup::host()?, &belongings.named)? else { return Ok(None) };
        let is_held = group.is_held_by(&belongings.name, &|| self.first_pid())?;
        Ok(is_held.then_some(group))
    }

    fn has_ended(&self) -> bool {
        self.ends_by(Instant::now())
    }

    /// Returns whether the first process ends before `until`, or was never there.
    fn ends_by(&self, until: Instant) -> bool {
        let Some(process) = self.pidfd() else { return true };
        loop {
            match poll(&mut [PollFd::new(process, PollFlags::POLLIN)], timeout::until(until)) {
                Ok(0) if Instant::now() >= until => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                // A poll of one descriptor that is open does not fail.
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        // The record of what was made stays, for `remove` and for `reap_stale`.
        self.claim.take().into_iter().for_each(Claim::lend);
    }
}
