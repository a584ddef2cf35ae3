//! Decides which layers to unpack while others are still downloaded.

use std::ops::Range;
use std::time::{Duration, Instant};

use oci_spec::image::{Descriptor, Digest};

use crate::image::Image;

/// The lowest speed at which layers are unpacked, in compressed bytes a second.
const UNPACK_SPEED: u64 = 100 << 20;

/// The layers of an image as they arrive. They are unpacked in batches: a batch has the lowest
/// layers that have arrived, only one batch runs at a time, and it starts only if it is expected to
/// end before the last download. Otherwise, unpacking all layers in parallel at the end is faster;
/// and other processes that need a layer wait while it is unpacked, which must not depend on the
/// network.
pub(super) struct UnpackSchedule {
    pub(super) image: Image,
    there: Vec<bool>,
    started: usize,
    running: bool,
}

impl UnpackSchedule {
    /// Creates the list. `there` says for each layer whether it is unpacked already.
    pub(super) fn new(image: Image, there: Vec<bool>) -> Self {
        let started = there.iter().take_while(|unpacked| **unpacked).count();
        UnpackSchedule { image, there, started, running: false }
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = (&Digest, bool)> {
        self.image.layers().iter().map(Descriptor::digest).zip(self.there.iter().copied())
    }

    pub(super) fn layer_arrived(&mut self, digest: &Digest) {
        for (layer, there) in self.image.layers().iter().zip(&mut self.there) {
            *there |= layer.digest() == digest;
        }
    }

    pub(super) fn batch_ended(&mut self) {
        self.running = false;
    }

    /// Returns the layers that no batch has included.
    pub(super) fn not_started(&self) -> Range<usize> {
        self.started..self.there.len()
    }

    /// Returns the next batch, if one may start. `rest` is the expected time until the last
    /// download ends.
    pub(super) fn next_batch(&mut self, rest: Duration) -> Option<(Image, Range<usize>)> {
        let ready = self.there.iter().take_while(|there| **there).count();
        let layers = self.started..ready;
        let bytes =
            self.image.layers().get(layers.clone())?.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size()));
        if self.running || layers.is_empty() || rest < Duration::from_secs_f64(bytes as f64 / UNPACK_SPEED as f64) {
            return None;
        }
        self.running = true;
        self.started = ready;
        Some((self.image.clone(), layers))
    }
}

/// The speed of the downloads.
pub(super) struct DownloadSpeed {
    begun: Instant,
    /// The total size of the blobs that are not complete.
    unfinished: u64,
    /// The number of bytes that came for complete blobs.
    completed: u64,
}

impl DownloadSpeed {
    pub(super) fn new(blobs: &[Descriptor]) -> Self {
        let unfinished = blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size()));
        DownloadSpeed { begun: Instant::now(), unfinished, completed: 0 }
    }

    pub(super) fn finished(&mut self, blob: &Descriptor, completed: u64) {
        self.unfinished = self.unfinished.saturating_sub(blob.size());
        self.completed += completed;
    }

    /// Returns the expected time until the last download ends, if `arrived` bytes have come so far.
    pub(super) fn rest(&self, arrived: u64) -> Duration {
        self.rest_after(arrived, self.begun.elapsed())
    }

    fn rest_after(&self, arrived: u64, elapsed: Duration) -> Duration {
        let left = self.unfinished.saturating_sub(arrived.saturating_sub(self.completed));
        let seconds = elapsed.as_secs_f64() * left as f64 / arrived.max(1) as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::MediaType;

    #[test]
    fn the_rest_takes_as_long_as_what_came() {
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let blob = |size| Descriptor::new(MediaType::ImageLayer, size, digest.clone());
        let mut speed = DownloadSpeed::new(&[blob(1000), blob(3000)]);
        let rest = |speed: &DownloadSpeed, arrived| speed.rest_after(arrived, Duration::from_secs(10));
        assert_eq!(rest(&speed, 1000), Duration::from_secs(30));
        speed.finished(&blob(1000), 1000);
        assert_eq!(rest(&speed, 2000), Duration::from_secs(10), "half of it is there, and a third of the other blob");
        speed.finished(&blob(3000), 3000);
        assert_eq!(rest(&speed, 4000), Duration::ZERO);
        assert_eq!(DownloadSpeed::new(&[]).rest_after(0, Duration::MAX), Duration::ZERO);
        assert_eq!(DownloadSpeed::new(&[blob(i64::MAX as u64)]).rest_after(0, Duration::MAX), Duration::MAX);
    }
}
