//! Checks whether the caller may make groups in a hierarchy and move processes into them.

use std::ffi::CStr;
use std::path::Path;

use caps::{CapSet, Capability};
use nix::errno::Errno;

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::kernfs::{can_write, nearest, open_dir};
use super::remedies::{DELEGATE, DELEGATE_V1};
use super::{devices, v2};

#[cfg(feature = "oci")]
impl super::host::Host {
    /// Returns whether the caller may make the group at `path` in any hierarchy.
    pub(crate) fn may_make(&self, path: &Path) -> bool {
        let takes = |hierarchy: &Hierarchy| hierarchy.creation_obstacle(Controllers::FREEZER, path.parent()).is_none();
        self.hierarchies.iter().any(takes)
    }
}

impl Hierarchy {
    /// Returns why no group with `controller` can be made below `parent`, and the remedy.
    pub(super) fn creation_obstacle(
        &self,
        controller: Controllers,
        parent: Option<&Path>,
    ) -> Option<(String, &'static str)> {
        let Some(base) = self.base(parent) else {
            let reason = format!("{} does not show the caller's own group", self.mount.display());
            return Some((reason, "name a visible group with cgroup_parent"));
        };
        let Some((dir, fd)) = nearest(&base).filter(|(dir, _)| dir.starts_with(&self.mount)) else {
            return Some(match open_dir(&self.mount) {
                Err(errno @ (Errno::EMFILE | Errno::ENFILE)) => {
                    let reason = format!("{} cannot be opened: {}", base.display(), errno.desc());
                    (reason, "raise the caller's soft limit of open files (RLIMIT_NOFILE)")
                }
                _ => (format!("{} cannot be opened", base.display()), "make the mount accessible"),
            });
        };
        match can_write(&fd, c".") {
            Ok(()) => {}
            Err(Errno::EROFS) => {
                let reason = format!("{} is mounted read-only", dir.display());
                return Some((reason, "mount it writable (container engines: a private cgroup namespace, privileged)"));
            }
            Err(_) => {
                let remedy = if self.version == Version::V1 { DELEGATE_V1 } else { DELEGATE };
                return Some((format!("{} is not writable", dir.display()), remedy));
            }
        }
        if self.version == Version::V1 {
            let privileged = || caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false);
            let denied = controller == Controllers::DEVICES && !privileged();
            return denied.then(|| ("writing devices.deny needs CAP_SYS_ADMIN".to_owned(), "run as root"));
        }
        let obstacle = match controller {
            inherent if Controllers::INHERENT.contains(inherent) => None,
            Controllers::DEVICES => devices::filter::obstacle_above(&self.mount, &base),
            _ => v2::obstacle(&self.mount, &base, controller),
        };
        obstacle.or_else(|| self.move_obstacle(&base))
    }

    /// Returns why the caller may not move processes to `base`, and the remedy. On v2, moving a
    /// process, or cloning it into a group, needs write access to `cgroup.procs` of the nearest
    /// common ancestor of both groups.
    pub(super) fn move_obstacle(&self, base: &Path) -> Option<(String, &'static str)> {
        let own = self.own.as_deref()?;
        let common = own.ancestors().find(|dir| base.starts_with(dir))?;
        let (_, fd) = nearest(common)?;
        const PROCS: &CStr = c"cgroup.procs";
        can_write(&fd, PROCS).err()?;
        let reason = format!(
            "processes cannot be moved to {}: {}/cgroup.procs is not writable",
            base.display(),
            common.display()
        );
        Some((reason, DELEGATE))
    }
}
