//! Landlock: each thing that a ruleset refuses is done first without it.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use crate::common::{self, TempDir, probe};
use ringfence::{Enforcement, ErrorKind, Feature, Landlock, RootFs, Sandbox, Seccomp, Step};

common::callers! {
    |words|
    "is-ordinary" => is_ordinary(Path::new(words[1])),
    "ways-to" => ways_to(words[1].parse().unwrap()),
}

const FEATURES: [Feature; 4] =
    [Feature::LandlockFiles, Feature::LandlockTcp, Feature::LandlockSignals, Feature::LandlockAbstractSockets];

/// True, after saying so, where the kernel lacks what `rules` ask for.
#[track_caller]
fn lacks(rules: &Landlock) -> bool {
    match Sandbox::new().landlock(rules.clone()).check() {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.problems().iter().all(|problem| FEATURES.contains(&problem.feature.unwrap())), "{error}");
            assert!(error.remedy().unwrap().contains("Linux 6."), "{error}");
            common::skip(&error.to_string(), true);
            true
        }
    }
}

/// What a shell needs to run.
fn programs() -> Landlock {
    let dirs = ["/usr", "/bin", "/lib", "/lib64"].into_iter().filter(|dir| Path::new(dir).exists());
    dirs.fold(Landlock::new().device("/dev"), Landlock::execute)
}

/// Runs a shell's command line: "done", or what it complained about.
#[track_caller]
fn tries(sandbox: Sandbox, script: &str) -> String {
    let script = format!("exec 2>&1\n{script}");
    let output = sandbox.command("/bin/sh").args(["-c", &script]).output().unwrap();
    if output.outcome.success() { "done".into() } else { String::from_utf8_lossy(&output.stdout).into_owned() }
}

/// The script goes through without `rules`, and fails with them and this message.
#[track_caller]
fn refused(sandbox: &Sandbox, rules: &Landlock, script: &str, message: &str) {
    assert_eq!(tries(sandbox.clone(), script), "done", "without Landlock: {script}");
    let text = tries(sandbox.clone().landlock(rules.clone()), script);
    assert!(text.contains(message), "{script}: {text}");
}

/// A directory with `read/file`, `write/file`, `hidden/file` and `read/program`, for everybody.
fn files() -> TempDir {
    let dir = TempDir::new();
    for name in ["read", "write", "hidden"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("file"), "text").unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(dir.path().join(name).join("file"), fs::Permissions::from_mode(0o666)).unwrap();
    }
    fs::copy("/bin/true", dir.path().join("read/program")).unwrap();
    dir
}

fn paths_hold(sandbox: &Sandbox, dir: &Path) {
    let rules = programs().read(dir.join("read")).write(dir.join("write"));
    let allowed = "cat read/file && ls read >/dev/null && cat write/file && echo new >write/file && mkdir write/d && \
                   : >write/d/a && mv write/d/a write/b && rm write/b && rmdir write/d && ln -s x write/l && rm write/l";
    let sandbox = sandbox.clone().cwd(dir);
    assert_eq!(tries(sandbox.clone().landlock(rules.clone()), allowed), "done");
    for script in [
        "cat hidden/file",
        "ls hidden",
        "echo new >read/file",
        ": >>hidden/file",
        ": >read/new && rm read/new",
        "mkdir read/new && rmdir read/new",
        "mv hidden/file hidden/other && mv hidden/other hidden/file",
        "ln -s x read/link && rm read/link",
        "read/program",
        "cp read/program write/program && chmod 755 write/program && write/program; s=$?; rm write/program; exit $s",
        "truncate -s 4 read/file",
    ] {
        refused(&sandbox, &rules, script, "Permission denied");
    }
    // Of one ruleset the calls add up.
    let more = rules.clone().execute(dir.join("read/program"));
    assert_eq!(tries(sandbox.clone().landlock(more), "read/program"), "done");
    // A path opened before stays open.
    let held = fs::File::open(dir.join("hidden/file")).unwrap();
    assert_eq!(common::stdout(&sandbox.command("cat").stdin(held).landlock(rules)), "text");
}

#[test]
fn only_the_named_paths_can_be_read_written_and_executed() {
    let _clean = common::clean();
    if lacks(&programs()) {
        return;
    }
    let dir = files();
    paths_hold(&Sandbox::new(), dir.path());
}

