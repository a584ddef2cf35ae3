//! A supervisor that answers system calls: what it hears, each answer, and what happens when it goes away.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{self, TempDir, is_root, probe, sandbox, sh};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recvmsg, socket,
};
use ringfence::{Action, Compare, ErrorKind, Notification, Notifications, Rule, Sandbox, Seccomp, Stdio, Step};

const OTHER: i32 = libc::EXFULL;

fn asks(names: &[&'static str]) -> Seccomp {
    Seccomp::deny_list().rule(Rule::new(names.iter().copied(), Action::Notify))
}

/// Runs to the end, with `answer` for every call; gives what was written to stdout and stderr together.
fn supervised(sandbox: Sandbox, mut answer: impl FnMut(Notification) + Send + 'static) -> (i32, String) {
    let sandbox = sandbox.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = sandbox.spawn_supervised(move |notifications| notifications.iter().flatten().for_each(&mut answer));
    let output = child.unwrap_or_else(|error| panic!("spawn: {error}")).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.outcome.code().unwrap_or(-1), text.trim_end().to_owned())
}

/// The path that mkdir(2) or mkdirat(2) was given.
fn made(notification: &Notification) -> PathBuf {
    let place = if notification.syscall() == Some("mkdir") { 0 } else { 1 };
    let path = notification.read_string(notification.args()[place], 4096).unwrap();
    Path::new(std::ffi::OsStr::from_bytes(&path)).to_owned()
}

#[test]
fn each_answer_is_what_the_program_is_told() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let script = "mkdir -m 0700 value; mkdir -m 0700 errno; mkdir -m 0700 proceed; mkdir -m 0700 dropped; ls; exit 0";
    let asks = || sh(script).cwd(dir.path()).seccomp(asks(&["mkdir", "mkdirat"]));
    let (_, text) = supervised(asks(), |notification| {
        let path = made(&notification);
        let wanted = match path.to_str().unwrap() {
            "value" => notification.value(0),
            "errno" => notification.errno(OTHER),
            "proceed" => notification.proceed(),
            _ => return drop(notification),
        };
        assert!(wanted.unwrap(), "{path:?}");
    });
    let errors =
        |name: &str| text.lines().find(|line| line.contains(name) && line.contains("mkdir")).unwrap_or("").to_owned();
    // mkdir -m sets the mode of what it has made, and misses it where it was only told so.
    assert!(errors("value").contains("No such file"), "{text}");
    assert!(errors("errno").contains("Exchange full"), "{text}");
    assert!(errors("dropped").contains("Operation not permitted"), "{text}");
    assert_eq!(errors("proceed"), "", "{text}");
    assert!(dir.path().join("proceed").is_dir() && !dir.path().join("value").exists());
    // Without a filter all four are made.
    fs::remove_dir(dir.path().join("proceed")).unwrap();
    assert!(sh(script).cwd(dir.path()).output().unwrap().outcome.success());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn an_open_is_answered_with_a_descriptor() {
    let _clean = common::clean();
    let dir = TempDir::new();
    fs::write(dir.path().join("given"), "from outside").unwrap();
    let given = dir.path().join("given");
    let wanted = "/no/such/file";
    let cat = sandbox().command("/bin/cat").arg(wanted).seccomp(asks(&["openat", "open"]));
    let (code, text) = supervised(cat, move |notification| {
        let place = if notification.syscall() == Some("open") { 0 } else { 1 };
        let path = notification.read_string(notification.args()[place], 4096).unwrap();
        let answered = if path == wanted.as_bytes() {
            // One given beside the answer, which nobody asked for, is the next number.
            let beside = notification.add_fd(fs::File::open("/dev/null").unwrap(), true).unwrap().unwrap();
            assert_eq!(beside, 3);
            notification.fd(fs::File::open(&given).unwrap(), true)
        } else {
            notification.proceed()
        };
        assert!(answered.unwrap());
    });
    assert_eq!((code, text.as_str()), (0, "from outside"));
}

