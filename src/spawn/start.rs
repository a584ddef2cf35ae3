//! The run of a plan: sends the job to a thread that clones, and reads the report to its end.

use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::attempt::Attempt;
use super::guests::Guest;
use super::handover::{plan_file, refuse_large, send_ahead, send_elsewhere, send_plan};
use super::launch::Launch;
use super::running::Stub;
use super::spawner::{Job, Spawners};
use super::stub_file;
use super::timings::Stopwatch;
use crate::error::{Error, Result, Step};
use crate::stub::wire::MAX_FDS;
use crate::sys::{mount, table};

/// Runs a plan to its end: the exec of the program, or a stub that waits. If the exec of a memfd is
/// forbidden, uses a file for the stub, in this spawn and in all later ones.
pub(crate) fn start(launch: &Launch<'_>) -> Result<Stub> {
    let file_stub = stub_file::is_memfd_refused();
    match attempt(launch, file_stub) {
        Err(error) if !file_stub && is_refused_stub(&error) => {
            let done = attempt(launch, true)?;
            stub_file::refuse_memfd();
            Ok(done)
        }
        result => result,
    }
}

fn is_refused_stub(error: &Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    error.step() == Step::LoadStub && errno.is_some_and(stub_file::is_refusal)
}

fn attempt(launch: &Launch<'_>, file_stub: bool) -> Result<Stub> {
    let (report, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .and_then(|(ours, theirs)| Ok((table::above_stdio(ours)?, theirs)))
        .map_err(|errno| Error::new(Step::Report, errno))?;
    refuse_large(launch.plan)?;
    let mut fds: Vec<RawFd> = vec![theirs.as_raw_fd()];
    fds.extend(launch.plan.fds().iter().map(|fd| fd.raw()));
    let encoded = launch.plan.encode(launch.fail, launch.timed.is_some());
    let cgroup = launch.cgroup.map(|fd| fd.as_raw_fd());
    let (plan, ahead) = if fds.len() + 2 <= MAX_FDS {
        let plan = send_plan(&report, &encoded, fds.len())?;
        fds.extend(plan.iter().map(AsRawFd::as_raw_fd).chain(cgroup));
        (plan, 0)
    } else {
        let (plan, number) = (plan_file(&encoded)?, fds.len());
        fds.extend([plan.as_raw_fd()].into_iter().chain(cgroup));
        let ahead = send_ahead(&report, &fds.split_off(MAX_FDS))?;
        send_elsewhere(&report, number, encoded.len())?;
        (Some(plan), ahead)
    };
    // A file of the stub's is made by its path, which the sparse mount namespace does not have.
    let umask = if launch.sparse && !file_stub { mount::umask().ok() } else { None };
    let spawners = match umask {
        Some(_) => Spawners::in_sparse()?,
        None => None,
    };
    let spawners = spawners.map_or_else(Spawners::get, Ok)?;
    let job = Job {
        umask: umask.unwrap_or(0),
        namespaces: launch.namespaces,
        into_cgroup: launch.cgroup.is_some(),
        own_stub: launch.seen_inside,
        file_stub,
        ahead,
    };
    let until = launch.until();
    let enters = launch.plan.reclones_sibling();
    let guest = enters.then(Guest::begin).transpose().map_err(|errno| Error::new(Step::Spawner, errno))?;
    let stopwatch = launch.timed.map(Stopwatch::start);
    let ticket = spawners.submit(job, &fds, until)?;
    drop((theirs, plan));
    let mut attempt = Attempt::new(launch, report, until);
    attempt.ticket = Some(ticket);
    attempt.guest = guest;
    attempt.stopwatch = stopwatch;
    attempt.follow()?;
    attempt.finish()
}
