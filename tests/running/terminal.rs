//! Terminals of the program's own: names, size, signals, job control, and their end.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common;
use nix::poll::{PollFd, PollFlags, poll};
use ringfence::{
    Child, Command, Dev, ErrorKind, Landlock, Proc, RootFs, Sandbox, Session, Stdio, Terminal, TerminalSize,
};
use ringfence::{Seccomp, Verdict};

pub(crate) const SIZE: TerminalSize = TerminalSize { rows: 33, columns: 101 };
pub(crate) const CTRL_C: &[u8] = &[3];
pub(crate) const CTRL_D: &[u8] = &[4];
pub(crate) const CTRL_Z: &[u8] = &[26];

/// The sorts of sandboxes into which the way differs: those with a devpts of their own, and the others.
fn sorts(root: &common::TempDir) -> Vec<(&'static str, bool, Sandbox)> {
    let base = || common::sandbox().pid_ns();
    let rules = Landlock::new().read("/").execute("/").write("/tmp").device("/dev/tty").write("/dev/null");
    let mut all = vec![
        ("strict", true, common::strict()),
        ("strict, without an init", true, common::strict().init(false)),
        ("a directory", true, common::on_root(common::mounting().pid_ns(), root)),
        ("programs", true, base().rootfs(RootFs::programs()).init(true)),
        ("the caller's root", false, base()),
        ("the caller's root, with an init", false, base().init(true)),
        ("nothing", false, Sandbox::new()),
    ];
    let ruled = base().landlock(rules).seccomp(Seccomp::default());
    if ruled.check().is_ok() {
        all.push(("rules", false, ruled));
    }
    if common::is_root() {
        all.push(("the caller's root, with a dev", true, base().mount(Dev::new("/dev"))));
        all.push(("another user", false, base().user(1234, 4321)));
        all.push(("another user, with a root", true, base().rootfs(RootFs::programs()).user(1234, 4321)));
    }
    all
}

/// A program, with what its terminal has shown so far.
pub(crate) struct Typist {
    pub(crate) child: Child,
    pub(crate) terminal: Terminal,
    pub(crate) shown: String,
}

impl Typist {
    pub(crate) fn new(mut child: Child) -> Typist {
        let terminal = child.terminal.take().unwrap();
        Typist { child, terminal, shown: String::new() }
    }

    /// Starts a script. When a session leader ends, the kernel hangs up its terminal, and throws away what has not come
    /// to the master yet: the script waits for that.
    fn start(sandbox: &Sandbox, script: &str) -> Typist {
        let script = &format!("trap 'sleep 0.1' EXIT\n{script}");
        let sandbox = sandbox.clone().command("/bin/sh").args(["-c", script]).stdin(Stdio::pty(SIZE));
        Typist::new(sandbox.spawn().unwrap_or_else(|error| panic!("{error}")))
    }

    pub(crate) fn types(&mut self, bytes: &[u8]) {
        self.terminal.write_all(bytes).unwrap();
    }

    /// Reads what the terminal shows, and waits for it this many milliseconds.
    pub(crate) fn looks(&mut self, patience: u16) {
        if poll(&mut [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)], patience).unwrap() > 0 {
            let mut bytes = [0; 4096];
            let count = self.terminal.read(&mut bytes).unwrap();
            assert!(count > 0, "the end comes too early: {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Reads until the terminal has shown `text`, and forgets what was shown up to there.
    pub(crate) fn waits_for(&mut self, text: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            assert!(Instant::now() < until, "{text:?} does not come: {:?}", self.shown);
            self.looks(1000);
        }
    }

    /// Waits for the end of the program. One that goes on fails the test with what the terminal shows.
    pub(crate) fn end(&mut self) -> ringfence::Outcome {
        let outcome = self.child.wait_timeout(Duration::from_secs(20)).unwrap();
        outcome.unwrap_or_else(|| {
            self.looks(0);
            panic!("it goes on, and shows {:?}", self.shown)
        })
    }

    /// Reads to the end, and returns what was shown since the last wait.
    fn ends(mut self) -> (String, Option<i32>) {
        self.terminal.read_to_string(&mut self.shown).unwrap();
        let outcome = self.child.wait().unwrap();
        (self.shown.replace("\r\n", "\n"), outcome.code())
    }
}

const FACTS: &str = "
    read -r pid comm state ppid group session tty foreground rest </proc/self/stat; [ $foreground != 0 ] || echo none
    read -r pid comm state ppid group session tty foreground rest </proc/$$/stat
    [ $group = $$ ] && [ $session = $$ ] && [ $foreground = $$ ] || echo $$ $group $session $foreground
    for stream in 0 1 2; do test -t $stream || echo $stream; done
    stty size; echo by its name >/dev/tty; echo $(ls /proc/self/fd)";

#[test]
fn the_program_leads_a_session_with_the_terminal() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, inside, sandbox) in sorts(&root) {
        let script = format!("{FACTS}; tty");
        let (shown, code) = Typist::start(&sandbox, &script).ends();
        let (shown, name) = shown.trim_end().rsplit_once('\n').unwrap_or_else(|| panic!("{what}: {shown}"));
        assert_eq!(shown, "33 101\nby its name\n0 1 2 3", "{what}");
        assert_eq!(code, Some(0), "{what}");
        assert!(!inside || name == "/dev/pts/0", "{what}: {name}");
    }
}

