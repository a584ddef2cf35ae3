//! The way of a program: from its command to its end, one by one, in pools and from many threads.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "tokio")]
mod asynchronous;
mod attached;
mod attributes;
#[cfg(feature = "playground")]
mod browser;
mod child;
mod ci_runner;
mod created;
mod created_frozen;
mod created_joined;
mod created_listener;
mod created_terminal;
mod events;
mod exec;
mod judge;
mod killer;
#[cfg(feature = "playground")]
mod playground;
mod pool;
mod prepared;
mod program;
#[cfg(feature = "serde")]
mod run;
mod shell;
mod siblings;
mod smoke;
mod terminal;
mod threads;
mod timings;
mod workdir;

use ringfence::{Sandbox, Session};

/// The sorts of sandboxes whose handles differ inside, and which are killed in different ways.
fn sorts() -> Vec<(&'static str, Sandbox)> {
    let base = common::sandbox;
    let mut all = vec![
        ("plain", base()),
        ("in a group of its own", base().session(Session::NewGroup)),
        ("in a pid namespace", base().pid_ns()),
        ("under init", base().pid_ns().init(true)),
    ];
    if common::is_root() || !common::no_cgroups() {
        let limited = base().cgroup_parent(common::cgroup_parent()).pids_limit(50);
        all.push(("with a control group", limited.clone()));
        all.push(("with a control group, under init", limited.pid_ns().init(true)));
    }
    all
}
