//! Writes a layer into the store: hashes its contents, compresses them, and hashes the result.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use oci_spec::image::{Descriptor, Digest, MediaType};

use super::super::digest::{self, Hasher};
use super::super::store::Store;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::file_size;

/// A writer that compresses a layer with gzip into a temporary file.
pub(super) struct Compressed {
    encoder: GzEncoder<Counted>,
    contents: Hasher,
}

/// A layer in the store: its descriptor, and the digest of its contents without compression.
pub(super) struct Layer {
    pub(super) diff_id: Digest,
    pub(super) blob: Descriptor,
}

struct Counted {
    file: BufWriter<File>,
    hasher: Hasher,
    size: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        file_size::check(self.size + bytes.len() as u64)?;
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write_all(bytes)?;
        self.contents.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

fn failed(error: &io::Error) -> Error {
    Error::io(Step::PackLayer, error).with_kind(ErrorKind::Store)
}

impl Compressed {
    /// Creates the file `path`, which must not exist yet.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = BufWriter::new(file.map_err(|error| failed(&error).at(path))?);
        let out = Counted { file, hasher: Hasher::sha256(), size: 0 };
        // The header has neither time nor name, so that the same layer gives the same bytes.
        Ok(Compressed { encoder: GzEncoder::new(out, Compression::default()), contents: Hasher::sha256() })
    }

    /// Puts the layer into the store.
    pub(super) fn store(self, store: &Store) -> Result<Layer> {
        let Counted { file, hasher, size } = self.encoder.finish().map_err(|error| failed(&error))?;
        let mut file = file.into_inner().map_err(|error| failed(error.error()))?;
        let diff_id = digest::parse(&self.contents.finish())?;
        let blob = Descriptor::new(MediaType::ImageLayerGzip, size, digest::parse(&hasher.finish())?);
        file.rewind().map_err(|error| failed(&error))?;
        let filled = store.fill_blob(&blob, &mut file);
        filled.map_err(|error| Error::from_io(Step::WriteBlob, ErrorKind::Store, error))?;
        Ok(Layer { diff_id, blob })
    }
}
