//! A policy that is judged and written as a plan once, and spawned many times.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Sandbox;
use crate::child::{Child, Outcome, Output};
use crate::command::Command;
use crate::error::{Error, Result};
use crate::feature::Enforced;
use crate::launch::{Compiled, KeptResources, Parked, Run, Supervisor};
use crate::policy::Policy;
use crate::program::Invocation;
use crate::security::Notifications;
use crate::spawn::Misfire;
use crate::stdio::{Fds, Stdio, Streams};

/// A [`Sandbox`] whose judgement and plan are made once, for many spawns: [`Sandbox::prepare`].
///
/// A `Prepared` is cheap to clone, and can be shared between threads. [`with`](Prepared::with)
/// takes the same policy for another program.
///
/// ```
/// use ringfence::{Command, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let prepared = Sandbox::new().command("true").prepare()?;
/// assert!(prepared.status()?.success());
/// for word in ["one", "two"] {
///     let output = prepared.with(Command::new("echo").arg(word)).output()?;
///     assert_eq!(output.stdout, format!("{word}\n").as_bytes());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # State of the preparation, state of the spawn
///
/// Each spawn uses these as they were when the sandbox was prepared: the judgement (the caller's
/// privileges, the abilities of the host, the caller's id and /etc/subuid), the caller's
/// environment, the pids of [`join_pid`](Sandbox::join_pid), and the type of each source of a bind,
/// directory or file.
///
/// Each spawn uses these as they are at that time: the files and directories at the paths of the
/// policy, the caller's umask and, where the policy has neither a root nor a `cwd`, the caller's
/// working directory. Where another directory has replaced the root directory, the next spawn uses
/// the new one; where a directory has replaced a file, the spawn fails.
///
/// Control group, scratch directory, Landlock ruleset and copies of mounts are made for each spawn,
/// because the kernel lets none of them be used twice. A [`cgroup_parent`](Sandbox::cgroup_parent)
/// that was made for one of the spawns stays until the `Prepared` is dropped.
#[derive(Debug, Clone)]
pub struct Prepared {
    inner: Arc<Inner>,
    command: Option<Arc<Command>>,
}

/// The part of a [`Prepared`] that its clones share.
#[derive(Debug)]
struct Inner {
    policy: Policy,
    compiled: Compiled,
    own: Invocation,
    _kept: KeptResources,
}

/// # Many runs
impl Sandbox {
    /// Judges the policy as thoroughly as [`check`](Sandbox::check) does, and does in advance all
    /// work that is the same for every run. [`Prepared`] lists the state that is taken now, and the
    /// state that each spawn takes anew.
    ///
    /// ```
    /// use ringfence::{Command, Sandbox};
    ///
    /// let prepared = Sandbox::new().prepare()?;
    /// let (one, two) = (prepared.with(Command::new("true")), prepared.with(Command::new("false")));
    /// assert!(one.status()?.success() && !two.status()?.success());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`check`](Sandbox::check), and one for a path of the host that does not exist.
    pub fn prepare(&self) -> Result<Prepared> {
        let policy = self.policy.clone();
        let compiled = Compiled::new(&policy, true)?;
        let kept = policy.keep_resources(&compiled.judgement)?;
        policy.make_id_maps()?;
        compiled.write_setup(&policy)?;
        let inner = Inner { own: policy.invocation(), policy, compiled, _kept: kept };
        Ok(Prepared { inner: Arc::new(inner), command: None })
    }
}

/// # Runs of a prepared policy
impl Prepared {
    /// Returns the same policy with another program.
    pub fn with(&self, command: impl Into<Command>) -> Prepared {
        Prepared { inner: self.inner.clone(), command: Some(Arc::new(command.into())) }
    }

    /// Returns the features that a spawn enforces.
    pub fn enforced(&self) -> &Enforced {
        &self.inner.compiled.judgement.enforced
    }

    /// Starts the program, like [`Sandbox::spawn`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setup`](crate::ErrorKind::Setup) and
    /// [`ErrorKind::Exec`](crate::ErrorKind::Exec) with the step, path and errno;
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a command that execve(2) cannot take.
    pub fn spawn(&self) -> Result<Child> {
        self.launch(&Stdio::inherited(), None)
    }

    /// Runs the program to its end and collects its output, like [`Sandbox::output`].
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Prepared::spawn) and of [`Child::wait_with_output`].
    pub fn output(&self) -> Result<Output> {
        self.launch(&Stdio::captured(), None)?.wait_with_output()
    }

    /// Runs the program to its end, like [`Sandbox::status`].
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Prepared::spawn) and of [`Child::wait`].
    pub fn status(&self) -> Result<Outcome> {
        self.spawn()?.wait()
    }

    /// Starts the program, and a thread for its supervisor, like [`Sandbox::spawn_supervised`].
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Prepared::spawn) and of [`Sandbox::spawn_supervised`].
    pub fn spawn_supervised(&self, supervisor: impl FnOnce(Notifications) + Send + 'static) -> Result<Child> {
        self.launch(&Stdio::inherited(), Some(Box::new(supervisor)))
    }

    /// Starts the program. `default` has the streams for those that nobody sets.
    pub(crate) fn launch(&self, default: &[Stdio; 3], supervisor: Option<Supervisor>) -> Result<Child> {
        let run = self.run(self.command.as_deref(), default)?;
        self.start(run, supervisor)
    }

    /// Makes a run of `command`, or of the policy's own program. `default` has the streams for
    /// those that neither sets.
    pub(crate) fn run(&self, command: Option<&Command>, default: &[Stdio; 3]) -> Result<Run> {
        let Inner { policy, compiled, own, .. } = &*self.inner;
        let mut invalid = command.map(Command::invalid).unwrap_or_default();
        invalid.extend(command.map(Command::with_rights).unwrap_or_default());
        if policy.has_to_count() {
            invalid.extend(command.and_then(|command| policy.uncounted(&command.streams)));
        }
        invalid.extend(command.and_then(|command| policy.terminal_without_session(&command.streams)));
        let fds = command.map_or(Fds::new(), |command| command.fds.clone());
        invalid.extend(policy.unpassable(&fds, &compiled.judgement));
        if !invalid.is_empty() {
            return Err(Error::refused(invalid));
        }
        let invocation = command.map_or_else(|| own.clone(), |command| command.invocation(own));
        let stdio = policy.stdio.choose(command.map(|command| &command.streams), default);
        Ok(Run { invocation, streams: Streams::open(stdio)?, fds })
    }

    /// Starts a run.
    pub(crate) fn start(&self, run: Run, supervisor: Option<Supervisor>) -> Result<Child> {
        let Inner { policy, compiled, .. } = &*self.inner;
        policy.start(compiled, run, supervisor, policy.begin())
    }

    /// Refuses a policy whose sandboxes cannot wait for their program.
    pub(crate) fn can_park(&self) -> Result<()> {
        self.inner.policy.can_park(&self.inner.compiled)
    }

    /// Creates a sandbox that waits for its program.
    pub(crate) fn park(&self) -> Result<Parked> {
        self.inner.policy.park(&self.inner.compiled)
    }

    /// Starts a program in a sandbox that has waited for it, see [`Policy::fire`].
    pub(crate) fn fire(&self, parked: Parked, run: &mut Run, close: fn(OwnedFd)) -> Result<Child, Misfire> {
        self.inner.policy.fire(&self.inner.compiled, parked, run, close)
    }
}
