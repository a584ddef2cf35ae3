//! Tests against the kernel of this host, as root or in a delegated group, below a parent group of
//! their own.

use std::fs::read_to_string;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::controllers::{Controllers, Version};
use super::devices::{Device, DeviceAccess, Devices};
use super::group::Group;
use super::host::Host;
use super::io::IoLimit;
use super::limits::Limits;
use super::stale::sweep;
use crate::error::ErrorKind;
use crate::feature::Feature;
use crate::units::Bytes;

const WAIT: Duration = Duration::from_secs(60);

/// Returns the host and, if it is hybrid, also the same host without v2.
fn hosts() -> Vec<Host> {
    let host = Host::detect().unwrap();
    let limits = Limits::new().memory(1 << 20).pids(5).cpu(0.5);
    let problems = host.problems(&limits, true, Some(&parent("any")));
    if !problems.is_empty() {
        let why: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(std::env::var_os("CI").is_none(), "skipped under CI: {why:?}");
        eprintln!("SKIPPED, this host has no cgroups for us: {why:?}");
        if let Some(list) = std::env::var_os("RINGFENCE_SKIPPED") {
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
            writeln!(list, "{test}: {}", why.join("; ")).unwrap();
        }
        return Vec::new();
    }
    let mut alone = host.clone();
    alone.hierarchies.retain(|h| h.version == Version::V1);
    if alone.hierarchy_of(Controllers::MEMORY).is_some() && alone != host { vec![host, alone] } else { vec![host] }
}

fn parent(test: &str) -> PathBuf {
    let top = std::env::var_os("RINGFENCE_TEST_CGROUP_PARENT").map_or(PathBuf::from("/"), PathBuf::from);
    top.join(format!("ringfence-tests-cgroup-{}/{test}", std::process::id()))
}

/// A group that is removed with its processes, however the test ends.
struct TempGroup(Group);

impl TempGroup {
    fn new(host: &Host, test: &str, name: &str, limits: &Limits) -> TempGroup {
        TempGroup(Group::create(host, Some(&parent(test)), name, limits, true).unwrap())
    }

    fn dirs(&self, name: &str) -> Vec<PathBuf> {
        self.0.parent_dirs().iter().map(|dir| dir.join(name)).collect()
    }

    /// Runs a script that is in the group from its first command on.
    fn run(&self, script: &str) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        for fd in self.0.v1_procs() {
            nix::unistd::write(fd, pid.as_bytes()).unwrap();
        }
        if let Some(fd) = self.0.v2_procs().unwrap() {
            nix::unistd::write(fd, pid.as_bytes()).unwrap();
        }
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child
    }
}

