//! The parts of a handle for callers that must never wait: an async runtime has other work for its
//! threads.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use super::outcome::Outcome;
use super::shared::Shared;
use super::stream::Meter;
use super::{Child, wait_and_remove, with_output_limit};
use crate::error::{Error, ErrorKind, Result, Step};

/// The descriptor that becomes readable when the program has ended.
#[derive(Debug)]
pub(crate) struct ProcessEnd(Arc<Shared>);

impl AsFd for ProcessEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.pidfd()
    }
}

impl AsRawFd for ProcessEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Child {
    /// Has the drop leave everything but the kill to the watching thread.
    pub(crate) fn hurry(&mut self) {
        self.hurries = true;
    }

    /// Returns the descriptor that tells of the end.
    pub(crate) fn process_end(&self) -> Result<ProcessEnd> {
        self.shared().map(|shared| ProcessEnd(shared.clone()))
    }

    /// Returns the meter of the program's output, if the output has a limit.
    pub(crate) fn meter(&self) -> Option<&Meter> {
        self.meter.as_deref()
    }

    /// Returns a wait for another thread, with the result of [`Child::wait`].
    pub(crate) fn waiter(&self) -> Result<impl FnOnce() -> Result<Outcome> + Send + 'static> {
        let (shared, meter) = (self.shared()?.clone(), self.meter.clone());
        Ok(move || {
            let ended = wait_and_remove(&shared, None)?;
            ended.map(|outcome| with_output_limit(meter.as_deref(), outcome)).ok_or_else(|| {
                Error::message(ErrorKind::Control, Step::Wait, "the wait returned before the program ended")
            })
        })
    }
}
