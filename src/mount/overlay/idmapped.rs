//! Layers that show the ids of their files as the sandbox's user namespace maps them:
//! mount_setattr(2), `MOUNT_ATTR_IDMAP`. The caller copies the mount, and maps the ids of the copy
//! when the user namespace has its own maps; the stub attaches the copy where overlayfs, which
//! takes layers by path, can find it.
//!
//! Only layers: whoever has CAP_SYS_ADMIN in the user namespace can make a bind writable again, and
//! what root of the sandbox wrote there would belong to root of the host, set-uid bits included.
//! Nobody reaches what an overlay has below. A bind that can be written to has another map, by
//! which root stays root: [`ownership`](crate::mount::ownership).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::staging::stage_dir;
use crate::error::{Error, Result, Step};
use crate::mount::calls::attach_by_path;
use crate::plan::{Plan, PlanFd, Slot};
use crate::sys::mount;

/// Attaches id-mapped copies of layers in the [`staging`](super::staging) file system, and returns
/// their directories in the same order. Without an upper layer overlayfs wants two: a layer that is
/// alone gets an empty one below it.
pub(super) fn stage_layers(plan: &mut Plan, layers: &[PathBuf], has_upper: bool) -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let dir = stage_dir(plan, &format!("/../layer{i}"));
        let tree = plan.slot();
        emit_tree(plan, layer, tree)?;
        attach_by_path(plan, tree, &dir, layer);
        plan.close(Step::MoveMount, tree);
        dirs.push(dir);
    }
    if !has_upper && dirs.len() == 1 {
        dirs.push(stage_dir(plan, "/../empty"));
    }
    Ok(dirs)
}

/// Leaves in `tree` an id-mapped copy of the mount at `path`, without what is mounted below, which
/// overlayfs does not show.
fn emit_tree(plan: &mut Plan, path: &Path, tree: Slot) -> Result<()> {
    let fd = mount::clone_tree(path, false).map_err(|errno| Error::new(Step::OpenTree, errno).at(path))?;
    let fd = Arc::new(fd);
    let number = plan.fd(PlanFd::Shared(fd.clone()));
    plan.map_ids_of(fd, path, false);
    let duplicate = libc::F_DUPFD_CLOEXEC.into();
    plan.call(Step::OpenTree, libc::SYS_fcntl, [number.into(), duplicate, 0.into()]).at(path).store(tree);
    Ok(())
}
