//! The limits of a control group, with types.

use std::sync::LazyLock;
use std::time::Duration;

use super::controllers::Controllers;
use super::devices::Devices;
use super::io::IoLimit;
use super::resources::Resources;
use crate::feature::Feature;
use crate::units::Bytes;

/// Limits of a sandbox, which its control group enforces. A limit that is not set does not apply.
/// An amount of [`Bytes::MAX`], or a number of `u64::MAX`, means that there is no limit: it lifts
/// the one of a living sandbox.
///
/// ```
/// use ringfence::{Bytes, Limits};
///
/// let limits = Limits::new().memory(Bytes::mib(64)).swap(Bytes::new(0)).pids(32).cpu(0.5);
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    pub(crate) memory: Option<Bytes>,
    pub(crate) memory_high: Option<Bytes>,
    pub(crate) memory_low: Option<Bytes>,
    pub(crate) memory_min: Option<Bytes>,
    pub(crate) oom_group: Option<bool>,
    pub(crate) swap: Option<Bytes>,
    /// Page size and limit.
    pub(crate) hugetlb: Vec<(Bytes, Bytes)>,
    pub(crate) pids: Option<u64>,
    pub(crate) cpu: Option<f64>,
    pub(crate) cpu_burst: Option<Duration>,
    pub(crate) cpu_weight: Option<u64>,
    pub(crate) cpu_idle: Option<bool>,
    pub(crate) cpuset: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) io: Vec<IoLimit>,
    pub(crate) io_weight: Option<u64>,
    pub(crate) max_descendants: Option<u64>,
    pub(crate) max_depth: Option<u64>,
    pub(crate) devices: Option<Devices>,
    pub(crate) resources: Resources,
}

/// # Memory
impl Limits {
    /// Limits memory in bytes, page cache included, rounded down to whole pages:
    /// `memory.limit_in_bytes` on v1, `memory.max` on v2 (4.5). The OOM killer kills a process of a
    /// sandbox that needs more.
    ///
    /// The limit does not count swap: where the host has swap, the program can use it in addition,
    /// unless [`swap`](Limits::swap) limits it. With `swap(0)` the program has no more than this
    /// limit.
    ///
    /// The limit counts the buffers of TCP and UDP sockets: on v2 together with the rest, on v1
    /// separately, up to another quarter of the limit (`memory.kmem.tcp.limit_in_bytes`). On a
    /// kernel that does not count these buffers, or not its own memory, the limit is
    /// [`Partial`](crate::Enforcement::Partial).
    ///
    /// No kernel counts unread replies in netlink sockets, and locks of ranges of files. The limit
    /// is [`Partial`](crate::Enforcement::Partial) too unless a filter refuses both, as
    /// [`Seccomp::compute`](crate::Seccomp::compute) does: [`Seccomp`](crate::Seccomp) has the
    /// rules, and figures. Terminals, locks of whole files, and filters that the program installs are
    /// memory in addition as well, but bounded by the number of descriptors and processes.
    pub fn memory(self, limit: impl Into<Bytes>) -> Self {
        Limits { memory: Some(limit.into()), ..self }
    }

    /// Sets the memory in bytes above which the kernel reclaims from the sandbox and slows down
    /// processes that allocate more: `memory.high` on v2 (4.5). No process is killed, and usage can
    /// exceed the value where nothing can be reclaimed. v1 has no such limit: its
    /// `memory.soft_limit_in_bytes` counts only while the whole host is short of memory.
    pub fn memory_high(self, limit: impl Into<Bytes>) -> Self {
        Limits { memory_high: Some(limit.into()), ..self }
    }

    /// Protects memory in bytes: the kernel does not reclaim it from the sandbox while it can
    /// reclaim from other groups. `memory.low` on v2 (4.5).
    ///
    /// A group is protected only as far as every group above it. Each of those groups, up to the
    /// root, needs the same value in its own `memory.low`. Groups that this crate makes have none.
    pub fn memory_low(self, protected: impl Into<Bytes>) -> Self {
        Limits { memory_low: Some(protected.into()), ..self }
    }

