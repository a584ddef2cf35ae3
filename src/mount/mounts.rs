//! The mounts that the builder has been asked for.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use super::disk_limit::{self, DiskLimit};
use super::kinds::{Kind, Mount};
use super::made::{has_no_effect, stays_on_host};
use super::memory_file::Missing;
use super::mount_ids::{GivenIds, MountIds};
use super::overlay::builder::{Upper, too_many_layers};
use super::root::{Base, RootFs, bind_count};
use crate::error::{Problem, Result};
use crate::idmap::IdMap;
use crate::plan::has_nul;
use crate::sys::mount::Relation;
use crate::units::Bytes;

/// The most bytes of all files from memory together: the stub gets them with its plan.
const FILES_MAX: Bytes = Bytes::mib(64);
/// The most binds that are tied to mounts of the host: the setup holds their trees at the same
/// time.
const TIED_MAX: usize = 24;
/// The most mounts of the host among the default ones: /sys and the terminal.
const DEFAULT_HOST_MOUNTS: usize = 2;
/// The most hierarchies of control groups: one for each controller, systemd's and that of v2.
const HIERARCHIES_MAX: usize = 18;

/// The default mounts of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageMounts {
    /// The image has a /sys.
    pub(crate) sys: bool,
    /// What becomes of the files of names in /etc that the image does not have.
    pub(crate) names: Missing,
}

/// The mounts that the builder has been asked for: the policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mounts {
    pub(crate) root: Option<RootFs>,
    pub(crate) mounts: Vec<Mount>,
    /// The mounts that a root is not usable without are left out.
    pub(crate) no_defaults: bool,
    /// The sandbox has a /tmp of its own, on whichever root.
    pub(crate) private_tmp: bool,
    /// The program is shown the control groups of its sandbox.
    pub(crate) own_groups: bool,
    /// The sandbox is one of an image: it has what container engines mount by default.
    pub(crate) image: Option<ImageMounts>,
    pub(crate) read_only_root: bool,
    /// Paths that are masked.
    pub(crate) masks: Vec<PathBuf>,
    /// Paths that can only be read.
    pub(crate) read_only_paths: Vec<PathBuf>,
    pub(crate) default_masks: bool,
    /// The setup stops when the mounts are made and the root is not entered yet, for what is to run
    /// then. The root stands at its own path on the host, so that it is found there.
    pub(crate) stops_before_entry: bool,
    /// The root is moved over the host's, and entered by chroot(2).
    pub(crate) no_pivot: bool,
}

impl Mounts {
    /// Returns whether anything is mounted, masked or made read-only.
    pub(crate) fn changes_mounts(&self) -> bool {
        let paths = !self.masks.is_empty() || !self.read_only_paths.is_empty();
        let flags = self.default_masks || self.read_only_root || self.private_tmp || self.own_groups;
        self.root.is_some() || !self.mounts.is_empty() || paths || flags
    }

    /// Returns whether control groups of the sandbox are to be shown.
    pub(crate) fn shows_groups(&self) -> bool {
        self.own_groups && !self.no_defaults || self.lists_groups()
    }

    /// Returns whether the list has a mount that shows the control groups of the sandbox.
    pub(crate) fn lists_groups(&self) -> bool {
        self.mounts.iter().any(|mount| matches!(mount.kind, Kind::Cgroupfs(_)))
    }

    /// Returns whether a mount of the list shows the control groups of the sandbox writable.
    pub(crate) fn opens_groups(&self) -> bool {
        self.mounts.iter().any(|mount| matches!(&mount.kind, Kind::Cgroupfs(groups) if groups.is_writable()))
    }

    /// Returns the most mounts of the host that a setup copies, the root's included.
    pub(crate) fn host_mounts(&self) -> usize {
        let root =
            self.root.as_ref().map_or(0, |root| if matches!(root.base, Base::Programs) { bind_count() } else { 0 });
        let groups = if self.lists_groups() { HIERARCHIES_MAX } else { 0 };
        root + groups + self.mounts.len() + DEFAULT_HOST_MOUNTS
    }

