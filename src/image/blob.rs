//! A blob on its way into the store.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use oci_spec::image::{Descriptor, Digest};

use super::beneath;
use super::digest::Hasher;
use super::layout::Layout;
use super::lock::{self, Mode, Pause};
use super::store::Hold;
use crate::error::{Error, ErrorKind, Result, Step};

/// Takes the bytes of one blob, and hashes them as they come.
///
/// What it has taken stays when it is dropped, or its process killed: the next writer of the same blob begins with
/// [`written`](BlobWriter::written) bytes, and the caller goes on from there. Nobody sees the blob before
/// [`commit`](BlobWriter::commit) has found it to be what its descriptor says. While a writer lives, it is the only one of
/// its blob, in all processes, and nothing is pruned.
#[derive(Debug)]
pub struct BlobWriter {
    layout: Layout,
    file: Flock<File>,
    path: PathBuf,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    written: u64,
    _hold: Hold,
}

/// What there is to write.
#[derive(Debug)]
pub(super) enum Begun {
    Whole,
    Busy,
    Writer(Box<BlobWriter>),
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::io(Step::WriteBlob, error).with_kind(ErrorKind::Store).at(path)
}

impl BlobWriter {
    /// Waits while another writer makes progress: at most `wait` without any.
    pub(super) fn begin(layout: &Layout, blob: &Descriptor, hold: Hold, wait: Duration) -> Result<Option<BlobWriter>> {
        let path = layout.partial(blob.digest());
        let length = || path.symlink_metadata().map_or(0, |metadata| metadata.len());
        let (mut seen, mut since, mut pause) = (length(), Instant::now(), Pause::default());
        loop {
            match BlobWriter::try_begin(layout, blob, &hold)? {
                Begun::Whole => return Ok(None),
                Begun::Writer(writer) => return Ok(Some(*writer)),
                Begun::Busy => {}
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

    pub(super) fn try_begin(layout: &Layout, blob: &Descriptor, hold: &Hold) -> Result<Begun> {
        let hasher = Hasher::of(blob.digest())?;
        let path = layout.partial(blob.digest());
        loop {
            if is_whole(layout, blob)? {
                return Ok(Begun::Whole);
            }
            let Ok(file) = lock::try_lock(lock::open(&path)?, &path, Mode::Exclusive)? else { return Ok(Begun::Busy) };
            if !lock::is_there(&file, &path) {
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
            writer.take_up().map_err(|error| failed(&writer.path, &error))?;
            return Ok(Begun::Writer(Box::new(writer)));
        }
    }

    /// Hashes what an earlier writer has left.
    fn take_up(&mut self) -> io::Result<()> {
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

    /// How many bytes it has, those of earlier writers among them.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// How many bytes it is to have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest that it is to have.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Forgets all bytes, also those of earlier writers: for a source that begins anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`].
    pub fn restart(&mut self) -> Result<()> {
        self.hasher = Hasher::of(&self.digest)?;
        self.clear().map_err(|error| failed(&self.path, &error))
    }

    /// Puts the blob into the store, on disk as well, if it is what its descriptor says.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if bytes are missing, which then stay for the next writer, or if they have another digest: then
    /// they are removed. [`ErrorKind::Store`] for the file system's own.
    pub fn commit(self) -> Result<()> {
        let corrupt = |detail| Error::message(ErrorKind::Corrupt, Step::WriteBlob, detail).at(self.digest.to_string());
        if self.written != self.size {
            return Err(corrupt(format!("it ends after {} of {} bytes", self.written, self.size)));
        }
        let found = self.hasher.clone().finish();
        if found != self.digest.as_ref() {
            fs::remove_file(&self.path).map_err(|error| failed(&self.path, &error))?;
            return Err(corrupt(format!("its bytes have the digest {found}")));
        }
        let place = self.layout.blob(&self.digest);
        let publish = || {
            self.file.sync_data()?;
            let dir = place.parent().unwrap_or(self.layout.root());
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            fs::rename(&self.path, &place)?;
            beneath::open_dir(dir)?.sync_all()
        };
        publish().map_err(|error| failed(&place, &error))
    }
}

impl Write for BlobWriter {
    /// More bytes than the descriptor says are an error of the kind [`ErrorKind::Corrupt`], and not taken.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.size - self.written {
            let detail = format!("there are more bytes than its {}", self.size);
            let error = Error::message(ErrorKind::Corrupt, Step::WriteBlob, detail).at(self.digest.to_string());
            return Err(error.into());
        }
        let count = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the store has the blob. One of another length than its descriptor's is an error: with the same digest both cannot
/// be right.
pub(super) fn is_whole(layout: &Layout, blob: &Descriptor) -> Result<bool> {
    let path = layout.blob(blob.digest());
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() && metadata.len() == blob.size() => Ok(true),
        Ok(metadata) => {
            let detail = format!("it has {} bytes, and not {}", metadata.len(), blob.size());
            Err(Error::message(ErrorKind::Corrupt, Step::ReadBlob, detail).at(blob.digest().to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(Step::ReadBlob, &error).with_kind(ErrorKind::Store).at(&path)),
    }
}
