//! The record of what a filter refuses: that the refusals stay the same, that each is recorded, and that neither a
//! flood nor the end of anything goes wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::common::calls::{ALLOWED, refused};
use crate::common::{self, TempDir, eventually, probe, sandbox, sh, strict_probe, strict_sh};
use ringfence::{
    Action, Command, Compare, Denial, DenialRule, Denials, Enforcement, ErrorKind, Feature, Rule, Sandbox, Seccomp,
    Stdio,
};

/// Skips where a filter around the tests has a supervisor, or the kernel is too old.
fn cannot(sandbox: &Sandbox) -> bool {
    let Err(error) = sandbox.clone().denials(true).check() else { return false };
    let by_denials = error.problems().iter().any(|problem| problem.feature == Some(Feature::Denials));
    assert!(by_denials, "{error}");
    common::skip(&error.to_string(), common::kernel() < (5, 8));
    true
}

fn run(sandbox: &Sandbox) -> (String, Denials) {
    let output = sandbox.clone().denials(true).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (text.into_owned(), output.denials.expect("the record was asked for"))
}

fn named<'d>(denials: &'d Denials, name: &str) -> Vec<&'d Denial> {
    denials.iter().filter(|one| one.syscall() == Some(name)).collect()
}

/// The threads of this process that record.
fn recorders() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "ringfence-denia").count()
}

#[test]
fn each_refused_call_is_recorded_and_refused_as_ever() {
    let _clean = common::clean();
    let wanted = refused();
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).chain(ALLOWED).collect();
    let calls = strict_probe(&format!("calls {}", names.join(" ")));
    if cannot(&calls) {
        return;
    }
    let plain = calls.clone().output().unwrap();
    assert!(plain.denials.is_none(), "nobody asked for it");
    let (told, denials) = run(&calls);
    assert_eq!(told, String::from_utf8(plain.stdout).unwrap());
    for (name, errno) in &wanted {
        assert!(told.lines().any(|line| line == format!("{name} {errno}")), "{name} in {told}");
        // Other words are names of a way to make a call.
        let call = match *name {
            "vsock" | "packet" | "alg" | "can" | "netlink-diag" | "netlink-route" => "socket",
            "socketpair-tipc" => "socketpair",
            "memfd-huge" => "memfd_create",
            "attach-filter" | "attach-reuseport" => "setsockopt",
            "pacing-rate" | "user-timeout" | "tx-delay" | "flow-labels" => "setsockopt",
            name if name.starts_with("tioc") => "ioctl",
            name => name.split('-').next().unwrap(),
        };
        assert!(named(&denials, call).iter().any(|one| one.errno() == *errno), "{call} in {denials:?}");
    }
    let families: BTreeSet<u64> = named(&denials, "socket").iter().map(|one| one.args()[0] & 0xffff_ffff).collect();
    for family in [libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG, libc::AF_CAN, libc::AF_NETLINK] {
        assert!(families.contains(&(family as u64)), "{families:?}");
    }
    assert!(named(&denials, "bpf").iter().all(|one| one.rule() == DenialRule::Unlisted));
    assert!(named(&denials, "clone3").iter().all(|one| one.rule() == DenialRule::Named));
    assert!(named(&denials, "getpid").is_empty() && named(&denials, "adjtimex").is_empty());
    assert_eq!(denials.dropped(), 0);
}

#[test]
fn the_rule_of_a_record_allows_that_call_and_no_more() {
    let _clean = common::clean();
    let calls =
        |profile| strict_probe("calls netlink-route netlink-diag personality-no-randomize vsock").seccomp(profile);
    if cannot(&calls(Seccomp::default())) {
        return;
    }
    let (_, denials) = run(&calls(Seccomp::default()));
    let is_route = |one: &&Denial| one.args()[..3] == [16, libc::SOCK_RAW as u64, 0] || one.args()[2] == 0;
    let route = named(&denials, "socket").into_iter().find(is_route).unwrap();
    let persona = named(&denials, "personality")[0];
    assert!(route.allowed_by().contains(".arg(0, Compare::int(16))"), "{}", route.allowed_by());
    let profile = [route, persona].iter().fold(Seccomp::default(), |all, one| all.rule(one.allowing_rule().unwrap()));
    let (told, denials) = run(&calls(profile));
    let unavailable = libc::EAFNOSUPPORT;
    let expected =
        format!("netlink-route 0\nnetlink-diag {unavailable}\npersonality-no-randomize 0\nvsock {unavailable}\n");
    assert_eq!(told, expected);
    assert_eq!(denials.iter().len(), 2, "{denials:?}");
}

