//! The mounts of the list: each a target and a kind.

use std::path::{Path, PathBuf};

#[cfg(feature = "oci")]
use super::again::Again;
use super::bind::Bind;
use super::cgroupfs::Cgroupfs;
use super::dev::Dev;
use super::memory_file::MemoryFile;
use super::node::DeviceNode;
use super::overlay::builder::Overlay;
use super::proc::Proc;
use super::raw::RawMount;
use super::tmpfs::Tmpfs;
use crate::sys::mount::Relation;
use crate::units::Bytes;

/// One mount of the list: a file system at a target inside the sandbox. Made from [`Bind`],
/// [`MemoryFile`], [`DeviceNode`], [`Tmpfs`], [`Proc`], [`Dev`], [`Sysfs`], [`Cgroupfs`],
/// [`Mqueue`], [`Overlay`] or [`RawMount`].
///
/// Mounts are made in the order of the list, each on what those before it left. A target that does
/// not exist is made: a file for a file, else a directory.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Mount {
    pub(crate) target: PathBuf,
    pub(crate) kind: Kind,
}

impl Mount {
    /// Returns whether this is an optional bind whose source is not there.
    pub(super) fn is_left_out(&self) -> bool {
        matches!(&self.kind, Kind::Bind(bind) if bind.is_left_out())
    }
}

/// The kind of a mount, with its options.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Bind(Bind),
    Tmpfs(Tmpfs),
    Proc(Proc),
    Dev(Dev),
    Sysfs,
    Mqueue,
    Overlay(Overlay),
    Cgroupfs(Cgroupfs),
    File(MemoryFile),
    /// A directory that is made, with nothing mounted on it.
    Dir,
    /// A symbolic link to this path.
    Symlink(PathBuf),
    Node(DeviceNode),
    Raw(RawMount),
    #[cfg(feature = "oci")]
    Again(Again),
}

impl Kind {
    /// Returns the most memory that the mount may take.
    pub(crate) fn size(&self) -> Option<Bytes> {
        match self {
            Kind::Tmpfs(tmpfs) => Some(tmpfs.size),
            Kind::Dev(dev) => Some(dev.shm_size),
            Kind::Overlay(overlay) => overlay.memory,
            _ => None,
        }
    }

    /// Returns the strings that the caller gives for the mount: paths of the host, and for a
    /// [`RawMount`] the arguments of mount(2).
    pub(crate) fn sources(&self) -> Vec<&Path> {
        match self {
            Kind::Bind(bind) => vec![&bind.source],
            Kind::Overlay(o) => {
                o.lowers.iter().chain(o.upper.iter().flat_map(|(u, w)| [u, w])).map(PathBuf::as_path).collect()
            }
            Kind::Symlink(to) => vec![to],
            #[cfg(feature = "oci")]
            Kind::Again(again) => vec![&again.source],
            Kind::Raw(raw) => vec![Path::new(&raw.source), Path::new(&raw.fstype), Path::new(&raw.data)],
            _ => Vec::new(),
        }
    }

    /// Returns whether what is mounted on the mount shows on the host.
    pub(super) fn is_peer(&self, user_ns: bool) -> bool {
        matches!(self, Kind::Bind(bind) if bind.relation(user_ns) == Relation::Peer)
    }
}

macro_rules! into_mount {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Mount {
            fn from(kind: $kind) -> Self {
                Mount { target: kind.target.clone(), kind: Kind::$kind(kind) }
            }
        }
    )*};
}
into_mount!(Bind, Tmpfs, Proc, Dev, Overlay, Cgroupfs);
#[cfg(feature = "oci")]
into_mount!(Again);

impl From<MemoryFile> for Mount {
    fn from(file: MemoryFile) -> Self {
        Mount { target: file.target.clone(), kind: Kind::File(file) }
    }
}

impl From<DeviceNode> for Mount {
    fn from(node: DeviceNode) -> Self {
        Mount { target: node.target.clone(), kind: Kind::Node(node) }
    }
}

impl From<Sysfs> for Mount {
    fn from(sysfs: Sysfs) -> Self {
        Mount { target: sysfs.target, kind: Kind::Sysfs }
    }
}

impl From<Mqueue> for Mount {
    fn from(mqueue: Mqueue) -> Self {
        Mount { target: mqueue.target, kind: Kind::Mqueue }
    }
}

impl From<RawMount> for Mount {
    fn from(raw: RawMount) -> Self {
        Mount { target: raw.target.clone(), kind: Kind::Raw(raw) }
    }
}

/// The kernel's objects: sysfs(5), read-only, `nosuid`, `nodev` and `noexec`. Sysfs shows the
/// devices of the network namespace in which it is mounted; in a user namespace it needs `net_ns`.
///
/// ```no_run
/// use ringfence::{RootFs, Sandbox, Sysfs};
///
/// // With a network of its own, the sandbox shows no device but its own `lo`.
/// let sandbox = Sandbox::new().rootfs(RootFs::host()).net_ns().mount(Sysfs::new("/sys"));
/// assert_eq!(sandbox.command("ls").arg("/sys/class/net").output()?.stdout, b"lo\n");
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sysfs {
    target: PathBuf,
}

impl Sysfs {
    /// Mounts sysfs at `target`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Sysfs { target: target.into() }
    }
}

/// The POSIX message queues of the sandbox's IPC namespace: mq_overview(7).
///
/// ```no_run
/// use ringfence::{Mqueue, Sandbox};
///
/// let sandbox = Sandbox::new().rootfs("/srv/alpine").ipc_ns().mount(Mqueue::new("/dev/mqueue"));
/// sandbox.command("ls").arg("/dev/mqueue").status()?;
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Mqueue {
    target: PathBuf,
}

impl Mqueue {
    /// Shows the queues as files at `target`, commonly `/dev/mqueue`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Mqueue { target: target.into() }
    }
}
