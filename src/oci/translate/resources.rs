//! The control group and its limits: `linux.cgroupsPath`, `linux.resources`.
//!
//! As in other runtimes, -1 lifts a limit, and 0 is none that was set.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use super::devices::rules;
use super::surroundings::Surroundings;
use crate::cgroup::{self, IoLimit, Limits, Resources};
use crate::oci::problems::Problems;
use crate::sandbox::Sandbox;
use crate::units::Bytes;

/// Sets one of the rates of a disk.
type SetRate = fn(IoLimit, u64) -> IoLimit;

/// Returns the path of the container's control group: the one that is asked for, or one below the
/// runtime's own parent. A container of an ordinary user, which has no limits, has no group where
/// that user may make none.
///
/// An engine that takes systemd for the maker of groups, where this runtime was not told so, names a
/// scope, `slice:prefix:name`. As with other runtimes, that is a path like any.
pub(super) fn group_path(
    linux: Option<&Linux>,
    is_limited: bool,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<PathBuf> {
    let is_needed = around.is_root || is_limited;
    let asked = linux.and_then(|linux| linux.cgroups_path().as_deref()).filter(|path| !path.as_os_str().is_empty());
    let Some(path) = asked else {
        return is_needed.then(|| around.cgroup_parent.join(around.id));
    };
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir | Component::CurDir);
    if !path.components().all(plain) || path.file_name().is_none() {
        problems.invalid("linux.cgroupsPath", "it is the root, or has `..`", "name a group of the container's own");
        return None;
    }
    // A relative one begins where the runtime likes.
    let path = if path.is_absolute() { path.to_owned() } else { around.cgroup_parent.join(path) };
    let may_make = || cgroup::host().is_ok_and(|host| host.may_make(&path));
    (is_needed || may_make()).then_some(path)
}

