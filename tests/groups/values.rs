//! The values that the OCI specification has for control groups: each is in the file that enforces it, or refused.

use std::fs;
use std::time::Duration;

use crate::common::{self, group_of, is_v2, no_cgroups};
use crate::{at_rest, end, limited};
use ringfence::{Bytes, Child, Enforcement, ErrorKind, Feature, Limits, Resources, Sandbox, Stdio};

/// The text of a file of the child's group: on v1 and on v2.
#[track_caller]
fn text(child: &Child, controller: &str, v1: &str, v2: &str) -> String {
    let path = group_of(child.id(), controller).join(if is_v2() { v2 } else { v1 });
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// The v1 file and its value, or the v2 file and its value.
#[track_caller]
fn has(child: &Child, controller: &str, v1: (&str, &str), v2: (&str, &str)) {
    let want = if is_v2() { v2.1 } else { v1.1 };
    assert_eq!(text(child, controller, v1.0, v2.0), want, "{v1:?} {v2:?}");
}

/// Whether the kernel accounts for swap.
fn counts_swap() -> bool {
    limited().memory_limit(Bytes::mib(64)).swap_limit(0).check().is_ok()
}

#[test]
fn raw_shares_quotas_and_reservations_are_in_their_files() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let cpu =
        Resources::new().cpu_shares(512).cpu_quota(Duration::from_millis(5)).cpu_period(Duration::from_millis(50));
    let child = at_rest(limited().resources(cpu.memory_reservation(Bytes::mib(8))));
    has(&child, "cpu", ("cpu.shares", "512"), ("cpu.weight", "59"));
    has(&child, "cpu", ("cpu.cfs_quota_us", "5000"), ("cpu.max", "5000 50000"));
    has(&child, "cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "5000 50000"));
    has(&child, "memory", ("memory.soft_limit_in_bytes", "8388608"), ("memory.low", "8388608"));
    child.update(&Limits::new().resources(Resources::new().cpu_quota(Duration::MAX).cpu_shares(1024))).unwrap();
    has(&child, "cpu", ("cpu.shares", "1024"), ("cpu.weight", "100"));
    has(&child, "cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000"));
    end(child);
}

#[test]
fn the_sum_of_memory_and_swap_is_set_and_changed() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    if !counts_swap() {
        common::skip("the kernel does not account for swap", true);
        return;
    }
    let sum = |mib| Resources::new().memory_and_swap(Bytes::mib(mib));
    let child = at_rest(limited().memory_limit(Bytes::mib(64)).resources(sum(96)));
    let has = |memory: u64, both: u64| {
        let (v1, v2) = ((both << 20).to_string(), ((both - memory) << 20).to_string());
        has(&child, "memory", ("memory.memsw.limit_in_bytes", &v1), ("memory.swap.max", &v2));
        let memory = (memory << 20).to_string();
        self::has(&child, "memory", ("memory.limit_in_bytes", &memory), ("memory.max", &memory));
    };
    has(64, 96);
    for (memory, both) in [(128, 256), (32, 40), (32, 32), (64, 64)] {
        child.update(&Limits::new().memory(Bytes::mib(memory)).resources(sum(both))).unwrap();
        has(memory, both);
    }
    let error = child.update(&Limits::new().memory(Bytes::mib(64)).resources(sum(63))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    end(child);
}

#[test]
fn a_limit_is_lifted_by_the_greatest_number() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let child = at_rest(limited().memory_limit(Bytes::mib(64)).pids_limit(20));
    child.update(&Limits::new().memory(Bytes::MAX).pids(u64::MAX)).unwrap();
    let stats = child.stats().unwrap();
    assert_eq!(stats.memory_limit, None);
    has(&child, "pids", ("pids.max", "max"), ("pids.max", "max"));
    child.update(&Limits::new().memory(Bytes::mib(32))).unwrap();
    assert_eq!(child.stats().unwrap().memory_limit, Some(Bytes::mib(32)));
    end(child);
    let child = at_rest(limited().memory_limit(Bytes::MAX).pids_limit(u64::MAX));
    assert_eq!(child.stats().unwrap().memory_limit, None);
    end(child);
}

