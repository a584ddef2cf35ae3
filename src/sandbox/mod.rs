//! The builder: all public calls that describe a sandbox, and that run it.

mod attributes;
mod getters;
mod limits;
mod prepared;
mod setters;
mod strict;
mod supervise;

use std::ffi::OsStr;
use std::path::Path;

pub use prepared::Prepared;

use crate::child::{Child, Outcome, Output};
use crate::error::Result;
use crate::feature::Enforced;
use crate::policy::Policy;
use crate::stdio::Stdio;

/// A builder of a program and the policy under which it runs. Each call adds one thing.
///
/// `Sandbox::new()` by itself isolates nothing. A `Sandbox` can be cloned, shared between threads
/// and spawned many times.
///
/// ```no_run
/// use ringfence::Sandbox;
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let mut child = Sandbox::new().pid_ns().memory_limit(64 << 20).rootfs("/srv/alpine").spawn()?;
/// let outcome = child.wait()?;
/// println!("{} after {:?}", outcome.verdict(), outcome.usage().wall);
/// # Ok(())
/// # }
/// ```
///
/// # As an ordinary user
///
/// Namespaces need `CAP_SYS_ADMIN`, or a user namespace around them: add
/// [`user_ns`](Sandbox::user_ns). Limits of control groups need a subtree that is delegated to the
/// user. Without one they are an error, or with [`best_effort`](Sandbox::best_effort) they are left
/// out and [`Child::enforced`] reports that.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    pub(crate) policy: Policy,
}

impl Sandbox {
    /// Makes a sandbox that isolates nothing, for `/bin/sh`.
    pub fn new() -> Self {
        Sandbox::default()
    }

    /// Sets the program: a path inside the sandbox, or a bare name that is looked up in the
    /// sandbox's PATH. Without this call, the program is `/bin/sh`.
    pub fn command(mut self, program: impl AsRef<OsStr>) -> Self {
        self.policy.program.command = Some(program.as_ref().to_owned());
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.policy.program.args.push(arg.as_ref().to_owned());
        self
    }

    /// Sets the first word of the program's argument list, which else is the command as it was
    /// given. Many programs take it as their name: busybox, shells (`-sh` is a login shell).
    pub fn argv0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.policy.program.argv0 = Some(name.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.policy.program.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the program's environment, which begins as the caller's.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.policy.program.env.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Sets variables in the program's environment.
    pub fn envs(mut self, vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self.policy.program.env.extend(vars);
        self
    }

    /// Removes a variable from the program's environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.policy.program.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Begins with an empty environment instead of the caller's, and removes all variables that
    /// were set so far.
    pub fn env_clear(mut self) -> Self {
        self.policy.program.env_clear = true;
        self.policy.program.env.clear();
        self
    }

    /// Sets the working directory, as a path inside. Without this call, the program starts in `/`
    /// where the sandbox has a root of its own, and in the caller's directory elsewhere.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.policy.program.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets the standard input of the program.
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Self {
        self.policy.stdio.streams[0] = Some(stdio.into());
        self
    }

    /// Sets the standard output of the program.
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Self {
        self.policy.stdio.streams[1] = Some(stdio.into());
        self
    }

    /// Sets the standard error of the program.
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Self {
        self.policy.stdio.streams[2] = Some(stdio.into());
        self
    }

    /// Checks the policy and the host without a spawn. Nothing is made or changed.
    ///
    /// Returns the features that a spawn would really enforce, or an error with every conflict in
    /// the policy, and every request that this host cannot fulfil, each with its remedy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) or
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), with
    /// [`Error::problems`](crate::Error::problems).
    pub fn check(&self) -> Result<Enforced> {
        self.policy.judge(true).map(|judgement| judgement.enforced)
    }

    /// Starts the program. Streams that were not set are the caller's own.
    ///
    /// When this call returns, the program has been executed. A failure of the setup or of the exec
    /// is an error of this call, and leaves nothing behind.
    ///
    /// # Errors
    ///
    /// The errors of [`check`](Sandbox::check); [`ErrorKind::Setup`](crate::ErrorKind::Setup) and
    /// [`ErrorKind::Exec`](crate::ErrorKind::Exec) with the step, path and errno.
    pub fn spawn(&self) -> Result<Child> {
        self.policy.spawn(&Stdio::inherited(), None)
    }

    /// Runs the program to its end and collects its output. Streams that were not set are captured,
    /// and stdin is empty.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Sandbox::spawn) and of [`Child::wait_with_output`].
    pub fn output(&self) -> Result<Output> {
        self.policy.spawn(&Stdio::captured(), None)?.wait_with_output()
    }

    /// Runs the program to its end. Streams that were not set are the caller's own.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Sandbox::spawn) and of [`Child::wait`].
    pub fn status(&self) -> Result<Outcome> {
        self.spawn()?.wait()
    }

    /// Makes op `index` of the setup fail with `errno`, for tests of what a failure leaves behind.
    /// Not part of the stable interface.
    #[doc(hidden)]
    pub fn fail_at(mut self, index: u32, errno: i32) -> Self {
        self.policy.fail_at = Some((index, errno));
        self
    }
}
