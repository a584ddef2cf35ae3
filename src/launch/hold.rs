//! Namespaces that are to outlive the process that made them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::compiled::Compiled;
use super::park::Parked;
use crate::error::{Error, Problem, Result, Step};
use crate::namespace::Namespaces;
use crate::policy::Policy;
use crate::sys::{pidfd, table};

/// The kinds that stay without a process. A mount namespace does as well, but its mounts would keep
/// each other, and a pid namespace ends with its first process.
const HOLDABLE: Namespaces = Namespaces::USER
    .union(Namespaces::NET)
    .union(Namespaces::IPC)
    .union(Namespaces::UTS)
    .union(Namespaces::CGROUP)
    .union(Namespaces::TIME);

impl Policy {
    /// Makes the namespaces of the policy, with what is set in them, and opens them. They belong to
    /// a parked sandbox that has nothing else and lives for a moment only.
    pub(crate) fn hold(&self) -> Result<Vec<(Namespaces, OwnedFd)>> {
        let mut policy = Policy { setup_timeout: self.setup_timeout, ..Policy::default() };
        policy.namespaces = self.namespaces.clone();
        // A map need not have root.
        let mapped = self.namespaces.uid_map.first().zip(self.namespaces.gid_map.first());
        policy.program.user = self.program.user.or(mapped.map(|(uid, gid)| (uid.inside, gid.inside)));
        let problems = policy.unholdable();
        if !problems.is_empty() {
            return Err(Error::refused(problems));
        }
        policy.park(&Compiled::new(&policy, false)?)?.open(policy.namespaces.new)
    }

    fn unholdable(&self) -> Vec<Problem> {
        let refuse = |reason: String, remedy| Some(Problem::invalid("hold_namespaces", reason, remedy));
        let ns = &self.namespaces;
        let none = ns.new.is_empty().then(|| refuse("there is no new namespace to hold".to_owned(), "add net_ns()"));
        let other = (ns.new - HOLDABLE).iter().next().map(|kind| {
            let reason = format!("a {} namespace is nothing without its processes", kind.name());
            refuse(reason, "leave it to the sandboxes")
        });
        let joins = (!ns.join.is_empty()).then(|| {
            let reason = "only new namespaces are held, and others are joined".to_owned();
            refuse(reason, "leave out the joins, or make all of the namespaces")
        });
        [none, other, joins].into_iter().flatten().flatten().collect()
    }
}

impl Parked {
    /// Opens namespaces of the sandbox.
    fn open(&self, kinds: Namespaces) -> Result<Vec<(Namespaces, OwnedFd)>> {
        let lost = || Error::new(Step::HoldNamespace, Errno::ESRCH);
        let process = self.pidfd().ok_or_else(lost)?;
        let pid = pidfd::pid_of(process).ok_or_else(lost)?;
        let mut held = Vec::new();
        for kind in kinds.iter() {
            let path = format!("/proc/{pid}/ns/{}", kind.name());
            let file = File::open(&path).map_err(|error| Error::io(Step::HoldNamespace, &error).at(&path))?;
            let file = table::above_stdio(file.into());
            held.push((kind, file.map_err(|errno| Error::new(Step::HoldNamespace, errno).at(&path))?));
        }
        // Another thread of this process could have reaped it, and the number be another's.
        if self.pidfd().map(|process| pidfd::pid_of(process.as_fd())) != Some(Some(pid)) {
            return Err(lost());
        }
        Ok(held)
    }
}
