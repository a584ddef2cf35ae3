//! Amounts with a unit in their type.

use std::fmt;
use std::str::FromStr;

/// An amount of memory or of data, in bytes.
///
/// ```
/// use ringfence::Bytes;
///
/// assert_eq!(Bytes::mib(64), Bytes::from(64 << 20));
/// assert_eq!("64M".parse::<Bytes>().unwrap(), Bytes::mib(64));
/// assert_eq!(Bytes::mib(64).to_string(), "64.0 MiB");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(u64);

impl Bytes {
    /// `n` bytes.
    pub const fn new(n: u64) -> Self {
        Bytes(n)
    }

    /// `n` KiB (1024 bytes), saturating.
    pub const fn kib(n: u64) -> Self {
        Bytes(n.saturating_mul(1 << 10))
    }

    /// `n` MiB, saturating.
    pub const fn mib(n: u64) -> Self {
        Bytes(n.saturating_mul(1 << 20))
    }

    /// `n` GiB, saturating.
    pub const fn gib(n: u64) -> Self {
        Bytes(n.saturating_mul(1 << 30))
    }

    /// The amount as a plain number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Bytes {
    fn from(n: u64) -> Self {
        Bytes(n)
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

/// The text is no amount: it wants a whole number with an optional suffix K, M, G or T (powers of 1024).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no amount of bytes: write a whole number, with K, M, G or T for powers of 1024")]
pub struct ParseBytesError(String);

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, ParseBytesError> {
        let error = || ParseBytesError(text.to_owned());
        let upper = text.trim().to_ascii_uppercase();
        let number = upper.trim_end_matches("IB").trim_end_matches('B');
        let (digits, shift) = match number.strip_suffix(['K', 'M', 'G', 'T']) {
            Some(digits) => (digits, 10 * (1 + "KMGT".find(&number[digits.len()..]).unwrap_or(0) as u32)),
            None => (number, 0),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let value: u64 = digits.parse().map_err(|_| error())?;
        value.checked_mul(1 << shift).map(Bytes).ok_or_else(error)
    }
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
        for (text, want) in [("0", 0), ("512", 512), ("4k", 4096), ("64MiB", 64 << 20), ("1G", 1 << 30), ("2 ", 2)] {
            assert_eq!(text.parse::<Bytes>().unwrap().get(), want, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "M", "-1", "1.5G", "0x10", "1KK", "99999999999999999999", "18446744073709551615K"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
