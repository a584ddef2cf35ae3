//! One container.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::config::{process_from_json, resources_from_json};
use super::hooks::{self, Asked, Watch};
use super::listener::{send_listener, supervisor_of};
use super::problems::Problems;
use super::state::{First, Saved, State, Status};
use super::state_dir::{Lock, StateDir};
use super::translate::{Hooks, further_command, has_home, limits_of};
use super::update::complete;
use crate::cgroup::{Group, Stats};
use crate::child::{Child, Events, Execs, Terminal};
use crate::command::Command;
use crate::durable::{Created, CreatedState};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::launch::Unentered;
use crate::passwd::home_in;
use crate::sandbox::Sandbox;
use crate::spawn::TakeListener;
use crate::sys::pidfd;

const FREEZE_PATIENCE: Duration = Duration::from_secs(10);
/// The longest time that a delete by force waits for another call to let the container go.
const FORCE_PATIENCE: Duration = Duration::from_secs(60);
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
        hooks: &Hooks,
        interrupt: Option<Arc<OwnedFd>>,
    ) -> Result<Container> {
        let began = Cell::new(false);
        let run_hooks = |unentered: &Unentered<'_>| {
            // Others find the process by this as long as the hooks run.
            let known = Saved { first: Some(First::of(unentered.pid())?), ..saved.clone() };
            dir.write(&known.to_json())?;
            began.set(true);
            hooks::run_before_entry(hooks, &saved, unentered, interrupt.as_deref())
        };
        let run_hooks = hooks.come_before_entry().then_some(&run_hooks as &dyn Fn(&Unentered<'_>) -> Result<()>);
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

    /// Opens the sandbox to remove it: by the copy of its record if its own is garbled, or empty.
    fn open_to_remove(&self, _lock: &Lock) -> Result<Option<Created>> {
        let copy = self.saved.as_ref().and_then(|saved| saved.sandbox.as_deref());
        let by_copy = |copy: &str| Created::open_by_copy(&self.dir.sandbox(), copy).map(Some);
        match (self.open(), copy) {
            // There is a copy of what was made whole.
            (Ok(Some(created)), Some(copy)) if !created.is_whole() => by_copy(copy),
            (Err(error), Some(copy)) if error.kind() != ErrorKind::NotFound => by_copy(copy),
            (Err(error), None) => {
                let group = self.saved.as_ref().and_then(|saved| saved.cgroup.as_deref());
                let group = group.map(|path| format!(" and its control group {}", path.display())).unwrap_or_default();
                let stays = format!("the container's processes{group} stay: end them, and remove the directory");
                Err(error.hint(stays))
            }
            (opened, _) => opened,
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
        let status = match created.state()? {
            CreatedState::Created => Status::Created,
            CreatedState::Running if is_frozen(created) => Status::Paused,
            CreatedState::Running => Status::Running,
            CreatedState::Unfinished | CreatedState::Stopped => Status::Stopped,
        };
        Ok((status, created.id()))
    }

    /// Opens the first process of a sandbox that is being made, while hooks run.
    fn first(&self) -> Option<OwnedFd> {
        self.saved.as_ref()?.first.as_ref()?.open()
    }

    fn group(&self) -> Result<Option<Group>> {
        match &self.created {
            Some(created) => created.group(),
            None => self.open()?.map_or(Ok(None), |created| created.group()),
        }
    }

    fn need_group(&self, step: Step) -> Result<Group> {
        self.group()?.ok_or_else(|| {
            let reason = format!("container {} has no control group", self.id);
            Error::message(ErrorKind::Control, step, reason).hint("name one with linux.cgroupsPath")
        })
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
        match self.look(Some(&lock))?.0 {
            Status::Created => {}
            Status::Stopped => return Err(self.refuse(Step::Start, "cannot start a container that has stopped")),
            Status::Creating => return Err(self.refuse(Step::Start, "it is being created")),
            _ => return Err(self.refuse(Step::Start, "cannot start an already running container")),
        }
        if saved.without_process {
            let error = self.refuse(Step::Start, "its configuration has no process, which a start needs");
            return Err(error.hint("delete it, and create it with `process`"));
        }
        if self.created.is_none() {
            self.created = self.open()?;
        }
        let gone = || self.refuse(Step::Start, "its sandbox is gone");
        let created = self.created.as_ref().ok_or_else(gone)?;
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
        let take = match &saved.listener {
            Some(listener) => {
                let shown = self.state()?;
                Some(Box::new(move |fd| send_listener(listener, &fd, &shown)) as TakeListener<'_>)
            }
            None => None,
        };
        created.start_with(take)?;
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

    /// Removes the container for the error of a hook.
    fn destroyed_for(&mut self, error: Error, lock: &Lock) -> Error {
        match self.destroy(lock) {
            Ok(_) => error,
            Err(other) => error.hint(format!("the container cannot be removed either: {other}")),
        }
    }

    /// Removes the sandbox, runs the hooks `poststop`, and removes the directory. Returns the
    /// errors of hooks.
    fn destroy(&mut self, lock: &Lock) -> Result<Vec<Error>> {
        let created = match self.created.take() {
            Some(created) => Some(created),
            None => self.open_to_remove(lock)?,
        };
        if let Some(saved) = &mut self.saved {
            saved.deleting = true;
            // It is for those who ask meanwhile, and no reason to leave the container.
            let _ = self.dir.write(&saved.to_json());
        }
        if let Some(created) = created {
            created.remove()?;
        }
        let failed = match &self.saved {
            Some(saved) => hooks::run_each("poststop", &saved.poststop, &saved.shown(Status::Stopped, None)),
            None => Vec::new(),
        };
        self.dir.remove()?;
        Ok(failed)
    }

    /// Sends a signal to the container's first process; with `all` to every process in its control
    /// group. SIGKILL goes to all in any case if they do not end with the first one. It also ends a
    /// container that is being created, while hooks run: the create fails then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that does not run, and with EINVAL for a number that
    /// is no signal.
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        let saved = self.saved()?;
        let is_kill = signal == libc::SIGKILL;
        let everything = all || is_kill && !saved.own_pid_ns;
        let (status, _) = self.look(None)?;
        if status == Status::Creating
            && is_kill
            && let Some(first) = self.first()
        {
            // Whoever runs a hook for it gives up.
            let failed = |errno| Error::new(Step::Signal, errno).with_kind(ErrorKind::Control);
            return pidfd::send_signal(first.as_fd(), signal).map_err(failed);
        }
        if everything && let Some(group) = self.group()? {
            if is_kill {
                group.kill()?;
            } else {
                signal_all(&group, signal)?;
            }
        } else if matches!(status, Status::Stopped | Status::Creating) {
            return Err(self.refuse(Step::Signal, "container not running"));
        } else {
            let created = self.open()?.ok_or_else(|| self.refuse(Step::Signal, "container not running"))?;
            created.signal(signal)?;
        }
        if is_kill && status == Status::Paused {
            // A process that is frozen by v1 ends once it is thawed.
            self.need_group(Step::Freeze)?.thaw()?;
        }
        Ok(())
    }

    /// Removes a container that has stopped, or waits for its start; with `force` also one that
    /// runs, or is being made. Then runs the hooks `poststop`, and returns the errors of those that
    /// fail: they end nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that runs, without `force`; and if something cannot
    /// be removed: then the call may be repeated. [`ErrorKind::NotFound`] if another call has
    /// deleted it. With `force`, [`ErrorKind::Timeout`] if another call holds the container for
    /// longer than a minute, although its first process is killed.
    pub fn delete(mut self, force: bool) -> Result<Vec<Error>> {
        let lock = if force { self.lock_by_force()? } else { self.dir.lock()? };
        match self.read_again(&lock) {
            // What can be read of the sandbox is enough.
            Err(_) if force => self.saved = None,
            other => other?,
        }
        if !force {
            let (status, _) = self.look(Some(&lock))?;
            if matches!(status, Status::Running | Status::Paused) {
                let reason = format!("cannot delete a container that is not stopped: {status}");
                return Err(self.refuse(Step::RemoveCreated, &reason));
            }
        }
        let failed = self.destroy(&lock)?;
        drop(lock);
        Ok(failed)
    }

    /// Takes the lock from a call that has it as long as the container lives: one that waits for a
    /// hook gives up once the first process is killed.
    fn lock_by_force(&mut self) -> Result<Lock> {
        let until = Instant::now() + FORCE_PATIENCE;
        loop {
            if let Some(lock) = self.dir.try_lock()? {
                return Ok(lock);
            }
            if Instant::now() >= until {
                let seconds = FORCE_PATIENCE.as_secs();
                let reason = format!("container {}: another call has not let it go within {seconds} s", self.id);
                let error = Error::message(ErrorKind::Timeout, Step::RemoveCreated, reason);
                return Err(error.hint("it may wait for a poststop hook that has no timeout, or stand still"));
            }
            // The creator notes the process while this call waits.
            if let Some(text) = self.dir.read().ok().flatten() {
                self.saved = Saved::from_json(&text, &self.id).ok();
            }
            // A look at a sandbox that is not whole would be in the way of the other call.
            let is_whole = self.saved.as_ref().is_some_and(|saved| saved.sandbox.is_some());
            match self.first() {
                Some(first) => drop(pidfd::send_signal(first.as_fd(), libc::SIGKILL)),
                None if is_whole => drop(self.open().map(|created| created.map(|it| it.signal(libc::SIGKILL)))),
                None => {}
            }
            thread::sleep(LOCK_PAUSE);
        }
    }

    /// Freezes all processes of the container.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that does not run, or is paused, or has no control
    /// group.
    pub fn pause(&self) -> Result<()> {
        let lock = self.dir.lock()?;
        match self.look(Some(&lock))?.0 {
            Status::Running => self.need_group(Step::Freeze)?.freeze(FREEZE_PATIENCE),
            status => Err(self.refuse(Step::Freeze, &format!("container not running: {status}"))),
        }
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that is not paused.
    pub fn resume(&self) -> Result<()> {
        let lock = self.dir.lock()?;
        match self.look(Some(&lock))?.0 {
            Status::Paused => self.need_group(Step::Freeze)?.thaw(),
            status => Err(self.refuse(Step::Freeze, &format!("container not paused: {status}"))),
        }
    }

    /// Changes limits of the container: `resources` has properties of `linux.resources`, as the
    /// file of an engine's `update`. What is not set there stays as it is, as do the rules for
    /// devices.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] and [`ErrorKind::Unsupported`] with the paths of properties;
    /// [`ErrorKind::Control`] for a container that has stopped, without a control group, and for a
    /// limit that the kernel refuses: those before it are set then.
    pub fn update(&mut self, resources: &[u8]) -> Result<()> {
        let mut update = resources_from_json(resources)?;
        let lock = self.dir.lock()?;
        self.read_again(&lock)?;
        let mut saved = self.saved()?.clone();
        let known = complete(&mut update, &saved.limits);
        let mut problems = Problems::default();
        let limits = limits_of(&update, &mut problems);
        let limits = problems.unless_any(limits)?;
        match self.look(Some(&lock))?.0 {
            Status::Stopped | Status::Creating => return Err(self.refuse(Step::SetLimit, "container not running")),
            _ => {
                let group = self.need_group(Step::SetLimit)?;
                match &self.created {
                    Some(created) => created.set_limits_of_unit(&limits)?,
                    None => self.open()?.map_or(Ok(()), |created| created.set_limits_of_unit(&limits))?,
                }
                // systemd may round, so the files come last.
                group.update(&limits)?;
            }
        }
        saved.limits = known;
        self.dir.write(&saved.to_json())?;
        self.saved = Some(saved);
        Ok(())
    }

    /// Returns `process` of the configuration that the container was created with, as JSON: what
    /// [`exec`](Container::exec) takes, for a further program that differs from it in some
    /// properties.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container whose creator was killed before it could write
    /// anything.
    pub fn process(&self) -> Result<String> {
        let saved = self.saved()?;
        if saved.without_process {
            return Err(self.refuse(Step::Enter, "its configuration has no process"));
        }
        serde_json::to_string(&saved.process).map_err(|error| {
            Error::message(ErrorKind::Control, Step::ContainerState, format!("container {}: {error}", self.id))
        })
    }

    /// Returns what the container uses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that has stopped, and without a control group.
    pub fn stats(&self) -> Result<Stats> {
        match self.look(None)?.0 {
            Status::Stopped | Status::Creating => Err(self.refuse(Step::Stats, "container not running")),
            _ => self.need_group(Step::Stats)?.stats(),
        }
    }

    /// Returns what happens in the container from here on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that has stopped, and without a control group.
    pub fn events(&self) -> Result<Events> {
        let stopped = || self.refuse(Step::Events, "container not running");
        let created = self.open()?.ok_or_else(stopped)?;
        let process = created.pidfd().filter(|_| !matches!(created.state(), Ok(CreatedState::Stopped)));
        let process = process.ok_or_else(stopped)?.try_clone_to_owned();
        let process = process.map_err(|error| Error::io(Step::Events, &error).with_kind(ErrorKind::Control))?;
        Events::of_other(process, Some(&self.need_group(Step::Events)?), &Arc::new(Execs::default()))
    }

    /// Returns the pids of all processes, in this process's pid namespace. Without a pid namespace
    /// of its own, a container that has stopped may have left some.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] without a control group.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let pids = self.need_group(Step::Stats)?.processes()?;
        Ok(pids.into_iter().map(i32::unsigned_abs).collect())
    }

    /// Lets [`exec`](Container::exec) in a container that is paused wait for its
    /// [`resume`](Container::resume) instead of being an error: `exec --ignore-paused` of runtimes.
    #[must_use = "the container is given back with the setting"]
    pub fn ignoring_pause(self, wanted: bool) -> Container {
        Container { ignores_pause: wanted, ..self }
    }

    /// Starts a further program in the container: `process` is a file of an engine, which has the
    /// properties of `process` in the configuration. `with` adds what is not in it: streams, which
    /// are the caller's own without, and descriptors.
    ///
    /// The user, the capabilities and `noNewPrivileges` are those that `process` says, which may be
    /// more than the container's own program has: see [`Command`], "Rights of a further program".
    /// Capabilities, labels and `execCPUAffinity` that it does not say are those of the container's
    /// process. With `terminal`, [`Child::terminal`] has the terminal, which is on the container's
    /// devpts. A `HOME` that is not in the environment comes from the container's `/etc/passwd`. A
    /// filter that asks has its listener sent to `listenerPath` before the program is executed,
    /// with the program's own pid.
    ///
    /// ```no_run
    /// use ringfence::oci::Runtime;
    ///
    /// let container = Runtime::new("/run/my-engine").open("box")?;
    /// let process = br#"{"args": ["ps"], "cwd": "/", "user": {"uid": 0, "gid": 0}}"#;
    /// let mut child = container.exec(process, Ok)?;
    /// println!("{}", child.wait()?.verdict());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] and [`ErrorKind::Unsupported`] with the paths of properties;
    /// [`ErrorKind::Control`] for a container that does not run; and the errors of
    /// [`Attached::exec`](crate::Attached::exec). The error of a program that is not found in
    /// `PATH` ends in the words that engines look for.
    pub fn exec(&self, process: &[u8], with: impl FnOnce(Command) -> Result<Command>) -> Result<Child> {
        self.enter(process, with)
    }

    /// Does the same for a program that outlives this process. Once the handle is
    /// [detached](Child::detach), nothing here reaps the program: whoever becomes its parent when
    /// this process ends gets its status, also if it has ended by then. With engines that is their
    /// subreaper, `PR_SET_CHILD_SUBREAPER`.
    ///
    /// # Errors
    ///
    /// The errors of [`exec`](Container::exec).
    pub fn exec_detached(&self, process: &[u8], with: impl FnOnce(Command) -> Result<Command>) -> Result<Child> {
        self.enter(process, |command| with(command.left_to_parent()))
    }

    fn enter(&self, process: &[u8], with: impl FnOnce(Command) -> Result<Command>) -> Result<Child> {
        let mut problems = Problems::default();
        let process = process_from_json(process)?;
        let command = further_command(&process, self.saved()?.process.as_ref(), &mut problems);
        let mut command = problems.unless_any(command)?;
        while self.ignores_pause && self.look(None)?.0 == Status::Paused {
            thread::sleep(LOCK_PAUSE);
        }
        match self.look(None)?.0 {
            Status::Running => {}
            // In the words of other runtimes.
            Status::Paused => return Err(self.refuse(Step::Enter, "cannot exec in a paused container")),
            status => return Err(self.refuse(Step::Enter, &format!("cannot exec in a container that is {status}"))),
        }
        let created = self.open()?.ok_or_else(|| self.refuse(Step::Enter, "its sandbox is gone"))?;
        let attached = created.attached()?;
        if !has_home(&process) {
            let home = root_of(attached.pidfd()).and_then(|root| home_in(root, process.user().uid()));
            command = command.env("HOME", home.unwrap_or_else(|| "/".into()));
        }
        if let Some(listener) = &self.saved()?.listener {
            command = command.supervised(supervisor_of(listener, self.state()?));
        }
        let program = process.args().iter().flatten().next().map_or("", String::as_str);
        attached.exec(with(command)?).map_err(|error| in_words_of_engines(error, program))
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

/// Opens the root directory of a container, by its first process.
fn root_of(process: BorrowedFd<'_>) -> Option<OwnedFd> {
    let pid = pidfd::pid_of(process)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let root = File::options().read(true).custom_flags(flags).open(format!("/proc/{pid}/root")).ok()?;
    // As long as nobody has reaped the process, the pid was its own.
    (pidfd::pid_of(process) == Some(pid)).then(|| root.into())
}

/// Adds the words by which engines know that a program is not there.
fn in_words_of_engines(error: Error, program: &str) -> Error {
    let is_missing = error.kind() == ErrorKind::Exec && error.raw_os_error() == Some(libc::ENOENT);
    if is_missing && !program.contains('/') {
        return error.detail(format!("{program:?}: executable file not found in $PATH"));
    }
    if error.step() == Step::MountTarget && error.raw_os_error() == Some(libc::ELOOP) {
        return error.detail("it must be mounted on ordinary directory");
    }
    if error.step() == Step::JoinCgroup && error.raw_os_error().is_some() {
        let errno = error.raw_os_error().map_or("", |errno| Errno::from_raw(errno).desc());
        return error.detail(format!("error adding pid of the program to cgroups: {errno}"));
    }
    if error.step() == Step::CreateCgroup && error.raw_os_error() == Some(libc::EBUSY) {
        let text = error.to_string();
        let known = [
            ("processes run in it", "container's cgroup is not empty"),
            ("it is frozen", "container's cgroup unexpectedly frozen"),
        ];
        if let Some((_, words)) = known.into_iter().find(|(own, _)| text.contains(own)) {
            return error.detail(words);
        }
    }
    error
}

fn is_frozen(created: &Created) -> bool {
    created.group().ok().flatten().is_some_and(|group| group.frozen_above().is_ok_and(|at| at.is_some()))
}

/// Signals every process of a group, and none that has got the pid of one meanwhile.
fn signal_all(group: &Group, signal: i32) -> Result<()> {
    let failed = |errno| Error::new(Step::Signal, errno).with_kind(ErrorKind::Control);
    let opened: Vec<_> =
        group.processes()?.into_iter().filter_map(|pid| Some((pid, pidfd::open_any(pid).ok()?))).collect();
    let still = group.processes()?;
    for (_, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        match pidfd::send_signal(process.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}
