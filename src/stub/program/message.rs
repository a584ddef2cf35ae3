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

/// The size of struct cmsghdr.
const CONTROL_HEAD: u64 = 16;

/// struct cmsghdr with its data: at most `N` descriptors.
#[repr(C)]
pub struct Control<const N: usize> {
    len: u64,
    level: i32,
    kind: i32,
    pub fds: [i32; N],
}

impl<const N: usize> Control<N> {
    pub const EMPTY: Self = Control { len: 0, level: 0, kind: 0, fds: [-1; N] };

    /// Returns the number of descriptors that have come with `message`.
    pub fn count(&self, message: &Message) -> usize {
        if message.control_len == 0 { 0 } else { (self.len - CONTROL_HEAD) as usize / 4 }
    }
}

impl Message {
    /// Makes a message. `piece` is the address and the length of the bytes; `control` is the same
    /// for a struct cmsghdr and its data.
    pub fn new(piece: &[u64; 2], control: [u64; 2]) -> Self {
        let [control, control_len] = control;
        Message { name: 0, name_len: 0, iov: piece.as_ptr() as u64, iov_len: 1, control, control_len, flags: 0 }
    }
}
