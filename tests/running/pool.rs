//! Sandboxes that stand ready: programs are told late, and everything else holds as in a spawn.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio as StdStdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{self, TempDir, cgroup_parent, clean, eventually, no_cgroups, probe, root_dir, sandbox, strict};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence::{
    Action, Bind, Command, ErrorKind, Landlock, Namespaces, Pool, Prepared, RootFs, Rule, Sandbox, Seccomp, Stdio,
    Step, Verdict,
};

common::callers! {
    "owns-pools" => owns_pools(),
}

const PATIENCE: Duration = Duration::from_secs(20);

/// All namespaces, on the host's root.
fn full() -> Sandbox {
    let kinds = Namespaces::PID | Namespaces::MOUNT | Namespaces::IPC | Namespaces::UTS | Namespaces::CGROUP;
    sandbox().namespaces(kinds | Namespaces::NET).rootfs(RootFs::host())
}

#[track_caller]
fn ready(sandbox: &Sandbox, size: usize) -> Pool {
    let pool = sandbox.pool(size).unwrap();
    pool.wait_ready(PATIENCE).unwrap();
    pool
}

fn sh(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

/// What `script` writes in a sandbox that was ready.
#[track_caller]
fn said(pool: &Pool, command: impl Into<Command>) -> String {
    pool.wait_ready(PATIENCE).unwrap();
    let hits = pool.stats().hits;
    let output = pool.output(command).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.outcome.success(), "{}: {complaint}", output.outcome.verdict());
    assert_eq!(pool.stats().hits, hits + 1, "it was not ready");
    String::from_utf8(output.stdout).unwrap()
}

/// The processes of this one that wait for their program.
fn waiting() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<i32> =
        children.flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect();
    let is_stub =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "ringfence-stub");
    pids.into_iter().filter(is_stub).collect()
}

/// The threads that make sandboxes. A thread that one of them has just started has its name, too.
fn threads() -> BTreeSet<OsString> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: &DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.filter(|task| name(task).trim() == "ringfence-pool").map(|task| task.file_name()).collect()
}

fn has_thread() -> bool {
    !threads().is_empty()
}

#[test]
fn a_program_is_told_with_all_that_belongs_to_it() {
    let _clean = clean();
    let pool = ready(&full().env("A", "policy").cwd("/usr"), 2);
    assert_eq!(
        said(&pool, sh("echo $A $B $(pwd) $0 $1").arg("zero").arg("one").env("B", "2")),
        "policy 2 /usr zero one\n"
    );
    assert_eq!(said(&pool, sh("echo ${A-none}; pwd").env_remove("A").cwd("/tmp")), "none\n/tmp\n");
    let long = "x".repeat(100 << 10);
    assert_eq!(said(&pool, sh("echo ${#LONG}").env("LONG", &long)), format!("{}\n", long.len()));
    pool.wait_ready(PATIENCE).unwrap();
    let mut child = pool.spawn(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    child.stdin.take().unwrap().write_all(b"through pipes").unwrap();
    let mut read = String::new();
    child.stdout.take().unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "through pipes");
    assert!(child.wait().unwrap().success());
    assert_eq!(said(&pool, "pwd"), "/usr\n");
    // stdin, stdout and stderr, and nothing else.
    let fds = said(&pool, sh("for fd in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$fd && echo $fd; done; true"));
    assert_eq!(fds, "0\n1\n2\n");
    let error = pool.spawn("/no/such/program").unwrap_err();
    assert_eq!((error.kind(), error.step(), error.raw_os_error()), (ErrorKind::Exec, Step::Exec, Some(libc::ENOENT)));
    let error = pool.spawn(Command::new("true").cwd("/no/such/place")).unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::ENOENT)), "{error}");
    assert_eq!(pool.spawn(Command::new("a\0b")).unwrap_err().kind(), ErrorKind::Invalid);
    let mut killed = pool.spawn(sh("sleep 1000")).unwrap();
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().verdict(), Verdict::Signaled(libc::SIGKILL));
}

#[test]
fn descriptors_that_the_policy_passes_come_along() {
    let _clean = clean();
    let dir = TempDir::new();
    let open = |name: &str| {
        fs::write(dir.path().join(name), name).unwrap();
        fs::File::open(dir.path().join(name)).unwrap()
    };
    // 6 and 7 are numbers that the setup itself uses.
    let pool = ready(&full().fd(3, open("three")).fd(6, open("six")).fd(7, open("seven")).fd(9, open("nine")), 1);
    assert_eq!(said(&pool, sh("cat <&3; cat <&6; cat <&7; cat <&9")), "threesixsevennine");
}

