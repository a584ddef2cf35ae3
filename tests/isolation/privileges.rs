//! Capabilities, no_new_privs, the session keyring.

use crate::common::{self, probe, sh, stdout};
use ringfence::{Capabilities, Capability, Enforcement, ErrorKind, Feature, Sandbox, SecureBits, Step};

/// The five sets as the program sees them: inheritable, permitted, effective, bounding, ambient.
fn sets(sandbox: Sandbox) -> Vec<u64> {
    let text = stdout(&sandbox.command("/bin/grep").args(["^Cap", "/proc/self/status"]));
    let words = text.lines().filter_map(|line| line.split_whitespace().nth(1));
    words.map(|word| u64::from_str_radix(word, 16).unwrap()).collect()
}

fn bit(capability: Capability) -> u64 {
    capability.bitmask()
}

#[test]
fn none_is_none_in_all_five_sets() {
    let _clean = common::clean();
    let none = common::sandbox().capabilities(Capabilities::none());
    assert_eq!(sets(none.clone()), [0; 5]);
    assert_eq!(sets(none.pid_ns().init(true)), [0; 5]);
    let with = sets(common::sandbox());
    assert!(with[1] != 0 && with[3] != 0, "without the call root keeps what it has: {with:x?}");
}

#[test]
fn root_keeps_what_it_is_told_to_and_can_use_it_alone() {
    let _clean = common::clean();
    let (chown, name) = (bit(Capability::CAP_CHOWN), bit(Capability::CAP_SYS_ADMIN));
    let keep = Capabilities::keep([Capability::CAP_CHOWN]);
    assert_eq!(sets(common::sandbox().capabilities(keep)), [0, chown, chown, chown, 0]);
    let keep = Capabilities::keep([Capability::CAP_SYS_ADMIN, Capability::CAP_CHOWN]);
    assert_eq!(sets(common::sandbox().capabilities(keep.clone()))[1], chown | name);
    let rename = |sets| common::sandbox().uts_ns().capabilities(sets).command("/bin/sh").args(["-c", "hostname x"]);
    assert!(rename(keep).stderr(ringfence::Stdio::null()).status().unwrap().success());
    assert!(!rename(Capabilities::none()).stderr(ringfence::Stdio::null()).status().unwrap().success());
}

#[test]
fn another_user_has_the_ambient_ones() {
    let _clean = common::clean();
    let bind = bit(Capability::CAP_NET_BIND_SERVICE);
    let ambient = Capabilities::none().ambient([Capability::CAP_NET_BIND_SERVICE]);
    let sandbox = common::sandbox().user(1234, 1234).net_ns();
    assert_eq!(sets(sandbox.clone().capabilities(ambient.clone())), [bind, bind, bind, 0, bind]);
    let sandbox = |sets| probe::run(sandbox.clone().capabilities(sets), "bind-80");
    assert_eq!(stdout(&sandbox(ambient)), "bound");
    assert_eq!(stdout(&sandbox(Capabilities::none())), "PermissionDenied");
    let kept = Capabilities::keep([Capability::CAP_NET_BIND_SERVICE]);
    assert_eq!(stdout(&sandbox(kept)), "PermissionDenied", "an exec by another user than root keeps none");
}

#[test]
fn securebits_are_what_was_asked_for() {
    let _clean = common::clean();
    let bits = SecureBits::NOROOT | SecureBits::NOROOT_LOCKED | SecureBits::NO_CAP_AMBIENT_RAISE;
    let keep = Capabilities::keep([Capability::CAP_KILL]).ambient([Capability::CAP_KILL]).securebits(bits);
    let sandbox = common::sandbox().capabilities(keep);
    assert_eq!(stdout(&probe::run(sandbox.clone(), "securebits")), bits.bits().to_string());
    let kill = bit(Capability::CAP_KILL);
    assert_eq!(sets(sandbox), [kill; 5], "ambient, in spite of NOROOT");
    let noroot = Capabilities::keep([Capability::CAP_KILL]).securebits(SecureBits::NOROOT);
    assert_eq!(sets(common::sandbox().capabilities(noroot)), [0, 0, 0, kill, 0]);
}

