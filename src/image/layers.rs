//! The layers of an image as directories: made once, by one, and held by all who run from them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::unistd::{Uid, syncfs};
use oci_spec::image::{Descriptor, Digest};

use super::account::Budget;
use super::beneath;
use super::compare;
use super::digest::Hasher;
use super::lock::{self, Mode, Pause};
use super::lowers::Lowers;
use super::settle::settle;
use super::stream;
use super::tar::Entries;
use super::tree::{LINKS, TRASH, Tree};
use super::unpack::{Ids, Told, Unpacked, Unpacker};
use super::{Image, Store, vouch};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;

/// The layers of an image, unpacked for overlayfs. While one lives nothing of it is pruned; clones are one.
#[derive(Debug, Clone)]
pub struct Layers {
    dirs: Vec<PathBuf>,
    ids: Ids,
    skipped: u64,
    left_out: Vec<String>,
    _locks: Arc<Vec<Flock<File>>>,
}

/// What stands beside an unpacked layer.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    diff_id: Digest,
    ids: Ids,
    #[serde(flatten)]
    pub(super) told: Told,
}

impl Layers {
    /// The directories, the first on top, as [`RootFs::overlay`](crate::RootFs::overlay) takes them.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Whose files are: those of a user other than root are all the user's own.
    pub fn ids(&self) -> Ids {
        self.ids
    }

    /// How many things were left out that could not be made: device nodes of an ordinary user, attributes that the file
    /// system or the kernel does not take, marks of overlayfs.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The first of these, each with its path and reason.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::io(Step::UnpackLayer, error).with_kind(ErrorKind::Store).at(path)
}

fn sys_failed(path: &Path, errno: Errno) -> Error {
    Error::new(Step::UnpackLayer, errno).with_kind(ErrorKind::Store).at(path)
}

/// What a layer on those below it is called in the store.
fn name_of(chain: &Digest, ids: Ids) -> String {
    let squashed = if ids == Ids::Squashed { "-squashed" } else { "" };
    format!("{}-{}{squashed}", chain.algorithm(), chain.digest())
}

/// One layer to be unpacked.
struct Job<'i> {
    blob: &'i Descriptor,
    diff_id: &'i Digest,
    index: usize,
    name: String,
    staging: PathBuf,
    lock: Flock<File>,
    lock_path: PathBuf,
}

impl Image {
    /// Unpacks the layers that no image of the store has had unpacked yet, several at once, and holds them all.
    ///
    /// Each is read to its end and has to have its diff id. The directories are on disk before they get their names. Another
    /// process that unpacks one of the same layers is waited for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] for what is no layer, or another than the configuration says, or would lead out of the image;
    /// [`ErrorKind::TooLarge`] beyond [`Store::layer_bytes_limit`], [`Store::layer_entries_limit`],
    /// [`Store::image_bytes_limit`] and [`Store::image_entries_limit`];
    /// [`ErrorKind::NotFound`] if a blob is missing; [`ErrorKind::Timeout`] if another process takes longer than
    /// [`Store::wait`]; [`ErrorKind::Store`] for the file system's own.
    pub fn unpack(&self) -> Result<Layers> {
        let _hold = self.store().hold()?;
        let ids = self.store().ids();
        let names: Vec<String> = self.chain_ids().iter().map(|chain| name_of(chain, ids)).collect();
        self.unpack_missing(&names, ids)?;
        open_layers(self.store(), &names, ids)
    }

    /// Unpacks the lowest `count` of the layers, if they have to be: for who is still waiting for the blobs of the others.
    #[cfg(feature = "registry")]
    pub(crate) fn unpack_lowest(&self, count: usize) -> Result<()> {
        let _hold = self.store().hold()?;
        let ids = self.store().ids();
        let names: Vec<String> = self.chain_ids().iter().take(count).map(|chain| name_of(chain, ids)).collect();
        self.unpack_missing(&names, ids)
    }

