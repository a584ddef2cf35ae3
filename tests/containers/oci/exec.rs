//! Further programs in containers, as engines start them.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::terminal::{Screen, at_a_terminal_with, ends_restored, is_raw};
use super::{Bundle, PATIENT, groups};
use crate::common::{self, handover::receive};

/// The exit code of a runtime that could not start a program.
const FAILED: i32 = 255;

#[track_caller]
pub(super) fn fails(bundle: &Bundle, words: &[&str]) -> String {
    let said = bundle.says(words);
    assert_eq!(said.status.code(), Some(FAILED), "{words:?}: {said:?}");
    said.err
}

/// The process of a container with other words, as an engine writes it into a file.
fn process(bundle: &Bundle, words: &[&str], changes: &[(&str, Value)]) -> String {
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(words);
    for (property, value) in changes {
        process[*property] = value.clone();
    }
    let path = bundle.path("process");
    fs::write(&path, process.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn ns(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

/// What a program says about its rights.
const RIGHTS: &str = "id -u; id -g; grep -E '^(Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status; \
                      umask; ulimit -n; cat /proc/self/oom_score_adj";

/// Writes a script to where the container's programs find it: no word of a command here has a blank.
fn script<'n>(bundle: &Bundle, name: &'n str, text: &str) -> &'n str {
    fs::write(bundle.root.path().join(name.trim_start_matches('/')), text).unwrap();
    name
}

#[test]
fn a_further_program_runs_inside_and_ends_with_the_container() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for bundle in [Bundle::new(PATIENT), Bundle::of_an_ordinary_user(PATIENT)] {
        bundle.does(&["run", "--detach", "box"]);
        let own = bundle.state()["pid"].to_string();
        let said = bundle.does(&["exec", "--cwd", "/tmp", "box", "readlink", "/proc/self/ns/pid", "/proc/self/cwd"]);
        assert_eq!(said, format!("{}\n/tmp\n", ns(&own, "pid")));
        let tells = script(&bundle, "/tmp/tells", "echo $MARK $HOME; exit 3");
        let said = bundle.says(&["exec", "--env", "MARK=mark", "box", "sh", tells]);
        assert_eq!((said.out.as_str(), said.status.code()), ("mark /\n", Some(3)), "{said:?}");
        // As engines do it: the process is a file, and the pid goes to another one. The runtime is gone then.
        let (file, pid_file) = (process(&bundle, &["sleep", "1000"], &[]), bundle.path("pid"));
        let pid_file = pid_file.to_str().unwrap();
        bundle.does(&["exec", "--process", &file, "--detach", "--pid-file", pid_file, "box"]);
        let pid = fs::read_to_string(pid_file).unwrap();
        let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status().starts_with("Name:\tsleep\n"), "{}", status());
        for kind in ["pid", "mnt", "user", "ipc", "uts"] {
            assert_eq!((ns(&pid, kind), pid != own), (ns(&own, kind), true));
        }
        let of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert_eq!(of(&pid), of(&own));
        bundle.does(&["kill", "box", "KILL"]);
        bundle.becomes("stopped");
        common::eventually("all has ended", || !Path::new("/proc").join(&pid).exists());
        assert!(fails(&bundle, &["exec", "box", "true"]).contains("stopped"));
        bundle.does(&["delete", "box"]);
        assert!(bundle.is_empty() && groups().is_empty());
    }
}

