//! Callers in odd circumstances, each with a defined result. Those that a test process cannot be
//! run as a process of their own: this binary again, as the table of callers says.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{self, answers, kernel, probe};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ringfence::{Child, Error, ErrorKind, Outcome, RootFs, Sandbox, Stdio, Verdict};

common::callers! {
    |words|
    "ignores-sigchld" => ignores_sigchld(),
    "waits-for-any" => waits_for_any(),
    "forks-after-a-spawn" => forks_after_a_spawn(),
    "forks-while-others-spawn" => forks_while_others_spawn(),
    "forks-at-the-first-spawn" => forks_at_the_first_spawn(words[1].parse().unwrap()),
    "is-pid-1" => is_pid_1(),
    "nests" => nests(words[1].parse().unwrap()),
    "has-no-stdio" => has_no_stdio(words[1]),
    "has-many-descriptors" => has_many_descriptors(),
    "runs-out-of-descriptors" => runs_out_of_descriptors(words[1]),
    "binds-its-devices" => binds_its_devices(Path::new(words[1])),
    "has-a-strange-mount" => has_a_strange_mount(words[1], words[2]),
    "blocks-signals" => blocks_signals(),
    "changes-user" => changes_user(),
    "is-realtime" => is_realtime(),
}

/// A program that answers each line with that line.
fn cat(sandbox: Sandbox) -> Child {
    sandbox.command("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The status, unless this kernel keeps none for those who lost it; then the error that says so.
#[track_caller]
fn status_or_lost(result: Result<Outcome, Error>, verdict: Verdict) {
    match result {
        Ok(outcome) => assert_eq!(outcome.verdict(), verdict),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::StatusLost, "{error}");
            assert!(kernel() < (6, 15), "this kernel keeps the status: {error}");
        }
    }
}

/// What a caller finds whose children's statuses go elsewhere.
fn finds_statuses() {
    for round in 0..60 {
        let exits = common::sh("exit 7");
        let mut child = exits.spawn().unwrap();
        let first = child.wait();
        let again = child.wait();
        assert_eq!(first.as_ref().ok(), again.as_ref().ok());
        status_or_lost(first, Verdict::Exited(7));
        status_or_lost(exits.clone().pid_ns().status(), Verdict::Exited(7));
        // An init tells how the program ended, on every kernel.
        assert_eq!(exits.clone().pid_ns().init(true).status().unwrap().code(), Some(7), "round {round}");
        let mut child = common::sandbox().command("/bin/sleep").arg("1000").spawn().unwrap();
        child.kill().unwrap();
        status_or_lost(child.wait(), Verdict::Signaled(libc::SIGKILL));
        drop(common::sandbox().command("/bin/sleep").arg("1000").spawn().unwrap());
        let error = common::sandbox().command("/no/such").spawn().unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)));
        match common::sh("echo out; exit 3").output() {
            Ok(output) => assert_eq!((output.stdout.as_slice(), output.outcome.code()), (&b"out\n"[..], Some(3))),
            Err(error) => status_or_lost(Err(error), Verdict::Exited(3)),
        }
    }
}

fn ignores_sigchld() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    finds_statuses();
}

fn waits_for_any() {
    let (stop, mut taken) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        let thief = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: a status is not asked for.
                taken += i32::from(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) } > 0);
            }
        });
        let result = std::panic::catch_unwind(finds_statuses);
        stop.store(true, Ordering::Relaxed);
        thief.join().unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(taken > 0, "the thief got nothing");
}

#[test]
fn a_caller_that_ignores_sigchld_gets_the_status_or_is_told() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("ignores-sigchld"));
}

#[test]
fn a_caller_that_waits_for_any_child_gets_the_status_or_is_told() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("waits-for-any"));
}

