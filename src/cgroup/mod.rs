//! Control groups: one model for three kinds of host.
//!
//! | host | limits | kill, freeze, list, cpu time |
//! | --- | --- | --- |
//! | v2 only | v2 | v2 |
//! | hybrid (v1 controllers, v2 without them) | v1 | v2: `cgroup.kill`, `cgroup.freeze` and `cpu.stat` need no controller |
//! | v1 only | v1 | v1: `freezer`, `pids`, `cpuacct` |
//!
//! [`Host`](host::Host) knows the hierarchy of each controller. [`Group`](group::Group) is the
//! group of one sandbox and has a [`Part`](part::Part) in each hierarchy that the sandbox needs.
//! [`v1`] and [`v2`] are tables: they name the file for each limit and for each number of the
//! statistics. [`support`] knows the limits that not every kernel has. Imports run downward only: a
//! `mod.rs` declares and re-exports, and no two files import each other.

mod adopt;
mod controllers;
mod cpuset;
mod devices;
mod events;
mod freezer;
mod group;
mod group_path;
mod hierarchy;
mod host;
mod hugetlb;
mod inside;
mod invalid;
mod io;
mod kernfs;
mod kill;
mod limits;
mod mark;
mod named;
mod parents;
mod part;
mod permission;
mod pids;
mod placement;
mod pressure;
mod problems;
mod remedies;
mod resources;
mod shown;
mod stale;
mod stats;
mod subgroup;
mod support;
#[cfg(feature = "systemd")]
mod systemd;
#[cfg(test)]
mod tests;
mod unit_id;
mod v1;
mod v2;
mod write;

pub use devices::{Device, DeviceAccess, Devices};
pub(crate) use events::{Counts, GroupWatch};
pub(crate) use group::Group;
pub(crate) use group_path::{GroupPath, holds};
pub(crate) use host::{Host, has_swap, host};
pub(crate) use inside::{is_in_another_named, is_in_named};
pub use io::IoLimit;
pub use limits::Limits;
pub(crate) use named::NamedDir;
pub(crate) use parents::ParentGuard;
pub(crate) use placement::invalid_group;
pub use pressure::{Pressure, PressureTrigger, PsiResource, PsiThreshold, Stall};
pub(crate) use problems::invalid_parent;
pub use resources::Resources;
pub(crate) use shown::Shown;
pub(crate) use stale::{end, remove_empty, remove_parent, sweep};
pub use stats::{HugetlbStats, IoStats, Stats};
pub(crate) use subgroup::Subgroup;
#[cfg(feature = "systemd")]
pub use systemd::SystemdScope;
#[cfg(feature = "systemd")]
pub(crate) use systemd::{Manager, problems_in_scope};
#[cfg(feature = "oci")]
pub(crate) use systemd::{Unit, Value, devices_in_unit, is_free_property, problems_in_unit, root_of_units};
pub(crate) use unit_id::UnitId;
