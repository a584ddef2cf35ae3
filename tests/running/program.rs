//! The program: its arguments, environment, ids, limits, streams, descriptors, signals, and its init.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::common;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, getgroups, getpgrp, getsid, setgroups};
use ringfence::{ErrorKind, Resource, Sandbox, Seccomp, Session, Stdio, Step, Verdict};

fn program(name: &str, args: &[&str]) -> Sandbox {
    Sandbox::new().command(name).args(args)
}

fn script(text: &str) -> Sandbox {
    program("/bin/sh", &["-c", text])
}

/// A file that holds `text`, read from its beginning.
fn file_with(text: &str) -> File {
    let mut file = tempfile();
    write!(file, "{text}").unwrap();
    file.rewind().unwrap();
    file
}

fn tempfile() -> File {
    File::from(nix::sys::memfd::memfd_create(c"rf-test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap())
}

#[test]
fn arguments_arrive_as_they_are() {
    let _clean = common::clean();
    let odd = ["", "a b", "$HOME", "new\nline", "*", "-e", "ünï"];
    let text = common::stdout(&program("/usr/bin/printf", &[&["[%s]"], &odd[..]].concat()));
    assert_eq!(text, odd.map(|arg| format!("[{arg}]")).concat());
    let own = "tr '\\0' '|' </proc/$$/cmdline";
    assert_eq!(common::stdout(&script(own).arg("x")), format!("/bin/sh|-c|{own}|x|"));
}

#[test]
fn the_environment_is_inherited_changed_or_cleared() {
    let _clean = common::clean();
    let env = |sandbox: Sandbox| -> Vec<String> {
        let mut all: Vec<String> = common::stdout(&sandbox).lines().map(str::to_owned).collect();
        all.sort();
        all
    };
    let base = program("/usr/bin/env", &[]);
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert!(env(base.clone()).contains(&path));
    assert!(!env(base.clone().env_remove("PATH")).iter().any(|line| line.starts_with("PATH=")));
    assert!(env(base.clone().env("RF_A", "1 2")).contains(&"RF_A=1 2".to_owned()));
    let clear = base.env("LOST", "1").env_clear();
    assert_eq!(env(clear.clone()), [""; 0]);
    assert_eq!(env(clear.clone().envs([("B", "2"), ("A", "1")]).env("A", "3").env_remove("B")), ["A=3"]);
    assert_eq!(clear.env("A=B", "1").check().unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn the_working_directory_is_one_inside() {
    let _clean = common::clean();
    let root = common::root_dir();
    let on = |text: &str| common::on_root(common::sh(text), &root);
    assert_eq!(common::stdout(&on("pwd")), "/");
    assert_eq!(common::stdout(&on("pwd").cwd("/usr/bin")), "/usr/bin");
    assert_eq!(common::stdout(&on("pwd").cwd("tmp")), "/tmp");
    assert_eq!(common::stdout(&script("pwd")), std::env::current_dir().unwrap().to_str().unwrap());
    let here = std::env::current_dir().unwrap();
    let error = on("pwd").cwd("/no/such/dir").output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::ENOENT)), "{error}");
    assert_eq!(error.path(), Some(Path::new("/no/such/dir")));
    assert!(error.remedy().unwrap().contains("inside"));
    assert_eq!(std::env::current_dir().unwrap(), here);
}

/// The setup's plan comes in a message up to 16 KiB, beyond that in a file.
#[test]
fn arguments_of_any_size_arrive() {
    let _clean = common::clean();
    for size in [0, 1, 8_000, 12_000, 16_000, 16_384, 20_000, 100_000] {
        let sandbox = script("printf %s \"$1\" | wc -c").args(["sh", &"x".repeat(size)]);
        assert_eq!(common::stdout(&sandbox.env_clear().env("PATH", "/usr/bin:/bin")), size.to_string());
    }
}

#[test]
fn a_working_directory_that_leads_outside_through_a_descriptor_is_refused() {
    let _clean = common::clean();
    let root = common::root_dir();
    let script = "test . -ef \"$(pwd -P)\" && echo inside";
    let mut refused = 0;
    for number in 3..24 {
        let sandbox = common::on_root(common::sh(script), &root).pid_ns().fd(9, File::open("/").unwrap());
        let error = match sandbox.cwd(format!("/proc/self/fd/{number}")).output() {
            Err(error) => error,
            // The setup's own descriptors of the root and of what is bound below it lead nowhere else.
            Ok(output) => {
                assert_eq!(String::from_utf8_lossy(&output.stdout), "inside\n", "{number}: {output:?}");
                continue;
            }
        };
        assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::Cwd), "{error}");
        let errno = error.raw_os_error().unwrap();
        assert!([libc::EXDEV, libc::ENOENT, libc::ENOTDIR, libc::EACCES].contains(&errno), "{error}");
        refused += usize::from(errno == libc::EXDEV);
    }
    assert!(refused >= 1, "the passed directory is among them");
}

