//! Downloads manifests and indexes into the store, and lists what they refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use bytes::Bytes;
use oci_spec::image::{Descriptor, Digest, ImageManifest, MediaType};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use serde::Deserialize;

use super::download::blocking;
use super::failure::{Failure, Subject};
use super::http::Call;
use super::repository::Repository;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::Platform;
use crate::image::{DEPTH_MAX, DOCUMENT_MAX, Document, Reference, Store, parse, pick};

const DIGEST_HEADER: &str = "docker-content-digest";
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// The largest number of manifests that one name may refer to.
const MANIFESTS_MAX: usize = 1000;

/// Everything that a name refers to: documents, each after those that it refers to, as registries
/// accept them; and blobs, each once.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) documents: Vec<Descriptor>,
    pub(super) blobs: Vec<Descriptor>,
    /// The digests of the blobs that are configurations.
    pub(super) configs: BTreeSet<String>,
    seen: BTreeMap<String, u64>,
}

impl Tree {
    pub(super) fn bytes(&self) -> u64 {
        self.blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size()))
    }

    fn add(&mut self, manifest: &ImageManifest) -> Result<()> {
        self.configs.insert(manifest.config().digest().to_string());
        // The configuration is small, and shows whether the manifest is an image at all.
        for blob in std::iter::once(manifest.config()).chain(manifest.layers()) {
            match self.seen.insert(blob.digest().to_string(), blob.size()) {
                None => self.blobs.push(blob.clone()),
                Some(size) if size == blob.size() => {}
                Some(size) => {
                    let detail = format!("it has {size} bytes in one place, and {} in another", blob.size());
                    return Err(
                        Error::message(ErrorKind::Corrupt, Step::PullManifest, detail).at(blob.digest().to_string())
                    );
                }
            }
        }
        Ok(())
    }
}

/// The manifests of an index that are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Platforms<'a> {
    All,
    For(&'a Platform),
}

/// A source of documents by descriptor.
pub(super) trait Source {
    fn document(&self, blob: &Descriptor) -> impl Future<Output = Result<Document>> + Send;
}

/// Collects everything below `top`, without recursion, as the input decides about the depth.
pub(super) async fn walk(source: &impl Source, top: &Descriptor, which: Platforms<'_>) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut documents: Vec<Descriptor> = Vec::new();
    let mut level = vec![top.clone()];
    for _ in 0..=DEPTH_MAX {
        let mut below = Vec::new();
        for blob in std::mem::take(&mut level) {
            if documents.iter().any(|known| known.digest() == blob.digest()) {
                continue;
            }
            if documents.len() >= MANIFESTS_MAX {
                let detail = format!("it leads to more than {MANIFESTS_MAX} manifests");
                return Err(too_large(top, detail));
            }
            match source.document(&blob).await? {
                Document::Manifest(manifest) => tree.add(&manifest)?,
                Document::Index(index) => match which {
                    Platforms::All => below.extend(index.manifests().iter().cloned()),
                    Platforms::For(platform) => {
                        below.push(pick(&index, platform).map_err(|error| error.at(blob.digest().to_string()))?);
                    }
                },
            }
            documents.push(blob);
        }
        if below.is_empty() {
            documents.reverse();
            tree.documents = documents;
            return Ok(tree);
        }
        level = below;
    }
    Err(too_large(top, format!("an index in an index, more than {DEPTH_MAX} deep")))
}

fn too_large(top: &Descriptor, detail: String) -> Error {
    Error::message(ErrorKind::TooLarge, Step::PullManifest, detail).at(top.digest().to_string())
}

/// The documents of the store.
pub(super) struct InStore<'a>(pub(super) &'a Store);

impl Source for InStore<'_> {
    async fn document(&self, blob: &Descriptor) -> Result<Document> {
        let (store, blob) = (self.0.clone(), blob.clone());
        let subject = Subject::new(Step::PushManifest, blob.digest().to_string());
        let lacking = |error: Error| match error.kind() {
            ErrorKind::NotFound => error.hint(
                "the store has this name for some platforms only: pull it with all_platforms, or tag the image of one \
                 platform by its descriptor and push that",
            ),
            _ => error,
        };
        blocking(&subject, move || parse(&store.document(&blob)?, &blob)).await?.map_err(lacking)
    }
}

/// The documents of the store, or else of the registry, which are then written to the store.
pub(super) struct FromRegistry<'a> {
    pub(super) repository: &'a Repository,
    pub(super) store: &'a Store,
}

