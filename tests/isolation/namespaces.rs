//! Namespaces of the sandbox's own: each is apart, the others and the host's are as they were.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use crate::common;
use nix::time::{ClockId, clock_gettime};
use ringfence::{ErrorKind, IdMap, Namespaces, Sandbox, Stdio, Step, TimeOffset};

const FILES: [&str; 8] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"];
const LINKS: &str = "for n in user pid mnt net ipc uts cgroup time; do readlink /proc/self/ns/$n; done";

/// The namespaces in which the sandbox's program is not with the caller.
fn apart(sandbox: &Sandbox) -> Vec<&'static str> {
    let inside = common::stdout(sandbox);
    let inside: Vec<&str> = inside.lines().collect();
    assert_eq!(inside.len(), FILES.len(), "{inside:?}");
    FILES.into_iter().zip(inside).filter(|(file, link)| own(file) != *link).map(|(file, _)| file).collect()
}

fn own(file: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{file}")).unwrap().into_os_string().into_string().unwrap()
}

fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn gid() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// Whom a sandbox of root's is outside.
const NOBODY: u32 = 0x7000_0000;

#[test]
fn each_namespace_alone_is_apart_and_all_others_are_the_callers() {
    let _clean = common::clean();
    type Call = fn(Sandbox) -> Sandbox;
    let calls: [(&[&str], Call); 8] = [
        (&["user"], Sandbox::user_ns),
        (&["pid", "mnt"], Sandbox::pid_ns),
        (&["mnt"], Sandbox::mount_ns),
        (&["net"], Sandbox::net_ns),
        (&["ipc"], Sandbox::ipc_ns),
        (&["uts"], Sandbox::uts_ns),
        (&["cgroup"], Sandbox::cgroup_ns),
        (&["time"], Sandbox::time_ns),
    ];
    for (names, call) in calls {
        let user = if common::is_root() || names == ["user"] { &[][..] } else { &["user"][..] };
        assert_eq!(apart(&call(common::sh(LINKS))), [user, names].concat());
    }
    if common::is_root() {
        assert_eq!(apart(&common::sh(LINKS)), [""; 0]);
    }
}

#[test]
fn all_namespaces_together_are_apart_and_the_callers_stay() {
    let _clean = common::clean();
    let before = FILES.map(own);
    assert_eq!(apart(&common::sh(LINKS).namespaces(Namespaces::all())), FILES);
    assert_eq!(apart(&common::sh(LINKS).namespaces(Namespaces::all()).init(true)), FILES);
    assert_eq!(FILES.map(own), before);
}

#[test]
fn host_and_domain_name_are_the_sandboxs_own() {
    let _clean = common::clean();
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap();
    let before = ["hostname", "domainname"].map(read);
    let longest = "h".repeat(64);
    let names = common::sh("cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; uname -n").uts_ns();
    let text = common::stdout(&names.hostname(longest.as_str()).domainname("inside.test"));
    assert_eq!(text, format!("{longest}\ninside.test\n{longest}"));
    let changed = common::sh("echo changed >/proc/sys/kernel/hostname; uname -n").uts_ns().hostname("box");
    assert_eq!(common::stdout(&changed), if common::is_root() { "changed" } else { "box" });
    assert_eq!(["hostname", "domainname"].map(read), before);
}

#[test]
fn a_name_that_would_be_the_hosts_or_is_too_long_is_refused() {
    for sandbox in [
        Sandbox::new().hostname("box"),
        Sandbox::new().domainname("box"),
        Sandbox::new().uts_ns().hostname("h".repeat(65)),
        Sandbox::new().uts_ns().domainname("h".repeat(65)),
        Sandbox::new().boottime_offset(TimeOffset::Ahead(Duration::from_secs(1))),
        Sandbox::new().uid_map(IdMap::new(0, 0, 1)),
    ] {
        assert_eq!(sandbox.check().unwrap_err().kind(), ErrorKind::Invalid);
    }
}

fn clock(id: ClockId) -> i128 {
    Duration::from(clock_gettime(id).unwrap()).as_nanos() as i128
}

/// How far the two clocks inside are ahead of the caller's: the least and the most that it can be.
fn clocks_ahead(sandbox: Sandbox) -> [(i128, i128); 2] {
    const CLOCKS: [ClockId; 2] = [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_BOOTTIME];
    let before = CLOCKS.map(clock);
    let text = common::stdout(&common::probe::run(sandbox, "clocks"));
    let after = CLOCKS.map(clock);
    let inside: Vec<i128> = text.lines().map(|line| line.parse().unwrap()).collect();
    std::array::from_fn(|i| (inside[i] - after[i], inside[i] - before[i]))
}

