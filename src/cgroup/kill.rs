//! Kills every process of a group.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::controllers::Controllers;
use super::freezer;
use super::part::Part;
use crate::error::{Error, Result, Step};
use crate::sys::pidfd;

/// The longest wait for a freeze in each round. A freeze helps, but is not required.
const FREEZE_BOUND: Duration = Duration::from_millis(10);
/// The number of processes that are pinned by pidfds at once.
const BATCH: usize = 128;

/// Sends SIGKILL to every process of a group, given its parts. With `cgroup.kill` (5.14) that is
/// one write, and the processes are dying when the call returns. Without it, rounds of signals go
/// on until the group is empty or `bound` has passed.
pub(super) fn kill(parts: &[&Part], bound: Duration) -> Result<()> {
    for part in parts {
        match part.write_optional(c"cgroup.kill", "1") {
            Ok(true) => {
                // What is frozen below on v1 takes its SIGKILL when it is thawed.
                parts.iter().for_each(|part| freezer::thaw_below(part));
                return Ok(());
            }
            Ok(false) => {}
            // ENODEV: the group is gone. EOPNOTSUPP: a process inside made the group threaded.
            Err(Errno::ENODEV | Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(part.failed(Step::Kill, errno, c"cgroup.kill")),
        }
    }
    for part in parts.iter().filter(|part| part.controllers.contains(Controllers::PIDS)) {
        // From here on every fork fails, so the rounds end even where nothing can be frozen.
        let _ = part.write_optional(c"pids.max", "0");
    }
    kill_in_rounds(parts, Instant::now() + bound)
}

fn kill_in_rounds(parts: &[&Part], deadline: Instant) -> Result<()> {
    let freezer = parts.iter().find(|part| part.controllers.contains(Controllers::FREEZER));
    let fail = |errno| match parts.first() {
        Some(part) => part.error(Step::Kill, errno),
        None => Error::new(Step::Kill, errno),
    };
    let mut pause = Duration::from_micros(50);
    loop {
        let held = freezer.is_some_and(|part| freezer::freeze(part, FREEZE_BOUND).is_ok());
        let left = parts.iter().map(|part| signal(part)).sum::<nix::Result<usize>>();
        // A frozen v1 task takes its SIGKILL when it is thawed.
        if held && let Some(part) = freezer {
            match freezer::thaw(part) {
                // Another thread has waited for the last process, and removed the group.
                Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => {}
                Err(errno) => return Err(part.error(Step::Kill, errno)),
            }
        }
        parts.iter().for_each(|part| freezer::thaw_below(part));
        if left.map_err(fail)? == 0 {
            return Ok(());
        }
        let now = Instant::now();
        if now >= deadline {
            let hint = "processes in uninterruptible sleep, or in another pid namespace, cannot be killed from here";
            return Err(fail(Errno::EBUSY).hint(hint));
        }
        std::thread::sleep(pause.min(deadline - now));
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Sends SIGKILL to every process that the group lists, and returns their number. A pid that was
/// read may belong to another process by now. If the group lists the pid again after a pidfd was
/// opened, then the pidfd refers to that process, or its process is dead.
pub(super) fn signal(part: &Part) -> nix::Result<usize> {
    let listed = match part.processes() {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(0),
        other => other?,
    };
    let own = Pid::this().as_raw();
    let ours: Vec<_> = listed.iter().copied().filter(|pid| *pid > 0 && *pid != own).collect();
    for batch in ours.chunks(BATCH) {
        let mut pinned = Vec::with_capacity(batch.len());
        for pid in batch {
            match pidfd::open_any(*pid) {
                Ok(fd) => pinned.push((*pid, fd)),
                Err(Errno::ESRCH | Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        let still: HashSet<_> = match part.processes() {
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(0),
            other => other?.into_iter().collect(),
        };
        for (_, fd) in pinned.iter().filter(|(pid, _)| still.contains(pid)) {
            match pidfd::send_signal(fd.as_fd(), libc::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(listed.len())
}
