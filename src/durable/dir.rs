//! The directory of a sandbox that outlives its creator.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use crate::attach::Door;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;
use crate::spawn::SOCKET;
use crate::sys::{by_fd, table};

/// The record of the sandbox.
const RECORD: &str = "record";
/// A record that is being written.
const NEW_RECORD: &str = "record.new";
/// The socket on which the sandbox waits.
const LISTENER: &str = SOCKET;
/// The page in which the sandbox leaves the errno of an exec that it cannot report.
const FAILURE: &str = "failure";
/// All files of the directory.
const FILES: [&str; 4] = [NEW_RECORD, LISTENER, FAILURE, RECORD];
/// The largest record that is read, in bytes.
const SIZE_MAX: usize = 1 << 20;
const PRIVATE: Mode = Mode::S_IRWXU;

/// The directory, which only its owner can use.
#[derive(Debug)]
pub(super) struct RecordDir {
    path: PathBuf,
    dir: OwnedFd,
}

/// The lock of a directory, held while the sandbox is created, started or removed.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Flock<File>,
}

impl RecordDir {
    /// Makes the directory. One that is there already is an error.
    pub(super) fn make(path: &Path) -> Result<RecordDir> {
        let failed = |error: &io::Error| Error::io(Step::Create, error).at(path);
        let path = std::path::absolute(path).map_err(|error| failed(&error))?;
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::new(Step::Create, Errno::EEXIST).at(&path));
        };
        let hint = "choose a place below directories of your own or root's";
        let above = owner::refuse_exchangeable(above, Step::Create, hint)?;
        let path = above.join(name);
        let failed = |errno| Error::new(Step::Create, errno).at(&path);
        // Nobody else can put another directory there, so this is the one that was checked.
        let above = nix::fcntl::open(&above, OFlag::O_PATH | by_fd::DIR, Mode::empty())
            .and_then(table::above_stdio)
            .map_err(failed)?;
        mkdirat(&above, name, PRIVATE).map_err(|errno| match errno {
            Errno::EEXIST => {
                failed(errno).hint("each sandbox has a directory of its own, which create() makes and remove() removes")
            }
            _ => failed(errno),
        })?;
        let opened = openat(&above, name, OFlag::O_RDONLY | by_fd::DIR, Mode::empty())
            .and_then(table::above_stdio)
            .map_err(failed)
            .and_then(|dir| {
                // The caller's umask may have taken permissions away.
                fchmod(&dir, PRIVATE).map_err(failed)?;
                RecordDir::checked(&path, dir, Step::Create)
            });
        opened.inspect_err(|_| {
            let _ = unlinkat(&above, name, UnlinkatFlags::RemoveDir);
        })
    }

    /// Opens the directory.
    pub(super) fn open(path: &Path) -> Result<RecordDir> {
        let failed = |error: &io::Error| Error::io(Step::Attach, error).at(path);
        let path = std::path::absolute(path).map_err(|error| failed(&error))?;
        let flags = OFlag::O_RDONLY | by_fd::DIR;
        let dir = nix::fcntl::open(&path, flags, Mode::empty()).and_then(table::above_stdio).map_err(|errno| {
            let kind = if errno == Errno::ENOENT { ErrorKind::NotFound } else { ErrorKind::Control };
            Error::new(Step::Attach, errno).at(&path).with_kind(kind)
        })?;
        RecordDir::checked(&path, dir, Step::Attach)
    }

    /// Refuses a directory that is not this user's alone.
    fn checked(path: &Path, dir: OwnedFd, step: Step) -> Result<RecordDir> {
        let failed = |errno| Error::new(step, errno).at(path).with_kind(ErrorKind::Control);
        let stat = fstat(&dir).map_err(failed)?;
        if stat.st_uid != Uid::effective().as_raw() || stat.st_mode & 0o077 != 0 {
            let reason = "not a directory that only this user can use";
            return Err(failed(Errno::EPERM).detail(reason).hint("pass the directory that was given to create()"));
        }
        Ok(RecordDir { path: path.to_owned(), dir })
    }

    /// Returns where an attached process finds out whether the sandbox still waits.
    pub(super) fn door(&self) -> Result<Door> {
        let stat = fstat(&self.dir).map_err(|errno| self.failed(Step::Create, errno))?;
        Ok(Door { device: stat.st_dev, inode: stat.st_ino, dir: self.path.clone() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock, if nobody has it.
    pub(super) fn lock(&self, step: Step) -> Result<Lock> {
        let failed = |errno| self.failed(step, errno).with_kind(ErrorKind::Control);
        // A lock belongs to the open file, so this one has a file of its own.
        let file = by_fd::reopen_dir(&self.dir).and_then(table::above_stdio);
        match Flock::lock(File::from(file.map_err(failed)?), FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Lock { _file: file }),
            Err((_, errno @ Errno::EWOULDBLOCK)) => {
                Err(failed(errno).detail("another call creates, starts or removes the sandbox").hint("try again"))
            }
            Err((_, errno)) => Err(failed(errno)),
        }
    }

    /// Writes the record in place of the last one. No sandbox outlives the kernel that runs it, so
    /// nothing is flushed to a disk.
    pub(super) fn write(&self, text: &str) -> Result<()> {
        let written = by_fd::replace(self.dir.as_fd(), NEW_RECORD, RECORD, text.as_bytes());
        written.map_err(|error| Error::io(Step::Create, &error).at(self.path.join(RECORD)))
    }

    /// Reads the record, if there is one.
    pub(super) fn read(&self) -> Result<Option<String>> {
        let failed =
            |error: &io::Error| Error::io(Step::Attach, error).at(self.path.join(RECORD)).with_kind(ErrorKind::Control);
        let text = match by_fd::read(self.dir.as_fd(), RECORD, SIZE_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(failed(&error).with_kind(ErrorKind::TooLarge).detail("the record is longer than any"));
            }
            other => other.map_err(|error| failed(&error))?,
        };
        let text =
            String::from_utf8(text).map_err(|error| failed(&io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Ok(Some(text))
    }

    /// Returns whether the directory has nothing but what a sandbox's has.
    pub(super) fn is_of_a_sandbox(&self) -> Result<bool> {
        let names =
            by_fd::names(self.dir.as_fd(), FILES.len() + 1).map_err(|errno| self.failed(Step::Attach, errno))?;
        Ok(names.iter().all(|name| FILES.iter().any(|file| file.as_bytes() == name.to_bytes())))
    }

    /// Returns the path of the socket. It leads through the open directory, so it is short, and
    /// leads to no other place.
    pub(super) fn listener(&self) -> PathBuf {
        Path::new(&by_fd::path_of(&self.dir)).join(LISTENER)
    }

    /// Opens the page for an exec that failed silently; with `new`, makes it.
    pub(super) fn failure_page(&self, new: bool) -> Result<Option<File>> {
        let flags = if new { OFlag::O_CREAT | OFlag::O_EXCL } else { OFlag::empty() };
        let flags = flags | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.dir, FAILURE, flags, Mode::S_IRUSR | Mode::S_IWUSR).and_then(table::above_stdio) {
            Err(Errno::ENOENT) if !new => Ok(None),
            other => other.map(|file| Some(file.into())).map_err(|errno| self.failed(Step::Report, errno)),
        }
    }

    /// Removes what a sandbox needs no more once it has been started.
    pub(super) fn remove_start(&self) {
        for file in [LISTENER, FAILURE] {
            // What cannot be removed now goes with the directory.
            let _ = unlinkat(&self.dir, file, UnlinkatFlags::NoRemoveDir);
        }
    }

    /// Removes the directory. The record goes last, so that a call that is interrupted can be
    /// repeated.
    pub(super) fn remove(&self) -> Result<()> {
        let failed = |errno| self.failed(Step::RemoveCreated, errno).with_kind(ErrorKind::Control);
        for file in FILES {
            match unlinkat(&self.dir, file, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(Step::RemoveCreated, &error).at(&self.path).with_kind(ErrorKind::Control))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, step: Step, errno: Errno) -> Error {
        Error::new(step, errno).at(&self.path)
    }
}
