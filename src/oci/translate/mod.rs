//! From the properties of a configuration to the calls of [`Sandbox`](crate::Sandbox), one file for
//! each room of the configuration.
//!
//! Every property is carried out or refused by its path: the tests in `fields.rs` have the list.

mod devices;
mod hooks;
mod mounts;
mod namespaces;
mod net_devices;
mod process;
mod refused;
mod resources;
mod root;
mod sandbox;
mod seccomp;
mod surroundings;
mod unit;

pub(super) use devices::has_type_as_access;
pub(super) use hooks::Hooks;
pub(super) use mounts::{is_of_groups, mount_warnings};
pub(super) use namespaces::{has_cgroup_ns, has_mount_ns};
pub(super) use process::{further_command, has_home};
pub(super) use resources::limits_of;
pub(super) use sandbox::{Translation, translate};
pub(super) use seccomp::{filter_flags, leniencies};
pub(super) use surroundings::{CGROUP_PARENT, Surroundings, is_host_root};
pub(super) use unit::PROPERTY;
