//! The pinning of the directories that lead to a mount. The program could rename such a directory,
//! or exchange a link, and so put something else in the mount's place.
//!
//! The policy decides for which mounts that is possible, as far as the policy tells; the stub looks
//! at the mounts and pins the directories, see [`PlaceFlags::PINNED`].

use std::path::Path;

use super::flags::MountFlags;
use super::kinds::{Kind, Mount};
use super::overlay::builder::Upper;
use super::root::{Base, RootFs};
use crate::plan::PlaceFlags;

impl Kind {
    /// Returns whether writes to the mount stay on the host.
    fn writes_to_host(&self) -> bool {
        match self {
            Kind::Bind(bind) => bind.is_writable(),
            Kind::Overlay(overlay) => overlay.upper.is_some() && overlay.is_writable(),
            Kind::Raw(raw) => raw.ms_flags & libc::MS_RDONLY == 0,
            #[cfg(feature = "oci")]
            Kind::Again(again) => again.is_writable(),
            Kind::Tmpfs(_) | Kind::File(_) | Kind::Dir | Kind::Symlink(_) | Kind::Node(_) => false,
            Kind::Proc(_) | Kind::Dev(_) | Kind::Sysfs | Kind::Cgroupfs(_) | Kind::Mqueue => false,
        }
    }

    /// Returns whether the program can write to the mount.
    fn is_writable(&self) -> bool {
        match self {
            Kind::Tmpfs(tmpfs) => !tmpfs.flags.contains(MountFlags::READ_ONLY),
            Kind::Dev(dev) => !dev.read_only,
            Kind::File(file) => file.is_writable(),
            Kind::Overlay(overlay) => overlay.is_writable(),
            kind => kind.writes_to_host(),
        }
    }

    /// Returns whether the mount keeps something from being written. A copy counts: through another
    /// link it could show what only a closed directory keeps from the program.
    pub(super) fn protects(&self) -> bool {
        match self {
            Kind::Bind(bind) => bind.protects(),
            #[cfg(feature = "oci")]
            Kind::Again(again) => again.protects(),
            Kind::Raw(raw) => raw.copies_up() || !self.writes_to_host(),
            Kind::Tmpfs(tmpfs) => tmpfs.copy_up || !self.is_writable(),
            Kind::File(_) | Kind::Overlay(_) => !self.is_writable(),
            Kind::Dir | Kind::Symlink(_) => false,
            Kind::Proc(_) | Kind::Dev(_) | Kind::Node(_) | Kind::Sysfs | Kind::Cgroupfs(_) | Kind::Mqueue => false,
        }
    }
}

/// The mounts that are made before the one that is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct MountsBefore<'m> {
    mounts: &'m [Mount],
    /// The root is read-only in the end, or writes to the root vanish with the sandbox.
    is_root_fixed: bool,
}

impl<'m> MountsBefore<'m> {
    pub(super) fn new(mounts: &'m [Mount], root: Option<&RootFs>) -> Self {
        let vanishes = |root: &RootFs| match &root.base {
            Base::Overlay(_) => !matches!(root.upper, Upper::Given(..)),
            Base::Programs => true,
            Base::Host | Base::Dir(_) => false,
        };
        MountsBefore { mounts, is_root_fixed: root.is_some_and(|root| root.read_only || vanishes(root)) }
    }

    /// Returns the flags that pin what leads to the target `at`. `protects`: the mount there keeps
    /// something from being written, or seen.
    pub(super) fn pins_for(&self, at: &Path, protects: bool) -> PlaceFlags {
        let is_made = |mount: &&Mount| !matches!(mount.kind, Kind::Dir | Kind::Symlink(_));
        let is_below = |mount: &&Mount| is_made(mount) && at.starts_with(&mount.target);
        let is_below_writable = self.mounts.iter().rfind(is_below).is_some_and(|mount| mount.kind.is_writable());
        // A link on a root that is not the program's may lead to one of these.
        let may_be = !self.is_root_fixed || self.mounts.iter().any(|mount| mount.kind.writes_to_host());
        // Nothing but a link can lead elsewhere from a target in the root directory itself.
        let can_be_moved = protects || at.components().count() > 2;
        if !can_be_moved || !(is_below_writable || may_be) {
            return PlaceFlags::empty();
        }
        let links = if protects { PlaceFlags::NO_LOOSE_LINKS } else { PlaceFlags::empty() };
        PlaceFlags::PINNED | links | if self.is_root_fixed { PlaceFlags::FIXED_ROOT } else { PlaceFlags::empty() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bind::Bind;
    use super::super::tmpfs::Tmpfs;
    use super::*;

    #[test]
    fn only_what_lies_below_something_writable_is_pinned() {
        let pins = |mounts: &[Mount], root: RootFs, at: &str| {
            MountsBefore::new(mounts, Some(&root)).pins_for(Path::new(at), false)
        };
        let fixed = || RootFs::programs();
        assert_eq!(
            pins(&[Tmpfs::new("/tmp").into(), Bind::new("/a", "/b/c").read_only().into()], fixed(), "/usr/x"),
            PlaceFlags::empty()
        );
        assert_eq!(
            pins(&[Tmpfs::new("/tmp").into()], fixed(), "/tmp/a/b"),
            PlaceFlags::PINNED | PlaceFlags::FIXED_ROOT
        );
        let work: [Mount; 2] = [Bind::new("/w", "/w").into(), Bind::new("/w/x", "/w/x").read_only().into()];
        assert_eq!(pins(&work[..1], fixed(), "/w/.git/hooks"), PlaceFlags::PINNED | PlaceFlags::FIXED_ROOT);
        assert_eq!(
            pins(&work, RootFs::host(), "/w/x/y"),
            PlaceFlags::PINNED | PlaceFlags::FIXED_ROOT,
            "a link may lead back"
        );
        assert_eq!(pins(&[], RootFs::dir("/r"), "/a/b"), PlaceFlags::PINNED);
        assert_eq!(pins(&[], RootFs::dir("/r").read_only(), "/a/b"), PlaceFlags::empty());
        assert_eq!(pins(&[], RootFs::dir("/r"), "/proc"), PlaceFlags::empty());
        assert_eq!(pins(&[], RootFs::overlay(["/l"]).scratch(), "/a/b"), PlaceFlags::empty());
        assert_eq!(pins(&[], RootFs::overlay(["/l"]).upper("/u", "/k"), "/a/b"), PlaceFlags::PINNED);
        let protected = MountsBefore::new(&[], None).pins_for(Path::new("/x"), true);
        assert_eq!(protected, PlaceFlags::PINNED | PlaceFlags::NO_LOOSE_LINKS);
    }
}
