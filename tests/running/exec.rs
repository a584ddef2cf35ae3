//! Further programs in a running sandbox: they are what its own program is, and end with it.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use crate::common;
use ringfence::{Capabilities, Capability, Child, Command, ErrorKind, Landlock, Resource, RootFs, Sandbox, Seccomp};
use ringfence::{Session, Stdio, Verdict};

/// What a process is: namespaces, root, ids, rights, limits, groups and what it sees.
const VIEW: &str = "ls -l /proc/self/ns | sed 's/.* \\([a-z_]* ->\\)/\\1/' | grep -v _for_children | sort
    grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigBlk|SigIgn)' /proc/self/status
    umask; ulimit -Sa; ulimit -Ha; cat /proc/self/cgroup; hostname; cat /proc/self/uid_map; ls /; pwd; env | sort
    grep -c . /proc/self/mountinfo; echo . >/proc/self/oom_score_adj 2>&1; ls /proc/self/fd | wc -l; echo end";

/// The sorts of sandboxes into which the way differs.
fn sorts(root: &common::TempDir) -> Vec<(&'static str, Sandbox)> {
    let base = || common::sandbox().pid_ns();
    let mut all = vec![
        ("strict", common::strict()),
        ("strict, without an init", common::strict().init(false)),
        ("strict on a directory", common::strict().rootfs(root.path()).bind_ro("/usr", "/usr")),
        ("programs", base().rootfs(RootFs::programs()).init(true)),
        ("the caller's root", base()),
        ("a filter and limits of processes", base().seccomp(Seccomp::default()).rlimit(Resource::OpenFiles, 77, 99)),
        ("no capabilities", base().capabilities(Capabilities::none()).session(Session::NewGroup).cwd("/usr")),
        ("all namespaces", base().user_ns().net_ns().ipc_ns().uts_ns().cgroup_ns().time_ns().hostname("x")),
    ];
    let rules = base().landlock(Landlock::new().read("/").execute("/").write("/tmp").write("/dev/null"));
    if rules.check().is_ok() {
        all.push(("rules", rules));
    }
    if common::is_root() {
        let group = || common::sandbox().cgroup_parent(common::cgroup_parent()).pids_limit(50);
        all.push(("a group alone", group()));
        all.push(("another user, with groups", group().pid_ns().user(1234, 4321).groups([7, 8]).umask(0o27)));
        let kept = Capabilities::keep([Capability::CAP_CHOWN, Capability::CAP_NET_BIND_SERVICE]);
        all.push(("some capabilities", base().rootfs(RootFs::programs()).capabilities(kept)));
    }
    all
}

/// Starts a program that tells its view, and stays.
fn start(sandbox: &Sandbox) -> (Child, String) {
    let script = format!("{VIEW}; exec sleep 1000");
    let sandbox = sandbox.clone().command("/bin/sh").args(["-c", &script]).env("FROM", "the policy");
    let mut child = sandbox.stdout(Stdio::piped()).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let view: Vec<String> = lines.take_while(|line| line != "end").collect();
    (child, view.join("\n"))
}

