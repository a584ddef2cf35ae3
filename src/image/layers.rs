//! The unpacked layers of an image: made once, and locked by all processes that run from them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{Flock, OFlag};
use nix::unistd::{Uid, syncfs};
use oci_spec::image::{Descriptor, Digest};

use super::compare;
use super::complete::complete;
use super::digest::Hasher;
use super::lock::{self, Mode, Pause};
use super::lowers::Lowers;
use super::quota::ImageQuota;
use super::store::Store;
use super::store_path::StorePath;
use super::stream;
use super::tar::Entries;
use super::tree::{LINKS, TRASH, Tree};
use super::unpack::{Ids, Summary, Unpacked, Unpacker};
use super::{Image, known_blobs};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{file_size, mutex};

/// The layers of an image, unpacked for overlayfs. While a value lives, its layers are not pruned.
/// Clones share one lock.
#[derive(Debug, Clone)]
pub struct Layers {
    dirs: Vec<PathBuf>,
    ids: Ids,
    skipped: u64,
    left_out: Vec<String>,
    _locks: Arc<Vec<Flock<File>>>,
}

/// The record in the directory of an unpacked layer.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerRecord {
    diff_id: Digest,
    ids: Ids,
    #[serde(flatten)]
    pub(super) summary: Summary,
}

impl Layers {
    /// Returns the directories, the topmost first, as [`RootFs::overlay`](crate::RootFs::overlay)
    /// takes them.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Returns which user owns the files of the layers.
    pub fn ids(&self) -> Ids {
        self.ids
    }

    /// Returns the number of files and attributes that could not be made and were left out: device
    /// nodes if the user is not root, attributes that the file system or the kernel does not
    /// accept, overlayfs's own attributes.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns the first of the [skipped](Layers::skipped) files and attributes, each with its path
    /// and the reason.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

fn failed(path: &StorePath, error: &io::Error) -> Error {
    Error::io(Step::UnpackLayer, error).with_kind(ErrorKind::Store).at(path.path())
}

fn sys_failed(path: &StorePath, errno: Errno) -> Error {
    Error::new(Step::UnpackLayer, errno).with_kind(ErrorKind::Store).at(path.path())
}

/// Returns the name of a layer in the store, which depends on all layers below.
fn name_of(chain: &Digest, ids: Ids) -> String {
    let squashed = if ids == Ids::Squashed { "-squashed" } else { "" };
    format!("{}-{}{squashed}", chain.algorithm(), chain.digest())
}

/// One layer to unpack.
struct Job<'i> {
    blob: &'i Descriptor,
    diff_id: &'i Digest,
    index: usize,
    name: String,
    staging: StorePath,
    lock: Flock<File>,
    lock_path: StorePath,
}

impl Image {
    /// Unpacks the layers that the store does not have unpacked yet, several at once, and locks all
    /// layers of the image.
    ///
    /// Each layer is read to its end and checked against its diff id. The directories are on disk
    /// before they get their names. If another process unpacks one of the same layers, this call
    /// waits for that process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if a blob is not a layer, differs from its diff id in the
    /// configuration, or would write outside of the image; [`ErrorKind::TooLarge`] beyond
    /// [`Store::layer_bytes_limit`], [`Store::layer_entries_limit`], [`Store::image_bytes_limit`]
    /// and [`Store::image_entries_limit`]; [`ErrorKind::NotFound`] if a blob is missing;
    /// [`ErrorKind::Timeout`] if another process takes longer than [`Store::wait`];
    /// [`ErrorKind::Store`] for errors of the file system.
    pub fn unpack(&self) -> Result<Layers> {
        let _hold = self.store().hold()?;
        let ids = self.store().ids();
        let names: Vec<String> = self.chain_ids().iter().map(|chain| name_of(chain, ids)).collect();
        self.unpack_missing(&names, ids)?;
        open_layers(self.store(), &names, ids)
    }

    /// Unpacks the lowest `count` layers that are not unpacked yet, while the blobs of the others
    /// are still downloaded.
    #[cfg(feature = "registry")]
    pub(crate) fn unpack_lowest(&self, count: usize) -> Result<()> {
        let _hold = self.store().hold()?;
        let ids = self.store().ids();
        let names: Vec<String> = self.chain_ids().iter().take(count).map(|chain| name_of(chain, ids)).collect();
        self.unpack_missing(&names, ids)
    }

