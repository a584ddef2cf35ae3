//! The descriptors that are passed to a program: their numbers, their count, and what they reach.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::Judgement;
use crate::error::Problem;
use crate::mount;
use crate::namespace::Outside;
use crate::policy::Policy;
use crate::program::Resource;

/// One more than the highest number that a passed descriptor may have.
const FD_MAX: RawFd = 1 << 16;
/// The descriptors that the library itself needs in the caller, or in a spawner thread, for one
/// sandbox, with some to spare.
const OWN_DESCRIPTORS: u64 = 32;

impl Policy {
    /// Returns the problems of the descriptors that a program has of its own, beside those of the
    /// policy.
    pub(crate) fn unpassable(&self, own: &[(RawFd, Arc<OwnedFd>)], judgement: &Judgement) -> Vec<Problem> {
        if own.is_empty() {
            return Vec::new();
        }
        let mut problems = self.descriptor_numbers(own);
        problems.extend(self.too_many_descriptors(own));
        let has_own_id = judgement.maps.as_ref().is_some_and(|maps| maps.outside != Outside::Mapped);
        if has_own_id && own.iter().any(|(_, fd)| mount::is_dir(fd.as_fd())) {
            let reason = "each sandbox of this policy has an id of its own, and files that the program makes below the \
                          directory would belong to the next sandbox with that id";
            let remedy = "pass the directory with Sandbox::fd() or Sandbox::bind(), or set uid_map() and gid_map()";
            problems.push(Problem::unsupported("fd", reason, remedy));
        }
        problems
    }

    /// Returns the problems of the numbers of passed descriptors.
    pub(super) fn descriptor_numbers(&self, own: &[(RawFd, Arc<OwnedFd>)]) -> Vec<Problem> {
        let mut seen = Vec::new();
        let mut problems = Vec::new();
        for (number, _) in self.stdio.extra.iter().chain(own) {
            if !(3..FD_MAX).contains(number) || seen.contains(number) {
                let reason = format!("the number {number} is taken, or out of range");
                problems.push(Problem::invalid("fd", reason, "give each descriptor a number of its own, from 3 on"));
            }
            seen.push(*number);
        }
        problems
    }

    /// Returns a problem if the descriptors of a plan do not fit into the table of the caller or of
    /// the spawner thread.
    pub(super) fn too_many_descriptors(&self, own: &[(RawFd, Arc<OwnedFd>)]) -> Option<Problem> {
        let (soft, _) = Resource::OpenFiles.caller_limits()?;
        let trees = if self.opens_mounts_ahead() { self.mounts.host_mounts() } else { 0 };
        let numbers = self.stdio.extra.iter().chain(own).map(|(number, _)| number.saturating_add(1));
        let (count, table) = (numbers.clone().count(), numbers.max().unwrap_or(0).max(0));
        let needed = ((trees + count) as u64 + OWN_DESCRIPTORS).max(table as u64);
        (needed > soft).then(|| {
            let reason = format!("the mounts and descriptors need {needed} open files, and the caller may have {soft}");
            let remedy = "raise the soft limit of open files (RLIMIT_NOFILE), or use fewer mounts and descriptors";
            Problem::unsupported("fd", reason, remedy)
        })
    }
}
