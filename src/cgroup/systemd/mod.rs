//! Groups on hosts where systemd owns the tree. systemd makes a transient scope and delegates it,
//! and the groups stand below that scope.
//!
//! Each process has one scope, not each sandbox: making a unit costs systemd and the bus
//! milliseconds, and every client that listens is told, which overloads hosts that start many
//! sandboxes a second. Within a scope with `Delegate=yes` the tree belongs to the caller: mkdir(2)
//! makes the groups of sandboxes, as below any [`cgroup_parent`](crate::Sandbox::cgroup_parent).
//!
//! A scope exists as long as processes are in it. Therefore one process of this crate stays parked
//! in the scope until its owner ends.
//!
//! A sandbox that outlives its creator may have a scope of its own instead, a [`Unit`]: its group
//! is the scope's, and its limits are the unit's properties as well.

mod bus;
mod host;
mod manager;
mod message;
mod problems;
#[cfg(feature = "oci")]
mod properties;
mod scope;
#[cfg(feature = "oci")]
mod terms;
#[cfg(test)]
mod tests;
#[cfg(feature = "oci")]
mod unit;
#[cfg(feature = "oci")]
mod value;

pub(crate) use manager::Manager;
pub(crate) use problems::problems_in_scope;
#[cfg(feature = "oci")]
pub(crate) use problems::{devices_in_unit, problems_in_unit, root_of_units};
pub use scope::SystemdScope;
#[cfg(feature = "oci")]
pub(crate) use unit::{Unit, is_free_property};
#[cfg(feature = "oci")]
pub(crate) use value::Value;
