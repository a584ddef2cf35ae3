//! The installation of a filter with a supervisor. A thread outside of the filter sends the
//! filter's listener, so that it does not matter which calls the filter refuses or asks about. The
//! stub itself makes no system call between the filter and the exec, which ends the thread.

use core::sync::atomic::{AtomicI32, Ordering};

use crate::Machine;
use crate::init::send_with_fd;
use crate::syscall::{Errno, exit, nr, syscall, trap};
use crate::wire::{Record, record};

/// The memory that both threads share.
struct Handover<'m> {
    machine: &'m Machine,
    /// True if the owner answers once it has done something with the listener.
    answered: bool,
    /// The descriptor of the listener, or one of the constants below.
    state: AtomicI32,
}

const WAITING: i32 = -1;
const NO_FILTER: i32 = -2;
/// The listener was sent, or there is none.
const DONE: i32 = -3;
const NOT_SENT: i32 = -4;

const STACK_SIZE: u64 = 16 << 10;
const PR_SET_TIMERSLACK: u64 = 29;
const NAP_NANOS: u64 = 20_000;

/// Installs the filter: seccomp(2) with `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub fn install(machine: &Machine, flags: u64, program: u64, answered: bool) -> Result<u64, Errno> {
    const SET_MODE_FILTER: u64 = 1;
    /// Since 5.19: after the supervisor has received the question of a program, only a fatal signal
    /// interrupts the program.
    const WAIT_KILLABLE_RECV: u64 = 1 << 5;
    let handover = Handover { machine, answered, state: AtomicI32::new(WAITING) };
    start_thread(&handover)?;
    let set = |flags| syscall(nr::SECCOMP, [SET_MODE_FILTER, flags, program, 0, 0, 0]);
    let result = match set(flags) {
        Err(Errno::INVAL) => set(flags & !WAIT_KILLABLE_RECV),
        other => other,
    };
    handover.state.store(result.map_or(NO_FILTER, |listener| listener as i32), Ordering::Release);
    // The thread reads `handover`, which is in this frame, until the state is one of these.
    loop {
        match handover.state.load(Ordering::Acquire) {
            DONE => return result,
            // The owner is gone, and no system call is safe any more.
            NOT_SENT => trap(),
            _ => core::hint::spin_loop(),
        }
    }
}

fn start_thread(handover: &Handover<'_>) -> Result<u64, Errno> {
    const PROT_READ_WRITE: u64 = 3;
    const MAP_PRIVATE_ANONYMOUS: u64 = 0x2 | 0x20;
    // The flags that clone a thread: CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
    const FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
    let stack = syscall(nr::MMAP, [0, STACK_SIZE, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, u64::MAX, 0])?;
    // SAFETY: the stack has just been mapped and is used by nothing else; `handover` lives until
    // this process has gone on to its exec or its end, either of which ends the thread.
    let result = unsafe { clone_thread(FLAGS, stack + STACK_SIZE, core::ptr::from_ref(handover).cast()) };
    if result < 0 { Err(Errno(-result as i32)) } else { Ok(0) }
}

/// Runs the thread that sends the listener.
extern "C" fn hand_over(handover: *const Handover<'static>) -> ! {
    // SAFETY: `start_thread` gave the place of a value that outlives this thread.
    let handover = unsafe { &*handover };
    // The stub cannot wake this thread, and spins until this thread has answered. The kernel gives
    // the processor to a thread that sleeps sooner than to one that yields.
    let nap = [0u64, NAP_NANOS];
    let _ = syscall(nr::PRCTL, [PR_SET_TIMERSLACK, 1, 0, 0, 0, 0]);
    let mut state = handover.state.load(Ordering::Acquire);
    while state == WAITING {
        let _ = syscall(nr::PPOLL, [0, 0, nap.as_ptr() as u64, 0, 0, 0]);
        state = handover.state.load(Ordering::Acquire);
    }
    let record = Record { kind: record::LISTENER, op: 0, errno: 0, value: 0 };
    let sent = || send_with_fd(handover.machine, record, state).is_ok();
    let done = state == NO_FILTER || sent() && (!handover.answered || handover.machine.is_answered());
    handover.state.store(if done { DONE } else { NOT_SENT }, Ordering::Release);
    // exit(2) ends only this thread.
    let _ = syscall(nr::EXIT, [0; 6]);
    exit(127)
}

/// Clones a thread with clone(2). The thread runs [`hand_over`] on its own stack.
///
/// # Safety
/// `top` is the end of a stack of the thread's own, and `argument` a `Handover` that outlives it.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_thread(flags: u64, top: u64, argument: *const Handover<'static>) -> i64 {
    let result;
    // SAFETY: the parent's registers are preserved by the kernel but for rax, rcx and r11. The
    // thread starts behind the syscall with the same registers and an empty stack, and leaves by a
    // call that does not return.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") nr::CLONE as i64 => result,
            in("rdi") flags, in("rsi") top, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r12") argument,
            in("r13") hand_over as extern "C" fn(*const Handover<'static>) -> !,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Clones the thread on aarch64.
///
/// # Safety
/// As for x86_64.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_thread(flags: u64, top: u64, argument: *const Handover<'static>) -> i64 {
    let result;
    // SAFETY: the parent's registers are preserved by the kernel but for x0. The thread starts
    // behind the svc with the same registers and an empty stack, and leaves by a call that does not
    // return.
    unsafe {
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") nr::CLONE,
            inlateout("x0") flags => result,
            in("x1") top, in("x2") 0, in("x3") 0, in("x4") 0,
            in("x20") argument,
            in("x21") hand_over as extern "C" fn(*const Handover<'static>) -> !,
        );
    }
    result
}
