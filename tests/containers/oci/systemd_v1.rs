//! Containers in scopes of systemd's where that has its controllers on v1: with a systemd in a virtual machine (the rows
//! `systemd-hybrid` and `systemd-v1` of tests/vm/run). It knows some of the hierarchies, and the runtime has the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::systemd::{
    bundle, denied_node, dirs, dirs_of_unit, is_gone, no_scopes, pid, property, read, resources, systemctl, unit,
};
use super::{Bundle, PATIENT};
use crate::common;

/// True, after saying so, where systemd has no controllers on v1.
#[track_caller]
fn is_unified() -> bool {
    if no_scopes() {
        return true;
    }
    if common::is_v2() {
        common::skip("systemd has its controllers on v2", true);
    }
    common::is_v2()
}

/// The directories of the tests' slice in hierarchies that systemd does not know.
fn slices_of_others() -> Vec<PathBuf> {
    let of = |controller: &str| Path::new("/sys/fs/cgroup").join(controller).join("rftest.slice");
    ["freezer", "cpuset", "net_cls", "perf_event", "hugetlb", "rdma", "misc"].map(of).into_iter().collect()
}

fn clean_slices() {
    let left: Vec<PathBuf> = slices_of_others().into_iter().filter(|slice| slice.exists()).collect();
    assert_eq!((dirs_of_unit(), left), (Vec::new(), Vec::new()));
}

