//! The roots that a sandbox can have, and what is mounted on them.

#[path = "../common/mod.rs"]
mod common;

mod collect;
mod contents;
mod mounts;
mod nodes;
mod rootfs;
