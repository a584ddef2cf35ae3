//! Threads that work for the crate in the background.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

/// The stack of a background thread, in bytes.
const STACK_SIZE: usize = 128 << 10;

/// Starts a thread with a small stack. The thread blocks all signals, so that the handlers of the
/// caller run on the caller's own threads.
pub(crate) fn spawn<T, F>(name: &str, work: F) -> io::Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    Builder::new().name(name.to_owned()).stack_size(STACK_SIZE).spawn(move || {
        // pthread_sigmask(3) fails for invalid arguments only. The C library leaves out the two
        // signals that it needs itself.
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None);
        work()
    })
}
