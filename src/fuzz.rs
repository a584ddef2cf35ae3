//! Hostile input for the parsers, in the tests of each: texts that begin as real ones and are
//! changed at random. A parser may refuse what it likes; it may not panic, nor take long.
//!
//! A quarter of a second each, or `RINGFENCE_FUZZ_SECONDS`. What a parser fell over is printed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// More than any parser needs for the longest text, on a busy machine as well.
const LONGEST: Duration = Duration::from_secs(2);
const SIZE_MAX: usize = 64 << 10;
/// Where parsers differ in what they believe.
const TOKENS: [&str; 28] = [
    "0",
    "1",
    "-1",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "99999999999999999999",
    "1e400",
    "0x10",
    ":",
    ",",
    "-",
    "=",
    " ",
    "\n",
    "\0",
    "\\",
    "\\0",
    "\\777",
    "\"",
    "{",
    "}",
    "[",
    "]",
    "..",
    "/",
    "\u{fffd}",
    "ı",
];

struct Random(u64);

impl Random {
    /// xorshift64*.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }
}

/// One change to `text`; `other` is what may be taken from.
fn change(text: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let (from, len) = (random.below(text.len() + 1), random.below(16));
    let to = (from + len).min(text.len());
    match random.below(7) {
        0 => drop(text.drain(from..to)),
        1 => drop(text.splice(from..to, TOKENS[random.below(TOKENS.len())].bytes())),
        2 if !text.is_empty() => {
            let at = random.below(text.len());
            text[at] ^= 1 << random.below(8);
        }
        3 => {
            let piece = text[from..].to_vec();
            text.splice(from..from, piece);
        }
        4 => text.truncate(from),
        5 => {
            let start = random.below(other.len() + 1);
            text.splice(from..to, other[start..].iter().copied());
        }
        _ => {
            let piece = text[from..to].repeat(random.below(600));
            text.splice(from..from, piece);
        }
    }
    text.truncate(SIZE_MAX);
}

/// Gives `parse` ever other changes of the texts in `corpus`, and says how many there were.
pub(crate) fn bytes(corpus: &[&[u8]], parse: impl Fn(&[u8])) -> u64 {
    let seconds = std::env::var("RINGFENCE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    // Short runs are all the same; long ones differ.
    let clock =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let mut random = Random(if seconds.is_some() { clock | 1 } else { 0x9e37_79b9_7f4a_7c15 });
    let until = Instant::now() + seconds.map_or(Duration::from_millis(250), Duration::from_secs);
    let mut count = 0;
    while count < 64 || Instant::now() < until {
        let (text, other) = (corpus[random.below(corpus.len())], corpus[random.below(corpus.len())]);
        let mut text = text.to_vec();
        for _ in 0..random.below(8) {
            change(&mut text, other, &mut random);
        }
        let start = Instant::now();
        let fell = catch_unwind(AssertUnwindSafe(|| parse(&text))).is_err();
        let took = start.elapsed();
        let shown = || String::from_utf8_lossy(&text[..text.len().min(4096)]).into_owned();
        assert!(!fell, "it panicked over {:?}", shown());
        assert!(took < LONGEST, "it took {took:?} for {:?}", shown());
        count += 1;
    }
    count
}

/// The same for a parser of texts.
pub(crate) fn texts(corpus: &[&str], parse: impl Fn(&str)) -> u64 {
    let corpus: Vec<&[u8]> = corpus.iter().map(|text| text.as_bytes()).collect();
    bytes(&corpus, |text| parse(&String::from_utf8_lossy(text)))
}

/// A parser that falls over a number beyond its type is found.
#[test]
#[should_panic(expected = "it panicked over")]
fn what_falls_over_is_found() {
    let sum = |text: &str| {
        text.split(' ').filter_map(|word| word.parse::<u32>().ok()).fold(0u32, |sum, n| sum.checked_add(n).unwrap())
    };
    // Within the changes that are made however slow the machine is.
    texts(&["3 4 4000000000"], |text| assert!(sum(text) < u32::MAX));
}

#[test]
#[should_panic(expected = "it took")]
fn what_takes_long_is_found() {
    texts(&["a"], |_| std::thread::sleep(LONGEST + Duration::from_millis(1)));
}
