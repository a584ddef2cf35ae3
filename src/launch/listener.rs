//! The listener of a filter, on its way from the stub to the supervisor or to the handle.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::error::{Error, Problem, Result, Step};
use crate::judge::Judgement;
use crate::policy::Policy;
use crate::security::{DenialRecord, Notifications, RemoteConnection, Seccomp};

/// The function that is passed to [`Sandbox::spawn_supervised`](crate::Sandbox::spawn_supervised).
pub(crate) type Supervisor = Box<dyn FnOnce(Notifications) + Send>;

/// The channel for one listener.
#[derive(Debug)]
pub(super) struct ListenerChannel {
    sender: Sender<OwnedFd>,
    /// The receiver, or `None` if the supervisor's thread has it.
    receiver: Option<Receiver<OwnedFd>>,
    /// The supervisor in another process, which gets the listener.
    remote: Option<RemoteConnection>,
    /// The record, for a filter that reports what it refuses.
    pub(super) denials: Option<Arc<DenialRecord>>,
}

impl ListenerChannel {
    /// Returns the sender of the listener, for a receiver in this process.
    pub(super) fn sender(&self) -> Option<&Sender<OwnedFd>> {
        Some(&self.sender).filter(|_| self.remote.is_none())
    }

    /// Returns the connection to a supervisor in another process.
    pub(super) fn remote(&self) -> Option<&RemoteConnection> {
        self.remote.as_ref()
    }

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
        if let Some(remote) = &self.supervisor {
            if supervisor.is_some() {
                return refuse("notify_socket() has named another supervisor", "leave out one of the two");
            }
            let remote = Some(remote.connect(self.setup_timeout())?);
            return Ok(Some(ListenerChannel { sender: mpsc::channel().0, receiver: None, remote, denials: None }));
        }
        if let Some(record) = profile.record().map(Arc::new) {
            let recorder = record.clone();
            let refuse_all = move |notifications| recorder.refuse_all(&notifications);
            let sender = supervise("ringfence-denials", Box::new(refuse_all))?;
            return Ok(Some(ListenerChannel { sender, receiver: None, remote: None, denials: Some(record) }));
        }
        if supervisor.is_none() && profile.asks_about_exec() {
            let reason = "the profile asks about execve(2), and the spawn itself waits for that call";
            return refuse(reason, "use spawn_supervised(), or allow execve");
        }
        let Some(supervisor) = supervisor else {
            let (sender, receiver) = mpsc::channel();
            return Ok(Some(ListenerChannel { sender, receiver: Some(receiver), remote: None, denials: None }));
        };
        let sender = supervise("ringfence-supervisor", supervisor)?;
        Ok(Some(ListenerChannel { sender, receiver: None, remote: None, denials: None }))
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
