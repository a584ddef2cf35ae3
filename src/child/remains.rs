//! What is left of a sandbox when its program has ended, and what somebody else takes away.

use std::os::fd::OwnedFd;

/// A descriptor that is handed over when this is dropped.
#[derive(Debug)]
pub(crate) struct Remains {
    fd: Option<OwnedFd>,
    undertaker: fn(OwnedFd),
}

impl Remains {
    pub(crate) fn new(fd: OwnedFd, undertaker: fn(OwnedFd)) -> Self {
        Remains { fd: Some(fd), undertaker }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.fd.take().into_iter().for_each(self.undertaker);
    }
}
