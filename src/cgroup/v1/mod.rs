//! The files of cgroup v1.

mod limits;
mod stats;

#[cfg(feature = "oci")]
pub(super) use limits::shares_of_weight;
pub(super) use limits::{memory_updates, updates, writes};
pub(super) use stats::{cpu_usage, oom_kills, read_current, read_totals};