#[test]
fn what_only_v1_has_is_set_there_and_refused_on_v2() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let asked = Resources::new().swappiness(7).oom_kill_disable(true);
    let sandbox = limited().memory_limit(Bytes::mib(64)).resources(asked);
    let only_v1 = [Feature::Swappiness, Feature::OomKillDisable];
    if is_v2() {
        for error in [sandbox.check().unwrap_err(), sandbox.clone().command("/bin/true").spawn().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let found: Vec<_> = error.problems().iter().filter_map(|problem| problem.feature).collect();
            assert_eq!(found, only_v1, "{error}");
        }
        let child = at_rest(only_v1.into_iter().fold(sandbox, Sandbox::best_effort));
        let missing = |feature| matches!(child.enforced().get(feature), Some(Enforcement::Missing(_)));
        assert!(only_v1.into_iter().all(missing), "{:?}", child.enforced());
        return end(child);
    }
    sandbox.check().unwrap();
    let child = at_rest(sandbox);
    has(&child, "memory", ("memory.swappiness", "7"), ("", ""));
    let control = text(&child, "memory", "memory.oom_control", "");
    assert!(control.contains("oom_kill_disable 1"), "{control}");
    child.update(&Limits::new().resources(Resources::new().oom_kill_disable(false).swappiness(0))).unwrap();
    has(&child, "memory", ("memory.swappiness", "0"), ("", ""));
    let control = text(&child, "memory", "memory.oom_control", "");
    assert!(control.contains("oom_kill_disable 0"), "{control}");
    end(child);
}

#[test]
fn files_of_v2_are_written_by_name_and_refused_on_v1() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let named = |file: &str, value: &str| limited().resources(Resources::new().unified(file, value));
    if !is_v2() {
        let error = named("memory.high", "1048576").check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.problems().iter().all(|problem| problem.feature == Some(Feature::Unified)), "{error}");
        let error = named("memory.high", "1048576").command("/bin/true").spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    } else {
        let child = at_rest(named("memory.high", "67108864").pids_limit(9));
        has(&child, "memory", ("", ""), ("memory.high", "67108864"));
        end(child);
        // The controller is there, and the file is not.
        let error = named("memory.none", "1").command("/bin/true").spawn().unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("memory.none"), "{error}");
        let error = named("memory.high", "lots").command("/bin/true").spawn().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
    for file in ["../memory.high", "cgroup.procs", "memory.high/x", "memory"] {
        let error = named(file, "1").check().unwrap_err();
        assert_eq!((error.kind(), error.problems()[0].subject.as_str()), (ErrorKind::Invalid, "unified"), "{file}");
    }
}

#[test]
fn weights_of_disks_are_on_the_scale_of_v1() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let sandbox = limited().resources(Resources::new().blkio_weight(20));
    if let Err(error) = sandbox.check() {
        assert_eq!(error.problems()[0].feature, Some(Feature::IoWeight), "{error}");
        return common::skip(&format!("no weights: {error}"), true);
    }
    let child = at_rest(sandbox);
    let dir = group_of(child.id(), "blkio");
    let files = [("blkio.bfq.weight", "20"), ("io.bfq.weight", "20"), ("io.weight", "102"), ("blkio.weight", "20")];
    let texts = files.map(|(file, want)| fs::read_to_string(dir.join(file)).ok().map(|text| (text, want)));
    assert!(texts.iter().any(Option::is_some), "{}", dir.display());
    for (text, want) in texts.iter().flatten() {
        assert_eq!(text.split_whitespace().last(), Some(*want));
    }
    end(child);
    // No disk has this number.
    let error = limited().resources(Resources::new().device_weight(4000, 1, 20)).command("/bin/true").spawn();
    let error = error.unwrap_err();
    let has = |weight: u32| error.to_string().contains(&format!("4000:1 {weight}"));
    assert!(has(20) || has(102), "{error}");
}