#[test]
fn each_hierarchy_has_the_container_and_its_limits() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if is_unified() {
        return;
    }
    let mut all = resources();
    all["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4 << 20}]);
    all["memory"]["reservation"] = json!(32 << 20);
    all["blockIO"] = json!({"weight": 50});
    all["network"] = json!({"classID": 0x10_0001});
    let bundle = bundle(PATIENT).with("/linux/resources", all);
    bundle.does(&["create", "box"]);
    let pid = pid(&bundle);
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = format!(":/rftest.slice/{}", unit());
    // Without a hierarchy of v2 there is a line for it all the same.
    assert!(groups.lines().all(|line| line.ends_with(&own) || line == "0::/"), "{groups}");
    for controller in ["memory", "pids", "cpu", "cpuset", "blkio", "devices", "freezer", "hugetlb", "name=systemd"] {
        assert!(groups.contains(controller), "{controller}: {groups}");
    }
    let dirs = dirs(pid);
    let has_own = |dir: &PathBuf| fs::read_to_string(dir.join("cgroup.procs")).unwrap().trim() == pid.to_string();
    assert!(dirs.len() > 8 && dirs.iter().all(has_own), "the first process is alone in each: {dirs:?}");

    let file = |controller: &str, file: &str| {
        fs::read_to_string(common::group_of(pid, controller).join(file)).unwrap().trim().to_owned()
    };
    let limits = || {
        let known = ["memory.max", "pids.max", "cpu.max", "cpu.weight", "cpuset.cpus"].map(|name| read(pid, name));
        let others = [
            file("memory", "memory.soft_limit_in_bytes"),
            file("hugetlb", "hugetlb.2MB.limit_in_bytes"),
            file("net_cls", "net_cls.classid"),
            file("blkio", "blkio.bfq.weight"),
        ];
        [&known[..], &others[..]].concat()
    };
    let expected = |known: [&'static str; 5]| [&known[..], &["33554432", "4194304", "1048577", "50"]].concat();
    assert_eq!(limits(), expected(["67108864", "20", "50000 100000", "512", "0"]));
    for (name, value) in [
        ("MemoryLimit", "67108864"),
        ("TasksMax", "20"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("CPUShares", "512"),
        ("BlockIOWeight", "50"),
        ("MemoryMax", "infinity"),
        ("Delegate", "yes"),
    ] {
        assert_eq!(property(&unit(), name), value, "{name}");
    }
    bundle.does(&["start", "box"]);
    systemctl(&["daemon-reload"]);
    assert_eq!(limits(), expected(["67108864", "20", "50000 100000", "512", "0"]));
    let changes = ["--memory", "96m", "--pids-limit=30", "--cpu-quota", "20000", "--cpu-share", "1024"];
    bundle.does(&[&["update"], &changes[..], &["box"]].concat());
    let changed = expected(["100663296", "30", "20000 100000", "1024", "0"]);
    assert_eq!(limits(), changed);
    assert_eq!(
        ["MemoryLimit", "TasksMax", "CPUShares"].map(|name| property(&unit(), name)),
        ["100663296", "30", "1024"]
    );
    systemctl(&["daemon-reload"]);
    assert_eq!(limits(), changed);
    // A further program is in all of them, too, and what runs there is frozen and killed.
    bundle.does(&["exec", "--detach", "box", "sleep", "1000"]);
    let pids = || serde_json::from_str::<Vec<u32>>(&bundle.does(&["ps", "-f", "json", "box"])).unwrap();
    let is_it = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("1000"));
    let further = || pids().into_iter().find(is_it);
    common::eventually("it runs", || further().is_some());
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", further().unwrap())).unwrap();
    assert!(groups.lines().all(|line| line.ends_with(&own) || line == "0::/"), "{groups}");
    bundle.does(&["pause", "box"]);
    assert_eq!(bundle.state()["status"], "paused");
    bundle.does(&["delete", "--force", "box"]);
    assert!(bundle.is_empty() && dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
    is_gone(&unit());
    clean_slices();
}

#[test]
fn rules_for_devices_stay_when_systemd_loads_its_units_again() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if is_unified() {
        return;
    }
    // systemd has the controller for devices in this slice whatever is asked of the scope: others in it have rules.
    let path = json!(format!("system.slice:rftest:{}", std::process::id()));
    let bundle = bundle(PATIENT).with("/linux/resources", resources()).with("/linux/devices", denied_node());
    let bundle = bundle.with("/linux/cgroupsPath", path);
    bundle.does(&["run", "-d", "box"]);
    let pid = pid(&bundle);
    let opens = |path: &str| bundle.says(&["exec", "box", "dd", &format!("if={path}"), "of=/dev/null", "count=0"]);
    let list = || {
        let list = fs::read_to_string(common::group_of(pid, "devices").join("devices.list")).unwrap();
        let mut lines: Vec<String> = list.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = list();
    for _ in 0..2 {
        assert!(opens("/dev/zero").status.success());
        let said = opens("/dev/fuse");
        assert!(said.err.contains("Operation not permitted"), "{said:?}");
        systemctl(&["daemon-reload"]);
    }
    // Where v2 has them, those of v1 are what systemd gives.
    if before != ["a *:* rwm"] {
        assert!(before.contains(&"c 1:3 rwm".to_owned()), "{before:?}");
        assert_eq!(property(&unit(), "DevicePolicy"), "strict");
        let after = list();
        let is_terminal = |line: &&String| (136..144).any(|major| **line == format!("c {major}:* rwm"));
        assert!(before.iter().all(|line| after.contains(line)), "{before:?} {after:?}");
        assert!(after.iter().all(|line| before.contains(line) || is_terminal(&line)), "{before:?} {after:?}");
    }
    bundle.does(&["delete", "--force", "box"]);
    is_gone(&unit());

    let one = json!([
        {"allow": true, "access": "rwm"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
    ]);
    let denying = super::systemd::bundle("true").with("/linux/resources", json!({"devices": one}));
    let said = denying.says(&["create", "box"]);
    if before == ["a *:* rwm"] {
        assert!(said.status.success(), "{said:?}");
        denying.does(&["delete", "--force", "box"]);
    } else {
        assert!(said.err.contains("devices: systemd denies no single devices on cgroup v1"), "{said:?}");
    }
    assert!(denying.is_empty());
    clean_slices();
}

#[test]
fn what_a_container_left_in_its_group_is_that_of_the_next_one() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if is_unified() {
        return;
    }
    let (first, second) = (bundle("true"), bundle(PATIENT));
    first.does(&["run", "-d", "box"]);
    first.becomes("stopped");
    common::eventually("the scope is gone", || property(&unit(), "LoadState") == "not-found");
    assert!(slices_of_others()[0].join(unit()).exists(), "systemd does not know the freezer");
    second.does(&["run", "-d", "box"]);
    let dirs = dirs(pid(&second));
    let began = Instant::now();
    first.does(&["delete", "box"]);
    assert!(first.is_empty() && began.elapsed() < Duration::from_secs(8), "nothing is waited for");
    assert_eq!(second.state()["status"], "running");
    assert!(dirs.iter().all(|dir| dir.exists()), "{dirs:?}");
    second.does(&["delete", "--force", "box"]);
    assert!(second.is_empty());
    is_gone(&unit());
    clean_slices();
}

#[test]
fn an_ordinary_user_is_refused_by_name() {
    let _clean = common::clean();
    if is_unified() {
        return;
    }
    let mut bundle = Bundle::of_an_ordinary_user("true");
    bundle.options = &["--systemd-cgroup"];
    let said = bundle.fails(&["create", "box"]);
    assert!(said.contains("systemd gives users' managers no controllers") && said.contains("cgroupfs"), "{said}");
    assert!(bundle.is_empty());
}
