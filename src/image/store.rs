//! The store of images.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::image::{Descriptor, Digest, ImageManifestBuilder, MediaType, Platform};
use serde::Serialize;

use super::Image;
use super::blob::{self, BlobWriter, WriteStart};
use super::digest::digest_of;
use super::hold::Hold;
use super::layout::{Layout, REF_NAME};
use super::lock::{self, Mode};
use super::manifest;
use super::platform::host_platform;
use super::quota::UnpackLimits;
use super::reference::Reference;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::units::Bytes;

/// A store of images in a directory: an OCI image layout, with the unpacked layers beside it.
///
/// Any number of threads and processes may use a store at the same time. Everything in a store is
/// complete: a blob appears under its digest only after its bytes were checked, and is on disk
/// before a name refers to it. If a process is killed at any point, it leaves at most incomplete
/// downloads, which the next process continues.
///
/// ```
/// use ringfence::image::Store;
///
/// # let dir = std::env::temp_dir().join(format!("ringfence-doc-store-{}", std::process::id()));
/// let store = Store::open(&dir)?;
/// assert!(store.images()?.is_empty());
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) layout: Arc<Layout>,
    pub(super) wait: Duration,
    pub(super) squash: bool,
    pub(super) one_tenant: bool,
    pub(super) limits: UnpackLimits,
}

