//! Scheduling, placement and settings of the kernel, as the program finds them.

use std::time::Duration;

use ringfence::{Command, ErrorKind, Namespaces, Scheduler, Step};
use ringfence::{IoPriority, MemoryPolicy, MemoryPolicyFlags, Personality, Resource, Sandbox};

use crate::common;

fn shell(sandbox: &Sandbox, script: &str) -> Sandbox {
    common::shell(sandbox.clone(), script)
}

/// Runs the script in the sandbox, and again as a further program of a sandbox that runs.
fn both(sandbox: &Sandbox, script: &str) -> [String; 2] {
    let first = common::stdout(&shell(sandbox, script));
    let child = sandbox.clone().command("sleep").arg("60").spawn().unwrap();
    let output = child.exec_output(Command::new("sh").args(["-c", script])).unwrap();
    assert!(output.outcome.success(), "{}", String::from_utf8_lossy(&output.stderr));
    [first, String::from_utf8_lossy(&output.stdout).trim().to_owned()]
}

/// Fields of /proc/self/stat, as proc_pid_stat(5) numbers them: priority, nice, rt_priority, policy.
const SCHEDULING: &str = "cut -d' ' -f18,19,40,41 /proc/self/stat";

#[test]
fn the_program_is_scheduled_as_asked_for() {
    let _clean = common::clean();
    let sandbox = |scheduler| common::sandbox().pid_ns().scheduler(scheduler);
    for (scheduler, expected) in
        [(Scheduler::other(3), "23 3 0 0"), (Scheduler::batch(19), "39 19 0 3"), (Scheduler::idle(), "20 0 0 5")]
    {
        assert_eq!(both(&sandbox(scheduler), SCHEDULING), [expected; 2], "{scheduler:?}");
        // An init hands it on.
        assert_eq!(common::stdout(&shell(&sandbox(scheduler).init(true), SCHEDULING)), expected);
    }
    let reset = sandbox(Scheduler::batch(19).reset_on_fork());
    let error = shell(&reset.clone().init(true), "true").spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    // A further program is forked into the pid namespace, and has it nevertheless.
    let child = reset.command("sleep").arg("60").spawn().unwrap();
    let output = child.exec_output(Command::new("cat").arg("/proc/self/stat")).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let fields: Vec<&str> = text.split(' ').collect();
    assert_eq!((fields[18], fields[40]), ("19", "3"), "{text}");
}

#[test]
fn realtime_is_had_or_refused_with_what_it_needs() {
    let _clean = common::clean();
    let sandbox = |scheduler| shell(&common::sandbox().scheduler(scheduler), SCHEDULING);
    for (scheduler, expected) in [(Scheduler::fifo(7), "-8 0 7 1"), (Scheduler::round_robin(1), "-2 0 1 2")] {
        match sandbox(scheduler).output() {
            Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected),
            Err(error) => {
                assert_eq!((error.step(), error.raw_os_error()), (Step::Scheduler, Some(libc::EPERM)), "{error}");
                assert!(error.to_string().contains("CAP_SYS_NICE"), "{error}");
            }
        }
    }
    if !common::is_root() {
        assert!(sandbox(Scheduler::fifo(7)).spawn().is_err());
    }
    let ms = Duration::from_millis;
    let deadline = Scheduler::deadline(ms(10), ms(100), ms(100)).reset_on_fork();
    match common::sandbox().scheduler(deadline).command("cat").arg("/proc/self/stat").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text.split(' ').nth(40), Some("6"), "{text}");
        }
        Err(error) => assert_eq!(error.step(), Step::Scheduler, "{error}"),
    }
}

