//! The parts of seccomp(2) that filters need, and its user notification: seccomp_unotify(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::timeout;

/// Checks whether filters may return this action (`SECCOMP_GET_ACTION_AVAIL`, 4.14). Fails with
/// ENOSYS or EINVAL if the kernel has no filters, and with EOPNOTSUPP if it does not know the
/// action.
pub(crate) fn has_action(action: u32) -> Result<(), Errno> {
    const GET_ACTION_AVAIL: libc::c_uint = 2;
    let action = action & !libc::SECCOMP_RET_DATA;
    // SAFETY: the call reads one word, which lives across it.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) }).map(drop)
}

/// Tries whether a filter may have a listener here (5.0) that is told of the end (5.8). A thread
/// installs a filter that allows everything, and ends. Fails with EBUSY if a filter around this
/// process has a listener already, and with ENOTSUP if the listener is not told of the end.
pub(crate) fn try_listener() -> Result<(), Errno> {
    /// The longest time that the end of the thread may take.
    const PATIENCE: Duration = Duration::from_secs(2);
    let thread = thread::Builder::new().name("ringfence-trial".into()).spawn(install_listener);
    let thread = thread.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
    let listener = thread.join().unwrap_or(Err(Errno::EAGAIN))?;
    let until = Instant::now() + PATIENCE;
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::empty())];
        match poll(&mut fds, timeout::until(until)) {
            Ok(0) if Instant::now() >= until => return Err(Errno::ENOTSUP),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Installs a filter for the calling thread that allows everything, and returns its listener.
fn install_listener() -> Result<OwnedFd, Errno> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    nix::sys::prctl::set_no_new_privs()?;
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut allow = libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // SAFETY: the program and its one instruction live across the call, which only reads them.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    let listener = Errno::result(listener)?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}

/// A question to the supervisor: struct seccomp_notif.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    /// The architecture, as audit(7) numbers it.
    pub(crate) arch: u32,
    pub(crate) number: i32,
    pub(crate) instruction: u64,
    pub(crate) args: [u64; 6],
}

nix::ioctl_readwrite!(notif_recv, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(notif_send, b'!', 1, libc::seccomp_notif_resp);
nix::ioctl_write_ptr!(notif_id_valid, b'!', 2, u64);
nix::ioctl_write_ptr!(notif_addfd, b'!', 3, libc::seccomp_notif_addfd);

/// Receives the next question, or waits for one (5.0). Fails with ENOENT if the thread that asked
/// has died meanwhile.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> Result<Question, Errno> {
    // SAFETY: all bytes zero is a value of the structure, and what the kernel wants to see.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives across the call, which writes its own kernel's size; that is the
    // same since 5.0, and the request carries it.
    unsafe { notif_recv(listener.as_raw_fd(), &raw mut notif) }?;
    let data = notif.data;
    Ok(Question {
        id: notif.id,
        pid: notif.pid,
        arch: data.arch,
        number: data.nr,
        instruction: data.instruction_pointer,
        args: data.args,
    })
}

/// The supervisor's answer to a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Value(i64),
    Errno(i32),
    /// The kernel executes the call (5.5).
    Continue,
}

/// Answers a question. Fails with ENOENT if no thread waits for the answer any more.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<(), Errno> {
    const CONTINUE: u32 = 1;
    let (val, error, flags) = match answer {
        Answer::Value(value) => (value, 0, 0),
        Answer::Errno(errno) => (0, -errno, 0),
        Answer::Continue => (0, 0, CONTINUE),
    };
    let mut response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the structure lives across the call, and the request carries its size.
    unsafe { notif_send(listener.as_raw_fd(), &raw mut response) }.map(drop)
}

/// Returns true if the question is still open: the thread that asked lives, and waits for an
/// answer.
pub(crate) fn is_valid(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the word lives across the call, which only reads it.
    unsafe { notif_id_valid(listener.as_raw_fd(), &raw const id) }.is_ok()
}

/// Puts a copy of `fd` into the descriptor table of the process that asked (5.9), and returns its
/// number there. With `send`, also returns this number to the caller as the answer, in the same
/// step (5.14).
pub(crate) fn add_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    fd: BorrowedFd<'_>,
    cloexec: bool,
    send: bool,
) -> Result<i32, Errno> {
    const SEND: u32 = 2;
    let added = libc::seccomp_notif_addfd {
        id,
        flags: if send { SEND } else { 0 },
        srcfd: fd.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    // SAFETY: the structure lives across the call, which only reads it, and the request carries its
    // size.
    unsafe { notif_addfd(listener.as_raw_fd(), &raw const added) }
}
