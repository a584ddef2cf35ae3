//! What engines write into configurations, and other runtimes take.

use serde_json::json;

use super::Bundle;
use super::volumes::runs;
use crate::common;

#[test]
fn the_domain_name_may_be_a_setting() {
    let _clean = common::clean();
    for name in ["kernel.domainname", "kernel/domainname"] {
        let bundle = Bundle::new("cat /proc/sys/kernel/domainname");
        let bundle = bundle.with("/linux/sysctl", json!({ name: "inside.example" }));
        assert_eq!(runs(&bundle), "inside.example\n");
        let bundle = bundle.with("/domainname", json!("inside.example"));
        assert_eq!(runs(&bundle), "inside.example\n");
        let said = bundle.with("/domainname", json!("other.example")).fails(&["create", "box"]);
        assert!(said.contains(&format!("linux.sysctl.{name}: domainname says another one")), "{said}");
        // It would be the host's.
        let bundle = Bundle::new("true").without_namespace("uts").with("/hostname", json!(""));
        let said = bundle.with("/linux/sysctl", json!({ name: "inside.example" })).fails(&["create", "box"]);
        assert!(said.contains(&format!("linux.sysctl.{name}: ")), "{said}");
    }
}

#[test]
fn a_call_that_no_kernel_has_is_passed_over_and_told() {
    let _clean = common::clean();
    let bundle = Bundle::new("mkdir /dev/shm/x 2>&1 | grep -c 'not supported'").with(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["of_tomorrow", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
                {"names": ["of_the_day_after"], "action": "SCMP_ACT_KILL"},
                {"names": ["of_no_interest", "read"], "action": "SCMP_ACT_ALLOW"}
            ]
        }),
    );
    let said = bundle.says(&["run", "box"]);
    assert_eq!(said.out, "1\n", "{said:?}");
    assert!(said.err.contains("linux.seccomp.syscalls: ") && said.err.contains("of_tomorrow"), "{said:?}");
    assert!(said.err.contains("of_the_day_after") && !said.err.contains("of_no_interest"), "{said:?}");
}

#[test]
fn nodes_for_a_mode_without_any_are_counted_in_the_words_of_other_runtimes() {
    let _clean = common::clean();
    for (mode, nodes, words) in [
        ("MPOL_DEFAULT", "0-7", "mode requires 0 nodes but got 8"),
        ("MPOL_LOCAL", "3", "mode requires 0 nodes but got 1"),
        ("MPOL_BIND", "", "the mode needs nodes"),
    ] {
        let bundle = Bundle::new("true").with("/linux/memoryPolicy", json!({"mode": mode, "nodes": nodes}));
        let said = bundle.fails(&["create", "box"]);
        assert!(said.contains("linux.memoryPolicy.nodes: ") && said.contains(words), "{mode} {said}");
        assert!(bundle.is_empty());
    }
}
