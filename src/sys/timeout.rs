//! Timeouts for poll(2).

use std::time::Instant;

use nix::poll::PollTimeout;

/// Returns the time left until `until` in whole milliseconds, rounded up: the thread sleeps through
/// the last fraction of a millisecond, and does not spin.
pub(crate) fn until(until: Instant) -> PollTimeout {
    let left = until.saturating_duration_since(Instant::now());
    let millis = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}
