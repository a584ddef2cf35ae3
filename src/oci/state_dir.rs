//! The directory of a container below the runtime's root.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, fstat, lstat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;
use crate::sys::{by_fd, table};

/// The state of the container, as JSON.
const STATE: &str = "state.json";
/// A state that is being written.
const NEW_STATE: &str = "state.json.new";
/// The directory of the sandbox, which [`Sandbox::create`](crate::Sandbox::create) makes.
const SANDBOX: &str = "sandbox";
/// The longest state that is read, in bytes: it has the annotations of the configuration.
const SIZE_MAX: usize = 32 << 20;
const ID_MAX: usize = 255;
/// How often a new directory is made that another call removes before its lock is taken.
const TIMES_MAX: u32 = 100;

/// The directory, which only its owner can use.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    dir: OwnedFd,
}

/// The lock of a container, held while it is created, started, paused or deleted. Whoever has it
/// has the container that is there.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Flock<File>,
}

/// Checks the name of a container: it is one of a directory, and no path.
pub(super) fn check_id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if !id.is_empty() && id.len() <= ID_MAX && id.bytes().all(plain) && id != "." && id != ".." {
        return Ok(());
    }
    let why = match id.bytes().find(|byte| !plain(*byte)) {
        Some(_) => "it has an invalid character",
        None if id.is_empty() || id.len() > ID_MAX => "it is empty, or too long",
        None => "it is the name of a directory",
    };
    let reason = format!("invalid container ID {id:?}: {why}");
    let hint = "use letters, digits and _+.- alone, and 255 of them at most";
    Err(Error::message(ErrorKind::Invalid, Step::ContainerState, reason).hint(hint))
}

