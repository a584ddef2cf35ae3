//! The start of a program whose stub another process has made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, send, setsockopt, socket,
    sockopt::SendTimeout,
};
use nix::sys::time::TimeVal;

use super::hint;
use super::launch::FailurePage;
use super::report::{self, Event, Waited};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::Note;
use crate::stub::start::{GREETING, Record, kind};
use crate::sys::{pidfd, table};

/// The name of the socket on which a stub waits, in the directory of its sandbox.
pub(crate) const SOCKET: &str = "start";
/// The longest time that a process which connects waits for one that starts the same sandbox.
const CONNECT_SECONDS: i64 = 5;

/// The answer to a look whether a stub still waits.
#[derive(Debug)]
pub(crate) enum Waits {
    /// The stub waits, and this is a connection to it.
    Yes(OwnedFd),
    /// Nobody listens: the program has been started, or the stub has ended.
    No,
}

/// Makes the socket on which a stub waits for the process that starts its program. Nobody can
/// connect who cannot search the directory of `path`.
pub(crate) fn listen_at(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = new_socket()?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(1)?)?;
    Ok(socket)
}

/// Connects to a stub. Who connects and says nothing changes nothing.
pub(crate) fn connect_to(path: &Path) -> Result<Waits, Errno> {
    let socket = new_socket()?;
    // connect(2) waits while as many others are connected as the backlog takes.
    setsockopt(&socket, SendTimeout, &TimeVal::new(CONNECT_SECONDS, 0))?;
    let address = UnixAddr::new(path)?;
    loop {
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(Waits::Yes(socket)),
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => return Ok(Waits::No),
            Err(errno) => return Err(errno),
        }
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    table::above_stdio(socket)
}

/// Takes the listener of a filter, before the program is executed.
pub(crate) type TakeListener<'l> = Box<dyn FnOnce(OwnedFd) -> Result<()> + 'l>;

/// A stub that waits, as the process that starts its program sees it.
pub(crate) struct Later<'l> {
    pub(crate) connection: OwnedFd,
    /// The first process of the sandbox.
    pub(crate) process: BorrowedFd<'l>,
    /// The details of the ops that are still to come.
    pub(crate) notes: &'l [(u32, Note)],
    /// The page in which the stub leaves the errno of an exec that its filter lets it not report.
    pub(crate) failure: Option<&'l FailurePage>,
    pub(crate) deadline: Duration,
    /// For a program whose filter has a listener.
    pub(crate) take: Option<TakeListener<'l>>,
}

impl Later<'_> {
    /// Lets the stub go on, and follows it until it has executed the program.
    pub(crate) fn start(self) -> Result<()> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        match send(self.connection.as_raw_fd(), &GREETING, flags) {
            Ok(_) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(self.gone()),
            Err(errno) => return Err(failed(errno)),
        }
        self.follow()
    }

    /// Follows the stub until it has executed the program. If nobody can tell any more whether it
    /// does, the stub is killed: a program does not run after its start has failed.
    fn follow(mut self) -> Result<()> {
        let now = Instant::now();
        let until = now.checked_add(self.deadline).unwrap_or(now + Duration::from_secs(1 << 32));
        let mut executing = false;
        loop {
            let waited = report::wait(self.connection.as_fd(), Some(self.process), until, false);
            let waited = waited.map_err(|errno| self.given_up(failed(errno)))?;
            for _ in 0..report::BURST {
                let event = report::receive(self.connection.as_fd());
                match event.map_err(|errno| self.given_up(failed(errno)))? {
                    Event::Nothing => break,
                    Event::Record(record, _) if record.kind == kind::FAILED => return Err(self.failure(record)),
                    Event::Record(record, fd) if record.kind == kind::LISTENER => self.hand_over(fd)?,
                    // A descriptor that comes with another record is closed.
                    Event::Record(record, _) => executing |= record.kind == kind::EXEC,
                    Event::End if executing => return self.silent_failure(),
                    Event::End => return Err(self.gone()),
                }
            }
            match waited {
                Waited::Died if executing => return self.silent_failure(),
                Waited::Died => return Err(self.gone()),
                Waited::TimedOut => return Err(self.given_up(self.timeout())),
                Waited::Ready if Instant::now() >= until => return Err(self.given_up(self.timeout())),
                Waited::Ready => {}
            }
        }
    }

    /// Passes the listener on, and answers to the stub, which executes the program then. A listener
    /// that nobody takes ends the sandbox: nobody would be asked.
    fn hand_over(&mut self, listener: Option<OwnedFd>) -> Result<()> {
        let handed = match (listener, self.take.take()) {
            (Some(listener), Some(take)) => take(listener),
            (None, _) => Err(Error::new(Step::HandListenerOver, Errno::EMFILE)),
            (Some(_), None) => Err(Error::message(ErrorKind::Control, Step::HandListenerOver, "nobody takes it")),
        };
        let answered = handed
            .and_then(|()| report::answer(&self.connection).map_err(|errno| Error::new(Step::HandListenerOver, errno)));
        answered.map_err(|error| self.given_up(error))
    }

    /// Kills the first process of the sandbox for this error.
    fn given_up(&self, error: Error) -> Error {
        match pidfd::send_signal(self.process, libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => error,
            Err(errno) => error.detail(format!("the sandbox cannot be killed either: {errno}")),
        }
    }

    fn failure(&self, record: Record) -> Error {
        let errno = Errno::from_raw(record.errno);
        let Some((_, note)) = self.notes.iter().find(|(index, _)| *index == record.op) else { return failed(errno) };
        let error = note.error(errno);
        match hint::for_failure(note.step, errno).filter(|_| note.hint.is_none()) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Returns an error if the exec, the last op, has failed without a report.
    fn silent_failure(&self) -> Result<()> {
        let errno = self.failure.and_then(FailurePage::errno);
        let last = self.notes.last().map_or(0, |(index, _)| *index);
        errno.map_or(Ok(()), |errno| Err(self.failure(Record { kind: kind::FAILED, op: last, errno, value: 0 })))
    }

    /// Returns the error for a stub that has closed the connection without a word.
    fn gone(&self) -> Error {
        match report::wait(self.process, None, Instant::now(), false) {
            Ok(Waited::TimedOut) => {
                let text = "the sandbox does not answer to this version of the library, or waited too long for it";
                Error::message(ErrorKind::Control, Step::Start, text)
                    .hint("try again; otherwise start it with the version that has created it")
            }
            _ => Error::message(ErrorKind::SetupDied, Step::Start, "the sandbox has ended before its program began")
                .hint("either a memory limit is too small, or another process has killed it"),
        }
    }

    fn timeout(&self) -> Error {
        Error::message(ErrorKind::Timeout, Step::Start, format!("not done after {:?}", self.deadline))
            .hint("the file system of the program may hang, or the control group may be frozen")
    }
}

fn failed(errno: Errno) -> Error {
    Error::new(Step::Start, errno).with_kind(ErrorKind::Control)
}
