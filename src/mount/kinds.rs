//! The kinds of mounts, each with the options that it has.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::units::Bytes;

bitflags::bitflags! {
    /// Flags of a mount, as `MOUNT_ATTR_*` of mount_setattr(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct MountFlags: u64 {
        const READ_ONLY = 1;
        const NO_SUID = 2;
        const NO_DEV = 4;
        const NO_EXEC = 8;
    }
}

impl MountFlags {
    /// What shows the host's files, or an image's, has these unless it is told otherwise: a node or a set-user-ID file on it was
    /// made where other rules held.
    pub(crate) const QUIET: MountFlags = MountFlags::NO_SUID.union(MountFlags::NO_DEV);

    /// The same as `MS_*` of mount(2).
    pub(crate) fn ms(self) -> u64 {
        let pairs = [
            (MountFlags::READ_ONLY, libc::MS_RDONLY),
            (MountFlags::NO_SUID, libc::MS_NOSUID),
            (MountFlags::NO_DEV, libc::MS_NODEV),
            (MountFlags::NO_EXEC, libc::MS_NOEXEC),
        ];
        pairs.into_iter().filter(|(flag, _)| self.contains(*flag)).fold(0, |all, (_, ms)| all | ms)
    }
}

/// One mount of the list: something at a target inside the sandbox. Made from [`Bind`], [`Tmpfs`], [`Proc`], [`Dev`],
/// [`Sysfs`], [`Mqueue`], [`Overlay`] or [`RawMount`].
///
/// Mounts are made in the order of the list, each on what those before it left. A target that does not exist is made:
/// a file for a bound file, else a directory.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Mount {
    pub(crate) target: PathBuf,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Bind(Bind),
    Tmpfs(Tmpfs),
    Proc(Proc),
    Dev(Dev),
    Sysfs,
    Mqueue,
    Overlay(Overlay),
    Raw(RawMount),
}

impl Kind {
    /// How much memory it may take.
    pub(crate) fn size(&self) -> Option<Bytes> {
        match self {
            Kind::Tmpfs(tmpfs) => Some(tmpfs.size),
            Kind::Dev(dev) => Some(dev.shm_size),
            _ => None,
        }
    }

    /// The paths of the host that it names.
    pub(crate) fn sources(&self) -> Vec<&Path> {
        match self {
            Kind::Bind(bind) => vec![&bind.source],
            Kind::Overlay(o) => {
                o.lowers.iter().chain(o.upper.iter().flat_map(|(u, w)| [u, w])).map(PathBuf::as_path).collect()
            }
            Kind::Raw(raw) => vec![Path::new(&raw.source), Path::new(&raw.fstype), Path::new(&raw.data)],
            _ => Vec::new(),
        }
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
into_mount!(Bind, Tmpfs, Proc, Dev, Overlay);

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

macro_rules! flag_setters {
    () => {
        /// Ignores setuid and setgid bits and file capabilities (`nosuid`).
        pub fn nosuid(mut self) -> Self {
            self.flags |= MountFlags::NO_SUID;
            self
        }

        /// Nothing on it can be executed (`noexec`).
        pub fn noexec(mut self) -> Self {
            self.flags |= MountFlags::NO_EXEC;
            self
        }

        /// Nothing on it can be written.
        pub fn read_only(mut self) -> Self {
            self.flags |= MountFlags::READ_ONLY;
            self
        }
    };
}

macro_rules! nodev_setter {
    () => {
        /// Device nodes have no effect (`nodev`).
        pub fn nodev(mut self) -> Self {
            self.flags |= MountFlags::NO_DEV;
            self
        }
    };
}

macro_rules! opening_setters {
    () => {
        /// Set-user-ID and set-group-ID bits and file capabilities count (`suid`), where the host's mount lets them.
        pub fn suid(mut self) -> Self {
            self.flags -= MountFlags::NO_SUID;
            self
        }

        /// Device nodes open their devices (`dev`), where the host's mount lets them.
        pub fn dev(mut self) -> Self {
            self.flags -= MountFlags::NO_DEV;
            self
        }
    };
}
pub(super) use opening_setters;

/// A directory or file of the host, shown inside as well: mount(8), `--rbind`.
///
/// Submounts come along, and flags hold for them too (mount_setattr(2), 5.12); [`non_recursive`](Bind::non_recursive)
/// leaves them out. Flags that the host's mount has (`nosuid`, `ro`, …) are kept.
///
/// `nosuid` and `nodev`, unless [`suid`](Bind::suid) and [`dev`](Bind::dev) are called: a directory may hold nodes of any
/// device, and set-user-ID files. A source that is a device node itself opens its device; the host's /dev is
/// `Bind::new("/dev", "/dev").dev()`.
///
/// ```
/// use ringfence::{Bind, Sandbox};
///
/// let sandbox = Sandbox::new().rootfs("/srv/alpine").mount(Bind::new("/etc/ssl", "/etc/ssl").read_only().noexec());
/// # drop(sandbox);
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Bind {
    pub(crate) source: PathBuf,
    target: PathBuf,
    flags: MountFlags,
    /// `nodev` was said, and not only left as it is.
    closed: bool,
    pub(crate) recursive: bool,
}

impl Bind {
    /// Shows `source` of the host at `target` inside, writable. A relative source is looked up in the caller's working
    /// directory when the sandbox is spawned.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let (source, target) = (source.into(), target.into());
        Bind { source, target, flags: MountFlags::QUIET, closed: false, recursive: true }
    }

    /// Leaves out what is mounted below the source.
    pub fn non_recursive(mut self) -> Self {
        self.recursive = false;
        self
    }

    /// Device nodes have no effect (`nodev`), not even the source if it is one.
    pub fn nodev(mut self) -> Self {
        self.flags |= MountFlags::NO_DEV;
        self.closed = true;
        self
    }

    /// What the mount has; `is_node`: the source is a device node.
    pub(crate) fn flags(&self, is_node: bool) -> MountFlags {
        let opened = if is_node && !self.closed { MountFlags::NO_DEV } else { MountFlags::empty() };
        self.flags - opened
    }

    flag_setters!();
    opening_setters!();
}

/// A file system in memory: tmpfs(5). `nosuid` and `nodev` always.
///
/// Its pages count as the sandbox's memory.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Tmpfs {
    target: PathBuf,
    pub(crate) size: Bytes,
    pub(crate) inodes: Option<u64>,
    pub(crate) mode: u32,
    pub(crate) flags: MountFlags,
}

