//! A policy that is judged and lowered once, and spawned many times.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::Sandbox;
use super::launch::{Compiled, Run};
use super::made::Kept;
use super::setup::Shape;
use super::supervise::Supervisor;
use crate::child::{Child, Outcome, Output};
use crate::command::Command;
use crate::error::{Error, Result};
use crate::feature::{Enforced, Feature};
use crate::program::Invocation;
use crate::security::Notifications;
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
    pub(super) policy: Arc<Policy>,
    command: Option<Arc<Command>>,
}

#[derive(Debug)]
pub(super) struct Policy {
    pub(super) sandbox: Sandbox,
    pub(super) compiled: Compiled,
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
        self.prepare_as(true)
    }

    /// `thorough` as for [`judge`](Sandbox::judge).
    pub(super) fn prepare_as(&self, thorough: bool) -> Result<Prepared> {
        let compiled = self.compile(thorough)?;
        let kept = self.keep(&compiled.judgement)?;
        let policy = Policy { compiled, own: self.program.invocation(), sandbox: self.clone(), _kept: kept };
        // As it is without a control group and a scratch directory, which are made for each run.
        let template = policy.compiled.template();
        let write = || {
            let (number, exchanges) = (template.map(|fd| fd.as_raw_fd()), policy.compiled.exchanges());
            let shape = Shape { template: number, exchanges, ..Shape::default() };
            self.setup(&policy.compiled, &shape, template)
        };
        let setup = match write() {
            Err(error) if policy.compiled.exchanges() && policy.compiled.lacks_exchange(&error) => write()?,
            written => written?,
        };
        setup.plan.release();
        Ok(Prepared { policy: Arc::new(policy), command: None })
    }
}

impl Prepared {
    /// The same policy with another program.
    pub fn with(&self, command: impl Into<Command>) -> Prepared {
        Prepared { policy: self.policy.clone(), command: Some(Arc::new(command.into())) }
    }

    /// What a spawn enforces.
    pub fn enforced(&self) -> &Enforced {
        &self.policy.compiled.judgement.enforced
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
        self.launch_run(run, supervisor)
    }

    /// A run of `command`, or of the policy's own program; `default` stands for streams that nobody told.
    pub(crate) fn run(&self, command: Option<&Command>, default: &[Stdio; 3]) -> Result<Run> {
        let Policy { sandbox, own, .. } = &*self.policy;
        let mut invalid = command.map(Command::invalid).unwrap_or_default();
        if !sandbox.best_effort.contains(&Feature::OutputLimit) {
            invalid.extend(command.and_then(|command| sandbox.uncounted(&command.streams)));
        }
        if !invalid.is_empty() {
            return Err(Error::refused(invalid));
        }
        let invocation = command.map_or_else(|| own.clone(), |command| command.invocation(own));
        let stdio = sandbox.stdio.choose(command.map(|command| &command.streams), default);
        Ok(Run { invocation, streams: Streams::open(stdio)? })
    }

    pub(crate) fn launch_run(&self, run: Run, supervisor: Option<Supervisor>) -> Result<Child> {
        let Policy { sandbox, compiled, .. } = &*self.policy;
        sandbox.launch_compiled(compiled, run, supervisor, sandbox.begin())
    }
}
