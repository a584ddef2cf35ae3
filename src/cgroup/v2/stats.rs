//! The statistics in the files of cgroup v2.

use std::time::Duration;

use crate::cgroup::controllers::Controllers;
use crate::cgroup::kernfs::{device_numbers, field};
use crate::cgroup::part::Part;
use crate::cgroup::stats::{IoStats, Stats};
use crate::cgroup::{hugetlb, pids};
use crate::error::Result;
use crate::units::Bytes;

/// Reads the values that matter only while the program runs.
pub(in crate::cgroup) fn read_current(part: &Part, stats: &mut Stats) -> Result<()> {
    if part.controllers.contains(Controllers::MEMORY) {
        stats.memory_current = part.number(c"memory.current")?.map(Bytes::new);
        stats.memory_limit = part.number(c"memory.max")?.map(Bytes::new);
        stats.swap_current = part.number(c"memory.swap.current")?.map(Bytes::new);
        stats.swap_peak = part.number(c"memory.swap.peak")?.map(Bytes::new);
        let text = part.text(c"memory.stat")?.unwrap_or_default();
        let bytes = |key| field(&text, key).map(Bytes::new);
        stats.memory_inactive_file = bytes("inactive_file");
        (stats.page_faults, stats.major_page_faults) = (field(&text, "pgfault"), field(&text, "pgmajfault"));
        (stats.memory_anon, stats.memory_file, stats.memory_kernel) = (bytes("anon"), bytes("file"), bytes("kernel"));
    }
    if part.controllers.contains(Controllers::PIDS) {
        pids::read_current(part, stats)?;
    }
    if part.controllers.contains(Controllers::HUGETLB) {
        stats.hugetlb = hugetlb::stats(part)?;
    }
    if part.controllers.contains(Controllers::IO) {
        stats.io_devices = devices(&part.text(c"io.stat")?.unwrap_or_default());
    }
    stats.descendants = part.text(c"cgroup.stat")?.and_then(|text| field(&text, "nr_descendants"));
    Ok(())
}

/// Reads the values that add up over the program's life.
pub(in crate::cgroup) fn read_totals(part: &Part, stats: &mut Stats) -> Result<()> {
    if part.controllers.contains(Controllers::MEMORY) {
        stats.memory_peak = part.number(c"memory.peak")?.map(Bytes::new);
        read_memory_events(part, stats)?;
    }
    if part.controllers.contains(Controllers::PIDS) {
        stats.pids_limit_hits = pids::limit_hits(part)?;
    }
    if let Some(text) = part.text(c"cpu.stat")? {
        let time = |key| field(&text, key).map(Duration::from_micros);
        (stats.cpu_usage, stats.cpu_user, stats.cpu_system) =
            (time("usage_usec"), time("user_usec"), time("system_usec"));
        if part.controllers.contains(Controllers::CPU) {
            stats.cpu_periods = field(&text, "nr_periods");
            stats.cpu_throttled_periods = field(&text, "nr_throttled");
            stats.cpu_throttled = time("throttled_usec");
            stats.cpu_bursts = field(&text, "nr_bursts");
            stats.cpu_burst = time("burst_usec");
        }
    }
    if part.controllers.contains(Controllers::IO)
        && let Some(text) = part.text(c"io.stat")?
    {
        stats.io_read = Some(Bytes::new(key_sum(&text, "rbytes=")));
        stats.io_written = Some(Bytes::new(key_sum(&text, "wbytes=")));
        stats.io_reads = Some(key_sum(&text, "rios="));
        stats.io_writes = Some(key_sum(&text, "wios="));
    }
    Ok(())
}

/// Reads the CPU time used so far.
pub(in crate::cgroup) fn cpu_usage(part: &Part) -> Result<Option<Duration>> {
    Ok(part.text(c"cpu.stat")?.and_then(|text| field(&text, "usage_usec")).map(Duration::from_micros))
}

/// Reads `memory.events`, which counts the whole subtree unless the hierarchy is mounted with
/// `memory_localevents`.
fn read_memory_events(part: &Part, stats: &mut Stats) -> Result<()> {
    let Some(text) = part.text(c"memory.events")? else { return Ok(()) };
    stats.memory_low_breaches = field(&text, "low");
    stats.memory_high_hits = field(&text, "high");
    stats.memory_limit_hits = field(&text, "max");
    stats.oom_hits = field(&text, "oom");
    stats.oom_kills = field(&text, "oom_kill");
    stats.oom_group_kills = field(&text, "oom_group_kill");
    Ok(())
}

