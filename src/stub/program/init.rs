//! Ops that continue the plan in another process: the program below an init, or a sibling in
//! namespaces that were just joined.

use crate::Machine;
use crate::message::Message;
use crate::syscall::{Errno, exit, nr, syscall};
use crate::wire::code::{ORPHAN, SILENT_INIT};
use crate::wire::{REPORT_SLOT, Record, record};

const SIGCHLD: u64 = 17;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_PARENT: u64 = 0x8000;
const O_CLOEXEC: u64 = 0o2000000;

/// Clones with clone(2), without shared memory: flags, place of the pidfd. The order of the
/// arguments 4 and 5 differs between architectures, but both are 0 here.
fn fork(flags: u64, pidfd: *mut i32) -> Result<u64, Errno> {
    syscall(nr::CLONE, [flags | SIGCHLD, 0, pidfd as u64, 0, 0, 0])
}

/// Forks. The child returns and runs the rest of the plan. The parent is init from here on: with
/// CLONE_VFORK, the parent continues when the child has executed the program, or has ended (and
/// reported why).
///
/// With [`SILENT_INIT`] as `how`, the program is executed only when a later process says so. The
/// parent does not wait for that, and has nobody to report to.
pub fn start(machine: &mut Machine, how: u64) -> Result<u64, Errno> {
    if how == SILENT_INIT {
        return start_silent(machine);
    }
    let child = fork(CLONE_VFORK, core::ptr::null_mut())?;
    if child == 0 {
        return Ok(0);
    }
    machine.send(Record { kind: record::STARTED, op: 0, errno: 0, value: child as i32 });
    keep_only_report(machine);
    serve(machine, child)
}

/// The same with [`SILENT_INIT`]. The child goes on when init has closed all descriptors: when the
/// owner hears that the child waits, init holds no end of a terminal or a pipe any more.
fn start_silent(machine: &Machine) -> Result<u64, Errno> {
    let [reader, writer] = pipe()?;
    let child = fork(0, core::ptr::null_mut())?;
    if child > 0 {
        close_from(0);
        serve(machine, child)
    }
    syscall(nr::CLOSE, [writer, 0, 0, 0, 0, 0])?;
    let mut byte = 0u8;
    syscall(nr::READ, [reader, &raw mut byte as u64, 1, 0, 0, 0])?;
    syscall(nr::CLOSE, [reader, 0, 0, 0, 0, 0])
}

fn pipe() -> Result<[u64; 2], Errno> {
    let mut pipe = [-1i32; 2];
    syscall(nr::PIPE2, [pipe.as_mut_ptr() as u64, O_CLOEXEC, 0, 0, 0, 0])?;
    // SAFETY: `pipe` is a local that the kernel has just written.
    Ok(unsafe { (&raw const pipe).read_volatile() }.map(|fd| fd as u64))
}

/// Closes all descriptors of init except its report socket, which becomes descriptor 0.
fn keep_only_report(machine: &mut Machine) {
    if syscall(nr::DUP3, [machine.report_fd(), 0, O_CLOEXEC, 0, 0, 0]).is_ok() {
        machine.slots[REPORT_SLOT as usize] = 0;
    }
    close_from(1);
}

fn close_from(first: u64) {
    if syscall(nr::CLOSE_RANGE, [first, u64::from(u32::MAX), 0, 0, 0, 0]).is_err() {
        for fd in first..65536 {
            let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
        }
    }
}

/// Reaps every process that ends, passes every signal on to the program, and ends together with the
/// program; the kernel then kills the rest of the pid namespace.
fn serve(machine: &Machine, child: u64) -> ! {
    let all = u64::MAX;
    loop {
        match syscall(nr::RT_SIGTIMEDWAIT, [&raw const all as u64, 0, 0, 8, 0, 0]) {
            Ok(SIGCHLD) => reap(machine, child),
            Ok(signal) => {
                let _ = syscall(nr::KILL, [child, signal, 0, 0, 0, 0]);
            }
            Err(_) => {}
        }
    }
}

fn reap(machine: &Machine, child: u64) {
    const WNOHANG: u64 = 1;
    const WALL: u64 = 0x4000_0000;
    loop {
        let mut status = 0i32;
        let pid = syscall(nr::WAIT4, [u64::MAX, &raw mut status as u64, WNOHANG | WALL, 0, 0, 0]).unwrap_or(0);
        if pid == 0 {
            return;
        }
        if pid == child {
            // SAFETY: `status` is a local that the kernel has just written.
            let status = unsafe { (&raw const status).read_volatile() };
            machine.send(Record { kind: record::ENDED, op: 0, errno: 0, value: status });
            let signal = status & 0x7f;
            exit(if signal == 0 { (status >> 8) as u64 & 0xff } else { 128 + signal as u64 });
        }
    }
}

/// Clones a sibling that continues with the plan. A process that joins a pid namespace stays
/// outside of the namespace, but its children are born inside. With CLONE_PARENT, the child is a
/// child of the owner, which gets the child's pidfd. The child must send nothing before the owner
/// knows of it: the child waits for a byte on a pipe. If the pipe ends without a byte, this process
/// has died early.
pub fn reclone(machine: &mut Machine, parent: u64) -> Result<u64, Errno> {
    let [reader, writer] = pipe()?;
    let mut pidfd = -1i32;
    let sibling = if parent == ORPHAN { 0 } else { CLONE_PARENT };
    let child = fork(sibling | CLONE_PIDFD, &raw mut pidfd)?;
    let mut byte = 0u8;
    if child == 0 {
        syscall(nr::CLOSE, [writer, 0, 0, 0, 0, 0])?;
        let read = syscall(nr::READ, [reader, &raw mut byte as u64, 1, 0, 0, 0])?;
        syscall(nr::CLOSE, [reader, 0, 0, 0, 0, 0])?;
        return if read == 1 { Ok(0) } else { exit(127) };
    }
    // SAFETY: `pidfd` is a local that the kernel has just written.
    let pidfd = unsafe { (&raw const pidfd).read_volatile() };
    let record = Record { kind: record::RECLONED, op: 0, errno: 0, value: child as i32 };
    let sent = send_with_fd(machine, record, pidfd);
    match sent.and_then(|_| syscall(nr::WRITE, [writer, &raw const byte as u64, 1, 0, 0, 0])) {
        Ok(_) => exit(0),
        Err(errno) => machine.fail(0, errno),
    }
}

pub fn send_with_fd(machine: &Machine, record: Record, fd: i32) -> Result<u64, Errno> {
    const SOL_SOCKET: i32 = 1;
    const SCM_RIGHTS: i32 = 1;
    const MSG_NOSIGNAL: u64 = 0x4000;
    #[repr(C)]
    struct Control {
        len: u64,
        level: i32,
        kind: i32,
        fd: i32,
        pad: i32,
    }
    let control = Control { len: 20, level: SOL_SOCKET, kind: SCM_RIGHTS, fd, pad: 0 };
    let iov = [&raw const record as u64, core::mem::size_of::<Record>() as u64];
    let message = Message::new(&iov, [&raw const control as u64, core::mem::size_of::<Control>() as u64]);
    syscall(nr::SENDMSG, [machine.report_fd(), &raw const message as u64, MSG_NOSIGNAL, 0, 0, 0])
}
