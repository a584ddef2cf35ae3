//! Verifies a store: its blobs, its tagged images and its unpacked layers.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use oci_spec::image::{Descriptor, Digest};

use super::digest::Hasher;
use super::layers::read_record;
use super::manifest::{self, DEPTH_MAX, Document};
use super::prune::{digest_of_path, failed, files, layers};
use super::store::{Store, ref_name};
use super::store_path::StorePath;
use crate::error::{Error, ErrorKind, Result, Step};

/// A damaged object in a store.
#[derive(Debug)]
#[non_exhaustive]
pub struct Damage {
    /// The blob, the layer or the name.
    pub subject: String,
    /// The error that describes the damage.
    pub error: Error,
}

impl Store {
    /// Verifies all blobs against their digests, all tagged images for completeness, and all
    /// unpacked layers for their records. Returns the damage found; removes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`]; [`ErrorKind::Corrupt`] if the index is damaged.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        let mut damages = Vec::new();
        for (path, _) in files(&self.layout.blobs())? {
            if let Err(error) = check_blob(&path) {
                damages.push(Damage { subject: path.path().display().to_string(), error });
            }
        }
        for entry in self.layout.index()?.manifests() {
            let mut missing = BTreeMap::new();
            self.missing(entry, DEPTH_MAX, true, &mut missing);
            let name = ref_name(entry).cloned().unwrap_or_else(|| entry.digest().to_string());
            damages.extend(missing.into_values().map(|error| Damage { subject: name.clone(), error }));
        }
        for (path, _) in layers(&self.layout.layers())? {
            let gone = || {
                Error::message(ErrorKind::Corrupt, Step::UnpackLayer, "the layer's files are missing").at(path.path())
            };
            let check = read_record(&path).and_then(|_| path.join("fs").is_dir().then_some(()).ok_or_else(gone));
            if let Err(error) = check {
                damages.push(Damage { subject: path.path().display().to_string(), error });
            }
        }
        Ok(damages)
    }

    /// Compares the unpacked layers of tagged images, for this machine's platform, with their
    /// archives: names, types, modes, owners, times, attributes and contents. The layers are
    /// unpacked a second time for this, which takes the time and, until the call returns, the disk
    /// space of the first time. Returns the first difference of each layer; removes nothing. To
    /// repair a layer, remove the name, [prune](Store::prune), and unpack the image again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`]; the errors of [`Image::unpack`](super::Image::unpack) if a blob is
    /// damaged, which [`verify`](Store::verify) reports.
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

    /// Collects the blobs that a document needs and the store lacks. Entries of an index that the
    /// store lacks are left out.
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

/// Checks the bytes of a blob against the digest in its path.
pub(super) fn check_blob(path: &StorePath) -> Result<()> {
    let corrupt = |detail: String| Error::message(ErrorKind::Corrupt, Step::ReadBlob, detail).at(path.path());
    let digest = digest_of_path(path.path()).ok_or_else(|| corrupt("the file's name is not a digest".to_owned()))?;
    let mut hasher = Hasher::of(&digest)?;
    let mut file = match path.open() {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(corrupt(error.to_string())),
        opened => opened.map_err(|error| failed(path.path(), &error))?,
    };
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer).map_err(|error| failed(path.path(), &error))?;
        if count == 0 {
            break;
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
    let found = hasher.finish();
    if found == digest.as_ref() { Ok(()) } else { Err(corrupt(format!("its bytes have the digest {found}"))) }
}
