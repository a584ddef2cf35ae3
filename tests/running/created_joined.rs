//! A created sandbox that waits in the pid namespace of another one, whose programs see it.

use std::fs;

use crate::common;
use ringfence::{Capabilities, Created, Error, ErrorKind, Namespaces, Sandbox, Seccomp, Stdio};

/// CAP_SYS_ADMIN.
const ADMIN: u64 = 1 << 21;

fn waiting(filter: Seccomp, dir: &std::path::Path, other: u32) -> Result<Created, Error> {
    let sandbox = Sandbox::new().join_pid(Namespaces::PID, other).seccomp(filter);
    let sandbox = sandbox.capabilities(Capabilities::none()).user(65534, 65534).groups([]);
    let sandbox = sandbox.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sandbox.command("/bin/sh").args(["-c", "exit 7"]).create(dir)
}

#[test]
fn one_that_waits_among_others_has_its_filter_and_no_more_rights_than_its_program() {
    let _clean = common::clean();
    if common::needs_root("a pid namespace without its user namespace is joined") {
        return;
    }
    let _reaping = common::reaping();
    let base = common::TempDir::new();
    let dir = base.path().join("box");
    let mut other = Sandbox::new().pid_ns().command("/bin/sleep").arg("600").spawn().unwrap();
    let created = waiting(Seccomp::default().allow_new_privs(true), &dir, other.id()).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", created.id().unwrap())).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("Seccomp:"), "2");
    for set in ["CapPrm:", "CapEff:"] {
        assert_eq!(u64::from_str_radix(&line(set), 16).unwrap() & ADMIN, 0, "{set} {status}");
    }
    let program = created.attached().unwrap();
    created.start().unwrap();
    assert_eq!(program.wait().unwrap().code(), Some(7));
    created.remove().unwrap();
    // One that cannot wait under its filter is refused.
    let error = waiting(Seccomp::default().allow_new_privs(true).deny(["accept4"]), &dir, other.id()).unwrap_err();
    assert_eq!((error.kind(), error.problems()[0].subject.as_str()), (ErrorKind::Unsupported, "seccomp"), "{error}");
    other.kill().unwrap();
    other.wait().unwrap();
}
