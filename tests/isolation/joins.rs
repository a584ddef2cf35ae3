//! Entering namespaces that exist: by pid and by descriptor, and what the handle can still do.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common;
use ringfence::{Child, ErrorKind, HeldNamespaces, Namespaces, Proc, Sandbox, Stdio, Step, TimeOffset, Verdict};

/// A sandbox to be joined. It obeys lines on its stdin and ends with it.
struct Target {
    child: Child,
    lines: BufReader<ringfence::OutputStream>,
}

impl Target {
    /// Runs `script`, then whatever it is told.
    fn new(sandbox: Sandbox, script: &str) -> Target {
        let obey = format!("{script}\necho ready; while read line; do eval \"$line\"; done");
        let sandbox = sandbox.command("/bin/sh").args(["-c", &obey]);
        let mut child = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut target = Target { child, lines };
        assert_eq!(target.line(), "ready");
        target
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
        self.line()
    }

    fn link(&self, file: &str) -> String {
        let link = fs::read_link(format!("/proc/{}/ns/{file}", self.child.id())).unwrap();
        link.into_os_string().into_string().unwrap()
    }
}

/// The namespaces that have to be joined as well: an ordinary user's target belongs to its user namespace.
fn with_user(kinds: Namespaces) -> Namespaces {
    if common::is_root() { kinds } else { kinds | Namespaces::USER }
}

fn joining(target: &Target, kinds: Namespaces) -> Sandbox {
    Sandbox::new().join_pid(with_user(kinds), target.child.id())
}

fn script(sandbox: Sandbox, script: &str) -> String {
    common::stdout(&sandbox.command("/bin/sh").args(["-c", script]))
}

const KINDS: [(Namespaces, &str); 7] = [
    (Namespaces::USER, "user"),
    (Namespaces::MOUNT.union(Namespaces::PID), "pid"),
    (Namespaces::NET, "net"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::UTS, "uts"),
    (Namespaces::CGROUP, "cgroup"),
    (Namespaces::TIME, "time"),
];

#[test]
fn each_kind_is_joined_by_pid_and_the_others_are_the_callers() {
    let _clean = common::clean();
    let target = Target::new(Sandbox::new().user_ns().namespaces(Namespaces::all()).pid_ns(), "");
    for (kind, _) in KINDS {
        let kinds = with_user(kind);
        let links = "for n in user pid mnt net ipc uts cgroup time; do echo $n $(readlink /proc/self/ns/$n); done";
        let guest = Sandbox::new().join_pid(kinds, target.child.id());
        // Whom the namespace does not know has to be somebody that it does.
        let guest = if kinds.contains(Namespaces::USER) { guest.user(0, 0) } else { guest };
        let text = script(guest, links);
        for line in text.lines() {
            let (name, link) = line.split_once(' ').unwrap();
            let joined = match name {
                "user" => kinds.contains(Namespaces::USER),
                "mnt" => kinds.contains(Namespaces::MOUNT),
                _ => KINDS.iter().any(|(kind, file)| *file == name && kinds.contains(*kind)),
            };
            let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            let expected = if joined { target.link(name) } else { own.to_str().unwrap().to_owned() };
            assert_eq!(link, expected, "{name} when joining {kinds:?}");
            assert_ne!(target.link(name), own.to_str().unwrap());
        }
    }
}

#[test]
fn each_kind_is_joined_by_descriptor_again_and_again() {
    let _clean = common::clean();
    let target = Target::new(common::sandbox().namespaces(Namespaces::all() - Namespaces::USER).pid_ns(), "");
    let open = |file: &str| File::open(format!("/proc/{}/ns/{file}", target.child.id())).unwrap();
    let mut sandbox = Sandbox::new();
    let mut expected = Vec::new();
    for (kind, file) in KINDS {
        if kind == Namespaces::USER && common::is_root() {
            continue;
        }
        sandbox = match file {
            "pid" => sandbox.join_fd(Namespaces::PID, open("pid")).join_fd(Namespaces::MOUNT, open("mnt")),
            _ => sandbox.join_fd(kind, open(file)),
        };
        expected.push(target.link(file));
    }
    let kinds = if common::is_root() { "" } else { "user " };
    let links = format!("for n in {kinds}pid net ipc uts cgroup time; do readlink /proc/self/ns/$n; done");
    for _ in 0..2 {
        assert_eq!(script(sandbox.clone(), &links), expected.join("\n"));
    }
}

