//! How a plan is run: the clone, the threads that do it, the report, and the caller's part.
//!
//! This floor knows no policy: it takes a [`Plan`](crate::plan::Plan) and gives back a running process or the error of
//! the op that failed, with nothing left over.

mod clone;
mod hint;
mod image;
mod outside;
mod parked;
mod report;
mod spawner;
mod timings;

use std::ffi::CStr;

pub(crate) use clone::dry_run;
pub(crate) use outside::{FailurePage, Init, Launch, Running, launch};
pub(crate) use parked::{Misfire, Parked, park};
pub use timings::Timings;

/// The name that the stub gives itself (`PR_SET_NAME`), by which it is told from the program.
pub(crate) fn stub_name() -> &'static CStr {
    c"ringfence-stub"
}
