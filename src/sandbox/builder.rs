//! The calls of the builder that every caller makes: the program, its streams, and its run.

use std::ffi::OsStr;
use std::path::Path;

use super::Sandbox;
use crate::child::{Child, Outcome, Output};
use crate::error::Result;
use crate::feature::Enforced;
use crate::stdio::Stdio;

/// # The program, and its run
impl Sandbox {
    /// Makes a sandbox that isolates nothing, for `/bin/sh`.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::new().args(["-c", "echo hello"]).output()?;
    /// assert_eq!(output.stdout, b"hello\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn new() -> Self {
        Sandbox::default()
    }

    /// Sets the program: a path inside the sandbox, or a bare name that is looked up in the
    /// sandbox's PATH. Without this call, the program is `/bin/sh`.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::new().command("printf").args(["%s-%s", "a", "b c"]).output()?;
    /// assert_eq!(output.stdout, b"a-b c");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// // A login shell, which reads /etc/profile.
    /// Sandbox::new().command("/bin/sh").argv0("-sh").args(["-c", "echo $PATH"]).status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn argv0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.policy.program.argv0 = Some(name.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::new().command("printf").arg("%s-%s").args(["one", "two"]).output()?;
    /// assert_eq!(output.stdout, b"one-two");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.policy.program.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the program's environment, which begins as the caller's.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::new().env("NAME", "value").args(["-c", "echo $NAME"]).output()?;
    /// assert_eq!(output.stdout, b"value\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().env("TOKEN", "secret").env_remove("TOKEN");
    /// assert_eq!(sandbox.args(["-c", "echo ${TOKEN-none}"]).output()?.stdout, b"none\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.policy.program.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Begins with an empty environment instead of the caller's, and removes all variables that
    /// were set so far.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().env_clear().env("PATH", "/usr/bin:/bin").command("env");
    /// assert_eq!(sandbox.output()?.stdout, b"PATH=/usr/bin:/bin\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn env_clear(mut self) -> Self {
        self.policy.program.env_clear = true;
        self.policy.program.env.clear();
        self
    }

    /// Sets the working directory, as a path inside. Without this call, the program starts in `/`
    /// where the sandbox has a root of its own, and in the caller's directory elsewhere.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// assert_eq!(Sandbox::new().command("pwd").cwd("/").output()?.stdout, b"/\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.policy.program.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Makes the working directory of the sandbox, with the directories above, where it is missing:
    /// as the setup's user, with mode 0755, before the program's user is set. That user is root,
    /// or the first of the maps of a user namespace: runc does the same. No symbolic link leads out
    /// of the sandbox's root, and none of `/proc` is followed.
    ///
    /// This needs [`cwd`](Sandbox::cwd), without `..`, and a root of the sandbox's own. A
    /// directory that is made stays where the root's changes go: in the directory of a
    /// [`RootFs::dir`](crate::RootFs::dir), also if that is read-only for the program, as the
    /// targets of mounts do. In a mount that is read-only itself, the spawn fails with EROFS. The
    /// working directory of a [`Command`](crate::Command) is not made.
    ///
    /// ```
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// // An ordinary user adds .user_ns() here.
    /// let sandbox = sandbox.rootfs(RootFs::host()).tmpfs("/tmp", 1 << 20);
    /// let output = sandbox.cwd("/tmp/a/b").make_cwd(true).command("pwd").output()?;
    /// assert_eq!(output.stdout, b"/tmp/a/b\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn make_cwd(mut self, wanted: bool) -> Self {
        self.policy.program.make_cwd = wanted;
        self
    }

    /// Leaves the sandbox without a program: it can be created, and never started.
    #[cfg(feature = "oci")]
    pub(crate) fn without_program(mut self) -> Self {
        // execve(2) refuses a directory.
        (self.policy.program.command, self.policy.program.is_absent) = (Some("/".into()), true);
        self
    }

    /// Gives the caller's own streams to the program's user, who can open them by name then.
    #[cfg(feature = "oci")]
    pub(crate) fn with_streams_given(mut self) -> Self {
        self.policy.stdio.gives = true;
        self
    }

    /// Sets the standard input of the program.
    ///
    /// ```
    /// use ringfence::{Sandbox, Stdio};
    ///
    /// let output = Sandbox::new().command("cat").stdin(Stdio::bytes(*b"text")).output()?;
    /// assert_eq!(output.stdout, b"text");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Self {
        self.policy.stdio.streams[0] = Some(stdio.into());
        self
    }

    /// Sets the standard output of the program.
    ///
    /// ```no_run
    /// use std::fs::File;
    /// use std::os::fd::OwnedFd;
    ///
    /// use ringfence::Sandbox;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let log = OwnedFd::from(File::options().append(true).create(true).open("build.log")?);
    /// Sandbox::new().command("make").stdout(log.try_clone()?).stderr(log).status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Self {
        self.policy.stdio.streams[1] = Some(stdio.into());
        self
    }

    /// Sets the standard error of the program.
    ///
    /// ```
    /// use ringfence::{Sandbox, Stdio};
    ///
    /// let output = Sandbox::new().stderr(Stdio::null()).args(["-c", "echo lost >&2; echo kept"]).output()?;
    /// assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"kept\n"[..], &b""[..]));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Self {
        self.policy.stdio.streams[2] = Some(stdio.into());
        self
    }

    /// Checks the policy and the host without a spawn. Nothing is made or changed.
    ///
    /// Returns the features that a spawn would really enforce, or an error with every conflict in
    /// the policy, and every request that this host cannot fulfil, each with its remedy.
    ///
    /// ```
    /// use ringfence::{Enforcement, Sandbox};
    ///
    /// match Sandbox::new().pids_limit(64).check() {
    ///     Ok(enforced) => {
    ///         for (feature, how) in enforced.iter().filter(|(_, how)| **how != Enforcement::Full) {
    ///             println!("{feature}: {how:?}");
    ///         }
    ///     }
    ///     Err(error) => {
    ///         for problem in error.problems() {
    ///             println!("{}: {}; remedy: {}", problem.subject, problem.reason, problem.remedy);
    ///         }
    ///     }
    /// }
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let mut child = Sandbox::new().command("true").spawn()?;
    /// assert!(child.wait()?.success());
    /// // A program that does not exist is an error of the spawn, not a status.
    /// let error = Sandbox::new().command("/no/such/program").spawn().unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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
    /// ```
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let output = Sandbox::new().args(["-c", "echo out; echo err >&2; exit 3"]).output()?;
    /// assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    /// assert_eq!(output.outcome.verdict(), Verdict::Exited(3));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Sandbox::spawn) and of [`Child::wait_with_output`].
    pub fn output(&self) -> Result<Output> {
        self.policy.spawn(&Stdio::captured(), None)?.wait_with_output()
    }

    /// Runs the program to its end. Streams that were not set are the caller's own.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// assert_eq!(Sandbox::new().args(["-c", "exit 3"]).status()?.code(), Some(3));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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
