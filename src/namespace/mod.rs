//! Which namespaces a program gets, new or joined, and what stands in them: host name, time offsets, id maps.
//!
//! Stage: inside, before any mount. pid, mount, ipc, uts, net and user are made by the clone. The cgroup namespace is
//! made after the control groups are entered, or the caller's own paths would show in it; the time namespace by
//! unshare, because an exec right after the clone would freeze its offsets.

mod emit;
mod idmap;
mod lease;
mod newidmap;
mod user_limit;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub use idmap::{IdMap, IdMapError};
pub(crate) use idmap::{IdMaps, LINES_MAX, Outside, Writer, exchanging, is_own, unprivileged_id};
pub(crate) use lease::{Lease, lease, lease_for_mounts};
pub(crate) use newidmap::Programs;
pub use user_limit::UserLimit;

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
        /// Network devices, ports, routes, abstract unix sockets: network_namespaces(7), since 2.6.24.
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

    /// The name below `/proc/PID/ns`, for a single namespace.
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
}

/// A clock's distance from the host's, in a time namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeOffset {
    /// The clock is ahead of the host's.
    Ahead(Duration),
    /// The clock is behind the host's. It cannot fall below zero: at most the host's uptime.
    Behind(Duration),
}

impl TimeOffset {
    /// As `/proc/PID/timens_offsets` takes it: seconds that may be negative, and nanoseconds that are not.
    fn text(self) -> String {
        match self {
            TimeOffset::Ahead(by) => format!("{} {}", by.as_secs(), by.subsec_nanos()),
            TimeOffset::Behind(by) if by.subsec_nanos() == 0 => format!("-{} 0", by.as_secs()),
            TimeOffset::Behind(by) => {
                format!("-{} {}", by.as_secs().saturating_add(1), 1_000_000_000 - by.subsec_nanos())
            }
        }
    }
}

/// Where an existing namespace is found.
#[derive(Debug, Clone)]
pub(crate) enum JoinSource {
    Fd(Arc<OwnedFd>),
    Pid(i32),
}

/// The policy: what the builder has been told about namespaces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) new: Namespaces,
    pub(crate) join: Vec<(Namespaces, JoinSource)>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) monotonic: Option<TimeOffset>,
    pub(crate) boottime: Option<TimeOffset>,
    pub(crate) uid_map: Vec<IdMap>,
    pub(crate) gid_map: Vec<IdMap>,
    /// The maps are those that /etc/subuid and /etc/subgid give.
    pub(crate) subids: bool,
    pub(crate) user_limits: BTreeMap<UserLimit, u32>,
}

impl Policy {
    /// Every namespace that is not the caller's: new or joined.
    pub(crate) fn apart(&self) -> Namespaces {
        self.join.iter().fold(self.new, |all, (kind, _)| all | *kind)
    }

    pub(crate) fn joins(&self, kind: Namespaces) -> bool {
        self.join.iter().any(|(joined, _)| *joined == kind)
    }

    /// The flags of the clone. After a user namespace is joined, all others belong to it, and are made by unshare; so is
    /// a mount namespace made from a template.
    pub(crate) fn at_clone(&self, template: bool) -> Namespaces {
        let late = if template { Namespaces::MOUNT } else { Namespaces::empty() };
        if self.joins(Namespaces::USER) { Namespaces::empty() } else { (self.new & Namespaces::AT_CLONE) - late }
    }

    /// Whether the program is born by a second clone, because its pid namespace exists only after the first.
    pub(crate) fn reclones(&self) -> bool {
        self.joins(Namespaces::PID) || self.new.contains(Namespaces::PID) && self.joins(Namespaces::USER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_offsets_have_positive_nanoseconds() {
        assert_eq!(TimeOffset::Ahead(Duration::new(3, 5)).text(), "3 5");
        assert_eq!(TimeOffset::Behind(Duration::new(3, 0)).text(), "-3 0");
        assert_eq!(TimeOffset::Behind(Duration::new(3, 250_000_000)).text(), "-4 750000000");
    }
}
