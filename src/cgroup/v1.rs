//! The files of cgroup v1.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;

use super::kernfs::{self, field};
use super::part::Part;
use super::{Controllers, Limits, Stats, Write};
use crate::{Bytes, Result};

/// `PAGE_COUNTER_MAX` in bytes, rounded down for the largest page: what an unlimited v1 memory counter reads.
const UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;
const DEFAULT_PERIOD: u64 = 100_000;

/// What a new group needs, in the order of writing: the kernel refuses a memory+swap limit below the memory limit.
pub(super) fn writes(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut put = |controller, file, value: u64| writes.push(Write { controller, file, value: value.to_string() });
    if let Some(memory) = limits.memory {
        put(Controllers::MEMORY, c"memory.limit_in_bytes", memory.get());
        if let Some(swap) = limits.swap {
            put(Controllers::MEMORY, c"memory.memsw.limit_in_bytes", memory.get().saturating_add(swap.get()));
        }
    }
    if let Some((quota, period)) = limits.cpu_quota() {
        if period != DEFAULT_PERIOD {
            put(Controllers::CPU, c"cpu.cfs_period_us", period);
        }
        put(Controllers::CPU, c"cpu.cfs_quota_us", quota);
    }
    writes.extend(plain_writes(limits));
    writes
}

/// The same for a group whose values are not the defaults; memory is [`update_memory`]'s.
pub(super) fn updates(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some((quota, period)) = limits.cpu_quota() {
        for (file, value) in [(c"cpu.cfs_period_us", period), (c"cpu.cfs_quota_us", quota)] {
            writes.push(Write { controller: Controllers::CPU, file, value: value.to_string() });
        }
    }
    writes.extend(plain_writes(limits));
    writes
}

fn plain_writes(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut put = |controller, file, value| writes.push(Write { controller, file, value });
    if let Some(pids) = limits.pids {
        put(Controllers::PIDS, c"pids.max", pids.to_string());
    }
    if let Some(weight) = limits.cpu_weight {
        put(Controllers::CPU, c"cpu.shares", shares(weight).to_string());
    }
    if let Some(cpus) = &limits.cpuset {
        put(Controllers::CPUSET, c"cpuset.cpus", cpus.clone());
    }
    if let Some(mems) = &limits.cpuset_mems {
        put(Controllers::CPUSET, c"cpuset.mems", mems.clone());
    }
    for io in &limits.io {
        for (file, value) in [
            (c"blkio.throttle.read_bps_device", io.read_bps.map(Bytes::get)),
            (c"blkio.throttle.write_bps_device", io.write_bps.map(Bytes::get)),
            (c"blkio.throttle.read_iops_device", io.read_iops),
            (c"blkio.throttle.write_iops_device", io.write_iops),
        ] {
            if let Some(value) = value {
                put(Controllers::IO, file, format!("{}:{} {value}", io.device.0, io.device.1));
            }
        }
    }
    writes
}

/// `sched_weight_from_cgroup` of kernel/sched: both defaults, 100 and 1024, are the same weight.
fn shares(weight: u64) -> u64 {
    (weight * 1024 + 50) / 100
}

/// The writes that change memory and swap of a living group. At no moment may the memory limit exceed the one of
/// memory+swap, so a rising pair is written from the top and a falling one from the bottom.
pub(super) fn memory_updates(dir: BorrowedFd<'_>, limits: &Limits) -> nix::Result<Vec<Write>> {
    if limits.memory.is_none() && limits.swap.is_none() {
        return Ok(Vec::new());
    }
    let old = kernfs::number(dir, c"memory.limit_in_bytes")?.unwrap_or(UNLIMITED);
    let old_sum = kernfs::number(dir, c"memory.memsw.limit_in_bytes")?;
    let memory = limits.memory.map_or(old, Bytes::get);
    let sum = match (limits.swap, old_sum) {
        // Without a memory limit there is no sum that would limit swap alone.
        (Some(_), _) if memory >= UNLIMITED => return Err(Errno::EINVAL),
        (Some(swap), _) => Some(memory.saturating_add(swap.get())),
        // What was swap's share stays swap's share.
        (None, Some(sum)) if sum < UNLIMITED => Some(memory.saturating_add(sum.saturating_sub(old))),
        (None, _) => None,
    };
    let write = |file, value: u64| Write { controller: Controllers::MEMORY, file, value: value.to_string() };
    let mut writes = vec![write(c"memory.limit_in_bytes", memory)];
    if let Some(sum) = sum {
        let at = if sum >= old_sum.unwrap_or(UNLIMITED) { 0 } else { 1 };
        writes.insert(at, write(c"memory.memsw.limit_in_bytes", sum));
    }
    Ok(writes)
}