impl Store {
    /// Opens the store at `path`. A missing store is created, and closed to other users.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`], which includes: a directory of the store belongs to a user other than
    /// root and the caller, other users may write to it, or a link is in place of a directory or
    /// file of the store. So is a store that another user could exchange, because a directory above
    /// it belongs to that user, or is open to others: as root, choose one below directories of
    /// root's.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        let layout = Arc::new(Layout::open(path.as_ref())?);
        Ok(Store {
            layout,
            wait: Duration::from_secs(600),
            squash: false,
            one_tenant: false,
            limits: UnpackLimits::default(),
        })
    }

    /// Opens the user's store: `$XDG_DATA_HOME/ringfence/images`, or
    /// `~/.local/share/ringfence/images`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if neither XDG_DATA_HOME nor HOME is set to an absolute path; the
    /// errors of [`open`](Store::open).
    pub fn open_default() -> Result<Store> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
        let Some(data) = data else {
            let detail = "neither XDG_DATA_HOME nor HOME is an absolute path";
            let error = Error::message(ErrorKind::Invalid, Step::OpenStore, detail);
            return Err(error.hint("set one of them, or name a directory with Store::open()"));
        };
        Store::open(data.join("ringfence/images"))
    }

    /// Sets how long to wait for another process that holds a lock, or that writes the same blob
    /// and makes no progress. By default, ten minutes.
    #[must_use = "the store is given back with the setting"]
    pub fn wait(mut self, wait: Duration) -> Store {
        self.wait = wait;
        self
    }

    /// Sets the limit on the size of a layer without its compression, and on the size of its files.
    /// By default, 32 GiB. A larger layer is an error.
    #[must_use = "the store is given back with the setting"]
    pub fn layer_bytes_limit(mut self, limit: impl Into<Bytes>) -> Store {
        self.limits.bytes = limit.into().get();
        self
    }

    /// Sets the limit on the number of entries in a layer. By default, 2,000,000. Directories that
    /// the archive does not list count, and so do the whiteouts that hide files of lower layers.
    #[must_use = "the store is given back with the setting"]
    pub fn layer_entries_limit(mut self, limit: u64) -> Store {
        self.limits.entries = limit;
        self
    }

    /// Sets the limit on the size of the files in all layers of an image. By default, 64 GiB.
    #[must_use = "the store is given back with the setting"]
    pub fn image_bytes_limit(mut self, limit: impl Into<Bytes>) -> Store {
        self.limits.image_bytes = limit.into().get();
        self
    }

    /// Sets the limit on the number of entries in all layers of an image. By default, 4,000,000.
    #[must_use = "the store is given back with the setting"]
    pub fn image_entries_limit(mut self, limit: u64) -> Store {
        self.limits.image_entries = limit;
        self
    }

    /// Unpacks layers as an ordinary user does even if the caller is root: the unpacking user owns
    /// all files.
    #[must_use = "the store is given back with the setting"]
    pub fn squash_ids(mut self) -> Store {
        self.squash = true;
        self
    }

    /// Declares that every user of this store may see everything in it.
    ///
    /// Without this call, a store may serve tenants that must not see each other's images. Then a
    /// pull uses a blob that the store already has only if its registry shows, with the current
    /// credentials, that it has these bytes: the pull asks for a piece of the blob at a random
    /// offset. And an image gets an unpacked layer only if the store has the image's own blob of
    /// the layer, and has found the blob to have these contents: a diff id in a configuration
    /// proves nothing. With this call, neither is checked, and `Registry::pull_and_unpack` does not
    /// download layers that are already unpacked.
    #[must_use = "the store is given back with the setting"]
    pub fn one_tenant(mut self) -> Store {
        self.one_tenant = true;
        self
    }

    #[cfg(feature = "registry")]
    pub(crate) fn is_of_one_tenant(&self) -> bool {
        self.one_tenant
    }

    /// Returns the store's directory.
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// Keeps blobs that no image names yet from being pruned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if a prune takes longer than [`wait`](Store::wait).
    pub fn hold(&self) -> Result<Hold> {
        let lock = lock::lock(&self.layout.hold_lock(), Mode::Shared, self.wait)?;
        Ok(Hold { _lock: Arc::new(lock) })
    }

    /// Returns true if the store has this blob.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the store has a blob with this digest and another length.
    pub fn has(&self, blob: &Descriptor) -> Result<bool> {
        blob::is_whole(&self.layout, blob)
    }

    /// Opens a blob, or returns `None` if the store does not have it. The digest was checked when
    /// the blob was written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`].
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.layout.blob(digest);
        match path.open() {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(Step::ReadBlob, &error).with_kind(ErrorKind::Store).at(path.path())),
        }
    }

    /// Reads a manifest, an index or a configuration, and checks the bytes against the descriptor
    /// again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]; [`ErrorKind::TooLarge`] beyond 4 MiB; [`ErrorKind::Corrupt`].
    pub fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        manifest::bytes(&self.layout, blob)
    }

    /// Starts to write a blob, or continues where an earlier writer ended. Returns `None` if the
    /// store has the blob. Waits for another writer of the same blob as long as that one makes
    /// progress.
    ///
    /// ```
    /// use ringfence::image::{Descriptor, MediaType, Store};
    /// use std::io::Write;
    ///
    /// # let dir = std::env::temp_dir().join(format!("ringfence-doc-blob-{}", std::process::id()));
    /// # let store = Store::open(&dir)?;
    /// # let digest: ringfence::image::Digest =
    /// #     "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a".parse()?;
    /// let blob = Descriptor::new(MediaType::EmptyJSON, 2, digest);
    /// if let Some(mut writer) = store.write_blob(&blob)? {
    ///     let rest = &b"{}"[writer.written() as usize..];
    ///     writer.write_all(rest)?;
    ///     writer.commit()?;
    /// }
    /// assert!(store.has(&blob)?);
    /// # std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if another writer makes no progress for longer than
    /// [`wait`](Store::wait); [`ErrorKind::Unsupported`] for digests other than sha256, sha384 and
    /// sha512; [`ErrorKind::Store`].
    pub fn write_blob(&self, blob: &Descriptor) -> Result<Option<BlobWriter>> {
        BlobWriter::begin(&self.layout, blob, self.hold()?, self.wait)
    }

    /// Starts to write a blob like [`write_blob`](Store::write_blob), but does not wait for other
    /// writers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InUse`] if another writer writes the blob; the errors of
    /// [`write_blob`](Store::write_blob).
    pub fn try_write_blob(&self, blob: &Descriptor) -> Result<Option<BlobWriter>> {
        match BlobWriter::try_begin(&self.layout, blob, &self.hold()?)? {
            WriteStart::Complete => Ok(None),
            WriteStart::Writer(writer) => Ok(Some(*writer)),
            WriteStart::Busy => {
                let detail = "another writer is writing the blob";
                Err(Error::message(ErrorKind::InUse, Step::WriteBlob, detail).at(blob.digest().to_string()))
            }
        }
    }

    /// Writes a complete blob under its sha256 digest.
    ///
    /// # Errors
    ///
    /// The errors of [`write_blob`](Store::write_blob).
    pub fn put_blob(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
        let blob = Descriptor::new(media_type, bytes.len() as u64, digest_of(bytes)?);
        self.fill_blob(&blob, &mut &*bytes)
            .map_err(|error| Error::from_io(Step::WriteBlob, ErrorKind::Store, error).at(blob.digest().to_string()))?;
        Ok(blob)
    }

    /// Writes a blob from a reader of all its bytes, unless the store has the blob.
    pub(super) fn fill_blob(&self, blob: &Descriptor, from: &mut impl Read) -> io::Result<()> {
        let Some(mut writer) = self.write_blob(blob)? else { return Ok(()) };
        writer.restart()?;
        io::copy(&mut from.take(blob.size()), &mut writer)?;
        writer.commit()?;
        Ok(())
    }

    /// Writes a document with sorted keys, so that equal documents have equal digests.
    pub(super) fn put_document(&self, media_type: MediaType, document: &impl Serialize) -> Result<Descriptor> {
        let sorted = serde_json::to_value(document).map_err(|error| manifest::unwritten(&error))?;
        self.put_blob(media_type, sorted.to_string().as_bytes())
    }

    /// Writes a manifest for a configuration and layers that the store has.
    pub(super) fn put_manifest(&self, config: Descriptor, layers: Vec<Descriptor>) -> Result<Descriptor> {
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(layers)
            .build()
            .map_err(|error| manifest::unwritten(&error))?;
        self.put_document(MediaType::ImageManifest, &manifest)
    }

    /// Names a manifest or an index of the store. If another image had this name, it loses the
    /// name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the store does not have the manifest; [`ErrorKind::Invalid`] if
    /// the name contains another digest; [`ErrorKind::Corrupt`] and [`ErrorKind::Unsupported`] if
    /// the blob is neither a manifest nor an index.
    pub fn tag(&self, name: &Reference, manifest: &Descriptor) -> Result<()> {
        let _hold = self.hold()?;
        if name.digest().is_some_and(|digest| digest != manifest.digest()) {
            let detail = format!("the name contains a digest other than {}", manifest.digest());
            return Err(Error::message(ErrorKind::Invalid, Step::ImageName, detail).at(name.to_string()));
        }
        manifest::read(&self.layout, manifest)?;
        let text = name.to_string();
        let mut entry = manifest.clone();
        let mut annotations: HashMap<String, String> = entry.annotations().clone().unwrap_or_default();
        annotations.insert(REF_NAME.to_owned(), text.clone());
        entry.set_annotations(Some(annotations));
        self.layout.change_index(self.wait, |entries| {
            entries.retain(|old| ref_name(old) != Some(&text));
            entries.push(entry);
            Ok(())
        })
    }

    /// Returns the manifest or index with this name. A name that contains a digest is also found by
    /// the digest, with any tag of the same repository.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn resolve(&self, name: &Reference) -> Result<Descriptor> {
        let text = name.to_string();
        let index = self.layout.index()?;
        let exact = index.manifests().iter().find(|entry| ref_name(entry) == Some(&text));
        let by_digest = || {
            let digest = name.digest()?;
            index.manifests().iter().find(|entry| {
                entry.digest() == digest
                    && ref_name(entry).and_then(|n| n.parse::<Reference>().ok()).is_some_and(|n| n.is_beside(name))
            })
        };
        exact.or_else(by_digest).cloned().ok_or_else(|| {
            let error = Error::message(ErrorKind::NotFound, Step::ImageIndex, "the store has no such image").at(&text);
            error.hint("pull or import it first")
        })
    }

    /// Returns the image with this name for this machine's platform.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the store does not have the name, a manifest for this platform,
    /// or a blob; [`ErrorKind::Corrupt`], [`ErrorKind::TooLarge`] and [`ErrorKind::Unsupported`]
    /// for invalid documents.
    pub fn image(&self, name: &Reference) -> Result<Image> {
        self.image_for(name, &host_platform())
    }

    /// Returns the image with this name for `platform`.
    ///
    /// # Errors
    ///
    /// The errors of [`image`](Store::image).
    pub fn image_for(&self, name: &Reference, platform: &Platform) -> Result<Image> {
        Image::read(self, Some(name.clone()), &self.resolve(name)?, platform)
    }

    /// Returns the image with this manifest or index, which need not have a name.
    ///
    /// # Errors
    ///
    /// The errors of [`image`](Store::image).
    pub fn image_of(&self, manifest: &Descriptor, platform: &Platform) -> Result<Image> {
        Image::read(self, None, manifest, platform)
    }

    /// Returns every name with its manifest or index. Names that are not valid references, as other
    /// tools may write, are left out.
    ///
    /// ```no_run
    /// use ringfence::image::Store;
    ///
    /// let store = Store::open_default()?;
    /// for (name, manifest) in store.images()? {
    ///     println!("{name} {}", manifest.digest());
    /// }
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`], [`ErrorKind::Corrupt`].
    pub fn images(&self) -> Result<Vec<(Reference, Descriptor)>> {
        let index = self.layout.index()?;
        let named = |entry: &Descriptor| Some((ref_name(entry)?.parse().ok()?, entry.clone()));
        Ok(index.manifests().iter().filter_map(named).collect())
    }

    /// Removes a name. Blobs and layers that no other name needs stay until the store is
    /// [pruned](Store::prune). If the disk is full and has no room for the new index, they are
    /// removed first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn remove(&self, name: &Reference) -> Result<()> {
        let is_full = |error: &Error| matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
        match self.forget(name) {
            Err(error) if is_full(&error) => {
                self.prune_without(Some(name))?;
                self.forget(name)
            }
            done => done,
        }
    }

    fn forget(&self, name: &Reference) -> Result<()> {
        let text = name.to_string();
        self.layout.change_index(self.wait, |entries| {
            let before = entries.len();
            entries.retain(|entry| ref_name(entry) != Some(&text));
            if entries.len() == before {
                let detail = "the store has no such image";
                return Err(Error::message(ErrorKind::NotFound, Step::ImageIndex, detail).at(&text));
            }
            Ok(())
        })
    }
}

pub(super) fn ref_name(entry: &Descriptor) -> Option<&String> {
    entry.annotations().as_ref()?.get(REF_NAME)
}
