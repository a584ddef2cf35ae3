//! The mark of the sandbox that has a named group.
//!
//! A group that the caller names keeps its name and its inode from one sandbox to the next. The v2
//! directory has the name of the last sandbox that took it, as an attribute (5.7), so that a later
//! process which ends a sandbox by its record does not end the next one. A group without a v2
//! directory has no mark.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::controllers::Version;
use crate::sys::{by_fd, xattr};

/// The mark that the host's root sets. A program inside that may write to its group cannot change
/// it, unless it has CAP_SYS_ADMIN on the host.
const OF_ROOT: &CStr = c"trusted.ringfence.sandbox";
/// The mark of an ordinary user, to whom a part of the hierarchy was delegated.
const OF_USER: &CStr = c"user.ringfence.sandbox";

fn open(dir: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    by_fd::reopen_dir(&dir)
}

/// Returns the name of the sandbox that took the directory last. An error is not the absence of a
/// mark.
pub(super) fn get(version: Version, dir: BorrowedFd<'_>) -> nix::Result<Option<Vec<u8>>> {
    if version == Version::V1 {
        return Ok(None);
    }
    match open(dir).and_then(|dir| of(dir.as_fd())) {
        // The directory is gone.
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        other => other,
    }
}

/// Returns the mark of a directory that is open: that of root, if there is one.
fn of(dir: BorrowedFd<'_>) -> nix::Result<Option<Vec<u8>>> {
    match xattr::get(dir, OF_ROOT) {
        Ok(Some(mark)) => Ok(Some(mark)),
        Ok(None) | Err(Errno::EPERM | Errno::EOPNOTSUPP) => xattr::get(dir, OF_USER),
        Err(errno) => Err(errno),
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
    let marked = match mark(dir.as_fd(), OF_ROOT, name.as_bytes()) {
        Err(Errno::EPERM | Errno::EOPNOTSUPP) => mark(dir.as_fd(), OF_USER, name.as_bytes()),
        other => other,
    };
    match marked {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(Errno::EBUSY),
        // Before 5.7 there is no such attribute, and no mark.
        Err(errno) => match of(dir.as_fd())? {
            Some(_) => Err(errno),
            None => Ok(()),
        },
    }
}

/// Takes the mark of a sandbox away.
pub(super) fn remove(version: Version, dir: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    if version == Version::V1 {
        return Ok(());
    }
    let dir = open(dir)?;
    for attribute in [OF_ROOT, OF_USER] {
        let is_its = |mark: Option<Vec<u8>>| mark.as_deref() == Some(name.as_bytes());
        if xattr::get(dir.as_fd(), attribute).is_ok_and(is_its) {
            xattr::remove(dir.as_fd(), attribute)?;
        }
    }
    Ok(())
}
