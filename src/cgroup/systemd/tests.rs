//! Tests the messages to systemd and the handling of its answers. Each test has its own bus, with a
//! real daemon that accepts only well-formed messages, and a thread that plays systemd.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zbus::wire::export::serde::Serialize;
use zbus::wire::{ObjectPath, OwnedVariant, Type};

use super::bus::{Address, Bus};
use super::manager::Manager;
use super::message::{self, Head, Message, kind};
use super::scope::SystemdScope;
use crate::error::{Error, ErrorKind};

const BOUND: Duration = Duration::from_secs(20);
const JOB: &str = "/org/freedesktop/systemd1/job/17";

/// A daemon with a bus that every process of the same user may use freely. Dropping the value ends
/// the daemon.
struct Daemon {
    process: Child,
    dir: PathBuf,
}

impl Daemon {
    /// Starts the daemon. Returns `None`, and says so, where the program is not installed. CI has
    /// it.
    fn start(test: &str) -> Option<Daemon> {
        if Command::new("dbus-daemon").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: it needs dbus-daemon, of the package dbus-daemon");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "under CI a test may not be skipped");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("rftest-bus-{}-{test}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let config = format!(
            "<busconfig><listen>unix:path={}/bus</listen><auth>EXTERNAL</auth><policy context='default'>\
             <allow send_destination='*'/><allow receive_sender='*'/><allow own='*'/></policy></busconfig>",
            dir.display()
        );
        std::fs::write(dir.join("config"), config).unwrap();
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg("--nofork").arg("--print-address").arg(format!("--config-file={}/config", dir.display()));
        let mut process = daemon.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // The daemon prints its address when it listens.
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:path="), "{line}");
        Some(Daemon { process, dir })
    }

    fn addresses(&self) -> [Address; 1] {
        [Address::Path(self.dir.join("bus"))]
    }

    fn connect(&self) -> Bus {
        Bus::open(&self.addresses(), Instant::now() + BOUND).unwrap()
    }

    fn manager(&self, bound: Duration) -> crate::error::Result<Manager> {
        Manager::on(&self.addresses(), Instant::now() + bound)
    }

    /// Starts a thread that owns systemd's name on this bus and answers one call by `play`.
    fn systemd<T: Send + 'static>(&self, play: impl FnOnce(&mut Bus, &Message) -> T + Send + 'static) -> JoinHandle<T> {
        let mut bus = self.connect();
        let owner: u32 = bus.call_daemon("RequestName", &("org.freedesktop.systemd1", 0u32)).unwrap().body().unwrap();
        assert_eq!(owner, 1, "the name was to be had");
        std::thread::spawn(move || {
            let call = next_call(&mut bus);
            play(&mut bus, &call)
        })
    }
}