#[test]
fn a_further_program_has_the_rights_that_its_process_says() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let keep = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]});
    for bundle in [Bundle::new(PATIENT), Bundle::of_an_ordinary_user(PATIENT)] {
        let bundle = bundle.with("/process/capabilities", keep.clone());
        bundle.does(&["run", "--detach", "box"]);
        let rights = script(&bundle, "/tmp/rights", RIGHTS);
        let same = bundle.does(&["exec", "box", "sh", rights]);
        let kill = "0000000000000020";
        assert!(same.starts_with("0\n0\n") && same.contains(&format!("CapBnd:\t{kill}")), "{same}");
        assert!(same.contains("NoNewPrivs:\t1"), "{same}");
        // More than the container's own program has, and less.
        let sets = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]
        });
        let changes = [
            ("capabilities", sets),
            ("noNewPrivileges", json!(false)),
            ("rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}])),
            ("oomScoreAdj", json!(777)),
            ("user", json!({"uid": 0, "gid": 0, "umask": 0o27})),
        ];
        let file = process(&bundle, &["sh", "-c", RIGHTS], &changes);
        let said = bundle.does(&["exec", "--process", &file, "box"]);
        for line in ["CapBnd:\t0000000000000021", "CapAmb:\t0000000000000001", "NoNewPrivs:\t0", "0027", "77", "777"] {
            assert!(said.lines().any(|one| one == line), "{line}: {said}");
        }
        let none = process(&bundle, &["sh", "-c", RIGHTS], &[("capabilities", json!({}))]);
        let said = bundle.does(&["exec", "--process", &none, "box"]);
        assert!(["CapBnd", "CapEff", "CapPrm"].iter().all(|set| said.contains(&format!("{set}:\t{}", "0".repeat(16)))));
        // By options.
        let said = bundle.does(&["exec", "--cap", "CAP_CHOWN", "--no-new-privs", "box", "sh", rights]);
        assert!(said.contains("CapEff:\t0000000000000021") && said.contains("NoNewPrivs:\t1"), "{said}");
        assert!(fails(&bundle, &["exec", "--cap", "CAP_NONE", "box", "true"]).contains("CAP_NONE"));
        let last = last_processor();
        let affinity = json!({"initial": "0", "final": last});
        let file =
            process(&bundle, &["grep", "Cpus_allowed_list", "/proc/self/status"], &[("execCPUAffinity", affinity)]);
        assert_eq!(bundle.does(&["exec", "--process", &file, "box"]), format!("Cpus_allowed_list:\t{last}\n"));
        for (property, value, name) in [
            ("execCPUAffinity", json!({"final": "3-1"}), "process.execCPUAffinity.final: "),
            ("oomScoreAdj", json!(1001), "process.oomScoreAdj: "),
            ("cwd", json!("../x"), "process.cwd: "),
            ("user", json!({"uid": 0, "gid": 0, "username": "a"}), "process.user.username: "),
            ("apparmorProfile", json!("a\nb"), "apparmor_profile: "),
        ] {
            let file = process(&bundle, &["true"], &[(property, value)]);
            let said = fails(&bundle, &["exec", "--process", &file, "box"]);
            assert!(said.contains(name), "{said}");
        }
        bundle.does(&["delete", "--force", "box"]);
    }
}

/// The last processor that this process may use.
fn last_processor() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    allowed.rsplit([',', '-']).next().unwrap().to_owned()
}

#[test]
fn a_further_program_of_root_may_be_another_user() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("other users") {
        return;
    }
    // The container's own program has given its rights up by itself.
    let bundle = Bundle::new("exec setpriv --reuid 1234 --regid 1234 --clear-groups sleep 1000").with(
        "/process/capabilities",
        json!({"bounding": ["CAP_SETUID", "CAP_SETGID"], "permitted": ["CAP_SETUID", "CAP_SETGID"],
            "effective": ["CAP_SETUID", "CAP_SETGID"]}),
    );
    bundle.does(&["run", "--detach", "box"]);
    let pid = bundle.state()["pid"].to_string();
    common::eventually("it is another user", || {
        fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("Uid:\t1234\t")
    });
    let rights = script(&bundle, "/tmp/rights", RIGHTS);
    let words =
        |said: &str| said.split_whitespace().take_while(|word| *word != "CapInh:").collect::<Vec<_>>().join(" ");
    let said = bundle.does(&["exec", "--user", "7:8", "-g", "9", "-g", "10", "box", "sh", rights]);
    assert_eq!(words(&said), "7 8 Groups: 9 10");
    let said = bundle.does(&["exec", "-u", "7", "box", "sh", rights]);
    assert_eq!(words(&said), "7 0 Groups:");
    assert!(bundle.does(&["exec", "box", "id", "-u"]).starts_with("0\n"));
    for user in ["root", "7:x", "", "-1"] {
        assert!(!bundle.says(&["exec", &format!("--user={user}"), "box", "true"]).status.success(), "{user}");
    }
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn what_is_not_to_be_had_is_told_in_the_words_of_engines() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT).with("/root/readonly", json!(false));
    let file = bundle.root.path().join("tmp/file");
    bundle.does(&["run", "--detach", "box"]);
    fs::write(&file, "no program").unwrap();
    for (program, words) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such", "no such file or directory"),
        ("/tmp/file", "permission denied"),
    ] {
        let said = fails(&bundle, &["exec", "box", program]).to_lowercase();
        assert!(said.contains(&words.to_lowercase()), "{program}: {said}");
    }
    for (options, words) in [
        (&["-t", "-d"][..], "cannot allocate tty if oci-runtime will detach without setting console socket"),
        (&["--console-socket", "s"], "cannot use console socket if oci-runtime will not detach or allocate tty"),
        (&["--preserve-fds", "900"], "is to be passed on, and is not open"),
        (&["--process-label", "a"], "selinux_label"),
    ] {
        let said = fails(&bundle, &[&["exec"], options, &["box", "true"]].concat());
        assert!(said.contains(words), "{options:?}: {said}");
    }
    assert!(fails(&bundle, &["exec", "box"]).contains("no program is named"));
    assert!(fails(&bundle, &["exec", "other", "true"]).contains("container does not exist"));
    bundle.does(&["exec", "--ignore-paused", "--cgroup", "/", "box", "true"]);
    if common::is_root() {
        bundle.does(&["pause", "box"]);
        assert!(fails(&bundle, &["exec", "box", "true"]).contains("paused"));
        bundle.does(&["resume", "box"]);
    }
    bundle.does(&["delete", "--force", "box"]);
    // The same words where the container itself has no program.
    let bundle = bundle.with("/process/args", json!(["no-such-program"]));
    assert!(bundle.fails(&["create", "box"]).contains("executable file not found in $PATH"));
}

