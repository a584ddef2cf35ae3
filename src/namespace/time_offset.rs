//! The offsets of a time namespace: time_namespaces(7).

use std::time::Duration;

/// A clock's distance from the host's, in a time namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeOffset {
    /// The clock is ahead of the host's.
    Ahead(Duration),
    /// The clock is behind the host's. It cannot fall below zero: at most the host's uptime.
    Behind(Duration),
}

impl TimeOffset {
    /// Returns the offset as `/proc/PID/timens_offsets` takes it: seconds that may be negative, and
    /// nanoseconds that are not.
    pub(super) fn text(self) -> String {
        match self {
            TimeOffset::Ahead(by) => format!("{} {}", by.as_secs(), by.subsec_nanos()),
            TimeOffset::Behind(by) if by.subsec_nanos() == 0 => format!("-{} 0", by.as_secs()),
            TimeOffset::Behind(by) => {
                format!("-{} {}", by.as_secs().saturating_add(1), 1_000_000_000 - by.subsec_nanos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_offsets_have_positive_nanoseconds() {
        assert_eq!(TimeOffset::Ahead(Duration::new(3, 5)).text(), "3 5");
        assert_eq!(TimeOffset::Behind(Duration::new(3, 0)).text(), "-3 0");
        assert_eq!(TimeOffset::Behind(Duration::new(3, 250_000_000)).text(), "-4 750000000");
    }
}
