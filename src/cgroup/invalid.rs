//! Finds values that no kernel would take.

use std::time::Duration;

use super::devices::Devices;
use super::io::IoLimit;
use super::limits::Limits;
use super::resources::{BLKIO_WEIGHTS, Resources, micros, unified_controller};
use crate::error::Problem;
use crate::feature::Feature;
use crate::units::Bytes;

/// `PID_MAX_LIMIT` of 64-bit kernels; `pids.max` takes no greater number.
const PIDS_CEILING: u64 = 4 << 20;
/// The kernel grants quotas from 1 ms and periods up to 1 s.
const CPU_FLOOR: f64 = 0.001;
const CPU_CEILING: f64 = 1e6;
/// The kernel keeps the number of groups in an int.
/// One write to a file of a group takes less than a page.
const VALUE_MAX: usize = 4095;
/// In microseconds. The kernel's own ceiling depends on its version.
const REALTIME_CEILING: u64 = 3_600_000_000;
const GROUPS_CEILING: u64 = i32::MAX as u64;

fn problem(feature: Feature, reason: impl Into<String>, remedy: &str) -> Option<Problem> {
    Some(Problem::invalid(feature.as_str(), reason, remedy))
}

fn outside(feature: Feature, value: Option<u64>, least: u64, most: u64, remedy: &str) -> Option<Problem> {
    let value = value.filter(|value| !(least..=most).contains(value))?;
    problem(feature, format!("{value} is outside of {least} to {most}"), remedy)
}

impl Limits {
    /// Returns every value that no kernel would take.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = self.invalid_memory();
        problems.extend(self.invalid_cpu());
        for list in self.cpuset.iter().chain(&self.cpuset_mems).filter(|list| !is_list(list)) {
            problems.extend(problem(
                Feature::Cpuset,
                format!("{list:?} is no list of numbers"),
                "write it as in 0-3,8",
            ));
        }
        problems.extend(self.io.iter().filter_map(IoLimit::invalid));
        problems.extend(self.devices.iter().flat_map(Devices::invalid));
        problems.extend(self.invalid_resources());
        let range = "give a number in the range";
        let default = "100 is the default of every group";
        problems.extend(outside(
            Feature::PidsLimit,
            self.pids.filter(|pids| *pids != u64::MAX),
            1,
            PIDS_CEILING,
            range,
        ));
        problems.extend(outside(Feature::IoWeight, self.io_weight, 1, 10_000, default));
        problems.extend(outside(Feature::CgroupMaxDescendants, self.max_descendants, 0, GROUPS_CEILING, range));
        problems.extend(outside(Feature::CgroupMaxDepth, self.max_depth, 0, GROUPS_CEILING, range));
        problems
    }

    fn invalid_memory(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (feature, limit) in [(Feature::MemoryLimit, self.memory), (Feature::MemoryHigh, self.memory_high)] {
            if let Some(limit) = limit.filter(|limit| limit.get() < 4096) {
                problems.extend(problem(feature, format!("{} bytes are less than a page", limit.get()), "give more"));
            }
        }
        let parts = [
            (Feature::MemoryHigh, self.memory_high),
            (Feature::MemoryLow, self.memory_low),
            (Feature::MemoryMin, self.memory_min),
        ];
        for (feature, part) in parts {
            if let (Some(part), Some(whole)) = (part, self.memory)
                && part > whole
            {
                problems.extend(problem(feature, format!("{part} are more than memory_limit, {whole}"), "give less"));
            }
        }
        for (page, _) in self.hugetlb.iter().filter(|(page, _)| !page.get().is_power_of_two() || page.get() <= 4096) {
            let reason = format!("{page} is no size of a huge page");
            problems.extend(problem(Feature::HugetlbLimit, reason, "see /sys/kernel/mm/hugepages"));
        }
        problems
    }

    fn invalid_cpu(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(cpu) = self.cpu.filter(|cpu| !(CPU_FLOOR..=CPU_CEILING).contains(cpu)) {
            let range = format!("{cpu} cores are outside of {CPU_FLOOR} to {CPU_CEILING}");
            problems.extend(problem(Feature::CpuLimit, range, "give cores, as in 0.25"));
        } else if let (Some(burst), Some((quota, period))) = (self.cpu_burst_us(), self.cpu_quota())
            && burst > quota
        {
            let reason = format!("{burst} µs are more than the {quota} µs that cpu_limit gives every {period} µs");
            problems.extend(problem(Feature::CpuBurst, reason, "give less"));
        }
        if self.cpu_idle == Some(true) && (self.cpu_weight.is_some() || self.resources.cpu_shares.is_some()) {
            let reason = "a group that runs when nobody else does has no weight";
            problems.extend(problem(Feature::CpuIdle, reason, "leave out one of cpu_idle and cpu_weight"));
        }
        let default = "100 is the default of every group";
        problems.extend(outside(Feature::CpuWeight, self.cpu_weight, 1, 10_000, default));
        problems
    }

    /// Returns the problems of the values in the terms of the OCI specification, also beside other
    /// limits.
    fn invalid_resources(&self) -> Vec<Problem> {
        let more = &self.resources;
        let mut problems = more.invalid();
        for (feature, twice, names) in [
            (Feature::MemoryReservation, self.memory_low.is_some() && more.memory_reservation.is_some(), "memory_low"),
            (Feature::SwapLimit, self.swap.is_some() && more.memory_and_swap.is_some(), "memory_and_swap"),
            (Feature::CpuLimit, self.cpu.is_some() && more.quota_and_period().is_some(), "cpu_quota or cpu_period"),
            (Feature::CpuWeight, self.cpu_weight.is_some() && more.cpu_shares.is_some(), "cpu_shares"),
            (Feature::IoWeight, self.io_weight.is_some() && more.blkio_weight.is_some(), "blkio_weight"),
        ] {
            if twice {
                let reason = format!("{names} would set the same once more");
                problems.extend(problem(feature, reason, "leave out one of the two"));
            }
        }
        let sum = more.memory_and_swap.filter(|sum| *sum != Bytes::MAX);
        match (sum, self.memory) {
            (Some(sum), Some(memory)) if memory > sum => {
                let reason = format!("memory and swap are together less than memory_limit, {memory}");
                problems.extend(problem(Feature::SwapLimit, reason, "give the sum of both"));
            }
            (Some(_), None) => {
                problems.extend(problem(Feature::SwapLimit, "a sum with swap needs a part", "set memory_limit too"));
            }
            _ => {}
        }
        problems
    }

    /// Returns the problem of a limit that makes sense only together with a limit that a living
    /// group already has.
    pub(crate) fn incomplete(&self) -> Option<Problem> {
        if self.cpu_burst.is_none_or(|burst| burst.is_zero())
            || self.cpu.is_some()
            || self.resources.cpu_quota.is_some()
        {
            return None;
        }
        problem(Feature::CpuBurst, "without a limit nothing of it is left over", "set cpu_limit too")
    }
}