/// A pool of one sandbox that is ready, or one without any, which makes a sandbox for each spawn.
#[test]
fn a_programs_own_descriptors_are_its_alone() {
    let _clean = clean();
    let open = "for fd in $(seq 0 20); do test -e /proc/$$/fd/$fd && printf $fd,; done; true";
    let rules = Landlock::new().execute("/").read("/").write("/dev");
    let walled = full().seccomp(Seccomp::default()).rlimit(ringfence::Resource::OpenFiles, 32, 32);
    let policies = [
        ("all namespaces", full(), vec![]),
        ("an init", full().init(true), vec![]),
        ("no namespace", Sandbox::new(), vec![]),
        ("the preset", strict(), vec![]),
        ("walls", walled, vec![]),
        ("descriptors of the policy", full(), vec![4, 7, 9]),
    ];
    let landlocked = full().landlock(rules);
    let landlocked = landlocked.check().is_ok().then_some(("Landlock", landlocked, vec![]));
    for (name, policy, policys) in policies.into_iter().chain(landlocked) {
        let policy = policys.iter().fold(policy, |policy, number| policy.fd(*number, common::text("policy")));
        for size in [1, 0] {
            let pool = ready(&policy, size);
            let said = |command: Command| {
                pool.wait_ready(PATIENCE).unwrap();
                let output = pool.output(command).unwrap();
                let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.outcome.success(), "{name}, {size}: {}: {complaint}", output.outcome.verdict());
                String::from_utf8(output.stdout).unwrap()
            };
            let numbers = |own: &[i32]| {
                let mut all = [&[0, 1, 2], own, &policys].concat();
                all.sort();
                all.iter().map(|number| format!("{number},")).collect::<String>()
            };
            let (mut ours, theirs) = std::io::pipe().unwrap();
            let one = sh(&format!("cat <&3; printf done >&6; cat <&8; {open}"));
            let one = one.fd(8, common::text("two")).fd(6, theirs).fd(3, common::text("one "));
            assert_eq!(said(one.clone()), format!("one two{}", numbers(&[3, 6, 8])), "{name}, {size}");
            let other = sh(&format!("cat <&3; {open}")).fd(3, common::text("other"));
            assert_eq!(said(other), format!("other{}", numbers(&[3])), "{name}, {size}");
            assert_eq!(said(sh(open)), numbers(&[]), "{name}, {size}");
            // It is still open here, and another program writes to the same pipe.
            assert_eq!(said(one.clone()), numbers(&[3, 6, 8]), "{name}, {size}");
            pool.wait_ready(PATIENCE).unwrap();
            drop(one);
            let mut written = String::new();
            ours.read_to_string(&mut written).unwrap();
            assert_eq!(written, "donedone", "{name}, {size}: none that waits holds the pipe open");
            let stats = pool.stats();
            assert_eq!((stats.hits, stats.misses), if size == 1 { (4, 0) } else { (0, 4) }, "{name}");
        }
    }
}

/// One message carries 253 of them.
#[test]
fn as_many_descriptors_as_the_caller_may_open_are_passed_to_a_program() {
    let _clean = clean();
    for size in [1, 0] {
        let pool = ready(&full(), size);
        let command =
            (3..403).rev().fold(sh("ls /proc/self/fd | wc -l; cat <&3; cat /proc/self/fd/402"), |command, number| {
                command.fd(number, common::text(&format!("{number} ")))
            });
        let output = pool.output(&command).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "404\n3 402 ", "{size}");
        assert_eq!(pool.stats().hits, size as u64);
    }
}

