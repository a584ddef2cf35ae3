//! A supervisor in another process, which gets the listener of a filter over a socket.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{mutex, scm};

/// Makes the message for the supervisor from the pid of the program.
type Message = dyn Fn(u32) -> Vec<u8> + Send + Sync;

/// The socket of a supervisor in another process.
#[derive(Clone)]
pub(crate) struct RemoteSupervisor {
    path: PathBuf,
    message: Arc<Message>,
}

impl fmt::Debug for RemoteSupervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSupervisor").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A connection to a supervisor that waits for its listener.
#[derive(Debug)]
pub(crate) struct RemoteConnection {
    supervisor: RemoteSupervisor,
    /// `None` if there is none yet, and once a listener was sent: a second one takes a connection of
    /// its own.
    socket: Mutex<Option<OwnedFd>>,
    patience: Duration,
}

impl RemoteSupervisor {
    pub(crate) fn new(path: &Path, message: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Self {
        RemoteSupervisor { path: path.to_owned(), message: Arc::new(message) }
    }

    /// Connects to the supervisor, within `patience`, which is also the time for the listener.
    pub(crate) fn connect(&self, patience: Duration) -> Result<RemoteConnection> {
        let socket = self.open(until(patience))?;
        Ok(RemoteConnection { supervisor: self.clone(), socket: Mutex::new(Some(socket)), patience })
    }

    /// Returns a connection that is made when the listener is there. `patience` is the time for both.
    pub(crate) fn connect_late(&self, patience: Duration) -> RemoteConnection {
        RemoteConnection { supervisor: self.clone(), socket: Mutex::new(None), patience }
    }

    fn failed(&self, errno: Errno) -> Error {
        let error = Error::new(Step::HandListenerOver, errno).at(&self.path);
        match errno {
            Errno::ECONNREFUSED | Errno::ENOENT => error.hint("start the supervisor before the sandbox"),
            Errno::EPROTOTYPE => error.hint("the supervisor's socket is not of type SOCK_STREAM"),
            Errno::ENOTSOCK => error.hint("this file is no socket"),
            Errno::ETIMEDOUT => self.late(),
            Errno::EPIPE | Errno::ECONNRESET => error.hint("the supervisor has closed the connection"),
            _ => error,
        }
    }

    fn late(&self) -> Error {
        Error::message(ErrorKind::Timeout, Step::HandListenerOver, "the supervisor takes no connection or no message")
            .at(&self.path)
            .hint("see setup_timeout()")
    }

    fn open(&self, until: Instant) -> Result<OwnedFd> {
        scm::connect_to(&self.path, until).map_err(|errno| self.failed(errno))
    }
}

impl RemoteConnection {
    /// Sends the listener of the filter of the program `pid`, with the message, and then the end.
    pub(crate) fn send(&self, listener: BorrowedFd<'_>, pid: i32) -> Result<()> {
        let until = until(self.patience);
        let before = mutex::lock(&self.socket).take();
        let socket = before.map_or_else(|| self.supervisor.open(until), Ok)?;
        let message = (self.supervisor.message)(pid.cast_unsigned());
        scm::send(socket.as_fd(), &message, &[listener.as_raw_fd()], until)
            .and_then(|()| shutdown(socket.as_raw_fd(), Shutdown::Write))
            .map_err(|errno| self.supervisor.failed(errno))
    }
}

/// Returns the end of a time that may be longer than the clock can represent.
fn until(patience: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(1 << 32);
    Instant::now() + patience.min(LONGEST)
}
