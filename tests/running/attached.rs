//! A sandbox that its owner has left is found again by a later process, and nothing else is taken for it.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use crate::common::{self, probe};
use ringfence::{Architecture, Attached, Bytes, Capabilities, Command, ErrorKind, Event, IoPriority, Landlock, Limits};
use ringfence::{MemoryPolicy, Personality, RootFs, Sandbox, Scheduler, Seccomp, Stdio, Ticket, Verdict};

common::callers! {
    |words|
    "leaves" => leaves(words[1], Path::new(words[2]), Path::new(words[3])),
    "attaches-as-another" => attaches_as_another(words[1]),
    "ends-it-all" => ends_it_all(words[1]),
}

/// What a process is, but for what depends on the moment.
const VIEW: &str = "ls -l /proc/self/ns | sed 's/.* \\([a-z_]* ->\\)/\\1/' | grep -v _for_children | sort
    grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigBlk|SigIgn)' /proc/self/status
    umask; ulimit -Sa; ulimit -Ha; cat /proc/self/cgroup; hostname; cat /proc/self/uid_map; ls /; pwd
    grep -c . /proc/self/mountinfo
    cat /proc/self/oom_score_adj; cut -d' ' -f18,19,40,41 /proc/self/stat; cat /proc/self/personality; uname -m
    grep ^Cpus_allowed /proc/self/status; ionice -p $$; sed -n '1s/^[^ ]* \\([^ ]*\\).*/\\1/p' /proc/self/numa_maps";

/// A program that ends with 7 when it is asked to.
const POLITE: &str = "trap 'kill $!; exit 7' TERM; echo ready; while :; do sleep 1000 & wait $!; done";

fn policy(name: &str, parent: &Path, scratch: &Path) -> Sandbox {
    let apart = || common::sandbox().pid_ns();
    let grouped = |sandbox: Sandbox| sandbox.cgroup_parent(parent).pids_limit(50).memory_limit(Bytes::mib(256));
    let sandbox = match name {
        "strict" => common::strict().cgroup_parent(parent),
        "strict-without-init" => common::strict().cgroup_parent(parent).init(false),
        "apart" => apart().init(true),
        "first" => apart(),
        "bare" => common::sandbox(),
        "filter" => apart().seccomp(Seccomp::default().deny(["socket", "mkdir"])),
        "new-privs" => {
            let filter = Seccomp::deny_list().deny(["mkdir", "mkdirat"]).architecture(Architecture::X86);
            apart().seccomp(filter.allow_new_privs(true))
        }
        "scheduled" => scheduled(apart().init(true)),
        "rules" => apart().landlock(rules(scratch)),
        "rules-apart" => apart().init(true).rootfs(RootFs::host()).bind(scratch, scratch).landlock(rules(scratch)),
        "capable" => apart().user_ns().capabilities(Capabilities::none()).rootfs(RootFs::programs()),
        "group" => grouped(common::sandbox()),
        "group-apart" => grouped(apart().init(true)),
        "group-named" => common::sandbox().pid_ns().init(true).cgroup(parent.join("box")).pids_limit(50),
        "group-named-too" => {
            common::sandbox().pid_ns().cgroup(parent.join("another")).memory_limit(Bytes::mib(256)).pids_limit(50)
        }
        "scratch" => {
            apart().rootfs(RootFs::overlay([scratch.join("root")]).scratch_in(scratch)).bind_ro("/usr", "/usr")
        }
        other => panic!("no policy {other}"),
    };
    sandbox.die_with_owner(false)
}

/// Rules by which a directory in `scratch` is open, but not the one beside it.
fn rules(scratch: &Path) -> Landlock {
    let open = scratch.join("rules/open");
    let programs = ["/usr", "/bin", "/lib", "/lib64"].iter().filter(|dir| Path::new(dir).exists());
    let rules = programs.fold(Landlock::new(), |rules, dir| rules.execute(*dir));
    rules
        .read("/proc")
        .read("/etc")
        .write("/dev/null")
        .write(&open)
        .read(open.join("in"))
        .restrict_tcp()
        .scope_signals()
}