impl Resources {
    fn invalid(&self) -> Vec<Problem> {
        let range = "give a number in the range";
        let [least, most] = BLKIO_WEIGHTS;
        let mut problems = Vec::new();
        problems.extend(outside(Feature::Swappiness, self.swappiness, 0, 100, range));
        problems.extend(outside(Feature::CpuWeight, self.cpu_shares, 2, 262_144, "1024 is the default of every group"));
        for weight in self.blkio_weight.iter().chain(self.device_weights.values()) {
            problems.extend(outside(Feature::IoWeight, Some(*weight), least, most, range));
        }
        problems.extend(self.invalid_times());
        for interface in self.network_priorities.keys().filter(|name| !is_word(name, 15)) {
            let reason = format!("{interface:?} is no name of an interface");
            problems.extend(problem(Feature::NetworkPriority, reason, "give a name that ip link shows"));
        }
        for (device, (handles, objects)) in &self.rdma {
            if !is_word(device, 63) {
                problems.extend(problem(
                    Feature::Rdma,
                    format!("{device:?} is no name of a device"),
                    "see rdma.current",
                ));
            }
            let numbers = || [handles, objects].into_iter().flatten();
            for number in numbers().filter(|number| **number != u64::MAX) {
                problems.extend(outside(Feature::Rdma, Some(*number), 0, i32::MAX as u64, range));
            }
            if numbers().next().is_none() {
                problems.extend(problem(Feature::Rdma, format!("the limit of {device} is empty"), "give a number"));
            }
        }
        for (file, value) in &self.unified {
            if unified_controller(file).is_none() {
                let reason = format!("{file:?} is no file of a v2 controller");
                problems.extend(problem(Feature::Unified, reason, "name a file as in memory.high"));
            } else if value.is_empty() || value.len() > VALUE_MAX || value.contains('\0') {
                let reason = format!("the value for {file} is empty, has a NUL, or is longer than {VALUE_MAX} bytes");
                problems.extend(problem(Feature::Unified, reason, "give what the file takes in one write"));
            }
        }
        problems
    }

    fn invalid_times(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let limited = |time: Option<Duration>| time.filter(|time| *time != Duration::MAX).map(micros);
        let (least, most) = (1000, 1_000_000);
        problems.extend(outside(
            Feature::CpuLimit,
            limited(self.cpu_quota),
            least,
            u64::MAX / 1000,
            "give a time from 1 ms",
        ));
        let period = self.cpu_period.map(micros);
        problems.extend(outside(Feature::CpuLimit, period, least, most, "give microseconds from 1 ms to 1 s"));
        let period = self.realtime_period.map(micros);
        problems.extend(outside(Feature::CpuRealtime, period, 1, REALTIME_CEILING, "give a time from 1 µs to 1 h"));
        if let (Some(runtime), Some(period)) = (limited(self.realtime_runtime), period)
            && runtime > period
        {
            let reason = format!("{runtime} µs are more than the period, {period} µs");
            problems.extend(problem(Feature::CpuRealtime, reason, "give less"));
        }
        problems
    }
}

