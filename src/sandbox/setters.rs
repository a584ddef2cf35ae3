//! The calls that add to the policy.

use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Sandbox;
#[cfg(feature = "systemd")]
use crate::cgroup::SystemdScope;
use crate::feature::Feature;
use crate::mount::{Bind, Mount, RootFs, Tmpfs};
use crate::namespace::{IdMap, JoinSource, Namespaces, TimeOffset, UserLimit};
use crate::program::{Resource, Session};
use crate::security::{Capabilities, Landlock, Seccomp};
use crate::units::Bytes;

/// # Namespaces
impl Sandbox {
    /// Adds namespaces of the sandbox's own; a pid namespace brings what [`pid_ns`](Sandbox::pid_ns) says.
    pub fn namespaces(mut self, kinds: Namespaces) -> Self {
        self.policy.namespaces.new |= kinds;
        if kinds.contains(Namespaces::PID) {
            self.policy.namespaces.new |= Namespaces::MOUNT;
        }
        self
    }

    /// Takes namespaces away again: what they would set apart is shared with the caller. For
    /// [`strict`](Sandbox::strict), which begins with all of them; without a user namespace its
    /// [`max_user_namespaces`](Sandbox::max_user_namespaces) goes as well, and every
    /// [`user_limit`](Sandbox::user_limit).
    pub fn share(mut self, kinds: Namespaces) -> Self {
        self.policy.namespaces.new -= kinds;
        if kinds.contains(Namespaces::USER) {
            self.policy.namespaces.user_limits.clear();
        }
        self
    }

    /// A user namespace: the program has capabilities that mean nothing outside, and the ids that
    /// [`uid_map`](Sandbox::uid_map) gives it. user_namespaces(7).
    ///
    /// Without [`uid_map`](Sandbox::uid_map) the user and the group that the program runs as ([`user`](Sandbox::user), else
    /// root) are the only ones. To files, signals and /proc/sys, an ordinary user's program is that user. Root's, or that of
    /// who has `CAP_SETUID` and `CAP_SETGID`, is nobody: an id that no account has, and no other living sandbox. So it owns no
    /// file of the host, and a root file system of root's can be read, but not changed: give that to the id below, or map a
    /// range that owns it.
    ///
    /// | who | which id, the same for user and group |
    /// | --- | --- |
    /// | the processes of a sandbox | one of 0x7800_0000 to 0x7ffd_ffff, until all of it has ended; where the caller itself lives in a user namespace without these, of 60,736 to 61,183 |
    /// | files that it makes on the host, and those that are handed to it | 1,879,048,192 (0x7000_0000), in each run, so that one finds what another has left |
    /// | the processes as well | that same id, where files on disk could not be theirs otherwise: see below |
    ///
    /// A [`bind`](Sandbox::bind) or [`RootFs::dir`](crate::RootFs::dir) that can be written to, or that belongs to
    /// 1,879,048,192, shows the files of that id as the sandbox's (mount_setattr(2), `MOUNT_ATTR_IDMAP`, since 5.12; ext4, xfs,
    /// btrfs 5.15, tmpfs 6.3). Sandboxes share the id where that cannot be: on a file system that maps no ids, below an
    /// [`upper`](crate::RootFs::upper) that stays, on layers that belong to the id, a [`scratch`](crate::RootFs::scratch) beside such a bind, with a
    /// [`RawMount`](crate::RawMount), without a root of the sandbox's own, with `CAP_SYS_ADMIN`, or where the caller itself lives
    /// in a user namespace. Then they can signal each other, where one sees the other, and what the kernel counts by user (pages
    /// of pipes, descriptors in flight, watches of epoll) one can take from the other. Where that matters, give each an id with
    /// [`uid_map`](Sandbox::uid_map) and [`gid_map`](Sandbox::gid_map), and its files to that id. Where the caller has no id
    /// 1,879,048,192, it is its nobody, or its last id.
    ///
    /// What is bound may lie in directories that are closed to that id, unless the program is given `CAP_SYS_ADMIN`: then the kernel
    /// has to find it from inside, or would not lock the flags that it has outside.
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

    /// A pid namespace: the program sees and signals only what runs in the sandbox, and all of that ends when the
    /// sandbox does. pid_namespaces(7).
    ///
    /// Brings a mount namespace with a /proc of its own, and a session of its own: a program in the caller's process
    /// group could signal the caller in spite of the namespace. The program is pid 1 and lacks the default actions of
    /// signals from inside; see [`init`](Sandbox::init).
    pub fn pid_ns(self) -> Self {
        self.namespaces(Namespaces::PID)
    }