/// Sets all that the kernel keeps for a process beside its ids and limits.
fn scheduled(sandbox: Sandbox) -> Sandbox {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let last = allowed.rsplit([',', '-']).next().unwrap().parse().unwrap();
    let sandbox = sandbox.oom_score_adj(700).scheduler(Scheduler::batch(7)).cpu_affinity([last]);
    let sandbox = sandbox.io_priority(IoPriority::best_effort(6));
    let sandbox = sandbox.personality(Personality::ADDR_NO_RANDOMIZE | Personality::LINUX32);
    let has_nodes = Path::new("/proc/self/numa_maps").exists();
    if has_nodes { sandbox.memory_policy(MemoryPolicy::interleave([0])) } else { sandbox }
}

/// Starts a sandbox, tells what a further program sees and the ticket, and is gone.
fn leaves(name: &str, parent: &Path, scratch: &Path) {
    let sandbox = policy(name, parent, scratch).command("/bin/sh").args(["-c", POLITE]);
    let streams = sandbox.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = streams.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let view = if name == "bare" {
        String::new()
    } else {
        let seen = child.exec_output(Command::new("/bin/sh").args(["-c", VIEW]).env_clear()).unwrap();
        assert!(seen.outcome.success(), "{seen:?}");
        String::from_utf8(seen.stdout).unwrap()
    };
    println!("{}\n{view}", child.ticket().unwrap());
    child.detach().unwrap();
}

/// The sandbox that an owner has left, ended when it is dropped.
struct Left {
    ticket: Ticket,
    view: String,
    scratch: common::TempDir,
}

impl Left {
    fn by_another(name: &str) -> Left {
        let scratch = common::TempDir::new();
        if name == "scratch" {
            let root = scratch.path().join("root");
            std::fs::create_dir(&root).unwrap();
            for dir in ["usr", "proc", "dev", "tmp"] {
                std::fs::create_dir(root.join(dir)).unwrap();
            }
            for link in ["bin", "lib", "lib64"].iter().filter(|link| Path::new("/usr").join(link).exists()) {
                std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
            }
        }
        if name.starts_with("rules") {
            for dir in ["rules/open/in", "rules/closed"] {
                std::fs::create_dir_all(scratch.path().join(dir)).unwrap();
            }
            std::fs::write(scratch.path().join("rules/open/file"), "open").unwrap();
            std::fs::write(scratch.path().join("rules/closed/key"), "secret").unwrap();
        }
        let parent = common::cgroup_parent();
        let what = format!("leaves {name} {} {}", parent.display(), scratch.path().display());
        let said = probe::succeeds(probe::caller(&what));
        let (ticket, view) = said.split_once('\n').unwrap_or((&said, ""));
        Left { ticket: ticket.parse().unwrap(), view: view.trim_end().to_owned(), scratch }
    }

    fn open(&self) -> Attached {
        Attached::open(&self.ticket).unwrap()
    }

    /// The directories of the sandbox's group.
    fn groups(&self) -> Vec<PathBuf> {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.ticket.id())).unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
        let paths = text
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .filter(|path| ["/rk-", "/box", "/another"].iter().any(|name| path.contains(name)));
        let paths: Vec<&str> = paths.map(|path| path.trim_start_matches('/')).collect();
        mounts
            .flat_map(|mount| paths.iter().map(move |path| Path::new(mount).join(path)))
            .filter(|dir| dir.exists())
            .collect()
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Ok(sandbox) = Attached::open(&self.ticket) {
            let _ = sandbox.kill();
            let _ = sandbox.wait();
        }
    }
}

fn has_groups() -> bool {
    common::is_root() || !common::no_cgroups()
}

