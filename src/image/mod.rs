//! OCI images: a store on disk, in which images are found by name and by digest.
//!
//! The types of the OCI image specification come from the crate `oci-spec`. Manifests of Docker's
//! schema 2 are also read. Input from outside is limited: a document to 4 MiB, nested indexes to a
//! depth of four.

mod attributes;
mod blob;
mod build;
mod compare;
mod complete;
mod compression;
mod digest;
mod export;
mod hide;
mod hold;
mod import;
mod known_blobs;
mod layers;
mod layout;
mod links;
mod lock;
mod lowers;
mod manifest;
mod platform;
mod prune;
mod quota;
mod reference;
mod run;
mod store;
mod store_path;
mod stream;
mod tar;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod user;
mod verify;

pub use oci_spec::image::{
    Arch, Descriptor, DescriptorBuilder, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os, Platform,
};

pub use blob::BlobWriter;
pub use build::ImageBuilder;
pub use digest::Digest;
#[cfg(feature = "registry")]
pub(crate) use digest::{digest_of, is_of};
pub use export::Archive;
pub use hold::Hold;
pub use import::Imported;
pub use layers::Layers;
#[cfg(feature = "registry")]
pub(crate) use manifest::{DEPTH_MAX, DOCUMENT_MAX, Document, parse};
pub use platform::{host_platform, pick};
pub use prune::{DiskUsage, Pruned};
pub use reference::Reference;
pub use store::Store;
pub use unpack::Ids;
pub use verify::Damage;

use crate::error::Result;

/// An image of a [`Store`]: its manifest for one platform, and its configuration.
#[derive(Debug, Clone)]
pub struct Image {
    store: Store,
    name: Option<Reference>,
    descriptor: Descriptor,
    manifest: ImageManifest,
    config: ImageConfiguration,
    diff_ids: Vec<Digest>,
    chain_ids: Vec<Digest>,
}

impl Image {
    fn read(store: &Store, name: Option<Reference>, blob: &Descriptor, platform: &Platform) -> Result<Image> {
        let (descriptor, manifest) = manifest::resolve(&store.layout, blob, platform)?;
        let config = manifest::configuration(&store.layout, &manifest)?;
        let diff_ids = manifest::diff_ids(&manifest, &config)?;
        let chain_ids = chain_ids(&diff_ids)?;
        Ok(Image { store: store.clone(), name, descriptor, manifest, config, diff_ids, chain_ids })
    }

    /// Returns the image's store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the name by which the image was looked up.
    pub fn name(&self) -> Option<&Reference> {
        self.name.as_ref()
    }

    /// Returns the descriptor of the image's manifest.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns the digest of the image's manifest.
    pub fn digest(&self) -> &Digest {
        self.descriptor.digest()
    }

    /// Returns the digest of the image's configuration, which docker(1) calls the image id.
    pub fn id(&self) -> &Digest {
        self.manifest.config().digest()
    }

    /// Returns the image's manifest.
    pub fn manifest(&self) -> &ImageManifest {
        &self.manifest
    }

    /// Returns the image's configuration: the program, its user and its working directory.
    pub fn config(&self) -> &ImageConfiguration {
        &self.config
    }

    /// Returns the descriptors of the image's layers, the lowest first.
    pub fn layers(&self) -> &[Descriptor] {
        self.manifest.layers()
    }

    /// Returns the digests of the image's layers without compression, the lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// Returns the chain ids, the lowest layer's first. A chain id names a layer together with all
    /// layers below: config.md of the OCI image specification, "Layer ChainID".
    pub fn chain_ids(&self) -> &[Digest] {
        &self.chain_ids
    }

    /// Returns the total size of the image's layers in the store, in bytes.
    pub fn size(&self) -> u64 {
        self.layers().iter().fold(0, |sum, layer| sum.saturating_add(layer.size()))
    }
}

fn chain_ids(diff_ids: &[Digest]) -> Result<Vec<Digest>> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let next = match chain.last() {
            None => id.clone(),
            Some(below) => digest::digest_of(format!("{below} {id}").as_bytes())?,
        };
        chain.push(next);
    }
    Ok(chain)
}
