//! The mounts and devices of configurations, as engines write them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use serde_json::{Value, json};

use super::{Bundle, PATIENT, groups};
use crate::common;

impl Bundle {
    /// Adds a mount behind the others.
    pub(super) fn mounting(mut self, mount: Value) -> Bundle {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    pub(super) fn without_mounts(mut self, below: &str) -> Bundle {
        let keeps = |mount: &Value| !mount["destination"].as_str().unwrap().starts_with(below);
        self.config["mounts"].as_array_mut().unwrap().retain(keeps);
        self
    }

    /// Adds a user namespace with these maps, to whose root the container's root directory belongs.
    pub(super) fn with_user_ns(mut self, map: &Value) -> Bundle {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        if !map.is_null() {
            (self.config["linux"]["uidMappings"], self.config["linux"]["gidMappings"]) = (map.clone(), map.clone());
        }
        for dir in [self.dir.path(), self.root.path()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        self
    }

    pub(super) fn without_namespace(mut self, kind: &str) -> Bundle {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
        self
    }

    /// A file with one line.
    pub(super) fn holding(self, name: &str) -> Bundle {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), "held\n").unwrap();
        self
    }
}

/// Runs a container whose program has to succeed, and returns its output.
#[track_caller]
pub(super) fn runs(bundle: &Bundle) -> String {
    let said = bundle.says(&["run", "box"]);
    assert!(said.status.success(), "{said:?}");
    assert!(bundle.is_empty() && groups().is_empty());
    said.out
}

#[test]
fn a_bind_may_be_one_by_its_type_and_come_from_the_bundle() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let bundle = make("cat /data/f; echo > /data/g || echo read-only").holding("data/f");
        let bind = json!({"destination": "/data", "type": "bind", "source": "data", "options": ["ro"]});
        assert_eq!(runs(&bundle.mounting(bind)), "held\nread-only\n");
    }
}

#[test]
fn a_destination_that_is_not_absolute_begins_at_the_root_and_is_told() {
    let _clean = common::clean();
    let bundle = Bundle::new("grep -c ' /tmp/x tmpfs ' /proc/mounts");
    let bundle = bundle.mounting(json!({"destination": "tmp/x", "type": "tmpfs", "options": ["size=1m"]}));
    let said = bundle.says(&["run", "box"]);
    assert_eq!(said.out, "1\n", "{said:?}");
    let number = bundle.config["mounts"].as_array().unwrap().len() - 1;
    assert!(said.err.contains(&format!("mounts[{number}].destination: it is not absolute")), "{said:?}");
}

#[test]
fn a_dev_of_the_host_gets_no_nodes() {
    let _clean = common::clean();
    if common::needs_root("devices") {
        return;
    }
    let device = json!({"path": "/dev/ringfence-none", "type": "c", "major": 1, "minor": 3});
    let bundle = Bundle::new("ls -d /dev/ringfence-none /dev/pts; test -c /dev/null && echo null")
        .without_mounts("/dev")
        .mounting(json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "rslave"]}))
        .with("/linux/devices", json!([device]));
    assert_eq!(runs(&bundle), "/dev/pts\nnull\n");
    assert!(!fs::exists("/dev/ringfence-none").unwrap());
}

#[test]
fn a_read_only_dev_has_all_that_is_below_it() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let mut bundle = make(
            "test -c /dev/null && test -d /dev/pts && test -d /dev/shm && echo there; \
                               echo > /dev/x || echo > /dev/shm/x && echo read-only",
        );
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        let dev = mounts.iter_mut().find(|mount| mount["destination"] == "/dev").unwrap();
        dev["options"].as_array_mut().unwrap().push(json!("ro"));
        assert_eq!(runs(&bundle), "there\nread-only\n");
    }
}

#[test]
fn a_device_may_stand_anywhere_and_stays_what_it_is() {
    let _clean = common::clean();
    if common::needs_root("devices") {
        return;
    }
    let device = json!({"path": "/opt/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o20600});
    let bundle =
        Bundle::new("echo > /opt/full || test -c /opt/full && echo full").with("/linux/devices", json!([device]));
    let node = bundle.root.path().join("opt/full");
    for _ in 0..2 {
        assert_eq!(runs(&bundle), "full\n");
        assert!(fs::metadata(&node).unwrap().file_type().is_char_device());
    }
    // What is there already is neither replaced nor followed.
    let victim = bundle.path("victim");
    fs::write(&victim, "whole").unwrap();
    fs::remove_file(&node).unwrap();
    std::os::unix::fs::symlink(&victim, &node).unwrap();
    assert!(bundle.fails(&["run", "box"]).contains("something else is there already"));
    assert!(fs::read_link(&node).unwrap() == victim && fs::read_to_string(&victim).unwrap() == "whole");
}

#[test]
fn control_groups_are_writable_only_in_a_namespace_of_their_own() {
    let _clean = common::clean();
    if common::needs_root("a named control group") {
        return;
    }
    let group = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
    let script = "for dir in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $dir/made 2> /dev/null && echo made && \
                  rmdir $dir/made; done; true";
    let without =
        Bundle::new(script).without_mounts("/sys/fs/cgroup").without_namespace("cgroup").mounting(group.clone());
    let said = without.says(&["run", "box"]);
    assert!(said.status.success() && said.out.is_empty(), "{said:?}");
    assert!(said.err.contains("options: control groups are read-only"), "{said:?}");
    let mut with = Bundle::new(script).without_mounts("/sys/fs/cgroup").without_namespace("cgroup").mounting(group);
    with.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    assert!(runs(&with).contains("made"));
    // As of every mount, `ro` is what has to be said.
    with.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] = json!(["nosuid"]);
    assert!(runs(&with).contains("made"));
    with.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] = json!(["nosuid", "ro"]);
    assert_eq!(runs(&with), "");
    let silent = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"});
    let without = Bundle::new(script).without_mounts("/sys/fs/cgroup").without_namespace("cgroup").mounting(silent);
    assert_eq!(runs(&without), "");
}