/// Returns the devices of lines of `MAJOR:MINOR key=value ...`. A device that was not used has no
/// numbers.
fn devices(text: &str) -> Vec<IoStats> {
    let device = |line: &str| {
        let (numbers, rest) = line.split_once(' ')?;
        let number = |key| key_sum(rest, key);
        Some(IoStats {
            device: device_numbers(numbers)?,
            read: Bytes::new(number("rbytes=")),
            written: Bytes::new(number("wbytes=")),
            reads: number("rios="),
            writes: number("wios="),
            discarded: Bytes::new(number("dbytes=")),
            discards: number("dios="),
        })
    };
    text.lines().filter(|line| line.contains('=')).filter_map(device).collect()
}

/// Sums the values of `key=value` words. The line of each device has one such word.
fn key_sum(text: &str, key: &str) -> u64 {
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    values.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        let io = "8:0 rbytes=4096 wbytes=18446744073709551615 rios=1\n8:16 rbytes=1\n";
        crate::fuzz::texts(&[io, "usage_usec 1500\nuser_usec 1000\n", "low 0\noom_kill 1\n"], |text| {
            let _ = (
                devices(text),
                key_sum(text, "rbytes="),
                key_sum(text, "wbytes="),
                field(text, "usage_usec"),
                field(text, "oom_kill"),
            );
        });
    }

    #[test]
    fn devices_are_summed() {
        let text = "8:0 rbytes=10 wbytes=1 rios=2 wios=1 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n";
        assert_eq!(key_sum(text, "rbytes="), 15);
        assert_eq!(key_sum(text, "rios="), 3);
    }

    #[test]
    fn numbers_come_from_the_files() {
        let dir = std::env::temp_dir().join(format!("ringfence-v2-stats-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in [
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 5\nhigh 7\nmax 9\noom 2\noom_kill 1\noom_group_kill 3\n"),
            (
                "memory.stat",
                "anon 100\nfile 200\nkernel 300\ninactive_file 50\npgfault 6\npgmajfault 4\nkernel_stack 9\nfile_mapped 8\n",
            ),
            ("memory.swap.peak", "800\n"),
            ("cgroup.stat", "nr_descendants 6\nnr_dying_descendants 0\n"),
            ("pids.events", "max 3\n"),
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_throttled 4\nthrottled_usec 70\nnr_bursts 8\nburst_usec 9\n",
            ),
            ("io.stat", "8:0 rbytes=10 wbytes=1 rios=2 wios=1 dbytes=7 dios=8\n8:16 \n7:0\n"),
        ] {
            std::fs::write(dir.join(file), text).unwrap();
        }
        let mut stats = Stats::default();
        // The sizes of huge pages depend on the host.
        let controllers = Controllers::all() - Controllers::HUGETLB;
        let part = Part::open(crate::cgroup::controllers::Version::V2, controllers, &dir, &dir).unwrap();
        read_current(&part, &mut stats).unwrap();
        read_totals(&part, &mut stats).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let want = Stats {
            memory_current: Some(Bytes::new(4096)),
            memory_anon: Some(Bytes::new(100)),
            memory_file: Some(Bytes::new(200)),
            memory_kernel: Some(Bytes::new(300)),
            memory_low_breaches: Some(5),
            memory_high_hits: Some(7),
            memory_limit_hits: Some(9),
            oom_hits: Some(2),
            oom_kills: Some(1),
            oom_group_kills: Some(3),
            swap_peak: Some(Bytes::new(800)),
            descendants: Some(6),
            pids_limit_hits: Some(3),
            cpu_usage: Some(Duration::from_micros(1500)),
            cpu_user: Some(Duration::from_micros(1000)),
            cpu_system: Some(Duration::from_micros(500)),
            cpu_throttled_periods: Some(4),
            cpu_throttled: Some(Duration::from_micros(70)),
            cpu_bursts: Some(8),
            cpu_burst: Some(Duration::from_micros(9)),
            io_read: Some(Bytes::new(10)),
            io_written: Some(Bytes::new(1)),
            io_reads: Some(2),
            io_writes: Some(1),
            memory_inactive_file: Some(Bytes::new(50)),
            page_faults: Some(6),
            major_page_faults: Some(4),
            io_devices: vec![IoStats {
                device: (8, 0),
                read: Bytes::new(10),
                written: Bytes::new(1),
                reads: 2,
                writes: 1,
                discarded: Bytes::new(7),
                discards: 8,
            }],
            ..Stats::default()
        };
        assert_eq!(stats, want);
    }
}
