//! The mount of the new root.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::kept::Wanted;
use super::programs::emit_programs;
use super::rootfs::{Base, RootFs};
use crate::error::{Error, Result, Step};
use crate::mount::calls::{attach_by_path, set_flags};
use crate::mount::context::Context;
use crate::mount::flags::MountFlags;
use crate::mount::host_tree::{emit_host_tree, emit_tied_tree};
use crate::mount::overlay::by_path::emit_root_overlay;
use crate::mount::paths::{is_read_only, source};
use crate::plan::{Plan, Slot};
use crate::sys::mount::Relation;

/// Leaves in a slot the tree of a root that follows the host's mounts, before the setup's become
/// private. One with mapped ids follows none.
pub(in crate::mount) fn emit_tied_root(
    plan: &mut Plan,
    rootfs: Option<&RootFs>,
    context: Context,
) -> Result<Option<Slot>> {
    let Some(rootfs) = rootfs.filter(|rootfs| rootfs.follows_host) else { return Ok(None) };
    let Base::Dir(dir) = &rootfs.base else { return Ok(None) };
    let dir = source(dir)?;
    if is_mapped(rootfs, &dir, context) {
        return Ok(None);
    }
    let root = plan.slot();
    emit_tied_tree(plan, &dir, true, Relation::Slave, None, root, context)?;
    Ok(Some(root))
}

/// Returns a path of the host's as the stub opens it. There has to be a directory.
fn directory(path: &Path) -> Result<PathBuf> {
    let path = source(path)?;
    if path.is_dir() {
        return Ok(path);
    }
    let error = Error::new(Step::OpenSource, Errno::ENOTDIR).at(path);
    Err(error.hint("a root file system is a directory: unpack an archive or an image first"))
}

fn is_mapped(rootfs: &RootFs, dir: &Path, context: Context) -> bool {
    context.mapped.is_some_and(|ids| rootfs.exposes_files_of(dir, ids))
}

/// Mounts the new root over `/`, or a directory at its own path where that is wanted, and leaves a
/// descriptor of it in `root`. `tied`: the tree is in `root` already. `wanted`: see
/// [`emit_programs`]. Returns whether the staging file system of an overlay lies below.
pub(in crate::mount) fn emit_root(
    plan: &mut Plan,
    rootfs: &RootFs,
    root: Slot,
    context: Context,
    (scratch, tied): (Option<&Path>, Option<Slot>),
    wanted: Option<Wanted>,
) -> Result<bool> {
    let (mut was_read_only, mut place) = (false, PathBuf::from("/"));
    match &rootfs.base {
        Base::Host => emit_host_tree(plan, Path::new("/"), true, false, root, context)?,
        Base::Dir(dir) => {
            let dir = directory(dir)?;
            was_read_only = rootfs.read_only && is_read_only(&dir)?;
            if tied.is_none() {
                let mapped = is_mapped(rootfs, &dir, context);
                emit_host_tree(plan, &dir, true, mapped, root, context)?;
            }
            if context.in_place {
                place = dir;
            }
        }
        Base::Programs => return emit_programs(plan, rootfs.flags, root, context, wanted).map(|()| false),
        Base::Overlay(lowers) => return emit_root_overlay(plan, rootfs.overlay_of(lowers), root, context, scratch),
    }
    let slash = Path::new("/");
    attach_by_path(plan, root, &place, &place);
    let (read_only, none) = (MountFlags::READ_ONLY, MountFlags::empty());
    let flags = rootfs.flags | if rootfs.read_only { read_only } else { none };
    if !flags.is_empty() {
        set_flags(plan, root, flags, none, true, slash);
    }
    if rootfs.read_only && !rootfs.is_host() && !was_read_only {
        // The top is left writable until the targets are made. EPERM: a user namespace must not
        // change that.
        set_flags(plan, root, none, read_only, false, slash).tolerate(Errno::EPERM);
    }
    Ok(false)
}
