//! Control groups: what they limit and tell, and where they stand.

#[path = "../common/mod.rs"]
mod common;

mod delegation;
mod devices;
mod limits;
mod memory;
mod pressure;
mod shares;
#[cfg(feature = "systemd")]
mod systemd;

use ringfence::Sandbox;

/// A sandbox for limits, which may have them below this process's own group.
fn limited() -> Sandbox {
    common::sandbox().cgroup_parent(common::cgroup_parent()).pid_ns()
}
