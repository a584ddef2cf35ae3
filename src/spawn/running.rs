//! A child at the end of its plan: a stub that waits, or a program that runs.

use std::os::fd::{AsFd, OwnedFd};

use super::report::{self, Event};
use super::timings::Timings;
use crate::stub::wire::record;

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// The init above it, if it has one.
    pub(crate) init: Option<Init>,
    pub(crate) timings: Option<Timings>,
}

/// A child that has come to the end of its plan.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) report: OwnedFd,
    /// The wait status of the program, where it came before the spawner's own word.
    pub(super) ended: Option<i32>,
    pub(super) has_init: bool,
    pub(super) timings: Option<Timings>,
}

impl Stub {
    /// The program that it has executed.
    pub(crate) fn into_running(self) -> Running {
        let init = self.has_init.then_some(Init { report: self.report, ended: self.ended });
        Running { pid: self.pid, pidfd: self.pidfd, init, timings: self.timings }
    }
}

/// What init has to say.
#[derive(Debug)]
pub(crate) struct Init {
    report: OwnedFd,
    /// The wait status of the program, where it came before the spawner's own word.
    ended: Option<i32>,
}

impl Init {
    /// The wait status of the program, which init tells before it ends itself.
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
