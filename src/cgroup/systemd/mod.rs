//! Groups on hosts where systemd owns the tree: below a transient scope that it makes and hands over.
//!
//! One scope a process, not one a sandbox: making a unit costs systemd and the bus milliseconds, and every client that
//! listens hears of it, so hosts that start many sandboxes a second drown in it. Within a scope with `Delegate=yes` the
//! tree is ours: sandboxes get their groups by mkdir(2), as below any [`cgroup_parent`](crate::Sandbox::cgroup_parent).
//!
//! A scope stands as long as processes are in it, so one of ours stays there, parked, until its owner's end.

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
