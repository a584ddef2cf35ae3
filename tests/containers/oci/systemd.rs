//! Containers in scopes of systemd's: with a systemd in a virtual machine (the rows `systemd` of tests/vm/run), as root and as
//! an ordinary user inside and outside of its manager's subtree; and everywhere, what is said where there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::killed::{is_killed, marked, with_marks};
use super::{Bundle, PATIENT};
use crate::common::{self, probe};

/// True, after saying so, where systemd makes no scopes for containers of this user.
#[track_caller]
pub(super) fn no_scopes() -> bool {
    if common::no_systemd() {
        return true;
    }
    let is_without = !common::is_v2() && !common::is_root();
    if is_without {
        common::skip("systemd gives users' managers no controllers of v1", true);
    }
    is_without
}

/// A container whose group systemd makes: `rftest-PID.scope` in `rftest.slice`.
pub(super) fn bundle(script: &str) -> Bundle {
    let path = format!("rftest.slice:rftest:{}", std::process::id());
    let mut bundle = Bundle::new(script).with("/linux/cgroupsPath", json!(path));
    bundle.options = &["--systemd-cgroup"];
    bundle
}

pub(super) fn unit() -> String {
    format!("rftest-{}.scope", std::process::id())
}

pub(super) fn systemctl(words: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    command.args(if common::is_root() { &[][..] } else { &["--user"] }).args(words);
    probe::succeeds(command)
}

pub(super) fn property(unit: &str, name: &str) -> String {
    let shown = systemctl(&["show", unit, "-p", name]);
    shown.trim().strip_prefix(&format!("{name}=")).unwrap_or_default().to_owned()
}

fn group_of(pid: &str) -> String {
    group_while_it_lives(pid).unwrap_or_else(|| panic!("process {pid} has ended"))
}

/// The group in which systemd keeps the processes of the unit.
fn group_while_it_lives(pid: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let kept = if common::is_v2() { "0::" } else { "name=systemd:" };
    text.lines().find_map(|line| line.split_once(kept)).map(|(_, group)| group.to_owned())
}

pub(super) fn pid(bundle: &Bundle) -> u32 {
    bundle.state()["pid"].to_string().parse().unwrap()
}

/// The directories of the container's group, that of v2 alone or those of all hierarchies.
pub(super) fn dirs(pid: u32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let names = text.lines().map(|line| line.split(':').nth(1).unwrap().split(',').next().unwrap());
    let is_mounted = |name: &&str| !name.is_empty() || common::is_v2() || Path::new("/sys/fs/cgroup/unified").exists();
    names.filter(is_mounted).map(|name| common::group_of(pid, name)).collect()
}

/// The directories of the unit's group, in any hierarchy.
pub(super) fn dirs_of_unit() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mounts = words.filter(|words| words[2].starts_with("cgroup")).map(|words| Path::new(words[1]));
    mounts.map(|mount| mount.join("rftest.slice").join(unit())).filter(|dir| dir.exists()).collect()
}

/// The value of a file of cgroup v2 in a container's group, or of those that say the same on v1.
pub(super) fn read(pid: u32, file: &str) -> String {
    let read = |controller: &str, file: &str| {
        let path = common::group_of(pid, controller).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")).trim().to_owned()
    };
    if common::is_v2() {
        return read("", file);
    }
    match file {
        "cgroup.procs" => read("name=systemd", file),
        "memory.max" => read("memory", "memory.limit_in_bytes"),
        "cpu.max" => format!("{} {}", read("cpu", "cpu.cfs_quota_us"), read("cpu", "cpu.cfs_period_us")),
        "cpu.weight" => read("cpu", "cpu.shares"),
        _ => read(file.split('.').next().unwrap(), file),
    }
}

#[track_caller]
pub(super) fn is_gone(unit: &str) {
    assert_eq!(property(unit, "LoadState"), "not-found", "{unit}");
}

/// The node of a device that no rule allows, and that everybody could open else.
pub(super) fn denied_node() -> Value {
    assert!(fs::File::open("/dev/fuse").is_ok());
    json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}])
}

pub(super) fn resources() -> Value {
    let mut all = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}});
    if common::is_root() {
        all["cpu"] = json!({"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0"});
        all["devices"] = json!([{"allow": false, "access": "rwm"}]);
    }
    all
}

