//! A sandbox that one process creates and a later one starts, and what is left where the creator is killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::common::{self, probe};
use ringfence::{
    Action, Attached, Bytes, Capabilities, Command, Compare, Created, CreatedState, Error, ErrorKind, Resource, RootFs,
    Rule, Sandbox,
};
use ringfence::{Landlock, Seccomp, Stdio, Step, TerminalSize, Verdict};

common::callers! {
    |words|
    "creates" => creates(words[1], Path::new(words[2]), Path::new(words[3])),
    "creates-when-told" => creates_when_told(words[1], Path::new(words[2]), Path::new(words[3])),
    "starts" => starts(Path::new(words[1])),
    "meddles" => meddles(Path::new(words[1])),
}

/// A program that says that it ran.
const PROGRAM: &str = "echo ran $0; exit 7";

fn policy(name: &str, parent: &Path, scratch: &Path) -> Sandbox {
    let apart = || common::sandbox().pid_ns();
    let grouped = |sandbox: Sandbox| sandbox.cgroup_parent(parent).pids_limit(50).memory_limit(Bytes::mib(64));
    let on_scratch = |sandbox: Sandbox| {
        let root = RootFs::overlay([scratch.join("root")]).scratch_in(scratch);
        sandbox.rootfs(root).bind_ro("/usr", "/usr")
    };
    let sandbox = match name {
        "plain" => Sandbox::new(),
        "bare" => common::sandbox(),
        "first" => apart(),
        "init" => apart().init(true),
        "strict" => common::strict().cgroup_parent(parent).wall_time(None),
        "capable" => apart().user_ns().capabilities(Capabilities::none()).rootfs(RootFs::programs()),
        "filter" => apart().seccomp(Seccomp::default().deny(["socket", "mkdir"])),
        // The stub cannot report how its exec went.
        "silent" => apart().seccomp(Seccomp::deny_list().deny(["sendto", "sendmsg"])),
        "rules" => apart().landlock(Landlock::new().read("/").execute("/").write("/dev/null")),
        "limits" => apart().rlimit(Resource::OpenFiles, 20, 20),
        "group" => grouped(common::sandbox()),
        "group-apart" => grouped(apart().init(true)),
        "scratch" => on_scratch(apart()),
        "group-scratch" => on_scratch(grouped(apart())),
        other => panic!("no policy {other}"),
    };
    sandbox.command("/bin/sh").args(["-c", PROGRAM, name])
}

/// The policies of which this machine allows the groups.
fn policies() -> Vec<&'static str> {
    let all = ["bare", "first", "init", "strict", "capable", "filter", "silent", "limits"];
    let with_groups = ["group", "group-apart", "group-scratch"];
    let mut names: Vec<&str> = all.into_iter().chain(["scratch"]).collect();
    if common::is_root() || !common::no_cgroups() {
        names.extend(with_groups);
    }
    let rules = policy("rules", Path::new("/"), Path::new("/")).check();
    names.extend(rules.is_ok().then_some("rules"));
    names
}

fn create(name: &str, base: &Path, parent: &Path) -> Result<Created, Error> {
    let out = File::options().append(true).create(true).open(base.join("out")).unwrap();
    let sandbox = policy(name, parent, base).stdin(Stdio::null());
    sandbox.stdout(out.try_clone().unwrap()).stderr(out).create(base.join("box"))
}

