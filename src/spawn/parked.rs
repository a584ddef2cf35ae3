//! A stub that has finished its setup and waits for the plan of its program.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::attempt::{Attempt, reap};
use super::handover::{plan_file, refuse_large, send_fds, unsent_fds};
use super::launch::Launch;
use super::report;
use super::running::{Running, Stub};
use super::spawner::Spawners;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::PlanFd;
use crate::stub::wire;
use crate::sys::pidfd;

/// The longest time until the stub is about to execute the program, for which it opens nothing
/// more. A stub that takes longer was stopped by another process.
const BEGINNING: Duration = Duration::from_secs(2);

/// A waiting stub. In the process that made the stub, a drop kills and reaps it; in a fork, a drop
/// does nothing.
#[derive(Debug)]
pub(crate) struct Parked {
    home: &'static Spawners,
    /// `None` after [`Parked::fire`].
    stub: Option<Stub>,
}

/// The reason why a parked stub became no program.
#[derive(Debug)]
pub(crate) enum Misfire {
    /// The stub was dead, or made no progress and was killed. The program was not executed.
    Dead,
    /// The stub failed to run the plan, and has ended.
    Failed(Error),
}

impl Stub {
    /// Returns the stub as one that waits for the plan of its program.
    pub(crate) fn into_parked(self) -> Result<Parked> {
        Ok(Parked { home: Spawners::get()?, stub: Some(self) })
    }
}

impl Parked {
    /// Returns the pidfd, which becomes readable when the stub has died.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.stub.as_ref().map(|stub| stub.pidfd.as_fd())
    }

    /// Kills the stub, and does not wait for its end.
    pub(crate) fn kill(&self) {
        if let Some(stub) = self.stub.as_ref().filter(|_| self.home.is_here()) {
            // ESRCH: the stub has ended by itself.
            let _ = pidfd::send_signal(stub.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Sends the plan of the program, with its streams and the descriptors of the plan, and follows
    /// the stub until the exec.
    pub(crate) fn fire(mut self, launch: &Launch<'_>, streams: &[PlanFd; 3]) -> Result<Running, Misfire> {
        refuse_large(launch.plan).map_err(Misfire::Failed)?;
        let Some(stub) = &self.stub else { return Err(Misfire::Dead) };
        send(stub, launch, streams)?;
        let fds: Vec<_> = launch.plan.fds().iter().map(PlanFd::raw).collect();
        send_fds(&stub.report, &fds).map_err(|errno| match errno {
            // The stub cannot have executed the program, for which it needs the descriptors.
            errno if is_dead(errno) => Misfire::Dead,
            errno => Misfire::Failed(unsent_fds(errno)),
        })?;
        let Some(Stub { pid, pidfd, guest, report, .. }) = self.stub.take() else { return Err(Misfire::Dead) };
        let mut attempt = Attempt::new(launch, report, launch.until());
        attempt.child = Some((pid, pidfd));
        attempt.guest = guest;
        attempt.begins_by = Some(Instant::now() + BEGINNING);
        match attempt.follow() {
            Ok(()) => attempt.finish().map(Stub::into_running).map_err(Misfire::Failed),
            Err(error) if error.kind() == ErrorKind::Timeout && !attempt.had_begun() => Err(Misfire::Dead),
            Err(error) if error.kind() == ErrorKind::SetupDied && !attempt.executing => Err(Misfire::Dead),
            Err(error) => Err(Misfire::Failed(error)),
        }
    }
}

fn send(stub: &Stub, launch: &Launch<'_>, streams: &[PlanFd; 3]) -> Result<(), Misfire> {
    let failed = |errno| match errno {
        errno if is_dead(errno) => Misfire::Dead,
        errno => Misfire::Failed(Error::new(Step::ReadPlan, errno)),
    };
    let plan = launch.plan.encode(launch.fail, false);
    let mut fds: Vec<_> = streams.iter().map(PlanFd::raw).collect();
    if plan.len() <= wire::INLINE_MAX {
        // EMSGSIZE, ENOBUFS: the plan is too large for a message.
        match report::send_with_fds(&stub.report, &plan, &fds) {
            Err(Errno::EMSGSIZE | Errno::ENOBUFS) => {}
            result => return result.map_err(failed),
        }
    }
    let file = plan_file(&plan).map_err(Misfire::Failed)?;
    fds.push(std::os::fd::AsRawFd::as_raw_fd(&file));
    report::send_with_fds(&stub.report, &report::elsewhere(-1, plan.len()), &fds).map_err(failed)
}

/// Returns whether a message could not be sent because the stub has died.
fn is_dead(errno: Errno) -> bool {
    matches!(errno, Errno::EPIPE | Errno::ECONNRESET)
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.kill();
        if let Some(stub) = self.stub.take().filter(|_| self.home.is_here()) {
            reap(stub.pidfd.as_fd());
            stub.guest.into_iter().for_each(|guest| guest.reaped());
        }
    }
}
