//! A mark on a directory by which other processes know that this crate made it: xattr(7).

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Control groups take the first from who has CAP_SYS_ADMIN; on v2 any owner may set the second (5.7).
const NAMES: [&CStr; 2] = [c"trusted.ringfence", c"user.ringfence"];

/// Sets the mark, where the file system takes one.
pub(crate) fn mark(dir: &Path) {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return };
    for name in NAMES {
        // SAFETY: both strings end with a NUL and live across the call, and the value is one byte long.
        if unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), c"1".as_ptr().cast(), 1, 0) } == 0 {
            return;
        }
    }
}

/// Whether the mark is set.
pub(crate) fn is_marked(dir: &Path) -> bool {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    let is_set = |name: &CStr| {
        let mut value = [0u8; 1];
        // SAFETY: both strings end with a NUL and live across the call, as does the one byte that it may write.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), 1) == 1 && value == *b"1" }
    };
    NAMES.into_iter().any(is_set)
}
