//! Processes by descriptor: pidfd_open(2), pidfd_send_signal(2), waitid(2) with usage, and the exit information that
//! newer kernels keep on a pidfd.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::resource::{UsageWho, getrusage};

use super::by_pid;
pub(crate) use super::by_pid::pid_of;

/// How a process ended, and what it and the children that it has waited for used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// As waitpid(2) gives it.
    pub(crate) wait_status: i32,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// The largest resident set of any one process, in bytes.
    max_rss: u64,
}

impl Ended {
    /// The largest resident set of the process or one of its children, if it is theirs: a process that has shared the caller's
    /// memory is told to have had what the caller had.
    pub(crate) fn largest(&self) -> Option<u64> {
        let own = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        Some(self.max_rss).filter(|most| *most > u64::try_from(own.max_rss()).unwrap_or(0).saturating_mul(1024))
    }
}

/// pidfd_open(2), since 5.3. The descriptor is close-on-exec.
pub(crate) fn open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What [`send_signal`] takes for a process that is no child: as [`open`], or its directory in /proc.
pub(crate) fn open_any(pid: i32) -> Result<OwnedFd, Errno> {
    match open(pid) {
        Err(Errno::ENOSYS | Errno::EPERM) => by_pid::open(pid),
        result => result,
    }
}

/// pidfd_send_signal(2), since 5.1. It also takes a directory of /proc.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed, and there are no other pointers.
    match Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) }) {
        // Where the kernel says EPERM because of the process's user, it says so again.
        Err(Errno::ENOSYS | Errno::EPERM) => by_pid::send_signal(pidfd, signal),
        result => result.map(drop),
    }
}

/// waitid(2) by pidfd (5.4), with the usage that glibc's wrapper leaves out. `None` if `block` is false and the process
/// still runs.
pub(crate) fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Ended>, Errno> {
    match waitid(libc::P_PIDFD, pidfd.as_raw_fd(), block) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => by_pid::wait(pidfd, block),
        result => result,
    }
}

/// waitid(2) for one process, named by `id` as `kind` has it.
pub(super) fn waitid(kind: libc::idtype_t, id: i32, block: bool) -> Result<Option<Ended>, Errno> {
    let flags = libc::WEXITED | libc::__WALL | if block { 0 } else { libc::WNOHANG };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both places are of the type that the call writes, and live across it.
        let result = unsafe { libc::syscall(libc::SYS_waitid, kind, id, info.as_mut_ptr(), flags, usage.as_mut_ptr()) };
        match Errno::result(result) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: zeroed bytes are valid for both types, and the kernel has filled in what it had.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: the structure is the one that waitid fills; with WNOHANG and nobody there it stays zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let wait_status = match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    Ok(Some(Ended {
        wait_status,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    }))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.try_into().unwrap_or(0))
        + Duration::from_micros(time.tv_usec.try_into().unwrap_or(0))
}

/// The wait status of a process that somebody else has reaped: `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, since 6.15.
/// `None` where the kernel keeps none.
///
/// A wait that finds no child comes back a moment before the kernel has let go of the process and written this down.
pub(crate) fn exit_info(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const STEP: u8 = 10;
    let mut gone = false;
    for _ in 0..100 {
        match exit_info_now(pidfd) {
            Ok(Some(status)) => return Some(status),
            Ok(None) => {}
            // It went between the kernel's look for this and its look for the process; before 6.15 it is so every time.
            Err(Errno::ESRCH) if !gone => gone = true,
            // ENOTTY before 6.13.
            Err(_) => return None,
        }
        // POLLHUP comes when it is.
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
    // SAFETY: the structure is the first version of struct pidfd_info (64 bytes), whose size the request carries.
    unsafe { pidfd_get_info(pidfd.as_raw_fd(), &raw mut info) }?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}
