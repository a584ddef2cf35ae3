//! Each limit against the real kernel, and the verdict that it ends in.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{self, cgroup_parent, no_cgroups, probe, shell, stdout};
use crate::{ends_or_is_refused_with_little_memory, limited};
use ringfence::{Bytes, Enforcement, ErrorKind, Feature, IoLimit, Limits, Resource, RootFs, Sandbox, Verdict};

#[test]
fn a_memory_hog_is_out_of_memory() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let sandbox = probe::run(limited().memory_limit(Bytes::mib(32)).swap_limit(0), "hog 200000000");
    let output = sandbox.output().unwrap();
    assert_eq!(output.outcome.verdict(), Verdict::OutOfMemory);
    let usage = output.outcome.usage();
    assert_eq!(usage.oom_kills, Some(1));
    assert!(usage.peak_memory.is_some_and(|peak| peak <= Bytes::mib(32) && peak > Bytes::mib(24)), "{usage:?}");
    // The same program with room for it.
    let sandbox = probe::run(limited().memory_limit(Bytes::mib(400)), "hog 200000000");
    let output = sandbox.output().unwrap();
    assert_eq!(output.outcome.verdict(), Verdict::Exited(0));
    assert!(output.outcome.usage().peak_memory > Some(Bytes::new(200_000_000)));
}

#[test]
fn a_hog_below_a_shell_or_an_init_is_out_of_memory_too() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let text = format!("RINGFENCE_PROBE='hog 200000000' {}; exit 5", exe.display());
    for init in [false, true] {
        let sandbox = shell(limited().memory_limit(Bytes::mib(32)).swap_limit(0).init(init), &text);
        assert_eq!(sandbox.output().unwrap().outcome.verdict(), Verdict::OutOfMemory, "init: {init}");
    }
}

#[test]
fn a_limit_too_small_for_the_setup_never_kills_the_caller() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    ends_or_is_refused_with_little_memory(&limited().rootfs(RootFs::host()));
}

#[test]
fn a_fork_bomb_stops_at_the_limit() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let sandbox = probe::run(limited().pids_limit(32), "forks 2000");
    let mut child = sandbox.stdout(ringfence::Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::BufReader::new(child.stdout.take().unwrap()).into_inner(), &mut text)
        .unwrap();
    let outcome = child.wait().unwrap();
    assert_eq!((text.trim(), outcome.verdict()), ("31", Verdict::Exited(0)));
    assert!(outcome.usage().pids_limit_hits.is_some_and(|hits| hits > 0), "{:?}", outcome.usage());
    // The host does not notice: it can still fork, at once. (The bomb's own two thousand forks take as long as the machine
    // takes for them.)
    let before = Instant::now();
    assert!(std::process::Command::new("/bin/true").status().unwrap().success());
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
}

#[test]
fn a_fork_bomb_without_a_pid_namespace_is_killed_whole() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let sandbox = common::sandbox().cgroup_parent(cgroup_parent()).pids_limit(32);
    let sandbox = probe::run(sandbox, "forks 1000").stdout(ringfence::Stdio::null());
    let mut child = sandbox.spawn().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
    // The leak check finds the group, and its processes, if any is left.
}

#[test]
fn a_busy_loop_gets_its_quarter() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let used: u64 = stdout(&probe::run(limited().cpu_limit(0.25), "spin 2000")).parse().unwrap();
    // A busy host gives less than the limit allows.
    assert!((150..=700).contains(&used), "{used} ms of 2000");
    let used: u64 = stdout(&probe::run(limited().cpu_limit(64.0), "spin 300")).parse().unwrap();
    assert!(used > 60, "{used} ms of 300");
}

#[test]
fn processor_time_runs_out() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    // Two spinning processes: the limit is for both together.
    let exe = std::env::current_exe().unwrap();
    let text = format!("export RINGFENCE_PROBE='spin 60000'; {0} & {0}", exe.display());
    let outcome = shell(limited().cpu_time(Duration::from_millis(400)), &text).status().unwrap();
    assert_eq!(outcome.verdict(), Verdict::CpuTime);
    let usage = outcome.usage();
    let used = usage.user + usage.system;
    assert!((Duration::from_millis(400)..Duration::from_millis(600)).contains(&used), "{used:?}");
}