fn creates(name: &str, base: &Path, parent: &Path) {
    // What a shell has left open is nothing that the sandbox gets.
    let left_open = File::open("/").unwrap();
    nix::fcntl::fcntl(&left_open, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let created = create(name, base, parent).unwrap();
    println!("{}", created.id().unwrap());
}

/// Says `go`, and when it has done so how long the create took, in microseconds.
fn creates_when_told(name: &str, base: &Path, parent: &Path) {
    // The threads of the library are there then.
    assert!(Sandbox::new().command("/bin/true").status().unwrap().success());
    println!("go");
    let began = Instant::now();
    create(name, base, parent).unwrap();
    println!("{}", began.elapsed().as_micros());
}

fn starts(dir: &Path) {
    Created::open(dir).unwrap().start().unwrap();
    println!("started");
}

/// Tries in another pid namespace what needs the sandbox's processes.
fn meddles(dir: &Path) {
    let open = || Created::open(dir).unwrap();
    let refused = [open().state().map(drop), open().signal(libc::SIGTERM), open().start(), open().remove()];
    let kinds = refused.map(|result| result.map_err(|error| (error.kind(), error.raw_os_error())));
    assert_eq!(kinds, [Err((ErrorKind::Control, None)); 4]);
    println!("refused");
}

/// The directory of a test, with the root for those policies that have one, and no sandbox left in it.
struct Base {
    dir: common::TempDir,
    parent: PathBuf,
}

impl Base {
    fn new() -> Base {
        let dir = common::TempDir::new();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        for name in ["usr", "proc", "dev", "tmp"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        for link in ["bin", "lib", "lib64"].iter().filter(|link| Path::new("/usr").join(link).exists()) {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        Base { dir, parent: common::cgroup_parent() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn dir(&self) -> PathBuf {
        self.path().join("box")
    }

    /// Has another process create the sandbox, which is over when this returns.
    fn by_another(name: &str) -> Base {
        let base = Base::new();
        let what = format!("creates {name} {} {}", base.path().display(), base.parent.display());
        let pid = probe::succeeds(probe::caller(&what));
        assert_eq!(base.open().id().unwrap().to_string(), pid, "{name}");
        base
    }

    fn here(name: &str) -> (Base, Created) {
        let base = Base::new();
        let created = create(name, base.path(), &base.parent).unwrap_or_else(|error| panic!("{name}: {error}"));
        (base, created)
    }

    fn open(&self) -> Created {
        Created::open(self.dir()).unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path().join("out")).unwrap_or_default()
    }

    /// The directories that a sandbox has left: its own, and scratch directories.
    fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let known = ["out", "root", "program"];
        entries.filter(|path| !known.contains(&path.file_name().unwrap().to_str().unwrap())).collect()
    }

    fn connect(&self) -> OwnedFd {
        let ours = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&ours, sockopt::ReceiveTimeout, &TimeVal::new(60, 0)).unwrap();
        connect(ours.as_raw_fd(), &UnixAddr::new(&self.dir().join("start")).unwrap()).unwrap();
        ours
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        if let Ok(created) = Created::open(self.dir()) {
            let _ = created.remove();
        }
    }
}

/// The groups of sandboxes that outlive their owners below this process's group of tests.
fn kept_groups() -> Vec<PathBuf> {
    let own = common::cgroup_parent();
    let own = own.strip_prefix("/").unwrap_or(&own);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let entries = mounts.filter_map(|mount| fs::read_dir(Path::new(mount).join(own)).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn tells_status() -> bool {
    common::kernel() >= (6, 15)
}

#[test]
fn a_later_process_starts_what_another_one_has_created() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for name in policies() {
        let base = Base::by_another(name);
        let created = base.open();
        assert_eq!(created.state().unwrap(), CreatedState::Created, "{name}");
        assert_eq!(fs::metadata(base.dir()).unwrap().permissions().mode() & 0o777, 0o700);
        let program = created.attached().unwrap();
        assert!(program.is_running() && program.try_wait().unwrap().is_none() && base.said().is_empty(), "{name}");
        assert_eq!(kept_groups().is_empty(), !(name.starts_with("group") || name == "strict" && has_groups()));
        // Neither the creator nor this process starts it.
        let what = format!("starts {}", base.dir().display());
        assert_eq!(probe::succeeds(probe::caller(&what)), "started", "{name}");
        match program.wait() {
            Ok(outcome) => assert_eq!(outcome.verdict(), Verdict::Exited(7), "{name}"),
            Err(error) => assert!(error.kind() == ErrorKind::StatusLost && !tells_status(), "{name}: {error}"),
        }
        assert_eq!(base.said(), format!("ran {name}\n"));
        assert_eq!(created.state().unwrap(), CreatedState::Stopped, "{name}");
        let error = created.start().unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::NotFound, Step::Start), "{name}: {error}");
        created.remove().unwrap();
        assert!(base.left().is_empty() && kept_groups().is_empty(), "{name}: {:?} {:?}", base.left(), kept_groups());
        let error = Created::open(base.dir()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

fn has_groups() -> bool {
    common::is_root() || !common::no_cgroups()
}

#[test]
fn the_creator_itself_may_start_it_and_leaves_no_zombie() {
    let _clean = common::clean();
    for name in policies() {
        let (base, created) = Base::here(name);
        let program = created.attached().unwrap();
        created.start().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(program.wait().unwrap().verdict(), Verdict::Exited(7), "{name}");
        assert_eq!(base.said(), format!("ran {name}\n"));
        created.remove().unwrap();
        assert!(base.left().is_empty(), "{name}: {:?}", base.left());
    }
}

#[test]
fn what_was_never_started_is_removed_whole() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for name in policies() {
        let base = Base::by_another(name);
        let created = base.open();
        let pid = created.id().unwrap();
        created.remove().unwrap();
        assert!(base.left().is_empty() && kept_groups().is_empty(), "{name}: {:?} {:?}", base.left(), kept_groups());
        common::eventually("it is reaped", || !Path::new(&format!("/proc/{pid}")).exists());
        assert_eq!(base.said(), "", "{name}");
    }
}

/// The protocol with every number written out: this is what each version says to each other one.
#[test]
fn eight_bytes_start_the_program_and_no_others_do() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let base = Base::by_another("first");
    let wrong: [&[u8]; 7] = [b"RFSTART2", b"RFSTART", b"RFSTART1\0", b"rfstart1", &[0; 8], &[b'x'; 4096], b"R"];
    for bytes in wrong {
        let connection = base.connect();
        send(connection.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
        let closed = recv(connection.as_raw_fd(), &mut [0; 16], MsgFlags::empty());
        assert!(matches!(closed, Ok(0) | Err(nix::errno::Errno::ECONNRESET)), "{bytes:?}: {closed:?}");
    }
    // Who goes without a word, or passes a descriptor, changes nothing either.
    for _ in 0..20 {
        drop(base.connect());
    }
    assert_eq!(base.open().state().unwrap(), CreatedState::Created);
    assert_eq!(base.said(), "");
    let connection = base.connect();
    send(connection.as_raw_fd(), &[0x52, 0x46, 0x53, 0x54, 0x41, 0x52, 0x54, 0x31], MsgFlags::MSG_NOSIGNAL).unwrap();
    let mut record = [0; 64];
    assert_eq!(recv(connection.as_raw_fd(), &mut record, MsgFlags::empty()), Ok(16));
    assert_eq!(&record[..4], &4u32.to_ne_bytes(), "about to execute");
    assert_eq!(recv(connection.as_raw_fd(), &mut record, MsgFlags::empty()), Ok(0), "executed");
    common::eventually("the program has run", || base.said() == "ran first\n");

    let base = Base::new();
    let program = base.path().join("program");
    fs::copy("/bin/true", &program).unwrap();
    let created = common::sandbox().command(&program).create(base.dir()).unwrap();
    fs::remove_file(&program).unwrap();
    let connection = base.connect();
    send(connection.as_raw_fd(), b"RFSTART1", MsgFlags::MSG_NOSIGNAL).unwrap();
    let mut kinds = Vec::new();
    while recv(connection.as_raw_fd(), &mut record, MsgFlags::empty()) == Ok(16) {
        kinds.push(u32::from_ne_bytes(record[..4].try_into().unwrap()));
    }
    assert_eq!(kinds, [4, 2]);
    assert_eq!(&record[8..12], &libc::ENOENT.to_ne_bytes());
    created.remove().unwrap();
}

#[test]
fn nothing_enters_a_sandbox_that_waits_for_its_start() {
    let _clean = common::clean();
    let base = Base::new();
    let sandbox = common::sandbox().pid_ns().init(true).seccomp(Seccomp::default().deny(["mkdir"]));
    let created = sandbox.command("sleep").arg("1000").create(base.dir()).unwrap();
    let by_handle = created.attached().unwrap();
    let by_ticket = Attached::open(&created.ticket().unwrap().to_string().parse().unwrap()).unwrap();
    for attached in [&by_handle, &by_ticket] {
        let error = attached.exec("true").unwrap_err();
        let is = (error.kind(), error.step(), error.raw_os_error());
        assert_eq!(is, (ErrorKind::Control, Step::Enter, Some(libc::EAGAIN)), "{error}");
    }
    created.start().unwrap();
    for attached in [&by_handle, &by_ticket] {
        assert!(attached.exec_output("true").unwrap().outcome.success());
    }
    // Where nothing tells, nothing enters.
    let moved = base.path().join("moved");
    fs::rename(base.dir(), &moved).unwrap();
    assert_eq!(by_ticket.exec("true").unwrap_err().kind(), ErrorKind::Control);
    fs::create_dir(base.dir()).unwrap();
    let error = by_ticket.exec("true").unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Control, Some(libc::ESTALE)), "{error}");
    fs::remove_dir(base.dir()).unwrap();
    fs::rename(&moved, base.dir()).unwrap();
    created.remove().unwrap();
}

#[test]
fn rules_of_landlock_hold_for_further_programs_of_a_sandbox_that_was_started_later() {
    let _clean = common::clean();
    let base = Base::new();
    let (open, closed) = (base.path().join("open"), base.path().join("closed"));
    [&open, &closed].iter().for_each(|file| fs::write(file, "x").unwrap());
    let programs = ["/usr", "/bin", "/lib", "/lib64"].iter().filter(|dir| Path::new(dir).exists());
    let rules = programs.fold(Landlock::new().read("/etc").read(&open), |rules, dir| rules.execute(*dir));
    let sandbox = common::sandbox().pid_ns().landlock(rules.write("/dev/null")).command("sleep").arg("1000");
    if sandbox.check().is_err() {
        return common::skip("Landlock", true);
    }
    let created = sandbox.create(base.dir()).unwrap();
    created.start().unwrap();
    let by_ticket = Attached::open(&created.ticket().unwrap().to_string().parse().unwrap()).unwrap();
    for (file, is_open) in [(&open, true), (&closed, false)] {
        let output = by_ticket.exec_output(Command::new("/bin/cat").arg(file)).unwrap();
        assert_eq!(output.outcome.success(), is_open, "{output:?}");
    }
    created.remove().unwrap();
}

#[test]
fn from_another_pid_namespace_a_sandbox_is_not_taken_for_one_that_has_ended() {
    let _clean = common::clean();
    let base = Base::new();
    let created = common::sandbox().pid_ns().command("sleep").arg("1000").create(base.dir()).unwrap();
    for is_started in [false, true] {
        if is_started {
            created.start().unwrap();
        }
        let what = format!("meddles {}", base.dir().display());
        let elsewhere = common::sandbox().pid_ns().command(std::env::current_exe().unwrap());
        let output = elsewhere.env("RINGFENCE_CALLER", what).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "refused", "{output:?}");
        let state = if is_started { CreatedState::Running } else { CreatedState::Created };
        assert_eq!(created.state().unwrap(), state);
    }
    created.remove().unwrap();
    assert!(base.left().is_empty());
}

