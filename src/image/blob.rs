//! Writing one blob into the store.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use nix::sys::stat::SFlag;
use oci_spec::image::{Descriptor, Digest};

use super::digest::Hasher;
use super::hold::Hold;
use super::layout::Layout;
use super::lock::{self, Mode, Pause};
use super::store_path::StorePath;
use super::tree::kind_of;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::file_size;

/// A writer for the bytes of one blob, which hashes them as they come.
///
/// If the writer is dropped or its process killed, the bytes written so far stay: the next writer
/// of the same blob starts with [`written`](BlobWriter::written) bytes, and its caller continues
/// from there. The store shows the blob only after [`commit`](BlobWriter::commit) has checked its
/// size and digest. While a writer lives, no other writer of this blob exists in any process, and
/// the store prunes nothing.
#[derive(Debug)]
pub struct BlobWriter {
    layout: Layout,
    file: Flock<File>,
    path: StorePath,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    written: u64,
    _hold: Hold,
}

/// The result of an attempt to write a blob.
#[derive(Debug)]
pub(super) enum WriteStart {
    Complete,
    Busy,
    Writer(Box<BlobWriter>),
}

fn failed(path: &StorePath, error: &io::Error) -> Error {
    Error::io(Step::WriteBlob, error).with_kind(ErrorKind::Store).at(path.path())
}

impl BlobWriter {
    /// Returns a writer, or `None` if the store has the blob. Waits for another writer as long as
    /// that one makes progress, and at most for `wait` without progress.
    pub(super) fn begin(layout: &Layout, blob: &Descriptor, hold: Hold, wait: Duration) -> Result<Option<BlobWriter>> {
        let path = layout.partial(blob.digest());
        let length = || path.stat().map_or(0, |stat| stat.st_size);
        let (mut seen, mut since, mut pause) = (length(), Instant::now(), Pause::default());
        loop {
            match BlobWriter::try_begin(layout, blob, &hold)? {
                WriteStart::Complete => return Ok(None),
                WriteStart::Writer(writer) => return Ok(Some(*writer)),
                WriteStart::Busy => {}
            }
            if length() != seen {
                (seen, since) = (length(), Instant::now());
            } else if since.elapsed() >= wait {
                let detail = format!("another writer has made no progress for {wait:?}");
                return Err(Error::message(ErrorKind::Timeout, Step::WriteBlob, detail).at(blob.digest().to_string()));
            }
            pause.sleep();
        }
    }

    pub(super) fn try_begin(layout: &Layout, blob: &Descriptor, hold: &Hold) -> Result<WriteStart> {
        let hasher = Hasher::of(blob.digest())?;
        let path = layout.partial(blob.digest());
        loop {
            if is_whole(layout, blob)? {
                return Ok(WriteStart::Complete);
            }
            let Ok(file) = lock::try_lock(lock::open(&path)?, &path, Mode::Exclusive)? else {
                return Ok(WriteStart::Busy);
            };
            if !lock::is_current(&file, &path) {
                continue;
            }
            let mut writer = BlobWriter {
                layout: layout.clone(),
                file,
                path,
                digest: blob.digest().clone(),
                size: blob.size(),
                hasher,
                written: 0,
                _hold: hold.clone(),
            };
            writer.resume().map_err(|error| failed(&writer.path, &error))?;
            return Ok(WriteStart::Writer(Box::new(writer)));
        }
    }

    /// Hashes the bytes that an earlier writer left.
    fn resume(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.size {
            return self.clear();
        }
        let mut buffer = vec![0; 256 << 10];
        self.file.seek(SeekFrom::Start(0))?;
        loop {
            let count = self.file.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.hasher.update(buffer.get(..count).unwrap_or_default());
            self.written += count as u64;
        }
    }

    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.written = 0;
        Ok(())
    }

    /// Returns the number of bytes written so far, including those of earlier writers.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the number of bytes that the complete blob has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the digest that the complete blob has.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Discards all bytes, including those of earlier writers, for a source that starts again at
    /// the first byte.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] if the file cannot be truncated.
    pub fn restart(&mut self) -> Result<()> {
        self.hasher = Hasher::of(&self.digest)?;
        self.clear().map_err(|error| failed(&self.path, &error))
    }

    /// Checks the blob's size and digest, writes the blob to disk, and makes it part of the store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if bytes are missing, which keeps the bytes for the next writer, or
    /// if the digest differs, which removes them. [`ErrorKind::Store`] for errors of the file
    /// system.
    pub fn commit(self) -> Result<()> {
        let corrupt = |detail| Error::message(ErrorKind::Corrupt, Step::WriteBlob, detail).at(self.digest.to_string());
        if self.written != self.size {
            return Err(corrupt(format!("it ends after {} of {} bytes", self.written, self.size)));
        }
        let found = self.hasher.clone().finish();
        if found != self.digest.as_ref() {
            self.path.remove_file().map_err(|error| failed(&self.path, &error))?;
            return Err(corrupt(format!("its bytes have the digest {found}")));
        }
        let (dir, place) = (self.layout.blobs_of(&self.digest), self.layout.blob(&self.digest));
        let publish = || {
            self.file.sync_data()?;
            dir.ensure_dir()?;
            self.path.rename(&place)?;
            dir.open_dir()?.sync_all()
        };
        publish().map_err(|error| failed(&place, &error))
    }
}

impl Write for BlobWriter {
    /// Writes bytes. Returns an error of kind [`ErrorKind::Corrupt`], and writes nothing, if the
    /// blob would become longer than its descriptor says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.size - self.written {
            let detail = format!("there are more bytes than its {}", self.size);
            let error = Error::message(ErrorKind::Corrupt, Step::WriteBlob, detail).at(self.digest.to_string());
            return Err(error.into());
        }
        file_size::check(self.written + bytes.len() as u64)?;
        let count = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns true if the store has the blob. A stored blob with the same digest and another length is
/// an error, as the descriptor or the blob must be wrong.
pub(super) fn is_whole(layout: &Layout, blob: &Descriptor) -> Result<bool> {
    let path = layout.blob(blob.digest());
    match path.stat() {
        Ok(stat) if kind_of(&stat) == SFlag::S_IFREG && stat.st_size as u64 == blob.size() => Ok(true),
        Ok(stat) => {
            let detail = format!("it has {} bytes, and not {}", stat.st_size, blob.size());
            Err(Error::message(ErrorKind::Corrupt, Step::ReadBlob, detail).at(blob.digest().to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(Step::ReadBlob, &error).with_kind(ErrorKind::Store).at(path.path())),
    }
}
