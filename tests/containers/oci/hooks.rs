//! Hooks: when each runs, where, and with what; and what is left where one fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Bundle, PATIENT, groups};
use crate::common;

/// Notes when it ran, its state, its arguments, environment and namespaces, and what it sees of the bundle.
const NOTES: &str = "PATH=/usr/bin:/bin; cat > $DIR/$NAME.state; echo $0 $1 > $DIR/$NAME.args; env > $DIR/$NAME.env; \
                     pwd > $DIR/$NAME.cwd; readlink /proc/self/ns/mnt /proc/self/ns/net > $DIR/$NAME.ns; \
                     ls $ROOT/proc > $DIR/$NAME.proc; echo $NAME >> $DIR/order";

impl Bundle {
    pub(super) fn hook(&self, name: &str, script: &str) -> Value {
        let env = [
            format!("NAME={name}"),
            format!("DIR={}", self.dir.path().display()),
            format!("ROOT={}", self.root.path().display()),
        ];
        json!({"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": env, "timeout": 100})
    }

    /// Adds hooks, each of them twice.
    fn with_hooks(self, names: &[&str], script: &str) -> Bundle {
        let twice = |name: &&str| ((*name).to_owned(), json!([self.hook(name, script), self.hook(name, "exit 0")]));
        let hooks: BTreeMap<String, Value> = names.iter().map(twice).collect();
        self.with("/hooks", json!(hooks))
    }
}

#[test]
fn hooks_of_the_host_get_the_state() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 60}]);
    let (begun, ended) = (bundle.path("begun"), bundle.path("ended"));
    let noted = |path: &Path| hook(&format!("PATH=/usr/bin:/bin; cat > {}", path.display()));
    let bundle = bundle.with("/hooks", json!({"poststart": noted(&begun), "poststop": noted(&ended)}));
    bundle.does(&["create", "box"]);
    assert!(!begun.exists());
    let pid = bundle.state()["pid"].clone();
    bundle.does(&["start", "box"]);
    let state: Value = serde_json::from_str(&fs::read_to_string(&begun).unwrap()).unwrap();
    assert_eq!((&state["status"], &state["pid"], &state["id"]), (&json!("running"), &pid, &json!("box")));
    bundle.does(&["kill", "box", "KILL"]);
    bundle.becomes("stopped");
    assert!(!ended.exists());
    bundle.does(&["delete", "box"]);
    let state: Value = serde_json::from_str(&fs::read_to_string(&ended).unwrap()).unwrap();
    assert_eq!(state["status"], "stopped");
    // One that fails after the start removes the container, one that fails after the end changes nothing.
    let mut bundle = bundle.with("/hooks", json!({"poststart": hook("exit 3"), "poststop": noted(&ended)}));
    fs::remove_file(&ended).unwrap();
    bundle.does(&["create", "box"]);
    assert!(bundle.fails(&["start", "box"]).contains("error running poststart hook #0: exit status: 3"));
    assert!(ended.exists() && bundle.is_empty() && groups().is_empty());
    bundle.config["hooks"] = json!({"poststop": hook("exit 4")});
    bundle.does(&["create", "box"]);
    assert!(bundle.says(&["delete", "--force", "box"]).err.contains("error running poststop hook #0: exit status: 4"));
    assert!(bundle.is_empty());
}

