//! A group that the caller names: made or adopted, in every hierarchy, and given back as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child as ProcessChild, Command, Stdio as ProcessStdio};
use std::time::Duration;

use crate::common::{self, is_v2, no_cgroups};
use crate::{at_rest, end};
use ringfence::{Attached, Bytes, Device, DeviceAccess, Devices, ErrorKind, Feature, Resources, Sandbox, Stdio, Step};

/// The groups of this path, one in each hierarchy that the library uses and the caller may write to.
struct Named {
    path: PathBuf,
    dirs: Vec<PathBuf>,
}

impl Named {
    /// Names the groups, which do not exist yet. Their parent does, as long as this lives.
    fn new() -> Named {
        let path = common::cgroup_parent().join("named");
        let used = [
            "memory",
            "pids",
            "cpu",
            "cpuset",
            "blkio",
            "cpuacct",
            "freezer",
            "devices",
            "hugetlb",
            "net_cls",
            "net_prio",
            "perf_event",
            "rdma",
            "misc",
            "name=systemd",
        ];
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut dirs = Vec::new();
        for mount in mounts.lines() {
            let words: Vec<&str> = mount.split(' ').collect();
            let serves = match words[2] {
                "cgroup2" => true,
                "cgroup" => words[3].split(',').any(|option| used.contains(&option)),
                _ => false,
            };
            let parent = Path::new(words[1]).join(common::cgroup_parent().strip_prefix("/").unwrap());
            if serves && fs::create_dir_all(&parent).is_ok() && fs::create_dir(parent.join("named")).is_ok() {
                fs::remove_dir(parent.join("named")).unwrap();
                dirs.push(parent.join("named"));
            }
        }
        assert!(!dirs.is_empty());
        Named { path, dirs }
    }

    /// Makes the groups.
    fn make(&self) {
        self.dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    }

    fn sandbox(&self) -> Sandbox {
        common::sandbox().cgroup(&self.path).pid_ns()
    }

    fn standing(&self) -> usize {
        self.dirs.iter().filter(|dir| dir.exists()).count()
    }

    fn dir_with(&self, file: &str) -> &Path {
        let found = self.dirs.iter().find(|dir| dir.join(file).exists());
        found.unwrap_or_else(|| panic!("no group has {file}: {:?}", self.dirs))
    }
}

impl Named {
    /// The group that has, or where the library is the first to ask for it will have, a limit of processes.
    fn dir_for_pids(&self) -> &Path {
        self.dirs.iter().find(|dir| dir.join("pids.max").exists()).unwrap_or(&self.dirs[0])
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        for dir in &self.dirs {
            let _ = fs::remove_dir(dir);
            let _ = fs::remove_dir(dir.parent().unwrap());
        }
    }
}

/// A process outside of any sandbox that waits in a group.
struct Lodger(ProcessChild);

impl Lodger {
    fn new(dir: &Path) -> Lodger {
        let child = Command::new("/bin/cat").stdin(ProcessStdio::piped()).spawn().unwrap();
        let lodger = Lodger(child);
        fs::write(dir.join("cgroup.procs"), lodger.0.id().to_string()).unwrap();
        lodger
    }
}

impl Drop for Lodger {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_missing_group_is_made_in_every_hierarchy_and_goes() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let named = Named::new();
    let child = at_rest(named.sandbox());
    assert_eq!(named.standing(), named.dirs.len(), "{:?}", named.dirs);
    let own = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let joined = own.lines().filter(|line| line.ends_with("/named")).count();
    assert_eq!(joined, named.dirs.len(), "{own}");
    let stats = child.stats().unwrap();
    assert!(stats.pids_current.is_some());
    let per_cpu = named.dirs.iter().any(|dir| dir.join("cpuacct.usage_percpu").exists());
    assert_eq!(stats.cpu_usage_per_cpu.iter().sum::<Duration>() > Duration::ZERO, per_cpu, "{stats:?}");
    end(child);
    common::eventually("the groups are gone", || named.standing() == 0);
}

/// Whoever reads the usage of a container finds it, and a container may enable it for groups of its own.
#[test]
fn a_group_of_v2_has_all_controllers_without_any_limit() {
    let _clean = common::clean();
    if no_cgroups() || !is_v2() || !common::is_root() {
        return;
    }
    let named = Named::new();
    let child = at_rest(Sandbox::new().cgroup(&named.path));
    let [group] = &named.dirs[..] else { panic!("{:?}", named.dirs) };
    let listed = |dir: &Path| fs::read_to_string(dir.join("cgroup.controllers")).unwrap();
    let top = group.ancestors().take_while(|dir| dir.join("cgroup.controllers").exists()).last().unwrap();
    assert!(listed(top).contains("memory"));
    assert_eq!(listed(group), listed(top));
    for file in ["memory.current", "pids.current", "io.stat"] {
        assert!(group.join(file).exists(), "{file}");
    }
    end(child);
}

