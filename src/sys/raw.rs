//! The raw system call. This file is compiled into the crate and into the stub.

/// Makes a system call; a negative result down to -4095 is an errno. Changes neither `errno` nor
/// anything else of a libc, so that a process that shares its caller's memory may use this
/// function.
///
/// # Safety
/// Every pointer among `args` is valid for what the call does with it, and the call does nothing to
/// memory or descriptors that a safe part of the program relies on.
#[cfg(target_arch = "x86_64")]
pub unsafe fn syscall(number: usize, args: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the kernel preserves everything but rax, rcx and r11; what the call does to memory is
    // the caller's promise, and the asm block is a barrier for memory.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as i64 => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Makes a system call; a negative result down to -4095 is an errno. Changes neither `errno` nor
/// anything else of a libc, so that a process that shares its caller's memory may use this
/// function.
///
/// # Safety
/// Every pointer among `args` is valid for what the call does with it, and the call does nothing to
/// memory or descriptors that a safe part of the program relies on.
#[cfg(target_arch = "aarch64")]
pub unsafe fn syscall(number: usize, args: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the kernel preserves everything but x0; what the call does to memory is the caller's
    // promise, and the asm block is a barrier for memory.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5],
            options(nostack),
        );
    }
    result
}
