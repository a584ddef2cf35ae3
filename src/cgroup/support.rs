//! The limits that not every kernel has, and the limits that depend on the groups above.

use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};

use procfs::KernelVersion;

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::kernfs;
use super::limits::Limits;
use crate::error::Problem;
use crate::feature::Feature;
use crate::units::Bytes;

const V2_REMEDY: &str = "boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1)";

/// Returns why v1 has no such limit, and the remedy.
pub(super) fn unsupported_on_v1(feature: Feature) -> Option<(&'static str, &'static str)> {
    let reason = match feature {
        Feature::MemoryHigh => "cgroup v1 has no memory.high, and its soft limit does nothing until the host is short",
        Feature::MemoryLow | Feature::MemoryMin => "cgroup v1 protects no memory of a group",
        Feature::OomGroup => "cgroup v1 kills processes one by one",
        Feature::CgroupMaxDescendants | Feature::CgroupMaxDepth => "cgroup v1 does not limit groups made inside",
        Feature::Unified => "cgroup v1 does not have the files of v2",
        _ => return None,
    };
    let core = matches!(feature, Feature::CgroupMaxDescendants | Feature::CgroupMaxDepth);
    Some((reason, if core { "mount cgroup2, with or without controllers" } else { V2_REMEDY }))
}

/// Returns why v2 has no such setting, and the remedy.
pub(super) fn unsupported_on_v2(feature: Feature) -> Option<(&'static str, &'static str)> {
    Some(match feature {
        Feature::Swappiness => ("cgroup v2 has no memory.swappiness", "limit swap instead, or leave it out"),
        Feature::OomKillDisable => ("cgroup v2 always kills at the limit", "set memory_high, which slows down instead"),
        Feature::CpuRealtime => ("cgroup v2 gives groups no realtime", "leave it out, or mount the v1 cpu hierarchy"),
        _ => return None,
    })
}

/// Returns the problem of a v2 file whose controller is not among those of the v2 group.
pub(super) fn unified_without(limits: &Limits, here: Controllers) -> Option<Problem> {
    let missing = limits.resources.unified_controllers() - here;
    let name = missing.iter().next()?.name();
    let reason = format!("the v2 group has no {name} controller");
    let remedy = "boot with cgroup v2 alone, or set the limit by its own call";
    Some(Problem::unsupported(Feature::Unified.as_str(), reason, remedy).for_feature(Feature::Unified))
}

/// Returns why a group in a hierarchy of this version cannot have `feature`, and the remedy.
pub(super) fn unsupported_on(version: Version, feature: Feature) -> Option<(&'static str, &'static str)> {
    match version {
        Version::V1 => unsupported_on_v1(feature),
        Version::V2 => unsupported_on_v2(feature),
    }
}

/// The files of a limit that is newer than the oldest supported kernel. The limit needs one of
/// them.
struct RecentLimit {
    v1: &'static [&'static str],
    v2: &'static [&'static str],
    /// An older file of the same controller, on v1 and on v2. On v2 the root group does not have
    /// the file.
    older_file: [&'static str; 2],
    since: Option<(u8, u8)>,
    reason: &'static str,
    remedy: &'static str,
}

fn recent_limit(feature: Feature) -> Option<RecentLimit> {
    Some(match feature {
        Feature::CpuBurst => RecentLimit {
            v1: &["cpu.cfs_burst_us"],
            v2: &["cpu.max.burst"],
            older_file: ["cpu.shares", "cpu.weight"],
            since: Some((5, 14)),
            reason: "this kernel lets no unused cpu time be used later",
            remedy: "use Linux 5.14 or newer, with CONFIG_CFS_BANDWIDTH",
        },
        Feature::CpuIdle => RecentLimit {
            v1: &["cpu.idle"],
            v2: &["cpu.idle"],
            older_file: ["cpu.shares", "cpu.weight"],
            since: Some((5, 15)),
            reason: "this kernel has no idle groups",
            remedy: "use Linux 5.15 or newer",
        },
        Feature::IoWeight => RecentLimit {
            v1: &["blkio.bfq.weight", "blkio.weight"],
            v2: &["io.weight", "io.bfq.weight"],
            older_file: ["blkio.reset_stats", "io.stat"],
            since: None,
            reason: "this kernel weighs no disk access by group",
            remedy: "load the scheduler bfq (modprobe bfq), or use a kernel with CONFIG_BLK_CGROUP_IOCOST",
        },
        Feature::CpuRealtime => RecentLimit {
            v1: &["cpu.rt_runtime_us"],
            v2: &[],
            older_file: ["cpu.shares", "cpu.weight"],
            since: Some((0, 0)),
            reason: "this kernel gives groups no realtime",
            remedy: "use a kernel with CONFIG_RT_GROUP_SCHED",
        },
        _ => return None,
    })
}