    /// Protects memory in bytes: the kernel never reclaims it from the sandbox, and rather kills
    /// another process. `memory.min` on v2 (4.18). The groups above need the same value, as with
    /// [`memory_low`](Limits::memory_low).
    pub fn memory_min(self, protected: impl Into<Bytes>) -> Self {
        Limits { memory_min: Some(protected.into()), ..self }
    }

    /// Sets whether the OOM killer takes all processes of the sandbox together, or only one:
    /// `memory.oom.group` on v2 (4.19). Only processes with an oom_score_adj of -1000 are spared.
    pub fn oom_group(self, all: bool) -> Self {
        Limits { oom_group: Some(all), ..self }
    }

    /// Limits swap alone, in bytes; 0 means no swap. `memory.swap.max` on v2 (4.5). On v1,
    /// `memory.memsw.limit_in_bytes` limits the sum of memory and swap. There the limit needs a
    /// memory limit too, and a kernel that accounts for swap (`swapaccount=1` on the command line
    /// of kernels before 6.1).
    pub fn swap(self, limit: impl Into<Bytes>) -> Self {
        Limits { swap: Some(limit.into()), ..self }
    }

    /// Limits huge pages of the size `page`, in bytes, rounded down to whole pages; 0 means none.
    /// `hugetlb.SIZE.limit_in_bytes` on v1, `hugetlb.SIZE.max` on v2 (5.6). Huge pages do not count
    /// as [`memory`](Limits::memory). The same limit applies to pages in use and to reserved pages
    /// (5.7), so that an mmap(2) beyond the limit fails with ENOMEM. Where nothing is reserved
    /// (`MAP_NORESERVE`), the first access beyond the limit raises SIGBUS.
    pub fn hugetlb(mut self, page: impl Into<Bytes>, limit: impl Into<Bytes>) -> Self {
        let page = page.into();
        self.hugetlb.retain(|(other, _)| *other != page);
        self.hugetlb.push((page, limit.into()));
        self
    }
}

/// # Processes and processors
impl Limits {
    /// Returns an empty set of limits.
    pub fn new() -> Self {
        Limits::default()
    }

    /// Limits processes and threads, counted together: `pids.max` (4.3). A `fork` beyond the limit
    /// fails with EAGAIN. `u64::MAX` means no limit.
    pub fn pids(self, limit: u64) -> Self {
        Limits { pids: Some(limit), ..self }
    }

    /// Limits CPU time in cores, from 0.001: `0.25` is a quarter of a core, `2.0` is two cores.
    /// `cpu.cfs_quota_us` on v1, `cpu.max` on v2 (4.15), in periods of 100 ms. Below 0.01 cores the
    /// period is 1 s, because the kernel takes no quota below 1 ms.
    pub fn cpu(self, cores: f64) -> Self {
        Limits { cpu: Some(cores), ..self }
    }

    /// Sets how much unused time of the [cpu limit](Limits::cpu) from earlier periods one period
    /// may use in addition, at most one whole period's (0.25 cores: 25 ms). `cpu.cfs_burst_us` on
    /// v1, `cpu.max.burst` on v2 (5.14). The use over a longer time stays the same.
    pub fn cpu_burst(self, burst: Duration) -> Self {
        Limits { cpu_burst: Some(burst), ..self }
    }

    /// Sets the share of CPU time against sibling groups while CPUs are contended: 1 to 10000. The
    /// default of every group is 100. `cpu.weight` on v2 (4.15). On v1 `cpu.shares` = weight × 1024
    /// / 100, which is the value that the v2 kernel code computes from its weight, so that a number
    /// means the same on both.
    pub fn cpu_weight(self, weight: u64) -> Self {
        Limits { cpu_weight: Some(weight), ..self }
    }