    /// Which of the layers, from the lowest, are unpacked and known to be this image's: they stay so while the store is held.
    #[cfg(feature = "registry")]
    pub(crate) fn unpacked(&self) -> Vec<bool> {
        let (ids, store) = (self.store().ids(), self.store());
        let is_there = |(chain, blob): (&Digest, &Descriptor)| {
            let layer = store.layout.layer(&name_of(chain, ids));
            beneath::is_there(&layer) && vouch::is_known(store, &layer, blob.digest())
        };
        self.chain_ids().iter().zip(self.layers()).map(is_there).collect()
    }

    fn unpack_missing(&self, names: &[String], ids: Ids) -> Result<()> {
        let layout = &self.store().layout;
        let mut jobs = Vec::new();
        // From the lowest up: two images with the same layers below never wait for one another.
        for (index, name) in names.iter().enumerate() {
            if beneath::is_there(&layout.layer(name)) {
                self.vouch_for(index, name)?;
                continue;
            }
            let lock_path = layout.staging(&format!("{name}.lock"));
            let lock = lock::lock(&lock_path, Mode::Exclusive, self.store().wait)?;
            if beneath::is_there(&layout.layer(name)) {
                remove_lock(&lock_path);
                self.vouch_for(index, name)?;
                continue;
            }
            let (Some(blob), Some(diff_id)) = (self.layers().get(index), self.diff_ids().get(index)) else { continue };
            let staging = layout.staging(name);
            jobs.push(Job { blob, diff_id, index, name: name.clone(), staging, lock, lock_path });
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let result = self.budget(names).and_then(|budget| self.unpack_jobs(&jobs, names, ids, budget));
        let result = result.and_then(|()| self.publish(&jobs));
        for job in jobs {
            if result.is_err() {
                let _ = owner::remove_tree(&job.staging, None);
            }
            remove_lock(&job.lock_path);
            drop(job.lock);
        }
        result
    }

    /// In what the unpacked layers differ from what their archives say: all are unpacked anew beside them.
    pub(super) fn differences(&self) -> Result<Vec<(PathBuf, String)>> {
        let _hold = self.store().hold()?;
        let (ids, layout) = (self.store().ids(), &self.store().layout);
        let names: Vec<String> = self.chain_ids().iter().map(|chain| name_of(chain, ids)).collect();
        if !names.iter().any(|name| beneath::is_there(&layout.layer(name))) {
            return Ok(Vec::new());
        }
        let mut jobs = Vec::new();
        for (index, ((name, blob), diff_id)) in names.iter().zip(self.layers()).zip(self.diff_ids()).enumerate() {
            let lock_path = layout.staging(&format!("{name}.verify.lock"));
            let lock = lock::lock(&lock_path, Mode::Exclusive, self.store().wait)?;
            let staging = layout.staging(&format!("{name}.verify"));
            jobs.push(Job { blob, diff_id, index, name: name.clone(), staging, lock, lock_path });
        }
        let unpacked = self.unpack_jobs(&jobs, &names, ids, Budget::new(self.store().bounds, 0, 0));
        let compare = |job: &Job<'_>| -> Result<Option<(PathBuf, String)>> {
            let layer = layout.layer(&job.name);
            if !beneath::is_there(&layer) {
                return Ok(None);
            }
            let differs = compare::difference(&layer.join("fs"), &job.staging.join("fs"));
            let differs = differs.map_err(|errno| sys_failed(&layer, errno))?;
            Ok(differs.map(|(path, what)| (layer.join("fs").join(path), what)))
        };
        let found = unpacked.and_then(|()| jobs.iter().filter_map(|job| compare(job).transpose()).collect());
        for job in jobs {
            let _ = owner::remove_tree(&job.staging, None);
            remove_lock(&job.lock_path);
            drop(job.lock);
        }
        found
    }

    /// A layer that is unpacked is this image's if its own blob has these contents.
    fn vouch_for(&self, index: usize, name: &str) -> Result<()> {
        let (Some(blob), Some(diff_id)) = (self.layers().get(index), self.diff_ids().get(index)) else { return Ok(()) };
        vouch::vouch(self.store(), &self.store().layout.layer(name), blob, diff_id)
    }

