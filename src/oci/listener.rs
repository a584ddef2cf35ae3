//! The listener of a filter that asks, for the process that answers: `linux.seccomp.listenerPath`.

use std::os::fd::{AsFd, OwnedFd};

use serde_json::json;

use super::console::send;
use super::state::{Listener, State};
use crate::error::{Result, Step};
use crate::security::RemoteSupervisor;

/// The name of the descriptor in the message, as the specification has it.
const NAME: &str = "seccompFd";

/// Sends the listener, with the state of the container: the specification's container process
/// state.
pub(super) fn send_listener(to: &Listener, listener: &OwnedFd, state: &State) -> Result<()> {
    let sent = send(Step::HandListenerOver, &to.path, &message(to, state, state.pid), listener.as_fd());
    sent.map_err(|error| error.detail("failed to connect with seccomp agent"))
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
