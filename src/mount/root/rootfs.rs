//! The root file system, as the caller names it.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Problem;
use crate::mount::disk_limit::DiskLimit;
use crate::mount::flags::{MountFlags, opening_setters};
use crate::mount::options::Propagation;
use crate::mount::overlay::builder::{RootOverlay, Upper, too_many_layers};
use crate::mount::paths::belongs_to;
use crate::plan::has_nul;
use crate::units::Bytes;

/// The file system that becomes the program's `/`.
///
/// A path by itself is a directory: `.rootfs("/srv/alpine")` is
/// `.rootfs(RootFs::dir("/srv/alpine"))`.
///
/// `nosuid` and `nodev`, with all that comes along, unless [`suid`](RootFs::suid) and
/// [`dev`](RootFs::dev) are called: sudo(8) in an image needs the former, and a /dev that is made
/// by [`Dev`](crate::Dev) neither.
///
/// The host's root is taken off by pivot_root(2). A host that runs on its initramfs, which cannot
/// be taken off, gets an error (EINVAL), unless [`no_pivot`](crate::Sandbox::no_pivot) has the root
/// only cover it. For the caller's root in place, leave [`rootfs`](crate::Sandbox::rootfs) out.
///
/// ```
/// use ringfence::{Bytes, RootFs, Sandbox};
///
/// let root = RootFs::overlay(["/srv/python", "/srv/debian"]).tmpfs(Bytes::mib(256));
/// let sandbox = Sandbox::new().rootfs(root);
/// # drop(sandbox);
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct RootFs {
    pub(crate) base: Base,
    pub(crate) upper: Upper,
    pub(crate) read_only: bool,
    pub(crate) id_mapped: bool,
    pub(crate) flags: MountFlags,
    pub(crate) guard: Option<RootGuard>,
    /// The propagation of the root, if it is to be another than private.
    pub(crate) propagation: Option<Propagation>,
    /// What is mounted on the directory on the host later shows inside.
    pub(in crate::mount) follows_host: bool,
    /// The most that the upper directory may take on disk.
    pub(crate) disk_limit: Option<DiskLimit>,
}

/// A guard that is kept as long as a sandbox runs on the root: the guard holds the locks of the
/// layers.
#[derive(Clone)]
pub(crate) struct RootGuard(Arc<dyn Any + Send + Sync>);

impl fmt::Debug for RootGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held by {}", Arc::strong_count(&self.0))
    }
}

/// The file system that the root is made of.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// The host's own root.
    Host,
    /// A directory of the host.
    Dir(PathBuf),
    /// An empty tmpfs, with the host's programs.
    Programs,
    /// An overlay of these lower directories.
    Overlay(Vec<PathBuf>),
}

impl RootFs {
    /// Returns whether device nodes on the root itself open no devices.
    pub(crate) fn is_nodev(&self) -> bool {
        matches!(self.base, Base::Programs) || self.flags.contains(MountFlags::NO_DEV)
    }

    /// Takes a directory of the host, with what is mounted below it. The program writes to the
    /// directory; see [`read_only`](RootFs::read_only).
    ///
    /// Directories on which something is to be mounted (`proc`, `dev`, …) are made in the root
    /// where they are missing, and stay.
    pub fn dir(path: impl Into<PathBuf>) -> Self {
        RootFs::new(Base::Dir(path.into()))
    }

    /// Takes the host's own root with all that is mounted on it, read-only throughout; /dev and
    /// /tmp are the sandbox's own, and /proc with `pid_ns`. Every file that the user may read on
    /// the host can be read inside: this root isolates changes, not secrets.
    pub fn host() -> Self {
        RootFs::new(Base::Host).read_only()
    }

