//! The overlay of a sandbox that starts from the [`template`](crate::mount::template). The overlay
//! is put together by descriptors, while the setup stands among the caller's mounts, and attached
//! once the setup has left them.

use std::path::Path;

use super::builder::{RootOverlay, Upper};
use super::options::no_redirects;
use super::staging::UPPER;
use crate::error::{Result, Step};
use crate::mount::calls::{CWD, attach_by_path, make_dir, open_dir, set_flags};
use crate::mount::flags::MountFlags;
use crate::mount::fs_context::{emit_new_mount, make_mount, open_context, set_fd_option, set_option};
use crate::mount::paths::source;
use crate::mount::tmpfs::Tmpfs;
use crate::plan::{Arg, Plan, Slot};
use crate::units::Bytes;

/// An overlay that is attached nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DetachedOverlay {
    overlay: Slot,
    /// The tmpfs of the upper layer.
    upper: Option<Slot>,
}

/// Puts the overlay of the root together. To be called before the mount namespace is left.
pub(in crate::mount) fn emit_detached(
    plan: &mut Plan,
    root: RootOverlay<'_>,
    scratch: Option<&Path>,
) -> Result<DetachedOverlay> {
    let at = Path::new("/");
    let overlay = open_context(plan, "overlay", at);
    set_option(plan, overlay, "source", "overlay", at);
    for (key, value) in no_redirects() {
        set_option(plan, overlay, key, value, at);
    }
    for layer in root.lowers {
        let layer = source(layer)?;
        set_dir_option(plan, overlay, "lowerdir+", CWD.into(), &layer, &layer);
    }
    let detached = DetachedOverlay { overlay: plan.slot(), upper: set_upper(plan, overlay, root.upper, scratch)? };
    make_mount(plan, overlay, root.flags, detached.overlay, at);
    if let Some(upper) = detached.upper {
        // The overlay writes by a mount of its own. This one stays below the root: whoever takes
        // the root away, which takes CAP_SYS_ADMIN, finds nothing to use.
        let closed = MountFlags::READ_ONLY | MountFlags::QUIET | MountFlags::NO_EXEC;
        set_flags(plan, upper, closed, MountFlags::empty(), false, Path::new(UPPER));
    }
    Ok(detached)
}

/// Sets the upper and the work directory of the overlay. Returns the tmpfs that was made for them.
fn set_upper(plan: &mut Plan, overlay: Slot, upper: &Upper, scratch: Option<&Path>) -> Result<Option<Slot>> {
    if let Upper::Tmpfs(size) = upper {
        return Ok(Some(set_upper_tmpfs(plan, overlay, *size)));
    }
    if let Some((upper, work)) = upper.dirs(scratch)? {
        set_dir_option(plan, overlay, "upperdir", CWD.into(), &upper, &upper);
        set_dir_option(plan, overlay, "workdir", CWD.into(), &work, &work);
    }
    Ok(None)
}

/// Makes a tmpfs for the upper and the work directory, and sets both. Returns the tmpfs.
fn set_upper_tmpfs(plan: &mut Plan, overlay: Slot, size: Bytes) -> Slot {
    let (memory, at) = (plan.slot(), Path::new(UPPER));
    let (size, inodes) = Tmpfs::new("/").size(size).limits();
    let (size, inodes) = (size.to_string(), inodes.to_string());
    let options = [("source", "tmpfs"), ("size", &*size), ("nr_inodes", &*inodes), ("mode", "755")];
    emit_new_mount(plan, "tmpfs", &options, MountFlags::empty(), memory, at);
    for (key, name) in [("upperdir", "upper"), ("workdir", "work")] {
        make_dir(plan, Step::Scratch, memory.into(), name).at(name);
        set_dir_option(plan, overlay, key, memory.into(), Path::new(name), at);
    }
    memory
}

/// Sets an option of the overlay to a directory, looked up from the directory `dir`. The overlay
/// keeps the directory open from then on.
fn set_dir_option(plan: &mut Plan, overlay: Slot, key: &str, dir: Arg, path: &Path, at: &Path) {
    let slot = plan.slot();
    open_dir(plan, Step::OpenSource, dir, path, slot).at(at);
    set_fd_option(plan, overlay, key, slot, at);
    plan.close(Step::Mount, slot);
}

/// Attaches the overlay over `/`, and returns the slot that holds it. The tmpfs of its upper is
/// attached below: taking away one that is attached nowhere would have the kernel wait for all
/// processors.
pub(in crate::mount) fn attach_detached(plan: &mut Plan, detached: DetachedOverlay) -> Slot {
    let at = Path::new("/");
    for tree in detached.upper.into_iter().chain([detached.overlay]) {
        attach_by_path(plan, tree, at, at);
    }
    detached.upper.into_iter().for_each(|upper| plan.close(Step::MoveMount, upper));
    detached.overlay
}