#[test]
fn paths_are_those_of_the_sandboxs_own_root() {
    let _clean = common::clean();
    if lacks(&programs()) {
        return;
    }
    let root = common::root_dir();
    fs::create_dir(root.path().join("work")).unwrap();
    fs::write(root.path().join("etc/secret"), "text").unwrap();
    let sandbox = common::on_root(common::sandbox(), &root).pid_ns();
    let rules = programs().write("/work");
    refused(&sandbox, &rules, "cat /etc/secret", "Permission denied");
    refused(&sandbox, &rules, "echo x >/tmp/new", "Permission denied");
    assert_eq!(tries(sandbox.clone().landlock(rules), "echo x >/work/new && cat /work/new"), "done");
    // Also with an init, a user that may not search what the rules name, and an overlay.
    fs::set_permissions(root.path().join("work"), fs::Permissions::from_mode(0o711)).unwrap();
    let rules = programs().read("/work/new");
    let sandbox = common::on_root(common::sandbox(), &root).pid_ns().init(true).user(5, 5).landlock(rules.clone());
    assert_eq!(tries(sandbox, "cat /work/new"), "done");
    let overlay = common::sandbox().rootfs(RootFs::overlay([Path::new("/usr"), root.path()])).pid_ns();
    if overlay.check().is_ok() && overlay.clone().command("/bin/true").status().is_ok() {
        refused(&overlay, &rules, "cat /etc/secret", "Permission denied");
    }
}

#[test]
fn a_path_that_is_not_there_and_a_program_that_is_not_allowed_are_errors() {
    let _clean = common::clean();
    if lacks(&programs()) {
        return;
    }
    let error = Sandbox::new().landlock(programs().read("/no/such")).spawn().unwrap_err();
    assert_eq!(
        (error.step(), error.path(), error.raw_os_error()),
        (Step::Landlock, Some(Path::new("/no/such")), Some(2))
    );
    assert!(error.remedy().unwrap().contains("inside the sandbox"), "{error}");
    let error = Sandbox::new().command("/bin/true").landlock(Landlock::new().read("/")).spawn().unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::EACCES)));
    assert!(error.remedy().unwrap().contains("Landlock"), "{error}");
    for rules in [Landlock::new(), Landlock::new().read("etc")] {
        assert_eq!(Sandbox::new().landlock(rules).check().unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn tcp_ports_that_are_not_named_are_refused() {
    let _clean = common::clean();
    let any = Landlock::new().restrict_tcp();
    if lacks(&any) {
        return;
    }
    let (near, far) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let connect = |rules: Option<Landlock>, to: u16| {
        let sandbox = rules.into_iter().fold(Sandbox::new(), Sandbox::landlock);
        common::stdout(&probe::run(sandbox, &format!("connect {to}")))
    };
    assert_eq!(connect(None, port(&far)), "connected");
    assert_eq!(connect(Some(any.clone()), port(&far)), "PermissionDenied");
    let one = any.clone().connect_tcp(port(&near));
    assert_eq!(connect(Some(one.clone()), port(&near)), "connected");
    assert_eq!(connect(Some(one.clone()), port(&far)), "PermissionDenied");
    let listen = |rules: Landlock| probe::run(Sandbox::new().landlock(rules), "listen 0").output().unwrap();
    assert!(probe::run(Sandbox::new(), "listen 0").output().unwrap().outcome.success());
    let output = listen(one);
    assert!(!output.outcome.success() && String::from_utf8_lossy(&output.stderr).contains("PermissionDenied"));
    assert!(listen(any.bind_tcp(0)).outcome.success());
}

/// Says what comes of each way to a TCP connection, and of what leads to one, that is not connect(2) or bind(2).
fn ways_to(port: u16) {
    use nix::errno::Errno;
    const IPPROTO_SMC: i32 = 256;
    const AF_SMC: i32 = 43;
    // SAFETY: all bytes zero is a value of the structures; what is passed by address outlives each call.
    unsafe {
        let said = |name: &str, result: i64| match Errno::result(result) {
            Ok(_) => println!("{name}=ok"),
            Err(errno) => println!("{name}={errno:?}"),
        };
        let mut to: libc::sockaddr_in = std::mem::zeroed();
        (to.sin_family, to.sin_port, to.sin_addr.s_addr) =
            (libc::AF_INET as u16, port.to_be(), u32::from_ne_bytes([127, 0, 0, 1]));
        let (place, size) = ((&raw mut to).cast::<libc::sockaddr>(), size_of_val(&to) as u32);
        let tcp = || libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let multipath = libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
        said("mptcp", if multipath < 0 { -1 } else { libc::connect(multipath, place, size).into() });
        said("sendto", libc::sendto(tcp(), c"x".as_ptr().cast(), 1, libc::MSG_FASTOPEN, place, size) as i64);
        let mut bytes = libc::iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 };
        let mut message: libc::mmsghdr = std::mem::zeroed();
        (message.msg_hdr.msg_name, message.msg_hdr.msg_namelen) = (place.cast(), size);
        (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (&raw mut bytes, 1);
        said("sendmsg", libc::sendmsg(tcp(), &raw const message.msg_hdr, libc::MSG_FASTOPEN) as i64);
        said("sendmmsg", libc::sendmmsg(tcp(), &raw mut message, 1, libc::MSG_FASTOPEN).into());
        said("listen", libc::listen(tcp(), 1).into());
        said("mptcp6", libc::socket(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_MPTCP).into());
        // The kernel takes the lower half of an argument that is an int.
        let high = i64::from(libc::IPPROTO_MPTCP) | 1 << 32;
        said("high", libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, high));
        said("smc", libc::socket(libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SMC).into());
        said("af-smc", libc::socket(AF_SMC, libc::SOCK_STREAM, 0).into());
        said("sctp", libc::socket(libc::AF_INET, libc::SOCK_SEQPACKET, 0).into());
        said("raw", libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP).into());
        said("packet", libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0).into());
        let ulp = c"smc".as_ptr().cast();
        said("ulp", libc::setsockopt(tcp(), libc::IPPROTO_TCP, libc::TCP_ULP, ulp, 3).into());
        let params = [0u8; 120];
        said("io_uring", libc::syscall(libc::SYS_io_uring_setup, 1, params.as_ptr()));
        said("udp", libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).into());
        let unix = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        let any = (libc::AF_UNIX as u16).to_ne_bytes();
        said("unix", if libc::bind(unix, any.as_ptr().cast(), 2) < 0 { -1 } else { libc::listen(unix, 1).into() });
    }
}

