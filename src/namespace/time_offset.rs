//! The offsets of a time namespace: time_namespaces(7).

use std::time::Duration;

/// A clock's distance from the host's, in a time namespace.
///
/// ```
/// use ringfence::{Sandbox, TimeOffset};
/// use std::time::Duration;
///
/// # let sandbox = Sandbox::new();
/// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
/// let year = TimeOffset::Ahead(Duration::from_secs(365 * 86_400));
/// let sandbox = sandbox.time_ns().boottime_offset(year);
/// let output = sandbox.command("cat").arg("/proc/uptime").output()?;
/// let text = String::from_utf8_lossy(&output.stdout);
/// let uptime: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
/// assert!(uptime >= 365.0 * 86_400.0);
/// # Ok::<(), ringfence::Error>(())
/// ```
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
