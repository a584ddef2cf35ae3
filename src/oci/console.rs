//! Descriptors of a container for its engine, over the sockets that runtimes are given.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::scm;

/// The longest time that an engine may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The name that runc gives the pidfd of a container's first process.
const FIRST_PROCESS: &str = "standard";

/// Sends the master of a program's terminal to the socket that an engine has given a runtime:
/// `--console-socket`. `name` is the path of the terminal inside, the text of the message:
/// [`Terminal::name`](crate::Terminal::name).
///
/// The socket is of type `SOCK_STREAM`, and gets one message with one descriptor: unix(7),
/// `SCM_RIGHTS`.
///
/// # Errors
///
/// [`ErrorKind::Control`] with the path of the socket: ENOENT and ECONNREFUSED if nobody listens
/// there, ENOTSOCK for another file; [`ErrorKind::Timeout`] if the engine takes nothing for 10
/// seconds.
pub fn send_terminal(socket: &Path, terminal: BorrowedFd<'_>, name: &str) -> Result<()> {
    send(Step::ConsoleSocket, socket, name.as_bytes(), terminal)
}

/// Sends the pidfd of a container's first process to the socket that an engine has given a runtime:
/// `--pidfd-socket`. The text of the message is that of runc.
///
/// # Errors
///
/// Those of [`send_terminal`].
pub fn send_pidfd(socket: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    send(Step::PidfdSocket, socket, FIRST_PROCESS.as_bytes(), pidfd)
}

/// Sends one message with one descriptor.
pub(super) fn send(step: Step, socket: &Path, message: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let sent = scm::connect_to(socket, until)
        .and_then(|connection| scm::send(std::os::fd::AsFd::as_fd(&connection), message, &[fd.as_raw_fd()], until));
    sent.map_err(|errno| {
        let error = Error::new(step, errno).at(socket);
        match errno {
            Errno::ETIMEDOUT => error.with_kind(ErrorKind::Timeout),
            Errno::ECONNREFUSED | Errno::ENOENT => error.with_kind(ErrorKind::Control).hint("listen there first"),
            Errno::EPROTOTYPE => error.with_kind(ErrorKind::Control).hint("make the socket one of type SOCK_STREAM"),
            _ => error.with_kind(ErrorKind::Control),
        }
    })
}
