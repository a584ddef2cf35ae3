//! A root of the host's programs and libraries, and nothing else.

use std::fs;
use std::path::Path;

use super::fsmount::lower_new_mount;
use super::lower::{MOVE_MOUNT_F_EMPTY_PATH, attach, lower_bind};
use super::{Bind, Context, MountFlags};
use crate::error::{Error, Result, Step};
use crate::plan::{Plan, Slot};

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
pub(super) fn lower(plan: &mut Plan, flags: MountFlags, root: Slot, context: Context) -> Result<()> {
    let top = Path::new("/");
    let options = [("source", "tmpfs"), ("size", "1m"), ("nr_inodes", "1024"), ("mode", "755")];
    lower_new_mount(plan, "tmpfs", &options, MountFlags::NO_SUID | MountFlags::NO_DEV, root, top);
    let name = plan.string(top);
    attach(plan, root, libc::AT_FDCWD.into(), name.into(), MOVE_MOUNT_F_EMPTY_PATH, top);
    for path in PATHS.map(Path::new) {
        let Ok(meta) = fs::symlink_metadata(path) else { continue };
        if meta.is_symlink() {
            lower_link(plan, root, path)?;
        } else {
            let mut bind = Bind::new(path, path).read_only();
            if !flags.contains(MountFlags::NO_SUID) {
                bind = bind.suid();
            }
            lower_bind(plan, &bind, root, path, context)?;
        }
    }
    Ok(())
}

/// The same link. Those of /etc come after what stands there, so that the directory exists.
fn lower_link(plan: &mut Plan, root: Slot, path: &Path) -> Result<()> {
    let to = fs::read_link(path).map_err(|error| Error::io(Step::OpenSource, &error).at(path))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = plan.slot();
    super::lower::lower_target(plan, root, parent, 0, dir);
    let (to, name) = (plan.string(to), plan.string(path.file_name().unwrap_or_default()));
    plan.call(Step::Mount, libc::SYS_symlinkat, [to.into(), dir.into(), name.into()]).at(path);
    plan.close(Step::Mount, dir);
    Ok(())
}
