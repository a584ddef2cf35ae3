//! Callers that have lost a capability since they prepared a sandbox.

use crate::common::{self, probe};
use caps::{CapSet, Capability};
use ringfence::{Error, Feature, Sandbox};

common::callers! {
    |words|
    "loses-its-rights" => loses_its_rights(words[1], words[2]),
}

/// Says how it ended.
fn tell(result: Result<ringfence::Outcome, Error>) {
    match result {
        Ok(outcome) => println!("{}", outcome.verdict()),
        Err(error) => println!("{error}"),
    }
}

/// Prepares, loses rights, and spawns.
fn loses_its_rights(way: &str, how: &str) {
    let lose = || match how {
        "capability" => {
            for set in [CapSet::Effective, CapSet::Permitted] {
                caps::drop(None, set, Capability::CAP_SYS_ADMIN).unwrap();
            }
        }
        _ => common::become_ordinary(),
    };
    let root = common::root_dir();
    let plain = common::sandbox().pid_ns().mount_ns().command("/bin/true");
    let strict = common::strict().command("/bin/true");
    let on_root = common::on_root(common::sandbox().pid_ns(), &root).command("/bin/true");
    let spawns = |sandbox: &Sandbox| {
        let prepared = sandbox.prepare().unwrap();
        assert!(prepared.status().unwrap().success());
        lose();
        tell(prepared.status());
    };
    match way {
        "plain" => spawns(&plain),
        // With a root that is kept.
        "strict" => spawns(&strict),
        // With the empty mount namespace that sandboxes start from.
        "root" => spawns(&on_root),
        "pool" => {
            let pool = on_root.pool(1).unwrap();
            assert!(pool.status("/bin/true").unwrap().success());
            lose();
            // The threads that fill the pool may have the capability still: without one of theirs, the caller's counts.
            pool.resize(0);
            pool.clear();
            tell(pool.status("/bin/true"));
        }
        // A judgement of its own sees what the caller has.
        "unprepared-strict" => {
            assert!(strict.status().unwrap().success());
            lose();
            tell(strict.best_effort(Feature::MemoryLimit).best_effort(Feature::PidsLimit).status());
        }
        "unprepared-root" => {
            assert!(on_root.status().unwrap().success());
            lose();
            tell(on_root.user_ns().status());
        }
        other => unreachable!("{other}"),
    }
}

#[test]
fn a_caller_that_has_lost_a_capability_since_it_prepared_is_told_so() {
    let _clean = common::clean();
    if common::needs_root("a capability to lose") || common::no_cgroups() {
        return;
    }
    let told = |way: &str, how: &str| probe::succeeds(probe::caller(&format!("loses-its-rights {way} {how}")));
    for (way, how) in [
        ("strict", "capability"),
        ("root", "capability"),
        ("pool", "capability"),
        ("plain", "user"),
        ("root", "user"),
        ("pool", "user"),
    ] {
        let told = told(way, how);
        assert!(told.contains("EPERM") && told.contains("had CAP_SYS_ADMIN when it prepared"), "{way} {how}: {told}");
    }
    // A thread of the library's has the capability still, where one of the caller's has lost it.
    assert_eq!(told("plain", "capability"), "exited with 0");
    for how in ["capability", "user"] {
        for way in ["unprepared-strict", "unprepared-root"] {
            assert_eq!(told(way, how), "exited with 0", "{way} {how}");
        }
    }
}
