//! Extended attributes: a mark on a directory by which other processes know that this crate made it. xattr(7).

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Control groups take `trusted` marks from root; on v2 any owner may set a `user` one (5.7).
fn name() -> &'static CStr {
    if nix::unistd::geteuid().is_root() { c"trusted.ringfence" } else { c"user.ringfence" }
}

/// Sets the mark, where the file system takes one.
pub(crate) fn mark(dir: &Path) {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return };
    // SAFETY: both strings end with a NUL and live across the call, and the value is one byte long.
    unsafe { libc::lsetxattr(path.as_ptr(), name().as_ptr(), c"1".as_ptr().cast(), 1, 0) };
}

/// Whether the mark is set.
pub(crate) fn is_marked(dir: &Path) -> bool {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    let mut value = [0u8; 1];
    // SAFETY: both strings end with a NUL and live across the call, as does the one byte that it may write.
    unsafe { libc::lgetxattr(path.as_ptr(), name().as_ptr(), value.as_mut_ptr().cast(), 1) == 1 && value == *b"1" }
}

/// Whether a file, or what a symbolic link leads to, has the attribute.
pub(crate) fn is_there(file: &Path, name: &CStr) -> bool {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else { return false };
    // SAFETY: both strings end with a NUL and live across the call, which is told of no room and writes nothing.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}
