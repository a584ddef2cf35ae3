//! Directories by descriptor: a name is looked up once, never through a link, and what was found is then changed, whatever
//! has taken its name since.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmod, fchmodat, fstat, mkdirat};
use nix::unistd::Uid;

/// What a directory is known by as long as it is there.
pub(super) type Id = (u64, u64);

const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A directory that the caller named; links on the way there are the caller's own.
pub(super) fn open_named(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens `name` in `dir` for reading, if it is a directory: ENOTDIR or ELOOP otherwise.
pub(super) fn open<P: ?Sized + NixPath>(dir: BorrowedFd<'_>, name: &P) -> nix::Result<OwnedFd> {
    openat(dir, name, OFlag::O_RDONLY | DIR, Mode::empty())
}

/// The same, and gives its owner all rights on it, which overlayfs and programs like to take away.
pub(super) fn open_own(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let opened = match open(dir, name) {
        Err(Errno::EACCES) => {
            let found = openat(dir, name, OFlag::O_PATH | DIR, Mode::empty())?;
            // chmod(2) takes no O_PATH descriptor (fchmodat2(2) does since 6.6), but its name in /proc, which is no link that
            // anybody could exchange.
            let name = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
            fchmodat(AT_FDCWD, name.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            open(found.as_fd(), c".")?
        }
        other => other?,
    };
    if !Mode::from_bits_truncate(fstat(&opened)?.st_mode).contains(Mode::S_IRWXU) {
        fchmod(&opened, Mode::S_IRWXU)?;
    }
    Ok(opened)
}

/// Makes a directory with exactly this mode: the caller's umask is not the sandbox's.
pub(super) fn make(dir: BorrowedFd<'_>, name: &CStr, mode: Mode) -> nix::Result<OwnedFd> {
    mkdirat(dir, name, mode)?;
    let made = open_own(dir, name)?;
    // Whoever may rename in `dir` could have put something else there.
    if !is_private(&fstat(&made)?, mode) {
        return Err(Errno::EPERM);
    }
    fchmod(&made, mode)?;
    Ok(made)
}

/// Whether the caller owns it, and others have no more rights on it than `mode` gives them.
pub(super) fn is_private(stat: &FileStat, mode: Mode) -> bool {
    let others = stat.st_mode & 0o077 & !mode.bits();
    stat.st_uid == Uid::effective().as_raw() && others == 0
}

pub(super) fn id_of(stat: &FileStat) -> Id {
    (stat.st_dev, stat.st_ino)
}

/// Up to `most` names in a directory.
pub(super) fn names(dir: BorrowedFd<'_>, most: usize) -> nix::Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut reader = Dir::openat(dir, c".", flags, Mode::empty())?;
    let names = reader.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    names
        .filter(|name| name.as_ref().is_ok_and(|n| !matches!(n.as_bytes(), b"." | b"..")) || name.is_err())
        .take(most)
        .collect()
}