#[test]
fn the_badness_for_the_oom_killer_is_raised() {
    let _clean = common::clean();
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let most = 1000;
    for sandbox in [common::sandbox().pid_ns(), common::sandbox().pid_ns().user_ns(), common::strict()] {
        let told = both(&sandbox.oom_score_adj(most), "cat /proc/self/oom_score_adj");
        assert_eq!(told, [most.to_string(), most.to_string()]);
    }
    let now: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(now, own, "the caller's own stays");
    match common::sandbox().oom_score_adj(-1000).command("cat").arg("/proc/self/oom_score_adj").output() {
        Ok(output) => assert_eq!(output.stdout, b"-1000\n"),
        Err(error) => {
            assert_eq!((error.step(), error.raw_os_error()), (Step::OomScoreAdj, Some(libc::EACCES)), "{error}");
            assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
        }
    }
}

#[test]
fn processors_and_disk_priority_are_set() {
    let _clean = common::clean();
    let last = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = last.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    let last: usize = allowed.rsplit([',', '-']).next().unwrap().parse().unwrap();
    let script = "sed -n 's/^Cpus_allowed_list:\\t//p' /proc/self/status; ionice -p $$";
    let sandbox = common::sandbox().pid_ns().cpu_affinity([last]).io_priority(IoPriority::best_effort(6));
    let expected = format!("{last}\nbest-effort: prio 6");
    assert_eq!(both(&sandbox, script), [expected.clone(), expected]);
    let idle = common::sandbox().pid_ns().io_priority(IoPriority::idle());
    assert_eq!(both(&idle, "ionice -p $$"), ["idle", "idle"]);
    let absent = common::sandbox().cpu_affinity([0, 8191]).spawn().unwrap_err();
    assert!(absent.to_string().contains("8191 among the processors"), "{absent}");
}

#[test]
fn the_execution_domain_is_set() {
    let _clean = common::clean();
    let none = Personality::ADDR_NO_RANDOMIZE | Personality::LINUX32;
    let sandbox = common::sandbox().pid_ns().personality(none);
    for text in both(&sandbox, "cat /proc/self/personality; sed -n '/stack/s/ .*//p' /proc/self/maps") {
        let (domain, stack) = text.split_once('\n').unwrap();
        assert_eq!(domain, "00040008");
        // The same in each run.
        let again = common::stdout(&shell(&sandbox, "sed -n '/stack/s/ .*//p' /proc/self/maps"));
        assert_eq!(stack, again);
    }
    if cfg!(target_arch = "x86_64") {
        assert_eq!(both(&sandbox, "uname -m"), ["i686", "i686"]);
    }
}

#[test]
fn memory_comes_from_the_named_nodes() {
    let _clean = common::clean();
    let script = "sed -n '1s/^[^ ]* \\([^ ]*\\).*/\\1/p' /proc/self/numa_maps";
    for (policy, expected) in [
        (MemoryPolicy::bind([0]), "bind:0"),
        (MemoryPolicy::bind([0]).flags(MemoryPolicyFlags::STATIC_NODES), "bind=static:0"),
        (MemoryPolicy::interleave([0]), "interleave:0"),
        (MemoryPolicy::preferred(0), "prefer:0"),
        (MemoryPolicy::local(), "local"),
        (MemoryPolicy::system_default(), "default"),
    ] {
        let sandbox = common::sandbox().pid_ns().memory_policy(policy);
        if !std::path::Path::new("/proc/self/numa_maps").exists() {
            let error = shell(&sandbox, "true").spawn().unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::MemoryPolicy, Some(libc::ENOSYS)), "{error}");
            return;
        }
        assert_eq!(both(&sandbox, script), [expected, expected]);
    }
    let absent = common::sandbox().memory_policy(MemoryPolicy::bind([500])).command("true").spawn().unwrap_err();
    assert_eq!((absent.step(), absent.raw_os_error()), (Step::MemoryPolicy, Some(libc::EINVAL)), "{absent}");
}

