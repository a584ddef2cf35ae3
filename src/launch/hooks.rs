//! Programs that run in a sandbox before its root is entered: hooks.
//!
//! The stub has made all namespaces and mounts, and waits. The root stands at its own path on the
//! host, so a program that joins the namespaces of the stub has the host's root, with the mounts of
//! the sandbox below that path. No program of the sandbox runs yet.

#![cfg_attr(not(feature = "oci"), allow(dead_code, unused_imports, reason = "only containers have hooks"))]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::emit::{Run, emit_beginning, emit_join_cgroups, emit_setup_ids, emit_unblock_signals};
use super::enter::open_root;
use super::inputs::Inputs;
use super::location::scope_mover;
use super::run_setup::is_clone_too_old;
use crate::cgroup::Group;
use crate::child::Inside;
use crate::command::Command;
use crate::error::{Error, Result, Step};
use crate::namespace::{IdMaps, Namespaces};
#[cfg(feature = "oci")]
use crate::network::{self, Device, Moved};
use crate::plan::{ExecFlags, Plan, PlanFd, Request, RunFds};
use crate::policy::Policy;
use crate::proc::identity;
use crate::program::{Program, emit_groups, emit_ids};
use crate::spawn::{self, Launch, Running};
use crate::stdio::{Fds, Stdio, Streams};
use crate::sys::{pidfd, table};

/// What is to run before the root is entered.
pub(crate) type Hooks<'h> = dyn Fn(&Unentered<'_>) -> Result<()> + 'h;

/// A sandbox whose mounts are made, and whose root is not entered yet.
pub(crate) struct Unentered<'u> {
    policy: &'u Policy,
    maps: Option<&'u IdMaps>,
    group: Option<&'u Group>,
    pid: i32,
    pidfd: BorrowedFd<'u>,
}

impl<'u> Unentered<'u> {
    pub(super) fn new(policy: &'u Policy, inputs: &'u Inputs, pidfd: BorrowedFd<'u>) -> Result<Self> {
        let pid = pidfd::pid_of(pidfd).ok_or_else(|| Error::new(Step::Create, Errno::ESRCH))?;
        let (maps, group) = (inputs.maps.as_ref(), inputs.resources.group.as_ref());
        Ok(Unentered { policy, maps, group, pid, pidfd })
    }
}