#[test]
fn the_home_directory_is_that_of_the_containers_users() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let env = json!(["PATH=/usr/bin:/bin"]);
    let bundle = Bundle::new("echo $HOME; exec sleep 1000").with("/process/env", env.clone());
    let etc = bundle.root.path().join("etc");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("passwd"), "one:x:7:7::/of-seven:\nroot:x:0:0::/of-root:/bin/sh\n").unwrap();
    bundle.does(&["run", "--detach", "box"]);
    common::eventually("it has begun", || bundle.read("out") == "/of-root\n");
    let tells = script(&bundle, "/tmp/tells", "echo $HOME");
    assert_eq!(bundle.does(&["exec", "box", "sh", tells]), "/of-root\n");
    assert_eq!(bundle.does(&["exec", "-e", "HOME=/x", "box", "sh", tells]), "/x\n");
    if common::is_root() {
        assert_eq!(bundle.does(&["exec", "-u", "7", "box", "sh", tells]), "/of-seven\n");
        assert_eq!(bundle.does(&["exec", "-u", "8", "box", "sh", tells]), "/\n");
    }
    // A link does not lead out of the root.
    fs::write(bundle.path("outside"), "root:x:0:0::/of-the-host:/bin/sh\n").unwrap();
    fs::remove_file(etc.join("passwd")).unwrap();
    std::os::unix::fs::symlink(bundle.path("outside"), etc.join("passwd")).unwrap();
    assert_eq!(bundle.does(&["exec", "box", "sh", tells]), "/\n");
    // Nor does a FIFO hold the runtime up.
    fs::remove_file(etc.join("passwd")).unwrap();
    nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(bundle.does(&["exec", "box", "sh", tells]), "/\n");
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn descriptors_are_passed_to_a_further_program() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    fs::write(bundle.path("three"), "three\n").unwrap();
    let root = bundle.path("containers");
    let what = format!("{} --root {} exec --preserve-fds 1 box cat /proc/self/fd/3", bundle.runtime, root.display());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 3<three 4<three; exec \"$0\""]).arg(std::env::current_exe().unwrap());
    command.env("RINGFENCE_CALLER", what).current_dir(bundle.dir.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"three\n");
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn an_engine_gets_the_terminal_of_a_further_program() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let script = "tty; stty size; stat -f -c %T /dev/pts; stat -c %u $(tty); read line; echo got $line; sleep 1000";
    for bundle in [Bundle::new(PATIENT), Bundle::of_an_ordinary_user(PATIENT)] {
        bundle.does(&["run", "--detach", "box"]);
        let socket = bundle.path("console");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let changes = [("terminal", json!(true)), ("consoleSize", json!({"height": 33, "width": 101}))];
        let file = process(&bundle, &["sh", "-c", script], &changes);
        let socket = socket.to_str().unwrap();
        bundle.does(&["exec", "-d", "--console-socket", socket, "--process", &file, "box"]);
        let (name, master) = receive(&listener);
        // It is a terminal of the container's own devpts, on which there was none before.
        assert_eq!(name, "/dev/pts/0");
        let mut screen = Screen::new(fs::File::from(master));
        screen.types(b"a line\n");
        let told = screen.waits_for("got a line\r\n");
        let lines: Vec<&str> = told.lines().filter(|line| *line != "a line").collect();
        assert_eq!(lines, ["/dev/pts/0", "33 101", "devpts", "0"], "{told}");
        // One that nobody takes ends the program.
        let pids = || {
            fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .filter(|entry| {
                    let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
                    line == "sleep\x001313\0"
                })
                .count()
        };
        let lost = bundle.path("lost");
        fails(&bundle, &["exec", "-d", "-t", "--console-socket", lost.to_str().unwrap(), "box", "sleep", "1313"]);
        common::eventually("it has ended", || pids() == 0);
        bundle.does(&["delete", "--force", "box"]);
    }
}

