//! The children of this process in a pid namespace that existed before them, and the siblings that
//! such a child makes.
//!
//! A program that has entered a pid namespace from outside is a child of the thread that cloned it,
//! and so is every process that it makes by clone(2) with CLONE_PARENT. This process knows nothing
//! of those, and the namespace cannot end before they are reaped: pid_namespaces(7). A sibling is
//! told from every other child by three facts. It is a child of a spawner, and no other thread's.
//! It is in a pid namespace below that of this process, whose first process it is not. And it is
//! none of the processes that the spawners have put there.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use super::spawner;
use crate::proc::identity::{self, Identity};
use crate::sys::fork_mark::PerProcess;
use crate::sys::{mutex, pidfd};

/// How much later a process may seem to have started than it did: a tick of the kernel's clock, and
/// one more.
const TICKS: Duration = Duration::from_millis(20);

/// The guests of this process, by numbers that nobody else has had.
static GUESTS: PerProcess<Mutex<HashMap<u64, State>>> = PerProcess::new();

#[derive(Debug, Clone, Copy)]
enum State {
    /// A stub is on its way in since that time after the boot, and nobody knows its pid.
    Entering(Duration),
    /// A child that nobody has reaped.
    Inside(i32),
}

/// A child that enters a pid namespace, from before its clone until it is reaped. A drop forgets one
/// that has not entered; any other stays known, and is no sibling.
#[derive(Debug)]
pub(crate) struct Guest(u64);

impl Guest {
    pub(super) fn begin() -> Result<Guest, Errno> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let guests = GUESTS.get_or_try(|| Ok::<_, Errno>(Mutex::default()))?;
        mutex::lock(guests).insert(number, State::Entering(since_boot()));
        Ok(Guest(number))
    }

    /// Notes the pid of the child.
    pub(super) fn entered(&self, pid: i32) {
        guests().into_iter().for_each(|mut guests| _ = guests.insert(self.0, State::Inside(pid)));
    }

    /// Forgets the child, which has been reaped.
    pub(crate) fn reaped(&self) {
        guests().into_iter().for_each(|mut guests| _ = guests.remove(&self.0));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(mut guests) = guests() else { return };
        if let Some(State::Entering(_)) = guests.get(&self.0) {
            guests.remove(&self.0);
        }
    }
}

fn guests() -> Option<MutexGuard<'static, HashMap<u64, State>>> {
    GUESTS.get().map(mutex::lock)
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Reaps the siblings of guests that have ended. Returns true if another one lives, or cannot be
/// reaped yet.
pub(crate) fn reap_siblings() -> bool {
    let Ok(own) = identity::pids_inside("self") else { return false };
    let mut lives = false;
    for pid in spawner::children() {
        lives |= guests().is_some_and(|guests| !is_known(&guests, pid)) && !reap_sibling(pid, own.len());
    }
    lives
}

/// Reaps a child, if it is a sibling that has ended. Returns false if it is one that lives, or may
/// be one.
fn reap_sibling(pid: i32, own_depth: usize) -> bool {
    let Ok(child) = pidfd::open(pid) else { return true };
    let Ok(pids) = identity::pids_inside(&pid.to_string()) else { return true };
    let is_first = pids.len() == own_depth + 1 && pids.last() == Some(&1);
    if pids.len() <= own_depth || is_first {
        return true;
    }
    if !pidfd::is_zombie_child(child.as_fd()) {
        return false;
    }
    // As long as nobody has reaped it, the pid is its own.
    let age = Identity::of(child.as_fd()).ok().filter(|found| found.pid() == pid).map(|found| found.age());
    let (Some(age), Some(guests)) = (age, guests()) else { return true };
    if is_known(&guests, pid) {
        return true;
    }
    // The guests stay as they are until it is reaped. A tracer inside may keep it from that.
    is_older_than_all(&guests, age, since_boot()) && !matches!(pidfd::wait(child.as_fd(), false), Ok(None))
}

/// Returns whether a child of that age is none of the stubs that are on their way in.
fn is_older_than_all(guests: &HashMap<u64, State>, age: Duration, now: Duration) -> bool {
    guests.values().all(|state| match state {
        State::Entering(began) => age > now.saturating_sub(*began) + TICKS,
        State::Inside(_) => true,
    })
}

fn is_known(guests: &HashMap<u64, State>, pid: i32) -> bool {
    guests.values().any(|state| matches!(state, State::Inside(known) if *known == pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_may_be_on_its_way_in_is_no_sibling() {
        let seconds = Duration::from_secs;
        let mut guests = HashMap::from([(1, State::Inside(4242))]);
        assert!(is_older_than_all(&guests, Duration::ZERO, seconds(100)), "nobody enters");
        guests.insert(2, State::Entering(seconds(90)));
        assert!(is_older_than_all(&guests, seconds(11), seconds(100)));
        // It may be up to a tick younger than it seems.
        for age in [Duration::ZERO, seconds(9), seconds(10), seconds(10) + TICKS] {
            assert!(!is_older_than_all(&guests, age, seconds(100)), "{age:?}");
        }
        assert!(is_known(&guests, 4242) && !is_known(&guests, 4243));
    }

    #[test]
    fn a_guest_is_known_from_its_entry_until_it_is_reaped() {
        let state = |guest: &Guest| guests().unwrap().get(&guest.0).copied();
        let guest = Guest::begin().unwrap();
        assert!(matches!(state(&guest), Some(State::Entering(began)) if began <= since_boot()));
        guest.entered(i32::MAX);
        assert!(is_known(&guests().unwrap(), i32::MAX));
        guest.reaped();
        assert!(state(&guest).is_none());
        let Guest(number) = Guest::begin().unwrap();
        assert!(!guests().unwrap().contains_key(&number), "one that has not entered is forgotten");
        let kept = Guest::begin().unwrap();
        kept.entered(i32::MAX);
        drop(kept);
        assert!(is_known(&guests().unwrap(), i32::MAX), "somebody else reaps it");
    }
}
