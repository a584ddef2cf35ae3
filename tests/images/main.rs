//! The store of images.
#![cfg(feature = "image")]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod bombs;
mod crash;
mod garbage;
mod make;
mod oracle;
mod planted;
mod random;
mod store;
mod unpack;