impl Tmpfs {
    /// An empty tmpfs of at most 64 MiB, mode 0755.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        let flags = MountFlags::NO_SUID | MountFlags::NO_DEV;
        Tmpfs { target: target.into(), size: Bytes::mib(64), inodes: None, mode: 0o755, flags }
    }

    /// The most that it holds, rounded up to whole pages.
    pub fn size(mut self, size: impl Into<Bytes>) -> Self {
        self.size = size.into();
        self
    }

    /// The most files and directories; without this call one for each 4 KiB of the size, and at least 1,024.
    pub fn inodes(mut self, count: u64) -> Self {
        self.inodes = Some(count);
        self
    }

    /// The permission bits of its root directory.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o7777;
        self
    }

    flag_setters!();
    nodev_setter!();

    /// How many bytes and inodes it takes at most; 0 would mean "no limit".
    pub(crate) fn limits(&self) -> (u64, u64) {
        let inodes = self.inodes.unwrap_or((self.size.get() / 4096).max(1024));
        (self.size.get().max(4096), inodes.max(2))
    }

    /// The option string of mount(2).
    pub(crate) fn options(&self) -> String {
        let (size, inodes) = self.limits();
        format!("size={size},nr_inodes={inodes},mode={:o}", self.mode)
    }
}

/// Who sees a process in /proc: the `hidepid` option of proc(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HidePid {
    /// Everybody sees everything.
    Off,
    /// The files of others' processes cannot be read.
    NoAccess,
    /// Others' processes are not listed either.
    Invisible,
    /// Only processes that the reader may ptrace are listed; since 5.8.
    Ptraceable,
}

/// The process file system of the sandbox's own pid namespace: proc(5). `nosuid`, `nodev` and `noexec` always.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Proc {
    target: PathBuf,
    pub(crate) hidepid: Option<HidePid>,
    pub(crate) subset_pid: bool,
    pub(crate) flags: MountFlags,
}

impl Proc {
    /// All of it, at `target`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        let flags = MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
        Proc { target: target.into(), hidepid: None, subset_pid: false, flags }
    }

    /// Who sees whose process. Since 5.8 the option is the mount's own; before, it was the pid namespace's.
    pub fn hidepid(mut self, hidepid: HidePid) -> Self {
        self.hidepid = Some(hidepid);
        self
    }

    /// Shows processes and nothing else (`subset=pid`, since 5.8).
    pub fn subset_pid(mut self) -> Self {
        self.subset_pid = true;
        self
    }

    flag_setters!();
    nodev_setter!();

    pub(crate) fn options(&self) -> String {
        let hidepid = self.hidepid.map(|hidepid| match hidepid {
            HidePid::Off => "hidepid=off",
            HidePid::NoAccess => "hidepid=noaccess",
            HidePid::Invisible => "hidepid=invisible",
            HidePid::Ptraceable => "hidepid=ptraceable",
        });
        let subset = self.subset_pid.then_some("subset=pid");
        hidepid.into_iter().chain(subset).collect::<Vec<_>>().join(",")
    }
}

