//! Pushes an image of the store to its registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use oci_spec::image::Descriptor;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::blocking::task_failed;
use super::download::{blocking, send_moved};
use super::failure::Subject;
use super::http::{Call, Payload};
use super::manifests::{InStore, Platforms, walk};
use super::progress::{Event, Present};
use super::pull::resolved;
use super::repository::{Repository, Tries};
use super::session::{BlobUpload, UploadSession, exists};
use super::upload::Upload;
use super::{Clock, Registry};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::{Reference, Store};

/// The largest number of repositories that blobs are mounted from. Each makes the token longer.
const SOURCES_MAX: usize = 8;

pub(super) async fn push(registry: &Registry, store: &Store, name: &Reference) -> Result<()> {
    let mut clock = Clock::start();
    let subject = Subject::new(Step::PushManifest, name.to_string());
    let (own, wanted) = (store.clone(), name.clone());
    let (_hold, top) = blocking(&subject, move || Ok::<_, Error>((own.hold()?, own.resolve(&wanted)?))).await??;
    let tree = walk(&InStore(store), &top, Platforms::All).await?;
    let wanted: BTreeSet<String> = tree.blobs.iter().map(|blob| blob.digest().to_string()).collect();
    let sources = Arc::new(sources(store, name, &wanted).await?);

    let mut scopes = vec![format!("repository:{}:pull,push", name.repository())];
    let others: BTreeSet<&String> = sources.values().collect();
    scopes.extend(others.iter().map(|other| format!("repository:{other}:pull")));
    let repository = Arc::new(registry.repository(name, scopes)?);
    clock.resolved();
    resolved(&repository, &top, &tree);

    let turns = Arc::new(Semaphore::new(registry.parallel));
    let mut tasks = JoinSet::new();
    for blob in tree.blobs {
        let (repository, store, turns, sources) = (repository.clone(), store.clone(), turns.clone(), sources.clone());
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            push_blob(&repository, &store, &blob, sources.get(&blob.digest().to_string())).await
        });
    }
    let mut moved = 0;
    while let Some(done) = tasks.join_next().await {
        moved += done.map_err(|error| task_failed(&error))??;
    }
    clock.moved(moved);
    for document in &tree.documents {
        let tag = name.tag().filter(|_| document.digest() == top.digest());
        push_document(&repository, store, document, tag).await?;
    }
    repository.progress.send(|| Event::Finished(clock.timings()));
    Ok(())
}

/// Returns, for each wanted blob that an image of the same registry has according to the store, the
/// repository of that image.
async fn sources(store: &Store, name: &Reference, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
    let subject = Subject::new(Step::PushBlob, name.to_string());
    let own = store.clone();
    let images = blocking(&subject, move || own.images()).await??;
    let mut sources = BTreeMap::new();
    let mut repositories = BTreeSet::new();
    for (other, top) in images {
        let elsewhere = other.registry() == name.registry() && other.repository() != name.repository();
        if !elsewhere || repositories.len() >= SOURCES_MAX {
            continue;
        }
        // An image that the store has only in part is not used as a source.
        let Ok(tree) = walk(&InStore(store), &top, Platforms::All).await else { continue };
        for blob in tree.blobs.iter().map(|blob| blob.digest().to_string()).filter(|digest| wanted.contains(digest)) {
            repositories.insert(other.repository().to_owned());
            sources.entry(blob).or_insert_with(|| other.repository().to_owned());
        }
    }
    Ok(sources)
}

/// Pushes one blob, unless the registry has it. Returns the number of bytes that went over the
/// network.
async fn push_blob(repository: &Repository, store: &Store, blob: &Descriptor, source: Option<&String>) -> Result<u64> {
    let subject = &Subject::new(Step::PushBlob, repository.name_of(blob));
    let (digest, size) = (blob.digest().to_string(), blob.size());
    if repository.persist(subject, || exists(repository, subject, blob)).await? {
        repository.progress.send(|| Event::Present { digest, size, because: Present::Already });
        return Ok(0);
    }
    let (own, wanted) = (store.clone(), blob.clone());
    if !blocking(subject, move || own.has(&wanted)).await?? {
        let error = subject.error(ErrorKind::NotFound, "neither the registry nor the store has it");
        return Err(error.hint("pull the image again"));
    }
    let upload = &upload(repository, store, blob);
    let sending = BlobUpload { repository, subject, blob, source, upload };
    let (mut session, mut tries) = (None, Tries::new(repository));
    let was_sent = loop {
        let had = session.as_ref().map_or(0, |session: &UploadSession| session.at);
        match sending.send(&mut session).await {
            Ok(was_sent) => break was_sent,
            Err(failure) => {
                if session.as_ref().is_some_and(|session| session.at > had) {
                    tries.forget();
                }
                tries.after(subject, failure).await?;
            }
        }
    };
    if !was_sent {
        repository.progress.send(|| Event::Present { digest, size, because: Present::Mounted });
        return Ok(0);
    }
    repository.progress.send(|| Event::Complete { digest, size });
    Ok(size)
}

fn upload(repository: &Repository, store: &Store, blob: &Descriptor) -> Upload {
    let (own, digest) = (store.clone(), blob.digest().clone());
    let open = move || own.blob(&digest)?.ok_or_else(|| std::io::ErrorKind::NotFound.into());
    let (progress, told) = (repository.progress.clone(), blob.clone());
    Upload::new(blob.size(), open, move |sent| send_moved(&progress, &told, sent))
}

/// Pushes a manifest or index under `tag`, or else under its digest.
async fn push_document(repository: &Repository, store: &Store, document: &Descriptor, tag: Option<&str>) -> Result<()> {
    let subject = &Subject::new(Step::PushManifest, repository.name_of(document));
    let (own, wanted) = (store.clone(), document.clone());
    let bytes = blocking(subject, move || own.document(&wanted)).await??;
    let digest = document.digest().to_string();
    let mut call = Call::new(Method::PUT, repository.url(&format!("manifests/{}", tag.unwrap_or(&digest)))?);
    let media_type = HeaderValue::from_str(document.media_type().as_ref());
    call.headers
        .insert(CONTENT_TYPE, media_type.map_err(|error| subject.error(ErrorKind::Corrupt, error.to_string()))?);
    call.payload = Payload::Bytes(Bytes::from(bytes));
    let call = &call;
    let response = repository.persist(subject, || repository.call(subject, call, &[200, 201, 202])).await?;
    let told = response.headers().get("docker-content-digest").and_then(|told| told.to_str().ok());
    match told.filter(|told| told.split(':').next() == digest.split(':').next() && *told != digest) {
        Some(told) => {
            let error = subject.error(ErrorKind::Corrupt, format!("the registry has stored {told}"));
            Err(error.hint("it changes manifests: others cannot pull this image by its digest"))
        }
        None => Ok(()),
    }
}
