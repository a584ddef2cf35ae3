//! The values of the OCI runtime specification's `linux.resources` that only one kernel interface
//! has, or that the two interfaces measure differently.

use std::collections::BTreeMap;
use std::time::Duration;

use super::controllers::Controllers;
use crate::feature::Feature;
use crate::units::Bytes;

/// The least and the greatest weight of `blkio.bfq.weight`, and of the specification.
pub(super) const BLKIO_WEIGHTS: [u64; 2] = [10, 1000];

/// Limits and settings of a control group in the terms of the [OCI runtime
/// specification](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups),
/// beside those that [`Limits`](crate::Limits) has for every host. A value that is not set does not
/// apply. A value that the host's version of control groups does not have is an error.
///
/// Where the two versions measure differently, the conversion is the one of
/// `opencontainers/cgroups`, which runc uses since 1.3.2. [`Bytes::MAX`] and [`Duration::MAX`] mean
/// that there is no limit.
///
/// ```
/// use ringfence::{Bytes, Limits, Resources};
///
/// let resources = Resources::new().cpu_shares(512).memory_and_swap(Bytes::mib(96));
/// let limits = Limits::new().memory(Bytes::mib(64)).resources(resources);
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub(crate) memory_reservation: Option<Bytes>,
    pub(crate) memory_and_swap: Option<Bytes>,
    pub(crate) swappiness: Option<u64>,
    pub(crate) oom_kill_disable: Option<bool>,
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) cpu_quota: Option<Duration>,
    pub(crate) cpu_period: Option<Duration>,
    pub(crate) realtime_runtime: Option<Duration>,
    pub(crate) realtime_period: Option<Duration>,
    pub(crate) blkio_weight: Option<u64>,
    /// Numbers of the disk and weight.
    pub(crate) device_weights: BTreeMap<(u64, u64), u64>,
    pub(crate) network_class: Option<u32>,
    /// Interface and priority.
    pub(crate) network_priorities: BTreeMap<String, u32>,
    /// Device, handles and objects.
    pub(crate) rdma: BTreeMap<String, (Option<u64>, Option<u64>)>,
    /// File and value.
    pub(crate) unified: BTreeMap<String, String>,
}

/// # Memory
impl Resources {
    /// Returns an empty set.
    pub fn new() -> Self {
        Resources::default()
    }

    /// Sets the memory in bytes that the sandbox keeps while the host is short of memory:
    /// `memory.soft_limit_in_bytes` on v1, `memory.low` on v2 (4.5). This is the specification's
    /// `memory.reservation`. Unlike [`memory_low`](crate::Limits::memory_low), it is no promise: it
    /// is set also where the groups above protect less.
    pub fn memory_reservation(self, kept: impl Into<Bytes>) -> Self {
        Resources { memory_reservation: Some(kept.into()), ..self }
    }

    /// Limits the sum of memory and swap, in bytes, as the specification's `memory.swap` does:
    /// `memory.memsw.limit_in_bytes` on v1. On v2 the rest after [`memory`](crate::Limits::memory)
    /// goes to `memory.swap.max`. The sum needs that limit, and is at least as much, unless it is
    /// [`Bytes::MAX`]. [`swap`](crate::Limits::swap) is the same limit without memory.
    pub fn memory_and_swap(self, sum: impl Into<Bytes>) -> Self {
        Resources { memory_and_swap: Some(sum.into()), ..self }
    }

    /// Sets how readily the kernel swaps, from 0 to 100: `memory.swappiness` on v1. v2 has no such
    /// file.
    pub fn swappiness(self, percent: u64) -> Self {
        Resources { swappiness: Some(percent), ..self }
    }

    /// Lets processes wait at the memory limit, where the OOM killer would otherwise kill one:
    /// `memory.oom_control` on v1. v2 has no such file. A sandbox that waits ends only by
    /// [`Child::kill`](crate::Child::kill), or by a limit of time.
    pub fn oom_kill_disable(self, disable: bool) -> Self {
        Resources { oom_kill_disable: Some(disable), ..self }
    }
}

/// # Processors
impl Resources {
    /// Sets the share of CPU time on the scale of v1, 2 to 262144, where 1024 is the default of
    /// every group: `cpu.shares` on v1. On v2, `cpu.weight` (4.15) is computed with the quadratic
    /// formula of `opencontainers/cgroups`, which maps 2 to 1, 1024 to 100 and 262144 to 10000.
    pub fn cpu_shares(self, shares: u64) -> Self {
        Resources { cpu_shares: Some(shares), ..self }
    }

    /// Limits the CPU time in each [period](Resources::cpu_period), from 1 ms: `cpu.cfs_quota_us`
    /// on v1, `cpu.max` on v2 (4.15). [`Limits::cpu`](crate::Limits::cpu) sets both by a number of
    /// cores.
    pub fn cpu_quota(self, quota: Duration) -> Self {
        Resources { cpu_quota: Some(quota), ..self }
    }

