//! Interfaces that move into a container. The tests have a network namespace of their own, so that no
//! interface of the host is touched.

use std::process::Command;

use serde_json::{Value, json};

use super::Bundle;
use crate::common;

/// Makes the interface `rf0` with addresses and a size of its own, whose other end is `rf1`.
const MADE: &str = "ip link set lo up && ip link add rf0 mtu 1334 type veth peer name rf1 && ip link set rf1 up && \
                    ip link set rf0 up && ip addr add 10.9.8.7/24 dev rf0 && ip addr add fd00:9::7/64 dev rf0 nodad";
const SHOWS: &str = "ip -o link show; ip -o addr show";

/// Runs a command of the runtime in the shell's network namespace, after a script and before another.
/// Returns whether it has succeeded, and what everything together has said.
fn in_a_network(bundle: &Bundle, words: &[&str], after: &str) -> (bool, String) {
    let command = bundle.command(words);
    let own: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap().into())
        .collect();
    let script = format!("{MADE} || exit 99; \"$@\"; code=$?; {after}; exit $code");
    let mut shell = Command::new("unshare");
    shell.args(["--net", "sh", "-c", &script, "sh"]).args(own).current_dir(bundle.path(""));
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let said = shell.output().unwrap();
    assert_ne!(said.status.code(), Some(99), "{said:?}");
    let text = [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (said.status.success(), text.concat())
}

fn bundle(script: &str, devices: Value) -> Bundle {
    let mut bundle = Bundle::new(script).with("/linux/netDevices", devices);
    let kinds = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    if !kinds.iter().any(|kind| kind["type"] == "network") {
        kinds.push(json!({"type": "network"}));
    }
    bundle
}

#[test]
fn an_interface_moves_into_the_container_with_its_addresses() {
    let _clean = common::clean();
    if common::needs_root("an interface of the host") {
        return;
    }
    let bundle = bundle(SHOWS, json!({"rf0": {"name": "inner0"}, "rf1": {}}));
    let (done, said) = in_a_network(&bundle, &["run", "box"], "echo outside; ip -o link show");
    assert!(done, "{said}");
    let (inside, outside) = said.split_once("outside\n").unwrap();
    for part in ["inner0", "mtu 1334", "state UP", "10.9.8.7/24", "fd00:9::7/64", "rf1"] {
        assert!(inside.contains(part), "{part}: {inside}");
    }
    assert!(!inside.contains("rf0@") && !outside.contains("rf"), "{said}");
    assert!(bundle.is_empty());
}

#[test]
fn a_create_that_fails_gives_interfaces_back_as_they_were() {
    let _clean = common::clean();
    if common::needs_root("an interface of the host") {
        return;
    }
    let fails = bundle("true", json!({"rf0": {"name": "inner0"}, "rf1": {"name": "inner1"}}));
    let hook = fails.hook("fails", "exit 3");
    let late = fails.with("/hooks", json!({"createRuntime": [hook]}));
    // The second one is missing: the first one has moved by then.
    let soon = bundle("true", json!({"rf0": {}, "rf9": {}}));
    // Its name is taken by the loopback of the container.
    let taken = bundle("true", json!({"rf0": {"name": "lo"}}));
    for (bundle, why) in [(late, "createRuntime"), (soon, "rf9: ENODEV"), (taken, "rf0: EEXIST")] {
        let (done, said) = in_a_network(&bundle, &["create", "box"], SHOWS);
        assert!(!done && said.contains(why), "{why}: {said}");
        for part in ["rf0@", "rf1@", "mtu 1334", "state UP", "10.9.8.7/24", "fd00:9::7/64"] {
            assert!(said.contains(part), "{why}: {part}: {said}");
        }
        assert!(bundle.is_empty(), "{why}");
    }
}

#[test]
fn interfaces_that_cannot_move_are_refused_by_name() {
    let _clean = common::clean();
    let refused = |bundle: Bundle, said: &str| {
        let error = bundle.fails(&["create", "box"]);
        assert!(error.contains("linux.netDevices") && error.contains(said), "{said}: {error}");
        assert!(bundle.is_empty());
    };
    let mut without = bundle("true", json!({"rf0": {}}));
    without.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|kind| kind["type"] != "network");
    // A user namespace of the container's own shows no sysfs of another network.
    without.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "sysfs");
    refused(without, "unable to move network devices without a NET namespace");
    for name in ["a/b", "a:b", "a b", "..", "sixteen-letters-"] {
        refused(bundle("true", json!({"rf0": {"name": name}})), "is no name of an interface");
    }
    refused(
        bundle("true", json!({"rf0": {"name": "one"}, "rf1": {"name": "one"}})),
        "two interfaces would have the name",
    );
    if common::is_root() {
        let mut own = bundle("true", json!({"lo": {"name": "lo9"}}));
        let kinds = own.config["linux"]["namespaces"].as_array_mut().unwrap();
        kinds
            .iter_mut()
            .filter(|kind| kind["type"] == "network")
            .for_each(|kind| kind["path"] = json!("/proc/self/ns/net"));
        let error = own.fails(&["create", "box"]);
        assert!(error.contains("network namespace of its caller"), "{error}");
    } else {
        refused(bundle("true", json!({"rf0": {}})), "by the host's root");
    }
}