#[test]
fn without_a_group_processor_time_is_limited_for_each_process() {
    let _clean = common::clean();
    if common::is_root() {
        // A parent that no hierarchy can have stands for a host without control groups.
        let sandbox =
            Sandbox::new().cgroup_parent("/a/../b").cpu_time(Duration::from_secs(1)).best_effort(Feature::CpuTime);
        assert_eq!(sandbox.check().unwrap_err().kind(), ErrorKind::Invalid, "best effort excuses no contradiction");
        return;
    }
    let sandbox = common::sandbox().cpu_time(Duration::from_millis(900)).best_effort(Feature::CpuTime);
    let child = probe::run(sandbox, "spin 60000").stdout(ringfence::Stdio::null()).spawn().unwrap();
    assert!(matches!(child.enforced().get(Feature::CpuTime), Some(Enforcement::Partial(_) | Enforcement::Full)));
    assert_eq!(child.wait_with_output().unwrap().outcome.verdict(), Verdict::CpuTime);
}

#[test]
fn a_weight_and_a_cpuset_are_set() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let text = stdout(&shell(limited().cpuset("0").cpu_weight(50), "grep Cpus_allowed_list /proc/self/status"));
    assert_eq!(text, "Cpus_allowed_list:\t0");
    let mut child = shell(limited().cpu_weight(50), "sleep 100").spawn().unwrap();
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let number = |path: &str, file: &str| -> Option<u64> {
        // v2, or v1 with the controllers that are mounted together in the name.
        let dirs = ["", "/cpu", "/cpu,cpuacct"].map(|dir| format!("/sys/fs/cgroup{dir}{path}/{file}"));
        dirs.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
    };
    let v1 = own.lines().find(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == "cpu")));
    let (line, file, wanted) = match v1 {
        Some(line) => (line, "cpu.shares", 400..=600),
        None => (own.lines().find(|l| l.starts_with("0::")).unwrap(), "cpu.weight", 50..=50),
    };
    let weight = number(line.rsplit(':').next().unwrap(), file);
    assert!(weight.is_some_and(|weight| wanted.contains(&weight)), "{file} is {weight:?} in {own}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_direct_writer_keeps_to_its_bandwidth() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let dir = common::TempDir::new();
    let limit = match IoLimit::for_path(dir.path()) {
        Ok(limit) => limit,
        Err(error) => return common::skip(&format!("no block device below {}: {error}", dir.path().display()), false),
    };
    let file = dir.path().join("file");
    let write = format!("write {} 3072", file.display());
    let free: u64 = stdout(&probe::run(limited(), &write)).parse().unwrap();
    let sandbox = probe::run(limited().io_limit(limit.write_bps(Bytes::mib(1))), &write);
    let child = sandbox.clone().stdout(ringfence::Stdio::piped()).spawn().unwrap();
    if let Some(Enforcement::Partial(gap)) = child.enforced().get(Feature::IoLimit) {
        assert!(gap.contains("buffered") || !common::is_root() && gap.contains("the caller's user"), "{gap}");
    }
    let output = child.wait_with_output().unwrap();
    let slowed: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert!((2000..=4500).contains(&slowed), "3 MiB at 1 MiB/s took {slowed} ms, and {free} ms without a limit");
    assert!(free < 1500, "{free}");
    assert!(output.outcome.usage().io_written.is_some_and(|written| written >= Bytes::mib(3)), "{:?}", output.outcome);
}

#[test]
fn operations_a_second_are_limited() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let dir = common::TempDir::new();
    let Ok(limit) = IoLimit::for_path(dir.path()) else { return common::skip("no block device", false) };
    let write = format!("write {} 1280", dir.path().join("file").display());
    let slowed: u64 = stdout(&probe::run(limited().io_limit(limit.write_iops(10)), &write)).parse().unwrap();
    assert!(slowed >= 1000, "20 writes at 10 a second took {slowed} ms");
}

