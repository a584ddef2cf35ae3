//! Processes and descriptors.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio as Std};
use std::time::{Duration, Instant};

use ringfence::{Bytes, Capabilities, Capability, Namespaces, RootFs, Sandbox, Seccomp, Stdio, Step, Tmpfs, Verdict};

use crate::{Answers, attack, attack_at, attack_inside, attack_strict, common};

/// CVE-2019-5736. The program of init, which enters before the program, is a sealed copy for this
/// sandbox alone.
#[test]
fn the_program_that_enters_cannot_be_overwritten() {
    let _clean = common::clean();
    let answers = attack(common::sandbox().pid_ns().init(true), "overwrite-exe 1");
    // Without the right to look at it, it cannot be opened at all.
    if answers.0.iter().any(|(name, _)| name == "opened") {
        assert_eq!(answers.get("sealed"), "true");
        assert!(["EPERM", "ETXTBSY", "EROFS"].contains(&answers.get("write")), "{answers:?}");
    } else {
        assert_eq!(answers.get("write"), "EACCES");
    }
    // The same against a program of the host's that runs as the same user.
    let dir = common::TempDir::new();
    let victim = dir.path().join("victim");
    fs::copy("/bin/sleep", &victim).unwrap();
    let mut running = Command::new(&victim).arg("0.3").spawn().unwrap();
    let bare = attack(Sandbox::new(), &format!("overwrite-exe {}", running.id()));
    running.wait().unwrap();
    assert_eq!((bare.get("sealed"), bare.get("write")), ("false", "ok"));
    assert!(fs::read(&victim).unwrap().starts_with(b"attacked"));
}

/// CVE-2019-5736 from the other side: `/proc/self/exe` as the program is not what spawns, nor
/// anything else of the host's.
#[test]
fn proc_self_exe_as_the_program_is_nothing_of_the_hosts() {
    let _clean = common::clean();
    let output = attack_at(common::sandbox().pid_ns(), "/proc/self/exe", "whoami").output();
    let said = output.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into());
    assert!(!said.contains("euid="), "the caller's own program ran: {said}");
    let own = Command::new("/proc/self/exe").env("RINGFENCE_ATTACK", "whoami").output().unwrap();
    assert!(String::from_utf8_lossy(&own.stdout).contains("euid="), "as it does without a stub in between");
}

/// CVE-2016-9962. A process on its way in shows nothing of itself to those inside, though they are
/// of the same user.
#[test]
fn nobody_looks_into_a_process_on_its_way_in() {
    let _clean = common::clean();
    let kinds = Namespaces::USER | Namespaces::PID | Namespaces::MOUNT;
    let exe = std::env::current_exe().unwrap();
    let host = Sandbox::new().user_ns().pid_ns();
    let mut child = attack_at(host, exe.to_str().unwrap(), "peek").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready=yes");
    let until = Instant::now() + Duration::from_millis(1300);
    while Instant::now() < until {
        let joiner = Sandbox::new().join_pid(kinds, child.id()).user(0, 0);
        let status = joiner.command("/bin/sleep").arg("0.01").status();
        assert!(status.unwrap().success());
    }
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    child.wait().unwrap();
    let answers = Answers::of(&said.join("\n"));
    assert!(!answers.get("coming").contains("seen"), "{answers:?}");
    assert!(answers.get("coming").contains("EACCES"), "none was met on its way: {answers:?}");
    assert!(answers.get("arrived").contains("seen"), "the attack itself works: {answers:?}");
}

/// CVE-2016-9962 with the right to look. A process inside that may inspect others meets one that enters only when that one
/// has given up all that the sandbox's programs do not have.
#[test]
fn whoever_enters_is_seen_with_the_rights_of_the_sandbox_alone() {
    let _clean = common::clean();
    if common::needs_root("capabilities outside of a user namespace") {
        return;
    }
    let kept = [Capability::CAP_SYS_PTRACE, Capability::CAP_CHOWN];
    let sandbox = Sandbox::new().pid_ns().rootfs(RootFs::programs()).capabilities(Capabilities::keep(kept));
    is_seen_with_the_rights_of(sandbox.clone());
    // CAP_SYS_ADMIN, which this filter needs, is gone as well.
    let filtered = sandbox.clone().seccomp(Seccomp::default().allow(["ptrace"]).allow_new_privs(true));
    is_seen_with_the_rights_of(filtered.clone());
    // One with other rights has those, and never more: neither the caller's nor the sandbox's.
    for sandbox in [sandbox, filtered] {
        is_seen_with(
            sandbox,
            &|command| command.user(0, 0).capabilities(Capabilities::keep([Capability::CAP_KILL])),
            1 << 5,
        );
    }
}

