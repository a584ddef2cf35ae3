//! A layer on its way through three threads: one takes the compression away, one hashes what comes out, one unpacks it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Builder, ScopedJoinHandle};

use super::compression;
use super::digest::Hasher;
use crate::error::{Error, ErrorKind, Result, Step};

/// How much is handed on at once, and how many of these may wait: what a layer needs of memory.
const CHUNK: usize = 256 << 10;
const WAITING: usize = 8;

type Chunk = Arc<Vec<u8>>;

/// What a consumer reads.
pub(super) struct Chunks {
    from: Receiver<io::Result<Chunk>>,
    chunk: Chunk,
    at: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.chunk.len() {
            // A thread that ended without a word has nothing more.
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

/// Has `consume` read `file` without its compression, to the end, and gives what it gives with the digest of all that it was
/// given. More than `most` bytes are an error of the kind [`ErrorKind::TooLarge`].
pub(super) fn through<T>(
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

/// What stands behind a tar's end belongs to the digest.
fn drain(chunks: &mut Chunks) -> Result<()> {
    loop {
        let count = chunks.fill_buf().map_err(read_error)?.len();
        if count == 0 {
            return Ok(());
        }
        chunks.consume(count);
    }
}

/// What a reader of layers says: broken compression and broken archives are the layer's, and the rest is the disk's.
pub(super) fn read_error(error: io::Error) -> Error {
    let of_layer = error.raw_os_error().is_none();
    let kind = if of_layer { ErrorKind::Corrupt } else { ErrorKind::Store };
    match error.kind() {
        io::ErrorKind::UnexpectedEof if of_layer => {
            Error::message(ErrorKind::Corrupt, Step::UnpackLayer, "it ends in the middle")
        }
        _ => Error::from_io(Step::UnpackLayer, kind, error),
    }
}

/// Sends chunk after chunk until the end, an error, or nobody wants more.
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
