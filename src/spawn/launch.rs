//! A plan with everything that its run needs beside it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::handover::new_memfd;
use crate::error::{Error, Result, Step};
use crate::namespace::IdMaps;
use crate::plan::Plan;

/// More than anybody waits, and less than the clock can hold.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// A plan and what goes with it.
pub(crate) struct Launch<'a> {
    pub(crate) plan: &'a Plan,
    /// The CLONE_NEW* flags of the clone.
    pub(crate) namespaces: u64,
    /// The directory of the v2 group to be born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Maps to be written from outside when the stub asks.
    pub(crate) id_maps: Option<&'a IdMaps>,
    /// Moves the stub, by its pid, into its control group when it asks.
    pub(crate) enter: Option<&'a dyn Fn(i32) -> Result<()>>,
    /// Others see the stub's process: it stays as init, or joins a sandbox that runs.
    pub(crate) seen_inside: bool,
    /// The plan leaves an init behind, which reports the end of the program.
    pub(crate) init: bool,
    /// The plan ends in a stub that waits for another one.
    pub(crate) parks: bool,
    pub(crate) deadline: Duration,
    /// Who takes the listener of a filter with a supervisor. It is sent on before the exec is awaited.
    pub(crate) listener: Option<&'a Sender<OwnedFd>>,
    /// Where the stub leaves the errno of an exec that failed, if its filter may keep it from telling.
    pub(crate) failure: Option<&'a FailurePage>,
    /// An op that is made to fail.
    pub(crate) fail: Option<(u32, i32)>,
    /// When the spawn began, if it is to be told where its time goes.
    pub(crate) timed: Option<Instant>,
}

impl<'a> Launch<'a> {
    /// A plan for a stub that nothing has to be done for from outside.
    pub(crate) fn new(plan: &'a Plan, deadline: Duration) -> Self {
        Launch {
            plan,
            namespaces: 0,
            cgroup: None,
            id_maps: None,
            enter: None,
            seen_inside: false,
            init: false,
            parks: false,
            deadline,
            listener: None,
            failure: None,
            fail: None,
            timed: None,
        }
    }

    /// When it is given up.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.deadline.min(LONGEST)
    }
}

/// A page that the stub has mapped and this process reads: it takes no system call to write to it.
#[derive(Debug)]
pub(crate) struct FailurePage(std::fs::File);

impl FailurePage {
    pub(crate) const SIZE: u64 = 4096;

    pub(crate) fn new() -> Result<Self> {
        let file = std::fs::File::from(new_memfd(c"ringfence-failure")?);
        file.set_len(Self::SIZE).map_err(|error| Error::io(Step::Report, &error))?;
        Ok(FailurePage(file))
    }

    pub(super) fn errno(&self) -> Option<i32> {
        let mut word = [0; 4];
        self.0.read_exact_at(&mut word, 0).ok()?;
        Some(i32::from_ne_bytes(word)).filter(|errno| *errno != 0)
    }
}

impl AsFd for FailurePage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
