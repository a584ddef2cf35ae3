//! The entries of a tar stream, one after another, from bytes that nobody has vouched for.
//!
//! The crate `tar-core` understands the formats (ustar, GNU, pax, sparse files); what is here feeds it, bounds it, and hands
//! the contents out without copying them.

use std::io::{self, BufRead, Write};

use tar_core::parse::{Limits, ParseError, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, Header, PaxExtensions};

const BLOCK: usize = 512;
/// Everything that may stand before the contents of one entry: long names, pax records, maps of sparse files.
const HEADERS_MAX: usize = 2 << 20;
/// PATH_MAX of the kernel.
const PATH_MAX: u32 = 4096;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Character(u64),
    Block(u64),
    Fifo,
    /// A type that no tool agrees on.
    Other(u8),
}

/// An entry without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    /// Where a link leads to.
    pub(super) target: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of contents in the archive.
    pub(super) size: u64,
    /// Offsets and lengths of what the archive has of a sparse file, and the file's length.
    pub(super) sparse: Option<(Vec<(u64, u64)>, u64)>,
}

/// Reads entries. After [`next`](Entries::next) the contents are there to be copied; what is not copied is skipped.
#[derive(Debug)]
pub(super) struct Entries<R> {
    reader: R,
    parser: Parser,
    headers: Vec<u8>,
    /// Contents of the last entry that were not copied, and what fills their last block up.
    left: u64,
    padding: u64,
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<R: BufRead> Entries<R> {
    pub(super) fn new(reader: R) -> Self {
        let limits = Limits { max_path_len: Some(PATH_MAX), ..Limits::default() };
        let mut parser = Parser::new(limits);
        parser.set_allow_empty_path(true);
        Entries { reader, parser, headers: Vec::new(), left: 0, padding: 0 }
    }

    /// The next entry; none at the archive's end.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            self.skip()?;
            self.headers.clear();
            match self.parse()? {
                Parsed::Entry(entry) => {
                    self.left = entry.size;
                    self.padding = entry.size.wrapping_neg() % BLOCK as u64;
                    return Ok(Some(*entry));
                }
                // Attributes for all that follows: no tool applies them to layers.
                Parsed::Global => {}
                Parsed::End => return Ok(None),
            }
        }
    }

    /// Passes over what is left of the last entry.
    fn skip(&mut self) -> io::Result<()> {
        let mut rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        while rest > 0 {
            let there = self.reader.fill_buf()?.len();
            if there == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = rest.min(there as u64) as usize;
            self.reader.consume(count);
            rest -= count as u64;
        }
        Ok(())
    }

    /// Reads block by block, as the parser asks: what follows the headers must stay in the reader.
    fn parse(&mut self) -> io::Result<Parsed> {
        loop {
            let (parsed, consumed) = match parse_event(&mut self.parser, &self.headers)? {
                Event::More(least) if least <= self.headers.len() => return Err(invalid("a header that never ends")),
                Event::More(_) if self.headers.len() >= HEADERS_MAX => {
                    return Err(invalid(format!("more than {HEADERS_MAX} bytes of headers for one entry")));
                }
                Event::More(_) if self.more()? => continue,
                Event::More(_) => {
                    // Archives without their end are read by all tools, if they end at an entry's.
                    let ends = self.headers.iter().all(|byte| *byte == 0) && self.headers.len() <= BLOCK;
                    return if ends { Ok(Parsed::End) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
                }
                Event::Parsed(parsed, consumed) => (parsed, consumed),
            };
            if consumed != self.headers.len() {
                return Err(invalid("a header of an odd length"));
            }
            return Ok(parsed);
        }
    }

    /// One more block of headers; false at the stream's end.
    fn more(&mut self) -> io::Result<bool> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        self.headers.extend_from_slice(&block);
        Ok(true)
    }

    /// Copies so many bytes of the contents.
    pub(super) fn copy(&mut self, length: u64, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if length > self.left {
            return Err(invalid("a map of more bytes than the file has"));
        }
        let mut rest = length;
        while rest > 0 {
            let there = self.reader.fill_buf()?;
            let part = there.get(..there.len().min(usize::try_from(rest).unwrap_or(usize::MAX))).unwrap_or_default();
            if part.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            write(part)?;
            let count = part.len();
            self.reader.consume(count);
            rest -= count as u64;
            self.left -= count as u64;
        }
        Ok(())
    }

    /// Reads the contents as a whole, if they are not longer than that.
    pub(super) fn contents(&mut self, most: u64) -> io::Result<Vec<u8>> {
        if self.left > most {
            return Err(invalid(format!("{} bytes, where at most {most} are read", self.left)));
        }
        let mut contents = Vec::new();
        self.copy(self.left, |part| contents.write_all(part))?;
        Ok(contents)
    }
}

