//! Detached copies of the host's mounts: `open_tree(OPEN_TREE_CLONE)`, 5.2.

use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::calls::copy_tree;
use super::context::Context;
use crate::error::{Error, Result, Step};
use crate::plan::{Plan, PlanFd, Slot, Tree};

/// Leaves in `tree` a detached copy of the mount at `path`. `mapped`: the copy shows the ids of its
/// files as the sandbox's id-mapped mounts do.
///
/// The caller makes the copy where the host's path means nothing, in the template, and where the
/// path may be closed to the user that the setup runs as. Such a copy can be attached in the mount
/// namespace of another user namespace.
pub(super) fn emit_host_tree(
    plan: &mut Plan,
    path: &Path,
    recursive: bool,
    mapped: bool,
    tree: Slot,
    context: Context,
) -> Result<()> {
    if !context.template && !context.caller_copies && !mapped {
        copy_tree(plan, path, recursive, tree);
        return Ok(());
    }
    match Tree::new(path, recursive) {
        // The caller is root of a user namespace that does not own its mounts, the kernel is before
        // 5.12, or a filter refuses.
        Err(Errno::EPERM | Errno::ENOSYS) if !context.template && !mapped => copy_tree(plan, path, recursive, tree),
        made => {
            // Without open_tree(2) ids cannot be mapped either, and the sandbox can go without
            // that.
            let lacks_map = mapped && matches!(made, Err(Errno::EPERM | Errno::ENOSYS));
            let step = if lacks_map { Step::IdMapMount } else { Step::OpenTree };
            let copy = made.map_err(|errno| Error::new(step, errno).at(path))?;
            emit_copy(plan, copy.with_mapped_ids(mapped), path, tree);
        }
    }
    Ok(())
}

/// Leaves in `tree` a copy that the caller makes.
pub(super) fn emit_copy(plan: &mut Plan, copy: Tree, path: &Path, tree: Slot) {
    let number = plan.fd(PlanFd::Tree(Arc::new(copy)));
    let flag = libc::F_DUPFD_CLOEXEC;
    plan.call(Step::OpenTree, libc::SYS_fcntl, [number.into(), flag.into(), 0.into()]).at(path).store(tree);
}