/// Without a /dev of its own, a root may not even have the terminal's name.
#[test]
fn a_terminal_without_a_name_is_one() {
    let _clean = common::clean();
    let base = common::mounting().pid_ns().rootfs(RootFs::host()).init(true).default_mounts(false);
    let script = "trap 'echo caught; exit 5' INT; test -t 0 && stty size; while :; do sleep 0.05; done";
    let mut typist = Typist::start(&base.mount(Proc::new("/proc")), script);
    typist.waits_for("33 101\r\n");
    typist.types(CTRL_C);
    typist.waits_for("caught\r\n");
    assert_eq!(typist.ends().1, Some(5));
}

#[test]
fn the_terminal_belongs_to_the_program() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, inside, sandbox) in sorts(&root) {
        let script = "tty=$(tty) && [ $(stat -c %u $tty) = $(id -u) ] && echo as the owner >$tty || echo $tty";
        if inside {
            let more = "echo $(ls /dev/pts); echo to the console >/dev/console; stat -c %t:%T /dev/console";
            let (shown, _) = Typist::start(&sandbox, &format!("{script}; {more}")).ends();
            assert_eq!(shown, "as the owner\n0 ptmx\nto the console\n88:0\n", "{what}");
        } else if what == "nothing" {
            assert_eq!(Typist::start(&sandbox, script).ends().0, "as the owner\n", "{what}");
        }
    }
}

#[test]
fn the_size_can_be_changed() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root) {
        let script = "trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.05; done";
        let mut typist = Typist::start(&sandbox, script);
        typist.waits_for("ready\r\n");
        assert_eq!(typist.terminal.size().unwrap(), SIZE, "{what}");
        let size = TerminalSize { rows: 50, columns: 9 };
        typist.terminal.resize(size).unwrap();
        assert_eq!(typist.terminal.try_clone().unwrap().size().unwrap(), size);
        assert_eq!(typist.ends(), ("50 9\n".to_owned(), Some(7)), "{what}");
    }
}

#[test]
fn keys_are_signals_for_the_foreground() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root) {
        let mut typist =
            Typist::start(&sandbox, "trap 'echo caught' INT; sh -c 'echo ready; exec sleep 1000'; echo sleep: $?");
        typist.waits_for("ready\r\n");
        typist.types(CTRL_C);
        let (shown, code) = typist.ends();
        assert_eq!((shown.trim_start_matches("^C"), code), ("caught\nsleep: 130\n", Some(0)), "{what}");
    }
}

#[test]
fn a_program_below_an_init_is_interrupted() {
    let _clean = common::clean();
    let sandbox = common::strict().init(true).command("sleep").arg("1000").stdin(Stdio::pty(SIZE));
    let mut typist = Typist::new(sandbox.spawn().unwrap());
    typist.types(CTRL_C);
    let outcome = typist.child.wait().unwrap();
    assert_eq!(outcome.verdict(), Verdict::Signaled(libc::SIGINT), "{outcome:?}");
}

#[test]
fn jobs_are_stopped_and_continued() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root) {
        let script = "trap 'echo caught' INT; set -m
            sh -c 'trap \"echo resumed\" CONT; echo ready; while :; do read -r line; done'; echo stopped: $?
            sh -c 'read -r pid comm state ppid group session tty foreground rest </proc/$$/stat
                [ $foreground = $$ ] && echo in front'
            fg >/dev/null; echo then: $?";
        let mut typist = Typist::start(&sandbox, script);
        typist.waits_for("ready\r\n");
        typist.types(CTRL_Z);
        typist.waits_for("stopped: 148\r\n");
        typist.waits_for("in front\r\n");
        // The shell gives the job the terminal before it continues it.
        typist.waits_for("resumed\r\n");
        typist.types(CTRL_C);
        let (shown, _) = typist.ends();
        assert!(shown.contains("then: 130\n"), "{what}: {shown:?}");
    }
}