/// A v1 cpuset starts without cpus and memory nodes, and no task can join it: it gets those of the group above.
pub(super) fn fill_cpuset(above: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> nix::Result<()> {
    for file in [c"cpuset.cpus", c"cpuset.mems"] {
        if kernfs::read(dir, file)?.trim().is_empty() {
            kernfs::write(dir, file, kernfs::read(above, file)?.trim())?;
        }
    }
    Ok(())
}

/// What is of the present moment, and of no interest once the program has ended.
pub(super) fn read_current(part: &Part, stats: &mut Stats) -> Result<()> {
    if part.controllers.contains(Controllers::MEMORY) {
        read_memory(part, stats)?;
    }
    if part.controllers.contains(Controllers::PIDS) {
        super::v2::read_pids(part, stats)?;
    }
    Ok(())
}

/// What adds up over the program's life.
pub(super) fn read_totals(part: &Part, stats: &mut Stats) -> Result<()> {
    if part.controllers.contains(Controllers::MEMORY) {
        stats.memory_peak = part.number(c"memory.max_usage_in_bytes")?.map(Bytes::new);
        stats.oom_kills = oom_kills(part)?;
    }
    if part.controllers.contains(Controllers::PIDS) {
        stats.pids_limit_hits = super::v2::pids_limit_hits(part)?;
    }
    if part.controllers.contains(Controllers::CPU)
        && let Some(text) = part.text(c"cpu.stat")?
    {
        stats.cpu_periods = field(&text, "nr_periods");
        stats.cpu_throttled_periods = field(&text, "nr_throttled");
        stats.cpu_throttled = field(&text, "throttled_time").map(Duration::from_nanos);
    }
    if part.controllers.contains(Controllers::CPUACCT) && stats.cpu_usage.is_none() {
        stats.cpu_usage = cpu_usage(part)?;
        let user = part.number(c"cpuacct.usage_user")?.map(Duration::from_nanos);
        let system = part.number(c"cpuacct.usage_sys")?.map(Duration::from_nanos);
        (stats.cpu_user, stats.cpu_system) = (user, system);
        if let (Some(total), Some(user), Some(system)) = (stats.cpu_usage, user, system) {
            stats.cpu_user = Some(share(total, user, system));
            stats.cpu_system = Some(total.saturating_sub(share(total, user, system)));
        }
    }
    if part.controllers.contains(Controllers::IO) {
        let bytes = part.text(c"blkio.throttle.io_service_bytes_recursive")?;
        stats.io_read = bytes.as_deref().map(|text| Bytes::new(device_sum(text, "Read")));
        stats.io_written = bytes.as_deref().map(|text| Bytes::new(device_sum(text, "Write")));
        let counts = part.text(c"blkio.throttle.io_serviced_recursive")?;
        stats.io_reads = counts.as_deref().map(|text| device_sum(text, "Read"));
        stats.io_writes = counts.as_deref().map(|text| device_sum(text, "Write"));
    }
    Ok(())
}

/// The part of `total` that `user` has of both. Since 5.18 the kernel counts these by what runs at a clock tick, which may
/// be far off for a short life; v2 corrects them by the measured sum, and so does this.
fn share(total: Duration, user: Duration, system: Duration) -> Duration {
    match (user + system).as_nanos() {
        0 => total,
        both => Duration::from_nanos((total.as_nanos() * user.as_nanos() / both) as u64),
    }
}

fn read_memory(part: &Part, stats: &mut Stats) -> Result<()> {
    let current = part.number(c"memory.usage_in_bytes")?;
    let sum = part.number(c"memory.memsw.usage_in_bytes")?;
    stats.memory_current = current.map(Bytes::new);
    stats.memory_limit = part.number(c"memory.limit_in_bytes")?.filter(|n| *n < UNLIMITED).map(Bytes::new);
    stats.swap_current = sum.zip(current).map(|(sum, current)| Bytes::new(sum.saturating_sub(current)));
    Ok(())
}

pub(super) fn cpu_usage(part: &Part) -> Result<Option<Duration>> {
    Ok(part.number(c"cpuacct.usage")?.map(Duration::from_nanos))
}

/// On v1 the kernel counts a kill at the victim's own group only, so the groups that were made inside are added.
pub(super) fn oom_kills(part: &Part) -> Result<Option<u64>> {
    let mut total = None;
    let mut add = |dir: BorrowedFd<'_>| {
        let text = kernfs::read_optional(dir, c"memory.oom_control")?;
        if let Some(kills) = text.and_then(|text| field(&text, "oom_kill")) {
            total = Some(total.unwrap_or(0) + kills);
        }
        Ok(())
    };
    part.walk(&mut add).map_err(|errno| part.failed(crate::Step::Stats, errno, c"memory.oom_control"))?;
    Ok(total)
}

