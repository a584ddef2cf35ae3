//! The files of cgroup v1 that take limits.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::cgroup::limits::Limits;
use crate::cgroup::resources::{BLKIO_WEIGHTS, max, micros, minus_one};
use crate::cgroup::write::{BFQ_HEAVIEST, Write};
use crate::cgroup::{hugetlb, kernfs};
use crate::feature::Feature;
use crate::units::Bytes;

/// `PAGE_COUNTER_MAX` in bytes, rounded down for the largest page: the value of an unlimited v1
/// memory counter.
pub(super) const UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;
/// The limit on socket buffers. It exists with `CONFIG_MEMCG_V1` and `CONFIG_INET`.
const SOCKETS: &CStr = c"memory.kmem.tcp.limit_in_bytes";
const SUM: &CStr = c"memory.memsw.limit_in_bytes";
const DEFAULT_PERIOD: u64 = 100_000;

/// Returns the writes for a new group, in their order: the kernel refuses a memory+swap limit below
/// the memory limit.
pub(in crate::cgroup) fn writes(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(memory) = limits.memory {
        writes.push(memory_write(memory.get()));
        if let Some(swap) = limits.swap {
            let sum = memory.get().saturating_add(swap.get());
            writes.push(Write::new(Feature::SwapLimit, SUM, minus_one(sum)));
        }
    }
    if let Some(sum) = limits.resources.memory_and_swap {
        writes.push(Write::new(Feature::SwapLimit, SUM, minus_one(sum.get())));
    }
    if let Some((quota, period)) = limits.cpu_quota() {
        if period != DEFAULT_PERIOD {
            writes.push(Write::new(Feature::CpuLimit, c"cpu.cfs_period_us", period));
        }
        writes.push(Write::new(Feature::CpuLimit, c"cpu.cfs_quota_us", quota));
    }
    writes.extend(plain_writes(limits));
    writes.extend(resource_writes(limits));
    writes
}

/// Returns the write of a memory limit. The buffers of TCP and UDP sockets have a separate counter,
/// which starts with the first limit that is written and counts sockets made after that. Together
/// both counters allow at most a quarter more than the limit.
fn memory_write(bytes: u64) -> Write {
    let write = Write::new(Feature::MemoryLimit, c"memory.limit_in_bytes", minus_one(bytes));
    let sockets = if bytes == u64::MAX { bytes } else { bytes / 4 };
    write.and(SOCKETS, minus_one(sockets))
}

/// Returns the writes for a group that has limits already. [`memory_updates`] returns those for
/// memory.
pub(in crate::cgroup) fn updates(limits: &Limits) -> Vec<Write> {
    const BURST: &CStr = c"cpu.cfs_burst_us";
    let mut writes = Vec::new();
    if let Some((quota, period)) = limits.cpu_quota() {
        // The kernel refuses a quota below the burst.
        writes.extend(limits.cpu_burst.map(|_| Write::new(Feature::CpuBurst, BURST, 0)));
        writes.push(Write::new(Feature::CpuLimit, c"cpu.cfs_period_us", period));
        writes.push(Write::new(Feature::CpuLimit, c"cpu.cfs_quota_us", quota));
    }
    writes.extend(plain_writes(limits));
    writes.extend(resource_writes(limits));
    writes
}

