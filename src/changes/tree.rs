//! Directories by descriptor, for trees that may be deeper than a path and change while they are
//! read.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::{by_fd, random};

/// The number of names that are read before any is removed, as removing entries disturbs the
/// reading of a directory.
const BATCH: usize = 512;
/// The most entries that one removal takes. A process that adds entries all the while does not keep
/// the caller for ever.
const MOST: u64 = 20_000_000;

/// Opens a directory that the caller named, for reading.
pub(super) fn open_named(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a directory that is no link, and on which nothing is mounted (EXDEV): an overlay does not
/// show what is mounted below one of its layers, so no change is about that.
pub(super) fn open(dir: BorrowedFd<'_>, name: &(impl NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_RDONLY | by_fd::DIR).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(dir, name, how) {
        // Before Linux 5.6, and under filters that do not know the call, only another file system
        // is noticed.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let found = by_fd::open(dir, name)?;
            if fstat(&found)?.st_dev == fstat(dir)?.st_dev { Ok(found) } else { Err(Errno::EXDEV) }
        }
        found => found,
    }
}

/// The directories below a root. The last one stays open, because callers go through a tree
/// directory by directory.
#[derive(Debug)]
pub(super) struct Walk {
    root: OwnedFd,
    path: PathBuf,
    dir: Option<OwnedFd>,
}

impl Walk {
    pub(super) fn new(root: OwnedFd) -> Self {
        Walk { root, path: PathBuf::new(), dir: None }
    }

    /// Returns the directory at a path, each name of which must be a directory and no link.
    pub(super) fn dir(&mut self, path: &Path) -> nix::Result<BorrowedFd<'_>> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.dir.is_none() || self.path != path {
            let (above, rest) = match (self.dir.take(), path.strip_prefix(&self.path)) {
                (Some(dir), Ok(rest)) => (Some(dir), rest),
                _ => (None, path),
            };
            let mut dir = above;
            for name in rest.components() {
                let from = dir.as_ref().unwrap_or(&self.root);
                dir = Some(open(from.as_fd(), name.as_os_str())?);
            }
            (self.dir, self.path) = (dir, path.to_owned());
        }
        Ok(self.dir.as_ref().unwrap_or(&self.root).as_fd())
    }
}

/// Removes an entry with everything in it, if there is one.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &(impl NixPath + ?Sized)) -> nix::Result<()> {
    let is_gone = name.with_nix_path(|name| unlink(dir, name))??;
    if is_gone {
        return Ok(());
    }
    clear(&open(dir, name)?)?;
    unlinkat(dir, name, UnlinkatFlags::RemoveDir)
}

/// Removes everything in a directory. A directory found inside of another is moved up to the top,
/// and removed later: so the depth does not matter, and two directories are open at most.
pub(super) fn clear(top: &OwnedFd) -> nix::Result<()> {
    let mark = random::number()?;
    let mut steps = 0;
    let mut step = || {
        steps += 1;
        if steps > MOST { Err(Errno::ETIMEDOUT) } else { Ok(steps) }
    };
    loop {
        let names = by_fd::names(top.as_fd(), BATCH)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            step()?;
            if unlink(top.as_fd(), &name)? {
                continue;
            }
            let inner = open(top.as_fd(), name.as_c_str())?;
            loop {
                let names = by_fd::names(inner.as_fd(), BATCH)?;
                if names.is_empty() {
                    break;
                }
                for name in names {
                    let number = step()?;
                    if !unlink(inner.as_fd(), &name)? {
                        let free = CString::new(format!("{mark:x}-{number}")).map_err(|_| Errno::EINVAL)?;
                        renameat(&inner, name.as_c_str(), top, free.as_c_str())?;
                    }
                }
            }
            match unlinkat(top, name.as_c_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENOTEMPTY) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Removes an entry that is not a directory. Returns true if the entry is gone.
fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<bool> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        // POSIX specifies EPERM for directories; Linux also uses it for files that nobody may
        // remove.
        Err(Errno::EPERM) if by_fd::open(dir, name).is_ok() => Ok(false),
        Err(errno) => Err(errno),
    }
}
