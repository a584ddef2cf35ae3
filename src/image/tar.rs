//! Reads the entries of a tar stream from an untrusted source.
//!
//! The crate `tar-core` parses the formats (ustar, GNU, pax, sparse files). This module feeds the
//! parser, limits it, and passes on the contents without copying them.

use std::io::{self, BufRead, Write};

use tar_core::parse::{Limits, ParseError, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, Header, PaxExtensions};

const BLOCK: usize = 512;
/// The largest size in bytes of all headers of one entry: long names, pax records, maps of sparse
/// files.
const HEADERS_MAX: usize = 2 << 20;
/// The kernel's PATH_MAX.
const PATH_MAX: u32 = 4096;

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Character(u64),
    Block(u64),
    Fifo,
    /// A type that has no common meaning among tools.
    Other(u8),
}

/// An entry without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    /// The target of a link.
    pub(super) target: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// The modification time in seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The size of the contents in the archive, in bytes.
    pub(super) size: u64,
    /// For a sparse file: the offsets and lengths of the data in the archive, and the length of the
    /// file.
    pub(super) sparse: Option<(Vec<(u64, u64)>, u64)>,
}

/// A reader of entries. After [`next`](Entries::next) the contents can be copied; contents that are
/// not copied are skipped.
#[derive(Debug)]
pub(super) struct Entries<R> {
    reader: R,
    parser: Parser,
    headers: Vec<u8>,
    /// The number of bytes that are left of the last entry, including the padding of its last
    /// block.
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

    /// Reads the next entry. Returns `None` at the end of the archive.
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
                // Global attributes: no tool applies them to layers.
                Parsed::Global => {}
                Parsed::End => return Ok(None),
            }
        }
    }

    /// Skips the rest of the last entry. An archive may end in the padding of its last block, as
    /// those of umoci insert(1) and others do.
    fn skip(&mut self) -> io::Result<()> {
        let padding = std::mem::take(&mut self.padding);
        let mut rest = std::mem::take(&mut self.left).saturating_add(padding);
        while rest > 0 {
            let there = self.reader.fill_buf()?.len();
            if there == 0 {
                return if rest <= padding { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            let count = rest.min(there as u64) as usize;
            self.reader.consume(count);
            rest -= count as u64;
        }
        Ok(())
    }

    /// Reads block by block, as the parser asks, so that the bytes after the headers stay in the
    /// reader.
    fn parse(&mut self) -> io::Result<Parsed> {
        loop {
            let (parsed, consumed) = match parse_event(&mut self.parser, &self.headers)? {
                Event::More(least) if least <= self.headers.len() => return Err(invalid("a header that never ends")),
                Event::More(_) if self.headers.len() >= HEADERS_MAX => {
                    return Err(invalid(format!("more than {HEADERS_MAX} bytes of headers for one entry")));
                }
                Event::More(_) if self.more()? => continue,
                Event::More(_) => {
                    // All tools accept an archive without an end marker, if it ends after a
                    // complete entry.
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

    /// Reads one more block of headers. Returns false at the end of the stream.
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

    /// Copies `length` bytes of the contents.
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

    /// Reads the whole contents, which may have at most `most` bytes.
    pub(super) fn contents(&mut self, most: u64) -> io::Result<Vec<u8>> {
        if self.left > most {
            return Err(invalid(format!("{} bytes, but at most {most} are read", self.left)));
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
        // The parser takes neither times before 1970 nor empty values for numbers. After the error
        // it has consumed nothing, and can be called again.
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
        // Version 7 of Unix wrote directories this way.
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
    // Readers disagree about whether such an entry has contents, which attackers use.
    if entry.size > 0 && !matches!(kind, Kind::File | Kind::Other(_)) {
        return Err(invalid("an entry that is not a file and has contents"));
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

/// Applies the pax records that the parser does not handle in full, and those that it was told to
/// ignore.
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

/// Handles empty pax values. An empty value leaves the value of the header in place, as in Go's
/// reader of pax(1). An empty size is an error: if readers disagree about where the next entry
/// starts, they see different archives.
fn empty_values(header: &Header, entry: &mut Entry) {
    if entry.path.is_empty() {
        let prefix = header.prefix().filter(|prefix| !prefix.is_empty());
        entry.path = prefix.into_iter().chain([header.path_bytes()]).collect::<Vec<_>>().join(&b'/');
    }
    if entry.target.is_empty() && matches!(entry.kind, Kind::Symlink | Kind::HardLink) {
        entry.target = header.link_name_bytes().to_vec();
    }
}

/// Parses the decimal seconds of pax, rounded down.
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
