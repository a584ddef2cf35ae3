//! Spawns with a supervisor, which answers what the filter asks.

use super::Sandbox;
use crate::child::Child;
use crate::error::Result;
use crate::security::Notifications;
use crate::stdio::Stdio;

impl Sandbox {
    /// Starts the program, and a thread that runs `supervisor` with what the [`seccomp`](Sandbox::seccomp) profile asks about
    /// ([`Action::Notify`](crate::Action::Notify)).
    ///
    /// The thread has the [`Notifications`] as soon as the filter stands, which is before the program is executed: a profile
    /// that asks about execve(2) is answered, though `spawn_supervised` waits for that very execve. The first is the
    /// program's own, once for each directory of PATH in which it is looked for. When the supervisor returns, later calls
    /// that it would have been asked about fail with ENOSYS; it is to go on until there is nobody left
    /// ([`Notifications::recv`]).
    ///
    /// To answer elsewhere, have the supervisor send the notifications there.
    ///
    /// ```
    /// use ringfence::{Action, Rule, Sandbox, Seccomp};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let asks = Seccomp::default().rule(Rule::new(["mkdir", "mkdirat"], Action::Notify));
    /// let sandbox = Sandbox::new().command("mkdir").arg("/no/such/place").seccomp(asks);
    /// let mut child = sandbox.spawn_supervised(|notifications| {
    ///     for notification in notifications.iter().flatten() {
    ///         // It is told that it has made the directory.
    ///         let _ = notification.value(0);
    ///     }
    /// })?;
    /// assert!(child.wait()?.success());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Sandbox::spawn); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the profile asks about nothing.
    pub fn spawn_supervised(&self, supervisor: impl FnOnce(Notifications) + Send + 'static) -> Result<Child> {
        self.policy.spawn(&Stdio::inherited(), Some(Box::new(supervisor)))
    }
}
