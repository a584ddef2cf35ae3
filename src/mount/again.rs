//! A part of the sandbox's own root, with what is mounted there by then, at a second place.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::calls::{attach_to, copy_open_tree, emit_target, map_ids, set_attributes, set_propagation};
use super::context::Context;
use super::flags::MountFlags;
use super::mount_ids::MountIds;
use super::named::emit_named;
use super::options::MountOptions;
use crate::error::{Error, Problem, Result, Step};
use crate::plan::{PlaceFlags, Plan, PlanFd, Slot};
use crate::sys::mount::Relation;

/// A bind whose source is inside: what a container's configuration calls by the path that its root
/// has on the host. The source is looked up in the root that is being made, at its place in the
/// list, and never on the host: no link of a hostile root leads out.
#[derive(Debug, Clone)]
pub(crate) struct Again {
    /// The absolute path inside.
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    options: MountOptions,
}

impl Again {
    /// Shows `source` at `target`, both of them inside. Its flags are those that the words name.
    pub(crate) fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>, options: MountOptions) -> Self {
        Again { source: source.into(), target: target.into(), options: options.replacing() }
    }

    /// Returns whether the program can write to any of the mounts that are shown.
    pub(super) fn is_writable(&self) -> bool {
        !self.options.all.sets(MountFlags::READ_ONLY) && !self.is_sealed()
    }

    /// Returns whether any of the mounts that are shown is read-only.
    pub(super) fn protects(&self) -> bool {
        self.options.is_read_only() || self.options.all.sets(MountFlags::READ_ONLY)
    }

    fn is_sealed(&self) -> bool {
        self.options.is_read_only() && !self.options.all.clears(MountFlags::READ_ONLY) && !self.is_recursive()
    }

    fn is_recursive(&self) -> bool {
        self.options.bind == Some(true)
    }

    /// Returns the id maps of the mount.
    pub(super) fn ids(&self) -> Option<&MountIds> {
        self.options.ids.as_ref()
    }

    /// Returns the contradictions in the options.
    pub(super) fn invalid(&self) -> Vec<Problem> {
        self.options.invalid_for_bind()
    }
}

/// Shows the part of the root at the target `at`. `pins`: see [`pinning`](super::pinning).
pub(super) fn emit_again(
    plan: &mut Plan,
    again: &Again,
    root: Slot,
    at: &Path,
    pins: PlaceFlags,
    context: Context,
) -> Result<()> {
    let (found, place, from, tree) = (plan.slot(), plan.slot(), plan.slot(), plan.slot());
    let source = again.source.as_path();
    // The target is made as what the source is. Only the stub can find out what that is.
    emit_source(plan, root, source, PlaceFlags::empty(), found).tolerate(Errno::ENOTDIR).skip_on_tolerated(2);
    plan.close(Step::OpenSource, found);
    emit_target(plan, root, at, pins, place).skip_on_success(1);
    emit_target(plan, root, at, pins | PlaceFlags::FILE, place);
    // It is looked up again, as the directories on the way to the target may be pinned by now, with
    // what is mounted below them. Wherever it leads to, it is inside.
    emit_source(plan, root, source, PlaceFlags::FILE, from);
    copy_open_tree(plan, Step::OpenTree, from, again.is_recursive(), tree, source);
    plan.close(Step::OpenTree, from);
    emit_ids(plan, again, tree, context)?;
    if again.options.relation(context.user_ns) == Relation::Private {
        // A kernel without the call (5.12) has no binds that are tied to the host, either.
        set_propagation(plan, tree, libc::MS_PRIVATE, true, at).may_be_missing();
    }
    attach_to(plan, Step::MoveMount, tree, place, at);
    plan.close(Step::MoveMount, place);
    if let Some(named) = again.options.replaced() {
        emit_named(plan, named, (tree, None), at, context)?;
    }
    set_attributes(plan, tree, again.options.all, MountFlags::empty(), true, at);
    for propagation in &again.options.propagation {
        set_propagation(plan, tree, propagation.ms(), propagation.is_recursive(), at);
    }
    plan.close(Step::MoveMount, tree);
    Ok(())
}

/// Opens the source, which is there already.
fn emit_source<'p>(
    plan: &'p mut Plan,
    root: Slot,
    source: &Path,
    kind: PlaceFlags,
    slot: Slot,
) -> crate::plan::Added<'p> {
    emit_target(plan, root, source, PlaceFlags::EXISTING | kind, slot)
        .hint("the source is one inside the root, with the mounts of the list before it, and has to exist there")
}

/// Maps the ids of the copy, while it is not mounted anywhere: mount_setattr(2), by root of the
/// host.
fn emit_ids(plan: &mut Plan, again: &Again, tree: Slot, context: Context) -> Result<()> {
    let refused = |reason: &str| {
        let remedy = "leave the maps out, or name a source outside of the root";
        Err(Error::refused(vec![Problem::unsupported("mount", reason, remedy)]))
    };
    match again.ids() {
        None => Ok(()),
        Some(_) if context.user_ns => refused("inside a user namespace, ids of what is inside already are not mapped"),
        Some(MountIds::Sandbox) => refused("ids of a source inside need maps of the mount's own"),
        Some(MountIds::Given(given)) => {
            let number = plan.fd(PlanFd::Shared(given.user_ns()?));
            map_ids(plan, tree, number, again.options.recursive_ids, &again.source);
            Ok(())
        }
    }
}
