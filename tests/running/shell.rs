//! The example `shell`, at a terminal of the test's own.

use std::io::Write;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{InputFlags, LocalFlags, Termios, tcgetattr};
use ringfence::{Sandbox, Stdio, TerminalSize};

use super::terminal::{CTRL_C, CTRL_D, CTRL_Z, SIZE, Typist};
use crate::common;

#[path = "../../examples/shell.rs"]
mod example;

common::callers! {
    |words|
    "shell" => std::process::exit(example::run(words.iter().map(std::ffi::OsString::from))),
}

/// Starts the example with `sh`, and returns it at its first prompt, with the settings that the terminal had before.
fn start() -> (Typist, Termios) {
    let exe = std::env::current_exe().unwrap();
    let sandbox = Sandbox::new().command(exe).stdin(Stdio::pty(SIZE)).env("RINGFENCE_CALLER", "shell /bin/sh");
    // The terminal is as the kernel makes each, until the example changes it.
    let mut typist = Typist::new(sandbox.spawn().unwrap());
    let untouched = Typist::new(Sandbox::new().command("cat").stdin(Stdio::pty(SIZE)).spawn().unwrap());
    let before = tcgetattr(untouched.terminal.as_fd()).unwrap();
    typist.waits_for("$ ");
    assert!(is_raw(&typist));
    (typist, before)
}

fn settings(typist: &Typist) -> Termios {
    tcgetattr(typist.terminal.as_fd()).unwrap()
}

fn is_raw(typist: &Typist) -> bool {
    let now = settings(typist);
    let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
    !now.local_flags.intersects(cooked) && !now.input_flags.contains(InputFlags::ICRNL)
}

#[track_caller]
fn ends_restored(mut typist: Typist, before: &Termios, code: i32) {
    let outcome = typist.end();
    assert_eq!(outcome.code(), Some(code), "{outcome:?}: {:?}", typist.shown);
    assert_eq!(&settings(&typist), before);
}

#[test]
fn a_shell_has_a_terminal_of_its_own() {
    let _clean = common::clean();
    let (mut typist, before) = start();
    typist.types(b"tty; stty size; id -u; exit 7\n");
    typist.waits_for("/dev/pts/0\r\n33 101\r\n65534\r\n");
    ends_restored(typist, &before, 7);
}

#[test]
fn the_keys_of_a_shell_mean_what_they_mean_elsewhere() {
    let _clean = common::clean();
    let (mut typist, before) = start();
    // The echo of what is typed is not what is waited for.
    typist.types(b"sh -c 'echo re\"\"ady; exec sleep 1000'\n");
    typist.waits_for("ready\r\n");
    typist.types(CTRL_C);
    typist.waits_for("$ ");
    typist.types(b"echo code $?\n");
    typist.waits_for("code 130\r\n");
    typist.types(b"sh -c 'trap \"echo re\"\"sumed\" CONT; echo re\"\"ady; while :; do read -r line; done'\n");
    typist.waits_for("ready\r\n");
    typist.types(CTRL_Z);
    typist.waits_for("Stopped");
    typist.waits_for("$ ");
    // The shell names the job before the job has the terminal: only the job itself can tell that it has.
    typist.types(b"fg\n");
    typist.waits_for("resumed\r\n");
    typist.types(CTRL_C);
    typist.waits_for("$ ");
    typist.types(b"echo then $?\n");
    typist.waits_for("then 130\r\n");
    typist.types(CTRL_D);
    ends_restored(typist, &before, 0);
}

#[test]
fn a_shell_has_the_size_of_the_window() {
    let _clean = common::clean();
    let (mut typist, before) = start();
    typist.terminal.resize(TerminalSize { rows: 50, columns: 9 }).unwrap();
    typist.types(b"until [ \"$(stty size)\" = '50 9' ]; do sleep 0.1; done; echo re\"\"sized; exit\n");
    typist.waits_for("resized\r\n");
    ends_restored(typist, &before, 0);
}

#[test]
fn a_shell_that_is_killed_leaves_the_terminal_as_it_was() {
    let _clean = common::clean();
    let (mut typist, before) = start();
    typist.types(b"stty raw -echo; kill -9 $$\n");
    ends_restored(typist, &before, 128 + libc::SIGKILL);
}

#[test]
fn a_signal_ends_the_shell_and_leaves_the_terminal_as_it_was() {
    let _clean = common::clean();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let (typist, before) = start();
        typist.child.signal(signal).unwrap();
        ends_restored(typist, &before, 128 + signal);
    }
    // A program that does not care that its terminal is gone.
    let (mut typist, before) = start();
    typist.types(b"trap '' HUP TERM; sh -c 'echo re\"\"ady; while :; do sleep 1; done' <&-\n");
    typist.waits_for("ready\r\n");
    typist.child.signal(libc::SIGTERM).unwrap();
    ends_restored(typist, &before, 128 + libc::SIGTERM);
}

#[test]
fn a_stopped_shell_gives_the_terminal_back_meanwhile() {
    let _clean = common::clean();
    let (mut typist, before) = start();
    typist.child.signal(libc::SIGTSTP).unwrap();
    common::eventually("the terminal is as it was", || settings(&typist) == before);
    let stat = format!("/proc/{}/stat", typist.child.id());
    let is_stopped = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
    common::eventually("the example has stopped", is_stopped);
    typist.child.signal(libc::SIGCONT).unwrap();
    common::eventually("the terminal is raw again", || is_raw(&typist));
    typist.types(b"echo he\"\"re; exit\n");
    typist.waits_for("here\r\n");
    ends_restored(typist, &before, 0);
}

#[test]
fn a_program_that_reads_nothing_does_not_block_its_output() {
    let _clean = common::clean();
    let (mut typist, before) = start();
    typist.types(
        b"stty -echo raw; echo re\"\"ady; i=0; while [ $i -lt 5000 ]; do echo 0123456789abcdef; i=$((i + 1)); done; \
          echo fin\"\"ished; kill -9 $$\n",
    );
    typist.waits_for("ready");
    // Beyond what the terminals hold: it is taken only in part.
    fcntl(&typist.terminal, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).unwrap();
    let mut taken = 0;
    while !typist.shown.contains("finished") {
        taken += typist.terminal.write(&[b'x'; 4096]).unwrap_or(0);
        typist.looks(20);
    }
    assert!((4096..4096 * 5000).contains(&taken), "{taken}");
    ends_restored(typist, &before, 128 + libc::SIGKILL);
}

#[test]
fn a_window_that_shows_nothing_does_not_keep_a_signal_from_being_heard() {
    let _clean = common::clean();
    let (mut typist, before) = start();
    typist.types(b"echo re\"\"ady; while :; do echo 0123456789abcdef; done\n");
    typist.waits_for("ready");
    // Nobody reads any more: all terminals are full after this.
    let full = format!("/proc/{}/task", typist.child.id());
    let is_blocked = || {
        let tasks = std::fs::read_dir(&full).unwrap();
        let calls = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("syscall")).ok());
        calls.into_iter().any(|call| call.starts_with(&format!("{} 0x1 ", libc::SYS_write)))
    };
    common::eventually("the example cannot write", is_blocked);
    typist.child.signal(libc::SIGTERM).unwrap();
    ends_restored(typist, &before, 128 + libc::SIGTERM);
}

#[test]
fn without_a_terminal_there_is_no_shell() {
    let _clean = common::clean();
    let mut command = common::probe::caller("shell /bin/sh");
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "shell: stdin is no terminal\n");
}
