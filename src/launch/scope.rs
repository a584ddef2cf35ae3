//! The scopes of this process: each made once, with a parked process of ours in it, and the place of groups from then on.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::setup::{emit_beginning, emit_unblock_signals};
use crate::cgroup::{Group, Host, Manager, SystemdScope};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;
use crate::plan::{Plan, Slot};
use crate::spawn::{self, Launch};
use crate::sys::fork_mark::PerProcess;
use crate::sys::{mutex, pidfd};

/// The leaf in which the parked process stands: a group that has processes cannot pass controllers on.
const LEAF: &str = "keeper";

/// Where groups are made.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The group of the scope.
    pub(super) parent: PathBuf,
    pub(super) fence: Option<Fence>,
}

/// What lies between the caller and the scope, where it may not move processes by itself: a user in a login session
/// stands outside of the subtree that is its manager's.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    pub(super) unit: String,
    /// The host as it looks from inside the scope.
    pub(super) host: Arc<Host>,
}

impl Fence {
    /// What moves a child into its group below the scope: systemd.
    pub(super) fn entrance(&self, group: &Group, patience: Duration) -> Box<dyn Fn(i32) -> Result<()>> {
        let unit = self.unit.clone();
        let below = Path::new("/").join(group.name().file_name().unwrap_or_default()).to_string_lossy().into_owned();
        Box::new(move |pid| Manager::of_caller(Instant::now() + patience)?.attach(&unit, &below, pid))
    }
}

#[derive(Debug)]
struct Scope {
    place: Place,
    keeper: Keeper,
}

/// The parked process; dropping this kills it, and systemd then takes the scope away.
#[derive(Debug)]
struct Keeper(OwnedFd);

impl Keeper {
    fn is_alive(&self) -> bool {
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(0)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = pidfd::send_signal(self.0.as_fd(), libc::SIGKILL);
    }
}

/// The place of this process's groups in such a scope, which is made if it does not stand yet. One thread makes it; others
/// that come meanwhile wait.
pub(super) fn place(wanted: &SystemdScope, host: &Host, timeout: Duration) -> Result<Place> {
    static SCOPES: PerProcess<Mutex<BTreeMap<SystemdScope, Scope>>> = PerProcess::new();
    let scopes = SCOPES.get_or_try(|| Ok::<_, Errno>(Mutex::default()));
    let mut scopes = mutex::lock(scopes.map_err(|errno| Error::new(Step::SystemdScope, errno))?);
    if let Some(scope) = scopes.get(wanted).filter(|scope| scope.keeper.is_alive()) {
        return Ok(scope.place.clone());
    }
    let scope = make(wanted, host, timeout)?;
    let place = scope.place.clone();
    scopes.insert(wanted.clone(), scope);
    Ok(place)
}

fn make(wanted: &SystemdScope, host: &Host, timeout: Duration) -> Result<Scope> {
    let until = Instant::now() + timeout;
    // systemd is asked first whether it is there: without it nothing is started.
    let mut manager = Manager::of_caller(until)?;
    let plan = keeper_plan();
    let running = spawn::start(&Launch::new(&plan, timeout))?.into_running();
    let (pid, keeper) = (running.pid, Keeper(running.pidfd));
    let unit = format!("ringfence-{}.scope", owner::unique()?);
    manager.start(wanted, &unit, pid)?;
    let parent = Host::v2_group_of(pid).filter(|group| group.file_name().is_some_and(|name| name == unit.as_str()));
    let parent = parent.ok_or_else(|| {
        let detail = "the process that was to hold it is not in it";
        Error::message(ErrorKind::Setup, Step::SystemdScope, detail).at(&unit)
    })?;
    step_aside(host, &parent, pid)?;
    let fence = host.is_fenced_off(&parent).then(|| Fence { unit, host: Arc::new(host.seen_from(&parent)) });
    Ok(Scope { place: Place { parent, fence }, keeper })
}

/// Moves the parked process into a leaf.
fn step_aside(host: &Host, scope: &Path, pid: i32) -> Result<()> {
    let failed = |path: &Path, error: &std::io::Error| Error::io(Step::CreateCgroup, error).at(path);
    let leaf = host.v2_dir(scope).unwrap_or_default().join(LEAF);
    fs::create_dir(&leaf).map_err(|error| failed(&leaf, &error))?;
    let procs = leaf.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).map_err(|error| failed(&procs, &error))
}

/// A process that is nobody's child, so that a caller who waits for all of its own does not wait for this one, and that
/// reads from the spawner's pipe, whose end is the owner's death, until then.
fn keeper_plan() -> Plan {
    let mut plan = Plan::new();
    emit_beginning(&mut plan);
    plan.reclone_as_orphan();
    plan.call(Step::Session, libc::SYS_setsid, []);
    let root = plan.string("/");
    plan.call(Step::Cwd, libc::SYS_chdir, [root.into()]);
    // systemd ends a scope with SIGTERM.
    emit_unblock_signals(&mut plan);
    // No program is executed, but this is what the owner waits for; end of file follows.
    plan.announce_exec();
    plan.call(Step::Report, libc::SYS_close, [Slot::REPORT.into()]);
    plan.await_end_of_owner();
    plan.call(Step::OwnerAlive, libc::SYS_exit_group, [0.into()]);
    plan
}
