//! The launch of a policy: judges it, makes its inputs outside, writes its setup as a plan, runs
//! the plan, and makes the handle.
//!
//! The modules, from the lowest up: [`compiled`] judges, [`inputs`] makes the inputs of the setup,
//! [`setup`] has the order of the ops, [`set_up`] runs them to one of two ends, [`start`] goes on
//! to a program, and [`park`] to a sandbox that waits for one.

mod compiled;
mod handle;
mod inputs;
mod listener;
mod location;
mod park;
#[cfg(feature = "systemd")]
mod scope;
mod set_up;
mod setup;
mod start;

pub(crate) use compiled::Compiled;
pub(crate) use inputs::Kept;
pub(crate) use listener::Supervisor;
pub(crate) use park::Parked;
pub(crate) use setup::Run;