#[test]
fn the_exec_of_the_program_itself_can_be_asked_about() {
    let _clean = common::clean();
    let true_ = || sandbox().command("/bin/true").seccomp(asks(&["execve"]));
    let error = true_().spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("spawn_supervised"), "{error}");
    let (told, hears) = mpsc::channel();
    let (code, _) = supervised(true_(), move |notification| {
        let path = notification.read_string(notification.args()[0], 4096).unwrap();
        told.send((notification.syscall(), path, notification.pid() > 0)).unwrap();
        notification.proceed().unwrap();
    });
    assert_eq!(code, 0);
    assert_eq!(hears.iter().collect::<Vec<_>>(), [(Some("execve"), b"/bin/true".to_vec(), true)]);
    // Refused by the supervisor, it is an exec that fails.
    let refuse = |errno| {
        true_().spawn_supervised(move |all| all.iter().flatten().for_each(|one| drop(one.errno(errno)))).unwrap_err()
    };
    let error = refuse(OTHER);
    assert_eq!((error.kind(), error.step(), error.raw_os_error()), (ErrorKind::Exec, Step::Exec, Some(OTHER)));
    // One that says it was done, though it was not, does not deceive the spawn.
    let error = true_().spawn_supervised(|all| all.iter().flatten().for_each(|one| drop(one.value(0)))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exec);
}

#[test]
fn a_supervisor_that_never_answers_is_a_timeout() {
    let _clean = common::clean();
    let timeout = Duration::from_millis(300);
    let sandbox = sandbox().command("/bin/true").seccomp(asks(&["execve"])).setup_timeout(timeout);
    let (held, holds) = mpsc::channel();
    let start = Instant::now();
    let error = sandbox
        .spawn_supervised(move |all| {
            held.send(all.recv().unwrap().unwrap()).unwrap();
            // Nobody is left, and that ends the stream.
            assert!(all.recv().unwrap().is_none() && all.is_over());
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() >= timeout && start.elapsed() < timeout * 20);
    let question = holds.recv().unwrap();
    assert!(!question.is_valid() && !question.proceed().unwrap());
}

#[test]
fn every_call_can_be_asked_about() {
    let _clean = common::clean();
    for init in [false, true] {
        let base = if init { sandbox().pid_ns().init(true) } else { sandbox().pid_ns() };
        let count = Arc::new(AtomicUsize::new(0));
        let counts = count.clone();
        let all = Seccomp::deny_list().otherwise(Action::Notify);
        let (code, text) =
            supervised(base.clone().command("/bin/echo").arg("heard").seccomp(all.clone()), move |one| {
                counts.fetch_add(1, Ordering::Relaxed);
                one.proceed().unwrap();
            });
        assert_eq!((code, text.as_str()), (0, "heard"), "init {init}");
        assert!(count.load(Ordering::Relaxed) > 10);
        // The stub, too, is heard: it makes no call under the filter but the exec, and its failure is told.
        let counts = count.clone();
        count.store(0, Ordering::Relaxed);
        let error = base
            .command("/no/such/program")
            .seccomp(all)
            .spawn_supervised(move |all| {
                for one in all.iter().flatten() {
                    assert_eq!(one.syscall(), Some("execve"));
                    counts.fetch_add(1, Ordering::Relaxed);
                    one.proceed().unwrap();
                }
            })
            .unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)), "init {init}");
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn without_a_supervisor_the_calls_are_not_there() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let calls =
        || probe::run(sandbox(), "calls chroot").cwd(dir.path()).seccomp(asks(&["chroot"])).stdout(Stdio::piped());
    // One that goes away at once, one that nobody takes before the wait, and one that is dropped.
    let gone = calls().spawn_supervised(drop).unwrap();
    let untaken = calls().spawn().unwrap();
    let mut dropped = calls().spawn().unwrap();
    drop(dropped.notifications.take().unwrap());
    for child in [gone, untaken, dropped] {
        assert_eq!(child.wait_with_output().unwrap().stdout, format!("chroot {}\n", libc::ENOSYS).as_bytes());
    }
    let error = sandbox().command("/bin/true").seccomp(Seccomp::default()).spawn_supervised(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "nothing to supervise");
}

#[test]
fn a_supervisor_that_dies_leaves_a_program_that_goes_on() {
    let _clean = common::clean();
    let script = "mkdir first 2>/dev/null; echo; mkdir second 2>&1";
    let dir = TempDir::new();
    let sandbox = sh(script).cwd(dir.path()).seccomp(asks(&["mkdir", "mkdirat"])).stdout(Stdio::piped());
    let child = sandbox
        .spawn_supervised(|all| {
            let first = all.recv().unwrap().unwrap();
            drop(all);
            // A panic here would do the same.
            first.errno(OTHER).unwrap();
        })
        .unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.contains("Function not implemented"), "{text}");
}

