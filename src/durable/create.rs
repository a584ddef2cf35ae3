//! The creation of a sandbox that waits for a later process.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::Created;
use super::dir::RecordDir;
use super::record::{Ready, Record};
use crate::attach::Ticket;
use crate::child::{Left, Terminal};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::launch::{Belongings, CreatedStub, Hooks, Ledger};
use crate::plan::Note;
use crate::proc::identity::{self, Identity};
use crate::sandbox::Sandbox;
use crate::spawn::listen_at;

/// # A sandbox that outlives its creator
impl Sandbox {
    /// Makes the sandbox up to the exec of its program, and leaves it waiting: a later process, or
    /// this one, starts the program with [`Created::start`]. `dir` is a new directory for the
    /// sandbox's record, best on a tmpfs such as `/run`: nothing of the sandbox survives a reboot.
    ///
    /// Streams that were not set are the caller's own. With [`Stdio::pty`](crate::Stdio::pty) the
    /// other end of the terminal is [`Created::terminal`]. The sandbox outlives this process,
    /// whatever [`die_with_owner`](Sandbox::die_with_owner) says. A program that is missing is an
    /// error of this call already.
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
    /// process as long as the program runs, each named: [`Stdio::piped`](crate::Stdio::piped), an
    /// [`output_limit`](Sandbox::output_limit) of a terminal, [`wall_time`](Sandbox::wall_time), a
    /// [`cpu_time`](Sandbox::cpu_time) that a control group counts, [`timings`](Sandbox::timings),
    /// [`denials`](Sandbox::denials), scopes of systemd, and images. A
    /// [`notify_socket`](Sandbox::notify_socket) is refused with a filter that asks about a call
    /// which the waiting process makes itself: then
    /// [`start_with_listener`](Created::start_with_listener) brings the listener.
    ///
    /// The directory must not exist, and no other user may be able to replace it. Closing the
    /// descriptors of the one that waits needs Linux 5.9: close_range(2).
    pub fn create(&self, dir: impl AsRef<Path>) -> Result<Created> {
        self.create_with(dir.as_ref(), None)
    }

    /// Does the same, and runs hooks before the root is entered.
    pub(crate) fn create_with(&self, dir: &Path, hooks: Option<&Hooks<'_>>) -> Result<Created> {
        let place = RecordDir::make(dir)?;
        let created = create_in(self, &place, hooks);
        match created {
            Ok((record, CreatedStub { pidfd, terminal, claim })) => {
                let terminal = terminal.map(|master| Terminal::new(master, None));
                Ok(Created { terminal, place, record, process: Some(pidfd), claim, started: Cell::new(false) })
            }
            Err(error) => {
                // The error of the create counts. What is left can be opened, and removed.
                let _ = place.remove();
                Err(error)
            }
        }
    }
}

fn create_in(sandbox: &Sandbox, place: &RecordDir, hooks: Option<&Hooks<'_>>) -> Result<(Record, CreatedStub)> {
    let _lock = place.lock(Step::Create)?;
    let listener =
        listen_at(&place.listener()).map_err(|errno| Error::new(Step::Create, errno).at(place.path().join("start")))?;
    let book = Book { place, timeout: sandbox.policy.setup_timeout(), record: Cell::new(here()?) };
    let stub = sandbox.policy.create(&book, listener.as_fd(), hooks)?;
    Ok((book.record.take(), stub))
}

/// Returns the record of a sandbox that this process is about to create.
fn here() -> Result<Record> {
    let failed = |errno| {
        let error = Error::new(Step::Create, errno);
        if errno == Errno::ENOENT { error.hint("mount /proc") } else { error }
    };
    let (boot, pid_ns) = (identity::boot_id().map_err(failed)?, identity::pid_ns().map_err(failed)?);
    Ok(Record { boot: Some(boot), pid_ns: Some(pid_ns), ..Record::default() })
}

/// The record of a sandbox that is being created.
struct Book<'b> {
    place: &'b RecordDir,
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

    fn save(&self, left: &Left<'_>, notes: &[(u32, Note)], listens: bool) -> Result<()> {
        let process = Identity::of(left.pidfd).map_err(|errno| Error::new(Step::Create, errno))?;
        let ticket = match Ticket::of_created(left, Some(&self.place.door()?)) {
            Ok(ticket) => Ok(ticket.to_string()),
            // The sandbox itself needs none.
            Err(error) if matches!(error.kind(), ErrorKind::Control | ErrorKind::TooLarge) => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        let ready = Ready { process, notes: notes.to_vec(), timeout: self.timeout, listens, ticket };
        self.change(|record| record.ready = Some(ready))
    }
}
