//! A root of the host's programs and libraries, and nothing else.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result, Step};
use crate::mount::bind::{Bind, emit_bind};
use crate::mount::calls::{attach_by_path, emit_target, make_link};
use crate::mount::context::Context;
use crate::mount::flags::MountFlags;
use crate::mount::fs_context::emit_new_mount;
use crate::plan::{PlaceFlags, Plan, Slot};

/// The places of programs and libraries: a link on the host, as most of them into /usr, is a link
/// inside. The last ones before /etc belong to NixOS and Guix.
const PATHS: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
];

/// Mounts a tmpfs over `/`, binds the host's programs in it, and leaves a descriptor of it in
/// `root`.
pub(super) fn emit_programs(plan: &mut Plan, flags: MountFlags, root: Slot, context: Context) -> Result<()> {
    let top = Path::new("/");
    let options = [("source", "tmpfs"), ("size", "1m"), ("nr_inodes", "1024"), ("mode", "755")];
    emit_new_mount(plan, "tmpfs", &options, MountFlags::NO_SUID | MountFlags::NO_DEV, root, top);
    attach_by_path(plan, root, top, top);
    for path in PATHS.map(Path::new) {
        let Ok(meta) = fs::symlink_metadata(path) else { continue };
        if meta.is_symlink() {
            emit_link(plan, root, path)?;
        } else {
            let mut bind = Bind::new(path, path).read_only();
            if !flags.contains(MountFlags::NO_SUID) {
                bind = bind.suid();
            }
            emit_bind(plan, &bind, root, path, PlaceFlags::empty(), context)?;
        }
    }
    Ok(())
}

/// Makes the same link as on the host. Those of /etc come after what stands there, so that the
/// directory exists.
fn emit_link(plan: &mut Plan, root: Slot, path: &Path) -> Result<()> {
    let to = fs::read_link(path).map_err(|error| Error::io(Step::OpenSource, &error).at(path))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = plan.slot();
    emit_target(plan, root, parent, PlaceFlags::empty(), dir);
    make_link(plan, Step::Mount, to, dir.into(), path.file_name().unwrap_or_default()).at(path);
    plan.close(Step::Mount, dir);
    Ok(())
}
