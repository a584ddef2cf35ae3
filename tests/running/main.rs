//! The way of a program: from its command to its end, one by one, in pools and from many threads.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "tokio")]
mod asynchronous;
mod child;
mod exec;
mod killer;
mod pool;
mod prepared;
mod program;
mod smoke;
mod terminal;
mod threads;
mod timings;
