//! A sandbox that stands and waits for its program.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use nix::errno::Errno;

use super::launch::{Goal, Run};
use super::made::Made;
use super::prepared::{Policy, Prepared};
use super::setup::Setup;
use crate::cgroup::{Group, Stats};
use crate::child::{Child, Past, Remains};
use crate::error::{Error, Problem, Result, Step};
use crate::security::Seccomp;
use crate::spawn::{self, Launch, Misfire};
use crate::sys::{pidfd, table};

/// The sandbox, with a stub in it that has done its setup. Dropping it takes everything away again, and does nothing in a
/// fork of the process that made it.
#[derive(Debug)]
pub(crate) struct Parked {
    // Dropped first: nobody is in the group when that is removed.
    stub: spawn::Parked,
    made: Made,
    setup: Arc<Setup>,
    /// What the group has counted for the setup.
    before: Stats,
    mounts: Option<OwnedFd>,
}

impl Prepared {
    /// Refuses a policy whose sandboxes cannot wait for their program.
    pub(crate) fn can_park(&self) -> Result<()> {
        let profile = self.policy.compiled.judgement.seccomp.as_ref();
        if !profile.is_some_and(Seccomp::asks) {
            return Ok(());
        }
        let reason = "each program of a profile with Action::Notify has a supervisor of its own, which a pool has not";
        let remedy = "leave such rules out, or use Prepared::spawn_supervised()";
        Err(Error::refused(vec![Problem::unsupported("pool", reason, remedy)]))
    }

    /// Does all of a spawn that can be done without knowing the program.
    pub(crate) fn park(&self) -> Result<Parked> {
        let Policy { sandbox, compiled, .. } = &*self.policy;
        let mut made = sandbox.make(compiled)?;
        let used = RefCell::new(None);
        let goal = Goal {
            parks: true,
            begun: None,
            listener: None,
            write: &|plan, setup| {
                sandbox.emit_parking(plan);
                *used.borrow_mut() = Some(setup.clone());
            },
            go: spawn::park,
        };
        let stub = sandbox.set_up(compiled, &mut made, &goal)?;
        made.group.iter_mut().for_each(Group::joined);
        let before = made.group.as_ref().map(Group::count_from_here).transpose()?.unwrap_or_default();
        let mounts = stub.pidfd().and_then(mount_namespace);
        let setup = used.into_inner().ok_or_else(|| Error::new(Step::ReadPlan, Errno::EINVAL))?;
        Ok(Parked { stub, made, setup, before, mounts })
    }
}

impl Parked {
    /// Readable once the sandbox has died.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.stub.pidfd()
    }

    /// The user namespace that it lives in.
    pub(super) fn user_namespace(&self) -> Result<OwnedFd> {
        let pid = self.pidfd().and_then(pidfd::pid_of).ok_or_else(|| Error::new(Step::WriteIdMap, Errno::ESRCH))?;
        let path = format!("/proc/{pid}/ns/user");
        let failed = |errno| Error::new(Step::WriteIdMap, errno).at(&path);
        let file = File::open(&path).map_err(|error| Error::io(Step::WriteIdMap, &error).at(&path))?;
        table::above_stdio(file.into()).map_err(failed)
    }

    /// Kills it, and does not wait for its end.
    pub(crate) fn kill(&self) {
        self.stub.kill();
    }

    /// Has the stub execute the program. `undertaker` takes the mount namespace once the program has ended: taking mounts
    /// down takes as long as a small program runs, and it need not be the caller who waits for it.
    pub(crate) fn fire(self, prepared: &Prepared, run: &mut Run, undertaker: fn(OwnedFd)) -> Result<Child, Misfire> {
        let Policy { sandbox, compiled, .. } = &*prepared.policy;
        let Parked { stub, made, setup, before, mounts } = self;
        let plan = sandbox.emit_fire(&compiled.judgement, &setup, run);
        let launch = Launch {
            init: sandbox.program.init,
            failure: made.failure.as_ref(),
            ..Launch::new(&plan, sandbox.patience())
        };
        let running = stub.fire(&launch, run.streams.inside()).map_err(|misfire| match misfire {
            Misfire::Failed(error) => Misfire::Failed(sandbox.explain_by_profile(compiled, error)),
            Misfire::Dead => Misfire::Dead,
        })?;
        let mounts = mounts.map(|mounts| Remains::new(mounts, undertaker));
        let past = Past { before, mounts };
        sandbox.child(compiled, running, made, &mut run.streams, None, past).map_err(Misfire::Failed)
    }
}

/// The mount namespace of a sandbox; none where it may not be looked at, or is the caller's own.
fn mount_namespace(pidfd: BorrowedFd<'_>) -> Option<OwnedFd> {
    let pid = pidfd::pid_of(pidfd)?;
    let theirs = File::open(format!("/proc/{pid}/ns/mnt")).ok()?;
    let own = fs::metadata("/proc/thread-self/ns/mnt").ok()?;
    (theirs.metadata().ok()?.ino() != own.ino()).then(|| theirs.into())
}
