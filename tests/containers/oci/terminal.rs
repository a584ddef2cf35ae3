//! Terminals of containers, for engines and at the terminal of the runtime itself.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use ringfence::{Child, Sandbox, Stdio, Terminal, TerminalSize};
use serde_json::json;

use super::Bundle;
use crate::common::{self, handover::receive};

const SIZE: TerminalSize = TerminalSize { rows: 33, columns: 101 };
/// A container whose program tells about its terminal, waits for a line, and for Ctrl-C.
const TELLS: &str = "trap 'echo caught; exit 7' INT; tty; stty size; stat -c %d:%i /dev/console; stat -c %d:%i $(tty); \
                     stat -c %u $(tty); read line; echo got $line >/dev/tty; while :; do sleep 0.05; done";

fn bundle(script: &str) -> Bundle {
    at_terminal(Bundle::new(script))
}

fn at_terminal(bundle: Bundle) -> Bundle {
    let bundle = bundle.with("/process/terminal", json!(true));
    bundle.with("/process/consoleSize", json!({"height": SIZE.rows, "width": SIZE.columns}))
}

/// The end of a terminal at which somebody types and looks.
pub(super) struct Screen<T> {
    pub(super) terminal: T,
    shown: String,
}

impl<T: Read + Write + AsFd> Screen<T> {
    pub(super) fn new(terminal: T) -> Screen<T> {
        Screen { terminal, shown: String::new() }
    }

    /// Reads until the terminal has shown `text`, and returns what was shown before that.
    #[track_caller]
    pub(super) fn waits_for(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let before: String = self.shown.drain(..at + text.len()).collect();
                return before[..at].to_owned();
            }
            let ready = poll(&mut [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)], 60_000u16).unwrap();
            assert!(ready > 0, "{text:?} does not come: {:?}", self.shown);
            let mut bytes = [0; 4096];
            let count = self.terminal.read(&mut bytes).unwrap();
            assert!(count > 0, "the end comes too early: {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    pub(super) fn types(&mut self, bytes: &[u8]) {
        self.terminal.write_all(bytes).unwrap();
    }
}

/// A container that has told about its terminal goes on with a line, and ends by Ctrl-C.
#[track_caller]
fn is_at_its_terminal(screen: &mut Screen<impl Read + Write + AsFd>, uid: u32) {
    screen.types(b"a line\n");
    let told = screen.waits_for("got a line\r\n");
    let lines: Vec<&str> = told.lines().filter(|line| *line != "a line").collect();
    assert_eq!(lines[..2], ["/dev/pts/0", "33 101"], "{told}");
    assert_eq!(lines[2], lines[3], "the console is the terminal: {told}");
    assert_eq!(lines[4], uid.to_string(), "{told}");
    screen.types(&[3]);
    screen.waits_for("caught\r\n");
}

#[test]
fn an_engine_gets_the_terminal_over_its_socket() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for bundle in [bundle(TELLS), at_terminal(Bundle::of_an_ordinary_user(TELLS))] {
        let socket = bundle.path("console");
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let socket = format!("--console-socket={}", socket.display());
        bundle.does(&["create", &socket, "box"]);
        let (name, master) = receive(&listener);
        assert_eq!(name, "/dev/pts/0");
        assert_eq!(bundle.state()["status"], "created");
        let mut screen = Screen::new(std::fs::File::from(master));
        bundle.does(&["start", "box"]);
        is_at_its_terminal(&mut screen, 0);
        bundle.becomes("stopped");
        bundle.does(&["delete", "box"]);
        // The same in one call.
        bundle.does(&["run", "-d", &socket, "box"]);
        let mut screen = Screen::new(std::fs::File::from(receive(&listener).1));
        is_at_its_terminal(&mut screen, 0);
        bundle.becomes("stopped");
        bundle.does(&["delete", "box"]);
        assert!(bundle.is_empty());
    }
}

#[test]
fn a_terminal_is_that_of_the_containers_user() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("another user") {
        return;
    }
    // Without a mount at /dev, there is one with all devices.
    let mut bundle = bundle(TELLS).with("/process/user", json!({"uid": 1234, "gid": 4321}));
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let socket = bundle.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    bundle.does(&["run", "-d", "--console-socket", socket.to_str().unwrap(), "box"]);
    let mut screen = Screen::new(std::fs::File::from(receive(&listener).1));
    is_at_its_terminal(&mut screen, 1234);
    bundle.becomes("stopped");
    bundle.does(&["delete", "box"]);
}

#[test]
fn a_terminal_that_nobody_takes_is_an_error_and_leaves_nothing() {
    let _clean = common::clean();
    let bundle = bundle("true");
    for command in [&["create", "box"][..], &["run", "--detach", "box"]] {
        let said = bundle.fails(command);
        assert!(
            said.contains("cannot allocate tty if oci-runtime will detach without setting console socket"),
            "{said}"
        );
    }
    let none = bundle.path("none");
    let said = bundle.fails(&["create", "box", "--console-socket", none.to_str().unwrap()]);
    assert!(said.contains("send terminal") && said.contains(none.to_str().unwrap()), "{said}");
    let file = bundle.path("config.json");
    assert!(bundle.fails(&["create", "box", "--console-socket", file.to_str().unwrap()]).contains("send terminal"));
    assert!(bundle.is_empty() && super::groups().is_empty());
    // A socket for a terminal, and none that could be sent.
    let socket = bundle.path("console");
    let _listener = UnixListener::bind(&socket).unwrap();
    let words = |command| [command, "--console-socket", socket.to_str().unwrap(), "box"];
    let said = bundle.fails(&words("run"));
    assert!(said.contains("cannot use console socket if oci-runtime will not detach or allocate tty"), "{said}");
    let bundle = bundle.with("/process/terminal", json!(false));
    assert!(bundle.fails(&words("create")).contains("cannot use console socket"));
    let bundle = bundle
        .with("/process/terminal", json!(true))
        .with("/process/consoleSize", json!({"height": 70000, "width": 1}));
    assert!(bundle.fails(&words("create")).contains("process.consoleSize.height: "));
    assert!(bundle.is_empty());
}

