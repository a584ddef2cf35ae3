//! Exports images as archives for other tools: OCI image layouts, and archives for `docker load`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use oci_spec::image::{Descriptor, Digest, ImageIndexBuilder, MediaType};
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use super::Image;
use super::compression;
use super::digest::Hasher;
use super::layout::{OCI_LAYOUT, REF_NAME};
use super::manifest::{self, DEPTH_MAX, Document};
use super::platform::host_platform;
use super::reference::Reference;
use super::store::Store;
use crate::error::{Error, ErrorKind, Result, Step};

const BUFFER: usize = 256 << 10;

/// The format of an exported archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Archive {
    /// An OCI image layout, as `skopeo copy oci-archive:…` reads. All blobs are unchanged, so
    /// digests stay the same.
    Oci,
    /// The format of `docker load`: this machine's platform only, with uncompressed layers.
    Docker,
}

fn failed(error: io::Error) -> Error {
    Error::from_io(Step::ExportImage, ErrorKind::Store, error)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::message(ErrorKind::Corrupt, Step::ExportImage, error.to_string())
}

impl Store {
    /// Writes the named images to `writer` as one archive. The same images give the same bytes.
    ///
    /// ```no_run
    /// use ringfence::image::{Archive, Store};
    ///
    /// let store = Store::open_default()?;
    /// let file = std::fs::File::create("debian.tar").unwrap();
    /// store.export(&["debian:12".parse()?], Archive::Oci, file)?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if a name or a blob is missing, [`ErrorKind::Corrupt`] if a blob
    /// does not have its digest, [`ErrorKind::Store`] if writing fails.
    pub fn export(&self, names: &[Reference], archive: Archive, writer: impl Write) -> Result<()> {
        let _hold = self.hold()?;
        let mut to = Archiver { writer: io::BufWriter::with_capacity(BUFFER, writer) };
        match archive {
            Archive::Oci => self.export_oci(names, &mut to)?,
            Archive::Docker => self.export_docker(names, &mut to)?,
        }
        to.finish()
    }

    fn export_oci(&self, names: &[Reference], to: &mut Archiver<impl Write>) -> Result<()> {
        let mut blobs = BTreeMap::new();
        let mut entries = Vec::new();
        for name in names {
            let mut entry = self.resolve(name)?;
            self.reach(&entry, DEPTH_MAX, &mut blobs)?;
            entry.set_annotations(Some([(REF_NAME.to_owned(), name.to_string())].into()));
            entries.push(entry);
        }
        let index = ImageIndexBuilder::default().schema_version(2u32).media_type(MediaType::ImageIndex);
        let index = index.manifests(entries).build().map_err(broken)?;
        to.file("oci-layout", OCI_LAYOUT)?;
        to.file("index.json", &serde_json::to_vec(&index).map_err(broken)?)?;
        for (_, blob) in blobs {
            let mut file = self.open_blob(&blob)?;
            let name = format!("blobs/{}/{}", blob.digest().algorithm(), blob.digest().digest());
            let found = to.stream(&name, blob.size(), &mut file, Hasher::of(blob.digest())?)?;
            if found != blob.digest().as_ref() {
                return Err(broken(format!("its bytes have the digest {found}")).at(blob.digest().to_string()));
            }
        }
        Ok(())
    }

    fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        self.blob(blob.digest())?.ok_or_else(|| {
            let error = Error::message(ErrorKind::NotFound, Step::ExportImage, "the store does not have this blob");
            error.at(blob.digest().to_string())
        })
    }

    /// Collects every blob that a document refers to. Entries of an index that the store lacks are
    /// left out.
    fn reach(&self, blob: &Descriptor, depth: usize, all: &mut BTreeMap<String, Descriptor>) -> Result<()> {
        all.insert(blob.digest().to_string(), blob.clone());
        match manifest::read(&self.layout, blob)? {
            Document::Manifest(manifest) => {
                for part in manifest.layers().iter().chain([manifest.config()]) {
                    all.insert(part.digest().to_string(), part.clone());
                }
                Ok(())
            }
            Document::Index(_) if depth == 0 => Err(broken("indexes are nested too deeply")),
            Document::Index(index) => index.manifests().iter().try_for_each(|entry| match self.has(entry)? {
                true => self.reach(entry, depth - 1, all),
                false => Ok(()),
            }),
        }
    }

    fn export_docker(&self, names: &[Reference], to: &mut Archiver<impl Write>) -> Result<()> {
        let mut images: BTreeMap<String, (Image, Vec<String>)> = BTreeMap::new();
        for name in names {
            let image = self.image_for(name, &host_platform())?;
            let id = image.id().digest().to_owned();
            images.entry(id).or_insert_with(|| (image, Vec::new())).1.push(name.to_string());
        }
        let mut written = BTreeMap::new();
        let mut list = Vec::new();
        for (id, (image, tags)) in &images {
            to.file(&format!("{id}.json"), &self.document(image.manifest().config())?)?;
            let mut layers = Vec::new();
            for (blob, diff_id) in image.layers().iter().zip(image.diff_ids()) {
                let name = format!("{}.tar", diff_id.digest());
                if written.insert(name.clone(), ()).is_none() {
                    self.export_plain(blob, diff_id, &name, to)?;
                }
                layers.push(name);
            }
            list.push(serde_json::json!({ "Config": format!("{id}.json"), "RepoTags": tags, "Layers": layers }));
        }
        to.file("manifest.json", &serde_json::to_vec(&list).map_err(broken)?)
    }

    /// Writes a layer without its compression. The layer is read twice, as its length comes first
    /// in the archive.
    fn export_plain(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        name: &str,
        to: &mut Archiver<impl Write>,
    ) -> Result<()> {
        let open = || {
            let file = BufReader::with_capacity(BUFFER, self.open_blob(blob)?);
            Ok(compression::decoder(file).map_err(failed)?.take(self.limits.bytes))
        };
        let corrupt = |error: io::Error| failed(error).at(blob.digest().to_string());
        let size = io::copy(&mut open()?, &mut io::sink()).map_err(corrupt)?;
        let found = to.stream(name, size, &mut open()?, Hasher::of(diff_id)?)?;
        if found != diff_id.as_ref() {
            return Err(broken(format!("its contents have the digest {found}")).at(blob.digest().to_string()));
        }
        Ok(())
    }
}

/// A writer of an archive that does not depend on the time or the user.
struct Archiver<W: Write> {
    writer: io::BufWriter<W>,
}

impl<W: Write> Archiver<W> {
    fn header(&mut self, name: &str, size: u64) -> Result<()> {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(name).entry_type(EntryType::Regular).mode(0o644).map_err(broken)?.size(size).map_err(broken)?;
        self.writer.write_all(&entry.finish_bytes()).map_err(failed)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.stream(name, bytes.len() as u64, &mut &*bytes, Hasher::sha256()).map(drop)
    }

    /// Writes a file of `size` bytes, and returns its digest.
    fn stream(&mut self, name: &str, size: u64, from: &mut impl Read, mut hasher: Hasher) -> Result<String> {
        self.header(name, size)?;
        let mut buffer = vec![0; BUFFER];
        let mut left = size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = from.read(buffer.get_mut(..most).unwrap_or_default()).map_err(failed)?;
            let part = buffer.get(..count).filter(|part| !part.is_empty());
            let part = part.ok_or_else(|| broken(format!("{name} ends {left} bytes too early")))?;
            hasher.update(part);
            self.writer.write_all(part).map_err(failed)?;
            left -= count as u64;
        }
        let padding = (size.wrapping_neg() % 512) as usize;
        self.writer.write_all([0; 512].get(..padding).unwrap_or_default()).map_err(failed)?;
        Ok(hasher.finish())
    }

    fn finish(mut self) -> Result<()> {
        self.writer.write_all(&[0; 1024]).and_then(|()| self.writer.flush()).map_err(failed)
    }
}