    fn unpack_jobs(&self, jobs: &[Job<'_>], names: &[String], ids: Ids, budget: Budget) -> Result<()> {
        let budget = Arc::new(budget);
        let mut layers = unpack_side_by_side(self.store(), jobs, ids, &budget)?;
        let layout = &self.store().layout;
        let place = |name: &String| match jobs.iter().find(|job| job.name == *name) {
            Some(job) => job.staging.clone(),
            None => layout.layer(name),
        };
        for (job, layer) in jobs.iter().zip(&mut layers) {
            let mut dirs = Vec::new();
            for below in names.get(..job.index).unwrap_or_default().iter().rev().map(place) {
                dirs.push(below.join("fs"));
                if read_record(&below)?.told.opaque {
                    break;
                }
            }
            let lowers = Lowers::open(&dirs).map_err(|errno| sys_failed(&job.staging, errno))?;
            settle(layer, &lowers, ids).map_err(|error| of_layer(error, job.blob))?;
            (layer.told.entries, layer.told.bytes) = (layer.account.entries, layer.account.bytes);
            let record = Record { diff_id: job.diff_id.clone(), ids, told: layer.told.clone() };
            write_record(&job.staging, &record)?;
            remove_rest(&job.staging)?;
        }
        Ok(())
    }

    /// What the layers that are there have left for the others.
    fn budget(&self, names: &[String]) -> Result<Budget> {
        let layout = &self.store().layout;
        let (mut bytes, mut entries) = (0u64, 0u64);
        for layer in names.iter().map(|name| layout.layer(name)).filter(|layer| beneath::is_there(layer)) {
            let told = read_record(&layer)?.told;
            (bytes, entries) = (bytes.saturating_add(told.bytes), entries.saturating_add(told.entries));
        }
        Ok(Budget::new(self.store().bounds, bytes, entries))
    }

    /// One sync for all that was written, then the names.
    fn publish(&self, jobs: &[Job<'_>]) -> Result<()> {
        let layout = &self.store().layout;
        let layers = layout.layers();
        let dir = beneath::open_dir(&layers).map_err(|error| failed(&layers, &error))?;
        syncfs(&dir).map_err(|errno| sys_failed(&layers, errno))?;
        for job in jobs {
            let place = layout.layer(&job.name);
            fs::rename(&job.staging, &place).map_err(|error| failed(&place, &error))?;
        }
        dir.sync_all().map_err(|error| failed(&layers, &error))
    }
}

/// Nobody is harmed by one that stays: it is empty, and taken again by the next.
fn remove_lock(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Entries that replaced directories of their own layer have left these, and links what stood for them.
fn remove_rest(staging: &Path) -> Result<()> {
    [TRASH, LINKS].map(|name| staging.join(name)).iter().try_for_each(|path| {
        let removed = fs::remove_dir(path);
        removed.or_else(|_| owner::remove_tree(path, None))
    })
}

/// As many at once as there are processors, the largest first.
fn unpack_side_by_side(store: &Store, jobs: &[Job<'_>], ids: Ids, budget: &Arc<Budget>) -> Result<Vec<Unpacked>> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(jobs.get(*i).map_or(0, |job| job.blob.size())));
    let (next, failure) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, Result<Unpacked>)>> = Mutex::new(Vec::new());
    let work = || {
        while let Some(i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(job) = jobs.get(*i).filter(|_| !failure.load(Ordering::Relaxed)) else { return };
            let result = unpack_one(store, job, ids, budget.clone()).map_err(|error| of_layer(error, job.blob));
            failure.fetch_or(result.is_err(), Ordering::Relaxed);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((*i, result));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| {
        for _ in 1..workers {
            // Where no thread can be had, this one does it all.
            let _ = thread::Builder::new().name("ringfence-unpack".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    let layers: Vec<Unpacked> = done.into_iter().map(|(_, result)| result).collect::<Result<_>>()?;
    if layers.len() != jobs.len() {
        return Err(Error::message(ErrorKind::Store, Step::UnpackLayer, "a thread of the unpacker ended early"));
    }
    Ok(layers)
}

/// Says which layer it was.
fn of_layer(error: Error, blob: &Descriptor) -> Error {
    let within = error.path().map(|path| path.as_os_str().to_owned());
    let mut path = std::ffi::OsString::from(blob.digest().to_string());
    if let Some(within) = within {
        path.push(":");
        path.push(within);
    }
    error.at(path)
}

fn unpack_one(store: &Store, job: &Job<'_>, ids: Ids, budget: Arc<Budget>) -> Result<Unpacked> {
    // What a killed process has left.
    owner::remove_tree(&job.staging, None)?;
    DirBuilder::new().mode(0o700).create(&job.staging).map_err(|error| failed(&job.staging, &error))?;
    let blob = store.blob(job.blob.digest())?.ok_or_else(|| {
        let error = Error::message(ErrorKind::NotFound, Step::ReadBlob, "the store does not have this layer");
        error.at(job.blob.digest().to_string()).hint("pull or import the image again")
    })?;
    let tree = Tree::make(&job.staging).map_err(|errno| sys_failed(&job.staging, errno))?;
    let (unpacked, digest) = stream::through(blob, Hasher::of(job.diff_id)?, store.bounds.bytes, |chunks| {
        Unpacker::new(tree, ids, budget).unpack(&mut Entries::new(chunks))
    })?;
    if digest != job.diff_id.as_ref() {
        let detail = format!("its contents have the digest {digest}, and not {}", job.diff_id);
        return Err(Error::message(ErrorKind::Corrupt, Step::UnpackLayer, detail));
    }
    vouch::note(&job.staging, job.blob.digest())?;
    Ok(unpacked)
}

fn write_record(layer: &Path, record: &Record) -> Result<()> {
    let path = layer.join("layer.json");
    let text = serde_json::to_vec(record)
        .map_err(|error| Error::message(ErrorKind::Store, Step::UnpackLayer, error.to_string()).at(&path))?;
    let written = beneath::open_with(OpenOptions::new().write(true).create_new(true), &path);
    written.and_then(|mut file| file.write_all(&text)).map_err(|error| failed(&path, &error))
}

pub(super) fn read_record(layer: &Path) -> Result<Record> {
    let path = layer.join("layer.json");
    let mut text = Vec::new();
    let read = beneath::open(&path).and_then(|mut file| file.read_to_end(&mut text));
    read.map_err(|error| failed(&path, &error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::message(ErrorKind::Corrupt, Step::UnpackLayer, error.to_string()).at(&path))
}

/// Holds every layer down to one that hides the rest.
fn open_layers(store: &Store, names: &[String], ids: Ids) -> Result<Layers> {
    let mut layers = Layers { dirs: Vec::new(), ids, skipped: 0, left_out: Vec::new(), _locks: Arc::default() };
    let mut locks = Vec::new();
    let mut hidden = false;
    for name in names.iter().rev() {
        let path = store.layout.layer(name);
        locks.push(hold_layer(&path)?);
        let record = read_record(&path)?;
        layers.skipped += record.told.skipped;
        layers.left_out.extend(record.told.left_out);
        let files = path.join("fs");
        if !beneath::is_dir(&files) {
            let error = Error::message(ErrorKind::Corrupt, Step::UnpackLayer, "its files are gone");
            return Err(error.at(&files).hint("prune the store, and unpack the image again"));
        }
        if !hidden {
            layers.dirs.push(files);
        }
        hidden |= record.told.opaque;
    }
    layers._locks = Arc::new(locks);
    Ok(layers)
}

/// A lock on the directory itself, which a pruner takes before it removes it.
fn hold_layer(path: &Path) -> Result<Flock<File>> {
    let mut pause = Pause::default();
    loop {
        let dir = beneath::open_dir(path).map_err(|error| failed(path, &error))?;
        if let Ok(lock) = lock::try_lock(dir, path, Mode::Shared)? {
            return Ok(lock);
        }
        // It belongs to a pruner that has just missed us.
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
