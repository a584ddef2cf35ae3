//! The clock of the wall time limit.

use std::time::{Duration, Instant};

/// The wall time of a sandbox, as far as it counts against the limit: time for which the caller has
/// frozen the sandbox does not.
#[derive(Debug)]
pub(super) struct WallClock {
    /// The start of the program, moved by the time that does not count.
    start: Instant,
    limit: Option<Duration>,
    frozen_since: Option<Instant>,
}

/// The answer to whether the wall time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Over,
    /// Not before this time.
    Until(Instant),
    /// There is no limit, or the clock stands still.
    Unknown,
}

impl WallClock {
    pub(super) fn new(start: Instant, limit: Option<Duration>) -> Self {
        WallClock { start, limit, frozen_since: None }
    }

    /// Returns whether the time is over.
    pub(super) fn left(&self, now: Instant) -> Left {
        match self.limit.map(|limit| self.start.checked_add(limit)) {
            Some(Some(end)) if self.frozen_since.is_none() => {
                if now >= end {
                    Left::Over
                } else {
                    Left::Until(end)
                }
            }
            _ => Left::Unknown,
        }
    }

    /// Sets the limit, which counts from the start of the program.
    pub(super) fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// Stops the clock.
    pub(super) fn freeze(&mut self, now: Instant) {
        self.frozen_since.get_or_insert(now);
    }

    /// Lets the clock go on.
    pub(super) fn thaw(&mut self, now: Instant) {
        if let Some(since) = self.frozen_since.take() {
            self.start += now.saturating_duration_since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_pass_while_the_clock_stands_still() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut clock = WallClock::new(start, Some(Duration::from_secs(10)));
        assert_eq!(clock.left(after(9)), Left::Until(after(10)));
        assert_eq!(clock.left(after(10)), Left::Over);
        clock.freeze(after(4));
        clock.freeze(after(5));
        assert_eq!(clock.left(after(100)), Left::Unknown);
        clock.thaw(after(104));
        clock.thaw(after(200));
        assert_eq!(clock.left(after(109)), Left::Until(after(110)));
        clock.set_limit(Some(Duration::from_secs(5)));
        assert_eq!(clock.left(after(105)), Left::Over);
        clock.set_limit(None);
        assert_eq!(clock.left(after(1000)), Left::Unknown);
        clock.set_limit(Some(Duration::MAX));
        assert_eq!(clock.left(after(1000)), Left::Unknown);
    }
}
