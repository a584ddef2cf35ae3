//! Whether the caller's root is that of its mount namespace, or one that it has entered by
//! chroot(2). No file says: the kernel's own way to the root of a namespace is setns(2).

use std::sync::Mutex;

use nix::errno::Errno;

use crate::proc::mountinfo;
use crate::sys::fork_mark::PerProcess;
use crate::sys::mount::{self, RootId};
use crate::sys::shortage::is_shortage;
use crate::sys::{background, mutex};

/// What the caller's root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallerRoot {
    /// That of its mount namespace.
    OfNamespace,
    /// One that it has entered by chroot(2).
    Chroot,
    /// Nobody can tell: there is no /proc, or the caller is short of something.
    Unknown,
}

/// The root of the last answer, with the answer.
static LAST: PerProcess<Mutex<Option<(RootId, CallerRoot)>>> = PerProcess::new();

/// Finds out what the caller's root is.
pub(crate) fn caller_root() -> CallerRoot {
    let unknown = CallerRoot::Unknown;
    let Ok(own) = mount::root_id() else { return unknown };
    let Ok(last) = LAST.get_or_try(|| Ok::<_, Errno>(Mutex::default())) else { return unknown };
    if let Some((_, answer)) = mutex::lock(last).filter(|(root, _)| *root == own) {
        return answer;
    }
    let Some(namespace) = mount::own_namespace() else { return unknown };
    let thread = background::spawn("ringfence-root", move || mount::namespace_root(&namespace));
    let is_chroot = match thread.ok().and_then(|thread| thread.join().ok()) {
        // What is stacked on the caller's root is the namespace's, and is in the caller's list.
        Some(Ok(root)) => root != own && !mountinfo::is_at_root(&mounts(), root.mount),
        // Without CAP_SYS_CHROOT the caller has hardly used it.
        Some(Err(Errno::EPERM)) => !mountinfo::root_is_a_mount(&mounts()),
        // Nothing has been found out: the next sandbox asks again.
        Some(Err(errno)) if is_shortage(errno) => return unknown,
        None => return unknown,
        Some(Err(_)) => true,
    };
    let answer = if is_chroot { CallerRoot::Chroot } else { CallerRoot::OfNamespace };
    *mutex::lock(last) = Some((own, answer));
    answer
}

fn mounts() -> String {
    mountinfo::read("/proc/thread-self/mountinfo").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_not_under_chroot() {
        if nix::unistd::geteuid().is_root() {
            assert_eq!([caller_root(), caller_root()], [CallerRoot::OfNamespace; 2]);
        }
    }
}
