//! Reads manifests, indexes and configurations: limited in size, checked against their digest, and
//! unambiguous in their type.

use std::io::Read;

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Platform};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::digest::Hasher;
use super::layout::Layout;
use super::platform::pick;
use crate::error::{Error, ErrorKind, Result, Step};

/// The largest manifest, index or configuration that is read, in bytes. Registries have the same
/// limit.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
/// The greatest depth of indexes in indexes.
pub(crate) const DEPTH_MAX: usize = 4;
/// The largest number of layers, which is the limit of overlayfs.
const LAYERS_MAX: usize = 500;
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_OLD: &str = "application/vnd.docker.distribution.manifest.v1";

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

/// Returns the error for a document that cannot be serialised.
pub(super) fn unwritten(error: &dyn std::fmt::Display) -> Error {
    Error::message(ErrorKind::Invalid, Step::ImageManifest, error.to_string())
}

fn corrupt(blob: &Descriptor, detail: impl Into<String>) -> Error {
    Error::message(ErrorKind::Corrupt, Step::ImageManifest, detail).at(blob.digest().to_string())
}

/// Reads a JSON blob, and checks its digest and size against the descriptor.
pub(super) fn bytes(layout: &Layout, blob: &Descriptor) -> Result<Vec<u8>> {
    if blob.size() > DOCUMENT_MAX {
        let detail = format!("a manifest or configuration of {} bytes; at most {DOCUMENT_MAX} are read", blob.size());
        return Err(Error::message(ErrorKind::TooLarge, Step::ImageManifest, detail).at(blob.digest().to_string()));
    }
    let path = layout.blob(blob.digest());
    let failed = |error: std::io::Error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Store };
        Error::io(Step::ReadBlob, &error).with_kind(kind).at(path.path())
    };
    let mut bytes = Vec::new();
    path.open().map_err(failed)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let mut hasher = Hasher::of(blob.digest())?;
    hasher.update(&bytes);
    let found = hasher.finish();
    if bytes.len() as u64 != blob.size() || found != blob.digest().as_ref() {
        return Err(corrupt(blob, format!("{} bytes of the digest {found}, and not {}", bytes.len(), blob.size())));
    }
    Ok(bytes)
}

fn json<T: DeserializeOwned>(bytes: &[u8], blob: &Descriptor) -> Result<T> {
    let failed = |error: serde_json::Error| corrupt(blob, error.to_string());
    serde_json::from_slice(bytes).or_else(|error| {
        let mut value: Value = serde_json::from_slice(bytes).map_err(failed)?;
        if !fill_texts(&mut value) {
            return Err(failed(error));
        }
        serde_json::from_value(value).map_err(failed)
    })
}

/// Replaces null labels and annotations by empty maps, as readers written in Go do. Returns true if
/// there are any labels or annotations.
fn fill_texts(value: &mut Value) -> bool {
    match value {
        Value::Array(items) => items.iter_mut().fold(false, |filled, item| fill_texts(item) | filled),
        Value::Object(members) => members.iter_mut().fold(false, |filled, (name, member)| {
            let texts = member.as_object_mut().filter(|_| matches!(name.as_str(), "Labels" | "annotations"));
            let nulls = texts.into_iter().flat_map(|texts| texts.values_mut()).filter(|text| text.is_null());
            let count = nulls.map(|text| *text = Value::String(String::new())).count();
            fill_texts(member) | (count > 0) | filled
        }),
        _ => false,
    }
}

