//! Control groups: one model over three sorts of host.
//!
//! | host | limits | kill, freeze, list, cpu time |
//! | --- | --- | --- |
//! | v2 only | v2 | v2 |
//! | hybrid (v1 controllers, v2 without them) | v1 | v2: `cgroup.kill`, `cgroup.freeze` and `cpu.stat` need no controller |
//! | v1 only | v1 | v1: `freezer`, `pids`, `cpuacct` |
//!
//! [`Host`](host::Host) says where each controller is, [`Group`](group::Group) is the group of one sandbox and has a
//! [`Part`](part::Part) in each hierarchy that it needs. [`v1`] and [`v2`] are the tables: which file takes which
//! limit, which file gives which number. [`support`] knows the limits that not every kernel has.

mod devices;
mod freezer;
mod group;
mod host;
mod hugetlb;
mod invalid;
mod io;
mod kernfs;
mod kill;
mod limits;
mod parents;
mod part;
mod pressure;
mod problems;
mod stale;
mod stats;
mod support;
#[cfg(feature = "systemd")]
mod systemd;
#[cfg(test)]
mod tests;
mod v1;
mod v2;
mod write;

use bitflags::bitflags;
use nix::errno::Errno;

use crate::sys::fork_mark::PerProcess;

pub use devices::{Device, DeviceAccess, Devices};
pub(crate) use group::Group;
pub(crate) use host::Host;
pub use io::IoLimit;
pub use limits::Limits;
pub(crate) use parents::Hold;
pub use pressure::{Pressure, PressureTrigger, PsiResource, PsiThreshold, Stall};
pub(crate) use problems::invalid_parent;
pub(crate) use stale::sweep;
pub use stats::{HugetlbStats, Stats};
#[cfg(feature = "systemd")]
pub(crate) use systemd::Manager;
#[cfg(feature = "systemd")]
pub use systemd::SystemdScope;

bitflags! {
    /// The controllers that this crate uses.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Controllers: u16 {
        const MEMORY = 1;
        const PIDS = 1 << 1;
        const CPU = 1 << 2;
        const CPUSET = 1 << 3;
        /// `blkio` on v1.
        const IO = 1 << 4;
        /// Only on v1; every v2 group accounts cpu time by itself.
        const CPUACCT = 1 << 5;
        /// Only on v1; every v2 group can be frozen since 5.2.
        const FREEZER = 1 << 6;
        /// Only on v1; a v2 group takes a BPF program since 4.15.
        const DEVICES = 1 << 7;
        const HUGETLB = 1 << 8;
        /// The limits of v2 groups as such, which are in each of them since 4.14.
        const CORE = 1 << 9;
    }
}

impl Controllers {
    /// What every v2 group has, whatever is enabled above it.
    const INHERENT: Controllers = Controllers::CPUACCT.union(Controllers::FREEZER).union(Controllers::CORE);

    const NAMES: [(&'static str, Controllers); 10] = [
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
    ];

    /// The controller of this name; empty for one that this crate has no use for.
    fn named(name: &str) -> Controllers {
        Controllers::NAMES.iter().find(|(n, _)| *n == name).map_or(Controllers::empty(), |(_, c)| *c)
    }

    /// The v2 name of a single controller.
    fn name(self) -> &'static str {
        Controllers::NAMES.iter().find(|(_, c)| *c == self).map_or("", |(n, _)| n)
    }
}

/// The two kernel interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The hierarchies of this host, looked at once in each process.
pub(crate) fn host() -> crate::Result<&'static Host> {
    static HOST: PerProcess<Host> = PerProcess::new();
    match HOST.get() {
        Some(host) => Ok(host),
        None => {
            let host = Host::detect()?;
            HOST.get_or_try(|| Ok(host)).map_err(|errno: Errno| crate::Error::new(crate::Step::Detect, errno))
        }
    }
}