/// Runs `child` in a fork of this process, which has to come back within 20 seconds.
#[track_caller]
fn in_a_fork(child: impl FnOnce()) {
    // SAFETY: the C library of Linux lets the fork of a process with threads allocate and start threads.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: SIGALRM ends the process, which has no handler for it.
            unsafe { libc::alarm(20) };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: ends the process at once, without the handlers of the original.
            unsafe { libc::_exit(i32::from(result.is_err())) };
        }
        pid => {
            assert!(pid > 0);
            let mut status = 0;
            // SAFETY: the status is a local.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0, "the fork ended with wait status {status:#x}");
        }
    }
}

/// What every process can do, a fork as well.
fn spawns_of_its_own() {
    assert_eq!(common::sh("exit 6").pid_ns().init(true).status().unwrap().code(), Some(6));
    let timed = common::sandbox().command("/bin/sleep").arg("1000").wall_time(Duration::from_millis(20));
    assert_eq!(timed.status().unwrap().verdict(), Verdict::WallTime);
    common::sandbox().command("/bin/true").spawn().unwrap().detach().unwrap();
}

fn forks_after_a_spawn() {
    let (root, scratch) = (common::root_dir(), common::TempDir::new());
    let held = |dir: &Path| fs::read_dir(dir).unwrap().count();
    let upper = RootFs::overlay([root.path()]).scratch_in(scratch.path());
    let base = common::on_root(common::sandbox().pid_ns(), &root).rootfs(upper).wall_time(Duration::from_secs(300));
    let mut child = Some(cat(base));
    assert_eq!(held(scratch.path()), 1);
    in_a_fork(|| {
        let mut child = child.take().unwrap();
        for result in [child.kill(), child.signal(libc::SIGTERM), child.wait().map(drop), child.stats().map(drop)] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Control);
        }
        drop(child);
        assert_eq!(held(scratch.path()), 1, "the fork took the scratch directory away");
        spawns_of_its_own();
        in_a_fork(spawns_of_its_own);
    });
    let mut child = child.unwrap();
    answers(&mut child);
    in_a_fork(|| drop(child.stdin.take()));
    answers(&mut child);
    spawns_of_its_own();
    assert!(child.wait().unwrap().success());
    assert_eq!(held(scratch.path()), 0);
}

#[test]
fn a_fork_of_the_caller_has_no_power_over_its_sandboxes_and_makes_its_own() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("forks-after-a-spawn"));
}

fn forks_while_others_spawn() {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let spawners: Vec<_> = (0..3)
            .map(|i| {
                let stop = &stop;
                scope.spawn(move || {
                    let sandbox = common::sh("exit 4").pid_ns().init(i == 0).wall_time(Duration::from_secs(60));
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(sandbox.status().unwrap().code(), Some(4));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let result = std::panic::catch_unwind(|| (0..60).for_each(|_| in_a_fork(spawns_of_its_own)));
        stop.store(true, Ordering::Relaxed);
        let counts: Vec<i32> = spawners.into_iter().map(|spawner| spawner.join().unwrap()).collect();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    });
}

/// The library starts its threads just when the fork happens.
fn forks_at_the_first_spawn(delay: u64) {
    thread::scope(|scope| {
        scope.spawn(spawns_of_its_own);
        let until = Instant::now() + Duration::from_micros(delay);
        while Instant::now() < until {}
        in_a_fork(spawns_of_its_own);
    });
}

#[test]
fn a_fork_while_others_spawn_hangs_nobody() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("forks-while-others-spawn"));
    for delay in 0..40 {
        probe::succeeds(probe::caller(&format!("forks-at-the-first-spawn {}", delay * 25)));
    }
}

#[test]
fn a_sandbox_outlives_the_thread_that_spawned_it() {
    let _clean = common::clean();
    for sandbox in [common::sandbox(), common::sandbox().pid_ns(), common::sandbox().pid_ns().init(true)] {
        let (mut child, thread) = thread::spawn(move || (cat(sandbox), nix::unistd::gettid())).join().unwrap();
        // join() comes back a moment before the kernel is done with the thread and sends what its end brings.
        while Path::new(&format!("/proc/self/task/{thread}")).exists() {
            thread::yield_now();
        }
        answers(&mut child);
        assert!(child.wait().unwrap().success());
    }
}

