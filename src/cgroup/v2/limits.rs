//! The files of cgroup v2 that take limits.

use std::ffi::CStr;

use crate::cgroup::hugetlb;
use crate::cgroup::limits::Limits;
use crate::cgroup::write::{BFQ_HEAVIEST, Write};
use crate::feature::Feature;
use crate::units::Bytes;

/// Returns the writes for a group. Each file takes the new value whatever the old one was.
pub(in crate::cgroup) fn writes(limits: &Limits) -> Vec<Write> {
    let mut writes = memory_writes(limits);
    writes.extend(cpu_writes(limits));
    let mut put = |feature, file: &'static CStr, value: String| writes.push(Write::new(feature, file, value));
    if let Some(pids) = limits.pids {
        put(Feature::PidsLimit, c"pids.max", pids.to_string());
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
                line += &format!(" {key}={value}");
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
    writes
}

fn memory_writes(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    for (feature, file, value) in [
        (Feature::MemoryLimit, c"memory.max", limits.memory),
        (Feature::MemoryHigh, c"memory.high", limits.memory_high),
        (Feature::MemoryLow, c"memory.low", limits.memory_low),
        (Feature::MemoryMin, c"memory.min", limits.memory_min),
        (Feature::SwapLimit, c"memory.swap.max", limits.swap),
    ] {
        writes.extend(value.map(|value| Write::new(feature, file, value.get())));
    }
    writes.extend(limits.oom_group.map(|all| Write::new(Feature::OomGroup, c"memory.oom.group", u8::from(all))));
    for (page, limit) in &limits.hugetlb {
        let write = Write::new(Feature::HugetlbLimit, hugetlb::file(*page, "max"), limit.get());
        writes.push(write.and(hugetlb::file(*page, "rsvd.max"), limit.get()));
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
    // An idle group takes no weight.
    writes.extend(limits.cpu_idle.map(|idle| Write::new(Feature::CpuIdle, c"cpu.idle", u8::from(idle))));
    writes.extend(limits.cpu_weight.map(|weight| Write::new(Feature::CpuWeight, c"cpu.weight", weight)));
    writes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cgroup::io::IoLimit;

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
