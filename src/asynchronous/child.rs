//! The handle of a program for tasks.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::blocking::{self, ENDS, SPAWNS};
use super::capture::Capture;
use super::events::AsyncEvents;
use super::stream::{AsyncOutputStream, AsyncStdin};
use crate::child::{Child, Killer, Outcome, Output, ProcessEnd};
use crate::command::Command;
use crate::error::{Error, Result, Step};
use crate::security::Notifications;
use crate::stdio::Stdio;

/// A program in its sandbox, for tasks of `tokio`: a [`Child`] whose waits are futures.
///
/// ```
/// use ringfence::{Sandbox, Stdio, Verdict};
/// use tokio::io::AsyncWriteExt;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let cat = Sandbox::new().command("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
/// let mut child = cat.spawn_async().await?;
/// child.stdin.as_mut().ok_or("no pipe")?.write_all(b"to and fro").await?;
/// let output = child.wait_with_output().await?;
/// assert_eq!(output.stdout, b"to and fro");
/// assert_eq!(output.outcome.verdict(), Verdict::Exited(0));
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Drop
///
/// Dropping the handle kills everything in the sandbox and returns at once. The thread of this
/// library that watches all sandboxes reaps the program and removes what was made for it. So does
/// dropping the future of [`wait_with_output`](AsyncChild::wait_with_output), which owns the
/// handle: `tokio::time::timeout` and `select!` end what they give up. The future of
/// [`wait`](AsyncChild::wait) only borrows the handle, and can be dropped and made again.
#[must_use = "dropping the handle ends the program"]
#[derive(Debug)]
pub struct AsyncChild {
    /// The writing end of the program's stdin, if it was [piped](crate::Stdio::piped).
    pub stdin: Option<AsyncStdin>,
    /// The reading end of the program's stdout, if it was [piped](crate::Stdio::piped).
    pub stdout: Option<AsyncOutputStream>,
    /// The reading end of the program's stderr, if it was [piped](crate::Stdio::piped).
    pub stderr: Option<AsyncOutputStream>,
    /// The system calls about which the [`seccomp`](crate::Sandbox::seccomp) profile asks, as in
    /// [`Child::notifications`]. They block: answer them in a thread.
    pub notifications: Option<Notifications>,
    end: AsyncFd<ProcessEnd>,
    outcome: Option<Outcome>,
    child: Child,
}

impl AsyncChild {
    /// Takes a handle into the runtime of this task. The pipes that the handle still has become
    /// those of the new one.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`](crate::ErrorKind::Control) outside of a runtime, and the
    /// errno if the runtime cannot watch the descriptors. The program is ended in these cases.
    pub fn new(mut child: Child) -> Result<AsyncChild> {
        child.hurry();
        blocking::runtime(Step::Wait)?;
        let failed = |step| move |error: io::Error| Error::io(step, &error);
        let stdin = child.stdin.take().map(AsyncStdin::new).transpose().map_err(failed(Step::Output))?;
        let stdout = child.stdout.take().map(AsyncOutputStream::new).transpose().map_err(failed(Step::Output))?;
        let stderr = child.stderr.take().map(AsyncOutputStream::new).transpose().map_err(failed(Step::Output))?;
        let end = watch(child.process_end()?).map_err(failed(Step::Wait))?;
        Ok(AsyncChild { stdin, stdout, stderr, notifications: child.notifications.take(), end, outcome: None, child })
    }

    /// Closes the program's stdin and waits for the end of the program, then removes what was made
    /// for the sandbox. Later calls return the same outcome.
    ///
    /// The future can be dropped: the program goes on, and another call waits again.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::wait`], and
    /// [`ErrorKind::Control`](crate::ErrorKind::Control) if the runtime shuts down.
    pub async fn wait(&mut self) -> Result<Outcome> {
        drop((self.stdin.take(), self.notifications.take()));
        let outcome = match self.outcome {
            Some(outcome) => outcome,
            None => {
                poll_fn(|cx| self.poll_end(cx)).await?;
                *self.outcome.insert(blocking::run(&ENDS, Step::Wait, self.child.waiter()?).await?)
            }
        };
        Ok(self.child.with_output_limit(outcome))
    }