#[test]
fn hooks_before_the_root_is_entered_see_the_mounts_and_the_state() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let names = ["prestart", "createRuntime", "createContainer"];
        let bundle = make(PATIENT).with_hooks(&names, NOTES);
        bundle.does(&["create", "box"]);
        assert_eq!(bundle.read("order"), "prestart\ncreateRuntime\ncreateContainer\n");
        let pid = bundle.state()["pid"].clone();
        let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
        let theirs = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string();
        for name in names {
            let state: Value = serde_json::from_str(&bundle.read(&format!("{name}.state"))).unwrap();
            let inside = name == "createContainer";
            assert_eq!((&state["status"], &state["id"]), (&json!("creating"), &json!("box")), "{name}");
            assert_eq!(state["pid"], if inside { json!(1) } else { pid.clone() }, "{name}");
            assert_eq!(state["bundle"], json!(bundle.dir.path()));
            assert_eq!(bundle.read(&format!("{name}.args")), "zero one\n");
            let env = bundle.read(&format!("{name}.env"));
            let known = ["NAME=", "DIR=", "ROOT=", "PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
            assert!(env.lines().all(|line| known.iter().any(|known| line.starts_with(known))), "{name}: {env}");
            let cwd = if inside { bundle.root.path() } else { bundle.dir.path() };
            assert_eq!(Path::new(bundle.read(&format!("{name}.cwd")).trim()), cwd, "{name}");
            let ns = |ns: &str| if inside { theirs(ns) } else { own(ns) };
            let said = bundle.read(&format!("{name}.ns"));
            assert_eq!(said.lines().collect::<Vec<_>>(), [ns("mnt"), ns("net")], "{name}");
            // The container's mounts are there, below the bundle's own path, for the container alone.
            assert_eq!(bundle.read(&format!("{name}.proc")).contains("uptime"), inside, "{name}");
        }
        bundle.does(&["start", "box"]);
        bundle.does(&["delete", "--force", "box"]);
        assert!(bundle.is_empty() && groups().is_empty());
    }
}

#[test]
fn a_hook_writes_to_a_root_that_the_program_cannot_write_to() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let script = "PATH=/usr/bin:/bin; echo told > $ROOT/told";
        let bundle = make("cat /told; echo > /more || exit 9").with("/root/readonly", json!(true));
        let bundle = bundle.with_hooks(&["createContainer"], script);
        let said = bundle.says(&["run", "box"]);
        assert_eq!((said.out.as_str(), said.status.code()), ("told\n", Some(9)), "{said:?}");
        assert!(bundle.is_empty() && groups().is_empty());
    }
}

#[test]
fn a_hook_that_fails_or_hangs_ends_the_container() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        for name in ["prestart", "createRuntime", "createContainer"] {
            let bundle = make(PATIENT).with_hooks(&[name], "exit 3");
            let notes = bundle.hook("poststop", NOTES);
            let mut bundle = bundle.with("/hooks/poststop", json!([notes]));
            let said = bundle.fails(&["create", "box"]);
            assert!(said.contains(&format!("error running {name} hook #0: exit status: 3")), "{said}");
            let state: Value = serde_json::from_str(&bundle.read("poststop.state")).unwrap();
            assert_eq!(state["status"], "stopped", "{name}");
            assert!(bundle.is_empty() && groups().is_empty(), "{name}");

            bundle.config["hooks"][name][0]["args"][2] = json!("exec sleep 600");
            bundle.config["hooks"][name][0]["env"] = json!(["PATH=/usr/bin:/bin"]);
            bundle.config["hooks"][name][0]["timeout"] = json!(1);
            let began = Instant::now();
            let said = bundle.fails(&["create", "box"]);
            assert!(said.contains(&format!("error running {name} hook #0: it has not ended within 1 s")), "{said}");
            assert!(began.elapsed() < Duration::from_secs(300), "{name}");
            assert!(bundle.is_empty() && groups().is_empty(), "{name}");

            bundle.config["hooks"][name][0]["path"] = json!("/no/such/hook");
            let said = bundle.fails(&["create", "box"]);
            assert!(
                said.contains(&format!("error running {name} hook #0:")) && said.contains("No such file"),
                "{said}"
            );
            assert!(bundle.is_empty() && groups().is_empty(), "{name}");
        }
    }
}

