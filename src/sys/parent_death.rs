//! The parent-death signal of a program that is started with [`std::process::Command`].

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Lets the program be killed when the thread that starts it ends, prctl(2) `PR_SET_PDEATHSIG`.
/// What the program has started itself lives on.
pub(crate) fn kill_with_thread(command: &mut Command) {
    let parent = getpid();
    let arm = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // A parent that has ended before the call sends no signal any more.
        if getppid() == parent { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed, because another
    // thread may have held any lock when the process forked. The closure makes two system calls,
    // and an error of a bare errno, which allocates nothing.
    unsafe {
        command.pre_exec(arm);
    }
}
