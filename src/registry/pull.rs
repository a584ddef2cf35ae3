//! Pulls an image from its registry into the store.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use oci_spec::image::Descriptor;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::blocking::task_failed;
use super::download::{blocking, download};
use super::failure::Subject;
use super::manifests::{FromRegistry, Platforms, Tree, walk};
use super::possession::prove;
use super::progress::{Event, Present};
use super::repository::Repository;
use super::unpack_schedule::{DownloadSpeed, UnpackSchedule};
use super::{Clock, Registry};
use crate::error::{ErrorKind, Result, Step};
use crate::image::{Hold, Image, Layers, Reference, Store};

/// Pulls the image called `name` from the source `from`.
pub(super) async fn pull(registry: &Registry, store: &Store, name: &Reference, from: &Reference) -> Result<Image> {
    let mut pull = Pull::begin(registry, store, name, from).await?;
    let blobs = std::mem::take(&mut pull.tree.blobs);
    pull.fetch(blobs, &mut None).await?;
    let image = pull.tag().await?;
    pull.finished();
    Ok(image)
}

pub(super) async fn pull_and_unpack(
    registry: &Registry,
    store: &Store,
    name: &Reference,
    from: &Reference,
) -> Result<(Image, Layers)> {
    let mut pull = Pull::begin(registry, store, name, from).await?;
    // The configuration contains the diff ids, by which unpacked layers are found.
    let blobs = std::mem::take(&mut pull.tree.blobs);
    let (configs, blobs): (Vec<_>, Vec<_>) = blobs.into_iter().partition(|blob| pull.is_config(blob));
    pull.fetch(configs, &mut None).await?;
    let (own, top, platform) = (store.clone(), pull.top.clone(), registry.platform.clone());
    let read = move || {
        let image = own.image_of(&top, &platform)?;
        let unpacked = image.unpacked();
        Ok((image, unpacked))
    };
    let (image, unpacked) = blocking(&pull.subject, read).await??;
    let schedule = UnpackSchedule::new(image.clone(), unpacked);
    let blobs = pull.still_needed(blobs, &schedule);
    let mut schedule = Some(schedule);
    pull.fetch(blobs, &mut schedule).await?;
    pull.clock.unpacking.get_or_insert_with(Instant::now);
    let layers = blocking(&pull.subject, move || image.unpack()).await??;
    let rest = schedule.iter().map(UnpackSchedule::not_started).next().unwrap_or_default();
    pull.send_unpacked(&schedule, rest);
    let image = pull.tag().await?;
    pull.finished();
    Ok((image, layers))
}

/// A pull in progress.
struct Pull<'a> {
    registry: &'a Registry,
    store: &'a Store,
    name: &'a Reference,
    subject: Subject,
    repository: Arc<Repository>,
    top: Descriptor,
    tree: Tree,
    clock: Clock,
    /// Keeps blobs from being pruned before the image is tagged.
    _hold: Hold,
}

impl<'a> Pull<'a> {
    /// Downloads the manifests, and lists the blobs to download.
    async fn begin(registry: &'a Registry, store: &'a Store, name: &'a Reference, from: &Reference) -> Result<Self> {
        let mut clock = Clock::start();
        let subject = Subject::new(Step::Registry, from.to_string());
        let own = store.clone();
        let _hold = blocking(&subject, move || own.hold()).await??;
        let scopes = vec![format!("repository:{}:pull", from.repository())];
        let repository = Arc::new(registry.repository(from, scopes)?);
        let source = FromRegistry { repository: &repository, store };
        let top = source.top(from).await?;
        let which = if registry.all_platforms { Platforms::All } else { Platforms::For(&registry.platform) };
        let tree = walk(&source, &top, which).await?;
        clock.resolved();
        resolved(&repository, &top, &tree);
        Ok(Pull { registry, store, name, subject, repository, top, tree, clock, _hold })
    }

    fn is_config(&self, blob: &Descriptor) -> bool {
        self.tree.configs.contains(blob.digest().as_ref())
    }

    /// Returns the blobs without those of unpacked layers, for which an event is sent.
    fn still_needed(&self, blobs: Vec<Descriptor>, schedule: &UnpackSchedule) -> Vec<Descriptor> {
        // Images of other platforms are pulled to be pushed again. In a store with several tenants,
        // each pull has to download or verify all of its blobs.
        if self.registry.all_platforms || !self.store.is_of_one_tenant() {
            return blobs;
        }
        let lacking: BTreeSet<&str> =
            schedule.layers().filter(|(_, there)| !there).map(|(blob, _)| blob.as_ref()).collect();
        let (needed, rest): (Vec<_>, Vec<Descriptor>) =
            blobs.into_iter().partition(|blob| lacking.contains(blob.digest().as_ref()));
        for blob in rest {
            let (digest, size) = (blob.digest().to_string(), blob.size());
            self.repository.progress.send(|| Event::Present { digest, size, because: Present::Unpacked });
        }
        needed
    }

