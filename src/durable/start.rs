//! The start of a program whose sandbox waits for it, by this process or a later one.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Created;
use super::record::Record;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::security::Notifications;
use crate::spawn::{FailurePage, Later, TakeListener, Waits, connect_to};

/// The longest time between the end of a process's socket and its own.
const DEATH: Duration = Duration::from_secs(1);

/// # The start
impl Created {
    /// Starts the program. When this call returns, the program has been executed, as with
    /// [`spawn`](crate::Sandbox::spawn).
    ///
    /// # Errors
    ///
    /// A step that fails is the same error as in a spawn: [`ErrorKind::Exec`] for a program that is
    /// gone by now, [`ErrorKind::Setup`] for a limit or a filter, with step, path and errno. The
    /// sandbox has ended then, and is to be [removed](Created::remove).
    ///
    /// [`ErrorKind::Control`] if the program was started before (EALREADY), if the sandbox was
    /// never ready, in another pid namespace than the creator's, or while another process starts or
    /// removes it (EWOULDBLOCK); [`ErrorKind::NotFound`] if the sandbox has ended;
    /// [`ErrorKind::Timeout`] after the [`setup_timeout`](crate::Sandbox::setup_timeout) that it
    /// was created with: the sandbox is killed then, and its program does not run later. A [filter
    /// that asks](crate::Action::Notify) needs
    /// [`start_with_listener`](Created::start_with_listener).
    pub fn start(&self) -> Result<()> {
        self.start_with(None, None)
    }

    /// Starts a program whose filter asks a supervisor: [`Action::Notify`](crate::Action::Notify).
    /// `take` gets the listener before the program is executed, and passes it on: to a thread, or
    /// to another process. It does not answer by itself, because the exec may be what the filter
    /// asks about. The program is executed once `take` has returned; an error of `take` ends the
    /// sandbox, and its program never runs.
    ///
    /// ```
    /// use ringfence::{Action, Rule, Sandbox, Seccomp};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let above = std::env::temp_dir().join(format!("rf-doc-listener-{}", std::process::id()));
    /// # std::fs::create_dir(&above)?;
    /// # let dir = above.join("box");
    /// let asks = Seccomp::deny_list().rule(Rule::new(["mkdir", "mkdirat"], Action::Notify));
    /// let sandbox = Sandbox::new().seccomp(asks).command("mkdir").arg("/no/such/dir");
    /// let created = sandbox.create(&dir)?;
    /// let program = created.attached()?;
    /// created.start_with_listener(|notifications| {
    ///     std::thread::Builder::new().spawn(move || {
    ///         while let Ok(Some(notification)) = notifications.recv() {
    ///             let _ = notification.value(0);
    ///         }
    ///     })?;
    ///     Ok(())
    /// })?;
    /// assert!(program.wait()?.success());
    /// created.remove()?;
    /// # std::fs::remove_dir(&above)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`start`](Created::start), [`ErrorKind::Invalid`] for a filter that asks nobody,
    /// and at [`Step::HandListenerOver`] the error of `take`.
    pub fn start_with_listener(&self, take: impl FnOnce(Notifications) -> std::io::Result<()>) -> Result<()> {
        let take =
            |listener| take(Notifications::from(listener)).map_err(|error| Error::io(Step::HandListenerOver, &error));
        self.start_with(Some(Box::new(take)), None)
    }

    /// Returns whether a start brings the listener of the program's filter.
    #[cfg(feature = "oci")]
    pub(crate) fn listens(&self) -> bool {
        self.record.ready.as_ref().is_some_and(|ready| ready.listens)
    }

    /// Starts the program. `take` gets the listener of its filter. `connection` is that of a
    /// [`look`](Created::look) just before: the stub waits ten seconds for what it says.
    pub(crate) fn start_with(&self, take: Option<TakeListener<'_>>, connection: Option<OwnedFd>) -> Result<()> {
        let control = |text: &str| Error::message(ErrorKind::Control, Step::Start, text).at(self.dir());
        let Some(ready) = &self.record.ready else {
            return Err(control("the process that was to create the sandbox has ended too early")
                .hint("remove the sandbox, and create it again"));
        };
        self.refuse_elsewhere(Step::Start)?;
        match (ready.listens, &take) {
            (true, None) => {
                let reason = "the program's filter asks a supervisor, and nobody takes its listener";
                return Err(control(reason).hint("start it with start_with_listener()"));
            }
            (false, Some(_)) => {
                let reason = "the program's filter asks nobody";
                let error = Error::message(ErrorKind::Invalid, Step::Start, reason).at(self.dir());
                return Err(error.hint("start it with start()"));
            }
            _ => {}
        }
        let _lock = self.place.lock(Step::Start)?;
        let ended = || {
            Error::message(ErrorKind::NotFound, Step::Start, "the sandbox has ended").at(self.dir()).hint("remove it")
        };
        let process = self.pidfd().filter(|_| !self.has_ended()).ok_or_else(ended)?;
        let connection = match connection.map_or_else(|| self.connect(), |open| Ok(Waits::Yes(open)))? {
            Waits::Yes(connection) => connection,
            Waits::No if !self.runs() => return Err(ended()),
            Waits::No => {
                let error = Error::new(Step::Start, Errno::EALREADY).with_kind(ErrorKind::Control);
                return Err(error.at(self.dir()).detail("the program has been started before"));
            }
        };
        let failure = self.place.failure_page(false)?.map(FailurePage::of_file);
        let later = Later {
            connection,
            process,
            notes: &ready.notes,
            failure: failure.as_ref(),
            deadline: ready.timeout,
            take,
        };
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

    pub(super) fn connect(&self) -> Result<Waits> {
        connect_to(&self.place.listener())
            .map_err(|errno| Error::new(Step::Start, errno).at(self.dir()).with_kind(ErrorKind::Control))
    }

    /// Returns whether the program runs, where nobody listens any more. A process that is ending
    /// closes its socket a moment before its end can be seen, so one that is not on record as
    /// started may only be dying. A starter that is killed leaves no such note.
    pub(super) fn runs(&self) -> bool {
        let noted = || self.place.read().ok().flatten().and_then(|text| Record::from_text(&text));
        let is_started = self.started.get() || noted().is_some_and(|record| record.started);
        !self.ends_by(Instant::now() + if is_started { Duration::ZERO } else { DEATH })
    }
}
