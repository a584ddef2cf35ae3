//! Layers that show the ids of their files as the sandbox's user namespace maps them: mount_setattr(2),
//! `MOUNT_ATTR_IDMAP`. The caller copies the mount, and maps its ids when the user namespace has its own maps; the stub
//! moves it to where overlayfs, which takes layers by name, can find it.
//!
//! Only layers: whoever has CAP_SYS_ADMIN in the user namespace can make a bind writable again, and what root of the
//! sandbox wrote there would belong to root of the host, set-uid bits included. What an overlay has below, nobody reaches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lower::{MOVE_MOUNT_F_EMPTY_PATH, attach, lower_copy, mount_here};
use super::{Kind, Policy, Tmpfs};
use crate::error::{Error, Result, Step};
use crate::plan::{Plan, PlanFd, Slot, Tree};
use crate::sys::mount;
use crate::units::Bytes;

const CWD: i32 = libc::AT_FDCWD;

impl Policy {
    /// Whether anything is to show ids as the sandbox's user namespace maps them.
    pub(crate) fn maps_ids(&self) -> bool {
        let overlays = |kind: &Kind| matches!(kind, Kind::Overlay(overlay) if overlay.id_mapped);
        self.root.as_ref().is_some_and(|root| root.id_mapped) || self.mounts.iter().any(|mount| overlays(&mount.kind))
    }
}

/// Puts a file system in memory over `/`, where `/..` leads to it, as the place of layers.
pub(super) fn lower_place(plan: &mut Plan) {
    let top = plan.string("/");
    plan.call(Step::Cwd, libc::SYS_chdir, [top.into()]).at("/");
    let options = Tmpfs::new("/").size(Bytes::kib(64)).options();
    mount_here(plan, "tmpfs".as_ref(), "tmpfs".as_ref(), 0, options.as_ref(), Path::new("layers"));
}

/// Takes it away again, with the layers on it: an overlay has copies of its own.
pub(super) fn lower_place_away(plan: &mut Plan) {
    let place = plan.string("/..");
    plan.call(Step::Mount, libc::SYS_umount2, [place.into(), libc::MNT_DETACH.into()]).at("layers");
}

/// Where in such a place the directory `scratch` stands, to whose way the setup's user may be denied the right.
pub(super) fn lower_scratch(plan: &mut Plan, scratch: &Path) -> Result<PathBuf> {
    lower_place(plan);
    let place = make_dir(plan, "/../scratch");
    let copy = Tree::new(scratch, false).map_err(|errno| Error::new(Step::OpenTree, errno).at(scratch))?;
    let (tree, name) = (plan.slot(), plan.string(&place));
    lower_copy(plan, copy, scratch, tree);
    attach(plan, tree, CWD.into(), name.into(), MOVE_MOUNT_F_EMPTY_PATH, scratch);
    plan.close(Step::MoveMount, tree);
    Ok(place)
}

/// The directories in it where the layers stand, in their order. Without an upper layer overlayfs wants two: one that is
/// alone gets an empty one below it.
pub(super) fn lower_layers(plan: &mut Plan, layers: &[PathBuf], has_upper: bool) -> Result<Vec<PathBuf>> {
    let mut places = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let place = make_dir(plan, &format!("/../layer{i}"));
        let tree = plan.slot();
        lower_tree(plan, layer, tree)?;
        let name = plan.string(&place);
        attach(plan, tree, CWD.into(), name.into(), MOVE_MOUNT_F_EMPTY_PATH, layer);
        plan.close(Step::MoveMount, tree);
        places.push(place);
    }
    if !has_upper && places.len() == 1 {
        places.push(make_dir(plan, "/../empty"));
    }
    Ok(places)
}

fn make_dir(plan: &mut Plan, path: &str) -> PathBuf {
    let name = plan.string(path);
    plan.call(Step::Scratch, libc::SYS_mkdirat, [CWD.into(), name.into(), 0o755.into()]).at(path);
    path.into()
}

/// Leaves in `tree` a copy of the mount at `path`, which overlayfs takes without what is mounted below.
fn lower_tree(plan: &mut Plan, path: &Path, tree: Slot) -> Result<()> {
    let fd = mount::clone_tree(path, false).map_err(|errno| Error::new(Step::OpenTree, errno).at(path))?;
    let fd = Arc::new(fd);
    let number = plan.fd(PlanFd::Shared(fd.clone()));
    plan.map_ids_of(fd, path);
    let duplicate = libc::F_DUPFD_CLOEXEC.into();
    plan.call(Step::OpenTree, libc::SYS_fcntl, [number.into(), duplicate, 0.into()]).at(path).store(tree);
    Ok(())
}