    /// A mount namespace: mounts made inside are not seen outside, nor the other way round. mount_namespaces(7).
    pub fn mount_ns(self) -> Self {
        self.namespaces(Namespaces::MOUNT)
    }

    /// A network namespace with nothing but a loopback interface, which is up. network_namespaces(7).
    pub fn net_ns(self) -> Self {
        self.namespaces(Namespaces::NET)
    }

    /// An IPC namespace: System V objects and POSIX message queues of the sandbox's own. ipc_namespaces(7).
    pub fn ipc_ns(self) -> Self {
        self.namespaces(Namespaces::IPC)
    }

    /// A UTS namespace: a host name of the sandbox's own. uts_namespaces(7).
    pub fn uts_ns(self) -> Self {
        self.namespaces(Namespaces::UTS)
    }

    /// A cgroup namespace: the sandbox's control group shows as the root. cgroup_namespaces(7), since 4.6.
    pub fn cgroup_ns(self) -> Self {
        self.namespaces(Namespaces::CGROUP)
    }

    /// A time namespace, whose clocks can be [set apart](Sandbox::monotonic_offset). time_namespaces(7), since 5.6.
    pub fn time_ns(self) -> Self {
        self.namespaces(Namespaces::TIME)
    }

    /// Enters the existing namespace of kind `kind` behind `fd`, an open `/proc/PID/ns/…` file. setns(2).
    ///
    /// In a user namespace the program becomes, outside as well, whom the caller is called there, unless [`user`](Sandbox::user)
    /// says otherwise. One that does not know the caller calls it nobody (65534); where that is not mapped, it is an error.
    pub fn join_fd(mut self, kind: Namespaces, fd: impl Into<OwnedFd>) -> Self {
        self.policy.namespaces.join.push((kind, JoinSource::Fd(Arc::new(fd.into()))));
        self
    }

    /// Enters the namespaces `kinds` of the process `pid`. They are looked up when the sandbox is spawned, all of one process:
    /// if it ends meanwhile, and its number could have become another's, that is an error. For a user namespace
    /// see [`join_fd`](Sandbox::join_fd): who is root and leaves it out is root among the files and processes of what it joins.
    pub fn join_pid(mut self, kinds: Namespaces, pid: u32) -> Self {
        let source = JoinSource::Pid(i32::try_from(pid).unwrap_or(-1));
        self.policy.namespaces.join.extend(kinds.iter().map(|kind| (kind, source.clone())));
        self
    }

