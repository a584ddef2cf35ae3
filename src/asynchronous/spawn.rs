//! Spawns that do not block their task.

use super::blocking::{self, SPAWNS};
use super::child::AsyncChild;
use crate::child::{Child, Output};
use crate::command::Command;
use crate::error::{Result, Step};
use crate::pool::Pool;
use crate::sandbox::{Prepared, Sandbox};
use crate::stdio::Stdio;

/// Starts a program in its turn. If the future is dropped meanwhile, the program is ended.
async fn start(spawn: impl FnOnce() -> Result<Child> + Send + 'static) -> Result<AsyncChild> {
    blocking::run(&SPAWNS, Step::Spawner, move || spawn().and_then(AsyncChild::new)).await
}

/// # In tasks of `tokio`
impl Sandbox {
    /// Starts the program, like [`spawn`](Sandbox::spawn), on a thread for blocking work. Needs the
    /// feature `tokio`.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let mut child = Sandbox::new().command("true").spawn_async().await?;
    /// assert!(child.wait().await?.success());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Sandbox::spawn) and of [`AsyncChild::new`].
    pub async fn spawn_async(&self) -> Result<AsyncChild> {
        let sandbox = self.clone();
        start(move || sandbox.spawn()).await
    }

    /// Runs the program to its end and collects its output, like [`output`](Sandbox::output).
    /// Dropping the future ends the sandbox. Needs the feature `tokio`.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn_async`](Sandbox::spawn_async) and of [`AsyncChild::wait_with_output`].
    pub async fn output_async(&self) -> Result<Output> {
        let policy = self.policy.clone();
        start(move || policy.spawn(&Stdio::captured(), None)).await?.wait_with_output().await
    }
}

/// # In tasks of `tokio`
impl Prepared {
    /// Starts the program, like [`spawn`](Prepared::spawn), on a thread for blocking work. Needs
    /// the feature `tokio`.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Prepared::spawn) and of [`AsyncChild::new`].
    pub async fn spawn_async(&self) -> Result<AsyncChild> {
        let prepared = self.clone();
        start(move || prepared.spawn()).await
    }

    /// Runs the program to its end and collects its output, like [`output`](Prepared::output).
    /// Dropping the future ends the sandbox. Needs the feature `tokio`.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn_async`](Prepared::spawn_async) and of
    /// [`AsyncChild::wait_with_output`].
    pub async fn output_async(&self) -> Result<Output> {
        let prepared = self.clone();
        start(move || prepared.launch(&Stdio::captured(), None)).await?.wait_with_output().await
    }
}

/// # In tasks of `tokio`
impl Pool {
    /// Starts a program in a sandbox that is ready, like [`spawn`](Pool::spawn), on a thread for
    /// blocking work. Needs the feature `tokio`.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn`](Pool::spawn) and of [`AsyncChild::new`].
    pub async fn spawn_async(&self, command: impl Into<Command>) -> Result<AsyncChild> {
        start(self.launcher(command.into(), Stdio::inherited())).await
    }

    /// Runs a program to its end and collects its output, like [`output`](Pool::output). Dropping
    /// the future ends the sandbox. Needs the feature `tokio`.
    ///
    /// # Errors
    ///
    /// The errors of [`spawn_async`](Pool::spawn_async) and of [`AsyncChild::wait_with_output`].
    pub async fn output_async(&self, command: impl Into<Command>) -> Result<Output> {
        start(self.launcher(command.into(), Stdio::captured())).await?.wait_with_output().await
    }
}