#[test]
fn the_stream_in_the_handle_has_timeouts_and_an_end() {
    let _clean = common::clean();
    let mut child = sh("read line; mkdir /no/such/place/there; exit 7")
        .seccomp(asks(&["mkdir", "mkdirat"]))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let notifications = child.notifications.take().unwrap();
    let start = Instant::now();
    assert!(notifications.recv_timeout(Duration::from_millis(50)).unwrap().is_none());
    assert!(start.elapsed() >= Duration::from_millis(50) && !notifications.is_over());
    drop(child.stdin.take());
    let one = notifications.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert_eq!(made(&one), Path::new("/no/such/place/there"));
    assert!(one.is_valid() && one.number() >= 0 && one.instruction_pointer() != 0);
    assert!(one.read_memory(0, &mut [0; 8]).is_err());
    assert!(one.read_string(one.args()[0].min(one.args()[1]), 3).is_err());
    // No length, and no place, is too large for the arithmetic.
    let place = one.args()[0].max(one.args()[1]);
    assert_eq!(one.read_string(place, usize::MAX).unwrap(), b"/no/such/place/there");
    for (address, longest) in [(u64::MAX, usize::MAX), (u64::MAX - 5, 3), (u64::MAX - 5000, usize::MAX)] {
        assert!(one.read_string(address, longest).is_err(), "{address:x} {longest:x}");
    }
    assert!(one.proceed().unwrap());
    assert!(notifications.recv().unwrap().is_none(), "the end");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn a_supervisor_is_told_of_the_end_before_anyone_waits() {
    let _clean = common::clean();
    for init in [false, true] {
        let (told, hears) = mpsc::channel();
        let mut child = sh("exit 7")
            .pid_ns()
            .init(init)
            .seccomp(asks(&["chroot"]))
            .spawn_supervised(move |all| told.send(all.recv().unwrap().is_none() && all.is_over()).unwrap())
            .unwrap();
        assert_eq!(hears.recv_timeout(Duration::from_secs(20)), Ok(true), "init {init}");
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
}

#[test]
fn a_question_of_a_program_that_is_killed_is_withdrawn() {
    let _clean = common::clean();
    let mut child = sh("mkdir /no/such/place/there").seccomp(asks(&["mkdir", "mkdirat"])).spawn().unwrap();
    let notifications = child.notifications.take().unwrap();
    let one = notifications.recv().unwrap().unwrap();
    let args = one.args();
    child.kill().unwrap();
    // mkdir(1) is a child of the shell, and not held by a pid namespace.
    // SAFETY: no memory is involved; the process waits for this test's answer.
    unsafe { libc::kill(one.pid() as i32, libc::SIGKILL) };
    let start = Instant::now();
    while one.is_valid() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!one.is_valid());
    let gone = one.read_memory(args[0], &mut [0; 1]).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    assert_eq!(one.add_fd(fs::File::open("/dev/null").unwrap(), true).unwrap(), None);
    assert!(!one.value(0).unwrap(), "the answer was not wanted any more");
    assert_eq!(child.wait().unwrap().status().code(), None);
}

#[test]
fn many_threads_may_answer() {
    let _clean = common::clean();
    let script = "for i in 1 2 3 4; do (for j in 1 2 3 4 5; do mkdir /no/such/$i$j 2>/dev/null; done) & done; wait";
    let sandbox = sh(script).seccomp(asks(&["mkdir", "mkdirat"]));
    let count = Arc::new(AtomicUsize::new(0));
    let counts = count.clone();
    let child = sandbox.spawn_supervised(move |all| {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(one) = all.recv().unwrap() {
                        counts.fetch_add(1, Ordering::Relaxed);
                        one.value(0).unwrap();
                    }
                });
            }
        });
    });
    assert!(child.unwrap().wait().unwrap().success());
    assert_eq!(count.load(Ordering::Relaxed), 20);
}

