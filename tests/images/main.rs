//! The store of images.
#![cfg(feature = "image")]

mod build;
#[path = "../common/mod.rs"]
mod common;
mod make;
mod run;
mod store;
mod unpack;
