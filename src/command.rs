//! What a prepared sandbox, or one of a pool, is told when it is to run: the program, and where it reads and writes.

use std::ffi::OsStr;
use std::path::Path;

use crate::error::Problem;
use crate::program::{Invocation, Program};
use crate::stdio::Stdio;

/// A program for a policy that stands already: [`Prepared::with`](crate::Prepared::with),
/// [`Pool::spawn`](crate::Pool::spawn). A path or a name is one by itself: `"true"` is `Command::new("true")`.
///
/// What it does not say is the policy's: the environment begins as the one in which the policy's own program would run,
/// the working directory and the streams are its own. The arguments are those of the command alone.
///
/// ```
/// use ringfence::{Command, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let prepared = Sandbox::new().env("WHO", "you").prepare()?;
/// let output = prepared.with(Command::new("sh").args(["-c", "echo $WHO, $WHAT"]).env("WHAT", "hello")).output()?;
/// assert_eq!(output.stdout, b"you, hello\n");
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Command {
    program: Program,
    pub(crate) streams: [Option<Stdio>; 3],
}

impl Command {
    /// The program: a path inside the sandbox, or a bare name that is looked for in the sandbox's PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = Program { command: Some(program.as_ref().to_owned()), ..Program::default() };
        Command { program, streams: [None, None, None] }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.program.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.program.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the program's environment, which begins as the policy's.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.program.env.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Sets variables.
    pub fn envs(self, vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Self {
        vars.into_iter().fold(self, |command, (name, value)| command.env(name, value))
    }

    /// Takes a variable away.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.program.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Begins with an empty environment instead of the policy's, and forgets what was set so far.
    pub fn env_clear(mut self) -> Self {
        self.program.env_clear = true;
        self.program.env.clear();
        self
    }

    /// The working directory, inside; else the policy's.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.program.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Where the program reads.
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[0] = Some(stdio.into());
        self
    }

    /// Where the program writes.
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[1] = Some(stdio.into());
        self
    }

    /// Where the program complains.
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[2] = Some(stdio.into());
        self
    }

    /// What the kernel could not be told.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        self.program.invalid()
    }

    /// The whole of it, on top of what the policy's own program would be.
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