enum Parsed {
    Entry(Box<Entry>),
    Global,
    End,
}

enum Event {
    More(usize),
    Parsed(Parsed, usize),
}

fn parse_event(parser: &mut Parser, headers: &[u8]) -> io::Result<Event> {
    let event = match parser.parse(headers) {
        // Times before 1970 are no number for it, nor are empty values. It has kept nothing of what it read, and can be asked
        // anew.
        Err(ParseError::InvalidPaxValue { key: "mtime" | "uid" | "gid", .. }) => {
            parser.set_ignore_pax_errors(true);
            let event = parser.parse(headers);
            parser.set_ignore_pax_errors(false);
            event
        }
        event => event,
    };
    match event.map_err(|error| invalid(error.to_string()))? {
        ParseEvent::NeedData { min_bytes } => Ok(Event::More(min_bytes)),
        ParseEvent::GlobalExtensions { consumed, .. } => Ok(Event::Parsed(Parsed::Global, consumed)),
        ParseEvent::End { consumed } => Ok(Event::Parsed(Parsed::End, consumed)),
        ParseEvent::Entry { consumed, entry } => {
            Ok(Event::Parsed(Parsed::Entry(Box::new(owned(&entry, None)?)), consumed))
        }
        ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
            let map = sparse_map.iter().map(|part| (part.offset, part.length)).collect();
            Ok(Event::Parsed(Parsed::Entry(Box::new(owned(&entry, Some((map, real_size)))?)), consumed))
        }
    }
}

fn owned(entry: &ParsedEntry<'_>, sparse: Option<(Vec<(u64, u64)>, u64)>) -> io::Result<Entry> {
    let device = nix::sys::stat::makedev(entry.dev_major.unwrap_or(0).into(), entry.dev_minor.unwrap_or(0).into());
    let kind = match entry.entry_type {
        // As version 7 of Unix wrote directories.
        EntryType::Regular if entry.path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::Character(device),
        EntryType::Block => Kind::Block(device),
        EntryType::Fifo => Kind::Fifo,
        other => Kind::Other(other.to_byte()),
    };
    // Whether contents follow such an entry is what readers disagree about, and attackers use.
    if entry.size > 0 && !matches!(kind, Kind::File | Kind::Other(_)) {
        return Err(invalid("an entry that is no file and has contents"));
    }
    let mut own = Entry {
        kind,
        path: entry.path.to_vec(),
        target: entry.link_target.as_deref().unwrap_or_default().to_vec(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: (entry.mtime as i64, 0),
        xattrs: entry.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        size: entry.size,
        sparse,
    };
    if let Some(pax) = entry.pax {
        pax_values(pax, &mut own)?;
        empty_values(entry.header, &mut own);
    }
    Ok(own)
}

/// What the parser makes less of than there is, and what it was told to pass over.
fn pax_values(pax: &[u8], entry: &mut Entry) -> io::Result<()> {
    for record in PaxExtensions::new(pax) {
        let record = record.map_err(|error| invalid(error.to_string()))?;
        let value = || std::str::from_utf8(record.value_bytes()).unwrap_or_default();
        match record.key_bytes() {
            b"mtime" | b"uid" | b"gid" if value().is_empty() => {}
            b"mtime" => entry.mtime = time(value()).ok_or_else(|| invalid("a pax record with a bad time"))?,
            b"size" | b"uid" | b"gid" if value().parse::<u64>().is_err() => {
                return Err(invalid("a pax record with a bad number"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// An empty value leaves what the header says (pax(1), as Go reads it). An empty size does not: readers that disagree about
/// where the next entry begins see two archives in one.
fn empty_values(header: &Header, entry: &mut Entry) {
    if entry.path.is_empty() {
        let prefix = header.prefix().filter(|prefix| !prefix.is_empty());
        entry.path = prefix.into_iter().chain([header.path_bytes()]).collect::<Vec<_>>().join(&b'/');
    }
    if entry.target.is_empty() && matches!(entry.kind, Kind::Symlink | Kind::HardLink) {
        entry.target = header.link_name_bytes().to_vec();
    }
}

/// Decimal seconds as pax has them, rounded down.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let (seconds, nanos) = (whole.parse::<i64>().ok()?, digits.parse::<u32>().ok()?);
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds_and_signs() {
        assert_eq!(time("1700000000.5"), Some((1_700_000_000, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time("3.12345678999"), Some((3, 123_456_789)));
        assert_eq!(time("-3"), Some((-3, 0)));
        for bad in ["", ".5", "1.x", "1e3", "99999999999999999999", "-9223372036854775808.5"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
