//! A file system in memory: tmpfs(5).

use std::path::PathBuf;

use super::flags::{MountFlags, flag_setters, nodev_setter, opening_setters};
use crate::units::Bytes;

/// A file system in memory: tmpfs(5). `nosuid` and `nodev` always.
///
/// The pages of its files count as the sandbox's memory.
///
/// ```
/// use ringfence::{Bytes, RootFs, Sandbox, Tmpfs};
///
/// # let sandbox = Sandbox::new();
/// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
/// let scratch = Tmpfs::new("/tmp").size(Bytes::kib(64)).mode(0o1777);
/// let sandbox = sandbox.rootfs(RootFs::host()).mount(scratch).command("sh");
/// let script = "head -c 100k /dev/zero > /tmp/file; stat -c %s /tmp/file";
/// let output = sandbox.args(["-c", script]).output()?;
/// assert_eq!(output.stdout, b"65536\n", "the rest was refused: ENOSPC");
/// # Ok::<(), ringfence::Error>(())
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Tmpfs {
    pub(super) target: PathBuf,
    pub(crate) size: Bytes,
    pub(crate) inodes: Option<u64>,
    /// `None`: the default.
    pub(crate) mode: Option<u32>,
    pub(crate) flags: MountFlags,
    pub(crate) copy_up: bool,
}

impl Tmpfs {
    /// Makes an empty tmpfs of at most 64 MiB, mode 0755.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        let flags = MountFlags::NO_SUID | MountFlags::NO_DEV;
        Tmpfs { target: target.into(), size: Bytes::mib(64), inodes: None, mode: None, flags, copy_up: false }
    }

    /// Sets the most bytes that the tmpfs holds, rounded up to whole pages.
    pub fn size(mut self, size: impl Into<Bytes>) -> Self {
        self.size = size.into();
        self
    }

    /// Sets the most files and directories; without this call one for each 4 KiB of the size, and
    /// at least 1,024.
    pub fn inodes(mut self, count: u64) -> Self {
        self.inodes = Some(count);
        self
    }

    /// Sets the permission bits of the root directory.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o7777);
        self
    }

    /// Begins with a copy of the directory of the root at the target (`tmpcopyup`): what the
    /// program changes there is gone with the sandbox. Owners, permission bits, times, extended
    /// attributes of users, access lists and capabilities of files are those of the root, as far as
    /// the sandbox's ids and the tmpfs allow, and so are those of the directory itself, unless
    /// [`mode`](Tmpfs::mode) is called. Symbolic links are copied, and none is followed. Device
    /// nodes, sockets, and what is mounted below the directory are left out. A file with several
    /// names becomes several files. Where the root is `nosuid`, set-user-ID bits and capabilities
    /// of files are left out, too.
    ///
    /// A link at the target, or on the way there, that the program could replace is an error
    /// (ELOOP). Needs Linux 5.2.
    ///
    /// Every spawn copies. A copy that does not fit into the [`size`](Tmpfs::size) or the
    /// [`inodes`](Tmpfs::inodes) is an error of the spawn (ENOSPC), a file that the sandbox's setup
    /// may not read as well (EACCES), and directories more than 128 deep (ENAMETOOLONG).
    ///
    /// ```
    /// use ringfence::{Bytes, Sandbox, Tmpfs};
    ///
    /// let etc = Tmpfs::new("/etc").copy_up().size(Bytes::mib(8));
    /// let sandbox = Sandbox::new().rootfs("/srv/alpine").mount(etc).read_only_root(true);
    /// # drop(sandbox);
    /// ```
    pub fn copy_up(mut self) -> Self {
        self.copy_up = true;
        self
    }

    flag_setters!();
    nodev_setter!();
    opening_setters!();

    /// Returns the most bytes and inodes of the tmpfs; 0 would mean "no limit".
    pub(crate) fn limits(&self) -> (u64, u64) {
        let inodes = self.inodes.unwrap_or((self.size.get() / 4096).max(1024));
        (self.size.get().max(4096), inodes.max(2))
    }

    /// Returns the option string of mount(2).
    pub(crate) fn options(&self) -> String {
        let (size, inodes) = self.limits();
        format!("size={size},nr_inodes={inodes},mode={:o}", self.mode.unwrap_or(0o755))
    }
}
