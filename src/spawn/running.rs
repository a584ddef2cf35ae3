//! The child after its plan: a stub that waits, or a program that runs.

use std::os::fd::{AsFd, OwnedFd};

use super::guests::Guest;
use super::report::{self, Event};
use super::timings::Timings;
use crate::stub::wire::record;

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Set if the program has entered a pid namespace that existed before it.
    pub(crate) guest: Option<Guest>,
    /// The program's init, if there is one.
    pub(crate) init: Option<Init>,
    /// The master of the terminal that the stub has made for the program.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) timings: Option<Timings>,
}

/// A child that has run its plan to the end.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) guest: Option<Guest>,
    pub(super) report: OwnedFd,
    pub(super) terminal: Option<OwnedFd>,
    /// The wait status of the program, if it came before the spawner's own record.
    pub(super) ended: Option<i32>,
    pub(super) has_init: bool,
    pub(super) timings: Option<Timings>,
}

impl Stub {
    /// Returns the program that the stub has executed.
    pub(crate) fn into_running(self) -> Running {
        let init = self.has_init.then_some(Init { report: self.report, ended: self.ended });
        let Stub { pid, pidfd, guest, terminal, timings, .. } = self;
        Running { pid, pidfd, guest, init, terminal, timings }
    }
}

/// The records that an init sends.
#[derive(Debug)]
pub(crate) struct Init {
    report: OwnedFd,
    /// The wait status of the program, if it came before the spawner's own record.
    ended: Option<i32>,
}

impl Init {
    /// Returns the wait status of the program, which init sends before init ends.
    pub(crate) fn ended(&self) -> Option<i32> {
        loop {
            match report::receive(self.report.as_fd()) {
                Ok(Event::Record(record, _)) if record.kind == record::ENDED => return Some(record.value),
                Ok(Event::Record(..)) => {}
                _ => return self.ended,
            }
        }
    }
}
