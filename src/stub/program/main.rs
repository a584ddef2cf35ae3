//! The stub: the program of this library that runs inside a sandbox before the sandboxed program
//! does.
//!
//! The kernel gives the stub memory of its own, one descriptor (the report socket) and the
//! descriptors of the plan. The stub receives the plan, runs the ops one after the other, and ends
//! in `execve`. It has no heap, no libc and no environment. After a failure, the stub sends one
//! record on the report socket and exits.
//!
//! build.rs compiles the stub for the crate's target and embeds the result.

#![no_std]
#![no_main]
#![no_builtins]
// This refuses two ops with the same number.
#![deny(unreachable_patterns)]

mod await_start;
mod copy_up;
mod entry;
mod find;
mod init;
mod listen;
mod memory;
mod message;
mod pinned;
mod receive;
mod received;
mod remount;
mod stamps;
#[path = "../start.rs"]
#[allow(dead_code)]
mod start;
mod syscall;
mod target;
#[path = "../wire.rs"]
#[allow(dead_code)]
mod wire;

use receive::Room;
use stamps::Stamps;
use syscall::{Errno, nr, syscall};
use wire::{Header, Op, Record, code, exec, record};

/// The state of the stub while a plan runs.
struct Machine {
    slots: [u64; wire::SLOTS],
    stamps: Stamps,
}

impl Machine {
    fn report_fd(&self) -> u64 {
        self.slots[wire::REPORT_SLOT as usize]
    }

    fn send(&self, record: Record) {
        let size = core::mem::size_of::<Record>() as u64;
        const MSG_NOSIGNAL: u64 = 0x4000;
        let _ = syscall(nr::SENDTO, [self.report_fd(), &raw const record as u64, size, MSG_NOSIGNAL, 0, 0]);
    }

    fn fail(&self, op: u32, errno: Errno) -> ! {
        self.send(Record { kind: record::FAILED, op, errno: errno.0, value: 0 });
        syscall::exit(127)
    }

    /// Returns the arguments of an op, with the values of the slots.
    fn args(&self, op: &Op) -> [u64; 6] {
        let mut args = op.args;
        for (i, arg) in args.iter_mut().enumerate() {
            if op.slot_args & (1 << i) != 0 {
                *arg = self.slots[*arg as usize % wire::SLOTS];
            }
        }
        args
    }

    /// Runs the ops one after the other.
    fn run_plan(&mut self, plan: *const Header) {
        // SAFETY: `load` has checked that a header stands here; the ops follow it.
        let (head, ops) = unsafe { (*plan, plan.add(1) as *const Op) };
        let mut index = 0;
        while index < head.op_count {
            // SAFETY: `index` is below the number of ops that the plan holds.
            let op = unsafe { &*ops.add(index as usize) };
            self.stamps.take(index, op.code >> wire::SORT_SHIFT);
            let result = if head.fail_at == index { Err(Errno(head.fail_errno)) } else { self.run(index, op) };
            match result {
                Ok(value) => {
                    if op.store != wire::NO_SLOT {
                        self.slots[op.store as usize % wire::SLOTS] = value;
                    }
                    index += u32::from(op.skip_on_success);
                }
                Err(errno) if tolerates(op, errno) => index += u32::from(op.skip_on_tolerated),
                Err(errno) => self.fail(index, errno),
            }
            index += 1;
        }
    }

