//! What a store holds, what of it nobody needs, and whether it is still what it was.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, Digest};

use super::beneath;
use super::digest::Hasher;
use super::layers::read_record;
use super::lock::{self, Mode};
use super::manifest::{self, DEPTH_MAX, Document};
use super::{Reference, Store, host_platform};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;

/// What a store takes on disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Names.
    pub images: u64,
    /// Blobs: layers as they came, manifests, configurations.
    pub blobs: u64,
    /// Layers unpacked: the bytes of their files.
    pub layers: u64,
    /// Downloads that are not whole.
    pub partial: u64,
    /// What of all this [`Store::prune`] would take away, if nothing runs.
    pub reclaimable: u64,
}

/// What was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// Blobs, whole or not.
    pub blobs: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// Unpacked layers that nothing names and that something runs from.
    pub in_use: u64,
    /// The bytes of what is gone.
    pub bytes: u64,
}

/// Something in a store that is not what it has to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Damage {
    /// The blob, layer or name.
    pub subject: String,
    /// What is wrong.
    pub error: Error,
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::io(Step::PruneStore, error).with_kind(ErrorKind::Store).at(path)
}

/// Files with their path and length, of the directory and those right below it.
fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| failed(dir, &error))? {
        let path = entry.map_err(|error| failed(dir, &error))?.path();
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => all.extend(files(&path)?),
            Ok(metadata) => all.push((path, metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path, &error)),
        }
    }
    Ok(all)
}

/// Directories of unpacked layers, with the bytes of their files.
fn layers(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| failed(dir, &error))? {
        let path = entry.map_err(|error| failed(dir, &error))?.path();
        let bytes = read_record(&path).map_or(0, |record| record.told.bytes);
        all.push((path, bytes));
    }
    Ok(all)
}

/// What is needed by what is named.
#[derive(Debug, Default)]
struct Needed {
    blobs: HashSet<Digest>,
    /// Names of unpacked layers, but for how their ids are.
    layers: HashSet<String>,
}

impl Needed {
    /// The document and all below it. What is broken, or is not there, needs nothing.
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

    fn has_blob(&self, path: &Path) -> bool {
        digest_of_path(path).is_some_and(|digest| self.blobs.contains(&digest))
    }

    fn has_layer(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.layers.contains(name.trim_end_matches("-squashed"))
    }
}

/// The digest that a blob's place says.
fn digest_of_path(path: &Path) -> Option<Digest> {
    let mut parts = path.iter().rev();
    let (digits, algorithm) = (parts.next()?.to_str()?, parts.next()?.to_str()?);
    format!("{algorithm}:{digits}").parse().ok()
}

impl Store {
    /// What names need, but for `without`.
    fn needed(&self, without: Option<&Reference>) -> Result<Needed> {
        let mut needed = Needed::default();
        let without = without.map(Reference::to_string);
        for entry in self.layout.index()?.manifests() {
            if without.is_some() && super::store::ref_name(entry) == without.as_ref() {
                continue;
            }
            needed.add(self, entry, DEPTH_MAX);
        }
        Ok(needed)
    }

