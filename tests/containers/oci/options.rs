//! The options of other runtimes: each is taken, or refused by its name, and none is passed over in silence.

use std::fs;
use std::process::{Command, Stdio};

use super::Bundle;
use super::example::args::Args;
use crate::common::{self, probe};

/// Options that are taken, with a value where there is one.
const TAKEN: &[(&str, &[&str])] = &[
    ("create", &["--bundle /no", "-b /no", "--pid-file f", "--no-new-keyring", "--preserve-fds 0"]),
    ("create", &["--console-socket s", "--pidfd-socket s", "--no-pivot"]),
    ("run", &["--bundle /no", "-b /no", "--pid-file f", "--no-new-keyring", "--preserve-fds 0", "--keep"]),
    ("run", &["--console-socket s", "--pidfd-socket s", "--detach", "-d", "--no-subreaper", "--no-pivot"]),
    ("delete", &["--force", "-f"]),
    ("kill", &["--all", "-a"]),
    ("ps", &["--format json", "-f table"]),
    ("update", &["--resources /no", "-r /no", "--memory 1g", "--memory-swap -1", "--memory-reservation 64MiB"]),
    ("update", &["--cpu-share 2", "--cpu-quota -1", "--cpu-period 1", "--cpu-burst 1", "--cpu-idle 1"]),
    ("update", &["--cpu-rt-period 1", "--cpu-rt-runtime 1", "--cpuset-cpus 0", "--cpuset-mems 0"]),
    ("update", &["--pids-limit -1", "--pids-limit 0", "--blkio-weight 10"]),
    ("events", &["--stats", "--interval 5s", "--interval 100ms"]),
    ("start", &[]),
    ("state", &[]),
    ("pause", &[]),
    ("resume", &[]),
];

/// Options of a command that are refused, and words that none has.
const REFUSED: &[(&str, &[&str])] = &[
    ("create", &["--no-such", "--preserve-fds x", "--preserve-fds=-1", "--preserve-fds 99999999"]),
    ("run", &["--no-such"]),
    ("update", &["--kernel-memory 1", "--kernel-memory-tcp 1", "--l3-cache-schema x", "--mem-bw-schema x"]),
    ("update", &["--memory -2", "--memory 9999999999g", "--memory 1x", "--memory 1.5g", "--cpu-share=-1"]),
    ("update", &["--blkio-weight 70000", "--pids-limit x", "--no-such"]),
    ("events", &["--interval x", "--interval 0s"]),
    ("ps", &["--format xml"]),
    ("start", &["--no-such", "-f"]),
];

/// The commands of other runtimes, the refused ones among them.
const COMMANDS: &[&str] = &[
    "checkpoint",
    "create",
    "delete",
    "events",
    "exec",
    "features",
    "kill",
    "list",
    "pause",
    "ps",
    "restore",
    "resume",
    "run",
    "spec",
    "start",
    "state",
    "update",
];

/// The ways to write an option, before and after the name of the container.
fn ways<'w>(command: &'w str, option: &'w str) -> Vec<Vec<&'w str>> {
    let words: Vec<&str> = option.split(' ').collect();
    let mut ways = vec![[&[command], &words[..], &["box"]].concat()];
    // ps(1) has what stands behind the name.
    if command != "ps" {
        ways.push([&[command, "box"], &words[..]].concat());
    }
    ways
}

#[test]
fn every_option_of_other_runtimes_is_taken_or_refused_by_name() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    let says = |words: &[&str]| {
        let said = bundle.says(words);
        // The command itself fails: there is no such container, or no such bundle. To delete it by force is no error.
        let code = i32::from(!words.iter().any(|word| ["-f", "--force"].contains(word)) || words[0] != "delete");
        assert_eq!(said.status.code(), Some(code), "{words:?}: {said:?}");
        said.err
    };
    let is_refused = |said: &str, option: &str| {
        said.contains(&format!("'{option}")) || said.starts_with(&format!("error: {option}:"))
    };
    let written = |words: Vec<&str>| words.join(" ").replace(" -1", "=-1");
    fs::remove_file(bundle.path("config.json")).unwrap_or(());
    for (command, options) in TAKEN {
        // The bundle is elsewhere for `create` and `run`, which so fail after the options.
        let fixed = if ["create", "run"].contains(command) { " -b /no" } else { "" };
        for option in options.iter().copied().chain([""]) {
            for way in ways(command, option) {
                for way in [way.join(" "), written(way.clone())] {
                    let twice = option.starts_with("-b") || option.starts_with("--bundle");
                    let way = if twice { way } else { way + fixed };
                    let said = says(&way.split_whitespace().collect::<Vec<_>>());
                    let name = option.split([' ', '=']).next().unwrap();
                    assert!(!said.contains("unexpected argument"), "{way}: {said}");
                    assert!(name.is_empty() || name == "--resources" || !is_refused(&said, name), "{way}: {said}");
                }
            }
        }
    }
    for (command, options) in REFUSED {
        for option in options.iter() {
            for way in ways(command, option) {
                let said = says(&way);
                let name = option.split([' ', '=']).next().unwrap();
                assert!(is_refused(&said, name), "{way:?}: {said}");
            }
        }
    }
    for words in [["--rootless", "maybe"], ["--log-format", "xml"]] {
        assert!(is_refused(&says(&[&words[..], &["state", "box"]].concat()), words[0]));
    }
    for words in [&["--rootless", "true"][..], &["--rootless=auto"], &["--log-format=json"], &["--debug"]] {
        let said = says(&[words, &["state", "box"]].concat());
        assert!(said.contains("container does not exist"), "{said}");
    }
    for words in [["kill", "box", "65"], ["kill", "box", "SIGNOTHING"]] {
        assert!(says(&words).contains(words[2]));
    }
    assert!(bundle.is_empty());
}