#[test]
fn settings_are_the_sandboxes_and_not_the_hosts() {
    let _clean = common::clean();
    let files =
        ["net/ipv4/ip_unprivileged_port_start", "net/ipv4/conf/lo/forwarding", "kernel/shm_rmid_forced", "kernel/sem"];
    let read = |file: &&str| std::fs::read_to_string(format!("/proc/sys/{file}")).unwrap_or_default();
    let before: Vec<String> = files.iter().map(read).collect();
    let user = if common::is_root() { common::sandbox() } else { common::sandbox().user_ns() };
    for sandbox in [user, common::sandbox().user_ns(), common::strict()] {
        let sandbox = sandbox.pid_ns().net_ns().ipc_ns();
        let sandbox =
            sandbox.sysctl("net.ipv4.ip_unprivileged_port_start", "77").sysctl("net/ipv4/conf/lo/forwarding", "1");
        let told = common::stdout(&shell(
            &sandbox,
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/conf/lo/forwarding",
        ));
        assert_eq!(told.split_whitespace().collect::<Vec<_>>(), ["77", "1"]);
    }
    if common::is_root() {
        let sandbox = common::sandbox().pid_ns().ipc_ns().sysctl("kernel.shm_rmid_forced", "1");
        let sandbox = sandbox.sysctl("kernel.sem", "32000 1024000000 500 32001").sysctl("fs.mqueue.msg_max", "12");
        let told = common::stdout(&shell(
            &sandbox,
            "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/sem /proc/sys/fs/mqueue/msg_max",
        ));
        let told: Vec<&str> = told.split_whitespace().collect();
        assert_eq!(told, ["1", "32000", "1024000000", "500", "32001", "12"]);
    }
    let after: Vec<String> = files.iter().map(read).collect();
    assert_eq!(before, after);
    for (sandbox, remedy) in [
        (common::sandbox().sysctl("net.ipv4.ip_forward", "1"), "net_ns()"),
        (common::sandbox().net_ns().sysctl("kernel.shmmax", "1"), "ipc_ns()"),
        (common::sandbox().net_ns().ipc_ns().uts_ns().sysctl("kernel.core_pattern", "|/bin/sh"), "leave it out"),
        (common::sandbox().net_ns().sysctl("net/../kernel/core_pattern", "|/bin/sh"), "somaxconn"),
    ] {
        let error = sandbox.spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
    let unknown = common::sandbox().user_ns().net_ns().sysctl("net.no.such", "1").command("true").spawn().unwrap_err();
    assert_eq!((unknown.step(), unknown.raw_os_error()), (Step::Sysctl, Some(libc::ENOENT)), "{unknown}");
}

#[test]
fn settings_of_namespaces_that_come_after_a_join_are_not_the_hosts() {
    let _clean = common::clean();
    const FILE: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let before = std::fs::read_to_string(FILE).unwrap();
    let mut held = common::sandbox().user_ns().command("/bin/sleep").arg("1000").spawn().unwrap();
    let joining = Sandbox::new().join_pid(Namespaces::USER, held.id()).net_ns();
    let setting = joining.clone().sysctl("net.ipv4.ip_unprivileged_port_start", "1001").command("true");
    let error = setting.spawn().and_then(|mut child| child.wait()).map(drop).unwrap_err();
    let after = std::fs::read_to_string(FILE).unwrap();
    if after != before {
        std::fs::write(FILE, &before).unwrap();
    }
    assert_eq!(before, after);
    assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("sysctl"), "{error}");
    held.kill().unwrap();
    held.wait().unwrap();
}

#[test]
fn every_limit_of_a_process_has_a_name() {
    let _clean = common::clean();
    let sandbox = common::sandbox().rlimit(Resource::Locks, 5, 5).rlimit(Resource::ResidentSet, 6, 6);
    let told = common::stdout(&shell(&sandbox, "grep -E '^Max (resident|file locks)' /proc/self/limits"));
    let words: Vec<&str> = told.split_whitespace().filter(|word| word.parse::<u32>().is_ok()).collect();
    assert_eq!(words, ["6", "6", "5", "5"]);
}
