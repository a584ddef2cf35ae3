//! Files of a store, found from the descriptor of its directory, and never through a link.
//!
//! Only the store's owner and root can write to its directories, which [`StorePath::check_directory`]
//! ensures. A link found there all the same is older than the store, or was unpacked into it, and is
//! refused.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::tree::kind_of;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;
use crate::sys::{by_fd, table};

/// A file or directory of a store, whether it exists or not.
#[derive(Debug, Clone)]
pub(super) struct StorePath {
    store: Arc<StoreDir>,
    path: PathBuf,
}

/// The directory of a store, which was opened once.
#[derive(Debug)]
struct StoreDir {
    path: PathBuf,
    dir: OwnedFd,
}

impl StorePath {
    /// Opens the directory of the store. No component of `path` may be a link that others can
    /// exchange.
    pub(super) fn root(path: PathBuf) -> nix::Result<StorePath> {
        let dir = nix::fcntl::open(&path, OFlag::O_RDONLY | by_fd::DIR, Mode::empty()).and_then(table::above_stdio)?;
        Ok(StorePath { store: Arc::new(StoreDir { path: path.clone(), dir }), path })
    }

    /// Returns the path of something below this directory. The relative path has no `..`.
    pub(super) fn join(&self, below: impl AsRef<Path>) -> StorePath {
        StorePath { store: self.store.clone(), path: self.path.join(below) }
    }

    /// Returns the whole path, for messages and for mounts.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the last component.
    pub(super) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Opens the directory that holds the file, and returns the name of the file in it. The store's
    /// directory itself is `.` there.
    fn parent(&self) -> nix::Result<(OwnedFd, &OsStr)> {
        let below = self.path.strip_prefix(&self.store.path).map_err(|_| Errno::EXDEV)?;
        let enter = |dir: BorrowedFd<'_>, name: &OsStr| openat(dir, name, OFlag::O_PATH | by_fd::DIR, Mode::empty());
        let here = enter(self.store.dir.as_fd(), OsStr::new("."))?;
        let Some((above, name)) = below.parent().zip(below.file_name()) else { return Ok((here, OsStr::new("."))) };
        Ok((above.iter().try_fold(here, |dir, name| enter(dir.as_fd(), name))?, name))
    }

    fn open_as(&self, flags: OFlag) -> nix::Result<OwnedFd> {
        let (dir, name) = self.parent()?;
        openat(&dir, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    /// Opens the file for reading. A link is refused with ELOOP, and a FIFO is not waited for.
    pub(super) fn open(&self) -> io::Result<File> {
        self.open_with(OFlag::O_RDONLY)
    }

    /// Opens the file with `flags`, as [`open`](StorePath::open) does. A file that is made is the
    /// owner's alone.
    pub(super) fn open_with(&self, flags: OFlag) -> io::Result<File> {
        let file = File::from(self.open_as(flags | OFlag::O_NONBLOCK)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "this is not a regular file")),
        }
    }

    /// Opens the directory for reading. A link is refused with ENOTDIR.
    pub(super) fn open_dir(&self) -> io::Result<File> {
        Ok(self.open_as(OFlag::O_RDONLY | OFlag::O_DIRECTORY)?.into())
    }

    /// Returns the status of the file, or of the link that is there.
    pub(super) fn stat(&self) -> io::Result<FileStat> {
        Ok(fstat(self.open_as(OFlag::O_PATH)?)?)
    }

    /// Returns true if a file of any type exists there, even a dangling link.
    pub(super) fn exists(&self) -> bool {
        self.stat().is_ok()
    }

    /// Returns true if a directory exists there. A link to a directory does not count.
    pub(super) fn is_dir(&self) -> bool {
        self.stat().is_ok_and(|stat| kind_of(&stat) == SFlag::S_IFDIR)
    }

    /// Makes the directory, closed to other users. One that is there already is an error.
    pub(super) fn make_dir(&self) -> io::Result<()> {
        let (dir, name) = self.parent()?;
        Ok(mkdirat(&dir, name, Mode::S_IRWXU)?)
    }

    /// Makes the directory, unless it is there.
    pub(super) fn ensure_dir(&self) -> io::Result<()> {
        match self.make_dir() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_dir() => Ok(()),
            made => made,
        }
    }

    /// Lists the entries of the directory.
    pub(super) fn entries(&self) -> io::Result<Vec<StorePath>> {
        let names = by_fd::names(self.open_dir()?.as_fd(), usize::MAX)?;
        Ok(names.iter().map(|name| self.join(OsStr::from_bytes(name.to_bytes()))).collect())
    }

    /// Renames the file, in place of one that has the new name.
    pub(super) fn rename(&self, to: &StorePath) -> io::Result<()> {
        let ((from_dir, from), (to_dir, to)) = (self.parent()?, to.parent()?);
        Ok(renameat(&from_dir, from, &to_dir, to)?)
    }

    /// Removes the file, or the link that is there.
    pub(super) fn remove_file(&self) -> io::Result<()> {
        let (dir, name) = self.parent()?;
        Ok(unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes the directory with its contents, if it exists.
    pub(super) fn remove_tree(&self) -> Result<()> {
        match self.parent() {
            Ok((dir, name)) => owner::remove_tree(dir.as_fd(), name, &self.path),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::new(Step::RemoveScratch, errno).at(&self.path)),
        }
    }

    /// Refuses a path that is not a directory, that is a link, to which users other than its owner
    /// and root may write, or whose owner is neither root nor the caller.
    pub(super) fn check_directory(&self) -> Result<()> {
        let failed = |error: &io::Error| Error::io(Step::OpenStore, error).with_kind(ErrorKind::Store).at(&self.path);
        let stat = self.stat().map_err(|error| failed(&error))?;
        let refuse = |detail: String| {
            let error = Error::message(ErrorKind::Store, Step::OpenStore, detail).at(&self.path);
            let hint = "the directories of a store must belong to its user, be closed to others, and not be links";
            Err(error.hint(hint))
        };
        if kind_of(&stat) != SFlag::S_IFDIR {
            return refuse("this is not a directory".to_owned());
        }
        if stat.st_mode & 0o022 != 0 {
            return refuse(format!("other users may write to it (mode {:o})", stat.st_mode & 0o7777));
        }
        if stat.st_uid != 0 && stat.st_uid != Uid::effective().as_raw() {
            return refuse(format!("it belongs to the user {}", stat.st_uid));
        }
        Ok(())
    }

    /// Refuses something that exists and is not a regular file.
    pub(super) fn check_file(&self) -> Result<()> {
        match self.stat() {
            Ok(stat) if kind_of(&stat) == SFlag::S_IFREG => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io(Step::OpenStore, &error).with_kind(ErrorKind::Store).at(&self.path)),
            Ok(_) => {
                let error = Error::message(ErrorKind::Store, Step::OpenStore, "this is not a regular file");
                Err(error.at(&self.path).hint("another program has put it into the store: remove it, or use another"))
            }
        }
    }
}
