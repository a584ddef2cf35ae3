//! The setters of the builder that are no limits of the control group.

use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{HeldNamespaces, Sandbox};
#[cfg(feature = "systemd")]
use crate::cgroup::SystemdScope;
use crate::feature::Feature;
use crate::mount::{self, Bind, MemoryFile, Mount, RootFs, Tmpfs};
use crate::namespace::{IdMap, JoinSource, Namespaces, TimeOffset, UserLimit};
use crate::program::{Resource, Session};
use crate::security::{Capabilities, Landlock, RemoteSupervisor, Seccomp};
use crate::units::Bytes;

/// # Namespaces
impl Sandbox {
    /// Adds namespaces of the sandbox's own. A pid namespace also adds what
    /// [`pid_ns`](Sandbox::pid_ns) lists.
    ///
    /// ```
    /// use ringfence::{Namespaces, Sandbox};
    ///
    /// let sandbox = Sandbox::new().user_ns().namespaces(Namespaces::UTS | Namespaces::IPC);
    /// assert_eq!(sandbox.hostname("box").command("hostname").output()?.stdout, b"box\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn namespaces(mut self, kinds: Namespaces) -> Self {
        self.policy.namespaces.new |= kinds;
        if kinds.contains(Namespaces::PID) {
            self.policy.namespaces.new |= Namespaces::MOUNT;
        }
        self
    }

    /// Removes namespaces, so that the sandbox shares these with the caller. This call is for
    /// [`strict`](Sandbox::strict), which begins with all of them. Without a user namespace, its
    /// [`max_user_namespaces`](Sandbox::max_user_namespaces) and every
    /// [`user_limit`](Sandbox::user_limit) are removed as well, and without a UTS namespace the
    /// names of [`hostname`](Sandbox::hostname) and [`domainname`](Sandbox::domainname).
    ///
    /// ```
    /// use ringfence::{Namespaces, Sandbox};
    ///
    /// // Everything that strict() has, but with the caller's network.
    /// let sandbox = Sandbox::strict().share(Namespaces::NET).command("curl").arg("https://example.org");
    /// # drop(sandbox);
    /// ```
    pub fn share(mut self, kinds: Namespaces) -> Self {
        self.policy.namespaces.new -= kinds;
        if kinds.contains(Namespaces::USER) {
            self.policy.namespaces.user_limits.clear();
        }
        if kinds.contains(Namespaces::UTS) {
            (self.policy.namespaces.hostname, self.policy.namespaces.domainname) = (None, None);
        }
        self
    }

    /// Adds a user namespace: the program has capabilities that mean nothing outside, and the ids
    /// of [`uid_map`](Sandbox::uid_map). user_namespaces(7).
    ///
    /// Without [`uid_map`](Sandbox::uid_map), the namespace has only the user and the group of the
    /// program ([`user`](Sandbox::user), else root). To files, signals and /proc/sys, the program
    /// of an ordinary user is that user. If the caller is root, or has `CAP_SETUID` and
    /// `CAP_SETGID`, the program is nobody: an id that no account has, and no other living sandbox.
    /// So the program owns no file of the host. It can read a root file system that belongs to
    /// root, but not change it: give that file system to the id below, or map a range that owns it.
    ///
    /// | subject | id, the same for user and group |
    /// | --- | --- |
    /// | the processes of a sandbox | one of 0x7800_0000 to 0x7ffd_ffff, until all processes have ended; where the caller itself lives in a user namespace without these ids, one of 60,736 to 61,183 |
    /// | files that the sandbox makes on the host, and files that are given to it | 1,879,048,192 (0x7000_0000), in each run, so that a run can use the files of an earlier one |
    /// | the processes of a sandbox whose files cannot be mapped to that id | that same id: see below |
    ///
    /// A [`bind`](Sandbox::bind) or [`RootFs::dir`](crate::RootFs::dir) that is writable, or that
    /// belongs to 1,879,048,192, shows the files of that id as the sandbox's (mount_setattr(2),
    /// `MOUNT_ATTR_IDMAP`, since 5.12; ext4, xfs, btrfs 5.15, tmpfs 6.3). Where such a mount is
    /// impossible, sandboxes share the id: on a file system that maps no ids, below an
    /// [`upper`](crate::RootFs::upper) that stays, on layers that belong to the id, with a
    /// [`scratch`](crate::RootFs::scratch) beside such a bind, with a
    /// [`RawMount`](crate::RawMount), without a root of the sandbox's own, with `CAP_SYS_ADMIN`, or
    /// where the caller itself lives in a user namespace.
    ///
    /// Sandboxes that share the id can signal each other, where one sees the other. One can also
    /// use up resources that the kernel counts by user (pages of pipes, descriptors in flight,
    /// watches of epoll), so that the other has none left. Where that matters, give each sandbox an
    /// id with [`uid_map`](Sandbox::uid_map) and [`gid_map`](Sandbox::gid_map), and its files to
    /// that id. Where the caller has no id 1,879,048,192, the library uses the caller's nobody
    /// instead, or the caller's last id.
    ///
    /// The source of a bind may lie in directories that are closed to that id, unless the program
    /// has `CAP_SYS_ADMIN`. With that capability, the kernel has to look up the source from inside;
    /// otherwise it would not lock the flags that the mount has outside.
    ///
    /// ```no_run
    /// use ringfence::{IdMap, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// // Root outside as well.
    /// let root = IdMap::new(0, 0, 1);
    /// Sandbox::new().user_ns().uid_map(root).gid_map(root).command("id").status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn user_ns(self) -> Self {
        self.namespaces(Namespaces::USER)
    }

    /// Adds a pid namespace: the program sees and signals only processes of the sandbox, and all of
    /// these end when the sandbox does. pid_namespaces(7).
    ///
    /// This call also adds a mount namespace with a /proc of its own, and a session of its own,
    /// because a program in the caller's process group could signal the caller in spite of the
    /// namespace. The program is pid 1, so signals from inside lack their default actions; see
    /// [`init`](Sandbox::init).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let output = sandbox.pid_ns().args(["-c", "echo $$"]).output()?;
    /// assert_eq!(output.stdout, b"1\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn pid_ns(self) -> Self {
        self.namespaces(Namespaces::PID)
    }

    /// Adds a mount namespace: mounts made inside are not seen outside, nor the other way round.
    /// mount_namespaces(7).
    pub fn mount_ns(self) -> Self {
        self.namespaces(Namespaces::MOUNT)
    }

    /// Adds a network namespace, whose only interface is a loopback, which is up.
    /// network_namespaces(7).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let script = "tail -n +3 /proc/net/dev | cut -d: -f1";
    /// let output = sandbox.net_ns().pid_ns().args(["-c", script]).output()?;
    /// assert_eq!(output.stdout.trim_ascii(), b"lo");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn net_ns(self) -> Self {
        self.namespaces(Namespaces::NET)
    }

    /// Adds an IPC namespace: System V objects and POSIX message queues of the sandbox's own.
    /// ipc_namespaces(7).
    pub fn ipc_ns(self) -> Self {
        self.namespaces(Namespaces::IPC)
    }

    /// Adds a UTS namespace: a host name of the sandbox's own. uts_namespaces(7).
    pub fn uts_ns(self) -> Self {
        self.namespaces(Namespaces::UTS)
    }

    /// Adds a cgroup namespace, which shows the sandbox's control group as the root.
    /// cgroup_namespaces(7), since 4.6.
    pub fn cgroup_ns(self) -> Self {
        self.namespaces(Namespaces::CGROUP)
    }

    /// Adds a time namespace, whose clocks can have [offsets](Sandbox::monotonic_offset).
    /// time_namespaces(7), since 5.6.
    pub fn time_ns(self) -> Self {
        self.namespaces(Namespaces::TIME)
    }

    /// Enters the existing namespace of kind `kind` behind `fd`, an open `/proc/PID/ns/…` file.
    /// setns(2).
    ///
    /// In a user namespace, the program gets the ids that the caller has there, outside as well,
    /// unless [`user`](Sandbox::user) sets others. A namespace that does not map the caller's ids
    /// shows the caller as nobody (65534). If the namespace does not map that id either, the spawn
    /// fails. The caller's own user namespace is left as it is.
    ///
    /// A descriptor of anything else, or of another kind of namespace, is an error of
    /// [`check`](Sandbox::check), which says what it is (`NS_GET_NSTYPE`, 4.11).
    pub fn join_fd(mut self, kind: Namespaces, fd: impl Into<OwnedFd>) -> Self {
        self.policy.namespaces.join.push((kind, JoinSource::Fd(Arc::new(fd.into()))));
        self
    }

    /// Enters the namespaces `kinds` of the process `pid`. The namespaces are looked up at each
    /// spawn, all from one process: if the process ends meanwhile, and another process could have
    /// got its pid, the spawn fails. For a user namespace see [`join_fd`](Sandbox::join_fd): a
    /// program that runs as root, and joins all but the user namespace, is root among the files and
    /// processes of the joined namespaces.
    ///
    /// ```no_run
    /// use ringfence::{Namespaces, Sandbox};
    ///
    /// // The network of another process, such as that of a container.
    /// let sandbox = Sandbox::new().join_pid(Namespaces::NET, 4242).command("ss").arg("-tln");
    /// println!("{}", sandbox.status()?.verdict());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn join_pid(mut self, kinds: Namespaces, pid: u32) -> Self {
        let source = JoinSource::Pid(i32::try_from(pid).unwrap_or(-1));
        self.policy.namespaces.join.extend(kinds.iter().map(|kind| (kind, source.clone())));
        self
    }

    /// Enters the namespaces `kinds` of the process behind `pidfd`: pidfd_open(2), setns(2).
    ///
    /// Unlike a pid, a pidfd is of one process for good, so this is never another process that has
    /// got the number since. The kernel joins all namespaces in one call (5.8), or none; on an older
    /// kernel they are joined one by one, by files of the same process. Once the process has ended,
    /// the spawn fails. Who is privileged outside, and joins the user namespace too, may join
    /// namespaces that belong to the host. For a user namespace see [`join_fd`](Sandbox::join_fd).
    ///
    /// ```
    /// use ringfence::{Namespaces, Sandbox};
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// # let kinds = if nix::unistd::geteuid().is_root() { Namespaces::empty() } else { Namespaces::USER };
    /// let mut first = sandbox.uts_ns().hostname("first").command("sleep").arg("60").spawn()?;
    /// let pidfd = first.pidfd().unwrap().try_clone_to_owned().unwrap();
    /// let kinds = kinds | Namespaces::UTS;
    /// let output = Sandbox::new().join_process(kinds, pidfd).command("uname").arg("-n").output()?;
    /// assert_eq!(output.stdout, b"first\n");
    /// first.kill()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn join_process(mut self, kinds: Namespaces, pidfd: impl Into<OwnedFd>) -> Self {
        let source = JoinSource::Process(Arc::new(pidfd.into()));
        self.policy.namespaces.join.extend(kinds.iter().map(|kind| (kind, source.clone())));
        self
    }

    /// Enters the namespace of kind `kind` whose file is at `path`, such as one of `ip netns`, or
    /// of [`HeldNamespaces::bind`](crate::HeldNamespaces::bind). The file is opened at each spawn,
    /// and for a [prepared](Sandbox::prepare) sandbox once. A file of anything else, or of another
    /// kind of namespace, is an error of [`check`](Sandbox::check), which says what it is. For a
    /// user namespace see [`join_fd`](Sandbox::join_fd).
    ///
    /// ```no_run
    /// use ringfence::{Namespaces, Sandbox};
    ///
    /// // After `ip netns add blue`.
    /// let sandbox = Sandbox::new().join_path(Namespaces::NET, "/run/netns/blue");
    /// println!("{}", sandbox.command("ip").arg("address").status()?.verdict());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn join_path(mut self, kind: Namespaces, path: impl AsRef<Path>) -> Self {
        self.policy.namespaces.join.push((kind, JoinSource::Path(path.as_ref().to_owned())));
        self
    }

    /// Enters namespaces that are [held](Sandbox::hold_namespaces) without a process: all that
    /// `held` has. Several sandboxes share them so, as those of a pod do. For a user namespace see
    /// [`join_fd`](Sandbox::join_fd).
    pub fn join_held(mut self, held: &HeldNamespaces) -> Self {
        self.policy.namespaces.join.extend(held.sources());
        self
    }

    /// Sets the host name inside, at most 64 bytes; needs [`uts_ns`](Sandbox::uts_ns).
    /// sethostname(2).
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.policy.namespaces.hostname = Some(name.into());
        self
    }

    /// Sets the NIS domain name inside, at most 64 bytes; needs [`uts_ns`](Sandbox::uts_ns).
    /// setdomainname(2).
    pub fn domainname(mut self, name: impl Into<String>) -> Self {
        self.policy.namespaces.domainname = Some(name.into());
        self
    }

    /// Sets the offset of `CLOCK_MONOTONIC` inside from the host's; needs
    /// [`time_ns`](Sandbox::time_ns).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Sandbox, TimeOffset};
    ///
    /// // A program inside believes that the machine has run for a day longer.
    /// let day = TimeOffset::Ahead(Duration::from_secs(24 * 3600));
    /// let sandbox = Sandbox::new().user_ns().time_ns().monotonic_offset(day).boottime_offset(day);
    /// # drop(sandbox);
    /// ```
    pub fn monotonic_offset(mut self, offset: TimeOffset) -> Self {
        self.policy.namespaces.monotonic = Some(offset);
        self
    }

    /// Sets the offset of `CLOCK_BOOTTIME` inside, which uptime(1) shows, from the host's; needs
    /// [`time_ns`](Sandbox::time_ns).
    pub fn boottime_offset(mut self, offset: TimeOffset) -> Self {
        self.policy.namespaces.boottime = Some(offset);
        self
    }

    /// Sets the most user namespaces that all users together can make inside. With 0, no program
    /// can reach the parts of the kernel that are open to the root of a user namespace. Needs
    /// [`user_ns`](Sandbox::user_ns), and sets that namespace's own
    /// `/proc/sys/user/max_user_namespaces`; since 4.9.
    ///
    /// With more than 0, a filter that is [`Seccomp::default`] allows clone(2), unshare(2) and
    /// setns(2) with flags for namespaces; any other filter is left as it is.
    pub fn max_user_namespaces(self, count: u32) -> Self {
        self.user_limit(UserLimit::UserNamespaces, count)
    }

    /// Sets the most entries of a kernel table that each user of the sandbox may take. Needs
    /// [`user_ns`](Sandbox::user_ns), and sets that namespace's own file in `/proc/sys/user`. The
    /// limit of the user who makes the sandboxes holds as well, for all of them together.
    ///
    /// ```
    /// use ringfence::{Sandbox, UserLimit};
    ///
    /// let sandbox = Sandbox::strict().user_limit(UserLimit::InotifyInstances, 32);
    /// # drop(sandbox);
    /// ```
    pub fn user_limit(mut self, table: UserLimit, count: u32) -> Self {
        self.policy.namespaces.user_limits.insert(table, count);
        self
    }

    /// Adds a line to the map of user ids; needs [`user_ns`](Sandbox::user_ns).
    ///
    /// A map of the caller's own id alone needs no privilege. Other lines are written by the
    /// caller, if the caller has `CAP_SETUID` and `CAP_SETGID`. Else newuidmap(1) and newgidmap(1)
    /// write them: these programs have to be installed, and map the ids that subuid(5) and
    /// subgid(5) grant to the caller.
    pub fn uid_map(mut self, map: IdMap) -> Self {
        self.policy.namespaces.uid_map.push(map);
        self
    }

    /// Adds a line to the map of group ids, like [`uid_map`](Sandbox::uid_map); needs
    /// [`user_ns`](Sandbox::user_ns).
    pub fn gid_map(mut self, map: IdMap) -> Self {
        self.policy.namespaces.gid_map.push(map);
        self
    }

    /// Maps root to the caller, and the ids from 1 on to the ranges that /etc/subuid and
    /// /etc/subgid grant to the caller, one after the other; needs [`user_ns`](Sandbox::user_ns).
    /// So the sandbox of an ordinary user has users and groups to change to, and shows layers whose
    /// files have several owners as they are.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = ringfence::Sandbox::new().user_ns().map_subids();
    /// sandbox.user(1000, 1000).groups([100]).command("id").status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_subids(mut self) -> Self {
        self.policy.namespaces.subids = true;
        self
    }
}

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
    /// let sandbox = sandbox.rootfs(RootFs::programs()).file("/etc/motd", "hello\n").symlink("/etc/motd", "/motd");
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

    /// Makes the symbolic link `path` to `to` inside, like `ln -s`, and the directories that lead to
    /// it where they are missing. A link replaces nothing: if `path` exists, the spawn fails
    /// (EEXIST). The rules of [`dir`](Sandbox::dir) hold here as well.
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
    /// | read-only | bus, fs, irq, sys, sysrq-trigger | |
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