/// The policies of which the machine allows the groups.
fn with_groups(names: &[&'static str]) -> Vec<&'static str> {
    let groups = has_groups();
    names.iter().copied().filter(|name| groups || !name.starts_with("group")).collect()
}

/// Whether the kernel tells a status to others than the parent.
fn tells_status() -> bool {
    common::kernel() >= (6, 15)
}

#[test]
fn a_later_process_finds_the_sandbox_and_asks_it_to_end() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for name in with_groups(&["strict", "strict-without-init", "apart", "bare", "group", "group-apart", "group-named"])
    {
        let left = Left::by_another(name);
        let sandbox = left.open();
        assert!(sandbox.is_running() && sandbox.id() == left.ticket.id(), "{name}");
        assert!(sandbox.try_wait().unwrap().is_none(), "{name}");
        assert!(sandbox.wait_timeout(Duration::from_millis(20)).unwrap().is_none(), "{name}");
        // Any number may attach, and dropping one ends nothing.
        drop(Attached::open(&left.ticket.to_string().parse().unwrap()).unwrap());
        let groups = left.groups();
        let has_group = name.starts_with("group") || name.starts_with("strict") && has_groups();
        assert_eq!(groups.is_empty(), !has_group, "{name}");
        let outcome = sandbox.stop(sandbox.stop_signal(), Duration::from_secs(60)).unwrap();
        match outcome {
            Some(outcome) => assert_eq!(outcome.verdict(), Verdict::Exited(7), "{name}"),
            None => assert!(!tells_status(), "{name}"),
        }
        assert!(!sandbox.is_running());
        assert!(groups.iter().all(|group| !group.exists()), "{name}: {groups:?}");
        let error = Attached::open(&left.ticket).map(drop);
        // A zombie is still to be found until its parent has reaped it.
        common::eventually("it is reaped", || Attached::open(&left.ticket).is_err());
        let error = error.and_then(|()| Attached::open(&left.ticket).map(drop)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let errors = [sandbox.signal(15).unwrap_err(), sandbox.exec("true").map(drop).unwrap_err()];
        assert!(errors.iter().all(|error| error.kind() == ErrorKind::Control), "{errors:?}");
        assert!(sandbox.stats().is_err());
    }
}

#[test]
fn a_further_program_of_a_later_process_is_what_those_of_the_owner_are() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let plain = ["strict", "strict-without-init", "apart", "first", "filter", "capable", "group", "group-apart"];
    let names = [&plain[..], &["new-privs", "scheduled", "group-named", "group-named-too"]].concat();
    for name in with_groups(&names) {
        let left = Left::by_another(name);
        let sandbox = left.open();
        let seen = sandbox
            .exec_output(Command::new("/bin/sh").args(["-c", VIEW]))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let seen = String::from_utf8(seen.stdout).unwrap();
        assert!(left.view.lines().count() > 25, "{name}: {}", left.view);
        let differ: Vec<_> =
            left.view.lines().zip(seen.trim_end().lines()).filter(|(one, other)| one != other).collect();
        assert!(
            differ.is_empty() && left.view.lines().count() == seen.trim_end().lines().count(),
            "{name}: {differ:#?}"
        );
        match name {
            "scheduled" => {
                assert!(
                    seen.contains("\n700\n27 7 0 3\n00040008\n") && seen.contains("\nbest-effort: prio 6"),
                    "{seen}"
                );
                let has_nodes = Path::new("/proc/self/numa_maps").exists();
                assert!(!has_nodes || seen.trim_end().ends_with("\ninterleave:0"), "{seen}");
            }
            "new-privs" => {
                assert!(seen.contains("\nNoNewPrivs:\t0\n") && seen.contains("\nSeccomp:\t2\n"), "{seen}");
                let refused = sandbox.exec_output(Command::new("mkdir").arg("/tmp/made-by-a-further-one")).unwrap();
                let said = String::from_utf8_lossy(&refused.stderr).into_owned();
                assert!(said.contains("not permitted"), "{said}");
            }
            _ => {}
        }
        // The environment is the command's alone.
        let output = sandbox.exec_output(Command::new("env").env("A", "b")).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "A=b\n", "{name}");
        // It ends with the sandbox.
        let mut further = sandbox.exec(Command::new("sleep").arg("1000")).unwrap();
        sandbox.kill().unwrap();
        assert_eq!(further.wait().unwrap().verdict(), Verdict::Signaled(9), "{name}");
        let _ = sandbox.wait();
    }
}