#[test]
fn ids_are_set_and_supplementary_groups_dropped() {
    if common::needs_root("changing to another user") {
        return;
    }
    let _clean = common::clean();
    let ids = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | cut -f2- | tr '\\t' ' '";
    let own = getgroups().unwrap();
    // The library's threads run already, and are changed with all others.
    setgroups(&[Gid::from_raw(4242), Gid::from_raw(4243)]).unwrap();
    let inherited = script(ids).output();
    let dropped = script(ids).user(1000, 1001).output();
    let set = script(ids).user(1000, 1001).groups([7, 8]).output();
    let mapped = script("id -G").user_ns().output();
    setgroups(&own).unwrap();
    let text = |output: ringfence::Result<ringfence::Output>| String::from_utf8(output.unwrap().stdout).unwrap();
    let user = "1000 1000 1000 1000\n1001 1001 1001 1001\n";
    assert_eq!(text(inherited), "0 0 0 0\n0 0 0 0\n4242 4243 \n");
    assert_eq!(text(dropped), format!("{user} \n"));
    assert_eq!(text(set), format!("{user}7 8 \n"));
    assert_eq!(text(mapped), "0\n", "in a user namespace they would be nobody's");
}

#[test]
fn another_user_has_no_capability_left() {
    let _clean = common::clean();
    let caps = common::sandbox().command("/bin/grep").args(["^Cap", "/proc/self/status"]);
    let text = common::stdout(&caps.clone().user(1000, 1000));
    for line in text.lines().filter(|line| !line.starts_with("CapBnd")) {
        assert!(line.ends_with("\t0000000000000000"), "{text}");
    }
    let text = common::stdout(&caps);
    assert!(text.contains("CapInh:\t0000000000000000") && text.contains("CapAmb:\t0000000000000000"), "{text}");
}

#[test]
fn the_umask_is_the_callers_or_the_one_set() {
    let _clean = common::clean();
    let inside = |sandbox: Sandbox| common::stdout(&sandbox);
    let before = umask(Mode::from_bits_truncate(0o031));
    let texts = [script("umask").output(), common::sh("umask").mount_ns().tmpfs("/tmp", 4096).output()];
    umask(before);
    for text in texts {
        assert_eq!(text.unwrap().stdout, b"0031\n");
    }
    assert_eq!(inside(script("umask").umask(0o7027)), "0027");
}