    /// The host name inside, at most 64 bytes; needs [`uts_ns`](Sandbox::uts_ns). sethostname(2).
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.policy.namespaces.hostname = Some(name.into());
        self
    }

    /// The NIS domain name inside, at most 64 bytes; needs [`uts_ns`](Sandbox::uts_ns). setdomainname(2).
    pub fn domainname(mut self, name: impl Into<String>) -> Self {
        self.policy.namespaces.domainname = Some(name.into());
        self
    }

    /// How far `CLOCK_MONOTONIC` inside is from the host's; needs [`time_ns`](Sandbox::time_ns).
    pub fn monotonic_offset(mut self, offset: TimeOffset) -> Self {
        self.policy.namespaces.monotonic = Some(offset);
        self
    }

    /// How far `CLOCK_BOOTTIME` inside, which uptime(1) shows, is from the host's; needs [`time_ns`](Sandbox::time_ns).
    pub fn boottime_offset(mut self, offset: TimeOffset) -> Self {
        self.policy.namespaces.boottime = Some(offset);
        self
    }

    /// How many user namespaces can be made inside, by anyone, at most; 0 shuts the door to all that a program can reach as
    /// the root of one. Needs [`user_ns`](Sandbox::user_ns), whose own `/proc/sys/user/max_user_namespaces` it sets; since 4.9.
    pub fn max_user_namespaces(self, count: u32) -> Self {
        self.user_limit(UserLimit::UserNamespaces, count)
    }

    /// How much of a table of the kernel's each user of the sandbox may take. Needs [`user_ns`](Sandbox::user_ns), whose own
    /// file in `/proc/sys/user` it sets. The limit of the user who makes the sandbox holds as well, for all that its
    /// sandboxes take together.
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
    /// The caller's own id by itself needs nothing. Other lines are written by the caller where it has `CAP_SETUID` and
    /// `CAP_SETGID`, else by newuidmap(1) and newgidmap(1), which have to be installed and map what subuid(5) and subgid(5)
    /// grant to the caller.
    pub fn uid_map(mut self, map: IdMap) -> Self {
        self.policy.namespaces.uid_map.push(map);
        self
    }

    /// Adds a line to the map of group ids; needs [`user_ns`](Sandbox::user_ns). As [`uid_map`](Sandbox::uid_map).
    pub fn gid_map(mut self, map: IdMap) -> Self {
        self.policy.namespaces.gid_map.push(map);
        self
    }

    /// Maps root to the caller, and the ids from 1 on to the ranges that /etc/subuid and /etc/subgid grant to it, one after
    /// the other; needs [`user_ns`](Sandbox::user_ns). So an ordinary user's sandbox has users and groups to change to, and
    /// layers whose files belong to several show as they are.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = ringfence::Sandbox::new().user_ns().map_subids().user(1000, 1000).groups([100]);
    /// sandbox.command("id").status()?;
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
    /// The root file system; brings a mount namespace. A path is a directory of the host's; [`RootFs`] has overlays and
    /// the host's own root.
    ///
    /// A minimal /dev is mounted on it, and with [`pid_ns`](Sandbox::pid_ns) a /proc, unless a mount of the list stands
    /// there or [`default_mounts`](Sandbox::default_mounts) are switched off.
    pub fn rootfs(mut self, root: impl Into<RootFs>) -> Self {
        self.policy.mounts.root = Some(root.into());
        self.mount_ns()
    }

    /// Makes the root read-only, also one that by itself is not, and the /dev that comes with it; brings a mount namespace.
    /// Mounts of the list keep their own flags.
    pub fn read_only_root(mut self, wanted: bool) -> Self {
        self.policy.mounts.read_only_root = wanted;
        if wanted { self.mount_ns() } else { self }
    }

    /// Adds a mount to the list; brings a mount namespace.
    ///
    /// # Below what the program can write to
    ///
    /// A program that may write to a directory above a mount could rename that, and put another in the mount's place. So the
    /// way is made fast: from the writable mount on, each directory that leads to the target is bound onto itself, for what is
    /// a mountpoint can be neither renamed nor removed (EBUSY). To the program each of them is a mount of its own: rename(2)
    /// and link(2) from one to another fail with EXDEV, upon which mv(1) copies. On a root whose changes vanish with the
    /// sandbox ([`RootFs::overlay`] without an upper directory of the caller's) nothing is made fast. Since Linux 5.8; before,
    /// it is an error (ENOSYS).
    ///
    /// A symbolic link has no such protection. What is read-only, or a cover, does not accept one where the program could
    /// exchange it (ELOOP): name the path that the link leads to.
    ///
    /// The source of a bind is looked up on the host, by the caller, and follows links. For a part of what is bound writable,
    /// which an earlier program may have changed, [`read_only_path`](Sandbox::read_only_path) is the better choice.
    pub fn mount(mut self, mount: impl Into<Mount>) -> Self {
        self.policy.mounts.mounts.push(mount.into());
        self.mount_ns()
    }

    /// Shows a directory or file of the host inside, writable: [`Bind::new`].
    pub fn bind(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target))
    }

    /// Shows a directory or file of the host inside, read-only with all that is mounted below it.
    pub fn bind_ro(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target).read_only())
    }

    /// Mounts an empty file system in memory that holds at most `size`: [`Tmpfs::new`] with mode 01777.
    pub fn tmpfs(self, target: impl Into<PathBuf>, size: impl Into<Bytes>) -> Self {
        self.mount(Tmpfs::new(target).size(size).mode(0o1777))
    }

    /// Covers a file or directory up, after all mounts: a file reads as empty, and what is written to it vanishes; a
    /// directory is empty and read-only. A path that does not exist has nothing to hide, and is passed over: if the program
    /// can make it, it is the program's. The way to the path is made fast as [`mount`](Sandbox::mount) says. Brings a mount
    /// namespace.
    ///
    /// The place is found inside the sandbox's root once, and covered by its descriptor, with a null device (character device
    /// 1:3) that is made for it, or the host's, which is verified to be that.
    ///
    /// A program that may unmount (`CAP_SYS_ADMIN` in the sandbox) can take the cover off again.
    pub fn mask(mut self, path: impl Into<PathBuf>) -> Self {
        self.policy.mounts.masks.push(path.into());
        self.mount_ns()
    }

    /// Makes a file or directory read-only, with all that is mounted below it, after all mounts. The way to the path is made
    /// fast as [`mount`](Sandbox::mount) says. Brings a mount namespace.
    ///
    /// ```no_run
    /// use ringfence::{RootFs, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// // The program works on the repository, and leaves no hook behind that others would run.
    /// let sandbox = Sandbox::new().user_ns().rootfs(RootFs::programs()).bind("/srv/repository", "/work").cwd("/work");
    /// sandbox.read_only_path("/work/.git/hooks").read_only_path("/work/.git/config").command("make").status()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A path that does not exist is passed over where nobody can make it: on what is read-only, and on a root whose changes
    /// vanish with the sandbox. Where the program could make it, it is an error of the spawn (ENOENT): make it beforehand.
    pub fn read_only_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.policy.mounts.read_only_paths.push(path.into());
        self.mount_ns()
    }

    /// [Masks](Sandbox::mask) the files in which the kernel tells about the machine as a whole, and makes those read-only
    /// by which it lets itself be told. Brings a mount namespace.
    ///
    /// | | below /proc | below /sys |
    /// | --- | --- | --- |
    /// | masked | acpi, asound, interrupts, kcore, keys, latency_stats, sched_debug, scsi, timer_list, timer_stats | firmware, devices/virtual/powercap, each processor's thermal_throttle |
    /// | read-only | bus, fs, irq, sys, sysrq-trigger | |
    pub fn default_masks(mut self, wanted: bool) -> Self {
        self.policy.mounts.default_masks = wanted;
        if wanted { self.mount_ns() } else { self }
    }

    /// Whether /proc, /dev and, on the host's root, /tmp are mounted without being asked for. They are, until this says
    /// otherwise.
    pub fn default_mounts(mut self, wanted: bool) -> Self {
        self.policy.mounts.no_defaults = !wanted;
        self
    }
}