/// # What the program may ask of the kernel
impl Sandbox {
    /// Restricts paths, TCP ports, signals and abstract sockets by [`Landlock`], with or without
    /// namespaces. Sets `no_new_privs`. A later call replaces the rules of an earlier one.
    ///
    /// ```
    /// use ringfence::{Landlock, Sandbox};
    ///
    /// // No namespaces: the program sees the host, and may read only /usr, /lib and /etc.
    /// let rules = Landlock::new().execute("/usr").execute("/lib").read("/etc");
    /// let sandbox = Sandbox::new().landlock(rules).command("sort");
    /// # drop(sandbox);
    /// ```
    pub fn landlock(mut self, rules: Landlock) -> Self {
        self.policy.landlock = Some(rules);
        self
    }
}

/// # Limits of processes, of time, and how strictly
impl Sandbox {
    /// Sets a limit of each process in the sandbox: setrlimit(2). `u64::MAX` is no limit. A later
    /// call for a resource replaces an earlier one.
    ///
    /// ```
    /// use ringfence::{Resource, Sandbox};
    ///
    /// let sandbox = Sandbox::new().rlimit(Resource::OpenFiles, 32, 32);
    /// assert_eq!(sandbox.args(["-c", "ulimit -n"]).output()?.stdout, b"32\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        self.policy.program.rlimits.retain(|(other, ..)| *other != resource);
        self.policy.program.rlimits.push((resource, soft, hard));
        self
    }

    /// Sets the most wall time that the program may run. Then everything in the sandbox is killed:
    /// [`Verdict::WallTime`](crate::Verdict::WallTime). One thread of the library watches over all
    /// sandboxes. `None` is no limit, for a preset that has one.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let sandbox = Sandbox::new().wall_time(Duration::from_millis(100)).command("sleep").arg("60");
    /// assert_eq!(sandbox.status()?.verdict(), Verdict::WallTime);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn wall_time(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.policy.wall_time = limit.into();
        self
    }

    /// Has the end of [`wall_time`](Sandbox::wall_time) announced: at the limit the program gets
    /// SIGTERM, or the [`stop_signal`](Sandbox::stop_signal), and everything in the sandbox is
    /// killed only `grace` later. The verdict is
    /// [`Verdict::WallTime`](crate::Verdict::WallTime) in both cases.
    ///
    /// A program that is pid 1 itself gets only signals for which it has set an action; with
    /// [`init`](Sandbox::init) the signal is passed on to the program.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let script = "trap 'echo saved; exit' TERM; while :; do sleep 0.01; done";
    /// let sandbox = Sandbox::new().args(["-c", script]);
    /// let limited = sandbox.wall_time(Duration::from_millis(200)).wall_time_grace(Duration::from_secs(5));
    /// let output = limited.output()?;
    /// assert_eq!(output.outcome.verdict(), Verdict::WallTime);
    /// assert_eq!(output.stdout, b"saved\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn wall_time_grace(mut self, grace: Duration) -> Self {
        self.policy.wall_time_grace = Some(grace);
        self
    }

    /// Sets the most processor time that all processes of the sandbox may use together. Then
    /// everything in the sandbox is killed: [`Verdict::CpuTime`](crate::Verdict::CpuTime). The
    /// library reads the time from the control group, in steps that shorten as the limit comes
    /// near, to within about a millisecond a core.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Feature, Sandbox, Verdict};
    ///
    /// // Without a control group that counts, each process has the limit for itself, in whole seconds.
    /// let sandbox = Sandbox::new().cpu_time(Duration::from_secs(1)).best_effort(Feature::CpuTime);
    /// let outcome = sandbox.args(["-c", "while :; do :; done"]).status()?;
    /// assert_eq!(outcome.verdict(), Verdict::CpuTime);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn cpu_time(mut self, limit: Duration) -> Self {
        self.policy.cpu_time = Some(limit);
        self
    }

    /// Sets the most bytes that the program may write to stdout and stderr together. Then
    /// everything in the sandbox is killed: [`Verdict::OutputLimit`](crate::Verdict::OutputLimit).
    /// All output that was cut off has this verdict, even if the program had ended by then. With
    /// [`output_cut`](Sandbox::output_cut), the library discards the rest instead.
    ///
    /// The bytes of a pipe count when [`Child::wait_with_output`](crate::Child::wait_with_output),
    /// or the caller, reads them. If a stream is a file, the limit holds for the size of that file,
    /// and of every other file that the program writes (`RLIMIT_FSIZE`). Other descriptors, which
    /// have readers outside of the library, cannot be counted. They are refused, unless
    /// [`best_effort`](Sandbox::best_effort)`(`[`Feature::OutputLimit`](crate::Feature::OutputLimit)`)`
    /// goes without the limit. The caller's own stdout and stderr, passed on, are not counted.
    ///
    /// ```
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let output = Sandbox::new().command("yes").output_limit(1 << 20).output()?;
    /// assert_eq!((output.outcome.verdict(), output.truncated), (Verdict::OutputLimit, true));
    /// assert!(output.stdout.len() <= 1 << 20);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn output_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.output_limit = Some(limit.into().get());
        self
    }

    /// Sets whether the library discards output beyond [`output_limit`](Sandbox::output_limit) and
    /// lets the program go on, instead of ending it.
    /// [`Output::truncated`](crate::Output::truncated) reports that. The output to a file cannot be
    /// cut: a write beyond the limit fails (EFBIG), or ends the program.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::new().args(["-c", "echo 0123456789"]).output_limit(4).output_cut(true).output()?;
    /// assert_eq!((&output.stdout[..], output.truncated), (&b"0123"[..], true));
    /// assert!(output.outcome.success());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn output_cut(mut self, cut: bool) -> Self {
        self.policy.output_cut = cut;
        self
    }

    /// Sets the control group below which the sandbox's own is made, as a path from the root of
    /// each hierarchy (`/sandboxes`). The group is made if it is missing, and removed with the last
    /// sandbox in it. Without this call, the parent is the caller's own group.
    ///
    /// cgroup v2 allows processes in the leaves only. So a group with processes, such as the
    /// caller's own, cannot be the parent of groups with limits there: the spawn fails with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). The library neither moves the
    /// caller, nor puts the sandbox where the caller's own limits do not hold. Root names a group
    /// here, as above. An ordinary user needs a delegated group, stays in a leaf of that group, and
    /// names the group here:
    ///
    /// ```console
    /// $ systemd-run --user --scope -p Delegate=yes sh -c 'g=/$(cut -d/ -f2- /proc/self/cgroup)
    ///     mkdir /sys/fs/cgroup$g/own; echo $$ >/sys/fs/cgroup$g/own/cgroup.procs; exec program --cgroup-parent $g'
    /// ```
    pub fn cgroup_parent(mut self, path: impl AsRef<Path>) -> Self {
        self.policy.cgroup_parent = Some(path.as_ref().to_owned());
        self
    }

    /// Sets the sandbox's own control group, as a path from the root of each hierarchy
    /// (`/jobs/one`), in place of a group with a name of the library's. The sandbox is in this group
    /// also without a limit, on v2 and in every v1 hierarchy: also in those of `net_cls`, `net_prio`
    /// and `perf_event`, and in `name=systemd`. Hierarchies that the caller may not write to are left
    /// out if no limit needs them.
    ///
    /// A group that is missing is made, with those above it, and removed with the sandbox. A group
    /// that exists is used if no process and no other group is in it, and it is not frozen: else the
    /// spawn fails with EBUSY or ENOTEMPTY. Such a group stays after the sandbox, with the limits
    /// that were set, but for `pids.max`, which is put back; its device rules are replaced if the
    /// sandbox has some. Limits that are not set stay as they were.
    ///
    /// One sandbox at a time can have the group, and a second one of this process is refused. Two
    /// processes that name an empty group in the same moment are not told apart. [`reap_stale`](crate::reap_stale) does not know it:
    /// what a killed owner leaves in it ends with the sandbox's init, if it has one. A
    /// [`ticket`](crate::Child::ticket) does not name it either, so that
    /// [`Child::ticket`](crate::Child::ticket) is an error.
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::strict().cgroup("/jobs/one").pids_limit(20).command("id").output()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn cgroup(mut self, path: impl AsRef<Path>) -> Self {
        self.policy.cgroup = Some(path.as_ref().to_owned());
        self
    }

    /// Makes the sandbox's control group below a transient scope of systemd, for hosts where
    /// systemd owns the tree. For root, the system's manager makes the scope, over the system's
    /// bus. For an ordinary user, the user's own manager makes it, over the user's bus
    /// (`$XDG_RUNTIME_DIR/bus`). So an ordinary user has limits without a delegation of their own;
    /// `cpu_limit`, `cpuset` and `io_limit` need a manager that has their controllers.
    ///
    /// The scope is made with the first sandbox of this process, is shared by all sandboxes that
    /// name an equal scope, and stays until the process and its last sandbox have ended. A parked
    /// process of the library holds the scope meanwhile. The parked process is no child of the
    /// caller, and ends with it. Making the scope takes [`setup_timeout`](Sandbox::setup_timeout)
    /// at most. If the caller stands outside of its manager's subtree, as in a login session,
    /// systemd moves each program into the scope: one more call for each spawn.
    ///
    /// This call needs the crate's feature `systemd`, systemd 238, cgroup v2 and a bus. Where one
    /// is missing, [`check`](Sandbox::check) and the spawn fail with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// ```no_run
    /// use ringfence::{Bytes, Sandbox, SystemdScope};
    ///
    /// let batch = SystemdScope::new().slice("batch.slice");
    /// let sandbox = Sandbox::new().user_ns().memory_limit(Bytes::mib(64));
    /// let status = sandbox.systemd_scope(batch).status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    #[cfg(feature = "systemd")]
    pub fn systemd_scope(mut self, scope: SystemdScope) -> Self {
        self.policy.systemd_scope = Some(scope);
        self
    }

    /// Goes without `feature` where this host cannot enforce it, instead of failing.
    /// [`Child::enforced`](crate::Child::enforced) lists the missing features.
    ///
    /// ```
    /// use ringfence::{Enforcement, Feature, Sandbox};
    ///
    /// let sandbox = Sandbox::new().pids_limit(16).best_effort(Feature::PidsLimit).command("true");
    /// let mut child = sandbox.spawn()?;
    /// if let Some(Enforcement::Missing(why)) = child.enforced().get(Feature::PidsLimit) {
    ///     println!("without a limit of processes: {why}");
    /// }
    /// child.wait()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn best_effort(mut self, feature: Feature) -> Self {
        self.policy.best_effort.insert(feature);
        self
    }
}

