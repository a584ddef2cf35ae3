//! Directories by file descriptor. A name is looked up once, and never through a link; later
//! operations apply to the directory found, even if its name then belongs to another file.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::Uid;

use crate::sys::by_fd::{DIR, chmod};
pub(super) use crate::sys::by_fd::{names, open, open_named};

/// The device and the inode of a directory, which identify it while it exists.
pub(super) type Id = (u64, u64);

/// Opens a directory like [`open`], after giving its owner all permissions, which overlayfs and
/// programs often remove.
pub(super) fn open_own(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let opened = match open(dir, name) {
        Err(Errno::EACCES) => {
            let found = openat(dir, name, OFlag::O_PATH | DIR, Mode::empty())?;
            chmod(&found, Mode::S_IRWXU)?;
            open(found.as_fd(), c".")?
        }
        other => other?,
    };
    if !Mode::from_bits_truncate(fstat(&opened)?.st_mode).contains(Mode::S_IRWXU) {
        fchmod(&opened, Mode::S_IRWXU)?;
    }
    Ok(opened)
}

/// Creates a directory with exactly this mode, without regard to the caller's umask.
pub(super) fn make(dir: BorrowedFd<'_>, name: &CStr, mode: Mode) -> nix::Result<OwnedFd> {
    mkdirat(dir, name, mode)?;
    let made = open_own(dir, name)?;
    // A process that may rename entries in `dir` could have replaced the directory.
    if !is_private(&fstat(&made)?, mode) {
        return Err(Errno::EPERM);
    }
    fchmod(&made, mode)?;
    Ok(made)
}

/// Returns true if the caller owns the file, and others have at most the permissions in `mode`.
pub(super) fn is_private(stat: &FileStat, mode: Mode) -> bool {
    let others = stat.st_mode & 0o077 & !mode.bits();
    stat.st_uid == Uid::effective().as_raw() && others == 0
}

pub(super) fn id_of(stat: &FileStat) -> Id {
    (stat.st_dev, stat.st_ino)
}
