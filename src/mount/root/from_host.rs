//! A path of the host in a root of its programs, at the same place.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result, Step};
use crate::mount::bind::{Bind, emit_bind};
use crate::mount::calls::{emit_target, make_link};
use crate::mount::context::Context;
use crate::mount::flags::MountFlags;
use crate::plan::{PlaceFlags, Plan, Slot};

/// Shows what the host has at `path`, if anything: a link as the same link, else by a bind.
pub(super) fn emit_from_host(
    plan: &mut Plan,
    flags: MountFlags,
    root: Slot,
    path: &Path,
    context: Context,
) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if meta.is_symlink() {
        return emit_link(plan, root, path);
    }
    let mut bind = Bind::new(path, path).read_only();
    if !flags.contains(MountFlags::NO_SUID) {
        bind = bind.suid();
    }
    emit_bind(plan, &bind, root, path, PlaceFlags::empty(), context)
}

/// Makes the same link as on the host.
fn emit_link(plan: &mut Plan, root: Slot, path: &Path) -> Result<()> {
    let to = fs::read_link(path).map_err(|error| Error::io(Step::OpenSource, &error).at(path))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = plan.slot();
    emit_target(plan, root, parent, PlaceFlags::empty(), dir);
    make_link(plan, Step::Mount, to, dir.into(), path.file_name().unwrap_or_default()).at(path);
    plan.close(Step::Mount, dir);
    Ok(())
}
