//! The file system that the program sees: a root, and an ordered list of mounts on it.
//!
//! Stage: inside, in a mount namespace of the sandbox's own, while the host's root, or the
//! [`template`]'s, is still there. The new root is mounted over `/`, everything else below the new
//! root's descriptor. Then pivot_root(2) makes the new root the root, and the host's goes away;
//! over the template's, which is empty, chroot(2) enters the new root. A target is resolved as if
//! the root had been entered already, so no symbolic link in the target leads out. [`emit`] has the
//! whole order. Where the host's root is that of the [`sparse`] namespace, nearly nothing is there.

#[cfg(feature = "oci")]
mod again;
mod attributes;
mod bind;
mod caller_root;
mod calls;
mod cgroupfs;
mod cgroups;
mod context;
mod copy_up;
mod defaults;
mod dev;
mod disk_limit;
mod emit;
mod flags;
mod fs_context;
mod host_tree;
mod kinds;
mod made;
mod mask;
mod memory_file;
mod mount_ids;
mod mounts;
#[cfg(feature = "oci")]
mod named;
mod node;
mod options;
mod overlay;
mod ownership;
mod paths;
mod pinning;
mod precreated;
mod proc;
mod pty;
mod raw;
mod refused_groups;
mod root;
mod sparse;
mod template;
mod terminal;
mod tmpfs;
mod workdir;

#[cfg(feature = "oci")]
pub(crate) use again::Again;
pub use bind::Bind;
pub(crate) use caller_root::{CallerRoot, caller_root};
pub use cgroupfs::Cgroupfs;
pub(crate) use cgroupfs::ShownGroups;
pub(crate) use context::Context;
pub(crate) use defaults::Surroundings;
pub use dev::Dev;
pub(crate) use dev::NODES;
pub use disk_limit::DiskLimit;
pub(crate) use emit::Further;
pub(crate) use flags::MountFlags;
pub(crate) use kinds::Kind;
pub use kinds::{Mount, Mqueue, Sysfs};
pub(crate) use made::{dir, symlink};
pub use memory_file::MemoryFile;
#[cfg(feature = "image")]
pub(crate) use memory_file::Missing;
#[cfg(feature = "image")]
pub(crate) use mounts::ImageMounts;
pub(crate) use mounts::Mounts;
pub use node::DeviceNode;
pub use options::{MountOptions, Propagation};
pub use overlay::Overlay;
pub(crate) use overlay::Upper;
pub(crate) use ownership::{OwnedFiles, exposes_files_of, is_dir, note_unmappable};
pub use proc::{HidePid, Proc};
pub use raw::RawMount;
pub(crate) use refused_groups::{may_refuse_groups, note_refused_groups, refused_groups, try_groups};
#[cfg(feature = "serde")]
pub(crate) use root::Base;
pub use root::RootFs;
pub(crate) use root::RootGuard;
pub(crate) use sparse::may_miss_mounts;
pub(crate) use template::lacks_node;
pub(crate) use terminal::has_terminals;
pub use tmpfs::Tmpfs;
pub(crate) use workdir::invalid_workdir;
