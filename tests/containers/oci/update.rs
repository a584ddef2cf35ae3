//! Other limits for a container, and what it uses.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Bundle, PATIENT, groups};
use crate::common;

/// The file of a v1 or v2 group, whichever the host has.
fn limit(v1: &str, v2: &str) -> String {
    let found = groups().into_iter().flat_map(|dir| [dir.join(v1), dir.join(v2)]).find(|path: &PathBuf| path.is_file());
    found.map_or_else(String::new, |path| fs::read_to_string(path).unwrap().trim().to_owned())
}

fn memory() -> String {
    limit("memory.limit_in_bytes", "memory.max")
}

fn pids() -> String {
    limit("pids.max", "pids.max")
}

/// The quota and the period of CPU time.
fn quota() -> (String, String) {
    if common::is_v2() {
        let both = limit("cpu.max", "cpu.max");
        let (quota, period) = both.split_once(' ').unwrap();
        return (quota.to_owned(), period.to_owned());
    }
    (limit("cpu.cfs_quota_us", ""), limit("cpu.cfs_period_us", ""))
}

fn bundle() -> Bundle {
    let resources = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20},
        "cpu": {"quota": 50000, "period": 100_000, "shares": 512}});
    Bundle::new(PATIENT).with("/linux/resources", resources)
}

#[test]
fn limits_change_while_the_container_lives() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = bundle();
    bundle.does(&["create", "box"]);
    let (before, megabytes) = (memory(), |count: u64| (count << 20).to_string());
    assert_eq!((before, pids()), (megabytes(64), "20".to_owned()));
    bundle.does(&["update", "--memory", "96m", "--pids-limit=30", "box"]);
    assert_eq!((memory(), pids()), (megabytes(96), "30".to_owned()));
    // By the option, 0 is said; a file has it for what is not said.
    bundle.does(&["update", "--pids-limit=0", "box"]);
    assert_eq!(pids(), "1");
    bundle.does(&["update", "--pids-limit=30", "box"]);
    bundle.does(&["start", "box"]);
    // One of two numbers that the kernel takes together: the other stays.
    bundle.does(&["update", "box", "--cpu-quota", "20000"]);
    assert_eq!(quota(), ("20000".to_owned(), "100000".to_owned()));
    bundle.does(&["update", "box", "--cpu-period", "50000"]);
    assert_eq!(quota(), ("20000".to_owned(), "50000".to_owned()));
    bundle.does(&["update", "box", "--cpu-share=256", "--memory-reservation", "8M"]);
    assert_eq!(quota(), ("20000".to_owned(), "50000".to_owned()));
    bundle.does(&["update", "box", "--cpu-quota", "-9999"]);
    assert!(["-1", "max"].contains(&quota().0.as_str()), "{:?}", quota());
    // As engines do it: by a file, and by stdin, which is empty here.
    let file = bundle.path("resources");
    fs::write(&file, json!({"pids": {"limit": 40}, "devices": [{"allow": false, "access": "rwm"}]}).to_string())
        .unwrap();
    bundle.does(&["update", "--resources", file.to_str().unwrap(), "box"]);
    assert_eq!((memory(), pids()), (megabytes(96), "40".to_owned()));
    assert!(bundle.fails(&["update", "-r", "-", "box"]).contains("it is not JSON"));
    bundle.does(&["update", "--pids-limit", "-1", "box"]);
    assert_eq!(pids(), "max");
    // The program can still open what it could open before.
    assert_eq!(bundle.state()["status"], "running");
    for (words, name) in [
        (&["--pids-limit", "-2"][..], "linux.resources.pids.limit"),
        (&["--memory", "-7"], "--memory"),
        (&["--memory", "x"], "--memory"),
        (&["--cpu-quota=1"], ""),
        (&["--cpuset-cpus", "9999"], ""),
        (&["--kernel-memory", "7"], "--kernel-memory"),
        (&["--l3-cache-schema", "x"], "--l3-cache-schema"),
    ] {
        let said = bundle.fails(&[&["update", "box"], words].concat());
        assert!(said.contains(name), "{words:?}: {said}");
    }
    bundle.does(&["kill", "box", "KILL"]);
    bundle.becomes("stopped");
    assert!(bundle.fails(&["update", "--pids-limit", "7", "box"]).contains("container not running"));
    bundle.does(&["delete", "box"]);
}

#[test]
fn what_a_container_uses_is_shown_as_engines_read_it() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = bundle();
    bundle.does(&["run", "-d", "box"]);
    let event: Value = serde_json::from_str(&bundle.does(&["events", "--stats", "box"])).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("box")));
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], json!(64 << 20));
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{data}");
    assert!(data["pids"]["current"].as_u64().unwrap() >= 1, "{data}");
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{data}");
    assert!(bundle.fails(&["events", "--interval", "0s", "box"]).contains("--interval"));
    bundle.does(&["kill", "box", "KILL"]);
    bundle.becomes("stopped");
    assert!(bundle.fails(&["events", "--stats", "box"]).contains("container not running"));
    bundle.does(&["delete", "box"]);
}

#[test]
fn events_come_until_the_container_ends() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    // The shell's child takes more memory than there is, when it is asked to.
    let script = "trap : TERM; sleep 1000 & wait; tail /dev/zero; exit 3";
    let bundle = bundle().with("/process/args", json!(["sh", "-c", script]));
    let bundle = bundle.with("/linux/resources/memory", json!({"limit": 16 << 20}));
    bundle.does(&["run", "-d", "box"]);
    let root = bundle.path("containers").display().to_string();
    let watching = fs::File::create(bundle.path("events")).unwrap();
    let what = format!("{} --root {root} events --interval 10ms box", bundle.runtime);
    let mut watching = common::probe::caller(&what).stdout(watching).spawn().unwrap();
    common::eventually("it is watched", || bundle.read("events").lines().count() > 2);
    bundle.does(&["kill", "box", "TERM"]);
    assert!(watching.wait().unwrap().success());
    let events: Vec<Value> = bundle.read("events").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["type"] == "stats"), "{events:?}");
    assert!(events.contains(&json!({"type": "oom", "id": "box"})), "{events:?}");
    bundle.becomes("stopped");
    bundle.does(&["delete", "box"]);
}

#[test]
fn what_an_update_does_not_say_is_not_changed_and_a_list_says_nothing() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = bundle();
    bundle.does(&["create", "box"]);
    let before = (memory(), pids(), quota());
    let file = bundle.path("resources");
    let path = file.to_str().unwrap();
    // As engines write what was not set.
    let zeros = json!({"memory": {"limit": 0, "swap": 0, "reservation": 0}, "pids": {"limit": 0},
        "cpu": {"quota": 0, "period": 0, "shares": 0, "cpus": "", "mems": ""}, "blockIO": {"weight": 0}});
    fs::write(&file, zeros.to_string()).unwrap();
    bundle.does(&["update", "-r", path, "box"]);
    assert_eq!((memory(), pids(), quota()), before);
    for (text, property) in [("[]", ""), (r#"{"pids": [7]}"#, "pids: ")] {
        fs::write(&file, text).unwrap();
        let said = bundle.fails(&["update", "-r", path, "box"]);
        assert!(said.contains(&format!("{property}a list where an object belongs")), "{text}: {said}");
    }
    assert_eq!((memory(), pids(), quota()), before);
    bundle.does(&["delete", "box"]);
}
