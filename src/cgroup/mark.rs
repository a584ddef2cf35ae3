//! The mark of the sandbox that has a named group.
//!
//! A group that the caller names keeps its name and its inode from one sandbox to the next. The v2
//! directory has the name of the last sandbox that took it, as an attribute (5.7), so that a later
//! process which ends a sandbox by its record does not end the next one. A group without a v2
//! directory has no mark.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::controllers::Version;
use crate::sys::{by_fd, xattr};

/// Everybody who may write to a v2 directory can set and read it: root and those to whom a part of
/// the hierarchy was delegated see the same mark.
const NAME: &CStr = c"user.ringfence.sandbox";

fn open(dir: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    by_fd::reopen(&dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// Returns the name of the sandbox that took the directory last. An error is not the absence of a
/// mark.
pub(super) fn get(version: Version, dir: BorrowedFd<'_>) -> nix::Result<Option<Vec<u8>>> {
    if version == Version::V1 {
        return Ok(None);
    }
    match open(dir).and_then(|dir| xattr::get(dir.as_fd(), NAME)) {
        // The directory is gone.
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        other => other,
    }
}

/// Marks a directory for a sandbox: one that `is_new`, which nobody else may have marked, or one
/// that was there, from which an earlier mark goes. Fails only if another mark would stay.
pub(super) fn set(version: Version, dir: BorrowedFd<'_>, name: &str, is_new: bool) -> nix::Result<()> {
    if version == Version::V1 {
        return Ok(());
    }
    let dir = open(dir)?;
    let mark = if is_new { xattr::create } else { xattr::set };
    match mark(dir.as_fd(), NAME, name.as_bytes()) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(Errno::EBUSY),
        // Before 5.7 there is no such attribute, and no mark.
        Err(errno) => match xattr::get(dir.as_fd(), NAME)? {
            Some(_) => Err(errno),
            None => Ok(()),
        },
    }
}

/// Takes the mark of a sandbox away.
pub(super) fn remove(version: Version, dir: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    if get(version, dir)?.as_deref() == Some(name.as_bytes()) {
        xattr::remove(open(dir)?.as_fd(), NAME)?;
    }
    Ok(())
}
