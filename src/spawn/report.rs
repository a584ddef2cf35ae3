//! The report socket. The spawner and the stub send records to the caller: each message is one
//! record of fixed size.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::stub::wire::{self, Record};
use crate::sys::{table, timeout};

const SIZE: usize = size_of::<Record>();
/// The records that are read at once. After them the time counts: a process inside that got hold of
/// the socket could send without end.
pub(super) const BURST: usize = 1024;

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

/// The result of one read.
#[derive(Debug)]
pub(crate) enum Event {
    Record(Record, Option<OwnedFd>),
    /// No process holds the other end any more.
    End,
    /// No message has arrived.
    Nothing,
}

/// The reason why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// A message can be [received](receive).
    Ready,
    /// The process behind the pidfd has ended.
    Died,
    /// The time is over.
    TimedOut,
}

/// Waits for the socket, or for the death of the process behind `pidfd` (a fork of the caller may
/// keep the other end open). With `only_end`, sleeps through records until the other end closes,
/// which saves a wake-up for each record.
pub(super) fn wait(
    socket: BorrowedFd<'_>,
    pidfd: Option<BorrowedFd<'_>>,
    until: Instant,
    only_end: bool,
) -> Result<Waited, Errno> {
    // poll(2) always reports the end (POLLHUP).
    let events = if only_end { PollFlags::empty() } else { PollFlags::POLLIN };
    let mut fds = [PollFd::new(socket, events), PollFd::new(pidfd.unwrap_or(socket), PollFlags::POLLIN)];
    let fds = if pidfd.is_some() { &mut fds[..] } else { &mut fds[..1] };
    loop {
        match poll(fds, timeout::until(until)) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) if Instant::now() >= until => return Ok(Waited::TimedOut),
            Ok(0) => {}
            Ok(_) if fds[0].any().unwrap_or(true) => return Ok(Waited::Ready),
            Ok(_) => return Ok(Waited::Died),
        }
    }
}

/// Receives one message, if one has arrived.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Event, Errno> {
    let (mut was_reset, mut has_ended) = (false, false);
    loop {
        match receive_once(socket) {
            // The peer closed the socket before it read the plan. The kernel reports that once,
            // before the records of the peer.
            Err(Errno::ECONNRESET) if !was_reset => was_reset = true,
            Err(Errno::ECONNRESET) => return Ok(Event::End),
            // The kernel first looks for a message, and then for the end: the peer may have sent a
            // record in between.
            Ok(Event::End) if !has_ended => has_ended = true,
            result => return result,
        }
    }
}

fn receive_once(socket: BorrowedFd<'_>) -> Result<Event, Errno> {
    let mut bytes = [0; SIZE];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags) {
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Event::Nothing),
        other => other?,
    };
    let mut fd = None;
    // MSG_CTRUNC, with which the kernel reports that the caller's table is full, is an error here:
    // the record counts all the same.
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(fds) = control {
            fd = fds.first().copied().map(table::own).and_then(|fd| table::above_stdio(fd).ok());
        }
    }
    match message.bytes {
        0 => Ok(Event::End),
        SIZE => Ok(Event::Record(decode(&bytes), fd)),
        _ => Err(Errno::EPROTO),
    }
}

/// Sends one message to the stub. The call never blocks: the socket is empty before the plan.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let sent = nix::sys::socket::send(socket.as_raw_fd(), bytes, flags)?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::EMSGSIZE) }
}

/// Sends one message with descriptors to a stub that waits for the message.
pub(super) fn send_with_fds(socket: &OwnedFd, bytes: &[u8], fds: &[RawFd]) -> Result<(), Errno> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let rights = [ControlMessage::ScmRights(fds)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, flags, None)?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::EMSGSIZE) }
}

/// Returns the message that says where the plan is: [`wire::Elsewhere`].
pub(super) fn elsewhere(fd: RawFd, size: usize) -> [u8; size_of::<wire::Elsewhere>()] {
    let mut bytes = [0; size_of::<wire::Elsewhere>()];
    bytes[..4].copy_from_slice(&wire::ELSEWHERE.to_ne_bytes());
    bytes[4..8].copy_from_slice(&fd.to_ne_bytes());
    bytes[8..].copy_from_slice(&(size as u64).to_ne_bytes());
    bytes
}

/// Answers a record that asks for an answer, so that the stub continues.
pub(super) fn answer(socket: &OwnedFd) -> Result<(), Errno> {
    let flags = MsgFlags::MSG_NOSIGNAL;
    nix::sys::socket::send(socket.as_fd().as_raw_fd(), &[1], flags).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_records_are_survived() {
        crate::fuzz::bytes(&[&[0; SIZE], &[0xff; SIZE - 1], b"0123456789abcdef0"], |bytes| {
            if let Ok(record) = bytes.try_into() {
                assert_eq!(encode(decode(record)), *record);
            }
            let (ours, theirs) = nix::sys::socket::socketpair(
                nix::sys::socket::AddressFamily::Unix,
                nix::sys::socket::SockType::SeqPacket,
                None,
                nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            )
            .unwrap();
            nix::sys::socket::send(theirs.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
            // A longer message is cut to a record's size; a shorter one is an error.
            let event = receive(ours.as_fd());
            assert_eq!(matches!(event, Ok(Event::Record(..))), bytes.len() >= SIZE, "{event:?}");
        });
    }

    #[test]
    fn a_record_survives_the_way() {
        let record = Record { kind: 2, op: 77, errno: -5, value: i32::MIN };
        assert_eq!(decode(&encode(record)), record);
    }
}