#[test]
fn an_empty_group_is_adopted_again_and_again_and_stays() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let named = Named::new();
    named.make();
    for (memory, pids) in [(64, 20), (32, 10), (128, 30)] {
        let limits = named.sandbox().memory_limit(Bytes::mib(memory)).pids_limit(pids);
        // On v1 the kernel refuses a memory limit above that of memory and swap.
        let child = at_rest(limits.best_effort(Feature::SwapLimit).swap_limit(0));
        let stats = child.stats().unwrap();
        assert_eq!((stats.memory_limit, stats.pids_current), (Some(Bytes::mib(memory)), Some(1)), "{stats:?}");
        let text = fs::read_to_string(named.dir_with("pids.max").join("pids.max")).unwrap();
        assert_eq!(text.trim(), pids.to_string());
        end(child);
        common::eventually("nobody is left", || {
            fs::read_to_string(named.dirs[0].join("cgroup.procs")).unwrap().is_empty()
        });
    }
    // Of a program that is killed nothing stays either, and the group is open for the next.
    let mut child = at_rest(named.sandbox().memory_limit(Bytes::mib(64)).pids_limit(20));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(child);
    end(at_rest(named.sandbox()));
    assert_eq!(named.standing(), named.dirs.len());
}

#[test]
fn the_device_rules_of_an_earlier_sandbox_are_replaced() {
    let _clean = common::clean();
    if common::needs_root("a device rule") || no_cgroups() {
        return;
    }
    let named = Named::new();
    named.make();
    let opens = |device| {
        let devices = Devices::none().allow(device, DeviceAccess::READ);
        let text = "(: </dev/zero) && echo zero; (: </dev/full) && echo full; true";
        let sandbox = common::shell(named.sandbox().devices(devices), text).stderr(Stdio::null());
        common::stdout(&sandbox)
    };
    for _ in 0..2 {
        assert_eq!((opens(Device::zero()), opens(Device::full())), ("zero".to_owned(), "full".to_owned()));
    }
}

#[test]
fn groups_that_are_made_inside_an_adopted_one_go() {
    let _clean = common::clean();
    if common::needs_root("a group that the program may write to") || no_cgroups() {
        return;
    }
    let named = Named::new();
    named.make();
    let dir = named.dir_for_pids();
    let child = at_rest(named.sandbox().pids_limit(20));
    fs::create_dir_all(dir.join("a/b")).unwrap();
    end(child);
    common::eventually("what was made inside is gone", || !dir.join("a").exists());
    assert!(dir.exists());
}

#[test]
fn a_group_in_use_is_refused_and_left_alone() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let named = Named::new();
    named.make();
    let sandbox = named.sandbox().pids_limit(20);
    let dir = named.dir_for_pids().to_owned();
    let refused = |errno: i32, reason: &str| {
        let error = sandbox.clone().command("/bin/true").spawn().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::CreateCgroup, Some(errno)), "{error}");
        let checked = sandbox.check().unwrap_err();
        assert_eq!((checked.kind(), checked.problems()[0].subject.as_str()), (ErrorKind::Unsupported, "cgroup"));
        assert!(error.to_string().contains(reason) && checked.to_string().contains(reason), "{error} {checked}");
        let limit = fs::read_to_string(dir.join("pids.max"));
        assert!(limit.as_ref().map_or(is_v2(), |limit| limit.trim() == "max"), "{limit:?}");
        assert_eq!(named.standing(), named.dirs.len());
    };
    let lodger = Lodger::new(&dir);
    refused(libc::EBUSY, "processes run in it");
    drop(lodger);
    fs::create_dir(dir.join("inner")).unwrap();
    refused(libc::ENOTEMPTY, "other groups are in it");
    fs::remove_dir(dir.join("inner")).unwrap();
    let (freezer, frozen, thawed) = match named.dirs.iter().find(|dir| dir.join("freezer.state").exists()) {
        Some(dir) => (dir.join("freezer.state"), "FROZEN", "THAWED"),
        None => (named.dir_with("cgroup.freeze").join("cgroup.freeze"), "1", "0"),
    };
    fs::write(&freezer, frozen).unwrap();
    refused(libc::EBUSY, "it is frozen");
    fs::write(&freezer, thawed).unwrap();
    // One sandbox at a time.
    let child = at_rest(sandbox.clone());
    let error = sandbox.clone().command("/bin/true").spawn().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
    let attached = Attached::open(&child.ticket().unwrap()).unwrap();
    assert_eq!(attached.processes().unwrap(), [child.id()]);
    end(child);
}

