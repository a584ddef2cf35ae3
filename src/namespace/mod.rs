//! The namespaces that a program gets, new or joined, and what is set in them: host name, time
//! offsets, id maps.
//!
//! Stage: inside, before any mount. The clone makes pid, mount, ipc, uts, net and user namespaces.
//! The cgroup namespace is made after the control groups are entered, or the caller's own paths
//! would show in it; the time namespace by unshare, because an exec right after the clone would
//! freeze its offsets.

mod bound;
mod choice;
mod emit;
mod join;
mod kinds;
mod lease;
mod maps;
mod newidmap;
mod source;
mod sysctl;
mod time_offset;
mod user_limit;

pub use crate::idmap::{IdMap, IdMapError};
pub(crate) use crate::idmap::{LINES_MAX, exchanging, is_own, unprivileged_id};
pub(crate) use bound::BoundDir;
pub(crate) use choice::Choice;
pub use kinds::Namespaces;
pub(crate) use lease::{Lease, lease, lease_for_mounts};
pub(crate) use maps::{IdMaps, Outside, Writer};
pub(crate) use newidmap::Programs;
pub(crate) use source::{JoinSource, kind_of};
pub use time_offset::TimeOffset;
pub use user_limit::UserLimit;
