//! The files of cgroup v2 that take limits.

use std::ffi::{CStr, CString};

use crate::cgroup::hugetlb;
use crate::cgroup::limits::Limits;
use crate::cgroup::resources::{io_weight_of_blkio, max, unified_controller, weight_of_shares};
use crate::cgroup::write::{BFQ_HEAVIEST, Write};
use crate::feature::Feature;
use crate::units::Bytes;

/// The period of a group whose period was never set, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// Returns the writes for a group. Each file takes the new value whatever the old one was.
pub(in crate::cgroup) fn writes(limits: &Limits) -> Vec<Write> {
    let mut writes = memory_writes(limits);
    writes.extend(cpu_writes(limits));
    let mut put = |feature, file: &'static CStr, value: String| writes.push(Write::new(feature, file, value));
    if let Some(pids) = limits.pids {
        put(Feature::PidsLimit, c"pids.max", max(pids));
    }
    if let Some(cpus) = &limits.cpuset {
        put(Feature::Cpuset, c"cpuset.cpus", cpus.clone());
    }
    if let Some(mems) = &limits.cpuset_mems {
        put(Feature::Cpuset, c"cpuset.mems", mems.clone());
    }
    for io in &limits.io {
        let mut line = format!("{}:{}", io.device.0, io.device.1);
        for (key, value) in [
            ("rbps", io.read_bps.map(Bytes::get)),
            ("wbps", io.write_bps.map(Bytes::get)),
            ("riops", io.read_iops),
            ("wiops", io.write_iops),
        ] {
            if let Some(value) = value {
                line += &format!(" {key}={}", max(value));
            }
        }
        put(Feature::IoLimit, c"io.max", line);
    }
    if let Some(limit) = limits.max_descendants {
        put(Feature::CgroupMaxDescendants, c"cgroup.max.descendants", limit.to_string());
    }
    if let Some(limit) = limits.max_depth {
        put(Feature::CgroupMaxDepth, c"cgroup.max.depth", limit.to_string());
    }
    if let Some(weight) = limits.io_weight {
        let write = Write::new(Feature::IoWeight, c"io.weight", weight);
        writes.push(write.or(c"io.bfq.weight", weight.min(BFQ_HEAVIEST)));
    }
    writes.extend(resource_writes(limits));
    writes
}

/// Returns the writes of the values in the terms of the OCI specification, apart from those that
/// share a file with another limit. The files that are named come last.
fn resource_writes(limits: &Limits) -> Vec<Write> {
    let more = &limits.resources;
    let mut writes: Vec<_> = more.rdma_lines().map(|line| Write::new(Feature::Rdma, c"rdma.max", line)).collect();
    if let Some(weight) = more.blkio_weight {
        let write = Write::new(Feature::IoWeight, c"io.weight", io_weight_of_blkio(weight));
        writes.push(write.or(c"io.bfq.weight", weight));
    }
    for ((major, minor), weight) in &more.device_weights {
        let line = |weight| format!("{major}:{minor} {weight}");
        let write = Write::new(Feature::IoWeight, c"io.weight", line(io_weight_of_blkio(*weight)));
        writes.push(write.or(c"io.bfq.weight", line(*weight)));
    }
    for (file, value) in &more.unified {
        if let (Some(controller), Ok(file)) = (unified_controller(file), CString::new(file.as_str())) {
            writes.push(Write::new(Feature::Unified, file, value).of(controller));
        }
    }
    writes
}

fn memory_writes(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    for (feature, file, value) in [
        (Feature::MemoryLimit, c"memory.max", limits.memory),
        (Feature::MemoryHigh, c"memory.high", limits.memory_high),
        (Feature::MemoryLow, c"memory.low", limits.memory_low),
        (Feature::MemoryMin, c"memory.min", limits.memory_min),
        (Feature::MemoryReservation, c"memory.low", limits.resources.memory_reservation),
        (Feature::SwapLimit, c"memory.swap.max", limits.swap.or(limits.resources.swap_beside(limits.memory))),
    ] {
        writes.extend(value.map(|value| Write::new(feature, file, max(value.get()))));
    }
    writes.extend(limits.oom_group.map(|all| Write::new(Feature::OomGroup, c"memory.oom.group", u8::from(all))));
    for (page, limit) in &limits.hugetlb {
        let write = Write::new(Feature::HugetlbLimit, hugetlb::file(*page, "max"), max(limit.get()));
        writes.push(write.and(hugetlb::file(*page, "rsvd.max"), max(limit.get())));
    }
    writes
}

