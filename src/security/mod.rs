//! What the program may ask of the kernel, beside namespaces and mounts: capabilities, privileges by exec, keys, Landlock,
//! seccomp.
//!
//! Stage: inside, after the last mount and the last path that has to be found. Capabilities outlast the change of user, and
//! are cut down to what is left of them right after it: from then on nothing in the sandbox has more, its init included.
//! The restriction of Landlock follows, and the filter of seccomp right before the exec.

mod capabilities;
mod landlock;
mod seccomp;

pub(crate) use capabilities::Names;
pub use capabilities::{Capabilities, SecureBits};
pub use landlock::Landlock;
pub use seccomp::{Action, Compare, Notification, Notifications, Rule, Seccomp};

use crate::error::{Problem, Step};
use crate::plan::Plan;

/// The policy: what the builder has been told about privileges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) no_new_privs: bool,
    pub(crate) session_keyring: bool,
}

impl Policy {
    /// What contradicts itself.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        self.capabilities.iter().flat_map(Capabilities::invalid).collect()
    }

    /// A session keyring of the sandbox's own, which nothing is in. To be called first: it counts against the quota of the
    /// user that asks for it (/proc/sys/kernel/keys), and root's is the larger one.
    pub(crate) fn emit_keyring(&self, plan: &mut Plan) {
        const KEYCTL_JOIN_SESSION_KEYRING: u64 = 1;
        if self.session_keyring {
            // ENOSYS: a kernel without keys has no keyring to share.
            plan.call(Step::Keyring, libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING.into(), 0.into()])
                .tolerate(nix::errno::Errno::ENOSYS);
        }
    }

    /// To be called before the change of user, which would take the permitted set.
    pub(crate) fn emit_keep(&self, plan: &mut Plan) {
        if self.capabilities.is_some() {
            prctl(plan, Step::Capabilities, [libc::PR_SET_KEEPCAPS as u64, 1]);
        }
    }

    /// To be called after the change of user. `bounding`: the bounding set can be cut down.
    pub(crate) fn emit(&self, plan: &mut Plan, bounding: bool) {
        if let Some(capabilities) = &self.capabilities {
            capabilities.emit(plan, bounding);
        }
        if self.no_new_privs {
            prctl(plan, Step::NoNewPrivs, [libc::PR_SET_NO_NEW_PRIVS as u64, 1]);
        }
    }
}

fn prctl<const N: usize>(plan: &mut Plan, step: Step, given: [u64; N]) {
    let mut args = [0u64; 5];
    args[..N].copy_from_slice(&given);
    plan.call(step, libc::SYS_prctl, args.map(Into::into));
}
