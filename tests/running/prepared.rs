//! A policy that is prepared once: what is the same for every run, what each run brings, and what may not go stale.

use std::fs::{self, File};
use std::io::Read;

use crate::common::{self, TempDir, cgroup_parent, clean, group_of, is_v2, no_cgroups, sandbox, strict};
use ringfence::{Command, ErrorKind, Landlock, RootFs, Sandbox, Seccomp, Stdio, Step, Verdict};

fn sh(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

/// What `script` writes in `prepared`.
#[track_caller]
fn said(prepared: &ringfence::Prepared, command: Command) -> String {
    let output = prepared.with(command).output().unwrap();
    assert!(output.outcome.success(), "{}: {}", output.outcome.verdict(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_run_brings_its_own_program_and_the_rest_is_the_policys() {
    let _clean = clean();
    let policy = sandbox().rootfs(RootFs::host()).pid_ns().command("pwd").env("A", "policy").env("B", "policy");
    let prepared = policy.cwd("/usr").prepare().unwrap();
    for _ in 0..3 {
        let own = prepared.output().unwrap();
        assert_eq!(own.stdout, b"/usr\n", "the policy's own program");
        assert_eq!(said(&prepared, sh("echo $A $B $(pwd) $$").env("A", "run")), "run policy /usr 1\n");
        assert_eq!(said(&prepared, sh("echo ${A-none} $(pwd)").env_remove("A").cwd("/")), "none /\n");
        let cleared = prepared.with(Command::new("/usr/bin/env").env_clear().envs([("X", "1")])).output().unwrap();
        assert_eq!(cleared.stdout, b"X=1\n");
        assert_eq!(said(&prepared, Command::new("echo").arg("one").args(["two", "three"])), "one two three\n");
    }
    assert!(prepared.with("true").status().unwrap().success());
    assert_eq!(prepared.with("false").status().unwrap().verdict(), Verdict::Exited(1));
}

#[test]
fn streams_are_the_runs_then_the_policys_then_the_calls() {
    let _clean = clean();
    let (dir, text) = (TempDir::new(), "through a file");
    let (source, sink) = (dir.path().join("in"), dir.path().join("out"));
    fs::write(&source, text).unwrap();
    let policy = Sandbox::new().stdout(File::create(&sink).unwrap());
    let prepared = policy.prepare().unwrap();
    let output = prepared.with(Command::new("cat").stdin(File::open(&source).unwrap())).output().unwrap();
    assert!(output.outcome.success() && output.stdout.is_empty());
    assert_eq!(fs::read_to_string(&sink).unwrap(), text);
    let mut child = prepared.with(sh("echo to the pipe").stdout(Stdio::piped())).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "to the pipe\n");
    assert_eq!(fs::read_to_string(&sink).unwrap(), text, "nothing of it went to the policy's file");
}

#[test]
fn a_descriptor_is_passed_to_one_program_beside_those_of_the_policy() {
    let _clean = clean();
    let open = "for fd in $(seq 0 20); do test -e /proc/$$/fd/$fd && printf $fd,; done; true";
    for policy in [sandbox().rootfs(RootFs::host()).pid_ns(), sandbox().pid_ns().init(true), Sandbox::new()] {
        let prepared = policy.fd(7, common::text("policy")).prepare().unwrap();
        let (mut ours, theirs) = std::io::pipe().unwrap();
        // The numbers are some that the library has for itself until the exec.
        let one = sh(&format!("cat <&3; cat <&7; printf done >&8; {open}")).fd(8, theirs).fd(3, common::text("one "));
        assert_eq!(said(&prepared, one.clone()), "one policy0,1,2,3,7,8,");
        assert_eq!(said(&prepared, sh(&format!("cat <&6; {open}")).fd(6, common::text("two"))), "two0,1,2,6,7,");
        assert_eq!(said(&prepared, sh(open)), "0,1,2,7,");
        // It is still open here, and is passed on again.
        assert_eq!(said(&prepared, one.clone()), "0,1,2,3,7,8,", "both files were read to their end");
        drop(one);
        let mut written = String::new();
        ours.read_to_string(&mut written).unwrap();
        assert_eq!(written, "donedone");
    }
}

#[test]
fn the_environment_is_the_one_in_which_it_was_prepared() {
    let _clean = clean();
    let prepared = Sandbox::new().command("/usr/bin/env").prepare().unwrap();
    // Nothing else of this process reads or writes its environment now: the tests run one at a time.
    // SAFETY: as above.
    unsafe { std::env::set_var("RINGFENCE_TEST_LATER", "1") };
    let seen = String::from_utf8(prepared.output().unwrap().stdout).unwrap();
    let fresh = Sandbox::new().command("/usr/bin/env").output().unwrap().stdout;
    // SAFETY: as above.
    unsafe { std::env::remove_var("RINGFENCE_TEST_LATER") };
    assert!(seen.contains("PATH=") && !seen.contains("RINGFENCE_TEST_LATER"), "{seen}");
    assert!(String::from_utf8(fresh).unwrap().contains("RINGFENCE_TEST_LATER=1"));
}

#[test]
fn a_path_that_is_replaced_is_the_new_one_in_the_next_run() {
    let _clean = clean();
    let dir = TempDir::new();
    let shown = dir.path().join("shown");
    let put = |text: &str| {
        fs::create_dir(&shown).unwrap();
        fs::write(shown.join("file"), text).unwrap();
    };
    put("old");
    let prepared = sandbox().rootfs(RootFs::host()).bind_ro(&shown, "/mnt").prepare().unwrap();
    assert_eq!(said(&prepared, sh("cat /mnt/file")), "old");
    fs::rename(&shown, dir.path().join("away")).unwrap();
    put("new");
    assert_eq!(said(&prepared, sh("cat /mnt/file")), "new");
    fs::remove_dir_all(&shown).unwrap();
    let gone = prepared.with("true").status().unwrap_err();
    assert_eq!((gone.step(), gone.raw_os_error()), (Step::OpenTree, Some(libc::ENOENT)), "{gone}");
    fs::write(&shown, "a file by now").unwrap();
    let other = prepared.with("true").status().unwrap_err();
    assert_eq!(other.step(), Step::MoveMount, "{other}");
    fs::remove_file(&shown).unwrap();
    put("newest");
    assert_eq!(said(&prepared, sh("cat /mnt/file")), "newest", "a failure has left nothing behind");
}

#[test]
fn what_is_made_for_a_run_is_made_for_each() {
    let _clean = clean();
    let layer = common::root_dir();
    // An overlay's scratch directory, and a Landlock ruleset.
    let overlay = RootFs::overlay([layer.path()]).scratch();
    let policy = sandbox().pid_ns().rootfs(overlay).bind_ro("/usr", "/usr");
    let rules = Landlock::new().execute("/").read("/usr").write("/tmp");
    let policy = match Sandbox::new().landlock(rules.clone()).check() {
        Ok(_) => policy.landlock(rules),
        Err(error) => {
            common::skip(&error.to_string(), true);
            return;
        }
    };
    let prepared = policy.prepare().unwrap();
    for _ in 0..3 {
        let script = "test ! -e /tmp/mark && echo mark > /tmp/mark && echo done";
        assert_eq!(said(&prepared, sh(script)), "done\n");
        let refused = prepared.with(sh("echo > /etc/mark")).output().unwrap();
        assert!(!refused.outcome.success(), "Landlock has to hold in every run");
    }
}

#[test]
fn a_control_group_of_its_own_counts_each_run() {
    let _clean = clean();
    if no_cgroups() {
        return;
    }
    let policy = sandbox().cgroup_parent(cgroup_parent()).memory_limit(64 << 20).pids_limit(8).pid_ns();
    let prepared = policy.prepare().unwrap();
    let hog = Command::new("/bin/sh").args(["-c", "head -c 200m /dev/zero | tail -c 150m > /dev/null"]);
    assert_eq!(prepared.with(&hog).status().unwrap().verdict(), Verdict::OutOfMemory);
    for _ in 0..3 {
        let outcome = prepared.with("true").status().unwrap();
        assert!(outcome.success(), "{}", outcome.verdict());
        assert_eq!(outcome.usage().oom_kills.unwrap_or(0), 0);
        let peak = outcome.usage().peak_memory.unwrap();
        assert!(peak.get() < 32 << 20, "{peak}");
    }
}

#[test]
fn the_levels_above_its_groups_stay_until_it_is_dropped() {
    let _clean = clean();
    if no_cgroups() {
        return;
    }
    // A level that nobody else's test keeps.
    let policy = sandbox().cgroup_parent(cgroup_parent().join("kept")).pids_limit(8).command("sleep").arg("1000");
    let level = |child: ringfence::Child| {
        let group = group_of(child.id(), if is_v2() { "" } else { "pids" });
        child.close().unwrap();
        group.parent().unwrap().to_owned()
    };
    let level_of_a_spawn = level(policy.spawn().unwrap());
    assert!(level_of_a_spawn.ends_with("kept") && !level_of_a_spawn.exists());
    let (first, second) = (policy.prepare().unwrap(), policy.clone().pids_limit(9).prepare().unwrap());
    assert!(!level_of_a_spawn.exists(), "made for nothing");
    let kept = level(first.spawn().unwrap());
    assert_eq!(kept, level_of_a_spawn);
    assert!(kept.exists());
    drop(first.with("true"));
    drop(first);
    level(second.spawn().unwrap());
    assert!(kept.exists(), "there is another");
    drop(second);
    assert!(!kept.exists() && !kept.parent().unwrap().exists());
}

#[test]
fn the_preset_can_be_prepared() {
    let _clean = clean();
    let prepared = strict().prepare().unwrap();
    for round in 0..3 {
        let script = "test ! -e /tmp/mark && echo > /tmp/mark; id -u; cat /proc/net/dev | wc -l; mkdir /x 2>/dev/null || echo ro";
        assert_eq!(said(&prepared, sh(script)), "65534\n3\nro\n", "round {round}");
    }
}

#[test]
fn it_is_refused_before_anything_is_spawned() {
    let _clean = clean();
    assert_eq!(Sandbox::new().hostname("box").prepare().unwrap_err().kind(), ErrorKind::Invalid);
    let missing = sandbox().rootfs("/no/such/root").prepare().unwrap_err();
    assert_eq!(missing.step(), Step::Validate, "{missing}");
    let prepared = Sandbox::new().fd(9, common::text("")).prepare().unwrap();
    for (command, call) in [
        (Command::new("a\0b"), "command"),
        (Command::new(""), "command"),
        (Command::new("true").arg("a\0b"), "command"),
        (Command::new("true").env("a=b", "c"), "env"),
        (Command::new("true").cwd("/a\0b"), "cwd"),
        (Command::new("true").fd(2, common::text("")), "fd"),
        (Command::new("true").fd(3, common::text("")).fd(3, common::text("")), "fd"),
        (Command::new("true").fd(9, common::text("")), "fd"),
        (Command::new("true").fd(i32::MAX, common::text("")), "fd"),
    ] {
        let error = prepared.with(command).spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.problems().iter().any(|problem| problem.to_string().contains(call)), "{error}");
    }
    let error = prepared.with("/no/such/program").spawn().unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)));
}

#[test]
fn it_is_shared_by_threads() {
    let _clean = clean();
    let prepared = sandbox().rootfs(RootFs::host()).pid_ns().seccomp(Seccomp::default()).prepare().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let prepared = prepared.clone();
            scope.spawn(move || {
                for run in 0..10 {
                    let word = format!("{thread} {run}");
                    assert_eq!(said(&prepared, Command::new("echo").arg(&word)), format!("{word}\n"));
                }
            });
        }
    });
}
