//! What the program sees as its file system: a root, and an ordered list of mounts on it.
//!
//! Stage: inside, in a mount namespace of the sandbox's own, while the host's root, or the [`template`]'s, is still
//! there. The new root is mounted over `/`, everything else below the new root's descriptor, then pivot_root(2) makes it
//! the root and the host's goes away; over the template's, which is empty, chroot(2) enters it. A target is resolved as if the root had been entered already, so no symbolic link in it leads out.

mod cgroups;
mod emit;
mod fast;
mod fsmount;
mod handed;
mod idmapped;
mod kinds;
mod layers;
mod mask;
mod place;
mod programs;
mod root;
mod special;
mod template;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

pub use kinds::{Bind, Dev, HidePid, Mount, Mqueue, Overlay, Proc, RawMount, Sysfs, Tmpfs};
pub(crate) use kinds::{Kind, MountFlags};
pub use root::RootFs;
pub(crate) use root::{Held, Upper};
pub(crate) use special::NODES;
pub(crate) use template::lacks_node;

use crate::error::Problem;
use crate::plan::{PlaceFlags, has_nul};
pub(crate) use handed::{Handed, hands_over, refuse_mapping};

/// The facts about the rest of the sandbox on which the ops of mounts depend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// A user namespace of the sandbox's own: device nodes cannot be made, overlay keeps its marks in user xattrs.
    pub(crate) user_ns: bool,
    pub(crate) pid_ns: bool,
    /// The setup runs as a user to whom the caller's files may be closed.
    pub(crate) other_user: bool,
    /// The caller opens what it names. To a program that may remount, the flags of what comes so are not locked.
    pub(crate) ahead: bool,
    /// Group 5, to which terminals belong, exists inside.
    pub(crate) tty_group: bool,
    /// Whose files are handed over, by mounts that show them as belonging to whom the sandbox is outside.
    pub(crate) mapped: Option<(u32, u32)>,
    /// The setup has left the host for the [`template`]: the host's files come as descriptors.
    pub(crate) template: bool,
    /// How the way to the mount that is written is made [`fast`].
    pub(crate) way: PlaceFlags,
}

/// The policy: what the builder has been told about mounts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) root: Option<RootFs>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) no_defaults: bool,
    /// A /tmp of the sandbox's own, on whichever root.
    pub(crate) private_tmp: bool,
    pub(crate) read_only_root: bool,
    /// Paths that are covered up, and paths that can only be read.
    pub(crate) masks: Vec<PathBuf>,
    pub(crate) read_only_paths: Vec<PathBuf>,
    pub(crate) default_masks: bool,
}

impl Policy {
    /// Whether anything is mounted, covered up or made read-only.
    pub(crate) fn changes_mounts(&self) -> bool {
        let paths = !self.masks.is_empty() || !self.read_only_paths.is_empty();
        let flags = self.default_masks || self.read_only_root || self.private_tmp;
        self.root.is_some() || !self.mounts.is_empty() || paths || flags
    }

    /// The mounts in their order: first what a root is not usable without and the list does not have.
    pub(crate) fn all(&self, pid_ns: bool) -> Vec<Mount> {
        let mut all = Vec::new();
        if !self.no_defaults {
            if pid_ns {
                all.push(Proc::new("/proc").into());
            }
            if let Some(root) = &self.root {
                let dev = Dev::new("/dev");
                all.push(if self.read_only_root { dev.read_only() } else { dev }.into());
                if root.is_the_hosts() || self.private_tmp {
                    all.push(Tmpfs::new("/tmp").mode(0o1777).into());
                }
            }
        }
        all.retain(|default: &Mount| !self.mounts.iter().any(|mount| clean(&mount.target) == default.target));
        all.extend(self.mounts.iter().cloned());
        all
    }

    /// What contradicts itself.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            self.mounts.iter().filter_map(|mount| target_problem("mount", &mount.target)).collect();
        problems.extend(self.masks.iter().filter_map(|path| target_problem("mask", path)));
        problems.extend(self.read_only_paths.iter().filter_map(|path| target_problem("read_only_path", path)));
        problems.extend(self.root.iter().flat_map(RootFs::invalid));
        problems.extend(self.mounts.iter().filter_map(|mount| match &mount.kind {
            Kind::Overlay(overlay) => root::too_many("mount", overlay.lowers.len(), overlay.id_mapped),
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
}

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

/// The path without empty and `.` components.
pub(crate) fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Joins paths for overlay's option string, in which `:` separates, `,` ends, and a backslash takes both meanings away.
pub(crate) fn overlay_list<'p>(paths: impl IntoIterator<Item = &'p Path>) -> OsString {
    let mut text = Vec::new();
    for (i, path) in paths.into_iter().enumerate() {
        if i > 0 {
            text.push(b':');
        }
        for byte in path.as_os_str().as_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
    }
    OsStr::from_bytes(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_options_are_escaped() {
        let text = overlay_list([Path::new("/a:b"), Path::new("/c,d"), Path::new("/e\\f")]);
        assert_eq!(text, r"/a\:b:/c\,d:/e\\f");
    }

    #[test]
    fn a_mount_of_ones_own_replaces_the_default() {
        let policy = Policy { mounts: vec![Tmpfs::new("/proc/").into()], root: Some("/x".into()), ..Policy::default() };
        let targets: Vec<_> = policy.all(true).into_iter().map(|m| m.target).collect();
        assert_eq!(targets, [Path::new("/dev"), Path::new("/proc/")]);
    }

    #[test]
    fn targets_that_could_leave_are_refused() {
        for target in ["/a/../b", "a", "/", "/.", "/a\0b"] {
            let policy = Policy { mounts: vec![Tmpfs::new(target).into()], ..Policy::default() };
            assert_eq!(policy.invalid().len(), 1, "{target:?}");
        }
    }
}
