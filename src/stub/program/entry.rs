//! The first instructions, which leave room for a plan on the stack. A function with such a large
//! frame would touch each of its pages, and most plans fill only three.

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "sub rsp, {room}",
    "mov rdi, rsp",
    "call {main}",
    "ud2",
    main = sym crate::stub_main,
    room = const core::mem::size_of::<crate::Room>(),
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "sub sp, sp, {room}",
    "mov x0, sp",
    "bl {main}",
    "brk #1",
    main = sym crate::stub_main,
    room = const core::mem::size_of::<crate::Room>(),
);