#[test]
fn a_program_does_not_run_after_its_start_has_timed_out() {
    let _clean = common::clean();
    let base = Base::new();
    let out = File::create(base.path().join("out")).unwrap();
    let sandbox = common::sandbox().pid_ns().command("/bin/sh").args(["-c", "echo ran"]).stdout(out);
    let created = sandbox.setup_timeout(Duration::from_secs(2)).create(base.dir()).unwrap();
    created.signal(libc::SIGSTOP).unwrap();
    let error = created.start().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Timeout, Step::Start), "{error}");
    // ESRCH: it has ended by now.
    let _ = created.signal(libc::SIGCONT);
    common::eventually("it has ended", || created.state().unwrap() == CreatedState::Stopped);
    assert_eq!(base.said(), "");
    created.remove().unwrap();
    assert_eq!(base.said(), "");
}

#[test]
fn a_second_start_is_refused() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let base = Base::new();
    let created = common::sandbox().pid_ns().command("sleep").arg("1000").create(base.dir()).unwrap();
    let other = base.open();
    created.start().unwrap();
    for handle in [&created, &other, &base.open()] {
        assert_eq!(handle.state().unwrap(), CreatedState::Running);
        let error = handle.start().unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Control, Some(libc::EALREADY)), "{error}");
    }
    assert!(!base.dir().join("start").exists(), "nobody connects any more");
    created.signal(libc::SIGKILL).unwrap();
    common::eventually("it has ended", || other.state().unwrap() == CreatedState::Stopped);
    assert_eq!(other.signal(libc::SIGTERM).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    created.remove().unwrap();
}

