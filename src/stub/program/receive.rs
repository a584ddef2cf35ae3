//! The receipt of a plan: the next message on the report socket, or the file that the message
//! names.

use crate::message::{Control, Message};
use crate::syscall::{Errno, nr, syscall};
use crate::wire::{self, Header};

/// The room for a plan, with the alignment of the plan's words.
pub type Room = core::mem::MaybeUninit<[u64; wire::INLINE_MAX / 8]>;

/// The most descriptors that come with a plan: the program's streams, and the file.
const FDS_MAX: usize = 4;
/// Receives a plan, which comes with at least `streams` descriptors, into `room`. If the message
/// names a file, maps the file.
fn receive(room: &mut Room, socket: u64, streams: usize) -> Result<(u64, u64), Errno> {
    const PROT_READ_WRITE: u64 = 3;
    const MAP_PRIVATE_POPULATE: u64 = 0x2 | 0x8000;
    let base = room.as_mut_ptr() as u64;
    let mut control = Control::<FDS_MAX>::EMPTY;
    let iov = [base, wire::INLINE_MAX as u64];
    let mut message = Message::new(&iov, [&raw mut control as u64, core::mem::size_of_val(&control) as u64]);
    let len = syscall(nr::RECVMSG, [socket, &raw mut message as u64, 0, 0, 0, 0])?;
    // SAFETY: both are locals that the kernel has just written.
    let (message, control) = unsafe { ((&raw const message).read_volatile(), (&raw const control).read_volatile()) };
    if len == 0 {
        return Err(Errno::OWNERDEAD);
    }
    let count = control.count(&message);
    // The streams must get the numbers below 3: these are free, and the kernel gives the lowest
    // number first.
    let misplaced = control.fds.iter().take(streams).zip(0..).any(|(fd, number)| *fd != number);
    if count < streams || misplaced {
        return Err(Errno::BADF);
    }
    if len != core::mem::size_of::<wire::Elsewhere>() as u64 {
        return Ok((base, len));
    }
    // SAFETY: the kernel has written so many bytes to the room, and no plan is that short.
    let there = unsafe { (base as *const wire::Elsewhere).read() };
    if there.magic != wire::ELSEWHERE {
        return Err(Errno::NOEXEC);
    }
    let fd = if there.fd < 0 { control.fds[FDS_MAX - 1] } else { there.fd } as u64;
    let base = syscall(nr::MMAP, [0, there.size, PROT_READ_WRITE, MAP_PRIVATE_POPULATE, fd, 0])?;
    let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
    Ok((base, there.size))
}

/// Receives the plan and turns its offsets into pointers.
pub fn load(room: &mut Room, socket: u64, streams: usize) -> Result<*const Header, Errno> {
    let (base, len) = receive(room, socket, streams)?;
    let header = base as *mut Header;
    // SAFETY: the crate wrote the plan, and nobody else has its socket or descriptor; it begins
    // with a header, and `reloc_count` words of four bytes stand at `reloc_offset`, each the offset
    // of an aligned 64-bit word of the block.
    unsafe {
        if len < core::mem::size_of::<Header>() as u64 || (*header).magic != wire::MAGIC {
            return Err(Errno::NOEXEC);
        }
        let relocs = (base + u64::from((*header).reloc_offset)) as *const u32;
        for i in 0..(*header).reloc_count as usize {
            let word = (base + u64::from(relocs.add(i).read())) as *mut u64;
            word.write(word.read() + base);
        }
    }
    Ok(header)
}
