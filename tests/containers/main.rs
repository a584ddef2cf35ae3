//! Images that are made, and sandboxes that run them. Each test also looks for what was left behind, which is why they are not
//! among those of tests/images: those run side by side.
#![cfg(feature = "image")]

#[path = "../common/mod.rs"]
mod common;

mod build;
#[cfg(feature = "oci")]
mod oci;
mod run;