/// # Privileges
impl Sandbox {
    /// Sets the capabilities of the program, and of all processes in the sandbox. Without this
    /// call, the program has those of the caller's capabilities that an exec keeps. The inheritable
    /// and the ambient set are empty in any case, unless this call fills them.
    ///
    /// With [`user_ns`](Sandbox::user_ns), and without this call, a program that runs as uid 0
    /// inside has every capability over its namespaces but two: `CAP_SYS_ADMIN`, where the sandbox
    /// has mounts, masks or read-only paths, because the program could undo them; and
    /// `CAP_SYS_PTRACE`, below an [`init`](Sandbox::init), because the program could write to the
    /// memory of the init. [`Capabilities::all_but`]`([])` gives both to a program that is trusted
    /// with all that is bound. `CAP_SYS_PTRACE` is refused together with an init and a filter of
    /// [`seccomp`](Sandbox::seccomp), because the init stands outside of the filter, unless
    /// [`landlock`](Sandbox::landlock) keeps the program off the init.
    ///
    /// Cutting down the bounding set needs `CAP_SETPCAP`, which a user namespace gives. Where the
    /// set cannot be cut down, the spawn fails, or with
    /// [`best_effort`](Sandbox::best_effort)`(Feature::BoundingSet)` leaves the set as it is.
    ///
    /// ```
    /// use ringfence::{Capabilities, Capability, Sandbox};
    ///
    /// let web = Capabilities::keep([Capability::CAP_NET_BIND_SERVICE]);
    /// let sandbox = Sandbox::new().capabilities(web).user(33, 33).command("httpd");
    /// # drop(sandbox);
    /// ```
    pub fn capabilities(mut self, sets: Capabilities) -> Self {
        self.policy.security.capabilities = Some(sets);
        self
    }

