//! The systemd scopes of this process. Each is made once, with a parked process of the library in
//! it, and is the parent of groups from then on.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::emit::{emit_beginning, emit_unblock_signals};
use crate::cgroup::{Group, Host, Manager, SystemdScope};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;
use crate::plan::{Plan, Slot};
use crate::spawn::{self, Launch};
use crate::sys::fork_mark::PerProcess;
use crate::sys::{mutex, pidfd};

/// The leaf for the parked process: a group that has processes cannot pass controllers on.
const LEAF: &str = "keeper";

/// The location of groups in a scope.
#[derive(Debug, Clone)]
pub(super) struct ScopeLocation {
    /// The group of the scope.
    pub(super) parent: PathBuf,
    pub(super) boundary: Option<DelegationBoundary>,
}

/// The border between the caller and the scope, if the caller may not move processes across: a user
/// in a login session stands outside of the subtree of the user's manager.
#[derive(Debug, Clone)]
pub(super) struct DelegationBoundary {
    pub(super) unit: String,
    /// The host as it looks from inside the scope.
    pub(super) host: Arc<Host>,
}

impl DelegationBoundary {
    /// Returns the boundary around the scope `unit`, whose group is `group`.
    pub(super) fn of_scope(unit: String, host: &Host, group: &Path) -> DelegationBoundary {
        DelegationBoundary { unit, host: Arc::new(host.seen_from(group)) }
    }

    /// Returns a function that lets systemd move a child into its group below the scope.
    pub(super) fn group_mover(&self, group: &Group, patience: Duration) -> Box<dyn Fn(i32) -> Result<()>> {
        let unit = self.unit.clone();
        // The group may be that of the scope itself.
        let below = Path::new("/").join(below_unit(group.name(), &unit)).to_string_lossy().into_owned();
        Box::new(move |pid| Manager::of_caller(Instant::now() + patience)?.attach(&unit, &below, pid))
    }
}

/// Returns what of the path of a group comes after the scope `unit`.
fn below_unit(path: &Path, unit: &str) -> PathBuf {
    let after = |above: &&Path| above.file_name().is_some_and(|name| name == unit);
    let scope = path.ancestors().find(after);
    let below = scope.and_then(|scope| path.strip_prefix(scope).ok());
    below.unwrap_or_else(|| Path::new(path.file_name().unwrap_or_default())).to_owned()
}

/// A scope that this process has made.
#[derive(Debug)]
struct Scope {
    location: ScopeLocation,
    holder: ScopeHolder,
}

/// The parked process of a scope. Dropping this kills the process, and systemd then removes the
/// scope.
#[derive(Debug)]
pub(super) struct ScopeHolder(OwnedFd);

impl ScopeHolder {
    pub(super) fn kill(&self) {
        let _ = pidfd::send_signal(self.0.as_fd(), libc::SIGKILL);
    }

    fn is_alive(&self) -> bool {
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(0)
    }
}

impl AsFd for ScopeHolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for ScopeHolder {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Parks a process, around which systemd can make a scope. Returns its pid.
pub(super) fn park(timeout: Duration) -> Result<(i32, ScopeHolder)> {
    let plan = holder_plan();
    let running = spawn::start(&Launch::new(&plan, timeout))?.into_running();
    Ok((running.pid, ScopeHolder(running.pidfd)))
}

/// Returns the location of groups in the scope, which is made if it does not exist yet. One thread
/// makes the scope, and other threads wait.
pub(super) fn locate(wanted: &SystemdScope, host: &Host, timeout: Duration) -> Result<ScopeLocation> {
    static SCOPES: PerProcess<Mutex<BTreeMap<SystemdScope, Scope>>> = PerProcess::new();
    let scopes = SCOPES.get_or_try(|| Ok::<_, Errno>(Mutex::default()));
    let mut scopes = mutex::lock(scopes.map_err(|errno| Error::new(Step::SystemdScope, errno))?);
    if let Some(scope) = scopes.get(wanted).filter(|scope| scope.holder.is_alive()) {
        return Ok(scope.location.clone());
    }
    let scope = make(wanted, host, timeout)?;
    let location = scope.location.clone();
    scopes.insert(wanted.clone(), scope);
    Ok(location)
}

/// Makes a scope, with its parked process in a leaf.
fn make(wanted: &SystemdScope, host: &Host, timeout: Duration) -> Result<Scope> {
    let until = Instant::now() + timeout;
    // The first call asks whether systemd is there: without systemd, nothing is started.
    let mut manager = Manager::of_caller(until)?;
    let (pid, holder) = park(timeout)?;
    let unit = format!("ringfence-{}.scope", owner::unique()?);
    manager.start(wanted, &unit, pid)?;
    let parent = Host::v2_group_of(pid).filter(|group| group.file_name().is_some_and(|name| name == unit.as_str()));
    let parent = parent.ok_or_else(|| {
        let detail = "the process that holds the scope is not in it";
        Error::message(ErrorKind::Setup, Step::SystemdScope, detail).at(&unit)
    })?;
    move_to_leaf(host, &parent, pid)?;
    let boundary = host.is_across_boundary(&parent).then(|| DelegationBoundary::of_scope(unit, host, &parent));
    Ok(Scope { location: ScopeLocation { parent, boundary }, holder })
}

/// Moves the parked process into a leaf.
fn move_to_leaf(host: &Host, scope: &Path, pid: i32) -> Result<()> {
    let failed = |path: &Path, error: &std::io::Error| Error::io(Step::CreateCgroup, error).at(path);
    let leaf = host.v2_dir(scope).unwrap_or_default().join(LEAF);
    fs::create_dir(&leaf).map_err(|error| failed(&leaf, &error))?;
    let procs = leaf.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).map_err(|error| failed(&procs, &error))
}

/// Writes the plan of the parked process. The process is an orphan, so a caller that waits for all
/// its children does not wait for this one. The process reads from the spawner's pipe until the
/// pipe's end, which is the owner's death.
fn holder_plan() -> Plan {
    let mut plan = Plan::new();
    emit_beginning(&mut plan);
    plan.reclone_as_orphan();
    plan.call(Step::Session, libc::SYS_setsid, []);
    let root = plan.string("/");
    plan.call(Step::Cwd, libc::SYS_chdir, [root.into()]);
    // systemd ends a scope with SIGTERM.
    emit_unblock_signals(&mut plan);
    // The owner waits for an exec. There is none, but the announcement and the end of file look the
    // same.
    plan.announce_exec();
    plan.call(Step::Report, libc::SYS_close, [Slot::REPORT.into()]);
    plan.await_end_of_owner();
    plan.call(Step::OwnerAlive, libc::SYS_exit_group, [0.into()]);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_below_a_scope_is_named_from_the_scope_on() {
        let below = |path: &str| below_unit(Path::new(path), "box.scope");
        assert_eq!(below("/sys/fs/cgroup/a.slice/box.scope"), Path::new(""));
        assert_eq!(below("/sys/fs/cgroup/a.slice/box.scope/inner/deep"), Path::new("inner/deep"));
        assert_eq!(below("/sys/fs/cgroup/a.slice/other"), Path::new("other"));
    }
}
