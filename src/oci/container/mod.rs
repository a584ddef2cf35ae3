//! One container: its creation, its state, its start.

mod delete;
mod engine_words;
mod exec;
mod group;

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use self::engine_words::in_words_of_engines;
use super::hooks::{self, Asked, Watch};
use super::listener::{send_listener, supervisor_of};
use super::state::{First, Saved, State, Status};
use super::state_dir::{Lock, StateDir};
use super::translate::Hooks;
use crate::child::Terminal;
use crate::durable::{Created, CreatedState};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::launch::Unentered;
use crate::network::{Device, Moved};
use crate::sandbox::Sandbox;
use crate::spawn::TakeListener;
use crate::sys::pidfd;

/// The time between two looks at what nothing tells of: a lock, for which flock(2) cannot wait with
/// a bound, and the end of a pause.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A container: [`Runtime::create`](super::Runtime::create),
/// [`Runtime::open`](super::Runtime::open).
///
/// The value holds no process. Dropping it leaves the container as it is.
///
/// ```no_run
/// use ringfence::oci::{Runtime, Status};
///
/// let container = Runtime::new("/run/my-engine").open("box")?;
/// if container.state()?.status == Status::Running {
///     container.pause()?;
///     println!("{:?}", container.stats()?.memory_current);
///     container.resume()?;
/// }
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug)]
pub struct Container {
    dir: StateDir,
    id: String,
    /// `None` for a container whose creator was killed before it could write anything.
    saved: Option<Saved>,
    /// The sandbox, as long as this process has created it.
    created: Option<Created>,
    /// Ends the wait for hooks.
    interrupt: Option<Arc<OwnedFd>>,
    /// A further program waits for the end of a pause.
    ignores_pause: bool,
}

impl Container {
    pub(super) fn of(dir: StateDir, id: &str, saved: Option<Saved>) -> Container {
        Container { dir, id: id.to_owned(), saved, created: None, interrupt: None, ignores_pause: false }
    }

    pub(super) fn interrupted_by(self, interrupt: Option<Arc<OwnedFd>>) -> Container {
        Container { interrupt, ..self }
    }

