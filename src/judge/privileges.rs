//! The privileges that the program really gets: those that it was given, less what would undo the sandbox.

use caps::Capability;
use nix::unistd::Uid;

use crate::namespace::Namespaces;
use crate::policy::Policy;
use crate::security::{Capabilities, Privileges};

impl Policy {
    /// Whether the program could be given a group that belongs to who it is outside. Root's belong to root, who a program in
    /// a user namespace is not.
    pub(super) fn owns_its_group(&self) -> bool {
        !(Uid::effective().is_root() || self.limits.is_empty() && self.cpu_time.is_none())
    }

    /// In a user namespace the program's uid 0 has no capability, unless asked for, by which it could undo the sandbox.
    ///
    /// CAP_SYS_ADMIN takes `ro`, `nosuid` and the like off a mount, and a mount off what it covers: the kernel locks only what
    /// was mounted when the namespace was copied, and the sandbox's mounts are made in it. CAP_SYS_PTRACE writes to the
    /// memory of init, which is undumpable and stands under no filter.
    pub(super) fn privileges(&self) -> Privileges {
        let mut policy = self.security.clone();
        if policy.capabilities.is_none() && self.namespaces.new.contains(Namespaces::USER) {
            let protects = self.namespaces.new.contains(Namespaces::MOUNT) && self.owns_its_group();
            let admin = (self.mounts.changes_mounts() || protects).then_some(Capability::CAP_SYS_ADMIN);
            let ptrace = self.program.init.then_some(Capability::CAP_SYS_PTRACE);
            let dropped = admin.into_iter().chain(ptrace);
            policy.capabilities = Some(Capabilities::all_but(dropped)).filter(|_| admin.or(ptrace).is_some());
        }
        policy
    }
}