#[test]
fn clocks_are_ahead_and_behind_by_what_was_asked() {
    let _clean = common::clean();
    let (day, bit) = (Duration::from_secs(86_400), Duration::from_millis(1_250));
    let cases = [
        (Some(TimeOffset::Ahead(day)), Some(TimeOffset::Behind(bit))),
        (Some(TimeOffset::Behind(bit)), Some(TimeOffset::Ahead(day + bit))),
        (None, Some(TimeOffset::Ahead(bit))),
    ];
    for (monotonic, boottime) in cases {
        let mut sandbox = common::sandbox().time_ns();
        if let Some(offset) = monotonic {
            sandbox = sandbox.monotonic_offset(offset);
        }
        if let Some(offset) = boottime {
            sandbox = sandbox.boottime_offset(offset);
        }
        for ((least, most), offset) in clocks_ahead(sandbox).into_iter().zip([monotonic, boottime]) {
            let wanted = match offset {
                Some(TimeOffset::Ahead(by)) => by.as_nanos() as i128,
                Some(TimeOffset::Behind(by)) => -(by.as_nanos() as i128),
                None => 0,
            };
            assert!((least..=most).contains(&wanted), "{monotonic:?} {boottime:?}: {least} {wanted} {most}");
        }
    }
}

#[test]
fn uptime_shows_the_boot_time_offset_and_a_clock_below_zero_is_an_error() {
    let _clean = common::clean();
    let uptime = |text: &str| text.split(['.', ' ']).next().unwrap().parse::<u64>().unwrap();
    let year = Duration::from_secs(365 * 86_400);
    let sandbox = common::sandbox().command("/bin/cat").arg("/proc/uptime").time_ns();
    let inside = uptime(&common::stdout(&sandbox.clone().boottime_offset(TimeOffset::Ahead(year))));
    let outside = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    assert!(inside + 60 > outside + year.as_secs() && inside <= outside + year.as_secs(), "{inside} {outside}");
    let error = sandbox.boottime_offset(TimeOffset::Behind(50 * year)).output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::TimeOffsets, Some(libc::ERANGE)), "{error}");
    assert!(error.remedy().unwrap().contains("below zero"), "{error}");
}

#[test]
fn a_pid_namespace_shows_only_its_own_processes() {
    let _clean = common::clean();
    let text = common::stdout(&common::sh("ps -e -o pid=,comm=; echo $$").pid_ns());
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [vec!["1", "sh"], vec!["2", "ps"], vec!["1"]]);
    let text =
        common::stdout(&common::sh("cd /proc; echo [0-9]*; tr '\\0' '\\n' <1/cmdline; echo $$").pid_ns().init(true));
    assert_eq!(text, "1 2\nringfence-init\n2");
}