#[cfg(feature = "oci")]
impl Unentered<'_> {
    /// Returns the pid of the sandbox's first process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Returns that pid as the processes of the sandbox see it.
    pub(crate) fn pid_inside(&self) -> Result<u32> {
        let failed = |errno| Error::new(Step::Create, errno);
        let inside = identity::pid_inside(self.pid).map_err(failed)?;
        if self.has_pid() { Ok(inside) } else { Err(failed(Errno::ESRCH)) }
    }

    /// Returns whether the pid is still that of the process, as it is until somebody reaps it.
    fn has_pid(&self) -> bool {
        pidfd::pid_of(self.pidfd) == Some(self.pid)
    }

    /// Moves interfaces of the caller's network namespace into that of the sandbox.
    pub(crate) fn take_in(&self, devices: &[Device]) -> Result<Moved> {
        let failed = |errno| Error::new(Step::NetDevice, errno);
        let path = format!("/proc/{}/ns/net", self.pid);
        let namespace = nix::fcntl::open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let namespace = namespace.and_then(table::above_stdio).map_err(|errno| failed(errno).at(path))?;
        if self.has_pid() { network::move_in(devices, &namespace) } else { Err(failed(Errno::ESRCH)) }
    }

    /// Starts a program in the namespaces and the control group of the sandbox, as root of its user
    /// namespace, with the rights of the setup. Its working directory is `cwd`, a path of the host.
    /// The program ends with this process, and the caller waits for it.
    pub(crate) fn start(&self, command: &Command, cwd: &Path) -> Result<Running> {
        let default = Stdio::inherited();
        let streams = Streams::open(Stdio::choose(command.streams.each_ref().map(Option::as_ref), &default))?;
        let invocation = command.invocation(&Program::default().invocation());
        let run = Run { invocation, streams, fds: Fds::new() };
        let running = Inside { pid: self.pid, pidfd: self.pidfd, group: self.group };
        let root = open_root(&running)?;
        let mut procs = self.group.map_or(Ok(Vec::new()), |group| group.entries(false))?;
        let timeout = self.policy.setup_timeout();
        let mover = scope_mover(self.group, None, timeout)?;
        let launch = |procs: &[(OwnedFd, PathBuf)], cgroup: Option<BorrowedFd<'_>>| {
            let plan = self.emit(&run, &root, procs, cwd, mover.is_some())?;
            let enter = mover.as_deref();
            spawn::start(&Launch { cgroup, enter, seen_inside: true, ..Launch::new(&plan, timeout) })
        };
        let is_born = |group: &&Group| !group.refuses_births() && mover.is_none();
        let birth = self.group.filter(is_born).and_then(Group::v2_dir);
        let entered = match birth.map(|group| launch(&procs, Some(group))) {
            Some(Err(error)) if is_clone_too_old(&error) => None,
            done => done,
        };
        let stub = entered.unwrap_or_else(|| {
            if let Some(group) = self.group.filter(|_| mover.is_none()) {
                procs = group.entries(true)?;
            }
            launch(&procs, None)
        });
        Ok(stub?.into_running())
    }

    /// With `asks`, the stub asks for its group.
    fn emit(&self, run: &Run, root: &OwnedFd, procs: &[(OwnedFd, PathBuf)], cwd: &Path, asks: bool) -> Result<Plan> {
        let apart = self.policy.namespaces.apart();
        let mut plan = Plan::new();
        let umask = emit_beginning(&mut plan);
        if asks {
            plan.request(Step::JoinCgroup, Request::ControlGroup);
        }
        emit_join_cgroups(&mut plan, procs.iter().map(|(_, group)| group.as_path()));
        let number = plan.fd(PlanFd::Held(self.pidfd.as_raw_fd()));
        plan.call(Step::JoinNamespace, libc::SYS_setns, [number.into(), apart.bits().into()])
            .at("the namespaces of the sandbox")
            .hint("hooks in the namespaces of a container need Linux 5.8");
        // The namespace's own root may lie above: that of a caller who is in a chroot(2).
        let (number, here) = (plan.fd(PlanFd::Held(root.as_raw_fd())), plan.string("."));
        plan.call(Step::PivotRoot, libc::SYS_fchdir, [number.into()]).at("/");
        plan.call(Step::PivotRoot, libc::SYS_chroot, [here.into()]).at("/");
        match self.maps {
            Some(maps) => emit_setup_ids(&mut plan, maps),
            None if apart.contains(Namespaces::USER) => {
                // The user namespace of an ordinary user may forbid a change of the groups.
                emit_groups(&mut plan, &[]).tolerate(Errno::EPERM);
                emit_ids(&mut plan, 0, 0);
            }
            None => {}
        }
        Program::default().emit_umask(&mut plan, umask);
        let dir = plan.string(cwd);
        plan.call(Step::Cwd, libc::SYS_chdir, [dir.into()]).at(cwd);
        let parent = run.streams.emit_alone(&mut plan, &run.fds);
        if apart.contains(Namespaces::PID) {
            plan.reclone();
        }
        plan.call(Step::Prctl, libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into()]);
        plan.check_owner(parent);
        emit_unblock_signals(&mut plan);
        run.invocation.emit_exec(&mut plan, ExecFlags::empty(), None);
        plan.for_run(
            &RunFds { cgroup_procs: procs.iter().map(|(procs, _)| procs.as_fd()).collect(), ..RunFds::default() },
            None,
        )
    }
}