    /// Sets whether the sandbox gets only the CPU time that its sibling groups leave over:
    /// `cpu.idle` on v1 and v2 (5.15). This setting replaces a weight.
    pub fn cpu_idle(self, idle: bool) -> Self {
        Limits { cpu_idle: Some(idle), ..self }
    }

    /// Sets the CPUs to run on, as in `0-3,8`: `cpuset.cpus`.
    pub fn cpuset(self, cpus: impl Into<String>) -> Self {
        Limits { cpuset: Some(cpus.into()), ..self }
    }

    /// Sets the memory nodes to allocate from, as in `0,2-3`: `cpuset.mems`.
    pub fn cpuset_mems(self, mems: impl Into<String>) -> Self {
        Limits { cpuset_mems: Some(mems.into()), ..self }
    }
}

/// # Disks and groups
impl Limits {
    /// Adds a limit for one block device.
    pub fn io(mut self, limit: IoLimit) -> Self {
        self.io.push(limit);
        self
    }

    /// Sets the share of a contended disk against sibling groups: 1 to 10000. The default of every
    /// group is 100.
    ///
    /// Two parts of the kernel use weights, and the owner of the host has to enable one of them for
    /// a disk. One is the scheduler bfq (`blkio.bfq.weight` on v1, `io.bfq.weight` on v2; 5.0),
    /// which treats every value above 1000 as 1000. The other, on v2 only, is the cost model of
    /// `io.cost.qos` (`io.weight`, 5.4).
    pub fn io_weight(self, weight: u64) -> Self {
        Limits { io_weight: Some(weight), ..self }
    }

    /// Sets the devices that may be opened and made: a BPF program on v2 (4.15), `devices.allow` on
    /// v1.
    pub fn devices(self, devices: Devices) -> Self {
        Limits { devices: Some(devices), ..self }
    }

    /// Sets the values in the terms of the OCI runtime specification.
    pub fn resources(self, resources: Resources) -> Self {
        Limits { resources, ..self }
    }

    /// Limits the control groups made inside, on all levels together: `cgroup.max.descendants` on
    /// v2 (4.14), also on a hybrid host. A `mkdir` beyond the limit fails with EAGAIN.
    pub fn max_descendants(self, limit: u64) -> Self {
        Limits { max_descendants: Some(limit), ..self }
    }

    /// Limits the levels of control groups made inside: `cgroup.max.depth` on v2 (4.14), also on a
    /// hybrid host. A `mkdir` beyond the limit fails with EAGAIN.
    pub fn max_depth(self, limit: u64) -> Self {
        Limits { max_depth: Some(limit), ..self }
    }
}

impl Limits {
    pub(crate) fn is_empty(&self) -> bool {
        static NONE: LazyLock<Limits> = LazyLock::new(Limits::default);
        *self == *NONE
    }

