//! Sandboxes in tasks of tokio.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{self, probe};
use crate::sorts;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringfence::asynchronous::AsyncChild;
use ringfence::{Command, ErrorKind, Sandbox, Stdio, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

/// Runs the task to its end in a runtime of two threads, then in one of one thread, and looks for
/// leaks after the runtimes are gone.
fn run<F: Future<Output = ()>>(task: impl Fn() -> F) {
    let _clean = common::clean();
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(task());
    Builder::new_current_thread().enable_all().build().unwrap().block_on(task());
}

/// A program that never ends by itself, and a pipe that ends with the last process that has it.
async fn endless(sandbox: &Sandbox) -> (AsyncChild, fs::File) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let script = "trap '' TERM INT; echo ready; while :; do sleep 1000; done";
    let sandbox = common::shell(sandbox.clone(), script).stdout(Stdio::piped()).fd(3, write);
    let mut child = sandbox.spawn_async().await.unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"ready\n");
    (child, read.into())
}

/// Waits until the pipe has no writer, which is when everything in the sandbox is dead.
async fn dead(mut pipe: fs::File) {
    let end = tokio::task::spawn_blocking(move || pipe.read(&mut [0]).unwrap());
    assert_eq!(timeout(Duration::from_secs(20), end).await.expect("something lives on").unwrap(), 0);
}

#[test]
fn output_and_outcome_are_those_of_a_blocking_wait() {
    run(async || {
        for (what, sandbox) in sorts() {
            let script = "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; exit 5";
            let output = common::shell(sandbox.clone(), script).output_async().await.unwrap();
            assert_eq!((output.stdout.len(), output.stderr.len()), (3_000_000, 2_000_000), "{what}");
            assert_eq!(output.outcome.verdict(), Verdict::Exited(5), "{what}");
            assert!(!output.truncated, "{what}");
            let mut child = sandbox.command("/bin/true").spawn_async().await.unwrap();
            let first = child.wait().await.unwrap();
            assert!(first.success(), "{what}");
            assert_eq!(child.wait().await.unwrap(), first, "{what}: a second wait");
        }
    });
}

/// What is written right before the end is never lost, however the reactor hears of it.
#[test]
fn the_last_bytes_are_there() {
    run(async || {
        let sandbox = common::sh("echo out; echo err >&2");
        for round in 0..100 {
            let output = sandbox.output_async().await.unwrap();
            assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]), "round {round}");
        }
    });
}

#[test]
fn streams_flow_while_the_program_runs() {
    run(async || {
        for (what, sandbox) in sorts() {
            let cat = sandbox.command("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = cat.spawn_async().await.unwrap();
            let (stdin, mut stdout) = (child.stdin.as_mut().unwrap(), child.stdout.take().unwrap());
            for word in ["one\n", "two\n", "three\n"] {
                stdin.write_all(word.as_bytes()).await.unwrap();
                let mut answer = vec![0; word.len()];
                stdout.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, word.as_bytes(), "{what}");
            }
            // More than both pipes hold at once.
            let bulk = vec![b'x'; 500_000];
            let mut back = Vec::new();
            let write = async {
                stdin.write_all(&bulk).await.unwrap();
                stdin.shutdown().await.unwrap();
                assert!(stdin.write_all(b"more").await.is_err(), "{what}: it is closed");
            };
            tokio::join!(write, async { stdout.read_to_end(&mut back).await.unwrap() });
            assert_eq!(back, bulk, "{what}");
            assert_eq!(child.wait().await.unwrap().verdict(), Verdict::Exited(0), "{what}");
        }
    });
}

#[test]
fn a_wait_can_be_given_up_and_made_again() {
    run(async || {
        let mut child = common::sh("sleep 0.3; exit 4").spawn_async().await.unwrap();
        for _ in 0..3 {
            assert!(timeout(Duration::from_millis(20), child.wait()).await.is_err());
        }
        // A future that is dropped at any point of the end takes nothing with it.
        for micros in (0..2000).step_by(50) {
            sleep(Duration::from_millis(10)).await;
            if let Ok(outcome) = timeout(Duration::from_micros(micros), child.wait()).await {
                assert_eq!(outcome.unwrap().verdict(), Verdict::Exited(4));
            }
        }
        assert_eq!(child.wait().await.unwrap().verdict(), Verdict::Exited(4));
    });
}

#[test]
fn whoever_drops_the_future_or_the_handle_ends_the_sandbox_at_once() {
    run(async || {
        for (what, sandbox) in sorts().into_iter().skip(1) {
            let (child, pipe) = endless(&sandbox).await;
            let start = Instant::now();
            assert!(timeout(Duration::from_millis(30), child.wait_with_output()).await.is_err(), "{what}");
            assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
            dead(pipe).await;
            let (child, pipe) = endless(&sandbox).await;
            drop(child);
            dead(pipe).await;
        }
    });
}