impl Source for FromRegistry<'_> {
    async fn document(&self, blob: &Descriptor) -> Result<Document> {
        let subject = Subject::new(Step::PullManifest, self.repository.name_of(blob));
        if blob.size() > DOCUMENT_MAX {
            return Err(longer(&subject));
        }
        let (store, wanted) = (self.store.clone(), blob.clone());
        let is_enough = move || Ok::<_, Error>(store.is_of_one_tenant() && store.has(&wanted)?);
        if !blocking(&subject, is_enough).await?? {
            let (_, bytes) = self.fetch(&subject, blob.digest().as_ref()).await?;
            put(&subject, self.store, blob, bytes).await?;
        }
        let (store, blob) = (self.store.clone(), blob.clone());
        blocking(&subject, move || parse(&store.document(&blob)?, &blob)).await?
    }
}

impl FromRegistry<'_> {
    /// Returns the manifest or index that `name` refers to, after writing it to the store.
    pub(super) async fn top(&self, name: &Reference) -> Result<Descriptor> {
        let subject = Subject::new(Step::PullManifest, name.to_string());
        let digest = name.digest().map(Digest::to_string);
        let wanted = digest.as_deref().or(name.tag()).unwrap_or("latest");
        let (headers, bytes) = self.fetch(&subject, wanted).await?;
        let media_type = media_type(&headers, &bytes);
        let Some(digest) = name.digest() else {
            let store = self.store.clone();
            let blob = blocking(&subject, move || store.put_blob(media_type, &bytes)).await??;
            let told = headers.get(DIGEST_HEADER).and_then(|told| told.to_str().ok());
            // A digest of another algorithm cannot be compared with this one.
            let other = told.filter(|told| told.starts_with("sha256:") && *told != blob.digest().to_string());
            return match other {
                Some(told) => Err(subject
                    .error(ErrorKind::Corrupt, format!("the expected digest is {told}"))
                    .hint("something between this host and the registry has changed the manifest")),
                None => Ok(blob),
            };
        };
        let blob = Descriptor::new(media_type, bytes.len() as u64, digest.clone());
        put(&subject, self.store, &blob, bytes).await?;
        Ok(blob)
    }

    async fn fetch(&self, subject: &Subject, wanted: &str) -> Result<(HeaderMap, Bytes)> {
        let mut call = Call::new(Method::GET, self.repository.url(&format!("manifests/{wanted}"))?);
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let call = &call;
        self.repository.persist(subject, || self.fetch_once(subject, call)).await
    }

    async fn fetch_once(&self, subject: &Subject, call: &Call) -> Result<(HeaderMap, Bytes), Failure> {
        let response: Response = self.repository.call(subject, call, &[200]).await?;
        let headers = response.headers().clone();
        let body = self.repository.http.body(response).collect(subject, DOCUMENT_MAX as usize).await?;
        Ok((headers, body.ok_or_else(|| longer(subject))?))
    }
}

fn longer(subject: &Subject) -> Error {
    subject.error(ErrorKind::TooLarge, format!("it has more than {DOCUMENT_MAX} bytes")).hint("no manifest is as large")
}

/// Writes a document to the store, after checking it against its descriptor.
async fn put(subject: &Subject, store: &Store, blob: &Descriptor, bytes: Bytes) -> Result<()> {
    let (store, blob) = (store.clone(), blob.clone());
    let write = move || -> Result<()> {
        let Some(mut writer) = store.write_blob(&blob)? else {
            // The store's document may be another tenant's, so the registry has to send the same
            // bytes.
            return if store.document(&blob)? == bytes { Ok(()) } else { Err(differs(&blob)) };
        };
        writer.restart()?;
        writer.write_all(&bytes).map_err(|error| Error::from_io(Step::WriteBlob, ErrorKind::Store, error))?;
        writer.commit()
    };
    let wrong = |error: Error| match error.kind() {
        ErrorKind::Corrupt => error.hint("the registry sends a document that was not asked for"),
        _ => error,
    };
    blocking(subject, write).await?.map_err(wrong)
}

fn differs(blob: &Descriptor) -> Error {
    let detail = "the bytes have another digest";
    Error::message(ErrorKind::Corrupt, Step::PullManifest, detail).at(blob.digest().to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    media_type: Option<String>,
}

/// Returns the media type in the header, or else that in the document itself.
pub(super) fn media_type(headers: &HeaderMap, bytes: &[u8]) -> MediaType {
    let told = headers.get(CONTENT_TYPE).and_then(|told| told.to_str().ok()).unwrap_or_default();
    let told = told.split(';').next().unwrap_or_default().trim();
    if told.starts_with("application/vnd.") {
        return MediaType::from(told);
    }
    let own = serde_json::from_slice(bytes).ok().and_then(|named: Named| named.media_type);
    own.map_or(MediaType::ImageManifest, |own| MediaType::from(own.as_str()))
}