#[test]
fn of_many_starts_at_once_one_wins() {
    let _clean = common::clean();
    let base = Base::new();
    let created = common::sandbox().pid_ns().command("sleep").arg("1000").create(base.dir()).unwrap();
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| base.open().start())).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|result| match result {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Control, "{error}");
                    false
                }
            })
            .count()
    });
    assert_eq!(started, 1);
    created.remove().unwrap();
}

#[test]
fn a_missing_program_is_an_error_of_the_create_and_one_that_has_gone_of_the_start() {
    let _clean = common::clean();
    let base = Base::new();
    let program = base.path().join("program");
    let sandbox = |command: &Path| common::sandbox().pid_ns().command(command).env("PATH", "/usr/bin:/bin");
    let create = |sandbox: &Sandbox| sandbox.create(base.dir()).map(drop).unwrap_err();
    fs::write(&program, "not to be executed").unwrap();
    let missing = [
        (Path::new("/no/such/program"), libc::ENOENT),
        (Path::new("no-such-program-anywhere"), libc::ENOENT),
        (Path::new("/etc"), libc::EACCES),
        (&program, libc::EACCES),
        (&program.join("below"), libc::ENOENT),
    ];
    for (command, errno) in missing {
        let errors = [create(&sandbox(command)), sandbox(command).spawn().map(drop).unwrap_err()];
        for error in errors {
            let what = (error.kind(), error.step(), error.raw_os_error(), error.path());
            assert_eq!(what, (ErrorKind::Exec, Step::Exec, Some(errno), Some(command)), "{error}");
        }
        assert!(base.left().is_empty(), "{:?}", base.left());
    }
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let silent = Seccomp::deny_list().deny(["sendto", "sendmsg"]);
    for sandbox in [sandbox(&program), sandbox(&program).init(true), sandbox(&program).seccomp(silent)] {
        let created = sandbox.create(base.dir()).unwrap();
        let kept = base.path().join("root/program");
        fs::rename(&program, &kept).unwrap();
        // By a process that has nothing but the record.
        let error = base.open().start().unwrap_err();
        let what = (error.kind(), error.step(), error.raw_os_error(), error.path());
        assert_eq!(what, (ErrorKind::Exec, Step::Exec, Some(libc::ENOENT), Some(&*program)), "{error}");
        common::eventually("it has ended", || created.state().unwrap() == CreatedState::Stopped);
        created.remove().unwrap();
        fs::rename(&kept, &program).unwrap();
        assert!(base.left().is_empty());
    }
    // The filter explains itself.
    let refuses = Seccomp::deny_list().rule(Rule::new(["execve"], Action::Errno(libc::EDOM)).arg(0, Compare::Ge(4096)));
    let created = sandbox(&program).seccomp(refuses).create(base.dir()).unwrap();
    let error = base.open().start().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EDOM), "{error}");
    assert!(error.to_string().contains("seccomp profile"), "{error}");
    created.remove().unwrap();
}

