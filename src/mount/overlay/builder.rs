//! The parts of an overlay, as the caller names them.

use std::path::{Path, PathBuf};

use crate::error::{Problem, Result};
use crate::mount::disk_limit::DiskLimit;
use crate::mount::flags::{MountFlags, flag_setters, nodev_setter, opening_setters};
use crate::mount::paths::source;
use crate::units::Bytes;

/// Several directories as one: overlayfs, see the kernel's Documentation/filesystems/overlayfs.rst.
/// In a user namespace since 5.11. `nosuid` and `nodev`, unless [`suid`](Overlay::suid) and
/// [`dev`](Overlay::dev) are called.
///
/// ```no_run
/// use ringfence::{Bytes, Overlay, Sandbox};
///
/// // What a build reads, and what it writes beside it, which vanishes.
/// let build = Overlay::new("/build", ["/srv/generated", "/srv/sources"]).tmpfs(Bytes::mib(64));
/// let output = Sandbox::strict().mount(build).command("make").args(["-C", "/build"]).output()?;
/// # Ok::<(), ringfence::Error>(())
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Overlay {
    pub(in crate::mount) target: PathBuf,
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) upper: Option<(PathBuf, PathBuf)>,
    /// Writes go to memory, at most this much. There is no other upper then.
    pub(crate) memory: Option<Bytes>,
    pub(crate) flags: MountFlags,
    pub(crate) id_mapped: bool,
    /// The most that the upper directory may take on disk.
    pub(crate) disk_limit: Option<DiskLimit>,
}

impl Overlay {
    /// Shows the host's directories `lowers` at `target`, the first on top. The overlay is
    /// read-only until it is given an [`upper`](Overlay::upper) or a [`tmpfs`](Overlay::tmpfs); a
    /// single lower directory needs one of them.
    pub fn new(target: impl Into<PathBuf>, lowers: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        let lowers = lowers.into_iter().map(Into::into).collect();
        let (target, flags) = (target.into(), MountFlags::QUIET);
        Overlay { target, lowers, upper: None, memory: None, flags, id_mapped: false, disk_limit: None }
    }

    /// Sends writes to `upper`; `work` is an empty directory on the same file system. Both stay
    /// with the caller.
    pub fn upper(mut self, upper: impl Into<PathBuf>, work: impl Into<PathBuf>) -> Self {
        self.upper = Some((upper.into(), work.into()));
        self.memory = None;
        self
    }

    /// Keeps writes in memory, at most `size`, which vanishes with the sandbox; beyond it the
    /// program gets ENOSPC. A single lower directory so is a bind that the program may write to
    /// within a limit, and that stays as it was. The pages count as the sandbox's memory. The top
    /// directory has the owner and the mode of the first lower one.
    ///
    /// ```
    /// use ringfence::{Bytes, Overlay, Sandbox};
    ///
    /// let work = Overlay::new("/work", ["/srv/sources"]).tmpfs(Bytes::mib(64));
    /// let sandbox = Sandbox::new().rootfs("/srv/alpine").mount(work);
    /// # drop(sandbox);
    /// ```
    pub fn tmpfs(mut self, size: impl Into<Bytes>) -> Self {
        self.memory = Some(size.into());
        self.upper = None;
        self
    }

    /// Limits what the [`upper`](Overlay::upper) may take on disk, with its work directory: see
    /// [`DiskLimit`].
    pub fn disk_limit(mut self, limit: DiskLimit) -> Self {
        self.disk_limit = Some(limit);
        self
    }

    /// Returns whether the program can write to the overlay.
    pub(in crate::mount) fn is_writable(&self) -> bool {
        (self.upper.is_some() || self.memory.is_some()) && !self.flags.contains(MountFlags::READ_ONLY)
    }

    /// Shows the files of the lower directories with the ids that they have on disk, as
    /// [`RootFs::id_mapped`](crate::RootFs::id_mapped) says. So a single lower directory, without
    /// an upper, is what a read-only bind would be.
    pub fn id_mapped(mut self) -> Self {
        self.id_mapped = true;
        self
    }

    flag_setters!();
    nodev_setter!();
    opening_setters!();
}

/// The place to which writes to an overlay go: its upper layer.
#[derive(Debug, Clone)]
pub(crate) enum Upper {
    /// There is no upper: the overlay is read-only, or the root is no overlay.
    None,
    /// The caller's own upper and work directories.
    Given(PathBuf, PathBuf),
    /// A directory that is made for the sandbox and goes with it, below the given directory or the
    /// system's temporary one.
    Scratch(Option<PathBuf>),
    /// Memory, at most this much.
    Tmpfs(Bytes),
}

impl Upper {
    /// Returns the upper and the work directory that have paths on the host. `scratch` is the
    /// directory that was made for [`Upper::Scratch`].
    pub(super) fn dirs(&self, scratch: Option<&Path>) -> Result<Option<(PathBuf, PathBuf)>> {
        Ok(match (self, scratch) {
            (Upper::Given(upper, work), _) => Some((source(upper)?, source(work)?)),
            (Upper::Scratch(_), Some(scratch)) => Some((scratch.join("upper"), scratch.join("work"))),
            _ => None,
        })
    }
}

/// An overlay that is the root.
#[derive(Debug, Clone, Copy)]
pub(in crate::mount) struct RootOverlay<'r> {
    pub(in crate::mount) lowers: &'r [PathBuf],
    pub(in crate::mount) upper: &'r Upper,
    pub(in crate::mount) id_mapped: bool,
    pub(in crate::mount) flags: MountFlags,
}

/// Returns the problem of an overlay that has more layers than the kernel takes, or than the
/// message takes that hands over the descriptors of id-mapped ones.
pub(in crate::mount) fn too_many_layers(call: &'static str, layers: usize, id_mapped: bool) -> Option<Problem> {
    const MOST: usize = 500;
    const MOST_MAPPED: usize = 200;
    let most = if id_mapped { MOST_MAPPED } else { MOST };
    (layers > most).then(|| {
        let what = if id_mapped { "with mapped ids " } else { "" };
        Problem::invalid(
            call,
            format!("an overlay {what}has {most} layers at most, and not {layers}"),
            "merge some of them",
        )
    })
}