#[test]
fn statistics_are_live_and_the_sandbox_can_be_frozen() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let sandbox = probe::run(limited().memory_limit(Bytes::mib(64)).pids_limit(10).cpu_limit(1.0), "spin 60000");
    let mut child = sandbox.stdout(ringfence::Stdio::null()).spawn().unwrap();
    let used = |child: &ringfence::Child| child.stats().unwrap().cpu_usage.unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while used(&child) < Duration::from_millis(50) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let stats = child.stats().unwrap();
    assert_eq!(stats.pids_current, Some(1));
    assert!(stats.memory_current.is_some_and(|b| b > Bytes::new(0) && b < Bytes::mib(64)), "{stats:?}");
    child.freeze().unwrap();
    let frozen = used(&child);
    std::thread::sleep(Duration::from_millis(200));
    // v2 says `frozen` while the last task is on its way to sleep.
    let slack = Duration::from_millis(5);
    assert!(used(&child) < frozen + slack, "a frozen program uses nothing");
    child.thaw().unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while used(&child) < frozen + slack {
        assert!(Instant::now() < until, "thawed, and still not running");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(9));
    assert_eq!(child.stats().unwrap_err().kind(), ErrorKind::Control);
}

#[test]
fn wall_time_stands_still_while_frozen() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let limit = Duration::from_millis(1500);
    let sandbox = shell(limited().pids_limit(10).wall_time(limit), "sleep 1000");
    let mut child = sandbox.spawn().unwrap();
    child.freeze().unwrap();
    assert_eq!(child.wait_timeout(limit * 2).unwrap(), None, "frozen beyond its limit");
    let thawed = Instant::now();
    child.thaw().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::WallTime);
    assert!(thawed.elapsed() > limit / 3, "{:?} after it was thawed", thawed.elapsed());
}

#[test]
fn a_frozen_sandbox_can_be_dropped() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    for pid_ns in [true, false] {
        let sandbox = common::sandbox().cgroup_parent(cgroup_parent()).pids_limit(10);
        let sandbox = if pid_ns { sandbox.pid_ns() } else { sandbox };
        let child = shell(sandbox, "sleep 1000 & sleep 1000").spawn().unwrap();
        child.freeze().unwrap();
        drop(child);
    }
}

#[test]
fn limits_are_changed_while_the_program_runs() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let text = format!("read go; RINGFENCE_PROBE='hog 100000000' exec {}", exe.display());
    let sandbox = shell(limited().memory_limit(Bytes::mib(400)).swap_limit(0), &text);
    let sandbox = sandbox.stdin(ringfence::Stdio::piped()).stdout(ringfence::Stdio::null());
    let mut child = sandbox.spawn().unwrap();
    child.update(&Limits::new().memory(Bytes::mib(32)).swap(0)).unwrap();
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().verdict(), Verdict::OutOfMemory);
    let mut child = sandbox.spawn().unwrap();
    let error = child.update(&Limits::new().pids(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_limit_holds_from_the_first_instruction() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let sandbox = limited().memory_limit(Bytes::mib(64)).pids_limit(7).cpu_limit(0.5);
    let own = stdout(&shell(sandbox, "cat /proc/self/cgroup"));
    let parent = cgroup_parent();
    let parent = parent.to_str().unwrap();
    for controller in ["memory", "pids", "cpu"] {
        let line = own.lines().find(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == controller)));
        let line = line.or_else(|| own.lines().find(|l| l.starts_with("0::"))).unwrap();
        assert!(line.contains(&format!("{parent}/rf-")), "{controller}: {own}");
    }
}

#[test]
fn a_group_of_another_parent_is_made_below_it_and_its_absence_is_an_error() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let deep = cgroup_parent().join("a/b");
    let sandbox = common::sandbox().cgroup_parent(&deep).pids_limit(9).pid_ns();
    let own = stdout(&shell(sandbox, "grep -E ':pids:|^0:' /proc/self/cgroup"));
    assert!(own.contains(&format!("{}/rf-", deep.display())), "{own}");
    let bad = Sandbox::new().cgroup_parent("relative/../x").pids_limit(9).check().unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::Invalid);
    assert!(bad.to_string().contains("cgroup_parent"), "{bad}");
}

