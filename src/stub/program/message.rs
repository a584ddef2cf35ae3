//! The structure for sendmsg(2) and recvmsg(2): a message of one piece, with descriptors.

/// struct msghdr.
#[repr(C)]
pub struct Message {
    name: u64,
    name_len: u64,
    iov: u64,
    iov_len: u64,
    control: u64,
    pub control_len: u64,
    flags: u64,
}

impl Message {
    /// Makes a message. `piece` is the address and the length of the bytes; `control` is the same
    /// for a struct cmsghdr and its data.
    pub fn new(piece: &[u64; 2], control: [u64; 2]) -> Self {
        let [control, control_len] = control;
        Message { name: 0, name_len: 0, iov: piece.as_ptr() as u64, iov_len: 1, control, control_len, flags: 0 }
    }
}
