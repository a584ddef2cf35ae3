//! The reading ends of the pipes that a program writes to. They count the bytes that arrive.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::outcome::Verdict;
use super::shared::Shared;

/// The count of the bytes from stdout and stderr of one sandbox together.
#[derive(Debug)]
pub(crate) struct Meter {
    limit: u64,
    /// If true, output beyond the limit is thrown away, and no process is killed.
    cuts: bool,
    taken: AtomicU64,
    over: AtomicBool,
    shared: Weak<Shared>,
}

impl Meter {
    pub(super) fn new(limit: u64, cuts: bool, shared: &Arc<Shared>) -> Arc<Meter> {
        let (taken, over) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Meter { limit, cuts, taken, over, shared: Arc::downgrade(shared) })
    }

    /// Returns true if more bytes came than the limit allows.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Returns true if the limit ended the program.
    pub(crate) fn has_ended_program(&self) -> bool {
        !self.cuts && self.is_over()
    }

    /// Counts `count` bytes, and returns how many of them may be passed on. `None` means that all
    /// of them are thrown away, and that the stream goes on.
    pub(crate) fn pass(&self, count: usize) -> Option<usize> {
        let before = self.taken.fetch_add(count as u64, Ordering::AcqRel);
        let kept = usize::try_from(self.limit.saturating_sub(before)).unwrap_or(usize::MAX).min(count);
        if kept < count {
            self.over.store(true, Ordering::Release);
            if let Some(shared) = self.shared.upgrade().filter(|_| !self.cuts) {
                // If the kill fails, no caller can be told here; wait and drop see it later.
                let _ = shared.stop(Some(Verdict::OutputLimit));
            }
        }
        (kept > 0 || !self.cuts).then_some(kept)
    }
}

/// The reading end of a program's stdout or stderr, which is a pipe, as
/// [`std::process::ChildStdout`] is.
///
/// If the sandbox has an [`output_limit`](crate::Sandbox::output_limit), the stream counts what is
/// read. Beyond the limit everything in the sandbox is killed and the stream ends; with
/// [`output_cut`](crate::Sandbox::output_cut), the rest is read and thrown away instead. The stream
/// does not count what is read through its descriptor, or after it has been turned into a
/// descriptor.
#[derive(Debug)]
pub struct OutputStream {
    pipe: PipeReader,
    meter: Option<Arc<Meter>>,
}

impl OutputStream {
    pub(super) fn new(pipe: OwnedFd, meter: Option<Arc<Meter>>) -> OutputStream {
        OutputStream { pipe: pipe.into(), meter }
    }

    /// Takes the stream apart.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_parts(self) -> (OwnedFd, Option<Arc<Meter>>) {
        (self.pipe.into(), self.meter)
    }

    /// Returns true if this stream and the other one together received more than
    /// [`output_limit`](crate::Sandbox::output_limit) allows.
    pub fn is_truncated(&self) -> bool {
        self.meter.as_ref().is_some_and(|meter| meter.is_over())
    }
}

/// Reads until bytes come that the meter passes on, or the end.
pub(super) fn read_metered(meter: Option<&Meter>, mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        let count = read()?;
        let Some(meter) = meter.filter(|_| count > 0) else { return Ok(count) };
        if let Some(kept) = meter.pass(count) {
            return Ok(kept);
        }
    }
}

impl Read for OutputStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_metered(self.meter.as_deref(), || self.pipe.read(buffer))
    }
}

impl AsFd for OutputStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl AsRawFd for OutputStream {
    fn as_raw_fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }
}

impl From<OutputStream> for OwnedFd {
    fn from(stream: OutputStream) -> OwnedFd {
        stream.pipe.into()
    }
}

impl From<OutputStream> for std::process::Stdio {
    fn from(stream: OutputStream) -> std::process::Stdio {
        OwnedFd::from(stream).into()
    }
}

impl From<OutputStream> for crate::stdio::Stdio {
    fn from(stream: OutputStream) -> crate::stdio::Stdio {
        OwnedFd::from(stream).into()
    }
}
