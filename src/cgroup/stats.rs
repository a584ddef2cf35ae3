//! What a group used.

use std::time::Duration;

use crate::units::Bytes;

/// What a sandbox uses, or used: the numbers of its control group, those of every process that ever was in it.
///
/// A field is `None` if the sandbox has no group with the controller in question, or if the kernel does not count
/// it. The files named are those of the group; `|` parts the one of cgroup v1 from the one of v2.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Memory charged now, page cache included: `memory.usage_in_bytes` | `memory.current`.
    pub memory_current: Option<Bytes>,
    /// The most memory that was ever charged at once: `memory.max_usage_in_bytes` | `memory.peak` (5.19).
    /// It counts the page cache of the files that the program read or wrote, so that a program which streams a
    /// large file comes near its limit without being short of memory.
    pub memory_peak: Option<Bytes>,
    /// The hard limit, `None` where there is none: `memory.limit_in_bytes` | `memory.max`.
    pub memory_limit: Option<Bytes>,
    /// Memory of the program's own, the kind that only swap can take: `total_rss` | `anon` of `memory.stat`.
    pub memory_anon: Option<Bytes>,
    /// Page cache, tmpfs and shared memory included: `total_cache` | `file` of `memory.stat`.
    pub memory_file: Option<Bytes>,
    /// What the kernel holds for the program, such as page tables, inodes and stacks: `memory.kmem.usage_in_bytes` |
    /// `kernel` of `memory.stat` (5.18).
    pub memory_kernel: Option<Bytes>,
    /// How often memory was reclaimed from the sandbox although it used less than its
    /// [`memory_low`](crate::Limits::memory_low): none | `low` of `memory.events`.
    pub memory_low_breaches: Option<u64>,
    /// How often the sandbox was held back at [`memory_high`](crate::Limits::memory_high): none | `high` of
    /// `memory.events`.
    pub memory_high_hits: Option<u64>,
    /// How often it came up against the hard limit, and memory was reclaimed: `memory.failcnt` | `max` of
    /// `memory.events`.
    pub memory_limit_hits: Option<u64>,
    /// How often nothing could be reclaimed there, and an allocation failed or somebody was killed: none | `oom` of
    /// `memory.events`.
    pub oom_hits: Option<u64>,
    /// Swap charged now: `memory.memsw.usage_in_bytes` less `memory.usage_in_bytes` | `memory.swap.current`.
    pub swap_current: Option<Bytes>,
    /// The most swap that was ever charged at once: none | `memory.swap.peak` (6.5).
    pub swap_peak: Option<Bytes>,
    /// Processes of the sandbox that the OOM killer took, whosever limit was hit: `oom_kill` of `memory.oom_control`
    /// (4.13) | of `memory.events` (4.13). On v1 the count of a sub-group that is gone is lost with it.
    pub oom_kills: Option<u64>,
    /// How often all were taken together, as by [`oom_group`](crate::Limits::oom_group): none | `oom_group_kill` of
    /// `memory.events` (5.17).
    pub oom_group_kills: Option<u64>,
    /// Huge pages, for each size that the kernel has; empty without a limit on any.
    pub hugetlb: Vec<HugetlbStats>,
    /// Processes and threads now: `pids.current`.
    pub pids_current: Option<u64>,
    /// The most processes and threads there ever were at once: `pids.peak` (6.1).
    pub pids_peak: Option<u64>,
    /// How often `fork` or `clone` was refused for the limit: `max` of `pids.events` (4.7).
    pub pids_limit_hits: Option<u64>,
    /// Cpu time: `cpuacct.usage` | `usage_usec` of `cpu.stat` (4.15, needs no controller).
    pub cpu_usage: Option<Duration>,
    /// Cpu time in user mode: `cpuacct.usage_user` (4.6) | `user_usec` of `cpu.stat`.
    pub cpu_user: Option<Duration>,
    /// Cpu time in the kernel: `cpuacct.usage_sys` (4.6) | `system_usec` of `cpu.stat`.
    pub cpu_system: Option<Duration>,
    /// Periods of the cpu limit (100 ms each, unless the limit is tiny) in which something ran: `nr_periods` of
    /// `cpu.stat`.
    pub cpu_periods: Option<u64>,
    /// Those in which the limit was reached: `nr_throttled` of `cpu.stat`.
    pub cpu_throttled_periods: Option<u64>,
    /// How long the program's threads were held back by the cpu limit, summed over the cpus: `throttled_time` |
    /// `throttled_usec` of `cpu.stat`.
    pub cpu_throttled: Option<Duration>,
    /// Periods in which more than the limit was used, by [`cpu_burst`](crate::Limits::cpu_burst): `nr_bursts` of `cpu.stat`
    /// (5.16).
    pub cpu_bursts: Option<u64>,
    /// How much more that was: `burst_time` | `burst_usec` of `cpu.stat` (5.16).
    pub cpu_burst: Option<Duration>,
    /// Read from block devices: `blkio.throttle.io_service_bytes_recursive` | `rbytes` of `io.stat`.
    pub io_read: Option<Bytes>,
    /// Written to block devices: `blkio.throttle.io_service_bytes_recursive` | `wbytes` of `io.stat`. On v1 it does
    /// not contain what the kernel writes back later.
    pub io_written: Option<Bytes>,
    /// Read operations: `blkio.throttle.io_serviced_recursive` | `rios` of `io.stat`.
    pub io_reads: Option<u64>,
    /// Write operations: `blkio.throttle.io_serviced_recursive` | `wios` of `io.stat`.
    pub io_writes: Option<u64>,
    /// Control groups made inside, on all levels: none | `nr_descendants` of `cgroup.stat` (4.14).
    pub descendants: Option<u64>,
}

/// The huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugetlbStats {
    /// Of what size.
    pub page_size: Bytes,
    /// In use now: `hugetlb.SIZE.usage_in_bytes` | `hugetlb.SIZE.current` (5.6).
    pub current: Option<Bytes>,
    /// The most that was ever in use at once: `hugetlb.SIZE.max_usage_in_bytes` | none.
    pub peak: Option<Bytes>,
    /// How often there was none to be had for the limit: `hugetlb.SIZE.failcnt`, which does not count what was refused
    /// when it was to be reserved | `max` of `hugetlb.SIZE.events`.
    pub limit_hits: Option<u64>,
}
