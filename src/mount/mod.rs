//! The file system that the program sees: a root, and an ordered list of mounts on it.
//!
//! Stage: inside, in a mount namespace of the sandbox's own, while the host's root, or the
//! [`template`]'s, is still there. The new root is mounted over `/`, everything else below the new
//! root's descriptor. Then pivot_root(2) makes the new root the root, and the host's goes away;
//! over the template's, which is empty, chroot(2) enters the new root. A target is resolved as if
//! the root had been entered already, so no symbolic link in the target leads out. [`emit`] has the
//! whole order. Where the host's root is that of the [`sparse`] namespace, nearly nothing is there.

mod attributes;
mod bind;
mod calls;
mod cgroupfs;
mod cgroups;
mod context;
mod copy_up;
mod defaults;
mod dev;
mod emit;
mod flags;
mod fs_context;
mod host_tree;
mod kinds;
mod made;
mod mask;
mod memory_file;
mod node;
mod options;
mod overlay;
mod ownership;
mod paths;
mod pinning;
mod policy;
mod proc;
mod raw;
mod root;
mod sparse;
mod template;
mod tmpfs;
mod workdir;

pub use bind::Bind;
pub use cgroupfs::Cgroupfs;
pub(crate) use cgroupfs::ShownGroups;
pub(crate) use context::Context;
pub(crate) use defaults::{Surroundings, has_terminals};
pub use dev::Dev;
pub(crate) use dev::NODES;
pub(crate) use flags::MountFlags;
pub(crate) use kinds::Kind;
pub use kinds::{Mount, Mqueue, Sysfs};
pub(crate) use made::{dir, symlink};
pub use memory_file::MemoryFile;
#[cfg(feature = "image")]
pub(crate) use memory_file::Missing;
pub use node::DeviceNode;
pub use options::{MountOptions, Propagation};
pub use overlay::Overlay;
pub(crate) use overlay::Upper;
pub(crate) use ownership::{OwnedFiles, exposes_files_of, is_dir, note_unmappable};
#[cfg(feature = "image")]
pub(crate) use policy::ImageMounts;
pub(crate) use policy::Policy;
pub use proc::{HidePid, Proc};
pub use raw::RawMount;
#[cfg(feature = "serde")]
pub(crate) use root::Base;
pub use root::RootFs;
pub(crate) use root::RootGuard;
pub(crate) use sparse::may_miss_mounts;
pub(crate) use template::lacks_node;
pub use tmpfs::Tmpfs;
pub(crate) use workdir::{emit_workdir, invalid_workdir};
