//! The lock that keeps a store from being pruned.

use std::fs::File;
use std::sync::Arc;

use nix::fcntl::Flock;

/// A guard that keeps [`prune`](super::Store::prune) from running while it lives, for callers that
/// write blobs first and tag them later. Clones share one lock.
#[derive(Debug, Clone)]
pub struct Hold {
    pub(super) _lock: Arc<Flock<File>>,
}
