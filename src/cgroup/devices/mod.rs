//! The rules about the devices that may be opened and made.
//!
//! [`Devices`] is a list of rules. [`table`] resolves the list once for both kernel interfaces:
//! into a BPF program for cgroup v2 ([`program`], [`filter`]) and into lines of `devices.allow` for
//! v1 ([`v1`]).

mod device;
#[cfg_attr(not(feature = "devices"), path = "no_filter.rs")]
pub(super) mod filter;
#[cfg(feature = "devices")]
mod program;
mod rules;
mod table;
#[cfg(test)]
mod tests;
pub(super) mod v1;

pub use device::{Device, DeviceAccess};
pub use rules::Devices;