fn is_pid_1() {
    assert_eq!(std::process::id(), 1);
    finds_statuses();
    spawns_of_its_own();
    let apart = common::sh("echo $$").pid_ns().uts_ns().ipc_ns().init(true);
    assert_eq!(common::stdout(&apart), "2");
    let mut child = cat(common::sandbox());
    answers(&mut child);
    child.close().unwrap();
    // What a program leaves behind belongs to pid 1, which has to reap it like any other orphan.
    let text = common::stdout(&common::sh("sleep 1000 >/dev/null 2>&1 & echo $!"));
    let orphan: i32 = text.parse().unwrap();
    let mut status = 0;
    // SAFETY: the status is a local.
    unsafe {
        assert_eq!(libc::kill(orphan, libc::SIGTERM), 0);
        assert_eq!(libc::waitpid(orphan, &mut status, 0), orphan);
    }
    assert_eq!(status, libc::SIGTERM);
}

#[test]
fn a_caller_can_be_pid_1() {
    let _clean = common::clean();
    let exe = std::env::current_exe().unwrap();
    let outer = common::sandbox().pid_ns().command(exe).env("RINGFENCE_CALLER", "is-pid-1");
    common::stdout(&outer);
}

fn nests(depth: u32) {
    let apart = Sandbox::new().user_ns().pid_ns().uts_ns().ipc_ns().net_ns().cgroup_ns();
    let inner = if depth == 0 {
        apart.command("/bin/sh").args(["-c", "echo pid $$ uid $(id -u)"])
    } else {
        let exe = std::env::current_exe().unwrap();
        apart.command(exe).env("RINGFENCE_CALLER", format!("nests {}", depth - 1))
    };
    println!("{}", common::stdout(&inner));
}

#[test]
fn a_caller_inside_a_user_namespace_nests_sandboxes() {
    let _clean = common::clean();
    assert_eq!(probe::succeeds(probe::caller("nests 3")), "pid 1 uid 0");
}

fn open_at_stdio() -> String {
    let link = |fd: i32| fs::read_link(format!("/proc/self/fd/{fd}")).map(|link| link.display().to_string());
    format!("{:?}", (0..3).flat_map(link).collect::<Vec<_>>())
}

/// Panics are written to stderr, which is not there: faults are collected until it is.
fn has_no_stdio(out: &str) {
    // SAFETY: plain descriptor numbers.
    let saved = unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 100) };
    let close_all = || {
        // SAFETY: at 0 to 2 stands what nobody owns; the check below sees to that.
        (0..3).for_each(|fd| assert!(unsafe { libc::close(fd) } <= 0));
    };
    let mut faults = Vec::new();
    let mut check = |what: &str, is: String, wanted: &str| {
        if is.trim() != wanted {
            faults.push(format!("{what}: {is:?} instead of {wanted:?}"));
        }
    };
    let links = |which: &str| format!("(cd /proc/$$/fd; for i in {which}; do readlink $i; done > {out})");
    let zero = fs::File::open("/dev/zero").unwrap();
    for round in 0..3 {
        // Here the library starts its threads, whose descriptors may take the lowest free numbers.
        close_all();
        let given = || zero.try_clone().unwrap();
        let all_given = common::sandbox().command("/bin/true").stdin(given()).stdout(given()).stderr(given());
        let mut child = all_given.wall_time(Duration::from_secs(60)).spawn().unwrap();
        check(&format!("in round {round} at 0 to 2"), open_at_stdio(), "[]");
        check("streams of its own", format!("{:?}", child.wait().map(|o| o.code())), "Ok(Some(0))");
        drop(child);
        // What is kept for the sandboxes of a root of the host's programs stays open, too.
        let strict = common::strict().best_effort(ringfence::Feature::OutputLimit).command("/bin/true");
        let strict = strict.stdin(given()).stdout(given()).stderr(given());
        check("status of strict", format!("{:?}", strict.status().map(|o| o.code())), "Ok(Some(0))");
        check(&format!("in round {round} at 0 to 2 after strict"), open_at_stdio(), "[]");
        close_all();
        let fds = common::stdout(&probe::run(common::sandbox(), "fds"));
        let numbers = fds.lines().filter_map(|line| line.split('=').next());
        check("captured", numbers.collect::<Vec<_>>().join(" "), "0 1 2");
        close_all();
        let inherits = common::sh(&links("0 1 2")).wall_time(Duration::from_secs(60));
        check("status", format!("{:?}", inherits.status().map(|o| o.code())), "Ok(Some(0))");
        check("inherited", fs::read_to_string(out).unwrap(), "/dev/null\n/dev/null\n/dev/null");
        close_all();
        let piped = common::sh(&format!("cat > /dev/null; {}", links("1 2"))).stdin(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        check("beside a pipe", format!("{:?}", child.wait_timeout(Duration::ZERO).map(|o| o.is_some())), "Ok(false)");
        drop(child.stdin.take());
        let ended = child.wait_timeout(Duration::from_secs(10)).map(|outcome| outcome.is_some());
        check("end of a pipe", format!("{ended:?}"), "Ok(true)");
        check("beside a pipe", fs::read_to_string(out).unwrap(), "/dev/null\n/dev/null");
        check(&format!("after round {round} at 0 to 2"), open_at_stdio(), "[]");
    }
    // SAFETY: the saved descriptor is open.
    unsafe { libc::dup2(saved, 2) };
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_caller_without_stdio_passes_dev_null() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    probe::succeeds(probe::caller(&format!("has-no-stdio {}", dir.path().join("out").display())));
}

