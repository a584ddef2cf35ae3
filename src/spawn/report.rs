//! The report socket: one fixed-size record a message, from the spawner and the stub to the caller.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::stub::wire::Record;
use crate::sys::{table, timeout};

const SIZE: usize = size_of::<Record>();

pub(super) fn encode(record: Record) -> [u8; SIZE] {
    let words = [record.kind, record.op, record.errno as u32, record.value as u32].map(u32::to_ne_bytes);
    let mut bytes = [0; SIZE];
    bytes.copy_from_slice(words.as_flattened());
    bytes
}

fn decode(bytes: &[u8; SIZE]) -> Record {
    let word = |i: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[4 * i..4 * i + 4]);
        u32::from_ne_bytes(word)
    };
    Record { kind: word(0), op: word(1), errno: word(2) as i32, value: word(3) as i32 }
}

/// What came.
#[derive(Debug)]
pub(super) enum Event {
    Record(Record, Option<OwnedFd>),
    /// Nobody holds the other end any more.
    End,
    /// The process ended without a further word.
    Died,
    /// Nothing came in time.
    Silence,
}

/// Waits for a record, the end, or the death of the process behind `pidfd` (in a fork of the caller the other end may
/// live on).
pub(super) fn next(socket: BorrowedFd<'_>, pidfd: Option<BorrowedFd<'_>>, until: Instant) -> Result<Event, Errno> {
    loop {
        let mut fds = vec![PollFd::new(socket, PollFlags::POLLIN)];
        fds.extend(pidfd.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, timeout::until(until)) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(0) if Instant::now() >= until => return Ok(Event::Silence),
            Ok(_) => {}
        }
        match receive(socket) {
            Err(Errno::EAGAIN) if fds.get(1).and_then(PollFd::any).unwrap_or(false) => return Ok(Event::Died),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// One message, if there is one.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Event, Errno> {
    let mut bytes = [0; SIZE];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags) {
        // The peer closed with unread data of ours.
        Err(Errno::ECONNRESET) => return Ok(Event::End),
        other => other?,
    };
    let mut fd = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            fd = fds.first().copied().map(table::own).map(table::above_stdio).transpose()?;
        }
    }
    match message.bytes {
        0 => Ok(Event::End),
        SIZE => Ok(Event::Record(decode(&bytes), fd)),
        _ => Err(Errno::EPROTO),
    }
}

/// Lets the stub go on after a record that asks for an answer.
pub(super) fn answer(socket: &OwnedFd) -> Result<(), Errno> {
    let flags = MsgFlags::MSG_NOSIGNAL;
    nix::sys::socket::send(socket.as_fd().as_raw_fd(), &[1], flags).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_way() {
        let record = Record { kind: 2, op: 77, errno: -5, value: i32::MIN };
        assert_eq!(decode(&encode(record)), record);
    }
}
