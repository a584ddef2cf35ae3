//! A root of the host's programs and libraries, and nothing else.

use std::fs;
use std::path::Path;

use super::emit::{MOVE_MOUNT_F_EMPTY_PATH, attach, emit_bind};
use super::fsmount::emit_new_mount;
use super::{Bind, Context, MountFlags};
use crate::error::{Error, Result, Step};
use crate::plan::{PlaceFlags, Plan, Slot};

/// Where programs and libraries are: what is a link on the host, as most of them into /usr, is one inside. The last ones
/// before /etc belong to NixOS and Guix.
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

/// Leaves in `root` a descriptor of the new root, which stands on top of `/`.
pub(super) fn emit(plan: &mut Plan, flags: MountFlags, root: Slot, context: Context) -> Result<()> {
    let top = Path::new("/");
    let options = [("source", "tmpfs"), ("size", "1m"), ("nr_inodes", "1024"), ("mode", "755")];
    emit_new_mount(plan, "tmpfs", &options, MountFlags::NO_SUID | MountFlags::NO_DEV, root, top);
    let name = plan.string(top);
    attach(plan, root, libc::AT_FDCWD.into(), name.into(), MOVE_MOUNT_F_EMPTY_PATH, top);
    for path in PATHS.map(Path::new) {
        let Ok(meta) = fs::symlink_metadata(path) else { continue };
        if meta.is_symlink() {
            emit_link(plan, root, path)?;
        } else {
            let mut bind = Bind::new(path, path).read_only();
            if !flags.contains(MountFlags::NO_SUID) {
                bind = bind.suid();
            }
            emit_bind(plan, &bind, root, path, context)?;
        }
    }
    Ok(())
}

/// The same link. Those of /etc come after what stands there, so that the directory exists.
fn emit_link(plan: &mut Plan, root: Slot, path: &Path) -> Result<()> {
    let to = fs::read_link(path).map_err(|error| Error::io(Step::OpenSource, &error).at(path))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = plan.slot();
    super::emit::emit_target(plan, root, parent, PlaceFlags::empty(), dir);
    let (to, name) = (plan.string(to), plan.string(path.file_name().unwrap_or_default()));
    plan.call(Step::Mount, libc::SYS_symlinkat, [to.into(), dir.into(), name.into()]).at(path);
    plan.close(Step::Mount, dir);
    Ok(())
}
