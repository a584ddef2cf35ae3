//! What engines write into configurations, and other runtimes take.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::volumes::runs;
use super::{Bundle, PATIENT};
use crate::common;

/// Which of two values counts would be chance.
#[test]
fn a_setting_has_one_name() {
    let _clean = common::clean();
    let twice = json!({"net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "0"});
    let said = Bundle::new("true").with("/linux/sysctl", twice).fails(&["create", "box"]);
    assert!(said.contains("linux.sysctl.net") && said.contains("is the same setting"), "{said}");
}

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

#[test]
fn what_a_command_does_is_told_in_the_words_of_runc_when_asked() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let of_run = ["nsexec container setup", "child process in init()", "init: closing the pipe to signal completion"];
    let of_exec = ["nsexec container setup", "setns_init: about to exec", "child process in init()"];
    let are_told = |text: &str, words: [&str; 3]| {
        let places = words.map(|word| text.find(word).unwrap_or_else(|| panic!("{word}: {text}")));
        assert!(places.is_sorted() && text.contains("level=debug"), "{text}");
    };
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]});
    let bundle = Bundle::new(PATIENT).with("/linux/seccomp", filter);
    let said = bundle.says(&["--debug", "run", "--detach", "box"]);
    assert!(said.status.success(), "{said:?}");
    are_told(&said.err, of_run);
    assert!(said.err.contains("\"seccomp filter flags: 2\""), "{said:?}");
    let said = bundle.says(&["--debug", "exec", "box", "true"]);
    are_told(&said.err, of_exec);
    assert!(said.status.success(), "{said:?}");
    // A container that does not start has closed nothing.
    bundle.does(&["delete", "--force", "box"]);
    let said = bundle.with("/process/args", json!(["/not/there"])).says(&["--debug", "run", "box"]);
    assert!(said.err.contains(of_run[0]) && !said.err.contains(of_run[2]), "{said:?}");
}

#[test]
fn a_program_that_cannot_be_executed_is_told_in_the_words_of_other_runtimes() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    fs::write(bundle.root.path().join("run.sh"), "#!/not/there\n").unwrap();
    fs::set_permissions(bundle.root.path().join("run.sh"), Permissions::from_mode(0o755)).unwrap();
    let words = "exec /run.sh: no such file or directory";
    bundle.does(&["run", "--detach", "box"]);
    let said = bundle.says(&["exec", "box", "/run.sh"]);
    assert!(said.err.contains(words) && said.err.lines().count() == 1, "{said:?}");
    bundle.does(&["delete", "--force", "box"]);
    // The line alone is on stderr, and all of it in the log.
    let bundle = bundle.with("/process/args", json!(["/run.sh"]));
    let log = bundle.path("log");
    let said = bundle.fails(&["--log", log.to_str().unwrap(), "run", "box"]);
    assert_eq!(said, format!("{words}\n"));
    let told = fs::read_to_string(&log).unwrap();
    assert!(told.contains("level=error") && told.contains("but not the interpreter that the program names"), "{told}");
}

#[test]
fn a_file_of_v2_is_no_valid_configuration_on_v1() {
    let _clean = common::clean();
    if common::needs_root("a named control group") {
        return;
    }
    if common::is_v2() {
        return common::skip("the host has no v1 hierarchies", false);
    }
    let said = Bundle::new("true").with("/linux/resources", json!({"unified": {"memory.min": "131072"}}));
    let said = said.fails(&["create", "box"]);
    assert!(said.contains("invalid configuration: cannot use unified on cgroup v1"), "{said}");
}

#[test]
fn a_letter_of_a_type_among_those_of_an_access_is_passed_over_and_told() {
    let _clean = common::clean();
    if common::needs_root("rules for devices") {
        return;
    }
    let rules = |access: &str| {
        json!([{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 11, "access": access}])
    };
    let node = json!([{"path": "/dev/log", "type": "c", "major": 1, "minor": 11}]);
    let script = "dd if=/dev/log of=/dev/null count=0 2> /dev/null && echo read; \
                  dd if=/dev/null of=/dev/log count=0 conv=notrunc 2> /dev/null && echo written; true";
    let mut bundle = Bundle::new(script).with("/linux/devices", node);
    // Without it the kernel lets nobody read its log.
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYSLOG"]);
    }
    let bundle = bundle.with("/linux/resources", json!({"devices": rules("ra")}));
    let said = bundle.says(&["run", "box"]);
    assert_eq!(said.out, "read\n", "{said:?}");
    assert!(said.err.contains("linux.resources.devices[1].access: `a` is a type"), "{said:?}");
    // What says nothing but the type is not all.
    let bundle = bundle.with("/linux/resources", json!({"devices": rules("a")}));
    assert!(bundle.fails(&["run", "box"]).contains("linux.resources.devices[1].access: "));
}

#[test]
fn one_of_several_comparisons_of_an_argument_is_enough_and_told() {
    let _clean = common::clean();
    let equals = |value: u32| json!({"index": 1, "value": value, "op": "SCMP_CMP_EQ"});
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [equals(18), equals(23)]}]
    });
    let script = "for signal in CONT URG WINCH; do kill -$signal $$ 2> /dev/null || echo $signal; done";
    let said = Bundle::new(script).with("/linux/seccomp", filter).says(&["run", "box"]);
    assert_eq!(said.out, "CONT\nURG\n", "{said:?}");
    assert!(said.err.contains("one comparison that holds is enough, as with runc and crun: kill"), "{said:?}");
}

#[test]
fn a_deadline_beside_processors_is_refused_in_the_words_of_runc() {
    let _clean = common::clean();
    if common::needs_root("a named control group") {
        return;
    }
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return common::skip("the host has one processor", false);
    }
    let times = json!({"policy": "SCHED_DEADLINE", "nice": 19, "runtime": 42_000, "deadline": 1_000_000,
        "period": 1_000_000});
    let bundle = Bundle::new("true").with("/process/scheduler", times);
    let said = bundle.with("/linux/resources", json!({"cpu": {"cpus": "0"}})).fails(&["run", "box"]);
    assert!(said.contains("process scheduler can't be used together with AllowedCPUs"), "{said}");
    assert!(said.contains("process.scheduler.nice: it has no effect"), "{said}");
}
