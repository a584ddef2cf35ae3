//! A root of the host's programs and libraries, and nothing else.

use std::path::{Path, PathBuf};

use super::etc::{NOBODY, emit_etc};
use super::from_host::NewRoot;
use super::host_paths::{ETC, host_paths};
use super::kept::{Wanted, copy_kept, make_new};
use super::rootfs::{Base, RootFs};
use crate::error::{Error, Result, Step};
use crate::mount::calls::attach_by_path;
use crate::mount::context::Context;
use crate::mount::flags::MountFlags;
use crate::mount::fs_context::emit_new_mount;
use crate::mount::host_tree::emit_tree_of_run;
use crate::mount::kinds::{Kind, Mount};
use crate::mount::paths::clean;
use crate::plan::{Made, Plan, Slot};
use crate::sys::shortage::is_shortage;

/// Mounts a tmpfs over `/`, binds the host's programs in it, and leaves a descriptor of it in
/// `root`.
///
/// `wanted`: what the sandbox needs of a root that the caller keeps, where it can be one.
pub(super) fn emit_programs(
    plan: &mut Plan,
    flags: MountFlags,
    root: Slot,
    context: Context,
    wanted: Option<Wanted>,
) -> Result<()> {
    let top = Path::new("/");
    if let Some(wanted) = wanted
        && let Some(copy) = copy_kept(&wanted)
    {
        let make = move || match copy_kept(&wanted) {
            Some(copy) => Ok(copy),
            None => make_new(listed()?, &wanted).map_err(|errno| Error::new(Step::OpenTree, errno).at("/")),
        };
        emit_tree_of_run(plan, Made::new(copy, make), top, root);
        attach_by_path(plan, root, top, top);
        return Ok(());
    }
    let options = [("source", "tmpfs"), ("size", "1m"), ("nr_inodes", "1024"), ("mode", "755")];
    emit_new_mount(plan, "tmpfs", &options, MountFlags::NO_SUID | MountFlags::NO_DEV, root, top);
    attach_by_path(plan, root, top, top);
    let mut new = NewRoot::new(root);
    for path in listed()? {
        new.emit_from_host(plan, flags, &path, context)?;
    }
    new.make_dirs(plan, Path::new("etc"));
    emit_etc(plan, root, context.user);
    Ok(())
}

/// Returns the paths that are shown if the host has them.
fn listed() -> Result<Vec<PathBuf>> {
    host_paths().map_err(|errno| {
        let error = Error::new(Step::OpenSource, errno).at(ETC);
        let hint = "a root of the host's programs shows the toolchains among its names: let the caller read them";
        if is_shortage(errno) { error } else { error.hint(hint) }
    })
}

/// Returns what a sandbox needs of a root that is kept. Returns nothing where the root has to be
/// made for the sandbox: something but the targets of these mounts is made in it, the sandbox's own
/// processes could write to it, or its files would belong to another than they do in a new one.
pub(in crate::mount) fn wanted(rootfs: &RootFs, mounts: &[Mount], context: Context) -> Option<Wanted> {
    let Context { user_ns, caller_copies, template, in_place, no_pivot, user, .. } = context;
    let is_common = matches!(rootfs.base, Base::Programs) && rootfs.read_only && rootfs.flags == MountFlags::QUIET;
    let is_made_by_caller = user_ns && caller_copies && !template && !in_place && !no_pivot;
    if !is_common || !is_made_by_caller || user != (NOBODY, NOBODY) {
        return None;
    }
    let mut targets: Vec<(PathBuf, bool)> = Vec::new();
    for mount in mounts {
        let is_file = match &mount.kind {
            Kind::Bind(bind) => !bind.source.is_dir(),
            Kind::File(_) => true,
            Kind::Dir | Kind::Symlink(_) | Kind::Node(_) | Kind::Raw(_) => return None,
            #[cfg(feature = "oci")]
            Kind::Again(_) => return None,
            Kind::Tmpfs(_)
            | Kind::Proc(_)
            | Kind::Dev(_)
            | Kind::Sysfs
            | Kind::Mqueue
            | Kind::Cgroupfs(_)
            | Kind::Overlay(_) => false,
        };
        let target = clean(&mount.target);
        if !targets.iter().any(|(above, _)| target.starts_with(above)) {
            targets.push((target, is_file));
        }
    }
    Some(Wanted { user, targets })
}