    /// Runs one op. Reports contain `index`.
    fn run(&mut self, index: u32, op: &Op) -> Result<u64, Errno> {
        let args = self.args(op);
        match op.code & ((1 << wire::SORT_SHIFT) - 1) {
            code::CALL => syscall(op.nr as usize, args),
            code::TARGET => target::resolve(args[0], args[1] as *mut u8, args[2]),
            code::TOP => target::top(args[0]),
            code::WRITE_FILE => write_file(args[0], args[1], args[2]),
            code::OWNER_ALIVE => self.owner_alive(args[0]),
            code::SYNC => self.sync(index, args[0] as u32),
            code::RESET_SIGNALS => reset_signals(),
            code::CLEAR_INHERITABLE => clear_inheritable(),
            code::INIT => init::start(self, args[0]),
            code::RECLONE => init::reclone(self, args[0]),
            code::CWD_INSIDE => cwd_inside(),
            code::CWD_AHEAD => cwd_ahead(),
            code::CWD_AGAIN => reenter_cwd(),
            code::EXEC => self.exec(index, args),
            code::ANNOUNCE => self.announce(index),
            code::PARK => self.park(index, args[0]),
            code::RECEIVE_FDS => received::place(self.report_fd(), args[0] as *const i32, args[1] as usize, args[2]),
            code::SEND_FD => {
                let record = Record { kind: args[1] as u32, op: index, errno: 0, value: 0 };
                init::send_with_fd(self, record, args[0] as i32)
            }
            code::LISTEN => listen::install(self, args[0], args[1], args[2] != 0),
            code::FIND => find::executable(args[0] as *const u64),
            code::AWAIT_START => await_start::wait(self, index, args[0], args[1]),
            code::DETACH_OLD_ROOT => detach_old_root(args[0]),
            code::DROP_BOUNDING => drop_bounding(args[0]),
            code::IS_DEVICE => target::is_device(args[0], args[1], (args[2], args[3])),
            code::COPY_UP => copy_up::copy(args[0], args[1], args[2]),
            code::REMOUNT => remount::set_flags(args[0], args[1], args[2], args[3] != 0),
            _ => Err(Errno::INVAL),
        }
    }

    /// Fails if the owner is dead. Only the owner holds the other end of the report socket: once
    /// the socket hangs up, the owner is dead. When an owner is killed, its threads end one after
    /// the other, and a death signal that is requested after the end of the parent thread never
    /// comes. While the parent's pipe is open, the signal will come.
    fn owner_alive(&self, parent: u64) -> Result<u64, Errno> {
        let zero_time = [0u64; 2];
        self.poll_owner(parent, 0, zero_time.as_ptr() as u64)
    }

