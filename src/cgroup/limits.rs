//! Typed limits.

use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor, stat};

use super::{Controllers, Devices};
use crate::{Bytes, Error, ErrorKind, Feature, Problem, Result, Step};

/// `PID_MAX_LIMIT` of 64-bit kernels; `pids.max` takes no greater number.
const PIDS_CEILING: u64 = 4 << 20;
/// The kernel grants quotas from 1 ms and periods up to 1 s.
const CPU_FLOOR: f64 = 0.001;
const CPU_CEILING: f64 = 1e6;

/// Hard limits of a sandbox, enforced by its control group. What is not set is not limited.
///
/// ```
/// use ringfence::{Bytes, Limits};
///
/// let limits = Limits::new().memory(Bytes::mib(64)).swap(Bytes::new(0)).pids(32).cpu(0.5);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    pub(crate) memory: Option<Bytes>,
    pub(crate) swap: Option<Bytes>,
    pub(crate) pids: Option<u64>,
    pub(crate) cpu: Option<f64>,
    pub(crate) cpu_weight: Option<u64>,
    pub(crate) cpuset: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) io: Vec<IoLimit>,
    pub(crate) devices: Option<Devices>,
}

impl Limits {
    /// No limits.
    pub fn new() -> Self {
        Limits::default()
    }

    /// Memory in bytes, page cache included, rounded down to whole pages: `memory.limit_in_bytes` on v1,
    /// `memory.max` on v2 (4.5). Whoever needs more loses a process to the OOM killer.
    ///
    /// Swap is not counted: where the host has some, the program can have it on top, unless [`swap`](Limits::swap)
    /// says otherwise; `swap(0)` makes this the whole of it.
    pub fn memory(self, limit: impl Into<Bytes>) -> Self {
        Limits { memory: Some(limit.into()), ..self }
    }

    /// Swap alone, in bytes, 0 for none: `memory.swap.max` on v2 (4.5). On v1, `memory.memsw.limit_in_bytes` limits the
    /// sum of memory and swap, so there it goes with a memory limit, and needs a kernel that accounts for swap
    /// (`swapaccount=1` on the command line of kernels before 6.1).
    pub fn swap(self, limit: impl Into<Bytes>) -> Self {
        Limits { swap: Some(limit.into()), ..self }
    }

    /// Processes and threads, counted together: `pids.max` (4.3). A `fork` beyond fails with EAGAIN.
    pub fn pids(self, limit: u64) -> Self {
        Limits { pids: Some(limit), ..self }
    }

    /// Cpu time in cores, from 0.001: `0.25` is a quarter of one, `2.0` is two. `cpu.cfs_quota_us` on v1, `cpu.max`
    /// on v2 (4.15), in periods of 100 ms; below 0.01 cores in periods of 1 s, as the kernel takes no quota under 1 ms.
    pub fn cpu(self, cores: f64) -> Self {
        Limits { cpu: Some(cores), ..self }
    }

    /// Share of cpu time against the sibling groups where cpus are contended: 1 to 10000, 100 is what a group has that
    /// asks for nothing. `cpu.weight` on v2 (4.15). On v1 `cpu.shares` = weight × 1024 / 100, which is what the v2
    /// kernel code computes from its weight, so that one number means one thing.
    pub fn cpu_weight(self, weight: u64) -> Self {
        Limits { cpu_weight: Some(weight), ..self }
    }

    /// The cpus to run on, as in `0-3,8`: `cpuset.cpus`.
    pub fn cpuset(self, cpus: impl Into<String>) -> Self {
        Limits { cpuset: Some(cpus.into()), ..self }
    }

    /// The memory nodes to allocate from, as in `0,2-3`: `cpuset.mems`.
    pub fn cpuset_mems(self, mems: impl Into<String>) -> Self {
        Limits { cpuset_mems: Some(mems.into()), ..self }
    }

    /// Adds a limit for one block device.
    pub fn io(mut self, limit: IoLimit) -> Self {
        self.io.push(limit);
        self
    }

    /// The devices that may be opened and made: a BPF program on v2 (4.15), `devices.allow` on v1.
    pub fn devices(self, devices: Devices) -> Self {
        Limits { devices: Some(devices), ..self }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// The features that are asked for, in the order of the documentation.
    pub(crate) fn features(&self) -> Vec<Feature> {
        let asked = [
            (Feature::MemoryLimit, self.memory.is_some()),
            (Feature::SwapLimit, self.swap.is_some()),
            (Feature::PidsLimit, self.pids.is_some()),
            (Feature::CpuLimit, self.cpu.is_some()),
            (Feature::CpuWeight, self.cpu_weight.is_some()),
            (Feature::Cpuset, self.cpuset.is_some() || self.cpuset_mems.is_some()),
            (Feature::IoLimit, !self.io.is_empty()),
            (Feature::Devices, self.devices.is_some()),
        ];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(feature, _)| feature).collect()
    }