impl StateDir {
    /// Makes the directory of a new container, and the runtime's root if it is missing. Returns it
    /// locked.
    pub(super) fn make(root: &Path, id: &str) -> Result<(StateDir, Lock)> {
        check_id(id)?;
        let failed = |error: &io::Error, path: &Path| Error::io(Step::ContainerState, error).at(path);
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(|error| failed(&error, root))?;
        let hint = "choose a root below directories of your own or root's";
        owner::refuse_exchangeable(root, Step::ContainerState, hint)?;
        let path = root.join(id);
        let mut times = 0;
        loop {
            times += 1;
            DirBuilder::new().mode(0o700).create(&path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => failed(&error, &path)
                    .with_kind(ErrorKind::Control)
                    .detail(format!("container with id exists: {id}"))
                    .hint("delete it, or choose another name"),
                _ => failed(&error, &path),
            })?;
            // Before the lock is taken, a delete may find an empty directory, and remove it.
            let locked = StateDir::open_at(path.clone()).and_then(|dir| dir.lock().map(|lock| (dir, lock)));
            match locked {
                Err(error) if times < TIMES_MAX && is_gone(&error) => {}
                other => return other,
            }
        }
    }

    /// Finds the directory of a container.
    pub(super) fn open(root: &Path, id: &str) -> Result<StateDir> {
        check_id(id)?;
        StateDir::open_at(root.join(id)).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => missing(&root.join(id)),
            _ => error,
        })
    }

    fn open_at(path: PathBuf) -> Result<StateDir> {
        let failed = |errno| Error::new(Step::ContainerState, errno).at(&path).with_kind(ErrorKind::Control);
        let flags = OFlag::O_RDONLY | by_fd::DIR;
        let dir = nix::fcntl::open(&path, flags, Mode::empty()).and_then(table::above_stdio).map_err(failed)?;
        let stat = fstat(&dir).map_err(failed)?;
        if stat.st_uid != Uid::effective().as_raw() || stat.st_mode & 0o022 != 0 {
            return Err(failed(Errno::EPERM).detail("another user can change the directory"));
        }
        Ok(StateDir { path, dir })
    }

    /// Returns the path of the sandbox's directory.
    pub(super) fn sandbox(&self) -> PathBuf {
        self.path.join(SANDBOX)
    }

    /// Takes the lock. Waits for another call that has it.
    ///
    /// As long as the lock is held, the directory of this path is this one: nobody else may change
    /// the root, and whoever removes the directory has the lock.
    pub(super) fn lock(&self) -> Result<Lock> {
        let lock = self.lock_by(FlockArg::LockExclusive)?;
        self.check_current().map(|()| lock)
    }

    /// Takes the lock, if no other call has it.
    pub(super) fn try_lock(&self) -> Result<Option<Lock>> {
        match self.lock_by(FlockArg::LockExclusiveNonblock) {
            Ok(lock) => self.check_current().map(|()| Some(lock)),
            Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses a container that was deleted, also if there is another one of its name by now. A
    /// directory that is open keeps its inode, so no other one is taken for it.
    pub(super) fn check_current(&self) -> Result<()> {
        let own = fstat(&self.dir).map_err(|errno| self.failed(errno))?;
        match lstat(&self.path) {
            Ok(found) if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) => Ok(()),
            Ok(_) | Err(Errno::ENOENT) => Err(missing(&self.path)),
            Err(errno) => Err(self.failed(errno)),
        }
    }

    /// Returns whether another call has the lock.
    pub(super) fn is_locked(&self) -> bool {
        self.lock_by(FlockArg::LockExclusiveNonblock)
            .is_err_and(|error| error.raw_os_error() == Some(libc::EWOULDBLOCK))
    }

    fn lock_by(&self, how: FlockArg) -> Result<Lock> {
        let failed = |errno| self.failed(errno);
        // A lock belongs to the open file, so this one has a file of its own.
        let file = by_fd::reopen_dir(&self.dir).and_then(table::above_stdio);
        let mut file = File::from(file.map_err(failed)?);
        loop {
            match Flock::lock(file, how) {
                Ok(file) => return Ok(Lock { _file: file }),
                Err((back, Errno::EINTR)) => file = back,
                Err((_, errno)) => return Err(failed(errno)),
            }
        }
    }

    /// Writes the state in place of the last one. No container outlives the kernel that runs it, so
    /// nothing is flushed to a disk.
    pub(super) fn write(&self, text: &[u8]) -> Result<()> {
        let written = by_fd::replace(self.dir.as_fd(), NEW_STATE, STATE, text);
        written.map_err(|error| {
            Error::io(Step::ContainerState, &error).at(self.path.join(STATE)).with_kind(ErrorKind::Control)
        })
    }

    /// Reads the state. `None`: it was never written.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>> {
        let failed = |error: &io::Error| {
            Error::io(Step::ContainerState, error).at(self.path.join(STATE)).with_kind(ErrorKind::Control)
        };
        match by_fd::read(self.dir.as_fd(), STATE, SIZE_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(failed(&error).with_kind(ErrorKind::TooLarge).detail("the state is longer than any"))
            }
            other => other.map(Some).map_err(|error| failed(&error)),
        }
    }

    /// Removes the directory, from which the sandbox's own is gone. The state goes last, so that a
    /// call that is interrupted can be repeated.
    pub(super) fn remove(&self) -> Result<()> {
        for file in [NEW_STATE, STATE] {
            match unlinkat(&self.dir, file, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(Step::ContainerState, &error).at(&self.path).with_kind(ErrorKind::Control))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, errno: Errno) -> Error {
        Error::new(Step::ContainerState, errno).at(&self.path).with_kind(ErrorKind::Control)
    }
}

fn missing(path: &Path) -> Error {
    Error::message(ErrorKind::NotFound, Step::ContainerState, "container does not exist").at(path)
}

fn is_gone(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        for id in ["a", "A-1_b+c.d", "...", &"x".repeat(ID_MAX)] {
            check_id(id).unwrap();
        }
        for id in ["", ".", "..", "a/b", "/", "a b", "a\0", "ä", "a\n", &"x".repeat(ID_MAX + 1)] {
            assert_eq!(check_id(id).unwrap_err().kind(), ErrorKind::Invalid, "{id:?}");
        }
    }
}