#[test]
fn a_limit_that_cannot_hold_is_an_error_or_said() {
    let _clean = common::clean();
    if common::is_root() {
        if no_cgroups() {
            return;
        }
        // A hierarchy with no such device: the kernel refuses, and the error says what.
        let bad = limited().io_limit(IoLimit::device(1, 250).write_bps(Bytes::mib(1))).command("/bin/true");
        let error = bad.spawn().unwrap_err();
        assert!(error.to_string().contains("disk"), "{error}");
        return;
    }
    let sandbox = common::sandbox().memory_limit(Bytes::mib(64)).pids_limit(5).command("/bin/true");
    let error = sandbox.check().unwrap_err();
    if error.kind() == ErrorKind::Unsupported {
        let features: Vec<_> = error.problems().iter().filter_map(|p| p.feature).collect();
        assert_eq!(features, [Feature::MemoryLimit, Feature::PidsLimit]);
        assert!(error.to_string().contains("cgroup_parent"), "{error}");
        assert_eq!(sandbox.spawn().unwrap_err().kind(), ErrorKind::Unsupported);
        let mut child = sandbox.best_effort(Feature::MemoryLimit).best_effort(Feature::PidsLimit).spawn().unwrap();
        assert!(matches!(child.enforced().get(Feature::MemoryLimit), Some(Enforcement::Missing(_))));
        assert!(!child.enforced().is_full());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_sleeper_dies_at_its_wall_time() {
    let _clean = common::clean();
    let start = Instant::now();
    let outcome = common::sh("sleep 100").pid_ns().wall_time(Duration::from_millis(300)).status().unwrap();
    assert_eq!(outcome.verdict(), Verdict::WallTime);
    assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&start.elapsed()), "{:?}", start.elapsed());
    let outcome = common::sh("exit 4").pid_ns().wall_time(Duration::from_secs(100)).status().unwrap();
    assert_eq!(outcome.verdict(), Verdict::Exited(4));
}

#[test]
fn a_flood_of_output_stops_at_its_limit() {
    let _clean = common::clean();
    let output = probe::run(common::sandbox().pid_ns(), "flood").output_limit(Bytes::kib(100)).output().unwrap();
    assert_eq!(output.outcome.verdict(), Verdict::OutputLimit);
    assert_eq!(output.stdout.len(), 100 << 10);
    let output = common::sh("echo four").output_limit(5u64).output().unwrap();
    assert_eq!((output.outcome.verdict(), &output.stdout[..]), (Verdict::Exited(0), &b"four\n"[..]));
}

#[test]
fn rlimits_are_those_of_the_process() {
    let _clean = common::clean();
    let sandbox = common::sh("ulimit -n; ulimit -c; ulimit -Sf; ulimit -Hf");
    let sandbox = sandbox.rlimit(Resource::OpenFiles, 50, 60).rlimit(Resource::Core, 0, 0);
    assert_eq!(stdout(&sandbox.rlimit(Resource::FileSize, 512 * 3, 512 * 4)), "50\n0\n3\n4");
    let error = common::sh(":").rlimit(Resource::OpenFiles, 60, 50).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_hard_limit_is_raised_for_a_program_that_could_not() {
    let _clean = common::clean();
    if !caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap() {
        return common::skip("raising a hard limit takes CAP_SYS_RESOURCE", true);
    }
    let (_, own) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let (soft, hard) = (40, own + 1);
    let limited =
        |sandbox: Sandbox| stdout(&shell(sandbox, "ulimit -Sn; ulimit -Hn").rlimit(Resource::OpenFiles, soft, hard));
    let none = ringfence::Capabilities::none();
    for sandbox in [Sandbox::new(), Sandbox::new().user(1000, 1000), Sandbox::new().capabilities(none)] {
        assert_eq!(limited(sandbox), format!("{soft}\n{hard}"));
    }
}

#[test]
fn a_parent_shared_by_processes_goes_with_the_last_of_them() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    // A process of its own makes the parent, and ends while this one still has a sandbox in it.
    let parent = cgroup_parent();
    let exe = std::env::current_exe().unwrap();
    let maker = std::process::Command::new(exe)
        .env("RINGFENCE_PROBE", format!("spawn-below {}", parent.display()))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut maker = maker.unwrap();
    let mut line = [0; 3];
    std::io::Read::read_exact(maker.stdout.as_mut().unwrap(), &mut line).unwrap();
    let mut child = shell(common::sandbox().cgroup_parent(&parent).pids_limit(9), "read line");
    child = child.stdin(ringfence::Stdio::piped());
    let mut child = child.spawn().unwrap();
    drop(maker.stdin.take());
    assert!(maker.wait().unwrap().success());
    assert!(child.wait().unwrap().code().is_some());
    // The leak check looks for the parent.
}

