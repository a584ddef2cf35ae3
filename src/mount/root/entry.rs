//! The entry into the new root: pivot_root(2), or chroot(2) in the template, or over the host's
//! root.

use std::path::Path;

use nix::errno::Errno;

use crate::error::{Error, Result, Step};
use crate::mount::calls::attach_by_path;
use crate::mount::context::Context;
use crate::plan::{Plan, Slot};
use crate::proc::mountinfo;

/// Makes the new root the root. In the template nothing of the host lies below it, and the kernel's
/// two waits for all processors that taking an old root off costs are saved. `stacked`: the
/// number of file systems that were mounted over the old root.
pub(in crate::mount) fn emit_entry(plan: &mut Plan, root: Slot, context: Context, stacked: u64) {
    if !context.template {
        return emit_pivot(plan, root, stacked);
    }
    emit_chroot(plan, root);
}

fn emit_chroot(plan: &mut Plan, root: Slot) {
    let here = plan.string(".");
    plan.call(Step::PivotRoot, libc::SYS_fchdir, [root.into()]).at("/");
    plan.call(Step::PivotRoot, libc::SYS_chroot, [here.into()]).at("/");
}

/// Makes the new root the root where pivot_root(2) takes off no root, on an initramfs: it lies over
/// the host's, and is entered by chroot(2). As the caller's root is that of its mount namespace
/// ([`caller_root`](crate::mount::caller_root)), what is mounted on it is the topmost that `..` leads
/// to: no directory above is reached, whatever is kept open across a further chroot(2). Only who
/// takes it off, umount(2), sees what lies below.
///
/// The host's procfs and sysfs would still be in the mount namespace, uncovered. A user namespace
/// made inside could then mount one of its own that shows what is masked here: so they are taken
/// off, or covered where they are locked.
pub(in crate::mount) fn emit_cover(plan: &mut Plan, root: Slot, context: Context) -> Result<()> {
    let place = "/proc/self/mountinfo";
    let text = mountinfo::read(place).map_err(|error| Error::io(Step::PivotRoot, &error).at(place))?;
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    for at in mountinfo::whole_kernel_mounts(&text) {
        let (path, kind, data) = (plan.string(&at), plan.string("tmpfs"), plan.string("size=4k"));
        let detach = libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
        // EINVAL: the mount is locked. ENOENT: another mount hides it, and it cannot be covered either.
        plan.call(Step::DetachOldRoot, libc::SYS_umount2, [path.into(), detach.into()])
            .at(&at)
            .tolerate(Errno::EINVAL)
            .tolerate(Errno::ENOENT)
            .skip_on_success(1);
        let args = [kind.into(), path.into(), kind.into(), flags.into(), data.into()];
        plan.call(Step::DetachOldRoot, libc::SYS_mount, args).at(&at).hint(
            "a procfs or sysfs of the host that another mount hides would stay: unmount that, or leave out no_pivot()",
        );
    }
    if context.in_place {
        let top = Path::new("/");
        attach_by_path(plan, root, top, top);
    }
    emit_chroot(plan, root);
    Ok(())
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