#[test]
fn each_failed_op_is_an_error_of_the_create_or_of_the_start_and_leaves_nothing() {
    let _clean = common::clean();
    let name = if has_groups() { "group-scratch" } else { "scratch" };
    let (mut of_create, mut of_start) = (0, 0);
    for index in 0.. {
        let base = Base::new();
        let sandbox = policy(name, &base.parent, base.path()).fail_at(index, libc::EDOM);
        let sandbox = sandbox.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match sandbox.create(base.dir()) {
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EDOM), "{index}: {error}");
                assert!(base.left().is_empty() && of_start == 0, "{index}: {error}: {:?}", base.left());
                of_create += 1;
            }
            Ok(created) => {
                let result = created.start();
                created.remove().unwrap();
                assert!(base.left().is_empty(), "{index}: {:?}", base.left());
                match result {
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EDOM), "{index}: {error}"),
                    // What the plan tolerates is no failure, and behind its end there is nothing.
                    Ok(()) if of_start > 0 => break,
                    Ok(()) => continue,
                }
                of_start += 1;
            }
        }
    }
    assert!(of_create > 20 && of_start >= 2, "{of_create} {of_start}");
}

#[test]
fn the_one_that_waits_has_nothing_but_its_streams_and_the_socket() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for name in ["plain", "bare", "first", "init", "capable"] {
        let base = Base::by_another(name);
        let pid = base.open().id().unwrap();
        let fds = fs::read_dir(format!("/proc/{pid}/fd"));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let kib: u64 = field("VmRSS:").trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 200, "{name} takes {kib} KiB");
        assert_eq!(field("Threads:"), "1", "{name}");
        // Nobody of the same user looks into it, but who has made its user namespace.
        if !common::is_root() && name == "plain" {
            assert_eq!(fds.map(drop).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "{name}");
            continue;
        }
        let mut open: BTreeMap<u32, String> = BTreeMap::new();
        for fd in fds.unwrap() {
            let path = fd.unwrap().path();
            let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            open.insert(number, fs::read_link(path).unwrap().to_string_lossy().into_owned());
        }
        if name == "init" {
            assert!(open.is_empty(), "{name}: {open:?}");
            continue;
        }
        let out = base.path().join("out").to_string_lossy().into_owned();
        let streams: Vec<&String> = open.range(..3).map(|(_, what)| what).collect();
        assert_eq!(streams, ["/dev/null", &out, &out], "{name}");
        let rest: Vec<&String> = open.range(3..).map(|(_, what)| what).collect();
        assert!(rest.len() == 1 && rest[0].starts_with("socket:"), "{name}: {open:?}");
    }
}