#[test]
fn a_container_has_a_scope_of_its_own_from_create_to_delete() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if no_scopes() {
        return;
    }
    let bundle = bundle(PATIENT).with("/linux/resources", resources());
    bundle.does(&["create", "box"]);
    let pid = pid(&bundle);
    let dirs = dirs(pid);
    assert!(dirs.iter().all(|dir| dir.ends_with(Path::new("rftest.slice").join(unit()))), "{dirs:?}");
    assert_eq!(read(pid, "cgroup.procs"), pid.to_string(), "the first process is alone");
    let memory = if common::is_v2() { "MemoryMax" } else { "MemoryLimit" };
    for (name, value) in [
        ("ActiveState", "active"),
        ("Delegate", "yes"),
        ("Slice", "rftest.slice"),
        ("Description", "container box"),
        (memory, "67108864"),
        ("TasksMax", "20"),
    ] {
        assert_eq!(property(&unit(), name), value, "{name}");
    }
    bundle.does(&["start", "box"]);
    let limits = || [read(pid, "memory.max"), read(pid, "pids.max")];
    assert_eq!(limits(), ["67108864", "20"]);
    systemctl(&["daemon-reload"]);
    assert_eq!(limits(), ["67108864", "20"]);
    bundle.does(&["update", "--memory", "96m", "--pids-limit=30", "box"]);
    assert_eq!([property(&unit(), memory), property(&unit(), "TasksMax")], ["100663296", "30"]);
    assert_eq!(limits(), ["100663296", "30"]);
    systemctl(&["daemon-reload"]);
    assert_eq!(limits(), ["100663296", "30"]);
    // What has no property is in the file all the same.
    assert!(bundle.fails(&["update", "--cpuset-cpus", "9999", "box"]).contains("pus"));

    assert_eq!(
        bundle.does(&["exec", "box", "cat", "/proc/self/cgroup"]).lines().filter(|line| line.len() > 4).count() > 1,
        !common::is_v2()
    );
    let pids = || serde_json::from_str::<Vec<u32>>(&bundle.does(&["ps", "-f", "json", "box"])).unwrap();
    assert!(pids().contains(&pid));
    let event: Value = serde_json::from_str(&bundle.does(&["events", "--stats", "box"])).unwrap();
    assert_eq!(event["data"]["memory"]["usage"]["limit"], json!(96 << 20));
    bundle.does(&["pause", "box"]);
    assert_eq!(bundle.state()["status"], "paused");
    bundle.does(&["resume", "box"]);
    bundle.does(&["exec", "--detach", "box", "sleep", "1000"]);
    common::eventually("it runs in the scope", || pids().len() >= 2);
    // Some are the script's own short sleeps.
    let groups: Vec<String> = pids().iter().filter_map(|pid| group_while_it_lives(&pid.to_string())).collect();
    assert!(groups.len() >= 2 && groups.iter().all(|group| group.ends_with(&unit())), "{groups:?}");
    bundle.does(&["delete", "--force", "box"]);
    assert!(bundle.is_empty() && dirs.iter().all(|dir| !dir.exists()));
    is_gone(&unit());
}

#[test]
fn what_root_can_limit_stays_when_systemd_loads_its_units_again() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if no_scopes() || common::needs_root("the controllers cpu and cpuset, and rules for devices") {
        return;
    }
    let bundle = bundle(PATIENT).with("/linux/resources", resources()).with("/linux/devices", denied_node());
    bundle.does(&["run", "-d", "box"]);
    let pid = pid(&bundle);
    let limits = || ["cpu.max", "cpu.weight", "cpuset.cpus"].map(|file| read(pid, file));
    let before = limits();
    let [weight, other] = if common::is_v2() { ["59", "100"] } else { ["512", "1024"] };
    assert_eq!(before, ["50000 100000", weight, "0"]);
    let opens =
        |path: &str| bundle.says(&["exec", "box", "dd", &format!("if={path}"), "of=/dev/null", "count=0"]).status;
    for _ in 0..2 {
        assert!(opens("/dev/zero").success());
        assert!(!opens("/dev/fuse").success());
        systemctl(&["daemon-reload"]);
        assert_eq!(limits(), before);
    }
    bundle.does(&["update", "--cpu-quota", "20000", "--cpu-share", "1024", "box"]);
    systemctl(&["daemon-reload"]);
    assert_eq!(limits(), ["20000 100000", other, "0"]);
    assert_eq!(property(&unit(), "CPUQuotaPerSecUSec"), "200ms");
    assert!(!opens("/dev/fuse").success());
    bundle.does(&["delete", "--force", "box"]);
    is_gone(&unit());
}

