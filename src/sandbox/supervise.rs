//! Spawns with a supervisor, which answers the questions of the filter.

use super::Sandbox;
use crate::child::Child;
use crate::error::Result;
use crate::security::Notifications;
use crate::stdio::Stdio;

/// # With a supervisor
impl Sandbox {
    /// Starts the program, and a thread that runs `supervisor` with the questions of the
    /// [`seccomp`](Sandbox::seccomp) profile ([`Action::Notify`](crate::Action::Notify)).
    ///
    /// The thread has the [`Notifications`] as soon as the filter is installed, which is before the
    /// program is executed. So a profile can ask about execve(2), although `spawn_supervised` waits
    /// for the execve of the program. The first questions are then about that execve, one for each
    /// directory of PATH in which the program is looked up. When the supervisor returns, later
    /// calls that the filter asks about fail with ENOSYS. So the supervisor should go on until the
    /// sandbox has no process left ([`Notifications::recv`]).
    ///
    /// To answer in another thread, let the supervisor send the notifications there.
    ///
    /// ```
    /// use ringfence::{Action, Rule, Sandbox, Seccomp};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let asks = Seccomp::default().rule(Rule::new(["mkdir", "mkdirat"], Action::Notify));
    /// let sandbox = Sandbox::new().command("mkdir").arg("/no/such/place").seccomp(asks);
    /// let mut child = sandbox.spawn_supervised(|notifications| {
    ///     for notification in notifications.iter().flatten() {
    ///         // The program is told that it has made the directory.
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
    /// The errors of [`spawn`](Sandbox::spawn); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid)
    /// if the profile asks about nothing.
    pub fn spawn_supervised(&self, supervisor: impl FnOnce(Notifications) + Send + 'static) -> Result<Child> {
        self.policy.spawn(&Stdio::inherited(), Some(Box::new(supervisor)))
    }
}