#[test]
fn descriptors_that_cannot_be_passed_are_refused() {
    let _clean = clean();
    let pool = ready(&full().fd(5, common::text("")), 1);
    let twice = Command::new("true").fd(3, common::text("")).fd(3, common::text(""));
    let cases = [
        ("a stream", Command::new("true").fd(0, common::text("")), ErrorKind::Invalid),
        ("no number", Command::new("true").fd(-1, common::text("")), ErrorKind::Invalid),
        ("the policy's", Command::new("true").fd(5, common::text("")), ErrorKind::Invalid),
        ("taken twice", twice, ErrorKind::Invalid),
        ("beyond RLIMIT_NOFILE", Command::new("true").fd(65_000, common::text("")), ErrorKind::Unsupported),
    ];
    for (name, command, kind) in cases {
        let error = pool.spawn(&command).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert_eq!(pool.prepared().with(&command).spawn().unwrap_err().kind(), kind, "{name}");
    }
    assert_eq!((pool.stats().hits, pool.stats().misses, pool.stats().ready), (0, 0, 1), "none was used up");
    // Where the sandboxes of root have an id each, that id shall own nothing on the host.
    let dir = TempDir::new();
    let command = Command::new("/bin/ls").arg("/proc/self/fd/3/").fd(3, fs::File::open(dir.path()).unwrap());
    let given = full().user_ns();
    match given.pool(1).unwrap().status(&command) {
        Err(error) if common::is_root() => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
        result => assert!(!common::is_root() && result.unwrap().success()),
    }
    let mapped = given.uid_map(ringfence::IdMap::new(0, uid(), 1)).gid_map(ringfence::IdMap::new(0, gid(), 1));
    assert!(mapped.pool(1).unwrap().status(&command).unwrap().success());
}

fn uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

fn gid() -> u32 {
    nix::unistd::getgid().as_raw()
}

#[test]
fn without_a_sandbox_that_is_ready_a_spawn_makes_its_own() {
    let _clean = clean();
    let none = full().pool(0).unwrap();
    assert_eq!(none.output(sh("echo $$")).unwrap().stdout, b"1\n");
    assert_eq!((none.stats().hits, none.stats().misses, none.stats().refills), (0, 1, 0));
    let pool = ready(&full(), 2);
    let children: Vec<_> = (0..6).map(|_| pool.spawn(sh("exit 3")).unwrap()).collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
    let stats = pool.stats();
    assert!(stats.hits >= 2 && stats.hits + stats.misses == 6, "{stats:?}");
    pool.wait_ready(PATIENCE).unwrap();
    let stats = pool.stats();
    assert_eq!((stats.size, stats.ready, stats.failures, stats.died), (2, 2, 0, 0));
    assert!(stats.refills >= stats.hits + 2 && stats.refill_time > Duration::ZERO, "{stats:?}");
}