#[test]
fn the_path_is_seen_whatever_it_is() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let profile = Seccomp::default().rule(Rule::new(["mkdir", "mkdirat"], Action::Errno(libc::EXFULL)));
    let script = "mkdir plain; mkdir \"new\nline\"; mkdir ''; mkdir plain; mkdir $(printf 'x%.0s' $(seq 5000))";
    let makes = sh(script).cwd(dir.path()).seccomp(profile);
    if cannot(&makes) {
        return;
    }
    let (_, denials) = run(&makes);
    let seen: Vec<_> = denials
        .iter()
        .filter(|one| one.errno() == libc::EXFULL)
        .map(|one| (one.path_seen().map(|path| path.as_os_str().as_bytes().to_owned()), one.count()))
        .collect();
    // An empty path, and one that is longer than any, are none.
    let expected = [(Some(b"plain".to_vec()), 2), (Some(b"new\nline".to_vec()), 1), (None, 2)];
    assert_eq!(seen, expected);
    let shown: Vec<_> = denials.iter().map(Denial::to_string).collect();
    assert!(shown.iter().any(|line| line.contains("\"new\\nline\"") && line.contains("EXFULL")), "{shown:?}");
    assert!(shown.iter().all(|line| !line.contains('\n')));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_flood_is_counted_and_takes_no_room() {
    let _clean = common::clean();
    const FLOOD: usize = 10_000;
    let calls = strict_probe(&format!("calls {}unshare-user", "bpf ".repeat(FLOOD)));
    if cannot(&calls) {
        return;
    }
    let (told, denials) = run(&calls);
    assert_eq!(told.lines().filter(|line| *line == "bpf 1").count(), FLOOD);
    assert_eq!(named(&denials, "bpf")[0].count(), FLOOD as u64);
    assert_eq!(named(&denials, "unshare").len(), 1);
    // Each different, so that each would be a record.
    let dir = TempDir::new();
    let profile = Seccomp::default().deny(["mkdir", "mkdirat"]);
    let makes = sh("mkdir $(seq 1 400) 2>/dev/null").cwd(dir.path()).seccomp(profile);
    let (_, denials) = run(&makes);
    let made: Vec<_> = denials.iter().filter(|one| one.path_seen().is_some()).collect();
    let directories = made.iter().filter(|one| one.syscall().unwrap().starts_with("mkdir")).count();
    assert_eq!((directories, denials.dropped()), (32, 368));
}

#[test]
fn calls_of_another_architecture_and_of_newer_kernels_are_told_apart() {
    let _clean = common::clean();
    let calls = strict_probe("numbers 9999 1073741863");
    if cannot(&calls) {
        return;
    }
    let (told, denials) = run(&calls);
    assert_eq!(told, format!("9999 {0}\n1073741863 {0}\n", libc::ENOSYS));
    let rules: Vec<_> = denials.iter().map(|one| (one.number(), one.rule(), one.syscall())).collect();
    let newer = (9999, DenialRule::Newer, None);
    // On aarch64, the second number is only a large one.
    let foreign = if cfg!(target_arch = "x86_64") { DenialRule::Foreign } else { DenialRule::Newer };
    assert!(rules.contains(&newer) && rules.contains(&(1_073_741_863, foreign, None)), "{rules:?}");
    let without_rule = denials.iter().filter(|one| one.syscall().is_none());
    assert!(without_rule.clone().count() == 2 && without_rule.clone().all(|one| one.allowing_rule().is_none()));
    assert!(without_rule.clone().all(|one| !one.allowed_by().is_empty()));
}

