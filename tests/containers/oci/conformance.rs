//! What the test suites of others found, by kind: see docs/conformance.md.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Stdio;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

use super::terminal::at_a_terminal_with;
use super::volumes::runs;
use super::{Bundle, PATIENT, group};
use crate::common;

#[test]
fn a_device_of_the_configuration_is_made_in_a_group_that_allows_none() {
    let _clean = common::clean();
    if common::needs_root("device nodes") {
        return;
    }
    let devices = json!([{"path": "/dev/test", "type": "c", "major": 10, "minor": 666}]);
    let bundle = Bundle::new("stat -c %t:%T /dev/test; head -c 1 /dev/test 2>/dev/null || echo denied");
    assert_eq!(runs(&bundle.with("/linux/devices", devices)), "a:29a\ndenied\n");
}

#[test]
fn an_option_of_a_file_system_has_no_effect_on_a_bind_and_is_told() {
    let _clean = common::clean();
    let bind = |word: &str| json!({"destination": "/data", "source": "data", "options": ["bind", word]});
    let bundle = Bundle::new("cat /data/f").holding("data/f").mounting(bind("mode=755"));
    let said = bundle.says(&["run", "box"]);
    assert!(said.status.success() && said.out == "held\n" && said.err.contains("mode=755"), "{said:?}");
    // It may have been meant for the mount.
    let bundle = Bundle::new("true").holding("data/f").mounting(bind("noexce"));
    assert!(bundle.fails(&["run", "box"]).contains("noexce"));
}

#[test]
fn a_tmpfs_has_the_mode_of_its_directory_or_the_one_that_is_said() {
    let _clean = common::clean();
    for (own, options, mode) in [
        (0o710, json!(["size=1m"]), "710"),
        (0o7777, json!(["size=1m", "nosuid"]), "7777"),
        (0o710, json!(["size=1m", "mode=1500"]), "1500"),
    ] {
        let bundle = Bundle::new("stat -c %a /held");
        let held = bundle.root.path().join("held");
        fs::create_dir(&held).unwrap();
        fs::set_permissions(&held, fs::Permissions::from_mode(own)).unwrap();
        let tmpfs = json!({"destination": "/held", "type": "tmpfs", "source": "tmpfs", "options": options});
        assert_eq!(runs(&bundle.mounting(tmpfs)), format!("{mode}\n"));
    }
}

#[test]
fn a_container_runs_on_all_its_processors_whatever_the_runtime_is_bound_to() {
    let _clean = common::clean();
    let bundle = Bundle::new("grep Cpus_allowed_list: /proc/self/status");
    let here = || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap().to_owned() + "\n"
    };
    let (before, all) = (sched_getaffinity(Pid::from_raw(0)).unwrap(), here());
    let mut first = CpuSet::new();
    let number = (0..CpuSet::count()).find(|number| before.is_set(*number).unwrap()).unwrap();
    first.set(number).unwrap();
    sched_setaffinity(Pid::from_raw(0), &first).unwrap();
    let said = bundle.says(&["run", "box"]);
    sched_setaffinity(Pid::from_raw(0), &before).unwrap();
    assert_eq!(said.out, all, "{said:?}");
}

#[test]
fn a_program_begins_in_a_directory_that_its_user_may_not_enter() {
    let _clean = common::clean();
    if common::needs_root("another user") {
        return;
    }
    let bundle = Bundle::new(&format!("pwd; {PATIENT}")).with("/process/cwd", json!("/closed"));
    let closed = bundle.root.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&closed, Some(7), Some(7)).unwrap();
    let bundle = bundle.with("/process/user/uid", json!(42));
    bundle.does(&["create", "box"]);
    bundle.does(&["start", "box"]);
    // Root without CAP_DAC_OVERRIDE may not, either.
    for user in ["0", "7", "42"] {
        assert_eq!(bundle.does(&["exec", "--user", user, "box", "pwd"]), "/closed\n");
    }
    // What is not there is told, as is what nobody may enter.
    let said = bundle.says(&["exec", "--user", "0", "--cwd", "/closed/none", "box", "pwd"]);
    assert!(said.err.contains("/closed/none") && !said.status.success(), "{said:?}");
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn an_empty_home_is_none_and_hooks_in_the_container_have_its_variables() {
    let _clean = common::clean();
    let bundle = Bundle::new("echo $HOME").with("/process/env", json!(["PATH=/usr/bin", "HOME=/a", "HOME="]));
    fs::create_dir_all(bundle.root.path().join("etc")).unwrap();
    fs::write(bundle.root.path().join("etc/passwd"), "root:x:0:0::/of-root:/bin/sh\n").unwrap();
    let args = json!(["sh", "-c", "test \"$HOME\" = /of-root && test \"$PATH\" = /usr/bin"]);
    let hooks = json!({"startContainer": [{"path": "/usr/bin/sh", "args": args}]});
    assert_eq!(runs(&bundle.with("/hooks", hooks)), "/of-root\n");
}

