//! Sandboxes that one process creates and a later one starts.

mod place;
mod record;

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::attach::{Attached, Ticket};
use crate::cgroup::{self, Group};
use crate::child::Left;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::launch::{Belongings, Ledger};
use crate::owner::{self, Claim};
use crate::plan::Note;
use crate::proc::identity::{self, Identity};
use crate::sandbox::Sandbox;
use crate::spawn::{FailurePage, Later, Waits, connect_to, listen_at};
use crate::sys::{pidfd, timeout};
use place::Place;
use record::{Ready, Record};

/// The longest time that the processes of a sandbox may take to end.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// The longest time between the end of a process's socket and its own.
const DEATH: Duration = Duration::from_secs(1);

/// A sandbox that is ready for its program, and that outlives the process which has created it:
/// [`Sandbox::create`].
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
/// (`PR_SET_DUMPABLE`), unless it is in the user namespace in which the sandbox's was made. Signals have their default actions: as the first process of a
/// [`pid_ns`](Sandbox::pid_ns), it ends by SIGKILL alone.
///
/// What the start has left to do is to set the limits of the process, to install the
/// [`seccomp`](Sandbox::seccomp) filter, and to execute the program. The protocol of the start is
/// eight bytes one way and a few records the other, and is the same in every version.
///
/// # If the creator is killed
///
/// The sandbox waits only once it is on record. A process that is killed in the middle of a create
/// takes the sandbox with it, and leaves a directory on which [`open`](Created::open) and
/// [`remove`](Created::remove) work.
#[derive(Debug)]
pub struct Created {
    place: Place,
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

/// # A sandbox that outlives its creator
impl Sandbox {
    /// Makes the sandbox up to the exec of its program, and leaves it waiting: a later process, or
    /// this one, starts the program with [`Created::start`]. `dir` is a new directory for the
    /// sandbox's record, best on a tmpfs such as `/run`: nothing of the sandbox survives a reboot.
    ///
    /// Streams that were not set are the caller's own. The sandbox outlives this process, whatever
    /// [`die_with_owner`](Sandbox::die_with_owner) says. A program that is missing is an error of
    /// this call already.
    ///
    /// ```no_run
    /// use ringfence::{Sandbox, Stdio};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let log = std::fs::File::create("server.log")?;
    /// let sandbox = Sandbox::strict().wall_time(None).command("server").stdin(Stdio::null());
    /// sandbox.stdout(log.try_clone()?).stderr(log).create("/run/server/one")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Sandbox::spawn), and [`ErrorKind::Unsupported`] for what needs this
    /// process as long as the program runs, each named: [`Stdio::piped`](crate::Stdio::piped) and
    /// [`Stdio::pty`](crate::Stdio::pty), [`wall_time`](Sandbox::wall_time), a
    /// [`cpu_time`](Sandbox::cpu_time) that a control group counts, [`timings`](Sandbox::timings),
    /// [`denials`](Sandbox::denials) and filters with [`Action::Notify`](crate::Action::Notify),
    /// scopes of systemd, and images.
    ///
    /// The directory must not exist, and no other user may be able to replace it. Closing the
    /// descriptors of the one that waits needs Linux 5.9: close_range(2).
    pub fn create(&self, dir: impl AsRef<Path>) -> Result<Created> {
        let place = Place::make(dir.as_ref())?;
        let created = create_in(self, &place);
        match created {
            Ok((record, process, claim)) => {
                Ok(Created { place, record, process: Some(process), claim, started: Cell::new(false) })
            }
            Err(error) => {
                // The error of the create counts. What is left can be opened, and removed.
                let _ = place.remove();
                Err(error)
            }
        }
    }
}

fn create_in(sandbox: &Sandbox, place: &Place) -> Result<(Record, OwnedFd, Option<Claim>)> {
    let _lock = place.lock(Step::Create)?;
    let listener =
        listen_at(&place.listener()).map_err(|errno| Error::new(Step::Create, errno).at(place.path().join("start")))?;
    let book = Book { place, timeout: sandbox.policy.setup_timeout(), record: Cell::new(here()?) };
    let stub = sandbox.policy.create(&book, listener.as_fd())?;
    Ok((book.record.take(), stub.pidfd, stub.claim))
}

/// Returns the record of a sandbox that this process is about to create.
fn here() -> Result<Record> {
    let failed = |errno| Error::new(Step::Create, errno).hint("mount /proc");
    let (boot, pid_ns) = (identity::boot_id().map_err(failed)?, identity::pid_ns().map_err(failed)?);
    Ok(Record { boot: Some(boot), pid_ns: Some(pid_ns), ..Record::default() })
}

/// The record of a sandbox that is being created.
struct Book<'b> {
    place: &'b Place,
    timeout: Duration,
    record: Cell<Record>,
}

impl Book<'_> {
    fn change(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = self.record.take();
        change(&mut record);
        let text = record.to_text();
        self.record.set(record);
        self.place.write(&text)
    }
}