fn is_seen_with_the_rights_of(sandbox: Sandbox) {
    let kept = [Capability::CAP_SYS_PTRACE, Capability::CAP_CHOWN];
    let bits = kept.iter().fold(0, |all, capability| all | 1 << *capability as u8);
    is_seen_with(sandbox, &|command| command, bits);
}

/// `given` are the capabilities that those who enter are to have.
fn is_seen_with(sandbox: Sandbox, say: &dyn Fn(ringfence::Command) -> ringfence::Command, given: u64) {
    let exe = std::env::current_exe().unwrap();
    let sandbox = attack_at(sandbox.bind_ro(exe, "/tmp/attack"), "/tmp/attack", "seize");
    let mut child = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let own = lines.next().unwrap();
    for _ in 0..200 {
        let command = ringfence::Command::new("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        child.exec(say(command)).unwrap().wait().unwrap();
    }
    drop(child.stdin.take());
    let answers = Answers::of(&[own].into_iter().chain(lines).collect::<Vec<_>>().join("\n"));
    child.wait().unwrap();
    let bits = |name: &str| u64::from_str_radix(answers.get(name), 16).unwrap();
    assert!(answers.get("seized").parse::<u32>().unwrap() > 20, "the attack itself works: {answers:?}");
    assert_eq!(bits("own").count_ones(), 2);
    assert_eq!(bits("held") & !given, 0, "more than it was to have: {answers:?}");
    // Its streams, the report's socket, and the pipes by which it knows its owner and its parent.
    let open: Vec<&str> = answers.get("open").split(',').collect();
    assert!(
        open.contains(&"socket") && open.iter().all(|file| ["/dev/null", "pipe", "socket"].contains(file)),
        "{answers:?}"
    );
}

/// CVE-2024-21626. No descriptor of the host's is left, and none can be the working directory.
#[test]
fn no_descriptor_leads_out() {
    let _clean = common::clean();
    let (root, outside) = (common::root_dir(), common::TempDir::new());
    fs::write(outside.path().join("marker"), "host").unwrap();
    let sandbox = common::on_root(common::sandbox(), &root).pid_ns();
    for number in 3..24 {
        for up in ["", "/..", "/../../.."] {
            let cwd = format!("/proc/self/fd/{number}{up}");
            if let Ok(output) = sandbox.clone().command("/bin/ls").cwd(&cwd).output() {
                let listed = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(!listed.contains("marker") && !listed.contains("boot"), "{cwd}: {listed}");
            }
        }
    }
    // The same with a descriptor that is given on purpose: it shows the host, and as a working directory is refused.
    let given: OwnedFd = File::open(outside.path()).unwrap().into();
    let sandbox = sandbox.fd(7, given);
    assert_eq!(common::stdout(&sandbox.clone().command("/bin/ls").arg("/proc/self/fd/7/")), "marker");
    let open = File::open(outside.path()).unwrap();
    let host = Command::new("/bin/ls").current_dir(format!("/proc/self/fd/{}", open.as_raw_fd())).output().unwrap();
    assert_eq!(host.stdout, b"marker\n", "nothing stops it without a sandbox");
    for number in 3..24 {
        let error = sandbox.clone().command("/bin/ls").cwd(format!("/proc/self/fd/{number}")).output();
        let leaked = error.is_ok_and(|output| output.stdout == b"marker\n");
        assert!(!leaked, "by descriptor {number}");
    }
}

/// CVE-2022-29162. A caller's inheritable capabilities do not pass.
#[test]
fn inheritable_capabilities_of_the_caller_do_not_pass() {
    let _clean = common::clean();
    let kept = [Capability::CAP_CHOWN, Capability::CAP_NET_RAW, Capability::CAP_SETPCAP];
    let with = common::sandbox().capabilities(Capabilities::keep(kept).inheritable([Capability::CAP_NET_RAW]));
    let answers = attack(with, "inheritable");
    assert_eq!(answers.get("plain"), "0000000000002000", "the caller has them, and an ordinary child too");
    assert_eq!(answers.get("sandbox"), "0000000000000000");
}

/// CVE-2017-5226, CVE-2019-7303. Nothing is typed into the caller's terminal.
#[test]
fn nothing_is_typed_into_the_terminal() {
    let _clean = common::clean();
    let terminal = || {
        let pty = nix::pty::openpty(None, None).unwrap();
        (pty.master, Stdio::from(pty.slave))
    };
    let (_master, slave) = terminal();
    let answers = attack_inside(common::strict().stdin(slave), "terminal");
    for name in ["TIOCSTI", "high", "TIOCLINUX"] {
        assert_eq!(answers.get(name), "EPERM", "{answers:?}");
    }
    let (_master, slave) = terminal();
    let bare = attack(common::sandbox().session(ringfence::Session::New).stdin(slave), "terminal");
    assert_eq!(bare.get("own"), "0", "{bare:?}");
    // Since 6.2 a kernel may refuse all but root, with EIO.
    assert!(["0", "EIO"].contains(&bare.get("TIOCSTI")) && bare.get("TIOCSTI") == bare.get("high"), "{bare:?}");
    assert!(!common::is_root() || bare.get("TIOCSTI") == "0", "{bare:?}");
}

/// A program that is out to survive its owner does not: death follows the owner's process, not the
/// thread that spawned.
#[test]
fn the_owners_death_ends_what_is_out_to_survive() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let mut owner = Command::new(std::env::current_exe().unwrap());
    let mut owner = owner.env("RINGFENCE_ATTACK", "owner").stdout(Std::piped()).spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let both = [lines.next(), lines.next()].map(|line| line.unwrap().unwrap());
    let answers = Answers::of(&both.join("\n"));
    let lives = |pid: &str| {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
    };
    assert!(lives(answers.get("true")) && lives(answers.get("false")), "the thread that spawned has ended");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while lives(answers.get("true")) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!lives(answers.get("true")));
    assert!(lives(answers.get("false")), "without the defence it lives on");
    // SAFETY: no memory is involved; the process is the one that this test had made.
    unsafe { libc::kill(answers.get("false").parse().unwrap(), libc::SIGKILL) };
    ringfence::reap_stale().unwrap();
}

