//! How a policy is carried out: judged, its inputs made outside, its setup written as a plan and run, and the handle made.
//!
//! Upwards: [`compiled`] judges, [`inputs`] makes what the setup needs from outside, [`setup`] is the order of the ops,
//! [`set_up`] runs them to one of two ends, [`start`] goes on to a program, [`park`] to a sandbox that waits for one.

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
