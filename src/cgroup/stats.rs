//! What a group used.

use std::time::Duration;

use crate::Bytes;

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
    /// Swap charged now: `memory.memsw.usage_in_bytes` less `memory.usage_in_bytes` | `memory.swap.current`.
    pub swap_current: Option<Bytes>,
    /// Processes of the sandbox that the OOM killer took, whosever limit was hit: `oom_kill` of `memory.oom_control`
    /// (4.13) | of `memory.events` (4.13). On v1 the count of a sub-group that is gone is lost with it.
    pub oom_kills: Option<u64>,
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
    /// Read from block devices: `blkio.throttle.io_service_bytes_recursive` | `rbytes` of `io.stat`.
    pub io_read: Option<Bytes>,
    /// Written to block devices: `blkio.throttle.io_service_bytes_recursive` | `wbytes` of `io.stat`. On v1 it does
    /// not contain what the kernel writes back later.
    pub io_written: Option<Bytes>,
    /// Read operations: `blkio.throttle.io_serviced_recursive` | `rios` of `io.stat`.
    pub io_reads: Option<u64>,
    /// Write operations: `blkio.throttle.io_serviced_recursive` | `wios` of `io.stat`.
    pub io_writes: Option<u64>,
}
