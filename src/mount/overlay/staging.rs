//! The staging file system of an overlay: a tmpfs over `/`, to which `/..` leads. Overlayfs takes
//! its layers by path, and finds here those that have no path, one that is too long, or one that is
//! closed to the setup's user.

use std::path::{Path, PathBuf};

use super::options::escaped_list;
use crate::error::{Error, Result, Step};
use crate::mount::calls::{CWD, attach_by_path, make_dir, make_link, mount_here};
use crate::mount::host_tree::emit_copy;
use crate::mount::tmpfs::Tmpfs;
use crate::plan::{Plan, Tree};
use crate::sys::mount::Relation;
use crate::units::Bytes;

/// The most bytes that the paths of layers take: half of what mount(2) takes as options. Longer
/// ones are all replaced by links, of which 500 just fit.
const PATHS_MAX: usize = 2 << 10;
/// The names of staging file systems in errors.
pub(super) const UPPER: &str = "upper of the root";
pub(super) const UPPER_IN_MEMORY: &str = "upper of an overlay";
pub(super) const LAYERS: &str = "layers";

/// Mounts the staging file system, of at most `size`. `name` is its name in errors.
pub(super) fn mount_staging(plan: &mut Plan, size: Bytes, name: &str) {
    enter_top(plan);
    let options = Tmpfs::new("/").size(size).options();
    mount_here(plan, "tmpfs".as_ref(), "tmpfs".as_ref(), 0, options.as_ref(), Path::new(name));
}

/// Makes `/` the working directory, on which the next mount is put.
pub(super) fn enter_top(plan: &mut Plan) {
    let top = plan.string("/");
    plan.call(Step::Cwd, libc::SYS_chdir, [top.into()]).at("/");
}

/// Makes a directory, which stands in the staging file system, and returns its path.
pub(super) fn stage_dir(plan: &mut Plan, path: &str) -> PathBuf {
    make_dir(plan, Step::Scratch, CWD.into(), path).at(path);
    path.into()
}

/// Mounts the directory `scratch`, whose path may be closed to the setup's user, in the staging
/// file system, and returns the path there.
pub(super) fn stage_scratch(plan: &mut Plan, scratch: &Path) -> Result<PathBuf> {
    let dir = stage_dir(plan, "/../scratch");
    let copy =
        Tree::new(scratch, false, Relation::Private).map_err(|errno| Error::new(Step::OpenTree, errno).at(scratch))?;
    let tree = plan.slot();
    emit_copy(plan, copy, scratch, tree);
    attach_by_path(plan, tree, &dir, scratch);
    plan.close(Step::MoveMount, tree);
    Ok(dir)
}

/// Returns whether layers need shorter paths than they have: those of an image of a hundred layers
/// do.
pub(super) fn are_long(layers: &[PathBuf]) -> bool {
    escaped_list(layers.iter().map(PathBuf::as_path)).len() > PATHS_MAX
}

/// Returns the size of a staging file system with links to layers and to an upper layer, each of
/// which may take a page.
pub(super) fn size_for(layers: &[PathBuf]) -> Bytes {
    Bytes::kib(64 * (layers.len() as u64 + 2))
}

/// Makes links to layers, and returns their paths in the same order.
pub(super) fn stage_links(plan: &mut Plan, layers: &[PathBuf]) -> Vec<PathBuf> {
    layers.iter().enumerate().map(|(i, layer)| stage_link(plan, &format!("/../{i}"), layer)).collect()
}

/// Makes links to an upper layer and its work directory, and returns their paths.
pub(super) fn stage_upper_links(plan: &mut Plan, (upper, work): &(PathBuf, PathBuf)) -> (PathBuf, PathBuf) {
    (stage_link(plan, "/../upper", upper), stage_link(plan, "/../work", work))
}

fn stage_link(plan: &mut Plan, path: &str, target: &Path) -> PathBuf {
    make_link(plan, Step::Scratch, target, CWD.into(), path).at(target);
    path.into()
}
