//! The run of a plan: the clone, the threads that clone, the report, and the caller's part.
//!
//! This module knows no policy: it takes a [`Plan`](crate::plan::Plan) and returns a running
//! process, or the error of the op that failed, and then leaves nothing behind.

mod attempt;
mod clone;
mod guests;
mod handover;
mod hint;
mod later;
mod launch;
mod parked;
mod report;
mod running;
mod spawner;
mod start;
mod stub_file;
mod timings;

pub(crate) use clone::dry_run;
pub(crate) use guests::reap_siblings;
#[cfg(feature = "oci")]
pub(crate) use hint::NO_INTERPRETER;
pub(crate) use later::{Later, SOCKET, TakeListener, Waits, connect_to, listen_at};
pub(crate) use launch::{FailurePage, Launch};
pub(crate) use parked::{Misfire, Parked};
pub(crate) use running::{Init, Running, Stub};
pub(crate) use start::start;
pub(crate) use stub_file::stub_name;
pub use timings::Timings;
