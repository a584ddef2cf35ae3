//! The kinds of namespaces: namespaces(7).

bitflags::bitflags! {
    /// Kinds of namespaces, see namespaces(7). The values are those of the `CLONE_NEW*` flags.
    ///
    /// ```
    /// use ringfence::Namespaces;
    ///
    /// let apart = Namespaces::all() - Namespaces::NET;
    /// assert!(apart.contains(Namespaces::PID | Namespaces::TIME));
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Namespaces: u64 {
        /// User and group ids, and capabilities: user_namespaces(7), since 3.8.
        const USER = libc::CLONE_NEWUSER as u64;
        /// Process ids: pid_namespaces(7), since 2.6.24.
        const PID = libc::CLONE_NEWPID as u64;
        /// Mounts: mount_namespaces(7), since 2.4.19.
        const MOUNT = libc::CLONE_NEWNS as u64;
        /// Network devices, ports, routes, abstract unix sockets: network_namespaces(7), since
        /// 2.6.24.
        const NET = libc::CLONE_NEWNET as u64;
        /// System V IPC objects and POSIX message queues: ipc_namespaces(7), since 2.6.19.
        const IPC = libc::CLONE_NEWIPC as u64;
        /// Host and domain name: uts_namespaces(7), since 2.6.19.
        const UTS = libc::CLONE_NEWUTS as u64;
        /// The view of the control group tree: cgroup_namespaces(7), since 4.6.
        const CGROUP = libc::CLONE_NEWCGROUP as u64;
        /// The monotonic and the boot-time clock: time_namespaces(7), since 5.6.
        const TIME = libc::CLONE_NEWTIME as u64;
    }
}

impl Namespaces {
    /// The namespaces that the clone itself makes.
    pub(crate) const AT_CLONE: Namespaces = Namespaces::USER
        .union(Namespaces::PID)
        .union(Namespaces::MOUNT)
        .union(Namespaces::NET)
        .union(Namespaces::IPC)
        .union(Namespaces::UTS);

    /// Returns the name below `/proc/PID/ns`, for a single namespace.
    pub(crate) fn file(self) -> Option<&'static str> {
        Some(match self {
            Namespaces::USER => "user",
            Namespaces::PID => "pid",
            Namespaces::MOUNT => "mnt",
            Namespaces::NET => "net",
            Namespaces::IPC => "ipc",
            Namespaces::UTS => "uts",
            Namespaces::CGROUP => "cgroup",
            Namespaces::TIME => "time",
            _ => return None,
        })
    }

    /// Returns the name for a message.
    pub(crate) fn name(self) -> &'static str {
        self.file().unwrap_or("?")
    }
}
