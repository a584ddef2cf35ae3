//! Overlays: overlayfs, for the root and for mounts of the list.
//!
//! An overlay is put together by one of two means. [`by_path`] gives mount(2) the paths of all
//! layers; a layer that has no path for that gets one in a [`staging`] file system. [`detached`]
//! gives fsconfig(2) descriptors, before the setup leaves the host for the
//! [`template`](super::template).

pub(super) mod builder;
pub(super) mod by_path;
pub(super) mod detached;
mod idmapped;
mod options;
mod staging;

pub use builder::Overlay;
pub(crate) use builder::Upper;