#[test]
fn a_container_without_a_path_has_a_scope_at_the_default_place() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if no_scopes() {
        return;
    }
    let mut bundle = bundle("read line; exit 5");
    bundle.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    bundle.does(&["create", "box"]);
    let slice = if common::is_root() { "system.slice" } else { "user.slice" };
    let group = group_of(&pid(&bundle).to_string());
    assert!(group.ends_with(&format!("{slice}/ringfence-box.scope")), "{group}");
    bundle.does(&["start", "box"]);
    // It ends by itself, and its scope with it.
    bundle.becomes("stopped");
    common::eventually("the scope is gone", || property("ringfence-box.scope", "LoadState") == "not-found");
    bundle.does(&["delete", "box"]);
    assert!(bundle.is_empty());
    assert_eq!(bundle.says(&["run", "box"]).status.code(), Some(5));
    is_gone("ringfence-box.scope");
}

#[test]
fn annotations_are_properties_of_the_scope() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if no_scopes() {
        return;
    }
    let name = |name: &str| format!("org.systemd.property.{name}");
    let annotations = json!({name("TimeoutStopSec"): "77", name("CollectMode"): "'inactive'"});
    let bundle =
        bundle("exit 3").with("/annotations", annotations).with("/linux/resources", json!({"pids": {"limit": 1}}));
    bundle.does(&["create", "box"]);
    assert_eq!([property(&unit(), "TimeoutStopUSec"), property(&unit(), "CollectMode")], ["1min 17s", "inactive"]);
    // One process is few, and none of it is the library's.
    assert_eq!(read(pid(&bundle), "pids.max"), "1");
    bundle.does(&["start", "box"]);
    bundle.becomes("stopped");
    bundle.does(&["delete", "box"]);
    is_gone(&unit());
    for (property, value, says) in [
        ("PIDs", "@au [1]", "annotations.org.systemd.property.PIDs"),
        ("CollectMode", "inactive", "annotations.org.systemd.property.CollectMode"),
        // What only systemd knows, it says.
        ("NoSuchProperty", "true", "NoSuchProperty"),
    ] {
        let bundle = super::systemd::bundle("true").with("/annotations", json!({ name(property): value }));
        let said = bundle.fails(&["create", "box"]);
        assert!(said.contains(says), "{property}: {said}");
        assert!(bundle.is_empty());
        is_gone(&unit());
    }
}

#[test]
fn a_scope_of_another_is_neither_taken_nor_stopped() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if no_scopes() {
        return;
    }
    let (first, second) = (bundle(PATIENT), bundle(PATIENT));
    first.does(&["run", "-d", "box"]);
    let said = second.fails(&["create", "box"]);
    assert!(said.contains("UnitExists"), "{said}");
    assert!(second.is_empty());
    second.does(&["delete", "--force", "box"]);
    assert_eq!(property(&unit(), "ActiveState"), "active");
    // One that has got the name later is another one, too.
    first.does(&["kill", "box", "KILL"]);
    first.becomes("stopped");
    common::eventually("the scope is gone", || property(&unit(), "LoadState") == "not-found");
    second.does(&["run", "-d", "box"]);
    first.does(&["delete", "box"]);
    assert_eq!(second.state()["status"], "running");
    assert_eq!(property(&unit(), "ActiveState"), "active");
    second.does(&["delete", "-f", "box"]);
    is_gone(&unit());
}

/// The same as without systemd: whatever the runtime has done by then, nothing stays, and no scope either.
fn is_killed_in_a_scope(before: &[&[&str]], words: &[&str]) {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if no_scopes() {
        return;
    }
    let (bundle, mark) = with_marks(bundle(PATIENT).with("/linux/resources", json!({"pids": {"limit": 20}})));
    // Each takes seconds in a machine that is emulated.
    is_killed(&bundle, before, words, 3, || {
        common::eventually("all processes are gone", || marked(&mark) == 0);
        common::eventually("the scope is gone", || property(&unit(), "LoadState") == "not-found");
        assert_eq!(dirs_of_unit(), [""; 0].map(PathBuf::from));
    });
}

#[test]
fn one_that_creates_is_killed() {
    is_killed_in_a_scope(&[], &["create", "box"]);
}

#[test]
fn one_that_deletes_is_killed() {
    is_killed_in_a_scope(&[&["run", "-d", "box"]], &["delete", "--force", "box"]);
}

#[test]
fn hooks_run_in_the_scope_too() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if no_scopes() {
        return;
    }
    let bundle = bundle(PATIENT);
    let inside = format!("cat /proc/self/cgroup > {}", bundle.path("seen").display());
    let hook = bundle.hook("hook", &inside);
    let bundle = bundle.with("/hooks", json!({ "createContainer": [hook] }));
    bundle.does(&["create", "box"]);
    let seen = bundle.read("seen");
    assert!(seen.trim().ends_with(&unit()) || seen.trim() == "0::/", "{seen}");
    bundle.does(&["delete", "--force", "box"]);
    is_gone(&unit());
}

