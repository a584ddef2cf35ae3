//! Project quotas: quotactl_fd(2), ioctl_xfs_fsgetxattr(2), which ext4 and others have as well.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Commands of quotactl(2) for the quotas of projects.
const GET_STATE: libc::c_uint = command(0x5805);
const GET_QUOTA: libc::c_uint = command(0x80_0007);
const SET_QUOTA: libc::c_uint = command(0x80_0008);
/// `FS_QUOTA_PDQ_ENFD`: limits of projects are enforced.
const PROJECTS_ENFORCED: u16 = 1 << 5;
/// `QIF_BLIMITS`, `QIF_ILIMITS`.
const LIMITS: u32 = 1 | 4;
/// The unit of the limits on space, in bytes.
const BLOCK: u64 = 1024;
/// `FS_XFLAG_PROJINHERIT`: what is made in the directory belongs to the same project.
const INHERITED: u32 = 0x200;

/// The first of the projects that this library gives to directories.
pub(crate) const FIRST_OWN: u32 = 1 << 30;

const fn command(number: libc::c_uint) -> libc::c_uint {
    const PROJECT: libc::c_uint = 2;
    (number << 8) | PROJECT
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct FsXattr {
    flags: u32,
    extent: u32,
    extents: u32,
    project: u32,
    cow_extent: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Quota {
    blocks_hard: u64,
    blocks_soft: u64,
    space: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// `struct fs_quota_stat`, and room for more than it has.
#[repr(C, align(8))]
struct State {
    version: i8,
    flags: u16,
    rest: [u8; 124],
}

mod ioctls {
    use super::FsXattr;

    nix::ioctl_read!(get, b'X', 31, FsXattr);
    nix::ioctl_write_ptr!(set, b'X', 32, FsXattr);
}

/// The project of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Project {
    /// 0 for none.
    pub(crate) id: u32,
    /// What is made in the directory belongs to the project as well.
    pub(crate) inherited: bool,
}

/// Returns the project of an open directory.
pub(crate) fn project_of(dir: BorrowedFd<'_>) -> nix::Result<Project> {
    let attributes = attributes(dir)?;
    Ok(Project { id: attributes.project, inherited: attributes.flags & INHERITED != 0 })
}

/// Gives an open directory, and with `inherited` what is made in it from now on, to a project.
pub(crate) fn set_project(dir: BorrowedFd<'_>, Project { id, inherited }: Project) -> nix::Result<()> {
    let mut attributes = attributes(dir)?;
    attributes.project = id;
    attributes.flags = attributes.flags & !INHERITED | if inherited { INHERITED } else { 0 };
    // SAFETY: the descriptor is open, and the kernel reads a struct that lives across the call.
    unsafe { ioctls::set(dir.as_raw_fd(), &raw const attributes) }.map(drop)
}

fn attributes(dir: BorrowedFd<'_>) -> nix::Result<FsXattr> {
    let mut attributes = FsXattr::default();
    // SAFETY: the descriptor is open, and the kernel writes a struct that lives across the call.
    unsafe { ioctls::get(dir.as_raw_fd(), &raw mut attributes) }?;
    Ok(attributes)
}

/// Returns whether the file system enforces limits of projects.
pub(crate) fn enforces_projects(dir: BorrowedFd<'_>) -> nix::Result<bool> {
    let mut state = State { version: 0, flags: 0, rest: [0; 124] };
    match call(dir, GET_STATE, 0, &mut state) {
        Ok(()) => Ok(state.flags & PROJECTS_ENFORCED != 0),
        // There are no quotas of any kind.
        Err(Errno::ENOSYS | Errno::ESRCH | Errno::EOPNOTSUPP) if is_there() => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Returns whether the kernel has quotactl_fd(2), which a file system without quotas answers in the
/// same way.
fn is_there() -> bool {
    // SAFETY: there is no such descriptor, and so nothing else is looked at.
    let result = unsafe { libc::syscall(libc::SYS_quotactl_fd, -1, 0, 0, std::ptr::null::<Quota>()) };
    Errno::result(result) == Err(Errno::EBADF)
}

/// Returns whether anything on the file system belongs to a project.
pub(crate) fn is_used(dir: BorrowedFd<'_>, id: u32) -> nix::Result<bool> {
    let mut quota = Quota::default();
    match call(dir, GET_QUOTA, id, &mut quota) {
        Ok(()) => Ok(quota.space != 0 || quota.inodes != 0),
        // XFS has no record of a project that nothing belongs to.
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Limits what belongs to a project, in bytes, rounded up to a KiB, and in inodes; 0 is no limit.
pub(crate) fn limit(dir: BorrowedFd<'_>, id: u32, bytes: u64, inodes: u64) -> nix::Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut quota = Quota {
        blocks_hard: blocks,
        blocks_soft: blocks,
        inodes_hard: inodes,
        inodes_soft: inodes,
        valid: LIMITS,
        ..Quota::default()
    };
    call(dir, SET_QUOTA, id, &mut quota)
}

/// Lifts the limits of the project that a directory was given by this library, if it was. `dir` is any
/// file of the file system.
pub(crate) fn forget(dir: BorrowedFd<'_>, project: Project) {
    if project.inherited && project.id >= FIRST_OWN {
        // A limit on nothing is all that stays else.
        let _ = limit(dir, project.id, 0, 0);
    }
}

fn call<T>(dir: BorrowedFd<'_>, command: libc::c_uint, id: u32, value: &mut T) -> nix::Result<()> {
    debug_assert!(mem::size_of::<T>() >= mem::size_of::<Quota>());
    // SAFETY: the descriptor is open, and the kernel reads or writes no more than the struct of the
    // command, which `value` is or has room for, and which lives across the call.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, dir.as_raw_fd(), command, id, std::ptr::from_mut(value)) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_structs_are_the_kernels() {
        assert_eq!([mem::size_of::<FsXattr>(), mem::size_of::<Quota>()], [28, 72]);
        assert_eq!(mem::offset_of!(State, flags), 2);
    }

    #[test]
    fn a_file_system_without_quotas_says_so() {
        let proc = File::open("/proc/self").unwrap();
        assert_eq!(enforces_projects(proc.as_fd()), Ok(false));
    }
}