#[test]
fn the_targets_host_name_loopback_objects_and_clock_are_there() {
    let _clean = common::clean();
    let year = Duration::from_secs(365 * 86_400);
    let sandbox = common::sandbox().uts_ns().ipc_ns().net_ns().time_ns().hostname("target");
    let sandbox = sandbox.boottime_offset(TimeOffset::Ahead(year));
    let target = Target::new(sandbox, "ipcmk -M 4096 >/dev/null");
    let kinds = Namespaces::UTS | Namespaces::IPC | Namespaces::TIME;
    let text =
        script(joining(&target, kinds), "uname -n; tail -n +2 /proc/sysvipc/shm | wc -l; cut -d. -f1 /proc/uptime");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["target", "1"]);
    assert!(lines[2].parse::<u64>().unwrap() > year.as_secs());
}

#[test]
fn a_program_in_a_joined_network_reaches_what_listens_there() {
    let _clean = common::clean();
    let listener = common::probe::run(common::sandbox().net_ns(), "listen 4712");
    let mut child = listener.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut target = Target { lines: BufReader::new(child.stdout.take().unwrap()), child };
    assert_eq!(target.line(), "listening on 4712");
    let connect = |sandbox: Sandbox| common::stdout(&common::probe::run(sandbox, "connect 4712"));
    assert_eq!(connect(joining(&target, Namespaces::NET)), "connected");
    assert_eq!(connect(common::sandbox().net_ns()), "ConnectionRefused");
}

#[test]
fn a_joined_pid_namespace_shows_the_program_and_the_handle_waits_for_it() {
    let _clean = common::clean();
    let mut target = Target::new(common::sandbox().pid_ns(), "");
    let both = Namespaces::PID | Namespaces::MOUNT;
    let guest = joining(&target, both).command("/bin/sh").args(["-c", "echo $$; read line; exit 7"]);
    let mut guest = guest.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut pid = String::new();
    BufReader::new(guest.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    assert!(pid.trim().parse::<u32>().unwrap() > 1, "{pid}");
    assert_eq!(target.ask(&format!("cat /proc/{}/comm", pid.trim())), "sh");
    // The handle counts in the caller's namespace.
    assert_ne!(guest.id().to_string(), pid.trim());
    assert!(guest.try_wait().unwrap().is_none());
    guest.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(guest.wait().unwrap().verdict(), Verdict::Exited(7));
    assert_eq!(target.ask(&format!("[ -e /proc/{} ] || echo gone", pid.trim())), "gone");
}

#[test]
fn a_program_in_a_joined_pid_namespace_is_killed_alone_and_ends_with_it() {
    let _clean = common::clean();
    let mut target = Target::new(common::sandbox().pid_ns(), "");
    let guest = joining(&target, Namespaces::PID | Namespaces::MOUNT).command("/bin/cat").stdin(Stdio::piped());
    let mut first = guest.spawn().unwrap();
    first.kill().unwrap();
    assert_eq!(first.wait().unwrap().verdict(), Verdict::Signaled(libc::SIGKILL));
    assert_eq!(target.ask("echo alive"), "alive");
    let dropped = guest.spawn().unwrap();
    let pid = dropped.id();
    drop(dropped);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let mut last = guest.spawn().unwrap();
    target.child.kill().unwrap();
    let outcome = last.wait_timeout(Duration::from_secs(10)).unwrap().expect("it ends with the namespace");
    assert_eq!(outcome.verdict(), Verdict::Signaled(libc::SIGKILL));
}

#[test]
fn a_stub_that_a_sibling_replaces_late_is_not_taken_for_the_program() {
    let _clean = common::clean();
    let mut target = Target::new(common::sandbox().pid_ns(), "");
    let guest = joining(&target, Namespaces::PID | Namespaces::MOUNT).command("/bin/true");
    let done = AtomicBool::new(false);
    // The caller looks around every 20 ms: on a busy machine it does so while the stub ends and its sibling goes on.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let failures: Vec<_> = (0..40).filter_map(|_| guest.status().err()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(failures.is_empty(), "{failures:?}");
    });
    assert_eq!(target.ask("echo alive"), "alive");
}