#[test]
fn further_descriptors_reach_the_program() {
    let _clean = common::clean();
    let base = Base::new();
    let out = File::create(base.path().join("out")).unwrap();
    let text = "cat <&7; cat /proc/self/fd/200; ls /proc/self/fd | tr '\\n' ' '";
    let sandbox = common::sandbox().command("/bin/sh").args(["-c", text]).stdin(Stdio::null()).stdout(out);
    let sandbox = sandbox.fd(7, common::text("seven ")).fd(200, common::text("two hundred "));
    let created = sandbox.create(base.dir()).unwrap();
    let program = created.attached().unwrap();
    created.start().unwrap();
    assert!(program.wait().unwrap().success());
    // The last one is the directory of ls.
    assert_eq!(base.said(), "seven two hundred 0 1 2 200 3 7 ");
    created.remove().unwrap();
}

#[test]
fn what_would_need_the_creator_is_refused_by_name() {
    let _clean = common::clean();
    let base = Base::new();
    let sandbox = || Sandbox::new().command("/bin/true");
    let terminal = || sandbox().stdin(Stdio::pty(TerminalSize { rows: 24, columns: 80 }));
    // The one that waits calls it.
    let asks = Seccomp::deny_list().rule(Rule::new(["accept4"], Action::Notify));
    let mut refused = vec![
        ("stdout", sandbox().stdout(Stdio::piped())),
        ("output_limit", terminal().output_limit(Bytes::mib(1))),
        ("wall_time", sandbox().wall_time(Duration::from_secs(1))),
        ("notify_socket", sandbox().seccomp(asks).notify_socket("/no/agent", |_| Vec::new())),
        ("denials", sandbox().seccomp(Seccomp::default()).denials(true)),
        ("timings", sandbox().timings(true)),
    ];
    if has_groups() {
        let counted = sandbox().cgroup_parent(common::cgroup_parent()).pids_limit(10);
        refused.push(("cpu_time", counted.cpu_time(Duration::from_secs(1))));
    }
    for (name, sandbox) in refused {
        let error = sandbox.create(base.dir()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
        assert!(error.problems().iter().any(|problem| problem.subject == name), "{name}: {error}");
        assert!(error.problems().iter().all(|problem| !problem.remedy.is_empty()));
        assert!(base.left().is_empty());
    }
}

#[test]
fn a_directory_that_is_not_its_own_is_refused() {
    let _clean = common::clean();
    let base = Base::new();
    let sandbox = Sandbox::new().command("/bin/true");
    let error = |error: Error| (error.kind(), error.raw_os_error());
    fs::create_dir(base.dir()).unwrap();
    assert_eq!(error(sandbox.create(base.dir()).unwrap_err()), (ErrorKind::Setup, Some(libc::EEXIST)));
    // Others can read it.
    fs::set_permissions(base.dir(), fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(error(Created::open(base.dir()).unwrap_err()), (ErrorKind::Control, Some(libc::EPERM)));
    fs::set_permissions(base.dir(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(base.dir().join("else"), "").unwrap();
    let other = Created::open(base.dir()).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Control, "{other}");
    fs::remove_file(base.dir().join("else")).unwrap();
    // A machine that went down has left an empty one.
    fs::write(base.dir().join("record"), "").unwrap();
    assert_eq!(Created::open(base.dir()).unwrap().state().unwrap(), CreatedState::Unfinished);
    for text in ["\n", "ringfence-created2\n\n", "ringfence-created1,process=1\n\n"] {
        fs::write(base.dir().join("record"), text).unwrap();
        let other = Created::open(base.dir()).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Control, "{other}");
    }
    let record = File::create(base.dir().join("record")).unwrap();
    record.set_len(1 << 40).unwrap();
    assert_eq!(Created::open(base.dir()).unwrap_err().kind(), ErrorKind::TooLarge);
    fs::remove_dir_all(base.dir()).unwrap();
    assert_eq!(error(Created::open(base.dir()).unwrap_err()), (ErrorKind::NotFound, Some(libc::ENOENT)));
    std::os::unix::fs::symlink("root", base.dir()).unwrap();
    assert!(sandbox.create(base.dir()).is_err() && Created::open(base.dir()).is_err());
    fs::remove_file(base.dir()).unwrap();
    // Others could put another directory in its place.
    let open = base.path().join("root/tmp");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(error(sandbox.create(open.join("box")).unwrap_err()), (ErrorKind::Setup, Some(libc::EPERM)));
}

#[test]
fn the_directory_is_made_where_it_was_looked_for_and_a_link_that_changes_moves_nothing() {
    let _clean = common::clean();
    let base = Base::new();
    let (root, link) = (base.path().join("root"), base.path().join("link"));
    std::os::unix::fs::symlink("root/tmp", &link).unwrap();
    let created = Sandbox::new().command("/bin/true").create(link.join("box")).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("root/usr", &link).unwrap();
    assert_eq!(created.dir(), fs::canonicalize(&root).unwrap().join("tmp/box"));
    created.remove().unwrap();
    assert!(!root.join("tmp/box").exists());
    fs::remove_file(&link).unwrap();
}

#[test]
fn one_that_was_killed_while_it_waited_is_told_and_removed() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for name in ["first", "init"] {
        let base = Base::by_another(name);
        let created = base.open();
        created.signal(libc::SIGKILL).unwrap();
        common::eventually("it is gone", || created.state().unwrap() == CreatedState::Stopped);
        let error = base.open().start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
        base.open().remove().unwrap();
        assert!(base.left().is_empty(), "{name}");
    }
}

#[test]
fn a_named_group_goes_if_it_was_made_and_stays_if_it_was_there() {
    let _clean = common::clean();
    if common::needs_root("a group of this name") || common::no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    let parent = common::cgroup_parent();
    for there in [false, true] {
        let base = Base::new();
        let path = parent.join("named");
        let sandbox = common::sandbox().pid_ns().cgroup(&path).pids_limit(20).command("sleep").arg("1000");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(" - cgroup") && there);
        let below = |mount| Path::new(mount).join(path.strip_prefix("/").unwrap());
        let made = mounts.filter_map(|line| line.split(' ').nth(4)).map(below);
        let made: Vec<PathBuf> = made.filter(|dir| fs::create_dir_all(dir).is_ok()).collect();
        let dirs = || kept_groups().into_iter().filter(|dir| dir.ends_with("named")).count();
        let before = dirs();
        assert_eq!(before > 0, there);
        let created = sandbox.create(base.dir()).unwrap();
        created.start().unwrap();
        assert!(created.attached().unwrap().stats().unwrap().pids_current.is_some());
        let pid = created.id().unwrap();
        assert!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().contains("/named\n"));
        drop(created);
        base.open().remove().unwrap();
        assert_eq!(dirs(), before, "{there}");
        for dir in made {
            fs::remove_dir(&dir).unwrap();
            fs::remove_dir(dir.parent().unwrap()).unwrap();
        }
    }
}