/// The view of a further program. Without a directory of the policy's it starts in `/`.
fn view_of(child: &Child) -> String {
    let command = Command::new("/bin/sh").args(["-c", VIEW]).env("FROM", "the policy");
    let output = child.exec_output(command).unwrap_or_else(|error| panic!("{error}"));
    assert!(output.outcome.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().trim_end_matches("\nend").to_owned()
}

fn sleeping(sandbox: Sandbox) -> Child {
    sandbox
        .command("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for the first line of a program.
fn ready(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}

#[test]
fn a_further_program_is_what_the_first_one_is() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, sandbox) in sorts(&root) {
        let sandbox = if what == "no capabilities" { sandbox } else { sandbox.cwd("/") };
        let (mut child, first) = start(&sandbox);
        assert!(first.lines().count() > 30, "{what}: {first}");
        let further = view_of(&child);
        // Without an init, a further program never gains privileges.
        let same = |one: &str, other: &str| one == other || one.starts_with("NoNewPrivs:") && other.ends_with('1');
        let differ: Vec<_> = first.lines().zip(further.lines()).filter(|(one, other)| !same(one, other)).collect();
        assert!(differ.is_empty() && first.lines().count() == further.lines().count(), "{what}: {differ:#?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_pooled_and_a_prepared_sandbox_are_entered_too() {
    let _clean = common::clean();
    let prepared = common::strict().prepare().unwrap();
    let pool = common::strict().pool(1).unwrap();
    let sleep = || Command::new("sleep").arg("1000").stdin(Stdio::null());
    for mut child in [prepared.with(sleep()).spawn().unwrap(), pool.spawn(sleep()).unwrap()] {
        let output = child.exec_output(Command::new("sh").args(["-c", "id -u; hostname; cat /proc/1/comm"])).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "65534\nsandbox\nringfence-stub\n", "{output:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_command_says_what_the_policy_does_not() {
    let _clean = common::clean();
    let child = sleeping(common::strict().env("A", "policy").env("B", "policy"));
    let script = "pwd; echo $A $B; cat; echo err >&2; exit 7";
    let command = Command::new("sh").args(["-c", script]).cwd("/tmp").env("B", "command").stdin(Stdio::bytes(*b"in\n"));
    let output = child.exec_output(command).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/tmp\npolicy command\nin\n");
    assert_eq!((output.stderr.as_slice(), output.outcome.verdict()), (&b"err\n"[..], Verdict::Exited(7)));
    // What one leaves in /tmp the next one finds.
    assert!(child.exec_output(Command::new("sh").args(["-c", "echo x >/tmp/left"])).unwrap().outcome.success());
    assert_eq!(child.exec_output(Command::new("cat").arg("/tmp/left")).unwrap().stdout, b"x\n");
    let error = child.exec("/no/such/program").unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)), "{error}");
    let error = child.exec(Command::new("true").cwd("/no/such")).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Setup, Some(libc::ENOENT)), "{error}");
    assert_eq!(child.exec(Command::new("a\0b")).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_command_has_the_rights_that_it_says() {
    let _clean = common::clean();
    let script = "id -u; umask; ulimit -n; cat /proc/self/oom_score_adj; ulimit -c
        grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/self/status";
    let run = |child: &Child, change: &dyn Fn(Command) -> Command| {
        let output = child.exec_output(change(Command::new("/bin/sh").args(["-c", script]))).unwrap();
        assert!(output.outcome.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let root = common::root_dir();
    for (what, sandbox) in sorts(&root) {
        let (child, _) = start(&sandbox);
        let before = run(&child, &|command| command);
        let said = run(&child, &|command| {
            let command = command.umask(0o13).rlimit(Resource::OpenFiles, 55, 66).oom_score_adj(901);
            command.capabilities(Capabilities::none()).no_new_privs(true)
        });
        let said: Vec<&str> = said.lines().skip(1).collect();
        let none = "0".repeat(16);
        let sets = ["CapPrm", "CapEff", "CapBnd"].map(|set| format!("{set}:\t{none}"));
        assert_eq!(said[..3], ["0013", "55", "901"], "{what}");
        assert_eq!(said[4..], [&*sets[0], &sets[1], &sets[2], "NoNewPrivs:\t1"], "{what}");
        // The next one has again what the sandbox has.
        assert_eq!(run(&child, &|command| command), before, "{what}");
    }
    if common::needs_root("other users") {
        return;
    }
    let group = || common::sandbox().cgroup_parent(common::cgroup_parent()).pids_limit(50).pid_ns();
    let child = sleeping(group().user(1234, 4321).capabilities(Capabilities::none()));
    let script = "id -u; id -g; id -G; grep -E '^(CapEff|CapBnd)' /proc/self/status";
    let user = |change: &dyn Fn(Command) -> Command| {
        let output = child.exec_output(change(Command::new("/bin/sh").args(["-c", script]))).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (none, kill) = ("0".repeat(16), "0000000000000020");
    let sets = |eff: &str, bnd: &str| format!("CapEff:\t{eff}\nCapBnd:\t{bnd}\n");
    assert_eq!(user(&|command| command), format!("1234\n4321\n4321\n{}", sets(&none, &none)));
    assert_eq!(user(&|command| command.user(0, 0)), format!("0\n0\n0\n{}", sets(&none, &none)));
    let more = Capabilities::keep([Capability::CAP_KILL]);
    let said = user(&|command| command.user(0, 0).groups([7]).capabilities(more.clone()));
    assert_eq!(said, format!("0\n0\n0 7\n{}", sets(kill, kill)));
    // What the caller itself has not, nobody gets.
    let few = sleeping(group());
    let error = few.exec(Command::new("true").groups([u32::MAX])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(few.exec(Command::new("true").oom_score_adj(1001)).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_prepared_sandbox_refuses_a_command_with_rights_of_its_own() {
    let _clean = common::clean();
    let prepared = common::sandbox().prepare().unwrap();
    let command = || Command::new("true");
    for (command, subject) in [
        (command().user(0, 0), "user"),
        (command().groups([]), "groups"),
        (command().umask(0), "umask"),
        (command().rlimit(Resource::Core, 0, 0), "rlimit"),
        (command().oom_score_adj(5), "scheduling"),
        (command().capabilities(Capabilities::none()), "capabilities"),
        (command().no_new_privs(true), "no_new_privs"),
        (command().subgroup("inner"), "subgroup"),
        (command().subgroup_of("memory", "inner"), "subgroup"),
    ] {
        let error = prepared.with(command).output().unwrap_err();
        assert_eq!((error.kind(), &*error.problems()[0].subject), (ErrorKind::Unsupported, subject), "{error}");
    }
}

#[test]
fn a_filter_stays_whatever_a_command_says() {
    let _clean = common::clean();
    let script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; mkdir /tmp/made-by-a-command-with-rights";
    let filter = Seccomp::default().deny(["mkdir", "mkdirat"]);
    let child = sleeping(common::sandbox().user_ns().pid_ns().seccomp(filter));
    for (wanted, shown) in [(true, 1), (false, 0)] {
        let command =
            Command::new("/bin/sh").args(["-c", script]).no_new_privs(wanted).capabilities(Capabilities::none());
        let output = child.exec_output(command).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("NoNewPrivs:\t{shown}\nSeccomp:\t2\n"));
        assert!(String::from_utf8_lossy(&output.stderr).contains("not permitted"), "{output:?}");
    }
    let rules = common::sandbox().pid_ns().landlock(Landlock::new().read("/").execute("/"));
    if rules.check().is_ok() {
        let error = sleeping(rules).exec(Command::new("true").no_new_privs(false)).unwrap_err();
        assert_eq!(error.problems()[0].subject, "no_new_privs", "{error}");
    }
}

#[test]
fn descriptors_are_passed_and_no_others_are_open() {
    let _clean = common::clean();
    let child = sleeping(common::strict());
    let file = |text: &str| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        std::os::fd::OwnedFd::from(reader)
    };
    // Numbers that the way in itself uses are among them.
    for numbers in [vec![3], vec![3, 4, 5, 6, 7], vec![6, 9], vec![7, 8]] {
        let script: String = numbers.iter().map(|number| format!("read line <&{number}; echo $line; ")).collect();
        let script = script + "for fd in /proc/self/fd/*; do [ -e $fd ] && echo ${fd##*/}; done";
        let command = Command::new("sh").args(["-c", &script]);
        let command =
            numbers.iter().fold(command, |command, number| command.fd(*number, file(&format!("f{number}\n"))));
        let output = child.exec_output(command).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<String> = numbers.iter().map(|number| format!("f{number}")).collect();
        let open = [0, 1, 2].into_iter().chain(numbers).map(|number| number.to_string());
        let mut expected: Vec<String> = open.collect();
        expected.sort();
        let expected: Vec<String> = lines.into_iter().chain(expected).collect();
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{output:?}");
    }
    let error = child.exec(Command::new("true").fd(2, file(""))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

/// Whoever reads what a program wrote to a pipe of its own sees the end when the program has closed it, not when the handle
/// is gone.
#[test]
fn a_handle_holds_nothing_open_that_its_program_has_closed() {
    let _clean = common::clean();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (mut other, passed) = std::io::pipe().unwrap();
    let sandbox = common::sandbox().pid_ns().command("sh").args(["-c", "exec >/dev/null 5>&-; sleep 1000"]);
    let sandbox = sandbox.stdout(std::os::fd::OwnedFd::from(writer)).fd(5, passed);
    let child = sandbox.spawn().unwrap();
    drop(sandbox);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = (std::io::Read::read(&mut reader, &mut [0]), std::io::Read::read(&mut other, &mut [0]));
        let _ = done.send(());
    });
    ended.recv_timeout(Duration::from_secs(30)).expect("a pipe is still open");
    assert!(child.exec_output("true").unwrap().outcome.success());
}

#[test]
fn the_end_of_the_sandbox_is_that_of_its_further_programs() {
    let _clean = common::clean();
    let mut sandboxes = vec![common::strict(), common::sandbox().pid_ns()];
    if common::is_root() {
        sandboxes.push(common::sandbox().cgroup_parent(common::cgroup_parent()).pids_limit(9));
    }
    for sandbox in sandboxes {
        let child = sleeping(sandbox);
        let mut further = child.exec(Command::new("sleep").arg("1000")).unwrap();
        // The end of one is not that of the others.
        let mut other = child.exec(Command::new("sh").args(["-c", "sleep 1000 & sleep 1000"])).unwrap();
        other.kill().unwrap();
        assert_eq!(other.wait().unwrap().verdict(), Verdict::Signaled(9));
        drop(child.exec(Command::new("sleep").arg("1000")).unwrap());
        assert_eq!(further.try_wait().unwrap(), None);
        assert!(child.exec_output("true").unwrap().outcome.success());
        drop(child);
        assert_eq!(further.wait().unwrap().verdict(), Verdict::Signaled(9));
    }
}

#[test]
fn a_further_program_enters_a_group_below_that_of_the_sandbox() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let child = sleeping(common::sandbox().cgroup_parent(common::cgroup_parent()).pids_limit(50).pid_ns());
    let own = common::group_of(child.id(), "pids");
    let run = |command: Command| {
        let mut further = child.exec(command.arg("1000")).unwrap();
        let group = common::group_of(further.id(), "pids");
        further.kill().unwrap();
        further.wait().unwrap();
        group
    };
    let sleep = || Command::new("sleep");
    // Every hierarchy in which the sandbox is.
    let hierarchies = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let names = hierarchies.lines().filter_map(|line| line.split(':').nth(1)).flat_map(|names| names.split(','));
    let dirs: Vec<_> = names
        .map(|name| common::group_of(child.id(), name))
        .filter(|dir| dir.ends_with(own.file_name().unwrap()))
        .collect();
    dirs.iter().for_each(|dir| drop(std::fs::create_dir(dir.join("inner"))));
    assert_eq!(run(sleep()), own);
    assert_eq!(run(sleep().subgroup("/inner/")), own.join("inner"));
    assert_eq!(run(sleep().subgroup("/")), own);
    let error = child.exec(sleep().arg("1").subgroup("missing")).unwrap_err();
    assert!(error.raw_os_error() == Some(libc::ENOENT) && error.path().unwrap().ends_with("missing"), "{error}");
    let error = child.exec(sleep().arg("1").subgroup("inner/..")).unwrap_err();
    assert_eq!((error.kind(), &*error.problems()[0].subject), (ErrorKind::Invalid, "subgroup"), "{error}");
    if own.join("cgroup.procs").exists() && !own.join("cgroup.controllers").exists() {
        assert_eq!(run(sleep().subgroup_of("pids", "inner")), own.join("inner"));
    }
}

#[test]
fn a_further_program_has_limits_of_its_own_and_those_of_the_sandbox() {
    let _clean = common::clean();
    let child = sleeping(common::strict().wall_time(Duration::from_millis(2500)).output_limit(10_000));
    let flood = child.exec_output(Command::new("sh").args(["-c", "yes"])).unwrap();
    assert_eq!(flood.outcome.verdict(), Verdict::OutputLimit);
    let mut late = child.exec(Command::new("sleep").arg("1000")).unwrap();
    late.set_wall_time(Some(Duration::from_millis(30))).unwrap();
    assert_eq!(late.wait().unwrap().verdict(), Verdict::WallTime);
    drop(child);
    if common::no_cgroups() {
        return;
    }
    let child = sleeping(common::strict().pids_limit(6));
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done 2>/dev/null; true";
    let output = child.exec_output(Command::new("sh").args(["-c", script])).unwrap();
    assert!(!output.outcome.success(), "{output:?}");
    let error = sleeping(common::strict().pids_limit(2)).exec("true").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
}

#[test]
fn what_cannot_be_entered_is_an_error_at_once() {
    let _clean = common::clean();
    let alone = sleeping(common::sandbox());
    let error = alone.exec("true").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("pid_ns()"), "{error}");
    drop(alone);
    let mut child = sleeping(common::strict());
    let further = child.exec(Command::new("sleep").arg("1000")).unwrap();
    let error = further.exec("true").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Control, "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let error = child.exec("true").unwrap_err();
    assert!(error.kind() == ErrorKind::Control && error.to_string().contains("has ended"), "{error}");
    if common::no_cgroups() {
        return;
    }
    let child = sleeping(common::strict());
    child.freeze().unwrap();
    let begun = Instant::now();
    let error = child.exec("true").unwrap_err();
    assert!(error.kind() == ErrorKind::Control && error.to_string().contains("frozen"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1));
    child.thaw().unwrap();
    assert!(child.exec_output("true").unwrap().outcome.success());
}

/// Without `no_new_privs` the filter needs CAP_SYS_ADMIN, which nobody inside may see.
#[test]
fn a_filter_that_lets_no_entry_through_is_an_error_where_somebody_could_see_it() {
    if common::needs_root("capabilities outside of a user namespace") {
        return;
    }
    let _clean = common::clean();
    let profile = |refused: &[&'static str]| Seccomp::default().deny(refused.iter().copied()).allow_new_privs(true);
    let sandbox = |kept: &[Capability], refused: &[&'static str]| {
        let sandbox = common::sandbox().pid_ns().capabilities(Capabilities::keep(kept.iter().copied()));
        sleeping(sandbox.seccomp(profile(refused)))
    };
    let trace = [Capability::CAP_SYS_PTRACE];
    for refused in ["capset", "prctl", "clone", "pipe2", "sendmsg"] {
        let error = sandbox(&trace, &[refused]).exec("true").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{refused}: {error}");
        assert!(error.to_string().contains("CAP_SYS_PTRACE"), "{error}");
    }
    assert!(sandbox(&[], &["capset"]).exec_output("true").unwrap().outcome.success());
    assert!(sandbox(&trace, &["mount"]).exec_output("true").unwrap().outcome.success());
}

#[test]
fn a_sandbox_that_ends_meanwhile_is_an_error_or_an_end() {
    let _clean = common::clean();
    for round in 0..60 {
        let mut child = common::strict().command("sleep").arg("0.01").stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round % 15));
        match child.exec(Command::new("true").stdout(Stdio::null())) {
            Ok(mut further) => drop(further.wait().unwrap()),
            Err(error) => {
                let known = [ErrorKind::Control, ErrorKind::SetupDied];
                assert!(known.contains(&error.kind()), "{:?} {error}", error.kind());
            }
        }
        child.wait().unwrap();
    }
}

/// A process inside can keep a further program from being reaped. That holds up neither its handle nor any other sandbox.
#[test]
fn a_tracer_inside_holds_nobody_up() {
    let _clean = common::clean();
    let sandbox = common::probe::run(common::sandbox().pid_ns().wall_time(Duration::from_secs(20)), "hold");
    let mut child = sandbox.stdout(Stdio::piped()).spawn().unwrap();
    ready(&mut child);
    let other = common::sandbox().command("sleep").arg("1000").wall_time(Duration::from_millis(1500));
    let mut further: Vec<Child> =
        (0..10).map(|_| child.exec(Command::new("sleep").arg("0.3").stdout(Stdio::null())).unwrap()).collect();
    let begun = Instant::now();
    let held = further.iter_mut().filter_map(|child| child.wait_timeout(Duration::from_secs(1)).unwrap()).count();
    assert!(held < 10, "the attack itself works");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(other.status().unwrap().verdict(), Verdict::WallTime, "the limits of others hold");
    let begun = Instant::now();
    drop(further);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// The first program may have made the mount namespace in which a further one looks up set-user-ID programs.
#[test]
fn no_set_user_id_program_helps_without_an_init() {
    let _clean = common::clean();
    for (init, expected) in [(false, "1"), (true, "0")] {
        let child = sleeping(common::sandbox().pid_ns().init(init));
        let script = "sed -n 's/^NoNewPrivs:.//p' /proc/self/status";
        let output = child.exec_output(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{output:?}");
    }
}

/// The rules are those of the paths as they were before the first program could change them.
#[test]
fn rules_stand_for_what_was_there_at_the_start() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    std::fs::create_dir_all(dir.path().join("open/in")).unwrap();
    std::fs::create_dir(dir.path().join("closed")).unwrap();
    std::fs::write(dir.path().join("closed/key"), "secret").unwrap();
    let open = dir.path().join("open");
    let rules =
        Landlock::new().read("/usr").execute("/usr").read("/lib").execute("/lib").read("/lib64").execute("/lib64");
    let rules = rules.read("/bin").execute("/bin").read("/etc").write("/dev/null").write(&open).read(open.join("in"));
    let script = format!(
        "cd {} && rmdir in && ln -s {}/closed in && echo ready; exec sleep 1000",
        open.display(),
        dir.path().display()
    );
    let sandbox = common::sandbox().pid_ns().landlock(rules).command("/bin/sh").args(["-c", &script]);
    if sandbox.check().is_err() {
        return common::skip("Landlock", true);
    }
    let mut child = sandbox.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    ready(&mut child);
    let output = child.exec_output(Command::new("cat").arg(dir.path().join("closed/key"))).unwrap();
    assert!(!output.outcome.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn many_leave_nothing() {
    let _clean = common::clean();
    // An emulated machine takes longer than the minute of strict().
    let child = sleeping(common::strict().wall_time(Duration::from_secs(1000)));
    // An emulated machine does as many as it can in a while.
    let begun = Instant::now();
    for _ in (0..1000).take_while(|done| *done < 200 || begun.elapsed() < Duration::from_secs(60)) {
        assert!(child.exec_output("true").unwrap().outcome.success());
    }
    let output = child.exec_output(Command::new("sh").args(["-c", "ls /proc | grep -c '^[0-9]'"])).unwrap();
    // The init, the program, the shell, ls and grep.
    assert_eq!(output.stdout, b"5\n");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| assert!(child.exec_output("true").unwrap().outcome.success())));
        }
    });
}