#[test]
fn a_hook_in_the_container_has_the_rights_of_its_program_and_runs_before_it() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let notes = "cat > /state; (id -u; pwd; env | grep -c CARGO; grep CapBnd /proc/self/status; \
                     readlink /proc/self/ns/mnt; cat /proc/self/cgroup; mkdir /made || echo filtered) > /noted; ls / > /seen";
        let filter = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
        let script =
            "grep CapBnd /proc/self/status; readlink /proc/self/ns/mnt; cat /proc/self/cgroup; echo > /ran; exit 7";
        let hook =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", notes], "env": ["PATH=/usr/bin:/bin"], "timeout": 100}]);
        let bundle = make(script)
            .with("/root/readonly", json!(false))
            .with("/linux/seccomp", filter)
            .with("/hooks", json!({"startContainer": hook}));
        bundle.does(&["create", "box"]);
        let inside = |name: &str| fs::read_to_string(bundle.root.path().join(name)).unwrap_or_default();
        assert!(inside("state").is_empty());
        bundle.does(&["start", "box"]);
        bundle.becomes("stopped");
        let state: Value = serde_json::from_str(&inside("state")).unwrap();
        assert_eq!((&state["status"], &state["pid"]), (&json!("created"), &json!(1)));
        assert!(!inside("seen").contains("ran") && inside("ran") == "\n");
        // The program's words are in the file that `create` has had as its output.
        bundle.does(&["delete", "box"]);
        let noted = inside("noted");
        let mut lines = noted.lines();
        assert_eq!([lines.next(), lines.next(), lines.next()], [Some("0"), Some("/"), Some("0")], "{noted}");
        let said = bundle.says(&["run", "box"]);
        assert_eq!(said.status.code(), Some(7), "{said:?}");
        let again = inside("noted");
        let caps = again.lines().find(|line| line.starts_with("CapBnd")).unwrap();
        assert!(said.out.starts_with(caps), "{again} {said:?}");
        for line in said.out.lines().skip(1) {
            assert!(again.lines().any(|noted| noted == line), "{line}: {again}");
        }
        assert!(again.contains("filtered") && !bundle.root.path().join("made").exists(), "{again}");
        assert!(bundle.is_empty() && groups().is_empty());
    }
}

#[test]
fn a_hook_that_a_filter_ends_is_told_as_other_runtimes_tell_it() {
    let _clean = common::clean();
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]});
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exec mkdir /made"], "timeout": 100}]);
    let bundle = Bundle::new("true")
        .with("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]))
        .with("/linux/seccomp", filter)
        .with("/hooks", json!({"startContainer": hook}));
    let said = bundle.fails(&["run", "box"]);
    assert!(said.contains("error running startContainer hook #0: ") && said.contains("bad system call"), "{said}");
    assert!(said.contains("(SIGSYS)"), "{said}");
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn a_hook_in_the_container_that_fails_or_hangs_ends_it() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        for (script, said) in
            [("exit 3", "hook #0: exit status: 3"), ("exec sleep 600", "hook #0: it has not ended within 1 s")]
        {
            let hook =
                json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 1}]);
            let bundle = make("echo > /ran").with("/root/readonly", json!(false));
            let notes = bundle.hook("poststop", NOTES);
            let bundle = bundle.with("/hooks", json!({"startContainer": hook, "poststop": [notes]}));
            bundle.does(&["create", "box"]);
            let error = bundle.fails(&["start", "box"]);
            // On a slow machine the first takes a second as well.
            let late = "hook #0: it has not ended within 1 s";
            assert!(
                error.contains("error running startContainer ") && (error.contains(said) || error.contains(late)),
                "{error}"
            );
            assert_eq!(bundle.read("order"), "poststop\n");
            assert!(!bundle.root.path().join("ran").exists());
            assert!(bundle.is_empty() && groups().is_empty());
        }
    }
}

#[test]
fn a_hook_that_could_take_over_what_waits_without_its_filter_is_refused() {
    let _clean = common::clean();
    if common::needs_root("a container without a user namespace") {
        return;
    }
    let mut bundle = Bundle::new("true").with("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    bundle.config["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]});
    bundle.config["process"]["capabilities"]["bounding"].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
    assert!(bundle.fails(&["create", "box"]).contains("hooks.startContainer: "));
    bundle.config["linux"]["seccomp"] = json!(null);
    bundle.does(&["create", "box"]);
    bundle.does(&["delete", "--force", "box"]);
}