#[test]
fn a_later_process_measures_freezes_and_limits_the_sandbox_and_kills_all_of_it() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    for name in ["group", "group-apart", "group-named-too"] {
        let left = Left::by_another(name);
        let sandbox = left.open();
        let mut events = sandbox.events().unwrap();
        // Outlives its parent, in a session of its own.
        let away = Command::new("/bin/sh").args(["-c", "setsid sleep 1000 & exit 0"]);
        assert!(sandbox.exec(away).unwrap().wait().unwrap().success());
        assert_eq!(events.next(Some(Duration::from_secs(60))).unwrap(), Some(Event::Exec { count: 1 }));
        let processes = sandbox.processes().unwrap();
        assert!(processes.len() >= 3 && processes.contains(&sandbox.id()), "{processes:?}");
        assert_eq!(sandbox.stats().unwrap().pids_current, Some(processes.len() as u64));
        sandbox.update(&Limits::new().memory(Bytes::mib(128))).unwrap();
        assert_eq!(sandbox.stats().unwrap().memory_limit, Some(Bytes::mib(128)));
        sandbox.freeze().unwrap();
        assert_eq!(events.next(Some(Duration::from_secs(60))).unwrap(), Some(Event::Frozen));
        let began = Instant::now();
        let error = sandbox.exec("true").map(drop).unwrap_err();
        assert!(error.to_string().contains("frozen") && began.elapsed() < Duration::from_secs(5), "{error}");
        sandbox.thaw().unwrap();
        assert_eq!(events.next(Some(Duration::from_secs(60))).unwrap(), Some(Event::Thawed));
        sandbox.freeze().unwrap();
        // A frozen sandbox is killed as well.
        sandbox.kill().unwrap();
        match sandbox.wait() {
            Ok(outcome) => assert_eq!(outcome.verdict(), Verdict::Signaled(9)),
            Err(error) => assert!(error.kind() == ErrorKind::StatusLost && !tells_status(), "{error}"),
        }
        for pid in processes {
            common::eventually("its processes are gone", || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ") || !stat.contains("sleep")
            });
        }
        while events.next(Some(Duration::from_secs(60))).unwrap() != Some(Event::Exited) {}
    }
}

#[test]
fn what_the_sandbox_had_on_disk_goes_with_it() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let left = Left::by_another("scratch");
    let entries = || std::fs::read_dir(left.scratch.path()).unwrap().count();
    assert_eq!(entries(), 2);
    let sandbox = left.open();
    assert!(sandbox.exec_output(Command::new("mkdir").arg("/made")).unwrap().outcome.success());
    assert!(sandbox.exec_output(Command::new("ls").arg("/made")).unwrap().outcome.success());
    sandbox.kill().unwrap();
    let _ = sandbox.wait();
    // The status may be lost, which is no matter here.
    common::eventually("the scratch directory is gone", || {
        let _ = sandbox.try_wait();
        entries() == 1
    });
}

#[test]
fn a_process_that_got_the_number_is_never_taken_for_the_sandbox() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let left = Left::by_another("apart");
    let mut other = process::Command::new("sleep").arg("1000").spawn().unwrap();
    let text = left.ticket.to_string();
    let process = text.split(',').find_map(|word| word.strip_prefix("process=")).unwrap();
    let words: Vec<&str> = process.split(':').collect();
    let other_id = other.id().to_string();
    // The same number with what the kernel knows of it, and as an older kernel would have it.
    let forged = [
        [&other_id, words[1], words[2], words[3]],
        [&other_id, words[1], words[2], "-"],
        [words[0], "1", words[2], "-"],
        [words[0], words[1], "00000000-0000-0000-0000-000000000000", words[3]],
        [words[0], words[1], words[2], "1"],
    ];
    for forged in forged {
        if forged[3] == "1" && words[3] == "-" {
            continue;
        }
        let ticket: Ticket = text.replace(process, &forged.join(":")).parse().unwrap();
        let error = Attached::open(&ticket).expect_err(&forged.join(":"));
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let start_alone: Ticket = text.replace(process, &[words[0], words[1], words[2], "-"].join(":")).parse().unwrap();
    assert!(Attached::open(&start_alone).unwrap().is_running());
    assert!(other.try_wait().unwrap().is_none(), "the other one lives");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_ticket_that_mixes_two_sandboxes_is_refused() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    let (one, other) = (Left::by_another("group"), Left::by_another("apart"));
    let process = |left: &Left| {
        let text = left.ticket.to_string();
        text.split(',').find(|word| word.starts_with("process=")).unwrap().to_owned()
    };
    let mixed = one.ticket.to_string().replace(&process(&one), &process(&other));
    let error = Attached::open(&mixed.parse().unwrap()).unwrap_err();
    assert!(error.kind() == ErrorKind::Control && error.to_string().contains("not in the ticket's group"), "{error}");
    // Another group in its place has another inode.
    let text = one.ticket.to_string();
    let group = text.split(',').find(|word| word.starts_with("group=")).unwrap();
    let inode = group.split(':').nth(2).unwrap();
    let forged =
        text.replace(group, &group.replace(&format!(":{inode}:"), &format!(":{}1:", &inode[..inode.len() - 1])));
    let same = forged == text;
    assert!(same || Attached::open(&forged.parse().unwrap()).is_err());
    assert!(one.open().is_running() && other.open().is_running());
}

