//! The listener of a filter, on its way from the stub to the supervisor or to the handle.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::error::{Error, Problem, Result, Step};
use crate::judge::Judgement;
use crate::policy::Policy;
use crate::security::{DenialRecord, Notifications, Seccomp};

/// The function that is passed to [`Sandbox::spawn_supervised`](crate::Sandbox::spawn_supervised).
pub(crate) type Supervisor = Box<dyn FnOnce(Notifications) + Send>;

/// The channel for one listener.
#[derive(Debug)]
pub(super) struct ListenerChannel {
    pub(super) sender: Sender<OwnedFd>,
    /// The receiver, or `None` if the supervisor's thread has it.
    receiver: Option<Receiver<OwnedFd>>,
    /// The record, for a filter that reports what it refuses.
    pub(super) denials: Option<Arc<DenialRecord>>,
}

impl ListenerChannel {
    /// Takes the listener out of the channel, for the handle.
    pub(super) fn notifications(&mut self) -> Option<Notifications> {
        self.receiver.take()?.try_recv().ok().map(Notifications::new)
    }
}

impl Policy {
    /// Makes the channel for a listener, if the filter has one.
    pub(super) fn listen(
        &self,
        judgement: &Judgement,
        supervisor: Option<Supervisor>,
    ) -> Result<Option<ListenerChannel>> {
        let refuse =
            |reason: &str, remedy: &str| Err(Error::refused(vec![Problem::invalid("seccomp", reason, remedy)]));
        if supervisor.is_some() && !self.seccomp.as_ref().is_some_and(Seccomp::asks) {
            return refuse("the supervisor would never be asked", "add a rule with Action::Notify");
        }
        let Some(profile) = judgement.seccomp.as_ref().filter(|profile| profile.has_listener()) else {
            return Ok(None);
        };
        if let Some(record) = profile.record().map(Arc::new) {
            let recorder = record.clone();
            let refuse_all = move |notifications| recorder.refuse_all(&notifications);
            let sender = supervise("ringfence-denials", Box::new(refuse_all))?;
            return Ok(Some(ListenerChannel { sender, receiver: None, denials: Some(record) }));
        }
        if supervisor.is_none() && profile.asks_about_exec() {
            let reason = "the profile asks about execve(2), and the spawn itself waits for that call";
            return refuse(reason, "use spawn_supervised(), or allow execve");
        }
        let Some(supervisor) = supervisor else {
            let (sender, receiver) = mpsc::channel();
            return Ok(Some(ListenerChannel { sender, receiver: Some(receiver), denials: None }));
        };
        let sender = supervise("ringfence-supervisor", supervisor)?;
        Ok(Some(ListenerChannel { sender, receiver: None, denials: None }))
    }
}

/// Starts a thread for the supervisor, which begins with the listener.
fn supervise(name: &str, supervisor: Supervisor) -> Result<Sender<OwnedFd>> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        // A spawn that fails before its filter is installed drops the sender.
        if let Ok(listener) = receiver.recv() {
            supervisor(Notifications::new(listener));
        }
    };
    let thread = thread::Builder::new().name(name.into());
    thread.spawn(run).map_err(|error| Error::io(Step::Spawner, &error))?;
    Ok(sender)
}
