//! Measures and prunes a store.

use std::collections::HashSet;
use std::path::Path;

use nix::sys::stat::SFlag;
use oci_spec::image::{Descriptor, Digest};

use super::layers::read_record;
use super::lock::{self, Mode};
use super::manifest::{self, DEPTH_MAX, Document};
use super::platform::host_platform;
use super::reference::Reference;
use super::store::Store;
use super::store_path::StorePath;
use super::tree::kind_of;
use crate::error::{Error, ErrorKind, Result, Step};

/// The disk usage of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DiskUsage {
    /// The number of tagged images.
    pub images: u64,
    /// The size of all blobs in bytes: layers as pulled or imported, manifests, configurations.
    pub blobs: u64,
    /// The size of the files of all unpacked layers in bytes.
    pub layers: u64,
    /// The size of incomplete downloads in bytes.
    pub partial: u64,
    /// The number of bytes that [`Store::prune`] would remove if nothing were in use.
    pub reclaimable: u64,
}

/// The number of objects, and of bytes, that [`Store::prune`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// The number of blobs removed, complete or not.
    pub blobs: u64,
    /// The number of unpacked layers removed.
    pub layers: u64,
    /// The number of unpacked layers that no tagged image needs, and that were kept because a
    /// sandbox runs from them.
    pub in_use: u64,
    /// The number of bytes removed.
    pub bytes: u64,
}

pub(super) fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::io(Step::PruneStore, error).with_kind(ErrorKind::Store).at(path)
}

/// Lists the files of a directory and of its subdirectories, one level deep, with their sizes.
pub(super) fn files(dir: &StorePath) -> Result<Vec<(StorePath, u64)>> {
    let mut all = Vec::new();
    for path in dir.entries().map_err(|error| failed(dir.path(), &error))? {
        match path.stat() {
            Ok(stat) if kind_of(&stat) == SFlag::S_IFDIR => all.extend(files(&path)?),
            Ok(stat) => all.push((path, stat.st_size as u64)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(path.path(), &error)),
        }
    }
    Ok(all)
}

/// Lists the directories of unpacked layers, with the sizes of their files.
pub(super) fn layers(dir: &StorePath) -> Result<Vec<(StorePath, u64)>> {
    let mut all = Vec::new();
    for path in dir.entries().map_err(|error| failed(dir.path(), &error))? {
        let bytes = read_record(&path).map_or(0, |record| record.summary.bytes);
        all.push((path, bytes));
    }
    Ok(all)
}

/// The blobs and layers that tagged images need.
#[derive(Debug, Default)]
struct Reachable {
    blobs: HashSet<Digest>,
    /// Names of unpacked layers, without the suffix for their ids.
    layers: HashSet<String>,
}

impl Reachable {
    /// Adds a document and all below it. A document that is damaged or missing needs nothing.
    fn add(&mut self, store: &Store, blob: &Descriptor, depth: usize) {
        self.blobs.insert(blob.digest().clone());
        match manifest::read(&store.layout, blob) {
            Ok(Document::Index(index)) if depth > 0 => {
                index.manifests().iter().for_each(|entry| self.add(store, entry, depth - 1));
            }
            Ok(Document::Manifest(manifest)) => {
                self.blobs.insert(manifest.config().digest().clone());
                self.blobs.extend(manifest.layers().iter().map(|layer| layer.digest().clone()));
                if let Ok(image) = store.image_of(blob, &host_platform()) {
                    self.layers.extend(image.chain_ids().iter().map(|c| format!("{}-{}", c.algorithm(), c.digest())));
                }
            }
            _ => {}
        }
    }

    fn has_blob(&self, path: &StorePath) -> bool {
        digest_of_path(path.path()).is_some_and(|digest| self.blobs.contains(&digest))
    }

    fn has_layer(&self, path: &StorePath) -> bool {
        let name = path.name().to_str().unwrap_or_default();
        self.layers.contains(name.trim_end_matches("-squashed"))
    }
}

/// Returns the digest that the path of a blob names.
pub(super) fn digest_of_path(path: &Path) -> Option<Digest> {
    let mut parts = path.iter().rev();
    let (digits, algorithm) = (parts.next()?.to_str()?, parts.next()?.to_str()?);
    format!("{algorithm}:{digits}").parse().ok()
}