#[test]
fn one_that_has_died_is_replaced_and_never_handed_out() {
    let _clean = clean();
    let pool = ready(&full(), 2);
    let old = waiting();
    assert_eq!(old.len(), 2);
    for pid in &old {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    }
    eventually("the dead are replaced", || pool.stats().died == 2 && pool.stats().ready == 2);
    assert!(waiting().iter().all(|pid| !old.contains(pid)));
    assert!(pool.status("true").unwrap().success());
    // However the two race: a spawn gives a program that runs.
    for round in 0..40 {
        pool.wait_ready(PATIENCE).unwrap();
        let doomed = waiting();
        let end = move || {
            for pid in doomed {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        };
        let killer = thread::spawn(end);
        let result = pool.output(sh("echo alive"));
        killer.join().unwrap();
        match result {
            Ok(output) => match output.outcome.verdict() {
                Verdict::Exited(0) => assert_eq!(output.stdout, b"alive\n"),
                // The killer came after the exec.
                verdict => assert_eq!(verdict, Verdict::Signaled(libc::SIGKILL), "round {round}"),
            },
            Err(error) => panic!("round {round}: {error}"),
        }
    }
}

#[test]
fn a_pool_that_shrinks_or_goes_leaves_nothing() {
    let _clean = clean();
    let layer = root_dir();
    let mut policy =
        sandbox().namespaces(Namespaces::PID | Namespaces::NET).rootfs(RootFs::overlay([layer.path()]).scratch());
    policy = policy.mount(Bind::new("/usr", "/usr").read_only());
    if common::is_root() {
        policy = policy.cgroup_parent(cgroup_parent()).memory_limit(64 << 20).pids_limit(16);
    }
    let pool = ready(&policy, 5);
    assert_eq!(waiting().len(), 5);
    pool.resize(2);
    assert_eq!((waiting().len(), pool.stats().ready, pool.stats().size), (2, 2, 2));
    pool.resize(4);
    pool.wait_ready(PATIENCE).unwrap();
    assert_eq!(waiting().len(), 4);
    let other = ready(&full(), 1);
    let mut child = pool.spawn(sh("sleep 0.3; exit 5")).unwrap();
    drop(pool);
    assert_eq!(waiting().len(), 1, "that of the other pool");
    assert!(has_thread());
    drop(other);
    eventually("the thread has ended", || !has_thread());
    assert!(waiting().is_empty());
    assert_eq!(child.wait().unwrap().code(), Some(5), "a program outlives the pool that it is from");
    for _ in 0..20 {
        // Dropped while the first sandbox is being made.
        drop(full().pool(3).unwrap());
    }
    eventually("nothing waits", || waiting().is_empty() && !has_thread());
}

#[test]
fn nothing_of_a_run_is_there_in_the_next() {
    let _clean = clean();
    let mut policy = full().hostname("fresh").mount(ringfence::Tmpfs::new("/mnt"));
    let has_cgroups = !no_cgroups();
    if has_cgroups {
        policy = policy.cgroup_parent(cgroup_parent()).memory_limit(256 << 20).pids_limit(64);
    }
    let pool = ready(&policy, 1);
    let look = "ls -A /tmp /mnt /dev/shm | grep -c mark; set -- /proc/[0-9]*; echo $#; ipcs -m | grep -c 0x; \
                ipcs -q | grep -c 0x; echo ${MARK-unset}; hostname; cat /proc/net/tcp | grep -c 0100007F; \
                cat /proc/sys/net/ipv4/ip_default_ttl; grep -c : /proc/net/unix; umask; true";
    let fresh = said(&pool, sh(look));
    let lines: Vec<&str> = fresh.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3], lines[4]), ("0", "0", "0", "unset"), "{fresh}");
    // Leaves what can be left, processes that will not go by themselves included.
    let soil = "echo > /tmp/mark; echo > /mnt/mark; echo > /dev/shm/mark; ipcmk -M 4096 >/dev/null; ipcmk -Q >/dev/null; \
                hostname soiled 2>/dev/null; echo 7 > /proc/sys/net/ipv4/ip_default_ttl 2>/dev/null; umask 777; \
                head -c 50m /dev/zero > /tmp/mark-large; (trap '' TERM HUP; sleep 1000) & ls -A /tmp | grep -c mark; \
                ipcs -m | grep -c 0x";
    for _ in 0..3 {
        let soiled = said(&pool, sh(soil).env("MARK", "set"));
        assert_eq!(soiled, "2\n1\n", "nothing was left that could be found");
        assert_eq!(said(&pool, sh(look)), fresh);
    }
    if has_cgroups {
        pool.wait_ready(PATIENCE).unwrap();
        let outcome = pool.status("true").unwrap();
        let peak = outcome.usage().peak_memory.unwrap();
        assert!(peak.get() < 24 << 20, "counted on from the run before: {peak}");
    }
}

#[test]
fn limits_and_usage_count_from_the_spawn() {
    let _clean = clean();
    let mut policy = full().wall_time(Duration::from_millis(700)).output_limit(1 << 20);
    let has_cgroups = !no_cgroups();
    if has_cgroups {
        policy = policy.cgroup_parent(cgroup_parent()).memory_limit(256 << 20);
    }
    let pool = ready(&policy, 2);
    thread::sleep(Duration::from_millis(900));
    let outcome = pool.status(sh("sleep 0.1")).unwrap();
    assert!(outcome.success(), "{}", outcome.verdict());
    let usage = outcome.usage();
    assert!(usage.wall >= Duration::from_millis(20) && usage.wall < Duration::from_millis(700), "{usage:?}");
    assert_eq!(pool.stats().hits, 1);
    assert_eq!(pool.status(sh("sleep 100")).unwrap().verdict(), Verdict::WallTime);
    pool.wait_ready(PATIENCE).unwrap();
    assert_eq!(pool.output(sh("yes")).unwrap().outcome.verdict(), Verdict::OutputLimit);
    if has_cgroups {
        let pool = ready(&full().cgroup_parent(cgroup_parent()).cpu_time(Duration::from_millis(200)), 1);
        let outcome = pool.status(sh("while :; do :; done")).unwrap();
        assert_eq!((outcome.verdict(), pool.stats().hits), (Verdict::CpuTime, 1));
        pool.wait_ready(PATIENCE).unwrap();
        let used = pool.status("true").unwrap().usage();
        assert!(used.user + used.system < Duration::from_millis(100), "{used:?}");
        // A setup that takes much longer than its program.
        let tmpfs = (0..100).map(|i| ringfence::Tmpfs::new(format!("/mnt/{i}")));
        let heavy = full().mount(ringfence::Tmpfs::new("/mnt")).cgroup_parent(cgroup_parent()).memory_limit(256 << 20);
        let heavy = tmpfs.fold(heavy, Sandbox::mount).cpu_time(PATIENCE);
        let cpu = |outcome: ringfence::Outcome| outcome.usage().user + outcome.usage().system;
        let spawned = cpu(heavy.clone().command("true").status().unwrap());
        let pooled = cpu(ready(&heavy, 1).status("true").unwrap());
        assert!(pooled * 2 < spawned, "{pooled:?} in the pool, {spawned:?} in a spawn");
    }
}

