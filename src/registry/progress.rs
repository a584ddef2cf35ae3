//! What a pull or a push tells while it goes on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Between two events of one blob that moves.
pub(super) const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

/// Something that happened during a pull or a push. Blobs are named by their digest.
///
/// Events of different blobs interleave, and come from several threads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It is known what there is to do.
    Resolved {
        /// The digest that the reference stands for: of a manifest, or of an index.
        digest: String,
        /// How many blobs it takes: layers and configurations, of all platforms asked for.
        blobs: usize,
        /// What they have in bytes, as they are in the registry.
        bytes: u64,
    },
    /// A blob need not be moved.
    Present {
        /// The blob.
        digest: String,
        /// Its bytes.
        size: u64,
        /// Why not.
        because: Present,
    },
    /// A blob is on its way. The first of these for a blob has what was there before, of an earlier pull that broke off;
    /// then they come about ten times a second, and at the end, with `done == size`.
    Moved {
        /// The blob.
        digest: String,
        /// How many of its bytes are there.
        done: u64,
        /// All of its bytes.
        size: u64,
    },
    /// A blob has arrived, and its digest is right.
    Complete {
        /// The blob.
        digest: String,
        /// Its bytes.
        size: u64,
    },
    /// A layer has been unpacked.
    Unpacked {
        /// The blob.
        digest: String,
    },
    /// Something failed, and is tried again after a wait.
    Retry {
        /// What was asked for.
        name: String,
        /// 1 for the first time that it is tried again.
        attempt: u32,
        /// How long it waits before.
        wait: Duration,
        /// What failed.
        reason: String,
    },
    /// A mirror does not have it, or cannot be used: the next place is asked.
    Elsewhere {
        /// The image's name there.
        place: String,
        /// What failed.
        reason: String,
    },
    /// All is done.
    Finished(Timings),
}

/// Why a blob was not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Present {
    /// It was in the store, or in the registry's repository.
    Already,
    /// Its layer had been unpacked before.
    Unpacked,
    /// The registry took it from another of its repositories: a cross-repository mount.
    Mounted,
}

/// How long the phases took, by the wall clock. They overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Until it was known what there is to do: authorization and manifests.
    pub resolve: Duration,
    /// From then until the last blob was there.
    pub blobs: Duration,
    /// From the first layer that was complete until the last was unpacked; zero where nothing was unpacked.
    pub unpack: Duration,
    /// All of it.
    pub total: Duration,
    /// Bytes that went over the network as blobs.
    pub moved: u64,
}

/// Who is told.
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

    pub(super) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(listener) = &self.0 {
            listener(event());
        }
    }
}