#[test]
fn prepared_pooled_and_further_programs_have_records_of_their_own() {
    let _clean = common::clean();
    let base = strict_sh("true");
    if cannot(&base) {
        return;
    }
    let prepared = base.denials(true).prepare().unwrap();
    assert_eq!(prepared.enforced().get(Feature::Denials), Some(&Enforcement::Full));
    let tries = |what: &str| Command::new("/bin/sh").args(["-c", what]);
    let mounts = tries("mount -t tmpfs none /tmp 2>/dev/null; exit 3");
    let has_mount = |denials: Option<Denials>| !named(&denials.unwrap(), "mount").is_empty();
    for _ in 0..2 {
        assert!(!has_mount(prepared.output().unwrap().denials));
        let output = prepared.with(mounts.clone()).output().unwrap();
        assert_eq!(output.outcome.code(), Some(3));
        assert!(has_mount(output.denials));
    }
    let pool = ringfence::Pool::new(&prepared, 2).unwrap();
    for _ in 0..2 {
        pool.wait_ready(Duration::from_secs(60)).unwrap();
        assert!(has_mount(pool.output(mounts.clone()).unwrap().denials));
        assert!(!has_mount(pool.output(tries("exit 0")).unwrap().denials));
    }
    assert!(pool.stats().hits > 0);
    drop(pool);
    let mut first = prepared.with(tries("read x").stdin(Stdio::piped())).spawn().unwrap();
    let output = first.exec_output(mounts);
    drop(first.stdin.take());
    if let Ok(output) = output {
        assert!(has_mount(output.denials));
    } else {
        common::skip(&output.unwrap_err().to_string(), common::kernel() < (5, 8));
    }
    first.wait().unwrap();
    assert!(!has_mount(first.denials()));
    eventually("the threads that record end", || recorders() == 0);
}

#[test]
fn the_end_of_the_sandbox_ends_the_thread_that_records() {
    let _clean = common::clean();
    let waits = strict_sh("mount x y 2>/dev/null; echo ready; read line").stdout(Stdio::piped()).stdin(Stdio::piped());
    if cannot(&waits) {
        return;
    }
    let spawn = || {
        let mut child = waits.clone().denials(true).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        assert_eq!(recorders(), 1);
        assert!(!named(&child.denials().unwrap(), "mount").is_empty(), "told while the program runs");
        child
    };
    let gone = || eventually("the thread that records ends", || recorders() == 0);
    drop(spawn());
    gone();
    let mut killed = spawn();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!killed.denials().unwrap().is_empty(), "told after the end");
    gone();
    let mut ended = spawn();
    drop(ended.stdin.take());
    // Nobody has waited yet.
    gone();
    ended.wait().unwrap();
    let error = strict_sh("").command("/no/such/program").denials(true).spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exec);
    gone();
}

#[test]
fn a_program_that_is_killed_within_a_refused_call_is_no_trouble() {
    let _clean = common::clean();
    let floods = strict_sh("while :; do mount x y; done 2>/dev/null").wall_time(Duration::from_millis(300));
    if cannot(&floods) {
        return;
    }
    let output = floods.denials(true).output().unwrap();
    assert_eq!(output.outcome.verdict(), ringfence::Verdict::WallTime);
    assert!(!named(&output.denials.unwrap(), "mount").is_empty());
    eventually("the thread that records ends", || recorders() == 0);
}

#[test]
fn the_exec_of_the_program_itself_can_be_what_is_refused() {
    let _clean = common::clean();
    let rule = Rule::new(["execve"], Action::Errno(libc::EXFULL)).arg(0, Compare::Ne(0));
    let refused = sandbox().command("/bin/true").seccomp(Seccomp::deny_list().rule(rule));
    if cannot(&refused) {
        return;
    }
    for sandbox in [refused.clone(), refused.denials(true)] {
        let error = sandbox.spawn().unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::EXFULL)));
        assert!(error.to_string().contains("seccomp profile"), "{error}");
    }
}

#[test]
fn what_cannot_be_recorded_is_an_error_or_told() {
    let _clean = common::clean();
    let asks = Seccomp::default().rule(Rule::new(["chroot"], Action::Notify));
    for (profile, word) in [(None, "filter"), (Some(asks), "Notify")] {
        let sandbox = probe::run(sandbox(), "calls bpf").seccomp(profile).denials(true);
        for error in [sandbox.check().unwrap_err(), sandbox.spawn().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.problems()[0].feature, Some(Feature::Denials));
        }
        let sandbox = sandbox.best_effort(Feature::Denials);
        assert!(matches!(sandbox.check().unwrap().get(Feature::Denials), Some(Enforcement::Missing(_))));
        let mut child = sandbox.stdout(Stdio::null()).spawn().unwrap();
        child.wait().unwrap();
        assert!(child.denials().is_none());
    }
}
