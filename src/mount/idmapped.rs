//! Layers that show the ids of their files as the sandbox's user namespace maps them: mount_setattr(2),
//! `MOUNT_ATTR_IDMAP`. The caller copies the mount, and maps its ids when the user namespace has its own maps; the stub
//! moves it to where overlayfs, which takes layers by name, can find it.
//!
//! Only layers: whoever has CAP_SYS_ADMIN in the user namespace can make a bind writable again, and what root of the
//! sandbox wrote there would belong to root of the host, set-uid bits included. What an overlay has below, nobody reaches.
//! A bind that can be written to has another map, by which root stays who it is: [`handed`](super::handed).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::emit::{CWD, MOVE_MOUNT_F_EMPTY_PATH, attach};
use super::{Kind, Policy, place};
use crate::error::{Error, Result, Step};
use crate::plan::{Plan, PlanFd, Slot};
use crate::sys::mount;

impl Policy {
    /// Whether anything is to show ids as the sandbox's user namespace maps them.
    pub(crate) fn maps_ids(&self) -> bool {
        let overlays = |kind: &Kind| matches!(kind, Kind::Overlay(overlay) if overlay.id_mapped);
        self.root.as_ref().is_some_and(|root| root.id_mapped) || self.mounts.iter().any(|mount| overlays(&mount.kind))
    }
}

/// The directories in a [`place`] where the layers stand, in their order. Without an upper layer overlayfs wants two: one that is
/// alone gets an empty one below it.
pub(super) fn emit_layers(plan: &mut Plan, layers: &[PathBuf], has_upper: bool) -> Result<Vec<PathBuf>> {
    let mut places = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let place = place::make_dir(plan, &format!("/../layer{i}"));
        let tree = plan.slot();
        emit_tree(plan, layer, tree)?;
        let name = plan.string(&place);
        attach(plan, tree, CWD.into(), name.into(), MOVE_MOUNT_F_EMPTY_PATH, layer);
        plan.close(Step::MoveMount, tree);
        places.push(place);
    }
    if !has_upper && places.len() == 1 {
        places.push(place::make_dir(plan, "/../empty"));
    }
    Ok(places)
}

/// Leaves in `tree` a copy of the mount at `path`, which overlayfs takes without what is mounted below.
fn emit_tree(plan: &mut Plan, path: &Path, tree: Slot) -> Result<()> {
    let fd = mount::clone_tree(path, false).map_err(|errno| Error::new(Step::OpenTree, errno).at(path))?;
    let fd = Arc::new(fd);
    let number = plan.fd(PlanFd::Shared(fd.clone()));
    plan.map_ids_of(fd, path);
    let duplicate = libc::F_DUPFD_CLOEXEC.into();
    plan.call(Step::OpenTree, libc::SYS_fcntl, [number.into(), duplicate, 0.into()]).at(path).store(tree);
    Ok(())
}
