//! What the kernel offers of seccomp(2).

use nix::errno::Errno;

/// Whether filters may return this action (`SECCOMP_GET_ACTION_AVAIL`, 4.14). ENOSYS and EINVAL where there are no filters,
/// EOPNOTSUPP where there is no such action.
pub(crate) fn has_action(action: u32) -> Result<(), Errno> {
    const GET_ACTION_AVAIL: libc::c_uint = 2;
    let action = action & !libc::SECCOMP_RET_DATA;
    // SAFETY: the call reads one word, which lives across it.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) }).map(drop)
}