#[test]
fn what_is_not_there_is_shown_as_other_runtimes_show_it() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    fs::create_dir(bundle.path("containers")).unwrap();
    assert_eq!(bundle.does(&["list", "--format", "json"]), "null\n");
    assert_eq!(bundle.does(&["list", "-q"]), "");
    for word in ["--version", "-v"] {
        assert!(bundle.does(&[word]).starts_with("oci-runtime version "));
    }
}

#[test]
fn a_root_that_is_not_there_has_no_containers_if_nobody_has_named_it() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    for words in [&["list"][..], &["list", "-q"], &["list", "--format", "json"]] {
        let said = bundle.says(words);
        assert!(said.status.code() == Some(1) && said.out.is_empty(), "{words:?}: {said:?}");
        assert!(said.err.contains(&bundle.path("containers").display().to_string()), "{said:?}");
    }
    // Without the option it is the default of an ordinary user.
    let mut list = probe::caller("oci-runtime-of-an-ordinary-user list --format json");
    let said = list.env("XDG_RUNTIME_DIR", bundle.path("none")).output().unwrap();
    assert!(said.status.success() && said.stdout == b"null\n", "{said:?}");
}

#[test]
fn help_begins_as_that_of_other_runtimes() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    for word in ["-h", "--help"] {
        let said = bundle.does(&[word]);
        assert!(said.starts_with("NAME:\n   oci-runtime - Open Container Initiative runtime"), "{said}");
        assert!(said.contains("\nUsage: ") && said.contains("--systemd-cgroup"), "{said}");
        for command in COMMANDS {
            let said = bundle.does(&[command, word]);
            assert!(said.starts_with(&format!("NAME:\n   oci-runtime {command} - ")), "{said}");
            assert!(said.contains("\nOptions:\n"), "{said}");
        }
        assert!(bundle.fails(&["foo", word]).contains("No help topic for 'foo'"));
    }
    assert!(bundle.does(&["create", "--help"]).contains("--bundle <DIR>"));
    // By another name, it shows that one.
    let shown = |words: [&str; 2]| Args::of(words.map(Into::into)).unwrap_err().to_string();
    assert!(shown(["/usr/bin/runc", "--version"]).starts_with("runc version "));
    assert!(shown(["/usr/bin/runc", "--help"]).starts_with("NAME:\n   runc - "));
}

#[test]
fn a_signal_that_does_nothing_finds_out_whether_a_container_runs() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new("exec sleep 1000");
    bundle.does(&["run", "-d", "box"]);
    bundle.does(&["kill", "box", "0"]);
    assert_eq!(bundle.state()["status"], "running");
    bundle.does(&["kill", "box", "KILL"]);
    bundle.becomes("stopped");
    assert!(bundle.fails(&["kill", "box", "0"]).contains("container not running"));
    // Where all are meant, it is no error that none is left.
    bundle.does(&["kill", "--all", "box", "KILL"]);
    bundle.does(&["delete", "box"]);
}

#[test]
fn sockets_of_the_runtime_are_passed_on() {
    let _clean = common::clean();
    let bundle = Bundle::new("echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4; test -e /proc/self/fd/5 || echo no more");
    for name in ["three", "four", "five"] {
        fs::write(bundle.path(name), format!("{name}\n")).unwrap();
    }
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    let runs = |before: &str, count: u32| {
        let what =
            format!("{} --root {} run --preserve-fds {count} box", bundle.runtime, bundle.path("containers").display());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{before}; exec 3<three 4<four 5<five; exec \"$0\"")]);
        command.arg(std::env::current_exe().unwrap()).env("RINGFENCE_CALLER", what).current_dir(bundle.dir.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let rest = "three\nfour\nno more\n";
    assert_eq!(runs("export LISTEN_FDS=1 LISTEN_PID=$$", 1), format!("1 1\n{rest}"));
    // They are another process's, or there are none.
    assert_eq!(runs("export LISTEN_FDS=1 LISTEN_PID=1", 2), format!("\n{rest}"));
    assert_eq!(runs("export LISTEN_FDS=x LISTEN_PID=$$", 2), format!("\n{rest}"));
    let said = bundle.says(&["create", "--preserve-fds", "60000", "box"]);
    assert!(said.err.contains("is not open"), "{said:?}");
    assert!(bundle.is_empty());
}

#[test]
fn what_stands_where_a_pid_file_is_begun_is_neither_followed_nor_waited_for() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new("exec sleep 1000");
    let (victim, hidden, pid_file) = (bundle.path("victim"), bundle.path(".pid"), bundle.path("pid"));
    fs::write(&victim, "whole").unwrap();
    std::os::unix::fs::symlink(&victim, &hidden).unwrap();
    let pid_file = pid_file.to_str().unwrap();
    bundle.does(&["run", "-d", "--pid-file", pid_file, "box"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "whole");
    assert!(fs::symlink_metadata(pid_file).unwrap().is_file());
    assert_eq!(bundle.read("pid"), bundle.state()["pid"].to_string());
    nix::unistd::mkfifo(&hidden, nix::sys::stat::Mode::S_IRWXU).unwrap();
    bundle.does(&["exec", "-d", "--pid-file", pid_file, "box", "sleep", "1000"]);
    assert!(fs::symlink_metadata(pid_file).unwrap().is_file() && !hidden.exists());
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn a_container_that_has_stopped_has_no_processes_to_show() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = Bundle::new("true");
    bundle.does(&["run", "-d", "box"]);
    bundle.becomes("stopped");
    assert_eq!(bundle.does(&["ps", "-f", "table", "box"]).lines().count(), 1);
    assert_eq!(bundle.does(&["ps", "-f", "json", "box"]).trim(), "[]");
    bundle.does(&["delete", "box"]);
}
