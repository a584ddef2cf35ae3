//! A root of the host's programs and libraries, and nothing else.

use std::path::{Path, PathBuf};

use super::etc::{self, emit_etc};
use super::from_host::NewRoot;
use crate::error::Result;
use crate::mount::calls::attach_by_path;
use crate::mount::context::Context;
use crate::mount::flags::MountFlags;
use crate::mount::fs_context::emit_new_mount;
use crate::plan::{Plan, Slot};

/// The places of programs and libraries: a link on the host, as most of them into /usr, is a link
/// inside. The last ones belong to NixOS and Guix.
const PATHS: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// Mounts a tmpfs over `/`, binds the host's programs in it, and leaves a descriptor of it in
/// `root`.
pub(super) fn emit_programs(plan: &mut Plan, flags: MountFlags, root: Slot, context: Context) -> Result<()> {
    let top = Path::new("/");
    let options = [("source", "tmpfs"), ("size", "1m"), ("nr_inodes", "1024"), ("mode", "755")];
    emit_new_mount(plan, "tmpfs", &options, MountFlags::NO_SUID | MountFlags::NO_DEV, root, top);
    attach_by_path(plan, root, top, top);
    let mut new = NewRoot::new(root);
    for path in host_paths() {
        new.emit_from_host(plan, flags, &path, context)?;
    }
    new.make_dirs(plan, Path::new("etc"));
    emit_etc(plan, root, context.user);
    Ok(())
}

/// Returns the number of mounts of the host that the root is made of now.
pub(in crate::mount) fn bind_count() -> usize {
    host_paths().filter(|path| path.symlink_metadata().is_ok_and(|meta| !meta.is_symlink())).count()
}

/// Returns the paths that are shown if the host has them.
fn host_paths() -> impl Iterator<Item = PathBuf> {
    PATHS.into_iter().map(PathBuf::from).chain(etc::host_paths())
}