    /// Returns, for each layer from the lowest, true if it is unpacked and verified for this image.
    /// The answer stays true while the caller holds the store.
    #[cfg(feature = "registry")]
    pub(crate) fn unpacked(&self) -> Vec<bool> {
        let (ids, store) = (self.store().ids(), self.store());
        let is_there = |(chain, blob): (&Digest, &Descriptor)| {
            let layer = store.layout.layer(&name_of(chain, ids));
            layer.exists() && known_blobs::contains(store, &layer, blob.digest())
        };
        self.chain_ids().iter().zip(self.layers()).map(is_there).collect()
    }

    fn unpack_missing(&self, names: &[String], ids: Ids) -> Result<()> {
        let layout = &self.store().layout;
        let mut jobs = Vec::new();
        // The order from the lowest layer up prevents a deadlock between images that share layers.
        for (index, name) in names.iter().enumerate() {
            if layout.layer(name).exists() {
                self.verify_layer(index, name)?;
                continue;
            }
            let lock_path = layout.staging(&format!("{name}.lock"));
            let lock = lock::lock(&lock_path, Mode::Exclusive, self.store().wait)?;
            if layout.layer(name).exists() {
                remove_lock(&lock_path);
                self.verify_layer(index, name)?;
                continue;
            }
            let (Some(blob), Some(diff_id)) = (self.layers().get(index), self.diff_ids().get(index)) else { continue };
            let staging = layout.staging(name);
            jobs.push(Job { blob, diff_id, index, name: name.clone(), staging, lock, lock_path });
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let result = self.image_quota(names).and_then(|image_quota| self.unpack_jobs(&jobs, names, ids, image_quota));
        let result = result.and_then(|()| self.publish(&jobs));
        for job in jobs {
            if result.is_err() {
                let _ = job.staging.remove_tree();
            }
            remove_lock(&job.lock_path);
            drop(job.lock);
        }
        result
    }

    /// Unpacks all layers a second time, and returns the first difference of each layer from the
    /// unpacked one.
    pub(super) fn differences(&self) -> Result<Vec<(PathBuf, String)>> {
        let _hold = self.store().hold()?;
        let (ids, layout) = (self.store().ids(), &self.store().layout);
        let names: Vec<String> = self.chain_ids().iter().map(|chain| name_of(chain, ids)).collect();
        if !names.iter().any(|name| layout.layer(name).exists()) {
            return Ok(Vec::new());
        }
        let mut jobs = Vec::new();
        for (index, ((name, blob), diff_id)) in names.iter().zip(self.layers()).zip(self.diff_ids()).enumerate() {
            let lock_path = layout.staging(&format!("{name}.verify.lock"));
            let lock = lock::lock(&lock_path, Mode::Exclusive, self.store().wait)?;
            let staging = layout.staging(&format!("{name}.verify"));
            jobs.push(Job { blob, diff_id, index, name: name.clone(), staging, lock, lock_path });
        }
        let unpacked = self.unpack_jobs(&jobs, &names, ids, ImageQuota::new(self.store().limits, 0, 0));
        let compare = |job: &Job<'_>| -> Result<Option<(PathBuf, String)>> {
            let layer = layout.layer(&job.name);
            if !layer.exists() {
                return Ok(None);
            }
            let files = layer.join("fs");
            let differs = compare::difference(&files, &job.staging.join("fs"));
            let differs = differs.map_err(|error| failed(&layer, &error))?;
            Ok(differs.map(|(path, what)| (files.path().join(path), what)))
        };
        let found = unpacked.and_then(|()| jobs.iter().filter_map(|job| compare(job).transpose()).collect());
        for job in jobs {
            let _ = job.staging.remove_tree();
            remove_lock(&job.lock_path);
            drop(job.lock);
        }
        found
    }

    /// Verifies that this image's blob has the contents of an unpacked layer.
    fn verify_layer(&self, index: usize, name: &str) -> Result<()> {
        let (Some(blob), Some(diff_id)) = (self.layers().get(index), self.diff_ids().get(index)) else { return Ok(()) };
        known_blobs::check(self.store(), &self.store().layout.layer(name), blob, diff_id)
    }