/// A program that writes eight times four kilobytes.
fn writes() -> Sandbox {
    common::sh("i=0; while [ $i -lt 8 ]; do printf '%4096d' 0 || exit 9; i=$((i+1)); done").output_limit(10_000u64)
}

fn read_to_end(child: &mut ringfence::Child) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut bytes).unwrap();
    bytes
}

#[test]
fn output_is_limited_whoever_reads_it() {
    let _clean = common::clean();
    // By the caller.
    let mut child = writes().stdout(ringfence::Stdio::piped()).spawn().unwrap();
    assert_eq!(read_to_end(&mut child).len(), 10_000);
    assert!(child.stdout.as_ref().unwrap().is_truncated());
    assert_eq!(child.wait().unwrap().verdict(), Verdict::OutputLimit);
    // In a file, which may have something in it already.
    let dir = common::TempDir::new();
    let path = dir.path().join("out");
    fs::write(&path, "12345").unwrap();
    let file = || fs::OpenOptions::new().append(true).open(&path).unwrap();
    let outcome = writes().stdout(file()).status().unwrap();
    assert_eq!((outcome.verdict(), fs::metadata(&path).unwrap().len()), (Verdict::OutputLimit, 10_005));
    // Without the limit both are whole.
    let whole = writes().output_limit(1u64 << 30).output().unwrap();
    assert_eq!((whole.outcome.verdict(), whole.stdout.len(), whole.truncated), (Verdict::Exited(0), 32_768, false));
}

#[test]
fn output_that_is_cut_ends_nothing() {
    let _clean = common::clean();
    let output = writes().output_cut(true).output().unwrap();
    assert_eq!((output.outcome.verdict(), output.stdout.len(), output.truncated), (Verdict::Exited(0), 10_000, true));
    let mut child = writes().output_cut(true).stdout(ringfence::Stdio::piped()).spawn().unwrap();
    assert_eq!(read_to_end(&mut child).len(), 10_000);
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
}

#[test]
fn output_that_nobody_can_count_is_refused() {
    let _clean = common::clean();
    let (reader, writer) = std::io::pipe().unwrap();
    let sandbox = writes().stdout(writer.try_clone().unwrap());
    let error = sandbox.check().unwrap_err();
    assert!(error.problems()[0].feature == Some(Feature::OutputLimit), "{error}");
    assert_eq!(sandbox.spawn().unwrap_err().to_string(), error.to_string());
    let command = ringfence::Command::new("/bin/true").stdout(writer);
    let optional = writes().best_effort(Feature::OutputLimit).prepare().unwrap();
    let mut child = optional.with(&command).spawn().unwrap();
    assert!(matches!(child.enforced().get(Feature::OutputLimit), Some(Enforcement::Missing(_))));
    child.wait().unwrap();
    assert_eq!(writes().prepare().unwrap().with(command).spawn().unwrap_err().to_string(), error.to_string());
    let optional = sandbox.best_effort(Feature::OutputLimit).command("/bin/true");
    let mut child = optional.spawn().unwrap();
    assert!(matches!(child.enforced().get(Feature::OutputLimit), Some(Enforcement::Missing(_))));
    child.wait().unwrap();
    let mut own = writes().command("/bin/true").spawn().unwrap();
    assert!(matches!(own.enforced().get(Feature::OutputLimit), Some(Enforcement::Partial(_))));
    own.wait().unwrap();
    drop(reader);
}
