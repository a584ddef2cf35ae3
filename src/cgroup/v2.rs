//! The files of cgroup v2.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat};

use super::kernfs::{self, failed, field};
use super::part::Part;
use super::{Controllers, Limits, Stats, Write};
use crate::{Bytes, Result, Step};

/// What a group needs; each file takes the new value whatever the old one was.
pub(super) fn writes(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut put = |controller, file: &'static CStr, value| writes.push(Write { controller, file, value });
    if let Some(memory) = limits.memory {
        put(Controllers::MEMORY, c"memory.max", memory.get().to_string());
    }
    if let Some(swap) = limits.swap {
        put(Controllers::MEMORY, c"memory.swap.max", swap.get().to_string());
    }
    if let Some((quota, period)) = limits.cpu_quota() {
        put(Controllers::CPU, c"cpu.max", format!("{quota} {period}"));
    }
    if let Some(weight) = limits.cpu_weight {
        put(Controllers::CPU, c"cpu.weight", weight.to_string());
    }
    if let Some(pids) = limits.pids {
        put(Controllers::PIDS, c"pids.max", pids.to_string());
    }
    if let Some(cpus) = &limits.cpuset {
        put(Controllers::CPUSET, c"cpuset.cpus", cpus.clone());
    }
    if let Some(mems) = &limits.cpuset_mems {
        put(Controllers::CPUSET, c"cpuset.mems", mems.clone());
    }
    for io in &limits.io {
        let mut line = format!("{}:{}", io.device.0, io.device.1);
        for (key, value) in [
            ("rbps", io.read_bps.map(Bytes::get)),
            ("wbps", io.write_bps.map(Bytes::get)),
            ("riops", io.read_iops),
            ("wiops", io.write_iops),
        ] {
            if let Some(value) = value {
                line += &format!(" {key}={value}");
            }
        }
        put(Controllers::IO, c"io.max", line);
    }
    writes
}

/// What is of the present moment, and of no interest once the program has ended.
pub(super) fn read_current(part: &Part, stats: &mut Stats) -> Result<()> {
    if part.controllers.contains(Controllers::MEMORY) {
        stats.memory_current = part.number(c"memory.current")?.map(Bytes::new);
        stats.memory_limit = part.number(c"memory.max")?.map(Bytes::new);
        stats.swap_current = part.number(c"memory.swap.current")?.map(Bytes::new);
    }
    if part.controllers.contains(Controllers::PIDS) {
        read_pids(part, stats)?;
    }
    Ok(())
}

