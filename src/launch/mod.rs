//! The launch of a policy: judges it, makes its inputs outside, writes its setup as a plan, runs
//! the plan, and makes the handle.
//!
//! The modules, from the lowest up: [`compiled`] judges, [`inputs`] makes the inputs of the setup,
//! [`emit`] has the order of the ops, [`run_setup`] runs them to one of their ends, [`start`] goes
//! on to a program, [`park`] to a sandbox that waits for one, [`create`] to one that waits for a
//! later process, and [`enter`] to a further program in one that runs. [`hooks`] runs programs in a
//! sandbox whose root is not entered yet. [`hold`] makes namespaces alone.

mod compiled;
mod create;
mod emit;
mod enter;
mod entrance;
mod excess;
mod facts;
mod handle;
mod hold;
mod hooks;
mod inputs;
mod listener;
mod location;
mod lost_rights;
mod park;
mod record;
mod rights;
mod run_setup;
#[cfg(feature = "systemd")]
mod scope;
mod start;
#[cfg(test)]
mod tests;
#[cfg(feature = "oci")]
mod unit;

pub(crate) use compiled::Compiled;
pub(crate) use create::{CreatedStub, Ledger};
pub(crate) use emit::Run;
pub(crate) use hooks::Hooks;
#[cfg(feature = "oci")]
pub(crate) use hooks::Unentered;
pub(crate) use inputs::{Belongings, KeptResources};
pub(crate) use listener::Supervisor;
pub(crate) use park::{Parked, no_terminal_in_pool};
pub(crate) use record::EntryRecord;
