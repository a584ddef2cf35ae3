//! A plan, with everything else that its run needs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::handover::new_memfd;
use crate::error::{Error, Result, Step};
use crate::namespace::IdMaps;
use crate::plan::Plan;
use crate::security::RemoteConnection;
use crate::sys::file_size;

/// A time longer than any caller waits, and shorter than the clock can represent.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// Puts a stub on record.
pub(crate) type Save<'s> = dyn Fn(BorrowedFd<'_>) -> Result<()> + 's;

/// Runs what is to run before the root is entered. The stub is given by its pidfd.
pub(crate) type RunHooks<'h> = dyn Fn(BorrowedFd<'_>) -> Result<()> + 'h;

/// A plan, with the parameters of its run.
pub(crate) struct Launch<'a> {
    pub(crate) plan: &'a Plan,
    /// The CLONE_NEW* flags of the clone.
    pub(crate) namespaces: u64,
    /// The directory of the v2 group in which the child is born.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// True if the child is cloned in the sparse mount namespace, where there is one.
    pub(crate) sparse: bool,
    /// The id maps, which this process writes when the stub asks for them.
    pub(crate) id_maps: Option<&'a IdMaps>,
    /// Moves the stub, given by its pid, into its control group when the stub asks.
    pub(crate) enter: Option<&'a dyn Fn(i32) -> Result<()>>,
    /// Sets the scheduling of the stub, given by its pid, when the stub asks.
    pub(crate) schedule: Option<&'a dyn Fn(i32) -> Result<()>>,
    /// Puts the stub, given by its pidfd, on record, so that a later process starts the program.
    pub(crate) save: Option<&'a Save<'a>>,
    /// Runs what is to run before the root is entered, when the stub asks. The time that this takes
    /// does not count.
    pub(crate) hooks: Option<&'a RunHooks<'a>>,
    /// Takes the files of the rules of Landlock, in the order of the rules.
    pub(crate) rule_files: Option<&'a dyn Fn(OwnedFd)>,
    /// True if other processes can see the stub's process: it stays as init, or joins a sandbox
    /// that runs.
    pub(crate) seen_inside: bool,
    /// True if the plan leaves an init behind, which reports the end of the program.
    pub(crate) init: bool,
    /// True if the plan ends in a stub that waits for another plan.
    pub(crate) parks: bool,
    pub(crate) deadline: Duration,
    /// The receiver of the listener, for a filter with a supervisor. The listener is sent before
    /// the wait for the exec.
    pub(crate) listener: Option<&'a Sender<OwnedFd>>,
    /// The supervisor elsewhere that gets the listener, with the pid of the child. The stub waits
    /// for that.
    pub(crate) supervisor: Option<&'a RemoteConnection>,
    /// The page in which the stub leaves the errno of an exec that failed, if its filter may forbid
    /// a report.
    pub(crate) failure: Option<&'a FailurePage>,
    /// An op that a test makes fail.
    pub(crate) fail: Option<(u32, i32)>,
    /// The time when the spawn began, if the timings were requested.
    pub(crate) timed: Option<Instant>,
}

impl<'a> Launch<'a> {
    /// Creates a launch whose stub needs nothing from outside.
    pub(crate) fn new(plan: &'a Plan, deadline: Duration) -> Self {
        Launch {
            plan,
            namespaces: 0,
            cgroup: None,
            sparse: false,
            id_maps: None,
            enter: None,
            schedule: None,
            save: None,
            hooks: None,
            rule_files: None,
            seen_inside: false,
            init: false,
            parks: false,
            deadline,
            listener: None,
            supervisor: None,
            failure: None,
            fail: None,
            timed: None,
        }
    }

    /// Returns the time at which the spawn is given up.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.deadline.min(LONGEST)
    }
}

/// A page that the stub has mapped and this process reads. A write to the page takes no system
/// call.
#[derive(Debug)]
pub(crate) struct FailurePage(std::fs::File);

impl FailurePage {
    pub(crate) const SIZE: u64 = 4096;

    /// Takes an empty file for a page that a later process reads as well.
    pub(crate) fn in_file(file: std::fs::File) -> Result<Self> {
        let sized = file_size::check(Self::SIZE).map_err(std::io::Error::from).and_then(|()| file.set_len(Self::SIZE));
        sized.map_err(|error| Error::io(Step::Report, &error))?;
        Ok(FailurePage(file))
    }

    /// Takes the file of a page that was made before.
    pub(crate) fn of_file(file: std::fs::File) -> Self {
        FailurePage(file)
    }

    pub(crate) fn new() -> Result<Self> {
        FailurePage::in_file(new_memfd(c"ringfence-failure")?.into())
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
