//! A file system that is mounted nowhere: fsopen(2), fsconfig(2), fsmount(2), since 5.2.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// A new file system, made by the calling thread.
#[derive(Debug)]
pub(crate) struct FileSystem {
    context: OwnedFd,
    mount: OwnedFd,
}

const FSCONFIG_SET_FLAG: u64 = 0;
const FSCONFIG_SET_STRING: u64 = 1;
const FSCONFIG_CMD_CREATE: u64 = 6;
const FSCONFIG_CMD_RECONFIGURE: u64 = 7;

/// Makes a system call. The two pointers are null, or strings with their NUL.
fn call(number: libc::c_long, first: u64, second: u64, strings: [Option<&CStr>; 2]) -> Result<i32, Errno> {
    let [key, value] = strings.map(|text| text.map_or(0, |text| text.as_ptr() as u64));
    // SAFETY: strings are borrowed across the call; those who call here give numbers for the rest.
    let result = unsafe { super::raw::syscall(number as usize, [first, second, key, value, 0, 0]) };
    if (-4095..0).contains(&result) { Err(Errno::from_raw(-result as i32)) } else { Ok(result as i32) }
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl FileSystem {
    /// Makes an empty tmpfs with these options. Needs CAP_SYS_ADMIN over the mount namespace.
    pub(crate) fn tmpfs(options: &[(&CStr, &CStr)]) -> Result<Self, Errno> {
        const CLOEXEC: u64 = 1;
        const NOSUID_NODEV: u64 = 2 | 4;
        let name = c"tmpfs".as_ptr() as u64;
        let context = own(call(libc::SYS_fsopen, name, CLOEXEC, [None; 2])?);
        let number = context.as_raw_fd() as u64;
        for (key, value) in options {
            call(libc::SYS_fsconfig, number, FSCONFIG_SET_STRING, [Some(key), Some(value)])?;
        }
        call(libc::SYS_fsconfig, number, FSCONFIG_CMD_CREATE, [None; 2])?;
        let attributes = NOSUID_NODEV;
        // SAFETY: no pointers.
        let mount = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, attributes) };
        Ok(FileSystem { context, mount: own(Errno::result(mount)? as i32) })
    }

    /// Returns the root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Makes the file system read-only for every mount of it.
    pub(crate) fn set_read_only(&self) -> Result<(), Errno> {
        let context = self.context.as_raw_fd() as u64;
        call(libc::SYS_fsconfig, context, FSCONFIG_SET_FLAG, [Some(c"ro"), None])?;
        call(libc::SYS_fsconfig, context, FSCONFIG_CMD_RECONFIGURE, [None; 2]).map(drop)
    }
}
