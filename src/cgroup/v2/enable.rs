//! Enables controllers from the top of the tree down.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::cgroup::controllers::Controllers;
use crate::cgroup::kernfs::{self, failed};
use crate::cgroup::remedies::DELEGATE;
use crate::error::{Result, Step};

/// Returns the directories from `mount` down to `base`, both included.
fn chain(mount: &Path, base: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<_> = base.ancestors().take_while(|dir| dir.starts_with(mount)).map(PathBuf::from).collect();
    dirs.reverse();
    dirs
}

fn listed(text: &str) -> Controllers {
    text.split_whitespace().map(Controllers::named).collect()
}

/// Returns whether processes in `dir` prevent enabling controllers below it. The kernel itself
/// refuses (EBUSY) only for memory and io. cpu, cpuset and pids are threaded controllers: enabling
/// one below a group with processes succeeds, and turns the group into the root of a threaded
/// subtree, in which no child group can take processes any more. The root group, which alone has no
/// `cgroup.type` (4.14), is exempt.
fn holds_processes(dir: BorrowedFd<'_>) -> nix::Result<bool> {
    match kernfs::read_optional(dir, c"cgroup.type")? {
        Some(_) => Ok(!kernfs::read(dir, c"cgroup.procs")?.is_empty()),
        None => Ok(false),
    }
}

const INTERNAL: &str = "v2 wants processes in the leaves only: name another group with cgroup_parent (root: any, as in \
                        /sandboxes), or start the caller in a child group of its delegated one and name that (systemd \
                        254: DelegateSubgroup=)";
const THREADED: &str = "the group is part of a threaded subtree: name another with cgroup_parent";
const PRIVILEGED: &str = "cpuset is not enabled over the heads of more privileged processes: enable it on delegation, \
                          or keep those of other users out of the group";

/// Enables missing controllers for the children of `base`, top down. The function never moves the
/// caller into another group: the caller's place is its own decision, and the limits of its group
/// shall apply to everything that it starts.
pub(in crate::cgroup) fn enable(mount: &Path, base: &Path, wanted: Controllers) -> Result<()> {
    const FILE: &CStr = c"cgroup.subtree_control";
    let wanted = wanted - Controllers::INHERENT;
    for dir in chain(mount, base) {
        let fail = |errno| failed(Step::SetLimit, errno, &dir, FILE);
        let fd = kernfs::open_dir(&dir).map_err(fail)?;
        let missing = wanted - listed(&kernfs::read(fd.as_fd(), FILE).map_err(fail)?);
        if missing.is_empty() {
            // The write of another thread or process lists the controllers before it has made the
            // files of the children. A write that changes nothing needs no empty group, and waits
            // for the other one.
            if dir == base {
                let _ = kernfs::write(fd.as_fd(), FILE, &switched_on(wanted));
            }
            continue;
        }
        if holds_processes(fd.as_fd()).map_err(fail)? {
            return Err(fail(Errno::EBUSY).hint(INTERNAL));
        }
        kernfs::write(fd.as_fd(), FILE, &switched_on(missing)).map_err(|errno| match errno {
            Errno::EBUSY => fail(errno).hint(INTERNAL),
            // Enabling cpuset moves all processes below to a new cpuset, as if by
            // sched_setaffinity(2).
            Errno::EPERM if missing.contains(Controllers::CPUSET) => fail(errno).hint(PRIVILEGED),
            Errno::EACCES | Errno::EPERM => fail(errno).hint(DELEGATE),
            Errno::EOPNOTSUPP => fail(errno).hint(THREADED),
            _ => fail(errno),
        })?;
    }
    Ok(())
}

fn switched_on(controllers: Controllers) -> String {
    controllers.iter().map(|c| format!("+{}", c.name())).collect::<Vec<_>>().join(" ")
}

