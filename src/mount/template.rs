//! The mount namespace from which sandboxes with a root of their own start.
//!
//! A new mount namespace is a copy of the one it is made from, mount by mount: on a host with 2,000
//! mounts that takes milliseconds, and as long again to take the copies off. So a sandbox whose
//! root is a directory leaves the host's namespace first, for one that holds an empty tmpfs, and
//! makes its own from that. What it is to see of the host comes as detached trees, and its layers
//! are opened before. Its root is mounted over the tmpfs and entered by chroot(2): as below every
//! root there is a file system that nothing leads to, only that here it is empty and read-only.
//! Between the two may lie what the sandbox has anyway, read-only too: the memory that an overlay
//! writes to, and what masked paths are covered with. Who may unmount, which takes CAP_SYS_ADMIN in
//! the caller's user namespace, gets below all of it, down to the kernel's first file system, in
//! every mount namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::dev::NODES;
use super::kinds::Kind;
use super::policy::Policy;
use super::root::{Base, RootFs};
use crate::error::{Error, Step};
use crate::sys::fork_mark::PerProcess;
use crate::sys::mount;

/// Each tree is a descriptor of the caller's, who may have 1,024.
const MOST_TREES: usize = 128;

static TEMPLATE: PerProcess<Option<OwnedFd>> = PerProcess::new();
/// Whether overlays can be put together by descriptors, before it is entered.
static TAKES_OVERLAYS: PerProcess<bool> = PerProcess::new();

/// Made by the first sandbox that can use it; `None` where it cannot be made (an initramfs as root,
/// a kernel before 5.12, a user namespace around the caller).
fn template() -> Option<BorrowedFd<'static>> {
    TEMPLATE.get_or_try(|| Ok::<_, Errno>(make())).ok()?.as_ref().map(AsFd::as_fd)
}

fn takes_overlays() -> bool {
    TAKES_OVERLAYS.get_or_try(|| Ok::<_, Errno>(mount::overlay_by_descriptors().is_ok())).is_ok_and(|takes| *takes)
}

/// On a thread of its own, whose mount namespace and working directory end with it.
fn make() -> Option<OwnedFd> {
    let thread = thread::Builder::new().name("ringfence-mounts".into()).stack_size(128 << 10).spawn(|| {
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None)?;
        mount::empty_namespace()
    });
    thread.ok()?.join().ok()?.ok()
}

/// Whether a failed step is about a node of `/dev` that could not be made, and that the template
/// has none of to bind.
pub(crate) fn lacks_node(error: &Error) -> bool {
    let looked_for = error.path().and_then(|path| path.strip_prefix("/dev").ok()?.to_str());
    let is_node = looked_for.is_some_and(|name| NODES.iter().any(|(node, ..)| *node == name));
    let how = (error.step(), error.raw_os_error());
    is_node && (how == (Step::OpenTree, Some(libc::ENOENT)) || how == (Step::Mask, Some(libc::EPERM)))
}

impl Policy {
    /// Whether nothing is looked up by its name on the host once the setup has left it.
    pub(crate) fn fits_template(&self) -> bool {
        let fits = |kind: &Kind| match kind {
            Kind::Bind(_) | Kind::Tmpfs(_) | Kind::Proc(_) | Kind::Sysfs | Kind::Mqueue | Kind::Dev(_) => true,
            Kind::Overlay(_) | Kind::Raw(_) => false,
        };
        self.root.is_some() && self.mounts.len() < MOST_TREES && self.mounts.iter().all(|mount| fits(&mount.kind))
    }

    /// The mount namespace to start from, where there is one that the root can be made in.
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
        let inside = thread::spawn(|| {
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
