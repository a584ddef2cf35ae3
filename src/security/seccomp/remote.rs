//! A supervisor in another process, which gets the listener of a filter over a socket.

use std::fmt;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, connect, sendmsg, shutdown, socket,
};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{mutex, timeout};

/// The time between two tries to connect to a socket whose queue is full, for which nothing polls.
const NAP: Duration = Duration::from_millis(10);

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
    /// `None` once a listener was sent: a second one takes a connection of its own.
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

    fn failed(&self, errno: Errno) -> Error {
        let error = Error::new(Step::HandListenerOver, errno).at(&self.path);
        match errno {
            Errno::ECONNREFUSED | Errno::ENOENT => error.hint("start the supervisor before the sandbox"),
            Errno::EPROTOTYPE => error.hint("the supervisor's socket is not of type SOCK_STREAM"),
            Errno::ENOTSOCK => error.hint("this file is no socket"),
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
        let failed = |errno| self.failed(errno);
        let io = |error: std::io::Error| failed(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
        // By a descriptor, a path may be longer than an address has room for.
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        let place = File::options().read(true).custom_flags(flags).open(&self.path).map_err(io)?;
        if !place.metadata().map_err(io)?.file_type().is_socket() {
            return Err(failed(Errno::ENOTSOCK));
        }
        let name = format!("/proc/thread-self/fd/{}", place.as_raw_fd());
        let address = UnixAddr::new(name.as_str()).map_err(failed)?;
        let kind = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, kind, None).map_err(failed)?;
        let socket = crate::sys::table::above_stdio(socket).map_err(failed)?;
        loop {
            match connect(socket.as_raw_fd(), &address) {
                Ok(()) => return Ok(socket),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if Instant::now() < until => std::thread::sleep(NAP),
                Err(Errno::EAGAIN) => return Err(self.late()),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

impl RemoteConnection {
    /// Sends the listener of the filter of the program `pid`, with the message, and then the end.
    pub(crate) fn send(&self, listener: BorrowedFd<'_>, pid: i32) -> Result<()> {
        let until = until(self.patience);
        let before = mutex::lock(&self.socket).take();
        let socket = before.map_or_else(|| self.supervisor.open(until), Ok)?;
        let message = (self.supervisor.message)(pid.cast_unsigned());
        let failed = |errno| self.supervisor.failed(errno);
        let fds = [listener.as_raw_fd()];
        let (mut sent, mut rights) = (0, vec![ControlMessage::ScmRights(&fds)]);
        while sent < message.len() || !rights.is_empty() {
            let rest = [IoSlice::new(&message[sent..])];
            match sendmsg::<()>(socket.as_raw_fd(), &rest, &rights, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(count) => {
                    sent += count;
                    rights.clear();
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait(socket.as_fd(), until)?,
                Err(errno) => return Err(failed(errno)),
            }
        }
        shutdown(socket.as_raw_fd(), Shutdown::Write).map_err(failed)
    }

    /// Waits until the socket takes more.
    fn wait(&self, socket: BorrowedFd<'_>, until: Instant) -> Result<()> {
        match poll(&mut [PollFd::new(socket, PollFlags::POLLOUT)], timeout::until(until)) {
            Ok(0) if Instant::now() >= until => Err(self.supervisor.late()),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(self.supervisor.failed(errno)),
        }
    }
}

/// Returns the end of a time that may be longer than the clock can represent.
fn until(patience: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(1 << 32);
    Instant::now() + patience.min(LONGEST)
}
