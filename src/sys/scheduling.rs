//! The scheduling of another process: sched_setattr(2).

use nix::errno::Errno;

/// The size of struct sched_attr in its first form, in bytes.
pub(crate) const SIZE: u32 = 48;

/// Sets the scheduling of the process `pid`: a struct sched_attr in its first form.
pub(crate) fn set(pid: i32, mut attr: [u64; 6]) -> Result<(), Errno> {
    let args = [pid as u64, attr.as_mut_ptr() as u64, 0, 0, 0, 0];
    // SAFETY: the kernel reads as many bytes as the struct says in its first word, 48, which live
    // across the call, and may write its own size there if it knows no such size.
    let result = unsafe { super::raw::syscall(libc::SYS_sched_setattr as usize, args) };
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(()) }
}