/// What adds up over the program's life.
pub(super) fn read_totals(part: &Part, stats: &mut Stats) -> Result<()> {
    if part.controllers.contains(Controllers::MEMORY) {
        stats.memory_peak = part.number(c"memory.peak")?.map(Bytes::new);
        stats.oom_kills = oom_kills(part)?;
    }
    if part.controllers.contains(Controllers::PIDS) {
        stats.pids_limit_hits = pids_limit_hits(part)?;
    }
    if let Some(text) = part.text(c"cpu.stat")? {
        let time = |key| field(&text, key).map(Duration::from_micros);
        (stats.cpu_usage, stats.cpu_user, stats.cpu_system) =
            (time("usage_usec"), time("user_usec"), time("system_usec"));
        if part.controllers.contains(Controllers::CPU) {
            stats.cpu_periods = field(&text, "nr_periods");
            stats.cpu_throttled_periods = field(&text, "nr_throttled");
            stats.cpu_throttled = time("throttled_usec");
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

/// The pids controller has the same files on v1.
pub(super) fn read_pids(part: &Part, stats: &mut Stats) -> Result<()> {
    stats.pids_current = part.number(c"pids.current")?;
    stats.pids_peak = part.number(c"pids.peak")?;
    Ok(())
}

/// Forks that failed at `pids.max`; on v1 as well.
pub(super) fn pids_limit_hits(part: &Part) -> Result<Option<u64>> {
    Ok(part.text(c"pids.events")?.and_then(|text| field(&text, "max")))
}

pub(super) fn cpu_usage(part: &Part) -> Result<Option<Duration>> {
    Ok(part.text(c"cpu.stat")?.and_then(|text| field(&text, "usage_usec")).map(Duration::from_micros))
}

/// `memory.events` counts the whole subtree, unless the hierarchy is mounted with `memory_localevents`.
pub(super) fn oom_kills(part: &Part) -> Result<Option<u64>> {
    Ok(part.text(c"memory.events")?.and_then(|text| field(&text, "oom_kill")))
}

/// Sums `key=value` words, one of them in each line of a device.
fn key_sum(text: &str, key: &str) -> u64 {
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    values.fold(0, u64::saturating_add)
}

/// The directories from `mount` down to `base`, both included.
fn chain(mount: &Path, base: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<_> = base.ancestors().take_while(|dir| dir.starts_with(mount)).map(PathBuf::from).collect();
    dirs.reverse();
    dirs
}

fn listed(text: &str) -> Controllers {
    text.split_whitespace().map(Controllers::named).collect()
}

/// Whether controllers cannot be enabled below `dir` because processes live in it. The kernel itself refuses
/// (EBUSY) for memory and io only: cpu, cpuset and pids are threaded controllers, and enabling one below a group
/// with processes succeeds and turns that group into the root of a threaded subtree, in which no child group can
/// take processes any more. The root group (it alone has no `cgroup.type`, 4.14) is exempt.
fn holds_processes(dir: BorrowedFd<'_>) -> nix::Result<bool> {
    match kernfs::read_optional(dir, c"cgroup.type")? {
        Some(_) => Ok(!kernfs::read(dir, c"cgroup.procs")?.is_empty()),
        None => Ok(false),
    }
}

const INTERNAL: &str = "v2 wants processes in the leaves only: name another group with cgroup_parent (root: any, as in \
                        /sandboxes), or start the caller in a child group of its delegated one and name that (systemd \
                        254: DelegateSubgroup=)";
const THREADED: &str = "the group is part of a threaded subtree: name another with cgroup_parent";
const PRIVILEGED: &str = "cpuset is not enabled over the heads of more privileged processes: enable it on delegation, \
                          or keep those of other users out of the group";

/// Enables controllers for the children of `base`, top down, where they are not yet. The caller is never moved out of
/// the way: its group is its own business, and its limits are to hold for what it starts.
pub(super) fn enable(mount: &Path, base: &Path, wanted: Controllers) -> Result<()> {
    const FILE: &CStr = c"cgroup.subtree_control";
    for dir in chain(mount, base) {
        let fail = |errno| failed(Step::SetLimit, errno, &dir, FILE);
        let fd = kernfs::open_dir(&dir).map_err(fail)?;
        let missing = wanted - listed(&kernfs::read(fd.as_fd(), FILE).map_err(fail)?);
        if missing.is_empty() {
            // Another thread's or process's write lists the controllers before it has made the children's files. One
            // that changes nothing needs no empty group, and waits for the other.
            if dir == base {
                let _ = kernfs::write(fd.as_fd(), FILE, &switched_on(wanted));
            }
            continue;
        }
        if holds_processes(fd.as_fd()).map_err(fail)? {
            return Err(fail(Errno::EBUSY).hint(INTERNAL));
        }
        kernfs::write(fd.as_fd(), FILE, &switched_on(missing)).map_err(|errno| match errno {
            Errno::EBUSY => fail(errno).hint(INTERNAL),
            // Enabling cpuset moves all below to a new one, each as by sched_setaffinity(2).
            Errno::EPERM if missing.contains(Controllers::CPUSET) => fail(errno).hint(PRIVILEGED),
            Errno::EACCES | Errno::EPERM => fail(errno).hint(super::problems::DELEGATE),
            Errno::EOPNOTSUPP => fail(errno).hint(THREADED),
            _ => fail(errno),
        })?;
    }
    Ok(())
}

fn switched_on(controllers: Controllers) -> String {
    controllers.iter().map(|c| format!("+{}", c.name())).collect::<Vec<_>>().join(" ")
}

/// Why `controller` cannot be had below `base`: the reason with its path, and the remedy. The levels that do not
/// exist are going to be made.
pub(super) fn obstacle(mount: &Path, base: &Path, controller: Controllers) -> Option<(String, &'static str)> {
    for dir in chain(mount, base).iter().rev() {
        let Ok(fd) = kernfs::open_dir(dir) else { continue };
        let enabled = kernfs::read(fd.as_fd(), c"cgroup.subtree_control").unwrap_or_default();
        if listed(&enabled).contains(controller) {
            return None;
        }
        let (name, dir) = (controller.name(), dir.display());
        if holds_processes(fd.as_fd()).unwrap_or(false) {
            return Some((format!("{name} is not enabled below {dir}, and processes live in it"), INTERNAL));
        }
        let file = c"cgroup.subtree_control";
        if faccessat(fd.as_fd(), file, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_err() {
            let reason = format!("{name} is not enabled below {dir}, and its cgroup.subtree_control is not writable");
            return Some((reason, super::problems::DELEGATE));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::IoLimit;

    #[test]
    fn each_limit_has_its_file() {
        let io = IoLimit::device(8, 16).read_bps(1024).write_iops(7);
        let limits = Limits::new().memory(1 << 20).swap(0).pids(9).cpu(0.25).cpu_weight(50).cpuset("0").io(io);
        let lines: Vec<_> =
            writes(&limits).iter().map(|w| format!("{} {}", w.file.to_str().unwrap(), w.value)).collect();
        assert_eq!(
            lines,
            [
                "memory.max 1048576",
                "memory.swap.max 0",
                "cpu.max 25000 100000",
                "cpu.weight 50",
                "pids.max 9",
                "cpuset.cpus 0",
                "io.max 8:16 rbps=1024 wiops=7",
            ]
        );
    }

    #[test]
    fn devices_are_summed() {
        let text = "8:0 rbytes=10 wbytes=1 rios=2 wios=1 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n";
        assert_eq!(key_sum(text, "rbytes="), 15);
        assert_eq!(key_sum(text, "rios="), 3);
    }

    /// Plain files in place of a hierarchy: `mount` with memory enabled below, then `a`, then `a/b`.
    fn tree(name: &str) -> PathBuf {
        let mount = std::env::temp_dir().join(format!("ringfence-v2-{name}-{}", std::process::id()));
        std::fs::create_dir_all(mount.join("a/b")).unwrap();
        for (dir, file, text) in [
            ("", "cgroup.subtree_control", "memory\n"),
            ("a", "cgroup.subtree_control", "\n"),
            ("a/b", "cgroup.subtree_control", "\n"),
            ("", "cgroup.procs", "1\n"),
            ("a", "cgroup.procs", ""),
            ("a/b", "cgroup.procs", ""),
            ("a", "cgroup.type", "domain\n"),
            ("a/b", "cgroup.type", "domain\n"),
        ] {
            std::fs::write(mount.join(dir).join(file), text).unwrap();
        }
        mount
    }

    #[test]
    fn controllers_are_enabled_top_down_where_they_are_missing() {
        let mount = tree("enable");
        enable(&mount, &mount.join("a/b"), Controllers::MEMORY | Controllers::PIDS).unwrap();
        let read = |dir| std::fs::read_to_string(mount.join(dir).join("cgroup.subtree_control")).unwrap();
        let written = ["", "a", "a/b"].map(read);
        std::fs::remove_dir_all(&mount).unwrap();
        // A plain file keeps what is not overwritten.
        assert_eq!(written, ["+pidsy\n", "+memory +pids", "+memory +pids"]);
    }

    #[test]
    fn nothing_is_enabled_over_the_heads_of_processes() {
        let mount = tree("busy");
        std::fs::write(mount.join("a/cgroup.procs"), "77\n").unwrap();
        let error = enable(&mount, &mount.join("a"), Controllers::PIDS).unwrap_err();
        let control = std::fs::read_to_string(mount.join("a/cgroup.subtree_control")).unwrap();
        let reason = obstacle(&mount, &mount.join("a"), Controllers::PIDS);
        let free = obstacle(&mount, &mount, Controllers::MEMORY);
        std::fs::remove_dir_all(&mount).unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        assert_eq!(control, "\n");
        assert!(reason.unwrap().0.contains("processes live in it"));
        assert_eq!(free, None);
    }

    #[test]
    fn numbers_come_from_the_files() {
        let dir = std::env::temp_dir().join(format!("ringfence-v2-stats-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in [
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n"),
            ("pids.events", "max 3\n"),
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_throttled 4\nthrottled_usec 70\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=1 rios=2 wios=1\n"),
        ] {
            std::fs::write(dir.join(file), text).unwrap();
        }
        let mut stats = Stats::default();
        let part = Part::open(super::super::Version::V2, Controllers::all(), &dir, &dir).unwrap();
        read_current(&part, &mut stats).unwrap();
        read_totals(&part, &mut stats).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let want = Stats {
            memory_current: Some(Bytes::new(4096)),
            oom_kills: Some(1),
            pids_limit_hits: Some(3),
            cpu_usage: Some(Duration::from_micros(1500)),
            cpu_user: Some(Duration::from_micros(1000)),
            cpu_system: Some(Duration::from_micros(500)),
            cpu_throttled_periods: Some(4),
            cpu_throttled: Some(Duration::from_micros(70)),
            io_read: Some(Bytes::new(10)),
            io_written: Some(Bytes::new(1)),
            io_reads: Some(2),
            io_writes: Some(1),
            ..Stats::default()
        };
        assert_eq!(stats, want);
    }
}