    /// Reports that the setup is finished, and waits for the next plan, or for the end of the
    /// owner. `parent` is the pipe of the thread that cloned.
    fn park(&self, index: u32, parent: u64) -> Result<u64, Errno> {
        const POLLIN: i16 = 1;
        self.send(Record { kind: record::PARKED, op: index, errno: 0, value: 0 });
        loop {
            match self.poll_owner(parent, POLLIN, 0) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Waits for `events` of the report socket. Fails with EOWNERDEAD if the socket or the pipe was
    /// hung up.
    fn poll_owner(&self, parent: u64, events: i16, timeout: u64) -> Result<u64, Errno> {
        #[repr(C)]
        struct PollFd {
            fd: i32,
            events: i16,
            revents: i16,
        }
        const POLLHUP: i16 = 0x10;
        let report = PollFd { fd: self.report_fd() as i32, events, revents: 0 };
        let mut polls = [report, PollFd { fd: parent as i32, events: 0, revents: 0 }];
        let count = polls.len() as u64;
        syscall(nr::PPOLL, [polls.as_mut_ptr() as u64, count, timeout, 0, 0, 0])?;
        // SAFETY: `polls` is a local that the kernel has just written; the volatile read keeps the
        // compiler from assuming the values stored above.
        let polls = unsafe { (&raw const polls).read_volatile() };
        if polls.iter().any(|poll| poll.revents & POLLHUP != 0) { Err(Errno::OWNERDEAD) } else { Ok(0) }
    }

    fn sync(&self, index: u32, kind: u32) -> Result<u64, Errno> {
        self.send(Record { kind, op: index, errno: 0, value: 0 });
        self.answer()
    }

    /// Waits for the owner's answer, and returns whether it came.
    fn is_answered(&self) -> bool {
        loop {
            match self.answer() {
                Err(Errno::INTR) => {}
                result => return result.is_ok(),
            }
        }
    }

    fn answer(&self) -> Result<u64, Errno> {
        let mut answer = 0u8;
        match syscall(nr::READ, [self.report_fd(), &raw mut answer as u64, 1, 0, 0, 0])? {
            1 => Ok(0),
            _ => Err(Errno::OWNERDEAD),
        }
    }

    fn announce(&self, index: u32) -> Result<u64, Errno> {
        self.stamps.all().for_each(|stamp| self.send(stamp));
        self.send(Record { kind: record::EXEC, op: index, errno: 0, value: 0 });
        Ok(0)
    }

    fn exec(&self, index: u32, args: [u64; 6]) -> Result<u64, Errno> {
        let how = args[3];
        if how & exec::ANNOUNCED == 0 {
            self.announce(index)?;
        }
        let result = try_candidates(args).map_err(|errno| match errno {
            Errno::NOENT if how & exec::ASKED == 0 => why_missing(args),
            errno => errno,
        });
        if how & exec::SILENT != 0 {
            let errno = result.err().map_or(0, |errno| errno.0);
            // SAFETY: the plan gave the place of a word in a page that it had mapped shared with
            // the owner.
            unsafe { (args[4] as *mut i32).write_volatile(errno) };
            if how & exec::MAY_EXIT == 0 {
                syscall::trap();
            }
            syscall::exit(127);
        }
        result
    }
}

/// Tries the candidates as execvp(3) does: skips a candidate that is missing or not permitted, and
/// prefers EACCES to ENOENT as the error.
fn try_candidates(args: [u64; 6]) -> Result<u64, Errno> {
    let mut candidate = args[0] as *const u64;
    let mut result = Errno::NOENT;
    loop {
        // SAFETY: the plan ends its list of candidates with a null pointer, and the loop stops
        // there.
        let path = unsafe { candidate.read() };
        if path == 0 {
            return Err(result);
        }
        match syscall(nr::EXECVE, [path, args[1], args[2], 0, 0, 0]) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::ACCES) => result = Errno::ACCES,
            Err(other) => return Err(other),
            Ok(_) => return Err(Errno::INVAL),
        }
        // SAFETY: this entry was not the null one, so another follows.
        candidate = unsafe { candidate.add(1) };
    }
}

/// Tells the two causes of ENOENT apart: no candidate exists, or one does, and its interpreter does
/// not. `args[5]` has each candidate with a slash at its end. An exec of that never succeeds, and
/// says ENOTDIR if the file exists. No filter refuses it that allows the exec itself. A candidate
/// below a file is ENOTDIR without the slash, too.
fn why_missing(args: [u64; 6]) -> Errno {
    let (mut candidate, mut with_slash) = (args[0] as *const u64, args[5] as *const u64);
    loop {
        // SAFETY: the plan ends both lists with a null pointer, and they are of one length.
        let (path, dir) = unsafe { (candidate.read(), with_slash.read()) };
        if path == 0 {
            return Errno::NOENT;
        }
        let fails = |path| syscall(nr::EXECVE, [path, args[1], args[2], 0, 0, 0]);
        if fails(dir) == Err(Errno::NOTDIR) && fails(path) == Err(Errno::NOENT) {
            return Errno(exec::NO_INTERPRETER);
        }
        // SAFETY: these entries were not the null ones, so others follow.
        (candidate, with_slash) = unsafe { (candidate.add(1), with_slash.add(1)) };
    }
}