    /// Returns the features that these limits need, in the order of the documentation.
    pub(crate) fn features(&self) -> Vec<Feature> {
        let more = &self.resources;
        let requested = [
            (Feature::MemoryLimit, self.memory.is_some()),
            (Feature::MemoryHigh, self.memory_high.is_some()),
            (Feature::MemoryLow, self.memory_low.is_some()),
            (Feature::MemoryMin, self.memory_min.is_some()),
            (Feature::OomGroup, self.oom_group.is_some()),
            (Feature::SwapLimit, self.swap.is_some() || more.memory_and_swap.is_some()),
            (Feature::HugetlbLimit, !self.hugetlb.is_empty()),
            (Feature::PidsLimit, self.pids.is_some()),
            (Feature::CpuLimit, self.cpu.is_some() || more.quota_and_period().is_some()),
            (Feature::CpuBurst, self.cpu_burst.is_some()),
            (Feature::CpuWeight, self.cpu_weight.is_some() || more.cpu_shares.is_some()),
            (Feature::CpuIdle, self.cpu_idle.is_some()),
            (Feature::Cpuset, self.cpuset.is_some() || self.cpuset_mems.is_some()),
            (Feature::IoLimit, !self.io.is_empty()),
            (
                Feature::IoWeight,
                self.io_weight.is_some() || more.blkio_weight.is_some() || !more.device_weights.is_empty(),
            ),
            (Feature::CgroupMaxDescendants, self.max_descendants.is_some()),
            (Feature::CgroupMaxDepth, self.max_depth.is_some()),
            (Feature::MemoryReservation, more.memory_reservation.is_some()),
            (Feature::Swappiness, more.swappiness.is_some()),
            (Feature::OomKillDisable, more.oom_kill_disable.is_some()),
            (Feature::CpuRealtime, more.realtime_runtime.is_some() || more.realtime_period.is_some()),
            (Feature::NetworkClass, more.network_class.is_some()),
            (Feature::NetworkPriority, !more.network_priorities.is_empty()),
            (Feature::Rdma, !more.rdma.is_empty()),
            (Feature::Unified, !more.unified.is_empty()),
            (Feature::Devices, self.devices.is_some()),
        ];
        requested.into_iter().filter(|(_, requested)| *requested).map(|(feature, _)| feature).collect()
    }

    /// Returns the same limits without those of `feature`.
    pub(crate) fn without(mut self, feature: Feature) -> Self {
        self.resources = self.resources.without(feature);
        match feature {
            Feature::MemoryLimit => Limits { memory: None, ..self },
            Feature::MemoryHigh => Limits { memory_high: None, ..self },
            Feature::MemoryLow => Limits { memory_low: None, ..self },
            Feature::MemoryMin => Limits { memory_min: None, ..self },
            Feature::OomGroup => Limits { oom_group: None, ..self },
            Feature::SwapLimit => Limits { swap: None, ..self },
            Feature::HugetlbLimit => Limits { hugetlb: Vec::new(), ..self },
            Feature::PidsLimit => Limits { pids: None, ..self },
            // Without a CPU limit no time can be left over for a burst.
            Feature::CpuLimit => Limits { cpu: None, cpu_burst: None, ..self },
            Feature::CpuBurst => Limits { cpu_burst: None, ..self },
            Feature::CpuWeight => Limits { cpu_weight: None, ..self },
            Feature::CpuIdle => Limits { cpu_idle: None, ..self },
            Feature::Cpuset => Limits { cpuset: None, cpuset_mems: None, ..self },
            Feature::IoLimit => Limits { io: Vec::new(), ..self },
            Feature::IoWeight => Limits { io_weight: None, ..self },
            Feature::CgroupMaxDescendants => Limits { max_descendants: None, ..self },
            Feature::CgroupMaxDepth => Limits { max_depth: None, ..self },
            Feature::Devices => Limits { devices: None, ..self },
            // Control groups do not enforce this feature.
            _ => self,
        }
    }

    pub(super) fn controllers(&self) -> Controllers {
        self.features().into_iter().map(controller_of).collect::<Controllers>() | self.resources.unified_controllers()
    }

    /// Returns whether swap is limited without memory, which v1 cannot do.
    pub(super) fn swap_stands_alone(&self) -> bool {
        let limited = |limit: Option<Bytes>| limit.is_some_and(|limit| limit != Bytes::MAX);
        limited(self.swap) && !limited(self.memory)
    }

    /// Returns quota and period in microseconds.
    pub(super) fn cpu_quota(&self) -> Option<(u64, u64)> {
        let cores = self.cpu?;
        let period = if cores < 0.01 { 1_000_000 } else { 100_000 };
        Some(((cores * period as f64).round() as u64, period))
    }

    /// Returns the burst in microseconds.
    pub(super) fn cpu_burst_us(&self) -> Option<u64> {
        self.cpu_burst.map(|burst| u64::try_from(burst.as_micros()).unwrap_or(u64::MAX))
    }
}

