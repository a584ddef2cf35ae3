//! The descriptors of a program that come after its plan.

use crate::message::{Control, Message};
use crate::syscall::{Errno, nr, syscall};
use crate::wire;

/// Receives `count` descriptors in one message, and gives each its number. The numbers are the
/// words at `numbers`, all below `end`. The frame is large, and most stubs never touch it.
#[inline(never)]
pub fn place(socket: u64, numbers: *const i32, count: usize, end: u64) -> Result<u64, Errno> {
    const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;
    const F_DUPFD_CLOEXEC: u64 = 1030;
    let mut byte = 0u8;
    let mut control = Control::<{ wire::MAX_FDS }>::EMPTY;
    let iov = [&raw mut byte as u64, 1];
    let mut message = Message::new(&iov, [&raw mut control as u64, core::mem::size_of_val(&control) as u64]);
    let len = syscall(nr::RECVMSG, [socket, &raw mut message as u64, MSG_CMSG_CLOEXEC, 0, 0, 0])?;
    if len == 0 {
        return Err(Errno::OWNERDEAD);
    }
    // SAFETY: both are locals that the kernel has just written.
    let (message, mut control) =
        unsafe { ((&raw const message).read_volatile(), (&raw const control).read_volatile()) };
    let received = control.count(&message);
    // The kernel leaves out those that the table has no room for.
    if received != count {
        return Err(Errno::MFILE);
    }
    let fds = control.fds.iter_mut().take(count);
    // First out of the way: one may have come under the number of another.
    for fd in fds {
        let above = syscall(nr::FCNTL, [*fd as u64, F_DUPFD_CLOEXEC, end, 0, 0, 0])?;
        let _ = syscall(nr::CLOSE, [*fd as u64, 0, 0, 0, 0, 0]);
        *fd = above as i32;
    }
    for (i, fd) in control.fds.iter().take(count).enumerate() {
        // SAFETY: the plan has `count` numbers at this place.
        let number = unsafe { numbers.add(i).read_unaligned() };
        syscall(nr::DUP3, [*fd as u64, number as u64, 0, 0, 0, 0])?;
        let _ = syscall(nr::CLOSE, [*fd as u64, 0, 0, 0, 0, 0]);
    }
    Ok(0)
}
