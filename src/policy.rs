//! The policy: all requests for one sandbox, as plain data. [`judge`](crate::judge) finds out
//! whether this host can carry out a policy, and [`launch`](crate::launch) carries it out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{Gid, Uid};

use crate::cgroup::Limits;
#[cfg(feature = "systemd")]
use crate::cgroup::SystemdScope;
use crate::feature::Feature;
use crate::namespace::Namespaces;
use crate::program::Program;
use crate::security::{Landlock, Privileges, Seccomp};
use crate::{mount, namespace, stdio};

/// The default time limit of a setup.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// The data behind the builder [`Sandbox`](crate::Sandbox): one field for each kernel noun.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) program: Program,
    pub(crate) stdio: stdio::Descriptors,
    pub(crate) namespaces: namespace::Policy,
    pub(crate) mounts: mount::Policy,
    pub(crate) landlock: Option<Landlock>,
    pub(crate) security: Privileges,
    pub(crate) limits: Limits,
    pub(crate) seccomp: Option<Seccomp>,
    pub(crate) cgroup_parent: Option<PathBuf>,
    #[cfg(feature = "systemd")]
    pub(crate) systemd_scope: Option<SystemdScope>,
    pub(crate) wall_time: Option<Duration>,
    /// The time between the signal at the wall limit and the kill.
    pub(crate) wall_time_grace: Option<Duration>,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) output_limit: Option<u64>,
    pub(crate) output_cut: bool,
    pub(crate) setup_timeout: Option<Duration>,
    pub(crate) timings: bool,
    pub(crate) best_effort: BTreeSet<Feature>,
    /// The op of the setup that fails, and its errno: for tests of what a failure leaves behind.
    pub(crate) fail_at: Option<(u32, i32)>,
}

impl Policy {
    /// Returns the time limit of a setup.
    pub(crate) fn setup_timeout(&self) -> Duration {
        self.setup_timeout.unwrap_or(SETUP_TIMEOUT)
    }

    /// Returns the user and group of the program as it sees them: without
    /// [`user`](crate::Sandbox::user) root of a new user namespace, else those of the caller.
    pub(crate) fn user_inside(&self) -> (u32, u32) {
        let own = || (Uid::effective().as_raw(), Gid::effective().as_raw());
        let default = || if self.namespaces.new.contains(Namespaces::USER) { (0, 0) } else { own() };
        self.program.user.unwrap_or_else(default)
    }
}
