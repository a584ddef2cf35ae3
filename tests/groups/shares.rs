//! What a sandbox has of processors and disks when others want them too, and the groups that it may make.

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use crate::common::{self, group_of, no_cgroups, probe, shell, stdout};
use crate::{at_rest, end, limited};
use ringfence::{Child, Enforcement, ErrorKind, Feature, Limits, Sandbox, Stats, Stdio};

/// The value of the first of these files that the child's group has.
#[track_caller]
fn value(child: &Child, controller: &str, files: &[&str]) -> String {
    let dir = group_of(child.id(), controller);
    let text = files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok());
    text.unwrap_or_else(|| panic!("{} has none of {files:?}", dir.display())).trim().to_owned()
}

#[test]
fn what_was_left_over_is_used_in_a_burst() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let limit = limited().cpu_limit(0.2);
    let pulse = |sandbox: Sandbox| -> Stats {
        let sandbox = probe::run(sandbox, "pulse 10 45").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sandbox.spawn().unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let stats = child.stats().unwrap();
        end(child);
        stats
    };
    let burst = pulse(limit.clone().cpu_burst(Duration::from_millis(20)));
    let plain = pulse(limit.clone());
    assert!(burst.cpu_bursts > Some(0) && burst.cpu_burst > Some(Duration::ZERO), "{burst:?}");
    assert_eq!((plain.cpu_bursts, plain.cpu_burst), (Some(0), Some(Duration::ZERO)), "{plain:?}");

    let child = at_rest(limit.clone().cpu_burst(Duration::from_millis(20)));
    let burst = || value(&child, "cpu", &["cpu.cfs_burst_us", "cpu.max.burst"]);
    assert_eq!(burst(), "20000");
    // A smaller quota alone would be less than the burst.
    assert!(child.update(&Limits::new().cpu(0.1)).unwrap_err().to_string().contains("cpu_burst"));
    child.update(&Limits::new().cpu(0.1).cpu_burst(Duration::from_millis(10))).unwrap();
    assert_eq!(burst(), "10000");
    child.update(&Limits::new().cpu(0.5).cpu_burst(Duration::from_millis(50))).unwrap();
    assert_eq!(burst(), "50000");
    let error = child.update(&Limits::new().cpu_burst(Duration::from_millis(51))).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Control, Some(libc::EINVAL)), "{error}");
    end(child);
    let alone = limited().cpu_burst(Duration::from_millis(1)).check().unwrap_err();
    assert_eq!((alone.kind(), &*alone.problems()[0].subject), (ErrorKind::Invalid, "cpu_burst"));
}

#[test]
fn an_idle_sandbox_runs_on_what_others_leave_over() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    // Both on one processor, where each of two equals gets its half.
    let spin = |sandbox: Sandbox, millis: u64| {
        let sandbox = probe::run(sandbox.cpuset("0"), &format!("spin {millis}"));
        sandbox.stdout(Stdio::piped()).spawn().unwrap()
    };
    let beside = |sandbox: Sandbox| {
        let mut child = spin(sandbox, 60_000);
        let other = spin(limited().cpu_weight(100), 1500);
        let used = || child.stats().unwrap().cpu_usage.unwrap();
        let before = used();
        let output = other.wait_with_output().unwrap();
        let (used, other) = (used() - before, output.outcome.usage().user + output.outcome.usage().system);
        child.kill().unwrap();
        child.wait().unwrap();
        (used, other)
    };
    let (idle, other) = beside(limited().cpu_idle(true));
    assert!(idle * 4 < other, "{idle:?} beside {other:?}");
    let (equal, other) = beside(limited().cpu_weight(100));
    assert!(equal * 4 > other, "{equal:?} beside {other:?}");

    let child = at_rest(limited().cpu_idle(true));
    let idle = || value(&child, "cpu", &["cpu.idle"]);
    assert_eq!(idle(), "1");
    assert!(child.update(&Limits::new().cpu_weight(50)).unwrap_err().to_string().contains("cpu_idle"));
    child.update(&Limits::new().cpu_idle(false).cpu_weight(50)).unwrap();
    assert_eq!((idle(), value(&child, "cpu", &["cpu.weight", "cpu.shares"])), ("0".into(), weight_of(&child, 50)));
    end(child);
}