/// Returns why a file of `feature` is missing, and the remedy, for the error of a failed write.
pub(super) fn missing_file(feature: Feature) -> Option<(&'static str, &'static str)> {
    if feature == Feature::HugetlbLimit {
        return Some(("this kernel has no huge pages of that size", "see /sys/kernel/mm/hugepages"));
    }
    recent_limit(feature).map(|limit| (limit.reason, limit.remedy))
}

impl Hierarchy {
    /// Returns why groups below `base` do not have the file for `feature`, and the remedy.
    pub(super) fn unsupported(&self, feature: Feature, base: Option<&Path>) -> Option<(&'static str, &'static str)> {
        if let Some(reason_and_remedy) = unsupported_on(self.version, feature) {
            return Some(reason_and_remedy);
        }
        let limit = recent_limit(feature)?;
        let has = self.has_file(&limit, base).unwrap_or_else(|| self.is_expected(&limit));
        (!has).then_some((limit.reason, limit.remedy))
    }

    /// Returns whether existing groups have one of the files: the groups from `base` upwards, and
    /// those directly below the top. Returns `None` if no such group has the controller.
    fn has_file(&self, limit: &RecentLimit, base: Option<&Path>) -> Option<bool> {
        let (files, older_file) = match self.version {
            Version::V1 => (limit.v1, limit.older_file[0]),
            Version::V2 => (limit.v2, limit.older_file[1]),
        };
        let above = base.into_iter().flat_map(|base| base.ancestors().take_while(|dir| *dir != self.mount));
        let siblings = fs::read_dir(&self.mount).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut groups = above.map(PathBuf::from).chain(siblings);
        let group = groups.find(|dir| dir.join(older_file).exists())?;
        Some(files.iter().any(|file| group.join(file).exists()))
    }

    /// Returns whether the kernel's version, or its loaded modules, promise the files.
    fn is_expected(&self, limit: &RecentLimit) -> bool {
        if let Some((major, minor)) = limit.since {
            return KernelVersion::current().is_ok_and(|now| (now.major, now.minor) >= (major, minor));
        }
        // The top group has both files: the switch of the cost model on v2, the statistics of bfq
        // on v1.
        let loaded = ["io.cost.qos", "blkio.bfq.io_service_bytes"].iter().any(|file| self.mount.join(file).exists());
        loaded || (self.version == Version::V2 && a_disk_may_use_bfq())
    }
}

/// Returns the memory protection that the groups from `base` upwards do not have to give.
pub(super) fn unprotected(mount: &Path, limits: &Limits, base: &Path) -> Vec<Problem> {
    let requested = [
        (Feature::MemoryLow, c"memory.low", limits.memory_low),
        (Feature::MemoryMin, c"memory.min", limits.memory_min),
    ];
    let problem = |(feature, file, requested): (Feature, &'static CStr, Option<Bytes>)| {
        let (dir, has) = weakest(mount, base, file, requested?)?;
        let (dir, file) = (dir.display(), file.to_string_lossy());
        let reason = format!("{dir} protects {has} with its {file}, and no group below it can have more");
        let remedy = format!("raise {file} there (systemd: MemoryLow=, MemoryMin=), or choose another cgroup_parent");
        Some(Problem::unsupported(feature.as_str(), reason, remedy).for_feature(feature))
    };
    requested.into_iter().filter_map(problem).collect()
}

/// Returns the group with the least protection, from `base` up to below the root, if it has less
/// than `requested`.
fn weakest<'a>(mount: &Path, base: &'a Path, file: &CStr, requested: Bytes) -> Option<(&'a Path, Bytes)> {
    let groups = base.ancestors().take_while(|dir| dir.starts_with(mount));
    // Nothing limits the root, which is the only group without `cgroup.type`.
    let limited = groups.filter(|dir| *dir != mount || dir.join("cgroup.type").exists());
    let protects = |dir: &'a Path| {
        let text = fs::read_to_string(kernfs::join(dir, file)).unwrap_or_default();
        let bytes = if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) };
        (dir, Bytes::new(bytes))
    };
    limited.map(protects).min_by_key(|(_, bytes)| *bytes).filter(|(_, bytes)| *bytes < requested)
}

/// Returns whether bfq is loaded. Each disk lists the schedulers that it can use.
fn a_disk_may_use_bfq() -> bool {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut lists = disks.filter_map(|disk| fs::read_to_string(disk.path().join("queue/scheduler")).ok());
    lists.any(|list| list.contains("bfq"))
}