impl Store {
    /// Returns what all tagged images need, except the image named `without`.
    fn reachable(&self, without: Option<&Reference>) -> Result<Reachable> {
        let mut reachable = Reachable::default();
        let without = without.map(Reference::to_string);
        for entry in self.layout.index()?.manifests() {
            if without.is_some() && super::store::ref_name(entry) == without.as_ref() {
                continue;
            }
            reachable.add(self, entry, DEPTH_MAX);
        }
        Ok(reachable)
    }

    /// Measures the disk usage of the store, and how much of it could be removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`]; [`ErrorKind::Corrupt`] if the index is damaged.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let reachable = self.reachable(None)?;
        let mut usage = DiskUsage { images: self.layout.index()?.manifests().len() as u64, ..DiskUsage::default() };
        for (path, size) in files(&self.layout.blobs())? {
            usage.blobs += size;
            usage.reclaimable += if reachable.has_blob(&path) { 0 } else { size };
        }
        for (_, size) in files(&self.layout.partials())? {
            usage.partial += size;
            usage.reclaimable += size;
        }
        for (path, size) in layers(&self.layout.layers())? {
            usage.layers += size;
            usage.reclaimable += if reachable.has_layer(&path) { 0 } else { size };
        }
        Ok(usage)
    }

    /// Removes what no tagged image needs: blobs, unpacked layers, incomplete downloads, and the
    /// leftovers of killed processes. Waits for processes that add to the store. Layers that a
    /// [`Layers`](super::Layers) holds are kept.
    ///
    /// ```no_run
    /// use ringfence::image::Store;
    ///
    /// let store = Store::open_default()?;
    /// store.remove(&"docker.io/library/alpine:3.20".parse()?)?;
    /// println!("{:?}", store.prune()?);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if other processes add to the store for longer than
    /// [`wait`](Store::wait); [`ErrorKind::Store`].
    pub fn prune(&self) -> Result<Pruned> {
        self.prune_without(None)
    }

    /// Prunes as if the image named `name` were removed.
    pub(super) fn prune_without(&self, name: Option<&Reference>) -> Result<Pruned> {
        let _alone = lock::lock(&self.layout.hold_lock(), Mode::Exclusive, self.wait)?;
        let reachable = self.reachable(name)?;
        let mut pruned = Pruned::default();
        let unneeded = files(&self.layout.blobs())?.into_iter().filter(|(path, _)| !reachable.has_blob(path));
        for (path, size) in unneeded.chain(files(&self.layout.partials())?) {
            path.remove_file().map_err(|error| failed(path.path(), &error))?;
            pruned.blobs += 1;
            pruned.bytes += size;
        }
        for (path, size) in layers(&self.layout.layers())? {
            if reachable.has_layer(&path) {
                continue;
            }
            if self.remove_layer(&path)? {
                pruned.layers += 1;
                pruned.bytes += size;
            } else {
                pruned.in_use += 1;
            }
        }
        self.clear_staging()?;
        Ok(pruned)
    }

    /// Removes an unpacked layer, unless a [`Layers`](super::Layers) holds it. The directory is
    /// renamed first, so that no process finds an incomplete layer.
    fn remove_layer(&self, path: &StorePath) -> Result<bool> {
        let dir = path.open_dir().map_err(|error| failed(path.path(), &error))?;
        let Ok(_lock) = lock::try_lock(dir, path, Mode::Exclusive)? else { return Ok(false) };
        let gone = self.layout.staging(&format!("{}.gone", path.name().display()));
        gone.remove_tree()?;
        path.rename(&gone).map_err(|error| failed(path.path(), &error))?;
        gone.remove_tree()?;
        Ok(true)
    }

    /// Clears the staging directory. No process unpacks during a prune, so everything there was
    /// left by a killed process.
    fn clear_staging(&self) -> Result<()> {
        let staging = self.layout.staging_dir();
        for path in staging.entries().map_err(|error| failed(staging.path(), &error))? {
            match path.is_dir() {
                true => path.remove_tree()?,
                false => path.remove_file().map_err(|error| failed(path.path(), &error))?,
            }
        }
        Ok(())
    }
}
