//! The terminal of a sandbox that one process creates and another starts.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, poll};
use ringfence::{Bind, Created, CreatedState, RawMount, RootFs, Sandbox, Stdio, Terminal, Tmpfs};

use super::terminal::{CTRL_C, SIZE};
use crate::common::{self, probe};

/// The sorts of sandboxes into which the way of the terminal differs, with whether it is on a devpts of their own.
fn sorts(root: &common::TempDir) -> Vec<(&'static str, bool, Sandbox)> {
    let apart = || common::sandbox().pid_ns();
    let bare = || common::on_root(common::mounting().pid_ns(), root).default_mounts(false);
    let proc = || RawMount::new("proc", "/proc", "proc");
    let devpts = || RawMount::new("devpts", "/dev/pts", "devpts").data("newinstance,ptmxmode=0666,mode=0620");
    let dev = || RawMount::new("tmpfs", "/dev", "tmpfs").data("mode=755");
    let host = || Bind::new("/dev", "/dev");
    vec![
        ("a dev of its own", true, apart().rootfs(RootFs::programs())),
        ("an init", true, apart().rootfs(RootFs::programs()).init(true)),
        ("a devpts of its own", true, bare().mount(proc()).mount(dev()).mount(devpts())),
        ("a devpts on a tmpfs", true, bare().mount(proc()).mount(Tmpfs::new("/dev")).mount(devpts())),
        ("a devpts on the host's dev", true, bare().mount(proc()).mount(host()).mount(devpts())),
        ("the host's dev", false, bare().mount(proc()).mount(host())),
        ("the caller's root", false, apart()),
        ("nothing", false, Sandbox::new()),
    ]
}

struct Screen {
    terminal: Terminal,
    shown: String,
}

impl Screen {
    /// Reads until the terminal has shown `text`.
    #[track_caller]
    fn waits_for(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let ready = poll(&mut [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)], 60_000u16).unwrap();
            assert!(ready > 0, "{text:?} does not come: {:?}", self.shown);
            let mut bytes = [0; 4096];
            let count = self.terminal.read(&mut bytes).unwrap();
            assert!(count > 0, "the end comes too early: {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn types(&mut self, bytes: &[u8]) {
        self.terminal.write_all(bytes).unwrap();
    }
}

fn create(sandbox: &Sandbox, dir: &Path, script: &str) -> (Created, Screen) {
    let sandbox = sandbox.clone().command("/bin/sh").args(["-c", script]).stdin(Stdio::pty(SIZE));
    let mut created = sandbox.create(dir).unwrap_or_else(|error| panic!("{error}"));
    let terminal = created.terminal.take().unwrap();
    (created, Screen { terminal, shown: String::new() })
}

/// What a stub has open. Only root may look into one.
fn open_files(created: &Created) -> Vec<PathBuf> {
    if !common::is_root() {
        return Vec::new();
    }
    let dir = format!("/proc/{}/fd", created.id().unwrap());
    fs::read_dir(dir).unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect()
}

#[test]
fn the_program_has_the_terminal_that_its_creator_has_the_other_end_of() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, inside, sandbox) in sorts(&root) {
        let above = common::TempDir::new();
        let dir = above.path().join("box");
        let script = "test -t 0 && test -t 1 && test -t 2 && stty size; test ! -e /dev/tty || echo by its name >/dev/tty; echo $(tty); \
                      read line; echo got $line; trap 'echo caught; read line; exit 7' INT; echo re\"\"ady; \
                      while :; do sleep 0.05; done";
        let (created, mut screen) = create(&sandbox, &dir, script);
        assert_eq!(created.state().unwrap(), CreatedState::Created, "{what}");
        // Nobody has the master but the creator, in this process.
        let open = open_files(&created);
        assert!(!open.iter().any(|path| path.ends_with("ptmx")), "{what}: {open:?}");
        let program = created.attached().unwrap();
        // Typed ahead of the start.
        screen.types(b"early\n");
        assert_eq!(probe::succeeds(probe::caller(&format!("starts {}", dir.display()))), "started", "{what}");
        screen.waits_for("ready\r\n");
        assert!(screen.shown.contains("33 101\r\n"), "{what}: {}", screen.shown);
        let has_name = screen.shown.contains("by its name\r\n");
        assert!(has_name || what.contains("devpts") || what.contains("host"), "{what}: {}", screen.shown);
        assert!(screen.shown.contains("got early\r\n"), "{what}: {}", screen.shown);
        // The host may have any number free.
        let name = screen.terminal.name().unwrap();
        assert!(!inside || name == Path::new("/dev/pts/0"), "{what}: {}", name.display());
        let told = screen.shown.contains(&format!("\n{}\r\n", name.display()));
        assert!(told, "{what}: {}", screen.shown);
        screen.types(CTRL_C);
        screen.waits_for("caught\r\n");
        screen.types(b"\n");
        assert_eq!(program.wait().unwrap().status().code(), Some(7), "{what}");
        created.remove().unwrap();
    }
}

#[test]
fn the_console_is_the_terminal_where_there_is_a_place_for_it() {
    let _clean = common::clean();
    let root = common::root_dir();
    let host_has_one = Path::new("/dev/console").exists();
    for (what, _, sandbox) in sorts(&root).into_iter().filter(|(_, inside, _)| *inside) {
        if what.contains("host") && !host_has_one {
            continue;
        }
        let above = common::TempDir::new();
        let script =
            "stat -c %d:%i /dev/console; stat -c %d:%i /dev/pts/0; echo to the console >/dev/console; read line";
        let (created, mut screen) = create(&sandbox, &above.path().join("box"), script);
        created.start().unwrap();
        screen.waits_for("to the console\r\n");
        let lines: Vec<&str> = screen.shown.lines().collect();
        assert_eq!(lines[0], lines[1], "{what}");
        created.remove().unwrap();
    }
    assert_eq!(Path::new("/dev/console").exists(), host_has_one);
}

#[test]
fn a_terminal_that_nobody_keeps_is_hung_up() {
    let _clean = common::clean();
    let above = common::TempDir::new();
    let sandbox = common::sandbox();
    let (created, screen) = create(&sandbox, &above.path().join("box"), "echo re\"\"ady; exec sleep 1000");
    let program = created.attached().unwrap();
    created.start().unwrap();
    drop(screen);
    assert_eq!(program.wait().unwrap().status().signal(), Some(libc::SIGHUP));
    created.remove().unwrap();
}

#[test]
fn a_devpts_that_is_a_link_gives_no_terminal() {
    let _clean = common::clean();
    let (root, above) = (common::root_dir(), common::TempDir::new());
    let devpts = RawMount::new("devpts", "/dev/pts", "devpts").data("newinstance,ptmxmode=0666");
    fs::remove_dir(root.path().join("dev")).unwrap();
    fs::create_dir_all(root.path().join("real/pts")).unwrap();
    std::os::unix::fs::symlink("/real", root.path().join("dev")).unwrap();
    let sandbox = common::on_root(common::mounting().pid_ns(), &root).default_mounts(false).mount(devpts);
    let sandbox = sandbox.command("/bin/sh").args(["-c", "tty"]).stdin(Stdio::pty(SIZE));
    let error = sandbox.create(above.path().join("box")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
    assert!(!root.path().join("real/console").exists());
}