    fn unpack_jobs(&self, jobs: &[Job<'_>], names: &[String], ids: Ids, image_quota: ImageQuota) -> Result<()> {
        let image_quota = Arc::new(image_quota);
        let mut layers = unpack_side_by_side(self.store(), jobs, ids, &image_quota)?;
        let layout = &self.store().layout;
        let place = |name: &String| match jobs.iter().find(|job| job.name == *name) {
            Some(job) => job.staging.clone(),
            None => layout.layer(name),
        };
        for (job, layer) in jobs.iter().zip(&mut layers) {
            let mut dirs = Vec::new();
            for below in names.get(..job.index).unwrap_or_default().iter().rev().map(place) {
                dirs.push(below.join("fs").open_dir().map_err(|error| failed(&below, &error))?.into());
                if read_record(&below)?.summary.opaque {
                    break;
                }
            }
            complete(layer, &Lowers::new(dirs), ids).map_err(|error| at_layer(error, job.blob))?;
            (layer.summary.entries, layer.summary.bytes) = (layer.quota.entries, layer.quota.bytes);
            let record = LayerRecord { diff_id: job.diff_id.clone(), ids, summary: layer.summary.clone() };
            write_record(&job.staging, &record)?;
            remove_rest(&job.staging)?;
        }
        Ok(())
    }

    /// Returns what the layers that are already unpacked leave of the image's limits.
    fn image_quota(&self, names: &[String]) -> Result<ImageQuota> {
        let layout = &self.store().layout;
        let (mut bytes, mut entries) = (0u64, 0u64);
        for layer in names.iter().map(|name| layout.layer(name)).filter(StorePath::exists) {
            let summary = read_record(&layer)?.summary;
            (bytes, entries) = (bytes.saturating_add(summary.bytes), entries.saturating_add(summary.entries));
        }
        Ok(ImageQuota::new(self.store().limits, bytes, entries))
    }

    /// Syncs all that was written with one syncfs(2), and then gives the layers their names.
    fn publish(&self, jobs: &[Job<'_>]) -> Result<()> {
        let layout = &self.store().layout;
        let layers = layout.layers();
        let dir = layers.open_dir().map_err(|error| failed(&layers, &error))?;
        syncfs(&dir).map_err(|errno| sys_failed(&layers, errno))?;
        for job in jobs {
            let place = layout.layer(&job.name);
            job.staging.rename(&place).map_err(|error| failed(&place, &error))?;
        }
        dir.sync_all().map_err(|error| failed(&layers, &error))
    }
}

/// Removes a lock file. A lock file that stays is harmless: it is empty, and the next process uses
/// it again.
fn remove_lock(path: &StorePath) {
    let _ = path.remove_file();
}

/// Removes what unpacking leaves beside a layer: directories that later entries replaced, and the
/// placeholders of links.
fn remove_rest(staging: &StorePath) -> Result<()> {
    [TRASH, LINKS].iter().try_for_each(|name| staging.join(name).remove_tree())
}

/// Unpacks the layers in parallel, one thread a processor, the largest layer first.
fn unpack_side_by_side(
    store: &Store,
    jobs: &[Job<'_>],
    ids: Ids,
    image_quota: &Arc<ImageQuota>,
) -> Result<Vec<Unpacked>> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(jobs.get(*i).map_or(0, |job| job.blob.size())));
    let (next, failure) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, Result<Unpacked>)>> = Mutex::new(Vec::new());
    let work = || {
        while let Some(i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(job) = jobs.get(*i).filter(|_| !failure.load(Ordering::Relaxed)) else { return };
            let result = unpack_one(store, job, ids, image_quota.clone()).map_err(|error| at_layer(error, job.blob));
            failure.fetch_or(result.is_err(), Ordering::Relaxed);
            mutex::lock(&done).push((*i, result));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| {
        for _ in 1..workers {
            // If no thread can be started, this thread does all the work.
            let _ = thread::Builder::new().name("ringfence-unpack".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    let mut done = mutex::into_inner(done);
    done.sort_by_key(|(i, _)| *i);
    let layers: Vec<Unpacked> = done.into_iter().map(|(_, result)| result).collect::<Result<_>>()?;
    if layers.len() != jobs.len() {
        return Err(Error::message(ErrorKind::Store, Step::UnpackLayer, "a thread of the unpacker ended early"));
    }
    Ok(layers)
}

/// Adds the digest of the layer to the error's path.
fn at_layer(error: Error, blob: &Descriptor) -> Error {
    let within = error.path().map(|path| path.as_os_str().to_owned());
    let mut path = std::ffi::OsString::from(blob.digest().to_string());
    if let Some(within) = within {
        path.push(":");
        path.push(within);
    }
    error.at(path)
}

fn unpack_one(store: &Store, job: &Job<'_>, ids: Ids, image_quota: Arc<ImageQuota>) -> Result<Unpacked> {
    // A killed process may have left this directory.
    job.staging.remove_tree()?;
    job.staging.make_dir().map_err(|error| failed(&job.staging, &error))?;
    let blob = store.blob(job.blob.digest())?.ok_or_else(|| {
        let error = Error::message(ErrorKind::NotFound, Step::ReadBlob, "the store does not have this layer");
        error.at(job.blob.digest().to_string()).hint("pull or import the image again")
    })?;
    let staging = job.staging.open_dir().map_err(|error| failed(&job.staging, &error))?;
    let tree = Tree::make(staging.as_fd()).map_err(|errno| sys_failed(&job.staging, errno))?;
    let (unpacked, digest) = stream::hash_decompressed(blob, Hasher::of(job.diff_id)?, store.limits.bytes, |chunks| {
        Unpacker::new(tree, ids, image_quota).unpack(&mut Entries::new(chunks))
    })?;
    if digest != job.diff_id.as_ref() {
        let detail = format!("the contents have the digest {digest}, not {}", job.diff_id);
        return Err(Error::message(ErrorKind::Corrupt, Step::UnpackLayer, detail));
    }
    known_blobs::record(&job.staging, job.blob.digest())?;
    Ok(unpacked)
}

fn write_record(layer: &StorePath, record: &LayerRecord) -> Result<()> {
    let path = layer.join("layer.json");
    let text = serde_json::to_vec(record)
        .map_err(|error| Error::message(ErrorKind::Store, Step::UnpackLayer, error.to_string()).at(path.path()))?;
    let written = path.open_with(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL);
    written.and_then(|file| file_size::append(&file, &text)).map_err(|error| failed(&path, &error))
}

pub(super) fn read_record(layer: &StorePath) -> Result<LayerRecord> {
    let path = layer.join("layer.json");
    let mut text = Vec::new();
    let read = path.open().and_then(|mut file| file.read_to_end(&mut text));
    read.map_err(|error| failed(&path, &error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::message(ErrorKind::Corrupt, Step::UnpackLayer, error.to_string()).at(path.path()))
}

/// Locks all layers, and returns the directories of the topmost ones, down to the first that hides
/// all below.
fn open_layers(store: &Store, names: &[String], ids: Ids) -> Result<Layers> {
    let mut layers = Layers { dirs: Vec::new(), ids, skipped: 0, left_out: Vec::new(), _locks: Arc::default() };
    let mut locks = Vec::new();
    let mut hidden = false;
    for name in names.iter().rev() {
        let path = store.layout.layer(name);
        locks.push(lock_layer(&path)?);
        let record = read_record(&path)?;
        layers.skipped += record.summary.skipped;
        layers.left_out.extend(record.summary.left_out);
        let files = path.join("fs");
        if !files.is_dir() {
            let error = Error::message(ErrorKind::Corrupt, Step::UnpackLayer, "the layer's files are missing");
            return Err(error.at(files.path()).hint("prune the store, and unpack the image again"));
        }
        if !hidden {
            layers.dirs.push(files.path().to_owned());
        }
        hidden |= record.summary.opaque;
    }
    layers._locks = Arc::new(locks);
    Ok(layers)
}

/// Locks the directory itself. A prune takes the same lock before it removes the layer.
fn lock_layer(path: &StorePath) -> Result<Flock<File>> {
    let mut pause = Pause::default();
    loop {
        let dir = path.open_dir().map_err(|error| failed(path, &error))?;
        if let Ok(lock) = lock::try_lock(dir, path, Mode::Shared)? {
            return Ok(lock);
        }
        // The lock belongs to a prune that has already removed the layer's name.
        pause.sleep();
    }
}

impl Store {
    pub(super) fn ids(&self) -> Ids {
        match self.squash || !Uid::effective().is_root() {
            true => Ids::Squashed,
            false => Ids::Kept,
        }
    }
}
