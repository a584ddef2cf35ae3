//! Features of a sandbox, and how well a host enforces them.

use std::fmt;
use std::str::FromStr;

/// A feature of a sandbox that a policy asks for. By default, a feature that the host cannot
/// enforce is an error. With [`best_effort`](crate::Sandbox::best_effort), the sandbox runs without
/// it, and [`Enforced`] lists what is missing. From [`UserNs`](Feature::UserNs) on, `best_effort`
/// changes nothing about a feature: each supported kernel has it, or, for
/// [`Cgroupfs`](Feature::Cgroupfs), a sandbox goes without it in any case.
///
/// ```
/// use ringfence::{Enforcement, Feature, Sandbox};
///
/// // All that this host can enforce of what is asked for, and the rest is told.
/// let sandbox = Sandbox::new().memory_limit(64 << 20).pids_limit(16).command("true");
/// let child = Feature::ALL.iter().fold(sandbox, |sandbox, feature| sandbox.best_effort(*feature)).spawn()?;
/// if let Some(Enforcement::Missing(why)) = child.enforced().get(Feature::MemoryLimit) {
///     println!("no limit of memory: {why}");
/// }
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Feature {
    /// [`memory_limit`](crate::Sandbox::memory_limit).
    MemoryLimit,
    /// [`memory_high`](crate::Sandbox::memory_high).
    MemoryHigh,
    /// [`memory_low`](crate::Sandbox::memory_low).
    MemoryLow,
    /// [`memory_min`](crate::Sandbox::memory_min).
    MemoryMin,
    /// [`oom_group`](crate::Sandbox::oom_group).
    OomGroup,
    /// [`swap_limit`](crate::Sandbox::swap_limit).
    SwapLimit,
    /// [`hugetlb_limit`](crate::Sandbox::hugetlb_limit).
    HugetlbLimit,
    /// [`pids_limit`](crate::Sandbox::pids_limit).
    PidsLimit,
    /// [`cpu_limit`](crate::Sandbox::cpu_limit).
    CpuLimit,
    /// [`cpu_burst`](crate::Sandbox::cpu_burst).
    CpuBurst,
    /// [`cpu_weight`](crate::Sandbox::cpu_weight).
    CpuWeight,
    /// [`cpu_idle`](crate::Sandbox::cpu_idle).
    CpuIdle,
    /// [`cpuset`](crate::Sandbox::cpuset).
    Cpuset,
    /// [`io_limit`](crate::Sandbox::io_limit).
    IoLimit,
    /// [`io_weight`](crate::Sandbox::io_weight).
    IoWeight,
    /// [`cgroup_max_descendants`](crate::Sandbox::cgroup_max_descendants).
    CgroupMaxDescendants,
    /// [`cgroup_max_depth`](crate::Sandbox::cgroup_max_depth).
    CgroupMaxDepth,
    /// [`Resources::memory_reservation`](crate::Resources::memory_reservation).
    MemoryReservation,
    /// [`Resources::swappiness`](crate::Resources::swappiness).
    Swappiness,
    /// [`Resources::oom_kill_disable`](crate::Resources::oom_kill_disable).
    OomKillDisable,
    /// [`realtime_runtime`](crate::Resources::realtime_runtime) and
    /// [`realtime_period`](crate::Resources::realtime_period).
    CpuRealtime,
    /// [`Resources::network_class`](crate::Resources::network_class).
    NetworkClass,
    /// [`Resources::network_priority`](crate::Resources::network_priority).
    NetworkPriority,
    /// [`Resources::rdma`](crate::Resources::rdma).
    Rdma,
    /// [`Resources::unified`](crate::Resources::unified).
    Unified,
    /// [`devices`](crate::Sandbox::devices).
    Devices,
    /// [`cpu_time`](crate::Sandbox::cpu_time).
    CpuTime,
    /// The paths of [`landlock`](crate::Sandbox::landlock). With best effort, the kernel enforces
    /// what it can: before Linux 6.2, files that may not be written can be truncated; before Linux
    /// 5.13, nothing is enforced.
    LandlockFiles,
    /// The TCP ports of [`landlock`](crate::Sandbox::landlock).
    LandlockTcp,
    /// [`Landlock::scope_signals`](crate::Landlock::scope_signals).
    LandlockSignals,
    /// [`Landlock::scope_abstract_sockets`](crate::Landlock::scope_abstract_sockets).
    LandlockAbstractSockets,
    /// The bounding set of [`capabilities`](crate::Sandbox::capabilities).
    BoundingSet,
    /// [`seccomp`](crate::Sandbox::seccomp).
    Seccomp,
    /// [`output_limit`](crate::Sandbox::output_limit).
    OutputLimit,
    /// [`denials`](crate::Sandbox::denials).
    Denials,
    /// A [user namespace](crate::Sandbox::user_ns) apart from the caller's, made or joined.
    UserNs,
    /// A [pid namespace](crate::Sandbox::pid_ns) apart from the caller's.
    PidNs,
    /// A [mount namespace](crate::Sandbox::mount_ns) apart from the caller's.
    MountNs,
    /// A [network namespace](crate::Sandbox::net_ns) apart from the caller's.
    NetNs,
    /// An [IPC namespace](crate::Sandbox::ipc_ns) apart from the caller's.
    IpcNs,
    /// A [UTS namespace](crate::Sandbox::uts_ns) apart from the caller's.
    UtsNs,
    /// A [cgroup namespace](crate::Sandbox::cgroup_ns) apart from the caller's.
    CgroupNs,
    /// A [time namespace](crate::Sandbox::time_ns) apart from the caller's.
    TimeNs,
    /// [`rootfs`](crate::Sandbox::rootfs).
    RootFs,
    /// [`read_only_root`](crate::Sandbox::read_only_root), or a root that is read-only by itself.
    ReadOnlyRoot,
    /// [`default_masks`](crate::Sandbox::default_masks).
    DefaultMasks,
    /// [`mask`](crate::Sandbox::mask).
    Mask,
    /// [`read_only_path`](crate::Sandbox::read_only_path).
    ReadOnlyPath,
    /// [`user`](crate::Sandbox::user).
    User,
    /// [`no_new_privs`](crate::Sandbox::no_new_privs).
    NoNewPrivs,
    /// [`session_keyring`](crate::Sandbox::session_keyring).
    SessionKeyring,
    /// [`user_limit`](crate::Sandbox::user_limit) and
    /// [`max_user_namespaces`](crate::Sandbox::max_user_namespaces).
    UserLimit,
    /// [`rlimit`](crate::Sandbox::rlimit).
    Rlimit,
    /// [`wall_time`](crate::Sandbox::wall_time).
    WallTime,
    /// The sandbox's own control groups at `/sys/fs/cgroup`, which
    /// [`strict`](crate::Sandbox::strict) and images show by default. Where the kernel or a
    /// security module refuses to mount them, the sandbox goes without. A
    /// [`Cgroupfs`](crate::Cgroupfs) that was asked for by name is mounted, or is an error.
    Cgroupfs,
}

