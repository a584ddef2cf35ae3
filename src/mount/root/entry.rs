//! The entry into the new root: pivot_root(2), or chroot(2) in the template.

use crate::error::Step;
use crate::mount::context::Context;
use crate::plan::{Plan, Slot};

/// Makes the new root the root. In the template nothing of the host lies below it, and the kernel's
/// two waits for all processors that taking an old root off costs are saved. `has_staging`: the
/// staging file system of an overlay lies below.
pub(in crate::mount) fn emit_entry(plan: &mut Plan, root: Slot, context: Context, has_staging: bool) {
    if !context.template {
        return emit_pivot(plan, root, has_staging);
    }
    let here = plan.string(".");
    plan.call(Step::PivotRoot, libc::SYS_fchdir, [root.into()]).at("/");
    plan.call(Step::PivotRoot, libc::SYS_chroot, [here.into()]).at("/");
}

/// Calls pivot_root(2) with both arguments ".": the old root ends up on top of the new one, and is
/// taken off. A staging file system is mounted on the old root, and lies on top of that.
fn emit_pivot(plan: &mut Plan, root: Slot, has_staging: bool) {
    let stacked = 1 + u64::from(has_staging);
    let here = plan.string(".");
    plan.call(Step::PivotRoot, libc::SYS_fchdir, [root.into()]).at("/");
    plan.call(Step::PivotRoot, libc::SYS_pivot_root, [here.into(), here.into()]).at("/");
    plan.detach_old_root(stacked.into());
    let top = plan.string("/");
    plan.call(Step::Cwd, libc::SYS_chdir, [top.into()]).at("/");
}
