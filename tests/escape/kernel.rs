//! What a program can reach of the kernel: system calls, sockets, limits, keys.

use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use ringfence::{Sandbox, Stdio};

use crate::{attack, attack_inside, attack_strict, common};

/// CVE-2014-8989. With a map of one id, groups cannot be dropped that would have kept from
/// something.
#[test]
fn groups_cannot_be_dropped_in_a_map_of_ones_own() {
    let _clean = common::clean();
    let single = attack(Sandbox::new().user_ns().user(1000, 1000), "setgroups");
    assert_eq!(single.get("setgroups"), "EPERM");
    let strict = attack_inside(common::strict().seccomp(None), "setgroups");
    assert_eq!(strict.get("setgroups"), "EPERM");
    if common::is_root() {
        assert_eq!(attack(Sandbox::new(), "setgroups").get("setgroups"), "0", "root drops them");
    } else {
        assert_eq!(single.get("file"), "deny");
    }
}

/// System calls that have led out of sandboxes: each is refused.
#[test]
fn calls_that_have_led_out_are_refused() {
    let _clean = common::clean();
    let strict = attack_strict("calls");
    for (name, answer) in &strict.0 {
        assert_eq!(answer, "EPERM", "{name}");
    }
    assert!(strict.0.len() > 20);
    // Without the filter, and with the capabilities of a namespace's root, the kernel looks at them.
    let bare = attack(common::sandbox().pid_ns().mount_ns(), "calls");
    let reached: Vec<&str> = bare.0.iter().filter(|(_, answer)| answer != "EPERM").map(|(name, _)| &**name).collect();
    for name in ["keyctl", "add_key", "ptrace", "process_vm_readv", "mount", "fsopen", "open_tree", "setns", "chroot"] {
        assert!(reached.contains(&name), "{name} is refused without the filter: {bare:?}");
    }
    if common::is_root() {
        assert!(reached.len() >= strict.0.len() - 3, "{bare:?}");
    }
}

/// CVE-2020-15257. An abstract socket of the caller's is not reached.
#[test]
fn no_abstract_socket_of_the_host_is_reached() {
    let _clean = common::clean();
    let name = format!("ringfence-escape-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let connect = format!("connect @{name}");
    assert_eq!(common::stdout(&common::strict_probe(&connect)), "ConnectionRefused");
    assert_eq!(common::stdout(&common::probe::run(Sandbox::new(), &connect)), "connected");
    drop(listener);
}

/// Sockets that lead to the machine: none of such a kind can be made, and no service of the host's
/// is reached.
#[test]
fn no_socket_leads_to_the_machine() {
    let _clean = common::clean();
    let strict = attack_strict("sockets");
    let refusals = ["EAFNOSUPPORT", "EPERM", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"];
    for (name, answer) in &strict.0 {
        assert!(refusals.contains(&answer.as_str()), "{name}: {answer}");
    }
    let protocols = [strict.get("mptcp"), strict.get("mptcp6"), strict.get("sctp")];
    assert_eq!(protocols, ["EPROTONOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"]);
    let bare = attack(common::sandbox().net_ns(), "sockets");
    assert_eq!((bare.get("packet"), bare.get("raw")), ("ok", "ok"), "{bare:?}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!("connect {}", listener.local_addr().unwrap().port());
    assert_eq!(common::stdout(&common::strict_probe(&connect)), "ConnectionRefused");
    assert_eq!(common::stdout(&common::probe::run(Sandbox::new(), &connect)), "connected");
}

/// The host's names, clocks and IPC objects: those that the program finds and changes are the
/// sandbox's own.
#[test]
fn objects_of_the_host_are_neither_found_nor_changed() {
    let _clean = common::clean();
    // SAFETY: numbers, and null where nothing is given.
    let key = 0x7266_0000 | (std::process::id() & 0xffff) as i32;
    // SAFETY: as above.
    let segment = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
    assert!(segment >= 0);
    let (inside, outside) = (attack_strict(&format!("shm {key}")), attack(Sandbox::new(), &format!("shm {key}")));
    // SAFETY: the segment that was made above.
    unsafe { libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!((inside.get("shm"), outside.get("shm")), ("ENOENT", "ok"));
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let renamed = common::sh("hostname attacked && hostname");
    assert_eq!(common::stdout(&renamed.uts_ns()), "attacked");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), name);
    let refused = common::strict_sh("hostname attacked 2>/dev/null; echo $?");
    assert_ne!(common::stdout(&refused), "0");
}

/// A program raises the limits of its process, and its priority: neither can be.
#[test]
fn limits_of_a_process_cannot_be_raised() {
    let _clean = common::clean();
    let strict = attack_strict("limits");
    // With 0 the kernel would still start the program that core_pattern may pipe into: coredump_pipe() of fs/coredump.c.
    assert_eq!(strict.get("core"), "1");
    for name in ["raise-core", "realtime", "ioprio"] {
        assert_eq!(strict.get(name), "EPERM", "{strict:?}");
    }
    assert_eq!(strict.get("nice"), "EACCES");
    assert!(["ENOMEM", "EPERM"].contains(&strict.get("mlock")), "{strict:?}");
    if common::is_root() {
        let bare = attack(Sandbox::new(), "limits");
        for name in ["nice", "ioprio", "mlock"] {
            assert!(["ok", "0"].contains(&bare.get(name)), "{bare:?}");
        }
    }
}

/// Secrets and loader settings in the caller's environment: nothing of it passes, and nothing that
/// the loader reads passes to a set-user-ID program.
#[test]
fn the_callers_environment_does_not_pass() {
    let _clean = common::clean();
    // A caller with secrets spawns the preset's environment, and a plain one.
    let outer = |strict: bool| {
        let environment = "env | grep -c -e ^SECRET= -e ^LD_PRELOAD=; true";
        let sandbox = if strict { common::strict_sh(environment) } else { common::sh(environment) };
        if strict { sandbox } else { sandbox.env("SECRET", "x").env("LD_PRELOAD", "") }
    };
    assert_eq!(common::stdout(&outer(true)), "0");
    assert_eq!(common::stdout(&outer(false)), "2");
    let own = std::env::vars_os().count();
    let count = |sandbox: Sandbox| common::stdout(&sandbox).lines().count();
    assert_eq!(count(common::strict().command("/usr/bin/env")), 3);
    assert_eq!(count(Sandbox::new().command("/usr/bin/env")), own, "as it is, without the preset");
}

/// The caller's keys: the session keyring is the sandbox's own, where the filter lets it be looked
/// at.
#[test]
fn the_callers_keys_are_not_found() {
    let _clean = common::clean();
    let said = common::stdout(&common::probe::run(common::sandbox(), "keyring-owner"));
    assert!(said == "none" || said == "shared: 1 keys\napart: 0 keys", "{said}");
}

/// A program that is stopped, or stops, is ended like any other; its standard streams are the only way to it.
#[test]
fn what_stops_itself_is_ended() {
    let _clean = common::clean();
    let sandbox = common::strict_sh("echo up; kill -STOP $$; kill -STOP -1; sleep 100").stdout(Stdio::piped());
    let mut child = sandbox.wall_time(std::time::Duration::from_millis(500)).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!((line.trim(), child.wait().unwrap().verdict()), ("up", ringfence::Verdict::WallTime));
}