#[test]
fn a_ticket_gives_no_program_more_than_the_sandbox_has() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let without = |text: &str, key: &str| {
        let words: Vec<&str> = text.split(',').filter(|word| !word.starts_with(&format!("{key}="))).collect();
        assert_ne!(words.join(","), text, "{key}");
        words.join(",")
    };
    let left = Left::by_another("strict-without-init");
    let text = left.ticket.to_string();
    let caps = text.split(',').find(|word| word.starts_with("caps=")).unwrap();
    let forged_sets = ["caps=1.1.1.0.0.-", "caps=ffffffffff.0.0.0.0.-"].map(|forged| text.replace(caps, forged));
    let left_out = ["seccomp", "caps", "bounding"].map(|key| without(&text, key));
    for forged in left_out.into_iter().chain(forged_sets) {
        let sandbox = Attached::open(&forged.parse().unwrap()).unwrap();
        let error = sandbox.exec("true").map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("would give"), "{error}");
    }
    let under_init = Left::by_another("strict");
    let forged = without(&without(&under_init.ticket.to_string(), "seccomp"), "nnp");
    let error = Attached::open(&forged.parse().unwrap()).unwrap().exec("true").map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // CAP_SYS_ADMIN is held for a filter that needs it, until the exec, and for nothing else.
    let new_privs = Left::by_another("new-privs");
    let text = new_privs.ticket.to_string();
    for forged in ["admin=1", "init=1", "nnp=1"].map(|pair| format!("{text},{pair}")) {
        assert_eq!(forged.parse::<Ticket>().unwrap_err().kind(), ErrorKind::Invalid, "{forged}");
    }
    // What only the owner has is not left out.
    if has_rules() {
        let rules = Landlock::new().read("/").execute("/");
        let sandbox = common::sandbox().pid_ns().landlock(rules).command("sleep").arg("1000").stdin(Stdio::null());
        let child = sandbox.spawn().unwrap();
        let error = Attached::open(&child.ticket().unwrap()).unwrap().exec("true").map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("Landlock"), "{error}");
        assert!(child.exec_output("true").unwrap().outcome.success());
    }
}

/// Whether this machine has Landlock, with all that the tests ask of it.
fn has_rules() -> bool {
    let has = common::sandbox().landlock(Landlock::new().read("/").restrict_tcp()).check().is_ok();
    if !has {
        common::skip("Landlock", true);
    }
    has
}

/// What programs under "rules" do to each other's files, and to ports.
const TRIES: &str = "try() { if (eval \"$2\") >/dev/null 2>&1; then echo \"$1 yes\"; else echo \"$1 no\"; fi; }
    try 'read open' 'cat $D/open/file'; try 'write open' 'echo x >$D/open/new'
    try 'read closed' 'cat $D/closed/key'; try 'list closed' 'ls $D/closed'; try 'write top' 'echo x >$D/new'
    python3 -c 'import socket; print(\"connect\", socket.socket().connect_ex((\"127.0.0.1\", 9)))'
    grep -E '^(NoNewPrivs|Seccomp)' /proc/self/status";

#[test]
fn rules_of_landlock_are_made_again_by_a_later_process() {
    let _clean = common::clean();
    if !has_rules() {
        return;
    }
    let _reaping = common::reaping();
    for name in ["rules", "rules-apart"] {
        let left = Left::by_another(name);
        let sandbox = left.open();
        let dir = left.scratch.path().join("rules");
        let tries = Command::new("/bin/sh").args(["-c", TRIES]).env("D", &dir).env("PATH", "/usr/bin:/bin");
        let output = sandbox.exec_output(tries).unwrap_or_else(|error| panic!("{name}: {error}"));
        let seen = String::from_utf8(output.stdout).unwrap();
        let files = "read open yes\nwrite open yes\nread closed no\nlist closed no\nwrite top no\n";
        assert!(seen.starts_with(files) && seen.contains("NoNewPrivs:\t1\n"), "{name}: {seen}\n{:?}", output.stderr);
        // EACCES. Small machines have no Python.
        assert!(seen.contains("\nconnect 13\n") || !Path::new("/usr/bin/python3").exists(), "{name}: {seen}");
        // The owner's own further programs had the same filters.
        let filters = seen.lines().find(|line| line.starts_with("Seccomp_filters:"));
        assert!(left.view.lines().any(|line| Some(line) == filters), "{name}: {seen}");
    }
}

