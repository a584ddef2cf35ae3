//! The handle.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::common::{self, probe};
use crate::sorts;
use nix::poll::{PollFd, PollFlags, poll};
use ringfence::{Child, ErrorKind, Outcome, RawMount, Sandbox, Stdio, Step, Tmpfs, Verdict};

fn shell(sandbox: &Sandbox, script: &str) -> Sandbox {
    sandbox.clone().command("/bin/sh").args(["-c", script]).stdin(Stdio::null())
}

/// Spawns the script and waits until it has written a line, which it gives.
fn started(sandbox: &Sandbox, script: &str) -> (Child, String) {
    let mut child = shell(sandbox, script).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim_end().to_owned())
}

/// Whether the process ends within so many milliseconds.
fn ends(child: &Child, millis: u16) -> bool {
    poll(&mut [PollFd::new(child.pidfd().unwrap(), PollFlags::POLLIN)], millis).unwrap() == 1
}

/// Until the other end of the pipe is closed, which it is when everything that had it is dead.
fn dead_within(mut pipe: impl Read + AsFd, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis() as u16;
        if poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], left).unwrap() == 0 {
            return false;
        }
        if pipe.read(&mut [0; 4096]).unwrap() == 0 {
            return true;
        }
    }
}

/// The limit counts from the start, whenever it is set.
#[test]
fn wall_time_is_changed_while_the_program_runs() {
    let _clean = common::clean();
    let spawn = |limit: Option<Duration>| {
        let sandbox = common::sh("sleep 3");
        limit.map_or(sandbox.clone(), |limit| sandbox.wall_time(limit)).spawn().unwrap()
    };
    let day = Some(Duration::from_secs(86_400));
    for before in [None, day] {
        let mut child = spawn(before);
        child.set_wall_time(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::WallTime, "{before:?}");
    }
    for after in [None, day] {
        let mut child = spawn(Some(Duration::from_millis(1500)));
        child.set_wall_time(after).unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0), "{after:?}");
    }
    let mut child = spawn(None);
    std::thread::sleep(Duration::from_millis(20));
    child.set_wall_time(Some(Duration::from_millis(1))).unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::WallTime, "a limit that has passed");
}

#[test]
fn every_wait_gives_the_same() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let mut child = shell(&sandbox, "read line; exit 9").stdin(Stdio::piped()).spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none(), "{what}");
        let before = Instant::now();
        assert!(child.wait_timeout(Duration::from_millis(30)).unwrap().is_none(), "{what}");
        assert!(before.elapsed() >= Duration::from_millis(30), "{what}");
        assert!(child.stdin.is_some(), "only wait() closes stdin");
        let first = child.wait().unwrap();
        assert_eq!(first.verdict(), Verdict::Exited(9), "{what}");
        assert!(first.usage().wall >= Duration::from_millis(30), "{what}");
        assert_eq!(child.wait().unwrap(), first);
        assert_eq!(child.try_wait().unwrap(), Some(first));
        assert_eq!(child.wait_timeout(Duration::MAX).unwrap(), Some(first));
        assert!(child.kill().is_ok(), "as in std, a kill after the end is none");
        assert_eq!(child.signal(libc::SIGTERM).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(child.close().unwrap(), first);
    }
}

#[test]
fn a_kill_ends_everything_and_is_the_verdict() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        // Nothing holds the descendants of a plain one together: it gets none.
        let others = if what == "plain" { "" } else { "sleep 1000 &" };
        let script = format!("trap '' TERM INT HUP; {others} echo; exec sleep 1000");
        let (mut child, _) = started(&sandbox, &script);
        child.kill().unwrap();
        let outcome = child.wait().unwrap();
        assert_eq!(outcome.verdict(), Verdict::Signaled(libc::SIGKILL), "{what}");
        assert_eq!(child.wait().unwrap(), outcome);
        assert!(dead_within(child.stdout.take().unwrap(), Duration::from_secs(1)), "{what}");
    }
}

#[test]
fn a_drop_ends_a_stubborn_tree_within_a_second() {
    let _clean = common::clean();
    for (what, sandbox) in sorts().into_iter().skip(1) {
        let stubborn = "trap '' TERM INT HUP QUIT; (trap '' TERM; sleep 1000) & (sleep 1000 & sleep 1000) & echo; wait; sleep 1000";
        let (mut child, _) = started(&sandbox, stubborn);
        let pipe = child.stdout.take().unwrap();
        let before = Instant::now();
        drop(child);
        let took = before.elapsed();
        assert!(took < Duration::from_millis(500), "{what}: the drop took {took:?}");
        assert!(dead_within(pipe, Duration::from_secs(1)), "{what}: something lives on");
    }
}

