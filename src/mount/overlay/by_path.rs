//! Overlays that are mounted by mount(2), which takes the paths of their layers.

use std::path::{Path, PathBuf};

use super::builder::{Overlay, RootOverlay, Upper};
use super::idmapped::stage_layers;
use super::options::option_string;
use super::staging::{
    LAYERS, UPPER, UPPER_IN_MEMORY, are_long, enter_top, mount_staging, size_for, stage_dir, stage_links,
    stage_scratch, stage_upper_links,
};
use crate::error::{Result, Step};
use crate::mount::calls::{CWD, enter_target, mount_here, open_dir, unmount_top};
use crate::mount::context::Context;
use crate::mount::paths::source;
use crate::plan::{PlaceFlags, Plan, Slot};
use crate::units::Bytes;

/// Mounts an overlay of the list at the target `at`. `pins`: see
/// [`pinning`](crate::mount::pinning).
pub(in crate::mount) fn emit_overlay(
    plan: &mut Plan,
    overlay: &Overlay,
    root: Slot,
    at: &Path,
    pins: PlaceFlags,
    context: Context,
) -> Result<()> {
    let mut lowers: Vec<PathBuf> = overlay.lowers.iter().map(|dir| source(dir)).collect::<Result<_>>()?;
    let mut upper = match &overlay.upper {
        Some((upper, work)) => Some((source(upper)?, source(work)?)),
        None => None,
    };
    let linked = !overlay.id_mapped && are_long(&lowers);
    let has_staging = overlay.id_mapped || linked || overlay.memory.is_some();
    if has_staging {
        let links = if overlay.id_mapped || linked { size_for(&lowers).get() } else { 0 };
        let (memory, name) = overlay.memory.map_or((0, LAYERS), |size| (size.get(), UPPER_IN_MEMORY));
        mount_staging(plan, Bytes::new(memory.saturating_add(links)), name);
        if overlay.id_mapped {
            lowers = stage_layers(plan, &lowers, upper.is_some() || overlay.memory.is_some())?;
        } else if linked {
            upper = upper.map(|upper| stage_upper_links(plan, &upper));
            lowers = stage_links(plan, &lowers);
        }
    }
    if overlay.memory.is_some() {
        upper = Some(stage_upper(plan, lowers.first().map(PathBuf::as_path)));
    }
    let options = option_string(&lowers, upper.as_ref(), context)?;
    enter_target(plan, root, at, pins);
    mount_here(plan, "overlay".as_ref(), "overlay".as_ref(), overlay.flags.ms(), &options, at);
    if has_staging {
        unmount_top(plan);
    }
    Ok(())
}

/// Makes an upper and a work directory in the staging file system, and returns their paths. The
/// upper gets the attributes of the layer below it, whose place it takes.
fn stage_upper(plan: &mut Plan, below: Option<&Path>) -> (PathBuf, PathBuf) {
    let (upper, work) = (stage_dir(plan, "/../upper"), stage_dir(plan, "/../work"));
    if let Some(below) = below {
        let (from, to) = (plan.slot(), plan.slot());
        open_dir(plan, Step::OpenSource, CWD.into(), below, from).at(below);
        open_dir(plan, Step::Scratch, CWD.into(), &upper, to).at(UPPER_IN_MEMORY);
        plan.copy_attributes(from, to).at(below);
        plan.close(Step::Scratch, from);
        plan.close(Step::Scratch, to);
    }
    (upper, work)
}

/// Mounts an overlay over `/`, and leaves the top directory of the overlay in `root`. Returns
/// whether a staging file system stays below.
///
/// mount(2) on `/` puts the mount on top of the root without entering the mount, and `/..` leads
/// there.
pub(in crate::mount) fn emit_root_overlay(
    plan: &mut Plan,
    overlay: RootOverlay<'_>,
    root: Slot,
    context: Context,
    scratch: Option<&Path>,
) -> Result<bool> {
    let mut lowers: Vec<PathBuf> = overlay.lowers.iter().map(|dir| source(dir)).collect::<Result<_>>()?;
    let linked = !overlay.id_mapped && are_long(&lowers);
    let mut has_staging = true;
    let upper = match (overlay.upper, scratch) {
        (Upper::Scratch(_), Some(scratch)) if context.other_user => {
            mount_staging(plan, size_for(&lowers), UPPER);
            let layers = stage_scratch(plan, scratch)?;
            Some((layers.join("upper"), layers.join("work")))
        }
        (Upper::Tmpfs(size), _) => {
            let links = if linked { size_for(&lowers) } else { Bytes::new(0) };
            mount_staging(plan, Bytes::new(size.get().saturating_add(links.get())), UPPER);
            Some((stage_dir(plan, "/../upper"), stage_dir(plan, "/../work")))
        }
        (upper, scratch) => {
            has_staging = linked || overlay.id_mapped;
            if has_staging {
                mount_staging(plan, size_for(&lowers), LAYERS);
            } else {
                enter_top(plan);
            }
            let upper = upper.dirs(scratch)?;
            if linked { upper.map(|upper| stage_upper_links(plan, &upper)) } else { upper }
        }
    };
    if overlay.id_mapped {
        lowers = stage_layers(plan, &lowers, upper.is_some())?;
    } else if linked {
        lowers = stage_links(plan, &lowers);
    }
    let options = option_string(&lowers, upper.as_ref(), context)?;
    let fstype = "overlay".as_ref();
    mount_here(plan, fstype, fstype, overlay.flags.ms(), &options, Path::new("/"));
    open_dir(plan, Step::Mount, CWD.into(), "/..", root).at("/..");
    Ok(has_staging)
}
