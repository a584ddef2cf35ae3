//! An image from its registry into the store.

use std::sync::Arc;

use oci_spec::image::Descriptor;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::blocking::died;
use super::download::{blocking, download};
use super::failure::Subject;
use super::manifests::{FromRegistry, Tree, Which, walk};
use super::progress::{Event, Present};
use super::repository::Repository;
use super::{Clock, Registry};
use crate::error::{Result, Step};
use crate::image::{Image, Reference, Store};

pub(super) async fn pull(registry: &Registry, store: &Store, name: &Reference) -> Result<Image> {
    let mut clock = Clock::start();
    let subject = Subject::new(Step::Registry, name.to_string());
    // Nothing that comes in is pruned before it has its name.
    let own = store.clone();
    let _hold = blocking(&subject, move || own.hold()).await??;
    let scopes = vec![format!("repository:{}:pull", name.repository())];
    let repository = Arc::new(registry.repository(name, scopes)?);
    let source = FromRegistry { repository: &repository, store };
    let top = source.top(name).await?;
    let which = if registry.all_platforms { Which::All } else { Which::For(&registry.platform) };
    let tree = walk(&source, &top, which).await?;
    clock.resolved();
    resolved(&repository, &top, &tree);

    let moved = fetch_all(&repository, store, tree.blobs, registry.parallel).await?;
    let blobs_at = clock.begun.elapsed();
    let (own, name, platform) = (store.clone(), name.clone(), registry.platform.clone());
    let named = move || {
        own.tag(&name, &top)?;
        own.image_for(&name, &platform)
    };
    let image = blocking(&subject, named).await??;
    repository.progress.tell(|| Event::Finished(clock.timings(blobs_at, moved)));
    Ok(image)
}

pub(super) fn resolved(repository: &Repository, top: &Descriptor, tree: &Tree) {
    repository.progress.tell(|| Event::Resolved {
        digest: top.digest().to_string(),
        blobs: tree.blobs.len(),
        bytes: tree.bytes(),
    });
}

/// Several at once, those first that come first. With the first error all others end.
async fn fetch_all(
    repository: &Arc<Repository>,
    store: &Store,
    blobs: Vec<Descriptor>,
    parallel: usize,
) -> Result<u64> {
    let turns = Arc::new(Semaphore::new(parallel));
    let mut tasks = JoinSet::new();
    for blob in blobs {
        let (repository, store, turns) = (repository.clone(), store.clone(), turns.clone());
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            fetch(&repository, &store, &blob).await
        });
    }
    let mut moved = 0;
    while let Some(done) = tasks.join_next().await {
        moved += done.map_err(|error| died(&error))??;
    }
    Ok(moved)
}

/// One blob. Gives what came over the network.
async fn fetch(repository: &Repository, store: &Store, blob: &Descriptor) -> Result<u64> {
    let (digest, size) = (blob.digest().to_string(), blob.size());
    let (own, wanted) = (store.clone(), blob.clone());
    let subject = Subject::new(Step::PullBlob, repository.name_of(blob));
    if blocking(&subject, move || own.has(&wanted)).await?? {
        repository.progress.tell(|| Event::Present { digest, size, because: Present::Already });
        return Ok(0);
    }
    let moved = download(repository, store, blob).await?;
    repository.progress.tell(|| Event::Complete { digest, size });
    Ok(moved)
}