/// Returns whether a group can be marked as that of a sandbox.
fn are_marked(groups: &[PathBuf]) -> bool {
    common::kernel() >= (5, 7) && groups.iter().any(|dir| dir.join("cgroup.events").exists())
}

#[test]
fn removing_a_sandbox_leaves_alone_the_one_that_has_its_group_now() {
    let _clean = common::clean();
    if common::needs_root("a group of this name") || common::no_cgroups() {
        return;
    }
    let base = Base::new();
    let path = common::cgroup_parent().join("named");
    let sandbox = || common::sandbox().pid_ns().cgroup(&path).pids_limit(20).command("sleep");
    let created = sandbox().arg("0").create(base.dir()).unwrap();
    let program = created.pidfd().unwrap().try_clone_to_owned().unwrap();
    created.start().unwrap();
    common::eventually("the program has ended", || created.state().unwrap() == CreatedState::Stopped);
    drop((created, program));
    let mut next = sandbox().arg("1000").spawn().unwrap();
    let groups = kept_groups();
    let removed = base.open().remove();
    // Where nothing tells whose the group is, the removal is refused.
    assert_eq!(removed.is_ok(), are_marked(&groups), "{removed:?}");
    assert!(next.try_wait().unwrap().is_none(), "the other one was killed");
    assert_eq!(kept_groups(), groups);
    next.kill().unwrap();
    next.wait().unwrap();
    drop(next);
    if removed.is_err() {
        base.open().remove().unwrap();
    }
    // The group was there when the second one came, so it stays.
    for dir in kept_groups() {
        fs::remove_dir(&dir).unwrap();
        let _ = fs::remove_dir(dir.parent().unwrap());
    }
}

