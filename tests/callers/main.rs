//! The process that uses the library: what it may be, what becomes of it, and what it is told.

#[path = "../common/mod.rs"]
mod common;

mod crash;
mod failures;
mod kernels;
mod memfd;
mod odd;
mod refusals;
mod rootless;
mod steps;
mod unchanged;
