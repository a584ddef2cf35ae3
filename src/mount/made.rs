//! Directories, symbolic links and nodes that are made inside: where they may be.

use std::path::{Path, PathBuf};

use super::calls::{emit_target, make_link};
use super::flags::MountFlags;
use super::kinds::{Kind, Mount};
use super::overlay::builder::Upper;
use super::paths::clean;
use super::root::{Base, RootFs};
use crate::error::{Problem, Step};
use crate::plan::{PlaceFlags, Plan, Slot};

/// Makes the directory at `path`, and those that lead to it, where they are missing.
pub(super) fn emit_dir(plan: &mut Plan, root: Slot, path: &Path) {
    let dir = plan.slot();
    emit_target(plan, root, path, PlaceFlags::empty(), dir);
    plan.close(Step::MountTarget, dir);
}

/// Makes the symbolic link at `path`, and the directories that lead to it where they are missing.
pub(super) fn emit_symlink(plan: &mut Plan, root: Slot, path: &Path, to: &Path) {
    let path = clean(path);
    let (parent, dir) = (path.parent().unwrap_or(Path::new("/")), plan.slot());
    emit_target(plan, root, parent, PlaceFlags::empty(), dir);
    make_link(plan, Step::MountTarget, to, dir.into(), path.file_name().unwrap_or_default())
        .at(&path)
        .hint("a link replaces nothing: leave it out, or name a path that does not exist");
    plan.close(Step::MountTarget, dir);
}

/// Returns the last of the mounts on which a path stands; `None` is the root.
fn mounted_under<'m>(at: &Path, before: &'m [Mount]) -> Option<&'m Kind> {
    let is_mount = |mount: &&Mount| match &mount.kind {
        Kind::Dir | Kind::Symlink(_) | Kind::Node(_) => false,
        Kind::Raw(raw) => !raw.is_remount(),
        _ => true,
    };
    let is_below = |mount: &&Mount| at.starts_with(&mount.target);
    before.iter().filter(is_mount).rfind(is_below).map(|below| &below.kind)
}

/// Returns a problem if the directory, link or node number `index` of the list would be made in a
/// directory of the host, and stay there.
pub(super) fn stays_on_host(mounts: &[Mount], index: usize, root: Option<&RootFs>) -> Option<Problem> {
    let mount = mounts.get(index)?;
    let call = match &mount.kind {
        Kind::Dir => "dir",
        Kind::Symlink(_) => "symlink",
        Kind::Node(node) if node.in_root => return None,
        Kind::Node(_) => "mount",
        _ => return None,
    };
    let at = clean(&mount.target);
    let vanishes = match mounted_under(&at, &mounts[..index]) {
        Some(Kind::Overlay(overlay)) => overlay.memory.is_some(),
        Some(Kind::Raw(raw)) => raw.fstype == "tmpfs",
        Some(below) => matches!(below, Kind::Tmpfs(_) | Kind::Dev(_)),
        None => vanishes(root),
    };
    (!vanishes).then(|| {
        let reason = format!("{} would be made in a directory of the host, and stay there", at.display());
        let remedy = "mount a tmpfs() above it first, or use a root whose changes vanish: RootFs::programs(), \
                      RootFs::overlay()";
        Problem::invalid(call, reason, remedy)
    })
}

/// Returns a problem if node number `index` of the list stands where it would have no effect.
pub(super) fn has_no_effect(mounts: &[Mount], index: usize, root: Option<&RootFs>) -> Option<Problem> {
    let Kind::Node(node) = &mounts.get(index)?.kind else { return None };
    let at = clean(&node.target);
    let nodev = match mounted_under(&at, &mounts[..index]) {
        Some(Kind::Tmpfs(tmpfs)) => tmpfs.flags.contains(MountFlags::NO_DEV),
        Some(Kind::Raw(raw)) => raw.ms_flags & libc::MS_NODEV != 0,
        Some(Kind::Dev(dev)) if dev.read_only => {
            let reason = format!("{} would be made in a /dev that is read-only", at.display());
            return Some(Problem::invalid("mount", reason, "leave out Dev::read_only()"));
        }
        Some(_) => false,
        None => root.is_some_and(RootFs::is_nodev),
    };
    (nodev && node.is_device()).then(|| {
        let reason = format!("{} would stand on a file system that opens no devices", at.display());
        Problem::invalid("mount", reason, "mount a Dev above it, or add dev() to the tmpfs or the root")
    })
}

/// Returns whether what is made on the root vanishes with the sandbox.
pub(super) fn vanishes(root: Option<&RootFs>) -> bool {
    root.is_some_and(|root| match root.base {
        Base::Programs => true,
        Base::Overlay(_) => !matches!(root.upper, Upper::Given(..)),
        Base::Host | Base::Dir(_) => false,
    })
}

/// Returns the mount of a directory.
pub(crate) fn dir(path: impl Into<PathBuf>) -> Mount {
    Mount { target: path.into(), kind: Kind::Dir }
}

/// Returns the mount of a symbolic link.
pub(crate) fn symlink(to: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Mount {
    Mount { target: path.into(), kind: Kind::Symlink(to.into()) }
}

#[cfg(test)]
mod tests {
    use super::super::bind::Bind;
    use super::super::tmpfs::Tmpfs;
    use super::*;

    #[test]
    fn nothing_is_made_in_a_directory_of_the_host() {
        let stays = |before: &[Mount], root: Option<RootFs>| {
            let mounts: Vec<Mount> = before.iter().cloned().chain([dir("/w/x"), symlink("to", "/w/y")]).collect();
            let problems = [before.len(), before.len() + 1].map(|i| stays_on_host(&mounts, i, root.as_ref()).is_some());
            assert_eq!(problems[0], problems[1]);
            problems[0]
        };
        let (tmpfs, bind) = (|| Tmpfs::new("/w").into(), || Bind::new("/a", "/w/").into());
        assert!(stays(&[], None) && stays(&[], Some(RootFs::dir("/r"))) && stays(&[], Some(RootFs::host())));
        assert!(stays(&[], Some(RootFs::overlay(["/l"]).upper("/u", "/k"))));
        assert!(!stays(&[], Some(RootFs::programs())) && !stays(&[], Some(RootFs::overlay(["/l"]))));
        assert!(!stays(&[tmpfs()], Some(RootFs::dir("/r"))) && !stays(&[bind(), tmpfs()], None));
        assert!(stays(&[bind()], Some(RootFs::programs())) && stays(&[tmpfs(), bind()], None));
        assert!(!stays(&[dir("/w")], Some(RootFs::programs())));
    }
}
