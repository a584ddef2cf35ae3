//! The statistics in the files of cgroup v1.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::limits::UNLIMITED;
use crate::cgroup::controllers::Controllers;
use crate::cgroup::kernfs::{self, device_numbers, field};
use crate::cgroup::part::Part;
use crate::cgroup::stats::{IoStats, Stats};
use crate::cgroup::{hugetlb, pids};
use crate::error::{Result, Step};
use crate::units::Bytes;

/// Reads the values that matter only while the program runs.
pub(in crate::cgroup) fn read_current(part: &Part, stats: &mut Stats) -> Result<()> {
    if part.controllers.contains(Controllers::MEMORY) {
        read_memory(part, stats)?;
    }
    if part.controllers.contains(Controllers::PIDS) {
        pids::read_current(part, stats)?;
    }
    if part.controllers.contains(Controllers::HUGETLB) {
        stats.hugetlb = hugetlb::stats(part)?;
    }
    if part.controllers.contains(Controllers::CPUACCT)
        && let Some(text) = part.text(c"cpuacct.usage_percpu")?
    {
        stats.cpu_usage_per_cpu =
            text.split_whitespace().map_while(|word| word.parse().ok()).map(Duration::from_nanos).collect();
    }
    if part.controllers.contains(Controllers::CPU)
        && let Some(text) = part.text(c"cpu.stat")?
    {
        stats.cpu_periods = field(&text, "nr_periods");
        stats.cpu_throttled_periods = field(&text, "nr_throttled");
        stats.cpu_throttled = field(&text, "throttled_time").map(Duration::from_nanos);
        stats.cpu_bursts = field(&text, "nr_bursts");
        stats.cpu_burst = field(&text, "burst_time").map(Duration::from_nanos);
    }
    if part.controllers.contains(Controllers::IO) {
        let counts = part.text(c"blkio.throttle.io_serviced_recursive")?;
        stats.io_reads = counts.as_deref().map(|text| device_sum(text, "Read"));
        stats.io_writes = counts.as_deref().map(|text| device_sum(text, "Write"));
        let bytes = part.text(c"blkio.throttle.io_service_bytes_recursive")?;
        stats.io_devices = devices(&bytes.unwrap_or_default(), &counts.unwrap_or_default());
    }
    Ok(())
}

/// Reads the values that the outcome reports.
pub(in crate::cgroup) fn read_totals(part: &Part, stats: &mut Stats) -> Result<()> {
    if part.controllers.contains(Controllers::MEMORY) {
        stats.memory_peak = part.number(c"memory.max_usage_in_bytes")?.map(Bytes::new);
        stats.oom_kills = oom_kills(part)?;
    }
    if part.controllers.contains(Controllers::PIDS) {
        stats.pids_limit_hits = pids::limit_hits(part)?;
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
    }
    Ok(())
}

/// Returns the share of `user` in `total`, in proportion to `user` and `system`. Since 5.18 the
/// kernel counts these two by clock ticks, which can be far off for a short life. v2 scales them to
/// the measured sum, and this function does the same.
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
    stats.memory_limit_hits = part.number(c"memory.failcnt")?;
    let text = part.text(c"memory.stat")?.unwrap_or_default();
    stats.memory_anon = field(&text, "total_rss").map(Bytes::new);
    stats.memory_file = field(&text, "total_cache").map(Bytes::new);
    stats.memory_inactive_file = field(&text, "total_inactive_file").map(Bytes::new);
    stats.page_faults = field(&text, "total_pgfault");
    stats.major_page_faults = field(&text, "total_pgmajfault");
    stats.memory_kernel = part.number(c"memory.kmem.usage_in_bytes")?.map(Bytes::new);
    stats.swap_current = sum.zip(current).map(|(sum, current)| Bytes::new(sum.saturating_sub(current)));
    Ok(())
}

/// Reads the CPU time used so far.
pub(in crate::cgroup) fn cpu_usage(part: &Part) -> Result<Option<Duration>> {
    Ok(part.number(c"cpuacct.usage")?.map(Duration::from_nanos))
}

/// Counts OOM kills in the group and in all groups below it: v1 counts a kill only at the group of
/// the killed process.
pub(in crate::cgroup) fn oom_kills(part: &Part) -> Result<Option<u64>> {
    let mut total = None;
    let mut add = |dir: BorrowedFd<'_>| {
        let text = kernfs::read_optional(dir, c"memory.oom_control")?;
        if let Some(kills) = text.and_then(|text| field(&text, "oom_kill")) {
            total = Some(total.unwrap_or(0) + kills);
        }
        Ok(())
    };
    part.walk(&mut add).map_err(|errno| part.failed(Step::Stats, errno, c"memory.oom_control"))?;
    Ok(total)
}