/// Marks of packets and limits of devices that few hosts have: set where the hierarchy is, or refused by name.
#[test]
fn controllers_that_a_host_lacks_are_named() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let has_v1 =
        |name: &str| own.lines().any(|line| line.split(':').nth(1).unwrap_or("").split(',').any(|one| one == name));
    for (name, file, want, feature, resources) in [
        ("net_cls", "net_cls.classid", "1048577", Feature::NetworkClass, Resources::new().network_class(0x10_0001)),
        (
            "net_prio",
            "net_prio.ifpriomap",
            "lo 5",
            Feature::NetworkPriority,
            Resources::new().network_priority("lo", 5),
        ),
    ] {
        let sandbox = limited().resources(resources);
        if has_v1(name) {
            let child = at_rest(sandbox);
            let text = fs::read_to_string(group_of(child.id(), name).join(file)).unwrap();
            assert!(text.lines().any(|line| line == want), "{text}");
            end(child);
        } else {
            let error = sandbox.check().unwrap_err();
            assert_eq!(error.problems().iter().map(|p| p.feature).collect::<Vec<_>>(), [Some(feature)], "{error}");
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(sandbox.command("/bin/true").spawn().unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}

#[test]
fn faults_are_counted() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let child = at_rest(limited().memory_limit(Bytes::mib(64)));
    // The kernel brings the numbers up to date from time to time.
    common::eventually("faults are counted", || child.stats().unwrap().page_faults > Some(0));
    let stats = child.stats().unwrap();
    assert!(stats.major_page_faults.is_some() && stats.memory_inactive_file.is_some(), "{stats:?}");
    end(child);
}

/// What waits at its limit can still be killed.
#[test]
fn a_program_without_an_oom_killer_waits_and_is_killed() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    if is_v2() {
        common::skip("cgroup v2 has an OOM killer always", true);
        return;
    }
    let sandbox = limited().memory_limit(Bytes::mib(16)).resources(Resources::new().oom_kill_disable(true));
    let sandbox = common::probe::run(if counts_swap() { sandbox.swap_limit(0) } else { sandbox }, "hog 200000000");
    let mut child = sandbox.stdout(Stdio::null()).spawn().unwrap();
    let control = group_of(child.id(), "memory").join("memory.oom_control");
    common::eventually("the program waits", || {
        fs::read_to_string(&control).is_ok_and(|text| text.lines().any(|line| line == "under_oom 1"))
    });
    child.kill().unwrap();
    let outcome = child.wait().unwrap();
    assert!(!outcome.success() && outcome.usage().oom_kills == Some(0), "{outcome:?}");
}

#[test]
fn strict_takes_no_swap_where_the_host_counts_it() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    if !counts_swap() {
        let enforced = common::strict().check().unwrap();
        assert_ne!(enforced.get(Feature::SwapLimit), Some(&Enforcement::Full));
        common::skip("the kernel does not account for swap", true);
        return;
    }
    let may_have = |child: &Child, memory: u64, swap: u64| {
        let (v1, v2) = (((memory + swap) << 20).to_string(), (swap << 20).to_string());
        has(child, "memory", ("memory.memsw.limit_in_bytes", &v1), ("memory.swap.max", &v2));
        let memory = (memory << 20).to_string();
        has(child, "memory", ("memory.limit_in_bytes", &memory), ("memory.max", &memory));
    };
    for (sandbox, memory, swap) in [
        (common::strict(), 512, 0),
        (common::strict().memory_limit(Bytes::mib(64)), 64, 0),
        (common::strict().limits(Limits::new().memory(Bytes::mib(64)).pids(9)), 64, 0),
        (common::strict().swap_limit(Bytes::mib(8)), 512, 8),
        (common::strict().resources(Resources::new().memory_and_swap(Bytes::mib(520))), 512, 8),
    ] {
        assert_eq!(sandbox.check().unwrap().get(Feature::SwapLimit), Some(&Enforcement::Full));
        let child = at_rest(sandbox);
        may_have(&child, memory, swap);
        child.update(&Limits::new().memory(Bytes::mib(600))).unwrap();
        if !is_v2() {
            may_have(&child, 600, swap);
        }
        end(child);
    }
    // Without a limit of memory there is none of swap.
    let child = at_rest(common::strict().limits(Limits::new().pids(9)));
    assert_eq!(child.enforced().get(Feature::SwapLimit), None);
    end(child);
}
