//! What a later process has to know to find a sandbox again.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::Child;
use super::exec::{Enter, has_no_way};
use crate::cgroup::Group;
use crate::error::{Result, Step};

/// A sandbox that is to be found again.
#[derive(Debug)]
pub(crate) struct Left<'c> {
    pub(crate) pidfd: BorrowedFd<'c>,
    pub(crate) group: Option<&'c Group>,
    /// The name of what the sandbox has on the host.
    pub(crate) name: Option<String>,
    pub(crate) enter: &'c Arc<dyn Enter>,
}

impl Child {
    /// Returns what a ticket says.
    pub(crate) fn left(&self) -> Result<Left<'_>> {
        let shared = self.shared()?;
        shared.require_home(Step::Attach)?;
        let enter = self.enter.as_ref().ok_or_else(|| has_no_way(Step::Attach))?;
        let name = shared.claim_name();
        Ok(Left { pidfd: shared.running.pidfd.as_fd(), group: shared.group.as_ref(), name, enter })
    }
}