/// What a program has put in the place of a path has not the rights of what was there.
#[test]
fn a_path_that_the_program_has_exchanged_gives_nothing() {
    let _clean = common::clean();
    if !has_rules() {
        return;
    }
    let _reaping = common::reaping();
    for name in ["rules", "rules-apart"] {
        let left = Left::by_another(name);
        let dir = left.scratch.path().join("rules");
        let (inner, closed) = (dir.join("open/in"), dir.join("closed"));
        let script = "rmdir $D/open/in && ln -s $D/closed $D/open/in";
        let exchange = Command::new("/bin/sh").args(["-c", script]).env("D", &dir).env("PATH", "/usr/bin:/bin");
        let output = left.open().exec_output(exchange).unwrap();
        assert!(output.outcome.success() && std::fs::read_link(&inner).unwrap() == closed, "{output:?}");
        let error = left.open().exec(Command::new("/bin/cat").arg(closed.join("key"))).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Unsupported, Some(&*inner)), "{name}: {error}");
        assert!(left.open().is_running());
        // The attack itself works: with a ticket that has the inode of what is there now, the secret is read.
        let text = left.ticket.to_string();
        let rules = text.split(',').find_map(|word| word.strip_prefix("rules=")).unwrap();
        let stat = std::fs::metadata(&closed).unwrap();
        let with_inode = |rule: &str| match rule.split(':').collect::<Vec<_>>()[..] {
            [rights, _, _, path] if path.ends_with("/open/in") => {
                format!("{rights}:{}:{}:{path}", stat.dev(), stat.ino())
            }
            _ => rule.to_owned(),
        };
        let rules = rules.split('+').map(with_inode).collect::<Vec<_>>().join("+");
        let forged = Attached::open(&forge(&text, &[("rules", &rules)]).parse().unwrap()).unwrap();
        let output = forged.exec_output(Command::new("/bin/cat").arg(closed.join("key"))).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "secret", "{name}: {output:?}");
    }
}

/// How a ticket has a comma of a path, such as that of the hierarchy `cpu,cpuacct`.
const COMMA: &str = "%2c";

/// The directory of a word about a group that was named.
fn dir_of(word: &str) -> PathBuf {
    word.rsplit(':').next().unwrap().replace(COMMA, ",").into()
}

/// Returns the text of a ticket with other words in place of those with these keys.
fn forge(text: &str, changes: &[(&str, &str)]) -> String {
    let is_changed = |word: &&str| changes.iter().any(|(key, _)| word.starts_with(&format!("{key}=")));
    let words = text.split(',').filter(|word| !is_changed(word)).map(str::to_owned);
    let new = changes.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key}={value}"));
    words.chain(new).collect::<Vec<_>>().join(",")
}

#[test]
fn a_ticket_of_a_dead_process_says_nothing_about_a_group() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    let victim = Left::by_another("group");
    // A zombie is a process that has ended.
    let mut dead = process::Command::new("/bin/true").spawn().unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", dead.id())).unwrap();
    common::eventually("a zombie", || stat().contains(") Z "));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let start = stat().rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().to_owned();
    let identity = format!("{}:{start}:{}:-", dead.id(), boot.trim());
    let forged: Ticket = forge(&victim.ticket.to_string(), &[("process", &identity)]).parse().unwrap();
    if let Ok(sandbox) = Attached::open(&forged) {
        assert!(!sandbox.is_running());
        let limits = Limits::new().pids(1);
        let refused = [sandbox.freeze().is_err(), sandbox.thaw().is_err(), sandbox.update(&limits).is_err()];
        assert_eq!(refused, [true; 3]);
        assert!(sandbox.stats().is_err() && sandbox.processes().is_err());
        let _ = (sandbox.kill(), sandbox.try_wait(), sandbox.wait());
    }
    assert!(victim.open().is_running(), "somebody else's sandbox was killed");
    dead.wait().unwrap();
}