    /// Takes the host's programs and libraries, and no other file of the host: /usr with the links
    /// into /usr (/bin, /lib, …), all read-only; /dev and /tmp are the sandbox's own, and /proc
    /// with `pid_ns`. Neither homes, nor configuration, nor sockets of services are there; add what
    /// the program needs with [`bind_ro`](crate::Sandbox::bind_ro).
    ///
    /// The sandbox's own /etc has
    ///
    /// - `passwd` and `group` with root, nobody, and the program's own user, whose home is /tmp;
    /// - `hosts` with localhost, and `nsswitch.conf`, which has names looked up in files and by
    ///   DNS;
    /// - of the host's, as far as they exist: `ld.so.cache`, `alternatives`, `localtime`,
    ///   `timezone`, `ssl/certs`, `ssl/openssl.cnf`, `pki/tls/certs`, `pki/ca-trust/extracted`,
    ///   `fonts`, `mime.types`, `protocols`, `services`, and the settings of toolchains: `mono`,
    ///   `fpc.cfg`, `fpc-*`, `java-*`, `perl`, `python3`, `python3.*`, `R`. Directories are shown
    ///   whole: a host that keeps a key in one of them shows the key.
    pub fn programs() -> Self {
        RootFs::new(Base::Programs).read_only()
    }

    /// Takes layers, the first on top, merged by overlayfs. Without [`upper`](RootFs::upper),
    /// [`scratch`](RootFs::scratch) or [`tmpfs`](RootFs::tmpfs) writes go to a tmpfs of 64 MiB. In
    /// a user namespace since 5.11.
    pub fn overlay(lowers: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        let lowers = lowers.into_iter().map(Into::into).collect();
        RootFs::new(Base::Overlay(lowers)).tmpfs(Bytes::mib(64))
    }

    /// Sends writes to the overlay to `upper`, where they stay; `work` is an empty directory on the
    /// same file system.
    pub fn upper(mut self, upper: impl Into<PathBuf>, work: impl Into<PathBuf>) -> Self {
        self.upper = Upper::Given(upper.into(), work.into());
        self
    }

    /// Sends writes to the overlay to a directory of the sandbox's own, below the system's
    /// temporary directory, that vanishes with the sandbox.
    pub fn scratch(mut self) -> Self {
        self.upper = Upper::Scratch(None);
        self
    }

    /// Does the same as [`scratch`](RootFs::scratch), below the directory `base`.
    pub fn scratch_in(mut self, base: impl Into<PathBuf>) -> Self {
        self.upper = Upper::Scratch(Some(base.into()));
        self
    }

    /// Keeps writes to the overlay in memory, at most `size`, which vanishes with the sandbox.
    pub fn tmpfs(mut self, size: impl Into<Bytes>) -> Self {
        self.upper = Upper::Tmpfs(size.into());
        self
    }

    /// Limits what the upper directory may take on disk, that of [`upper`](RootFs::upper),
    /// [`scratch`](RootFs::scratch) or [`scratch_in`](RootFs::scratch_in): see [`DiskLimit`].
    pub fn disk_limit(mut self, limit: DiskLimit) -> Self {
        self.disk_limit = Some(limit);
        self
    }