#[test]
fn a_further_program_is_refused_in_a_paused_container_or_waits_for_its_end() {
    let _clean = common::clean();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["create", "box"]);
    bundle.does(&["start", "box"]);
    bundle.does(&["pause", "box"]);
    let said = bundle.says(&["exec", "box", "true"]);
    assert!(said.err.contains("cannot exec in a paused container"), "{said:?}");
    let mut waits = bundle.command(&["exec", "--ignore-paused", "box", "true"]);
    let mut waits = waits.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(bundle.state()["status"], "paused");
    assert!(waits.try_wait().unwrap().is_none());
    bundle.does(&["resume", "box"]);
    assert!(waits.wait().unwrap().success());
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn a_container_may_join_the_user_namespace_of_another_one() {
    let _clean = common::clean();
    if common::needs_root("another container's namespaces") {
        return;
    }
    let map = json!([{"containerID": 0, "hostID": 65534, "size": 1}]);
    let owned = |script: &str| {
        let bundle = Bundle::new(script);
        chown(bundle.root.path(), Some(65534), Some(65534)).unwrap();
        bundle.without_mounts("/dev/pts")
    };
    let mut one = owned(PATIENT).with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    one.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    one.does(&["create", "box"]);
    one.does(&["start", "box"]);
    let mut two = owned("id -u; test -c /dev/null && echo made");
    two.config["linux"]["cgroupsPath"] = json!(group().with_file_name("box-two"));
    let pid = one.state()["pid"].to_string();
    let kinds = two.config["linux"]["namespaces"].as_array_mut().unwrap();
    kinds.retain(|kind| kind["type"] == "mount");
    for (kind, file) in [("user", "user"), ("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        kinds.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
    }
    let two = two.without_mounts("/sys");
    assert_eq!(two.does(&["run", "box"]), "0\nmade\n");
    one.does(&["delete", "--force", "box"]);
}

#[test]
fn a_group_that_is_in_use_is_refused_in_the_words_of_other_runtimes() {
    let _clean = common::clean();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["create", "box"]);
    assert!(bundle.fails(&["run", "other"]).contains("container's cgroup is not empty"));
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn what_is_passed_over_is_told_by_each_command_that_reads_it() {
    let _clean = common::clean();
    let unknown = |set: &mut serde_json::Value| set.as_array_mut().unwrap().push(json!("CAP_OF_TOMORROW"));
    let mut bundle = Bundle::new(PATIENT);
    unknown(&mut bundle.config["process"]["capabilities"]["bounding"]);
    let log = bundle.path("log").display().to_string();
    let logged = |words: &[&str]| {
        let _ = fs::remove_file(&log);
        let said = bundle.says(&[&["--log", &log, "--log-format", "json"], words].concat());
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(said.status.success() && !text.contains("error"), "{words:?}: {said:?}: {text}");
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let warnings = lines.filter(|line| line["level"] == "warning");
        warnings.map(|line| line["msg"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let capability = "process.capabilities.bounding: \"CAP_OF_TOMORROW\" is not known, and has no effect";
    assert_eq!(logged(&["create", "box"]), [capability]);
    assert_eq!(logged(&["start", "box"]), [""; 0]);
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["true"]);
    process["later"] = json!({"a": 1});
    fs::write(bundle.path("process"), process.to_string()).unwrap();
    let property = "process.later: the property is not known, and has no effect";
    assert_eq!(logged(&["exec", "--process", "process", "box"]), [capability, property]);
    // Without a log it is on stderr.
    let said = bundle.says(&["exec", "--process", "process", "box"]);
    assert!(said.status.success() && said.err.contains(capability), "{said:?}");
    assert_eq!(logged(&["exec", "box", "true"]), [""; 0], "what the container has is known");
    if common::is_root() {
        fs::write(bundle.path("limits"), r#"{"pids": {"limit": 50, "later": 1}}"#).unwrap();
        let property = "linux.resources.pids.later: the property is not known, and has no effect";
        assert_eq!(logged(&["update", "--resources", "limits", "box"]), [property]);
    }
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn a_path_that_is_masked_twice_is_masked_once() {
    let _clean = common::clean();
    let bundle = Bundle::new("grep -c ' /held ' /proc/self/mountinfo");
    fs::create_dir(bundle.root.path().join("held")).unwrap();
    assert_eq!(runs(&bundle.with("/linux/maskedPaths", json!(["/held", "/held"]))), "1\n");
}

#[test]
fn a_read_only_dev_has_the_terminal_as_well() {
    let _clean = common::clean();
    let mut bundle = Bundle::new("test -c /dev/console && echo console; touch /dev/x || echo read-only");
    bundle = bundle.with("/process/terminal", json!(true));
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    let dev = mounts.iter_mut().find(|mount| mount["destination"] == "/dev").unwrap();
    dev["options"].as_array_mut().unwrap().push(json!("ro"));
    let (mut child, mut screen, _) = at_a_terminal_with(&bundle, "run box");
    screen.waits_for("console");
    screen.waits_for("read-only");
    assert_eq!(child.wait().unwrap().status().code(), Some(0));
}