    /// Forbids processes of the sandbox to gain privileges by an exec, if `wanted`: set-user-ID and
    /// set-group-ID bits and file capabilities are without effect (`PR_SET_NO_NEW_PRIVS`, prctl(2),
    /// since 3.5). If the caller has this attribute already, the sandbox cannot give it up.
    pub fn no_new_privs(mut self, wanted: bool) -> Self {
        self.policy.security.no_new_privs = wanted;
        self
    }

    /// Sends the listener of the [`seccomp`](Sandbox::seccomp) profile, which has rules with
    /// [`Action::Notify`](crate::Action::Notify), to a supervisor in another process: over the unix
    /// stream socket at `path`, with `SCM_RIGHTS`. This is `listenerPath` of the OCI runtime
    /// specification, whose message is the state of the container as JSON; its `listenerMetadata` is
    /// part of that. seccomp_unotify(2), since 5.0.
    ///
    /// `message` makes the message from the pid that [`Child::id`](crate::Child::id) gives. The
    /// library connects before a child exists; so a supervisor that is not there is an error that
    /// leaves nothing. Once the filter is installed, it sends message and descriptor, and then the
    /// end of the stream. Only when all has been sent is the program executed, and a failure ends
    /// the spawn: the program has not run. Connecting and sending take at most
    /// [`setup_timeout`](Sandbox::setup_timeout) each. Each program of
    /// [`Child::exec`](crate::Child::exec) does the same, with its own pid. A [`Pool`](crate::Pool)
    /// has no such sandboxes.
    ///
    /// ```no_run
    /// use ringfence::{Action, Rule, Sandbox, Seccomp};
    ///
    /// let asks = Seccomp::default().rule(Rule::new(["mount"], Action::Notify));
    /// let state = |pid| {
    ///     let state = r#""ociVersion":"1.3.0","fds":["seccompFd"],"metadata":"m","state":{}"#;
    ///     format!(r#"{{"pid":{pid},{state}}}"#).into_bytes()
    /// };
    /// let sandbox = Sandbox::new().seccomp(asks).notify_socket("/run/agent.sock", state);
    /// println!("{}", sandbox.status()?.verdict());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`check`](Sandbox::check) refuses this without a rule that asks. A spawn fails at
    /// [`Step::HandListenerOver`](crate::Step::HandListenerOver): ENOENT, ECONNREFUSED, ENOTSOCK,
    /// EPIPE if the supervisor hangs up, or [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
    pub fn notify_socket(
        mut self,
        path: impl AsRef<Path>,
        message: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        self.policy.supervisor = Some(RemoteSupervisor::new(path.as_ref(), message));
        self
    }