/// Returns the writes of the values in the terms of the OCI specification, apart from memory and
/// swap.
fn resource_writes(limits: &Limits) -> Vec<Write> {
    let more = &limits.resources;
    let mut writes = Vec::new();
    let mut put = |feature, file: &'static CStr, value: String| writes.push(Write::new(feature, file, value));
    if let Some(kept) = more.memory_reservation {
        put(Feature::MemoryReservation, c"memory.soft_limit_in_bytes", minus_one(kept.get()));
    }
    if let Some(disable) = more.oom_kill_disable {
        put(Feature::OomKillDisable, c"memory.oom_control", u8::from(disable).to_string());
    }
    if let Some(percent) = more.swappiness {
        put(Feature::Swappiness, c"memory.swappiness", percent.to_string());
    }
    if let Some(shares) = more.cpu_shares {
        put(Feature::CpuWeight, c"cpu.shares", shares.to_string());
    }
    if let Some((quota, period)) = more.quota_and_period() {
        if let Some(period) = period {
            put(Feature::CpuLimit, c"cpu.cfs_period_us", period.to_string());
        }
        if more.cpu_quota.is_some() {
            put(Feature::CpuLimit, c"cpu.cfs_quota_us", minus_one(quota.unwrap_or(u64::MAX)));
        }
    }
    // The kernel refuses a runtime that exceeds the period.
    if let Some(period) = more.realtime_period {
        put(Feature::CpuRealtime, c"cpu.rt_period_us", micros(period).to_string());
    }
    if let Some(runtime) = more.realtime_runtime {
        put(Feature::CpuRealtime, c"cpu.rt_runtime_us", minus_one(micros(runtime)));
    }
    if let Some(class) = more.network_class {
        put(Feature::NetworkClass, c"net_cls.classid", class.to_string());
    }
    for (interface, priority) in &more.network_priorities {
        put(Feature::NetworkPriority, c"net_prio.ifpriomap", format!("{interface} {priority}"));
    }
    more.rdma_lines().for_each(|line| put(Feature::Rdma, c"rdma.max", line));
    if let Some(weight) = more.blkio_weight {
        let write = Write::new(Feature::IoWeight, c"blkio.bfq.weight", weight);
        writes.push(write.or(c"blkio.weight", weight));
    }
    for ((major, minor), weight) in &more.device_weights {
        let line = format!("{major}:{minor} {weight}");
        let write = Write::new(Feature::IoWeight, c"blkio.bfq.weight_device", &line);
        writes.push(write.or(c"blkio.weight_device", &line));
    }
    writes
}

fn plain_writes(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut put = |feature, file: &'static CStr, value: String| writes.push(Write::new(feature, file, value));
    if let Some(burst) = limits.cpu_burst_us() {
        put(Feature::CpuBurst, c"cpu.cfs_burst_us", burst.to_string());
    }
    if let Some(idle) = limits.cpu_idle {
        put(Feature::CpuIdle, c"cpu.idle", u8::from(idle).to_string());
    }
    if let Some(pids) = limits.pids {
        put(Feature::PidsLimit, c"pids.max", max(pids));
    }
    if let Some(weight) = limits.cpu_weight {
        put(Feature::CpuWeight, c"cpu.shares", shares_of_weight(weight).to_string());
    }
    if let Some(cpus) = &limits.cpuset {
        put(Feature::Cpuset, c"cpuset.cpus", cpus.clone());
    }
    if let Some(mems) = &limits.cpuset_mems {
        put(Feature::Cpuset, c"cpuset.mems", mems.clone());
    }
    if let Some(weight) = limits.io_weight {
        let write = Write::new(Feature::IoWeight, c"blkio.bfq.weight", weight.min(BFQ_HEAVIEST));
        // The kernel removed blkio.weight together with its scheduler, cfq, in 5.0.
        writes.push(write.or(c"blkio.weight", weight.clamp(BLKIO_WEIGHTS[0], BLKIO_WEIGHTS[1])));
    }
    let mut put = |feature, file: &'static CStr, value: String| writes.push(Write::new(feature, file, value));
    for io in &limits.io {
        for (file, value) in [
            (c"blkio.throttle.read_bps_device", io.read_bps.map(Bytes::get)),
            (c"blkio.throttle.write_bps_device", io.write_bps.map(Bytes::get)),
            (c"blkio.throttle.read_iops_device", io.read_iops),
            (c"blkio.throttle.write_iops_device", io.write_iops),
        ] {
            if let Some(value) = value {
                // No rate is written as 0.
                let value = if value == u64::MAX { 0 } else { value };
                put(Feature::IoLimit, file, format!("{}:{} {value}", io.device.0, io.device.1));
            }
        }
    }
    for (page, limit) in &limits.hugetlb {
        let write = Write::new(Feature::HugetlbLimit, hugetlb::file(*page, "limit_in_bytes"), minus_one(limit.get()));
        writes.push(write.and(hugetlb::file(*page, "rsvd.limit_in_bytes"), minus_one(limit.get())));
    }
    writes
}

/// Converts a weight as the kernel's `sched_weight_from_cgroup` does: the defaults, 100 and 1024,
/// are the same weight.
pub(in crate::cgroup) fn shares_of_weight(weight: u64) -> u64 {
    (weight * 1024 + 50) / 100
}

