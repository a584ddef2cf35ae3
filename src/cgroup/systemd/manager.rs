//! The calls to systemd, as org.freedesktop.systemd1(5) describes them.

#[cfg(feature = "oci")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;
use zbus::wire::export::serde::Serialize;
use zbus::wire::{ObjectPath, Type, Variant};

#[cfg(feature = "oci")]
use super::bus::uid_outside;
use super::bus::{Address, Bus, Object};
#[cfg(feature = "oci")]
use super::properties::{Property, properties_of};
use super::scope::SystemdScope;
#[cfg(feature = "oci")]
use super::terms::{devices_allowed, properties_on_v1};
#[cfg(feature = "oci")]
use super::unit::Unit;
#[cfg(feature = "oci")]
use super::value::Value;
#[cfg(feature = "oci")]
use crate::cgroup::{host::Host, limits::Limits, unit_id::UnitId};
use crate::error::{Error, ErrorKind, Result, Step};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: Object<'_> =
    Object { destination: SYSTEMD, path: "/org/freedesktop/systemd1", interface: "org.freedesktop.systemd1.Manager" };
const PROPERTIES: Object<'_> = Object { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
#[cfg(feature = "oci")]
const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// What systemd answers about a unit that is gone.
#[cfg(feature = "oci")]
const GONE: [&str; 2] = ["org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.NoUnitForInvocationID"];
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
        self.start_transient(unit, properties(scope, pid as u32))
    }

    fn start_transient(&mut self, unit: &str, properties: Vec<(&str, Variant<'_>)>) -> Result<()> {
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let result = self.job(&[], "StartTransientUnit", &(unit, "fail", properties, none), unit)?;
        match result.as_deref() {
            Some("done") | None => Ok(()),
            Some(other) => {
                Err(Error::message(ErrorKind::Setup, Step::SystemdScope, format!("the job ended as {other:?}"))
                    .at(unit)
                    .hint("systemctl status, and the journal of systemd, say why"))
            }
        }
    }

    /// Calls a method that makes a job of `unit`, and waits until the job has ended. Returns its
    /// result; `None` for an answer that is one of the errors `absences`.
    fn job<T: Serialize + Type>(
        &mut self,
        absences: &[&str],
        member: &str,
        body: &T,
        unit: &str,
    ) -> Result<Option<String>> {
        self.bus.call_daemon("AddMatch", &(JOBS,))?;
        let Some(answer) = self.bus.call_unless(absences, MANAGER, member, body)? else { return Ok(None) };
        let odd = |errno| Error::new(Step::SystemdScope, errno).at(unit);
        let job = answer.body::<ObjectPath<'_>>().map_err(odd)?.to_string();
        loop {
            let signal = self.bus.signal()?;
            // Anyone may send this process a signal; only signals of systemd count.
            if signal.head.member != "JobRemoved" || signal.head.sender != answer.head.sender {
                continue;
            }
            let (_, removed, _, result): (u32, ObjectPath<'_>, String, String) = signal.body().map_err(odd)?;
            if removed.as_str() == job {
                return Ok(Some(result));
            }
        }
    }

    /// Moves a process into the group `below` the scope's own. A user manager asks the system
    /// manager where it may not move the process itself (systemd 238).
    pub(crate) fn attach(&mut self, unit: &str, below: &str, pid: i32) -> Result<()> {
        self.bus.call(MANAGER, "AttachProcessesToUnit", Some(&(unit, below, vec![pid as u32]))).map(drop)
    }
}

/// The scope of one sandbox, which is found again by its id.
#[cfg(feature = "oci")]
impl Manager {
    /// Returns whether the manager of the caller's user is that of the system.
    pub(super) fn is_of_root() -> bool {
        uid_outside().is_root()
    }

    /// Makes the scope of a sandbox around the process `pid`, with these limits, and waits until it
    /// is active. Returns its id. The group of the scope is to be `group`.
    pub(crate) fn start_unit(
        &mut self,
        unit: &Unit,
        group: &Path,
        host: &Host,
        limits: &Limits,
        pid: i32,
    ) -> Result<UnitId> {
        let mut properties = vec![("PIDs", Variant::from(vec![pid as u32]))];
        let mut own = own_properties(unit, properties_on(host, limits));
        let devices = devices_allowed(host, limits, group);
        // What is not strict would allow more than the rules.
        own.retain(|(name, _)| devices.is_none() || name != "DevicePolicy");
        properties.extend(variants(&own)?);
        if let Some(devices) = devices {
            properties.extend([("DevicePolicy", "strict".into()), ("DeviceAllow", devices.into())]);
        }
        self.start_transient(&unit.name, properties)?;
        let odd = |errno| Error::new(Step::SystemdScope, errno).at(&unit.name).detail("its invocation id");
        let path = self.bus.call(MANAGER, "GetUnit", Some(&(unit.name.as_str(),)))?;
        let path = path.body::<ObjectPath<'_>>().map_err(odd)?;
        let answer =
            self.bus.call(Object { path: path.as_str(), ..PROPERTIES }, "Get", Some(&(UNIT, "InvocationID")))?;
        let bytes = match answer.body::<Variant<'_>>() {
            Ok(Variant::Array(array)) => Vec::<u8>::try_from(array).unwrap_or_default(),
            _ => Vec::new(),
        };
        let invocation = bytes.try_into().map_err(|_| odd(Errno::EBADMSG))?;
        Ok(UnitId { name: unit.name.clone(), invocation })
    }

    /// Returns whether the unit is still there, and not another one of its name.
    pub(crate) fn has(&mut self, id: &UnitId) -> Result<bool> {
        let found = self.bus.call_unless(&GONE, MANAGER, "GetUnitByInvocationID", &(&id.invocation[..],))?;
        Ok(found.is_some())
    }

    /// Sets limits of a unit that is there.
    pub(crate) fn set_limits(&mut self, id: &UnitId, host: &Host, limits: &Limits) -> Result<()> {
        let properties = properties_on(host, limits);
        if properties.is_empty() {
            return Ok(());
        }
        let gone = || {
            let reason = format!("systemd has the unit {} no more", id.name);
            Error::message(ErrorKind::Control, Step::SetLimit, reason)
        };
        if !self.has(id)? {
            return Err(gone());
        }
        // They are gone with the unit, so they need not be kept over a reboot.
        let body = (id.name.as_str(), true, variants(&properties)?);
        self.bus.call_unless(&GONE, MANAGER, "SetUnitProperties", &body)?.map(drop).ok_or_else(gone)
    }

    /// Stops a unit whose processes have ended, and waits until it is gone. One that is gone is no
    /// error.
    pub(crate) fn stop(&mut self, id: &UnitId) -> Result<()> {
        if !self.has(id)? {
            return Ok(());
        }
        self.job(&GONE, "StopUnit", &(id.name.as_str(), "replace"), &id.name)?;
        // One that has failed stays until it is told to go.
        if self.has(id)? {
            self.bus.call_unless(&GONE, MANAGER, "ResetFailedUnit", &(id.name.as_str(),))?;
        }
        Ok(())
    }
}