/// Returns the controller that enforces a feature.
pub(super) fn controller_of(feature: Feature) -> Controllers {
    match feature {
        Feature::MemoryLimit
        | Feature::MemoryHigh
        | Feature::MemoryLow
        | Feature::MemoryMin
        | Feature::OomGroup
        | Feature::SwapLimit
        | Feature::MemoryReservation
        | Feature::Swappiness
        | Feature::OomKillDisable => Controllers::MEMORY,
        Feature::HugetlbLimit => Controllers::HUGETLB,
        Feature::PidsLimit => Controllers::PIDS,
        Feature::CpuLimit | Feature::CpuBurst | Feature::CpuWeight | Feature::CpuIdle | Feature::CpuRealtime => {
            Controllers::CPU
        }
        Feature::NetworkClass => Controllers::NET_CLS,
        Feature::NetworkPriority => Controllers::NET_PRIO,
        Feature::Rdma => Controllers::RDMA,
        Feature::Cpuset => Controllers::CPUSET,
        Feature::IoLimit | Feature::IoWeight => Controllers::IO,
        Feature::Devices => Controllers::DEVICES,
        Feature::CpuTime => Controllers::CPUACCT,
        // The controller of each file comes in addition.
        Feature::CgroupMaxDescendants | Feature::CgroupMaxDepth | Feature::Unified => Controllers::CORE,
        // Control groups do not enforce this feature.
        _ => Controllers::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_stay_above_the_kernels_least() {
        for (cores, want) in [(0.25, (25_000, 100_000)), (2.0, (200_000, 100_000)), (0.01, (1000, 100_000))] {
            assert_eq!(Limits::new().cpu(cores).cpu_quota(), Some(want));
        }
        assert_eq!(Limits::new().cpu(0.005).cpu_quota(), Some((5000, 1_000_000)));
        assert_eq!(Limits::new().cpu(0.001).cpu_quota(), Some((1000, 1_000_000)));
    }

    #[test]
    fn each_feature_can_be_left_out() {
        let limits = Limits::new().memory(1 << 30).memory_high(1 << 20).memory_low(1).memory_min(1).oom_group(true);
        let limits = limits.swap(0).hugetlb(2 << 20, 0).pids(1).cpu(1.0).cpu_burst(Duration::from_millis(1));
        let limits = limits.cpu_weight(1).cpu_idle(false).cpuset("0").cpuset_mems("0").io(IoLimit::device(1, 1));
        let limits = limits.io_weight(1).max_descendants(1).max_depth(1).devices(Devices::none());
        let more = Resources::new().memory_reservation(1).memory_and_swap(1).swappiness(1).oom_kill_disable(true);
        let more = more.cpu_shares(2).cpu_quota(Duration::MAX).cpu_period(Duration::MAX).blkio_weight(10);
        let more = more.realtime_runtime(Duration::MAX).realtime_period(Duration::MAX).device_weight(8, 0, 10);
        let more = more.network_class(1).network_priority("lo", 1).rdma("mlx4_0", 1, None).unified("pids.max", "1");
        let limits = limits.resources(more);
        let all = limits.features();
        assert_eq!(all.len(), 26);
        for feature in &all {
            assert!(!limits.clone().without(*feature).features().contains(feature), "{feature}");
        }
        let none = all.iter().fold(limits, |limits, feature| limits.without(*feature));
        assert!(none.is_empty(), "{none:?}");
    }

    #[test]
    fn a_page_size_has_one_limit() {
        let limits = Limits::new().hugetlb(Bytes::mib(2), 0).hugetlb(Bytes::gib(1), 5).hugetlb(Bytes::mib(2), 7);
        assert_eq!(limits.hugetlb, [(Bytes::gib(1), Bytes::new(5)), (Bytes::mib(2), Bytes::new(7))]);
    }
}