#[test]
fn a_joined_pid_namespace_can_be_seen_through_a_proc_of_ones_own() {
    let _clean = common::clean();
    let target = Target::new(common::sandbox().pid_ns(), "");
    let guest = joining(&target, Namespaces::PID).mount(Proc::new("/proc"));
    assert_eq!(script(guest, "cat /proc/1/comm /proc/$$/comm; [ -e /proc/self/ns ] && ps -e | wc -l"), "sh\nsh\n5");
}

#[test]
fn a_failure_after_a_joined_pid_namespace_leaves_nobody_behind() {
    let _clean = common::clean();
    let mut target = Target::new(common::sandbox().pid_ns(), "");
    let error = joining(&target, Namespaces::PID | Namespaces::MOUNT).command("/no/such").output().unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)));
    assert_eq!(target.ask("cd /proc; echo [0-9]*"), "1");
}

#[test]
fn a_joined_mount_namespace_shows_the_targets_files() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let path = dir.path().display();
    let target = Target::new(common::sandbox().tmpfs(dir.path(), 1 << 20), &format!("echo hidden >{path}/file"));
    assert!(!dir.path().join("file").exists());
    assert_eq!(script(joining(&target, Namespaces::MOUNT), &format!("cat {path}/file")), "hidden");
    let root = common::root_dir();
    let target = Target::new(common::on_root(common::sandbox(), &root), "echo rooted >/tmp/file");
    assert_eq!(
        script(joining(&target, Namespaces::MOUNT), "cat /tmp/file; pwd; [ -e /home ] || echo apart"),
        "rooted\n/\napart"
    );
}

#[test]
fn an_ordinary_users_own_sandbox_is_joined_with_its_user_namespace() {
    let _clean = common::clean();
    let target = Target::new(common::as_ourselves(Sandbox::new()).uts_ns().hostname("mine"), "");
    let kinds = Namespaces::USER | Namespaces::UTS;
    let guest = Sandbox::new().join_pid(kinds, target.child.id());
    assert_eq!(
        script(guest.clone(), "uname -n; id -u; readlink /proc/self/ns/user"),
        format!("mine\n0\n{}", target.link("user"))
    );
    // With the user namespace comes the right to make others in it.
    assert_eq!(
        script(guest.net_ns().ipc_ns().pid_ns(), "uname -n; echo $$; tail -n +3 /proc/net/dev | wc -l"),
        "mine\n1\n1"
    );
}

/// Root is called nobody in a user namespace that does not know it, and would be root still.
#[test]
fn who_joins_a_user_namespace_that_does_not_know_it_is_nobody_outside() {
    let _clean = common::clean();
    if common::needs_root("a user namespace that does not know the caller") {
        return;
    }
    let dir = common::TempDir::new();
    let closed = dir.path().join("closed");
    fs::write(&closed, "roots").unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let id = |target: &Target, guest: &Sandbox| {
        let guest = guest.clone().join_pid(Namespaces::USER, target.child.id());
        guest.command("/bin/sh").args(["-c", &format!("id -u; id -G; cat {} 2>&1", closed.display())]).output()
    };
    let nobody = Target::new(Sandbox::new().user_ns().user(65534, 65534), "");
    let said = String::from_utf8(id(&nobody, &Sandbox::new()).unwrap().stdout).unwrap();
    assert!(said.starts_with("65534\n65534\n") && said.contains("Permission denied"), "{said}");
    let root = Target::new(Sandbox::new().user_ns(), "");
    let error = id(&root, &Sandbox::new()).unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Gid, Some(libc::EINVAL)), "{error}");
    assert!(error.remedy().unwrap().contains("user()"), "{error}");
    let said = String::from_utf8(id(&root, &Sandbox::new().user(0, 0)).unwrap().stdout).unwrap();
    assert!(said.starts_with("0\n0\n") && said.contains("Permission denied"), "{said}");
    let ourselves = Target::new(common::as_ourselves(Sandbox::new()), "");
    let said = id(&ourselves, &Sandbox::new()).unwrap().stdout;
    assert_eq!(said, b"0\n0\nroots", "whom it knows as root is root");
}