fn has_many_descriptors() {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    // SAFETY: plain descriptor numbers. Not close-on-exec, as a careless caller's are.
    let all: BTreeSet<i32> = (0..5000).map(|_| unsafe { libc::dup(null.as_raw_fd()) }).collect();
    assert!(all.len() == 5000 && !all.contains(&-1), "{}", all.len());
    for sandbox in [common::sandbox(), common::sandbox().pid_ns().init(true)] {
        let given = fs::File::open("/dev/zero").unwrap();
        let fds = common::stdout(&probe::run(sandbox, "fds").fd(4000, given));
        let numbers: Vec<&str> = fds.lines().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(numbers, ["0", "1", "2", "4000"], "{fds}");
        assert!(fds.ends_with("4000=/dev/zero"));
    }
    finds_statuses();
}

#[test]
fn a_caller_with_five_thousand_descriptors_passes_none_of_them() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("has-many-descriptors"));
}

/// Has less and less room for descriptors, so that each step of a spawn is the one that finds none.
fn runs_out_of_descriptors(parent: &str) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let sandbox = common::sandbox().cgroup_parent(parent).pids_limit(20).memory_limit(64 << 20);
    let sandbox = sandbox.rootfs(RootFs::overlay(["/usr"]).scratch()).command("/bin/true");
    let (mut refused, mut ran) = (0, 0);
    for room in 0..60 {
        let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        setrlimit(Resource::RLIMIT_NOFILE, open + room, hard).unwrap();
        let result = sandbox.spawn();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        match result {
            Ok(child) => ran += usize::from(child.close().is_ok()),
            Err(_) => refused += 1,
        }
    }
    println!("{refused} {ran}");
}

#[test]
fn a_caller_without_descriptors_leaves_nothing_off_the_record() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let _reaping = common::reaping();
    let told =
        probe::succeeds(probe::caller(&format!("runs-out-of-descriptors {}", common::cgroup_parent().display())));
    let counts: Vec<usize> = told.split(' ').map(|count| count.parse().unwrap()).collect();
    assert!(counts[0] > 5, "nothing was refused: {told}");
    // What could not be removed for want of descriptors is on record. Nothing else may be left.
    ringfence::reap_stale().unwrap();
}