#[test]
fn an_end_of_file_is_typed_and_read() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root) {
        let mut typist = Typist::start(&sandbox, "stty -echo; echo ready; cat; echo end");
        typist.waits_for("ready\r\n");
        typist.types(b"some words\n");
        typist.waits_for("some words\r\n");
        typist.types(CTRL_D);
        assert_eq!(typist.ends(), ("end\n".to_owned(), Some(0)), "{what}");
    }
}

#[test]
fn nothing_of_a_short_program_is_lost() {
    let _clean = common::clean();
    let expected: String = (1..=900).map(|number| format!("{number}\r\n")).collect();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root) {
        let prepared = sandbox.prepare().unwrap();
        let command = Command::new("/bin/sh").args(["-c", "seq 900"]).stdin(Stdio::pty(SIZE));
        for round in 0..5 {
            let mut typist = Typist::new(prepared.with(command.clone()).spawn().unwrap());
            // The program ends before anything is read.
            let outcome = typist.child.wait().unwrap();
            assert!(outcome.success(), "{what}");
            typist.terminal.read_to_string(&mut typist.shown).unwrap();
            assert!(typist.shown == expected, "{what}, round {round}: {:?}", typist.shown);
        }
    }
}

#[test]
fn output_is_collected_and_counted() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root) {
        // A program that reads gets an end of file.
        let sandbox = sandbox.command("/bin/sh").args(["-c", "stty -opost; cat; seq 30000; echo error >&2; sleep 0.1"]);
        let expected: String = (1..=30000).map(|number| format!("{number}\n")).chain(["error\n".to_owned()]).collect();
        let output = sandbox.clone().stdin(Stdio::pty(SIZE)).output().unwrap();
        assert!(output.stdout == expected.as_bytes() && output.stderr.is_empty(), "{what}: {}", output.stdout.len());
        let output = sandbox.clone().stdin(Stdio::pty(SIZE)).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.stderr, b"error\n", "{what}");
        let output = sandbox.clone().stdin(Stdio::pty(SIZE)).output_limit(1000).output().unwrap();
        assert_eq!((output.outcome.verdict(), output.stdout.len()), (Verdict::OutputLimit, 1000), "{what}");
        let output = sandbox.stdin(Stdio::pty(SIZE)).output_limit(1000).output_cut(true).output().unwrap();
        assert_eq!((output.outcome.success(), output.stdout.len()), (true, 1000), "{what}");
    }
}

#[test]
fn streams_can_be_set_otherwise() {
    let _clean = common::clean();
    let script = "for stream in 0 1 2; do test -t $stream && printf $stream >/dev/tty; done; echo end >/dev/tty";
    type Set = fn(Sandbox) -> Sandbox;
    let cases: [(&str, Set); 4] = [
        ("012end\n", |sandbox| sandbox.stdin(Stdio::pty(SIZE))),
        ("02end\n", |sandbox| sandbox.stdin(Stdio::pty(SIZE)).stdout(Stdio::null())),
        ("1end\n", |sandbox| sandbox.stdin(Stdio::null()).stdout(Stdio::pty(SIZE)).stderr(Stdio::null())),
        ("12end\n", |sandbox| sandbox.stdin(Stdio::null()).stdout(Stdio::pty(SIZE)).stderr(Stdio::pty(SIZE))),
    ];
    for (expected, set) in cases {
        for sandbox in [common::strict(), common::sandbox().pid_ns()] {
            let child = set(sandbox.command("/bin/sh").args(["-c", script])).spawn().unwrap();
            assert_eq!(Typist::new(child).ends().0, expected);
        }
    }
}

#[test]
fn other_descriptors_come_along() {
    let _clean = common::clean();
    for number in [3, 9, 50] {
        for sandbox in [common::strict(), common::sandbox().pid_ns()] {
            let sandbox = sandbox.fd(number, common::text("from outside\n"));
            let script = format!("cat /proc/self/fd/{number} 2>/dev/null || cat <&{number}; ls /proc/self/fd | wc -l");
            assert_eq!(Typist::start(&sandbox, &script).ends().0, "from outside\n5\n", "{number}");
        }
    }
}

#[test]
fn a_hangup_ends_the_program() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root) {
        let script = "trap 'exit 9' HUP; echo ready; while :; do sleep 0.05; done";
        let mut typist = Typist::start(&sandbox, script);
        typist.waits_for("ready\r\n");
        let Typist { mut child, terminal, .. } = typist;
        let copy = terminal.try_clone().unwrap();
        drop(terminal);
        assert!(child.wait_timeout(Duration::from_millis(100)).unwrap().is_none(), "{what}");
        drop(copy);
        assert_eq!(child.wait().unwrap().code(), Some(9), "{what}");
    }
}