fn next_call(bus: &mut Bus) -> Message {
    loop {
        let message = bus.read_message().unwrap();
        if message.head.kind == kind::CALL {
            return message;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn say<T: Serialize + Type>(bus: &mut Bus, head: Head, body: &T) {
    let bytes = message::encode(&Head { serial: 1_000, ..head }, Some(body)).unwrap();
    bus.write(&bytes).unwrap();
}

fn answer<T: Serialize + Type>(bus: &mut Bus, call: &Message, body: &T) {
    let head = Head {
        kind: kind::RETURN,
        reply_to: call.head.serial,
        destination: call.head.sender.clone(),
        ..Head::default()
    };
    say(bus, head, body);
}

/// Signals to everyone, or to `destination` alone, that a job has ended.
fn job_removed(bus: &mut Bus, destination: &str, job: &str, result: &str) {
    let head = Head {
        kind: kind::SIGNAL,
        destination: destination.into(),
        path: "/org/freedesktop/systemd1".into(),
        interface: "org.freedesktop.systemd1.Manager".into(),
        member: "JobRemoved".into(),
        ..Head::default()
    };
    say(bus, head, &(17u32, ObjectPath::try_from(job).unwrap(), "some.scope", result));
}

fn accept(bus: &mut Bus, call: &Message) {
    answer(bus, call, &ObjectPath::try_from(JOB).unwrap());
}

type Properties = Vec<(String, OwnedVariant)>;

#[test]
fn the_unit_that_is_asked_for_is_a_delegated_scope_without_limits() {
    let Some(daemon) = Daemon::start("call") else { return };
    let systemd = daemon.systemd(|bus, call| {
        accept(bus, call);
        job_removed(bus, "", JOB, "done");
        let body: (String, String, Properties, Vec<(String, Properties)>) = call.body().unwrap();
        (call.head.clone(), body)
    });
    let scope = SystemdScope::new().slice("batch.slice").description("judge of exams");
    daemon.manager(BOUND).unwrap().start(&scope, "ringfence-1.scope", 4711).unwrap();
    let (head, (unit, mode, properties, others)) = systemd.join().unwrap();
    assert_eq!((head.path.as_str(), head.member.as_str()), ("/org/freedesktop/systemd1", "StartTransientUnit"));
    assert_eq!(head.interface, "org.freedesktop.systemd1.Manager");
    assert_eq!((unit.as_str(), mode.as_str()), ("ringfence-1.scope", "fail"));
    let expected: Properties = [
        ("Slice", "batch.slice".into()),
        ("Description", "judge of exams".into()),
        ("Delegate", true.into()),
        ("CollectMode", "inactive-or-failed".into()),
        ("TasksMax", u64::MAX.into()),
        ("PIDs", vec![4711u32].into()),
    ]
    .into_iter()
    .map(|(name, value): (&str, zbus::wire::Variant<'_>)| (name.to_owned(), value.try_into_owned().unwrap()))
    .collect();
    assert_eq!(properties, expected);
    assert_eq!(others, []);
}

#[test]
fn only_the_end_of_the_own_job_as_systemd_tells_it_counts() {
    let Some(daemon) = Daemon::start("forged") else { return };
    let mut stranger = daemon.connect();
    let systemd = daemon.systemd(move |bus, call| {
        accept(bus, call);
        job_removed(&mut stranger, &call.head.sender, JOB, "done");
        // An answer to the stranger means that the daemon has already passed the stranger's signal
        // on.
        stranger.call_daemon("GetNameOwner", &("org.freedesktop.systemd1",)).unwrap();
        job_removed(bus, "", "/org/freedesktop/systemd1/job/16", "done");
        job_removed(bus, "", JOB, "failed");
    });
    let error = daemon.manager(BOUND).unwrap().start(&SystemdScope::new(), "a.scope", 1).unwrap_err();
    systemd.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(error.to_string().starts_with("ask systemd for a scope a.scope: the job ended as \"failed\""), "{error}");
}

#[test]
fn a_job_that_does_not_end_is_waited_for_no_longer_than_allowed() {
    let Some(daemon) = Daemon::start("slow") else { return };
    let systemd = daemon.systemd(|bus, call| {
        accept(bus, call);
        std::thread::sleep(Duration::from_secs(2));
    });
    let mut manager = daemon.manager(Duration::from_millis(600)).unwrap();
    let start = Instant::now();
    let error = manager.start(&SystemdScope::new(), "a.scope", 1).unwrap_err();
    let took = start.elapsed();
    systemd.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(took < Duration::from_millis(1800), "{took:?}");
}

fn refuse(bus: &mut Bus, call: &Message, error: &str) {
    let head = Head {
        kind: kind::ERROR,
        reply_to: call.head.serial,
        destination: call.head.sender.clone(),
        error: error.to_owned(),
        ..Head::default()
    };
    say(bus, head, &("not for you",));
}

fn refusal(name: &'static str) -> Option<Error> {
    let daemon = Daemon::start(&name.to_lowercase())?;
    let systemd = daemon.systemd(move |bus, call| refuse(bus, call, &format!("org.freedesktop.DBus.Error.{name}")));
    let error = daemon.manager(BOUND).unwrap().attach("a.scope", "/b", 1).unwrap_err();
    systemd.join().unwrap();
    Some(error)
}

#[test]
fn a_refusal_is_told_in_systemds_words() {
    let Some(error) = refusal("AccessDenied") else { return };
    assert_eq!(error.kind(), ErrorKind::Setup);
    let text = error.to_string();
    assert!(text.contains("AttachProcessesToUnit: not for you (org.freedesktop.DBus.Error.AccessDenied)"), "{text}");
    assert!(error.remedy().unwrap().contains("manager of its own"), "{text}");
    assert_eq!(refusal("Failed").unwrap().remedy(), None);
}

#[test]
fn a_bus_without_systemd_is_no_place_for_scopes() {
    let Some(daemon) = Daemon::start("absent") else { return };
    let error = daemon.manager(BOUND).unwrap().control_group().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.remedy().unwrap().contains("no systemd answers"), "{error}");
}

#[test]
fn the_managers_group_is_read() {
    let Some(daemon) = Daemon::start("group") else { return };
    let systemd = daemon.systemd(|bus, call| {
        assert_eq!(call.body::<(&str, &str)>(), Ok(("org.freedesktop.systemd1.Manager", "ControlGroup")));
        answer(bus, call, &zbus::wire::Variant::from("/user.slice"));
    });
    let group = daemon.manager(BOUND).unwrap().control_group().unwrap();
    systemd.join().unwrap();
    assert_eq!(group, PathBuf::from("/user.slice"));
}

#[test]
fn a_socket_that_nobody_serves_is_given_up() {
    let dir = std::env::temp_dir().join(format!("rftest-bus-{}-mute", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    // The listener accepts nobody: the kernel connects all the same.
    let mute = std::os::unix::net::UnixListener::bind(dir.join("bus")).unwrap();
    let until = Instant::now() + Duration::from_millis(200);
    let late = Bus::open(&[Address::Path(dir.join("bus"))], until).unwrap_err();
    drop(mute);
    let dead = Bus::open(&[Address::Path(dir.join("bus"))], until).unwrap_err();
    std::fs::remove_dir_all(&dir).unwrap();
    let gone = Bus::open(&[Address::Path(dir.join("bus"))], until).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert_eq!((dead.kind(), dead.raw_os_error()), (ErrorKind::Unsupported, Some(libc::ECONNREFUSED)));
    assert_eq!((gone.kind(), gone.raw_os_error()), (ErrorKind::Unsupported, Some(libc::ENOENT)));
}

#[cfg(feature = "oci")]
mod of_one_sandbox {
    use super::*;
    use std::path::Path;

    use crate::cgroup::host::Host;
    use crate::cgroup::host::tests::parse;
    use crate::cgroup::limits::Limits;
    use crate::cgroup::systemd::unit::Unit;
    use crate::cgroup::systemd::value::Value;
    use crate::cgroup::unit_id::UnitId;
    use crate::cgroup::{Device, DeviceAccess, Devices};

    const GONE: &str = "org.freedesktop.systemd1.NoUnitForInvocationID";
    const NO_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

    fn id() -> UnitId {
        UnitId { name: "a-box.scope".into(), invocation: [7; 16] }
    }

    fn unit() -> Unit {
        Unit::new("a-box.scope".into(), "batch.slice".into(), "container box".into()).unwrap()
    }

    fn path(bus: &mut Bus, call: &Message, path: &str) {
        answer(bus, call, &ObjectPath::try_from(path).unwrap());
    }

    /// Reads the next call, which is to be this one.
    fn expect(bus: &mut Bus, member: &str) -> Message {
        let call = next_call(bus);
        assert_eq!(call.head.member, member);
        call
    }

    /// A host whose systemd has all its controllers on v2, and one where it has them on v1.
    fn hosts() -> [Host; 2] {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let v1 = "\
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
";
        [unified, v1].map(|mounts| parse(mounts, "3:devices:/\n2:memory:/\n1:name=systemd:/\n0::/\n"))
    }

    /// Has a unit made with these limits, and returns the properties that systemd is asked for.
    fn properties_of_start(daemon: &Daemon, host: &Host, limits: &Limits) -> Properties {
        let systemd = daemon.systemd(|bus, call| {
            let (unit, mode, properties, _): (String, String, Properties, Vec<(String, Properties)>) =
                call.body().unwrap();
            accept(bus, call);
            job_removed(bus, "", JOB, "done");
            let call = expect(bus, "GetUnit");
            path(bus, &call, "/org/freedesktop/systemd1/unit/a");
            let call = expect(bus, "Get");
            assert_eq!(call.head.path, "/org/freedesktop/systemd1/unit/a");
            assert_eq!(call.body::<(&str, &str)>(), Ok(("org.freedesktop.systemd1.Unit", "InvocationID")));
            answer(bus, &call, &zbus::wire::Variant::from(vec![7u8; 16]));
            assert_eq!((unit.as_str(), mode.as_str()), ("a-box.scope", "fail"));
            properties
        });
        let mut unit = unit();
        // What is asked for by name stands in place of what the library would say, but where that
        // would lift rules for devices.
        unit.properties = vec![
            ("CollectMode".into(), Value::Str("inactive".into())),
            ("DevicePolicy".into(), Value::Str("auto".into())),
        ];
        let mut manager = daemon.manager(BOUND).unwrap();
        let group = unit.group(Path::new("/"));
        assert_eq!(manager.start_unit(&unit, &group, host, limits, 4711).unwrap(), id());
        systemd.join().unwrap()
    }

    fn owned<const N: usize>(properties: [(&str, zbus::wire::Variant<'_>); N]) -> Properties {
        properties.into_iter().map(|(name, value)| (name.to_owned(), value.try_into_owned().unwrap())).collect()
    }

    #[test]
    fn the_unit_of_a_sandbox_has_its_limits_and_is_known_by_its_invocation() {
        let Some(daemon) = Daemon::start("unit") else { return };
        let devices = Devices::none().allow(Device::null(), DeviceAccess::READ);
        let limits = Limits::new().memory(1 << 20).pids(7).cpuset("0-1").devices(devices);
        let start = [
            ("PIDs", vec![4711u32].into()),
            ("Slice", "batch.slice".into()),
            ("Description", "container box".into()),
            ("Delegate", true.into()),
            ("DefaultDependencies", false.into()),
        ];
        let [unified, v1] = hosts().map(|host| properties_of_start(&daemon, &host, &limits));
        assert_eq!(unified[..start.len()], owned(start.clone()));
        let limits = [
            ("MemoryMax", (1u64 << 20).into()),
            ("TasksMax", 7u64.into()),
            ("AllowedCPUs", vec![3u8].into()),
            ("CollectMode", "inactive".into()),
            ("DevicePolicy", "auto".into()),
        ];
        assert_eq!(unified[start.len()..], owned(limits));
        assert_eq!(v1[..start.len()], owned(start.clone()));
        let limits = [
            ("MemoryLimit", (1u64 << 20).into()),
            ("TasksMax", 7u64.into()),
            ("CollectMode", "inactive".into()),
            ("DevicePolicy", "strict".into()),
            ("DeviceAllow", vec![("/dev/char/1:3", "r")].into()),
        ];
        assert_eq!(v1[start.len()..], owned(limits));
    }

    #[test]
    fn a_unit_is_stopped_and_waited_for_if_it_is_still_the_same() {
        let Some(daemon) = Daemon::start("stop") else { return };
        let systemd = daemon.systemd(|bus, call| {
            assert_eq!(call.head.member, "GetUnitByInvocationID");
            assert_eq!(call.body::<(Vec<u8>,)>(), Ok((vec![7; 16],)));
            path(bus, call, "/org/freedesktop/systemd1/unit/a");
            let call = expect(bus, "StopUnit");
            assert_eq!(call.body::<(&str, &str)>(), Ok(("a-box.scope", "replace")));
            accept(bus, &call);
            job_removed(bus, "", "/org/freedesktop/systemd1/job/16", "done");
            job_removed(bus, "", JOB, "done");
            // It has failed, and stays.
            let call = expect(bus, "GetUnitByInvocationID");
            path(bus, &call, "/org/freedesktop/systemd1/unit/a");
            let call = expect(bus, "ResetFailedUnit");
            refuse(bus, &call, NO_UNIT);
        });
        daemon.manager(BOUND).unwrap().stop(&id()).unwrap();
        systemd.join().unwrap();
    }

    #[test]
    fn another_unit_of_the_same_name_is_left_alone() {
        let Some(daemon) = Daemon::start("another") else { return };
        let systemd = daemon.systemd(|bus, call| {
            refuse(bus, call, GONE);
            let call = expect(bus, "GetUnitByInvocationID");
            refuse(bus, &call, GONE);
        });
        let mut manager = daemon.manager(BOUND).unwrap();
        // A call about the unit by its name would wait for an answer that nobody gives.
        manager.stop(&id()).unwrap();
        let error = manager.set_limits(&id(), &hosts()[0], &Limits::new().pids(7)).unwrap_err();
        systemd.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::Control);
        assert!(error.to_string().contains("systemd has the unit a-box.scope no more"), "{error}");
        manager.set_limits(&id(), &hosts()[0], &Limits::new()).unwrap();
    }

    #[test]
    fn limits_are_set_on_the_unit_until_it_ends() {
        let Some(daemon) = Daemon::start("set") else { return };
        let systemd = daemon.systemd(|bus, call| {
            path(bus, call, "/org/freedesktop/systemd1/unit/a");
            let call = expect(bus, "SetUnitProperties");
            let body: (String, bool, Properties) = call.body().unwrap();
            refuse(bus, &call, "org.freedesktop.DBus.Error.InvalidArgs");
            body
        });
        let error = daemon.manager(BOUND).unwrap().set_limits(&id(), &hosts()[0], &Limits::new().pids(7)).unwrap_err();
        let (name, runtime, properties) = systemd.join().unwrap();
        assert_eq!((name.as_str(), runtime), ("a-box.scope", true));
        let tasks = zbus::wire::Variant::from(7u64).try_into_owned().unwrap();
        assert_eq!(properties, [("TasksMax".to_owned(), tasks)]);
        assert!(error.to_string().contains("SetUnitProperties: not for you"), "{error}");
    }
}
