//! The walls that every supported kernel has: they stand, or the spawn fails. A program that is
//! privileged enough gets past some of them.

use caps::Capability;
use nix::unistd::Uid;

use super::capabilities::has_capability;
use crate::error::Problem;
use crate::feature::{Enforced, Enforcement, Feature};
use crate::mount::{self, CallerRoot};
use crate::namespace::Namespaces;
use crate::policy::Policy;
use crate::security::Privileges;

/// The features of namespaces.
const NAMESPACES: [(Namespaces, Feature); 8] = [
    (Namespaces::USER, Feature::UserNs),
    (Namespaces::PID, Feature::PidNs),
    (Namespaces::MOUNT, Feature::MountNs),
    (Namespaces::NET, Feature::NetNs),
    (Namespaces::IPC, Feature::IpcNs),
    (Namespaces::UTS, Feature::UtsNs),
    (Namespaces::CGROUP, Feature::CgroupNs),
    (Namespaces::TIME, Feature::TimeNs),
];
/// The capabilities by which a program without a user namespace of its own gets at what is outside:
/// mounts and namespaces, files by their handles, modules, memory, processes.
const WAYS_OUT: [Capability; 5] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_PTRACE,
];
const ADMIN_OUTSIDE: &str = "the program has CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH or the like on the host itself, and could \
                             leave: add user_ns(), or leave such capabilities out with capabilities()";
const MAY_MAKE_NODES: &str = "the program has CAP_MKNOD on the host itself, and could open any device: add user_ns() or \
                              devices(), or leave the capability out with capabilities()";
const MAY_SET_LIMITS: &str = "the program has CAP_SYS_RESOURCE in its user namespace, and could raise these limits: leave the \
                              capability out with capabilities()";
const MAY_UNMOUNT: &str = "the program has CAP_SYS_ADMIN over its mounts, and could unmount this or make it writable: \
                           leave the capability out with capabilities()";
const ONLY_COVERED: &str = "the host's root lies below this one (no_pivot), and who gets CAP_SYS_ADMIN over the mounts could \
                            take this one off: enter it by pivot_root(2)";
const ENTERED_BY_CHROOT: &str = "the program is in a mount namespace with another root, and this one was entered by chroot(2): \
                                 who gets CAP_SYS_ADMIN over that namespace could leave for its root";
const NOT_ITS_OWN: &str = "the mount namespace is not the sandbox's own; its mounts are, and no other process finds them, \
                           but who may write to the directory above one could rename or remove what it stands on";
const MAY_RAISE: &str = "the program has CAP_SYS_RESOURCE on the host itself, and could raise its limits: add user_ns(), \
                         or leave the capability out with capabilities()";

/// Returns a problem if a program with CAP_SYS_CHROOT could climb out of its root and the caller's.
fn left_by_chroot() -> Option<Problem> {
    let (reason, remedy) = match mount::caller_root() {
        CallerRoot::OfNamespace => return None,
        CallerRoot::Chroot => (
            "the caller has gone through chroot(2): a program with CAP_SYS_CHROOT would climb out of both roots",
            "leave the capability out with capabilities(), or enter the caller's root by pivot_root(2) instead",
        ),
        CallerRoot::Unknown => (
            "the caller has no /proc, or is short of open files or threads, and may have gone through chroot(2): a program \
             with CAP_SYS_CHROOT would climb out of both roots",
            "mount /proc, raise the caller's limits, or leave the capability out with capabilities()",
        ),
    };
    Some(Problem::unsupported("rootfs", reason, remedy))
}

