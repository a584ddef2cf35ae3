//! Processes by number, where a kernel or a filter around us does not let them be had by descriptor. A number may come to
//! mean another process: it is read off the descriptor right before it is used, when the process is still there.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::waitid::{Ended, waitid};

/// The directory of a process in /proc, which shows nothing any more once the process has been reaped.
pub(super) fn open(pid: i32) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match nix::fcntl::open(format!("/proc/{pid}").as_str(), flags, Mode::empty()) {
        Err(Errno::ENOENT) => Err(Errno::ESRCH),
        result => result,
    }
}

/// The pid behind a pidfd, or behind a directory of /proc, as this process's /proc shows it.
pub(crate) fn pid_of(process: BorrowedFd<'_>) -> Option<i32> {
    // A thread may have a table of descriptors of its own, which `self` would not show (3.17).
    let text = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", process.as_raw_fd())).ok()?;
    let pid = match text.lines().find_map(|line| line.strip_prefix("Pid:")) {
        Some(pid) => pid.trim().parse().ok()?,
        None => pid_of_directory(process)?,
    };
    // -1 for a process that has been reaped, 0 for one of another pid namespace: kill(2) takes both for many.
    (pid > 0).then_some(pid)
}

fn pid_of_directory(directory: BorrowedFd<'_>) -> Option<i32> {
    let mut text = String::new();
    let stat = openat(directory, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    File::from(stat).read_to_string(&mut text).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// kill(2).
pub(super) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let pid = pid_of(process).ok_or(Errno::ESRCH)?;
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// waitid(2) by number. Whoever else waits for our children may have been faster.
pub(super) fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Ended>, Errno> {
    waitid(libc::P_PID, pid_of(pidfd).ok_or(Errno::ECHILD)?, block)
}
