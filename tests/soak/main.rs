//! Sandboxes at random for as long as one likes, and nothing is left of them: no descriptor, process, mount, control group
//! or scratch directory, and the caller has not grown.
//!
//!     RINGFENCE_SOAK_SECONDS=3600 cargo test --release --all-features --test soak -- --ignored --nocapture
//!
//! The policies, the programs, the ops that are made to fail, and when and how everything is killed, all come from a seed,
//! which is printed: `RINGFENCE_SOAK_SEED=…` does the same again, as far as the threads' and the kernel's timing allows.

#[path = "../common/mod.rs"]
mod common;

mod left;
mod owner;
mod policy;
mod pools;
mod random;
mod steps;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::TempDir;
use left::Left;
use policy::{Dirs, TOKEN};
use random::Random;

common::callers! {
    |words|
    "owner" => owner::own(words[1].parse().unwrap(), &Dirs::read(&words[2..])),
}

/// Threads that run sandboxes. More than there are processors, fewer than would make each step slow.
const THREADS: u64 = 4;
/// Longer than any step may take: one that does not end is a failure, too.
const STUCK: Duration = Duration::from_secs(120);

/// A value from the environment.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

struct Fixture {
    place: Dirs,
    _root: TempDir,
    _scratch: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let (root, scratch) = (common::root_dir(), TempDir::new());
        let place = Dirs {
            root: root.path().to_owned(),
            scratch: scratch.path().to_owned(),
            cgroup_parent: common::cgroup_parent(),
            token: format!("{}-{:?}", std::process::id(), SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos()),
        };
        Fixture { place, _root: root, _scratch: scratch }
    }
}

#[test]
#[ignore = "takes as long as RINGFENCE_SOAK_SECONDS says, else a minute"]
fn nothing_is_left_of_sandboxes_at_random() {
    let time = Duration::from_secs(asked("RINGFENCE_SOAK_SECONDS").unwrap_or(60));
    let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = asked("RINGFENCE_SOAK_SEED").unwrap_or_else(clock);
    println!("soak for {time:?}, RINGFENCE_SOAK_SEED={seed}");
    let fixture = Fixture::new();
    let place = &fixture.place;
    let _clean = common::clean();
    let mut before = Left::now(place);
    let anchor = anchor(place);
    // Memory counts from when everything that is kept has been made: threads, the allocator's arenas.
    let counts = soak(place, seed, time / 4);
    before.memory_kib = left::memory_kib();
    let more = soak(place, seed ^ 1, time * 3 / 4);
    println!("{counts:?}, then {more:?}");
    drop(anchor);
    let left = before.settled(place);
    assert!(left.is_empty(), "RINGFENCE_SOAK_SEED={seed}: left behind: {left:#?}");
    // Every kind of step was taken, or this was no soak.
    assert!(more.len() > 8 || time < Duration::from_secs(60), "only {more:?}");
}

/// Keeps the parent of all control groups in being. An owner that is killed between making that and marking it as made by
/// the library leaves it for good: nobody can tell it from one that was there before.
fn anchor(place: &Dirs) -> Option<ringfence::Child> {
    let limited =
        common::sandbox().memory_limit(1 << 30).pids_limit(100).cpu_limit(1.0).command("/bin/sleep").arg("10000");
    common::is_root().then(|| limited.cgroup_parent(&place.cgroup_parent).spawn().unwrap())
}

/// Steps in all threads until the time is over. Gives how often each came to what.
fn soak(place: &Dirs, seed: u64, time: Duration) -> BTreeMap<&'static str, u64> {
    let until = Instant::now() + time;
    let counts = Mutex::new(BTreeMap::new());
    let start = Instant::now();
    // When each thread began its step, in ms; the end of its last one is none.
    let began: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(u64::MAX)).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (began, counts) = (&began[thread as usize], &counts);
                scope.spawn(move || {
                    let mut random = Random::new(seed.wrapping_add(thread));
                    while Instant::now() < until {
                        began.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
                        let came_to = steps::step(&mut random, place);
                        *counts.lock().unwrap().entry(came_to).or_insert(0) += 1;
                    }
                    began.store(u64::MAX, Ordering::Relaxed);
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            let late = (start.elapsed().saturating_sub(STUCK)).as_millis() as u64;
            if let Some(thread) = began.iter().position(|began| began.load(Ordering::Relaxed) < late) {
                eprintln!("RINGFENCE_SOAK_SEED={seed}: thread {thread} has been in one step for {STUCK:?}");
                std::process::abort();
            }
        }
    });
    counts.into_inner().unwrap()
}

/// The soak sees what it is to see: each kind of leak, made on purpose.
#[test]
fn each_leak_is_seen() {
    let fixture = Fixture::new();
    let place = &fixture.place;
    let _clean = common::clean();
    let mut unseen = Vec::new();
    let mut leak = |what: &str, make: &mut dyn FnMut() -> Box<dyn FnOnce()>| {
        let before = Left::now(place);
        let undo = make();
        let seen = Left::now(place).more_than(&before);
        undo();
        if !seen.iter().any(|line| line.contains(what)) {
            unseen.push(format!("{what}: {seen:?}"));
        }
    };
    leak("descriptors", &mut || {
        let file = File::open("/dev/null").unwrap();
        Box::new(|| drop(file))
    });
    for what in ["children", "programs"] {
        leak(what, &mut || {
            let mut child = Command::new("/bin/sleep").arg("1000").env(TOKEN, &place.token).spawn().unwrap();
            Box::new(move || {
                child.kill().unwrap();
                child.wait().unwrap();
            })
        });
    }
    leak("scratch", &mut || {
        let dir = place.scratch.join("rf-leak");
        fs::create_dir(&dir).unwrap();
        Box::new(move || fs::remove_dir(dir).unwrap())
    });
    leak("memory", &mut || {
        let memory = std::hint::black_box(vec![1_u8; 20 << 20]);
        Box::new(|| drop(memory))
    });
    leak("threads", &mut || {
        let sleeps = || std::thread::sleep(Duration::from_secs(1));
        let threads: Vec<_> = (0..THREADS * 4).map(|_| std::thread::spawn(sleeps)).collect();
        Box::new(|| threads.into_iter().for_each(|thread| thread.join().unwrap()))
    });
    if !common::no_cgroups() {
        leak("cgroup", &mut || {
            // What is held by a sandbox that lives, as it would be by one that has been forgotten.
            let sandbox = common::sandbox().cgroup_parent(&place.cgroup_parent).pids_limit(10);
            let child = sandbox.command("/bin/sleep").arg("1000").spawn().unwrap();
            Box::new(|| drop(child.close()))
        });
    }
    if common::is_root() {
        leak("mounts", &mut || {
            let (done, is_done) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            // A thread in a mount namespace of its own, where one mount more is not undone.
            let thread = std::thread::spawn(move || {
                use nix::mount::{MsFlags, mount};
                use nix::sched::{CloneFlags, unshare};
                unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
                mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), none).unwrap();
                done.send(()).unwrap();
                let _ = ended.recv();
            });
            is_done.recv().unwrap();
            Box::new(move || {
                drop(end);
                thread.join().unwrap();
            })
        });
    }
    assert!(unseen.is_empty(), "not seen: {unseen:#?}");
}
