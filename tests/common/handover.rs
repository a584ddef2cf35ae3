//! The receiving end of a descriptor that is sent over a socket with a path: of an engine for
//! terminals, of an agent for the listeners of filters.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Takes one message with one descriptor, as an engine does.
#[track_caller]
pub fn receive(listener: &UnixListener) -> (String, OwnedFd) {
    let ready = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], 60_000u16).unwrap();
    assert!(ready > 0, "nobody has connected");
    let (stream, _) = listener.accept().unwrap();
    let mut text = [0; 16 << 10];
    let mut space = cmsg_space!([i32; 4]);
    let mut buffers = [IoSliceMut::new(&mut text)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let count = message.bytes;
    let mut fds = message.cmsgs().unwrap().flat_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds,
        other => panic!("{other:?}"),
    });
    // SAFETY: the kernel has just made the descriptor for this process, which owns it by nothing else.
    let fd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fds.next().unwrap()) };
    assert_eq!(fds.next(), None);
    (String::from_utf8(text[..count].to_vec()).unwrap(), fd)
}