#[test]
fn a_whole_sandbox_is_supervised_too() {
    let _clean = common::clean();
    let base = sandbox().pid_ns().uts_ns().ipc_ns().net_ns().cgroup_ns().rootfs(ringfence::RootFs::host());
    let base = if is_root() { base.user(65534, 65534) } else { base };
    let profile =
        Seccomp::default().rule(Rule::new(["kill"], Action::Notify).arg(1, Compare::int(libc::SIGUSR1 as u32)));
    let script = "kill -USR1 1; echo told $?";
    let sandbox = base.command("/bin/sh").args(["-c", script]).seccomp(profile).init(true);
    let (told, hears) = mpsc::channel();
    let (code, text) = supervised(sandbox, move |one| {
        told.send((one.syscall(), one.args()[0])).unwrap();
        one.value(0).unwrap();
    });
    assert_eq!((code, text.as_str()), (0, "told 0"));
    assert_eq!(hears.iter().collect::<Vec<_>>(), [(Some("kill"), 1)]);
}

#[test]
fn nothing_of_the_listener_is_left_in_the_program() {
    let _clean = common::clean();
    for init in [false, true] {
        let base = sandbox().pid_ns().init(init).seccomp(asks(&["chroot"]));
        let (_, text) = supervised(probe::run(base, "fds"), |one| drop(one.proceed()));
        let numbers: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).map(|(number, _)| number).collect();
        assert_eq!(numbers, ["0", "1", "2"], "{text}");
        let (_, tasks) = supervised(
            sandbox().command("/bin/sh").args(["-c", "ls /proc/self/task | wc -l"]).seccomp(asks(&["chroot"])),
            |one| drop(one.proceed()),
        );
        assert_eq!(tasks, "1", "the thread that handed it over is gone");
    }
}

/// What a caller says that stands under this filter itself.
fn caller_under(profile: Seccomp, what: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let caller = sandbox().command(exe).env("RINGFENCE_CALLER", what).seccomp(profile);
    common::stdout(&caller)
}

common::callers! {
    "plain" => asks_for_a_filter(),
    "supervise" => asks_for_a_supervisor(),
}

/// Says what it is told of a filter, and what comes of a sandbox that does without.
fn asks_for_a_filter() {
    let asked = Sandbox::new().command("/bin/echo").arg("ran").seccomp(Seccomp::default());
    let error = asked.check().unwrap_err();
    let problem = &error.problems()[0];
    println!("{:?} {:?} {}", error.kind(), problem.feature, asked.spawn().is_err());
    let without = asked.best_effort(ringfence::Feature::Seccomp);
    let missing =
        matches!(without.check().unwrap().get(ringfence::Feature::Seccomp), Some(ringfence::Enforcement::Missing(_)));
    println!("{missing} {}", String::from_utf8_lossy(&without.output().unwrap().stdout));
}

fn asks_for_a_supervisor() {
    let sandbox = probe::run(Sandbox::new(), "calls chroot").seccomp(asks(&["chroot"])).stdout(Stdio::piped());
    let child = sandbox.spawn_supervised(|all| {
        all.iter().flatten().for_each(|one| drop(one.errno(OTHER)));
    });
    match child {
        Ok(child) => println!("{}", String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout)),
        Err(error) => println!("{error}"),
    }
}

#[test]
fn a_kernel_without_filters_is_told_and_can_be_done_without() {
    let _clean = common::clean();
    let without = Seccomp::deny_list().rule(Rule::new(["seccomp"], Action::ENOSYS));
    assert_eq!(caller_under(without, "plain"), "Unsupported Some(Seccomp) true\ntrue ran");
}

#[test]
fn an_older_kernel_hands_its_listener_over_without_the_newer_flag() {
    let _clean = common::clean();
    let flag = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let older =
        Rule::new(["seccomp"], Action::Errno(libc::EINVAL)).arg(1, Compare::MaskedEq { mask: flag, value: flag });
    let expected = format!("chroot {OTHER}");
    assert_eq!(caller_under(Seccomp::deny_list().rule(older), "supervise"), expected);
    assert_eq!(caller_under(Seccomp::deny_list(), "supervise"), expected);
    // Where no listener can be had, the error is that of the kernel.
    let none = Rule::new(["seccomp"], Action::Errno(libc::EBUSY)).arg(1, Compare::MaskedEq { mask: 8, value: 8 });
    let text = caller_under(Seccomp::deny_list().rule(none), "supervise");
    assert!(text.starts_with("install seccomp filter: EBUSY") && text.contains("supervisor"), "{text}");
}

