//! The cpus and memory nodes of a new v1 cpuset.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::kernfs;

/// Gives a v1 cpuset below the hierarchy's top what it needs to take tasks, level by level.
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

/// A v1 cpuset starts without cpus and memory nodes, and no task can join it: it gets those of the group above.
fn fill_one(above: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> nix::Result<()> {
    for file in [c"cpuset.cpus", c"cpuset.mems"] {
        if kernfs::read(dir, file)?.trim().is_empty() {
            kernfs::write(dir, file, kernfs::read(above, file)?.trim())?;
        }
    }
    Ok(())
}
