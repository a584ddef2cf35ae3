//! Containers by the OCI runtime specification, by the command line of the example: each command is a process of its own, as
//! with an engine.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use ringfence::oci::{Config, default_config};
use serde_json::{Value, json};

use crate::common::{self, probe, refuse};

mod binds;
mod compatible;
mod conformance;
mod engine_words;
mod escapes;
mod exec;
mod hooks;
mod killed;
mod lifecycle;
mod listener;
mod mount_ns;
mod net_devices;
mod options;
mod signals;
mod subgroups;
mod systemd;
mod systemd_v1;
mod terminal;
mod update;
mod volumes;

#[path = "../../../examples/oci-runtime/main.rs"]
mod example;

common::callers! {
    |words|
    "oci-runtime" => std::process::exit(example::run(words.iter().map(Into::into)).into()),
    "oci-overwrite" => escapes::overwrite_programs(),
    "oci-chroot" => escapes::leave_by_chroot(words[1]),
    "oci-runtime-without-mount_setattr" => {
        refuse::refuse(&binds::LATER_CALLS, nix::errno::Errno::ENOSYS);
        let code = example::run(words.iter().map(Into::into));
        refuse::all_refused(&binds::LATER_CALLS);
        std::process::exit(code.into())
    },
    "oci-runtime-of-an-ordinary-user" => {
        common::become_ordinary();
        std::process::exit(example::run(words.iter().map(Into::into)).into())
    },
}

/// A program that ends with 7 when it is asked to.
const PATIENT: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";

/// What a command has said, and how it went.
#[derive(Debug)]
struct Said {
    status: ExitStatus,
    out: String,
    err: String,
}

/// A bundle and the directory of its containers; what runs there ends with it.
struct Bundle {
    dir: common::TempDir,
    root: common::TempDir,
    config: Value,
    /// The table's name of the runtime.
    runtime: &'static str,
    /// Options of every command.
    options: &'static [&'static str],
}

impl Bundle {
    /// A container that runs `sh -c script`.
    fn new(script: &str) -> Bundle {
        let (dir, root) = (common::TempDir::new(), common::root_dir());
        fs::create_dir(root.path().join("sys")).unwrap();
        let mut config: Value = serde_json::from_str(&default_config(!common::is_root())).unwrap();
        config["root"]["path"] = json!(root.path());
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["terminal"] = json!(false);
        let kinds = config["linux"]["namespaces"].as_array_mut().unwrap();
        let cgroup = json!({"type": "cgroup"});
        if common::is_root() && !kinds.contains(&cgroup) {
            kinds.push(cgroup);
        }
        let usr = json!({"destination": "/usr", "source": "/usr", "options": ["rbind", "ro", "nosuid", "nodev"]});
        config["mounts"].as_array_mut().unwrap().push(usr);
        if common::is_root() {
            config["linux"]["cgroupsPath"] = json!(group());
        }
        Bundle { dir, root, config, runtime: "oci-runtime", options: &[] }
    }

    /// The same, of an ordinary user, whoever runs the tests.
    fn of_an_ordinary_user(script: &str) -> Bundle {
        let mut bundle = Bundle::new(script);
        if common::is_root() {
            let mut config: Value = serde_json::from_str(&default_config(true)).unwrap();
            for name in ["root", "process"] {
                config[name] = bundle.config[name].take();
            }
            let usr = bundle.config["mounts"].as_array_mut().unwrap().pop().unwrap();
            config["mounts"].as_array_mut().unwrap().push(usr);
            for (maps, dir) in [("uidMappings", bundle.dir.path()), ("gidMappings", bundle.root.path())] {
                config["linux"][maps][0]["hostID"] = json!(65534);
                std::os::unix::fs::chown(dir, Some(65534), Some(65534)).unwrap();
            }
            (bundle.config, bundle.runtime) = (config, "oci-runtime-of-an-ordinary-user");
        }
        bundle
    }

