//! The root file system: what a caller says of it, its mount, and the entry into it.

mod emit;
mod entry;
mod etc;
mod from_host;
mod programs;
mod rootfs;

pub(super) use emit::emit_root;
pub(super) use entry::{emit_cover, emit_entry};
pub(super) use etc::LOCALHOST;
pub(super) use programs::bind_count;
pub(crate) use rootfs::Base;
pub use rootfs::RootFs;
pub(crate) use rootfs::RootGuard;
