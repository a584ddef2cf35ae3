//! Which layers to unpack while others are still on their way.

use std::ops::Range;
use std::time::{Duration, Instant};

use oci_spec::image::{Descriptor, Digest};

use crate::image::Image;

/// What is unpacked in a second, in compressed bytes, at least.
const UNPACKS: u64 = 100 << 20;

/// The layers of an image as they arrive. They are unpacked in waves: the lowest that are there, one wave at a time, and only
/// where it will have ended before the rest is there. Side by side all of them are faster; and as long as a layer is being
/// unpacked, whoever else needs it waits, which must not be for a network.
pub(super) struct Waves {
    pub(super) image: Image,
    there: Vec<bool>,
    begun: usize,
    running: bool,
}

impl Waves {
    /// `there` has for each of the layers whether it is unpacked.
    pub(super) fn new(image: Image, there: Vec<bool>) -> Self {
        let begun = there.iter().take_while(|unpacked| **unpacked).count();
        Waves { image, there, begun, running: false }
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = (&Digest, bool)> {
        self.image.layers().iter().map(Descriptor::digest).zip(self.there.iter().copied())
    }

    pub(super) fn arrived(&mut self, digest: &Digest) {
        for (layer, there) in self.image.layers().iter().zip(&mut self.there) {
            *there |= layer.digest() == digest;
        }
    }

    pub(super) fn ended(&mut self) {
        self.running = false;
    }

    /// Those that no wave has had.
    pub(super) fn left(&self) -> Range<usize> {
        self.begun..self.there.len()
    }

    /// The next wave, if there is one and it may begin: when all that does not arrive for another `rest`.
    pub(super) fn next(&mut self, rest: Duration) -> Option<(Image, Range<usize>)> {
        let ready = self.there.iter().take_while(|there| **there).count();
        let layers = self.begun..ready;
        let bytes =
            self.image.layers().get(layers.clone())?.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size()));
        if self.running || layers.is_empty() || rest < Duration::from_secs_f64(bytes as f64 / UNPACKS as f64) {
            return None;
        }
        self.running = true;
        self.begun = ready;
        Some((self.image.clone(), layers))
    }
}

/// How fast blobs come.
pub(super) struct Pace {
    begun: Instant,
    /// Bytes of blobs that are not whole.
    unfinished: u64,
    /// Bytes that came for those that are.
    came: u64,
}

impl Pace {
    pub(super) fn new(blobs: &[Descriptor]) -> Self {
        let unfinished = blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size()));
        Pace { begun: Instant::now(), unfinished, came: 0 }
    }

    pub(super) fn finished(&mut self, blob: &Descriptor, came: u64) {
        self.unfinished = self.unfinished.saturating_sub(blob.size());
        self.came += came;
    }

    /// For how long the rest will still come, if `arrived` bytes have until now.
    pub(super) fn rest(&self, arrived: u64) -> Duration {
        self.rest_after(arrived, self.begun.elapsed())
    }

    fn rest_after(&self, arrived: u64, elapsed: Duration) -> Duration {
        let left = self.unfinished.saturating_sub(arrived.saturating_sub(self.came));
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
        let mut pace = Pace::new(&[blob(1000), blob(3000)]);
        let rest = |pace: &Pace, arrived| pace.rest_after(arrived, Duration::from_secs(10));
        assert_eq!(rest(&pace, 1000), Duration::from_secs(30));
        pace.finished(&blob(1000), 1000);
        assert_eq!(rest(&pace, 2000), Duration::from_secs(10), "half of it is there, and a third of the other blob");
        pace.finished(&blob(3000), 3000);
        assert_eq!(rest(&pace, 4000), Duration::ZERO);
        assert_eq!(Pace::new(&[]).rest_after(0, Duration::MAX), Duration::ZERO);
        assert_eq!(Pace::new(&[blob(i64::MAX as u64)]).rest_after(0, Duration::MAX), Duration::MAX);
    }
}