/// Returns why `controller` cannot be enabled below `base`: the reason with its path, and the
/// remedy. Groups that are missing, or that another sandbox removes meanwhile, will be made.
pub(in crate::cgroup) fn obstacle(
    mount: &Path,
    base: &Path,
    controller: Controllers,
) -> Option<(String, &'static str)> {
    const FILE: &CStr = c"cgroup.subtree_control";
    for dir in chain(mount, base).iter().rev() {
        let Ok(fd) = kernfs::open_dir(dir) else { continue };
        match kernfs::read(fd.as_fd(), FILE) {
            Ok(enabled) if listed(&enabled).contains(controller) => return None,
            Err(Errno::ENOENT | Errno::ENODEV) => continue,
            Ok(_) | Err(_) => {}
        }
        let (name, dir) = (controller.name(), dir.display());
        if holds_processes(fd.as_fd()).unwrap_or(false) {
            return Some((format!("{name} is not enabled below {dir}, and processes live in it"), INTERNAL));
        }
        match kernfs::can_write(&fd, FILE) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(_) => {
                let reason =
                    format!("{name} is not enabled below {dir}, and its cgroup.subtree_control is not writable");
                return Some((reason, DELEGATE));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes plain files in place of a hierarchy: `mount` with memory enabled below, then `a`, then
    /// `a/b`.
    fn tree(name: &str) -> PathBuf {
        let mount = std::env::temp_dir().join(format!("ringfence-v2-{name}-{}", std::process::id()));
        std::fs::create_dir_all(mount.join("a/b")).unwrap();
        for (dir, file, text) in [
            ("", "cgroup.subtree_control", "memory\n"),
            ("a", "cgroup.subtree_control", "\n"),
            ("a/b", "cgroup.subtree_control", "\n"),
            ("", "cgroup.procs", "1\n"),
            ("a", "cgroup.procs", ""),
            ("a/b", "cgroup.procs", ""),
            ("a", "cgroup.type", "domain\n"),
            ("a/b", "cgroup.type", "domain\n"),
        ] {
            std::fs::write(mount.join(dir).join(file), text).unwrap();
        }
        mount
    }

    #[test]
    fn controllers_are_enabled_top_down_where_they_are_missing() {
        let mount = tree("enable");
        enable(&mount, &mount.join("a/b"), Controllers::MEMORY | Controllers::PIDS).unwrap();
        let read = |dir| std::fs::read_to_string(mount.join(dir).join("cgroup.subtree_control")).unwrap();
        let written = ["", "a", "a/b"].map(read);
        std::fs::remove_dir_all(&mount).unwrap();
        // A write to a plain file keeps the bytes that it does not overwrite.
        assert_eq!(written, ["+pidsy\n", "+memory +pids", "+memory +pids"]);
    }

    #[test]
    fn a_level_that_is_being_removed_is_no_obstacle() {
        let mount = tree("gone");
        // A directory of a hierarchy that is open while it is removed has no files any more.
        std::fs::remove_file(mount.join("a/b/cgroup.subtree_control")).unwrap();
        let found = obstacle(&mount, &mount.join("a/b"), Controllers::MEMORY);
        std::fs::remove_dir_all(&mount).unwrap();
        assert_eq!(found, None);
    }

    #[test]
    fn nothing_is_enabled_over_the_heads_of_processes() {
        let mount = tree("busy");
        std::fs::write(mount.join("a/cgroup.procs"), "77\n").unwrap();
        let error = enable(&mount, &mount.join("a"), Controllers::PIDS).unwrap_err();
        let control = std::fs::read_to_string(mount.join("a/cgroup.subtree_control")).unwrap();
        let reason = obstacle(&mount, &mount.join("a"), Controllers::PIDS);
        let free = obstacle(&mount, &mount, Controllers::MEMORY);
        std::fs::remove_dir_all(&mount).unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        assert_eq!(control, "\n");
        assert!(reason.unwrap().0.contains("processes live in it"));
        assert_eq!(free, None);
    }
}