/// What a program can find out about the policy that it stands under.
const FACTS: &str = "cat /proc/self/status | grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap|SigBlk|SigIgn|Umask|NSpid)'; \
                     ulimit -a; cut -d' ' -f2-4 /proc/self/mounts | grep -vE '^/(tmp|work|mnt)/'; cat /proc/self/uid_map; hostname; umask; ls /proc/self/fd; \
                     ls -A / /dev; cat /proc/self/oom_score_adj; grep -c . /proc/net/dev; echo $PPID $$; env; ps -o sid= $$";

fn is_id(option: &str) -> bool {
    option.starts_with("uid=") || option.starts_with("gid=")
}

#[test]
fn the_whole_policy_is_in_force_as_in_a_spawn() {
    let _clean = clean();
    let rules = Landlock::new().execute("/").read("/").write("/dev").scope_signals();
    let policies = [
        strict(),
        full().seccomp(Seccomp::default()).umask(0o27).rlimit(ringfence::Resource::OpenFiles, 33, 44),
        full().init(true).no_new_privs(true).hostname("box"),
        sandbox().user_ns().pid_ns().net_ns().rootfs(RootFs::host()),
        Sandbox::new().session(ringfence::Session::New),
        Sandbox::new().seccomp(Seccomp::compute()),
    ];
    let landlocked = full().landlock(rules);
    let landlocked = landlocked.check().is_ok().then_some(landlocked);
    for (i, policy) in policies.into_iter().chain(landlocked).enumerate() {
        let pool = ready(&policy, 1);
        let spawned = policy.clone().command("/bin/sh").args(["-c", FACTS]).output().unwrap();
        pool.wait_ready(PATIENCE).unwrap();
        let pooled = pool.output(sh(FACTS)).unwrap();
        assert_eq!(pool.stats().hits, 1);
        assert_eq!(pooled.outcome.verdict(), spawned.outcome.verdict(), "policy {i}");
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            // Outside of a pid namespace pids are of the host, and of the shell's children in any.
            let own = |line: &&str| !line.starts_with("NSpid") && !line.chars().all(|c| c.is_ascii_digit() || c == ' ');
            // Each sandbox of root's has another id outside, which the mounts that it makes tell.
            let ids = |line: &str| line.split(',').filter(|option| !is_id(option)).collect::<Vec<_>>().join(",");
            text.lines().filter(own).map(ids).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(text(&pooled.stdout), text(&spawned.stdout), "policy {i}");
        assert_eq!(pool.prepared().enforced(), &policy.check().unwrap());
    }
}

#[test]
fn what_waits_is_closed_to_others_and_holds_no_stream() {
    let _clean = clean();
    let mut policy = full();
    if common::is_root() {
        policy = policy.user(65534, 65534);
    }
    let (ours, theirs) = nix::unistd::pipe().unwrap();
    let _pool = ready(&policy.stdout(theirs), 1);
    let pid = waiting()[0];
    let process = format!("/proc/{pid}");
    // A process of the same user, with power over no other.
    let other = if common::is_root() { Sandbox::new().user(65534, 65534) } else { sandbox() };
    let reads = |file: &str| other.clone().command("cat").arg(format!("{process}/{file}")).output().unwrap();
    let status = reads("status");
    assert!(String::from_utf8_lossy(&status.stdout).contains("Name:\tringfence-stub"), "it cannot see it at all");
    for file in ["environ", "maps", "auxv"] {
        assert!(!reads(file).outcome.success(), "{file} can be read");
    }
    if let Ok(held) = fs::read_dir(format!("{process}/fd")) {
        let links: Vec<_> = held.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        let own = |fd: &str| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        assert!(!links.contains(&own("1")) && !links.contains(&own("2")), "{links:?}");
        let pipe = own(&std::os::fd::AsRawFd::as_raw_fd(&ours).to_string());
        assert!(!links.contains(&pipe), "{links:?}");
    }
}

