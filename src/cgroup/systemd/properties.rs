//! The limits of a unit as systemd's properties, which it sets again with each reload.
//!
//! A property stands beside the file of the group, and never alone: what systemd has no property
//! for, or rounds, is in the files as it was asked for.

use super::value::{Kind, Value};
use crate::cgroup::limits::Limits;
use crate::cgroup::resources::{io_weight_of_blkio, weight_of_shares};
use crate::units::Bytes;

/// The period that a group has by default, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
/// The step of CPU time in a second that systemd keeps, in microseconds: one percent.
const PERCENT: u64 = 10_000;
/// More processors and memory nodes than any kernel takes.
const CPUS_MAX: usize = 8192;

/// A property of a unit.
pub(crate) type Property = (String, Value);

/// Returns the properties that say what the limits say. systemd means no limit by the greatest
/// number, as [`Limits`] do.
pub(crate) fn properties_of(limits: &Limits) -> Vec<Property> {
    let more = &limits.resources;
    let mut all = Vec::new();
    let mut put = |name: &str, value: Option<u64>| all.extend(value.map(|value| (name.to_owned(), Value::U64(value))));
    put("MemoryMax", limits.memory.map(Bytes::get));
    put("MemoryHigh", limits.memory_high.map(Bytes::get));
    put("MemoryLow", more.memory_reservation.or(limits.memory_low).map(Bytes::get));
    put("MemoryMin", limits.memory_min.map(Bytes::get));
    put("MemorySwapMax", limits.swap.or(more.swap_beside(limits.memory)).map(Bytes::get));
    put("TasksMax", limits.pids);
    all.extend(cpu_quota(limits));
    let mut put = |name: &str, value: Option<u64>| all.extend(value.map(|value| (name.to_owned(), Value::U64(value))));
    let weight = limits.cpu_weight.or(more.cpu_shares.map(weight_of_shares));
    put("CPUWeight", weight.filter(|_| limits.cpu_idle != Some(true)));
    put("IOWeight", limits.io_weight.or(more.blkio_weight.map(io_weight_of_blkio)));
    for (name, list) in [("AllowedCPUs", &limits.cpuset), ("AllowedMemoryNodes", &limits.cpuset_mems)] {
        // The kernel refuses what is no list.
        all.extend(list.as_deref().and_then(bits).map(|bits| (name.to_owned(), bits)));
    }
    more.unified.iter().for_each(|(file, value)| put_unified(&mut all, file, value.trim()));
    all
}

/// Returns the properties of the limit of CPU time.
pub(super) fn cpu_quota(limits: &Limits) -> Vec<Property> {
    let asked = limits.resources.quota_and_period().map(|(quota, period)| (quota, period.unwrap_or(DEFAULT_PERIOD)));
    let quota = asked.or(limits.cpu_quota().map(|(quota, period)| (Some(quota), period)));
    let Some((quota, period)) = quota.filter(|(_, period)| *period > 0) else { return Vec::new() };
    let time = quota.map_or(u64::MAX, |quota| in_a_second(quota, period));
    let number = |name: &str, value| (name.to_owned(), Value::U64(value));
    vec![number("CPUQuotaPerSecUSec", time), number("CPUQuotaPeriodUSec", period)]
}

/// Returns the CPU time of a quota in one second, in whole percents, and never less than asked for.
fn in_a_second(quota: u64, period: u64) -> u64 {
    let micros = (u128::from(quota) * 1_000_000).div_ceil(u128::from(period));
    u64::try_from(micros).unwrap_or(u64::MAX - PERCENT).div_ceil(PERCENT).saturating_mul(PERCENT)
}

/// Returns a list of numbers, as in `0-3,8`, as systemd takes it: one bit each.
fn bits(list: &str) -> Option<Value> {
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.trim().split(',') {
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < CPUS_MAX);
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|number| bytes[number / 8] |= 1 << (number % 8));
    }
    Some(Value::List(Kind::U8, bytes.into_iter().map(Value::U8).collect()))
}

