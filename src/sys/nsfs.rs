//! The files of namespaces: ioctl_ns(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::statfs::{FsType, fstatfs};

/// The magic number of the file system that the files are on.
const NSFS: FsType = FsType(0x6e73_6673);

/// Returns whether a descriptor is a file of a namespace. `O_PATH` will do.
pub(crate) fn is_namespace(fd: BorrowedFd<'_>) -> bool {
    fstatfs(fd.as_fd()).is_ok_and(|fs| fs.filesystem_type() == NSFS)
}

/// Returns the kind of the namespace behind a file, as the flag of clone(2): `NS_GET_NSTYPE`, since
/// 4.11. Any other descriptor is EINVAL, and ENOTTY is an older kernel's.
pub(crate) fn kind_of(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    if !is_namespace(fd) {
        return Err(Errno::EINVAL);
    }
    // The type of the request differs between C libraries.
    let request = nix::request_code_none!(0xb7, 0x3) as _;
    // SAFETY: this request takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request) }).map(|kind| kind as u64)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_a_file_of_a_namespace_has_a_kind() {
        let kind = |path: &str| kind_of(File::open(path).unwrap().as_fd());
        assert_eq!(kind("/proc/self/ns/net"), Ok(libc::CLONE_NEWNET as u64));
        assert_eq!(kind("/proc/self/ns/user"), Ok(libc::CLONE_NEWUSER as u64));
        for other in ["/dev/null", "/proc/self/status", "/"] {
            assert_eq!(kind(other), Err(Errno::EINVAL), "{other}");
        }
    }
}
