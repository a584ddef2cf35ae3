//! Further programs in a running sandbox.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Child;
use super::outcome::Output;
use super::shared::Shared;
use crate::cgroup::Group;
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::stdio::Stdio;
use crate::text::Writer;

/// The time that the end of a process may take once it has begun.
const ENDING: Duration = Duration::from_millis(100);

/// The policy behind a handle, which starts further programs in the sandbox.
pub(crate) trait Enter: Debug + Send + Sync {
    /// Starts a program in the sandbox. `default` has the streams for those that the command does
    /// not set.
    fn enter(&self, running: &Inside<'_>, command: &Command, default: &[Stdio; 3]) -> Result<Child>;

    /// Writes the way into the sandbox for a later process.
    fn record(&self, line: &mut Writer);
}

/// The running sandbox that a program enters.
#[derive(Debug)]
pub(crate) struct Inside<'s> {
    /// The program, or its init.
    pub(crate) pid: i32,
    pub(crate) pidfd: BorrowedFd<'s>,
    pub(crate) group: Option<&'s Group>,
}

/// # Further programs
impl Child {
    /// Starts another program in the running sandbox, which ends with the sandbox.
    ///
    /// The program has the namespaces and the root of the sandbox, its control group with its
    /// limits, its user, capabilities, filter, Landlock rules and limits of processes. Environment
    /// and working directory are the policy's, unless the command sets them; without either, the
    /// program starts in `/`. Streams that the command does not set are the caller's own.
    ///
    /// The handle is like any other, with a wall time and an output limit of its own, as the policy
    /// has them. Dropping the handle ends this program alone; with
    /// [`kill`](Child::kill) goes its process group. It has no [`stats`](Child::stats): what the
    /// program uses counts as the sandbox's.
    ///
    /// A process of the sandbox can see the new program only after the program has given up all
    /// rights that the sandbox's programs do not have, whatever the process may inspect. Such a
    /// process can stop the new program on its way in: then the call fails after
    /// [`setup_timeout`](crate::Sandbox::setup_timeout). Without an [`init`](crate::Sandbox::init),
    /// no set-user-ID program gives a further program privileges (`no_new_privs`), because the
    /// first program could have put another in its place.
    ///
    /// The wall time of the new program goes on while the sandbox is frozen.
    ///
    /// ```
    /// use ringfence::{Command, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let child = sandbox.pid_ns().uts_ns().hostname("inside").command("sleep").arg("60").spawn()?;
    /// let output = child.exec_output(Command::new("hostname"))?;
    /// assert_eq!(output.stdout, b"inside\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Control`] if the sandbox has ended or is frozen, in a fork of the caller, and
    ///   for a handle that `exec` itself returned: use that of the sandbox.
    /// - [`ErrorKind::Unsupported`] without a pid namespace and without a limit, since nothing
    ///   would end the program with the sandbox; before Linux 5.8; and where only systemd may put a
    ///   process into the control group.
    /// - Otherwise as [`Sandbox::spawn`](crate::Sandbox::spawn).
    pub fn exec(&self, command: impl Into<Command>) -> Result<Child> {
        self.enter(&command.into(), &Stdio::inherited())
    }

    /// Runs another program in the running sandbox to its end, and collects its output. Without
    /// settings of the command, stdout and stderr are captured, and stdin is empty.
    ///
    /// # Errors
    ///
    /// The errors of [`exec`](Child::exec) and of [`wait_with_output`](Child::wait_with_output).
    pub fn exec_output(&self, command: impl Into<Command>) -> Result<Output> {
        self.enter(&command.into(), &Stdio::captured())?.wait_with_output()
    }

    fn enter(&self, command: &Command, default: &[Stdio; 3]) -> Result<Child> {
        self.entrance()?.enter(command, default)
    }

    /// Returns the way into the sandbox, which another thread can take.
    pub(crate) fn entrance(&self) -> Result<Entrance> {
        let shared = self.shared()?;
        shared.require_home(Step::Enter)?;
        let enter = self.enter.as_ref().ok_or_else(|| has_no_way(Step::Enter))?;
        Ok(Entrance { shared: shared.clone(), enter: enter.clone() })
    }
}

/// The way into a running sandbox.
#[derive(Debug)]
pub(crate) struct Entrance {
    shared: Arc<Shared>,
    enter: Arc<dyn Enter>,
}

impl Entrance {
    /// Starts a program in the sandbox.
    pub(crate) fn enter(&self, command: &Command, default: &[Stdio; 3]) -> Result<Child> {
        let Entrance { shared, enter } = self;
        if shared.has_ended() {
            return Err(has_ended());
        }
        let running = Inside { pid: shared.running.pid, pidfd: shared.pidfd(), group: shared.group.as_ref() };
        let started =
            enter_running(&**enter, &running, command, default, |until| shared.ends_by(until).unwrap_or(false));
        shared.execs.note(&started);
        started
    }
}

/// Starts a program in a sandbox. `ends_by` waits for the end of the sandbox's first process.
pub(crate) fn enter_running(
    enter: &dyn Enter,
    running: &Inside<'_>,
    command: &Command,
    default: &[Stdio; 3],
    ends_by: impl Fn(Instant) -> bool,
) -> Result<Child> {
    let enters = |error: &Error| [Step::Enter, Step::JoinNamespace].contains(&error.step());
    let gone = |error: &Error| error.raw_os_error() == Some(libc::ESRCH) && enters(error);
    // A process that is ending cannot be looked into any more, and ends in a moment.
    let ends = |error: &Error| {
        let patience = if enters(error) { ENDING } else { Duration::ZERO };
        gone(error) || ends_by(Instant::now() + patience)
    };
    enter.enter(running, command, default).map_err(|error| if ends(&error) { has_ended() } else { error })
}

/// Returns the error of a handle that leads to no sandbox.
pub(super) fn has_no_way(step: Step) -> Error {
    Error::message(ErrorKind::Control, step, "the handle is that of a further program")
        .hint("use the handle that spawn() returned")
}

/// Returns the error of a sandbox that is gone.
pub(crate) fn has_ended() -> Error {
    Error::message(ErrorKind::Control, Step::Enter, "the sandbox has ended")
}
