//! Descriptors for other programs, over their sockets: unix(7).

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};

use super::{table, timeout};

/// The time between two tries to connect to a socket whose queue is full, for which nothing polls.
const NAP: Duration = Duration::from_millis(10);

/// Connects to the stream socket at `path`. Fails with ETIMEDOUT if nobody takes the connection
/// before `until`, and with ENOTSOCK if another file is there.
pub(crate) fn connect_to(path: &Path, until: Instant) -> Result<OwnedFd, Errno> {
    let io = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    // By a descriptor, a path may be longer than an address has room for.
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let place = File::options().read(true).custom_flags(flags).open(path).map_err(io)?;
    if !place.metadata().map_err(io)?.file_type().is_socket() {
        return Err(Errno::ENOTSOCK);
    }
    let name = format!("/proc/thread-self/fd/{}", place.as_raw_fd());
    let address = UnixAddr::new(name.as_str())?;
    let kind = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = table::above_stdio(socket(AddressFamily::Unix, SockType::Stream, kind, None)?)?;
    loop {
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if Instant::now() < until => std::thread::sleep(NAP),
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends a message with descriptors, which come with its first byte. Fails with ETIMEDOUT if the
/// socket does not take all of it before `until`.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[RawFd], until: Instant) -> Result<(), Errno> {
    let (mut sent, mut rights) = (0, vec![ControlMessage::ScmRights(fds)]);
    while sent < message.len() || !rights.is_empty() {
        let rest = [IoSlice::new(&message[sent..])];
        match sendmsg::<()>(socket.as_raw_fd(), &rest, &rights, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(count) => {
                sent += count;
                rights.clear();
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(socket, until)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Waits until the socket takes more.
fn wait(socket: BorrowedFd<'_>, until: Instant) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], timeout::until(until)) {
        Ok(0) if Instant::now() >= until => Err(Errno::ETIMEDOUT),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
