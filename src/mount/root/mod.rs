//! The root file system: what a caller says of it, its mount, and the entry into it.

mod emit;
mod entry;
mod etc;
mod from_host;
mod host_list;
mod host_paths;
mod kept;
mod programs;
mod rootfs;

pub(super) use emit::{emit_root, emit_tied_root};
pub(super) use entry::{emit_cover, emit_entry};
pub(super) use etc::LOCALHOST;
pub(super) use host_paths::bind_count;
pub(super) use kept::Wanted;
pub(super) use programs::wanted;
pub(crate) use rootfs::Base;
pub use rootfs::RootFs;
pub(crate) use rootfs::RootGuard;
