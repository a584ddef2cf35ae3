//! Amounts with a unit in their type.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

/// An amount of memory or data in bytes.
///
/// ```
/// use ringfence::Bytes;
///
/// assert_eq!(Bytes::mib(64), Bytes::from(64 << 20));
/// assert_eq!("64M".parse::<Bytes>().unwrap(), Bytes::mib(64));
/// assert_eq!(Bytes::mib(64).to_string(), "64.0 MiB");
/// assert_eq!(Bytes::mib(64) + Bytes::kib(512), "64.5 MiB".parse().unwrap());
/// ```
///
/// Sums saturate. [`Display`](fmt::Display) rounds to a tenth of the unit, and its output can be
/// parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(u64);

impl Bytes {
    /// The greatest amount. As a limit of [`Limits`](crate::Limits) it means that there is none:
    /// `max` on cgroup v2, `-1` on v1.
    pub const MAX: Bytes = Bytes(u64::MAX);

    /// Returns `n` bytes.
    pub const fn new(n: u64) -> Self {
        Bytes(n)
    }

    /// Returns `n` bytes, where `n` is a length. There is no `From<usize>`: with a second `From`,
    /// the compiler would infer `i32` for a literal, as in `memory_limit(64 << 20)`.
    pub const fn from_usize(n: usize) -> Self {
        // All targets of this crate have a usize of at most 64 bits.
        Bytes(n as u64)
    }

    /// Returns `n` KiB (1024 bytes), saturating.
    pub const fn kib(n: u64) -> Self {
        Bytes(n.saturating_mul(1 << 10))
    }

    /// Returns `n` MiB (1024 KiB), saturating.
    pub const fn mib(n: u64) -> Self {
        Bytes(n.saturating_mul(1 << 20))
    }

    /// Returns `n` GiB (1024 MiB), saturating.
    pub const fn gib(n: u64) -> Self {
        Bytes(n.saturating_mul(1 << 30))
    }

    /// Returns the number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Bytes {
    fn from(n: u64) -> Self {
        Bytes(n)
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

impl Add for Bytes {
    type Output = Bytes;

    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        *self = *self + other;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(all: I) -> Bytes {
        all.fold(Bytes(0), Add::add)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = "B";
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        if unit == "B" { write!(f, "{} B", self.0) } else { write!(f, "{value:.1} {unit}") }
    }
}

/// An error for a text that is not an amount. An amount is a number with an optional suffix K, M, G
/// or T (powers of 1024). With a suffix, the number may have decimals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of bytes: write a number, with K, M, G or T for powers of 1024")]
pub struct ParseBytesError(String);

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, ParseBytesError> {
        let upper = text.trim().to_ascii_uppercase();
        let number = upper.trim_end_matches("IB").trim_end_matches('B');
        let (digits, shift) = match number.strip_suffix(['K', 'M', 'G', 'T']) {
            Some(digits) => (digits, 10 * (1 + "KMGT".find(&number[digits.len()..]).unwrap_or(0) as u32)),
            None => (number, 0),
        };
        parse_scaled(digits.trim_end(), shift).map(Bytes).ok_or_else(|| ParseBytesError(text.to_owned()))
    }
}

/// Parses `digits` as a multiple of `1 << shift`. Decimals are accepted if there is a unit.
fn parse_scaled(digits: &str, shift: u32) -> Option<u64> {
    let (whole, decimals) = match digits.split_once('.') {
        Some((whole, decimals)) if shift > 0 => (whole, Some(decimals)),
        Some(_) => return None,
        None => (digits, None),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !decimals.is_none_or(is_number) {
        return None;
    }
    let fraction = match decimals {
        // The fraction is below one, so the product is below the unit, which a f64 represents
        // exactly.
        Some(decimals) => (format!("0.{decimals}").parse::<f64>().ok()? * (1u64 << shift) as f64).round() as u64,
        None => 0,
    };
    whole.parse::<u64>().ok()?.checked_mul(1 << shift)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        crate::fuzz::texts(&["64MiB", "4k", "0", "18446744073709551615", "ib"], |text| drop(text.parse::<Bytes>()));
    }

    #[test]
    fn sizes_are_read_with_powers_of_1024() {
        for (text, want) in
            [("0", 0), ("512", 512), ("4k", 4096), ("64MiB", 64 << 20), ("1G", 1 << 30), ("2 ", 2), ("1.5G", 3 << 29)]
        {
            assert_eq!(text.parse::<Bytes>().unwrap().get(), want, "{text}");
        }
    }

    #[test]
    fn what_is_displayed_can_be_read() {
        for n in [0, 1023, 1024, 1536, 100_000_000, 64 << 20, 5 << 40, u64::MAX >> 1] {
            let shown = Bytes(n).to_string();
            let read: Bytes = shown.parse().unwrap();
            assert_eq!(read.to_string(), shown);
            assert!(read.get().abs_diff(n) <= n / 20, "{shown}");
        }
    }

    #[test]
    fn sums_saturate() {
        let all = [Bytes(u64::MAX), Bytes(1)];
        assert_eq!(all.into_iter().sum::<Bytes>(), Bytes(u64::MAX));
        assert_eq!(Bytes::from_usize(3) + Bytes(4), Bytes(7));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "M",
            "-1",
            "1.5",
            "1.G",
            ".5G",
            "1.5.5G",
            "0x10",
            "1KK",
            "99999999999999999999",
            "18446744073709551615K",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