#[test]
fn a_ticket_leads_no_program_out_of_the_sandbox() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for name in with_groups(&["apart", "strict", "capable", "group-apart"]) {
        let left = Left::by_another(name);
        let text = left.ticket.to_string();
        let bare = [("joined", "0"), ("shared", ""), ("rootdir", ""), ("maps", ""), ("user", ""), ("groups", "")];
        let caller = text.split(',').find_map(|word| word.strip_prefix("caller=")).unwrap_or("0:0:");
        let new = text.split(',').find_map(|word| word.strip_prefix("new=")).unwrap();
        let pid_alone = format!("{:x}", libc::CLONE_NEWPID);
        let of = |changes: &[(&str, &str)]| forge(&text, &[&bare[..], &[("caller", caller)], changes].concat());
        let mut forged = vec![(of(&[("new", "0")]), "namespace"), (of(&[("new", &pid_alone)]), "namespace")];
        if new != pid_alone {
            let but_pid = u64::from_str_radix(new, 16).unwrap() & !(libc::CLONE_NEWPID as u64);
            forged.push((of(&[("new", &format!("{but_pid:x}"))]), "namespace"));
        } else {
            forged.remove(1);
        }
        forged.push((forge(&text, &[("user", "4242:4242")]), "another user"));
        if text.contains("caps=") {
            forged.push((forge(&text, &[("caps", "")]), "capabilities"));
        }
        for (forged, what) in forged {
            let sandbox = Attached::open(&forged.parse().unwrap_or_else(|error| panic!("{error}: {forged}"))).unwrap();
            let error = sandbox.exec_output("/bin/true").map(drop).expect_err(&forged);
            assert!(error.to_string().contains("would give"), "{name}, {what}: {error}: {forged}");
            assert!(error.to_string().contains(what), "{name}, {what}: {error}: {forged}");
        }
        // A program without the group would be without its limits.
        if text.contains("group=") {
            let error = Attached::open(&forge(&text, &[("group", "")]).parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Control, "{error}");
        }
        assert!(left.open().is_running());
    }
}

#[test]
fn a_ticket_leads_no_program_into_another_group_than_the_one_that_was_named() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    let (left, other) = (Left::by_another("group-named"), Left::by_another("group-named-too"));
    let words = |left: &Left, key: &str| -> Vec<String> {
        let key = format!("{key}=");
        left.ticket.to_string().split(',').filter_map(|word| word.strip_prefix(&key).map(str::to_owned)).collect()
    };
    // The word of a directory, as the library writes it.
    let word = |dir: &Path| {
        let stat = std::fs::metadata(dir).unwrap();
        format!("{}:{}:made:{}", stat.dev(), stat.ino(), dir.display().to_string().replace(',', COMMA))
    };
    let named = words(&left, "named");
    let dirs: Vec<PathBuf> = named.iter().map(|word| dir_of(word)).collect();
    assert!(!dirs.is_empty() && dirs.iter().all(|dir| dir.ends_with("box")), "{dirs:?}");
    let inner: Vec<PathBuf> = dirs.iter().map(|dir| dir.join("inner")).collect();
    inner.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let text = left.ticket.to_string();
    let with = |dirs: &[String]| {
        let without = forge(&text, &[("named", "")]);
        dirs.iter().fold(without, |text, dir| format!("{text},named={dir}"))
    };
    let parents: Vec<String> = dirs.iter().map(|dir| word(dir.parent().unwrap())).collect();
    let inner_words: Vec<String> = inner.iter().map(|dir| word(dir)).collect();
    let (others, others_name) = (words(&other, "named"), words(&other, "name"));
    let mut forged = vec![
        ("the groups above", with(&parents)),
        ("groups inside, in which it is not", with(&inner_words)),
        ("those of another sandbox", with(&others)),
        ("another process", forge(&text, &[("process", &words(&other, "process")[0])])),
        ("other inodes", text.replace(&named[0], &named[0].replacen(':', ":1", 1))),
    ];
    let is_marked = dirs.iter().any(|dir| dir.join("cgroup.freeze").exists()) && common::kernel() >= (5, 7);
    if is_marked {
        forged.push(("no group", with(&[])));
        forged.push(("the name of another sandbox", forge(&text, &[("name", &others_name[0])])));
        forged.push(("no sandbox's groups at all", forge(&with(&[]), &[("name", "")])));
    }
    for i in (0..dirs.len()).filter(|_| dirs.len() > 1) {
        let some: Vec<String> =
            named.iter().enumerate().filter(|(at, _)| *at != i).map(|(_, word)| word.clone()).collect();
        forged.push(("one hierarchy less", with(&some)));
        let mixed: Vec<String> = named
            .iter()
            .enumerate()
            .map(|(at, word)| if at == i { parents[i].clone() } else { word.clone() })
            .collect();
        forged.push(("one of them above", with(&mixed)));
        forged.push(("one twice", with(&[&named[..], &named[i..=i]].concat())));
    }
    for (what, forged) in forged {
        let error = Attached::open(&forged.parse().unwrap_or_else(|error| panic!("{what}: {error}: {forged}")));
        let error = error.map(drop).expect_err(what);
        assert!(error.kind() == ErrorKind::Control, "{what}: {error}");
    }
    // A further program of the true ticket has the limits.
    let seen = left.open().exec_output(Command::new("cat").arg("/proc/self/cgroup")).unwrap();
    let first = std::fs::read(format!("/proc/{}/cgroup", left.ticket.id())).unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), String::from_utf8_lossy(&first));
    assert!(other.open().is_running());
    inner.iter().for_each(|dir| std::fs::remove_dir(dir).unwrap());
}