fn ways(sandbox: Sandbox, port: u16) -> Vec<(String, String)> {
    let exe = std::env::current_exe().unwrap();
    let text = common::stdout(&sandbox.command(exe).env("RINGFENCE_CALLER", format!("ways-to {port}")));
    text.lines().filter_map(|line| line.split_once('=')).map(|(way, said)| (way.into(), said.into())).collect()
}

/// Landlock has no hook on any of these.
#[test]
fn no_way_leads_around_the_tcp_ports() {
    let _clean = common::clean();
    let rules = Landlock::new().restrict_tcp();
    if lacks(&rules) {
        return;
    }
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = far.local_addr().unwrap().port();
    let refusals = [
        ("mptcp", "EPROTONOSUPPORT"),
        ("sendto", "EOPNOTSUPP"),
        ("sendmsg", "EOPNOTSUPP"),
        ("sendmmsg", "EOPNOTSUPP"),
        ("listen", "EACCES"),
        ("mptcp6", "EPROTONOSUPPORT"),
        ("high", "EPROTONOSUPPORT"),
        ("smc", "EPROTONOSUPPORT"),
        ("af-smc", "EAFNOSUPPORT"),
        ("sctp", "ESOCKTNOSUPPORT"),
        ("raw", "EPERM"),
        ("packet", "EAFNOSUPPORT"),
        ("ulp", "ENOPROTOOPT"),
        ("io_uring", "EPERM"),
        ("udp", "ok"),
        ("unix", "EACCES"),
    ]
    .map(|(way, said)| (way.to_owned(), said.to_owned()));
    assert_eq!(ways(Sandbox::new().landlock(rules.clone()), port), refusals);
    // Under a filter that allows everything, and with an init, it is the same.
    let lenient = common::sandbox().pid_ns().init(true).seccomp(Seccomp::deny_list()).landlock(rules.clone());
    assert_eq!(ways(lenient, port), refusals);
    // A port that may be bound can be listened on, and so can a unix socket; what is told differs.
    for (rules, is_full) in [(rules.clone().bind_tcp(0), true), (rules.bind_tcp(80), false)] {
        let sandbox = Sandbox::new().landlock(rules);
        assert_eq!(sandbox.check().unwrap().is_full(), is_full);
        let said = ways(sandbox, port);
        assert_eq!((&said[4].1[..], &said[15].1[..], &said[0].1[..]), ("ok", "ok", "EPROTONOSUPPORT"));
    }
    // Without any rules the kernel's own answers are others. It may have no MPTCP.
    let open = ways(Sandbox::new(), port);
    let has_mptcp = open[6].1 == "ok";
    for way in [0, 1, 2, 3, 4, 5, 12, 15].into_iter().filter(|way| has_mptcp || ![0, 5].contains(way)) {
        assert_ne!(open[way], refusals[way]);
    }
    assert_eq!((&open[1].1[..], &open[4].1[..]), ("ok", "ok"));
}

