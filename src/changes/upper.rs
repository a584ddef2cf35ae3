//! An upper directory and its changes, as plain data.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::units::Bytes;

const BYTES: Bytes = Bytes::gib(1);
const ENTRIES: u64 = 100_000;

/// The upper of an overlay, in which a program has left its changes, with the directory below it:
/// [`RootFs::upper`](crate::RootFs::upper), [`Overlay::upper`](crate::Overlay::upper).
///
/// Look at the upper once the sandbox has ended; one of [`scratch`](crate::RootFs::scratch) or
/// [`tmpfs`](crate::RootFs::tmpfs) is gone by then. The overlay has to have one lower directory:
/// with several, a removed file could come to light in a lower one.
///
/// ```no_run
/// use ringfence::{RootFs, Sandbox, UpperDir};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let root = RootFs::overlay(["/srv/debian"]).upper("/srv/jobs/17/upper", "/srv/jobs/17/work");
/// Sandbox::new().rootfs(root).command("apt-get").args(["install", "-y", "jq"]).status()?;
///
/// let upper = UpperDir::new("/srv/jobs/17/upper", "/srv/debian");
/// let mut changes = upper.changes()?;
/// for change in changes.iter() {
///     println!("{change}");
/// }
/// changes.commit()?;
/// upper.discard()?;
/// # Ok(())
/// # }
/// ```
///
/// # What is understood
///
/// The marks of overlayfs: a whiteout (a character device 0/0) removes what is below, and a
/// directory with the attribute `trusted.overlay.opaque`, or `user.overlay.opaque` in a user
/// namespace, replaces the one below. The library mounts overlays so that they leave no other marks
/// (`redirect`, `metacopy`). An upper that has such marks is an error.
///
/// # What is refused
///
/// - Files with a set-user-ID or set-group-ID bit or with capabilities: see
///   [`set_ids`](UpperDir::set_ids).
/// - Devices: see [`devices`](UpperDir::devices).
/// - An upper beyond a limit, and one with a path of more than 4,095 bytes.
/// - A change to a directory of the one below on which something is mounted, and to what is in it
///   (EXDEV): the program has not seen that. Before Linux 5.6, binds of the same file system are
///   not noticed.
///
/// Owner and mode of the upper directory itself are no change.
#[must_use = "an upper directory by itself does nothing"]
#[derive(Debug, Clone)]
pub struct UpperDir {
    pub(super) upper: PathBuf,
    pub(super) below: PathBuf,
    pub(super) entries: u64,
    pub(super) bytes: Bytes,
    pub(super) set_ids: bool,
    pub(super) devices: bool,
}

/// The kind of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// Nothing has this path below.
    Added,
    /// The file below has other contents, another owner or mode, or was only touched: overlayfs
    /// copies a whole file when its first byte changes. A directory has another owner or mode.
    Changed,
    /// Something of another kind is below, or a directory whose contents all vanish.
    Replaced,
    /// What is below was removed, with everything in it.
    Removed,
}

/// One change: a path below the upper directory, and what happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The path, relative to the upper directory. It may have any byte but NUL, line breaks too.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// Writes a letter (`A`dded, `M` for changed, `R`eplaced, `D` for removed) and the path, in
/// quotation marks, so that a name with a line break is one line.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'M',
            ChangeKind::Replaced => 'R',
            ChangeKind::Removed => 'D',
        };
        write!(f, "{letter} {:?}", self.path)
    }
}

impl UpperDir {
    /// Takes the directory `upper` of an overlay whose lower directory is `below`. The caller
    /// trusts both paths, and nothing below `upper`.
    ///
    /// At most 100,000 entries and 1 GiB are taken, unless the calls below say otherwise.
    pub fn new(upper: impl Into<PathBuf>, below: impl Into<PathBuf>) -> Self {
        let (upper, below) = (upper.into(), below.into());
        UpperDir { upper, below, entries: ENTRIES, bytes: BYTES, set_ids: false, devices: false }
    }

    /// Sets the most entries that the upper directory may have, in all its directories.
    pub fn entries_limit(mut self, limit: u64) -> Self {
        self.entries = limit;
        self
    }

    /// Sets the most bytes of files that the upper directory may have, holes included.
    pub fn bytes_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.bytes = limit.into();
        self
    }

    /// Sets whether files may have set-user-ID and set-group-ID bits and capabilities
    /// (`security.capability`). A program that is root in its sandbox can make such files, which
    /// then have these powers on the host.
    pub fn set_ids(mut self, allowed: bool) -> Self {
        self.set_ids = allowed;
        self
    }

    /// Sets whether there may be device nodes. Making a node in the directory below takes
    /// `CAP_MKNOD`.
    pub fn devices(mut self, allowed: bool) -> Self {
        self.devices = allowed;
        self
    }
}

/// Returns an error about a path of the upper.
pub(super) fn at(upper: &UpperDir, path: &Path, error: Error) -> Error {
    error.at(upper.upper.join(path))
}