#[test]
fn every_limit_of_a_process_arrives() {
    let _clean = common::clean();
    let kinds = [
        (Resource::AddressSpace, "Max address space", 1 << 30),
        (Resource::Core, "Max core file size", 4096),
        (Resource::Cpu, "Max cpu time", 1000),
        (Resource::Data, "Max data size", 1 << 29),
        (Resource::FileSize, "Max file size", 1 << 20),
        (Resource::MemLock, "Max locked memory", 8192),
        (Resource::MessageQueue, "Max msgqueue size", 4096),
        (Resource::OpenFiles, "Max open files", 100),
        (Resource::Processes, "Max processes", 5000),
        (Resource::RealtimeTime, "Max realtime timeout", 1000),
        (Resource::SignalsPending, "Max pending signals", 50),
        (Resource::Stack, "Max stack size", 1 << 20),
    ];
    let show = program("/bin/cat", &["/proc/self/limits"]);
    let all = kinds.iter().fold(show.clone(), |sandbox, (kind, _, limit)| sandbox.rlimit(*kind, *limit, limit + 1));
    let text = common::stdout(&all);
    for (_, name, limit) in kinds {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let numbers: Vec<&str> = line[name.len()..].split_whitespace().collect();
        assert_eq!(numbers[..2], [limit.to_string(), (limit + 1).to_string()], "{line}");
    }
    // Their hard limits are 0 on most machines, where to raise them is an error with their name.
    for (kind, name) in [(Resource::Nice, "Max nice priority"), (Resource::RealtimePriority, "Max realtime priority")] {
        match show.clone().rlimit(kind, 7, 7).output() {
            Ok(output) => {
                let text = String::from_utf8(output.stdout).unwrap();
                let line = text.lines().find(|line| line.starts_with(name)).unwrap();
                assert_eq!(line[name.len()..].split_whitespace().collect::<Vec<_>>(), ["7", "7"]);
            }
            Err(error) => {
                assert_eq!((error.step(), error.kind()), (Step::Validate, ErrorKind::Unsupported), "{error}");
                assert!(error.to_string().contains(&format!("{kind:?}")), "{error}");
            }
        }
    }
    assert_eq!(show.rlimit(Resource::Core, 2, 1).check().unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_limit_of_a_process_has_effect() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let path = dir.path().join("big");
    let sandbox = program("/usr/bin/head", &["-c", "100000", "/dev/zero"]).stdout(File::create(&path).unwrap());
    let outcome = sandbox.rlimit(Resource::FileSize, 8192, 8192).status().unwrap();
    assert_eq!(outcome.verdict(), Verdict::Signaled(libc::SIGXFSZ));
    assert_eq!(fs::metadata(path).unwrap().len(), 8192);
}

#[test]
fn streams_are_inherited_null_piped_or_files() {
    let _clean = common::clean();
    let own = |fd: u32| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap().to_str().unwrap().to_owned();
    let show = common::probe::run(Sandbox::new(), "fds");
    let text = common::stdout(&show.clone().stdin(Stdio::inherit()).stderr(Stdio::inherit()));
    let has = |text: &str, line: String| text.lines().any(|found| found == line);
    assert!(has(&text, format!("0={}", own(0))) && has(&text, format!("2={}", own(2))), "{text}");
    let text = common::stdout(&show.clone().stdin(Stdio::null()).stderr(Stdio::null()));
    assert!(has(&text, "0=/dev/null".into()) && has(&text, "2=/dev/null".into()), "{text}");
    let outer = script("exec 3>&1 1>&2; readlink /proc/self/fd/3").stdout(Stdio::inherit()).output().unwrap();
    assert_eq!(String::from_utf8(outer.stderr).unwrap().trim_end(), own(1));

    let piped = program("/bin/cat", &[]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(std::io::read_to_string(child.stdout.take().unwrap()).unwrap(), "through");
    assert!(child.stderr.is_none());
    assert!(child.wait().unwrap().success());

    let (read, write) = std::io::pipe().unwrap();
    let mut out = tempfile();
    let sandbox = script("cat; echo error >&2").stdin(file_with("from a file")).stderr(out.try_clone().unwrap());
    assert!(sandbox.stdout(OwnedFd::from(write)).status().unwrap().success());
    assert_eq!(std::io::read_to_string(read).unwrap(), "from a file");
    out.rewind().unwrap();
    assert_eq!(std::io::read_to_string(out).unwrap(), "error\n");
}

/// What the probe says is open, as numbers.
fn numbers(sandbox: Sandbox) -> Vec<i32> {
    let text = common::stdout(&common::probe::run(sandbox, "fds"));
    let mut all: Vec<i32> = text.lines().map(|line| line.split_once('=').unwrap().0.parse().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn nothing_else_is_open_above_stderr() {
    let _clean = common::clean();
    // One without FD_CLOEXEC, such as a careless library leaves.
    let careless = nix::unistd::dup(File::open("/dev/null").unwrap()).unwrap();
    for sandbox in [
        Sandbox::new(),
        common::sandbox().namespaces(ringfence::Namespaces::all() - ringfence::Namespaces::PID),
        common::sandbox().pid_ns().init(true),
    ] {
        assert_eq!(numbers(sandbox), [0, 1, 2]);
    }
    drop(careless);
}

#[test]
fn descriptors_arrive_under_their_numbers_whatever_these_are() {
    let _clean = common::clean();
    for wanted in [vec![3], (3..=20).collect(), (3..=20).rev().collect(), vec![7, 3, 1000, 64, 5], (3..203).collect()] {
        let mut sandbox = common::sandbox().pid_ns();
        let mut source = String::new();
        for number in &wanted {
            let file = file_with(&format!("{number} "));
            // The numbers on this side are the ones wanted for others.
            sandbox = sandbox.fd(*number, file);
            source += &format!("cat /proc/self/fd/{number};");
        }
        let text = common::stdout(&sandbox.clone().command("/bin/sh").args(["-c", &source]));
        let expected: String = wanted.iter().map(|number| format!("{number} ")).collect();
        assert_eq!(text, expected.trim_end());
        let mut open: Vec<i32> = [0, 1, 2].into_iter().chain(wanted).collect();
        open.sort();
        assert_eq!(numbers(sandbox.clone()), open);
        assert_eq!(numbers(sandbox.init(true)), open);
    }
}

#[test]
fn descriptor_numbers_that_cannot_be_are_refused() {
    let _clean = common::clean();
    let file = || File::open("/dev/null").unwrap();
    for sandbox in
        [Sandbox::new().fd(2, file()), Sandbox::new().fd(-1, file()), Sandbox::new().fd(5, file()).fd(5, file())]
    {
        assert_eq!(sandbox.check().unwrap_err().kind(), ErrorKind::Invalid);
    }
    let error = program("/bin/true", &[]).fd(65_000, file()).output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::PlaceFd, Some(libc::EBADF)), "{error}");
    assert!(error.remedy().unwrap().contains("RLIMIT_NOFILE"), "{error}");
}

#[test]
fn the_session_is_the_callers_or_a_new_one() {
    let _clean = common::clean();
    let ids = |sandbox: Sandbox| -> Vec<i32> {
        let sandbox = sandbox.command("/usr/bin/cut").args(["-d ", "-f1,5,6", "/proc/self/stat"]);
        common::stdout(&sandbox).split(' ').map(|id| id.parse().unwrap()).collect()
    };
    let (group, session) = (getpgrp().as_raw(), getsid(None).unwrap().as_raw());
    assert_eq!(ids(Sandbox::new())[1..], [group, session]);
    let [pid, pgid, sid] = ids(Sandbox::new().session(Session::NewGroup))[..] else { panic!() };
    assert_eq!((pgid, sid), (pid, session));
    let [pid, pgid, sid] = ids(Sandbox::new().session(Session::New))[..] else { panic!() };
    assert_eq!((pgid, sid), (pid, pid));
    assert_eq!(ids(common::sandbox().pid_ns()), [1, 1, 1]);
    assert_eq!(ids(common::sandbox().pid_ns().init(true)), [2, 2, 2]);
    assert_eq!(ids(common::sandbox().pid_ns().session(Session::Inherit))[1..], [0, 0], "the caller's, not seen inside");
}

/// A root with an executable script of each name, that says its own path.
fn root_with(paths: &[(&str, u32)]) -> common::TempDir {
    let root = common::root_dir();
    for (path, mode) in paths {
        let place = root.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, "#!/bin/sh\necho $0\n").unwrap();
        fs::set_permissions(&place, PermissionsExt::from_mode(*mode)).unwrap();
    }
    root
}

#[test]
fn a_bare_name_is_found_on_the_sandboxs_path() {
    let _clean = common::clean();
    let root = root_with(&[("opt/a/rf-tool", 0o755), ("opt/b/rf-tool", 0o755), ("opt/denied/rf-tool", 0o644)]);
    let tool =
        |path: &str| common::stdout(&common::on_root(common::sandbox(), &root).command("rf-tool").env("PATH", path));
    assert_eq!(tool("/opt/a:/opt/b"), "/opt/a/rf-tool");
    assert_eq!(tool("/none:/opt/denied:/opt/b:/opt/a"), "/opt/b/rf-tool");
    let plain = common::on_root(common::sandbox(), &root).env_clear();
    assert_eq!(common::stdout(&plain.clone().command("echo").arg("found")), "found");
    let error = plain.clone().command("rf-tool").env("PATH", "/opt/denied:/none").output().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    let error = plain.command("rf-tool").output().unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)), "{error}");
}