/// Returns the properties that say what the limits say, in the terms that systemd has here.
#[cfg(feature = "oci")]
fn properties_on(host: &Host, limits: &Limits) -> Vec<Property> {
    if host.is_unified() { properties_of(limits) } else { properties_on_v1(limits) }
}

/// Returns the properties of a sandbox's own unit but its process, with those of its `limits`. One
/// that was asked for stands in place of the same one that the library would set.
#[cfg(feature = "oci")]
fn own_properties(unit: &Unit, limits: Vec<Property>) -> Vec<Property> {
    let text = |text: &str| Value::Str(text.to_owned());
    let mut all = vec![
        ("Slice".to_owned(), text(&unit.slice)),
        ("Description".to_owned(), text(&unit.description)),
        ("Delegate".to_owned(), Value::Bool(true)),
        // Who made the container ends it, and not a shutdown of the host that begins.
        ("DefaultDependencies".to_owned(), Value::Bool(false)),
        ("CollectMode".to_owned(), text("inactive-or-failed")),
        // The default of the host would be a limit that nobody has asked for.
        ("TasksMax".to_owned(), Value::U64(u64::MAX)),
    ];
    for (name, value) in limits.into_iter().chain(unit.properties.iter().cloned()) {
        all.retain(|(other, _)| *other != name);
        all.push((name, value));
    }
    all
}

#[cfg(feature = "oci")]
fn variants(properties: &[Property]) -> Result<Vec<(&str, Variant<'_>)>> {
    let failed = |name: &str| Error::new(Step::SystemdScope, Errno::EINVAL).detail(format!("the property {name}"));
    properties
        .iter()
        .map(|(name, value)| Ok((name.as_str(), value.to_variant().ok_or_else(|| failed(name))?)))
        .collect()
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