    /// Runs the program under this profile of AppArmor, which is loaded already: the kernel changes
    /// to it at the exec, so that the setup is not confined by it. apparmor(7). `unconfined` is none.
    /// Programs of [`Child::exec`](crate::Child::exec) get the same.
    ///
    /// A kernel without AppArmor is an error of [`check`](Sandbox::check), a profile that is not
    /// loaded one of the spawn (ENOENT at [`Step::Label`](crate::Step::Label)).
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().apparmor_profile("docker-default").command("make");
    /// # sandbox.status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn apparmor_profile(mut self, name: impl Into<String>) -> Self {
        self.policy.security.labels.apparmor = Some(name.into());
        self
    }

    /// Runs the program with this label of SELinux, as setexeccon(3) does:
    /// `system_u:system_r:container_t:s0:c1,c2`. Files need labels that this one may use: the option
    /// `context=` of a mount gives them. Programs of [`Child::exec`](crate::Child::exec) get the
    /// same.
    ///
    /// A kernel without SELinux is an error of [`check`](Sandbox::check), a label that its policy
    /// does not know one of the spawn (EINVAL at [`Step::Label`](crate::Step::Label)).
    pub fn selinux_label(mut self, label: impl Into<String>) -> Self {
        self.policy.security.labels.selinux = Some(label.into());
        self
    }

    /// Gives the sandbox an empty session keyring of its own, instead of the caller's with all its
    /// keys: session-keyring(7). A kernel without keys has none to share.
    ///
    /// A keyring counts against the quota of the caller's user, which is 200 for an ordinary user
    /// (`/proc/sys/kernel/keys/maxkeys`). Beyond the quota, the spawn fails with EDQUOT.
    pub fn session_keyring(mut self, wanted: bool) -> Self {
        self.policy.security.session_keyring = wanted;
        self
    }

    /// Sets the filter of the system calls that the program may make; sets `no_new_privs`. A later
    /// call replaces an earlier one, and `None` removes the filter. seccomp(2), since 4.14.
    ///
    /// [`Seccomp::default()`](Seccomp::default) is the profile for untrusted programs. An
    /// [`init`](Sandbox::init) stands outside of the filter, as does the setup of the sandbox.
    ///
    /// ```
    /// use ringfence::{Sandbox, Seccomp};
    ///
    /// let sandbox = Sandbox::new().seccomp(Seccomp::default()).command("unshare").args(["--user", "true"]);
    /// assert!(!sandbox.output()?.outcome.success());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn seccomp(mut self, profile: impl Into<Option<Seccomp>>) -> Self {
        self.policy.seccomp = profile.into();
        self
    }
}

