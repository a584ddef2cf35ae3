//! The scope of systemd that one sandbox has for itself, until the sandbox has it.
//!
//! systemd makes a scope around a process, and the sandbox's limits are to stand before its first
//! process comes. So a parked process of the library is in the scope first, and ends as soon as the
//! sandbox's stub is there. If the caller is killed before that, the parked process ends with it,
//! and systemd removes the scope.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::location::Location;
use super::scope::{DelegationBoundary, ScopeHolder, park};
use crate::cgroup::{self, Group, Host, Limits, Manager, Unit, UnitId};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::timeout;

/// The longest time in which the parked process may end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A scope that was made for a sandbox. Dropping the value ends the scope.
#[derive(Debug)]
pub(super) struct Standing {
    holder: ScopeHolder,
    pid: i32,
    /// `None` once the sandbox has the scope.
    id: Option<UnitId>,
    /// The limit of processes that comes once the parked process is gone.
    pids: Option<u64>,
}

impl Standing {
    /// Has systemd make the scope, whose group is `group`.
    pub(super) fn make(
        unit: &Unit,
        group: &Path,
        host: &Host,
        limits: &Limits,
        timeout: Duration,
    ) -> Result<(Standing, Location)> {
        if let Some(problem) = cgroup::devices_in_unit(host, limits, group.parent()) {
            return Err(Error::refused(vec![problem]));
        }
        // The first call asks whether systemd is there: without systemd, nothing is started.
        let mut manager = Manager::of_caller(Instant::now() + timeout)?;
        let (pid, holder) = park(timeout)?;
        let id = manager.start_unit(unit, group, host, limits, pid)?;
        let pids = limits.pids.filter(|pids| *pids != u64::MAX);
        let standing = Standing { holder, pid, id: Some(id), pids };
        let found = host.unit_group_of(pid);
        if found.as_deref() != Some(group) {
            let place = found.map_or_else(|| "nowhere".to_owned(), |found| found.display().to_string());
            let detail = format!("systemd has put the scope to {place}, and not to {}", group.display());
            return Err(Error::message(ErrorKind::Setup, Step::SystemdScope, detail).at(&unit.name));
        }
        let boundary =
            host.is_across_boundary(group).then(|| DelegationBoundary::of_scope(unit.name.clone(), host, group));
        Ok((standing, Location { parent: None, boundary }))
    }

    pub(super) fn id(&self) -> Option<&UnitId> {
        self.id.as_ref()
    }

    /// Returns the pid of the parked process.
    pub(super) fn keeper(&self) -> i32 {
        self.pid
    }

    /// Returns limits that have room for the parked process.
    pub(super) fn with_room(&self, limits: &Limits) -> Limits {
        let limits = limits.clone();
        match self.pids {
            Some(pids) => limits.pids(pids.saturating_add(1)),
            None => limits,
        }
    }

    /// Ends the parked process, once the stub is in the group.
    pub(super) fn end_keeper(&self, group: Option<&Group>) -> Result<()> {
        self.holder.kill();
        let until = Instant::now() + END_PATIENCE;
        let process = self.holder.as_fd();
        loop {
            match poll(&mut [PollFd::new(process, PollFlags::POLLIN)], timeout::until(until)) {
                Ok(0) if Instant::now() >= until => {
                    return Err(
                        Error::new(Step::SystemdScope, Errno::ETIMEDOUT).detail("the process that holds the scope")
                    );
                }
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(Error::new(Step::SystemdScope, errno)),
            }
        }
        match (group, self.pids) {
            (Some(group), Some(pids)) => group.update(&Limits::new().pids(pids)),
            _ => Ok(()),
        }
    }

    /// Leaves the scope to the sandbox, whose record has it.
    pub(super) fn leave(mut self) {
        self.id = None;
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.holder.kill();
        // The error that ends the create counts. Without processes the scope ends by itself.
        if let Some(id) = &self.id {
            let _ = Manager::of_caller(Instant::now() + END_PATIENCE).and_then(|mut manager| manager.stop(id));
        }
    }
}
