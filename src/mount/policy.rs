//! The mounts that the builder has been asked for.

use std::path::{Component, Path, PathBuf};

use super::dev::Dev;
use super::kinds::{Kind, Mount};
use super::overlay::builder::too_many_layers;
use super::paths::clean;
use super::proc::Proc;
use super::root::{Base, RootFs, bind_count};
use super::tmpfs::Tmpfs;
use crate::error::Problem;
use crate::plan::has_nul;

/// The mounts that the builder has been asked for: the policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) root: Option<RootFs>,
    pub(crate) mounts: Vec<Mount>,
    /// The mounts that a root is not usable without are left out.
    pub(crate) no_defaults: bool,
    /// The sandbox has a /tmp of its own, on whichever root.
    pub(crate) private_tmp: bool,
    pub(crate) read_only_root: bool,
    /// Paths that are masked.
    pub(crate) masks: Vec<PathBuf>,
    /// Paths that can only be read.
    pub(crate) read_only_paths: Vec<PathBuf>,
    pub(crate) default_masks: bool,
}

impl Policy {
    /// Returns whether anything is mounted, masked or made read-only.
    pub(crate) fn changes_mounts(&self) -> bool {
        let paths = !self.masks.is_empty() || !self.read_only_paths.is_empty();
        let flags = self.default_masks || self.read_only_root || self.private_tmp;
        self.root.is_some() || !self.mounts.is_empty() || paths || flags
    }

    /// Returns the mounts in their order: first those that a root is not usable without and that
    /// the list does not have.
    pub(crate) fn all(&self, pid_ns: bool) -> Vec<Mount> {
        let mut all = Vec::new();
        if !self.no_defaults {
            if pid_ns {
                all.push(Proc::new("/proc").into());
            }
            if let Some(root) = &self.root {
                let dev = Dev::new("/dev");
                all.push(if self.read_only_root { dev.read_only() } else { dev }.into());
                if root.is_from_host() || self.private_tmp {
                    all.push(Tmpfs::new("/tmp").mode(0o1777).into());
                }
            }
        }
        let is_made = |mount: &&Mount| !matches!(&mount.kind, Kind::Bind(bind) if bind.is_left_out());
        let made: Vec<&Mount> = self.mounts.iter().filter(is_made).collect();
        all.retain(|default: &Mount| !made.iter().any(|mount| clean(&mount.target) == default.target));
        all.extend(made.into_iter().cloned());
        all
    }

    /// Returns the most mounts of the host that a setup copies, the root's included.
    pub(crate) fn host_mounts(&self) -> usize {
        let root =
            self.root.as_ref().map_or(0, |root| if matches!(root.base, Base::Programs) { bind_count() } else { 0 });
        root + self.mounts.len()
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
        problems
    }

    /// Returns whether any layers are to show ids as the sandbox's user namespace maps them.
    pub(crate) fn maps_ids(&self) -> bool {
        let overlays = |kind: &Kind| matches!(kind, Kind::Overlay(overlay) if overlay.id_mapped);
        self.root.as_ref().is_some_and(|root| root.id_mapped) || self.mounts.iter().any(|mount| overlays(&mount.kind))
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
    } else if clean(target) == Path::new("/") {
        "is the root itself: use rootfs()"
    } else {
        return None;
    };
    let remedy = "give the absolute path of the mount inside the sandbox";
    Some(Problem::invalid(call, format!("the target {} {fault}", target.display()), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::Bind;

    #[test]
    fn a_mount_of_ones_own_replaces_the_default() {
        let policy = Policy { mounts: vec![Tmpfs::new("/proc/").into()], root: Some("/x".into()), ..Policy::default() };
        let targets: Vec<_> = policy.all(true).into_iter().map(|m| m.target).collect();
        assert_eq!(targets, [Path::new("/dev"), Path::new("/proc/")]);
    }

    #[test]
    fn an_optional_bind_without_a_source_replaces_nothing() {
        let bind = Bind::new("/never/there", "/proc").optional();
        let policy = Policy { mounts: vec![bind.into()], ..Policy::default() };
        let targets: Vec<_> = policy.all(true).into_iter().map(|m| m.target).collect();
        assert_eq!(targets, [Path::new("/proc")]);
        assert!(matches!(policy.all(true)[0].kind, Kind::Proc(_)));
    }

    #[test]
    fn targets_that_could_leave_are_refused() {
        for target in ["/a/../b", "a", "/", "/.", "/a\0b"] {
            let policy = Policy { mounts: vec![Tmpfs::new(target).into()], ..Policy::default() };
            assert_eq!(policy.invalid().len(), 1, "{target:?}");
        }
    }
}
