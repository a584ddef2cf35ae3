//! A policy that is judged and written as a plan once, and spawned many times.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Sandbox;
use crate::child::{Child, Outcome, Output};
use crate::command::Command;
use crate::error::{Error, Result};
use crate::feature::{Enforced, Feature};
use crate::launch::{Compiled, Kept, Parked, Run, Supervisor};
use crate::policy::Policy;
use crate::program::Invocation;
use crate::security::Notifications;
use crate::spawn::Misfire;
use crate::stdio::{Stdio, Streams};

/// A [`Sandbox`] of which everything is done that is the same for each run: [`Sandbox::prepare`].
///
/// It is cheap to clone, and can be shared between threads; [`with`](Prepared::with) is the same policy for another
/// program.
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
/// # What is from when it was prepared, and what is not
///
/// From then: the judgement (the caller's privileges, what the host offers, the caller's id and /etc/subuid), the caller's
/// environment, the pids of [`join_pid`](Sandbox::join_pid), and whether a source of a bind is a directory or a file.
///
/// From each spawn: what stands at the paths of the policy (a root directory that has been replaced by another is the new
/// one in the next spawn; where a file has become a directory, the spawn fails), the caller's umask and, where the policy
/// has neither a root nor a `cwd`, its working directory. Control group, scratch directory, Landlock ruleset and copies of
/// mounts are made for each spawn: the kernel lets none of them be used twice. A [`cgroup_parent`](Sandbox::cgroup_parent) that
/// was made for one of them stays until this is dropped.
#[derive(Debug, Clone)]
pub struct Prepared {
    inner: Arc<Inner>,
    command: Option<Arc<Command>>,
}

#[derive(Debug)]
struct Inner {
    policy: Policy,
    compiled: Compiled,
    own: Invocation,
    _kept: Kept,
}

impl Sandbox {
    /// Judges the policy as thoroughly as [`check`](Sandbox::check) does, and does ahead what is the same for every run. What
    /// is done once and what for each spawn stands at [`Prepared`].
    ///
    /// # Errors
    ///
    /// Those of [`check`](Sandbox::check), and a path of the host that does not exist.
    pub fn prepare(&self) -> Result<Prepared> {
        let policy = self.policy.clone();
        let compiled = Compiled::new(&policy, true)?;
        let kept = policy.keep(&compiled.judgement)?;
        compiled.write_ahead(&policy)?;
        let inner = Inner { own: policy.program.invocation(), policy, compiled, _kept: kept };
        Ok(Prepared { inner: Arc::new(inner), command: None })
    }
}

impl Prepared {
    /// The same policy with another program.
    pub fn with(&self, command: impl Into<Command>) -> Prepared {
        Prepared { inner: self.inner.clone(), command: Some(Arc::new(command.into())) }
    }

    /// What a spawn enforces.
    pub fn enforced(&self) -> &Enforced {
        &self.inner.compiled.judgement.enforced
    }

    /// As [`Sandbox::spawn`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setup`](crate::ErrorKind::Setup) and [`ErrorKind::Exec`](crate::ErrorKind::Exec) with the step, path and
    /// errno; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a command that the kernel could not be told.
    pub fn spawn(&self) -> Result<Child> {
        self.launch(&Stdio::inherited(), None)
    }

    /// As [`Sandbox::output`].
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Prepared::spawn) and of [`Child::wait_with_output`].
    pub fn output(&self) -> Result<Output> {
        self.launch(&Stdio::captured(), None)?.wait_with_output()
    }

    /// As [`Sandbox::status`].
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Prepared::spawn) and of [`Child::wait`].
    pub fn status(&self) -> Result<Outcome> {
        self.spawn()?.wait()
    }

    /// As [`Sandbox::spawn_supervised`].
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Prepared::spawn) and of [`Sandbox::spawn_supervised`].
    pub fn spawn_supervised(&self, supervisor: impl FnOnce(Notifications) + Send + 'static) -> Result<Child> {
        self.launch(&Stdio::inherited(), Some(Box::new(supervisor)))
    }

    fn launch(&self, default: &[Stdio; 3], supervisor: Option<Supervisor>) -> Result<Child> {
        let run = self.run(self.command.as_deref(), default)?;
        self.start(run, supervisor)
    }

    /// Makes a run of `command`, or of the policy's own program; `default` stands for streams that nobody told.
    pub(crate) fn run(&self, command: Option<&Command>, default: &[Stdio; 3]) -> Result<Run> {
        let Inner { policy, own, .. } = &*self.inner;
        let mut invalid = command.map(Command::invalid).unwrap_or_default();
        if !policy.best_effort.contains(&Feature::OutputLimit) {
            invalid.extend(command.and_then(|command| policy.uncounted(&command.streams)));
        }
        if !invalid.is_empty() {
            return Err(Error::refused(invalid));
        }
        let invocation = command.map_or_else(|| own.clone(), |command| command.invocation(own));
        let stdio = policy.stdio.choose(command.map(|command| &command.streams), default);
        Ok(Run { invocation, streams: Streams::open(stdio)? })
    }

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