/// What may be wrong with a program, with a word of the remedy: also where the stub may not speak, or runs below an init.
#[test]
fn what_cannot_be_executed_is_an_error_of_spawn_with_a_hint() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let file = |name: &str, content: &[u8], mode| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    // The path of the loader stands in the file, and nothing is there.
    let mut stray = fs::read("/bin/true").unwrap();
    let loader = stray.windows(4).position(|at| at == b"/lib").expect("a dynamic program");
    stray[loader..loader + 4].copy_from_slice(b"/bil");
    // e_machine: EM_NONE.
    let mut foreign = stray.clone();
    foreign[18..20].fill(0);
    let cases = [
        (dir.path().join("missing"), libc::ENOENT, "no such program"),
        (dir.path().join("plain/below-a-file"), libc::ENOENT, "no such program"),
        ("no-program-of-this-name".into(), libc::ENOENT, "PATH"),
        (file("stray", &stray, 0o755), libc::ENOENT, "but not the interpreter"),
        (file("script", b"#!/not/there\n", 0o755), libc::ENOENT, "but not the interpreter"),
        (file("carriage", b"#!/bin/sh\r\n", 0o755), libc::ENOENT, "carriage return"),
        ("script".into(), libc::ENOENT, "but not the interpreter"),
        (file("plain", b"#!/bin/sh\n", 0o644), libc::EACCES, "chmod"),
        (dir.path().to_owned(), libc::EACCES, "is a directory"),
        (file("foreign", &foreign, 0o755), libc::ENOEXEC, "another architecture"),
        (file("empty", b"", 0o755), libc::ENOEXEC, "empty"),
        (file("words", b"echo\n", 0o755), libc::ENOEXEC, "#! line"),
    ];
    let base = || common::sandbox().env("PATH", format!("/no/where:{}", dir.path().display()));
    let silent = Seccomp::allow_list().allow(["execve"]);
    for base in [base(), base().pid_ns().init(true), base().seccomp(silent)] {
        for (program, errno, remedy) in &cases {
            let error = base.clone().command(program).spawn().unwrap_err();
            assert_eq!(
                (error.kind(), error.step(), error.raw_os_error()),
                (ErrorKind::Exec, Step::Exec, Some(*errno)),
                "{error}"
            );
            assert_eq!(error.path(), Some(program.as_path()), "{error}");
            assert!(error.remedy().is_some_and(|hint| hint.contains(remedy)), "{remedy}: {error}");
        }
    }
}

