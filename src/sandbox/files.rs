//! The setters for the root and the mounts.

use std::path::PathBuf;

use super::Sandbox;
use crate::mount::{self, Bind, MemoryFile, Mount, RootFs, Tmpfs};
use crate::units::Bytes;

/// # File systems
impl Sandbox {
    /// Sets the root file system; adds a mount namespace. A path is a directory of the host;
    /// [`RootFs`] has overlays and the host's own root.
    ///
    /// The library mounts a minimal /dev on the root, and with [`pid_ns`](Sandbox::pid_ns) a /proc,
    /// unless a mount of the list has that target or [`default_mounts`](Sandbox::default_mounts)
    /// are switched off.
    ///
    /// ```no_run
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// // The host's root, read-only; or a directory with an unpacked root file system.
    /// Sandbox::new().user_ns().rootfs(RootFs::host()).command("ls").status()?;
    /// Sandbox::new().user_ns().rootfs("/srv/alpine").command("ls").status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn rootfs(mut self, root: impl Into<RootFs>) -> Self {
        self.policy.mounts.root = Some(root.into());
        self.mount_ns()
    }

    /// Enters the [`rootfs`](Sandbox::rootfs) without pivot_root(2), for a host that still runs on
    /// its initramfs, whose root nothing can take off (EINVAL): `--no-pivot` of container runtimes.
    /// The root lies over the host's then, and is entered by chroot(2).
    ///
    /// This root holds less than one that is entered by pivot_root(2), and
    /// [`Enforced`](crate::Enforced) says so of [`RootFs`](crate::Feature::RootFs). No path, no
    /// further chroot(2) and no user namespace made inside leads to the root below. But the mount
    /// namespace still has that root: a program
    /// with CAP_SYS_ADMIN over its mounts would take the root off, umount(2). So a sandbox whose
    /// program can have that capability is refused, in a user namespace of its own as well, and so
    /// is a further program that would get it. The host's /proc and /sys are taken off or covered,
    /// as they are mounted when the sandbox is spawned or prepared.
    ///
    /// ```no_run
    /// use ringfence::{Capabilities, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = Sandbox::new().rootfs("/srv/alpine").capabilities(Capabilities::none());
    /// sandbox.no_pivot(true).command("ls").status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn no_pivot(mut self, wanted: bool) -> Self {
        self.policy.mounts.no_pivot = wanted;
        self
    }

    /// Makes the root and its default /dev read-only, also a root that by itself is writable; adds
    /// a mount namespace. Mounts of the list keep their own flags.
    pub fn read_only_root(mut self, wanted: bool) -> Self {
        self.policy.mounts.read_only_root = wanted;
        if wanted { self.mount_ns() } else { self }
    }

    /// Adds a mount to the list, and a mount namespace.
    ///
    /// # Targets in writable directories
    ///
    /// A program that may write to a directory above a mount could rename that directory, and put
    /// another in its place. So the library pins the path: from the writable mount on, each
    /// directory that leads to the target is bound onto itself, because a mountpoint can be neither
    /// renamed nor removed (EBUSY). To the program, each of these directories is a mount of its
    /// own: rename(2) and link(2) from one to another fail with EXDEV, upon which mv(1) copies. On
    /// a root whose changes vanish with the sandbox ([`RootFs::overlay`] without an upper directory
    /// of the caller's), no path is pinned. Pins need Linux 5.8; before, the spawn fails (ENOSYS).
    ///
    /// A symbolic link cannot be pinned. A read-only mount, or a mask, does not accept a symbolic
    /// link where the program could exchange it (ELOOP): name the path that the link leads to.
    ///
    /// The caller looks up the source of a bind on the host, and follows links. For a part of a
    /// writable bind, which an earlier program may have changed,
    /// [`read_only_path`](Sandbox::read_only_path) is the better choice.
    ///
    /// ```
    /// use ringfence::{Proc, Sandbox, Tmpfs};
    ///
    /// let sandbox = Sandbox::new().user_ns().pid_ns().rootfs("/srv/alpine");
    /// let sandbox = sandbox.mount(Proc::new("/proc").subset_pid()).mount(Tmpfs::new("/run").size(1 << 20));
    /// # drop(sandbox);
    /// ```
    pub fn mount(mut self, mount: impl Into<Mount>) -> Self {
        self.policy.mounts.mounts.push(mount.into());
        self.mount_ns()
    }

    /// Shows a directory or file of the host inside, writable: [`Bind::new`].
    ///
    /// ```
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// let sandbox = Sandbox::new().user_ns().rootfs(RootFs::programs());
    /// // What is written to /work lands in the directory of the host.
    /// let sandbox = sandbox.bind("/srv/jobs/17", "/work").cwd("/work").command("make");
    /// # drop(sandbox);
    /// ```
    pub fn bind(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target))
    }

    /// Shows a directory or file of the host inside, read-only, with all mounts below it.
    ///
    /// ```
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// let sandbox = Sandbox::new().user_ns().rootfs(RootFs::programs()).bind_ro("/srv/data", "/data");
    /// # drop(sandbox);
    /// ```
    pub fn bind_ro(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target).read_only())
    }

    /// Shows a directory or file of the host inside, writable, if it exists when the sandbox is
    /// spawned: [`Bind::optional`].
    ///
    /// ```
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// let sandbox = Sandbox::new().user_ns().rootfs(RootFs::programs());
    /// // The cache of a host that has one, and none on others.
    /// let sandbox = sandbox.bind_try("/var/cache/ccache", "/ccache").bind_ro_try("/opt/toolchain", "/opt/toolchain");
    /// # drop(sandbox);
    /// ```
    pub fn bind_try(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target).optional())
    }

    /// Shows a directory or file of the host inside, read-only, if it exists when the sandbox is
    /// spawned: [`Bind::optional`].
    pub fn bind_ro_try(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target).read_only().optional())
    }

    /// Mounts an empty file system in memory that holds at most `size`: [`Tmpfs::new`] with mode
    /// 01777.
    ///
    /// ```
    /// use ringfence::{Bytes, RootFs, Sandbox};
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let sandbox = sandbox.rootfs(RootFs::host()).tmpfs("/var/tmp", Bytes::mib(8));
    /// let script = "echo a > /var/tmp/a && cat /var/tmp/a";
    /// let output = sandbox.command("sh").args(["-c", script]).output()?;
    /// assert_eq!(output.stdout, b"a\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn tmpfs(self, target: impl Into<PathBuf>, size: impl Into<Bytes>) -> Self {
        self.mount(Tmpfs::new(target).size(size).mode(0o1777))
    }

    /// Shows a file with these contents inside, read-only, mode 0644: [`MemoryFile`].
    ///
    /// ```
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let sandbox = sandbox.rootfs(RootFs::programs());
    /// let sandbox = sandbox.file("/etc/motd", "hello\n").symlink("/etc/motd", "/motd");
    /// assert_eq!(sandbox.command("cat").arg("/motd").output()?.stdout, b"hello\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn file(self, target: impl Into<PathBuf>, contents: impl AsRef<[u8]>) -> Self {
        self.mount(MemoryFile::new(target, contents))
    }

    /// Makes a directory inside, mode 0755, with those that lead to it, where they are missing. It
    /// stands in its place among the [mounts](Sandbox::mount), and in memory of the sandbox's own:
    /// below a tmpfs, or on a root whose changes vanish with the sandbox. Anywhere else it would
    /// stay on the host, and the sandbox is refused.
    pub fn dir(self, path: impl Into<PathBuf>) -> Self {
        self.mount(mount::dir(path))
    }

    /// Makes the symbolic link `path` to `to` inside, like `ln -s`, and the directories that lead
    /// to it where they are missing. A link replaces nothing: if `path` exists, the spawn fails
    /// (EEXIST). The rules of [`dir`](Sandbox::dir) hold here as well.
    ///
    /// ```
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let sandbox = sandbox.rootfs(RootFs::programs()).dir("/srv/app").symlink("srv/app", "/app");
    /// let output = sandbox.command("sh").args(["-c", "cd /app && pwd -P"]).output()?;
    /// assert_eq!(output.stdout, b"/srv/app\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn symlink(self, to: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Self {
        self.mount(mount::symlink(to, path))
    }

    /// Masks a file or directory, after all mounts: a masked file reads as empty, and writes to it
    /// vanish; a masked directory is empty and read-only. A path that does not exist is skipped,
    /// because it has nothing to hide: if the program can make a file there, that file is the
    /// program's own. The path to the mask is pinned as [`mount`](Sandbox::mount) says. Adds a
    /// mount namespace.
    ///
    /// The path is looked up inside the sandbox's root once, and masked by its descriptor. The mask
    /// is a null device (character device 1:3): one that is made for the mask, or the host's, which
    /// is verified to be that device.
    ///
    /// A program that may unmount (`CAP_SYS_ADMIN` in the sandbox) can remove the mask.
    ///
    /// ```
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let sandbox = sandbox.rootfs(RootFs::host()).mask("/etc/passwd");
    /// assert_eq!(sandbox.command("cat").arg("/etc/passwd").output()?.stdout, b"");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn mask(mut self, path: impl Into<PathBuf>) -> Self {
        self.policy.mounts.masks.push(path.into());
        self.mount_ns()
    }

    /// Makes a file or directory read-only, with all mounts below it, after all mounts. The path is
    /// pinned as [`mount`](Sandbox::mount) says. Adds a mount namespace.
    ///
    /// ```no_run
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// // The program works on the repository, and leaves no hook behind that others would run.
    /// let sandbox = Sandbox::new().user_ns().rootfs(RootFs::programs());
    /// let sandbox = sandbox.bind("/srv/repository", "/work").cwd("/work").command("make");
    /// sandbox.read_only_path("/work/.git/hooks").read_only_path("/work/.git/config").status()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A path that does not exist is skipped where no process can make it: on a read-only mount,
    /// and on a root whose changes vanish with the sandbox. Where the program could make the path,
    /// the spawn fails (ENOENT): make it beforehand.
    pub fn read_only_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.policy.mounts.read_only_paths.push(path.into());
        self.mount_ns()
    }

    /// [Masks](Sandbox::mask) the files in which the kernel shows data of the whole machine, and
    /// makes the files read-only by which the kernel takes settings. Adds a mount namespace.
    ///
    /// | | below /proc | below /sys |
    /// | --- | --- | --- |
    /// | masked | acpi, asound, interrupts, kcore, keys, latency_stats, sched_debug, scsi, timer_list, timer_stats | firmware, devices/virtual/powercap, each processor's thermal_throttle |
    /// | read-only | bus, fs, irq, pressure, sys, sysrq-trigger | |
    ///
    /// ```
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let sandbox = sandbox.rootfs(RootFs::host()).pid_ns().default_masks(true);
    /// let output = sandbox.command("sh").args(["-c", "cat /proc/keys 2>/dev/null; true"]).output()?;
    /// assert!(output.stdout.is_empty(), "the machine's keys are not shown");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn default_masks(mut self, wanted: bool) -> Self {
        self.policy.mounts.default_masks = wanted;
        if wanted { self.mount_ns() } else { self }
    }

    /// Sets whether the default mounts are made: /proc; /dev, with the terminal that the program
    /// inherits at /dev/console, so that it has a name; on the host's root, /tmp; in
    /// [`strict`](Sandbox::strict) and images the [control groups](crate::Cgroupfs); and what
    /// [images](Sandbox::image) have. They are made by default. A mount of the list with the same
    /// target replaces a default one.
    pub fn default_mounts(mut self, wanted: bool) -> Self {
        self.policy.mounts.no_defaults = !wanted;
        self
    }
}