/// Returns the devices of two files with lines of `MAJOR:MINOR OPERATION value`.
fn devices(bytes: &str, counts: &str) -> Vec<IoStats> {
    let mut all: Vec<IoStats> = Vec::new();
    // The lines of one device follow one another.
    let mut each = |text: &str, set: &dyn Fn(&mut IoStats, &str, u64)| {
        let mut at = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [numbers, operation, value] = words[..] else { continue };
            let (Some(device), Ok(value)) = (device_numbers(numbers), value.parse()) else { continue };
            if all.get(at).is_none_or(|one| one.device != device) {
                at = all.iter().position(|one| one.device == device).unwrap_or(all.len());
            }
            if at == all.len() {
                all.push(IoStats { device, ..IoStats::default() });
            }
            set(&mut all[at], operation, value);
        }
    };
    each(bytes, &|one, operation, value| match operation {
        "Read" => one.read = Bytes::new(value),
        "Write" => one.written = Bytes::new(value),
        "Discard" => one.discarded = Bytes::new(value),
        _ => {}
    });
    each(counts, &|one, operation, value| match operation {
        "Read" => one.reads = value,
        "Write" => one.writes = value,
        "Discard" => one.discards = value,
        _ => {}
    });
    all
}

/// Sums the values in lines of `MAJOR:MINOR OPERATION value`.
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

    #[test]
    fn hostile_text_is_survived() {
        let corpus = ["8:0 Read 4096\n8:0 Write 18446744073709551615\nTotal 1\n", "oom_kill_disable 0\noom_kill 3\n"];
        crate::fuzz::texts(&corpus, |text| {
            let _ = (device_sum(text, "Read"), device_sum(text, "Write"), field(text, "oom_kill"));
        });
    }

    #[test]
    fn each_device_has_its_numbers() {
        let bytes = "8:0 Read 10\n8:0 Write 5\n8:0 Discard 3\n8:0 Total 15\n8:16 Read 1\n8:16 Total 1\nTotal 16\n";
        let counts = "8:16 Read 7\n8:0 Read 2\n8:0 Write 1\n8:0 Discard 4\n";
        let first = IoStats {
            device: (8, 0),
            read: Bytes::new(10),
            written: Bytes::new(5),
            reads: 2,
            writes: 1,
            ..IoStats::default()
        };
        let first = IoStats { discarded: Bytes::new(3), discards: 4, ..first };
        let second = IoStats { device: (8, 16), read: Bytes::new(1), reads: 7, ..IoStats::default() };
        assert_eq!(devices(bytes, counts), [first, second]);
        crate::fuzz::texts(&[bytes, counts], |text| drop(devices(text, text)));
    }

    #[test]
    fn numbers_come_from_the_files() {
        let dir = std::env::temp_dir().join(format!("ringfence-v1-stats-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in [
            ("memory.stat", "pgfault 1\ntotal_inactive_file 4096\ntotal_pgfault 8\ntotal_pgmajfault 2\n"),
            ("cpuacct.usage_percpu", "100 2000 0 \n"),
        ] {
            std::fs::write(dir.join(file), text).unwrap();
        }
        let mut stats = Stats::default();
        let controllers = Controllers::MEMORY | Controllers::CPUACCT;
        let part = Part::open(crate::cgroup::controllers::Version::V1, controllers, &dir, &dir).unwrap();
        let read = read_current(&part, &mut stats);
        std::fs::remove_dir_all(&dir).unwrap();
        read.unwrap();
        let memory = (stats.memory_inactive_file, stats.page_faults, stats.major_page_faults);
        assert_eq!(memory, (Some(Bytes::kib(4)), Some(8), Some(2)));
        assert_eq!(stats.cpu_usage_per_cpu, [100, 2000, 0].map(Duration::from_nanos));
    }

    #[test]
    fn totals_are_not_counted_twice() {
        let text = "8:0 Read 10\n8:0 Write 5\n8:0 Total 15\n8:16 Read 1\nTotal 16\n";
        assert_eq!(device_sum(text, "Read"), 11);
        assert_eq!(device_sum(text, "Write"), 5);
    }
}
