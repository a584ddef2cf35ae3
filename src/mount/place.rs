//! A file system in memory over `/`, where `/..` leads to it: the place of what overlayfs takes by name and that has no
//! name, one that is too long, or one that is closed to the setup's user.

use std::path::{Path, PathBuf};

use super::emit::{CWD, LAYERS, MOVE_MOUNT_F_EMPTY_PATH, attach, emit_copy, mount_here};
use super::{Tmpfs, overlay_list};
use crate::error::{Error, Result, Step};
use crate::plan::{Plan, Tree};
use crate::units::Bytes;

/// Half of what mount(2) takes as options. With longer ones links stand in for all names, of which 500 just fit.
const NAMES_MAX: usize = 2 << 10;

/// Puts it there. It takes at most `size` of memory. `what` is what it is for.
pub(super) fn emit(plan: &mut Plan, size: Bytes, what: &str) {
    let top = plan.string("/");
    plan.call(Step::Cwd, libc::SYS_chdir, [top.into()]).at("/");
    let options = Tmpfs::new("/").size(size).options();
    mount_here(plan, "tmpfs".as_ref(), "tmpfs".as_ref(), 0, options.as_ref(), Path::new(what));
}

/// Takes it away again, with all that is mounted in it: an overlay has copies of its own.
pub(super) fn emit_away(plan: &mut Plan) {
    let place = plan.string("/..");
    plan.call(Step::Mount, libc::SYS_umount2, [place.into(), libc::MNT_DETACH.into()]).at(LAYERS);
}

pub(super) fn make_dir(plan: &mut Plan, path: &str) -> PathBuf {
    let name = plan.string(path);
    plan.call(Step::Scratch, libc::SYS_mkdirat, [CWD.into(), name.into(), 0o755.into()]).at(path);
    path.into()
}

/// Where in the place the directory `scratch` stands, to whose way the setup's user may be denied the right.
pub(super) fn emit_scratch(plan: &mut Plan, scratch: &Path) -> Result<PathBuf> {
    let place = make_dir(plan, "/../scratch");
    let copy = Tree::new(scratch, false).map_err(|errno| Error::new(Step::OpenTree, errno).at(scratch))?;
    let (tree, name) = (plan.slot(), plan.string(&place));
    emit_copy(plan, copy, scratch, tree);
    attach(plan, tree, CWD.into(), name.into(), MOVE_MOUNT_F_EMPTY_PATH, scratch);
    plan.close(Step::MoveMount, tree);
    Ok(place)
}

/// Whether layers need shorter names than they have: an image of a hundred layers does.
pub(super) fn are_long(layers: &[PathBuf]) -> bool {
    overlay_list(layers.iter().map(PathBuf::as_path)).len() > NAMES_MAX
}

/// The memory of a place with links to them and to an upper layer, each of which may take a page.
pub(super) fn size_for(layers: &[PathBuf]) -> Bytes {
    Bytes::kib(64 * (layers.len() as u64 + 2))
}

/// Short names for layers, in their order.
pub(super) fn emit_links(plan: &mut Plan, layers: &[PathBuf]) -> Vec<PathBuf> {
    layers.iter().enumerate().map(|(i, layer)| emit_link(plan, &format!("/../{i}"), layer)).collect()
}

/// A link in the place to what its name says.
pub(super) fn emit_link(plan: &mut Plan, name: &str, to: &Path) -> PathBuf {
    let (target, at) = (plan.string(to), plan.string(name));
    plan.call(Step::Scratch, libc::SYS_symlinkat, [target.into(), CWD.into(), at.into()]).at(to);
    name.into()
}