#[test]
fn no_new_privs_is_seen_by_the_program_and_its_init() {
    let _clean = common::clean();
    let script = "grep NoNewPrivs /proc/self/status";
    assert_eq!(stdout(&sh(script).no_new_privs(true)), "NoNewPrivs:\t1");
    assert_eq!(stdout(&sh(script)), "NoNewPrivs:\t0");
    let init = sh("grep -h -e NoNewPrivs -e CapPrm -e CapBnd /proc/1/status").pid_ns().init(true);
    let init = init.no_new_privs(true).capabilities(Capabilities::none());
    let zero = "0000000000000000";
    assert_eq!(stdout(&init), format!("CapPrm:\t{zero}\nCapBnd:\t{zero}\nNoNewPrivs:\t1"));
}

#[test]
fn the_session_keyring_is_new_and_empty() {
    let _clean = common::clean();
    // A caller with a key in its session keyring spawns one program with the keyring, and one without.
    let said = stdout(&probe::run(common::sandbox(), "keyring-owner"));
    if said == "none" {
        return common::skip("this kernel has no keys", true);
    }
    assert_eq!(said, "shared: 1 keys\napart: 0 keys");
}

#[test]
fn a_user_with_too_many_keys_is_told_of_the_quota() {
    let _clean = common::clean();
    let sandbox = common::sandbox().command("/bin/true").session_keyring(true);
    let full = |index| sandbox.clone().fail_at(index, libc::EDQUOT).spawn().unwrap_err();
    let error = (0..100).map(full).find(|error| error.step() == Step::Keyring).unwrap();
    assert!(error.remedy().unwrap().contains("/proc/sys/kernel/keys"), "{error}");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let _clean = common::clean();
    let kill = [Capability::CAP_KILL];
    let error = Sandbox::new().capabilities(Capabilities::none().effective(kill)).spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    if !common::is_root() {
        let none = Sandbox::new().command("/bin/true").capabilities(Capabilities::none());
        let error = none.spawn().unwrap_err();
        assert_eq!((error.kind(), error.problems()[0].feature), (ErrorKind::Unsupported, Some(Feature::BoundingSet)));
        assert_eq!(none.check().unwrap_err().to_string(), error.to_string());
        let effort = none.best_effort(Feature::BoundingSet);
        assert!(matches!(effort.check().unwrap().get(Feature::BoundingSet), Some(Enforcement::Partial(_))));
        assert!(effort.status().unwrap().success());
        let lacking = Sandbox::new().capabilities(Capabilities::keep(kill)).check().unwrap_err();
        assert!(lacking.to_string().contains("CAP_KILL"), "{lacking}");
    }
}

#[test]
fn a_caller_without_setpcap_is_told_before_and_after() {
    let _clean = common::clean();
    if common::needs_root("losing one capability") {
        return;
    }
    // A sandbox without CAP_SETPCAP spawns another one with no capabilities.
    let but_one = caps::all().into_iter().filter(|capability| *capability != Capability::CAP_SETPCAP);
    let held = caps::read(None, caps::CapSet::Permitted).unwrap();
    let outer = Sandbox::new().capabilities(Capabilities::keep(but_one.filter(|capability| held.contains(capability))));
    let said = stdout(&probe::run(outer, "spawn-bare"));
    assert!(said.contains("CAP_SETPCAP") && said.contains("user_ns()"), "{said}");
}

#[test]
fn each_step_fails_loudly() {
    let _clean = common::clean();
    let sandbox = common::sandbox().command("/bin/true").session_keyring(true).no_new_privs(true);
    let sandbox = sandbox.capabilities(Capabilities::none());
    let mut seen = std::collections::BTreeSet::new();
    for index in 0.. {
        match sandbox.clone().fail_at(index, libc::EDOM).spawn() {
            Err(error) => drop(seen.insert(error.step().as_str())),
            Ok(mut child) => {
                child.wait().unwrap();
                break;
            }
        }
    }
    for step in [Step::Capabilities, Step::NoNewPrivs, Step::Keyring] {
        assert!(seen.contains(step.as_str()), "{step} is not among {seen:?}");
    }
}
