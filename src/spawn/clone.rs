//! The clone: `clone3(2)` with shared memory, and the exec of the stub right after it.
//!
//! Stage: the child. Between the clone and the exec, the child shares the caller's memory while the
//! cloning thread stands still (CLONE_VFORK). So the child makes only raw system calls, with values
//! that were prepared before: no allocation, no lock, no libc.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use nix::errno::Errno;

use crate::stub::wire::{self, Record, record};
use crate::sys::raw;

/// The stack of the child, with a guard page below it.
#[derive(Debug)]
pub(super) struct Stack {
    base: NonNull<u8>,
}

const STACK_SIZE: usize = 64 << 10;
const GUARD_SIZE: usize = 4 << 10;

impl Stack {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that
        // exists.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), STACK_SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let stack = Stack { base: NonNull::new(base.cast()).ok_or(Errno::ENOMEM)? };
        // SAFETY: the lowest page of the mapping just made.
        Errno::result(unsafe { libc::mprotect(base, GUARD_SIZE, libc::PROT_NONE) })?;
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no child runs on it, since a clone returns after the
        // child's exec.
        unsafe { libc::munmap(self.base.as_ptr().cast(), STACK_SIZE) };
    }
}

/// The parameters of one clone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// The CLONE_NEW* flags.
    pub(super) namespaces: u64,
    /// The directory of the v2 group in which the child is born.
    pub(super) cgroup: Option<RawFd>,
    pub(super) stub: RawFd,
}

/// A cloned child, with its pid in the caller's pid namespace.
#[derive(Debug)]
pub(super) struct Cloned {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

#[repr(C)]
struct ChildArgs {
    stub: RawFd,
    raise_ambient: bool,
    argv: [*const libc::c_char; 2],
    envp: [*const libc::c_char; 1],
    empty: *const libc::c_char,
}

/// The kernel's struct clone_args, in its third version (5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// The size of the part that every kernel with clone3 knows (5.3).
const FIRST_SIZE: usize = 64;

/// The name of the stub, and of an init, in a process list.
const NAME: &CStr = c"ringfence-init";

/// Clones a child that executes the stub. The calling thread blocks all signals and has a
/// descriptor table of its own.
pub(super) fn clone(stack: &Stack, request: &Request) -> Result<Cloned, Errno> {
    const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let child = ChildArgs {
        stub: request.stub,
        // Only ambient capabilities of a new user namespace survive an exec by a user who has no
        // map.
        raise_ambient: request.namespaces & libc::CLONE_NEWUSER as u64 != 0,
        argv: [NAME.as_ptr(), std::ptr::null()],
        envp: [std::ptr::null()],
        empty: c"".as_ptr(),
    };
    let mut pidfd: RawFd = -1;
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | request.namespaces;
    let mut args = CloneArgs {
        flags: flags | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.base.as_ptr() as u64,
        stack_size: STACK_SIZE as u64,
        ..CloneArgs::default()
    };
    let mut size = FIRST_SIZE;
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup as u64;
        size = size_of::<CloneArgs>();
    }
    let numbers = [&raw const args as u64, size as u64, 0, 0, 0];
    // SAFETY: `args`, `child` and `stack` outlive the call: CLONE_VFORK holds this thread until the
    // child has executed the stub or ended, and only then are they used by nobody.
    let result = unsafe { clone_and_run(libc::SYS_clone3, numbers, &child) };
    let pid = match errno_of(result) {
        // clone3 came with 5.3. An outer seccomp filter cannot read its arguments, and refuses it
        // with one of these errnos.
        Err(Errno::ENOSYS | Errno::EPERM) if request.cgroup.is_none() => legacy(stack, flags, &raw mut pidfd, &child)?,
        other => other?,
    };
    if pidfd < 0 {
        // Before 5.2 clone(2) ignores CLONE_PIDFD.
        kill_and_reap(pid as i32);
        return Err(Errno::ENOSYS);
    }
    // SAFETY: CLONE_PIDFD made this descriptor, and nobody else knows it.
    Ok(Cloned { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Returns the error that a clone into these namespaces would fail with. The kernel does the whole
/// clone, but has no place for the pidfd, and undoes everything before the child runs.
pub(crate) fn dry_run(namespaces: u64) -> Result<(), Errno> {
    let failed = Stack::new().and_then(|stack| {
        let child = ChildArgs {
            stub: -1,
            raise_ambient: false,
            argv: [std::ptr::null(); 2],
            envp: [std::ptr::null()],
            empty: c"".as_ptr(),
        };
        let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | namespaces;
        // The last word of the address space, which belongs to the kernel.
        let nowhere = std::ptr::without_provenance_mut(usize::MAX & !7);
        legacy(&stack, flags, nowhere, &child)
    });
    match failed {
        Ok(pid) => {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid as i32), None);
            Ok(())
        }
        // EFAULT is the success. The other errnos mean that the table is full or that there are too
        // many processes, and say nothing about the namespaces.
        Err(Errno::EFAULT | Errno::EMFILE | Errno::ENFILE | Errno::EAGAIN | Errno::ENOMEM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Clones with clone(2): flags, stack, the place of the pidfd. The flags contain the exit signal.
fn legacy(stack: &Stack, flags: u64, pidfd: *mut RawFd, child: &ChildArgs) -> Result<i64, Errno> {
    let top = stack.base.as_ptr() as u64 + STACK_SIZE as u64;
    let numbers = [flags | libc::SIGCHLD as u64, top, pidfd as u64, 0, 0];
    // SAFETY: as in `clone`; the stack's top is aligned to a page.
    errno_of(unsafe { clone_and_run(libc::SYS_clone, numbers, child) })
}

/// Kills and reaps a child that has no pidfd.
fn kill_and_reap(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
    let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::__WALL));
}

fn errno_of(result: i64) -> Result<i64, Errno> {
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(result) }
}

/// Makes the call `number`. The child then runs [`child_main`] on its new stack, and never returns
/// from there.
///
/// # Safety
/// The call is clone or clone3 with CLONE_VM, CLONE_VFORK and a stack of the child's own, and
/// everything that its arguments and `child` point to lives until it returns.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_and_run(number: libc::c_long, args: [u64; 5], child: &ChildArgs) -> i64 {
    let result;
    // SAFETY: the parent's registers are preserved by the kernel but for rax, rcx and r11. The
    // child starts behind the syscall with the same registers and an empty stack, and leaves by a
    // call that does not return.
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
            inlateout("rax") number => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            in("r12") std::ptr::from_ref(child),
            in("r13") child_main as extern "C" fn(*const ChildArgs) -> !,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Makes the same call on aarch64.
///
/// # Safety
/// As for x86_64.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_and_run(number: libc::c_long, args: [u64; 5], child: &ChildArgs) -> i64 {
    let result;
    // SAFETY: the parent's registers are preserved by the kernel but for x0. The child starts
    // behind the svc with the same registers and an empty stack, and leaves by a call that does not
    // return.
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
            in("x8") number,
            inlateout("x0") args[0] => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4],
            in("x20") std::ptr::from_ref(child),
            in("x21") child_main as extern "C" fn(*const ChildArgs) -> !,
        );
    }
    result
}

