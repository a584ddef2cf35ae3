//! The transfer of the plan and its descriptors to the stub.

use std::ffi::CStr;
use std::os::fd::{OwnedFd, RawFd};

use nix::errno::Errno;

use super::{hint, report};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::Plan;
use crate::stub::wire::{self, MAX_FDS};
use crate::sys::{file_size, memfd};

pub(super) fn refuse_large(plan: &Plan) -> Result<()> {
    if plan.is_too_large() {
        let error = Error::new(Step::Exec, Errno::E2BIG).with_kind(ErrorKind::Exec);
        return Err(error.hint("arguments, environment and paths together are too large"));
    }
    Ok(())
}

/// Sends the plan before the stub exists. If the plan is too large for a message, returns it as a
/// file; the caller must pass the file after `before` other descriptors.
pub(super) fn send_plan(report: &OwnedFd, plan: &[u8], before: usize) -> Result<Option<OwnedFd>> {
    if plan.len() <= wire::INLINE_MAX && report::send(report, plan).is_ok() {
        return Ok(None);
    }
    let file = plan_file(plan)?;
    send_elsewhere(report, before, plan.len())?;
    Ok(Some(file))
}

pub(super) fn send_elsewhere(report: &OwnedFd, number: usize, size: usize) -> Result<()> {
    report::send(report, &report::elsewhere(wire::FIRST_FD + number as RawFd, size))
        .map_err(|errno| Error::new(Step::ReadPlan, errno))
}

/// Sends the descriptors that do not fit into one message; the spawner receives them before it
/// clones. Returns the number of messages.
pub(super) fn send_ahead(report: &OwnedFd, fds: &[RawFd]) -> Result<u32> {
    send_fds(report, fds).map_err(|errno| unsent_fds(errno).detail("sending the descriptors to the spawning thread"))
}

/// Sends descriptors in as many messages as they need. Returns the number of messages.
pub(super) fn send_fds(report: &OwnedFd, fds: &[RawFd]) -> Result<u32, Errno> {
    let mut messages = 0;
    for fds in fds.chunks(MAX_FDS) {
        report::send_with_fds(report, &[0], fds)?;
        messages += 1;
    }
    Ok(messages)
}

/// Returns the error for descriptors that could not be sent.
pub(super) fn unsent_fds(errno: Errno) -> Error {
    let error = Error::new(Step::PlaceFd, errno);
    hint::for_failure(Step::PlaceFd, errno).into_iter().fold(error, Error::hint)
}

pub(super) fn plan_file(plan: &[u8]) -> Result<OwnedFd> {
    let file = std::fs::File::from(new_memfd(c"ringfence-plan")?);
    file_size::append(&file, plan).map_err(|error| Error::io(Step::ReadPlan, &error))?;
    Ok(file.into())
}

pub(super) fn new_memfd(name: &CStr) -> Result<OwnedFd> {
    memfd::create(name).map_err(|errno| Error::new(Step::ReadPlan, errno))
}
