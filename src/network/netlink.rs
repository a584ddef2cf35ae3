//! A socket on which one asks the kernel about interfaces and addresses: rtnetlink(7).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket};
use nix::sys::time::TimeVal;

use crate::sys::{background, table};

/// The longest wait for an answer, in seconds. The kernel has it ready when the question is sent.
const PATIENCE: i64 = 10;
/// The room for one piece of an answer, in bytes. The kernel sends pieces of 32 KiB at most.
const PIECE: usize = 64 << 10;
/// The length of a message's head, in bytes: struct nlmsghdr.
const HEAD: usize = 16;

/// A socket of one network namespace.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket of the calling thread's network namespace.
    pub(super) fn open() -> Result<Socket, Errno> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let socket = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)?;
        let socket = table::above_stdio(socket)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        Ok(Socket(socket))
    }

    /// Opens a socket of another network namespace: in a thread that enters it, and ends.
    pub(super) fn open_in(namespace: &OwnedFd) -> Result<Socket, Errno> {
        let namespace = table::copy_of(namespace.as_raw_fd())?;
        let enter = move || setns(namespace, CloneFlags::CLONE_NEWNET).and_then(|()| Socket::open());
        let thread = background::spawn("ringfence-net", enter).map_err(|_| Errno::EAGAIN)?;
        thread.join().unwrap_or(Err(Errno::EIO))
    }

    /// Asks for a change, or about one thing, and returns the answers.
    pub(super) fn ask(&self, question: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        self.exchange(question, NLM_F_ACK)
    }

    /// Asks for everything of a kind.
    pub(super) fn list(&self, question: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        self.exchange(question, NLM_F_DUMP)
    }

    fn exchange(&self, question: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let fd = self.0.as_fd().as_raw_fd();
        send(fd, &bytes, MsgFlags::empty())?;
        let (mut answers, mut piece) = (Vec::new(), vec![0; PIECE]);
        loop {
            let len = match recv(fd, &mut piece, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = &piece[..len];
            while rest.len() >= HEAD {
                let message: NetlinkMessage<RouteNetlinkMessage> =
                    NetlinkMessage::deserialize(rest).map_err(|_| Errno::EPROTO)?;
                let size = (message.header.length as usize).next_multiple_of(4).max(HEAD);
                rest = rest.get(size..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) => {
                        return error
                            .code
                            .map_or(Ok(answers), |code| Err(Errno::from_raw(code.get().saturating_neg())));
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}