/// Makes one raw system call in the child.
fn child_call(number: libc::c_long, args: [u64; 6]) -> i64 {
    // SAFETY: the child passes only values that `clone` prepared, or locals of its own stack.
    unsafe { raw::syscall(number as usize, args) }
}

/// Runs the child, from the clone to the exec.
extern "C" fn child_main(args: *const ChildArgs) -> ! {
    // SAFETY: `clone` keeps the arguments alive until this process has executed the stub or ended.
    let args = unsafe { &*args };
    if args.stub < 0 {
        // This is the child of a dry run, which should not have lived to this point.
        exit();
    }
    if args.raise_ambient {
        raise_ambient();
    }
    let argv = args.argv.as_ptr() as u64;
    let envp = args.envp.as_ptr() as u64;
    let flags = libc::AT_EMPTY_PATH as u64;
    let result = child_call(libc::SYS_execveat, [args.stub as u64, args.empty as u64, argv, envp, flags, 0]);
    let failure = Record {
        kind: record::FAILED_BEFORE_STUB,
        op: 0,
        errno: (result as i32).wrapping_neg(),
        value: wire::BEFORE_STUB_EXEC,
    };
    let size = size_of::<Record>() as u64;
    let report = wire::REPORT_FD as u64;
    child_call(libc::SYS_sendto, [report, &raw const failure as u64, size, libc::MSG_NOSIGNAL as u64, 0, 0]);
    exit()
}

fn exit() -> ! {
    loop {
        child_call(libc::SYS_exit_group, [127, 0, 0, 0, 0, 0]);
    }
}

/// Makes every permitted capability inheritable and ambient (4.3). The stub reverts this before the
/// program's exec.
fn raise_ambient() {
    const VERSION_3: u32 = 0x2008_0522;
    const LAST_POSSIBLE: u64 = 63;
    let header = [VERSION_3, 0];
    // Order: effective, permitted, inheritable; first the low 32 capabilities, then the high ones.
    let mut data = [0u32; 6];
    child_call(libc::SYS_capget, [header.as_ptr() as u64, data.as_mut_ptr() as u64, 0, 0, 0, 0]);
    let [_, low, _, _, high, _] = data;
    let data = [low, low, low, high, high, high];
    child_call(libc::SYS_capset, [header.as_ptr() as u64, data.as_ptr() as u64, 0, 0, 0, 0]);
    let mut capability = 0;
    while capability <= LAST_POSSIBLE {
        let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
        if child_call(libc::SYS_prctl, [libc::PR_CAP_AMBIENT as u64, raise, capability, 0, 0, 0]) < 0 {
            return;
        }
        capability += 1;
    }
}