#[test]
fn a_close_ends_it_and_tells_how() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let (child, _) = started(&sandbox, "echo; exec sleep 1000");
        assert_eq!(child.close().unwrap().verdict(), Verdict::Signaled(libc::SIGKILL), "{what}");
        let child = shell(&sandbox, "exit 2").spawn().unwrap();
        assert!(ends(&child, 10_000));
        assert_eq!(child.close().unwrap().verdict(), Verdict::Exited(2), "{what}");
    }
}

#[test]
fn a_detached_program_goes_on_and_is_reaped() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let dir = common::TempDir::new();
        let file = dir.path().join("went-on");
        let script = format!("read line; echo \"$line\" > {}", file.display());
        let mut child = shell(&sandbox, &script).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let pidfd = child.pidfd().unwrap().try_clone_to_owned().unwrap();
        child.detach().unwrap();
        stdin.write_all(b"told\n").unwrap();
        assert_eq!(poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], 10_000u16), Ok(1), "{what}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "told\n", "{what}");
        // That it is reaped, `clean` finds.
    }
}

#[test]
fn it_talks_like_a_co_process() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let mut child = sandbox.command("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        for i in 0..100 {
            let mut line = String::new();
            writeln!(child.stdin.as_mut().unwrap(), "line {i}").unwrap();
            answers.read_line(&mut line).unwrap();
            assert_eq!(line, format!("line {i}\n"), "{what}");
        }
        // wait() closes stdin, at which cat ends.
        assert!(child.wait().unwrap().success(), "{what}");
        assert_eq!(answers.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn floods_on_both_pipes_do_not_block_one_another() {
    let _clean = common::clean();
    // 20 MB in all, now here and now there, each piece larger than a pipe holds.
    let script =
        "i=0; while [ $i -lt 50 ]; do head -c 200000 /dev/zero; head -c 200000 /dev/zero >&2; i=$((i+1)); done; exit 5";
    for (what, sandbox) in sorts() {
        let output = shell(&sandbox, script).output().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (10_000_000, 10_000_000), "{what}");
        assert_eq!(output.outcome.code(), Some(5), "{what}");
    }
}

#[test]
fn the_output_limit_ends_a_flood_and_keeps_what_came() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let flood = probe::run(sandbox.clone(), "flood").output_limit(100_000);
        let output = flood.output().unwrap();
        assert_eq!(output.outcome.verdict(), Verdict::OutputLimit, "{what}");
        assert_eq!(output.stdout.len(), 100_000, "{what}");
        assert!(output.stdout.iter().all(|byte| *byte == b'x'), "{what}");
        // Both streams together; what fits exactly is no flood.
        let exact = shell(&sandbox, "head -c 60000 /dev/zero; head -c 40000 /dev/zero >&2").output_limit(100_000);
        let output = exact.output().unwrap();
        assert!(output.outcome.success() && output.stdout.len() + output.stderr.len() == 100_000, "{what}");
        let above = shell(&sandbox, "head -c 60000 /dev/zero; head -c 40001 /dev/zero >&2; exec sleep 1000")
            .output_limit(100_000);
        assert_eq!(above.output().unwrap().outcome.verdict(), Verdict::OutputLimit, "{what}");
    }
}

#[test]
fn the_wall_time_ends_everything_whoever_waits() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let limit = Duration::from_millis(80);
        let others = if what == "plain" { "" } else { "sleep 1000 &" };
        let timed = || {
            // Everything that runs inside holds the pipe.
            let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
            let script = format!("trap '' TERM; {others} exec sleep 1000");
            (shell(&sandbox, &script).wall_time(limit).fd(3, write).spawn().unwrap(), fs::File::from(read))
        };
        let waits: [fn(Child) -> Verdict; 3] = [
            |mut child| child.wait().unwrap().verdict(),
            |child| child.wait_with_output().unwrap().outcome.verdict(),
            |mut child| child.wait_timeout(Duration::from_secs(60)).unwrap().unwrap().verdict(),
        ];
        for wait in waits {
            let start = Instant::now();
            let (child, pipe) = timed();
            assert_eq!(wait(child), Verdict::WallTime, "{what}");
            let took = start.elapsed();
            assert!(dead_within(pipe, Duration::from_secs(1)), "{what}: something lives on");
            assert!(took >= limit && took < limit * 10, "{what}: {took:?}");
        }
        // Nobody waits: it ends all the same.
        let (child, pipe) = timed();
        assert!(ends(&child, 5000) && dead_within(pipe, Duration::from_secs(1)), "{what}");
        drop(child);
        // One that ends before has its own verdict.
        assert_eq!(shell(&sandbox, "exit 1").wall_time(limit * 100).status().unwrap().verdict(), Verdict::Exited(1));
    }
}

