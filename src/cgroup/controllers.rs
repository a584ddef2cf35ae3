//! The controllers of control groups, and the two kernel interfaces to them.

use bitflags::bitflags;

bitflags! {
    /// The controllers that this crate uses.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Controllers: u16 {
        const MEMORY = 1;
        const PIDS = 1 << 1;
        const CPU = 1 << 2;
        const CPUSET = 1 << 3;
        /// Named `blkio` on v1.
        const IO = 1 << 4;
        /// Exists only on v1. Every v2 group counts its CPU time without a controller.
        const CPUACCT = 1 << 5;
        /// Exists only on v1. Every v2 group can be frozen since 5.2.
        const FREEZER = 1 << 6;
        /// Exists only on v1. A v2 group takes a BPF program since 4.15.
        const DEVICES = 1 << 7;
        const HUGETLB = 1 << 8;
        /// The limits of v2 groups that need no controller. Every v2 group has them since 4.14.
        const CORE = 1 << 9;
        /// Exists only on v1.
        const NET_CLS = 1 << 10;
        /// Exists only on v1.
        const NET_PRIO = 1 << 11;
        /// On v2 every group can be measured without a controller.
        const PERF_EVENT = 1 << 12;
        const RDMA = 1 << 13;
        const MISC = 1 << 14;
        /// The v1 hierarchy without a controller in which systemd keeps processes apart.
        const SYSTEMD = 1 << 15;
    }
}

impl Controllers {
    /// The abilities of every v2 group, whatever is enabled above the group.
    pub(super) const INHERENT: Controllers = Controllers::CPUACCT.union(Controllers::FREEZER).union(Controllers::CORE);

    const NAMES: [(&'static str, Controllers); 16] = [
        ("memory", Controllers::MEMORY),
        ("pids", Controllers::PIDS),
        ("cpu", Controllers::CPU),
        ("cpuset", Controllers::CPUSET),
        ("io", Controllers::IO),
        ("blkio", Controllers::IO),
        ("cpuacct", Controllers::CPUACCT),
        ("freezer", Controllers::FREEZER),
        ("devices", Controllers::DEVICES),
        ("hugetlb", Controllers::HUGETLB),
        ("net_cls", Controllers::NET_CLS),
        ("net_prio", Controllers::NET_PRIO),
        ("perf_event", Controllers::PERF_EVENT),
        ("rdma", Controllers::RDMA),
        ("misc", Controllers::MISC),
        ("name=systemd", Controllers::SYSTEMD),
    ];

    /// Returns the controller of this name, or nothing for a controller that this crate does not
    /// use.
    pub(super) fn named(name: &str) -> Controllers {
        Controllers::NAMES.iter().find(|(n, _)| *n == name).map_or(Controllers::empty(), |(_, c)| *c)
    }

    /// Returns the v2 name of a single controller.
    pub(super) fn name(self) -> &'static str {
        Controllers::NAMES.iter().find(|(_, c)| *c == self).map_or("", |(n, _)| n)
    }
}

/// The two kernel interfaces of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}