#[test]
fn signals_and_abstract_sockets_of_the_outside_are_out_of_reach() {
    let _clean = common::clean();
    let rules = Landlock::new().scope_signals().scope_abstract_sockets();
    if lacks(&rules) {
        return;
    }
    scopes_hold(&Sandbox::new(), &rules, &std::env::current_exe().unwrap());
}

fn scopes_hold(sandbox: &Sandbox, rules: &Landlock, exe: &Path) {
    let outside = std::process::id();
    refused(sandbox, rules, &format!("kill -0 {outside}"), "ermitted");
    // What is inside can be signalled.
    let inside = "sleep 1000 & kill $! && ! wait $!";
    assert_eq!(tries(sandbox.clone().landlock(rules.clone()), inside), "done");
    let name = format!("ringfence-test-{outside}");
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let connect =
        |sandbox: Sandbox| common::stdout(&probe::at(sandbox, exe.to_str().unwrap(), &format!("connect @{name}")));
    assert_eq!(connect(sandbox.clone()), "connected");
    assert_eq!(connect(sandbox.clone().landlock(rules.clone())), "PermissionDenied");
    drop(listener);
}

/// In a user namespace that allows none below it, an ordinary user who makes no namespace at all.
fn is_ordinary(dir: &Path) {
    common::become_ordinary_without_user_namespaces();
    assert!(Sandbox::new().user_ns().command("/bin/true").status().is_err(), "the caller may make user namespaces");
    let caps = fs::read_to_string("/proc/self/status").unwrap();
    assert!(caps.contains("CapEff:\t0000000000000000"), "{caps}");
    paths_hold(&Sandbox::new(), dir);
    let scopes = Landlock::new().scope_signals().scope_abstract_sockets();
    if Sandbox::new().landlock(scopes.clone()).check().is_ok() {
        scopes_hold(&Sandbox::new(), &scopes, &dir.join("probe"));
    }
}

#[test]
fn an_ordinary_user_on_a_host_without_user_namespaces_has_it_too() {
    let _clean = common::clean();
    if lacks(&programs()) {
        return;
    }
    let dir = files();
    fs::copy(std::env::current_exe().unwrap(), dir.path().join("probe")).unwrap();
    probe::succeeds(probe::caller(&format!("is-ordinary {}", dir.path().display())));
}

#[test]
fn privileges_are_not_gained_and_what_holds_is_told() {
    let _clean = common::clean();
    let rules = programs().restrict_tcp().scope_signals().scope_abstract_sockets();
    let best = FEATURES.into_iter().fold(Sandbox::new().landlock(rules.clone()), Sandbox::best_effort);
    let enforced = best.check().unwrap();
    assert_eq!(enforced.iter().map(|(feature, _)| feature).collect::<Vec<_>>(), FEATURES);
    let mut child = best.command("/bin/true").spawn().unwrap();
    assert_eq!(*child.enforced(), enforced);
    child.wait().unwrap();
    if lacks(&rules) {
        return;
    }
    let told = Sandbox::new().landlock(rules.clone()).check().unwrap();
    assert!(told.iter().all(|(_, enforcement)| !matches!(enforcement, Enforcement::Missing(_))), "{told:?}");
    let status = |sandbox: Sandbox| common::stdout(&sandbox.command("/bin/cat").arg("/proc/self/status"));
    assert!(status(Sandbox::new()).contains("NoNewPrivs:\t0"));
    assert!(status(Sandbox::new().landlock(rules.read("/proc"))).contains("NoNewPrivs:\t1"));
}
