//! The wait for a later process, which starts the program.

use crate::Machine;
use crate::start::GREETING;
use crate::syscall::{Errno, exit, nr, syscall};
use crate::wire::{REPORT_SLOT, Record, record};

const POLLIN: i16 = 1;
/// The longest time that a process may take to send the greeting once it has connected. Another one
/// gets its turn then.
const PATIENCE: [u64; 2] = [10, 0];
/// The pause after a connection that the kernel could not accept: for want of memory, or of files
/// on the host.
const PAUSE: [u64; 2] = [0, 50_000_000];
/// SIGHUP, SIGINT, SIGQUIT and SIGTERM: the signals by which a process is asked to end.
const ASKING: [u64; 4] = [1, 2, 3, 15];

/// Lets the owner put this process on record, and lets go of the owner. From then on there are only
/// the streams, the program's own descriptors and the listener. A greeting makes a connection the
/// report socket.
///
/// As long as there is no record, the end of the owner ends this process. From then on, a signal does
/// that asks for it: the kernel passes over those for an init without handlers.
pub fn wait(machine: &mut Machine, index: u32, listener: u64, parent: u64) -> Result<u64, Errno> {
    const PR_SET_PDEATHSIG: u64 = 1;
    let send = |machine: &Machine, kind| machine.send(Record { kind, op: index, errno: 0, value: 0 });
    send(machine, record::NEED_SAVE);
    while let Err(errno) = machine.poll_owner(parent, POLLIN, 0) {
        if errno != Errno::INTR {
            return Err(errno);
        }
    }
    let mut answer = [0u8; 1];
    if read(machine.report_fd(), &mut answer)? != 1 {
        return Err(Errno::OWNERDEAD);
    }
    syscall(nr::PRCTL, [PR_SET_PDEATHSIG, 0, 0, 0, 0, 0])?;
    send(machine, record::CREATED);
    close(parent);
    close(machine.report_fd());
    heed(ended as *const () as u64);
    let connection = loop {
        match accept(listener) {
            Ok(connection) if greets(connection) => break connection,
            Ok(connection) => close(connection),
            Err(Errno::INTR) => {}
            Err(errno @ (Errno::BADF | Errno::INVAL)) => return Err(errno),
            Err(_) => {
                let _ = syscall(nr::PPOLL, [0, 0, PAUSE.as_ptr() as u64, 0, 0, 0]);
            }
        }
    };
    heed(0);
    machine.slots[REPORT_SLOT as usize] = connection;
    // The listener is open until the exec closes it: as long as somebody can connect, the program's
    // filter may still be missing.
    Ok(0)
}

/// Sets the action of the signals that ask for the end, and unblocks them; an action of 0 is the
/// default, and blocks them again until the exec. The program's own are the default after an exec
/// in any case.
fn heed(action: u64) {
    const SIG_BLOCK: u64 = 0;
    const SIG_UNBLOCK: u64 = 1;
    const SA_RESTORER: u64 = 0x0400_0000;
    let set = ASKING.iter().fold(0u64, |set, signal| set | 1 << (signal - 1));
    let mask = |how| {
        let _ = syscall(nr::RT_SIGPROCMASK, [how, &raw const set as u64, 0, 8, 0, 0]);
    };
    // x86-64 calls no handler without an address to return to. This one does not return.
    let flags = if cfg!(target_arch = "x86_64") && action != 0 { SA_RESTORER } else { 0 };
    let restorer = if flags == 0 { 0 } else { action };
    let attributes = [action, flags, restorer, 0];
    if action == 0 {
        mask(SIG_BLOCK);
    }
    for signal in ASKING {
        let _ = syscall(nr::RT_SIGACTION, [signal, attributes.as_ptr() as u64, 0, 8, 0, 0]);
    }
    if action != 0 {
        mask(SIG_UNBLOCK);
    }
}

/// Handles a signal that asks for the end. Only system calls are made from here.
extern "C" fn ended(signal: i32) {
    exit(128 + signal as u64)
}

fn accept(listener: u64) -> Result<u64, Errno> {
    const SOCK_CLOEXEC: u64 = 0o2000000;
    syscall(nr::ACCEPT4, [listener, 0, 0, SOCK_CLOEXEC, 0, 0])
}

/// Returns whether the first message of a connection is the greeting, and nothing more.
fn greets(connection: u64) -> bool {
    #[repr(C)]
    struct PollFd {
        fd: i32,
        events: i16,
        revents: i16,
    }
    let mut poll = PollFd { fd: connection as i32, events: POLLIN, revents: 0 };
    // The kernel writes what is left of the time on some architectures.
    let time = PATIENCE;
    let ready = syscall(nr::PPOLL, [&raw mut poll as u64, 1, time.as_ptr() as u64, 0, 0, 0]);
    let mut message = [0u8; GREETING.len() + 1];
    ready == Ok(1)
        && read(connection, &mut message) == Ok(GREETING.len() as u64)
        && message[..GREETING.len()] == GREETING
}

fn read<const N: usize>(fd: u64, buffer: &mut [u8; N]) -> Result<u64, Errno> {
    let len = syscall(nr::READ, [fd, buffer.as_mut_ptr() as u64, N as u64, 0, 0, 0]);
    // SAFETY: `buffer` is ours and the kernel has just written to it; the volatile read keeps the
    // compiler from assuming what stood there before.
    *buffer = unsafe { (&raw const *buffer).read_volatile() };
    len
}

fn close(fd: u64) {
    let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
}