#[test]
fn a_program_takes_no_place_that_a_supervisor_has_left() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let made = dir.path().join("made");
    let sandbox = probe::run(sandbox(), &format!("own-supervisor {}", made.display())).seccomp(asks(&["mkdirat"]));
    let sandbox = sandbox.stdin(Stdio::null()).stdout(Stdio::piped());
    let (left, has_left) = mpsc::channel();
    let supervisor = move |notifications| {
        drop(notifications);
        left.send(()).unwrap();
    };
    let output = sandbox.spawn_supervised(supervisor).unwrap().wait_with_output().unwrap();
    has_left.recv().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told.matches("listener: Device or resource busy").count(), 2, "{told}");
    assert!(told.contains("mkdirat: Function not implemented") && !made.exists(), "{told}");
}

/// Takes one connection: the message up to its end, and the listener.
fn take_listener(socket: &UnixListener) -> (String, Notifications) {
    let (mut stream, _) = socket.accept().unwrap();
    let mut bytes = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), flags).unwrap();
    let control: Vec<_> = message.cmsgs().unwrap().collect();
    let [ControlMessageOwned::ScmRights(fds)] = &control[..] else { panic!("{control:?}") };
    let [listener] = fds[..] else { panic!("{fds:?}") };
    // SAFETY: the kernel has just made this descriptor for us.
    let (count, listener) = (message.bytes, unsafe { OwnedFd::from_raw_fd(listener) });
    let mut text = String::from_utf8(bytes[..count].to_vec()).unwrap();
    stream.read_to_string(&mut text).unwrap();
    (text, listener.into())
}

/// A supervisor elsewhere, which takes `count` listeners and answers with an errno, and gives the messages.
fn agent(path: &Path, count: usize) -> thread::JoinHandle<Vec<String>> {
    let socket = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let mut texts = Vec::new();
        let mut answering = Vec::new();
        for _ in 0..count {
            let (text, notifications) = take_listener(&socket);
            texts.push(text);
            answering.push(thread::spawn(move || {
                for notification in notifications.iter().flatten() {
                    let answered = match notification.syscall() {
                        Some("execve") => notification.proceed(),
                        _ => notification.errno(OTHER),
                    };
                    drop(answered);
                }
            }));
        }
        answering.into_iter().for_each(|thread| thread.join().unwrap());
        texts
    })
}

fn told(path: &Path) -> impl Fn(u32) -> Vec<u8> + Send + Sync + use<> {
    let path = path.display().to_string();
    move |pid| format!("{{\"pid\":{pid},\"metadata\":\"{path}\"}}").into_bytes()
}

#[test]
fn a_supervisor_elsewhere_gets_the_listener_and_the_pid_before_the_program_runs() {
    let _clean = common::clean();
    let dir = TempDir::new();
    // Longer than a socket's address.
    let long = dir.path().join("d".repeat(200));
    fs::create_dir(&long).unwrap();
    let place = |name: &str| dir.path().join(name);
    let by_link = place("link");
    std::os::unix::fs::symlink(&long, &by_link).unwrap();
    // With a question about the exec itself, the supervisor has to be there before.
    for (name, profile) in [("plain", asks(&["mkdir", "mkdirat"])), ("exec", asks(&["mkdir", "mkdirat", "execve"]))] {
        for init in [false, true] {
            let path = place(&format!("{name}-{init}"));
            let agent = agent(&path, 1);
            let target = long.join(format!("{name}-{init}"));
            fs::rename(&path, &target).unwrap();
            let sandbox = sh("mkdir x 2>&1").pid_ns().init(init).seccomp(profile.clone());
            let sandbox = sandbox.notify_socket(&target, told(&path)).stdout(Stdio::piped());
            let child = sandbox.spawn().unwrap();
            assert!(child.notifications.is_none());
            let pid = child.id();
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("Exchange full"), "{name}, {init}: {text}");
            assert_eq!(agent.join().unwrap(), [String::from_utf8(told(&path)(pid)).unwrap()]);
        }
    }
}

