//! The store of images.
#![cfg(feature = "image")]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod bombs;
mod crash;
mod make;
mod oracle;
mod own_limits;
mod planted;
mod prune;
mod random;
mod store;
mod unpack;