impl Ledger for Book<'_> {
    fn announce(&self, belongings: &Belongings) -> Result<()> {
        self.change(|record| record.belongings = Some(belongings.clone()))
    }

    fn failure_page(&self) -> Result<File> {
        let page = self.place.failure_page(true)?;
        page.ok_or_else(|| Error::new(Step::Report, Errno::ENOENT).at(self.place.path()))
    }

    fn save(&self, left: &Left<'_>, notes: &[(u32, Note)]) -> Result<()> {
        let process = Identity::of(left.pidfd).map_err(|errno| Error::new(Step::Create, errno))?;
        let ticket = match Ticket::of_created(left, Some(&self.place.door()?)) {
            Ok(ticket) => Ok(ticket.to_string()),
            // The sandbox itself needs none.
            Err(error) if matches!(error.kind(), ErrorKind::Control | ErrorKind::TooLarge) => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        let ready = Ready { process, notes: notes.to_vec(), timeout: self.timeout, ticket };
        self.change(|record| record.ready = Some(ready))
    }
}

impl Created {
    /// Finds a sandbox by its directory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such directory. [`ErrorKind::Control`] for a directory
    /// that is not a sandbox's, or not this user's alone; for a record that this version cannot
    /// read; and with EWOULDBLOCK while another process creates the sandbox.
    pub fn open(dir: impl AsRef<Path>) -> Result<Created> {
        let place = Place::open(dir.as_ref())?;
        let unread = |reason: &str| {
            Error::message(ErrorKind::Control, Step::Attach, reason)
                .at(place.path())
                .hint("pass the directory that was given to create(), to this version of the library or a later one")
        };
        let read = || match place.read()? {
            Some(text) => Record::from_text(&text).ok_or_else(|| unread("the record is not that of a sandbox")),
            None => Ok(Record::default()),
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
        let failed = |errno| Error::new(Step::Attach, errno).at(place.path()).with_kind(ErrorKind::Control);
        let process = record.ready.as_ref().map(|ready| ready.process.find()).transpose().map_err(failed)?.flatten();
        let started = Cell::new(record.started);
        Ok(Created { place, record, process, claim: None, started })
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

    /// Refuses a process in another pid namespace than the creator's, where the pid of the record is
    /// that of another process or of none. After a reboot there is no process either way.
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
        if self.record.ready.is_none() {
            return Ok(CreatedState::Unfinished);
        }
        self.refuse_elsewhere(Step::Attach)?;
        if self.has_ended() {
            return Ok(CreatedState::Stopped);
        }
        if !self.started.get() && matches!(self.connect()?, Waits::Yes(_)) {
            return Ok(CreatedState::Created);
        }
        Ok(if self.runs() { CreatedState::Running } else { CreatedState::Stopped })
    }

    /// Returns whether the program runs, where nobody listens any more. A process that is ending
    /// closes its socket a moment before its end can be seen, so one that is not on record as
    /// started may only be dying. A starter that is killed leaves no such note.
    fn runs(&self) -> bool {
        let noted = || self.place.read().ok().flatten().and_then(|text| Record::from_text(&text));
        let is_started = self.started.get() || noted().is_some_and(|record| record.started);
        !self.ends_by(Instant::now() + if is_started { Duration::ZERO } else { DEATH })
    }

    /// Starts the program. When this call returns, the program has been executed, as with
    /// [`spawn`](Sandbox::spawn).
    ///
    /// # Errors
    ///
    /// A step that fails is the same error as in a spawn: [`ErrorKind::Exec`] for a program that is
    /// gone by now, [`ErrorKind::Setup`] for a limit or a filter, with step, path and errno. The
    /// sandbox has ended then, and is to be [removed](Created::remove).
    ///
    /// [`ErrorKind::Control`] if the program was started before (EALREADY), if the sandbox was never
    /// ready, in another pid namespace than the creator's, or while another process starts or
    /// removes it (EWOULDBLOCK);
    /// [`ErrorKind::NotFound`] if the sandbox has ended; [`ErrorKind::Timeout`] after the
    /// [`setup_timeout`](Sandbox::setup_timeout) that it was created with: the sandbox is killed
    /// then, and its program does not run later.
    pub fn start(&self) -> Result<()> {
        let control = |text: &str| Error::message(ErrorKind::Control, Step::Start, text).at(self.dir());
        let Some(ready) = &self.record.ready else {
            return Err(control("the process that was to create the sandbox has ended too early")
                .hint("remove the sandbox, and create it again"));
        };
        self.refuse_elsewhere(Step::Start)?;
        let _lock = self.place.lock(Step::Start)?;
        let ended = || {
            Error::message(ErrorKind::NotFound, Step::Start, "the sandbox has ended").at(self.dir()).hint("remove it")
        };
        let process = self.pidfd().filter(|_| !self.has_ended()).ok_or_else(ended)?;
        let connection = match self.connect()? {
            Waits::Yes(connection) => connection,
            Waits::No if !self.runs() => return Err(ended()),
            Waits::No => {
                let error = Error::new(Step::Start, Errno::EALREADY).with_kind(ErrorKind::Control);
                return Err(error.at(self.dir()).detail("the program has been started before"));
            }
        };
        let failure = self.place.failure_page(false)?.map(FailurePage::of_file);
        let later =
            Later { connection, process, notes: &ready.notes, failure: failure.as_ref(), deadline: ready.timeout };
        later.start().map_err(|error| match self.ticket() {
            Ok(ticket) => ticket.explain(error),
            Err(_) => error,
        })?;
        self.started.set(true);
        self.place.remove_start();
        // The socket says the same. A record that cannot be written now only takes a look at it.
        let _ = self.note_start();
        Ok(())
    }

    fn note_start(&self) -> Result<()> {
        let Some(text) = self.place.read()? else { return Ok(()) };
        // Words of a later version stay.
        match text.split_once('\n') {
            Some((line, rest)) => self.place.write(&format!("{line},started=1\n{rest}")),
            None => Ok(()),
        }
    }

    fn connect(&self) -> Result<Waits> {
        connect_to(&self.place.listener())
            .map_err(|errno| Error::new(Step::Start, errno).at(self.dir()).with_kind(ErrorKind::Control))
    }

    /// Returns the ticket of the sandbox, which is valid before the start as well.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a sandbox that was never ready, and if it can have no ticket
    /// because the caller has named its control group; [`ErrorKind::Invalid`] for the ticket of
    /// another version of the library.
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

    /// Sends a signal to the program, or to the process that waits to become it.
    ///
    /// # Errors
    ///
    /// ESRCH after the end, EINVAL for a number that is no signal, and [`ErrorKind::Control`] without
    /// an errno in another pid namespace than the creator's.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let failed = |errno| Error::new(Step::Signal, errno).at(self.dir()).with_kind(ErrorKind::Control);
        self.refuse_elsewhere(Step::Signal)?;
        let process = self.pidfd().filter(|_| !self.has_ended()).ok_or_else(|| failed(Errno::ESRCH))?;
        pidfd::send_signal(process, signal).map_err(failed)
    }