/// Sets the limits. Returns whether there is one.
pub(super) fn with_resources(
    sandbox: Sandbox,
    linux: Option<&Linux>,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> (Sandbox, bool) {
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let mut limits = resources.map_or_else(Limits::new, |resources| limits_of(resources, problems));
    let listed = resources.and_then(|resources| resources.devices().as_deref());
    // Rules for devices need root. An ordinary user can make no nodes, and opens what is bound.
    if around.is_root {
        limits = limits.devices(rules(listed.unwrap_or_default(), problems));
    } else if listed.is_some_and(|listed| listed.iter().any(|rule| rule.allow())) {
        problems.refused("linux.resources.devices", "rules for devices need root");
    }
    let is_limited = !limits.is_empty();
    (sandbox.limits(limits), is_limited)
}

/// Returns the limits, without the rules for devices.
pub(in crate::oci) fn limits_of(listed: &LinuxResources, problems: &mut Problems) -> Limits {
    let (mut limits, mut more) = (Limits::new(), Resources::new());
    if let Some(memory) = listed.memory() {
        (limits, more) = with_memory(limits, more, memory, problems);
    }
    if let Some(cpu) = listed.cpu() {
        (limits, more) = with_cpu(limits, more, cpu, problems);
    }
    if let Some(pids) = listed.pids() {
        limits = match pids.limit() {
            -1 => limits.pids(u64::MAX),
            // The container's own process is there already.
            0 => limits.pids(1),
            count => match u64::try_from(count) {
                Ok(count) => limits.pids(count),
                Err(_) => {
                    problems.invalid("linux.resources.pids.limit", "it is below -1", "write -1 for no limit");
                    limits
                }
            },
        };
    }
    if let Some(block) = listed.block_io() {
        (limits, more) = with_block_io(limits, more, block, problems);
    }
    for (i, pages) in listed.hugepage_limits().iter().flatten().enumerate() {
        limits = with_pages(limits, pages, &format!("linux.resources.hugepageLimits[{i}]"), problems);
    }
    if let Some(network) = listed.network() {
        if let Some(class) = network.class_id() {
            more = more.network_class(class);
        }
        for priority in network.priorities().iter().flatten() {
            more = more.network_priority(priority.name(), priority.priority());
        }
    }
    for (device, numbers) in listed.rdma().iter().flatten() {
        more = more.rdma(device, numbers.hca_handles().map(u64::from), numbers.hca_objects().map(u64::from));
    }
    for (file, value) in listed.unified().iter().flatten() {
        more = more.unified(file, value);
    }
    limits.resources(more)
}

/// Returns a limit in bytes; `None` if it was not set.
fn bytes(property: &str, value: Option<i64>, problems: &mut Problems) -> Option<Bytes> {
    match value? {
        0 => None,
        -1 => Some(Bytes::MAX),
        value => {
            let bytes = u64::try_from(value).ok().map(Bytes::new);
            if bytes.is_none() {
                problems.invalid(property, "it is below -1", "write -1 for no limit");
            }
            bytes
        }
    }
}

/// Returns a time in microseconds; `None` if it was not set. Every negative one lifts the limit, as
/// it does in the files of v1.
fn micros(value: Option<i64>) -> Option<Duration> {
    let value = value.filter(|value| *value != 0)?;
    Some(u64::try_from(value).map_or(Duration::MAX, Duration::from_micros))
}

fn with_memory(
    mut limits: Limits,
    mut more: Resources,
    memory: &LinuxMemory,
    problems: &mut Problems,
) -> (Limits, Resources) {
    if let Some(limit) = bytes("linux.resources.memory.limit", memory.limit(), problems) {
        limits = limits.memory(limit);
    }
    if let Some(kept) = bytes("linux.resources.memory.reservation", memory.reservation(), problems) {
        more = more.memory_reservation(kept);
    }
    if let Some(sum) = bytes("linux.resources.memory.swap", memory.swap(), problems) {
        more = more.memory_and_swap(sum);
    }
    if let Some(percent) = memory.swappiness() {
        more = more.swappiness(percent);
    }
    if let Some(disable) = memory.disable_oom_killer() {
        // `false` is what every group has, on v2 as well.
        more = if disable { more.oom_kill_disable(true) } else { more };
    }
    #[allow(deprecated, reason = "it is refused")]
    let kernel = [("kernel", memory.kernel()), ("kernelTCP", memory.kernel_tcp())];
    for (name, value) in kernel {
        let is_set = value.is_some_and(|value| value != 0);
        let reason = "Linux counts the kernel's memory with the rest since 5.4 (v1), and always on v2";
        problems.refuse_if(is_set, format!("linux.resources.memory.{name}"), reason);
    }
    let flat = memory.use_hierarchy() == Some(false);
    let reason = "groups count those below since Linux 5.11, and always on v2";
    problems.refuse_if(flat, "linux.resources.memory.useHierarchy", reason);
    let checked = memory.check_before_update() == Some(true);
    let reason = "the kernel decides alone whether a limit is too low";
    problems.refuse_if(checked, "linux.resources.memory.checkBeforeUpdate", reason);
    (limits, more)
}

fn with_cpu(mut limits: Limits, mut more: Resources, cpu: &LinuxCpu, problems: &mut Problems) -> (Limits, Resources) {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        more = more.cpu_shares(shares);
    }
    if let Some(quota) = micros(cpu.quota()) {
        more = more.cpu_quota(quota);
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        more = more.cpu_period(Duration::from_micros(period));
    }
    if let Some(burst) = cpu.burst() {
        limits = limits.cpu_burst(Duration::from_micros(burst));
    }
    if let Some(runtime) = micros(cpu.realtime_runtime()) {
        more = more.realtime_runtime(runtime);
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        more = more.realtime_period(Duration::from_micros(period));
    }
    match cpu.idle() {
        None => {}
        Some(idle @ (0 | 1)) => limits = limits.cpu_idle(idle == 1),
        Some(_) => problems.invalid("linux.resources.cpu.idle", "it is neither 0 nor 1", "correct it"),
    }
    if let Some(cpus) = cpu.cpus().as_deref().filter(|cpus| !cpus.is_empty()) {
        limits = limits.cpuset(cpus);
    }
    if let Some(mems) = cpu.mems().as_deref().filter(|mems| !mems.is_empty()) {
        limits = limits.cpuset_mems(mems);
    }
    (limits, more)
}

