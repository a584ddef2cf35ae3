//! Further programs in a container.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use super::engine_words::in_words_of_engines;
use super::{Container, LOCK_PAUSE};
use crate::child::Child;
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::oci::exec_process::ExecProcess;
use crate::oci::listener::supervisor_of;
use crate::oci::problems::Problems;
use crate::oci::state::Status;
use crate::oci::translate::{further_command, has_home};
use crate::passwd::home_in;
use crate::sys::pidfd;

impl Container {
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

    /// Lets [`exec`](Container::exec) in a container that is paused wait for its
    /// [`resume`](Container::resume) instead of being an error: `exec --ignore-paused` of runtimes.
    #[must_use = "the container is given back with the setting"]
    pub fn ignoring_pause(self, wanted: bool) -> Container {
        Container { ignores_pause: wanted, ..self }
    }

    /// Starts a further program in the container. `with` adds what `process` does not have: streams,
    /// which are the caller's own without, and descriptors.
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
    /// use ringfence::oci::{ExecProcess, Runtime};
    ///
    /// let container = Runtime::new("/run/my-engine").open("box")?;
    /// let process = ExecProcess::from_json(br#"{"args": ["ps"], "cwd": "/", "user": {"uid": 0, "gid": 0}}"#)?;
    /// let mut child = container.exec(&process, Ok)?;
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
    pub fn exec(&self, process: &ExecProcess, with: impl FnOnce(Command) -> Result<Command>) -> Result<Child> {
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
    pub fn exec_detached(&self, process: &ExecProcess, with: impl FnOnce(Command) -> Result<Command>) -> Result<Child> {
        self.enter(process, |command| with(command.left_to_parent()))
    }

    fn enter(&self, process: &ExecProcess, with: impl FnOnce(Command) -> Result<Command>) -> Result<Child> {
        let mut problems = Problems::default();
        let process = &process.process;
        let command = further_command(process, self.saved()?.process.as_ref(), &mut problems);
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
        if !has_home(process) {
            let home = root_of(attached.pidfd()).and_then(|root| home_in(root, process.user().uid()));
            command = command.env("HOME", home.unwrap_or_else(|| "/".into()));
        }
        if let Some(listener) = &self.saved()?.listener {
            command = command.supervised(supervisor_of(listener, self.state()?));
        }
        let program = process.args().iter().flatten().next().map_or("", String::as_str);
        attached.exec(with(command)?).map_err(|error| in_words_of_engines(error, program))
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
