//! Many threads that spawn at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::common;
use ringfence::Namespaces;

/// Ends the process, loudly, if the test has not ended in time: a hung thread cannot be joined.
struct Deadline(Arc<AtomicBool>);

fn deadline(limit: Duration) -> Deadline {
    let done = Arc::new(AtomicBool::new(false));
    let (is_done, until) = (done.clone(), Instant::now() + limit);
    thread::spawn(move || {
        while Instant::now() < until {
            if is_done.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        eprintln!("still not done after {limit:?}");
        std::process::abort();
    });
    Deadline(done)
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Allocates and frees until it is told to stop.
fn hammer(stop: &AtomicBool) {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut n = 1usize;
    while !stop.load(Ordering::Relaxed) {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        kept.push(vec![0; 1 + (n >> 40) % 20_000]);
        if kept.len() > 50 {
            kept.swap_remove(n % 50);
        }
    }
}

#[test]
fn eight_threads_spawn_two_thousand_sandboxes() {
    const THREADS: usize = 8;
    const EACH: usize = 250;
    let _clean = common::clean();
    let _deadline = deadline(Duration::from_secs(240));
    let (stop, done, start) = (AtomicBool::new(false), AtomicUsize::new(0), Barrier::new(THREADS));
    let apart = Namespaces::PID | Namespaces::UTS | Namespaces::IPC;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| hammer(&stop));
        }
        let spawners: Vec<_> = (0..THREADS)
            .map(|t| {
                let (start, done) = (&start, &done);
                scope.spawn(move || {
                    start.wait();
                    for i in 0..EACH {
                        // Each has an answer of its own, so that none can be taken for another's.
                        let name = format!("box-{t}-{i}");
                        let base = common::sandbox().namespaces(apart).hostname(&name);
                        match i % 5 {
                            0 => {
                                let output = base.command("/bin/uname").arg("-n").output().unwrap();
                                assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{name}\n"));
                            }
                            1 => drop(base.command("/bin/sleep").arg("1000").spawn().unwrap()),
                            2 => {
                                let error = base.command(format!("/no/{name}")).spawn().unwrap_err();
                                assert_eq!(error.path().unwrap().to_str().unwrap(), format!("/no/{name}"));
                            }
                            _ => {
                                let code = (t * 31 + i) as i32 % 256;
                                let base = base.mount_ns().init(i % 2 == 0);
                                let outcome = base.command("/bin/sh").args(["-c", &format!("exit {code}")]).status();
                                assert_eq!(outcome.unwrap().code(), Some(code), "{name}");
                            }
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let results: Vec<_> = spawners.into_iter().map(|spawner| spawner.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), THREADS * EACH);
}

#[test]
fn the_library_keeps_at_most_a_spawner_a_core_and_one_watcher() {
    let _clean = common::clean();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert!(
                        common::sandbox()
                            .command("/bin/true")
                            .wall_time(Duration::from_secs(9))
                            .status()
                            .unwrap()
                            .success()
                    );
                }
            });
        }
    });
    let cores = thread::available_parallelism().unwrap().get();
    let names = common_threads();
    let spawners = names.iter().filter(|name| *name == "ringfence").count();
    let watchers = names.iter().filter(|name| *name == "ringfence-watch").count();
    assert!((1..=cores).contains(&spawners), "{names:?}");
    assert_eq!(watchers, 1, "{names:?}");
}

/// The names of this process's threads.
fn common_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}