/// Writes to a file of procfs. Refuses a file on another file system, such as the target of a link
/// in its place (CVE-2025-52881).
fn write_file(path: u64, data: u64, len: u64) -> Result<u64, Errno> {
    const O_WRONLY_CLOEXEC: u64 = 0o1 | 0o2000000;
    let fd = syscall(nr::OPENAT, [syscall::AT_FDCWD, path, O_WRONLY_CLOEXEC, 0, 0, 0])?;
    let written = if is_procfs(fd)? { syscall(nr::WRITE, [fd, data, len, 0, 0, 0]) } else { Err(Errno::XDEV) };
    let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
    if written? == len { Ok(0) } else { Err(Errno::IO) }
}

fn is_procfs(fd: u64) -> Result<bool, Errno> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    let mut stat = [0u64; 15];
    syscall(nr::FSTATFS, [fd, stat.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    // SAFETY: a local of struct statfs's size that the kernel has written; f_type is its first
    // word.
    Ok(unsafe { stat.as_ptr().read_volatile() } == PROC_SUPER_MAGIC)
}

/// Sets all signals to their default action. An exec resets handlers, but ignored signals stay
/// ignored, and Rust programs ignore SIGPIPE.
fn reset_signals() -> Result<u64, Errno> {
    let default = [0u64; 4];
    for signal in 1..=64 {
        // For SIGKILL and SIGSTOP, the kernel returns EINVAL.
        let _ = syscall(nr::RT_SIGACTION, [signal, default.as_ptr() as u64, 0, 8, 0, 0]);
    }
    Ok(0)
}

fn clear_inheritable() -> Result<u64, Errno> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    // Order: effective, permitted, inheritable; first the low 32 capabilities, then the high ones.
    let mut data = [0u32; 6];
    syscall(nr::CAPGET, [header.as_ptr() as u64, data.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    // SAFETY: `data` is a local that the kernel has just written.
    let mut data = unsafe { (&raw const data).read_volatile() };
    // A capability is ambient only while it is inheritable.
    if data[2] | data[5] == 0 {
        return Ok(0);
    }
    data[2] = 0;
    data[5] = 0;
    syscall(nr::CAPSET, [header.as_ptr() as u64, data.as_ptr() as u64, 0, 0, 0, 0])
}

/// Removes capabilities from the bounding set, also those that no header names yet. EINVAL follows
/// the kernel's last capability.
fn drop_bounding(kept: u64) -> Result<u64, Errno> {
    const PR_CAPBSET_READ: u64 = 23;
    const PR_CAPBSET_DROP: u64 = 24;
    for capability in (0..64).filter(|capability| kept & 1 << capability == 0) {
        match syscall(nr::PRCTL, [PR_CAPBSET_DROP, capability, 0, 0, 0, 0]) {
            Ok(_) => {}
            Err(Errno::INVAL) => return Ok(0),
            // Without the right to drop it, it must not be held.
            Err(errno) => match syscall(nr::PRCTL, [PR_CAPBSET_READ, capability, 0, 0, 0, 0]) {
                Ok(0) => {}
                Err(Errno::INVAL) => return Ok(0),
                _ => return Err(errno),
            },
        }
    }
    Ok(0)
}

fn cwd_inside() -> Result<u64, Errno> {
    with_cwd(|path| if path.is_null() { Err(Errno::XDEV) } else { Ok(0) })
}

/// Tells whether the working directory was entered with more rights than the stub still has: it is
/// not the root any more.
fn cwd_ahead() -> Result<u64, Errno> {
    let is_root = |path: *const u8| {
        // SAFETY: a string that the kernel has written, of at least one character and a NUL.
        !path.is_null() && unsafe { path.add(1).read_volatile() } == 0
    };
    with_cwd(|path| if is_root(path) { Err(Errno::ACCES) } else { Ok(0) })
}

/// Enters the working directory again by its name, because mounts on the path may cover it. The
/// stub keeps a working directory that the root does not reach, or that has been removed.
fn reenter_cwd() -> Result<u64, Errno> {
    let again = |path: *const u8| {
        if path.is_null() { Ok(0) } else { syscall(nr::CHDIR, [path as u64, 0, 0, 0, 0, 0]) }
    };
    match with_cwd(again) {
        Err(Errno::NOENT) => Ok(0),
        result => result,
    }
}

/// Calls `then` with the path of the working directory. For a directory that the root does not
/// reach, getcwd(2) returns "(unreachable)…", and `then` gets null. The path has a frame of its
/// own; otherwise each stub would touch the page for it.
#[inline(never)]
fn with_cwd(then: impl FnOnce(*const u8) -> Result<u64, Errno>) -> Result<u64, Errno> {
    const PATH_MAX: usize = 4096;
    let mut path = [0u8; PATH_MAX];
    syscall(nr::GETCWD, [path.as_mut_ptr() as u64, PATH_MAX as u64, 0, 0, 0, 0])?;
    // SAFETY: `path` is a local that the kernel has just written.
    let first = unsafe { path.as_ptr().read_volatile() };
    then(if first == b'/' { path.as_ptr() } else { core::ptr::null() })
}

/// Detaches the old root. After pivot_root(2) the old root is mounted on the new one, which is the
/// working directory. `umount2(".")` takes the topmost mount of a stack, which is not the old root
/// if something was mounted over it. `/` is the new root itself, and `/..` is what is mounted on
/// top of it: as long as they are different mounts (STATX_MNT_ID, 5.8), the host can be reached.
fn detach_old_root(at_least: u64) -> Result<u64, Errno> {
    const DOT: &[u8; 2] = b".\0";
    const MNT_DETACH: u64 = 2;
    const MOST: u64 = 64;
    for count in 1..=MOST {
        syscall(nr::UMOUNT2, [DOT.as_ptr() as u64, MNT_DETACH, 0, 0, 0, 0])?;
        let alone = match (mount_id(b"/\0"), mount_id(b"/..\0")) {
            (Some(root), Some(top)) => root == top,
            _ => true,
        };
        if count >= at_least && alone {
            return Ok(0);
        }
    }
    Err(Errno::BUSY)
}

fn mount_id(path: &[u8]) -> Option<u64> {
    const STATX_MNT_ID: u64 = 0x1000;
    const MNT_ID_WORD: usize = 18;
    let mut stat = [0u64; 32];
    let how = [syscall::AT_FDCWD, path.as_ptr() as u64, 0, STATX_MNT_ID, stat.as_mut_ptr() as u64, 0];
    syscall(nr::STATX, how).ok()?;
    let stat = stat.as_ptr();
    // SAFETY: a local of struct statx's size that the kernel has written; stx_mask is its first
    // half word.
    let (mask, id) = unsafe { (stat.cast::<u32>().read_volatile(), stat.add(MNT_ID_WORD).read_volatile()) };
    (u64::from(mask) & STATX_MNT_ID != 0).then_some(id)
}

fn tolerates(op: &Op, errno: Errno) -> bool {
    let is_missing = matches!(errno, Errno::NOSYS | Errno::PERM) && op.tolerate.contains(&wire::MISSING);
    is_missing || op.tolerate.contains(&(errno.0 as u16)) || op.tolerate.contains(&wire::ANY)
}

/// The entry from `_start`, on the stack that the kernel gave, with room above for a plan.
#[unsafe(no_mangle)]
extern "C" fn stub_main(room: *mut Room) -> ! {
    let mut machine = Machine { slots: [0; wire::SLOTS], stamps: Stamps::new() };
    machine.slots[wire::REPORT_SLOT as usize] = wire::REPORT_FD as u64;
    // SAFETY: `_start` has left it free, aligned, and nobody else knows of it.
    let room = unsafe { &mut *room };
    // When a plan ends without an exec, another plan follows, which brings the program's streams.
    let mut streams = 0;
    loop {
        match receive::load(room, machine.report_fd(), streams) {
            Ok(plan) => machine.run_plan(plan),
            Err(errno) => machine.fail(u32::MAX, errno),
        }
        streams = 3;
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    syscall::exit(125)
}
