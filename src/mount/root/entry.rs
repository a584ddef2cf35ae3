//! The entry into the new root: pivot_root(2), or chroot(2) in the template.

use crate::error::Step;
use crate::mount::context::Context;
use crate::plan::{Plan, Slot};

/// Makes the new root the root. In the template nothing of the host lies below it, and the kernel's
/// two waits for all processors that taking an old root off costs are saved. `stacked`: the
/// number of file systems that were mounted over the old root.
pub(in crate::mount) fn emit_entry(plan: &mut Plan, root: Slot, context: Context, stacked: u64) {
    if !context.template {
        return emit_pivot(plan, root, stacked);
    }
    let here = plan.string(".");
    plan.call(Step::PivotRoot, libc::SYS_fchdir, [root.into()]).at("/");
    plan.call(Step::PivotRoot, libc::SYS_chroot, [here.into()]).at("/");
}

/// Calls pivot_root(2) with both arguments ".": the old root ends up on top of the new one, and is
/// taken off, with the file systems that are `stacked` on it.
fn emit_pivot(plan: &mut Plan, root: Slot, stacked: u64) {
    let here = plan.string(".");
    plan.call(Step::PivotRoot, libc::SYS_fchdir, [root.into()]).at("/");
    plan.call(Step::PivotRoot, libc::SYS_pivot_root, [here.into(), here.into()]).at("/");
    plan.detach_old_root((1 + stacked).into());
    let top = plan.string("/");
    plan.call(Step::Cwd, libc::SYS_chdir, [top.into()]).at("/");
}
