//! The store of images.
#![cfg(feature = "image")]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod build;
mod crash;
mod garbage;
mod make;
mod oracle;
mod run;
mod store;
mod unpack;