#[test]
fn a_dead_pid_is_an_error_that_names_its_file() {
    let _clean = common::clean();
    let mut child = Sandbox::new().command("/bin/true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let error = Sandbox::new().join_pid(Namespaces::USER | Namespaces::UTS, pid).output().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::JoinNamespace), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert_eq!(error.path().unwrap().to_str().unwrap(), format!("/proc/{pid}/ns/user"));
    assert!(error.remedy().unwrap().contains("no such process"));
}

#[test]
fn what_is_no_namespace_of_its_kind_is_refused_before_a_child_exists_and_named() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let open = |path: &str| File::open(path).unwrap();
    let joins = |kind| common::sandbox().join_path(kind, "/proc/self/ns/uts");
    let cases: [(Sandbox, &str, &str); 8] = [
        (
            common::sandbox().join_fd(Namespaces::NET, open("/proc/self/ns/uts")),
            "join_fd",
            "a uts namespace, not a net",
        ),
        (common::sandbox().join_fd(Namespaces::IPC, open("/dev/null")), "join_fd", "no file of a namespace"),
        (common::sandbox().join_process(Namespaces::IPC, open("/dev/null")), "join_process", "no pidfd"),
        (joins(Namespaces::NET), "join_path", "/proc/self/ns/uts: this is a uts namespace, not a net"),
        (common::sandbox().join_path(Namespaces::NET, "/dev/null"), "join_path", "/dev/null is no file"),
        // An open of it would wait for a writer.
        (common::sandbox().join_path(Namespaces::NET, &pipe), "join_path", "is no file"),
        (common::sandbox().join_path(Namespaces::NET, "/no/such/file"), "join_path", "/no/such/file: ENOENT"),
        (common::sandbox().join_path(Namespaces::NET | Namespaces::UTS, "/proc/self/ns/uts"), "join_path", "one kind"),
    ];
    for (sandbox, call, reason) in cases {
        for error in [sandbox.check().unwrap_err(), sandbox.output().unwrap_err()] {
            let [problem] = error.problems() else { panic!("{error}") };
            assert_eq!((problem.subject.as_str(), error.step()), (call, Step::Validate), "{error}");
            assert!(problem.reason.contains(reason), "{error}");
        }
    }
}

/// A pid can be another process's by now, a pidfd never.
#[test]
fn all_namespaces_of_one_process_are_joined_by_its_pidfd_in_one_call() {
    let _clean = common::clean();
    let kinds = Namespaces::all() - Namespaces::USER;
    let target = Target::new(common::sandbox().namespaces(kinds).pid_ns(), "");
    let pidfd = || target.child.pidfd().unwrap().try_clone_to_owned().unwrap();
    // For root, the user namespace is its own already, which the kernel refuses to join.
    let guest = Sandbox::new().join_process(Namespaces::all(), pidfd()).user(0, 0);
    let names = "user pid mnt net ipc uts cgroup time";
    let links = script(guest, &format!("for n in {names}; do readlink /proc/self/ns/$n; done"));
    let expected: Vec<_> = names.split(' ').map(|name| target.link(name)).collect();
    assert_eq!(links, expected.join("\n"));
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(target.link("net"), own.to_str().unwrap());
}

#[test]
fn a_process_that_has_ended_is_not_joined_whoever_has_its_number() {
    let _clean = common::clean();
    let mut target = Target::new(common::sandbox().uts_ns(), "");
    let pidfd = target.child.pidfd().unwrap().try_clone_to_owned().unwrap();
    let guest = Sandbox::new().join_process(with_user(Namespaces::UTS), pidfd).command("/bin/true");
    assert!(guest.status().unwrap().success());
    let prepared = guest.prepare().unwrap();
    target.child.kill().unwrap();
    target.child.wait().unwrap();
    let error = guest.status().unwrap_err();
    assert!(error.problems()[0].reason.contains("has ended"), "{error}");
    // What a prepared sandbox has opened are the namespaces of that process.
    assert!(prepared.status().unwrap().success());
}