    /// Downloads several blobs in parallel, in the given order. After the first error, all other
    /// downloads end.
    async fn fetch(&mut self, blobs: Vec<Descriptor>, schedule: &mut Option<UnpackSchedule>) -> Result<()> {
        let mut speed = DownloadSpeed::new(&blobs);
        let turns = Arc::new(Semaphore::new(self.registry.parallel));
        let mut tasks = JoinSet::new();
        for blob in blobs {
            let (repository, store, turns) = (self.repository.clone(), self.store.clone(), turns.clone());
            tasks.spawn(async move {
                let _turn = turns.acquire().await;
                let moved = fetch(&repository, &store, &blob).await?;
                Ok(TaskResult::Fetched { blob: Box::new(blob), moved })
            });
        }
        let mut moved = self.clock.moved;
        while let Some(done) = tasks.join_next().await {
            match done.unwrap_or_else(|error| Err(task_failed(&error))) {
                Ok(TaskResult::Fetched { blob, moved: bytes }) => {
                    moved += bytes;
                    self.clock.moved(moved);
                    speed.finished(&blob, bytes);
                    schedule.iter_mut().for_each(|schedule| schedule.layer_arrived(blob.digest()));
                }
                Ok(TaskResult::Unpacked(layers)) => {
                    schedule.iter_mut().for_each(|schedule| schedule.batch_ended());
                    self.send_unpacked(schedule, layers);
                }
                Err(error) => {
                    // The downloads are stopped; the layers that are being unpacked are waited for.
                    tasks.shutdown().await;
                    return Err(error);
                }
            }
            let rest = speed.rest(self.repository.arrived.load(Ordering::Relaxed));
            if let Some((image, layers)) = schedule.as_mut().and_then(|schedule| schedule.next_batch(rest)) {
                self.clock.unpacking.get_or_insert_with(Instant::now);
                tasks.spawn_blocking(move || image.unpack_lowest(layers.end).map(|()| TaskResult::Unpacked(layers)));
            }
        }
        Ok(())
    }

    fn send_unpacked(&self, schedule: &Option<UnpackSchedule>, layers: Range<usize>) {
        for blob in schedule.iter().flat_map(|schedule| schedule.image.layers().get(layers.clone())).flatten() {
            self.repository.progress.send(|| Event::Unpacked { digest: blob.digest().to_string() });
        }
    }

    async fn tag(&self) -> Result<Image> {
        let (own, name, top) = (self.store.clone(), self.name.clone(), self.top.clone());
        let platform = self.registry.platform.clone();
        let others = if self.registry.all_platforms { self.tree.documents.clone() } else { Vec::new() };
        let named = move || {
            own.tag(&name, &top)?;
            let image = own.image_for(&name, &platform);
            match image {
                // The first document that is an image: documents come after what they refer to, the
                // last entry first.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    others.iter().rev().find_map(|other| own.image_of(other, &platform).ok()).ok_or(error)
                }
                image => image,
            }
        };
        blocking(&self.subject, named).await?
    }

    fn finished(&self) {
        self.repository.progress.send(|| Event::Finished(self.clock.timings()));
    }
}

/// The result of a task.
enum TaskResult {
    Fetched { blob: Box<Descriptor>, moved: u64 },
    Unpacked(Range<usize>),
}

pub(super) fn resolved(repository: &Repository, top: &Descriptor, tree: &Tree) {
    repository.progress.send(|| Event::Resolved {
        digest: top.digest().to_string(),
        blobs: tree.blobs.len(),
        bytes: tree.bytes(),
    });
}

/// Downloads one blob. Returns the number of bytes that came over the network.
async fn fetch(repository: &Repository, store: &Store, blob: &Descriptor) -> Result<u64> {
    let (digest, size) = (blob.digest().to_string(), blob.size());
    let (own, wanted) = (store.clone(), blob.clone());
    let subject = Subject::new(Step::PullBlob, repository.name_of(blob));
    if blocking(&subject, move || own.has(&wanted)).await?? {
        if !store.is_of_one_tenant() {
            prove(repository, store, blob).await?;
        }
        repository.progress.send(|| Event::Present { digest, size, because: Present::Already });
        return Ok(0);
    }
    let moved = download(repository, store, blob).await?;
    // Another tenant's pull began or completed the blob meanwhile.
    if moved < size && !store.is_of_one_tenant() {
        prove(repository, store, blob).await?;
    }
    repository.progress.send(|| Event::Complete { digest, size });
    Ok(moved)
}
