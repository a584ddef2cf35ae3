//! Locks between processes: flock(2) on files of the store. A lock ends with its holder, even if
//! the holder is killed.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::store_path::StorePath;
use crate::error::{Error, ErrorKind, Result, Step};

/// The first and the longest pause between two attempts to take a lock.
const STEPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The mode of a lock: shared with other holders, or exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
}

impl Mode {
    fn arg(self) -> FlockArg {
        match self {
            Mode::Shared => FlockArg::LockSharedNonblock,
            Mode::Exclusive => FlockArg::LockExclusiveNonblock,
        }
    }
}

fn failed(path: &StorePath, errno: Errno) -> Error {
    Error::new(Step::LockStore, errno).with_kind(ErrorKind::Store).at(path.path())
}

/// Opens a lock file, and creates it if it is missing.
pub(super) fn open(path: &StorePath) -> Result<File> {
    path.open_with(OFlag::O_RDWR | OFlag::O_CREAT)
        .map_err(|error| Error::io(Step::LockStore, &error).with_kind(ErrorKind::Store).at(path.path()))
}

/// Returns true if `path` still leads to `file`. Another process may have renamed or removed the
/// file before it was locked.
pub(super) fn is_current(file: &File, path: &StorePath) -> bool {
    match (file.metadata(), path.stat()) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.st_dev, there.st_ino),
        _ => false,
    }
}

/// Takes the lock, unless another process holds it.
pub(super) fn try_lock(file: File, path: &StorePath, mode: Mode) -> Result<Result<Flock<File>, File>> {
    match Flock::lock(file, mode.arg()) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => Err(failed(path, errno)),
    }
}

/// Takes the lock, and waits at most `wait` for other holders.
pub(super) fn lock(path: &StorePath, mode: Mode, wait: Duration) -> Result<Flock<File>> {
    let until = Instant::now() + wait;
    let mut pause = Pause::default();
    let mut file = open(path)?;
    loop {
        match try_lock(file, path, mode)? {
            Ok(lock) if is_current(&lock, path) => return Ok(lock),
            Ok(_) => file = open(path)?,
            Err(_) if Instant::now() >= until => {
                let detail = format!("another process held the lock for {wait:?}");
                let error = Error::message(ErrorKind::Timeout, Step::LockStore, detail).at(path.path());
                return Err(error.hint("wait longer with Store::wait()"));
            }
            Err(held) => {
                pause.sleep();
                file = held;
            }
        }
    }
}

/// A pause between two attempts, which becomes longer each time.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Pause(STEPS.0)
    }
}

impl Pause {
    pub(super) fn sleep(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(STEPS.1);
    }
}
