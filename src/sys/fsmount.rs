//! A file system that is mounted nowhere: fsopen(2), fsconfig(2), fsmount(2), since 5.2.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::table;

/// A new file system, made by the calling thread.
#[derive(Debug)]
pub(crate) struct FileSystem {
    context: OwnedFd,
    mount: OwnedFd,
}

const CLOEXEC: u64 = 1;
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

/// Owns a descriptor that was just made, with a number above stderr: a mount may be kept for long.
fn own(fd: i32) -> Result<OwnedFd, Errno> {
    table::above_stdio(table::own(fd))
}

impl FileSystem {
    /// Makes an empty tmpfs with these options. Needs CAP_SYS_ADMIN over the mount namespace.
    pub(crate) fn tmpfs(options: &[(&CStr, &CStr)]) -> Result<Self, Errno> {
        const NOSUID_NODEV: u64 = 2 | 4;
        let options = options.iter().map(|(key, value)| (*key, Some(*value)));
        FileSystem::new(c"tmpfs", options, NOSUID_NODEV)
    }

    /// Finds out whether the caller may mount control groups: cgroup2, or the v1 hierarchy with
    /// these options of mount(8). The mount is nowhere, and goes at once.
    pub(crate) fn try_cgroups(v1: Option<&str>) -> Result<(), Errno> {
        const RDONLY_NOSUID_NODEV_NOEXEC: u64 = 1 | 2 | 4 | 8;
        let fstype = if v1.is_some() { c"cgroup" } else { c"cgroup2" };
        let text = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
        let mut options = Vec::new();
        for word in v1.iter().flat_map(|words| words.split(',')) {
            options.push(match word.split_once('=') {
                Some((key, value)) => (text(key)?, Some(text(value)?)),
                None => (text(word)?, None),
            });
        }
        let options = options.iter().map(|(key, value)| (key.as_c_str(), value.as_deref()));
        FileSystem::new(fstype, options, RDONLY_NOSUID_NODEV_NOEXEC).map(drop)
    }

    /// Makes a file system with these options, some of which have a value, and a mount of it with
    /// these attributes.
    fn new<'o>(
        fstype: &CStr,
        options: impl IntoIterator<Item = (&'o CStr, Option<&'o CStr>)>,
        attributes: u64,
    ) -> Result<Self, Errno> {
        let context = own(call(libc::SYS_fsopen, fstype.as_ptr() as u64, CLOEXEC, [None; 2])?)?;
        let number = context.as_raw_fd() as u64;
        for (key, value) in options {
            let command = if value.is_some() { FSCONFIG_SET_STRING } else { FSCONFIG_SET_FLAG };
            call(libc::SYS_fsconfig, number, command, [Some(key), value])?;
        }
        call(libc::SYS_fsconfig, number, FSCONFIG_CMD_CREATE, [None; 2])?;
        // SAFETY: no pointers.
        let mount = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, attributes) };
        Ok(FileSystem { context, mount: own(Errno::result(mount)? as i32)? })
    }

    /// Returns the root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Returns the mount, which is nowhere.
    pub(crate) fn into_mount(self) -> OwnedFd {
        self.mount
    }

    /// Makes the file system read-only for every mount of it.
    pub(crate) fn set_read_only(&self) -> Result<(), Errno> {
        let context = self.context.as_raw_fd() as u64;
        call(libc::SYS_fsconfig, context, FSCONFIG_SET_FLAG, [Some(c"ro"), None])?;
        call(libc::SYS_fsconfig, context, FSCONFIG_CMD_RECONFIGURE, [None; 2]).map(drop)
    }
}