/// As engines of an ordinary user do it: root in a user namespace, whose maps a helper has written.
#[test]
fn a_user_who_is_root_in_a_namespace_has_its_own_manager() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if no_scopes() || common::needs_root("the maps of a user's namespace") {
        return;
    }
    if !common::is_v2() {
        return common::skip("systemd gives users' managers no controllers of v1", true);
    }
    if !Path::new("/run/user/1000/bus").exists() {
        common::skip("no user 1000 has a manager", true);
        return;
    }
    let mut bundle = Bundle::of_an_ordinary_user(PATIENT).with("/linux/cgroupsPath", json!(":rftest:mapped"));
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 20}});
    for (maps, dir) in [("uidMappings", bundle.dir.path()), ("gidMappings", bundle.root.path())] {
        bundle.config["linux"][maps][0]["hostID"] = json!(0);
        std::os::unix::fs::chown(dir, Some(1000), Some(1000)).unwrap();
    }
    // Writes the configuration.
    drop(bundle.command(&[]));
    let mut ids = Command::new("setpriv");
    ids.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "unshare", "--user", "sleep", "1000"]);
    let mut mapped = ids.spawn().unwrap();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    let pid = mapped.id().to_string();
    common::eventually("it has a user namespace", || namespace(&pid).is_some_and(|one| Some(one) != namespace("self")));
    for maps in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{maps}"), "0 1000 1").unwrap();
    }
    let says = |words: &[&str]| {
        let root = bundle.path("containers").display().to_string();
        let what = [&["oci-runtime", "--root", &root, "--systemd-cgroup"], words].concat().join(" ");
        let mut caller = Command::new("nsenter");
        caller.args(["--user", "--target", &pid, "--setuid", "0", "--setgid", "0"]);
        caller.arg(std::env::current_exe().unwrap()).env("RINGFENCE_CALLER", what);
        caller.env("XDG_RUNTIME_DIR", "/run/user/1000").current_dir(bundle.dir.path());
        let file = |name| fs::File::create(bundle.path(name)).unwrap();
        let status =
            caller.stdin(std::process::Stdio::null()).stdout(file("out")).stderr(file("err")).status().unwrap();
        assert!(status.success(), "{words:?}: {}", bundle.read("err"));
        bundle.read("out")
    };
    says(&["run", "--detach", "box"]);
    let state: Value = serde_json::from_str(&says(&["state", "box"])).unwrap();
    let group = group_of(&state["pid"].to_string());
    assert_eq!(group, "/user.slice/user-1000.slice/user@1000.service/user.slice/rftest-mapped.scope");
    let dir = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    let limit = fs::read_to_string(dir.join("pids.max")).unwrap();
    assert_eq!(limit.trim(), "20");
    says(&["delete", "--force", "box"]);
    mapped.kill().unwrap();
    mapped.wait().unwrap();
    assert!(bundle.is_empty() && !dir.exists());
}

#[test]
fn without_systemd_a_create_says_what_it_needs_and_makes_nothing() {
    let _clean = common::clean();
    let bundle = bundle("true");
    let mut command = bundle.command(&["create", "box"]);
    for variable in ["DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"] {
        command.env(variable, "unix:path=/nowhere/bus");
    }
    let began = Instant::now();
    assert_eq!(command.status().unwrap().code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(60));
    let said = bundle.read("err");
    assert!(said.contains("ask systemd for a scope") && said.contains("use the driver cgroupfs"), "{said}");
    assert!(bundle.is_empty());
}

#[test]
fn a_name_of_a_scope_is_a_path_without_systemd_and_a_path_is_no_scope() {
    let _clean = common::clean();
    let mut plain = bundle("cat /proc/self/cgroup");
    plain.options = &[];
    let kinds = plain.config["linux"]["namespaces"].as_array_mut().unwrap();
    kinds.retain(|kind| kind["type"] != "cgroup");
    let said = plain.does(&["run", "box"]);
    if common::is_root() {
        let path = plain.config["linux"]["cgroupsPath"].as_str().unwrap();
        assert!(said.lines().all(|line| line.ends_with(&format!(":/ringfence-oci/{path}"))), "{said}");
    }
    if no_scopes() {
        return;
    }
    for path in
        ["/a/b", "rftest.slice:a", "../x.slice:a:b", "rftest.slice:../a:b", "rftest.slice:a:b.slice", "-a.slice:a:b"]
    {
        let odd = bundle("true").with("/linux/cgroupsPath", json!(path));
        assert!(odd.fails(&["create", "box"]).contains("linux.cgroupsPath"), "{path}");
        assert!(odd.is_empty());
    }
}
