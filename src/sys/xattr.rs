//! Extended attributes, xattr(7): a mark on a directory that shows other processes that this crate
//! made it, and the attributes of files that are unpacked.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// Returns the name of the mark. Control groups accept `trusted` attributes from root; on v2, any
/// owner may set a `user` attribute (5.7).
fn name() -> &'static CStr {
    if nix::unistd::geteuid().is_root() { c"trusted.ringfence" } else { c"user.ringfence" }
}

/// Sets the mark, if the file system supports it.
pub(crate) fn mark(dir: &Path) {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return };
    // SAFETY: both strings end with a NUL and live across the call, and the value is one byte long.
    unsafe { libc::lsetxattr(path.as_ptr(), name().as_ptr(), c"1".as_ptr().cast(), 1, 0) };
}

/// Returns true if the mark is set.
pub(crate) fn is_marked(dir: &Path) -> bool {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    let mut value = [0u8; 1];
    // SAFETY: both strings end with a NUL and live across the call, as does the one byte that it
    // may write.
    unsafe { libc::lgetxattr(path.as_ptr(), name().as_ptr(), value.as_mut_ptr().cast(), 1) == 1 && value == *b"1" }
}

/// Returns true if a file, or the target of a symbolic link, has the attribute.
pub(crate) fn is_there(file: &Path, name: &CStr) -> bool {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else { return false };
    // SAFETY: both strings end with a NUL and live across the call, which is told of no room and
    // writes nothing.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

/// Sets an attribute with `fsetxattr(2)`.
pub(crate) fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    set_with(file, name, value, 0)
}

/// Sets an attribute that is not there. Fails with EEXIST if it is.
pub(crate) fn create(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    set_with(file, name, value, libc::XATTR_CREATE)
}

fn set_with(file: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: i32) -> nix::Result<()> {
    // SAFETY: the name ends with a NUL, the value has the length that is told, and both live across
    // the call.
    let result = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    Errno::result(result).map(drop)
}

/// Removes an attribute with `fremovexattr(2)`.
pub(crate) fn remove(file: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    // SAFETY: the name ends with a NUL and lives across the call.
    let result = unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Sets an attribute of a file that cannot be opened, such as a device or a symbolic link, and is
/// held by an `O_PATH` descriptor. Needs /proc.
#[cfg(feature = "image")]
pub(crate) fn set_by_path(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    // SAFETY: path and name end with a NUL, the value has the length that is told, and all live
    // across the call.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// Returns the value of an attribute, if the file has one: `fgetxattr(2)`.
pub(crate) fn get(file: BorrowedFd<'_>, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    sized(|buffer| {
        // SAFETY: the name ends with a NUL, and the kernel writes at most as many bytes as the
        // buffer has.
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// Returns the names of the attributes: `flistxattr(2)`.
pub(crate) fn list(file: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let names = sized(|buffer| {
        // SAFETY: the kernel writes at most as many bytes as the buffer has.
        unsafe { libc::flistxattr(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })?;
    let names = names.unwrap_or_default();
    Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).filter_map(|n| CString::new(n).ok()).collect())
}

/// Calls `ask` with a buffer of up to the largest size that the kernel ever fills, XATTR_SIZE_MAX.
/// Returns `None` if the file has no such attribute, or cannot have one.
fn sized(ask: impl Fn(&mut [u8]) -> isize) -> nix::Result<Option<Vec<u8>>> {
    let mut small = [0u8; 256];
    let answer = match Errno::result(ask(&mut small)) {
        Ok(length) => return Ok(small.get(..length as usize).map(<[u8]>::to_vec)),
        Err(Errno::ERANGE) => {
            let mut large = vec![0; 64 << 10];
            Errno::result(ask(&mut large)).map(|length| {
                large.truncate(length as usize);
                large
            })
        }
        Err(errno) => Err(errno),
    };
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
