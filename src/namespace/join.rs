//! The joins of namespaces that exist: their order, and their ops.
//!
//! The namespaces of one process are joined by one call, setns(2) with its pidfd (5.8). The kernel
//! checks all of them before it changes anything, with the rights that the stub had before the
//! call: so their order does not matter. Namespaces from elsewhere are joined one by one. Who is
//! privileged outside joins the user namespace last, as that takes away the right to what belongs
//! to the host. Who is not joins it first, as only that gives the right to the others.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::unistd::Uid;

use super::choice::Choice;
use super::kinds::Namespaces;
use super::source::{JoinSource, Process, is_own, open_path};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::{Plan, PlanFd};

/// The order of joins but for user: pid last but for mount, which changes what paths mean.
const JOIN_ORDER: [Namespaces; 7] = [
    Namespaces::CGROUP,
    Namespaces::IPC,
    Namespaces::UTS,
    Namespaces::NET,
    Namespaces::TIME,
    Namespaces::PID,
    Namespaces::MOUNT,
];

const HINT: &str = "joining needs CAP_SYS_ADMIN in the user namespace that owns the joined one";

/// One call of setns(2), or more than one where the kernel is old.
#[derive(Debug)]
struct Join {
    /// The process whose namespaces these are.
    process: Option<Arc<OwnedFd>>,
    files: Vec<(Namespaces, Arc<OwnedFd>, PathBuf)>,
}

impl Join {
    fn kinds(&self) -> Namespaces {
        self.files.iter().fold(Namespaces::empty(), |all, (kind, ..)| all | *kind)
    }

    /// Returns the place of this join among all.
    fn place(&self, user_last: bool) -> (bool, usize) {
        let kinds = self.kinds();
        let first = JOIN_ORDER.iter().position(|kind| kinds.contains(*kind)).unwrap_or(JOIN_ORDER.len());
        (kinds.contains(Namespaces::USER) == user_last, first)
    }

    fn emit(mut self, plan: &mut Plan, user_last: bool) {
        let place = |kind: &Namespaces| JOIN_ORDER.iter().position(|other| other == kind);
        self.files.sort_by_key(|(kind, ..)| (place(kind).is_none() == user_last, place(kind)));
        let kinds = self.kinds();
        let mut fallback_from = None;
        if let Some(process) = &self.process {
            let number = plan.fd(PlanFd::Shared(process.clone()));
            // EINVAL: the kernel takes no pidfd, or not for all of these. ESRCH: the process has
            // ended since its files were opened.
            plan.call(Step::JoinNamespace, libc::SYS_setns, [number.into(), kinds.bits().into()])
                .at(self.files.first().and_then(|(.., path)| path.parent()).unwrap_or(Path::new("pidfd")))
                .hint(HINT)
                .tolerate(Errno::EINVAL)
                .tolerate(Errno::ESRCH);
            fallback_from = Some(plan.len());
        }
        for (kind, fd, path) in self.files {
            let number = plan.fd(PlanFd::Shared(fd));
            plan.call(Step::JoinNamespace, libc::SYS_setns, [number.into(), kind.bits().into()]).at(path).hint(HINT);
        }
        if let Some(first) = fallback_from {
            plan.fallback_from(first);
        }
    }
}

impl Choice {
    /// Emits the joins of all namespaces that exist.
    pub(super) fn emit_joins(&self, plan: &mut Plan) -> Result<()> {
        if self.join.is_empty() {
            return Ok(());
        }
        let user_last = is_privileged_outside();
        let mut joins = self.joins_of_processes()?;
        for (kind, source) in &self.join {
            let (fd, path) = match source {
                JoinSource::Fd(fd) => (fd.clone(), PathBuf::from("given descriptor")),
                JoinSource::Path(path) => (Arc::new(open_path(path, *kind)?), path.clone()),
                JoinSource::Pid(_) | JoinSource::Process(_) => continue,
            };
            joins.push(Join { process: None, files: vec![(*kind, fd, path)] });
        }
        for join in &mut joins {
            for (kind, fd, path) in &join.files {
                if self.changes().contains(*kind) && is_own(*kind, fd.as_fd()) {
                    return Err(changes_own(*kind, path));
                }
            }
            join.files.retain(|(kind, fd, _)| *kind != Namespaces::USER || !is_own(*kind, fd.as_fd()));
        }
        joins.retain(|join| !join.files.is_empty());
        joins.sort_by_key(|join| join.place(user_last));
        joins.into_iter().for_each(|join| join.emit(plan, user_last));
        Ok(())
    }

    /// Opens the namespaces of processes, all of one process together.
    fn joins_of_processes(&self) -> Result<Vec<Join>> {
        let mut known: Vec<(Process, Vec<Namespaces>)> = Vec::new();
        for (kind, source) in &self.join {
            let process = match source {
                JoinSource::Pid(pid) => match known.iter().find(|(process, _)| process.pid == *pid) {
                    Some((process, _)) => process.clone(),
                    None => Process::of_number(*pid)?,
                },
                JoinSource::Process(pidfd) => Process::of_pidfd(pidfd)?,
                JoinSource::Fd(_) | JoinSource::Path(_) => continue,
            };
            match known.iter_mut().find(|(other, _)| other.pid == process.pid) {
                Some((_, kinds)) => kinds.push(*kind),
                None => known.push((process, vec![*kind])),
            }
        }
        let join = |(process, kinds): (Process, Vec<Namespaces>)| {
            let mut files = Vec::new();
            for kind in kinds {
                let (file, path) = process.open(kind)?;
                files.push((kind, Arc::new(file), path));
            }
            // Only now is it sure that no file was another process's.
            process.check()?;
            Ok(Join { process: process.pidfd, files })
        };
        known.into_iter().map(join).collect()
    }
}

/// Refuses a name or a setting for the namespace that the caller is in itself.
fn changes_own(kind: Namespaces, path: &Path) -> Error {
    let reason = format!("this is the caller's own {} namespace, whose settings would change", kind.name());
    Error::message(ErrorKind::Invalid, Step::JoinNamespace, reason)
        .at(path)
        .hint("leave out hostname(), domainname() and sysctl(), or join another namespace")
}

/// Returns whether the stub has CAP_SYS_ADMIN before any join. An exec leaves it to root, and to
/// who has it in the ambient set.
fn is_privileged_outside() -> bool {
    let has = |set| caps::has_cap(None, set, Capability::CAP_SYS_ADMIN).unwrap_or(false);
    has(CapSet::Ambient) || has(CapSet::Effective) && Uid::effective().is_root()
}