/// A minimal /dev: null, zero, full, random, urandom, tty; ptmx with a devpts of its own; shm; and the links fd, stdin,
/// stdout and stderr.
///
/// The nodes are made where that is allowed and bound from the host's where it is not (in a user namespace).
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Dev {
    target: PathBuf,
    pub(crate) shm_size: Bytes,
    pub(crate) terminals: u32,
    pub(crate) read_only: bool,
}

impl Dev {
    /// A minimal /dev at `target`, with 64 MiB of shm and at most 16 terminals.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Dev { target: target.into(), shm_size: Bytes::mib(64), terminals: 16, read_only: false }
    }

    /// How many pseudoterminals can be open at a time: the option `max` of devpts, 1 to 1,048,576. What lies unread in one,
    /// up to 640 KiB in each direction, is memory that no control group counts. A machine has 4,096 for all
    /// (`kernel.pty.max`), of which 1,024 are kept for terminals outside of sandboxes.
    ///
    /// ```
    /// use ringfence::{Dev, Sandbox};
    ///
    /// let sandbox = Sandbox::strict().mount(Dev::new("/dev").terminals(2));
    /// # drop(sandbox);
    /// ```
    pub fn terminals(mut self, count: u32) -> Self {
        // To ida_alloc_max(), 0 less 1 is no bound at all.
        self.terminals = count.clamp(1, 1 << 20);
        self
    }

    /// No name can be made or taken away in it, but for its terminals and in its shm. Devices are written to as before.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// The size of its shm.
    pub fn shm_size(mut self, size: impl Into<Bytes>) -> Self {
        self.shm_size = size.into();
        self
    }
}

/// The kernel's objects: sysfs(5), read-only, `nosuid`, `nodev` and `noexec`. It shows the devices of the network
/// namespace in which it is mounted; in a user namespace it needs `net_ns`.
#[derive(Debug, Clone)]
pub struct Sysfs {
    target: PathBuf,
}

impl Sysfs {
    /// sysfs at `target`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Sysfs { target: target.into() }
    }
}

/// The POSIX message queues of the sandbox's IPC namespace: mq_overview(7).
#[derive(Debug, Clone)]
pub struct Mqueue {
    target: PathBuf,
}

impl Mqueue {
    /// The queues as files at `target`, commonly `/dev/mqueue`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Mqueue { target: target.into() }
    }
}

/// Several directories as one: overlayfs, see the kernel's Documentation/filesystems/overlayfs.rst. In a user
/// namespace since 5.11. `nosuid` and `nodev`, unless [`suid`](Overlay::suid) and [`dev`](Overlay::dev) are called.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Overlay {
    target: PathBuf,
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) upper: Option<(PathBuf, PathBuf)>,
    pub(crate) flags: MountFlags,
    pub(crate) id_mapped: bool,
}

impl Overlay {
    /// The host's directories `lowers` at `target`, the first on top. Read-only until it is given an
    /// [`upper`](Overlay::upper); a single lower directory needs one.
    pub fn new(target: impl Into<PathBuf>, lowers: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        let lowers = lowers.into_iter().map(Into::into).collect();
        Overlay { target: target.into(), lowers, upper: None, flags: MountFlags::QUIET, id_mapped: false }
    }

    /// What is written goes to `upper`; `work` is an empty directory on the same file system. Both stay with the caller.
    pub fn upper(mut self, upper: impl Into<PathBuf>, work: impl Into<PathBuf>) -> Self {
        self.upper = Some((upper.into(), work.into()));
        self
    }

    /// The lower directories show their files inside with the ids that they have on disk, as
    /// [`RootFs::id_mapped`](crate::RootFs::id_mapped) says. So a single one of them, without an upper, is what a
    /// read-only bind would be.
    pub fn id_mapped(mut self) -> Self {
        self.id_mapped = true;
        self
    }

    flag_setters!();
    nodev_setter!();
    opening_setters!();
}

/// Any file system, as mount(2) takes it: the way out where no other kind serves. Nothing is checked.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct RawMount {
    pub(crate) source: OsString,
    target: PathBuf,
    pub(crate) fstype: OsString,
    pub(crate) ms_flags: u64,
    pub(crate) data: OsString,
}

impl RawMount {
    /// `mount(source, target, fstype, 0, "")`.
    pub fn new(source: impl AsRef<OsStr>, target: impl Into<PathBuf>, fstype: impl AsRef<OsStr>) -> Self {
        RawMount {
            source: source.as_ref().to_owned(),
            target: target.into(),
            fstype: fstype.as_ref().to_owned(),
            ms_flags: 0,
            data: OsString::new(),
        }
    }

    /// The `MS_*` flags of mount(2).
    pub fn flags(mut self, ms_flags: u64) -> Self {
        self.ms_flags = ms_flags;
        self
    }

    /// The file system's own options, separated by commas.
    pub fn data(mut self, data: impl AsRef<OsStr>) -> Self {
        self.data = data.as_ref().to_owned();
        self
    }
}
