//! The count of further programs, and the descriptor that wakes those who watch it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::Result;
use crate::sys::mutex;

/// The further programs in a sandbox that this process has started.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    count: AtomicU64,
    /// Rings at each start, once somebody watches. It stays readable: watchers look at its edges.
    bell: Mutex<Option<Arc<EventFd>>>,
}

impl Execs {
    /// Counts a start that has succeeded.
    pub(crate) fn note<T>(&self, started: &Result<T>) {
        if started.is_err() {
            return;
        }
        self.count.fetch_add(1, Ordering::AcqRel);
        if let Some(bell) = &*mutex::lock(&self.bell) {
            let _ = bell.write(1);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn bell(&self) -> nix::Result<Arc<EventFd>> {
        let mut bell = mutex::lock(&self.bell);
        if let Some(bell) = &*bell {
            return Ok(bell.clone());
        }
        let new = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        Ok(bell.insert(new).clone())
    }
}
