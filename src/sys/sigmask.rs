//! The signal mask of programs that are started without a stub: pthread_sigmask(3).

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

/// Gives a program an empty signal mask. Since Rust 1.66, it would have that of the calling thread.
pub(crate) fn clear_in(command: &mut Command) {
    let empty = SigSet::empty();
    let clear = move || Ok(pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&empty), None)?);
    // SAFETY: pthread_sigmask(3) is async-signal-safe, and its error is a number that takes no
    // heap.
    unsafe { command.pre_exec(clear) };
}