    /// Sets the period of the quota, from 1 ms to 1 s: `cpu.cfs_period_us` on v1, `cpu.max` on v2
    /// (4.15). The default is 100 ms. On v2 a period without a quota means no quota.
    pub fn cpu_period(self, period: Duration) -> Self {
        Resources { cpu_period: Some(period), ..self }
    }

    /// Sets the CPU time of realtime tasks in each [period](Resources::realtime_period):
    /// `cpu.rt_runtime_us` on v1, on a kernel with CONFIG_RT_GROUP_SCHED. v2 has no such file. The
    /// groups above need as much.
    pub fn realtime_runtime(self, runtime: Duration) -> Self {
        Resources { realtime_runtime: Some(runtime), ..self }
    }

    /// Sets the period of realtime tasks: `cpu.rt_period_us` on v1. v2 has no such file.
    pub fn realtime_period(self, period: Duration) -> Self {
        Resources { realtime_period: Some(period), ..self }
    }
}

/// # Disks, networks, and files by name
impl Resources {
    /// Sets the share of contended disks on the scale of v1, 10 to 1000: `blkio.bfq.weight`, or
    /// `blkio.weight` before 5.0, on v1; `io.bfq.weight` (5.0) on v2. `io.weight` (5.4) on v2 gets
    /// `1 + (weight - 10) * 9999 / 990`.
    pub fn blkio_weight(self, weight: u64) -> Self {
        Resources { blkio_weight: Some(weight), ..self }
    }

    /// Sets the share of one disk with these numbers, on the scale of
    /// [`blkio_weight`](Resources::blkio_weight): `blkio.bfq.weight_device` (5.4), or
    /// `blkio.weight_device` before 5.0, on v1; a line of the same files on v2.
    pub fn device_weight(mut self, major: u64, minor: u64, weight: u64) -> Self {
        self.device_weights.insert((major, minor), weight);
        self
    }

    /// Marks the packets of the sandbox's sockets with a class, for tc(8) and iptables(8):
    /// `net_cls.classid` on v1. v2 has no such file.
    pub fn network_class(self, class: u32) -> Self {
        Resources { network_class: Some(class), ..self }
    }

    /// Sets the priority of the sandbox's packets on one interface of the caller's network
    /// namespace: a line of `net_prio.ifpriomap` on v1. v2 has no such file.
    pub fn network_priority(mut self, interface: impl Into<String>, priority: u32) -> Self {
        self.network_priorities.insert(interface.into(), priority);
        self
    }

    /// Limits the handles and objects of one RDMA device, such as `mlx4_0`: `rdma.max` on v1 and v2
    /// (4.11). `None` leaves a number as it is; `u64::MAX` means no limit.
    pub fn rdma(
        mut self,
        device: impl Into<String>,
        handles: impl Into<Option<u64>>,
        objects: impl Into<Option<u64>>,
    ) -> Self {
        self.rdma.insert(device.into(), (handles.into(), objects.into()));
        self
    }

    /// Writes a value to a file of the v2 group, such as `memory.high`, after all other limits. The
    /// name is that of a file of one of the controllers cpu, cpuset, hugetlb, io, memory, misc,
    /// pids and rdma. On a host whose v2 hierarchy does not have the controller, it is an error.
    pub fn unified(mut self, file: impl Into<String>, value: impl Into<String>) -> Self {
        self.unified.insert(file.into(), value.into());
        self
    }
}

impl Resources {
    /// Returns the same values without those of `feature`.
    pub(super) fn without(self, feature: Feature) -> Self {
        match feature {
            Feature::MemoryReservation => Resources { memory_reservation: None, ..self },
            Feature::SwapLimit => Resources { memory_and_swap: None, ..self },
            Feature::Swappiness => Resources { swappiness: None, ..self },
            Feature::OomKillDisable => Resources { oom_kill_disable: None, ..self },
            // Without a limit of memory there is no sum.
            Feature::MemoryLimit => Resources { memory_and_swap: None, ..self },
            Feature::CpuWeight => Resources { cpu_shares: None, ..self },
            Feature::CpuLimit => Resources { cpu_quota: None, cpu_period: None, ..self },
            Feature::CpuRealtime => Resources { realtime_runtime: None, realtime_period: None, ..self },
            Feature::IoWeight => Resources { blkio_weight: None, device_weights: BTreeMap::new(), ..self },
            Feature::NetworkClass => Resources { network_class: None, ..self },
            Feature::NetworkPriority => Resources { network_priorities: BTreeMap::new(), ..self },
            Feature::Rdma => Resources { rdma: BTreeMap::new(), ..self },
            Feature::Unified => Resources { unified: BTreeMap::new(), ..self },
            _ => self,
        }
    }

    /// Returns the controllers of the files that are named.
    pub(super) fn unified_controllers(&self) -> Controllers {
        self.unified.keys().filter_map(|file| unified_controller(file)).collect()
    }