/// # What the program may ask of the kernel
impl Sandbox {
    /// Restricts paths, TCP ports, signals and abstract sockets by [`Landlock`], on top of namespaces or without any.
    /// Brings `no_new_privs`. The last call counts.
    pub fn landlock(mut self, rules: Landlock) -> Self {
        self.policy.landlock = Some(rules);
        self
    }
}

/// # Limits of processes, of time, and how strictly
impl Sandbox {
    /// A limit of each process in the sandbox: setrlimit(2). `u64::MAX` is no limit; the last call for a resource counts.
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        self.policy.program.rlimits.retain(|(other, ..)| *other != resource);
        self.policy.program.rlimits.push((resource, soft, hard));
        self
    }

    /// The longest that the program may run. Then everything in the sandbox is killed:
    /// [`Verdict::WallTime`](crate::Verdict::WallTime). One thread of the library's watches over all sandboxes.
    pub fn wall_time(mut self, limit: Duration) -> Self {
        self.policy.wall_time = Some(limit);
        self
    }

    /// The most processor time that everything in the sandbox may use together; then it is killed:
    /// [`Verdict::CpuTime`](crate::Verdict::CpuTime). Read off the control group, in steps that shorten as the limit
    /// comes near, to within about a millisecond a core.
    pub fn cpu_time(mut self, limit: Duration) -> Self {
        self.policy.cpu_time = Some(limit);
        self
    }

    /// The most bytes that the program may write to stdout and stderr together; then everything in the sandbox is killed:
    /// [`Verdict::OutputLimit`](crate::Verdict::OutputLimit). That is the verdict of all output that was cut off, also where
    /// the program had ended by then. [`output_cut`](Sandbox::output_cut) throws the rest away instead.
    ///
    /// Pipes count as they are read, by [`Child::wait_with_output`](crate::Child::wait_with_output) or by the caller. A stream that
    /// is a file is limited in its size (`RLIMIT_FSIZE`), as is every file that the program then writes. Other descriptors, which
    /// somebody else reads, cannot be counted: they are refused, unless
    /// [`best_effort`](Sandbox::best_effort)`(`[`Feature::OutputLimit`](crate::Feature::OutputLimit)`)` goes without. The caller's own
    /// stdout and stderr, passed on, are not counted.
    pub fn output_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.output_limit = Some(limit.into().get());
        self
    }

    /// Whether output beyond [`output_limit`](Sandbox::output_limit) is thrown away while the program goes on, instead of ending it.
    /// [`Output::truncated`](crate::Output::truncated) tells. A file as a stream cannot be cut: writing to it fails (EFBIG), or
    /// ends the program.
    pub fn output_cut(mut self, cut: bool) -> Self {
        self.policy.output_cut = cut;
        self
    }

    /// The control group below which the sandbox's is made, as a path from the root of each hierarchy
    /// (`/sandboxes`). It is made if missing, and removed with the last sandbox in it. Without this call the caller's own
    /// group.
    ///
    /// cgroup v2 wants processes in the leaves only, so there a group that processes live in, such as the caller's own,
    /// cannot be the parent of groups with limits: that is [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported),
    /// and neither is the caller moved nor the sandbox put where the caller's own limits do not hold. Root names a
    /// group here, as above; an ordinary user needs a delegated group, stands in a leaf of it, and names it here:
    ///
    /// ```console
    /// $ systemd-run --user --scope -p Delegate=yes sh -c 'g=/$(cut -d/ -f2- /proc/self/cgroup)
    ///     mkdir /sys/fs/cgroup$g/own; echo $$ >/sys/fs/cgroup$g/own/cgroup.procs; exec program --cgroup-parent $g'
    /// ```
    pub fn cgroup_parent(mut self, path: impl AsRef<Path>) -> Self {
        self.policy.cgroup_parent = Some(path.as_ref().to_owned());
        self
    }

    /// Makes the sandbox's control group below a transient scope of systemd's, for hosts where systemd owns the tree and
    /// wants to be asked: as root by the system's manager, over the system's bus; for an ordinary user by the user's own
    /// manager, over the user's bus (`$XDG_RUNTIME_DIR/bus`). So an ordinary user has limits without a delegation of
    /// its own; `cpu_limit`, `cpuset` and `io_limit` need a manager that was given their controllers.
    ///
    /// The scope is made with the first sandbox of this process, is shared by all that name an equal one, and stands
    /// until the process and its last sandbox have ended. A parked process of the library's holds it meanwhile, which is
    /// no child of the caller's and ends with it. Making it takes [`setup_timeout`](Sandbox::setup_timeout) at most. A caller
    /// that stands outside of its manager's subtree, as one in a login session does, has systemd move each program in: one
    /// more call a spawn.
    ///
    /// Needs the crate's feature `systemd`, systemd 238, cgroup v2 and a bus; where one is missing,
    /// [`check`](Sandbox::check) and the spawn say so with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// ```no_run
    /// use ringfence::{Bytes, Sandbox, SystemdScope};
    ///
    /// let batch = SystemdScope::new().slice("batch.slice");
    /// let status = Sandbox::new().user_ns().memory_limit(Bytes::mib(64)).systemd_scope(batch).status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    #[cfg(feature = "systemd")]
    pub fn systemd_scope(mut self, scope: SystemdScope) -> Self {
        self.policy.systemd_scope = Some(scope);
        self
    }

    /// Goes without `feature` where this host cannot enforce it, instead of failing. [`Child::enforced`](crate::Child::enforced)
    /// tells what is missing.
    pub fn best_effort(mut self, feature: Feature) -> Self {
        self.policy.best_effort.insert(feature);
        self
    }
}

