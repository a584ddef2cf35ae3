//! The resource usage of a group.

use std::time::Duration;

use crate::units::Bytes;

/// The resource usage of a sandbox. The numbers are those of its control group and cover every
/// process that was ever in the group.
///
/// A field is `None` if the sandbox has no group with the controller, or if the kernel does not
/// count the value. Each field names its files in the group: the file of cgroup v1, then `|`, then
/// the file of v2.
///
/// ```no_run
/// use ringfence::{Bytes, Sandbox};
/// use std::time::Duration;
///
/// let mut child = Sandbox::new().memory_limit(Bytes::gib(1)).command("make").spawn()?;
/// while child.wait_timeout(Duration::from_secs(1))?.is_none() {
///     let stats = child.stats()?;
///     println!("{:?} of memory in {:?} processes", stats.memory_current, stats.pids_current);
/// }
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The memory charged now, page cache included: `memory.usage_in_bytes` | `memory.current`.
    pub memory_current: Option<Bytes>,
    /// The most memory ever charged at once: `memory.max_usage_in_bytes` | `memory.peak` (5.19).
    /// The value includes the page cache of the files that the program read or wrote. A program
    /// that streams a large file therefore comes near its limit without being short of memory.
    pub memory_peak: Option<Bytes>,
    /// The hard limit, or `None` without one: `memory.limit_in_bytes` | `memory.max`.
    pub memory_limit: Option<Bytes>,
    /// Anonymous memory, which the kernel can reclaim only to swap: `total_rss` | `anon` of
    /// `memory.stat`.
    pub memory_anon: Option<Bytes>,
    /// Page cache, tmpfs and shared memory included: `total_cache` | `file` of `memory.stat`.
    pub memory_file: Option<Bytes>,
    /// Page cache that was not used lately, which the kernel reclaims first: `total_inactive_file`
    /// | `inactive_file` of `memory.stat`. [`memory_current`](Stats::memory_current) less this
    /// value is what Kubernetes calls the working set.
    pub memory_inactive_file: Option<Bytes>,
    /// The page faults: `total_pgfault` | `pgfault` of `memory.stat`.
    pub page_faults: Option<u64>,
    /// The page faults that read from a disk: `total_pgmajfault` | `pgmajfault` of `memory.stat`.
    pub major_page_faults: Option<u64>,
    /// Memory that the kernel holds for the program, such as page tables, inodes and stacks:
    /// `memory.kmem.usage_in_bytes` | `kernel` of `memory.stat` (5.18).
    pub memory_kernel: Option<Bytes>,
    /// The number of times that memory was reclaimed from the sandbox although it used less than
    /// its [`memory_low`](crate::Limits::memory_low): none | `low` of `memory.events`.
    pub memory_low_breaches: Option<u64>,
    /// The number of times that the sandbox was slowed down at
    /// [`memory_high`](crate::Limits::memory_high): none | `high` of `memory.events`.
    pub memory_high_hits: Option<u64>,
    /// The number of times that usage reached the hard limit and memory was reclaimed:
    /// `memory.failcnt` | `max` of `memory.events`.
    pub memory_limit_hits: Option<u64>,
    /// The number of times that nothing could be reclaimed at the hard limit, and an allocation
    /// failed or a process was killed: none | `oom` of `memory.events`.
    pub oom_hits: Option<u64>,
    /// The swap charged now: `memory.memsw.usage_in_bytes` less `memory.usage_in_bytes` |
    /// `memory.swap.current`.
    pub swap_current: Option<Bytes>,
    /// The most swap ever charged at once: none | `memory.swap.peak` (6.5).
    pub swap_peak: Option<Bytes>,
    /// The number of processes of the sandbox that the OOM killer killed, because of any group's
    /// limit: `oom_kill` of `memory.oom_control` (4.13) | of `memory.events` (4.13). On v1 the
    /// count of a group made inside is lost when that group is removed.
    pub oom_kills: Option<u64>,
    /// The number of times that all processes were killed together, as by
    /// [`oom_group`](crate::Limits::oom_group): none | `oom_group_kill` of `memory.events` (5.17).
    pub oom_group_kills: Option<u64>,
    /// The huge pages, for each size that the kernel has. Empty without a limit on huge pages.
    pub hugetlb: Vec<HugetlbStats>,
    /// The processes and threads now: `pids.current`.
    pub pids_current: Option<u64>,
    /// The most processes and threads at once: `pids.peak` (6.1).
    pub pids_peak: Option<u64>,
    /// The number of times that `fork` or `clone` failed at the limit: `max` of `pids.events`
    /// (4.7).
    pub pids_limit_hits: Option<u64>,
    /// The CPU time: `cpuacct.usage` | `usage_usec` of `cpu.stat` (4.15, needs no controller).
    pub cpu_usage: Option<Duration>,
    /// The CPU time in user mode: `cpuacct.usage_user` (4.6) | `user_usec` of `cpu.stat`.
    pub cpu_user: Option<Duration>,
    /// The CPU time in the kernel: `cpuacct.usage_sys` (4.6) | `system_usec` of `cpu.stat`.
    pub cpu_system: Option<Duration>,
    /// The CPU time on each CPU, from CPU 0 on: `cpuacct.usage_percpu` | none. Empty where the
    /// kernel does not tell it.
    pub cpu_usage_per_cpu: Vec<Duration>,
    /// The periods of the CPU limit in which a task ran (100 ms each, unless the limit is tiny):
    /// `nr_periods` of `cpu.stat`.
    pub cpu_periods: Option<u64>,
    /// The periods in which usage reached the limit: `nr_throttled` of `cpu.stat`.
    pub cpu_throttled_periods: Option<u64>,
    /// The time that the CPU limit held the program's threads back, summed over the CPUs:
    /// `throttled_time` | `throttled_usec` of `cpu.stat`.
    pub cpu_throttled: Option<Duration>,
    /// The periods that used more than the limit, by [`cpu_burst`](crate::Limits::cpu_burst):
    /// `nr_bursts` of `cpu.stat` (5.16).
    pub cpu_bursts: Option<u64>,
    /// The time used beyond the limit in those periods: `burst_time` | `burst_usec` of `cpu.stat`
    /// (5.16).
    pub cpu_burst: Option<Duration>,
    /// The bytes read from block devices: `blkio.throttle.io_service_bytes_recursive` | `rbytes` of
    /// `io.stat`.
    pub io_read: Option<Bytes>,
    /// The bytes written to block devices: `blkio.throttle.io_service_bytes_recursive` | `wbytes`
    /// of `io.stat`. On v1 the value does not contain data that the kernel writes back later.
    pub io_written: Option<Bytes>,
    /// The read operations: `blkio.throttle.io_serviced_recursive` | `rios` of `io.stat`.
    pub io_reads: Option<u64>,
    /// The write operations: `blkio.throttle.io_serviced_recursive` | `wios` of `io.stat`.
    pub io_writes: Option<u64>,
    /// The same numbers for each block device that was used, in the kernel's order: the lines of
    /// those files. Empty without a limit or a weight of disks.
    pub io_devices: Vec<IoStats>,
    /// The control groups made inside, on all levels: none | `nr_descendants` of `cgroup.stat`
    /// (4.14).
    pub descendants: Option<u64>,
}