impl Feature {
    /// All features, in the order of the documentation.
    pub const ALL: &'static [Feature] = &[
        Feature::MemoryLimit,
        Feature::MemoryHigh,
        Feature::MemoryLow,
        Feature::MemoryMin,
        Feature::OomGroup,
        Feature::SwapLimit,
        Feature::HugetlbLimit,
        Feature::PidsLimit,
        Feature::CpuLimit,
        Feature::CpuBurst,
        Feature::CpuWeight,
        Feature::CpuIdle,
        Feature::Cpuset,
        Feature::IoLimit,
        Feature::IoWeight,
        Feature::CgroupMaxDescendants,
        Feature::CgroupMaxDepth,
        Feature::MemoryReservation,
        Feature::Swappiness,
        Feature::OomKillDisable,
        Feature::CpuRealtime,
        Feature::NetworkClass,
        Feature::NetworkPriority,
        Feature::Rdma,
        Feature::Unified,
        Feature::Devices,
        Feature::CpuTime,
        Feature::LandlockFiles,
        Feature::LandlockTcp,
        Feature::LandlockSignals,
        Feature::LandlockAbstractSockets,
        Feature::BoundingSet,
        Feature::Seccomp,
        Feature::OutputLimit,
        Feature::Denials,
        Feature::UserNs,
        Feature::PidNs,
        Feature::MountNs,
        Feature::NetNs,
        Feature::IpcNs,
        Feature::UtsNs,
        Feature::CgroupNs,
        Feature::TimeNs,
        Feature::RootFs,
        Feature::ReadOnlyRoot,
        Feature::DefaultMasks,
        Feature::Mask,
        Feature::ReadOnlyPath,
        Feature::User,
        Feature::NoNewPrivs,
        Feature::SessionKeyring,
        Feature::UserLimit,
        Feature::Rlimit,
        Feature::WallTime,
        Feature::Cgroupfs,
    ];

    /// Returns the name of the builder method, or of the part of one, that asks for the feature.
    pub fn as_str(self) -> &'static str {
        match self {
            Feature::MemoryLimit => "memory_limit",
            Feature::MemoryHigh => "memory_high",
            Feature::MemoryLow => "memory_low",
            Feature::MemoryMin => "memory_min",
            Feature::OomGroup => "oom_group",
            Feature::SwapLimit => "swap_limit",
            Feature::HugetlbLimit => "hugetlb_limit",
            Feature::PidsLimit => "pids_limit",
            Feature::CpuLimit => "cpu_limit",
            Feature::CpuBurst => "cpu_burst",
            Feature::CpuWeight => "cpu_weight",
            Feature::CpuIdle => "cpu_idle",
            Feature::Cpuset => "cpuset",
            Feature::IoLimit => "io_limit",
            Feature::IoWeight => "io_weight",
            Feature::CgroupMaxDescendants => "cgroup_max_descendants",
            Feature::CgroupMaxDepth => "cgroup_max_depth",
            Feature::MemoryReservation => "memory_reservation",
            Feature::Swappiness => "swappiness",
            Feature::OomKillDisable => "oom_kill_disable",
            Feature::CpuRealtime => "realtime",
            Feature::NetworkClass => "network_class",
            Feature::NetworkPriority => "network_priority",
            Feature::Rdma => "rdma",
            Feature::Unified => "unified",
            Feature::Devices => "devices",
            Feature::CpuTime => "cpu_time",
            Feature::LandlockFiles => "landlock paths",
            Feature::LandlockTcp => "landlock TCP ports",
            Feature::LandlockSignals => "landlock signals",
            Feature::LandlockAbstractSockets => "landlock abstract sockets",
            Feature::BoundingSet => "capabilities",
            Feature::Seccomp => "seccomp",
            Feature::OutputLimit => "output_limit",
            Feature::Denials => "denials",
            Feature::UserNs => "user_ns",
            Feature::PidNs => "pid_ns",
            Feature::MountNs => "mount_ns",
            Feature::NetNs => "net_ns",
            Feature::IpcNs => "ipc_ns",
            Feature::UtsNs => "uts_ns",
            Feature::CgroupNs => "cgroup_ns",
            Feature::TimeNs => "time_ns",
            Feature::RootFs => "rootfs",
            Feature::ReadOnlyRoot => "read_only_root",
            Feature::DefaultMasks => "default_masks",
            Feature::Mask => "mask",
            Feature::ReadOnlyPath => "read_only_path",
            Feature::User => "user",
            Feature::NoNewPrivs => "no_new_privs",
            Feature::SessionKeyring => "session_keyring",
            Feature::UserLimit => "user_limit",
            Feature::Rlimit => "rlimit",
            Feature::WallTime => "wall_time",
            Feature::Cgroupfs => "cgroupfs",
        }
    }
}

