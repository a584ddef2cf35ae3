//! Events of a pull or push.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The shortest time between two events for one blob in transfer.
pub(super) const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

/// An event of a pull or push. Blobs are identified by their digest.
///
/// Events of different blobs are interleaved, and come from several threads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The manifests are known, and the transfer of blobs starts.
    Resolved {
        /// The digest of the manifest or index that the reference refers to.
        digest: String,
        /// The number of blobs: layers and configurations, of all platforms that are pulled.
        blobs: usize,
        /// The total size of the blobs in bytes, as stored in the registry.
        bytes: u64,
    },
    /// A blob need not be transferred.
    Present {
        /// The digest of the blob.
        digest: String,
        /// The size of the blob in bytes.
        size: u64,
        /// The reason.
        because: Present,
    },
    /// A blob is being transferred. The first event of a blob gives the bytes that an earlier,
    /// interrupted pull left. Further events come about ten times a second, and at the end, with
    /// `done == size`.
    Moved {
        /// The digest of the blob.
        digest: String,
        /// The number of bytes transferred so far.
        done: u64,
        /// The size of the blob in bytes.
        size: u64,
    },
    /// A blob was transferred, and its digest is correct.
    Complete {
        /// The digest of the blob.
        digest: String,
        /// The size of the blob in bytes.
        size: u64,
    },
    /// A layer was unpacked.
    Unpacked {
        /// The digest of the layer's blob.
        digest: String,
    },
    /// A request failed, and will be retried after a pause.
    Retry {
        /// The object of the request.
        name: String,
        /// The number of the retry, starting at 1.
        attempt: u32,
        /// The pause before the retry.
        wait: Duration,
        /// The reason for the failure.
        reason: String,
    },
    /// A mirror does not have the image or cannot be used, and the next source is tried.
    Elsewhere {
        /// The image's name at the failed mirror.
        place: String,
        /// The reason for the failure.
        reason: String,
    },
    /// The pull or push is complete.
    Finished(PullTimings),
}

/// The reason that a blob was not transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Present {
    /// The blob was already in the store, or in the registry's repository.
    Already,
    /// The layer was already unpacked.
    Unpacked,
    /// The registry mounted the blob from another of its repositories.
    Mounted,
}

/// The wall-clock durations of the phases, which overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullTimings {
    /// The time until the manifests were known, including authorization.
    pub resolve: Duration,
    /// The time from then until the last blob was transferred.
    pub blobs: Duration,
    /// The time from the first complete layer until the last one was unpacked. Zero if nothing was
    /// unpacked.
    pub unpack: Duration,
    /// The total time.
    pub total: Duration,
    /// The number of bytes of blobs that went over the network.
    pub moved: u64,
}

/// The listener for events, if there is one.
#[derive(Clone, Default)]
pub(super) struct Progress(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(told)" } else { "Progress" })
    }
}

impl Progress {
    pub(super) fn new(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Progress(Some(Arc::new(listener)))
    }

    pub(super) fn send(&self, event: impl FnOnce() -> Event) {
        if let Some(listener) = &self.0 {
            listener(event());
        }
    }
}
