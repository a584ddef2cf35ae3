//! Where the way to a mount has to be made fast, because the program could rename a directory on it, or exchange a link, and
//! so put something else in the mount's place.
//!
//! Decided by the policy, as far as it tells; the stub looks at the mounts and does it, see [`PlaceFlags::PINNED`].

use std::path::Path;

use super::root::{Base, RootFs, Upper};
use super::{Kind, Mount, MountFlags, clean};
use crate::plan::PlaceFlags;

impl Kind {
    /// Whether what is written there stays on the host.
    fn writes_to_host(&self) -> bool {
        match self {
            Kind::Bind(bind) => !bind.flags(false).contains(MountFlags::READ_ONLY),
            Kind::Overlay(overlay) => overlay.upper.is_some() && !overlay.flags.contains(MountFlags::READ_ONLY),
            Kind::Raw(raw) => raw.ms_flags & libc::MS_RDONLY == 0,
            Kind::Tmpfs(_) | Kind::Proc(_) | Kind::Dev(_) | Kind::Sysfs | Kind::Mqueue => false,
        }
    }

    fn is_writable(&self) -> bool {
        match self {
            Kind::Tmpfs(tmpfs) => !tmpfs.flags.contains(MountFlags::READ_ONLY),
            Kind::Dev(dev) => !dev.read_only,
            kind => kind.writes_to_host(),
        }
    }

    /// Whether it keeps something from being written.
    pub(super) fn protects(&self) -> bool {
        match self {
            Kind::Bind(_) | Kind::Overlay(_) | Kind::Raw(_) => !self.writes_to_host(),
            Kind::Tmpfs(_) => !self.is_writable(),
            Kind::Proc(_) | Kind::Dev(_) | Kind::Sysfs | Kind::Mqueue => false,
        }
    }
}

/// What is known of the mounts that stand when a place is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before<'m> {
    mounts: &'m [Mount],
    /// The root is read-only in the end, or what is written to it vanishes with the sandbox.
    is_root_fixed: bool,
}

impl<'m> Before<'m> {
    pub(super) fn new(mounts: &'m [Mount], root: Option<&RootFs>) -> Self {
        let vanishes = |root: &RootFs| match &root.base {
            Base::Overlay(_) => !matches!(root.upper, Upper::Given(..)),
            Base::Programs => true,
            Base::Host | Base::Dir(_) => false,
        };
        Before { mounts, is_root_fixed: root.is_some_and(|root| root.read_only || vanishes(root)) }
    }

    /// The bits for the place `at`. `protects`: what is put there keeps something from being written, or seen.
    pub(super) fn way_to(&self, at: &Path, protects: bool) -> PlaceFlags {
        let is_below = |mount: &&Mount| clean(at).starts_with(clean(&mount.target));
        let is_below_writable = self.mounts.iter().rfind(is_below).is_some_and(|mount| mount.kind.is_writable());
        // A link on a root that is not the program's may lead to one of these.
        let may_be = !self.is_root_fixed || self.mounts.iter().any(|mount| mount.kind.writes_to_host());
        // One in the root itself has nothing on its way but a link.
        let has_way = protects || clean(at).components().count() > 2;
        if !has_way || !(is_below_writable || may_be) {
            return PlaceFlags::empty();
        }
        let links = if protects { PlaceFlags::NO_LOOSE_LINKS } else { PlaceFlags::empty() };
        PlaceFlags::PINNED | links | if self.is_root_fixed { PlaceFlags::FIXED_ROOT } else { PlaceFlags::empty() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bind, Tmpfs};
    use super::*;

    #[test]
    fn only_what_lies_below_something_writable_is_made_fast() {
        let way =
            |mounts: &[Mount], root: RootFs, at: &str| Before::new(mounts, Some(&root)).way_to(Path::new(at), false);
        let fixed = || RootFs::programs();
        assert_eq!(
            way(&[Tmpfs::new("/tmp").into(), Bind::new("/a", "/b/c").read_only().into()], fixed(), "/usr/x"),
            PlaceFlags::empty()
        );
        assert_eq!(way(&[Tmpfs::new("/tmp").into()], fixed(), "/tmp/a/b"), PlaceFlags::PINNED | PlaceFlags::FIXED_ROOT);
        let work: [Mount; 2] = [Bind::new("/w", "/w").into(), Bind::new("/w/x", "/w/x").read_only().into()];
        assert_eq!(way(&work[..1], fixed(), "/w/.git/hooks"), PlaceFlags::PINNED | PlaceFlags::FIXED_ROOT);
        assert_eq!(
            way(&work, RootFs::host(), "/w/x/y"),
            PlaceFlags::PINNED | PlaceFlags::FIXED_ROOT,
            "a link may lead back"
        );
        assert_eq!(way(&[], RootFs::dir("/r"), "/a/b"), PlaceFlags::PINNED);
        assert_eq!(way(&[], RootFs::dir("/r").read_only(), "/a/b"), PlaceFlags::empty());
        assert_eq!(way(&[], RootFs::dir("/r"), "/proc"), PlaceFlags::empty());
        assert_eq!(way(&[], RootFs::overlay(["/l"]).scratch(), "/a/b"), PlaceFlags::empty());
        assert_eq!(way(&[], RootFs::overlay(["/l"]).upper("/u", "/k"), "/a/b"), PlaceFlags::PINNED);
        let protected = Before::new(&[], None).way_to(Path::new("/x"), true);
        assert_eq!(protected, PlaceFlags::PINNED | PlaceFlags::NO_LOOSE_LINKS);
    }
}