/// # What was refused
impl Sandbox {
    /// Sets whether the system calls that the [`seccomp`](Sandbox::seccomp) profile answers with an
    /// errno are recorded: [`Child::denials`](crate::Child::denials),
    /// [`Output::denials`](crate::Output::denials). The records show why a program does not work in
    /// the sandbox, and what it has tried.
    ///
    /// The filter asks about each such call (seccomp_unotify(2)), and a thread of this library, one
    /// for each program, records the call and answers with the errno of the profile. So the program
    /// gets the answer that it would get otherwise, at the price of a few microseconds. No call is
    /// let through. A sandbox keeps 256 records at most, 32 of each system call with one errno, and
    /// counts the rest.
    ///
    /// Only what the profile refuses is recorded. No record has:
    ///
    /// - what the kernel itself refuses later: files at a read-only mount, a mask or a Landlock rule
    ///   (EROFS, EACCES), capabilities (EPERM), limits. A filter is asked before the call, and cannot
    ///   know its result. Landlock's own log (Linux 6.15) is part of the audit log, which only
    ///   `CAP_AUDIT_READ` in the first user namespace may read;
    /// - a call that ends the program ([`Verdict::Seccomp`](crate::Verdict::Seccomp)), and one with
    ///   [`Action::Trap`](crate::Action::Trap) or [`Action::Trace`](crate::Action::Trace);
    /// - what filters refuse that the program has installed itself, and the filter beside Landlock's
    ///   rules for TCP ports.
    ///
    /// Where a program outlives its owner ([`die_with_owner(false)`](Sandbox::die_with_owner)), calls
    /// are refused with ENOSYS after the owner's end. The program cannot have a supervisor of its
    /// own for a filter (EBUSY), not even then. A signal whose handler does not restart calls can interrupt a
    /// refused call (EINTR).
    ///
    /// Needs Linux 5.8. Where a filter around the caller has a supervisor already, or the profile
    /// has [`Action::Notify`](crate::Action::Notify), the call is an error, unless
    /// [`best_effort`](Sandbox::best_effort)`(`[`Feature::Denials`](crate::Feature::Denials)`)` goes
    /// without the record.
    ///
    /// ```
    /// use ringfence::{Feature, Sandbox, Seccomp};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = Sandbox::new().seccomp(Seccomp::default()).denials(true).best_effort(Feature::Denials);
    /// let output = sandbox.command("sh").args(["-c", "unshare --user true"]).output()?;
    /// if let Some(denial) = output.denials.iter().flatten().find(|one| one.syscall() == Some("unshare")) {
    ///     assert_eq!(denial.errno(), libc::EPERM);
    ///     println!("{denial}: {}", denial.allowed_by());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn denials(mut self, wanted: bool) -> Self {
        self.policy.denials = wanted;
        self
    }
}

