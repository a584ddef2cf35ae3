//! The setters for limits of the control group.

use std::time::Duration;

use super::Sandbox;
use crate::cgroup::{Device, DeviceAccess, Devices, IoLimit, Limits, Resources};
use crate::units::Bytes;

/// # Limits
impl Sandbox {
    /// Replaces all limits of the control group that were set so far. [`Child::update`] takes the
    /// same type.
    ///
    /// [`Child::update`]: crate::Child::update
    ///
    /// ```
    /// use ringfence::{Bytes, Limits, Sandbox};
    ///
    /// let small = Limits::new().memory(Bytes::mib(64)).pids(16).cpu(0.5);
    /// let sandbox = Sandbox::new().limits(small);
    /// # drop(sandbox);
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        self.policy.limits = limits;
        self
    }

    /// Sets the most memory, page cache included, that all processes of the sandbox may use
    /// together (`memory.max`; `memory.limit_in_bytes` on v1). Beyond the limit, the kernel kills:
    /// [`Verdict::OutOfMemory`](crate::Verdict::OutOfMemory).
    ///
    /// Where the host has swap, pages can still be swapped out: see
    /// [`swap_limit`](Sandbox::swap_limit). [`Limits::memory`](crate::Limits::memory) lists the
    /// memory that the kernel does not count.
    ///
    /// ```no_run
    /// use ringfence::{Bytes, Sandbox, Verdict};
    ///
    /// let sandbox = Sandbox::new().memory_limit(Bytes::mib(32)).command("tail").arg("/dev/zero");
    /// assert_eq!(sandbox.status()?.verdict(), Verdict::OutOfMemory);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn memory_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory(limit);
        self
    }

    /// Sets the amount of memory beyond which the kernel reclaims from the sandbox, and slows down
    /// processes that ask for more (`memory.high`; none on v1). The kernel kills no process for
    /// this limit: [`Limits::memory_high`](crate::Limits::memory_high).
    pub fn memory_high(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_high(limit);
        self
    }

    /// Sets an amount of memory that the kernel does not reclaim from the sandbox while other
    /// groups have any (`memory.low`; none on v1). The groups above need the same protection:
    /// [`Limits::memory_low`](crate::Limits::memory_low).
    pub fn memory_low(mut self, protected: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_low(protected);
        self
    }

    /// Sets an amount of memory that the kernel never reclaims from the sandbox (`memory.min`; none
    /// on v1). The groups above need the same protection:
    /// [`Limits::memory_low`](crate::Limits::memory_low).
    pub fn memory_min(mut self, protected: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_min(protected);
        self
    }

    /// Makes the OOM killer end all processes of the sandbox together, instead of the largest one
    /// (`memory.oom.group`; none on v1). With a [`pid_ns`](Sandbox::pid_ns), the end of the first
    /// process ends the others in any case.
    pub fn oom_group(mut self, all: bool) -> Self {
        self.policy.limits = self.policy.limits.oom_group(all);
        self
    }

    /// Sets the most swap, beside the memory, that the sandbox may use (`memory.swap.max`). On v1,
    /// where memory and swap have one limit together, this call needs
    /// [`memory_limit`](Sandbox::memory_limit). 0 forbids swapping.
    pub fn swap_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.swap(limit);
        self
    }

    /// Sets the most memory in huge pages of the size `page` (`hugetlb.2MB.max`;
    /// `hugetlb.2MB.limit_in_bytes` on v1), which no other limit counts. Beyond the limit, mmap(2)
    /// fails with ENOMEM: [`Limits::hugetlb`](crate::Limits::hugetlb).
    pub fn hugetlb_limit(mut self, page: impl Into<Bytes>, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.hugetlb(page, limit);
        self
    }

    /// Sets the most processes and threads in the sandbox, init included (`pids.max`). Beyond the
    /// limit, fork(2) fails with EAGAIN.
    pub fn pids_limit(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.pids(limit);
        self
    }

    /// Sets the most processor time in a second of wall time, in cores: 0.25 is a quarter of one
    /// core (`cpu.max`; `cpu.cfs_quota_us` on v1).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// // At most one and a half processors.
    /// let sandbox = Sandbox::new().cpu_limit(1.5);
    /// # drop(sandbox);
    /// ```
    pub fn cpu_limit(mut self, cores: f64) -> Self {
        self.policy.limits = self.policy.limits.cpu(cores);
        self
    }

    /// Sets the most unused processor time of [`cpu_limit`](Sandbox::cpu_limit) that the sandbox
    /// may use in a later period of 100 ms (`cpu.max.burst`; `cpu.cfs_burst_us` on v1; Linux 5.14).
    pub fn cpu_burst(mut self, burst: Duration) -> Self {
        self.policy.limits = self.policy.limits.cpu_burst(burst);
        self
    }

    /// Lets the sandbox run only on processor time that its siblings leave unused, whatever their
    /// weights (`cpu.idle`; Linux 5.15).
    pub fn cpu_idle(mut self, idle: bool) -> Self {
        self.policy.limits = self.policy.limits.cpu_idle(idle);
        self
    }

    /// Sets the share of a contended processor, 1 to 10,000, where 100 is the default of every
    /// group (`cpu.weight`; `cpu.shares` on v1).
    pub fn cpu_weight(mut self, weight: u64) -> Self {
        self.policy.limits = self.policy.limits.cpu_weight(weight);
        self
    }

    /// Sets the processors that the sandbox may use, as in `0-3,8` (`cpuset.cpus`).
    pub fn cpuset(mut self, cpus: impl Into<String>) -> Self {
        self.policy.limits = self.policy.limits.cpuset(cpus);
        self
    }

    /// Sets the memory nodes that the sandbox may use, as in `0-1` (`cpuset.mems`).
    pub fn cpuset_mems(mut self, nodes: impl Into<String>) -> Self {
        self.policy.limits = self.policy.limits.cpuset_mems(nodes);
        self
    }

    /// Limits the bandwidth and the operations a second on a block device (`io.max`;
    /// `blkio.throttle.*` on v1, where the limit does not hold for buffered writes:
    /// [`Child::enforced`](crate::Child::enforced) reports that).
    pub fn io_limit(mut self, limit: IoLimit) -> Self {
        self.policy.limits = self.policy.limits.io(limit);
        self
    }
    /// Sets the share of a contended disk, 1 to 10,000, where 100 is the default of every group
    /// (`io.weight`, `io.bfq.weight`; `blkio.bfq.weight` on v1). The share holds on disks whose
    /// scheduler, or cost model, knows weights: [`Limits::io_weight`](crate::Limits::io_weight).
    pub fn io_weight(mut self, weight: u64) -> Self {
        self.policy.limits = self.policy.limits.io_weight(weight);
        self
    }

    /// Sets limits and settings in the terms of the OCI runtime specification, beside those of the
    /// other calls: raw shares and quotas, the sum of memory and swap, files of v2 by their name, and
    /// what only v1 has, such as `net_cls`. What the host's version of control groups does not have
    /// is an error. See [`Resources`].
    pub fn resources(mut self, resources: Resources) -> Self {
        self.policy.limits = self.policy.limits.resources(resources);
        self
    }

    /// Sets the devices that processes of the sandbox may open and make, and forbids all others:
    /// [`Devices::standard`] has those that programs expect, and [`Devices::none`] has none. The
    /// rules hold from the sandbox's first moment, by a BPF program on cgroup v2 (4.15) and by
    /// `devices.allow` on v1. They need root.
    pub fn devices(mut self, devices: Devices) -> Self {
        self.policy.limits = self.policy.limits.devices(devices);
        self
    }

    /// Adds a device to those of [`devices`](Sandbox::devices), or to none without that call.
    pub fn device_allow(mut self, device: Device, access: DeviceAccess) -> Self {
        let devices = self.policy.limits.devices.take().unwrap_or_default();
        self.devices(devices.allow(device, access))
    }

    /// Sets the most control groups that can be made below the sandbox's own
    /// (`cgroup.max.descendants`; none on v1). Without this limit, the program of an ordinary user
    /// sees its control groups read-only.
    pub fn cgroup_max_descendants(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.max_descendants(limit);
        self
    }

    /// Sets the most levels of control groups that can be made below the sandbox's own
    /// (`cgroup.max.depth`; none on v1).
    pub fn cgroup_max_depth(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.max_depth(limit);
        self
    }
}