#[test]
fn what_a_program_has_left_in_a_named_group_is_killed() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a group of this name") || common::no_cgroups() {
        return;
    }
    let base = Base::new();
    let path = common::cgroup_parent().join("named");
    let sandbox = common::sandbox().cgroup(&path).pids_limit(20).stdin(Stdio::null()).stdout(Stdio::null());
    let created = sandbox.command("/bin/sh").args(["-c", "sleep 1000 & exit 0"]).create(base.dir()).unwrap();
    created.start().unwrap();
    common::eventually("the program has ended", || created.state().unwrap() == CreatedState::Stopped);
    let groups = kept_groups();
    let is_marked = are_marked(&groups);
    match created.remove() {
        Ok(()) => assert!(is_marked),
        Err(error) => {
            assert!(!is_marked && error.raw_os_error() == Some(libc::EBUSY), "{error}");
            let pids = fs::read_to_string(groups[0].join("cgroup.procs")).unwrap();
            pids.lines().for_each(|pid| {
                let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
            });
            base.open().remove().unwrap();
        }
    }
    assert!(kept_groups().is_empty(), "{:?}", kept_groups());
}

/// Kills the creator at many moments of its work: what is left can be opened and removed, and nothing runs on that is
/// not on record.
#[test]
fn a_creator_that_is_killed_leaves_nothing_or_something_on_record() {
    const TIMES: u32 = 32;
    let _clean = common::clean();
    let _reaping = common::reaping();
    let name = if has_groups() { "group-scratch" } else { "scratch" };
    let begin = |base: &Base| {
        let what = format!("creates-when-told {name} {} {}", base.path().display(), base.parent.display());
        let mut creator = probe::caller(&what).stdout(process::Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(creator.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "go\n");
        (creator, said)
    };
    let base = Base::new();
    let (mut creator, mut said) = begin(&base);
    let mut took = String::new();
    said.read_to_string(&mut took).unwrap();
    assert!(creator.wait().unwrap().success());
    let took = Duration::from_micros(took.trim().parse().unwrap());
    base.open().remove().unwrap();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for time in 0..TIMES {
        let base = Base::new();
        let (mut creator, _said) = begin(&base);
        std::thread::sleep(took * time / (TIMES * 3 / 4));
        creator.kill().unwrap();
        creator.wait().unwrap();
        let state = match Created::open(base.dir()) {
            Ok(created) => {
                let state = created.state().unwrap();
                // One that lost its owner before the owner's last word still listens for a moment.
                let is_dying = |error: &Error| matches!(error.kind(), ErrorKind::SetupDied | ErrorKind::NotFound);
                if state == CreatedState::Created
                    && let Err(error) = created.start()
                {
                    assert!(is_dying(&error) || created.state().unwrap() == CreatedState::Stopped, "{error}");
                }
                created.remove().unwrap_or_else(|error| panic!("{state:?}: {error}"));
                format!("{state:?}")
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                "nothing".to_owned()
            }
        };
        assert!(state != "Running", "nobody has started it");
        *seen.entry(state.clone()).or_default() += 1;
        // A stub that has lost its owner needs a moment to see that.
        common::eventually("nothing is left", || {
            let _ = ringfence::reap_stale();
            base.left().is_empty() && kept_groups().is_empty()
        });
    }
    println!("{seen:?} within {took:?}");
    assert!(seen.len() > 1, "every kill came at the same step: {seen:?}");
}