#[test]
fn a_named_group_that_another_sandbox_has_taken_is_left_alone() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    // A group that was there stays, and is taken again and again.
    let first = Left::by_another("group-named");
    let dirs: Vec<PathBuf> =
        first.ticket.to_string().split(',').filter_map(|word| word.strip_prefix("named=")).map(dir_of).collect();
    let open = first.open();
    assert!(open.stats().is_ok());
    open.signal(9).unwrap();
    common::eventually("it has ended", || !open.is_running());
    common::eventually("nothing is in it", || {
        dirs.iter().all(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).unwrap().is_empty())
    });
    let next = Left::by_another("group-named");
    assert_ne!(first.ticket.id(), next.ticket.id());
    let limits = Limits::new().pids(1);
    assert!(open.stats().is_err() && open.processes().is_err() && open.update(&limits).is_err());
    assert!(open.freeze().is_err() && open.thaw().is_err());
    open.kill().unwrap();
    let _ = open.wait();
    let next = next.open();
    assert!(next.is_running() && next.exec_output("/bin/true").unwrap().outcome.success());
    assert!(dirs.iter().all(|dir| dir.exists()));
    // The second one gives back what it has found, also if it is killed as a whole.
    next.kill().unwrap();
    let _ = next.wait();
    assert!(dirs.iter().all(|dir| dir.exists()));
    let third = Left::by_another("group-named");
    assert!(third.open().exec_output("/bin/true").unwrap().outcome.success());
    drop(third);
    for dir in &dirs {
        std::fs::remove_dir(dir).unwrap();
        let _ = std::fs::remove_dir(dir.parent().unwrap());
    }
}

/// Tells what each call comes to for another user.
fn attaches_as_another(ticket: &str) {
    common::become_ordinary();
    let sandbox = Attached::open(&ticket.parse().unwrap()).unwrap();
    let kinds = [
        sandbox.signal(15).unwrap_err().raw_os_error() == Some(libc::EPERM),
        sandbox.kill().is_err(),
        sandbox.freeze().is_err(),
        sandbox.exec("true").is_err(),
        sandbox.stop(15, Duration::ZERO).is_err(),
        sandbox.is_running(),
    ];
    println!("{kinds:?}");
}

#[test]
fn another_user_can_do_nothing_to_the_sandbox() {
    let _clean = common::clean();
    if common::needs_root("another user") {
        return;
    }
    let _reaping = common::reaping();
    let left = Left::by_another("group-apart");
    let said = probe::succeeds(probe::caller(&format!("attaches-as-another {}", left.ticket)));
    assert_eq!(said, format!("{:?}", [true; 6]));
    assert!(left.open().is_running());
}

/// Ends a sandbox in a process that did not start it, and has no other.
fn ends_it_all(ticket: &str) {
    let sandbox = Attached::open(&ticket.parse().unwrap()).unwrap();
    let outcome = sandbox.stop(libc::SIGTERM, Duration::from_secs(60)).unwrap();
    println!("{:?}", outcome.map(|outcome| outcome.verdict()));
}

#[test]
fn a_living_owner_and_a_stranger_get_the_same_status() {
    let _clean = common::clean();
    let sandbox = common::sandbox().pid_ns().init(true).command("/bin/sh").args(["-c", POLITE]);
    let mut child = sandbox.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let ticket = child.ticket().unwrap();
    let stranger = std::thread::spawn(move || probe::succeeds(probe::caller(&format!("ends-it-all {ticket}"))));
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(7));
    let said = stranger.join().unwrap();
    if tells_status() {
        assert_eq!(said, "Some(Exited(7))");
    }
    assert!(child.ticket().is_err(), "it has ended");
    let further = common::sandbox().pid_ns().command("sleep").arg("1000").spawn().unwrap();
    let error = further.exec(Command::new("sleep").arg("1000")).unwrap().ticket().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Control, "{error}");
}
