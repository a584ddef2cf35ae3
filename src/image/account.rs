//! What unpacking may take: of each layer, and of all layers of an image together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::unpack::shown;
use crate::error::{Error, ErrorKind, Result, Step};

/// Bytes of names that are kept until a layer stands.
const NAMES_MAX: u64 = 128 << 20;

/// What a layer may take, and an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) image_bytes: u64,
    pub(super) image_entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { bytes: 32 << 30, entries: 2_000_000, image_bytes: 64 << 30, image_entries: 4_000_000 }
    }
}

/// What is left for all layers of an image.
#[derive(Debug)]
pub(super) struct Budget {
    bounds: Bounds,
    bytes: AtomicU64,
    entries: AtomicU64,
}

/// What a layer has taken. Each thing is counted before it is made.
#[derive(Debug)]
pub(super) struct Account {
    budget: Arc<Budget>,
    /// Bytes that were written to files.
    pub(super) bytes: u64,
    /// Entries of the archive, and what had to be made beside them: directories that it does not tell about, whiteouts.
    pub(super) entries: u64,
    names: u64,
}

impl Budget {
    /// `bytes` and `entries` are those of layers that are there already.
    pub(super) fn new(bounds: Bounds, bytes: u64, entries: u64) -> Budget {
        let left = |most: u64, taken| AtomicU64::new(most.saturating_sub(taken));
        Budget { bounds, bytes: left(bounds.image_bytes, bytes), entries: left(bounds.image_entries, entries) }
    }
}

fn take(from: &AtomicU64, count: u64) -> bool {
    from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).is_ok()
}

fn too_large(path: &[u8], detail: String) -> Error {
    Error::message(ErrorKind::TooLarge, Step::UnpackLayer, detail).at(shown(path))
}

impl Account {
    pub(super) fn new(budget: Arc<Budget>) -> Account {
        Account { budget, bytes: 0, entries: 0, names: 0 }
    }

    /// Counts bytes that will be written.
    pub(super) fn take_bytes(&mut self, count: u64, path: &[u8]) -> Result<()> {
        let bounds = self.budget.bounds;
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes > bounds.bytes {
            let error = too_large(path, format!("more than {} bytes of files in a layer", bounds.bytes));
            return Err(error.hint("allow more with Store::layer_bytes_limit()"));
        }
        if !take(&self.budget.bytes, count) {
            let error = too_large(path, format!("more than {} bytes of files in an image", bounds.image_bytes));
            return Err(error.hint("allow more with Store::image_bytes_limit()"));
        }
        Ok(())
    }

    /// Counts what takes an inode.
    pub(super) fn take_entries(&mut self, count: u64, path: &[u8]) -> Result<()> {
        let bounds = self.budget.bounds;
        self.entries = self.entries.saturating_add(count);
        if self.entries > bounds.entries {
            let error = too_large(path, format!("more than {} entries in a layer", bounds.entries));
            return Err(error.hint("allow more with Store::layer_entries_limit()"));
        }
        if !take(&self.budget.entries, count) {
            let error = too_large(path, format!("more than {} entries in an image", bounds.image_entries));
            return Err(error.hint("allow more with Store::image_entries_limit()"));
        }
        Ok(())
    }

    /// Counts a name that is remembered.
    pub(super) fn take_names(&mut self, bytes: u64, path: &[u8]) -> Result<()> {
        self.names += bytes;
        if self.names > NAMES_MAX {
            let detail = format!("names of directories, links and whiteouts of more than {NAMES_MAX} bytes");
            return Err(too_large(path, detail));
        }
        Ok(())
    }
}
