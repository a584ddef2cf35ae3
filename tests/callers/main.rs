//! The process that uses the library: what it may be, what becomes of it, and what it is told.

#[path = "../common/mod.rs"]
mod common;

mod crash;
mod failures;
mod kept_root;
mod kernels;
mod lost_rights;
mod memfd;
mod odd;
mod own_limits;
mod refusals;
mod rootless;
mod steps;
mod unchanged;
