//! The two halves of a run in raw system calls: the child, which runs its steps in the caller's
//! memory, and the calls of the caller around it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::raw::syscall;

/// One system call of the child.
#[derive(Debug)]
pub struct Step {
    pub name: &'static str,
    pub number: libc::c_long,
    pub args: [u64; 6],
    /// The argument whose value is the descriptor kept last.
    pub takes_kept: Option<usize>,
    /// True if the result is a descriptor for later steps.
    pub keeps: bool,
    /// The errno that is no failure, or 0.
    pub tolerates: i32,
}

/// The data that the child of one run reads and writes. They are in the memory of the caller, which
/// stands still meanwhile.
#[derive(Debug)]
pub struct Run {
    pub steps: *const Step,
    pub count: usize,
    pub procs: *const RawFd,
    pub proc_count: usize,
    /// The step that failed, and its errno.
    pub failed: Option<(usize, i32)>,
    /// The times at which the child began, entered its group, and finished each step. Null if no
    /// times are wanted.
    pub times: *mut libc::timespec,
    /// The program of which this child becomes the init after its steps. Null if the steps end with
    /// the program.
    pub init: *mut Init,
}

/// The program below an init: the arguments of its clone, and its steps.
#[derive(Debug)]
pub struct Init {
    pub clone: [u64; 11],
    pub run: Run,
    /// The time at which the program was executed, if times are wanted.
    pub executed: libc::timespec,
}

/// Waits with waitid(2) by pidfd, 5.4.
pub fn wait(pidfd: &OwnedFd) -> io::Result<()> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let id = pidfd.as_raw_fd() as libc::id_t;
    // SAFETY: `info` is of the type that the call writes, and lives across it.
    if unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), libc::WEXITED) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed bytes are a valid siginfo_t, and waitid has filled in the members of a child's
    // end.
    let (code, status) = unsafe {
        let info = info.assume_init();
        (info.si_code, info.si_status())
    };
    if (code, status) == (libc::CLD_EXITED, 0) {
        return Ok(());
    }
    Err(io::Error::other(format!("the program ended with code {code}, status {status}")))
}

/// Runs the child: one step after the other. The last step does not return.
extern "C" fn child_main(run: *mut Run) -> ! {
    // SAFETY: the caller of `clone3_and_run` keeps the run, and what it points to, until this
    // process has executed the program or ended; the cloning thread stands still, and nobody else
    // knows of it.
    let run = unsafe { &mut *run };
    note(run, 0);
    for i in 0..run.proc_count {
        // SAFETY: `i` is below the number of descriptors that the run has; the string is static.
        let result =
            unsafe { syscall(libc::SYS_write as usize, [*run.procs.add(i) as u64, c"0".as_ptr() as u64, 1, 0, 0, 0]) };
        if result < 0 {
            run.failed = Some((usize::MAX, -result as i32));
            exit(FAILED);
        }
    }
    note(run, 1);
    let mut kept = 0;
    for i in 0..run.count {
        // SAFETY: `i` is below the number of steps that the run has.
        let step = unsafe { &*run.steps.add(i) };
        let mut args = step.args;
        if let Some(place) = step.takes_kept {
            args[place % 6] = kept;
        }
        // SAFETY: the draft wrote the arguments as the call takes them, and the floor keeps what
        // they point to.
        let result = unsafe { syscall(step.number as usize, args) };
        if result < 0 && result != -i64::from(step.tolerates) {
            run.failed = Some((i, -result as i32));
            exit(FAILED);
        }
        if step.keeps {
            kept = result as u64;
        }
        note(run, i + 2);
    }
    // SAFETY: the caller keeps the init as long as the run.
    match unsafe { run.init.as_mut() } {
        Some(init) => be_init(init, !run.times.is_null()),
        None => exit(FAILED),
    }
}

/// Starts the program, closes all descriptors, reaps what ends, and ends with the program.
fn be_init(init: &mut Init, timed: bool) -> ! {
    // SAFETY: the arguments have CLONE_VM, CLONE_VFORK and a stack of the program's own, and the
    // caller keeps all of it until this process has ended.
    let program = unsafe { clone3_and_run(&init.clone, &mut init.run) };
    if program < 0 {
        init.run.failed = Some((usize::MAX, -program as i32));
        exit(FAILED);
    }
    if timed {
        // SAFETY: `executed` is of the type that the call writes.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut init.executed) };
    }
    let (mut status, any) = (0_i32, -1_i64 as u64);
    // SAFETY: the table of descriptors is this process's own; the status is a local.
    unsafe { syscall(libc::SYS_close_range as usize, [0, u64::from(u32::MAX), 0, 0, 0, 0]) };
    loop {
        // SAFETY: as above.
        let ended =
            unsafe { syscall(libc::SYS_wait4 as usize, [any, &raw mut status as u64, libc::__WALL as u64, 0, 0, 0]) };
        if ended == program {
            let signal = status & 0x7f;
            exit(if signal == 0 { status >> 8 & 0xff } else { 128 + signal } as u64);
        }
    }
}

/// The status of a child whose steps have failed.
const FAILED: u64 = 127;

fn exit(status: u64) -> ! {
    loop {
        // SAFETY: no pointers.
        unsafe { syscall(libc::SYS_exit_group as usize, [status, 0, 0, 0, 0, 0]) };
    }
}

fn note(run: &Run, index: usize) {
    if !run.times.is_null() {
        // SAFETY: the caller made room for one time more than there are steps. clock_gettime(2) is
        // in the vDSO, and takes neither a lock nor memory.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, run.times.add(index)) };
    }
}

pub fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a local of the type that the call writes.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    duration(&time)
}

pub fn duration(time: &libc::timespec) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Clones; the child runs [`child_main`] and never returns from it.
///
/// # Safety
/// The flags in `args` hold CLONE_VM and a stack of the child's own. Everything that `args` and
/// `run` point to lives until this returns, with CLONE_VFORK, or else until the child has ended.
#[cfg(target_arch = "x86_64")]
pub unsafe fn clone3_and_run(args: &[u64; 11], run: &mut Run) -> i64 {
    let result;
    // SAFETY: the kernel preserves the caller's registers but for rax, rcx and r11. The child
    // starts behind the syscall with the same registers and an empty stack, and leaves by a call
    // that does not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args.as_ptr(),
            in("rsi") size_of_val(args),
            in("r12") std::ptr::from_mut(run),
            in("r13") child_main as extern "C" fn(*mut Run) -> !,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Clones on aarch64.
///
/// # Safety
/// As for x86_64.
#[cfg(target_arch = "aarch64")]
pub unsafe fn clone3_and_run(args: &[u64; 11], run: &mut Run) -> i64 {
    let result;
    // SAFETY: the kernel preserves the caller's registers but for x0. The child starts behind the
    // svc with the same registers and an empty stack, and leaves by a call that does not return.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args.as_ptr() => result,
            in("x1") size_of_val(args),
            in("x20") std::ptr::from_mut(run),
            in("x21") child_main as extern "C" fn(*mut Run) -> !,
        );
    }
    result
}