#[test]
fn what_was_looked_up_stays_until_it_is_cleared() {
    let _clean = clean();
    let dir = TempDir::new();
    let shown = dir.path().join("shown");
    fs::create_dir(&shown).unwrap();
    fs::write(shown.join("file"), "old").unwrap();
    let pool = ready(&full().bind_ro(&shown, "/mnt"), 1);
    fs::rename(&shown, dir.path().join("away")).unwrap();
    fs::create_dir(&shown).unwrap();
    fs::write(shown.join("file"), "new").unwrap();
    assert_eq!(said(&pool, sh("cat /mnt/file")), "old");
    assert_eq!(said(&pool, sh("cat /mnt/file")), "new");
    fs::write(dir.path().join("away/file"), "older").unwrap();
    fs::rename(&shown, dir.path().join("new")).unwrap();
    fs::rename(dir.path().join("away"), &shown).unwrap();
    pool.clear();
    assert_eq!(said(&pool, sh("cat /mnt/file")), "older");
    fs::rename(&shown, dir.path().join("gone")).unwrap();
    pool.clear();
    let error = pool.wait_ready(PATIENCE).unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::OpenTree, Some(libc::ENOENT)), "{error}");
    assert!(pool.status("true").is_err() && pool.stats().failures > 0);
    fs::rename(dir.path().join("gone"), &shown).unwrap();
    eventually("it recovers", || pool.stats().ready == 1);
    assert!(pool.status("true").unwrap().success());
}

#[test]
fn many_threads_and_pools_share_few_threads() {
    let _clean = clean();
    let pools = [ready(&full(), 3), ready(&full().init(true), 2)];
    thread::scope(|scope| {
        for number in 0..4 {
            let pool = &pools[number % 2];
            scope.spawn(move || {
                for run in 0..15 {
                    let word = format!("{number} {run}");
                    let output = pool.output(Command::new("echo").arg(&word)).unwrap();
                    assert_eq!(output.stdout, format!("{word}\n").as_bytes());
                }
            });
        }
    });
    let all = pools.iter().map(|pool| pool.stats().hits + pool.stats().misses).sum::<u64>();
    assert_eq!(all, 60);
    eventually("those that nobody needs end", || threads().len() == 1);
}

fn most_threads() -> usize {
    thread::available_parallelism().unwrap().get().min(4)
}