/// # The process
impl Sandbox {
    /// Sets the user and the group of the program, as ids inside. The supplementary groups are
    /// dropped, unless [`groups`](Sandbox::groups) sets some.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().user_ns().user(1000, 1000);
    /// assert_eq!(sandbox.args(["-c", "id -u; id -g"]).output()?.stdout, b"1000\n1000\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.policy.program.user = Some((uid, gid));
        self
    }

    /// Sets the supplementary groups of the program. setgroups(2).
    pub fn groups(mut self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.policy.program.groups = Some(gids.into_iter().collect());
        self
    }

    /// Sets the signal with which [`Child::stop`](crate::Child::stop) asks the program to end;
    /// SIGTERM by default.
    pub fn stop_signal(mut self, signal: i32) -> Self {
        self.policy.program.stop_signal = Some(signal);
        self
    }

    /// Sets the umask: the permission bits that new files do not get. The default is the caller's
    /// umask. umask(2).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::new().umask(0o027).args(["-c", "umask"]).output()?;
    /// assert_eq!(output.stdout, b"0027\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn umask(mut self, mask: u32) -> Self {
        self.policy.program.umask = Some(mask & 0o777);
        self
    }

    /// Sets the session and the process group of the program: see [`Session`].
    pub fn session(mut self, session: Session) -> Self {
        self.policy.program.session = Some(session);
        self
    }

    /// Passes `fd` on as descriptor `number`, at least 3. The program has no other open descriptor
    /// above stderr, except for those of its [`Command::fd`](crate::Command::fd).
    ///
    /// ```
    /// use std::io::{Read, pipe};
    ///
    /// use ringfence::Sandbox;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut reader, writer) = pipe()?;
    /// let mut child = Sandbox::new().fd(3, writer).args(["-c", "echo result >&3"]).spawn()?;
    /// child.wait()?;
    /// let mut line = [0; 7];
    /// reader.read_exact(&mut line)?;
    /// assert_eq!(&line, b"result\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fd(mut self, number: RawFd, fd: impl Into<OwnedFd>) -> Self {
        self.policy.stdio.extra.push((number, Arc::new(fd.into())));
        self
    }

    /// Sets whether a small init runs as pid 1 above the program, reaps orphans and passes signals
    /// on; needs [`pid_ns`](Sandbox::pid_ns).
    ///
    /// The program is then pid 2, and an ordinary process. Without an init, the program is pid 1,
    /// and ignores every signal from inside for which it has set no action, that of its own
    /// abort(3) included.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let output = sandbox.pid_ns().init(true).args(["-c", "echo $$"]).output()?;
    /// assert_eq!(output.stdout, b"2\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn init(mut self, wanted: bool) -> Self {
        self.policy.program.init = wanted;
        self
    }

    /// Sets whether the program is killed when the caller's process ends without dropping the
    /// handle, for instance by SIGKILL. The program is killed by default. For a program that shall
    /// outlive its owner, give up the handle by [`Child::detach`](crate::Child::detach).
    ///
    /// The kernel kills the program by its parent-death signal, prctl(2), which the program could
    /// clear. A program that tries to survive needs an [`init`](Sandbox::init), whose own end also
    /// ends the pid namespace.
    pub fn die_with_owner(mut self, dies: bool) -> Self {
        self.policy.program.outlive_owner = !dies;
        self
    }

    /// Sets the most time that the setup may take before the spawn fails; 30 seconds by default.
    ///
    /// The calling thread itself looks up the paths of the host that the policy names. A file
    /// system that does not answer, such as one of FUSE or NFS whose server is gone, can block the
    /// thread for longer.
    pub fn setup_timeout(mut self, timeout: Duration) -> Self {
        self.policy.setup_timeout = Some(timeout);
        self
    }

    /// Sets whether a spawn measures its phases: [`Child::timings`](crate::Child::timings). It does
    /// not by default. The spawns of a [`Pool`](crate::Pool) have nothing to set up, and never have
    /// timings.
    pub fn timings(mut self, wanted: bool) -> Self {
        self.policy.timings = wanted;
        self
    }
}
