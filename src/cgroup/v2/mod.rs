//! The files of cgroup v2.

mod enable;
mod limits;
mod stats;

pub(super) use enable::{enable, obstacle};
pub(super) use limits::writes;
pub(super) use stats::{cpu_usage, read_current, read_totals};