impl IoLimit {
    fn invalid(&self) -> Option<Problem> {
        let device = format!("{}:{}", self.device.0, self.device.1);
        let values = [self.read_bps.map(Bytes::get), self.write_bps.map(Bytes::get), self.read_iops, self.write_iops];
        if values.iter().all(Option::is_none) {
            return problem(Feature::IoLimit, format!("the limit of {device} is empty"), "set a rate");
        }
        let zero = values.contains(&Some(0));
        if zero {
            problem(Feature::IoLimit, format!("a rate of 0 for {device}"), "the least is 1 a second")
        } else {
            None
        }
    }
}

/// Returns whether the text is one word of a line, with at most `most` bytes.
fn is_word(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
}

fn is_list(text: &str) -> bool {
    let digits = |s: &str| if s.bytes().all(|b| b.is_ascii_digit()) { s.parse::<u32>().ok() } else { None };
    text.split(',').all(|item| match item.split_once('-') {
        Some((from, to)) => matches!((digits(from), digits(to)), (Some(from), Some(to)) if from <= to),
        None => digits(item).is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        crate::fuzz::texts(&["0-3,8", "0", "1,2,3-4"], |text| {
            drop(Limits::new().cpuset(text).cpuset_mems(text).invalid())
        });
    }

    #[test]
    fn what_a_kernel_takes_is_valid() {
        let io = IoLimit::device(8, 0).read_bps(1 << 20).write_iops(5);
        let limits = Limits::new().memory(4096).swap(0).pids(1).cpu(0.001).cpu_weight(10_000).cpuset("0-3,8");
        let limits = limits.cpuset_mems("0").io(io).memory_high(4096).memory_low(0).memory_min(4096).oom_group(true);
        let limits =
            limits.hugetlb(2 << 20, 0).hugetlb(64 << 10, 1).cpu_burst(Duration::from_millis(1)).io_weight(10_000);
        let limits = limits.cpu_idle(false).max_descendants(0).max_depth(GROUPS_CEILING);
        assert_eq!(limits.invalid(), []);
        let more = Resources::new().memory_and_swap(8192).memory_reservation(Bytes::MAX).swappiness(100).cpu_shares(2);
        let more = more.cpu_quota(Duration::from_millis(1)).cpu_period(Duration::from_secs(1)).blkio_weight(10);
        let more = more.realtime_runtime(Duration::from_micros(5)).realtime_period(Duration::from_micros(5));
        let more = more.device_weight(8, 0, 1000).network_priority("eth0.5", 0).rdma("mlx4_0", u64::MAX, 0);
        let more = more.unified("memory.high", "max").unified("cpuset.cpus", "\n");
        assert_eq!(Limits::new().memory(4096).pids(u64::MAX).resources(more).invalid(), []);
        let all = Resources::new().memory_and_swap(Bytes::MAX).cpu_quota(Duration::MAX).realtime_runtime(Duration::MAX);
        assert_eq!(Limits::new().resources(all).invalid(), []);
        assert_eq!(limits.incomplete(), None);
        assert_eq!(Limits::new().cpu_burst(Duration::ZERO).incomplete(), None);
        assert_eq!(Limits::new().invalid(), []);
    }

    #[test]
    fn each_nonsense_is_named_once() {
        for (limits, subject) in [
            (Limits::new().memory(4095), "memory_limit"),
            (Limits::new().pids(0), "pids_limit"),
            (Limits::new().pids(PIDS_CEILING + 1), "pids_limit"),
            (Limits::new().cpu(0.0), "cpu_limit"),
            (Limits::new().cpu(-1.0), "cpu_limit"),
            (Limits::new().cpu(f64::NAN), "cpu_limit"),
            (Limits::new().cpu(f64::INFINITY), "cpu_limit"),
            (Limits::new().cpu_weight(0), "cpu_weight"),
            (Limits::new().cpu_weight(10_001), "cpu_weight"),
            (Limits::new().memory_high(100), "memory_high"),
            (Limits::new().memory(8192).memory_high(8193), "memory_high"),
            (Limits::new().memory(8192).memory_low(8193), "memory_low"),
            (Limits::new().memory(8192).memory_min(8193), "memory_min"),
            (Limits::new().hugetlb(3 << 20, 0), "hugetlb_limit"),
            (Limits::new().hugetlb(4096, 0), "hugetlb_limit"),
            (Limits::new().hugetlb(0, 0), "hugetlb_limit"),
            (Limits::new().cpu(0.25).cpu_burst(Duration::from_micros(25_001)), "cpu_burst"),
            (Limits::new().cpu(0.005).cpu_burst(Duration::MAX), "cpu_burst"),
            (Limits::new().cpu_weight(100).cpu_idle(true), "cpu_idle"),
            (Limits::new().io_weight(0), "io_weight"),
            (Limits::new().io_weight(10_001), "io_weight"),
            (Limits::new().max_descendants(1 << 31), "cgroup_max_descendants"),
            (Limits::new().max_depth(u64::MAX), "cgroup_max_depth"),
            (Limits::new().io(IoLimit::device(8, 0)), "io_limit"),
            (Limits::new().io(IoLimit::device(8, 0).read_bps(0)), "io_limit"),
        ] {
            let problems = limits.invalid();
            assert_eq!(problems.len(), 1, "{limits:?}");
            assert_eq!(problems[0].subject, subject);
        }
        let more = Resources::new;
        let (milli, long) = (Duration::from_millis(1), "a".repeat(VALUE_MAX + 1));
        for (limits, resources, subject) in [
            (Limits::new(), more().memory_and_swap(8192), "swap_limit"),
            (Limits::new().memory(8192), more().memory_and_swap(4096), "swap_limit"),
            (Limits::new().memory(Bytes::MAX), more().memory_and_swap(4096), "swap_limit"),
            (Limits::new().memory(8192).swap(0), more().memory_and_swap(8192), "swap_limit"),
            (Limits::new().memory_low(1), more().memory_reservation(1), "memory_reservation"),
            (Limits::new().cpu(1.0), more().cpu_quota(milli), "cpu_limit"),
            (Limits::new().cpu(1.0), more().cpu_period(milli), "cpu_limit"),
            (Limits::new().cpu_weight(1), more().cpu_shares(2), "cpu_weight"),
            (Limits::new().cpu_idle(true), more().cpu_shares(2), "cpu_idle"),
            (Limits::new().io_weight(1), more().blkio_weight(10), "io_weight"),
            (Limits::new(), more().swappiness(101), "swappiness"),
            (Limits::new(), more().cpu_shares(1), "cpu_weight"),
            (Limits::new(), more().cpu_shares(262_145), "cpu_weight"),
            (Limits::new(), more().cpu_quota(Duration::ZERO), "cpu_limit"),
            (Limits::new(), more().cpu_period(Duration::from_micros(999)), "cpu_limit"),
            (Limits::new(), more().cpu_period(Duration::MAX), "cpu_limit"),
            (Limits::new(), more().realtime_period(Duration::ZERO), "realtime"),
            (Limits::new(), more().realtime_period(milli).realtime_runtime(milli * 2), "realtime"),
            (Limits::new(), more().blkio_weight(9), "io_weight"),
            (Limits::new(), more().device_weight(8, 0, 1001), "io_weight"),
            (Limits::new(), more().network_priority("", 1), "network_priority"),
            (Limits::new(), more().network_priority("a b", 1), "network_priority"),
            (Limits::new(), more().network_priority("a".repeat(16), 1), "network_priority"),
            (Limits::new(), more().rdma("mlx4_0\n", 1, 1), "rdma"),
            (Limits::new(), more().rdma("mlx4_0", None, None), "rdma"),
            (Limits::new(), more().rdma("mlx4_0", 1 << 31, None), "rdma"),
            (Limits::new(), more().unified("../memory.max", "1"), "unified"),
            (Limits::new(), more().unified("cgroup.procs", "1"), "unified"),
            (Limits::new(), more().unified("memory.max", ""), "unified"),
            (Limits::new(), more().unified("memory.max", "1\0"), "unified"),
            (Limits::new(), more().unified("memory.max", long), "unified"),
        ] {
            let problems = limits.resources(resources.clone()).invalid();
            assert_eq!(problems.len(), 1, "{resources:?} {problems:?}");
            assert_eq!(problems[0].subject, subject);
        }
        for list in ["", ",", "0,", "a", "3-1", "-1", "0-", "1 2", "0\n", "0-1-2", "+1"] {
            assert_eq!(Limits::new().cpuset(list).invalid().len(), 1, "{list:?}");
            assert_eq!(Limits::new().cpuset_mems(list).invalid().len(), 1, "{list:?}");
        }
    }

    #[test]
    fn a_burst_needs_something_to_be_left_over_from() {
        let alone = Limits::new().cpu_burst(Duration::from_millis(1));
        assert_eq!(alone.invalid(), [], "a living group may have a limit already");
        assert_eq!(alone.incomplete().unwrap().subject, "cpu_burst");
    }
}