/// The use of one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoStats {
    /// The major and the minor number.
    pub device: (u64, u64),
    /// The bytes read: `Read` | `rbytes`.
    pub read: Bytes,
    /// The bytes written: `Write` | `wbytes`.
    pub written: Bytes,
    /// The read operations: `Read` | `rios`.
    pub reads: u64,
    /// The write operations: `Write` | `wios`.
    pub writes: u64,
    /// The bytes discarded: `Discard` (4.20) | `dbytes` (4.20).
    pub discarded: Bytes,
    /// The discard operations: `Discard` (4.20) | `dios` (4.20).
    pub discards: u64,
}

/// The usage of huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugetlbStats {
    /// The size of the pages.
    pub page_size: Bytes,
    /// The bytes in use now: `hugetlb.SIZE.usage_in_bytes` | `hugetlb.SIZE.current` (5.6).
    pub current: Option<Bytes>,
    /// The most bytes in use at once: `hugetlb.SIZE.max_usage_in_bytes` | none.
    pub peak: Option<Bytes>,
    /// The limit, or `None` without one: `hugetlb.SIZE.limit_in_bytes` | `hugetlb.SIZE.max`.
    pub limit: Option<Bytes>,
    /// The number of times that the limit refused a page: `hugetlb.SIZE.failcnt`, which does not
    /// count refused reservations | `max` of `hugetlb.SIZE.events`.
    pub limit_hits: Option<u64>,
}
