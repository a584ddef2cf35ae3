//! The roots that a sandbox can have, and what is mounted on them.

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod collect;
mod contents;
mod copy_up;
mod findmnt;
mod mounts;
mod nodes;
mod options;
mod rootfs;