#[test]
fn the_wall_time_is_announced_where_a_grace_is_given() {
    let _clean = common::clean();
    let grace = Duration::from_secs(30);
    for (what, sandbox) in sorts() {
        let ready = "trap 'echo saved; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
        // Long enough for the program to be ready, on this machine as it is now.
        let is_ready = |limit: &Duration| {
            let output = shell(&sandbox, ready).wall_time(*limit).output().unwrap();
            output.stdout == b"ready\n"
        };
        let limits = (0..7).map(|n| Duration::from_millis(150) * (1 << n));
        let limit = 2 * limits.into_iter().find(is_ready).expect("ready within ten seconds");
        let sandbox = |script: &str| shell(&sandbox, script).wall_time(limit);
        let start = Instant::now();
        let output = sandbox(ready).wall_time_grace(grace).output().unwrap();
        assert_eq!(output.outcome.verdict(), Verdict::WallTime, "{what}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\nsaved\n", "{what}");
        assert!(start.elapsed() >= limit && start.elapsed() < grace, "{what}: {:?}", start.elapsed());
        // Whoever does not listen is killed when the time is over.
        let start = Instant::now();
        let deaf = sandbox("trap '' TERM; while :; do sleep 0.01; done").wall_time_grace(limit);
        assert_eq!(deaf.status().unwrap().verdict(), Verdict::WallTime, "{what}");
        assert!(start.elapsed() >= limit * 2 && start.elapsed() < grace, "{what}: {:?}", start.elapsed());
        // Another signal, if one is named; and without a grace none.
        let other = ready.replace("TERM", "USR1");
        let output = sandbox(&other).wall_time_grace(grace).stop_signal(libc::SIGUSR1).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\nsaved\n", "{what}");
        assert_eq!(String::from_utf8_lossy(&sandbox(ready).output().unwrap().stdout), "ready\n", "{what}");
        // One that ends before has its own verdict.
        let early = sandbox("exit 1").wall_time(limit * 100).wall_time_grace(grace);
        assert_eq!(early.status().unwrap().verdict(), Verdict::Exited(1), "{what}");
    }
}

#[test]
fn a_descendant_that_holds_the_pipe_does_not_hold_up_the_output() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let start = Instant::now();
        let output = shell(&sandbox, "sleep 20 & echo here; echo $! >&2; exit 3").output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
        assert_eq!((output.stdout.as_slice(), output.outcome.code()), (&b"here\n"[..], Some(3)), "{what}");
        if what == "plain" || what == "in a group of its own" {
            // Nothing shows that it belongs to the sandbox, so it lives until it ends by itself.
            let pid: i32 = String::from_utf8(output.stderr).unwrap().trim().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        }
    }
}

#[test]
fn the_pidfd_is_readable_once_it_has_ended() {
    let _clean = common::clean();
    for (what, sandbox) in sorts() {
        let mut child = shell(&sandbox, "read line").stdin(Stdio::piped()).spawn().unwrap();
        assert!(!ends(&child, 30), "{what}");
        drop(child.stdin.take());
        assert!(ends(&child, 10_000), "{what}");
        assert!(child.try_wait().unwrap().is_some(), "{what}");
        assert!(ends(&child, 0), "{what}: after a wait too");
    }
}