/// A /dev as that of a container: each device is mounted on a file of its own.
fn binds_its_devices(dev: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let bind = |from: &Path, to: &Path| mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), dev, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        fs::write(dev.join(name), "").unwrap();
        bind(&Path::new("/dev").join(name), &dev.join(name));
    }
    bind(dev, Path::new("/dev"));
    let programs = Sandbox::new().user_ns().rootfs(RootFs::programs());
    for sandbox in [programs.clone(), programs.pid_ns().net_ns(), common::strict()] {
        let script = "stat -c '%F %t' /dev/null /dev/urandom; head -c 5 /dev/zero | wc -c; echo >/dev/null";
        let script = common::shell(sandbox, script);
        assert_eq!(common::stdout(&script), "character special file 1\ncharacter special file 1\n5");
    }
}

#[test]
fn a_caller_in_a_container_shows_its_devices_and_not_what_they_cover() {
    let _clean = common::clean();
    if common::needs_root("mounts in /dev") {
        return;
    }
    let dir = common::TempDir::new();
    probe::succeeds(probe::caller(&format!("binds-its-devices {}", dir.path().display())));
}

/// Every user gives files and the mounts of FUSE any names, as does a disk that somebody plugs in.
fn has_a_strange_mount(dir: &str, parent: &str) {
    use std::os::unix::ffi::OsStrExt;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let strange = Path::new(dir).join(std::ffi::OsStr::from_bytes(b"\xff \xc3"));
    fs::create_dir(&strange).unwrap();
    mount(Some("tmpfs"), &strange, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::read_to_string("/proc/self/mountinfo").unwrap_err();
    for sandbox in [common::strict(), Sandbox::new().pids_limit(50)] {
        let sandbox = sandbox.cgroup_parent(parent);
        assert_eq!(common::stdout(&common::shell(sandbox, "echo started")), "started");
    }
}

#[test]
fn a_mount_whose_name_is_no_text_stops_nobody() {
    let _clean = common::clean();
    if common::needs_root("a mount with a strange name") || common::no_cgroups() {
        return;
    }
    let (dir, parent) = (common::TempDir::new(), common::cgroup_parent());
    probe::succeeds(probe::caller(&format!("has-a-strange-mount {} {}", dir.path().display(), parent.display())));
}

fn blocks_signals() {
    use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
    SigSet::all().thread_block().unwrap();
    for ignored in [Signal::SIGPIPE, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGTSTP] {
        // SAFETY: no handler is installed.
        unsafe { signal(ignored, SigHandler::SigIgn) }.unwrap();
    }
    // SAFETY: no memory is involved; of the realtime signals too.
    unsafe { libc::signal(libc::SIGRTMIN() + 3, libc::SIG_IGN) };
    for sandbox in [common::sandbox(), common::sandbox().pid_ns(), common::sandbox().pid_ns().init(true)] {
        let text = common::stdout(&sandbox.command("/bin/cat").arg("/proc/self/status"));
        let names = ["SigBlk:", "SigIgn:", "SigCgt:"];
        let masks = text.lines().filter_map(|line| line.split_once('\t')).filter(|(name, _)| names.contains(name));
        assert_eq!(masks.map(|(_, mask)| mask).collect::<Vec<_>>(), ["0000000000000000"; 3], "{text}");
    }
    // The signals do what they do to a program that has never heard of this.
    let mut child = cat(common::sandbox().pid_ns().init(true));
    answers(&mut child);
    child.signal(libc::SIGTERM).unwrap();
    // wait() would close its stdin, at which cat ends by itself.
    let ended = child.wait_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(ended.expect("still there").verdict(), Verdict::Signaled(libc::SIGTERM));
    let limited = common::sandbox().command("/bin/sleep").arg("1000").wall_time(Duration::from_millis(20));
    assert_eq!(limited.status().unwrap().verdict(), Verdict::WallTime);
}

#[test]
fn what_a_caller_blocks_or_ignores_is_default_inside() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("blocks-signals"));
}

