//! What a container uses, as runc shows it to engines.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cgroup::{IoStats, Stats};
use crate::units::Bytes;

/// Returns a line of JSON with what the container `id` uses, as the command `events` of runtimes
/// shows it. A number that the kernel does not count is 0 there, and a limit that is not set is
/// 2^64 - 1.
///
/// ```
/// use ringfence::oci::stats_event;
///
/// let line = stats_event("box", &ringfence::Stats::default());
/// assert!(line.starts_with(r#"{"#) && line.contains(r#""type":"stats""#));
/// ```
pub fn stats_event(id: &str, stats: &Stats) -> String {
    let data = json!({
        "cpu": cpu(stats),
        "cpuset": cpuset(),
        "memory": memory(stats),
        "pids": {"current": stats.pids_current.unwrap_or(0)},
        "blkio": blkio(&stats.io_devices),
        "hugetlb": hugetlb(stats),
        "intel_rdt": {},
        "network_interfaces": null,
    });
    line("stats", id, Some(&data))
}

/// Returns a line of JSON that says that memory has run out in the container `id`.
pub fn oom_event(id: &str) -> String {
    line("oom", id, None)
}

/// Returns an event in the order of other runtimes, for readers that are no parsers.
fn line(kind: &str, id: &str, data: Option<&Value>) -> String {
    let data = data.map_or_else(String::new, |data| format!(",\"data\":{data}"));
    format!("{{\"type\":\"{kind}\",\"id\":{}{data}}}", Value::from(id))
}

fn bytes(value: Option<Bytes>) -> u64 {
    value.map_or(0, Bytes::get)
}

fn nanos(value: Option<Duration>) -> u64 {
    value.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn cpu(stats: &Stats) -> Value {
    let each: Vec<u64> = stats.cpu_usage_per_cpu.iter().map(|time| nanos(Some(*time))).collect();
    let mut usage = json!({
        "total": nanos(stats.cpu_usage), "kernel": nanos(stats.cpu_system), "user": nanos(stats.cpu_user),
    });
    if !each.is_empty() {
        usage["percpu"] = json!(each);
    }
    let throttling = json!({
        "periods": stats.cpu_periods.unwrap_or(0),
        "throttledPeriods": stats.cpu_throttled_periods.unwrap_or(0),
        "throttledTime": nanos(stats.cpu_throttled),
    });
    json!({"usage": usage, "throttling": throttling})
}

/// The fields of v1's cpuset, which engines read and nobody sets here.
fn cpuset() -> Value {
    json!({
        "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
        "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0,
    })
}

fn memory(stats: &Stats) -> Value {
    let limit = stats.memory_limit.map_or(u64::MAX, Bytes::get);
    let counted = [
        ("anon", stats.memory_anon.map(Bytes::get)),
        ("file", stats.memory_file.map(Bytes::get)),
        ("inactive_file", stats.memory_inactive_file.map(Bytes::get)),
        ("kernel", stats.memory_kernel.map(Bytes::get)),
        ("pgfault", stats.page_faults),
        ("pgmajfault", stats.major_page_faults),
    ];
    let raw: Map<String, Value> =
        counted.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect();
    let entry = |limit: u64, usage, max, failed: Option<u64>| json!({"limit": limit, "usage": bytes(usage), "max": bytes(max), "failcnt": failed.unwrap_or(0)});
    json!({
        "cache": bytes(stats.memory_file),
        "usage": entry(limit, stats.memory_current, stats.memory_peak, stats.memory_limit_hits),
        "swap": entry(u64::MAX, stats.swap_current, stats.swap_peak, None),
        "kernel": entry(u64::MAX, stats.memory_kernel, None, None),
        "kernelTCP": entry(u64::MAX, None, None, None),
        "raw": raw,
    })
}

fn blkio(disks: &[IoStats]) -> Value {
    let list = |count: &dyn Fn(&IoStats) -> [(&'static str, u64); 3]| -> Vec<Value> {
        let of = |disk: &IoStats| {
            let (major, minor) = disk.device;
            count(disk).map(|(op, value)| json!({"major": major, "minor": minor, "op": op, "value": value}))
        };
        disks.iter().flat_map(of).collect()
    };
    json!({
        "ioServiceBytesRecursive": list(&|disk| {
            [("Read", disk.read.get()), ("Write", disk.written.get()), ("Discard", disk.discarded.get())]
        }),
        "ioServicedRecursive": list(&|disk| {
            [("Read", disk.reads), ("Write", disk.writes), ("Discard", disk.discards)]
        }),
    })
}

/// The sizes of pages are named as the kernel names its files: `2MB`.
fn hugetlb(stats: &Stats) -> Value {
    let name = |size: u64| match size {
        size if size >= 1 << 30 => format!("{}GB", size >> 30),
        size if size >= 1 << 20 => format!("{}MB", size >> 20),
        size => format!("{}KB", size >> 10),
    };
    let pages = stats.hugetlb.iter().map(|pages| {
        let (usage, max) = (bytes(pages.current), bytes(pages.peak));
        (name(pages.page_size.get()), json!({"usage": usage, "max": max, "failcnt": pages.limit_hits.unwrap_or(0)}))
    });
    pages.collect::<Map<String, Value>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_shape_that_engines_read() {
        let disk = IoStats { device: (8, 16), read: Bytes::new(5), writes: 7, ..IoStats::default() };
        let stats = Stats {
            memory_current: Some(Bytes::kib(4)),
            memory_anon: Some(Bytes::new(9)),
            cpu_usage: Some(Duration::from_micros(3)),
            cpu_usage_per_cpu: vec![Duration::from_nanos(1), Duration::from_nanos(2)],
            pids_current: Some(2),
            io_devices: vec![disk],
            ..Stats::default()
        };
        let event: Value = serde_json::from_str(&stats_event("box", &stats)).unwrap();
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("box")));
        let data = &event["data"];
        assert_eq!(data["cpu"]["usage"], json!({"total": 3000, "kernel": 0, "user": 0, "percpu": [1, 2]}));
        assert_eq!(data["memory"]["usage"], json!({"limit": u64::MAX, "usage": 4096, "max": 0, "failcnt": 0}));
        assert_eq!((&data["memory"]["raw"], &data["pids"]), (&json!({"anon": 9}), &json!({"current": 2})));
        let read = json!({"major": 8, "minor": 16, "op": "Read", "value": 5});
        assert_eq!(data["blkio"]["ioServiceBytesRecursive"][0], read);
        assert_eq!(data["blkio"]["ioServicedRecursive"][1]["value"], 7);
        assert_eq!(oom_event("a\"b"), r#"{"type":"oom","id":"a\"b"}"#);
    }
}
