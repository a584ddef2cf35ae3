//! Processes by descriptor: pidfd_open(2), pidfd_send_signal(2), waitid(2) with usage, and the exit
//! information that newer kernels keep on a pidfd.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::by_pid;
pub(crate) use super::by_pid::{find_pid, pid_of};
pub(crate) use super::waitid::Ended;
use super::waitid::waitid;

/// Opens a pidfd with pidfd_open(2), since 5.3. The descriptor is close-on-exec.
pub(crate) fn open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Opens what [`send_signal`] needs for a process that is no child: a pidfd as [`open`] does, or
/// the process's directory in /proc.
pub(crate) fn open_any(pid: i32) -> Result<OwnedFd, Errno> {
    match open(pid) {
        Err(Errno::ENOSYS | Errno::EPERM) => by_pid::open(pid),
        result => result,
    }
}

/// Sends a signal with pidfd_send_signal(2), since 5.1. The call also takes a directory of /proc.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed, and there are no other pointers.
    match Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) }) {
        // If the kernel refused with EPERM because of the process's user, kill(2) is refused as
        // well.
        Err(Errno::ENOSYS | Errno::EPERM) => by_pid::send_signal(pidfd, signal),
        result => result.map(drop),
    }
}

/// Waits with waitid(2) by pidfd (5.4), and returns the usage as well, which glibc's wrapper leaves
/// out. Returns `None` if `block` is false and the process still runs.
pub(crate) fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Ended>, Errno> {
    match waitid(libc::P_PIDFD, pidfd.as_raw_fd(), block) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => by_pid::wait(pidfd, block),
        result => result,
    }
}

/// Returns whether the process is a child of this one.
pub(crate) fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    super::waitid::is_child(pidfd.as_raw_fd())
}

/// Returns whether the process is a child of this one that has ended, and that nobody has reaped.
pub(crate) fn is_zombie_child(pidfd: BorrowedFd<'_>) -> bool {
    super::waitid::look(pidfd.as_raw_fd()).is_ok_and(|ended| ended)
}

/// Returns the wait status of a process that another thread has reaped: `PIDFD_GET_INFO` with
/// `PIDFD_INFO_EXIT`, since 6.15. Returns `None` if the kernel keeps no status.
///
/// A wait that finds no child returns a moment before the kernel has released the process and
/// stored the status.
pub(crate) fn exit_info(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const STEP: u8 = 10;
    let mut gone = false;
    for _ in 0..100 {
        match exit_info_now(pidfd) {
            Ok(Some(status)) => return Some(status),
            Ok(None) => {}
            // The process was released after the kernel had looked for the status and before it
            // looked for the process. Before 6.15, this is the answer every time.
            Err(Errno::ESRCH) if !gone => gone = true,
            // ENOTTY before 6.13.
            Err(_) => return None,
        }
        // POLLHUP comes when the process is gone.
        let _ = poll(&mut [PollFd::new(pidfd, PollFlags::empty())], STEP);
    }
    None
}

fn exit_info_now(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroupid: u64,
        pid: u32,
        tgid: u32,
        ppid: u32,
        ids: [u32; 8],
        exit_code: i32,
    }
    nix::ioctl_readwrite!(pidfd_get_info, 0xFF, 11, PidfdInfo);
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the structure is the first version of struct pidfd_info (64 bytes), whose size the
    // request carries.
    unsafe { pidfd_get_info(pidfd.as_raw_fd(), &raw mut info) }?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, id};

    use super::*;

    /// A process inside a sandbox may send the pidfd of any process that it can get.
    #[test]
    fn a_child_is_told_from_any_other_process_and_is_not_reaped() {
        let mut child = Command::new("true").spawn().unwrap();
        let theirs = open(child.id() as i32).unwrap();
        assert!(is_child(theirs.as_fd()));
        poll(&mut [PollFd::new(theirs.as_fd(), PollFlags::POLLIN)], nix::poll::PollTimeout::NONE).unwrap();
        assert!(is_child(theirs.as_fd()), "it has ended");
        assert!(child.wait().unwrap().success());
        for other in [id() as i32, 1] {
            assert!(!is_child(open(other).unwrap().as_fd()), "{other}");
        }
    }
}
