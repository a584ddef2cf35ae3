//! Random pools: fired from, resized, cleared, their waiting sandboxes killed, and dropped in the midst of it.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfence::{Command, ErrorKind, Pool};

use super::common;
use super::left::cgroup_mounts;
use super::policy::{self, Dirs, Program};
use super::random::Random;
use super::steps::{end, is_expected, must};

/// A pool, for a few programs.
pub fn step(random: &mut Random, place: &Dirs) -> &'static str {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut policy = policy::policy(random, place);
    // What waits in it is known by its group, which nobody else's is below.
    let parent = format!("{}-pool-{}", place.cgroup_parent.display(), NEXT.fetch_add(1, Ordering::Relaxed));
    let can_kill = policy.has_group && common::is_root();
    if can_kill {
        policy.sandbox = policy.sandbox.cgroup_parent(&parent);
    }
    let pool = must("pool", &policy, policy.sandbox.pool(1 + random.below(4) as usize));
    if random.chance(70) && !policy.fails {
        must("wait_ready", &policy, pool.wait_ready(Duration::from_secs(60)));
    }
    let mut killed = false;
    for _ in 0..random.below(6) {
        match random.below(10) {
            0 => pool.clear(),
            1 => pool.resize(random.below(5) as usize),
            2 if can_kill => {
                kill_what_waits(Path::new(&parent));
                killed = true;
            }
            _ => fire(&pool, &mut policy, random, killed),
        }
    }
    drop(pool);
    "pool"
}

fn fire(pool: &Pool, policy: &mut policy::Policy, random: &mut Random, killed: bool) {
    // The policy has a pid namespace only if its own program needs one.
    if random.chance(30) {
        policy.program = random.pick(&[Program::Ends, Program::Sleeps, Program::KillsItself, Program::Missing]);
        policy.ends = policy.program != Program::Sleeps;
    }
    let words = policy.program.words();
    match pool.spawn(Command::new(words[0]).args(&words[1..])) {
        Ok(child) => drop(end(child, policy, random)),
        // An init that is about to die takes its time to: the program may have begun before it is killed with its init, so
        // no other sandbox may be given it.
        Err(error) if killed && error.kind() == ErrorKind::SetupDied => {}
        Err(error) => drop(is_expected(&error, policy)),
    }
}

/// One process of the groups below the parent, without a program yet or with one.
fn kill_what_waits(parent: &Path) {
    let parent = parent.strip_prefix("/").unwrap();
    let groups = cgroup_mounts().into_iter().filter_map(|mount| fs::read_dir(mount.join(parent)).ok()).flatten();
    let files = groups.flatten().map(|entry| entry.path().join("cgroup.procs"));
    for file in files {
        let pids = || fs::read_to_string(&file).unwrap_or_default();
        let Some(pid) = pids().lines().find_map(|line| line.parse::<i32>().ok().filter(|pid| *pid > 0)) else {
            continue;
        };
        // SAFETY: no pointers; the descriptor is the kernel's newest.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if pidfd < 0 {
            continue;
        }
        // SAFETY: nobody else knows the descriptor.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
        // It is still that process, and no other that has its number by now.
        if pids().lines().any(|line| line == pid.to_string()) {
            // SAFETY: no siginfo is passed.
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, 0, 0) };
            return;
        }
    }
}