#[test]
fn each_sandbox_has_its_own_and_the_host_none() {
    let _clean = common::clean();
    let script = "tty; echo ready; read -r word; echo got $word; ls /dev/pts | wc -l";
    let prepared = common::strict().command("/bin/sh").args(["-c", script]).stdin(Stdio::pty(SIZE)).prepare().unwrap();
    let mut two = [prepared.spawn().unwrap(), prepared.spawn().unwrap()].map(Typist::new);
    for (typist, word) in two.iter_mut().zip(["one\n", "two\n"]) {
        typist.waits_for("/dev/pts/0\r\nready\r\n");
        // The file of a master is on its devpts.
        let file = std::fs::File::from(typist.terminal.as_fd().try_clone_to_owned().unwrap());
        assert_ne!(file.metadata().unwrap().dev(), std::fs::metadata("/dev/pts").unwrap().dev());
        typist.types(word.as_bytes());
    }
    let [one, two] = two;
    assert_eq!([one.ends().0, two.ends().0], ["one\ngot one\n2\n", "two\ngot two\n2\n"]);
}

#[test]
fn a_terminal_of_the_host_goes_with_the_handle() {
    let _clean = common::clean();
    let mut typist = Typist::start(&Sandbox::new(), "echo at $(tty) .; read -r word");
    typist.waits_for("at ");
    while !typist.shown.contains(" .") {
        typist.looks(1000);
    }
    let name = typist.shown.split(' ').next().unwrap().to_owned();
    let inode = std::fs::metadata(&name).unwrap().ctime_nsec();
    drop(typist);
    // Another terminal may have got the number.
    assert!(std::fs::metadata(Path::new(&name)).map_or(true, |file| file.ctime_nsec() != inode), "{name}");
}

#[test]
fn a_terminal_counts_as_one_of_the_devs() {
    let _clean = common::clean();
    let script = "echo $(ls /dev/pts); (: </dev/ptmx) 2>/dev/null && echo one more || echo no more";
    for (most, expected) in [(1, "0 ptmx\nno more\n"), (2, "0 ptmx\none more\n")] {
        let sandbox = common::strict().mount(Dev::new("/dev").terminals(most));
        assert_eq!(Typist::start(&sandbox, script).ends().0, expected);
    }
}

#[test]
fn a_further_program_has_a_terminal_too() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root).into_iter().filter(|(what, ..)| *what != "nothing") {
        let first = sandbox.command("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let run = |script: &str| {
            let command = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::pty(SIZE));
            Typist::new(first.exec(command).unwrap_or_else(|error| panic!("{what}: {error}")))
        };
        assert_eq!(run(FACTS).ends(), ("33 101\nby its name\n0 1 2 3\n".to_owned(), Some(0)), "{what}");
        let mut typist = run("trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done");
        typist.waits_for("ready\r\n");
        typist.types(CTRL_C);
        typist.waits_for("caught\r\n");
        assert_eq!(typist.ends().1, Some(3), "{what}");
        let output = first.exec_output(Command::new("stty").arg("size").stdin(Stdio::pty(SIZE))).unwrap();
        assert_eq!(output.stdout, b"33 101\r\n", "{what}");
    }
}

#[test]
fn what_contradicts_a_terminal_is_told() {
    let _clean = common::clean();
    let terminal = || Stdio::pty(SIZE);
    for session in [Session::Inherit, Session::NewGroup] {
        let sandbox = common::sandbox().pid_ns().session(session).command("true");
        let error = sandbox.clone().stdin(terminal()).check().unwrap_err();
        assert_eq!((error.kind(), &*error.problems()[0].subject), (ErrorKind::Invalid, "session"), "{error}");
        let prepared = sandbox.prepare().unwrap();
        let error = prepared.with(Command::new("true").stdin(terminal())).spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let sandbox = common::sandbox().pid_ns().command("true");
    let error = sandbox.clone().stdin(terminal()).pool(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let pool = sandbox.pool(1).unwrap();
    pool.wait_ready(Duration::from_secs(30)).unwrap();
    let command = || Command::new("true").stdin(terminal());
    assert_eq!(pool.spawn(command()).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(pool.try_spawn(command()).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(pool.status("true").unwrap().success());
}

/// Whatever step fails, nothing is left behind, and no call hangs.
#[test]
fn a_failure_leaves_nothing_behind() {
    let _clean = common::clean();
    let root = common::root_dir();
    for (what, _, sandbox) in sorts(&root) {
        let sandbox = sandbox.command("true").stdin(Stdio::pty(SIZE));
        let mut failures = 0;
        for index in (0..400).step_by(3) {
            match sandbox.clone().fail_at(index, libc::EIO).spawn() {
                Ok(mut child) => drop(child.wait().unwrap()),
                Err(_) => failures += 1,
            }
        }
        assert!(failures > 5, "{what}: {failures}");
    }
}
