//! The policy: all requests for one sandbox, as plain data. [`judge`](crate::judge) finds out
//! whether this host can carry out a policy, and [`launch`](crate::launch) carries it out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::utsname::uname;
use nix::unistd::{Gid, Uid};

use crate::cgroup::Limits;
#[cfg(feature = "systemd")]
use crate::cgroup::SystemdScope;
#[cfg(feature = "oci")]
use crate::cgroup::Unit;
use crate::feature::Feature;
use crate::mount::{ShownGroups, Surroundings};
use crate::namespace::Namespaces;
use crate::proc::user_ns;
use crate::program::{Invocation, Program};
use crate::security::{Landlock, Privileges, RemoteSupervisor, Seccomp};
use crate::{mount, namespace, stdio};

/// The default time limit of a setup.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// The data behind the builder [`Sandbox`](crate::Sandbox): one field for each kernel noun.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) program: Program,
    pub(crate) stdio: stdio::Descriptors,
    pub(crate) namespaces: namespace::Choice,
    pub(crate) mounts: mount::Mounts,
    pub(crate) landlock: Option<Landlock>,
    pub(crate) security: Privileges,
    pub(crate) limits: Limits,
    pub(crate) seccomp: Option<Seccomp>,
    /// The supervisor of the filter, in another process.
    pub(crate) supervisor: Option<RemoteSupervisor>,
    /// True if what the filter refuses is recorded.
    pub(crate) denials: bool,
    /// True if the sandbox takes no swap, where the host counts it, unless a limit says more.
    pub(crate) takes_no_swap: bool,
    pub(crate) cgroup_parent: Option<PathBuf>,
    /// The sandbox's own group, if the caller names it.
    pub(crate) cgroup: Option<PathBuf>,
    #[cfg(feature = "systemd")]
    pub(crate) systemd_scope: Option<SystemdScope>,
    /// The scope of systemd that is made for this sandbox alone. Its group is `cgroup`.
    #[cfg(feature = "oci")]
    pub(crate) unit: Option<Unit>,
    pub(crate) wall_time: Option<Duration>,
    /// The time between the signal at the wall limit and the kill.
    pub(crate) wall_time_grace: Option<Duration>,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) output_limit: Option<u64>,
    pub(crate) output_cut: bool,
    pub(crate) setup_timeout: Option<Duration>,
    pub(crate) timings: bool,
    /// True if a later process starts the program.
    pub(crate) durable: bool,
    pub(crate) best_effort: BTreeSet<Feature>,
    /// The op of the setup that fails, and its errno: for tests of what a failure leaves behind.
    pub(crate) fail_at: Option<(u32, i32)>,
}

impl Policy {
    /// Returns the group above the sandbox's own, if the policy names it.
    pub(crate) fn group_parent(&self) -> Option<&Path> {
        self.cgroup.as_deref().map_or(self.cgroup_parent.as_deref(), Path::parent)
    }

    /// Returns whether systemd makes the sandbox's group.
    pub(crate) fn has_unit(&self) -> bool {
        #[cfg(feature = "oci")]
        return self.unit.is_some();
        #[cfg(not(feature = "oci"))]
        return false;
    }

    /// Returns the time limit of a setup.
    pub(crate) fn setup_timeout(&self) -> Duration {
        self.setup_timeout.unwrap_or(SETUP_TIMEOUT)
    }

    /// Returns the same policy, without the descriptors that it holds: for further programs in a
    /// sandbox, which need none of them.
    pub(crate) fn without_descriptors(&self) -> Policy {
        let mut policy = self.clone();
        policy.stdio = stdio::Descriptors::default();
        policy.namespaces.forget_sources();
        policy.mounts.root.iter_mut().for_each(|root| root.guard = None);
        policy
    }

    /// Returns whether the program is shown the control groups of its sandbox, if there are any. A
    /// group is at the root of what the program sees only in a cgroup namespace of its own.
    pub(crate) fn shows_groups(&self) -> bool {
        let in_namespace = self.namespaces.new.contains(Namespaces::CGROUP) && self.mounts.shows_groups();
        self.namespaces.new.contains(Namespaces::MOUNT) && (in_namespace || self.binds_groups())
    }

    /// Returns whether the program is shown the directories of its control groups, without a
    /// namespace for them.
    pub(crate) fn binds_groups(&self) -> bool {
        !self.namespaces.new.contains(Namespaces::CGROUP) && self.mounts.lists_groups()
    }

    /// Returns the facts that decide the default mounts. `groups`: the control groups that the
    /// program can be shown.
    pub(crate) fn surroundings(&self, groups: ShownGroups) -> Surroundings {
        let apart = self.namespaces.apart();
        let around = Surroundings { pid_ns: apart.contains(Namespaces::PID), groups, ..Surroundings::default() };
        if self.mounts.image.is_none() {
            return around;
        }
        let own_name = || uname().map(|names| names.nodename().to_string_lossy().into_owned()).unwrap_or_default();
        Surroundings {
            user_ns: apart.contains(Namespaces::USER) || !user_ns::is_initial(),
            shares_net: !apart.contains(Namespaces::NET),
            hostname: self.namespaces.hostname.clone().unwrap_or_else(own_name),
            ..around
        }
    }

    /// Returns the invocation of the policy's own program. That of an image finds the name of its
    /// host in the environment.
    pub(crate) fn invocation(&self) -> Invocation {
        let mut invocation = self.program.invocation();
        if let (Some(_), Some(name)) = (self.mounts.image, &self.namespaces.hostname) {
            invocation.set_default("HOSTNAME", name);
        }
        invocation
    }

    /// Returns the user and group of the program as it sees them: without
    /// [`user`](crate::Sandbox::user) root of a new user namespace, else those of the caller.
    pub(crate) fn user_inside(&self) -> (u32, u32) {
        let own = || (Uid::effective().as_raw(), Gid::effective().as_raw());
        let default = || if self.namespaces.new.contains(Namespaces::USER) { (0, 0) } else { own() };
        self.program.user.unwrap_or_else(default)
    }
}
