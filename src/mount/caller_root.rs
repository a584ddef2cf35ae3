//! Whether the caller's root is that of its mount namespace, or one that it has entered by
//! chroot(2). No file says: the kernel's own way to the root of a namespace is setns(2).

use std::sync::Mutex;

use nix::errno::Errno;

use crate::proc::mountinfo;
use crate::sys::fork_mark::PerProcess;
use crate::sys::mount::{self, RootId};
use crate::sys::shortage::is_shortage;
use crate::sys::{background, mutex};

/// The root of the last answer, with the answer.
static LAST: PerProcess<Mutex<Option<(RootId, bool)>>> = PerProcess::new();

/// Returns whether the caller has gone through chroot(2). A root that cannot be told is taken for
/// such a one.
pub(crate) fn is_under_chroot() -> bool {
    let Ok(own) = mount::root_id() else { return true };
    let Ok(last) = LAST.get_or_try(|| Ok::<_, Errno>(Mutex::default())) else { return true };
    if let Some((_, answer)) = mutex::lock(last).filter(|(root, _)| *root == own) {
        return answer;
    }
    let Some(namespace) = mount::own_namespace() else { return true };
    let thread = background::spawn("ringfence-root", move || mount::namespace_root(&namespace));
    let answer = match thread.ok().and_then(|thread| thread.join().ok()) {
        // What is stacked on the caller's root is the namespace's, and is in the caller's list.
        Some(Ok(root)) => root != own && !mountinfo::is_at_root(&mounts(), root.mount),
        // Without CAP_SYS_CHROOT the caller has hardly used it.
        Some(Err(Errno::EPERM)) => !mountinfo::root_is_a_mount(&mounts()),
        // Nothing has been found out: the next sandbox asks again.
        Some(Err(errno)) if is_shortage(errno) => return true,
        None => return true,
        Some(Err(_)) => true,
    };
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
            assert!(!is_under_chroot() && !is_under_chroot());
        }
    }
}
