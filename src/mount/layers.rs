//! An overlay for a sandbox that starts from the [`template`](super::template): it is put together by descriptors, while the
//! setup stands among the caller's mounts, and is attached once it has left them.

use std::path::Path;

use super::emit::{CWD, MOVE_MOUNT_F_EMPTY_PATH, UPPER, attach, open_dir, set_flags, source, upper_dirs, whole};
use super::fsmount::{emit_new_mount, make, open, set, set_fd};
use super::root::{Base, RootFs, Upper};
use super::{Context, MountFlags, Policy, Tmpfs};
use crate::error::{Result, Step};
use crate::plan::{Arg, Plan, Slot};

/// What stands ready, attached nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    overlay: Slot,
    /// The file system in memory that takes what is written.
    upper: Option<Slot>,
}

impl Policy {
    /// Writes the ops that put the overlay of the root together. To be called before the mount namespace is left.
    pub(crate) fn emit_ahead(
        &self,
        plan: &mut Plan,
        context: Context,
        scratch: Option<&Path>,
    ) -> Result<Option<Ready>> {
        match &self.root {
            Some(RootFs { base: Base::Overlay(lowers), upper, flags, .. }) if context.template => {
                let at = Path::new("/");
                let overlay = open(plan, "overlay", at);
                set(plan, overlay, "source", "overlay", at);
                for (key, value) in whole() {
                    set(plan, overlay, key, value, at);
                }
                for layer in lowers {
                    let layer = source(layer)?;
                    take(plan, overlay, "lowerdir+", CWD.into(), &layer, &layer);
                }
                let ready = Ready { overlay: plan.slot(), upper: emit_upper(plan, overlay, upper, scratch)? };
                make(plan, overlay, *flags, ready.overlay, at);
                if let Some(upper) = ready.upper {
                    // The overlay writes by a mount of its own. This one stays below the root: who takes that away, which
                    // takes CAP_SYS_ADMIN, finds nothing to use.
                    let closed = MountFlags::READ_ONLY | MountFlags::QUIET | MountFlags::NO_EXEC;
                    set_flags(plan, upper, closed, MountFlags::empty(), false, Path::new(UPPER));
                }
                Ok(Some(ready))
            }
            _ => Ok(None),
        }
    }
}

/// Tells the overlay of its upper and its work directory. Gives the file system that was made for them.
fn emit_upper(plan: &mut Plan, overlay: Slot, upper: &Upper, scratch: Option<&Path>) -> Result<Option<Slot>> {
    if let Upper::Tmpfs(size) = upper {
        return Ok(Some(emit_memory(plan, overlay, &Tmpfs::new("/").size(*size))));
    }
    if let Some((upper, work)) = upper_dirs(upper, scratch)? {
        take(plan, overlay, "upperdir", CWD.into(), &upper, &upper);
        take(plan, overlay, "workdir", CWD.into(), &work, &work);
    }
    Ok(None)
}

fn emit_memory(plan: &mut Plan, overlay: Slot, tmpfs: &Tmpfs) -> Slot {
    let (memory, at) = (plan.slot(), Path::new(UPPER));
    let (size, inodes) = tmpfs.limits();
    let (size, inodes) = (size.to_string(), inodes.to_string());
    let options = [("source", "tmpfs"), ("size", &*size), ("nr_inodes", &*inodes), ("mode", "755")];
    emit_new_mount(plan, "tmpfs", &options, MountFlags::empty(), memory, at);
    for (key, name) in [("upperdir", "upper"), ("workdir", "work")] {
        let text = plan.string(name);
        plan.call(Step::Scratch, libc::SYS_mkdirat, [memory.into(), text.into(), 0o755.into()]).at(name);
        take(plan, overlay, key, memory.into(), Path::new(name), at);
    }
    memory
}

/// Tells the overlay of a directory that is found from `dir`. It holds that from then on.
fn take(plan: &mut Plan, overlay: Slot, key: &str, dir: Arg, path: &Path, at: &Path) {
    let slot = plan.slot();
    open_dir(plan, Step::OpenSource, dir, path, slot).at(at);
    set_fd(plan, overlay, key, slot, at);
    plan.close(Step::Mount, slot);
}

/// Puts the overlay over `/`, and gives the slot that holds it. The file system of its upper lies below: taking one away that is
/// attached nowhere would have the kernel wait for all processors.
pub(super) fn attach_ready(plan: &mut Plan, ready: Ready) -> Slot {
    let at = Path::new("/");
    let top = plan.string(at);
    for tree in ready.upper.into_iter().chain([ready.overlay]) {
        attach(plan, tree, CWD.into(), top.into(), MOVE_MOUNT_F_EMPTY_PATH, at);
    }
    ready.upper.into_iter().for_each(|upper| plan.close(Step::MoveMount, upper));
    ready.overlay
}
