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

mod bus;
mod host;
mod manager;
mod message;
mod problems;
mod scope;
#[cfg(test)]
mod tests;

pub(crate) use manager::Manager;
pub use scope::SystemdScope;
