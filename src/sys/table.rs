//! A descriptor table that belongs to one thread.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::stub::wire::{FIRST_FD, PARENT_FD};

/// The socket of the spawner. This number and the following ones are those of the spawner's own
/// descriptors in its table; 0 to 2 are /dev/null.
pub(crate) const SOCKET: RawFd = 3;
/// The memfd of the stub, or `/dev/null` if there can be no memfd.
pub(crate) const STUB: RawFd = 4;

fn call(number: libc::c_long, args: [u64; 6]) -> Result<u64, Errno> {
    // SAFETY: the callers in this file pass numbers and strings with a NUL that live across the
    // call.
    let result = unsafe { super::raw::syscall(number as usize, args) };
    if (-4095..0).contains(&result) { Err(Errno::from_raw(-result as i32)) } else { Ok(result as u64) }
}

/// Separates the calling thread's descriptor table from the process's. The new table contains
/// `/dev/null` three times, `socket` and `stub` at their places, the two ends of a new pipe, and
/// nothing else. The descriptors in the table of the process do not change.
///
/// After this call, the thread must not use or drop any descriptor whose owner it held before.
pub(crate) fn make_private(socket: RawFd, stub: Option<RawFd>) -> Result<(), Errno> {
    call(libc::SYS_unshare, [libc::CLONE_FILES as u64, 0, 0, 0, 0, 0])?;
    close_others([socket, stub.unwrap_or(socket)]);
    // No place below is that of a source: these numbers are above all places. They are as low as
    // can be, because a number that RLIMIT_NOFILE does not allow is refused, with EINVAL.
    let move_up =
        |fd: RawFd| call(libc::SYS_fcntl, [fd as u64, libc::F_DUPFD_CLOEXEC as u64, FIRST_FD as u64, 0, 0, 0]);
    let null = call(
        libc::SYS_openat,
        [libc::AT_FDCWD as u64, c"/dev/null".as_ptr() as u64, (libc::O_RDWR | libc::O_CLOEXEC) as u64, 0, 0, 0],
    )?;
    let mut life = [0 as RawFd; 2];
    call(libc::SYS_pipe2, [life.as_mut_ptr() as u64, libc::O_CLOEXEC as u64, 0, 0, 0, 0])?;
    let [read, write] = life.map(|fd| fd as u64);
    let sources: [u64; FIRST_FD as usize] =
        [null, null, null, socket as u64, stub.map_or(null, |fd| fd as u64), write, read];
    let mut moved = [0; FIRST_FD as usize];
    for (to, from) in moved.iter_mut().zip(sources) {
        *to = move_up(from as RawFd)?;
    }
    for (place, fd) in moved.into_iter().enumerate() {
        // A descriptor that stays open across an exec is for the stub.
        let flags = if place as RawFd == PARENT_FD { 0 } else { libc::O_CLOEXEC };
        call(libc::SYS_dup3, [fd, place as u64, flags as u64, 0, 0, 0])?;
    }
    close_from(FIRST_FD)
}

/// Returns a copy of the process's descriptor `number`, whoever owns it.
#[cfg(feature = "oci")]
pub(crate) fn copy_of(number: RawFd) -> Result<OwnedFd, Errno> {
    // A number that is none is an error of the kernel's.
    let args = [number as u64, libc::F_DUPFD_CLOEXEC as u64, 3, 0, 0, 0];
    let copy = call(libc::SYS_fcntl, args)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as RawFd) })
}

/// Makes room in the calling thread's table, which must be its own: closes all descriptors but two.
/// Where close_range(2) is missing, nothing is closed; then a full table stays full.
fn close_others(kept: [RawFd; 2]) {
    let (low, high) = (kept[0].min(kept[1]), kept[0].max(kept[1]));
    for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if first <= last {
            let _ = call(libc::SYS_close_range, [first as u64, last as u64, 0, 0, 0, 0]);
        }
    }
}

/// Closes all descriptors from `first` on in the calling thread's table, which must be its own. The
/// owners of descriptors in this table are gone, or have lower numbers.
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    match call(libc::SYS_close_range, [first as u64, u64::from(u32::MAX), 0, 0, 0, 0]) {
        // close_range(2) came with 5.9. The kernel itself never returns EPERM here.
        Err(Errno::ENOSYS | Errno::EPERM) => close_one_by_one(first),
        result => result.map(drop),
    }
}

/// Closes the descriptors that /proc lists. The limit of open files is no upper bound: it may have
/// been lowered after higher numbers were in use.
fn close_one_by_one(first: RawFd) -> Result<(), Errno> {
    let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/thread-self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse().ok()).filter(|fd: &RawFd| *fd >= first));
    }
    for fd in open {
        // EBADF: this was the descriptor of the list itself, which is closed already.
        let _ = call(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]);
    }
    Ok(())
}

/// Returns the same open file with a number above stderr. If a caller has closed 0, 1 or 2, a
/// permanent descriptor of this library could otherwise get such a number, be taken for the
/// caller's stream, and be passed on to programs.
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    const FIRST: RawFd = 3;
    if fd.as_raw_fd() >= FIRST {
        return Ok(fd);
    }
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST)) {
        // RLIMIT_NOFILE does not allow the number.
        Err(Errno::EINVAL) => Err(Errno::EMFILE),
        result => result.map(own),
    }
}

/// Takes ownership of a descriptor that a system call has just made.
pub(crate) fn own(received: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(received) }
}

/// Returns true if the caller has a descriptor with this number.
pub(crate) fn is_open(fd: RawFd) -> bool {
    call(libc::SYS_fcntl, [fd as u64, libc::F_GETFD as u64, 0, 0, 0, 0]).is_ok()
}