/// # Privileges
impl Sandbox {
    /// The capabilities of the program, and of all that runs in the sandbox. Without this call the program has what an exec
    /// leaves of the caller's; the inheritable and the ambient set are empty in any case, unless this fills them.
    ///
    /// With [`user_ns`](Sandbox::user_ns), a program that runs as uid 0 inside has, without this call, every capability over
    /// its namespaces but two: where anything is mounted, masked or read-only not `CAP_SYS_ADMIN`, which could undo that, and
    /// below an [`init`](Sandbox::init) not `CAP_SYS_PTRACE`, which could write to its memory. [`Capabilities::all_but`]`([])`
    /// gives them to a program that is trusted with all that is bound. `CAP_SYS_PTRACE` below an init, which stands outside of
    /// the filter of [`seccomp`](Sandbox::seccomp), is refused together with one, unless [`landlock`](Sandbox::landlock) keeps
    /// the program off the init.
    ///
    /// Cutting down the bounding set needs `CAP_SETPCAP`, which a user namespace gives; where it cannot be done that is an
    /// error, or with [`best_effort`](Sandbox::best_effort)`(Feature::BoundingSet)` left out.
    pub fn capabilities(mut self, sets: Capabilities) -> Self {
        self.policy.security.capabilities = Some(sets);
        self
    }

