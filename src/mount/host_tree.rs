//! Detached copies of the host's mounts: `open_tree(OPEN_TREE_CLONE)`, 5.2.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::calls::{copy_tree, set_propagation};
use super::context::Context;
use super::mount_ids::MountIds;
use crate::error::{Error, Result, Step};
use crate::plan::{Made, Plan, PlanFd, Slot, Tree};
use crate::sys::mount::{self, Relation};

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
    match Tree::new(path, recursive, Relation::Private) {
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

/// Leaves in `tree` a copy of the mount at `path` that is tied to the host's, or whose ids are
/// mapped. To be called before the setup makes its mounts private.
pub(super) fn emit_tied_tree(
    plan: &mut Plan,
    path: &Path,
    recursive: bool,
    relation: Relation,
    ids: Option<(&MountIds, bool)>,
    tree: Slot,
    context: Context,
) -> Result<()> {
    let failed = |step| move |errno| Error::new(step, errno).at(path);
    match ids {
        Some((MountIds::Sandbox, below)) => {
            let copy = mount::clone_tree(path, recursive).map_err(failed(Step::OpenTree))?;
            mount::relate(copy.as_fd(), relation).map_err(failed(Step::OpenTree))?;
            let copy = Arc::new(copy);
            let number = plan.fd(PlanFd::Shared(copy.clone()));
            plan.map_ids_of(copy, path, below);
            plan.call(Step::OpenTree, libc::SYS_fcntl, [number.into(), libc::F_DUPFD_CLOEXEC.into(), 0.into()])
                .at(path)
                .store(tree);
        }
        Some((MountIds::Given(given), below)) => {
            let copy = Tree::new(path, recursive, relation).map_err(failed(Step::IdMapMount))?;
            emit_copy(plan, copy.with_ids(given.user_ns()?, below), path, tree);
        }
        None if context.template || context.caller_copies => match Tree::new(path, recursive, relation) {
            Err(Errno::EPERM | Errno::ENOSYS) if !context.template => {
                emit_own_copy(plan, path, recursive, relation, tree)
            }
            made => emit_copy(plan, made.map_err(failed(Step::OpenTree))?, path, tree),
        },
        None => emit_own_copy(plan, path, recursive, relation, tree),
    }
    Ok(())
}

/// Leaves in `tree` a copy that the stub makes of its own copies of the host's mounts, which are as
/// they were on the host; in a user namespace the kernel has made them slaves.
fn emit_own_copy(plan: &mut Plan, path: &Path, recursive: bool, relation: Relation, tree: Slot) {
    copy_tree(plan, path, recursive, tree);
    if relation == Relation::Slave {
        set_propagation(plan, tree, libc::MS_SLAVE, true, path);
    }
}

/// Leaves in `tree` a copy that the caller makes.
pub(super) fn emit_copy(plan: &mut Plan, copy: Tree, path: &Path, tree: Slot) {
    emit_given_tree(plan, PlanFd::Tree(Arc::new(copy)), path, tree);
}

/// Leaves in `tree` the detached tree that is made for each run.
pub(super) fn emit_tree_of_run(plan: &mut Plan, made: Made, path: &Path, tree: Slot) {
    emit_given_tree(plan, PlanFd::Made(Arc::new(made)), path, tree);
}

fn emit_given_tree(plan: &mut Plan, given: PlanFd, path: &Path, tree: Slot) {
    let number = plan.fd(given);
    let flag = libc::F_DUPFD_CLOEXEC;
    plan.call(Step::OpenTree, libc::SYS_fcntl, [number.into(), flag.into(), 0.into()]).at(path).store(tree);
}