    fn with(mut self, pointer: &str, value: Value) -> Bundle {
        let (above, name) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(above).unwrap()[name] = value;
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command. What it starts may hold its streams, so these are files.
    fn command(&self, words: &[&str]) -> Command {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        let root = self.path("containers").display().to_string();
        let what = [&[self.runtime, "--root", &root], self.options, words].concat().join(" ");
        let file = |name: String| File::create(self.path(&name)).unwrap();
        let mut command = probe::caller(&what);
        let [out, err] = streams_of(words);
        command.stdin(Stdio::null()).stdout(file(out)).stderr(file(err)).current_dir(self.dir.path());
        command
    }

    fn says(&self, words: &[&str]) -> Said {
        let status = self.command(words).status().unwrap();
        let [out, err] = streams_of(words);
        Said { status, out: self.read(&out), err: self.read(&err) }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    #[track_caller]
    fn does(&self, words: &[&str]) -> String {
        let said = self.says(words);
        assert!(said.status.success(), "{words:?}: {said:?}");
        said.out
    }

    /// A command that fails, and what it has said about that.
    #[track_caller]
    fn fails(&self, words: &[&str]) -> String {
        let said = self.says(words);
        assert_eq!(said.status.code(), Some(1), "{words:?}: {said:?}");
        said.err
    }

    #[track_caller]
    fn state(&self) -> Value {
        serde_json::from_str(&self.does(&["state", "box"])).unwrap()
    }

    #[track_caller]
    fn becomes(&self, status: &str) {
        common::eventually(status, || self.state()["status"] == status);
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.path("containers")).map_or(true, |mut entries| entries.next().is_none())
    }
}

/// The files of a command's streams. A container's program writes to those of its `create` or `run`, while
/// other commands are given.
fn streams_of(words: &[&str]) -> [String; 2] {
    const OTHERS: [&str; 13] = [
        "state", "start", "exec", "kill", "delete", "pause", "resume", "ps", "list", "update", "events", "features",
        "spec",
    ];
    let makes = words.iter().any(|word| ["create", "run"].contains(word));
    match words.iter().find(|word| OTHERS.contains(word)) {
        Some(other) if !makes => ["out", "err"].map(|name| format!("{other}-{name}")),
        _ => ["out", "err"].map(str::to_owned),
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if !self.is_empty() {
            let _ = self.says(&["delete", "--force", "box"]);
        }
    }
}

/// The control group of the container, from the root of each hierarchy.
fn group() -> PathBuf {
    common::cgroup_parent().join("box")
}

/// The directories of the container's control group.
fn groups() -> Vec<PathBuf> {
    let own = group();
    let own = own.strip_prefix("/").unwrap_or(&own);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    mounts.map(|mount| Path::new(mount).join(own)).filter(|path| path.is_dir()).collect()
}

#[test]
fn a_container_lives_from_create_to_delete() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT).with("/annotations", json!({"org.example.a": "b"}));
    let pid_file = bundle.path("pid");
    bundle.does(&["create", "--bundle", ".", "box", "--pid-file", pid_file.to_str().unwrap()]);
    let state = bundle.state();
    assert_eq!(
        (&state["id"], &state["status"], &state["ociVersion"]),
        (&json!("box"), &json!("created"), &json!("1.3.0"))
    );
    assert_eq!(state["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    assert_eq!(state["bundle"], json!(bundle.dir.path()));
    assert_eq!(state["annotations"], json!({"org.example.a": "b"}));
    assert_eq!(fs::metadata(bundle.path("containers/box")).unwrap().permissions().mode() & 0o777, 0o700);
    let list: Value = serde_json::from_str(&bundle.does(&["list", "--format", "json"])).unwrap();
    assert_eq!(list, json!([state]));
    assert_eq!(bundle.does(&["list", "-q"]), "box\n");
    assert!(bundle.does(&["list"]).lines().nth(1).unwrap().starts_with("box "));
    assert!(bundle.fails(&["create", "--bundle", ".", "box"]).contains("container with id exists"));

    bundle.does(&["start", "box"]);
    assert_eq!(bundle.state()["status"], "running");
    assert!(bundle.fails(&["start", "box"]).contains("cannot start an already running container"));
    assert!(bundle.fails(&["delete", "box"]).contains("not stopped: running"));
    if common::is_root() {
        let pids: Vec<Value> = serde_json::from_str(&bundle.does(&["ps", "--format", "json", "box"])).unwrap();
        assert!(pids.contains(&state["pid"]), "{pids:?}");
        bundle.does(&["pause", "box"]);
        assert_eq!(bundle.state()["status"], "paused");
        assert!(bundle.fails(&["pause", "box"]).contains("container not running: paused"));
        bundle.does(&["resume", "box"]);
        assert!(bundle.fails(&["resume", "box"]).contains("container not paused: running"));
        assert!(!groups().is_empty());
    }
    bundle.does(&["kill", "box", "TERM"]);
    bundle.becomes("stopped");
    assert_eq!(bundle.state()["pid"], 0);
    assert!(bundle.fails(&["kill", "box", "9"]).contains("container not running"));
    assert!(bundle.fails(&["start", "box"]).contains("cannot start a container that has stopped"));
    bundle.does(&["delete", "box"]);
    assert!(bundle.fails(&["state", "box"]).contains("container does not exist"));
    assert!(bundle.is_empty() && groups().is_empty(), "{:?}", groups());
}

#[test]
fn the_program_has_what_the_configuration_says() {
    let _clean = common::clean();
    let script = "echo $$ $(hostname) $(id -u) $(pwd) $MARK; \
                  test -c /dev/null && test -L /dev/fd && test -d /dev/pts && echo devices; \
                  test -w / && echo writable; ls /proc/1/exe > /dev/null && echo proc; \
                  test -d /proc/acpi && ls /proc/acpi; ulimit -n; exit 7";
    let bundle = Bundle::new(script)
        .with("/process/env", json!(["PATH=/usr/bin:/bin", "MARK=mark"]))
        .with("/process/cwd", json!("/tmp/made"))
        .with("/root/readonly", json!(false))
        .with("/hostname", json!("inside"));
    let said = bundle.says(&["run", "box"]);
    assert_eq!(said.status.code(), Some(7), "{said:?}");
    assert_eq!(said.out, "1 inside 0 /tmp/made mark\ndevices\nwritable\nproc\n1024\n", "{said:?}");
    assert!(bundle.root.path().join("tmp/made").is_dir());
    assert!(bundle.is_empty() && groups().is_empty());
    let bundle = bundle.with("/root/readonly", json!(true)).with("/process/args", json!(["sh", "-c", "echo > /x"]));
    assert_eq!(bundle.says(&["run", "box"]).status.code(), Some(2));
    // What the kernel says about a program that is not there, in the words that engines look for.
    let bundle = bundle.with("/process/args", json!(["/no/such/program"]));
    let said = bundle.fails(&["run", "box"]);
    assert_eq!(said, "exec /no/such/program: no such file or directory\n");
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn a_property_that_is_not_carried_out_is_an_error_with_its_path() {
    let _clean = common::clean();
    let bundle = Bundle::new("true")
        .with("/linux/mountLabel", json!("a"))
        .with("/linux/intelRdt", json!({"closID": "a"}))
        .with("/hooks", json!({"createRuntime": [{"path": "bin/true"}]}))
        .with("/later", json!(1));
    let log = bundle.path("log");
    let said = bundle.fails(&["--log", log.to_str().unwrap(), "--log-format", "json", "create", "box"]);
    let lines: Vec<Value> =
        fs::read_to_string(&log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    let said = said.strip_prefix("error: ").unwrap();
    assert_eq!((&last["level"], last["msg"].as_str().unwrap().trim()), (&json!("error"), said.trim()));
    assert!(lines[0]["msg"].as_str().unwrap().starts_with("later:") && lines[0]["level"] == "warning", "{lines:?}");
    for property in ["linux.mountLabel:", "linux.intelRdt:", "hooks.createRuntime[0].path:"] {
        assert!(said.lines().any(|line| line.starts_with(property)), "{property} {said}");
    }
    assert!(bundle.is_empty());
}

#[test]
fn what_the_command_line_does_not_carry_out_is_refused_by_name() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    for (words, name) in [
        (&["create", "box", "--no-such-option"][..], "--no-such-option"),
        (&["checkpoint", "box"], "checkpoint"),
        (&["restore", "box", "--bundle", "."], "restore"),
        (&["kill", "box", "NOSUCH"], "NOSUCH"),
    ] {
        assert!(bundle.fails(words).contains(name), "{words:?}");
    }
    for id in ["..", ".", "a/b", "/", "a*b", "a:b"] {
        for command in ["create", "start", "state", "kill", "delete", "pause", "resume", "ps"] {
            assert!(bundle.fails(&[command, id]).contains("invalid container ID"), "{command} {id}");
        }
        assert!(bundle.fails(&["delete", "--force", id]).contains("invalid container ID"), "{id}");
    }
    assert!(bundle.is_empty());
    let version = bundle.does(&["--version"]);
    assert!(version.starts_with("oci-runtime version ") && version.ends_with("spec: 1.3.0\n"), "{version}");
    // Other runtimes tell their commit, too, and so does this one where the build was told.
    let told = example::args::version_text(Some("1a2b"));
    let lines: Vec<_> = told.lines().collect();
    assert_eq!((lines.len(), lines[1], lines[2]), (3, "commit: 1a2b", "spec: 1.3.0"));
    assert_eq!(version.contains("commit: "), option_env!("RINGFENCE_COMMIT").is_some());
    let features: Value = serde_json::from_str(&bundle.does(&["features"])).unwrap();
    assert_eq!(features["ociVersionMax"], "1.3.0");
    assert_eq!(features["linux"]["cgroup"]["systemd"], true);
    assert_eq!(features["potentiallyUnsafeConfigAnnotations"], json!(["org.systemd.property."]));
    fs::remove_file(bundle.path("config.json")).unwrap();
}

#[test]
fn what_a_killed_creator_has_left_is_deleted_by_force() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    bundle.does(&["delete", "--force", "box"]);
    fs::create_dir_all(bundle.path("containers/box")).unwrap();
    assert!(bundle.fails(&["state", "box"]).contains("was never made"));
    assert!(bundle.fails(&["start", "box"]).contains("was never made"));
    assert_eq!(bundle.does(&["list", "-q"]), "");
    bundle.does(&["delete", "-f", "box"]);
    assert!(bundle.is_empty());
    // A sandbox that was made, and a state that cannot be read.
    bundle.does(&["create", "box"]);
    fs::write(bundle.path("containers/box/state.json"), "{").unwrap();
    assert!(bundle.fails(&["state", "box"]).contains("cannot be read"));
    bundle.does(&["delete", "-f", "box"]);
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn a_running_container_is_deleted_by_force() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    let pid = bundle.state()["pid"].to_string();
    if common::is_root() {
        bundle.does(&["pause", "box"]);
    }
    bundle.does(&["delete", "--force", "box"]);
    common::eventually("it is reaped", || !Path::new("/proc").join(&pid).exists());
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn a_signal_goes_to_all_processes_if_it_is_to() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    // The shell handles the signal once its child has ended, which only a signal of its own brings about.
    let script = "trap : TERM; echo > /tmp/begun; sleep 1000; echo > /tmp/gone; sleep 1000";
    let bundle = Bundle::new(script).with("/root/readonly", json!(false));
    let is_there = |name: &str| bundle.root.path().join("tmp").join(name).exists();
    bundle.does(&["run", "-d", "box"]);
    common::eventually("it has begun", || is_there("begun"));
    let pids =
        || -> usize { serde_json::from_str::<Vec<u32>>(&bundle.does(&["ps", "-f", "json", "box"])).unwrap().len() };
    common::eventually("both are there", || pids() == 2);
    bundle.does(&["kill", "--all", "box", "SIGTERM"]);
    common::eventually("its child is gone", || is_there("gone"));
    assert_eq!(bundle.state()["status"], "running");
    bundle.does(&["delete", "--force", "box"]);
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn a_configuration_to_begin_with_is_whole() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    fs::create_dir(dir.path().join("rootfs")).unwrap();
    for rootless in [false, true] {
        let config = Config::from_json(default_config(rootless).as_bytes()).unwrap();
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
        let sandbox = config.sandbox(dir.path(), "box").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(sandbox.get_command(), "sh");
    }
}
