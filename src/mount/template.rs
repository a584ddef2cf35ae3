//! The template: the mount namespace from which sandboxes with a root of their own start.
//!
//! A new mount namespace is a copy of the one it is made from, mount by mount: on a host with 2,000
//! mounts that takes milliseconds, and as long again to take the copies off. So a sandbox whose
//! root is a directory leaves the host's namespace first, for one that holds an empty tmpfs, and
//! makes its own from that. The host's files come as detached trees, and the layers of the root are
//! opened before. The root is mounted over the tmpfs and entered by chroot(2): as below every root
//! there is a file system to which nothing leads, only that here it is empty and read-only. Between
//! the two may lie mounts that the sandbox has anyway, read-only too: the tmpfs that an overlay
//! writes to, and the sources of masks. A program that may unmount, which takes CAP_SYS_ADMIN in
//! the caller's user namespace, gets below all of these, down to the kernel's first file system, in
//! every mount namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use nix::errno::Errno;

use super::dev::NODES;
use super::kinds::Kind;
use super::mounts::Mounts;
use super::root::{Base, RootFs};
use crate::error::{Error, Step};
use crate::sys::fork_mark::PerProcess;
use crate::sys::shortage::{is_shortage, unless_refused};
use crate::sys::{background, mount};

/// The most detached trees: each is a descriptor of the caller's, who may have 1,024.
const MOST_TREES: usize = 128;

static TEMPLATE: PerProcess<Option<OwnedFd>> = PerProcess::new();
/// The kernel can put overlays together by descriptors, before the template is entered.
static TAKES_OVERLAYS: PerProcess<bool> = PerProcess::new();

/// Returns the template, which the first sandbox that can use it makes. Returns `None` where a
/// template cannot be made (an initramfs as root, a kernel before 5.12, a user namespace around the
/// caller), and as long as the caller has no descriptor or thread left for it.
fn template() -> Option<BorrowedFd<'static>> {
    TEMPLATE.get_or_try(make).ok()?.as_ref().map(AsFd::as_fd)
}

/// Returns whether the kernel can put overlays together by descriptors.
fn takes_overlays() -> bool {
    let find_out = || match mount::overlay_by_descriptors() {
        Err(errno) if is_shortage(errno) => Err(errno),
        result => Ok(result.is_ok()),
    };
    TAKES_OVERLAYS.get_or_try(find_out).is_ok_and(|takes| *takes)
}

/// Makes the template, on a thread of its own, whose mount namespace and working directory end with
/// the thread.
fn make() -> Result<Option<OwnedFd>, Errno> {
    let thread = background::spawn("ringfence-mounts", mount::empty_namespace);
    unless_refused(thread.map(JoinHandle::join))
}

/// Returns whether a step failed because a node of `/dev` could not be made, and the template has
/// none to bind.
pub(crate) fn lacks_node(error: &Error) -> bool {
    let looked_for = error.path().and_then(|path| path.strip_prefix("/dev").ok()?.to_str());
    let is_node = looked_for.is_some_and(|name| NODES.iter().any(|(node, ..)| *node == name));
    let how = (error.step(), error.raw_os_error());
    is_node && (how == (Step::OpenTree, Some(libc::ENOENT)) || how == (Step::Mask, Some(libc::EPERM)))
}

impl Mounts {
    /// Returns whether no path of the host is looked up once the setup has left the host.
    pub(crate) fn fits_template(&self) -> bool {
        let fits = |kind: &Kind| !matches!(kind, Kind::Overlay(_) | Kind::Raw(_) | Kind::Node(_));
        let stays = !self.stops_before_entry && !self.no_pivot;
        stays
            && self.root.is_some()
            && self.mounts.len() < MOST_TREES
            && self.mounts.iter().all(|mount| fits(&mount.kind))
    }

    /// Returns the template, if there is one in which the root can be made.
    pub(crate) fn template(&self) -> Option<BorrowedFd<'static>> {
        let fits = match &self.root {
            Some(RootFs { base: Base::Overlay(_), id_mapped, .. }) => !id_mapped && takes_overlays(),
            _ => true,
        };
        if fits { template() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_template_is_an_empty_read_only_directory() {
        if !nix::unistd::Uid::effective().is_root() {
            assert!(template().is_none(), "an ordinary user has no right to one");
            return;
        }
        let inside = std::thread::spawn(|| {
            use nix::sched::{CloneFlags, setns, unshare};
            unshare(CloneFlags::CLONE_FS).unwrap();
            setns(template().unwrap(), CloneFlags::CLONE_NEWNS).unwrap();
            for place in ["/", "/..", "."] {
                assert_eq!(fs::read_dir(place).unwrap().count(), 0, "{place}");
            }
            fs::write("/x", "").unwrap_err().raw_os_error()
        });
        assert_eq!(inside.join().unwrap(), Some(libc::EROFS));
    }
}
