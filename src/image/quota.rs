//! Limits on what unpacking may use: for each layer, and for all layers of an image together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tree::shown;
use crate::error::{Error, ErrorKind, Result, Step};

/// The largest sum of the names that are remembered while a layer is unpacked, in bytes.
const NAMES_MAX: u64 = 128 << 20;

/// The limits of one layer, and of all layers of an image together.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnpackLimits {
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) image_bytes: u64,
    pub(super) image_entries: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        UnpackLimits { bytes: 32 << 30, entries: 2_000_000, image_bytes: 64 << 30, image_entries: 4_000_000 }
    }
}

/// The part of an image's limits that its layers have not used yet.
#[derive(Debug)]
pub(super) struct ImageQuota {
    limits: UnpackLimits,
    bytes: AtomicU64,
    entries: AtomicU64,
}

/// The amount that one layer has used. Each item is counted before it is made.
#[derive(Debug)]
pub(super) struct LayerQuota {
    image_quota: Arc<ImageQuota>,
    /// The number of bytes that were written to files.
    pub(super) bytes: u64,
    /// The number of entries in the archive, and of the entries made beside them: whiteouts, and
    /// directories that the archive does not list.
    pub(super) entries: u64,
    names: u64,
}

impl ImageQuota {
    /// Returns what is left of `limits` when layers that are already unpacked have used `bytes` and
    /// `entries`.
    pub(super) fn new(limits: UnpackLimits, bytes: u64, entries: u64) -> ImageQuota {
        let left = |most: u64, taken| AtomicU64::new(most.saturating_sub(taken));
        ImageQuota { limits, bytes: left(limits.image_bytes, bytes), entries: left(limits.image_entries, entries) }
    }
}

fn take(from: &AtomicU64, count: u64) -> bool {
    from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).is_ok()
}

fn too_large(path: &[u8], detail: String) -> Error {
    Error::message(ErrorKind::TooLarge, Step::UnpackLayer, detail).at(shown(path))
}

impl LayerQuota {
    pub(super) fn new(image_quota: Arc<ImageQuota>) -> LayerQuota {
        LayerQuota { image_quota, bytes: 0, entries: 0, names: 0 }
    }

    /// Counts bytes before they are written.
    pub(super) fn take_bytes(&mut self, count: u64, path: &[u8]) -> Result<()> {
        let limits = self.image_quota.limits;
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes > limits.bytes {
            let error = too_large(path, format!("more than {} bytes of files in a layer", limits.bytes));
            return Err(error.hint("allow more with Store::layer_bytes_limit()"));
        }
        if !take(&self.image_quota.bytes, count) {
            let error = too_large(path, format!("more than {} bytes of files in an image", limits.image_bytes));
            return Err(error.hint("allow more with Store::image_bytes_limit()"));
        }
        Ok(())
    }

    /// Counts entries before they are made. Each takes an inode.
    pub(super) fn take_entries(&mut self, count: u64, path: &[u8]) -> Result<()> {
        let limits = self.image_quota.limits;
        self.entries = self.entries.saturating_add(count);
        if self.entries > limits.entries {
            let error = too_large(path, format!("more than {} entries in a layer", limits.entries));
            return Err(error.hint("allow more with Store::layer_entries_limit()"));
        }
        if !take(&self.image_quota.entries, count) {
            let error = too_large(path, format!("more than {} entries in an image", limits.image_entries));
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