/// The network is the host's: after the user namespace, nobody has a right to it.
#[test]
fn root_joins_what_belongs_to_the_host_and_the_user_namespace_last() {
    let _clean = common::clean();
    if common::needs_root("a namespace of the host") {
        return;
    }
    let host = Target::new(Sandbox::new().net_ns().uts_ns().hostname("hosts"), "");
    let users = Target::new(Sandbox::new().user_ns().ipc_ns(), "");
    let file = |name: &str, target: &Target| File::open(format!("/proc/{}/ns/{name}", target.child.id())).unwrap();
    let user = Sandbox::new().join_fd(Namespaces::USER, file("user", &users)).user(0, 0);
    let by_fd = user.join_fd(Namespaces::NET, file("net", &host)).join_fd(Namespaces::UTS, file("uts", &host));
    let both = Namespaces::USER | Namespaces::IPC;
    let pidfd = users.child.pidfd().unwrap().try_clone_to_owned().unwrap();
    let theirs = Sandbox::new().join_process(both, pidfd).user(0, 0);
    let by_process = theirs.join_pid(Namespaces::NET | Namespaces::UTS, host.child.id());
    for guest in [by_fd, by_process] {
        let said = script(guest, "uname -n; readlink /proc/self/ns/user /proc/self/ns/net");
        assert_eq!(said, format!("hosts\n{}\n{}", users.link("user"), host.link("net")));
    }
}

#[test]
fn names_and_settings_are_set_in_joined_namespaces_but_never_in_the_callers_own() {
    let _clean = common::clean();
    let kinds = Namespaces::NET | Namespaces::IPC | Namespaces::UTS;
    let pod = common::sandbox().namespaces(kinds).hostname("pod").hold_namespaces().unwrap();
    let setting = "net.ipv4.ip_unprivileged_port_start";
    let member = || Sandbox::new().join_held(&pod);
    let sets = member().hostname("member").sysctl(setting, "78").sysctl("kernel.msgmni", "99");
    let look = "uname -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmni";
    assert_eq!(script(sets, look), "member\n78\n99");
    assert_eq!(script(member(), look), "member\n78\n99", "they stay with the namespaces");
    if !common::is_root() {
        // What belongs to the host, an ordinary user cannot join at all.
        return;
    }
    let own = |kind: &str| format!("/proc/{}/ns/{kind}", std::process::id());
    for sandbox in [
        Sandbox::new().join_path(Namespaces::NET, own("net")).sysctl(setting, "79"),
        Sandbox::new().join_path(Namespaces::IPC, own("ipc")).sysctl("kernel.msgmni", "98"),
        Sandbox::new().join_path(Namespaces::UTS, own("uts")).hostname("taken"),
        Sandbox::new().join_path(Namespaces::UTS, own("uts")).domainname("taken"),
    ] {
        let error = sandbox.command("true").status().unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::JoinNamespace), "{error}");
    }
}

#[test]
fn namespaces_are_held_without_a_process_for_all_who_join_them() {
    let _clean = common::clean();
    let kinds = Namespaces::NET | Namespaces::IPC | Namespaces::UTS | Namespaces::CGROUP | Namespaces::TIME;
    let year = Duration::from_secs(365 * 86_400);
    let pod = common::sandbox().namespaces(kinds).hostname("pod").boottime_offset(TimeOffset::Ahead(year));
    let pod = pod.sysctl("net.ipv4.ip_unprivileged_port_start", "77").hold_namespaces().unwrap();
    assert_eq!(pod.kinds(), with_user(kinds));
    let names = "readlink /proc/self/ns/net; uname -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let said = script(Sandbox::new().join_held(&pod), names);
    assert_ne!(said.lines().next().unwrap(), fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    assert_eq!(said.lines().skip(1).collect::<Vec<_>>(), ["pod", "77"]);
    assert_eq!(script(Sandbox::new().join_held(&pod), names), said, "all have the same");
    let uptime = script(Sandbox::new().join_held(&pod), "cut -d. -f1 /proc/uptime");
    assert!(uptime.parse::<u64>().unwrap() > year.as_secs());
    // What one member makes, another finds, after the first has ended.
    script(Sandbox::new().join_held(&pod), "ipcmk -M 4096");
    assert_eq!(script(Sandbox::new().join_held(&pod), "tail -n +2 /proc/sysvipc/shm | wc -l"), "1");
    let reached = common::probe::run(Sandbox::new().join_held(&pod), "listen 4713");
    let mut server = reached.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(common::stdout(&common::probe::run(Sandbox::new().join_held(&pod), "connect 4713")), "connected");
}

#[test]
fn what_cannot_be_held_is_refused() {
    let _clean = common::clean();
    for (sandbox, reason) in [
        (Sandbox::new(), "no new namespace"),
        (common::sandbox().net_ns().pid_ns(), "a pid namespace is nothing"),
        (common::sandbox().namespaces(Namespaces::MOUNT), "a mnt namespace is nothing"),
        (common::sandbox().net_ns().join_pid(Namespaces::UTS, std::process::id()), "others are joined"),
    ] {
        let error = sandbox.hold_namespaces().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.problems()[0].reason.contains(reason), "{error}");
    }
}

