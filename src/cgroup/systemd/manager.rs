//! The calls to systemd, as org.freedesktop.systemd1(5) describes them.

use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;
use zbus::wire::{ObjectPath, Variant};

use super::bus::{Address, Bus, Object};
use super::scope::SystemdScope;
use crate::error::{Error, ErrorKind, Result, Step};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: Object =
    Object { destination: SYSTEMD, path: "/org/freedesktop/systemd1", interface: "org.freedesktop.systemd1.Manager" };
const PROPERTIES: Object = Object { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A manager of units: the manager of the system, or of the user.
#[derive(Debug)]
pub(crate) struct Manager {
    bus: Bus,
}

impl Manager {
    /// Connects to the manager of the caller's user. Every answer arrives before `until`.
    pub(crate) fn of_caller(until: Instant) -> Result<Manager> {
        Manager::on(&Address::of_caller(), until)
    }

    pub(super) fn on(addresses: &[Address], until: Instant) -> Result<Manager> {
        let mut manager = Manager { bus: Bus::open(addresses, until)? };
        manager.compare_pids()?;
        Ok(manager)
    }

    /// Checks that systemd knows this process by the same pid. systemd moves processes by number,
    /// and in another pid namespace these numbers mean other processes. The bus daemon has the
    /// caller's pid from the kernel, as the daemon's own namespace counts.
    fn compare_pids(&mut self) -> Result<()> {
        let name = self.bus.name.clone();
        let seen = self.bus.call_daemon("GetConnectionUnixProcessID", &(name,)).and_then(|answer| {
            answer.body::<u32>().map_err(|errno| Error::new(Step::SystemdScope, errno).detail("a pid"))
        });
        match seen {
            Ok(pid) if pid == std::process::id() => Ok(()),
            Err(error) if error.kind() == ErrorKind::Timeout => Err(error),
            _ => {
                let detail = "systemd knows this process by another pid";
                let error = Error::message(ErrorKind::Unsupported, Step::SystemdScope, detail);
                Err(error.hint("the caller is in a pid namespace of its own: name a group with cgroup_parent instead"))
            }
        }
    }

    /// Returns the control group below which all units of this manager stand.
    pub(crate) fn control_group(&mut self) -> Result<PathBuf> {
        let answer = self.bus.call(PROPERTIES, "Get", Some(&(MANAGER.interface, "ControlGroup")))?;
        match answer.body::<Variant<'_>>() {
            Ok(Variant::Str(path)) => Ok(PathBuf::from("/").join(path.as_str())),
            _ => Err(Error::new(Step::SystemdScope, Errno::EBADMSG).detail("ControlGroup is no string")),
        }
    }

    /// Makes a scope around the process `pid` and waits until the scope is active.
    pub(crate) fn start(&mut self, scope: &SystemdScope, unit: &str, pid: i32) -> Result<()> {
        self.bus.call_daemon("AddMatch", &(JOBS,))?;
        let properties = properties(scope, pid as u32);
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let answer = self.bus.call(MANAGER, "StartTransientUnit", Some(&(unit, "fail", properties, none)))?;
        let odd = |errno| Error::new(Step::SystemdScope, errno).at(unit);
        let job = answer.body::<ObjectPath<'_>>().map_err(odd)?.to_string();
        loop {
            let signal = self.bus.signal()?;
            // Anyone may send this process a signal; only signals of systemd count.
            if signal.head.member != "JobRemoved" || signal.head.sender != answer.head.sender {
                continue;
            }
            let (_, removed, _, result): (u32, ObjectPath<'_>, String, String) = signal.body().map_err(odd)?;
            if removed.as_str() != job {
                continue;
            }
            return match result.as_str() {
                "done" => Ok(()),
                _ => Err(Error::message(ErrorKind::Setup, Step::SystemdScope, format!("the job ended as {result:?}"))
                    .at(unit)
                    .hint("systemctl status, and the journal of systemd, say why")),
            };
        }
    }

    /// Moves a process into the group `below` the scope's own. A user manager asks the system
    /// manager where it may not move the process itself (systemd 238).
    pub(crate) fn attach(&mut self, unit: &str, below: &str, pid: i32) -> Result<()> {
        self.bus.call(MANAGER, "AttachProcessesToUnit", Some(&(unit, below, vec![pid as u32]))).map(drop)
    }
}

/// Returns the properties of the unit. Nothing limits the scope itself: the groups inside have the
/// limits. A host's default for TasksMax would apply to all of them together.
fn properties(scope: &SystemdScope, pid: u32) -> Vec<(&str, Variant<'_>)> {
    let described = scope.description.clone().unwrap_or_else(|| format!("Sandboxes of process {}", std::process::id()));
    let mut properties: Vec<(&str, Variant<'_>)> = vec![
        ("Description", described.into()),
        ("Delegate", true.into()),
        ("CollectMode", "inactive-or-failed".into()),
        ("TasksMax", u64::MAX.into()),
        ("PIDs", vec![pid].into()),
    ];
    if let Some(slice) = &scope.slice {
        properties.insert(0, ("Slice", slice.as_str().into()));
    }
    properties
}