/// An error for a text that is not the name of a [`Feature`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a feature of a sandbox: features have the names of the builder's methods, such as memory_limit")]
pub struct ParseFeatureError(String);

/// Parses a name that [`Feature::as_str`] returns.
///
/// ```
/// use ringfence::Feature;
///
/// assert_eq!("pids_limit".parse(), Ok(Feature::PidsLimit));
/// assert!("pids".parse::<Feature>().is_err());
/// ```
impl FromStr for Feature {
    type Err = ParseFeatureError;

    fn from_str(text: &str) -> Result<Self, ParseFeatureError> {
        let found = Feature::ALL.iter().copied().find(|feature| feature.as_str() == text);
        found.ok_or_else(|| ParseFeatureError(text.to_owned()))
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The degree to which a feature is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enforcement {
    /// The kernel enforces the feature.
    Full,
    /// The kernel enforces the feature, except for the gap that the text describes.
    Partial(&'static str),
    /// The feature is not enforced. The text says why, and what would help.
    Missing(String),
}

/// The enforcement of each feature that was asked for.
///
/// ```
/// use ringfence::{Enforcement, Feature, Sandbox};
///
/// let enforced = Sandbox::new().no_new_privs(true).check()?;
/// assert_eq!(enforced.get(Feature::NoNewPrivs), Some(&Enforcement::Full));
/// assert_eq!(enforced.get(Feature::MemoryLimit), None, "nobody asked for a limit");
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enforced {
    entries: Vec<(Feature, Enforcement)>,
}

impl Enforced {
    /// Notes the enforcement of a feature.
    pub(crate) fn set(&mut self, feature: Feature, enforcement: Enforcement) {
        self.entries.retain(|(f, _)| *f != feature);
        self.entries.push((feature, enforcement));
    }

    /// Notes a gap in a feature that would be enforced in full.
    pub(crate) fn note_gap(&mut self, feature: Feature, gap: &'static str) {
        if self.get(feature) == Some(&Enforcement::Full) {
            self.set(feature, Enforcement::Partial(gap));
        }
    }

    /// Returns the enforcement of `feature`, or `None` if the feature was not asked for.
    pub fn get(&self, feature: Feature) -> Option<&Enforcement> {
        self.entries.iter().find(|(f, _)| *f == feature).map(|(_, e)| e)
    }

    /// Returns all features that were asked for, with their enforcement.
    pub fn iter(&self) -> impl Iterator<Item = (Feature, &Enforcement)> {
        self.entries.iter().map(|(f, e)| (*f, e))
    }

    /// Returns true if every feature that was asked for is enforced without a gap.
    pub fn is_full(&self) -> bool {
        self.entries.iter().all(|(_, e)| *e == Enforcement::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for feature in Feature::ALL {
            assert_eq!(feature.as_str().parse(), Ok(*feature));
        }
    }
}