#[test]
fn held_namespaces_are_bound_at_paths_and_taken_away_with_the_handle() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let place = dir.path().join("pod");
    fs::create_dir(&place).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut pod = common::sandbox().uts_ns().ipc_ns().hostname("bound").hold_namespaces().unwrap();
    if !common::is_root() {
        let error = pod.bind(&place).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::HoldNamespace, Some(libc::EPERM)), "{error}");
        assert!(names().is_empty(), "a bind that failed leaves no file");
        return common::skip("bind mounts of an ordinary user", false);
    }
    // A file that a reboot has left, and one that is something else.
    fs::write(place.join("ipc"), "").unwrap();
    fs::write(place.join("uts"), "text").unwrap();
    let error = pod.bind(&place).unwrap_err();
    assert_eq!(
        (error.raw_os_error(), error.path()),
        (Some(libc::EEXIST), Some(place.join("uts").as_path())),
        "{error}"
    );
    assert_eq!(fs::read_to_string(place.join("uts")).unwrap(), "text");
    fs::remove_file(place.join("uts")).unwrap();
    pod.bind(&place).unwrap();
    assert_eq!(names(), ["ipc", "uts"]);
    assert_eq!(pod.bind(&place).unwrap_err().raw_os_error(), Some(libc::EBUSY));
    let by_path = Sandbox::new().join_path(Namespaces::UTS, place.join("uts"));
    assert_eq!(script(by_path.clone(), "uname -n"), "bound");
    // The binds stay without a descriptor and without a process.
    pod.leave();
    assert_eq!(script(by_path.clone(), "uname -n"), "bound");
    let again = HeldNamespaces::open(&place).unwrap();
    assert_eq!(again.kinds(), Namespaces::UTS | Namespaces::IPC);
    assert_eq!(script(Sandbox::new().join_held(&again), "uname -n"), "bound");
    drop(again);
    assert_eq!(names(), ["ipc", "uts"], "a drop leaves what another has bound");
    HeldNamespaces::open(&place).unwrap().close().unwrap();
    assert!(names().is_empty());
    assert_eq!(HeldNamespaces::open(&place).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let mut pod = common::sandbox().uts_ns().hold_namespaces().unwrap();
    pod.bind(&place).unwrap();
    drop(pod);
    assert!(names().is_empty(), "a drop takes away what the handle has bound");
}

#[test]
fn namespaces_are_bound_only_where_nobody_else_can_put_others() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let mut pod = common::sandbox().uts_ns().hold_namespaces().unwrap();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    // Who may write to the directory above can put another one in its place.
    let inner = open.join("inner");
    fs::create_dir(&inner).unwrap();
    for error in [pod.bind(&inner).unwrap_err(), HeldNamespaces::open(&inner).unwrap_err()] {
        assert_eq!((error.step(), error.raw_os_error()), (Step::HoldNamespace, Some(libc::EPERM)), "{error}");
    }
    let mut places = vec![open, link];
    if common::is_root() {
        let theirs = dir.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(1000), Some(1000)).unwrap();
        places.push(theirs);
    } else {
        places.push("/usr".into());
    }
    for place in places {
        let bound = pod.bind(&place).unwrap_err();
        let opened = HeldNamespaces::open(&place).unwrap_err();
        for error in [bound, opened] {
            assert_eq!((error.step(), error.path()), (Step::HoldNamespace, Some(place.as_path())), "{error}");
        }
    }
}

