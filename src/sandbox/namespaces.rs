//! The setters for namespaces, and for what belongs to them.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::{HeldNamespaces, Sandbox};
use crate::namespace::{IdMap, JoinSource, Namespaces, TimeOffset, UserLimit};

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
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// // There is the line with the names of the columns, and no segment of shared memory.
    /// let output = sandbox.ipc_ns().args(["-c", "wc -l < /proc/sysvipc/shm"]).output()?;
    /// assert_eq!(output.stdout.trim_ascii(), b"1");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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
    /// got the number since. The kernel joins all namespaces in one call (5.8), or none; on an
    /// older kernel they are joined one by one, by files of the same process. Once the process has
    /// ended, the spawn fails. A caller that is privileged outside, and joins the user namespace
    /// too, may join namespaces that belong to the host. For a user namespace see
    /// [`join_fd`](Sandbox::join_fd).
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

    /// Has the sandbox end in the mount namespace of a file, the caller's own as well, with the root
    /// that it has made in a new one.
    #[cfg(feature = "oci")]
    pub(crate) fn ends_in_mount_ns(mut self, path: impl AsRef<Path>) -> Self {
        self.policy.namespaces.ends_in = Some(JoinSource::Path(path.as_ref().to_owned()));
        self.mount_ns()
    }

    /// Enters namespaces that are [held](Sandbox::hold_namespaces) without a process: all that
    /// `held` has. Several sandboxes share them so, as those of a pod do. For a user namespace see
    /// [`join_fd`](Sandbox::join_fd).
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// // A pod: several sandboxes with one network, which no process keeps.
    /// let held = Sandbox::new().net_ns().ipc_ns().hold_namespaces()?;
    /// let server = Sandbox::new().join_held(&held).command("server").spawn()?;
    /// let client = Sandbox::new().join_held(&held).command("client").status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn join_held(mut self, held: &HeldNamespaces) -> Self {
        self.policy.namespaces.join.extend(held.sources());
        self
    }

    /// Sets the host name inside, at most 64 bytes; needs [`uts_ns`](Sandbox::uts_ns), or a UTS
    /// namespace that is joined and not the caller's own. sethostname(2).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let output = sandbox.uts_ns().hostname("box").command("uname").arg("-n").output()?;
    /// assert_eq!(output.stdout, b"box\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.policy.namespaces.hostname = Some(name.into());
        self
    }

    /// Sets the NIS domain name inside, at most 64 bytes; needs [`uts_ns`](Sandbox::uts_ns), or a
    /// UTS namespace that is joined and not the caller's own. setdomainname(2).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let sandbox = sandbox.uts_ns().domainname("lab").args(["-c", "cat /proc/sys/kernel/domainname"]);
    /// assert_eq!(sandbox.output()?.stdout, b"lab\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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
    /// With more than 0, a filter that is [`Seccomp::default`](crate::Seccomp::default) allows
    /// clone(2), unshare(2) and setns(2) with flags for namespaces; any other filter is left as it
    /// is.
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
    ///
    /// ```no_run
    /// use ringfence::{IdMap, Sandbox};
    ///
    /// // Root inside is 100000 outside, and so on.
    /// let map = IdMap::new(0, 100_000, 65_536);
    /// let sandbox = Sandbox::new().user_ns().uid_map(map).gid_map(map);
    /// sandbox.command("id").status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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