/// Signals to the numbers that processes have outside: no process outside has a number inside.
#[test]
fn no_signal_reaches_a_process_outside() {
    let _clean = common::clean();
    let mut victim = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let (number, own) = (victim.id().to_string(), std::process::id());
    let answers = attack(common::sandbox().pid_ns(), &format!("kill {number} {own} -{own}"));
    for pid in [number.clone(), own.to_string(), format!("-{own}")] {
        assert_eq!(answers.get(&pid), "ESRCH");
    }
    assert!(victim.try_wait().unwrap().is_none());
    assert_eq!(attack(Sandbox::new(), &format!("kill {number}")).get(&number), "ok");
    assert!(victim.wait().unwrap().code().is_none(), "without a pid namespace it dies");
}

/// The number of a program that has ended goes to another process: a handle holds the process, not
/// its number.
#[test]
fn a_number_given_to_another_process_is_nothing_to_a_handle() {
    let _clean = common::clean();
    // The pid namespace's root sets its next number.
    let answers = attack(Sandbox::new().user_ns().pid_ns().init(true), "reuse");
    assert_eq!((answers.get("victim"), answers.get("by-number")), ("lives", "killed"));
}

/// A fork bomb: the limit on processes holds from the first one on, and says so.
#[test]
fn processes_are_counted_from_the_first() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let sandbox = common::sandbox().cgroup_parent(common::cgroup_parent()).pid_ns();
    let error = sandbox.clone().init(true).pids_limit(1).command("/bin/true").spawn().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Fork, Some(libc::EAGAIN)), "{error}");
    assert!(error.to_string().contains("pids.max"), "{error}");
    let bomb = |sandbox| common::stdout(&common::probe::run(sandbox, "forks 60")).parse::<u64>().unwrap();
    assert!(bomb(sandbox.clone().pids_limit(20)) < 20);
    assert_eq!(bomb(sandbox), 60);
}