#[test]
fn a_namespace_asked_for_twice_is_a_conflict() {
    let file = || File::open("/proc/self/ns/uts").unwrap();
    for sandbox in [
        Sandbox::new().uts_ns().join_pid(Namespaces::UTS, 1),
        Sandbox::new().join_fd(Namespaces::UTS, file()).join_pid(Namespaces::UTS, 1),
        Sandbox::new().join_fd(Namespaces::UTS | Namespaces::NET, file()),
    ] {
        let error = sandbox.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.problems().iter().any(|problem| problem.subject.starts_with("join")), "{error}");
    }
}

/// The arguments of clone3(2) as they were when `set_tid` came (5.5).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

/// Makes processes of the number `pid` in the namespaces of `of`, one each time that it is told to, and ends it when it is
/// told so; each step is answered.
fn makes_processes(of: u32, pid: i32, steps: &std::sync::mpsc::Receiver<()>, done: &std::sync::mpsc::Sender<()>) {
    for name in ["ipc", "net"] {
        let namespace = File::open(format!("/proc/{of}/ns/{name}")).unwrap();
        nix::sched::setns(namespace, nix::sched::CloneFlags::empty()).unwrap();
    }
    while steps.recv().is_ok() {
        let exit_signal = libc::SIGCHLD as u64;
        let args = CloneArgs { exit_signal, set_tid: &raw const pid as u64, set_tid_size: 1, ..CloneArgs::default() };
        // SAFETY: the arguments are of the size that is told, and the child does nothing but wait for a signal.
        let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
        if made == 0 {
            loop {
                // SAFETY: no pointer, and nothing of the parent's is touched.
                unsafe { libc::syscall(libc::SYS_pause) };
            }
        }
        assert_eq!(made, i64::from(pid), "{}", std::io::Error::last_os_error());
        done.send(()).unwrap();
        let _ = steps.recv();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(pid, None).unwrap();
        done.send(()).unwrap();
    }
}

/// Two sets of namespaces have processes of one number by turns. Who joins two namespaces of that number gets both of one
/// process, or an error: never one of each. Without the second look at the number, one of some hundred runs has one of each.
#[test]
fn a_pid_that_another_process_gets_meanwhile_is_an_error() {
    let _clean = common::clean();
    if !common::is_root() {
        return;
    }
    let targets = [(), ()].map(|()| Target::new(Sandbox::new().namespaces(Namespaces::IPC | Namespaces::NET), ""));
    let mut ended = Sandbox::new().command("/bin/true").spawn().unwrap();
    let pid = ended.id();
    ended.wait().unwrap();
    let stop = AtomicBool::new(false);
    let (mut whole, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        let makers = [0, 1].map(|one: usize| {
            let of = targets[one].child.id();
            let (step, steps) = std::sync::mpsc::channel();
            let (says, done) = std::sync::mpsc::channel();
            scope.spawn(move || makes_processes(of, pid as i32, &steps, &says));
            (step, done)
        });
        let stop = &stop;
        scope.spawn(move || {
            for (step, done) in makers.iter().cycle() {
                for _ in ["make", "end"] {
                    step.send(()).unwrap();
                    done.recv().unwrap();
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let links = targets.iter().map(|target| [target.link("ipc"), target.link("net")]).collect::<Vec<_>>();
        while whole < 1000 || failed < 20 {
            let guest = Sandbox::new().join_pid(Namespaces::IPC | Namespaces::UTS | Namespaces::NET, pid);
            match guest.command("/bin/readlink").args(["/proc/self/ns/ipc", "/proc/self/ns/net"]).output() {
                Ok(output) => {
                    let text = String::from_utf8(output.stdout).unwrap();
                    let both: Vec<String> = text.lines().map(str::to_owned).collect();
                    if !links.iter().any(|link| *link == *both) {
                        stop.store(true, Ordering::Relaxed);
                        panic!("{both:?} is of two processes: {links:?}");
                    }
                    whole += 1;
                }
                Err(error) => {
                    assert_eq!(error.step(), Step::JoinNamespace, "{error}");
                    failed += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