    /// Returns the swap that the sum of memory and swap leaves.
    pub(super) fn swap_beside(&self, memory: Option<Bytes>) -> Option<Bytes> {
        let sum = self.memory_and_swap?;
        let memory = memory.map_or(0, Bytes::get);
        Some(if sum == Bytes::MAX { sum } else { Bytes::new(sum.get().saturating_sub(memory)) })
    }

    /// Returns the lines of `rdma.max`, which is the same file on v1 and v2.
    pub(super) fn rdma_lines(&self) -> impl Iterator<Item = String> {
        self.rdma.iter().map(|(device, (handles, objects))| {
            let mut line = device.clone();
            for (key, value) in [("hca_handle", handles), ("hca_object", objects)] {
                if let Some(value) = value {
                    line += &format!(" {key}={}", max(*value));
                }
            }
            line
        })
    }

    /// Returns quota and period in microseconds. No quota stands for no limit.
    pub(super) fn quota_and_period(&self) -> Option<(Option<u64>, Option<u64>)> {
        let quota = self.cpu_quota.filter(|quota| *quota != Duration::MAX).map(micros);
        (self.cpu_quota.is_some() || self.cpu_period.is_some()).then(|| (quota, self.cpu_period.map(micros)))
    }
}

/// Returns a limit as the files of v2 take it. `pids.max` and `rdma.max` are the same on v1.
pub(super) fn max(limit: u64) -> String {
    if limit == u64::MAX { "max".to_owned() } else { limit.to_string() }
}

/// Returns a limit as the files of v1 take it.
pub(super) fn minus_one(limit: u64) -> String {
    if limit == u64::MAX { "-1".to_owned() } else { limit.to_string() }
}

/// Returns the microseconds of a time.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the controller of a v2 file, whose name begins with that of the controller. Returns
/// `None` for a name that is none of a file, and for the files of all groups, such as
/// `cgroup.procs`.
pub(super) fn unified_controller(file: &str) -> Option<Controllers> {
    const NAMED: [&str; 8] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];
    let (controller, rest) = file.split_once('.')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let named = !rest.is_empty() && file.len() <= 255 && file.bytes().all(plain);
    (named && NAMED.contains(&controller)).then(|| Controllers::named(controller))
}

/// Converts `cpu.shares` to `cpu.weight` as runc does since 1.3.2, with `opencontainers/cgroups`
/// (`ConvertCPUSharesToCgroupV2Value`): a quadratic function of the logarithm, which meets the
/// least, the default and the greatest value of both.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// Converts `blkio.weight` to `io.weight` as `opencontainers/cgroups` does
/// (`ConvertBlkIOToIOWeightValue`).
pub(super) fn io_weight_of_blkio(weight: u64) -> u64 {
    1 + weight.saturating_sub(10).saturating_mul(9999) / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_the_weights_that_runc_computes() {
        let pairs = [(2, 1), (3, 2), (10, 4), (512, 59), (1000, 99), (1024, 100), (1025, 101), (2048, 174)];
        for (shares, weight) in pairs.into_iter().chain([(0, 1), (10_000, 627), (262_143, 10_000), (u64::MAX, 10_000)])
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert!((2..262_144).all(|shares| weight_of_shares(shares) <= weight_of_shares(shares + 1)));
    }

    #[test]
    fn weights_of_disks_become_the_weights_that_runc_computes() {
        assert_eq!([10, 11, 100, 500, 1000].map(io_weight_of_blkio), [1, 11, 910, 4950, 10_000]);
    }

    #[test]
    fn the_sum_without_memory_is_the_swap() {
        let swap = |sum: Bytes, memory: u64| Resources::new().memory_and_swap(sum).swap_beside(Some(memory.into()));
        assert_eq!(swap(Bytes::mib(3), 1 << 20), Some(Bytes::mib(2)));
        assert_eq!(swap(Bytes::mib(1), 1 << 20), Some(Bytes::new(0)));
        assert_eq!(swap(Bytes::MAX, 1 << 20), Some(Bytes::MAX));
        assert_eq!(Resources::new().swap_beside(None), None);
    }

    #[test]
    fn only_files_of_known_controllers_are_named() {
        for file in ["memory.high", "cpu.max", "hugetlb.2MB.max", "cpuset.cpus.partition", "misc.max", "io.max"] {
            assert!(unified_controller(file).is_some_and(|c| c.iter().count() == 1), "{file}");
        }
        for file in [
            "",
            "memory",
            "memory.",
            ".",
            "..",
            "../memory.max",
            "memory/../cgroup.procs",
            "memory.a/b",
            "cgroup.procs",
            "cgroup.max.depth",
            "blkio.weight",
            "name=systemd.x",
            "perf_event.x",
            "memory.max\0",
            "memory.max\n",
            "MEMORY.max",
            "memory. max",
        ] {
            assert_eq!(unified_controller(file), None, "{file:?}");
        }
        assert_eq!(unified_controller(&format!("memory.{}", "a".repeat(249))), None);
        crate::fuzz::texts(&["memory.high", "hugetlb.2MB.max"], |text| _ = unified_controller(text));
    }
}