/// A flood of output ends in a verdict, and takes no more memory than was said.
#[test]
fn a_flood_of_output_is_cut_off() {
    let _clean = common::clean();
    let limited = common::probe::run(common::sandbox().pid_ns().output_limit(Bytes::mib(1)), "flood");
    let output = limited.output().unwrap();
    assert_eq!(output.outcome.verdict(), Verdict::OutputLimit);
    assert!(output.stdout.len() <= 1 << 20);
    // Without the limit it is all taken.
    let all = common::sh("head -c 3000000 /dev/zero").output().unwrap();
    assert_eq!(all.stdout.len(), 3_000_000);
}

/// A root whose passwd and group make a user another: a user is a number, and no file of the root
/// configures anything.
#[test]
fn no_file_of_the_root_makes_a_user_another() {
    let _clean = common::clean();
    let root = common::root_dir();
    fs::write(root.path().join("etc/passwd"), "1000:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(root.path().join("etc/group"), "1000:x:0:\n").unwrap();
    let id = |uid| common::stdout(&common::on_root(common::sh("id -u; id -g"), &root).user(uid, uid));
    assert_eq!((id(1000), id(1)), ("1000\n1000".to_owned(), "1\n1".to_owned()));
}

/// Uid 0 of a user namespace that root has made is nobody outside: it reads no file of root's, sets
/// nothing of the machine's, and signals nobody.
#[test]
fn root_of_a_user_namespace_is_nobody_outside() {
    let _clean = common::clean();
    if common::needs_root("being root outside") {
        return;
    }
    let dir = common::TempDir::new();
    let closed = dir.path().join("closed");
    fs::write(&closed, "roots").unwrap();
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o600)).unwrap();
    let mut victim = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let (closed, number) = (closed.to_str().unwrap(), victim.id().to_string());
    let setting = "/proc/sys/kernel/core_pattern";
    let all = |sandbox: &dyn Fn() -> Sandbox| {
        let answers = attack(sandbox(), &format!("open-write {closed} {setting}"));
        let killed = attack(sandbox(), &format!("kill {number}"));
        [answers.get(closed), answers.get(setting), killed.get(&number)].map(str::to_owned)
    };
    assert_eq!(all(&|| Sandbox::new().user_ns()), ["EACCES", "EACCES", "EPERM"]);
    assert!(victim.try_wait().unwrap().is_none());
    assert_eq!(all(&|| common::as_ourselves(Sandbox::new())), ["ok"; 3], "mapped as root it is root");
    victim.wait().unwrap();
}