/// The drop itself only kills: it takes much less than the end of a sandbox does.
#[test]
fn a_drop_does_not_wait_for_the_end() {
    run(async || {
        let mut children = Vec::new();
        for _ in 0..30 {
            children.push(common::sandbox().pid_ns().command("/bin/sleep").arg("1000").spawn_async().await.unwrap());
        }
        let mut times: Vec<Duration> = Vec::new();
        for child in children {
            let start = Instant::now();
            drop(child);
            times.push(start.elapsed());
        }
        times.sort();
        assert!(times[15] < Duration::from_millis(5), "a drop takes {:?}", times[15]);
    });
}

/// A spawn whose future is dropped at any moment leaves nothing; `run` looks for that.
#[test]
fn a_spawn_can_be_given_up_at_any_moment() {
    run(async || {
        for micros in (0..6000).step_by(100) {
            let sandbox = common::sandbox().pid_ns().command("/bin/sleep").arg("1000");
            drop(timeout(Duration::from_micros(micros), sandbox.spawn_async()).await);
            drop(timeout(Duration::from_micros(micros), sandbox.output_async()).await);
        }
    });
}

#[test]
fn kills_have_the_verdicts_of_their_ways() {
    run(async || {
        for (what, sandbox) in sorts().into_iter().skip(1) {
            let (mut child, pipe) = endless(&sandbox).await;
            child.kill().unwrap();
            assert_eq!(child.wait().await.unwrap().verdict(), Verdict::Signaled(libc::SIGKILL), "{what}");
            drop(child);
            dead(pipe).await;
            let (child, pipe) = endless(&sandbox).await;
            let killer = child.killer();
            let waiter = child.wait_with_output();
            let cancel = async {
                sleep(Duration::from_millis(20)).await;
                killer.kill().unwrap();
            };
            let (output, ()) = tokio::join!(waiter, cancel);
            assert_eq!(output.unwrap().outcome.verdict(), Verdict::Killed, "{what}");
            dead(pipe).await;
        }
        let limited = common::sh("exec sleep 1000").wall_time(Duration::from_millis(50));
        assert_eq!(limited.output_async().await.unwrap().outcome.verdict(), Verdict::WallTime);
    });
}

#[test]
fn a_frozen_sandbox_is_dropped() {
    if common::no_cgroups() {
        return;
    }
    run(async || {
        let limited = common::sandbox().cgroup_parent(common::cgroup_parent()).pids_limit(50);
        for sandbox in [limited.clone(), limited.pid_ns()] {
            let (child, pipe) = endless(&sandbox).await;
            child.as_child().freeze().unwrap();
            drop(child);
            dead(pipe).await;
        }
    });
}

#[test]
fn the_output_limit_counts_as_elsewhere() {
    run(async || {
        for (what, sandbox) in sorts() {
            let flood = probe::run(sandbox.clone(), "flood").output_limit(100_000);
            let output = flood.output_async().await.unwrap();
            assert_eq!(output.outcome.verdict(), Verdict::OutputLimit, "{what}");
            assert_eq!((output.stdout.len(), output.truncated), (100_000, true), "{what}");
            let exact = "head -c 60000 /dev/zero; head -c 40000 /dev/zero >&2";
            let exact = common::shell(sandbox.clone(), exact).output_limit(100_000);
            let output = exact.output_async().await.unwrap();
            assert!(output.outcome.success() && !output.truncated, "{what}");
            assert_eq!(output.stdout.len() + output.stderr.len(), 100_000, "{what}");
            // A stream that is read by hand.
            let mut child = flood.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn_async().await.unwrap();
            let (mut stdout, mut all) = (child.stdout.take().unwrap(), Vec::new());
            stdout.read_to_end(&mut all).await.unwrap();
            assert_eq!((all.len(), stdout.is_truncated()), (100_000, true), "{what}");
            assert_eq!(child.wait().await.unwrap().verdict(), Verdict::OutputLimit, "{what}");
            // What is cut off is read on, and the program ends by itself.
            let cut = "head -c 5000000 /dev/zero; exit 3";
            let cut = common::shell(sandbox, cut).output_limit(1000).output_cut(true);
            let output = cut.output_async().await.unwrap();
            assert_eq!((output.outcome.verdict(), output.stdout.len()), (Verdict::Exited(3), 1000), "{what}");
            assert!(output.truncated, "{what}");
        }
    });
}

/// A program that writes without end, into a limit that only cuts, leaves other tasks their time.
#[test]
fn a_flood_does_not_keep_a_task_from_running() {
    run(async || {
        let flood = probe::run(common::sandbox(), "flood").output_limit(10).output_cut(true);
        let start = Instant::now();
        assert!(timeout(Duration::from_millis(200), flood.output_async()).await.is_err());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}

#[test]
fn a_descendant_that_holds_the_pipe_does_not_hold_up_the_output() {
    run(async || {
        let sandbox = common::sandbox().pid_ns().command("/bin/sh");
        let output = sandbox.args(["-c", "sleep 60 & echo here"]).output_async().await.unwrap();
        assert_eq!(output.stdout, b"here\n");
    });
}

/// The threads of this process by their names.
fn threads() -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        *all.entry(name.trim_end().to_owned()).or_default() += 1;
    }
    all
}