#[test]
fn the_score_for_the_oom_killer_is_lowered_only_by_right() {
    let _clean = common::clean();
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    if own < 0 {
        return common::skip("the score of the tests' own process is below 0", false);
    }
    let bundle = Bundle::new("cat /proc/self/oom_score_adj").with("/process/oomScoreAdj", json!(own.max(500)));
    assert_eq!(runs(&bundle), format!("{}\n", own.max(500)));
    let bundle = bundle.with("/process/oomScoreAdj", json!(-500));
    let said = bundle.says(&["run", "box"]);
    match said.status.code() {
        Some(0) => assert_eq!(said.out, "-500\n"),
        _ => assert!(said.err.contains("oom_score_adj") && said.err.contains("CAP_SYS_RESOURCE"), "{said:?}"),
    }
    assert!(bundle.is_empty() && groups().is_empty());
}

#[test]
fn devices_are_made_beside_a_dev_that_is_bound_and_those_in_it_are_told() {
    let _clean = common::clean();
    if common::needs_root("devices") {
        return;
    }
    let device = |path: &str| json!({"path": path, "type": "c", "major": 1, "minor": 3});
    let bundle = Bundle::new("test -c /opt/null && echo made; test -e /dev/ringfence-none || echo not made")
        .without_mounts("/dev")
        .mounting(json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "rslave"]}))
        .with("/linux/devices", json!([device("/dev/ringfence-none"), device("/opt/null")]));
    let said = bundle.says(&["run", "box"]);
    assert_eq!(said.out, "made\nnot made\n", "{said:?}");
    assert!(said.err.contains("linux.devices[0].path: ") && !said.err.contains("linux.devices[1]"), "{said:?}");
    assert!(!fs::exists("/dev/ringfence-none").unwrap());
}

/// The maps are those of the user namespace that the container joins.
#[test]
fn ids_of_a_bind_may_be_those_of_a_user_namespace_that_is_joined() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a map of an id that is not the caller's") {
        return;
    }
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    let bind = |words: Value| json!({"destination": "/tmp/held", "source": "data", "options": words});
    let owner_of = |bundle: &Bundle| {
        let said = bundle.says(&["run", "other"]);
        (said.status.success(), said.out.trim().to_owned(), said.err)
    };
    let first = Bundle::new(PATIENT).with_user_ns(&map);
    first.does(&["run", "--detach", "box"]);
    let path = format!("/proc/{}/ns/user", first.state()["pid"]);
    let joining = |path: &str, words: Value| {
        let mut bundle = Bundle::new("stat -c %u:%g /tmp/held/f").with_user_ns(&Value::Null).holding("data/f");
        std::os::unix::fs::chown(bundle.path("data/f"), Some(7), Some(8)).unwrap();
        // The setup's user may not make it.
        fs::create_dir(bundle.root.path().join("tmp/held")).unwrap();
        bundle.config["linux"]["cgroupsPath"] = json!(super::group().with_file_name("other"));
        let kinds = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        kinds.iter_mut().filter(|one| one["type"] == "user").for_each(|one| one["path"] = json!(path));
        bundle.mounting(bind(words))
    };
    let with_ids = owner_of(&joining(&path, json!(["bind", "idmap"])));
    if with_ids.2.contains("takes no id map") {
        common::skip("the file system of the test's directory takes no id map", false);
    } else {
        assert_eq!(with_ids, (true, "7:8".to_owned(), String::new()));
    }
    // Without the word the files are nobody's, as they are on disk.
    assert_eq!(owner_of(&joining(&path, json!(["bind"]))), (true, "65534:65534".to_owned(), String::new()));
    // What is no user namespace is refused by name.
    for other in ["/proc/self/ns/net", "/proc/self/status", "/nowhere"] {
        let said = owner_of(&joining(other, json!(["bind", "idmap"])));
        assert!(!said.0 && said.2.contains("options: idmap: ") && said.2.contains("is no user namespace"), "{said:?}");
    }
    first.does(&["delete", "--force", "box"]);
}