/// A set-user-ID file in a lower layer gives nothing.
#[test]
fn a_set_user_id_file_in_a_layer_gives_nothing() {
    let _clean = common::clean();
    if common::needs_root("a file of root's with the set-user-ID bit") {
        return;
    }
    let root = common::root_dir();
    let file = root.path().join("tmp/su");
    fs::copy(std::env::current_exe().unwrap(), &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    let layers = || RootFs::overlay([root.path()]);
    let run = |sandbox: Sandbox, layers| {
        let sandbox = sandbox.rootfs(layers).bind_ro("/usr", "/usr");
        Answers::of(&common::stdout(&attack_at(sandbox, "/tmp/su", "whoami")))
    };
    assert_eq!(run(Sandbox::new().user(1000, 1000), layers()).get("euid"), "1000");
    let who = |sandbox| run(sandbox, layers().suid());
    assert_eq!(who(Sandbox::new().user(1000, 1000)).get("euid"), "0", "the attack itself works");
    assert_eq!(who(Sandbox::new().user(1000, 1000).no_new_privs(true)).get("euid"), "1000");
    assert_eq!(who(common::strict().default_mounts(false)).get("euid"), "65534");
}

/// A user namespace made inside, the way to most of the kernel's faults: in strict() two defences
/// refuse it.
#[test]
fn no_user_namespace_is_made_inside() {
    let _clean = common::clean();
    let filtered = attack_strict("user-ns");
    assert_eq!((filtered.get("clone3"), filtered.get("clone"), filtered.get("unshare")), ("ENOSYS", "EPERM", "EPERM"));
    let counted = attack_inside(common::strict().seccomp(None), "user-ns");
    assert_eq!((counted.get("clone3"), counted.get("clone"), counted.get("unshare")), ("ENOSPC", "ENOSPC", "ENOSPC"));
    let open = attack_inside(common::strict().seccomp(None).max_user_namespaces(100), "user-ns");
    assert_eq!((open.get("clone3"), open.get("clone"), open.get("unshare")), ("ok", "ok", "ok"));
}

/// The memory of init: nobody below it writes there, uid 0 of the user namespace included, unless
/// the caller gives it that power.
#[test]
fn the_memory_of_init_is_closed() {
    let _clean = common::clean();
    let root = || Sandbox::new().user_ns().pid_ns().init(true).rootfs(RootFs::host());
    let closed = attack_inside(root(), "open-write /proc/1/mem");
    assert_eq!(closed.get("/proc/1/mem"), "EACCES");
    let with_power = || root().capabilities(Capabilities::all_but([]));
    let given = attack_inside(with_power(), "open-write /proc/1/mem");
    assert_eq!(given.get("/proc/1/mem"), "ok");
    // An init stands outside of the filter: with a filter that power is refused, or Landlock keeps the program off it.
    let filtered = || with_power().seccomp(ringfence::Seccomp::default());
    let error = filtered().check().unwrap_err();
    assert!(error.to_string().contains("outside of the filter"), "{error}");
    filtered().init(false).check().unwrap();
    let all = ringfence::Landlock::new().execute("/").write("/");
    if let Err(error) = Sandbox::new().landlock(all.clone()).check() {
        return common::skip(&error.to_string(), true);
    }
    assert_eq!(attack_inside(filtered().landlock(all), "open-write /proc/1/mem").get("/proc/1/mem"), "EACCES");
}

/// The null device is the host's, and root's: who has it as a stream may write to it, and nothing else.
#[test]
fn the_hosts_null_device_stays_as_it_is() {
    let _clean = common::clean();
    if !common::is_root() {
        return common::skip("the device is not the caller's", true);
    }
    // Its own, and one that the caller has open for something else.
    let given = || File::options().read(true).write(true).open("/dev/null").unwrap();
    let exe = std::env::current_exe().unwrap();
    let answers = |sandbox: Sandbox| {
        let out = common::TempDir::new();
        let report = File::create(out.path().join("report")).unwrap();
        let sandbox = sandbox.rootfs(RootFs::programs()).mount(Tmpfs::new("/tmp")).bind_ro(&exe, "/tmp/attack");
        let sandbox = attack_at(sandbox.capabilities(Capabilities::none()), "/tmp/attack", "streams");
        assert!(sandbox.stdout(report).status().unwrap().success());
        Answers::of(&fs::read_to_string(out.path().join("report")).unwrap())
    };
    let own = answers(Sandbox::new().stdin(Stdio::null()).stderr(Stdio::null()));
    let passed = answers(Sandbox::new().stdin(given()).stderr(given()));
    for (of, found) in [("own", own), ("passed", passed)] {
        for change in ["mode", "owner", "times"] {
            for stream in [0, 2] {
                assert_eq!(found.get(&format!("{change}-{stream}")), "EROFS", "{of}: {change} of {stream}");
            }
        }
        assert_eq!(found.get("mode-1"), "done", "{of}: a file that is passed on");
    }
    // By its name, a program writes there all the same.
    let sandbox = Sandbox::new().command("sh").args(["-c", "echo > /proc/self/fd/1 && cat /proc/self/fd/0"]);
    assert!(sandbox.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
}
