//! A parked sandbox, which is ready and waits for its program: one call creates the sandbox, and
//! another starts the program.

use std::fs::{self, File};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use nix::errno::Errno;

use super::compiled::Compiled;
use super::emit::{Run, Setup};
use super::inputs::Inputs;
use super::listener::ListenerChannel;
use super::run_setup::{End, FinishedSetup};
use crate::cgroup::{Group, Stats};
use crate::child::{Child, MountNamespace};
use crate::error::{Error, Problem, Result, Step};
use crate::namespace::{IdMap, Namespaces};
use crate::policy::Policy;
use crate::security::Seccomp;
use crate::spawn::{self, Launch, Misfire};
use crate::stdio::Stdio;
use crate::sys::{pidfd, table};

/// A sandbox whose stub has finished the setup and waits. Dropping the sandbox removes everything,
/// and does nothing in a fork of the process that made it.
#[derive(Debug)]
pub(crate) struct Parked {
    // The stub is dropped first, so that the group is empty when it is removed.
    stub: spawn::Parked,
    inputs: Inputs,
    setup: Arc<Setup>,
    /// The statistics that the group has counted for the setup.
    before: Stats,
    mount_ns: Option<OwnedFd>,
}

impl Policy {
    /// Refuses a policy whose sandboxes cannot wait for their program.
    pub(crate) fn can_park(&self, compiled: &Compiled) -> Result<()> {
        if self.stdio.streams.iter().flatten().any(Stdio::is_pty) {
            return Err(no_terminal_in_pool());
        }
        if !compiled.judgement.seccomp.as_ref().is_some_and(Seccomp::asks) {
            return Ok(());
        }
        let reason = "each program under a profile with Action::Notify needs a supervisor, and a pool has none";
        let remedy = "leave out the rules with Action::Notify, or use Prepared::spawn_supervised()";
        Err(Error::refused(vec![Problem::unsupported("pool", reason, remedy)]))
    }

    /// Creates a sandbox that waits. This does all work of a spawn that does not depend on the
    /// program.
    pub(crate) fn park(&self, compiled: &Compiled) -> Result<Parked> {
        let mut inputs = self.make_inputs(compiled, user_ns_with)?;
        let FinishedSetup { stub, setup } = self.run_setup(compiled, &mut inputs, &End::Park)?;
        let stub = stub.into_parked()?;
        let group = &mut inputs.resources.group;
        group.iter_mut().for_each(Group::joined);
        let before = group.as_ref().map(Group::count_from_here).transpose()?.unwrap_or_default();
        let mount_ns = stub.pidfd().and_then(mount_namespace);
        Ok(Parked { stub, inputs, setup, before, mount_ns })
    }

    /// Starts the program in a sandbox that has waited for it. `close` gets the last descriptor of
    /// the mount namespace once the program has ended.
    pub(crate) fn fire(
        &self,
        compiled: &Compiled,
        parked: Parked,
        run: &mut Run,
        close: fn(OwnedFd),
    ) -> Result<Child, Misfire> {
        let Parked { stub, mut inputs, setup, before, mount_ns } = parked;
        let plan = self.emit_fire(&compiled.judgement, &setup, run);
        let channel = self.listen(&compiled.judgement, None).map_err(Misfire::Failed)?;
        let launch = Launch {
            listener: channel.as_ref().and_then(ListenerChannel::sender),
            init: self.program.init,
            failure: inputs.failure.as_ref(),
            ..Launch::new(&plan, self.setup_timeout())
        };
        self.user_outside(&inputs).into_iter().for_each(|user| run.streams.give_to(user));
        let running = stub.fire(&launch, run.streams.inside()).map_err(|misfire| match misfire {
            Misfire::Failed(error) => Misfire::Failed(compiled.explain_by_profile(error)),
            Misfire::Dead => Misfire::Dead,
        })?;
        inputs.resources.mount_ns = mount_ns.map(|fd| MountNamespace::new(fd, close));
        self.handle(compiled, running, &mut inputs, &mut run.streams, channel, before).map_err(Misfire::Failed)
    }
}

/// Returns the error for a program of a pool that is to have a terminal of its own: the stub that
/// waits has left the devpts behind.
pub(crate) fn no_terminal_in_pool() -> Error {
    let reason = "a sandbox that waits for its program has no terminal to give";
    Error::refused(vec![Problem::unsupported("pool", reason, "use Prepared::spawn() for a program with a terminal")])
}

impl Policy {
    /// Makes the user namespaces by which mounts have id maps of their own, ahead of the first
    /// sandbox.
    pub(crate) fn make_id_maps(&self) -> Result<()> {
        self.mounts.make_id_maps(user_ns_with)
    }
}

impl Parked {
    /// Returns the pidfd of the stub, which is readable once the sandbox has died.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.stub.pidfd()
    }

    /// Opens the user namespace of the sandbox.
    fn user_namespace(&self) -> Result<OwnedFd> {
        let pid = self.pidfd().and_then(pidfd::pid_of).ok_or_else(|| Error::new(Step::WriteIdMap, Errno::ESRCH))?;
        let path = format!("/proc/{pid}/ns/user");
        let failed = |errno| Error::new(Step::WriteIdMap, errno).at(&path);
        let file = File::open(&path).map_err(|error| Error::io(Step::WriteIdMap, &error).at(&path))?;
        table::above_stdio(file.into()).map_err(failed)
    }

    /// Kills the sandbox, and does not wait for its end.
    pub(crate) fn kill(&self) {
        self.stub.kill();
    }
}

/// Makes a user namespace with these maps, for the ids of mounts. The namespace belongs to a parked
/// sandbox that has nothing else and lives for a moment only.
pub(super) fn user_ns_with(uid_map: Vec<IdMap>, gid_map: Vec<IdMap>) -> Result<OwnedFd> {
    let mut policy = Policy::default();
    policy.namespaces.new = Namespaces::USER;
    // A map need not have root.
    policy.program.user = uid_map.first().zip(gid_map.first()).map(|(uid, gid)| (uid.inside, gid.inside));
    policy.namespaces.uid_map = uid_map;
    policy.namespaces.gid_map = gid_map;
    policy.park(&Compiled::new(&policy, false)?)?.user_namespace()
}

/// Opens the mount namespace of a sandbox. Returns `None` if the caller may not open that, or if it
/// is the caller's own.
fn mount_namespace(pidfd: BorrowedFd<'_>) -> Option<OwnedFd> {
    let pid = pidfd::pid_of(pidfd)?;
    let theirs = File::open(format!("/proc/{pid}/ns/mnt")).ok()?;
    let own = fs::metadata("/proc/thread-self/ns/mnt").ok()?;
    (theirs.metadata().ok()?.ino() != own.ino()).then(|| theirs.into())
}
