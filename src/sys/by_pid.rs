//! Processes by pid, for kernels or outer filters that do not allow pidfds. A pid can pass to
//! another process: so the pid is read from the descriptor just before its use, while the process
//! still exists.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::by_fd;
use super::shortage::shortage_or;
use super::waitid::{Ended, waitid};

/// Opens the directory of a process in /proc, which shows nothing any more after the process has
/// been reaped.
pub(super) fn open(pid: i32) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match nix::fcntl::open(format!("/proc/{pid}").as_str(), flags, Mode::empty()) {
        Err(Errno::ENOENT) => Err(Errno::ESRCH),
        result => result,
    }
}

/// Returns the pid of the process behind a pidfd, or behind a directory of /proc, as this process's
/// /proc shows it.
pub(crate) fn pid_of(process: BorrowedFd<'_>) -> Option<i32> {
    find_pid(process).ok()
}

/// Returns the same pid. Fails with ESRCH if there is none, and with EMFILE if the caller has no
/// descriptor left to find it out.
pub(crate) fn find_pid(process: BorrowedFd<'_>) -> Result<i32, Errno> {
    // A thread may have a descriptor table of its own, which `self` would not show (3.17).
    let text = by_fd::short_text(format!("/proc/thread-self/fdinfo/{}", process.as_raw_fd()).as_ref())
        .map_err(|error| shortage_or(&error, Errno::ESRCH))?;
    let pid = match text.lines().find_map(|line| line.strip_prefix("Pid:")) {
        Some(pid) => pid.trim().parse().ok(),
        None => pid_of_directory(process),
    };
    // -1 is a process that has been reaped, 0 one of another pid namespace: for kill(2) both mean
    // many processes.
    pid.filter(|pid| *pid > 0).ok_or(Errno::ESRCH)
}

fn pid_of_directory(directory: BorrowedFd<'_>) -> Option<i32> {
    let stat = openat(directory, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let text = by_fd::short_text_of(File::from(stat)).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Sends a signal with kill(2).
pub(super) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let pid = pid_of(process).ok_or(Errno::ESRCH)?;
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Waits with waitid(2) by pid. Another thread that waits for this process's children may reap the
/// child first.
pub(super) fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Ended>, Errno> {
    waitid(libc::P_PID, pid_of(pidfd).ok_or(Errno::ECHILD)?, block)
}