#[test]
fn many_at_once_need_no_thread_each() {
    // Each has some descriptors in this process.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let descriptors = hard.min(16_000).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, hard).unwrap();
    let count = usize::try_from(descriptors / 16).unwrap().min(1000);
    let _clean = common::clean();
    let cores = std::thread::available_parallelism().unwrap().get();
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("rt").enable_all().build().unwrap();
    let before = threads();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        let arrived = Arc::new(AtomicUsize::new(0));
        for i in 0..count {
            let arrived = Arc::clone(&arrived);
            let sandbox = common::shell(common::sandbox().pid_ns(), "read line; echo $line; exit 7");
            tasks.push(tokio::spawn(async move {
                let sandbox = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = sandbox.spawn_async().await.unwrap();
                arrived.fetch_add(1, Ordering::Relaxed);
                while arrived.load(Ordering::Relaxed) < count {
                    sleep(Duration::from_millis(50)).await;
                }
                child.stdin.as_mut().unwrap().write_all(format!("{i}\n").as_bytes()).await.unwrap();
                let output = child.wait_with_output().await.unwrap();
                assert_eq!(output.stdout, format!("{i}\n").as_bytes());
                assert_eq!(output.outcome.verdict(), Verdict::Exited(7));
            }));
        }
        let mut most = 0;
        while !tasks.iter().all(|task| task.is_finished()) {
            let now = threads();
            most = most.max(now.values().sum::<usize>());
            let others =
                |all: &BTreeMap<String, usize>| all.iter().filter(|(name, _)| *name != "rt").map(|(_, n)| n).sum();
            let (others_now, others_before): (usize, usize) = (others(&now), others(&before));
            assert!(others_now <= others_before + cores + 1, "{before:?}, then {now:?}");
            // Two workers, and a few for what blocks. On a busy host, many have done their work and are not idle yet.
            let few = (2 + 16 * cores.max(2)).max(count / 4);
            assert!(now.get("rt").is_none_or(|n| *n <= few), "{now:?}");
            sleep(Duration::from_millis(5)).await;
        }
        assert!(most > 2, "no thread was seen");
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn pools_and_prepared_policies_run_in_tasks() {
    run(async || {
        let prepared = common::sandbox().pid_ns().prepare().unwrap();
        let echo = |word: &str| Command::new("/bin/echo").arg(word);
        assert_eq!(prepared.with(echo("one")).output_async().await.unwrap().stdout, b"one\n");
        let mut child = prepared.with("/bin/true").spawn_async().await.unwrap();
        assert!(child.wait().await.unwrap().success());
        let pool = prepared_pool(&prepared).await;
        for word in ["two", "three", "four"] {
            assert_eq!(pool.output_async(echo(word)).await.unwrap().stdout, format!("{word}\n").as_bytes());
        }
        let mut child = pool.spawn_async(Command::new("/bin/cat").stdin(Stdio::piped())).await.unwrap();
        assert!(child.wait().await.unwrap().success());
        assert_eq!(pool.stats().hits + pool.stats().misses, 4);
        // Those that are given up are ended, not left.
        for micros in (0..3000).step_by(300) {
            let endless = Command::new("/bin/sleep").arg("1000");
            drop(timeout(Duration::from_micros(micros), pool.output_async(endless)).await);
        }
    });
}

async fn prepared_pool(prepared: &ringfence::Prepared) -> ringfence::Pool {
    let pool = ringfence::Pool::new(prepared, 2).unwrap();
    pool.wait_ready(Duration::from_secs(30)).unwrap();
    pool
}

#[test]
fn further_programs_run_in_the_sandbox() {
    run(async || {
        let (child, pipe) = endless(&common::sandbox().pid_ns()).await;
        match child.exec_output(Command::new("/bin/echo").arg("inside")).await {
            Ok(output) => assert_eq!(output.stdout, b"inside\n"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                common::skip(&error.to_string(), true);
            }
        }
        drop(child);
        dead(pipe).await;
    });
}

#[test]
fn errors_are_those_of_a_blocking_spawn_and_a_runtime_has_to_be_there() {
    run(async || {
        let error = common::sandbox().command("/no/such/program").spawn_async().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exec, "{error}");
        let child = common::sandbox().command("/bin/true").spawn_async().await.unwrap();
        child.detach().unwrap();
    });
    let _clean = common::clean();
    let child = common::sandbox().command("/bin/sleep").arg("1000").spawn().unwrap();
    let error = AsyncChild::new(child).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Control, "{error}");
}
