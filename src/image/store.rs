//! The store of images.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::Flock;
use oci_spec::image::{Descriptor, Digest, ImageManifestBuilder, MediaType, Platform};
use serde::Serialize;

use super::account::Bounds;
use super::beneath;
use super::blob::{self, Begun, BlobWriter};
use super::digest::digest_of;
use super::layout::{Layout, REF_NAME};
use super::lock::{self, Mode};
use super::manifest;
use super::platform::host_platform;
use super::{Image, Reference};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::units::Bytes;

/// A store of images in a directory: an OCI image layout, with the layers unpacked beside it.
///
/// Any number of threads and processes may use one at once. What is in it is whole: bytes get their place under their digest
/// only after they were found to have it, and are on disk before anything names them. Killing a user of the store at any
/// point leaves nothing but downloads that the next one goes on with.
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
    pub(super) bounds: Bounds,
}

/// Keeps [`prune`](Store::prune) away while it lives: for who writes blobs first and names them later. Clones are one hold.
#[derive(Debug, Clone)]
pub struct Hold {
    _lock: Arc<Flock<File>>,
}

impl Store {
    /// Opens the store at `path`, which is made if it is missing, and closed to other users.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`], also where its directories belong to another user than root and the caller, others may write to
    /// them, or a link stands in the place of one of its directories and files.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        let layout = Arc::new(Layout::open(path.as_ref())?);
        Ok(Store {
            layout,
            wait: Duration::from_secs(600),
            squash: false,
            one_tenant: false,
            bounds: Bounds::default(),
        })
    }

    /// Opens the user's store: `$XDG_DATA_HOME/ringfence/images`, or `~/.local/share/ringfence/images`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if neither XDG_DATA_HOME nor HOME is set to an absolute path, and as [`open`](Store::open).
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

    /// How long to wait for another process that holds a lock, or writes the same blob without progress: ten minutes without
    /// this call.
    pub fn wait(mut self, wait: Duration) -> Store {
        self.wait = wait;
        self
    }

    /// The most bytes that a layer may have without its compression, and that its files may have: 32 GiB without this call. What
    /// is beyond is an error.
    pub fn layer_bytes_limit(mut self, limit: impl Into<Bytes>) -> Store {
        self.bounds.bytes = limit.into().get();
        self
    }

    /// The most entries that a layer may have: 2,000,000 without this call. Directories that have to be made for them count, as
    /// does what it takes to hide files of the layers below.
    pub fn layer_entries_limit(mut self, limit: u64) -> Store {
        self.bounds.entries = limit;
        self
    }

    /// The most bytes that the files of all layers of an image may have: 64 GiB without this call.
    pub fn image_bytes_limit(mut self, limit: impl Into<Bytes>) -> Store {
        self.bounds.image_bytes = limit.into().get();
        self
    }

    /// The most entries that all layers of an image may have: 4,000,000 without this call.
    pub fn image_entries_limit(mut self, limit: u64) -> Store {
        self.bounds.image_entries = limit;
        self
    }

    /// Has root unpack layers as an ordinary user does: all files are the unpacking user's own.
    pub fn squash_ids(mut self) -> Store {
        self.squash = true;
        self
    }

    /// Says that whoever uses this store may see all that is in it.
    ///
    /// Without this call a store may serve tenants that must not see each other's images. Then a pull takes a blob that is in
    /// the store already only after its registry has shown, with the credentials in use, that it has these bytes: a piece of
    /// it, chosen at random, is asked for. And an unpacked layer is given to an image only once the image's own blob of it was
    /// had, and found to have these contents: a diff id that a configuration names is nobody's proof. With this call, neither
    /// is asked, and `Registry::pull_and_unpack` does not fetch layers that are unpacked.
    pub fn one_tenant(mut self) -> Store {
        self.one_tenant = true;
        self
    }

    #[cfg(feature = "registry")]
    pub(crate) fn is_of_one_tenant(&self) -> bool {
        self.one_tenant
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// Keeps blobs that no image names yet from being pruned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if something is being pruned for longer than [`wait`](Store::wait).
    pub fn hold(&self) -> Result<Hold> {
        let lock = lock::lock(&self.layout.hold_lock(), Mode::Shared, self.wait)?;
        Ok(Hold { _lock: Arc::new(lock) })
    }

    /// Whether the store has this blob.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if it has one of this digest and another length.
    pub fn has(&self, blob: &Descriptor) -> Result<bool> {
        blob::is_whole(&self.layout, blob)
    }

    /// The bytes of a blob, if the store has it. They had its digest when they came in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`].
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.layout.blob(digest);
        match beneath::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(Step::ReadBlob, &error).with_kind(ErrorKind::Store).at(&path)),
        }
    }

    /// The bytes of a manifest, an index or a configuration, checked against the descriptor once more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]; [`ErrorKind::TooLarge`] beyond 4 MiB; [`ErrorKind::Corrupt`].
    pub fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        manifest::bytes(&self.layout, blob)
    }

    /// Begins to write a blob, or goes on where an earlier writer ended; `None` if the store has it. Waits while another
    /// writer of the same blob makes progress.
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
    /// [`ErrorKind::Timeout`] if another writer makes no progress for as long as [`wait`](Store::wait) says;
    /// [`ErrorKind::Unsupported`] for digests other than sha256, sha384 and sha512; [`ErrorKind::Store`].
    pub fn write_blob(&self, blob: &Descriptor) -> Result<Option<BlobWriter>> {
        BlobWriter::begin(&self.layout, blob, self.hold()?, self.wait)
    }

    /// The same without waiting.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InUse`] if another is writing the blob, and as [`write_blob`](Store::write_blob).
    pub fn try_write_blob(&self, blob: &Descriptor) -> Result<Option<BlobWriter>> {
        match BlobWriter::try_begin(&self.layout, blob, &self.hold()?)? {
            Begun::Whole => Ok(None),
            Begun::Writer(writer) => Ok(Some(*writer)),
            Begun::Busy => {
                let detail = "another writer is at it";
                Err(Error::message(ErrorKind::InUse, Step::WriteBlob, detail).at(blob.digest().to_string()))
            }
        }
    }

    /// Writes a whole blob, under its sha256 digest.
    ///
    /// # Errors
    ///
    /// As [`write_blob`](Store::write_blob).
    pub fn put_blob(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
        let blob = Descriptor::new(media_type, bytes.len() as u64, digest_of(bytes)?);
        self.fill_blob(&blob, &mut &*bytes)
            .map_err(|error| Error::from_io(Step::WriteBlob, ErrorKind::Store, error).at(blob.digest().to_string()))?;
        Ok(blob)
    }

    /// Writes a blob from a reader that begins with its first byte, unless the store has it.
    pub(super) fn fill_blob(&self, blob: &Descriptor, from: &mut impl Read) -> io::Result<()> {
        let Some(mut writer) = self.write_blob(blob)? else { return Ok(()) };
        writer.restart()?;
        io::copy(&mut from.take(blob.size()), &mut writer)?;
        writer.commit()?;
        Ok(())
    }

    /// Writes a document with its keys in order, so that the same one has the same digest.
    pub(super) fn put_document(&self, media_type: MediaType, document: &impl Serialize) -> Result<Descriptor> {
        let sorted = serde_json::to_value(document).map_err(|error| manifest::unwritten(&error))?;
        self.put_blob(media_type, sorted.to_string().as_bytes())
    }

    /// Writes the manifest of a configuration and layers that the store has.
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

    /// Gives a manifest or an index of the store a name, which it takes from the image that had it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the store does not have it; [`ErrorKind::Invalid`] if the name says another digest;
    /// [`ErrorKind::Corrupt`] and [`ErrorKind::Unsupported`] if it is neither manifest nor index.
    pub fn tag(&self, name: &Reference, manifest: &Descriptor) -> Result<()> {
        let _hold = self.hold()?;
        if name.digest().is_some_and(|digest| digest != manifest.digest()) {
            let detail = format!("the name is that of another digest than {}", manifest.digest());
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

    /// The manifest or index of that name. A name with a digest is also found by it, whatever the tag was in that
    /// repository.
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

    /// The image of that name for this machine's platform.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such name, or nothing for this platform, or a blob is missing;
    /// [`ErrorKind::Corrupt`], [`ErrorKind::TooLarge`] and [`ErrorKind::Unsupported`] for what is in its documents.
    pub fn image(&self, name: &Reference) -> Result<Image> {
        self.image_for(name, &host_platform())
    }

    /// The image of that name for `platform`.
    ///
    /// # Errors
    ///
    /// As [`image`](Store::image).
    pub fn image_for(&self, name: &Reference, platform: &Platform) -> Result<Image> {
        Image::read(self, Some(name.clone()), &self.resolve(name)?, platform)
    }

    /// The image whose manifest or index this is, whether it has a name or not.
    ///
    /// # Errors
    ///
    /// As [`image`](Store::image).
    pub fn image_of(&self, manifest: &Descriptor, platform: &Platform) -> Result<Image> {
        Image::read(self, None, manifest, platform)
    }

    /// Every name with its manifest or index. Names of a foreign layout that are none for a registry are left out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`], [`ErrorKind::Corrupt`].
    pub fn images(&self) -> Result<Vec<(Reference, Descriptor)>> {
        let index = self.layout.index()?;
        let named = |entry: &Descriptor| Some((ref_name(entry)?.parse().ok()?, entry.clone()));
        Ok(index.manifests().iter().filter_map(named).collect())
    }

    /// Takes a name away. What no name needs any more stays until it is [pruned](Store::prune), or goes first where the disk
    /// is full and has no room for the new list of names.
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
