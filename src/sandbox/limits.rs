//! The calls that add limits of the control group.

use std::time::Duration;

use super::Sandbox;
use crate::cgroup::{Device, DeviceAccess, Devices, IoLimit, Limits};
use crate::units::Bytes;

/// # Limits
impl Sandbox {
    /// All limits of the control group at once, in the place of those that were set so far. [`Child::update`] takes the same
    /// type.
    ///
    /// [`Child::update`]: crate::Child::update
    pub fn limits(mut self, limits: Limits) -> Self {
        self.policy.limits = limits;
        self
    }

    /// The most memory, page cache included, that everything in the sandbox may use together (`memory.max`;
    /// `memory.limit_in_bytes` on v1). Beyond it the kernel kills: [`Verdict::OutOfMemory`](crate::Verdict::OutOfMemory).
    ///
    /// Pages can still be swapped out where the host has swap: see [`swap_limit`](Sandbox::swap_limit). What the kernel does
    /// not count: [`Limits::memory`](crate::Limits::memory).
    pub fn memory_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory(limit);
        self
    }

    /// The memory from which on the kernel reclaims from the sandbox and slows down whoever asks for more (`memory.high`;
    /// none on v1). Nobody is killed for it: [`Limits::memory_high`](crate::Limits::memory_high).
    pub fn memory_high(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_high(limit);
        self
    }

    /// Memory that is not reclaimed from the sandbox while others have any (`memory.low`; none on v1). The groups above
    /// have to be protected likewise: [`Limits::memory_low`](crate::Limits::memory_low).
    pub fn memory_low(mut self, protected: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_low(protected);
        self
    }

    /// Memory that is never reclaimed from the sandbox (`memory.min`; none on v1). The groups above have to be protected
    /// likewise: [`Limits::memory_low`](crate::Limits::memory_low).
    pub fn memory_min(mut self, protected: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_min(protected);
        self
    }

    /// Whether the OOM killer takes everything in the sandbox together, instead of the largest process
    /// (`memory.oom.group`; none on v1). With a [`pid_ns`](Sandbox::pid_ns) the end of the first process takes the rest
    /// along anyway.
    pub fn oom_group(mut self, all: bool) -> Self {
        self.policy.limits = self.policy.limits.oom_group(all);
        self
    }

    /// The most swap, beside the memory, that the sandbox may use (`memory.swap.max`; on v1, where memory and swap are
    /// limited together, it needs [`memory_limit`](Sandbox::memory_limit)). 0 forbids swapping.
    pub fn swap_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.swap(limit);
        self
    }

    /// The most memory in huge pages of the size `page` (`hugetlb.2MB.max`; `hugetlb.2MB.limit_in_bytes` on v1), which no
    /// other limit counts. Beyond it mmap(2) fails with ENOMEM: [`Limits::hugetlb`](crate::Limits::hugetlb).
    pub fn hugetlb_limit(mut self, page: impl Into<Bytes>, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.hugetlb(page, limit);
        self
    }

    /// The most processes and threads in the sandbox (`pids.max`), init included. Beyond it fork(2) fails with EAGAIN.
    pub fn pids_limit(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.pids(limit);
        self
    }

    /// The most processor time a second of wall time, in cores: 0.25 is a quarter of one (`cpu.max`; `cpu.cfs_quota_us`
    /// on v1).
    pub fn cpu_limit(mut self, cores: f64) -> Self {
        self.policy.limits = self.policy.limits.cpu(cores);
        self
    }

    /// How much processor time that [`cpu_limit`](Sandbox::cpu_limit) gave and nobody used may be used in a later period
    /// of 100 ms (`cpu.max.burst`; `cpu.cfs_burst_us` on v1; Linux 5.14).
    pub fn cpu_burst(mut self, burst: Duration) -> Self {
        self.policy.limits = self.policy.limits.cpu_burst(burst);
        self
    }

    /// Whether the sandbox runs only on processor time that its siblings leave over, whatever their weights (`cpu.idle`;
    /// Linux 5.15).
    pub fn cpu_idle(mut self, idle: bool) -> Self {
        self.policy.limits = self.policy.limits.cpu_idle(idle);
        self
    }

    /// The share of a contended processor, 1 to 10,000, where 100 is the default of every group (`cpu.weight`;
    /// `cpu.shares` on v1).
    pub fn cpu_weight(mut self, weight: u64) -> Self {
        self.policy.limits = self.policy.limits.cpu_weight(weight);
        self
    }

    /// The processors that may be used, as in `0-3,8` (`cpuset.cpus`).
    pub fn cpuset(mut self, cpus: impl Into<String>) -> Self {
        self.policy.limits = self.policy.limits.cpuset(cpus);
        self
    }

    /// The memory nodes that may be used, as in `0-1` (`cpuset.mems`).
    pub fn cpuset_mems(mut self, nodes: impl Into<String>) -> Self {
        self.policy.limits = self.policy.limits.cpuset_mems(nodes);
        self
    }

    /// Bandwidth and operations a second on a block device (`io.max`; `blkio.throttle.*` on v1, where buffered writes
    /// escape it: [`Child::enforced`](crate::Child::enforced) says so).
    pub fn io_limit(mut self, limit: IoLimit) -> Self {
        self.policy.limits = self.policy.limits.io(limit);
        self
    }
    /// The share of a contended disk, 1 to 10,000, where 100 is the default of every group (`io.weight`,
    /// `io.bfq.weight`; `blkio.bfq.weight` on v1). It holds on disks whose scheduler, or cost model, knows weights:
    /// [`Limits::io_weight`](crate::Limits::io_weight).
    pub fn io_weight(mut self, weight: u64) -> Self {
        self.policy.limits = self.policy.limits.io_weight(weight);
        self
    }

    /// The devices that may be opened and made, and no others: [`Devices::standard`] has what programs expect, and
    /// [`Devices::none`] has none. In force from the sandbox's first moment, by a BPF program on cgroup v2 (4.15) and by
    /// `devices.allow` on v1; for root only.
    pub fn devices(mut self, devices: Devices) -> Self {
        self.policy.limits = self.policy.limits.devices(devices);
        self
    }

    /// Adds a device to those of [`devices`](Sandbox::devices); without that call, to none.
    pub fn device_allow(mut self, device: Device, access: DeviceAccess) -> Self {
        let devices = self.policy.limits.devices.take().unwrap_or_default();
        self.devices(devices.allow(device, access))
    }

    /// How many control groups may be made inside the sandbox's own (`cgroup.max.descendants`; none on v1). An ordinary
    /// user's program sees its control groups read-only without it.
    pub fn cgroup_max_descendants(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.max_descendants(limit);
        self
    }

    /// How many levels of control groups may be made inside the sandbox's own (`cgroup.max.depth`; none on v1).
    pub fn cgroup_max_depth(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.max_depth(limit);
        self
    }
}
