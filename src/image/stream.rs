//! Processes a layer in three threads: one decompresses it, one hashes the contents, one unpacks
//! them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Builder, ScopedJoinHandle};

use super::compression;
use super::digest::Hasher;
use crate::error::{Error, ErrorKind, Result, Step};

/// The size of a chunk in bytes, and the number of chunks that may wait. Their product is the
/// memory that a layer needs.
const CHUNK: usize = 256 << 10;
const WAITING: usize = 8;

type Chunk = Arc<Vec<u8>>;

/// A reader of the chunks that a thread receives.
pub(super) struct Chunks {
    from: Receiver<io::Result<Chunk>>,
    chunk: Chunk,
    at: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.chunk.len() {
            // A thread that ended without an error has no more chunks.
            self.chunk = self.from.recv().unwrap_or_else(|_| Ok(Chunk::default()))?;
            self.at = 0;
        }
        Ok(self.chunk.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let count = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), there.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

/// Decompresses `file` to its end, and lets `consume` read the contents. Returns the result of
/// `consume`, and the digest of the contents. If the contents have more than `most` bytes, returns
/// an error of kind [`ErrorKind::TooLarge`].
pub(super) fn hash_decompressed<T>(
    file: File,
    hasher: Hasher,
    most: u64,
    consume: impl FnOnce(&mut Chunks) -> Result<T>,
) -> Result<(T, String)> {
    let failed = |error: &io::Error| Error::io(Step::UnpackLayer, error).with_kind(ErrorKind::Store);
    thread::scope(|scope| {
        let (to_hash, hash_from) = sync_channel::<Chunk>(WAITING);
        let (to_unpack, from) = sync_channel(WAITING);
        let named = |name: &str| Builder::new().name(name.to_owned());
        let inflater =
            named("ringfence-inflate").spawn_scoped(scope, move || inflate(file, most, &to_hash, &to_unpack));
        let inflater: ScopedJoinHandle<'_, ()> = inflater.map_err(|error| failed(&error))?;
        let hash = named("ringfence-hash").spawn_scoped(scope, move || {
            let mut hasher = hasher;
            hash_from.iter().for_each(|chunk| hasher.update(&chunk));
            hasher.finish()
        });
        let hash = hash.map_err(|error| failed(&error))?;
        let mut chunks = Chunks { from, chunk: Chunk::default(), at: 0 };
        let result = consume(&mut chunks).and_then(|result| {
            drain(&mut chunks)?;
            Ok(result)
        });
        drop(chunks);
        let ended = || Error::message(ErrorKind::Store, Step::UnpackLayer, "a thread of the unpacker ended early");
        inflater.join().map_err(|_| ended())?;
        let digest = hash.join().map_err(|_| ended())?;
        Ok((result?, digest))
    })
}

/// Reads the bytes after the end of the tar archive, which belong to the digest.
fn drain(chunks: &mut Chunks) -> Result<()> {
    loop {
        let count = chunks.fill_buf().map_err(read_error)?.len();
        if count == 0 {
            return Ok(());
        }
        chunks.consume(count);
    }
}

/// Converts the error of a layer's reader: errors in the compression or the archive are the
/// layer's, and all others are the disk's.
pub(super) fn read_error(error: io::Error) -> Error {
    let at_layer = error.raw_os_error().is_none();
    let kind = if at_layer { ErrorKind::Corrupt } else { ErrorKind::Store };
    match error.kind() {
        io::ErrorKind::UnexpectedEof if at_layer => {
            Error::message(ErrorKind::Corrupt, Step::UnpackLayer, "it ends in the middle")
        }
        _ => Error::from_io(Step::UnpackLayer, kind, error),
    }
}

/// Sends chunks until the file ends, an error occurs, or the receivers are gone.
fn inflate(file: File, most: u64, to_hash: &SyncSender<Chunk>, to_unpack: &SyncSender<io::Result<Chunk>>) {
    let mut decoder = match compression::decoder(BufReader::with_capacity(CHUNK, file)) {
        Ok(decoder) => decoder,
        Err(error) => return drop(to_unpack.send(Err(error))),
    };
    let mut total = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        match decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
            Ok(0) => return,
            Ok(count) => total += count as u64,
            Err(error) => return drop(to_unpack.send(Err(error))),
        }
        if total > most {
            let detail = format!("more than {most} bytes without its compression");
            let error = Error::message(ErrorKind::TooLarge, Step::UnpackLayer, detail);
            let error = error.hint("allow more with Store::layer_bytes_limit()");
            return drop(to_unpack.send(Err(error.into())));
        }
        let chunk = Arc::new(chunk);
        if to_hash.send(chunk.clone()).is_err() || to_unpack.send(Ok(chunk)).is_err() {
            return;
        }
    }
}