    /// Nothing that is executed inside gains privileges: set-user-ID and set-group-ID bits and file capabilities are
    /// without effect (`PR_SET_NO_NEW_PRIVS`, prctl(2), since 3.5). A process of the caller's that has it already cannot
    /// give it up.
    pub fn no_new_privs(mut self, wanted: bool) -> Self {
        self.policy.security.no_new_privs = wanted;
        self
    }

    /// A session keyring of the sandbox's own, with nothing in it, instead of the caller's with all its keys:
    /// session-keyring(7). A kernel without keys has none to share.
    ///
    /// A keyring counts against the quota of the caller's user: as an ordinary user 200
    /// (`/proc/sys/kernel/keys/maxkeys`); beyond it the spawn fails with EDQUOT.
    pub fn session_keyring(mut self, wanted: bool) -> Self {
        self.policy.security.session_keyring = wanted;
        self
    }

    /// Which system calls the program may make; brings `no_new_privs`. A later call replaces an earlier one, and `None`
    /// takes the filter away again. seccomp(2), since 4.14.
    ///
    /// [`Seccomp::default()`](Seccomp::default) is the list for programs that nobody vouches for. An
    /// [`init`](Sandbox::init) stands outside of the filter, as does everything that sets the sandbox up.
    pub fn seccomp(mut self, profile: impl Into<Option<Seccomp>>) -> Self {
        self.policy.seccomp = profile.into();
        self
    }
}

/// # The process
impl Sandbox {
    /// The user and group that the program runs as, inside; supplementary groups are dropped unless
    /// [`groups`](Sandbox::groups) sets some.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.policy.program.user = Some((uid, gid));
        self
    }

    /// The supplementary groups of the program. setgroups(2).
    pub fn groups(mut self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.policy.program.groups = Some(gids.into_iter().collect());
        self
    }

    /// The signal with which [`Child::stop`](crate::Child::stop) asks the program to end; SIGTERM without this call.
    pub fn stop_signal(mut self, signal: i32) -> Self {
        self.policy.program.stop_signal = Some(signal);
        self
    }

    /// The permission bits that new files do not get; the caller's if this is not called. umask(2).
    pub fn umask(mut self, mask: u32) -> Self {
        self.policy.program.umask = Some(mask & 0o777);
        self
    }

    /// The session and process group: see [`Session`].
    pub fn session(mut self, session: Session) -> Self {
        self.policy.program.session = Some(session);
        self
    }

    /// Passes `fd` on as descriptor `number`, at least 3. Nothing else above stderr is open in the program.
    pub fn fd(mut self, number: RawFd, fd: impl Into<OwnedFd>) -> Self {
        self.policy.stdio.extra.push((number, Arc::new(fd.into())));
        self
    }

    /// Puts a tiny pid 1 above the program, which reaps orphans and passes signals on; needs [`pid_ns`](Sandbox::pid_ns).
    ///
    /// The program is then pid 2, and an ordinary process: a bare pid 1 ignores every signal from inside whose action it
    /// has not set, its own abort(3) included.
    pub fn init(mut self, wanted: bool) -> Self {
        self.policy.program.init = wanted;
        self
    }

    /// Whether the program is killed when the caller's process ends without dropping the handle, by SIGKILL for
    /// instance. It is, until this says otherwise; a program that is to outlive its owner is left with
    /// [`Child::detach`](crate::Child::detach).
    ///
    /// It is killed by its parent-death signal, prctl(2), which the program could clear: one that is out to survive is
    /// held by [`init`](Sandbox::init), whose own end takes the pid namespace with it.
    pub fn die_with_owner(mut self, dies: bool) -> Self {
        self.policy.program.outlive_owner = !dies;
        self
    }

    /// How long the setup may take before it is given up; 30 seconds if this is not called.
    ///
    /// The calling thread itself looks at the paths of the host that the policy names: a file system that does not answer, such
    /// as one of FUSE or NFS whose server is gone, can hold it up for longer.
    pub fn setup_timeout(mut self, timeout: Duration) -> Self {
        self.policy.setup_timeout = Some(timeout);
        self
    }

    /// Whether a spawn tells where its time went: [`Child::timings`](crate::Child::timings). It does not, without this call.
    /// A [`Pool`](crate::Pool), whose spawns have nothing to set up, tells nothing either way.
    pub fn timings(mut self, wanted: bool) -> Self {
        self.policy.timings = wanted;
        self
    }
}
