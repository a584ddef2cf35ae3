//! waitid(2) with the usage, which glibc's wrapper leaves out.

use std::mem::MaybeUninit;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};

/// The end of a process, and the usage of the process and of the children that it has waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// The status as waitpid(2) returns it.
    pub(crate) wait_status: i32,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// The largest resident set of any one process, in bytes.
    max_rss: u64,
}

impl Ended {
    /// Returns the largest resident set of the process or one of its children. Returns `None` if
    /// the number could be the caller's: for a process that has shared the caller's memory, the
    /// kernel also counts what the caller had.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let own = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        Some(self.max_rss).filter(|most| *most > u64::try_from(own.max_rss()).unwrap_or(0).saturating_mul(1024))
    }
}

/// Calls waitid(2) for one process, named by `id` as `kind` says.
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
    // SAFETY: the structure is the one that waitid fills; with WNOHANG and nobody there it stays
    // zero.
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

/// Returns whether the process behind a pidfd is a child of this one, which waitid(2) by pidfd can
/// tell since 5.4. Reaps nothing.
pub(super) fn is_child(pidfd: i32) -> bool {
    look(pidfd) != Err(Errno::ECHILD)
}

/// Returns whether the child behind a pidfd has ended. Reaps nothing.
pub(super) fn look(pidfd: i32) -> Result<bool, Errno> {
    let flags = libc::WEXITED | libc::__WALL | libc::WNOHANG | libc::WNOWAIT;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let usage = std::ptr::null_mut::<libc::rusage>();
    // SAFETY: the place is of the type that the call writes, and lives across it; no usage is asked
    // for.
    let result = unsafe { libc::syscall(libc::SYS_waitid, libc::P_PIDFD, pidfd, info.as_mut_ptr(), flags, usage) };
    Errno::result(result)?;
    // SAFETY: zeroed bytes are valid, and with WNOHANG and nobody there the structure stays zero.
    Ok(unsafe { info.assume_init().si_pid() } != 0)
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.try_into().unwrap_or(0))
        + Duration::from_micros(time.tv_usec.try_into().unwrap_or(0))
}
