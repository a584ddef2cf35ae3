//! Reads and writes files of a mounted hierarchy, and walks its directories.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{self, AccessFlags};

use crate::error::{Error, Step};
use crate::sys::table;

/// Opens a directory as an anchor for `openat`. Nothing can be read from the descriptor.
pub(super) fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
        .and_then(table::above_stdio)
}

/// Opens the nearest existing directory: `path` itself or one above it.
pub(super) fn nearest(path: &Path) -> Option<(&Path, OwnedFd)> {
    path.ancestors().find_map(|dir| Some((dir, open_dir(dir).ok()?)))
}

/// Checks that the effective ids may write the file of the group at `dir`.
pub(super) fn can_write(dir: &impl AsFd, file: &CStr) -> nix::Result<()> {
    unistd::faccessat(dir.as_fd(), file, AccessFlags::W_OK, AtFlags::AT_EACCESS)
}

/// Writes `value` with one write(2), as cgroup files need it.
pub(super) fn write(dir: BorrowedFd<'_>, file: &CStr, value: &str) -> nix::Result<()> {
    let fd = openat(dir, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    loop {
        match unistd::write(&fd, value.as_bytes()) {
            // A v1 memory limit below the usage reclaims memory, and a signal interrupts that.
            Err(Errno::EINTR) => continue,
            other => return other.map(drop),
        }
    }
}

/// Reads a whole file.
pub(super) fn read(dir: BorrowedFd<'_>, file: &CStr) -> nix::Result<String> {
    let fd = openat(dir, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    read_all(&fd)
}

/// Reads the rest of an open file.
pub(super) fn read_all(fd: &OwnedFd) -> nix::Result<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        match unistd::read(fd, &mut chunk) {
            Ok(0) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads a file that this kernel or this group may not have.
pub(super) fn read_optional(dir: BorrowedFd<'_>, file: &CStr) -> nix::Result<Option<String>> {
    match read(dir, file) {
        Ok(text) => Ok(Some(text)),
        // EOPNOTSUPP: the file exists, but its accounting was switched off at boot.
        Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Reads a file with one number. Returns `None` if the file is missing or says `max`.
pub(super) fn number(dir: BorrowedFd<'_>, file: &CStr) -> nix::Result<Option<u64>> {
    Ok(read_optional(dir, file)?.and_then(|text| text.trim().parse().ok()))
}

/// Returns the value of `key` in lines of `key value`.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Returns the numbers of a device, from `MAJOR:MINOR`.
pub(super) fn device_numbers(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Returns the error of `step` at a file of the group at `dir`.
pub(super) fn failed(step: Step, errno: Errno, dir: &Path, file: &CStr) -> Error {
    Error::new(step, errno).at(join(dir, file))
}

pub(super) fn join(dir: &Path, name: &CStr) -> PathBuf {
    dir.join(OsStr::from_bytes(name.to_bytes()))
}

/// Returns the groups directly below `dir`. The link count of a cgroup directory is 2 plus one for
/// each child, so a directory without children is not read.
pub(super) fn subgroups(dir: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    if fstat(dir)?.st_nlink == 2 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in Dir::openat(dir, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?.iter()
    {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Visits `top` and every group below: calls `enter` on the way down, and `leave(parent, name)`
/// after all groups below `name`. Two descriptors are open at a time and nothing recurses, because
/// programs inside may nest groups to any depth. A group that vanishes meanwhile is skipped.
pub(super) fn walk(
    top: BorrowedFd<'_>,
    enter: &mut dyn FnMut(BorrowedFd<'_>) -> nix::Result<()>,
    leave: &mut dyn FnMut(BorrowedFd<'_>, &CStr) -> nix::Result<()>,
) -> nix::Result<()> {
    let step = |at: BorrowedFd<'_>, name: &CStr| {
        openat(at, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
    };
    enter(top)?;
    let names = subgroups(top)?;
    if names.is_empty() {
        return Ok(());
    }
    let mut here = top.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    let mut levels = vec![(CString::default(), names)];
    while let Some((_, waiting)) = levels.last_mut() {
        if let Some(next) = waiting.pop() {
            let Some(below) = present(step(here.as_fd(), &next))? else { continue };
            let Some(names) = present(enter(below.as_fd()).and_then(|()| subgroups(below.as_fd())))? else { continue };
            here = below;
            levels.push((next, names));
            continue;
        }
        let done = levels.pop();
        if let (Some((name, _)), false) = (done, levels.is_empty()) {
            here = step(here.as_fd(), c"..")?;
            present(leave(here.as_fd(), &name))?;
        }
    }
    Ok(())
}

fn present<T>(result: nix::Result<T>) -> nix::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}