/// Returns the writes that change memory and swap of a living group. The memory limit must never
/// exceed the limit of memory+swap. Therefore a rising pair is written from the top, and a falling
/// pair from the bottom.
pub(in crate::cgroup) fn memory_updates(dir: BorrowedFd<'_>, limits: &Limits) -> nix::Result<Vec<Write>> {
    let total = limits.resources.memory_and_swap;
    if limits.memory.is_none() && limits.swap.is_none() && total.is_none() {
        return Ok(Vec::new());
    }
    let old = kernfs::number(dir, c"memory.limit_in_bytes")?.unwrap_or(UNLIMITED);
    let old_sum = kernfs::number(dir, SUM)?;
    let memory = limits.memory.map_or(old, Bytes::get);
    let sum = match (limits.swap, old_sum) {
        _ if total.is_some() => total.map(Bytes::get),
        (Some(Bytes::MAX), _) => Some(u64::MAX),
        // Without a memory limit no sum would limit swap alone.
        (Some(_), _) if memory >= UNLIMITED => return Err(Errno::EINVAL),
        (Some(swap), _) => Some(memory.saturating_add(swap.get())),
        // The share of swap in the sum stays the same.
        (None, Some(_)) if memory >= UNLIMITED => Some(u64::MAX),
        (None, Some(sum)) if sum < UNLIMITED => Some(memory.saturating_add(sum.saturating_sub(old))),
        (None, _) => None,
    };
    let mut writes = vec![memory_write(if memory >= UNLIMITED { u64::MAX } else { memory })];
    if let Some(sum) = sum {
        let at = if sum >= old_sum.unwrap_or(UNLIMITED) { 0 } else { 1 };
        writes.insert(at, Write::new(Feature::SwapLimit, SUM, minus_one(sum)));
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cgroup::io::IoLimit;
    use crate::cgroup::resources::Resources;

    fn lines(writes: &[Write]) -> Vec<String> {
        writes.iter().map(Write::shown).collect()
    }

    #[test]
    fn each_limit_has_its_files() {
        let io = IoLimit::device(8, 16).read_bps(1024).write_iops(7);
        let limits = Limits::new().memory(1 << 20).swap(4096).pids(9).cpu(0.25).cpu_weight(100).cpuset("0").io(io);
        let limits =
            limits.cpu_burst(Duration::from_millis(5)).cpu_idle(false).io_weight(200).hugetlb(2 << 20, 4 << 20);
        assert_eq!(
            lines(&writes(&limits)),
            [
                "memory.limit_in_bytes 1048576 [memory.kmem.tcp.limit_in_bytes 262144]",
                "memory.memsw.limit_in_bytes 1052672",
                "cpu.cfs_quota_us 25000",
                "cpu.cfs_burst_us 5000",
                "cpu.idle 0",
                "pids.max 9",
                "cpu.shares 1024",
                "cpuset.cpus 0",
                "blkio.bfq.weight 200 [blkio.weight 200]",
                "blkio.throttle.read_bps_device 8:16 1024",
                "blkio.throttle.write_iops_device 8:16 7",
                "hugetlb.2MB.limit_in_bytes 4194304 [hugetlb.2MB.rsvd.limit_in_bytes 4194304]",
            ]
        );
        let tiny = lines(&writes(&Limits::new().cpu(0.002)));
        assert_eq!(tiny, ["cpu.cfs_period_us 1000000", "cpu.cfs_quota_us 2000"]);
        assert_eq!(lines(&writes(&Limits::new().io_weight(10_000))), ["blkio.bfq.weight 1000 [blkio.weight 1000]"]);
    }

    #[test]
    fn each_value_of_the_specification_has_its_file() {
        let more =
            Resources::new().memory_reservation(4096).memory_and_swap(2 << 20).swappiness(7).oom_kill_disable(true);
        let more = more.cpu_shares(512).cpu_quota(Duration::from_millis(5)).cpu_period(Duration::from_millis(50));
        let more = more.realtime_runtime(Duration::from_millis(1)).realtime_period(Duration::from_secs(1));
        let more = more.blkio_weight(20).device_weight(8, 0, 30).network_class(0x10_0001).network_priority("eth0", 5);
        let more = more.rdma("mlx4_0", 2, u64::MAX).rdma("mlx5_0", None, 7).unified("memory.high", "1");
        assert_eq!(
            lines(&writes(&Limits::new().memory(1 << 20).resources(more))),
            [
                "memory.limit_in_bytes 1048576 [memory.kmem.tcp.limit_in_bytes 262144]",
                "memory.memsw.limit_in_bytes 2097152",
                "memory.soft_limit_in_bytes 4096",
                "memory.oom_control 1",
                "memory.swappiness 7",
                "cpu.shares 512",
                "cpu.cfs_period_us 50000",
                "cpu.cfs_quota_us 5000",
                "cpu.rt_period_us 1000000",
                "cpu.rt_runtime_us 1000",
                "net_cls.classid 1048577",
                "net_prio.ifpriomap eth0 5",
                "rdma.max mlx4_0 hca_handle=2 hca_object=max",
                "rdma.max mlx5_0 hca_object=7",
                "blkio.bfq.weight 20 [blkio.weight 20]",
                "blkio.bfq.weight_device 8:0 30 [blkio.weight_device 8:0 30]",
            ]
        );
    }

    #[test]
    fn no_limit_is_written_as_each_file_wants_it() {
        let more = Resources::new().memory_reservation(Bytes::MAX).memory_and_swap(Bytes::MAX);
        let more = more.cpu_quota(Duration::MAX).realtime_runtime(Duration::MAX);
        let limits = Limits::new().memory(Bytes::MAX).pids(u64::MAX).hugetlb(2 << 20, Bytes::MAX);
        let limits = limits.io(IoLimit::device(8, 0).read_bps(Bytes::MAX)).resources(more);
        assert_eq!(
            lines(&writes(&limits)),
            [
                "memory.limit_in_bytes -1 [memory.kmem.tcp.limit_in_bytes -1]",
                "memory.memsw.limit_in_bytes -1",
                "pids.max max",
                "blkio.throttle.read_bps_device 8:0 0",
                "hugetlb.2MB.limit_in_bytes -1 [hugetlb.2MB.rsvd.limit_in_bytes -1]",
                "memory.soft_limit_in_bytes -1",
                "cpu.cfs_quota_us -1",
                "cpu.rt_runtime_us -1",
            ]
        );
        let period = Limits::new().resources(Resources::new().cpu_period(Duration::from_millis(20)));
        assert_eq!(lines(&writes(&period)), ["cpu.cfs_period_us 20000"]);
    }

    #[test]
    fn a_burst_is_out_of_the_way_while_the_quota_changes() {
        let limits = Limits::new().cpu(0.25).cpu_burst(Duration::from_millis(5));
        let (burst, rest) = ("cpu.cfs_burst_us", ["cpu.cfs_period_us 100000", "cpu.cfs_quota_us 25000"]);
        let all = lines(&updates(&limits));
        assert_eq!(all, [&format!("{burst} 0"), rest[0], rest[1], &format!("{burst} 5000")]);
        assert_eq!(lines(&updates(&Limits::new().cpu(0.25))), rest);
    }

    #[test]
    fn weights_become_the_shares_of_the_same_scheduler_weight() {
        assert_eq!([1, 50, 100, 10_000].map(shares_of_weight), [10, 512, 1024, 102_400]);
    }

    #[test]
    fn memory_and_swap_are_changed_from_the_side_that_never_crosses() {
        let dir = std::env::temp_dir().join(format!("ringfence-v1-memory-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("memory.limit_in_bytes"), "1000\n").unwrap();
        std::fs::write(dir.join("memory.memsw.limit_in_bytes"), "1500\n").unwrap();
        let fd = kernfs::open_dir(&dir).unwrap();
        let change = |limits: &Limits| {
            use std::os::fd::AsFd;
            lines(&memory_updates(fd.as_fd(), limits).unwrap())
        };
        let sum = "memory.memsw.limit_in_bytes";
        let memory =
            |bytes: u64| format!("memory.limit_in_bytes {bytes} [memory.kmem.tcp.limit_in_bytes {}]", bytes / 4);
        let up = change(&Limits::new().memory(5000));
        let down = change(&Limits::new().memory(200));
        let swap = change(&Limits::new().swap(0));
        let total = change(&Limits::new().memory(400).resources(Resources::new().memory_and_swap(900)));
        let lifted = change(&Limits::new().memory(Bytes::MAX));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(up, [format!("{sum} 5500"), memory(5000)]);
        assert_eq!(down, [memory(200), format!("{sum} 700")]);
        assert_eq!(swap, [memory(1000), format!("{sum} 1000")]);
        assert_eq!(total, [memory(400), format!("{sum} 900")]);
        assert_eq!(
            lifted,
            [format!("{sum} -1"), "memory.limit_in_bytes -1 [memory.kmem.tcp.limit_in_bytes -1]".into()]
        );
    }
}
