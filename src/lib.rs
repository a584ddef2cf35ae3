//! ringfence runs a program inside a Linux sandbox.

mod cgroup;
mod error;
mod feature;
mod units;

pub use error::{Error, ErrorKind, Problem, Result, Step};
pub use feature::{Enforced, Enforcement, Feature};
pub use units::{Bytes, ParseBytesError};