    /// The same limits without those of `feature`.
    pub(crate) fn without(self, feature: Feature) -> Self {
        match feature {
            Feature::MemoryLimit => Limits { memory: None, ..self },
            Feature::SwapLimit => Limits { swap: None, ..self },
            Feature::PidsLimit => Limits { pids: None, ..self },
            Feature::CpuLimit => Limits { cpu: None, ..self },
            Feature::CpuWeight => Limits { cpu_weight: None, ..self },
            Feature::Cpuset => Limits { cpuset: None, cpuset_mems: None, ..self },
            Feature::IoLimit => Limits { io: Vec::new(), ..self },
            Feature::Devices => Limits { devices: None, ..self },
            // No limit of a control group's.
            _ => self,
        }
    }

    pub(super) fn controllers(&self) -> Controllers {
        self.features().into_iter().map(controller_of).collect()
    }

    /// Quota and period in microseconds.
    pub(super) fn cpu_quota(&self) -> Option<(u64, u64)> {
        let cores = self.cpu?;
        let period = if cores < 0.01 { 1_000_000 } else { 100_000 };
        Some(((cores * period as f64).round() as u64, period))
    }

    /// Every value that no kernel would take.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |bad: bool, feature: Feature, reason: String, remedy: &str| {
            if bad {
                problems.push(Problem::invalid(feature.as_str(), reason, remedy));
            }
        };
        let memory = self.memory.map_or(u64::MAX, Bytes::get);
        refuse(memory < 4096, Feature::MemoryLimit, format!("{memory} bytes are less than a page"), "give more");
        let pids = self.pids.unwrap_or(1);
        let range = format!("{pids} is outside of 1 to {PIDS_CEILING}");
        refuse(!(1..=PIDS_CEILING).contains(&pids), Feature::PidsLimit, range, "give a number in the range");
        let cpu = self.cpu.unwrap_or(1.0);
        let range = format!("{cpu} cores are outside of {CPU_FLOOR} to {CPU_CEILING}");
        refuse(!(CPU_FLOOR..=CPU_CEILING).contains(&cpu), Feature::CpuLimit, range, "give cores, as in 0.25");
        let weight = self.cpu_weight.unwrap_or(100);
        let range = format!("{weight} is outside of 1 to 10000");
        refuse(!(1..=10_000).contains(&weight), Feature::CpuWeight, range, "100 is the default of every group");
        for list in self.cpuset.iter().chain(&self.cpuset_mems) {
            refuse(!is_list(list), Feature::Cpuset, format!("{list:?} is no list of numbers"), "write it as in 0-3,8");
        }
        for io in &self.io {
            let device = format!("{}:{}", io.device.0, io.device.1);
            let values = [io.read_bps.map(Bytes::get), io.write_bps.map(Bytes::get), io.read_iops, io.write_iops];
            let unset = values.iter().all(Option::is_none);
            refuse(unset, Feature::IoLimit, format!("the limit of {device} is empty"), "set a rate");
            let zero = values.contains(&Some(0));
            refuse(zero, Feature::IoLimit, format!("a rate of 0 for {device}"), "the least is 1 a second");
        }
        problems.extend(self.devices.iter().flat_map(Devices::invalid));
        problems
    }
}

/// The controller that enforces a feature.
pub(super) fn controller_of(feature: Feature) -> Controllers {
    match feature {
        Feature::MemoryLimit | Feature::SwapLimit => Controllers::MEMORY,
        Feature::PidsLimit => Controllers::PIDS,
        Feature::CpuLimit | Feature::CpuWeight => Controllers::CPU,
        Feature::Cpuset => Controllers::CPUSET,
        Feature::IoLimit => Controllers::IO,
        Feature::Devices => Controllers::DEVICES,
        Feature::CpuTime => Controllers::CPUACCT,
        // No limit of a control group's.
        _ => Controllers::empty(),
    }
}

fn is_list(text: &str) -> bool {
    let digits = |s: &str| if s.bytes().all(|b| b.is_ascii_digit()) { s.parse::<u32>().ok() } else { None };
    text.split(',').all(|item| match item.split_once('-') {
        Some((from, to)) => matches!((digits(from), digits(to)), (Some(from), Some(to)) if from <= to),
        None => digits(item).is_some(),
    })
}

/// The rates at which a sandbox may read and write one whole disk: `blkio.throttle.*_device` on v1, which slows
/// reads and direct writes only, `io.max` on v2 (4.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoLimit {
    pub(crate) device: (u64, u64),
    pub(crate) read_bps: Option<Bytes>,
    pub(crate) write_bps: Option<Bytes>,
    pub(crate) read_iops: Option<u64>,
    pub(crate) write_iops: Option<u64>,
}

impl IoLimit {
    /// For the disk with these numbers, as `lsblk` shows them. The kernel takes whole disks, not partitions.
    pub fn device(major: u64, minor: u64) -> Self {
        IoLimit { device: (major, minor), read_bps: None, write_bps: None, read_iops: None, write_iops: None }
    }