    /// Returns the contradictions in the policy.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            self.mounts.iter().filter_map(|mount| target_problem("mount", &mount.target)).collect();
        problems.extend(self.masks.iter().filter_map(|path| target_problem("mask", path)));
        problems.extend(self.read_only_paths.iter().filter_map(|path| target_problem("read_only_path", path)));
        problems.extend(self.root.iter().flat_map(RootFs::invalid));
        problems.extend(self.mounts.iter().filter_map(|mount| match &mount.kind {
            Kind::Overlay(overlay) => too_many_layers("mount", overlay.lowers.len(), overlay.id_mapped),
            _ => None,
        }));
        problems.extend(self.mounts.iter().flat_map(|mount| match &mount.kind {
            Kind::Bind(bind) => bind.invalid(),
            Kind::Raw(raw) => raw.invalid(),
            #[cfg(feature = "oci")]
            Kind::Again(again) => again.invalid(),
            Kind::Cgroupfs(groups) => groups.invalid(),
            _ => Vec::new(),
        }));
        problems.extend(self.on_peers());
        let root = self.root.as_ref();
        problems.extend((0..self.mounts.len()).filter_map(|index| stays_on_host(&self.mounts, index, root)));
        problems.extend((0..self.mounts.len()).filter_map(|index| has_no_effect(&self.mounts, index, root)));
        let files = self.mounts.iter().filter_map(|mount| match &mount.kind {
            Kind::File(file) => Some(file.len()),
            _ => None,
        });
        if files.fold(0, u64::saturating_add) > FILES_MAX.get() {
            let reason = format!("the files have more than {FILES_MAX} together");
            problems.push(Problem::invalid("file", reason, "write them to a directory, and bind that"));
        }
        let sizes =
            self.mounts.iter().filter_map(|mount| mount.kind.size()).chain(self.root.iter().filter_map(RootFs::size));
        if sizes.into_iter().any(|size| size.get() > i64::MAX as u64) {
            let reason = "a size that the kernel would take for none";
            problems.push(Problem::invalid("tmpfs", reason, "give what the memory of the host could hold"));
        }
        for path in self.mounts.iter().flat_map(|mount| mount.kind.sources()) {
            if has_nul(path) {
                let reason = format!("the source {path:?} holds a NUL byte");
                problems.push(Problem::invalid("mount", reason, "a path ends where a NUL stands"));
            }
        }
        let of_host =
            self.mounts.iter().map(|mount| &mount.kind).filter(|kind| matches!(kind, Kind::Bind(_) | Kind::Overlay(_)));
        if of_host.flat_map(Kind::sources).any(|path| path.as_os_str().is_empty()) {
            problems.push(Problem::invalid("mount", "a source is an empty path", "name a path of the host"));
        }
        problems
    }

    /// Returns whether any layers are to show ids as the sandbox's user namespace maps them.
    pub(crate) fn maps_ids(&self) -> bool {
        let maps = |kind: &Kind| match kind {
            Kind::Overlay(overlay) => overlay.id_mapped,
            Kind::Bind(bind) => matches!(bind.id_maps(), Some((MountIds::Sandbox, _))),
            _ => false,
        };
        self.root.as_ref().is_some_and(|root| root.id_mapped) || self.mounts.iter().any(|mount| maps(&mount.kind))
    }

    /// Returns whether any bind has id maps of its own.
    pub(crate) fn has_id_maps(&self) -> bool {
        self.given_ids().next().is_some()
    }

    /// Makes the user namespaces by which binds have id maps of their own.
    pub(crate) fn make_id_maps(&self, make: impl Fn(Vec<IdMap>, Vec<IdMap>) -> Result<OwnedFd>) -> Result<()> {
        let mut made: Vec<GivenIds> = Vec::new();
        for given in self.given_ids() {
            made.iter().for_each(|other| given.share(other));
            given.make(&make)?;
            made.push(given);
        }
        Ok(())
    }

    /// Returns the limits on what directories take on disk, with the directories. `scratch` is the
    /// directory that was made for the root's upper.
    fn disk_limits(&self, scratch: Option<&Path>) -> Vec<(DiskLimit, Vec<PathBuf>)> {
        let root = self.root.as_ref().and_then(|root| {
            let dirs = match (&root.upper, scratch) {
                (Upper::Given(upper, work), _) => vec![upper.clone(), work.clone()],
                (Upper::Scratch(_), Some(scratch)) => ["upper", "work"].map(|name| scratch.join(name)).into(),
                (Upper::Scratch(base), None) => vec![base.clone().unwrap_or_else(std::env::temp_dir)],
                (Upper::None | Upper::Tmpfs(_), _) => Vec::new(),
            };
            Some((root.disk_limit?, dirs))
        });
        let mounts = self.mounts.iter().filter_map(|mount| match &mount.kind {
            Kind::Bind(bind) if !bind.is_left_out() => Some((bind.disk_limit?, vec![bind.source.clone()])),
            Kind::Overlay(overlay) => {
                let dirs = overlay.upper.iter().flat_map(|(upper, work)| [upper.clone(), work.clone()]);
                Some((overlay.disk_limit?, dirs.collect()))
            }
            _ => None,
        });
        root.into_iter().chain(mounts).collect()
    }

    /// Returns the contradictions of limits on what directories take on disk, and what this host
    /// cannot do. `user_ns`: the sandbox has a user namespace of its own; `elsewhere`: its mounts
    /// are made in a mount namespace of somebody else.
    pub(crate) fn disk_problems(&self, user_ns: bool, elsewhere: bool, may_limit: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (limit, dirs) in self.disk_limits(None) {
            problems.extend(limit.invalid());
            if dirs.is_empty() {
                let remedy = "add upper() or, for a root, scratch(); the size of a tmpfs is its limit";
                problems.push(Problem::invalid("disk_limit", "writes go to no directory on disk", remedy));
            }
            if !user_ns {
                let reason = "without a user namespace, a program takes its files out of the limit, and root has none";
                problems.push(Problem::invalid("disk_limit", reason, "add user_ns()"));
            }
            if elsewhere {
                let reason = "the directories are looked up in the mount namespace that the sandbox joins";
                problems.push(Problem::invalid("disk_limit", reason, "set the quota there, and leave it out here"));
                continue;
            }
            if !may_limit {
                let reason = "setting a quota needs CAP_SYS_ADMIN on the host";
                problems.push(Problem::unsupported("disk_limit", reason, "run as root, or use tmpfs(size)"));
            }
            for dir in dirs {
                problems.extend(disk_limit::unsupported(&dir).map(|(reason, remedy)| {
                    Problem::unsupported("disk_limit", format!("{}: {reason}", dir.display()), remedy)
                }));
            }
        }
        problems
    }

    /// Returns the directories that the caller has named and whose space is limited.
    pub(crate) fn limited_dirs(&self) -> Vec<PathBuf> {
        self.disk_limits(None).into_iter().flat_map(|(_, dirs)| dirs).collect()
    }

    /// Limits what directories take on disk. `scratch`: see [`disk_limits`](Policy::disk_limits).
    pub(crate) fn limit_disks(&self, scratch: Option<&Path>) -> Result<()> {
        for (limit, dirs) in self.disk_limits(scratch) {
            limit.set(&dirs.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn given_ids(&self) -> impl Iterator<Item = GivenIds> {
        self.mounts.iter().filter_map(|mount| match &mount.kind {
            Kind::Bind(bind) if !bind.is_left_out() => match bind.id_maps() {
                Some((MountIds::Given(given), _)) => Some(given),
                _ => None,
            },
            #[cfg(feature = "oci")]
            Kind::Again(again) => match again.ids() {
                Some(MountIds::Given(given)) => Some(given.clone()),
                _ => None,
            },
            _ => None,
        })
    }

    /// Returns a problem for binds that are tied to the host: a mount that is made on one would
    /// show there.
    fn on_peers(&self) -> Vec<Problem> {
        let tied = |mount: &Mount| matches!(&mount.kind, Kind::Bind(bind) if bind.relation(false) != Relation::Private);
        let mut problems = Vec::new();
        if self.mounts.iter().filter(|mount| tied(mount)).count() > TIED_MAX {
            let reason = format!("more than {TIED_MAX} binds with slave or shared propagation");
            problems.push(Problem::invalid("mount", reason, "bind a directory that is above several of them"));
        }
        for (i, peer) in self.mounts.iter().enumerate().filter(|(_, mount)| mount.kind.is_peer(false)) {
            let others = self.mounts.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, other)| &other.target);
            let at = &peer.target;
            let mut all = others.chain(&self.masks).chain(&self.read_only_paths);
            if let Some(other) = all.find(|other| other.starts_with(at)) {
                let reason = format!(
                    "{} lies on the shared bind at {}: the mount would show on the host, and stay there",
                    other.display(),
                    peer.target.display()
                );
                problems.push(Problem::invalid("mount", reason, "make the bind a slave, or leave the mount out"));
            }
        }
        problems
    }

    /// Returns the root with the flags that the whole policy gives it.
    pub(super) fn final_root(&self) -> Option<RootFs> {
        self.root.clone().map(|root| RootFs { read_only: root.read_only || self.read_only_root, ..root })
    }
}

/// Returns the problem of a target that could lead out of the root, or is none.
fn target_problem(call: &str, target: &Path) -> Option<Problem> {
    let fault = if has_nul(target) {
        "holds a NUL byte"
    } else if target.components().any(|c| c == Component::ParentDir) {
        "contains `..`"
    } else if !target.is_absolute() {
        "is not absolute"
    } else if target.components().all(|c| c == Component::RootDir) {
        "is the root itself: use rootfs()"
    } else {
        return None;
    };
    let remedy = "give the absolute path of the mount inside the sandbox";
    Some(Problem::invalid(call, format!("the target {} {fault}", target.display()), remedy))
}

#[cfg(test)]
mod tests {
    use super::super::tmpfs::Tmpfs;
    use super::*;

    #[test]
    fn targets_that_could_leave_are_refused() {
        for target in ["/a/../b", "a", "/", "/.", "/a\0b"] {
            let policy = Mounts { mounts: vec![Tmpfs::new(target).into()], ..Mounts::default() };
            assert_eq!(policy.invalid().len(), 1, "{target:?}");
        }
    }
}