    /// Kills the sandbox, whether its program was started or not, and removes everything that was
    /// made for it: its control group, its scratch directory, and its own directory. An error leaves
    /// that directory, so that another process can go on.
    ///
    /// Without a [`pid_ns`](Sandbox::pid_ns) and without a limit, which brings a control group, only
    /// the program itself is killed. A [`cgroup`](Sandbox::cgroup) that another sandbox has taken
    /// since the program's end is left alone. Where no group can be marked (without cgroup v2, and
    /// before Linux 5.7), what the program has left in such a group after its end is not killed
    /// either, and is an error (EBUSY).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if something cannot be removed, in another pid namespace than the
    /// creator's, or with EWOULDBLOCK while another process starts or removes the sandbox.
    pub fn remove(mut self) -> Result<()> {
        self.refuse_elsewhere(Step::RemoveCreated)?;
        let _lock = self.place.lock(Step::RemoveCreated)?;
        // Before the first process ends: it may be what tells whose the group is.
        let named = self.end_named_group();
        self.end()?;
        named?;
        if let Some(belongings) = &self.record.belongings {
            for group in &belongings.groups {
                cgroup::end(group, END_PATIENCE)?;
            }
            for group in &belongings.missing {
                cgroup::remove_empty(group, END_PATIENCE)?;
            }
            if let Some(base) = &belongings.scratch {
                owner::remove_scratch_of(&belongings.name, base)?;
            }
            // This is the last that the claim stands for, here or on the record of its owner.
            drop(self.claim.take());
            owner::settle(&belongings.name)?;
        }
        self.place.remove()
    }

    /// Kills what runs in the group that the caller has named, and gives the group back, if the
    /// sandbox has it yet.
    fn end_named_group(&self) -> Result<()> {
        let named = self.record.belongings.as_ref().filter(|belongings| !belongings.named.is_empty());
        let Some(belongings) = named else { return Ok(()) };
        if !self.is_of_this_boot(Step::RemoveCgroup)? {
            return Ok(());
        }
        let first = || self.pidfd().filter(|_| !self.has_ended()).and_then(pidfd::pid_of);
        match Group::of_named(cgroup::host()?, &belongings.named)? {
            Some(group) => group.end_named(&belongings.name, &first, END_PATIENCE),
            None => Ok(()),
        }
    }

    /// Ends the first process, and reaps it if it is a child of this process.
    fn end(&self) -> Result<()> {
        let Some(process) = self.pidfd() else { return Ok(()) };
        let failed = |errno| Error::new(Step::Kill, errno).at(self.dir()).with_kind(ErrorKind::Control);
        match pidfd::send_signal(process, libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(failed(errno)),
        }
        // A frozen process ends once its group is killed, which thaws the group.
        let groups = self.record.belongings.as_ref().map_or(&[][..], |belongings| &belongings.groups);
        for group in groups {
            cgroup::end(group, END_PATIENCE)?;
        }
        if !self.ends_by(Instant::now() + END_PATIENCE) {
            return Err(failed(Errno::ETIMEDOUT).hint("the kernel may block it, in a file system that hangs"));
        }
        // ECHILD: the parent is another process.
        let _ = pidfd::wait(process, false);
        Ok(())
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