    /// Forbids all writes to the root, and to what was mounted below it. Mounts of the list keep
    /// their own flags.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Shows the files of the layers with the ids that they have on disk: root's are root's, though
    /// root of the sandbox is another user outside. So one copy of a layer serves sandboxes whose
    /// users differ. Needs [`user_ns`](crate::Sandbox::user_ns), by whose maps the ids are mapped,
    /// and the right to mount outside (root); since Linux 5.19.
    ///
    /// ```no_run
    /// use ringfence::{IdMap, RootFs, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let ids = IdMap::new(0, 100_000, 65_536);
    /// let layers = RootFs::overlay(["/srv/python", "/srv/debian"]).id_mapped();
    /// Sandbox::new().user_ns().uid_map(ids).gid_map(ids).rootfs(layers).command("id").status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn id_mapped(mut self) -> Self {
        self.id_mapped = true;
        self
    }

    opening_setters!();

    /// Sets the propagation of the root once it is entered; without this call it is private, with
    /// all that is mounted on it. `Shared` is for programs that make mount namespaces of their own
    /// inside: mounts made on the root show there. Nothing goes out to the host, nor comes in:
    /// [`MountOptions`](crate::MountOptions) of a [`Bind`](crate::Bind) have words for that. A
    /// variant with an `R` changes the binds as well, except that a slave of the host's stays one
    /// with `RShared`.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }

    /// Shows what is mounted on the directory on the host later, where the host's mount is shared.
    /// Nothing goes out.
    #[cfg(feature = "oci")]
    pub(crate) fn following_host(mut self) -> Self {
        self.follows_host = true;
        self
    }

    /// Keeps `guard` as long as the root is in use.
    #[cfg(feature = "image")]
    pub(crate) fn holding(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guard = Some(RootGuard(Arc::new(guard)));
        self
    }

    fn new(base: Base) -> Self {
        RootFs {
            base,
            upper: Upper::None,
            read_only: false,
            id_mapped: false,
            flags: MountFlags::QUIET,
            guard: None,
            propagation: None,
            follows_host: false,
            disk_limit: None,
        }
    }

    /// Returns whether the root is the host's own.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.base, Base::Host)
    }

    /// Returns the overlay that the root is, of these lower directories.
    pub(in crate::mount) fn overlay_of<'r>(&'r self, lowers: &'r [PathBuf]) -> RootOverlay<'r> {
        RootOverlay { lowers, upper: &self.upper, id_mapped: self.id_mapped, flags: self.flags }
    }

    /// Returns whether the program can write to `dir`, which the root is, or `dir` belongs to
    /// `ids`.
    pub(in crate::mount) fn exposes_files_of(&self, dir: &Path, ids: (u32, u32)) -> bool {
        !self.read_only || belongs_to(dir, ids)
    }

    /// Returns whether the root is made of what the host runs on, and has no /tmp by itself.
    pub(crate) fn is_from_host(&self) -> bool {
        matches!(self.base, Base::Host | Base::Programs)
    }

    /// Returns the most memory that the upper layer may take.
    pub(crate) fn size(&self) -> Option<Bytes> {
        if let Upper::Tmpfs(size) = self.upper { Some(size) } else { None }
    }

    /// Returns the host's directories that the root names, which have to exist.
    pub(crate) fn sources(&self) -> Vec<&Path> {
        let base: &[PathBuf] = match &self.base {
            Base::Host | Base::Programs => &[],
            Base::Dir(dir) => std::slice::from_ref(dir),
            Base::Overlay(lowers) => lowers,
        };
        let upper = match &self.upper {
            Upper::Given(upper, work) => vec![upper.as_path(), work.as_path()],
            Upper::Scratch(Some(base)) => vec![base.as_path()],
            _ => Vec::new(),
        };
        base.iter().map(PathBuf::as_path).chain(upper).collect()
    }

    /// Returns the contradictions in the root's options.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let is_overlay = matches!(self.base, Base::Overlay(_));
        if !is_overlay && !matches!(self.upper, Upper::None) {
            let remedy = "use RootFs::overlay([dir]) for a root whose changes go elsewhere";
            problems.push(Problem::invalid("rootfs", "an upper layer belongs to an overlay", remedy));
        }
        if !is_overlay && self.id_mapped {
            let reason =
                "ids are mapped for layers: what root of the sandbox wrote elsewhere would belong to the host's";
            problems.push(Problem::invalid("rootfs", reason, "use RootFs::overlay([dir])"));
        }
        if matches!(&self.base, Base::Overlay(lowers) if lowers.is_empty()) {
            problems.push(Problem::invalid(
                "rootfs",
                "an overlay without a layer",
                "give at least one lower directory",
            ));
        }
        if let Base::Overlay(lowers) = &self.base {
            problems.extend(too_many_layers("rootfs", lowers.len(), self.id_mapped));
        }
        if self.sources().iter().any(has_nul) {
            problems.push(Problem::invalid("rootfs", "a path holds a NUL byte", "a path ends where a NUL stands"));
        }
        if self.sources().iter().any(|path| path.as_os_str().is_empty()) {
            problems.push(Problem::invalid("rootfs", "a path is empty", "name a directory of the host"));
        }
        problems
    }
}

impl<P: Into<PathBuf>> From<P> for RootFs {
    fn from(path: P) -> Self {
        RootFs::dir(path)
    }
}