    /// For the disk that holds `path`, or that `path` is if it is a device node.
    ///
    /// # Errors
    /// If there is no such path, or no one disk behind it: btrfs, overlay, tmpfs and network filesystems have none.
    pub fn for_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let stat = stat(path).map_err(|errno| Error::new(Step::OpenSource, errno).at(path))?;
        let node = stat.st_mode & libc::S_IFMT == libc::S_IFBLK;
        let device = if node { stat.st_rdev } else { stat.st_dev };
        let (major, minor) = whole_disk(Path::new("/sys"), major(device), minor(device)).ok_or_else(|| {
            Error::message(ErrorKind::Unsupported, Step::OpenSource, "its filesystem is not on one block device")
                .at(path)
                .hint("name the disk with IoLimit::device")
        })?;
        Ok(IoLimit::device(major, minor))
    }

    /// Bytes read in a second.
    pub fn read_bps(self, rate: impl Into<Bytes>) -> Self {
        IoLimit { read_bps: Some(rate.into()), ..self }
    }

    /// Bytes written in a second.
    pub fn write_bps(self, rate: impl Into<Bytes>) -> Self {
        IoLimit { write_bps: Some(rate.into()), ..self }
    }

    /// Read operations in a second.
    pub fn read_iops(self, rate: u64) -> Self {
        IoLimit { read_iops: Some(rate), ..self }
    }

    /// Write operations in a second.
    pub fn write_iops(self, rate: u64) -> Self {
        IoLimit { write_iops: Some(rate), ..self }
    }
}

/// The disk of a block device: of a partition the one around it. `None` for the anonymous devices (major 0).
fn whole_disk(sysfs: &Path, major: u64, minor: u64) -> Option<(u64, u64)> {
    let link = sysfs.join(format!("dev/block/{major}:{minor}"));
    let mut dir: PathBuf = link.canonicalize().ok()?;
    if dir.join("partition").exists() {
        dir.pop();
    }
    let text = std::fs::read_to_string(dir.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_takes_is_valid() {
        let io = IoLimit::device(8, 0).read_bps(1 << 20).write_iops(5);
        let limits = Limits::new().memory(4096).swap(0).pids(1).cpu(0.001).cpu_weight(10_000).cpuset("0-3,8");
        assert_eq!(limits.cpuset_mems("0").io(io).invalid(), []);
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
            (Limits::new().io(IoLimit::device(8, 0)), "io_limit"),
            (Limits::new().io(IoLimit::device(8, 0).read_bps(0)), "io_limit"),
        ] {
            let problems = limits.invalid();
            assert_eq!(problems.len(), 1, "{limits:?}");
            assert_eq!(problems[0].subject, subject);
        }
        for list in ["", ",", "0,", "a", "3-1", "-1", "0-", "1 2", "0\n", "0-1-2", "+1"] {
            assert_eq!(Limits::new().cpuset(list).invalid().len(), 1, "{list:?}");
            assert_eq!(Limits::new().cpuset_mems(list).invalid().len(), 1, "{list:?}");
        }
    }

    #[test]
    fn quotas_stay_above_the_kernels_least() {
        for (cores, want) in [(0.25, (25_000, 100_000)), (2.0, (200_000, 100_000)), (0.01, (1000, 100_000))] {
            assert_eq!(Limits::new().cpu(cores).cpu_quota(), Some(want));
        }
        assert_eq!(Limits::new().cpu(0.005).cpu_quota(), Some((5000, 1_000_000)));
        assert_eq!(Limits::new().cpu(0.001).cpu_quota(), Some((1000, 1_000_000)));
    }

    #[test]
    fn a_partition_leads_to_its_disk() {
        let sys = std::env::temp_dir().join(format!("ringfence-sysfs-{}", std::process::id()));
        let disk = sys.join("devices/vda");
        std::fs::create_dir_all(disk.join("vda1")).unwrap();
        std::fs::create_dir_all(sys.join("dev/block")).unwrap();
        std::fs::write(disk.join("dev"), "254:0\n").unwrap();
        std::fs::write(disk.join("vda1/dev"), "254:1\n").unwrap();
        std::fs::write(disk.join("vda1/partition"), "1\n").unwrap();
        std::os::unix::fs::symlink("../../devices/vda", sys.join("dev/block/254:0")).unwrap();
        std::os::unix::fs::symlink("../../devices/vda/vda1", sys.join("dev/block/254:1")).unwrap();
        let found = [(254, 1), (254, 0), (0, 28)].map(|(major, minor)| whole_disk(&sys, major, minor));
        std::fs::remove_dir_all(&sys).unwrap();
        assert_eq!(found, [Some((254, 0)), Some((254, 0)), None]);
    }

    #[test]
    fn a_filesystem_without_a_disk_is_refused() {
        let error = IoLimit::for_path("/proc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("IoLimit::device"), "{error}");
    }
}