    /// Creates the container in its new directory. An error leaves nothing.
    pub(super) fn create(
        (dir, lock): (StateDir, Lock),
        mut saved: Saved,
        sandbox: &Sandbox,
        (hooks, net_devices): (&Hooks, &[Device]),
        interrupt: Option<Arc<OwnedFd>>,
    ) -> Result<Container> {
        let began = Cell::new(false);
        // An error moves them back.
        let moved = Cell::new(None);
        let run_hooks = |unentered: &Unentered<'_>| {
            // Others find the process by this as long as the hooks run.
            let known = Saved { first: Some(First::of(unentered.pid())?), ..saved.clone() };
            dir.write(&known.to_json())?;
            if !net_devices.is_empty() {
                moved.set(Some(unentered.take_in(net_devices)?));
            }
            began.set(true);
            hooks::run_before_entry(hooks, &saved, unentered, interrupt.as_deref())
        };
        let stops = hooks.come_before_entry() || !net_devices.is_empty();
        let run_hooks = stops.then_some(&run_hooks as &dyn Fn(&Unentered<'_>) -> Result<()>);
        let made = dir.write(&saved.to_json()).and_then(|()| sandbox.create_with(&dir.sandbox(), run_hooks));
        let made = made.and_then(|created| {
            saved.sandbox = Some(created.copy_of_record());
            match dir.write(&saved.to_json()) {
                Ok(()) => Ok(created),
                Err(error) => {
                    // The error counts. What is left can be deleted.
                    let _ = created.remove();
                    Err(error)
                }
            }
        });
        if made.is_err() && began.get() {
            // What the first hooks have made is for the last ones to remove. The error of the
            // create counts.
            saved.deleting = true;
            let _ = dir.write(&saved.to_json());
            let state = saved.shown(Status::Stopped, None);
            let _ = hooks::run_each("poststop", &saved.poststop, &state);
        }
        match made {
            Ok(created) => {
                moved.take().into_iter().for_each(Moved::stay);
                drop(lock);
                let id = saved.id.clone();
                Ok(Container { created: Some(created), interrupt, ..Container::of(dir, &id, Some(saved)) })
            }
            Err(error) => {
                // The error of the create counts. What is left can be deleted.
                let _ = dir.remove();
                drop(lock);
                let words = saved.process.as_ref().and_then(|process| process.args().as_ref());
                Err(in_words_of_engines(error, words.and_then(|words| words.first()).map_or("", String::as_str)))
            }
        }
    }

    /// Returns the name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the state: what is kept, with what becomes of it now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container whose creator was killed before it could write
    /// anything, and if the state cannot be found out.
    pub fn state(&self) -> Result<State> {
        let (status, pid) = self.look(None)?;
        Ok(self.saved()?.shown(status, pid))
    }

    fn saved(&self) -> Result<&Saved> {
        self.saved.as_ref().ok_or_else(|| {
            let reason = format!("container {} was never made: its creator has ended too early", self.id);
            Error::message(ErrorKind::Control, Step::ContainerState, reason).hint("delete it with force")
        })
    }

    /// Reads what is kept, which another call may have changed before this one has got the lock.
    fn read_again(&mut self, _lock: &Lock) -> Result<()> {
        self.saved = self.dir.read()?.map(|text| Saved::from_json(&text, &self.id)).transpose()?;
        Ok(())
    }

    /// Opens the sandbox; `None` if it was never made, or is being made.
    fn open(&self) -> Result<Option<Created>> {
        let opened = Created::open(self.dir.sandbox());
        // The path may be that of another container by now.
        self.dir.check_current()?;
        match opened {
            Ok(created) => Ok(Some(created)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the status, and the pid of the first process. `lock` is the container's lock if this
    /// call has it: nobody else creates or deletes the container then.
    fn look(&self, lock: Option<&Lock>) -> Result<(Status, Option<u32>)> {
        let opened = match &self.created {
            Some(_) => self.dir.check_current().map(|()| None)?,
            None => self.open()?,
        };
        let Some(created) = self.created.as_ref().or(opened.as_ref()) else {
            let is_deleted = self.saved.as_ref().is_some_and(|saved| saved.deleting);
            if lock.is_some() || is_deleted || !self.dir.is_locked() {
                return Ok((Status::Stopped, None));
            }
            let first = self.first().and_then(|process| pidfd::pid_of(process.as_fd()));
            return Ok((Status::Creating, first.map(i32::unsigned_abs)));
        };
        Ok((status_of(created, created.state()?), created.id()))
    }

    /// Opens the sandbox for a start, and returns the status, with a connection to the process that
    /// waits for the start.
    fn look_to_start(&mut self, lock: &Lock) -> Result<(Status, Option<OwnedFd>)> {
        if self.created.is_none() {
            self.created = self.open()?;
        }
        let Some(created) = &self.created else { return Ok((self.look(Some(lock))?.0, None)) };
        let (state, connection) = created.look()?;
        Ok((status_of(created, state), connection))
    }

    /// Opens the first process of a sandbox that is being made, while hooks run.
    fn first(&self) -> Option<OwnedFd> {
        self.saved.as_ref()?.first.as_ref()?.open()
    }

    fn refuse(&self, step: Step, reason: &str) -> Error {
        Error::message(ErrorKind::Control, step, format!("container {}: {reason}", self.id))
    }

    /// Takes the other end of the program's terminal, if the configuration has `process.terminal`,
    /// and this process has created the container. When the last copy is dropped, the terminal is
    /// hung up.
    pub fn take_terminal(&mut self) -> Option<Terminal> {
        self.created.as_mut().and_then(|created| created.terminal.take())
    }

    /// Returns the pidfd of the container's first process, if this process has created the
    /// container.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.created.as_ref().and_then(Created::pidfd)
    }

    /// Runs the hooks `startContainer`, starts the program, and runs the hooks `poststart`. If a
    /// hook fails, the container is removed, and the hooks `poststop` run.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if the container is not created, the errors of [`Created::start`],
    /// those of hooks at [`Step::Hook`], and at [`Step::HandListenerOver`] if the process that
    /// answers the filter's questions (`listenerPath`) does not take its listener: the container is
    /// killed then.
    pub fn start(&mut self) -> Result<()> {
        let lock = self.dir.lock()?;
        self.read_again(&lock)?;
        let saved = self.saved()?.clone();
        let (status, connection) = self.look_to_start(&lock)?;
        match status {
            Status::Created => {}
            Status::Stopped => return Err(self.refuse(Step::Start, "cannot start a container that has stopped")),
            Status::Creating => return Err(self.refuse(Step::Start, "it is being created")),
            _ => return Err(self.refuse(Step::Start, "cannot start an already running container")),
        }
        if saved.without_process {
            let error = self.refuse(Step::Start, "its configuration has no process, which a start needs");
            return Err(error.hint("delete it, and create it with `process`"));
        }
        let gone = || self.refuse(Step::Start, "its sandbox is gone");
        let created = self.created.as_ref().ok_or_else(gone)?;
        // Hooks and a state that is asked for take the sandbox's time, and connections of their own.
        let late_listener = saved.listener.as_ref().filter(|_| created.listens());
        let connection = connection.filter(|_| saved.start_container.is_empty() && late_listener.is_none());
        if !saved.start_container.is_empty() {
            let state = saved.shown(Status::Created, Some(created.pid_inside()?));
            let supervisor = match &saved.listener {
                Some(listener) => Some(supervisor_of(listener, self.state()?)),
                None => None,
            };
            let asked = Asked { supervisor: supervisor.as_ref(), interrupt: self.interrupt.as_deref() };
            if let Err(error) = hooks::run_inside(&saved.start_container, &state, created, asked) {
                return Err(self.destroyed_for(error, &lock));
            }
        }
        let take = match late_listener {
            Some(listener) => {
                let shown = self.state()?;
                Some(Box::new(move |fd| send_listener(listener, &fd, &shown)) as TakeListener<'_>)
            }
            None => None,
        };
        let words = saved.process.as_ref().and_then(|process| process.args().as_ref());
        let program = words.and_then(|words| words.first()).map_or("", String::as_str);
        created.start_with(take, connection).map_err(|error| in_words_of_engines(error, program))?;
        if saved.poststart.is_empty() {
            return Ok(());
        }
        // A hook may ask for the state, or take long.
        drop(lock);
        let state = self.state()?;
        let watch = Watch { first: None, interrupt: self.interrupt.as_deref().map(AsFd::as_fd) };
        if let Err(error) = hooks::run_all("poststart", &saved.poststart, &state, watch) {
            // If there is no lock to be had, another call has deleted the container.
            return Err(match self.dir.lock() {
                Ok(lock) => self.destroyed_for(error, &lock),
                Err(_) => error,
            });
        }
        Ok(())
    }

    /// Waits for the end of the program that this process has created, and returns its status.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::StatusLost`] if another process is the parent.
    pub fn wait(&self) -> Result<ExitStatus> {
        let lost = |errno| Error::new(Step::Wait, errno).with_kind(ErrorKind::StatusLost);
        let process = self.created.as_ref().and_then(Created::pidfd).ok_or_else(|| lost(Errno::ECHILD))?;
        loop {
            match pidfd::wait(process, true) {
                Ok(Some(ended)) => return Ok(ExitStatus::from_raw(ended.wait_status)),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(lost(errno)),
            }
        }
    }
}

fn status_of(created: &Created, state: CreatedState) -> Status {
    match state {
        CreatedState::Created => Status::Created,
        CreatedState::Running if is_frozen(created) => Status::Paused,
        CreatedState::Running => Status::Running,
        CreatedState::Unfinished | CreatedState::Stopped => Status::Stopped,
    }
}

fn is_frozen(created: &Created) -> bool {
    created.group().ok().flatten().is_some_and(|group| group.frozen_above().is_ok_and(|at| at.is_some()))
}