fn cpu_writes(limits: &Limits) -> Vec<Write> {
    const BURST: &CStr = c"cpu.max.burst";
    let mut writes = Vec::new();
    if let Some((quota, period)) = limits.cpu_quota() {
        // The kernel refuses a quota below the burst.
        writes.extend(limits.cpu_burst.map(|_| Write::new(Feature::CpuBurst, BURST, 0)));
        writes.push(Write::new(Feature::CpuLimit, c"cpu.max", format!("{quota} {period}")));
    }
    writes.extend(limits.cpu_burst_us().map(|burst| Write::new(Feature::CpuBurst, BURST, burst)));
    if let Some((quota, period)) = limits.resources.quota_and_period() {
        let value = format!("{} {}", max(quota.unwrap_or(u64::MAX)), period.unwrap_or(DEFAULT_PERIOD));
        writes.push(Write::new(Feature::CpuLimit, c"cpu.max", value));
    }
    // An idle group takes no weight.
    writes.extend(limits.cpu_idle.map(|idle| Write::new(Feature::CpuIdle, c"cpu.idle", u8::from(idle))));
    let weight = limits.cpu_weight.or(limits.resources.cpu_shares.map(weight_of_shares));
    writes.extend(weight.map(|weight| Write::new(Feature::CpuWeight, c"cpu.weight", weight)));
    writes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cgroup::controllers::Controllers;
    use crate::cgroup::io::IoLimit;
    use crate::cgroup::resources::Resources;
    use crate::units::Bytes;

    #[test]
    fn each_value_of_the_specification_has_its_file() {
        let more = Resources::new().memory_reservation(4096).memory_and_swap(3 << 20).cpu_shares(2048);
        let more = more.cpu_quota(Duration::from_millis(5)).cpu_period(Duration::from_millis(50)).blkio_weight(20);
        let more = more.device_weight(8, 0, 1000).rdma("mlx4_0", 2, u64::MAX);
        let more = more.unified("memory.high", "max").unified("cpu.weight.nice", "5");
        let writes = writes(&Limits::new().memory(1 << 20).resources(more));
        let lines: Vec<_> = writes.iter().map(Write::shown).collect();
        assert_eq!(
            lines,
            [
                "memory.max 1048576",
                "memory.low 4096",
                "memory.swap.max 2097152",
                "cpu.max 5000 50000",
                "cpu.weight 174",
                "rdma.max mlx4_0 hca_handle=2 hca_object=max",
                "io.weight 102 [io.bfq.weight 20]",
                "io.weight 8:0 10000 [io.bfq.weight 8:0 1000]",
                "cpu.weight.nice 5",
                "memory.high max",
            ]
        );
        let controllers = writes.iter().rev().take(2).map(Write::controller);
        assert!(controllers.eq([Controllers::MEMORY, Controllers::CPU]));
    }

    #[test]
    fn no_limit_is_written_as_max() {
        let more = Resources::new().memory_reservation(Bytes::MAX).memory_and_swap(Bytes::MAX);
        let limits = Limits::new().memory(Bytes::MAX).memory_high(Bytes::MAX).pids(u64::MAX);
        let limits = limits.io(IoLimit::device(8, 0).read_bps(Bytes::MAX)).hugetlb(2 << 20, Bytes::MAX);
        let lines: Vec<_> = writes(&limits.resources(more.cpu_quota(Duration::MAX))).iter().map(Write::shown).collect();
        assert_eq!(
            lines,
            [
                "memory.max max",
                "memory.high max",
                "memory.low max",
                "memory.swap.max max",
                "hugetlb.2MB.max max [hugetlb.2MB.rsvd.max max]",
                "cpu.max max 100000",
                "pids.max max",
                "io.max 8:0 rbps=max",
            ]
        );
    }

    #[test]
    fn each_limit_has_its_file() {
        let io = IoLimit::device(8, 16).read_bps(1024).write_iops(7);
        let limits = Limits::new().memory(1 << 20).swap(0).pids(9).cpu(0.25).cpu_weight(50).cpuset("0").io(io);
        let limits = limits.memory_high(1 << 19).memory_low(4096).memory_min(8192).oom_group(true).cpu_idle(false);
        let limits = limits.cpu_burst(Duration::from_millis(5)).io_weight(2000).hugetlb(2 << 20, 4 << 20);
        let limits = limits.max_descendants(3).max_depth(2);
        let lines: Vec<_> = writes(&limits).iter().map(Write::shown).collect();
        assert_eq!(
            lines,
            [
                "memory.max 1048576",
                "memory.high 524288",
                "memory.low 4096",
                "memory.min 8192",
                "memory.swap.max 0",
                "memory.oom.group 1",
                "hugetlb.2MB.max 4194304 [hugetlb.2MB.rsvd.max 4194304]",
                "cpu.max.burst 0",
                "cpu.max 25000 100000",
                "cpu.max.burst 5000",
                "cpu.idle 0",
                "cpu.weight 50",
                "pids.max 9",
                "cpuset.cpus 0",
                "io.max 8:16 rbps=1024 wiops=7",
                "cgroup.max.descendants 3",
                "cgroup.max.depth 2",
                "io.weight 2000 [io.bfq.weight 1000]",
            ]
        );
    }
}