impl Drop for TempGroup {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.remove(WAIT);
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < WAIT, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_group_has_its_limits_counts_and_goes() {
    for host in hosts() {
        let limits = Limits::new().memory(Bytes::mib(64)).pids(20).cpu(0.1).cpu_weight(200);
        let group = TempGroup::new(&host, "life", "rf-t-1", &limits);
        let mut child = group.run(r#"x=$(head -c 500000 /dev/zero | tr "\0" x); cd /proc; while :; do :; done"#);
        let cwd = format!("/proc/{}/cwd", child.id());
        eventually("the loop is reached", || std::fs::read_link(&cwd).unwrap() == Path::new("/proc"));
        eventually("cpu time is counted", || group.0.cpu_usage().unwrap() > Some(Duration::from_millis(60)));
        eventually("only the loop is left", || group.0.stats().unwrap().pids_current == Some(1));
        let stats = group.0.stats().unwrap();
        assert_eq!(stats.memory_limit, Some(Bytes::mib(64)));
        assert!(stats.memory_current > Some(Bytes::new(0)) && stats.memory_peak >= stats.memory_current, "{stats:?}");
        assert_eq!((stats.pids_current, stats.pids_limit_hits, stats.oom_kills), (Some(1), Some(0), Some(0)));
        eventually("a tenth of a core is held back", || group.0.stats().unwrap().cpu_throttled_periods > Some(0));
        assert_eq!(group.0.processes().unwrap(), [child.id() as i32]);
        assert!(group.0.is_populated().unwrap());
        assert_eq!(group.0.remove(Duration::from_millis(1)).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        group.0.kill().unwrap();
        child.wait().unwrap();
        let dirs = group.dirs("rf-t-1");
        let needed =
            if host.hierarchy_of(Controllers::MEMORY).is_some_and(|h| h.version == Version::V2) { 1 } else { 3 };
        assert!(dirs.len() >= needed && dirs.iter().all(|dir| dir.is_dir()), "{dirs:?}");
        group.0.remove(WAIT).unwrap();
        assert!(dirs.iter().all(|dir| !dir.parent().unwrap().exists()), "{dirs:?}");
        group.0.remove(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_frozen_group_uses_no_cpu_until_it_is_thawed() {
    for host in hosts() {
        let group = TempGroup::new(&host, "freeze", "rf-t-1", &Limits::new().pids(20));
        let mut child = group.run("while :; do :; done");
        let used = || group.0.cpu_usage().unwrap().unwrap();
        eventually("it runs", || used() > Duration::from_millis(10));
        group.0.freeze(WAIT).unwrap();
        let before = used();
        std::thread::sleep(Duration::from_millis(50));
        // v2 says `frozen` while the last task is still on its way to sleep.
        assert!(used() < before + Duration::from_millis(5), "{:?} after {before:?}", used());
        group.0.thaw().unwrap();
        eventually("it runs again", || used() > before + Duration::from_millis(10));
        group.0.freeze(WAIT).unwrap();
        group.0.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A freeze that another thread takes back must not wait until its timeout. It has to read back the
/// requested state.
#[test]
fn a_freeze_that_is_taken_back_does_not_wait() {
    use std::sync::atomic::{AtomicBool, Ordering};
    for host in hosts() {
        let group = TempGroup::new(&host, "thaw", "rf-t-1", &Limits::new().pids(20));
        let mut child = group.run("while :; do :; done");
        let done = AtomicBool::new(false);
        let taken_back = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    group.0.thaw().unwrap();
                }
            });
            let start = std::time::Instant::now();
            let mut result = Ok(());
            while result.is_ok() && start.elapsed() < WAIT {
                result = group.0.freeze(WAIT);
            }
            done.store(true, Ordering::Relaxed);
            result
        });
        let error = taken_back.expect_err("no thaw met a freeze that was on its way");
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED), "{error}");
        group.0.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_frozen_group_above_is_found() {
    for host in hosts() {
        let above = TempGroup::new(&host, "above", "rf-t-1", &Limits::new().pids(20));
        let below = || Group::create(&host, Some(&parent("above").join("rf-t-1")), "rf-t-2", &Limits::new(), false);
        let free = TempGroup(below().unwrap());
        assert_eq!(free.0.frozen_above().unwrap(), None);
        drop(free);
        above.0.freeze(WAIT).unwrap();
        let frozen = TempGroup(below().unwrap());
        let found = frozen.0.frozen_above().unwrap().unwrap();
        above.0.thaw().unwrap();
        assert!(found.ends_with("above/rf-t-1"), "{found:?}");
        assert_eq!(frozen.0.frozen_above().unwrap(), None);
    }
}

#[test]
fn a_tree_that_forks_as_fast_as_it_can_is_killed() {
    for host in hosts() {
        let group = TempGroup::new(&host, "tree", "rf-t-1", &Limits::new().pids(40));
        let mut child = group.run("while :; do (sleep 1000 & sleep 1000) & done");
        eventually("it forks up to its limit", || group.0.stats().unwrap().pids_limit_hits > Some(0));
        let start = Instant::now();
        group.0.kill().unwrap();
        child.wait().unwrap();
        eventually("nobody is left", || !group.0.is_populated().unwrap());
        assert!(start.elapsed() < Duration::from_secs(2));
        group.0.remove(WAIT).unwrap();
        assert!(group.dirs("rf-t-1").iter().all(|dir| !dir.exists()));
    }
}

#[test]
fn groups_made_inside_go_too() {
    for host in hosts() {
        let group = TempGroup::new(&host, "inside", "rf-t-1", &Limits::new().pids(100));
        let mut child = group.run("while :; do sleep 1000; done");
        for dir in group.dirs("rf-t-1") {
            let deep: PathBuf = dir.join((0..30).map(|n| format!("level{n}")).collect::<PathBuf>());
            std::fs::create_dir_all(&deep).unwrap();
            (0..20).for_each(|n| std::fs::create_dir(dir.join(format!("level0/wide{n}"))).unwrap());
            std::fs::write(deep.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        assert!(group.0.processes().unwrap().contains(&(child.id() as i32)));
        assert!(group.0.is_populated().unwrap());
        group.0.kill().unwrap();
        child.wait().unwrap();
        group.0.remove(WAIT).unwrap();
        assert!(group.dirs("rf-t-1").iter().all(|dir| !dir.exists()));
    }
}

#[test]
fn a_process_that_left_the_v2_group_does_not_get_away() {
    let Some(host) = hosts().into_iter().next() else { return };
    let group = TempGroup::new(&host, "left", "rf-t-1", &Limits::new().pids(10).memory(Bytes::mib(32)));
    let (Some(v2), true) = (host.v2(), group.0.v1_procs().next().is_some()) else { return };
    let mut child = group.run("exec sleep 1000");
    std::fs::write(v2.mount.join("cgroup.procs"), child.id().to_string()).unwrap();
    assert_eq!(group.0.processes().unwrap(), [] as [i32; 0]);
    group.0.kill().unwrap();
    group.0.remove(WAIT).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn sandboxes_come_and_go_side_by_side_below_one_parent() {
    for host in hosts() {
        let top = parent("race").join("a/b");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (host, top) = (&host, &top);
                scope.spawn(move || {
                    for n in 0..80 {
                        let limits = if n % 8 == 0 { Limits::new().memory(Bytes::mib(8)) } else { Limits::new() };
                        let group =
                            Group::create(host, Some(top), &format!("rf-t{thread}-{n}"), &limits, false).unwrap();
                        group.remove(WAIT).unwrap();
                    }
                });
            }
        });
        for hierarchy in &host.hierarchies {
            assert!(!hierarchy.base(Some(&parent("race"))).unwrap().exists(), "{hierarchy:?}");
        }
    }
}

#[test]
fn a_group_of_that_name_is_not_adopted() {
    for host in hosts() {
        let first = TempGroup::new(&host, "twice", "rf-t-1", &Limits::new().pids(5));
        let again = Group::create(&host, Some(&parent("twice")), "rf-t-1", &Limits::new().memory(1 << 20), false);
        assert_eq!(again.unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert!(first.dirs("rf-t-1").iter().all(|dir| dir.is_dir()));
        for name in ["", "..", "a/b"] {
            assert!(Group::create(&host, Some(&parent("twice")), name, &Limits::new(), false).is_err(), "{name:?}");
        }
    }
}

#[test]
fn a_refused_limit_leaves_nothing_behind() {
    for host in hosts() {
        if host.hierarchy_of(Controllers::IO).is_none() {
            continue;
        }
        let limits = Limits::new().memory(1 << 20).io(IoLimit::device(4000, 77).read_bps(1 << 20));
        let error = Group::create(&host, Some(&parent("undo")), "rf-t-1", &limits, true).unwrap_err();
        assert!(error.to_string().contains("4000:77") && error.to_string().contains("whole disks"), "{error}");
        for hierarchy in &host.hierarchies {
            assert!(!hierarchy.base(Some(&parent("undo"))).unwrap().exists(), "{hierarchy:?}");
        }
    }
}

#[test]
fn swap_alone_is_refused_where_it_cannot_be_limited_alone() {
    for host in hosts().into_iter().filter(|h| h.hierarchy_of(Controllers::MEMORY).unwrap().version == Version::V1) {
        let error = Group::create(&host, Some(&parent("swap")), "rf-t-1", &Limits::new().swap(0), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.problems()[0].feature, Some(Feature::SwapLimit));
    }
}

#[test]
fn limits_change_while_the_group_lives() {
    for host in hosts() {
        let group =
            TempGroup::new(&host, "update", "rf-t-1", &Limits::new().memory(Bytes::mib(64)).swap(Bytes::mib(8)));
        let limit = || group.0.stats().unwrap().memory_limit.unwrap();
        for mib in [256, 16, 64] {
            group.0.update(&Limits::new().memory(Bytes::mib(mib))).unwrap();
            assert_eq!(limit(), Bytes::mib(mib));
        }
        group.0.update(&Limits::new().memory(Bytes::mib(32)).swap(Bytes::mib(128))).unwrap();
        group.0.update(&Limits::new().swap(0)).unwrap();
        if let Some(dir) = group.dirs("rf-t-1").iter().find(|dir| dir.join("memory.memsw.limit_in_bytes").exists()) {
            let sum = read_to_string(dir.join("memory.memsw.limit_in_bytes")).unwrap();
            assert_eq!(sum.trim(), Bytes::mib(32).get().to_string());
        }
        let error = group.0.update(&Limits::new().cpuset("0")).unwrap_err();
        assert!(error.to_string().starts_with("cpuset"), "{error}");
        assert_eq!(group.0.update(&Limits::new().memory(0)).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn device_rules_hold_and_change_also_with_groups_inside() {
    let all_but_null =
        || Devices::none().allow(Device::any(), DeviceAccess::all()).deny(Device::null(), DeviceAccess::READ);
    for host in hosts() {
        let limits = |devices| Limits::new().devices(devices);
        if !host.problems(&limits(Devices::none()), false, Some(&parent("devices"))).is_empty() {
            assert!(!nix::unistd::geteuid().is_root());
            continue;
        }
        let group = TempGroup::new(&host, "devices", "rf-t-1", &limits(Devices::none()));
        let deep = group.dirs("rf-t-1").into_iter().map(|dir| dir.join("deep"));
        deep.for_each(|dir| std::fs::create_dir(dir).unwrap());
        let opens = |what: &str| group.run(&format!(": </dev/{what}")).wait().unwrap().success();
        for (devices, want) in [
            (Devices::none(), [false, false]),
            (Devices::none().allow(Device::zero(), DeviceAccess::READ), [false, true]),
            (Devices::standard(), [true, true]),
            (Devices::none().allow(Device::null(), DeviceAccess::READ), [true, false]),
        ] {
            group.0.update(&limits(devices.clone())).unwrap();
            assert_eq!([opens("null"), opens("zero")], want, "{devices:?}");
        }
        drop(group);
        let group = TempGroup::new(&host, "devices", "rf-t-2", &limits(all_but_null()));
        let opens = |what: &str| group.run(&format!(": </dev/{what}")).wait().unwrap().success();
        assert_eq!([opens("null"), opens("zero")], [false, true]);
        group.0.update(&limits(Devices::none())).unwrap();
        assert_eq!([opens("null"), opens("zero")], [false, false]);
        group.0.update(&limits(all_but_null())).unwrap();
        assert_eq!([opens("null"), opens("zero")], [false, true]);
    }
}

#[test]
fn a_cpuset_can_be_joined_and_what_it_does_not_name_is_inherited() {
    for host in hosts() {
        if host.hierarchy_of(Controllers::CPUSET).is_none() {
            continue;
        }
        let group = TempGroup::new(&host, "cpuset", "rf-t-1", &Limits::new().cpuset("0"));
        let mut child = group.run("while :; do sleep 1000; done");
        let status = read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{status}");
        group.0.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_kill_for_memory_is_counted_wherever_it_hits() {
    for host in hosts() {
        let group = TempGroup::new(&host, "oom", "rf-t-1", &Limits::new().memory(Bytes::mib(16)).swap(0).pids(20));
        let mut child = group.run("head -c 200000000 /dev/zero | tail -c 190000000 >/dev/null");
        child.wait().unwrap();
        assert!(group.0.stats().unwrap().oom_kills > Some(0));
    }
}

#[test]
fn only_the_dead_owners_groups_are_swept() {
    for host in hosts() {
        let limits = Limits::new().pids(20).memory(Bytes::mib(32));
        let made = |name: &str| TempGroup::new(&host, "sweep", name, &limits);
        let (stale, other) = (made("rf-dead-1"), made("rf-deadly-1"));
        let (kept, kept_empty) = (made("rk-dead-1"), made("rk-dead-2"));
        let mut doomed = stale.run("while :; do (sleep 1000 & sleep 1000); done");
        let mut living = kept.run("while :; do sleep 1000; done");
        let dirs = stale.0.parent_dirs().to_vec();
        let counts: Vec<_> = dirs.iter().map(|dir| sweep(dir, "dead", "rf-", "rk-").unwrap()).collect();
        assert_eq!(counts, vec![2; dirs.len()]);
        assert!(!doomed.wait().unwrap().success());
        assert!(living.try_wait().unwrap().is_none());
        let stand = |group: &TempGroup, name| group.dirs(name).iter().filter(|dir| dir.exists()).count();
        assert_eq!((stand(&stale, "rf-dead-1"), stand(&kept_empty, "rk-dead-2")), (0, 0));
        assert_eq!((stand(&other, "rf-deadly-1"), stand(&kept, "rk-dead-1")), (dirs.len(), dirs.len()));
        assert_eq!(sweep(&dirs[0].join("none"), "dead", "rf-", "rk-").unwrap(), 0);
        assert!(sweep(&dirs[0], "", "rf-", "rk-").is_err());
        kept.0.kill().unwrap();
        living.wait().unwrap();
    }
}

/// Returns whether a v2 directory takes attributes of its owner (5.7).
fn has_user_attributes() -> bool {
    let release = read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(7))
}

/// The sandbox that has the groups of these tests.
const OWNER: &str = "rk-0123456789abcdef0123456789abcdef-1";

/// The directories of a named group, one in each hierarchy of the host.
fn named_dirs(host: &Host, path: &Path) -> Vec<PathBuf> {
    let standing = |dir: &PathBuf| dir.exists();
    host.hierarchies.iter().filter_map(|hierarchy| hierarchy.base(Some(path))).filter(standing).collect()
}

#[test]
fn a_named_group_is_found_by_its_inodes_and_stays_if_it_was_there() {
    for host in hosts() {
        let path = parent("named").join("one");
        // Keeps the groups above.
        let _beside = TempGroup(
            Group::create_or_adopt(&host, &path.with_file_name("two"), OWNER, &Limits::new(), true, None).unwrap(),
        );
        let limits = Limits::new().memory(Bytes::mib(64)).pids(20);
        let made = TempGroup(Group::create_or_adopt(&host, &path, OWNER, &limits, true, None).unwrap());
        let dirs = named_dirs(&host, &path);
        assert_eq!(dirs.len(), made.0.parent_dirs().len(), "{dirs:?}");
        let busy = Group::create_or_adopt(&host, &path, OWNER, &limits, true, None).unwrap_err();
        assert_eq!(busy.raw_os_error(), Some(libc::EBUSY), "{busy}");
        let opened = Group::of_named(&host, &made.0.named_dirs().unwrap()).unwrap().unwrap();
        let mut child = made.run("while :; do sleep 1000; done");
        assert!(opened.processes().unwrap().contains(&(child.id() as i32)));
        assert_eq!(opened.stats().unwrap().memory_limit, Some(Bytes::mib(64)));
        let before: Vec<_> = dirs.iter().map(|dir| read_to_string(dir.join("pids.max")).ok()).collect();
        opened.end_named(OWNER, &|| Some(child.id() as i32), &|| Ok(None), WAIT).unwrap();
        child.wait().unwrap();
        assert_eq!(named_dirs(&host, &path), Vec::<PathBuf>::new());
        drop(made);
        assert_eq!(named_dirs(&host, &path), Vec::<PathBuf>::new());

        dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        for mib in [32, 256, 16] {
            let adopted = TempGroup(
                Group::create_or_adopt(&host, &path, OWNER, &limits.clone().memory(Bytes::mib(mib)), true, None)
                    .unwrap(),
            );
            assert_eq!(adopted.0.stats().unwrap().memory_limit, Some(Bytes::mib(mib)));
            let mut child = adopted.run("while :; do (sleep 1000 & sleep 1000); done");
            adopted.0.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(named_dirs(&host, &path), dirs);
        let after: Vec<_> = dirs.iter().map(|dir| read_to_string(dir.join("pids.max")).ok()).collect();
        assert!(before.iter().flatten().all(|max| max.trim() == "20"), "{before:?}");
        assert!(after.iter().flatten().all(|max| max.trim() == "max"), "{after:?}");

        // What another sandbox has taken since is not ended, and nothing of it is changed.
        let first = TempGroup(Group::create_or_adopt(&host, &path, OWNER, &limits, true, None).unwrap());
        let record = first.0.named_dirs().unwrap();
        drop(first);
        let next = TempGroup(Group::create_or_adopt(&host, &path, "rk-next-1", &limits, true, None).unwrap());
        let mut child = next.run("while :; do sleep 1000; done");
        let stale = Group::of_named(&host, &record).unwrap().unwrap();
        let ended = stale.end_named(OWNER, &|| None, &|| Ok(None), Duration::from_millis(50));
        // Without a v2 directory nothing tells whose the process is.
        let is_marked = dirs.iter().any(|dir| dir.join("cgroup.events").exists()) && has_user_attributes();
        assert_eq!(ended.is_ok(), is_marked, "{ended:?}");
        assert!(child.try_wait().unwrap().is_none());
        for dir in dirs.iter().filter(|dir| dir.join("pids.max").exists()) {
            assert_eq!(read_to_string(dir.join("pids.max")).unwrap().trim(), "20");
        }
        // Nor is what was not known to be the sandbox's when it was noted.
        let kept = super::remove_empty(&dirs[0], Duration::from_millis(50)).unwrap_err();
        assert_eq!((kept.kind(), kept.raw_os_error()), (ErrorKind::Control, Some(libc::EBUSY)), "{kept}");
        assert!(child.try_wait().unwrap().is_none());
        next.0.kill().unwrap();
        child.wait().unwrap();
        drop(next);
        // A directory of the same path with another inode is another one.
        dirs.iter().for_each(|dir| std::fs::remove_dir(dir).unwrap());
        dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        assert!(Group::of_named(&host, &record).unwrap().is_none());
        dirs.iter().for_each(|dir| std::fs::remove_dir(dir).unwrap());
    }
}

#[test]
fn a_file_of_v2_needs_its_controller_there() {
    for host in hosts() {
        let resources = super::resources::Resources::new().unified("memory.high", "16777216");
        let limits = Limits::new().memory(Bytes::mib(64)).resources(resources);
        let unified = host.v2().is_some_and(|v2| v2.controllers.contains(Controllers::MEMORY));
        match Group::create(&host, Some(&parent("unified")), "rf-t-1", &limits, false).map(TempGroup) {
            Ok(group) => assert!(unified && group.dirs("rf-t-1").iter().any(|dir| dir.join("memory.high").exists())),
            Err(error) => {
                assert!(!unified && error.kind() == ErrorKind::Unsupported, "{error}");
                assert_eq!(error.problems().iter().map(|p| p.feature).collect::<Vec<_>>(), [Some(Feature::Unified)]);
            }
        }
    }
}