#[test]
fn a_bare_pid_1_hears_only_what_it_listens_for_and_init_passes_everything_on() {
    let _clean = common::clean();
    let bare = common::sandbox().pid_ns();
    let (mut child, _) = started(&bare, "trap 'exit 6' USR1; echo; while :; do read x < /dev/zero & wait; done");
    child.signal(libc::SIGTERM).unwrap();
    child.signal(libc::SIGUSR2).unwrap();
    assert!(!ends(&child, 100), "a bare pid 1 has no default actions");
    child.signal(libc::SIGUSR1).unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(6));

    let under_init = bare.init(true);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2, libc::SIGALRM, libc::SIGABRT] {
        let (mut child, _) = started(&under_init, "echo; exec sleep 1000");
        child.signal(signal).unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(signal));
    }
    let (mut child, _) = started(&under_init, "trap 'exit 6' TERM; echo; sleep 1000 & wait");
    child.signal(libc::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(6));
    assert_eq!(shell(&under_init, "kill -SEGV $$").status().unwrap().verdict(), Verdict::Signaled(libc::SIGSEGV));
    let mut child = shell(&common::sandbox(), "exec sleep 1000").spawn().unwrap();
    assert_eq!(child.signal(1000).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    child.signal(libc::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(libc::SIGINT));
}

/// Whenever the time is up, nothing is left, and the threads that were waited for in vain are used again.
#[test]
fn a_setup_that_is_given_up_at_any_moment_leaves_nothing() {
    let _clean = common::clean();
    let root = common::root_dir();
    let (mut given_up, mut done) = (0, 0);
    let rich = |init| common::on_root(common::sandbox().pid_ns().ipc_ns().init(init), &root).command("/bin/true");
    let start = Instant::now();
    assert!((0..5).all(|_| rich(true).status().unwrap().success()));
    let longest = start.elapsed();
    for round in 0..300u32 {
        let sandbox = rich(round % 2 == 0).setup_timeout(longest * round / 300 * round / 300);
        match sandbox.status() {
            Ok(outcome) => {
                assert!(outcome.success());
                done += 1;
            }
            Err(error) => {
                assert_eq!((error.kind(), error.step()), (ErrorKind::Timeout, Step::Report), "{error}");
                given_up += 1;
            }
        }
    }
    assert!(given_up > 20 && done > 20, "{given_up} given up, {done} done");
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    let spawners = names.filter(|name| name.trim_end() == "ringfence").count();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(spawners <= cores, "{spawners} threads for {given_up} failures");
}

/// A file system whose server never answers.
#[test]
fn a_setup_that_hangs_in_the_kernel_is_given_up() {
    if common::needs_root("/dev/fuse") {
        return;
    }
    if fs::File::open("/dev/fuse").is_err() {
        return common::skip("no /dev/fuse", true);
    }
    let _clean = common::clean();
    // The stub's own descriptors are 6 and 7, the three streams follow, then those passed on.
    let hung = RawMount::new("x", "/tmp/hung", "fuse").data("fd=11,rootmode=40000,user_id=0,group_id=0");
    let base = || {
        // Each mount needs one of its own.
        let fuse = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        common::sandbox().mount(Tmpfs::new("/tmp")).mount(hung.clone()).fd(3, fuse).command("/bin/true")
    };
    let limit = Duration::from_millis(200);
    for _ in 0..3 {
        let below = base().mount(Tmpfs::new("/tmp/hung/below")).setup_timeout(limit);
        let start = Instant::now();
        let error = below.spawn().unwrap_err();
        let took = start.elapsed();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("200ms") && took >= limit && took < limit * 5, "{error} after {took:?}");
    }
    assert!(base().status().unwrap().success(), "it is the access that hangs");
}

/// Sandboxes in which the program is the process that is watched, is pid 1, and stands below an init.
fn kinds() -> [Sandbox; 3] {
    [common::sandbox(), common::sandbox().pid_ns(), common::sandbox().pid_ns().init(true)]
}