fn with_block_io(
    mut limits: Limits,
    mut more: Resources,
    block: &LinuxBlockIo,
    problems: &mut Problems,
) -> (Limits, Resources) {
    let leaf = "Linux has no weights of leaves since 5.0";
    if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
        more = more.blkio_weight(weight.into());
    }
    problems.refuse_if(block.leaf_weight().is_some_and(|w| w != 0), "linux.resources.blockIO.leafWeight", leaf);
    for (i, device) in block.weight_device().iter().flatten().enumerate() {
        let property = format!("linux.resources.blockIO.weightDevice[{i}]");
        problems.refuse_if(device.leaf_weight().is_some_and(|w| w != 0), format!("{property}.leafWeight"), leaf);
        match (disk(device.major(), device.minor()), device.weight().filter(|weight| *weight != 0)) {
            (Some((major, minor)), Some(weight)) => more = more.device_weight(major, minor, weight.into()),
            (Some(_), None) => {}
            (None, _) => problems.invalid(&property, "there is no disk with these numbers", "correct them"),
        }
    }
    let rates: [(&str, &Option<Vec<LinuxThrottleDevice>>, SetRate); 4] = [
        ("throttleReadBpsDevice", block.throttle_read_bps_device(), |limit, rate| limit.read_bps(rate)),
        ("throttleWriteBpsDevice", block.throttle_write_bps_device(), |limit, rate| limit.write_bps(rate)),
        ("throttleReadIOPSDevice", block.throttle_read_iops_device(), IoLimit::read_iops),
        ("throttleWriteIOPSDevice", block.throttle_write_iops_device(), IoLimit::write_iops),
    ];
    let mut disks: BTreeMap<(u64, u64), IoLimit> = BTreeMap::new();
    for (name, devices, set) in rates {
        for (i, device) in devices.iter().flatten().enumerate() {
            let Some(numbers) = disk(device.major(), device.minor()) else {
                let property = format!("linux.resources.blockIO.{name}[{i}]");
                problems.invalid(property, "there is no disk with these numbers", "correct them");
                continue;
            };
            let limit = disks.remove(&numbers).unwrap_or_else(|| IoLimit::device(numbers.0, numbers.1));
            disks.insert(numbers, set(limit, device.rate()));
        }
    }
    limits = disks.into_values().fold(limits, Limits::io);
    (limits, more)
}

fn disk(major: i64, minor: i64) -> Option<(u64, u64)> {
    Some((u64::try_from(major).ok()?, u64::try_from(minor).ok()?))
}

fn with_pages(limits: Limits, pages: &LinuxHugepageLimit, property: &str, problems: &mut Problems) -> Limits {
    let Some(size) = page_size(pages.page_size()) else {
        let reason = format!("{:?} is no size of a page", pages.page_size());
        problems.invalid(format!("{property}.pageSize"), reason, "write it as in 2MB");
        return limits;
    };
    match pages.limit() {
        -1 => limits.hugetlb(size, Bytes::MAX),
        limit => match u64::try_from(limit) {
            Ok(limit) => limits.hugetlb(size, limit),
            Err(_) => {
                problems.invalid(format!("{property}.limit"), "it is below -1", "write -1 for no limit");
                limits
            }
        },
    }
}

/// Reads a size as the kernel names the files of hugetlb: `64KB`, `2MB`, `1GB`.
fn page_size(text: &str) -> Option<Bytes> {
    let units = [("KB", 10), ("MB", 20), ("GB", 30)];
    let (number, shift) = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))?;
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|number| plain && *number > 0)?;
    number.checked_mul(1 << shift).map(Bytes::new)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn sizes_of_pages_are_those_of_the_kernel() {
        assert_eq!(page_size("2MB"), Some(Bytes::mib(2)));
        assert_eq!(page_size("1GB"), Some(Bytes::mib(1024)));
        for text in ["", "MB", "2", "2M", "2mb", "-2MB", "+2MB", "0KB", "99999999999999GB"] {
            assert_eq!(page_size(text), None, "{text}");
        }
        crate::fuzz::texts(&["64KB"], |text| _ = page_size(text));
    }

    #[test]
    fn a_group_is_never_outside_of_where_it_may_be() {
        let around = Surroundings::of_root();
        let path = |text: &str| {
            let text = serde_json::json!({ "cgroupsPath": text }).to_string();
            let linux: Linux = serde_json::from_str(&text).unwrap();
            let mut problems = Problems::default();
            let path = group_path(Some(&linux), false, &around, &mut problems);
            problems.unless_any(path).unwrap_or(None)
        };
        assert_eq!(path("/a/b"), Some("/a/b".into()));
        assert_eq!(path("a/b"), Some("/above/a/b".into()));
        assert_eq!(path(""), Some("/above/box".into()));
        assert_eq!(path("user.slice:a:b"), Some("/above/user.slice:a:b".into()));
        for text in ["/", ".", "..", "/a/../b", "../b", "../user.slice:a:b"] {
            assert_eq!(path(text), None, "{text}");
        }
    }
}
