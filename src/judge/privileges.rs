//! The privileges of the program: those of the policy, without those that could undo the sandbox.

use caps::Capability;
use nix::unistd::Uid;

use crate::namespace::Namespaces;
use crate::policy::Policy;
use crate::security::{Capabilities, Privileges, Seccomp};

impl Policy {
    /// Returns whether the program's control group could belong to the program's user outside. The
    /// groups of root belong to root, and a program in a user namespace is not root outside.
    pub(super) fn owns_its_group(&self) -> bool {
        !(Uid::effective().is_root() || self.limits.is_empty() && self.cpu_time.is_none() && self.cgroup.is_none())
    }

    /// Returns the privileges of the program. In a user namespace, a program with uid 0 does not
    /// get the capabilities that could undo the sandbox, unless the policy asks for them.
    ///
    /// CAP_SYS_ADMIN could remove flags such as `ro` and `nosuid` from a mount, and unmount a mount
    /// that covers another: the kernel locks only mounts that were there when the namespace was
    /// copied, and the sandbox's mounts are made later. CAP_SYS_PTRACE could write to the memory of
    /// init, which is undumpable and has no filter.
    pub(super) fn privileges(&self) -> Privileges {
        let mut policy = self.security.clone();
        policy.admin_until_exec = self.seccomp.as_ref().is_some_and(Seccomp::allows_new_privs);
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