#[test]
fn a_further_program_runs_at_the_terminal_of_the_runtime() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    fs::write(bundle.path("script"), "").unwrap();
    let file = process(
        &bundle,
        &["sh", "-c", "stty size; echo ready; read line; echo got $line; exit 5"],
        &[("terminal", json!(true))],
    );
    let words = format!("exec --process {file} box");
    let (runtime, mut screen, before) = at_a_terminal_with(&bundle, &words);
    let told = screen.waits_for("ready\r\n");
    assert_eq!(told, "33 101\r\n");
    common::eventually("the terminal is raw", || is_raw(&screen));
    screen.terminal.write_all(b"a line\n").unwrap();
    screen.waits_for("got a line\r\n");
    ends_restored(runtime, &screen, &before, 5);
    // With a terminal that controls this process, it would run there.
    if fs::File::open("/dev/tty").is_err() {
        assert!(fails(&bundle, &["exec", "-t", "box", "true"]).contains("there is no terminal"));
    }
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn a_further_program_has_the_scheduling_that_no_fork_hands_down() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("deadlines") {
        return;
    }
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    for flags in [json!(["SCHED_FLAG_RESET_ON_FORK"]), json!([])] {
        let times = json!({"policy": "SCHED_DEADLINE", "flags": flags, "runtime": 10_000_000, "deadline": 100_000_000,
                           "period": 100_000_000});
        let file = process(&bundle, &["cat", "/proc/self/stat"], &[("scheduler", times)]);
        let said = bundle.says(&["exec", "--process", &file, "box"]);
        if said.err.contains("EBUSY") {
            common::skip("the machine has no processor time left for deadlines", false);
            continue;
        }
        assert!(said.status.success(), "{said:?}");
        assert_eq!(said.out.split(' ').nth(40), Some("6"), "{said:?}");
    }
    // Also what the program could set by itself.
    let batch = json!({"policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    let file = process(&bundle, &["cat", "/proc/self/stat"], &[("scheduler", batch)]);
    let said = bundle.does(&["exec", "--process", &file, "box"]);
    let fields: Vec<&str> = said.split(' ').collect();
    assert_eq!((fields[18], fields[40]), ("7", "3"), "{said}");
    // The runtime itself is not what was scheduled.
    assert_eq!(fs::read_to_string("/proc/self/stat").unwrap().split(' ').nth(40), Some("0"));
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn the_home_directory_is_not_looked_up_where_a_link_of_a_volume_leads() {
    let _clean = common::clean();
    let etc = json!({"destination": "/etc", "type": "bind", "source": "volume", "options": ["ro"]});
    let bundle =
        Bundle::new("echo $HOME").with("/process/env", json!(["PATH=/usr/bin:/bin"])).mounting(etc).holding("volume/f");
    let passwd = bundle.path("volume/passwd");
    fs::write(&passwd, "root:x:0:0::/of-the-volume:/bin/sh\n").unwrap();
    assert_eq!(bundle.does(&["run", "box"]), "/of-the-volume\n");
    fs::remove_file(&passwd).unwrap();
    fs::write(bundle.path("outside"), "root:x:0:0::/of-the-host:/bin/sh\n").unwrap();
    std::os::unix::fs::symlink(bundle.path("outside"), &passwd).unwrap();
    assert_eq!(bundle.does(&["run", "box"]), "/\n");
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(bundle.does(&["run", "box"]), "/\n");
}

#[test]
fn the_umask_is_not_that_of_the_caller() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let says = |bundle: &Bundle, mask: &str, words: &str| {
        fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
        let what = format!("{} --root {} {words}", bundle.runtime, bundle.path("containers").display());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("umask {mask}; exec \"$0\"")]).arg(std::env::current_exe().unwrap());
        command.env("RINGFENCE_CALLER", what).current_dir(bundle.dir.path()).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let bundle = Bundle::new("umask");
    for mask in ["000", "077"] {
        assert_eq!(says(&bundle, mask, "run box"), "0022\n");
    }
    for (configured, expected) in [(None, "0022\n"), (Some(0o27), "0027\n")] {
        let mut bundle = Bundle::new(PATIENT);
        if let Some(mask) = configured {
            bundle = bundle.with("/process/user/umask", json!(mask));
        }
        bundle.does(&["run", "--detach", "box"]);
        let file = process(&bundle, &["sh", "-c", "umask"], &[("user", json!({"uid": 0, "gid": 0}))]);
        assert_eq!(says(&bundle, "077", &format!("exec --process {file} box")), expected);
        let file = process(&bundle, &["sh", "-c", "umask"], &[("user", json!({"uid": 0, "gid": 0, "umask": 0o70}))]);
        assert_eq!(says(&bundle, "077", &format!("exec --process {file} box")), "0070\n");
        bundle.does(&["delete", "--force", "box"]);
    }
}

#[test]
fn a_list_does_not_stand_for_an_object_of_a_process() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    let file = process(&bundle, &["true"], &[("rlimits", json!([["RLIMIT_NOFILE", 7, 7]]))]);
    let said = fails(&bundle, &["exec", "--process", &file, "box"]);
    assert!(said.contains("rlimits[0]: a list where an object belongs"), "{said}");
    bundle.does(&["delete", "--force", "box"]);
}
