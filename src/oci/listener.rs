//! The listener of a filter that asks, for the process that answers: `linux.seccomp.listenerPath`.

use std::os::fd::{AsFd, OwnedFd};

use serde_json::json;

use super::console::send;
use super::state::{Listener, Saved, State, Status};
use crate::error::{Result, Step};
use crate::sandbox::Sandbox;
use crate::security::{RemoteSupervisor, Seccomp};

/// The name of the descriptor in the message, as the specification has it.
const NAME: &str = "seccompFd";

/// Sends the listener, with the state of the container: the specification's container process
/// state.
pub(super) fn send_listener(to: &Listener, listener: &OwnedFd, state: &State) -> Result<()> {
    send(Step::HandListenerOver, &to.path, &message(to, state, state.pid), listener.as_fd())
}

/// Lets the create hand the listener over, if the filter lets the process that waits for its start
/// do so. Otherwise the start brings the filter, and the listener.
pub(super) fn with_supervisor(mut sandbox: Sandbox, saved: &Saved) -> Sandbox {
    if let Some(to) = &saved.listener
        && sandbox.policy.seccomp.as_ref().is_some_and(Seccomp::comes_before_the_start)
    {
        let (told, saved) = (to.clone(), saved.clone());
        let supervisor = move |pid| message(&told, &saved.shown(Status::Creating, Some(pid)), pid);
        sandbox.policy.supervisor = Some(RemoteSupervisor::new(&to.path, supervisor));
    }
    sandbox
}

/// Returns the supervisor that gets the listeners of further programs in a container of this state.
pub(super) fn supervisor_of(to: &Listener, state: State) -> RemoteSupervisor {
    let told = to.clone();
    RemoteSupervisor::new(&to.path, move |pid| message(&told, &state, pid))
}

/// `pid` is that of the process with the filter.
fn message(to: &Listener, state: &State, pid: u32) -> Vec<u8> {
    let message = json!({
        "ociVersion": state.oci_version,
        "fds": [NAME],
        "pid": pid,
        "metadata": to.metadata,
        "state": state,
    });
    message.to_string().into_bytes()
}