    /// Closes the program's stdin, waits for the end of the program, and collects what the program
    /// writes to the streams that were piped.
    ///
    /// Beyond [`output_limit`](crate::Sandbox::output_limit) everything in the sandbox is killed,
    /// and the output up to then is kept. A descendant that holds a pipe open after the end of the
    /// sandbox does not delay this call. Dropping the future ends the sandbox.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`wait`](AsyncChild::wait).
    pub async fn wait_with_output(mut self) -> Result<Output> {
        drop((self.stdin.take(), self.notifications.take()));
        let (mut stdout, mut stderr) = (Capture::new(self.stdout.take()), Capture::new(self.stderr.take()));
        poll_fn(|cx| self.poll_output(cx, &mut stdout, &mut stderr)).await?;
        let outcome = self.wait().await?;
        let truncated = self.child.meter().is_some_and(|meter| meter.is_over());
        Ok(Output { outcome, stdout: stdout.bytes, stderr: stderr.bytes, truncated, denials: self.child.denials() })
    }

    /// Polls for the end of the program. A program that has ended has ended for good.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.end.poll_read_ready(cx).map(|end| end.map(drop).map_err(|error| Error::io(Step::Wait, &error)))
    }

    /// Reads what comes, until the program or its output limit has ended.
    fn poll_output(&self, cx: &mut Context<'_>, stdout: &mut Capture, stderr: &mut Capture) -> Poll<Result<()>> {
        let failed = |error: io::Error| Error::io(Step::Output, &error);
        // The check comes before the pipes are emptied: then the pipes hold everything that was
        // written before the end.
        if self.poll_end(cx)?.is_ready() {
            return Poll::Ready(stdout.drain().and_then(|()| stderr.drain()).map_err(failed));
        }
        let more = stdout.fill(cx).map_err(failed)? | stderr.fill(cx).map_err(failed)?;
        if self.child.meter().is_some_and(|meter| meter.has_ended_program()) {
            return Poll::Ready(Ok(()));
        }
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Kills everything in the sandbox with SIGKILL, as [`Child::kill`] does. Before Linux 5.14,
    /// the kill of a sandbox with limits and without [`pid_ns`](crate::Sandbox::pid_ns) may take
    /// some milliseconds.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::kill`].
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()
    }

    /// Returns a [`Killer`], with which any task or thread can end the sandbox.
    pub fn killer(&self) -> Killer {
        self.child.killer()
    }

    /// Starts another program in the running sandbox, as [`Child::exec`] does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::exec`] and of [`new`](AsyncChild::new).
    pub async fn exec(&self, command: impl Into<Command>) -> Result<AsyncChild> {
        self.enter(command.into(), Stdio::inherited()).await
    }

    /// Runs another program in the running sandbox to its end, and collects its output, as
    /// [`Child::exec_output`] does. Dropping the future ends that program.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`exec`](AsyncChild::exec) and of
    /// [`wait_with_output`](AsyncChild::wait_with_output).
    pub async fn exec_output(&self, command: impl Into<Command>) -> Result<Output> {
        self.enter(command.into(), Stdio::captured()).await?.wait_with_output().await
    }

    async fn enter(&self, command: Command, default: [Stdio; 3]) -> Result<AsyncChild> {
        let entrance = self.child.entrance()?;
        let start = move || entrance.enter(&command, &default).and_then(AsyncChild::new);
        blocking::run(&SPAWNS, Step::Enter, start).await
    }

    /// Watches what happens to the sandbox, as [`Child::events`] does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::events`] and of [`AsyncEvents::new`].
    pub fn events(&self) -> Result<AsyncEvents> {
        AsyncEvents::new(self.child.events()?)
    }

    /// Returns the handle for calls that do not wait: its [`id`](Child::id),
    /// [`signal`](Child::signal), [`stats`](Child::stats), [`enforced`](Child::enforced) and
    /// others. [`freeze`](Child::freeze), [`exec`](Child::exec) and
    /// [`exec_output`](Child::exec_output) of this handle block.
    pub fn as_child(&self) -> &Child {
        &self.child
    }

    /// Gives up the handle and lets the program continue, as [`Child::detach`] does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Child::detach`].
    pub fn detach(self) -> Result<()> {
        self.child.detach()
    }
}

/// Registers the descriptor with the reactor.
#[allow(deprecated, reason = "its replacement is an unsafe call, which only newer versions have")]
fn watch(end: ProcessEnd) -> io::Result<AsyncFd<ProcessEnd>> {
    // The descriptor stays the same one, and open, as long as its owner lives.
    AsyncFd::with_interest(end, Interest::READABLE)
}

impl TryFrom<Child> for AsyncChild {
    type Error = Error;

    fn try_from(child: Child) -> Result<AsyncChild> {
        AsyncChild::new(child)
    }
}
