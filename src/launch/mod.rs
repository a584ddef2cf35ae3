//! The launch of a policy: judges it, makes its inputs outside, writes its setup as a plan, runs
//! the plan, and makes the handle.
//!
//! The modules, from the lowest up: [`compiled`] judges, [`inputs`] makes the inputs of the setup,
//! [`emit`] has the order of the ops, [`run_setup`] runs them to one of their ends, [`start`] goes on
//! to a program, [`park`] to a sandbox that waits for one, [`create`] to one that waits for a later
//! process, and [`enter`] to a further program in one that runs. [`hold`] makes namespaces alone.

mod compiled;
mod create;
mod emit;
mod enter;
mod excess;
mod facts;
mod handle;
mod hold;
mod inputs;
mod listener;
mod location;
mod park;
mod record;
mod run_setup;
#[cfg(feature = "systemd")]
mod scope;
mod start;
#[cfg(test)]
mod tests;

pub(crate) use compiled::Compiled;
pub(crate) use create::Ledger;
pub(crate) use emit::Run;
pub(crate) use inputs::{Belongings, KeptResources};
pub(crate) use listener::Supervisor;
pub(crate) use park::{Parked, no_terminal_in_pool};
pub(crate) use record::EntryRecord;