#[test]
fn each_program_of_a_sandbox_has_its_listener_with_its_own_pid() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let path = dir.path().join("agent");
    let agent = agent(&path, 4);
    let profile = asks(&["mkdir", "mkdirat"]);
    let sandbox = sh("read line; mkdir x 2>&1").pid_ns().seccomp(profile).notify_socket(&path, told(&path));
    let mut first = sandbox.clone().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let command = ringfence::Command::new("/bin/sh").args(["-c", "mkdir x 2>&1"]);
    let further = first.exec(command.stdout(Stdio::piped())).unwrap();
    let mut pids = vec![first.id(), further.id()];
    let output = further.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exchange full"));
    drop(first.stdin.take());
    first.wait().unwrap();
    let prepared = sandbox.stdin(Stdio::null()).stdout(Stdio::null()).prepare().unwrap();
    for _ in 0..2 {
        let mut child = prepared.spawn().unwrap();
        pids.push(child.id());
        child.wait().unwrap();
    }
    let expected: Vec<_> = pids.into_iter().map(|pid| String::from_utf8(told(&path)(pid)).unwrap()).collect();
    assert_eq!(agent.join().unwrap(), expected);
}

#[test]
fn a_supervisor_that_is_not_there_is_an_error_before_a_child_exists() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let place = |name: &str| dir.path().join(name);
    drop(UnixListener::bind(place("gone")).unwrap());
    let datagram = std::os::unix::net::UnixDatagram::bind(place("datagram")).unwrap();
    fs::write(place("file"), "").unwrap();
    let sandbox = |path: &Path| sh("echo ran").seccomp(asks(&["mkdir"])).notify_socket(path, |_| panic!("no program"));
    for (name, errno) in [
        ("missing", libc::ENOENT),
        ("gone", libc::ECONNREFUSED),
        ("file", libc::ENOTSOCK),
        ("datagram", libc::EPROTOTYPE),
    ] {
        let error = sandbox(&place(name)).output().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::HandListenerOver, Some(errno)), "{name}: {error}");
        assert_eq!(error.path(), Some(place(name).as_path()), "{error}");
        assert!(error.remedy().is_some(), "{error}");
    }
    drop(datagram);
    // A setup that would fail has not begun.
    let error = sandbox(&place("missing")).cwd("/no/such/dir").output().unwrap_err();
    assert_eq!(error.step(), Step::HandListenerOver, "{error}");
    // One whose queue is full, and that takes nobody.
    let full = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(full.as_raw_fd(), &UnixAddr::new(&place("full")).unwrap()).unwrap();
    listen(&full, Backlog::new(0).unwrap()).unwrap();
    let waiting = UnixStream::connect(place("full")).unwrap();
    let short = sandbox(&place("full")).setup_timeout(Duration::from_millis(200));
    let error = short.output().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Timeout, Step::HandListenerOver), "{error}");
    drop(waiting);
}

#[test]
fn a_program_whose_listener_does_not_arrive_never_runs() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let path = dir.path().join("agent");
    let socket = UnixListener::bind(&path).unwrap();
    let ran = dir.path().join("ran");
    // More than the socket holds.
    let sandbox = sh(&format!("echo >{}; exit 7", ran.display())).seccomp(asks(&["mkdir"]));
    let sandbox = sandbox.notify_socket(&path, |_| vec![b' '; 16 << 20]);
    let late = sandbox.clone().setup_timeout(Duration::from_secs(1)).status().unwrap_err();
    assert_eq!((late.kind(), late.step()), (ErrorKind::Timeout, Step::HandListenerOver), "{late}");
    assert!(!ran.exists());
    drop(socket.accept().unwrap());
    let hangs_up = thread::spawn(move || drop(socket.accept().unwrap()));
    let error = sandbox.status().unwrap_err();
    hangs_up.join().unwrap();
    let errno = error.raw_os_error();
    assert!([Some(libc::EPIPE), Some(libc::ECONNRESET)].contains(&errno), "{error}");
    assert_eq!(error.step(), Step::HandListenerOver, "{error}");
    assert!(!ran.exists());
}

#[test]
fn a_supervisor_elsewhere_that_nobody_would_ask_is_a_contradiction() {
    let _clean = common::clean();
    let told = |sandbox: &Sandbox| sandbox.clone().notify_socket("/run/agent", |_| Vec::new());
    for sandbox in [sh("true"), sh("true").seccomp(Seccomp::default())] {
        let error = told(&sandbox).check().unwrap_err();
        assert_eq!((error.kind(), error.problems()[0].subject.as_str()), (ErrorKind::Invalid, "notify_socket"));
    }
    let asking = told(&sh("true").seccomp(asks(&["mkdir"])));
    asking.check().unwrap();
    let error = asking.spawn_supervised(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