#[test]
fn signals_have_their_default_actions_and_none_is_blocked() {
    let _clean = common::clean();
    let mut blocked = SigSet::all();
    blocked.remove(Signal::SIGSEGV);
    let before = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK).unwrap();
    let show = program("/bin/grep", &["^Sig[BI]", "/proc/self/status"]);
    let outputs = [
        show.output(),
        common::sandbox().command("/bin/grep").args(["^Sig[BI]", "/proc/self/status"]).pid_ns().init(true).output(),
    ];
    before.thread_set_mask().unwrap();
    for output in outputs {
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    }
    // Rust programs ignore SIGPIPE, as this one does.
    let mut child = program("/usr/bin/yes", &[]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(libc::SIGPIPE));
}

#[test]
fn an_exit_with_143_is_not_a_death_by_sigterm() {
    let _clean = common::clean();
    let cases = [
        ("exit 143", Verdict::Exited(143)),
        ("kill -TERM $$", Verdict::Signaled(libc::SIGTERM)),
        ("kill -ABRT $$", Verdict::Signaled(libc::SIGABRT)),
        ("kill -KILL $$", Verdict::Signaled(libc::SIGKILL)),
        ("exit 255", Verdict::Exited(255)),
        ("", Verdict::Exited(0)),
    ];
    for (text, verdict) in cases {
        let with_init = common::sh(text).pid_ns().init(true);
        for sandbox in [script(text), with_init] {
            let outcome = sandbox.status().unwrap();
            assert_eq!(outcome.verdict(), verdict, "{text}");
            assert_eq!(outcome.success(), verdict == Verdict::Exited(0));
        }
    }
    // A bare pid 1 is spared by the kernel from signals of its own.
    assert_eq!(common::sh("kill -TERM $$; exit 3").pid_ns().status().unwrap().code(), Some(3));
}

