//! A line of `key=value` pairs with commas between them, in which values stand for later processes.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The most pairs of a line.
const PAIRS_MAX: usize = 512;

/// A line that is being written.
#[derive(Debug, Default)]
pub(crate) struct Writer(String);

impl Writer {
    /// Begins a line with a word that is no pair.
    pub(crate) fn new(first: &str) -> Self {
        Writer(first.to_owned())
    }

    /// Adds a pair, whose value has no comma.
    pub(crate) fn put(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a string never fails.
        let _ = write!(self.0, ",{key}={value}");
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// A line that is being read. A pair is taken out of it, so that one that nobody knows is found.
#[derive(Debug)]
pub(crate) struct Reader<'t>(BTreeMap<&'t str, Vec<&'t str>>);

impl<'t> Reader<'t> {
    /// Reads a line that begins with this word.
    pub(crate) fn new(text: &'t str, first: &str) -> Option<Self> {
        let mut words = text.split(',');
        if words.next() != Some(first) {
            return None;
        }
        let mut pairs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (number, word) in words.enumerate() {
            let (key, value) = word.split_once('=').filter(|_| number < PAIRS_MAX)?;
            pairs.entry(key).or_default().push(value);
        }
        Some(Reader(pairs))
    }

    /// Takes the values of a key that may stand any number of times.
    pub(crate) fn all(&mut self, key: &str) -> Vec<&'t str> {
        self.0.remove(key).unwrap_or_default()
    }

    /// Takes the value of a key that may be missing. Fails if it stands more than once, or `parse`
    /// refuses it.
    pub(crate) fn maybe<T>(&mut self, key: &str, parse: impl FnOnce(&'t str) -> Option<T>) -> Option<Option<T>> {
        match self.all(key)[..] {
            [] => Some(None),
            [value] => parse(value).map(Some),
            _ => None,
        }
    }

    /// Takes the value of a key that must stand once.
    pub(crate) fn one<T>(&mut self, key: &str, parse: impl FnOnce(&'t str) -> Option<T>) -> Option<T> {
        self.maybe(key, parse)?
    }

    /// Takes a key that says something by being there.
    pub(crate) fn flag(&mut self, key: &str) -> Option<bool> {
        self.maybe(key, |value| (value == "1").then_some(())).map(|found| found.is_some())
    }

    /// Returns whether every pair has been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns a number in decimal digits and nothing else.
pub(crate) fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Returns a number in decimal digits, with a minus before them if it is below zero.
pub(crate) fn signed(text: &str) -> Option<i32> {
    match text.strip_prefix('-') {
        Some(digits) => number::<i32>(digits).map(|below| -below),
        None => number(text),
    }
}

/// Returns a number in hexadecimal digits and nothing else.
pub(crate) fn hex(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(text, 16).ok())?
}

/// Writes bytes so that only letters, digits and `/._-` stay as they are.
pub(crate) fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
        text
    })
}

/// Reads what [`escape`] has written, and nothing else.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            hex(str::from_utf8(&digits).ok()?)?.try_into().ok()?
        } else {
            byte
        };
        bytes.push(byte);
    }
    (escape(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut writer = Writer::new("x1");
        writer.put("a", 7);
        writer.put("path", escape(b"/a b,c=\xff%"));
        let text = writer.finish();
        assert_eq!(text, "x1,a=7,path=/a%20b%2cc%3d%ff%25");
        let mut reader = Reader::new(&text, "x1").unwrap();
        assert_eq!(reader.one("a", number::<u8>), Some(7));
        assert!(!reader.is_empty());
        assert_eq!(reader.one("path", unescape).unwrap(), b"/a b,c=\xff%");
        assert!(reader.is_empty());
        assert_eq!(reader.maybe("b", number::<u8>), Some(None));
        assert_eq!(reader.one("b", number::<u8>), None);
    }

    #[test]
    fn what_nobody_has_written_is_refused() {
        for text in ["%", "%4", "%41", "%FF", "%+f", " ", "é"] {
            assert_eq!(unescape(text), None, "{text}");
        }
        assert!(Reader::new("x2,a=1", "x1").is_none() && Reader::new("x1,a", "x1").is_none());
        assert!(Reader::new(&format!("x1{}", ",a=1".repeat(PAIRS_MAX + 1)), "x1").is_none());
        assert_eq!(Reader::new("x1,a=1,a=2", "x1").unwrap().one("a", number::<u8>), None);
        for text in ["", "+1", "-1", " 1", "1 ", "300"] {
            assert_eq!(number::<u8>(text), None, "{text}");
        }
        assert_eq!(
            ["-20", "0", "--1", "-", "- 1", "-2147483648"].map(signed),
            [Some(-20), Some(0), None, None, None, None]
        );
        assert!(hex("+1").is_none() && hex("").is_none() && hex("10000000000000000").is_none());
    }
}
