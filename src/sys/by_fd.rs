//! Directories and files by descriptor. A name is looked up once, and never through a link; later
//! operations apply to the file that was found, even if its name then belongs to another file.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// The flags for a directory that is no link.
pub(crate) const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens a directory that the caller named. Links in the path are the caller's own, and are
/// followed.
pub(crate) fn open_named(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens the directory `name` in `dir` for reading. Fails with ENOTDIR or ELOOP if it is not a
/// directory.
pub(crate) fn open<P: ?Sized + NixPath>(dir: BorrowedFd<'_>, name: &P) -> nix::Result<OwnedFd> {
    openat(dir, name, OFlag::O_RDONLY | DIR, Mode::empty())
}

/// Returns a path that leads to the file behind an `O_PATH` descriptor, and to no other. The thread
/// may have a table of descriptors of its own, which `/proc/self` would not show (3.17).
pub(crate) fn path_of(fd: &impl AsFd) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens the very file that a descriptor stands for, with other flags.
pub(crate) fn reopen(fd: &impl AsFd, flags: OFlag) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path_of(fd).as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Returns up to `most` names of a directory.
pub(crate) fn names(dir: BorrowedFd<'_>, most: usize) -> nix::Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut reader = Dir::openat(dir, c".", flags, Mode::empty())?;
    let names = reader.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    names
        .filter(|name| name.as_ref().is_ok_and(|n| !matches!(n.as_bytes(), b"." | b"..")) || name.is_err())
        .take(most)
        .collect()
}
