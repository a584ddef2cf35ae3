//! How long poll(2) is to wait.

use std::time::Instant;

use nix::poll::PollTimeout;

/// The time until `until` in whole milliseconds, rounded up so that the last fraction is slept and not spun away.
pub(crate) fn until(until: Instant) -> PollTimeout {
    let left = until.saturating_duration_since(Instant::now());
    let millis = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}