impl Policy {
    /// Returns the problems of a root that a program with these privileges could leave for the host's:
    /// one that only covers the host's, by umount2(2), and one that was put over the directory of a
    /// caller who has gone through chroot(2), by chroot(2) once more, as `..` then leads on beyond it.
    /// The kernel itself makes no user namespace for such a caller.
    pub(crate) fn reaches_host_root(&self, privileges: &Privileges) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.mounts.root.is_none() {
            return problems;
        }
        if self.mounts.no_pivot && self.may_have(privileges, Capability::CAP_SYS_ADMIN) {
            let reason = "a program with CAP_SYS_ADMIN over its mounts would take the root off, and be on the host's";
            let remedy = "leave the capability out with capabilities(), or no_pivot()";
            problems.push(Problem::unsupported("no_pivot", reason, remedy));
        }
        if self.namespaces.ends_in.is_some() && self.may_have(privileges, Capability::CAP_SYS_ADMIN) {
            let reason = "a program with CAP_SYS_ADMIN would enter the root of its mount namespace, which is another";
            let remedy = "leave the capability out with capabilities(), or have a mount namespace of its own";
            problems.push(Problem::unsupported("mount_ns", reason, remedy));
        }
        let own = self.namespaces.new.contains(Namespaces::USER) || self.namespaces.joins(Namespaces::MOUNT);
        if !own && self.may_have(privileges, Capability::CAP_SYS_CHROOT) {
            problems.extend(left_by_chroot());
        }
        problems
    }

    /// Returns whether a program with these privileges can have a capability, also by an exec.
    fn may_have(&self, privileges: &Privileges, capability: Capability) -> bool {
        match &privileges.capabilities {
            Some(given) => given.reaches(capability),
            None => {
                // Another user than root has no capability after its exec: the inheritable and the
                // ambient set are empty. Without new privileges no file gives it any.
                let has_none = privileges.no_new_privs && self.program.user.is_some_and(|(uid, _)| uid != 0);
                let own_user_ns = self.namespaces.apart().contains(Namespaces::USER);
                let has = own_user_ns || has_capability(capability) || Uid::effective().is_root();
                !has_none && has
            }
        }
    }

    /// Notes the walls that the policy asks for. `privileges` are those of the program.
    pub(super) fn note_walls(&self, privileges: &Privileges, enforced: &mut Enforced) {
        let own_user_ns = self.namespaces.apart().contains(Namespaces::USER);
        let may = |capability: Capability| self.may_have(privileges, capability);
        let unless = |gap: bool, text| if gap { Enforcement::Partial(text) } else { Enforcement::Full };
        let is_admin = may(Capability::CAP_SYS_ADMIN);
        // The init of a pid namespace of its own has nothing outside to trace.
        let leads_out = |capability: &Capability| {
            may(*capability)
                && !(*capability == Capability::CAP_SYS_PTRACE && self.namespaces.new.contains(Namespaces::PID))
        };
        let outside = unless(!own_user_ns && WAYS_OUT.iter().any(leads_out), ADMIN_OUTSIDE);
        let makes_nodes = !own_user_ns && self.limits.devices.is_none() && may(Capability::CAP_MKNOD);
        let root_holds =
            if outside == Enforcement::Full { unless(makes_nodes, MAY_MAKE_NODES) } else { outside.clone() };
        let root_holds = match root_holds {
            Enforcement::Full if self.namespaces.ends_in.is_some() => Enforcement::Partial(ENTERED_BY_CHROOT),
            Enforcement::Full => unless(self.mounts.no_pivot, ONLY_COVERED),
            other => other,
        };
        let mounts = if own_user_ns { unless(is_admin, MAY_UNMOUNT) } else { outside.clone() };
        let apart = self.namespaces.apart();
        for (_, feature) in NAMESPACES.into_iter().filter(|(kind, _)| apart.contains(*kind)) {
            enforced.set(feature, outside.clone());
        }
        if self.namespaces.ends_in.is_some() && outside == Enforcement::Full {
            enforced.set(Feature::MountNs, Enforcement::Partial(NOT_ITS_OWN));
        }
        let limits = unless(!own_user_ns && may(Capability::CAP_SYS_RESOURCE), MAY_RAISE);
        let user_limits = unless(may(Capability::CAP_SYS_RESOURCE), MAY_SET_LIMITS);
        let (asked, root) = (&self.mounts, self.mounts.root.as_ref());
        let walls = [
            (Feature::RootFs, root.is_some(), root_holds),
            (Feature::ReadOnlyRoot, asked.read_only_root || root.is_some_and(|root| root.read_only), mounts.clone()),
            (Feature::DefaultMasks, asked.default_masks, mounts.clone()),
            (Feature::Mask, !asked.masks.is_empty(), mounts.clone()),
            (Feature::ReadOnlyPath, !asked.read_only_paths.is_empty(), mounts),
            (Feature::User, self.program.user.is_some(), Enforcement::Full),
            (Feature::NoNewPrivs, privileges.no_new_privs, Enforcement::Full),
            (Feature::SessionKeyring, self.security.session_keyring, Enforcement::Full),
            (Feature::UserLimit, !self.namespaces.user_limits.is_empty(), user_limits),
            (Feature::Rlimit, !self.program.rlimits.is_empty(), limits),
            (Feature::WallTime, self.wall_time.is_some(), Enforcement::Full),
        ];
        for (feature, _, how) in walls.into_iter().filter(|(_, is_asked, _)| *is_asked) {
            enforced.set(feature, how);
        }
    }
}
