//! The cpus and memory nodes of a new v1 cpuset.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::kernfs;

/// Gives a new v1 cpuset, level by level from the mount point, the cpus and memory nodes that tasks
/// need to join it.
pub(super) fn fill(hierarchy: &Hierarchy, path: &Path) -> nix::Result<()> {
    if hierarchy.version == Version::V2 || !hierarchy.controllers.contains(Controllers::CPUSET) {
        return Ok(());
    }
    let mut above = kernfs::open_dir(&hierarchy.mount)?;
    let mut dir = hierarchy.mount.clone();
    for level in path.strip_prefix(&hierarchy.mount).into_iter().flat_map(Path::components) {
        dir.push(level);
        let fd = kernfs::open_dir(&dir)?;
        fill_one(above.as_fd(), fd.as_fd())?;
        above = fd;
    }
    Ok(())
}

/// Copies cpus and memory nodes from the group above. A v1 cpuset starts without them, and no task
/// can join it before.
fn fill_one(above: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> nix::Result<()> {
    for file in [c"cpuset.cpus", c"cpuset.mems"] {
        if kernfs::read(dir, file)?.trim().is_empty() {
            kernfs::write(dir, file, kernfs::read(above, file)?.trim())?;
        }
    }
    Ok(())
}
