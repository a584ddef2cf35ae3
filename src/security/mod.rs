//! The privileges of a program, besides namespaces and mounts: capabilities, privileges by exec,
//! keys, labels, Landlock, seccomp.
//!
//! Stage: inside, after the last mount and the last path lookup. Capabilities stay during the
//! change of user, and are reduced right after it: from then on no process of the sandbox has more,
//! including its init. Then comes the restriction by Landlock, and right before the exec the
//! seccomp filter.

mod capabilities;
mod label;
mod landlock;
mod no_new_privs;
mod seccomp;

pub(crate) use capabilities::Names;
pub use capabilities::{Capabilities, SecureBits};
#[cfg(feature = "oci")]
pub(crate) use label::has_selinux;
pub(crate) use label::{Labels, Modules};
pub use landlock::Landlock;
pub(crate) use landlock::RuleFile;
pub(crate) use no_new_privs::emit_no_new_privs;
#[cfg(feature = "oci")]
pub(crate) use seccomp::Leniencies;
pub(crate) use seccomp::WITHOUT_FILTER;
pub use seccomp::{Action, Architecture, Compare, Denial, DenialRule, Denials};
pub(crate) use seccomp::{DenialRecord, RemoteConnection, RemoteSupervisor};
pub use seccomp::{Notification, Notifications, Rule, Seccomp};

use caps::Capability;

use crate::error::{Problem, Step};
use crate::plan::Plan;

/// The settings of the builder about privileges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Privileges {
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) no_new_privs: bool,
    pub(crate) session_keyring: bool,
    pub(crate) labels: Labels,
    /// The filter is installed without `no_new_privs`, for which CAP_SYS_ADMIN is held until the
    /// exec.
    pub(crate) admin_until_exec: bool,
}

impl Privileges {
    /// Returns the settings that contradict each other.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.capabilities.iter().flat_map(Capabilities::invalid).collect();
        problems.extend(self.labels.invalid());
        problems
    }

    /// Emits the op that joins a new, empty session keyring. Must come first, as the keyring counts
    /// against the quota of the user that creates it (/proc/sys/kernel/keys), and root's quota is
    /// the larger one.
    pub(crate) fn emit_keyring(&self, plan: &mut Plan) {
        const KEYCTL_JOIN_SESSION_KEYRING: u64 = 1;
        if self.session_keyring {
            // ENOSYS: a kernel without keys has no keyring to share.
            plan.call(Step::Keyring, libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING.into(), 0.into()])
                .tolerate(nix::errno::Errno::ENOSYS);
        }
    }

    /// Emits the op that keeps the permitted set. Must come before the change of user, which would
    /// clear the set.
    pub(crate) fn emit_keep(&self, plan: &mut Plan) {
        if self.capabilities.is_some() || self.admin_until_exec {
            prctl(plan, Step::Capabilities, [libc::PR_SET_KEEPCAPS as u64, 1]);
        }
    }

    /// Emits the ops that set capabilities and `no_new_privs`. Must come after the change of user.
    /// `bounding` says whether the bounding set can be reduced, `is_root` that the program is uid
    /// 0.
    pub(crate) fn emit(&self, plan: &mut Plan, bounding: bool, is_root: bool) {
        let admin = if self.admin_until_exec { Capability::CAP_SYS_ADMIN.bitmask() } else { 0 };
        match &self.capabilities {
            Some(capabilities) => capabilities.emit(plan, bounding, admin),
            // Root keeps what it has.
            None if self.admin_until_exec && !is_root => Capabilities::emit_only(plan, admin),
            None => {}
        }
        if self.no_new_privs {
            emit_no_new_privs(plan);
        }
    }
}

impl Privileges {
    /// Emits the op that gives up what was held for the installation of the filter.
    pub(crate) fn emit_without_admin(&self, plan: &mut Plan, is_root: bool) {
        match &self.capabilities {
            Some(capabilities) => capabilities.emit_final(plan, 0),
            None if !is_root => Capabilities::emit_only(plan, 0),
            None => {}
        }
    }
}

fn prctl<const N: usize>(plan: &mut Plan, step: Step, given: [u64; N]) {
    let mut args = [0u64; 5];
    args[..N].copy_from_slice(&given);
    plan.call(step, libc::SYS_prctl, args.map(Into::into));
}