/// Adds the property of a file of cgroup v2, in place of one from before. The kernel refuses a
/// value that is none.
fn put_unified(all: &mut Vec<Property>, file: &str, value: &str) {
    let number = |text: &str| if text == "max" { Some(u64::MAX) } else { text.parse().ok() };
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            all.retain(|(other, _)| other != name);
            all.push((name.to_owned(), value));
        }
    };
    let single = match file {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpuset.cpus" => return put("AllowedCPUs", bits(value)),
        "cpuset.mems" => return put("AllowedMemoryNodes", bits(value)),
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
            let period = if period.is_empty() { Some(DEFAULT_PERIOD) } else { period.trim().parse().ok() };
            let (Some(quota), Some(period)) = (number(quota), period.filter(|period| *period > 0)) else { return };
            let time = if quota == u64::MAX { quota } else { in_a_second(quota, period) };
            put("CPUQuotaPerSecUSec", Some(Value::U64(time)));
            return put("CPUQuotaPeriodUSec", Some(Value::U64(period)));
        }
        _ => return,
    };
    put(single, number(value).map(Value::U64));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cgroup::resources::Resources;

    fn shown(limits: &Limits) -> Vec<String> {
        let text = |value: Value| match value {
            Value::U64(u64::MAX) => "max".to_owned(),
            Value::U64(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        properties_of(limits).into_iter().map(|(name, value)| format!("{name}={}", text(value))).collect()
    }

    #[test]
    fn each_limit_of_the_specification_has_its_property() {
        let more = Resources::new().memory_reservation(4096).memory_and_swap(3 << 20).cpu_shares(2048);
        let more = more.cpu_quota(Duration::from_micros(15_050)).cpu_period(Duration::from_millis(50)).blkio_weight(20);
        let limits = Limits::new().memory(1 << 20).pids(u64::MAX).resources(more);
        let expected = [
            "MemoryMax=1048576",
            "MemoryLow=4096",
            "MemorySwapMax=2097152",
            "TasksMax=max",
            // Up to the next percent, which is what systemd keeps.
            "CPUQuotaPerSecUSec=310000",
            "CPUQuotaPeriodUSec=50000",
            "CPUWeight=174",
            "IOWeight=102",
        ];
        assert_eq!(shown(&limits), expected);
        assert_eq!(shown(&Limits::new()), [""; 0]);
        let none = Resources::new().cpu_quota(Duration::MAX);
        let none = shown(&Limits::new().memory(Bytes::MAX).resources(none));
        assert_eq!(none, ["MemoryMax=max", "CPUQuotaPerSecUSec=max", "CPUQuotaPeriodUSec=100000"]);
        let least = Resources::new().cpu_quota(Duration::from_micros(1)).cpu_period(Duration::from_secs(1));
        assert!(shown(&Limits::new().resources(least)).contains(&"CPUQuotaPerSecUSec=10000".to_owned()));
        let most = Resources::new().cpu_quota(Duration::from_micros(u64::MAX - 1)).cpu_period(Duration::from_micros(1));
        assert_eq!(shown(&Limits::new().resources(most)).len(), 2);
    }

    #[test]
    fn files_by_name_have_their_properties_too() {
        let more = Resources::new().memory_and_swap(Bytes::MAX);
        let pairs = [("memory.max", "4096"), ("cpu.max", "max 20000"), ("pids.max", "max"), ("memory.low", "x")];
        let more = pairs.into_iter().fold(more, |more, (file, value)| more.unified(file, value));
        let limits = Limits::new().memory(1 << 20).pids(7).resources(more.unified("memory.oom.group", "1"));
        let mut shown = shown(&limits);
        shown.sort();
        let expected = [
            "CPUQuotaPerSecUSec=max",
            "CPUQuotaPeriodUSec=20000",
            "MemoryMax=4096",
            "MemorySwapMax=max",
            "TasksMax=max",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn lists_become_bits() {
        let bytes = |list: &str| match bits(list) {
            Some(Value::List(Kind::U8, bytes)) => Some(bytes),
            _ => None,
        };
        let expected = |bytes: &[u8]| Some(bytes.iter().copied().map(Value::U8).collect());
        assert_eq!(bytes("0-3,8"), expected(&[0x0f, 1]));
        assert_eq!(bytes("17\n"), expected(&[0, 0, 2]));
        for list in ["", "a", "3-1", "-1", "1-", "0,,1", "99999999999", "8192", "0-8192"] {
            assert_eq!(bytes(list), None, "{list}");
        }
        crate::fuzz::texts(&["0-3,8"], |text| drop(bits(text)));
    }
}