/// Sets the mark that an ordinary user's sandbox has, as a program does that may write to its own group.
fn forge_mark(dir: &Path) {
    let (path, name) = (std::ffi::CString::new(dir.to_str().unwrap()).unwrap(), c"user.ringfence.sandbox");
    // SAFETY: both strings end with a NUL and live across the call, and the value is one byte long.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), c"x".as_ptr().cast(), 1, 0) };
    assert_eq!(result, 0, "{}: {}", dir.display(), std::io::Error::last_os_error());
}

#[test]
fn a_program_that_changes_the_mark_of_its_group_is_killed_with_its_sandbox() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    let (named, base) = (Named::new(), common::TempDir::new());
    let null = || Stdio::null();
    // Without a pid namespace, only the group ends what the program has left.
    let sandbox = common::sandbox().cgroup(&named.path).stdin(null()).stdout(null()).stderr(null());
    let sandbox = sandbox.command("/bin/sh").args(["-c", "sleep 600 & exec sleep 601"]);
    let created = sandbox.create(base.path().join("box")).unwrap();
    created.start().unwrap();
    let Some(v2) = named.dirs.iter().find(|dir| dir.join("cgroup.events").exists()).cloned() else {
        common::skip("without v2 no group has a mark", true);
        return created.remove().unwrap();
    };
    common::eventually("both run", || fs::read_to_string(v2.join("cgroup.procs")).unwrap().lines().count() == 2);
    forge_mark(&v2);
    created.remove().unwrap();
    assert!(!v2.exists(), "{} is left", v2.display());
}

#[test]
fn realtime_is_given_below_a_group_that_has_it() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let named = Named::new();
    let (runtime, period) = (Duration::from_millis(1), Duration::from_secs(1));
    let resources = Resources::new().realtime_runtime(runtime).realtime_period(period);
    let sandbox = named.sandbox().resources(resources);
    let parent = named.dirs.iter().find_map(|dir| {
        let file = dir.parent().unwrap().join("cpu.rt_runtime_us");
        fs::write(&file, "10000").ok()
    });
    if parent.is_none() {
        let error = sandbox.command("/bin/true").spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        return;
    }
    sandbox.check().unwrap();
    let child = at_rest(sandbox.clone());
    let dir = named.dir_with("cpu.rt_runtime_us");
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().to_owned();
    assert_eq!((read("cpu.rt_runtime_us"), read("cpu.rt_period_us")), ("1000".into(), "1000000".into()));
    end(child);
    let more = Resources::new().realtime_runtime(Duration::from_millis(20)).realtime_period(period);
    let error = sandbox.resources(more).command("/bin/true").spawn().unwrap_err();
    assert!(error.to_string().contains("cpu.rt_runtime_us"), "{error}");
}

#[test]
fn a_name_that_is_no_groups_or_stands_twice_is_refused() {
    for path in ["", "/", "a", "/a/../b", "a/b", "/a\0b", "/.."] {
        let error = Sandbox::new().cgroup(path).check().unwrap_err();
        assert_eq!((error.kind(), error.problems()[0].subject.as_str()), (ErrorKind::Invalid, "cgroup"), "{path:?}");
    }
    let error = Sandbox::new().cgroup("/a").cgroup_parent("/b").check().unwrap_err();
    assert_eq!((error.kind(), error.problems()[0].subject.as_str()), (ErrorKind::Invalid, "cgroup"));
}

/// A v1 group below that is frozen, as a program with a writable freezer leaves it: a frozen task takes its SIGKILL when
/// it is thawed.
#[test]
fn what_a_group_below_has_frozen_is_killed_as_well() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let named = Named::new();
    let sandbox = named.sandbox().pid_ns().init(true).pids_limit(20);
    let mut child = at_rest(sandbox);
    let Some(group) = named.dirs.iter().find(|dir| dir.join("freezer.state").exists()) else {
        return common::skip("there is no freezer of v1", true);
    };
    let below = group.join("below/deep");
    fs::create_dir_all(&below).unwrap();
    let init = child.id().to_string();
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let others: Vec<&str> = members.lines().filter(|pid| **pid != init).collect();
    assert!(!others.is_empty(), "{members}");
    others.iter().for_each(|pid| fs::write(below.join("cgroup.procs"), pid).unwrap());
    fs::write(below.join("freezer.state"), "FROZEN").unwrap();
    child.kill().unwrap();
    let ended = child.wait_timeout(Duration::from_secs(60)).unwrap().is_some();
    let _ = fs::write(below.join("freezer.state"), "THAWED");
    assert!(ended, "it is killed, and reaped");
}