fn weight_of(child: &Child, weight: u64) -> String {
    let v1 = group_of(child.id(), "cpu").join("cpu.shares").exists();
    (if v1 { weight * 1024 / 100 } else { weight }).to_string()
}

#[test]
fn a_weight_for_disks_is_set_or_cannot_be_had() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let sandbox = limited().io_weight(200).pids_limit(9);
    let enforced = match sandbox.check() {
        Ok(enforced) => enforced,
        Err(error) => {
            assert_eq!((error.kind(), error.problems()[0].feature), (ErrorKind::Unsupported, Some(Feature::IoWeight)));
            assert!(error.to_string().contains("modprobe bfq"), "{error}");
            let spawned = sandbox.clone().command("/bin/true").spawn().unwrap_err();
            assert_eq!(spawned.to_string(), error.to_string());
            let child = at_rest(sandbox.best_effort(Feature::IoWeight));
            assert!(matches!(child.enforced().get(Feature::IoWeight), Some(Enforcement::Missing(_))));
            return end(child);
        }
    };
    assert!(matches!(enforced.get(Feature::IoWeight), Some(Enforcement::Partial(_))), "{enforced:?}");
    let child = at_rest(sandbox);
    let files = ["blkio.bfq.weight", "io.bfq.weight", "io.weight"];
    let weight = || value(&child, if common::is_v2() { "io" } else { "blkio" }, &files);
    assert_eq!(weight().trim_start_matches("default "), "200");
    child.update(&Limits::new().io_weight(300)).unwrap();
    assert_eq!(weight().trim_start_matches("default "), "300");
    end(child);
}

#[test]
fn groups_made_inside_are_limited() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let make = |sandbox: Sandbox, dirs: &str| {
        let own = at_rest(limited().pids_limit(9));
        let group = group_of(own.id(), "");
        let top = group.ancestors().find(|dir| !dir.join("cgroup.type").exists()).unwrap().to_owned();
        end(own);
        let text =
            format!("cd {}$(sed -n s/^0:://p /proc/self/cgroup) || exit 1; mkdir {dirs} 2>&1; exit 0", top.display());
        stdout(&shell(sandbox.env("LC_ALL", "C"), &text))
    };
    let sandbox = limited().cgroup_max_descendants(2).cgroup_max_depth(1);
    let asked = [Feature::CgroupMaxDescendants, Feature::CgroupMaxDepth];
    if fs::read_to_string("/proc/self/mounts").unwrap().lines().all(|line| !line.contains(" cgroup2 ")) {
        for error in [sandbox.check().unwrap_err(), sandbox.spawn().unwrap_err()] {
            assert_eq!(error.problems().iter().filter_map(|p| p.feature).collect::<Vec<_>>(), asked);
            assert!(error.to_string().contains("mount cgroup2"), "{error}");
        }
        let sandbox = asked.iter().fold(sandbox.pids_limit(9), |sandbox, feature| sandbox.best_effort(*feature));
        let child = at_rest(sandbox);
        assert!(asked.iter().all(|f| matches!(child.enforced().get(*f), Some(Enforcement::Missing(_)))));
        return end(child);
    }
    assert!(common::holds(&sandbox.check().unwrap()));
    assert_eq!(make(limited().cgroup_max_descendants(100), "a b c a/d"), "");
    assert_eq!(make(sandbox.clone(), "a b"), "");
    let third = make(limited().cgroup_max_descendants(2), "a b c");
    assert!(
        third.contains("'c'") && third.contains("temporarily unavailable") && third.lines().count() == 1,
        "{third}"
    );
    let below = make(limited().cgroup_max_depth(1), "a a/b b c");
    assert!(
        below.contains("a/b") && below.contains("temporarily unavailable") && below.lines().count() == 1,
        "{below}"
    );
    let child = at_rest(sandbox);
    let files =
        ["cgroup.max.descendants", "cgroup.max.depth"].map(|file| move |child: &Child| value(child, "", &[file]));
    assert_eq!(files.map(|file| file(&child)), ["2", "1"]);
    child.update(&Limits::new().max_descendants(7).max_depth(3)).unwrap();
    assert_eq!(files.map(|file| file(&child)), ["7", "3"]);
    fs::create_dir(group_of(child.id(), "").join("inside")).unwrap();
    assert_eq!(child.stats().unwrap().descendants, Some(1));
    end(child);
}
