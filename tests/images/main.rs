//! The store of images.
#![cfg(feature = "image")]

#[path = "../common/mod.rs"]
mod common;
mod make;
mod store;
mod unpack;
