//! Manifests, indexes and configurations as they are read: of a bounded size, by their digest, and never two things at once.

use std::io::Read;

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Platform};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::beneath;
use super::digest::Hasher;
use super::layout::Layout;
use super::platform::pick;
use crate::error::{Error, ErrorKind, Result, Step};

/// The largest manifest, index or configuration that is read, as registries have it.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
/// How many indexes may lead to one another.
pub(crate) const DEPTH_MAX: usize = 4;
/// More layers than overlayfs takes.
const LAYERS_MAX: usize = 500;
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_OLD: &str = "application/vnd.docker.distribution.manifest.v1";

/// A document that can be tagged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

/// A document that cannot be.
pub(super) fn unwritten(error: &dyn std::fmt::Display) -> Error {
    Error::message(ErrorKind::Invalid, Step::ImageManifest, error.to_string())
}

fn corrupt(blob: &Descriptor, detail: impl Into<String>) -> Error {
    Error::message(ErrorKind::Corrupt, Step::ImageManifest, detail).at(blob.digest().to_string())
}

/// Reads a blob of JSON as it is, and checks that it is what the descriptor says.
pub(super) fn bytes(layout: &Layout, blob: &Descriptor) -> Result<Vec<u8>> {
    if blob.size() > DOCUMENT_MAX {
        let detail = format!("a manifest or configuration of {} bytes; at most {DOCUMENT_MAX} are read", blob.size());
        return Err(Error::message(ErrorKind::TooLarge, Step::ImageManifest, detail).at(blob.digest().to_string()));
    }
    let path = layout.blob(blob.digest());
    let failed = |error: std::io::Error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Store };
        Error::io(Step::ReadBlob, &error).with_kind(kind).at(&path)
    };
    let mut bytes = Vec::new();
    beneath::open(&path).map_err(failed)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
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

/// Labels and annotations that are null are empty, as for every reader that is written in Go. Gives whether there are some.
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

/// What tells the kinds of documents apart.
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

/// Takes a document for what its media type says, if its content agrees: the same bytes must not be a manifest for one reader
/// and an index for another (CVE-2021-41190).
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
        return Err(error.at(blob.digest().to_string()).hint("have the image pushed anew by a current tool"));
    }
    if let Some(own) = kind.media_type.as_deref().filter(|own| *own != named) {
        return Err(corrupt(blob, format!("it says that it is {own}, and its descriptor that it is {named}")));
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

/// Reads a manifest or index of the store.
pub(super) fn read(layout: &Layout, blob: &Descriptor) -> Result<Document> {
    parse(&bytes(layout, blob)?, blob)
}

/// The manifest for `platform`, through as many indexes as it takes.
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

/// The configuration of a manifest.
pub(super) fn configuration(layout: &Layout, manifest: &ImageManifest) -> Result<ImageConfiguration> {
    let blob = manifest.config();
    match blob.media_type() {
        MediaType::ImageConfig => {}
        MediaType::Other(name) if name == "application/vnd.docker.container.image.v1+json" => {}
        other => {
            let detail = format!("a configuration of the type {other}: it is no image to run");
            let error = Error::message(ErrorKind::Unsupported, Step::ImageManifest, detail);
            return Err(error.at(blob.digest().to_string()));
        }
    }
    json(&bytes(layout, blob)?, blob)
}

/// The digests of the layers' contents, unpacked from their compression: one for each layer of the manifest.
pub(super) fn diff_ids(manifest: &ImageManifest, config: &ImageConfiguration) -> Result<Vec<Digest>> {
    let ids = config.rootfs().diff_ids();
    if ids.len() != manifest.layers().len() {
        let detail = format!("{} layers, and diff ids for {}", manifest.layers().len(), ids.len());
        return Err(corrupt(manifest.config(), detail));
    }
    ids.iter().map(|id| super::digest::parse(id)).collect()
}
