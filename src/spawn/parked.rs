//! A stub that has done its setup and waits for the plan of its program.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::attempt::{Attempt, reap};
use super::handover::{plan_file, refuse_large};
use super::launch::Launch;
use super::report;
use super::running::{Running, Stub};
use super::spawner::Spawners;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::PlanFd;
use crate::stub::wire;
use crate::sys::pidfd;

/// How long a stub may take until it is about to execute the program, for which it opens nothing any more. One that somebody
/// has stopped takes longer.
const BEGINNING: Duration = Duration::from_secs(2);

/// The stub. Dropping it kills and reaps it, in the process that made it; in a fork it does nothing.
#[derive(Debug)]
pub(crate) struct Parked {
    home: &'static Spawners,
    /// `None` once it has been fired.
    stub: Option<Stub>,
}

/// Why a parked stub became no program.
#[derive(Debug)]
pub(crate) enum Misfire {
    /// It had died, or did not move and was killed. The program was not executed.
    Dead,
    /// It could not do what it was told, and has ended.
    Failed(Error),
}

impl Stub {
    /// The stub that waits for the plan of its program.
    pub(crate) fn into_parked(self) -> Result<Parked> {
        Ok(Parked { home: Spawners::get()?, stub: Some(self) })
    }
}

impl Parked {
    /// Readable once it has died.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.stub.as_ref().map(|stub| stub.pidfd.as_fd())
    }

    /// Kills it, and does not wait for its end.
    pub(crate) fn kill(&self) {
        if let Some(stub) = self.stub.as_ref().filter(|_| self.home.is_here()) {
            // ESRCH: it has ended by itself.
            let _ = pidfd::send_signal(stub.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Hands over the plan of the program, with its streams, and follows it to the exec.
    pub(crate) fn fire(mut self, launch: &Launch<'_>, streams: &[PlanFd; 3]) -> Result<Running, Misfire> {
        refuse_large(launch.plan).map_err(Misfire::Failed)?;
        let Some(stub) = &self.stub else { return Err(Misfire::Dead) };
        send(stub, launch, streams)?;
        let Some(Stub { pid, pidfd, report, .. }) = self.stub.take() else { return Err(Misfire::Dead) };
        let mut attempt = Attempt::new(launch, report, launch.until());
        attempt.child = Some((pid, pidfd));
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
        Errno::EPIPE | Errno::ECONNRESET => Misfire::Dead,
        errno => Misfire::Failed(Error::new(Step::ReadPlan, errno)),
    };
    let plan = launch.plan.encode(launch.fail, false);
    let mut fds: Vec<_> = streams.iter().map(PlanFd::raw).collect();
    if plan.len() <= wire::INLINE_MAX {
        // EMSGSIZE, ENOBUFS: as for a plan that is too large.
        match report::send_with_fds(&stub.report, &plan, &fds) {
            Err(Errno::EMSGSIZE | Errno::ENOBUFS) => {}
            result => return result.map_err(failed),
        }
    }
    let file = plan_file(&plan).map_err(Misfire::Failed)?;
    fds.push(std::os::fd::AsRawFd::as_raw_fd(&file));
    report::send_with_fds(&stub.report, &report::elsewhere(-1, plan.len()), &fds).map_err(failed)
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.kill();
        if let Some(stub) = self.stub.take().filter(|_| self.home.is_here()) {
            reap(stub.pidfd.as_fd());
        }
    }
}