type Ending = (&'static str, fn(Child) -> Outcome);

/// Every way in which an end is asked for.
const ENDINGS: [Ending; 5] = [
    ("wait", |mut child| child.wait().unwrap()),
    ("try_wait", |mut child| child.try_wait().unwrap().unwrap()),
    ("wait_timeout", |mut child| child.wait_timeout(Duration::from_secs(5)).unwrap().unwrap()),
    ("close", |child| child.close().unwrap()),
    ("wait_with_output", |child| child.wait_with_output().unwrap().outcome),
];

const LIMIT: Duration = Duration::from_secs(2);

/// A program that crashed or ended in time, and is waited for after its limit, has not run out of it; and its wall time
/// ends with the program.
#[test]
fn a_limit_that_strikes_after_the_end_has_not_ended_the_program() {
    let _clean = common::clean();
    let crash = ("kill -SEGV $$", Verdict::Signaled(libc::SIGSEGV));
    let killed = ("kill -KILL $$", Verdict::Signaled(libc::SIGKILL));
    for (script, verdict) in [crash, killed, ("exit 3", Verdict::Exited(3))] {
        let started: Vec<_> = kinds()
            .iter()
            .enumerate()
            .flat_map(|(i, kind)| ENDINGS.map(|(name, end)| (format!("{name} {i}"), kind.clone(), end)))
            .map(|(name, kind, end)| {
                // A pid 1 gets no signal of its own.
                let shell =
                    if name.ends_with('1') { format!("sh -c '{}'; exit $?", script) } else { script.to_owned() };
                let child = kind.command("/bin/sh").args(["-c", &shell]).wall_time(LIMIT).spawn().unwrap();
                (name, child, end)
            })
            .collect();
        std::thread::sleep(LIMIT * 2);
        for (name, child, end) in started {
            let outcome = end(child);
            let code = match verdict {
                Verdict::Signaled(signal) => 128 + signal,
                Verdict::Exited(code) => code,
                _ => unreachable!(),
            };
            let wanted = if name.ends_with('1') { Verdict::Exited(code) } else { verdict };
            assert_eq!(outcome.verdict(), wanted, "{script}, {name}");
            assert!(outcome.usage().wall < LIMIT, "{script}, {name}: {:?}", outcome.usage().wall);
        }
    }
}

#[test]
fn a_pool_tells_the_same() {
    let _clean = common::clean();
    let sandbox = common::sandbox().pid_ns().init(true).wall_time(LIMIT);
    let pool = sandbox.pool(1).unwrap();
    let mut child = pool.spawn(ringfence::Command::new("/bin/sh").args(["-c", "kill -SEGV $$"])).unwrap();
    std::thread::sleep(LIMIT * 2);
    let outcome = child.wait().unwrap();
    assert_eq!(outcome.verdict(), Verdict::Signaled(libc::SIGSEGV));
    assert!(outcome.usage().wall < LIMIT, "{:?}", outcome.usage().wall);
    drop(child);
    drop(pool);
}

/// Output that was cut off is never the output of a program that exited.
#[test]
fn truncated_output_is_told_whenever_the_program_ends() {
    let _clean = common::clean();
    let sandbox = common::sh("echo too long").output_limit(1u64);
    for round in 0..200 {
        let output = sandbox.output().unwrap();
        assert_eq!((output.outcome.verdict(), output.stdout.len()), (Verdict::OutputLimit, 1), "round {round}");
    }
    for _ in 0..3 {
        let late = sandbox.clone().stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(late.wait_with_output().unwrap().outcome.verdict(), Verdict::OutputLimit);
    }
    let pool = sandbox.pool(2).unwrap();
    for round in 0..50 {
        let output = pool.output(ringfence::Command::new("/bin/echo").arg("too long")).unwrap();
        assert_eq!((output.outcome.verdict(), output.stdout.len()), (Verdict::OutputLimit, 1), "round {round}");
    }
}

/// The kernel tells of the program's process what the caller had, whose memory it has shared.
#[test]
fn the_callers_memory_is_not_told_as_the_programs() {
    let _clean = common::clean();
    let ballast = vec![1u8; 200 << 20];
    let peak = |sandbox: Sandbox| sandbox.status().unwrap().usage().peak_memory;
    assert_eq!(peak(common::sandbox().command("/bin/true")), None);
    let hog = peak(probe::run(common::sandbox(), "hog 600000000")).unwrap();
    assert!((600_000_000..800_000_000).contains(&hog.get()), "{hog}");
    assert!(ballast.iter().all(|byte| *byte == 1));
}

#[test]
fn a_child_can_be_printed_and_tells_no_secret_of_its_program() {
    let _clean = common::clean();
    let sandbox = common::strict().command("sleep").arg("1000").env("TOKEN", "s3cret");
    let child = sandbox.stdout(Stdio::piped()).spawn().unwrap();
    let text = format!("{child:?}");
    assert!(text.starts_with(&format!("Child {{ pid: Some({})", child.id())), "{text}");
    assert!(text.contains("stdout: true") && text.contains("PidNs"), "{text}");
    assert!(!text.contains("s3cret") && text.len() < 2048, "{} bytes: {text}", text.len());
}
