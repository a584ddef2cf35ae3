//! A program for a prepared sandbox, or for one of a pool, with its streams.

use std::ffi::OsStr;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use crate::error::Problem;
use crate::program::{Invocation, Program};
use crate::stdio::{Fds, Stdio};

/// A program for a prepared policy: [`Prepared::with`](crate::Prepared::with),
/// [`Pool::spawn`](crate::Pool::spawn). Both also take a path or a name instead: `"true"` is
/// `Command::new("true")`.
///
/// The policy fills in what the command leaves open: the environment begins as that of the policy's
/// own program, and the working directory and the streams are those of the policy. The descriptors
/// of the policy come along. The arguments are those of the command alone.
///
/// ```
/// use ringfence::{Command, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let prepared = Sandbox::new().env("WHO", "you").prepare()?;
/// let greeting = Command::new("sh").args(["-c", "echo $WHO, $WHAT"]).env("WHAT", "hello");
/// let output = prepared.with(greeting).output()?;
/// assert_eq!(output.stdout, b"you, hello\n");
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Command {
    program: Program,
    pub(crate) streams: [Option<Stdio>; 3],
    pub(crate) fds: Fds,
}

impl Command {
    /// Makes a command for `program`: a path inside the sandbox, or a bare name that is looked up
    /// in the sandbox's PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = Program { command: Some(program.as_ref().to_owned()), ..Program::default() };
        Command { program, streams: [None, None, None], fds: Fds::new() }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.program.args.push(arg.as_ref().to_owned());
        self
    }

    /// Sets the first word of the program's argument list, which else is the command as it was
    /// given. Many programs take it as their name: busybox, shells (`-sh` is a login shell).
    pub fn argv0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.program.argv0 = Some(name.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.program.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the program's environment, which begins as that of the policy.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.program.env.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Sets variables in the program's environment.
    pub fn envs(self, vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Self {
        vars.into_iter().fold(self, |command, (name, value)| command.env(name, value))
    }

    /// Removes a variable from the program's environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.program.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Begins with an empty environment instead of the policy's, and removes all variables that
    /// were set so far.
    pub fn env_clear(mut self) -> Self {
        self.program.env_clear = true;
        self.program.env.clear();
        self
    }

    /// Sets the working directory, as a path inside. Without this call, the policy's holds.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.program.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets the standard input of the program.
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[0] = Some(stdio.into());
        self
    }

    /// Sets the standard output of the program.
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[1] = Some(stdio.into());
        self
    }

    /// Sets the standard error of the program.
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[2] = Some(stdio.into());
        self
    }

    /// Passes `fd` on as descriptor `number`, at least 3, beside those of the policy
    /// ([`Sandbox::fd`](crate::Sandbox::fd)). Only this program gets it: a sandbox of a
    /// [`Pool`](crate::Pool) does not hold it while it waits. The descriptor of the command stays
    /// open, so a command that is cloned passes the same one on again.
    ///
    /// # Errors
    ///
    /// The spawn fails with [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a number that is
    /// below 3, above 65,535, or taken by another descriptor of the command or the policy. It fails
    /// with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for more descriptors than
    /// `RLIMIT_NOFILE` allows, and for a directory if each sandbox of the policy has an id of its
    /// own ([`user_ns`](crate::Sandbox::user_ns)): files made there would belong to the next
    /// sandbox with that id. The policy can pass a directory.
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// use ringfence::{Command, Sandbox};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prepared = Sandbox::new().prepare()?;
    /// let (question, mut writer) = std::io::pipe()?;
    /// writer.write_all(b"what?")?;
    /// drop(writer);
    /// let command = Command::new("sh").args(["-c", "cat <&3"]).fd(3, question);
    /// assert_eq!(prepared.with(command).output()?.stdout, b"what?");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fd(mut self, number: RawFd, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push((number, Arc::new(fd.into())));
        self
    }

    /// Returns the problems of a command that execve(2) cannot take.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        self.program.invalid()
    }

    /// Returns the invocation of this command, with the policy's own invocation as the base.
    pub(crate) fn invocation(&self, policy: &Invocation) -> Invocation {
        self.program.invocation_within(policy)
    }
}

impl<P: AsRef<OsStr>> From<P> for Command {
    fn from(program: P) -> Self {
        Command::new(program)
    }
}

impl From<&Command> for Command {
    fn from(command: &Command) -> Self {
        command.clone()
    }
}
