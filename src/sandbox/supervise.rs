//! Who answers what a filter asks, and from when on.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::Sandbox;
use super::judge::Judgement;
use crate::child::Child;
use crate::error::{Error, Problem, Result, Step};
use crate::security::{Notifications, Seccomp};
use crate::stdio::Stdio;

/// What [`Sandbox::spawn_supervised`] was given.
pub(super) type Supervisor = Box<dyn FnOnce(Notifications) + Send>;

/// The way of a listener from the stub to whoever is to have it.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) sender: Sender<OwnedFd>,
    /// `None` where a supervisor's thread has it.
    receiver: Option<Receiver<OwnedFd>>,
}

impl Listening {
    /// What has come, for the handle.
    pub(super) fn notifications(self) -> Option<Notifications> {
        self.receiver?.try_recv().ok().map(Notifications::new)
    }
}

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
        self.launch(&Stdio::inherited(), Some(Box::new(supervisor)))
    }

    /// Prepares for the listener, if there is to be one.
    pub(super) fn listen(&self, judgement: &Judgement, supervisor: Option<Supervisor>) -> Result<Option<Listening>> {
        let refuse =
            |reason: &str, remedy: &str| Err(Error::refused(vec![Problem::invalid("seccomp", reason, remedy)]));
        if supervisor.is_some() && !self.seccomp.as_ref().is_some_and(Seccomp::asks) {
            return refuse("the supervisor would never be asked", "add a rule with Action::Notify");
        }
        let Some(profile) = judgement.seccomp.as_ref().filter(|profile| profile.asks()) else { return Ok(None) };
        if supervisor.is_none() && profile.asks_about_exec() {
            let reason = "the profile asks about execve(2), for which the spawn itself waits";
            return refuse(reason, "use spawn_supervised(), or allow execve");
        }
        let (sender, receiver) = mpsc::channel();
        let Some(supervisor) = supervisor else { return Ok(Some(Listening { sender, receiver: Some(receiver) })) };
        let supervise = move || {
            // A spawn that fails before its filter stands drops the sender.
            if let Ok(listener) = receiver.recv() {
                supervisor(Notifications::new(listener));
            }
        };
        let thread = thread::Builder::new().name("ringfence-supervisor".into());
        thread.spawn(supervise).map_err(|error| Error::io(Step::Spawner, &error))?;
        Ok(Some(Listening { sender, receiver: None }))
    }
}