#[test]
fn a_try_starts_a_program_only_where_a_sandbox_is_ready() {
    let _clean = clean();
    for size in [0, 1, 3] {
        let pool = ready(&full(), size);
        let held = thread::scope(|scope| {
            let tries = (0..8).map(|_| scope.spawn(|| pool.try_spawn(sh("exit 7")).unwrap()));
            let tries: Vec<_> = tries.collect();
            tries.into_iter().filter_map(|handle| handle.join().unwrap()).collect::<Vec<_>>()
        });
        let stats = pool.stats();
        assert_eq!((stats.hits, stats.declined, stats.misses), (held.len() as u64, 8 - held.len() as u64, 0), "{size}");
        assert!(held.len() >= size && (size > 0 || held.is_empty()), "{size}: {stats:?}");
        for mut child in held {
            assert_eq!(child.wait().unwrap().code(), Some(7));
        }
    }
    let pool = ready(&full(), 1);
    let refused = [Command::new("a\0b"), Command::new("true").fd(0, common::text(""))];
    for command in refused {
        assert_eq!(pool.try_spawn(command).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(pool.try_spawn("/no/such/program").unwrap_err().kind(), ErrorKind::Exec);
    pool.wait_ready(PATIENCE).unwrap();
    let passed = sh("cat <&3").fd(3, common::text("passed")).stdout(Stdio::piped());
    let mut child = pool.try_spawn(&passed).unwrap().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!((text.as_str(), pool.stats().misses), ("passed", 0));
}

/// A sandbox that takes many times as long to make as to start a program in, and shows `source`, which the maker opens
/// at the beginning.
fn slow(source: &Path) -> Sandbox {
    let tmpfs = (0..60).map(|i| ringfence::Tmpfs::new(format!("/mnt/{i}")));
    tmpfs.fold(full().bind_ro(source, "/mnt"), Sandbox::mount)
}

/// What is called while several sandboxes are in the making: how many are ready in the end, and whether any may have
/// been begun before.
#[test]
fn those_in_the_making_are_what_was_asked_for_last() {
    let _clean = clean();
    type Ask = fn(&Pool);
    let asks: [(&str, Ask, usize, bool); 5] = [
        ("clear", |pool| pool.clear(), 4, false),
        ("clear twice", |pool| (0..2).for_each(|_| pool.clear()), 4, false),
        ("resize down, and clear", |pool| (pool.resize(1), pool.clear()).1, 1, false),
        ("resize to none and back", |pool| (pool.resize(0), pool.resize(3)).1, 3, true),
        ("resize down", |pool| pool.resize(1), 1, true),
    ];
    let dir = TempDir::new();
    let make = |path: &Path, text: &str| {
        (0..60).for_each(|i| fs::create_dir_all(path.join(i.to_string())).unwrap());
        fs::write(path.join("file"), text).unwrap();
    };
    let (shown, aside) = (dir.path().join("shown"), dir.path().join("aside"));
    make(&shown, "old");
    make(&aside, "new");
    let exchange = || {
        let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &aside, nix::fcntl::AT_FDCWD, &shown, exchange).unwrap();
    };
    for (name, ask, size, may_be_old) in asks {
        for delay in [0, 1, 2, 4, 8, 16] {
            let pool = slow(&shown).pool(4).unwrap();
            thread::sleep(Duration::from_millis(delay));
            exchange();
            ask(&pool);
            pool.wait_ready(PATIENCE).unwrap();
            // Those that are not wanted any more are finished by then.
            thread::sleep(Duration::from_millis(40));
            let stats = pool.stats();
            assert_eq!(
                (stats.size, stats.ready, stats.failures),
                (size, size, 0),
                "{name} after {delay} ms: {stats:?}"
            );
            let seen = (0..size).map(|_| pool.output(sh("cat /mnt/file")).unwrap().stdout);
            let seen: Vec<_> = seen.map(|text| String::from_utf8(text).unwrap()).collect();
            assert!(seen.iter().all(|text| text == "new" || may_be_old), "{name} after {delay} ms: {seen:?}");
            // Dropped while others are being made.
            drop(pool);
            exchange();
            eventually("nothing waits", || waiting().is_empty() && !has_thread());
        }
    }
}

#[test]
fn several_are_made_at_once_and_each_pool_has_its_turn() {
    let _clean = clean();
    let dir = TempDir::new();
    (0..60).for_each(|i| fs::create_dir(dir.path().join(i.to_string())).unwrap());
    let prepared = slow(dir.path()).prepare().unwrap();
    let pools: Vec<Pool> = (0..3).map(|_| Pool::new(&prepared, 12).unwrap()).collect();
    let (mut most, mut seen) = (0, BTreeSet::new());
    let until = Instant::now() + PATIENCE;
    while pools.iter().any(|pool| pool.stats().ready < 12) {
        let ready: Vec<usize> = pools.iter().map(|pool| pool.stats().ready).collect();
        let (least, largest) = (ready.iter().min().unwrap(), ready.iter().max().unwrap());
        // The first pool may have some before there is another.
        assert!(largest - least <= 2 * most_threads(), "{ready:?}");
        let now = threads();
        most = most.max(now.intersection(&seen).count());
        seen = now;
        assert!(Instant::now() < until, "{ready:?}");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(most >= most_threads(), "{most} threads");
    let kept: Vec<_> = pools.iter().map(|pool| pool.spawn("true").unwrap()).collect();
    drop(pools);
    eventually("nothing waits", || waiting().is_empty() && !has_thread());
    kept.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
}

#[test]
fn a_supervised_policy_is_refused() {
    let _clean = clean();
    let asks = Seccomp::default().rule(Rule::new(["mkdir", "mkdirat"], Action::Notify));
    let error = Sandbox::new().seccomp(asks).pool(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("supervisor"), "{error}");
    assert_eq!(Sandbox::new().hostname("x").pool(1).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn in_a_fork_of_the_caller_the_pool_has_no_power() {
    let _clean = clean();
    let mut policy = full();
    if !no_cgroups() {
        policy = policy.cgroup_parent(cgroup_parent()).memory_limit(64 << 20);
    }
    let pool = ready(&policy, 2);
    // The thread sleeps by then: in a fork nobody would ever drop what it holds.
    thread::sleep(Duration::from_millis(100));
    let before = waiting();
    // SAFETY: the C library of Linux lets the fork of a process with threads allocate.
    match unsafe { libc::fork() } {
        0 => {
            let refused = pool.spawn("true").is_err_and(|error| error.kind() == ErrorKind::Control);
            let refused = refused && pool.wait_ready(Duration::ZERO).is_err();
            pool.resize(0);
            pool.clear();
            drop(pool);
            // SAFETY: ends the process at once, without the handlers of the original.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        pid => {
            let status = nix::sys::wait::waitpid(Pid::from_raw(pid), None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(Pid::from_raw(pid), 0));
        }
    }
    assert_eq!(waiting(), before, "those that wait still do");
    assert_eq!((said(&pool, sh("echo $$")).as_str(), pool.stats().died), ("1\n", 0));
}

fn owns_pools() -> ! {
    let base = || common::sandbox().stdin(Stdio::null());
    let policies = [base(), base().pid_ns(), base().pid_ns().init(true), base().die_with_owner(false)];
    let pools: Vec<Pool> = policies.iter().map(|policy| ready(policy, 2)).collect();
    println!("{}", waiting().iter().map(i32::to_string).collect::<Vec<_>>().join(" "));
    // A fork holds the owner's descriptors on, and outlives it for a while.
    // SAFETY: the fork only sleeps, and ends.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: as above.
        unsafe {
            libc::sleep(20);
            libc::_exit(0);
        }
    }
    println!("forked");
    loop {
        thread::park();
        assert_eq!(pools.len(), 4);
    }
}

#[test]
fn those_that_wait_die_with_a_killed_owner() {
    let _clean = clean();
    let mut owner = probe::caller("owns-pools").stdin(StdStdio::null()).stdout(StdStdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let pids: Vec<i32> = lines.next().unwrap().unwrap().split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(lines.next().unwrap().unwrap(), "forked");
    let is_stub =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "ringfence-stub");
    let is_zombie = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"));
    assert_eq!(pids.len(), 8);
    assert!(pids.iter().all(is_stub));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|pid| is_stub(pid) && !is_zombie(pid)) {
        assert!(Instant::now() < until, "they outlive their owner");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_pool_is_made_of_what_is_prepared() {
    let _clean = clean();
    let prepared: Prepared = full().prepare().unwrap();
    let pool = Pool::new(&prepared, 1).unwrap();
    pool.wait_ready(PATIENCE).unwrap();
    assert!(Path::new("/proc/self").exists() && pool.status("true").unwrap().success());
    assert!(prepared.with("true").status().unwrap().success());
}

/// The processes below `pid` that are the parents of nobody: below an init it is its child that waits for a program.
fn leaves(pid: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> =
        texts.flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let below = |child: &String| match leaves(child) {
        none if none.is_empty() => vec![child.parse().unwrap()],
        some => some,
    };
    children.iter().flat_map(below).collect()
}

/// A sandbox that somebody has stopped while it waited is given up for another, and holds nobody up for long.
#[test]
fn a_stopped_sandbox_is_passed_over_in_seconds() {
    let _clean = common::clean();
    for sandbox in [common::sandbox().pid_ns(), common::sandbox().pid_ns().init(true)] {
        let pool = sandbox.pool(1).unwrap();
        pool.wait_ready(std::time::Duration::from_secs(20)).unwrap();
        let waiting = leaves("self");
        assert!(!waiting.is_empty());
        for pid in waiting {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
        }
        let start = std::time::Instant::now();
        let output = pool.output(ringfence::Command::new("/bin/echo").arg("here")).unwrap();
        assert_eq!(output.stdout, b"here\n");
        assert!(start.elapsed() < std::time::Duration::from_secs(15), "{:?}", start.elapsed());
        drop(pool);
    }
}