    /// What the store takes on disk, and what of it could go.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`], [`ErrorKind::Corrupt`] for its index.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let needed = self.needed(None)?;
        let mut usage = DiskUsage { images: self.layout.index()?.manifests().len() as u64, ..DiskUsage::default() };
        for (path, size) in files(&self.layout.blobs())? {
            usage.blobs += size;
            usage.reclaimable += if needed.has_blob(&path) { 0 } else { size };
        }
        for (_, size) in files(&self.layout.partials())? {
            usage.partial += size;
            usage.reclaimable += size;
        }
        for (path, size) in layers(&self.layout.layers())? {
            usage.layers += size;
            usage.reclaimable += if needed.has_layer(&path) { 0 } else { size };
        }
        Ok(usage)
    }

    /// Takes away what no name needs: blobs, unpacked layers, downloads that are not whole, and what killed processes have left.
    /// Waits for those who add something; layers that something [holds](super::Layers) stay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if something is added for longer than [`wait`](Store::wait) says; [`ErrorKind::Store`].
    pub fn prune(&self) -> Result<Pruned> {
        self.prune_without(None)
    }

    /// As if the image of that name were no more.
    pub(super) fn prune_without(&self, name: Option<&Reference>) -> Result<Pruned> {
        let _alone = lock::lock(&self.layout.hold_lock(), Mode::Exclusive, self.wait)?;
        let needed = self.needed(name)?;
        let mut pruned = Pruned::default();
        let unneeded = files(&self.layout.blobs())?.into_iter().filter(|(path, _)| !needed.has_blob(path));
        for (path, size) in unneeded.chain(files(&self.layout.partials())?) {
            fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
            pruned.blobs += 1;
            pruned.bytes += size;
        }
        for (path, size) in layers(&self.layout.layers())? {
            if needed.has_layer(&path) {
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

    /// Removes an unpacked layer, unless somebody holds it. It loses its name first: nobody finds a part of one.
    fn remove_layer(&self, path: &Path) -> Result<bool> {
        let dir = beneath::open_dir(path).map_err(|error| failed(path, &error))?;
        let Ok(_lock) = lock::try_lock(dir, path, Mode::Exclusive)? else { return Ok(false) };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let gone = self.layout.staging(&format!("{name}.gone"));
        owner::remove_tree(&gone, None)?;
        fs::rename(path, &gone).map_err(|error| failed(path, &error))?;
        owner::remove_tree(&gone, None)?;
        Ok(true)
    }

    /// Nobody unpacks while somebody prunes: whatever is there was left.
    fn clear_staging(&self) -> Result<()> {
        let staging = self.layout.staging("");
        for entry in fs::read_dir(&staging).map_err(|error| failed(&staging, &error))? {
            let path = entry.map_err(|error| failed(&staging, &error))?.path();
            match path.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => owner::remove_tree(&path, None)?,
                _ => fs::remove_file(&path).map_err(|error| failed(&path, &error))?,
            }
        }
        Ok(())
    }

    /// Reads everything again: every blob against its digest, every name for what it needs, every unpacked layer for its
    /// record. Says what is wrong; removes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`], [`ErrorKind::Corrupt`] for its index.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        let mut damages = Vec::new();
        for (path, _) in files(&self.layout.blobs())? {
            if let Err(error) = check_blob(&path) {
                damages.push(Damage { subject: path.display().to_string(), error });
            }
        }
        for entry in self.layout.index()?.manifests() {
            let mut missing = BTreeMap::new();
            self.missing(entry, DEPTH_MAX, true, &mut missing);
            let name = super::store::ref_name(entry).cloned().unwrap_or_else(|| entry.digest().to_string());
            damages.extend(missing.into_values().map(|error| Damage { subject: name.clone(), error }));
        }
        for (path, _) in layers(&self.layout.layers())? {
            let gone = || Error::message(ErrorKind::Corrupt, Step::UnpackLayer, "its files are gone").at(&path);
            let check =
                read_record(&path).and_then(|_| beneath::is_dir(&path.join("fs")).then_some(()).ok_or_else(gone));
            if let Err(error) = check {
                damages.push(Damage { subject: path.display().to_string(), error });
            }
        }
        Ok(damages)
    }

    /// Compares unpacked layers of named images, those of this machine's platform, with their archives: names, kinds, modes,
    /// owners, times, attributes, contents. They are unpacked anew for it, which takes as much time as the first time, and as
    /// much room on the disk until it is done. Says the first difference of each layer; removes nothing: to mend one, remove
    /// the name, [prune](Store::prune) and unpack the image again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`]; those of [`Image::unpack`](super::Image::unpack) where a blob is damaged, which
    /// [`verify`](Store::verify) tells.
    pub fn verify_unpacked(&self) -> Result<Vec<Damage>> {
        let mut damages = Vec::new();
        let mut seen = HashSet::new();
        for (name, _) in self.images()? {
            let image = match self.image(&name) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                image => image?,
            };
            if !seen.insert(image.chain_ids().to_vec()) {
                continue;
            }
            damages.extend(image.differences()?.into_iter().map(|(path, what)| {
                let error = Error::message(ErrorKind::Corrupt, Step::UnpackLayer, what).at(&path);
                Damage { subject: path.display().to_string(), error }
            }));
        }
        Ok(damages)
    }

    /// What a document needs and the store lacks. Of an index only what is there is looked at.
    fn missing(&self, blob: &Descriptor, depth: usize, top: bool, missing: &mut BTreeMap<String, Error>) {
        if !top && !self.has(blob).unwrap_or(true) {
            return;
        }
        let mut note = |digest: &Digest, error: Error| drop(missing.insert(digest.to_string(), error));
        match manifest::read(&self.layout, blob) {
            Err(error) => note(blob.digest(), error),
            Ok(Document::Manifest(manifest)) => {
                for part in manifest.layers().iter().chain([manifest.config()]) {
                    match self.has(part) {
                        Ok(true) => {}
                        Ok(false) => {
                            let error = Error::message(ErrorKind::NotFound, Step::ReadBlob, "the blob is missing");
                            note(part.digest(), error.at(part.digest().to_string()));
                        }
                        Err(error) => note(part.digest(), error),
                    }
                }
            }
            Ok(Document::Index(index)) if depth > 0 => {
                index.manifests().iter().for_each(|entry| self.missing(entry, depth - 1, false, missing));
            }
            Ok(Document::Index(_)) => {}
        }
    }
}

pub(super) fn check_blob(path: &Path) -> Result<()> {
    let corrupt = |detail: String| Error::message(ErrorKind::Corrupt, Step::ReadBlob, detail).at(path);
    let digest = digest_of_path(path).ok_or_else(|| corrupt("its name is no digest".to_owned()))?;
    let mut hasher = Hasher::of(&digest)?;
    let mut file = match beneath::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(corrupt(error.to_string())),
        opened => opened.map_err(|error| failed(path, &error))?,
    };
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer).map_err(|error| failed(path, &error))?;
        if count == 0 {
            break;
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
    let found = hasher.finish();
    if found == digest.as_ref() { Ok(()) } else { Err(corrupt(format!("its bytes have the digest {found}"))) }
}