#[test]
fn a_pid_namespace_keeps_the_hosts_processes_from_signals() {
    let _clean = common::clean();
    let mut victim = std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let script = format!("kill -9 {} 2>/dev/null && echo hit; kill -9 -1; echo missed", victim.id());
    assert_eq!(common::stdout(&common::sh(&script).pid_ns()), "missed");
    assert!(victim.try_wait().unwrap().is_none());
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[test]
fn loopback_is_up_and_the_only_interface() {
    let _clean = common::clean();
    let sandbox = common::probe::run(common::sandbox().net_ns(), "loopback");
    assert_eq!(common::stdout(&sandbox), "heard");
    let text = common::stdout(&common::sh("tail -n +3 /proc/net/dev").net_ns());
    assert!(text.trim_start().starts_with("lo:") && text.lines().count() == 1, "{text}");
}

#[test]
fn two_sandboxes_listen_on_the_same_port_at_once() {
    let _clean = common::clean();
    let sandbox = common::probe::run(common::sandbox().net_ns(), "listen 4711");
    let sandbox = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut both = [sandbox.spawn().unwrap(), sandbox.spawn().unwrap()];
    for child in &mut both {
        let mut line = [0; 18];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(line, *b"listening on 4711\n");
    }
    for child in &mut both {
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn what_listens_on_the_host_is_out_of_reach() {
    let _clean = common::clean();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("ringfence-test-{}", std::process::id());
    let _unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for to in [tcp.local_addr().unwrap().port().to_string(), format!("@{name}")] {
        let sandbox = common::probe::run(common::sandbox(), &format!("connect {to}"));
        assert_eq!(common::stdout(&sandbox), "connected", "without a namespace");
        assert_eq!(common::stdout(&sandbox.net_ns()), "ConnectionRefused");
    }
}

#[test]
fn system_v_objects_are_seen_on_neither_side() {
    let _clean = common::clean();
    // SAFETY: no pointer is involved.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600) };
    assert!(id >= 0);
    let count = |text: &str| text.lines().count() - 1;
    let outside = || count(&fs::read_to_string("/proc/sysvipc/shm").unwrap());
    let before = outside();
    let show = common::sh("cat /proc/sysvipc/shm");
    let (shared, apart) = (count(&common::stdout(&show)), count(&common::stdout(&show.ipc_ns())));
    let made = common::stdout(
        &common::sh("ipcmk -M 4096 >/dev/null; ipcmk -Q >/dev/null; tail -qn +2 /proc/sysvipc/*").ipc_ns(),
    );
    let after = outside();
    // SAFETY: no pointer is used with IPC_RMID.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    assert!(shared >= 1 && before >= 1);
    assert_eq!((apart, count(&made) + 1, after), (0, 2, before), "{made}");
}

#[test]
fn one_id_is_mapped_by_any_user() {
    let _clean = common::clean();
    let script =
        "read i o n </proc/self/uid_map; echo $i $o $n; read i o n </proc/self/gid_map; echo $i $o $n; id -u; id -g";
    let sandbox = Sandbox::new().user_ns().command("/bin/sh").args(["-c", script]);
    let expect = |u: u32, g: u32, (uid, gid): (u32, u32)| format!("{u} {uid} 1\n{g} {gid} 1\n{u}\n{g}");
    // Root's sandboxes are nobody outside, unless it says otherwise.
    let outside = if common::is_root() { (NOBODY, NOBODY) } else { (uid(), gid()) };
    assert_eq!(common::stdout(&sandbox), expect(0, 0, outside));
    assert_eq!(common::stdout(&sandbox.clone().user(1000, 1001)), expect(1000, 1001, outside));
    let given = sandbox.user(7, 8).uid_map(IdMap::new(7, uid(), 1)).gid_map(IdMap::new(8, gid(), 1));
    assert_eq!(common::stdout(&given), expect(7, 8, (uid(), gid())));
}

#[test]
fn files_of_the_mapped_user_belong_to_the_caller_outside() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let script = format!("touch {0}/file; stat -c '%u %g' {0}/file", dir.path().display());
    let sandbox = Sandbox::new().user_ns().command("/bin/sh").args(["-c", &script]).user(1000, 1001);
    let sandbox = sandbox.uid_map(IdMap::new(1000, uid(), 1)).gid_map(IdMap::new(1001, gid(), 1));
    assert_eq!(common::stdout(&sandbox), "1000 1001");
    let file = fs::metadata(dir.path().join("file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (uid(), gid()));
}

#[test]
fn root_maps_ranges_and_an_ordinary_user_without_any_is_told_so() {
    let _clean = common::clean();
    let script = "read i o n </proc/self/uid_map; echo $i $o $n; id -u; id -G; cat /proc/self/setgroups";
    let range = IdMap::new(0, 100_000, 65_536);
    let sandbox = Sandbox::new().user_ns().command("/bin/sh").args(["-c", script]).uid_map(range).gid_map(range);
    let user = sandbox.clone().user(1000, 1001).groups([1002, 1003]);
    if common::is_root() {
        assert_eq!(common::stdout(&sandbox), "0 100000 65536\n0\n0\nallow");
        assert_eq!(common::stdout(&user), "0 100000 65536\n1000\n1001 1002 1003\nallow");
    } else {
        let error = user.output().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let subjects: Vec<&str> = error.problems().iter().map(|problem| problem.subject.as_str()).collect();
        assert!(subjects.contains(&"uid_map") && subjects.contains(&"gid_map"), "{error}");
    }
}

#[test]
fn a_mapped_range_makes_files_of_ids_in_that_range() {
    if common::needs_root("mapping a range of ids") {
        return;
    }
    let _clean = common::clean();
    let dir = common::TempDir::new();
    std::os::unix::fs::chown(dir.path(), Some(100_000), Some(100_000)).unwrap();
    let range = IdMap::new(0, 100_000, 65_536);
    let script = format!("cd {0} && touch a && chown 5:6 a && ! touch /etc/rf-test 2>/dev/null", dir.path().display());
    common::stdout(&Sandbox::new().user_ns().command("/bin/sh").args(["-c", &script]).uid_map(range).gid_map(range));
    let file = fs::metadata(dir.path().join("a")).unwrap();
    assert_eq!((file.uid(), file.gid()), (100_005, 100_006));
}

#[test]
fn an_unprivileged_map_denies_setgroups() {
    let _clean = common::clean();
    let sandbox = common::as_ourselves(Sandbox::new()).command("/bin/cat").arg("/proc/self/setgroups");
    // Root's own groups can be dropped only where it is allowed.
    let drops = common::is_root() && !nix::unistd::getgroups().unwrap().is_empty();
    assert_eq!(common::stdout(&sandbox), if drops { "allow" } else { "deny" });
}

#[test]
fn a_cgroup_namespace_shows_the_own_group_as_the_root() {
    let _clean = common::clean();
    let text = common::stdout(&common::sandbox().command("/bin/cat").arg("/proc/self/cgroup").cgroup_ns());
    assert!(text.contains("0::/"), "{text}");
    assert!(text.lines().all(|line| line.ends_with(":/")), "{text}");
}
