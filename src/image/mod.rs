//! OCI images: a store of them on disk, by name and by content.
//!
//! The types of the image specification are those of the crate `oci-spec`. Manifests of Docker's schema 2 are read as well.
//! Everything that comes from outside is bounded: a document by 4 MiB, an index within an index by four steps.

mod account;
mod beneath;
mod blob;
mod build;
mod compare;
mod compression;
mod digest;
mod export;
mod garbage;
mod hide;
mod import;
mod layers;
mod layout;
mod links;
mod lock;
mod lowers;
mod manifest;
mod platform;
mod reference;
mod run;
mod settle;
mod store;
mod stream;
mod tar;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod user;
mod vouch;

pub use oci_spec::image::{
    Arch, Descriptor, DescriptorBuilder, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os, Platform,
};

pub use blob::BlobWriter;
pub use build::ImageBuilder;
pub use digest::Digest;
#[cfg(feature = "registry")]
pub(crate) use digest::{digest_of, is_of};
pub use export::Archive;
pub use garbage::{Damage, DiskUsage, Pruned};
pub use import::Imported;
pub use layers::Layers;
#[cfg(feature = "registry")]
pub(crate) use manifest::{DEPTH_MAX, DOCUMENT_MAX, Document, parse};
pub use platform::{host_platform, pick};
pub use reference::Reference;
pub use store::{Hold, Store};
pub use unpack::Ids;

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

    /// The store that it is in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The name by which it was found.
    pub fn name(&self) -> Option<&Reference> {
        self.name.as_ref()
    }

    /// The descriptor of its manifest.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> &Digest {
        self.descriptor.digest()
    }

    /// The digest of its configuration, which docker(1) calls the image's id.
    pub fn id(&self) -> &Digest {
        self.manifest.config().digest()
    }

    /// Its manifest.
    pub fn manifest(&self) -> &ImageManifest {
        &self.manifest
    }

    /// Its configuration: what to run, as whom, where.
    pub fn config(&self) -> &ImageConfiguration {
        &self.config
    }

    /// Its layers as they are in the store, the lowest first.
    pub fn layers(&self) -> &[Descriptor] {
        self.manifest.layers()
    }

    /// The digests of its layers' contents without compression, the lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// What each layer is called together with all below it: config.md of the image specification, "Layer ChainID".
    pub fn chain_ids(&self) -> &[Digest] {
        &self.chain_ids
    }

    /// The bytes of its layers, as they are in the store.
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