#[test]
fn init_passes_signals_on() {
    let _clean = common::clean();
    let caught = "trap 'exit 42' TERM; trap 'exit 43' HUP; echo ready; while :; do sleep 0.01; done";
    for (signal, text, verdict) in [
        (libc::SIGTERM, caught, Verdict::Exited(42)),
        (libc::SIGHUP, caught, Verdict::Exited(43)),
        (libc::SIGTERM, "echo ready; exec sleep 60", Verdict::Signaled(libc::SIGTERM)),
        (libc::SIGUSR2, "echo ready; exec sleep 60", Verdict::Signaled(libc::SIGUSR2)),
    ] {
        let mut child = common::sh(text).pid_ns().init(true).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        child.signal(signal).unwrap();
        let outcome = child.wait_timeout(Duration::from_secs(10)).unwrap().expect("it ends by the signal");
        assert_eq!(outcome.verdict(), verdict);
        assert_eq!(child.signal(signal).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}

#[test]
fn init_reaps_orphans_and_ends_with_the_program() {
    let _clean = common::clean();
    // The orphan's parent ends first; its pid is gone once somebody has reaped it.
    let text = "pid=$(sh -c '(sleep 0.05; exit 9) >/dev/null & echo $!')
        i=0; while [ -e /proc/$pid ] && [ $i -lt 500 ]; do sleep 0.01; i=$((i+1)); done; [ -e /proc/$pid ] || echo reaped";
    assert_eq!(common::stdout(&common::sh(text).pid_ns().init(true)), "reaped");
    let (mut read, write) = std::io::pipe().unwrap();
    let left = common::sh("sleep 1000 & echo $!; exit 4").pid_ns().init(true).stdout(OwnedFd::from(write));
    assert_eq!(left.status().unwrap().code(), Some(4));
    drop(left);
    // It held the pipe: the end of file comes with its death.
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "3\n");
}

#[test]
fn an_init_needs_a_pid_namespace() {
    let error = Sandbox::new().init(true).check().unwrap_err();
    assert_eq!((error.kind(), error.problems()[0].subject.as_str()), (ErrorKind::Invalid, "init"));
}

#[test]
fn the_first_word_can_be_another() {
    let _clean = common::clean();
    let named = |sandbox: Sandbox| common::stdout(&sandbox.arg("-c").arg("echo $0; tr '\\0' ' ' </proc/$$/cmdline"));
    assert_eq!(named(program("/bin/sh", &[])), "/bin/sh\n/bin/sh -c echo $0; tr '\\0' ' ' </proc/$$/cmdline");
    assert!(named(program("/bin/sh", &[]).argv0("-login")).starts_with("-login\n-login -c "));
    let command = ringfence::Command::new("/bin/sh").argv0("other").args(["-c", "echo $0"]);
    let output = Sandbox::new().prepare().unwrap().with(command).output().unwrap();
    assert_eq!(output.stdout, b"other\n");
    let error = program("/bin/sh", &[]).argv0("a\0b").check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