/// setuid(2) of the C library interrupts every thread with a signal of its own and waits until all have changed over.
fn changes_user() {
    let stop = AtomicBool::new(false);
    spawns_of_its_own();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(
                        Sandbox::new().command("/bin/sh").args(["-c", "exit 8"]).status().unwrap().code(),
                        Some(8)
                    );
                }
            });
        }
        for _ in 0..300 {
            // SAFETY: no memory is involved; -1 leaves an id as it is.
            assert_eq!(unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) }, 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let id = if common::is_root() { 65534 } else { nix::unistd::getuid().as_raw() };
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { (libc::setgid(id), libc::setuid(id)) }, (0, 0));
    assert!(!common::is_root());
    spawns_of_its_own();
    assert_eq!(common::stdout(&common::sh("id -u").pid_ns()), "0");
    assert_eq!(common::stdout(&Sandbox::new().command("/usr/bin/id").arg("-u")), id.to_string());
}

#[test]
fn a_caller_that_changes_its_user_after_spawns_does_not_hang() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("changes-user"));
}

async fn on_a_runtime() {
    use tokio::io::unix::AsyncFd;
    let mut child = common::sh("exit 4").stdin(Stdio::piped()).spawn().unwrap();
    // SAFETY: the descriptor is owned, so it stays what it is.
    let fd = unsafe { AsyncFd::register(child.pidfd().unwrap().try_clone_to_owned().unwrap()) }.unwrap();
    drop(fd.readable().await.unwrap());
    assert_eq!(child.try_wait().unwrap().expect("the pidfd said that it has ended").code(), Some(4));
    let waits = (0..16).map(|i| {
        tokio::task::spawn_blocking(move || common::sh(&format!("exit {i}")).pid_ns().status().unwrap().code())
    });
    for (i, wait) in waits.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(wait.await.unwrap(), Some(i as i32));
    }
}

#[test]
fn it_works_in_both_runtimes_of_tokio_and_outlives_them() {
    let _clean = common::clean();
    let current = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for runtime in [current, multi] {
        runtime.block_on(on_a_runtime());
        // Spawned on a thread that ends with the runtime.
        let mut child =
            runtime.block_on(async { tokio::task::spawn_blocking(|| cat(common::sandbox())).await.unwrap() });
        drop(runtime);
        answers(&mut child);
    }
    // Its pidfd is a descriptor like any other.
    let child = common::sandbox().command("/bin/true").spawn().unwrap();
    let fd: BorrowedFd<'_> = child.pidfd().unwrap();
    let mut poll = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut poll, 10_000u16), Ok(1));
}

/// A v1 group of the controller cpu has no share of realtime by default, and takes no process of such a class.
fn is_realtime() {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the struct lives across the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } != 0 {
        return println!("may not");
    }
    let sandbox = common::sandbox().command("true").cpu_limit(0.5);
    match sandbox.status() {
        Ok(outcome) => println!("{}", outcome.verdict()),
        Err(error) => {
            let path = error.path().unwrap_or(Path::new("")).display().to_string();
            println!("{:?} {path} {error}", error.step());
        }
    }
    let outcome = common::sandbox().command("true").pids_limit(9).status().unwrap();
    println!("{}", outcome.verdict());
}

#[test]
fn a_realtime_caller_is_told_which_group_takes_none_of_its_class() {
    let _clean = common::clean();
    if common::needs_root("a realtime class, and a group") {
        return;
    }
    let said = probe::succeeds(probe::caller("is-realtime"));
    if said == "may not" {
        return common::skip("the caller may not have a realtime class", true);
    }
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.last(), Some(&"exited with 0"), "{said}");
    // Where the kernel has no realtime groups, or v2 alone, it just runs.
    if lines[0] != "exited with 0" {
        let group = lines[0].strip_prefix("JoinCgroup ").unwrap_or_else(|| panic!("{said}"));
        assert!(group.split(' ').next().unwrap().contains("/cpu"), "{said}");
        assert!(said.contains("cpu.rt_runtime_us"), "{said}");
    }
}
