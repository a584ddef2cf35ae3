//! The directories of a store: an OCI image layout, and beside it incomplete downloads and unpacked
//! layers.
//!
//! ```text
//! oci-layout, index.json      the images, by name: image-layout.md of the image specification
//! blobs/ALGORITHM/DIGITS      what has passed its digest; never changed
//! partial/ALGORITHM-DIGITS    downloads; locked by who writes
//! layers/CHAIN                layers unpacked; locked (shared) by who runs from them
//! staging/                    layers being unpacked, and what is being removed
//! lock                        locked (shared) by who adds, (exclusive) by who prunes
//! index.lock                  locked by who changes index.json
//! ```

use std::fs::DirBuilder;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::OFlag;
use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageIndexBuilder};

use super::lock::{self, Mode};
use super::store_path::StorePath;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;
use crate::sys::file_size;

/// The annotation by which OCI image layouts name images.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The largest `index.json` that is read, in bytes. It has room for about 100,000 images.
const INDEX_MAX: u64 = 64 << 20;
/// A counter that gives temporary files of this process distinct names.
static NEXT: AtomicU64 = AtomicU64::new(0);
const FILES: [&str; 4] = ["oci-layout", "index.json", "lock", "index.lock"];
const DIRS: [&str; 5] = ["blobs", "blobs/sha256", "partial", "layers", "staging"];

/// The paths of a store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: StorePath,
}

impl Layout {
    /// Opens the store, and creates missing directories. The directories are closed to other users,
    /// as layers contain setuid programs.
    pub(super) fn open(root: &Path) -> Result<Layout> {
        let failed = |path: &Path, error: &std::io::Error| {
            Error::io(Step::OpenStore, error).with_kind(ErrorKind::Store).at(path)
        };
        let root = std::path::absolute(root).map_err(|error| failed(root, &error))?;
        // The path of the root may contain links, which may belong to others; the checks apply to
        // the directory that it leads to. Nobody else can exchange a part of that path, so every
        // later path below it leads to the same store.
        let checked = |path: &Path| {
            let hint = "choose a directory below directories of your own or root's";
            let real = owner::refuse_exchangeable_by_others(path, Step::OpenStore, hint);
            real.map_err(|error| error.with_kind(ErrorKind::Store))
        };
        root.ancestors().find(|dir| dir.exists()).map_or(Ok(()), |dir| checked(dir).map(drop))?;
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(|error| failed(&root, &error))?;
        let real = checked(&root)?;
        let layout = Layout { root: StorePath::root(real).map_err(|errno| failed(&root, &errno.into()))? };
        layout.root.check_directory()?;
        for dir in DIRS {
            let dir = layout.root.join(dir);
            // A dangling link is not replaced by a directory.
            if !dir.exists() {
                dir.ensure_dir().map_err(|error| failed(dir.path(), &error))?;
            }
            dir.check_directory()?;
        }
        for file in FILES {
            layout.root.join(file).check_file()?;
        }
        let version = layout.root.join("oci-layout");
        if !version.exists() {
            layout.replace("oci-layout", OCI_LAYOUT)?;
        }
        if !layout.index_path().exists() {
            layout.change_index(Duration::from_secs(60), |_| Ok(()))?;
        }
        Ok(layout)
    }

    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(super) fn blob(&self, digest: &Digest) -> StorePath {
        self.blobs_of(digest).join(digest.digest())
    }

    /// Returns the directory of the blobs whose digests have this one's algorithm.
    pub(super) fn blobs_of(&self, digest: &Digest) -> StorePath {
        self.blobs().join(digest.algorithm().as_ref())
    }

    pub(super) fn partial(&self, digest: &Digest) -> StorePath {
        self.root.join("partial").join(format!("{}-{}", digest.algorithm(), digest.digest()))
    }

    pub(super) fn blobs(&self) -> StorePath {
        self.root.join("blobs")
    }

    pub(super) fn partials(&self) -> StorePath {
        self.root.join("partial")
    }

    pub(super) fn layers(&self) -> StorePath {
        self.root.join("layers")
    }

    pub(super) fn layer(&self, name: &str) -> StorePath {
        self.root.join("layers").join(name)
    }

    pub(super) fn staging_dir(&self) -> StorePath {
        self.root.join("staging")
    }

    pub(super) fn staging(&self, name: &str) -> StorePath {
        self.staging_dir().join(name)
    }

    pub(super) fn hold_lock(&self) -> StorePath {
        self.root.join("lock")
    }

    fn index_path(&self) -> StorePath {
        self.root.join("index.json")
    }

    /// Reads the index. A change replaces the whole file, so reading needs no lock.
    pub(super) fn index(&self) -> Result<ImageIndex> {
        let path = self.index_path();
        let failed =
            |error: &std::io::Error| Error::io(Step::ImageIndex, error).with_kind(ErrorKind::Store).at(path.path());
        let mut text = Vec::new();
        let file = path.open().map_err(|error| failed(&error))?;
        file.take(INDEX_MAX + 1).read_to_end(&mut text).map_err(|error| failed(&error))?;
        if text.len() as u64 > INDEX_MAX {
            let detail = format!("more than {INDEX_MAX} bytes");
            return Err(Error::message(ErrorKind::TooLarge, Step::ImageIndex, detail).at(path.path()));
        }
        serde_json::from_slice(&text)
            .map_err(|error| Error::message(ErrorKind::Corrupt, Step::ImageIndex, error.to_string()).at(path.path()))
    }

    /// Changes the index. Waits at most `wait` for changes by other processes.
    pub(super) fn change_index<T>(
        &self,
        wait: Duration,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<T>,
    ) -> Result<T> {
        let _lock = lock::lock(&self.root.join("index.lock"), Mode::Exclusive, wait)?;
        let there = self.index_path().exists();
        let mut index = if there { self.index()? } else { empty_index()? };
        let mut manifests = index.manifests().clone();
        let result = change(&mut manifests)?;
        if there && manifests == *index.manifests() {
            return Ok(result);
        }
        index.set_manifests(manifests);
        let text = serde_json::to_vec(&index).map_err(|error| {
            Error::message(ErrorKind::Store, Step::ImageIndex, error.to_string()).at(self.index_path().path())
        })?;
        self.replace("index.json", &text)?;
        Ok(result)
    }

    /// Replaces a file of the layout atomically, and syncs it to disk.
    fn replace(&self, name: &str, text: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let new = self.root.join(format!(".{name}.{}-{number}", std::process::id()));
        let write = || {
            // A file of this name was left by a killed process or planted, and must not be written
            // to.
            let _ = new.remove_file();
            let file = new.open_with(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
            file_size::append(&file, text)?;
            file.sync_all()?;
            new.rename(&path)?;
            self.root.open_dir()?.sync_all()
        };
        write().map_err(|error| {
            let _ = new.remove_file();
            Error::io(Step::ImageIndex, &error).with_kind(ErrorKind::Store).at(path.path())
        })
    }
}

fn empty_index() -> Result<ImageIndex> {
    ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(oci_spec::image::MediaType::ImageIndex)
        .manifests(Vec::new())
        .build()
        .map_err(|error| Error::message(ErrorKind::Store, Step::ImageIndex, error.to_string()))
}