/// Sums lines of `MAJOR:MINOR OPERATION value`.
fn device_sum(text: &str, operation: &str) -> u64 {
    let value = |line: &str| {
        let mut words = line.split_whitespace();
        let named = words.next().is_some_and(|device| device.contains(':')) && words.next() == Some(operation);
        if named { words.next()?.parse::<u64>().ok() } else { None }
    };
    text.lines().filter_map(value).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::IoLimit;

    fn lines(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|w| format!("{} {}", w.file.to_str().unwrap(), w.value)).collect()
    }

    #[test]
    fn each_limit_has_its_files() {
        let io = IoLimit::device(8, 16).read_bps(1024).write_iops(7);
        let limits = Limits::new().memory(1 << 20).swap(4096).pids(9).cpu(0.25).cpu_weight(100).cpuset("0").io(io);
        assert_eq!(
            lines(&writes(&limits)),
            [
                "memory.limit_in_bytes 1048576",
                "memory.memsw.limit_in_bytes 1052672",
                "cpu.cfs_quota_us 25000",
                "pids.max 9",
                "cpu.shares 1024",
                "cpuset.cpus 0",
                "blkio.throttle.read_bps_device 8:16 1024",
                "blkio.throttle.write_iops_device 8:16 7",
            ]
        );
        let tiny = lines(&writes(&Limits::new().cpu(0.002)));
        assert_eq!(tiny, ["cpu.cfs_period_us 1000000", "cpu.cfs_quota_us 2000"]);
    }

    #[test]
    fn weights_become_the_shares_of_the_same_scheduler_weight() {
        assert_eq!([1, 50, 100, 10_000].map(shares), [10, 512, 1024, 102_400]);
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
        let (memory, sum) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        let up = change(&Limits::new().memory(5000));
        let down = change(&Limits::new().memory(200));
        let swap = change(&Limits::new().swap(0));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(up, [format!("{sum} 5500"), format!("{memory} 5000")]);
        assert_eq!(down, [format!("{memory} 200"), format!("{sum} 700")]);
        assert_eq!(swap, [format!("{memory} 1000"), format!("{sum} 1000")]);
    }

    #[test]
    fn totals_are_not_counted_twice() {
        let text = "8:0 Read 10\n8:0 Write 5\n8:0 Total 15\n8:16 Read 1\nTotal 16\n";
        assert_eq!(device_sum(text, "Read"), 11);
        assert_eq!(device_sum(text, "Write"), 5);
    }
}