#[test]
fn an_engine_gets_the_pidfd_over_its_socket() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new("exec sleep 1000");
    let socket = bundle.path("pidfd");
    let listener = UnixListener::bind(&socket).unwrap();
    bundle.does(&["create", "--pidfd-socket", socket.to_str().unwrap(), "box"]);
    let (text, pidfd) = receive(&listener);
    assert_eq!(text, "standard");
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    let pid = bundle.state()["pid"].to_string();
    assert!(info.lines().any(|line| line.split_whitespace().eq(["Pid:", &pid])), "{pid} {info}");
    bundle.does(&["start", "box"]);
    bundle.does(&["kill", "box", "KILL"]);
    assert_eq!(poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], 60_000u16), Ok(1));
    bundle.does(&["delete", "box"]);
    let said = bundle.fails(&["create", "--pidfd-socket", bundle.path("none").to_str().unwrap(), "box"]);
    assert!(said.contains("send pidfd"), "{said}");
    assert!(bundle.is_empty());
}

/// The runtime at a terminal of the test's own, with the settings that this had before.
fn at_a_terminal(bundle: &Bundle) -> (Child, Screen<Terminal>, Termios) {
    at_a_terminal_with(bundle, "run box")
}

pub(super) fn at_a_terminal_with(bundle: &Bundle, words: &str) -> (Child, Screen<Terminal>, Termios) {
    std::fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    let what = format!("{} --root {} {words}", bundle.runtime, bundle.path("containers").display());
    let sandbox = || Sandbox::new().stdin(Stdio::pty(SIZE));
    let mut untouched = sandbox().command("cat").spawn().unwrap();
    let before = tcgetattr(untouched.terminal.as_ref().unwrap().as_fd()).unwrap();
    untouched.kill().unwrap();
    let runtime = sandbox().command(std::env::current_exe().unwrap()).env("RINGFENCE_CALLER", what);
    let mut runtime = runtime.cwd(bundle.dir.path()).spawn().unwrap();
    let terminal = runtime.terminal.take().unwrap();
    (runtime, Screen::new(terminal), before)
}

pub(super) fn is_raw(screen: &Screen<Terminal>) -> bool {
    let now = tcgetattr(screen.terminal.as_fd()).unwrap();
    !now.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
}

#[track_caller]
pub(super) fn ends_restored(mut runtime: Child, screen: &Screen<Terminal>, before: &Termios, code: i32) {
    let outcome = runtime.wait().unwrap();
    assert_eq!(outcome.code(), Some(code), "{outcome:?}: {:?}", screen.shown);
    assert_eq!(&tcgetattr(screen.terminal.as_fd()).unwrap(), before);
}

#[test]
fn a_container_runs_at_the_terminal_of_the_runtime() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = bundle(TELLS);
    let (runtime, mut screen, before) = at_a_terminal(&bundle);
    common::eventually("the terminal is raw", || is_raw(&screen));
    is_at_its_terminal(&mut screen, 0);
    ends_restored(runtime, &screen, &before, 7);
    assert!(bundle.is_empty() && super::groups().is_empty());
}

#[test]
fn a_container_hears_of_a_new_size_and_of_the_end_of_what_is_typed() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let script =
        "echo ready; until [ \"$(stty size)\" = '50 9' ]; do sleep 0.05; done; echo resized; cat; echo end; exit 3";
    let bundle = bundle(script);
    let (runtime, mut screen, before) = at_a_terminal(&bundle);
    screen.waits_for("ready\r\n");
    screen.terminal.resize(TerminalSize { rows: 50, columns: 9 }).unwrap();
    screen.waits_for("resized\r\n");
    screen.types(&[4]);
    ends_restored(runtime, &screen, &before, 3);
}

#[test]
fn a_signal_for_the_runtime_is_the_containers_and_its_terminal_stays_whole() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = bundle("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done");
    let (runtime, mut screen, before) = at_a_terminal(&bundle);
    screen.waits_for("ready\r\n");
    runtime.signal(libc::SIGTERM).unwrap();
    ends_restored(runtime, &screen, &before, 9);
    // A terminal that goes takes the container with it, also one that does not care.
    let bundle =
        bundle.with("/process/args", json!(["sh", "-c", "trap '' HUP TERM; echo ready; while :; do sleep 0.05; done"]));
    let (mut runtime, mut screen, _) = at_a_terminal(&bundle);
    screen.waits_for("ready\r\n");
    drop(screen);
    let outcome = runtime.wait().unwrap();
    assert!(outcome.code() == Some(128 + libc::SIGKILL) || outcome.status().signal().is_some(), "{outcome:?}");
    common::eventually("nothing is left", || bundle.is_empty() && super::groups().is_empty());
}

#[test]
fn without_a_terminal_of_its_own_the_runtime_gives_none() {
    let _clean = common::clean();
    if std::fs::File::open("/dev/tty").is_ok() {
        return common::skip("this process has a terminal, at which the container would run", false);
    }
    let bundle = bundle("true");
    assert!(bundle.fails(&["run", "box"]).contains("there is no terminal"));
    assert!(bundle.is_empty() && !Path::new("containers/box").exists());
}