/// The fields by which the types of documents differ.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Parses a document of the descriptor's media type, and refuses contents of another type: the same
/// bytes must not be a manifest for one reader and an index for another (CVE-2021-41190).
pub(crate) fn parse(bytes: &[u8], blob: &Descriptor) -> Result<Document> {
    if bytes.len() as u64 > DOCUMENT_MAX {
        let detail = format!("more than {DOCUMENT_MAX} bytes");
        return Err(Error::message(ErrorKind::TooLarge, Step::ImageManifest, detail).at(blob.digest().to_string()));
    }
    let kind: Kind = json(bytes, blob)?;
    let named = blob.media_type().as_ref();
    if named.starts_with(DOCKER_OLD) || kind.schema_version == Some(1) || kind.fs_layers.is_some() {
        let detail = "a Docker manifest of schema 1, which has no digests of its layers' contents";
        let error = Error::message(ErrorKind::Unsupported, Step::ImageManifest, detail);
        return Err(error.at(blob.digest().to_string()).hint("push the image again with a current tool"));
    }
    if let Some(own) = kind.media_type.as_deref().filter(|own| *own != named) {
        return Err(corrupt(blob, format!("the document says that it is {own}, but its descriptor says {named}")));
    }
    let (index, manifest) = (kind.manifests.is_some(), kind.layers.is_some() || kind.config.is_some());
    match named {
        _ if index && manifest => Err(corrupt(blob, "it is an index and a manifest at once")),
        DOCKER_LIST | "application/vnd.oci.image.index.v1+json" => Ok(Document::Index(Box::new(json(bytes, blob)?))),
        DOCKER_MANIFEST | "application/vnd.oci.image.manifest.v1+json" => {
            Ok(Document::Manifest(Box::new(json(bytes, blob)?)))
        }
        other => {
            let detail = format!("{other} is neither a manifest nor an index");
            Err(Error::message(ErrorKind::Unsupported, Step::ImageManifest, detail).at(blob.digest().to_string()))
        }
    }
}

/// Reads a manifest or an index from the store.
pub(super) fn read(layout: &Layout, blob: &Descriptor) -> Result<Document> {
    parse(&bytes(layout, blob)?, blob)
}

/// Finds the manifest for `platform`, following nested indexes.
pub(super) fn resolve(layout: &Layout, blob: &Descriptor, platform: &Platform) -> Result<(Descriptor, ImageManifest)> {
    let mut blob = blob.clone();
    for _ in 0..=DEPTH_MAX {
        match read(layout, &blob)? {
            Document::Manifest(manifest) => {
                if manifest.layers().len() > LAYERS_MAX {
                    let detail = format!("{} layers; at most {LAYERS_MAX} can be mounted", manifest.layers().len());
                    let error = Error::message(ErrorKind::TooLarge, Step::ImageManifest, detail);
                    return Err(error.at(blob.digest().to_string()));
                }
                return Ok((blob, *manifest));
            }
            Document::Index(index) => blob = pick(&index, platform).map_err(|e| e.at(blob.digest().to_string()))?,
        }
    }
    let detail = format!("an index in an index, more than {DEPTH_MAX} deep");
    Err(Error::message(ErrorKind::TooLarge, Step::ImageManifest, detail).at(blob.digest().to_string()))
}

/// Reads the configuration of a manifest.
pub(super) fn configuration(layout: &Layout, manifest: &ImageManifest) -> Result<ImageConfiguration> {
    let blob = manifest.config();
    match blob.media_type() {
        MediaType::ImageConfig => {}
        MediaType::Other(name) if name == "application/vnd.docker.container.image.v1+json" => {}
        other => {
            let detail = format!("a configuration of the type {other}: this is not an image that can run");
            let error = Error::message(ErrorKind::Unsupported, Step::ImageManifest, detail);
            return Err(error.at(blob.digest().to_string()));
        }
    }
    json(&bytes(layout, blob)?, blob)
}

/// Returns the diff ids: the digests of the layers without compression, one for each layer of the
/// manifest.
pub(super) fn diff_ids(manifest: &ImageManifest, config: &ImageConfiguration) -> Result<Vec<Digest>> {
    let ids = config.rootfs().diff_ids();
    if ids.len() != manifest.layers().len() {
        let detail = format!("{} layers, but diff ids for {}", manifest.layers().len(), ids.len());
        return Err(corrupt(manifest.config(), detail));
    }
    ids.iter().map(|id| super::digest::parse(id)).collect()
}
