//! System call filters: what the presets refuse and let through, rules of one's own, and the verdict.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{
    self,
    calls::{ALLOWED, refused},
    probe, sandbox, sh, stdout,
};
use ringfence::{Action, Architecture, Capabilities, Capability, Command, Compare, ErrorKind, Feature, Landlock};
use ringfence::{Rule, Sandbox, Seccomp, Stdio, Step, Verdict};

const OTHER: i32 = libc::EXFULL;

/// What each call gives in the sandbox.
#[track_caller]
fn errnos(sandbox: Sandbox, names: &[&str]) -> BTreeMap<String, i32> {
    let text = stdout(&probe::run(sandbox, &format!("calls {}", names.join(" "))));
    let pair = |line: &str| line.split_once(' ').map(|(name, errno)| (name.to_owned(), errno.parse().unwrap()));
    text.lines().filter_map(pair).collect()
}

#[test]
fn what_the_default_refuses_has_its_errno() {
    let _clean = common::clean();
    let wanted = refused();
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    let under = errnos(sandbox().seccomp(Seccomp::default()), &names);
    let wrong: Vec<_> = wanted.iter().filter(|(name, errno)| under[*name] != *errno).collect();
    assert!(wrong.is_empty(), "{wrong:?} of {under:?}");
    // Without the filter each of them gets into the kernel, and is told something else, but where the answer is that of a kernel
    // without the call, and this is one. The record of denials (denials.rs) has them all the same.
    if common::is_root() {
        let free = errnos(sandbox(), &names);
        let same: Vec<_> =
            wanted.iter().filter(|(name, errno)| free[*name] == *errno && *name != "memfd_secret").collect();
        assert!(same.is_empty(), "the same without the filter: {same:?}");
    }
    // It is the profile that refuses, and not the user's want of rights: with another default another errno comes.
    let other = errnos(sandbox().seccomp(Seccomp::default().otherwise(Action::Errno(OTHER))), &names);
    let by_default = wanted.iter().filter(|(name, errno)| *errno == libc::EPERM && !name.starts_with("tioc"));
    let same: Vec<_> = by_default.filter(|(name, _)| other[*name] != OTHER).collect();
    assert!(same.is_empty(), "not refused for want of a rule: {same:?}");
}

#[test]
fn what_looks_like_it_and_is_harmless_goes_through() {
    let _clean = common::clean();
    let under = errnos(sandbox().seccomp(Seccomp::default()), &ALLOWED);
    assert!(under.values().all(|errno| *errno == 0), "{under:?}");
}

#[test]
fn a_request_of_the_terminal_is_refused_whatever_its_upper_half() {
    let _clean = common::clean();
    let names = ["tiocsti", "tiocsti-high"];
    assert_eq!(errnos(sandbox().seccomp(Seccomp::default()), &names), errno_pairs(&names, [libc::EPERM; 2]));
    // A filter that compares all 64 bits is passed by (CVE-2019-7303).
    #[allow(clippy::unnecessary_cast, reason = "the type of the constant differs between C libraries")]
    let request = libc::TIOCSTI as u64;
    let naive = Rule::new(["ioctl"], Action::EPERM).arg(1, Compare::Eq(request));
    let under = errnos(sandbox().seccomp(Seccomp::deny_list().rule(naive)), &names);
    assert_eq!(under, errno_pairs(&names, [libc::EPERM, libc::EBADF]));
}

fn errno_pairs<const N: usize>(names: &[&str; N], errnos: [i32; N]) -> BTreeMap<String, i32> {
    names.iter().map(|name| (*name).to_owned()).zip(errnos).collect()
}

#[test]
fn calls_of_other_architectures_are_refused_by_every_profile() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let _clean = common::clean();
    let names = ["i386-getpid", "x32-getpid", "getpid"];
    let free = errnos(sandbox(), &names);
    for profile in [Seccomp::default(), Seccomp::deny_list(), Seccomp::deny_list().foreign(Action::Errno(OTHER))] {
        let expected = if profile_is(&profile, OTHER) { OTHER } else { libc::ENOSYS };
        let under = errnos(sandbox().seccomp(profile), &names);
        assert_eq!(under, errno_pairs(&names, [expected, expected, 0]));
    }
    // An architecture that the profile names has the profile's answers, by the names of its calls.
    let both = || Seccomp::default().architecture(Architecture::X86).architecture(Architecture::X32);
    let under = errnos(sandbox().seccomp(both()), &names);
    assert_eq!(under, free);
    let under = errnos(sandbox().seccomp(both().deny(["getpid"])), &names);
    assert_eq!(under, errno_pairs(&names, [libc::EPERM; 3]));
    // getpid of i386 is writev of x86_64.
    let under = errnos(sandbox().seccomp(both().deny(["writev"])), &names);
    assert_eq!(under, free);
    if free["i386-getpid"] != 0 {
        common::skip("this kernel has no i386 calls to be refused", true);
    }
    let killed = probe::run(sandbox().seccomp(Seccomp::default().foreign(Action::KillProcess)), "calls x32-getpid");
    assert_eq!(killed.output().unwrap().outcome.verdict(), Verdict::Seccomp);
}

/// A program of 32 bits that exits with 42: the head of an ELF file, with one segment, and three instructions.
#[cfg(target_arch = "x86_64")]
fn program_of_32_bits(path: &Path) {
    const ADDRESS: u32 = 0x0804_8000;
    let code = [0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80];
    let half = |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let word = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let size = 84 + code.len() as u32;
    let file = [
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        half(&[2, 3]),
        word(&[1, ADDRESS + 84, 52, 0, 0]),
        half(&[52, 32, 1, 0, 0, 0]),
        word(&[1, 0, ADDRESS, ADDRESS, size, size, 5, 4096]),
        code.to_vec(),
    ];
    std::fs::write(path, file.concat()).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_program_of_32_bits_runs_where_the_profile_names_its_architecture_and_is_killed_elsewhere() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let path = dir.path().join("exits");
    program_of_32_bits(&path);
    let verdict = |sandbox: Sandbox| sandbox.command(&path).status().map(|outcome| outcome.verdict());
    match verdict(sandbox()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
            return common::skip("this kernel runs no programs of 32 bits", true);
        }
        free => assert_eq!(free.unwrap(), Verdict::Exited(42)),
    }
    let named = |names: &str| {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "architectures": [{names}], "syscalls": []}}"#);
        verdict(sandbox().seccomp(Seccomp::from_json(&text, [""; 0]).unwrap())).unwrap()
    };
    assert_eq!(named(r#""SCMP_ARCH_X86_64", "SCMP_ARCH_X86""#), Verdict::Exited(42));
    assert_eq!(named(r#""SCMP_ARCH_X86_64""#), Verdict::Seccomp);
    assert_eq!(
        verdict(sandbox().seccomp(Seccomp::deny_list().architecture(Architecture::X86))).unwrap(),
        Verdict::Exited(42)
    );
}

fn profile_is(profile: &Seccomp, errno: i32) -> bool {
    format!("{profile:?}").contains(&format!("foreign: Errno({errno})"))
}

#[test]
fn a_newer_call_looks_as_on_an_older_kernel() {
    let _clean = common::clean();
    let names = ["newer-than-the-table"];
    assert_eq!(errnos(sandbox().seccomp(Seccomp::default()), &names), errno_pairs(&names, [libc::ENOSYS]));
    let killed = sandbox().seccomp(Seccomp::default().otherwise(Action::KillProcess));
    let outcome = probe::run(killed, "calls newer-than-the-table").output().unwrap().outcome;
    assert_eq!(outcome.verdict(), Verdict::Seccomp);
}

#[test]
fn arguments_are_compared() {
    let _clean = common::clean();
    let big = 1u64 << 40;
    let cases = [
        (Compare::Eq(big + 5), [big + 5, 5, big]),
        (Compare::Ne(big + 5), [big, big + 5, big + 5]),
        (Compare::Lt(big), [big - 1, big, big + 1]),
        (Compare::Le(big), [big, big + 1, u64::MAX]),
        (Compare::Gt(big), [big + 1, big, 77]),
        (Compare::Ge(big), [big, big - 1, 77]),
        (Compare::MaskedEq { mask: big | 8, value: 8 }, [8, big | 8, 7]),
        (Compare::int(999), [big | 999, 998, big]),
    ];
    for (compare, [inside, outside, outside_too]) in cases {
        let rule = Rule::new(["sched_yield"], Action::Errno(OTHER)).arg(0, compare);
        let profile = Seccomp::deny_list().rule(rule);
        let names = [inside, outside, outside_too].map(|fd| format!("yield:{fd}"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let got = errnos(sandbox().seccomp(profile), &names);
        assert_eq!(got[names[0]], OTHER, "{compare:?} {inside}");
        for name in &names[1..] {
            assert_eq!(got[*name], 0, "{compare:?} {name}");
        }
    }
}

#[test]
fn each_action_does_what_it_says() {
    let _clean = common::clean();
    let run = |action| {
        probe::run(sandbox().seccomp(Seccomp::deny_list().rule(Rule::new(["chroot"], action))), "calls chroot")
    };
    for action in [Action::KillProcess, Action::Trap, Action::KillThread] {
        let outcome = run(action).output().unwrap().outcome;
        assert_eq!(outcome.verdict(), Verdict::Seccomp, "{action:?}");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&outcome.status()), Some(libc::SIGSYS));
    }
    let free = stdout(&probe::run(sandbox(), "calls chroot"));
    for (action, text) in [
        (Action::Log, free.as_str()),
        (Action::Allow, free.as_str()),
        (Action::Trace(7), "chroot 38"),
        (Action::Errno(4095), "chroot 4095"),
    ] {
        assert_eq!(stdout(&run(action)), text, "{action:?}");
    }
}

#[test]
fn a_kill_is_a_verdict_below_an_init_too() {
    let _clean = common::clean();
    let profile = Seccomp::default().rule(Rule::new(["chroot"], Action::KillProcess));
    let sandbox = probe::run(sandbox().pid_ns().init(true).seccomp(profile), "calls getpid chroot");
    let output = sandbox.output().unwrap();
    assert_eq!((output.outcome.verdict(), output.stdout), (Verdict::Seccomp, b"getpid 0\n".to_vec()));
    // The same signal without a filter is a signal.
    assert_eq!(sh("kill -SYS $$").output().unwrap().outcome.verdict(), Verdict::Signaled(libc::SIGSYS));
}

#[test]
fn the_filter_holds_for_descendants_and_brings_no_new_privs() {
    let _clean = common::clean();
    let script =
        "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; sh -c 'sh -c \"unshare -U true\" 2>&1 | head -c 60'";
    let text = stdout(&sh(script).seccomp(Seccomp::default()));
    assert!(text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"), "{text}");
    assert!(text.contains("Operation not permitted"), "{text}");
    let free = stdout(&sh(script));
    assert!(free.contains("Seccomp:\t0") && !free.contains("not permitted"), "{free}");
    let off = stdout(&sh(script).seccomp(Seccomp::default()).seccomp(None));
    assert!(off.contains("Seccomp:\t0"), "{off}");
}

#[test]
fn everyday_programs_work_under_the_default() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    std::fs::write(dir.path().join("a.c"), PROGRAM).unwrap();
    let script = "set -e; cc -pthread -O1 -o a a.c; ./a; python3 -c '
import threading, subprocess, socket, tempfile, json
t = [threading.Thread(target=lambda: None) for _ in range(9)]
[x.start() for x in t]; [x.join() for x in t]
a, b = socket.socketpair(); a.send(b\"x\"); assert b.recv(1) == b\"x\"
s = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen(); c = socket.create_connection(s.getsockname())
print(subprocess.check_output([\"sh\", \"-c\", \"seq 3 | sort -r | tr -d \\\\\\\\n\"]).decode())
with tempfile.TemporaryFile() as f: f.write(b\"y\")'; tar cf t.tar a.c; tar tf t.tar; ls -l /proc/self/ >/dev/null";
    let text = stdout(&sh(script).cwd(dir.path()).seccomp(Seccomp::default()));
    assert_eq!(text, "sum 28\n321\na.c");
}

const PROGRAM: &str = r#"
#include <pthread.h>
#include <stdio.h>
static void *run(void *n) { return n; }
int main(void) {
    pthread_t t[8];
    long sum = 0;
    for (long i = 0; i < 8; i++) if (pthread_create(&t[i], 0, run, (void *)i)) return 1;
    for (int i = 0; i < 8; i++) { void *r; pthread_join(t[i], &r); sum += (long)r; }
    printf("sum %ld\n", sum);
}
"#;

#[test]
fn what_only_computes_can_do_no_more() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let script = "
import threading, math, os, socket, fcntl
out = []
t = threading.Thread(target=lambda: out.append(math.factorial(20))); t.start(); t.join()
def told(f):
    try: f(); return 'done'
    except OSError as e: return e.errno
print(out[0], len(open('/etc/passwd').read()) > 0,
    told(lambda: open('new', 'w')), told(lambda: os.mkdir('dir')), told(lambda: socket.socket()), told(lambda: os.fork() or os._exit(0)),
    told(lambda: os.unlink('old')), told(lambda: os.open('old', os.O_RDWR)),
    told(lambda: fcntl.lockf(open('/etc/passwd'), fcntl.LOCK_SH)))";
    std::fs::write(dir.path().join("old"), "").unwrap();
    let python = || sandbox().command("/usr/bin/python3").args(["-S", "-c", script]).cwd(dir.path());
    let (eperm, eacces, enolck) = (libc::EPERM, libc::EACCES, libc::ENOLCK);
    let expected = format!("2432902008176640000 True {eacces} {eperm} {eperm} {eperm} {eperm} {eacces} {enolck}");
    assert_eq!(stdout(&python().seccomp(Seccomp::compute())), expected);
    let text = stdout(&python());
    assert!(text.ends_with("done done done done done 2 done"), "{text}");
}

#[test]
fn a_profile_without_execve_is_refused_with_the_reason() {
    let _clean = common::clean();
    for profile in [Seccomp::allow_list().allow(["read", "write"]), Seccomp::default().deny(["execve"])] {
        let sandbox = Sandbox::new().command("/bin/true").seccomp(profile);
        for error in [sandbox.check().unwrap_err(), sandbox.spawn().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("execve"), "{error}");
        }
    }
    // Refused by an argument, which only the kernel can tell: the path of the program is no low address.
    let rule = Rule::new(["execve"], Action::Errno(OTHER)).arg(0, Compare::Ge(4096));
    let error = Sandbox::new().command("/bin/true").seccomp(Seccomp::default().rule(rule)).spawn().unwrap_err();
    assert_eq!((error.kind(), error.step(), error.raw_os_error()), (ErrorKind::Exec, Step::Exec, Some(OTHER)));
    assert!(error.to_string().contains("seccomp"), "{error}");
}

#[test]
fn a_failed_exec_is_told_under_a_filter_that_lets_the_stub_say_nothing() {
    let _clean = common::clean();
    let execve = ["execve"];
    let with_exit = ["execve", "exit_group"];
    for init in [false, true] {
        let base = || if init { sandbox().pid_ns().init(true) } else { sandbox() };
        for action in [Action::EPERM, Action::KillProcess] {
            for allowed in [&execve[..], &with_exit] {
                let profile = Seccomp::allow_list().allow(allowed.iter().copied()).otherwise(action);
                let error = base().command("/no/such/program").seccomp(profile.clone()).spawn().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Exec, "{action:?} {allowed:?}: {error}");
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{action:?} {allowed:?}: {error}");
                // The program itself is executed, and gets no further.
                let outcome = base().command("/bin/true").seccomp(profile).output().unwrap().outcome;
                assert!(!outcome.success(), "{outcome:?}");
            }
        }
    }
    // With the default the stub says it itself.
    let error = sandbox().command("/no/such/program").seccomp(Seccomp::default()).spawn().unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)));
}

#[test]
fn a_filter_serves_an_ordinary_program_without_namespaces() {
    let _clean = common::clean();
    let sandbox = Sandbox::new().command("/bin/sh").args(["-c", "unshare -U true 2>/dev/null || echo refused"]);
    let enforced = sandbox.clone().seccomp(Seccomp::default()).check().unwrap();
    assert!(enforced.is_full() && enforced.get(Feature::Seccomp).is_some());
    assert_eq!(stdout(&sandbox.seccomp(Seccomp::default())), "refused");
}

/// Its own capabilities and what it is under, as a program tells it.
const OF_ITSELF: &str = "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t\\n'";

fn of_itself(inheritable: u64, permitted: u64, bounding: u64, ambient: u64) -> String {
    format!(
        "CapInh:{inheritable:016x}CapPrm:{permitted:016x}CapEff:{permitted:016x}CapBnd:{bounding:016x}\
         CapAmb:{ambient:016x}NoNewPrivs:0Seccomp:2"
    )
}

#[test]
fn a_filter_without_no_new_privs_leaves_no_capability() {
    let _clean = common::clean();
    let profile = || Seccomp::default().allow_new_privs(true);
    let kill = Capability::CAP_KILL.bitmask();
    let admin = Capability::CAP_SYS_ADMIN.bitmask();
    let base = || if common::is_root() { sandbox().pid_ns() } else { sandbox().pid_ns().user_ns() };
    let user = || if common::is_root() { base().user(65534, 65534) } else { base().user(1, 1) };
    let bounding = Capabilities::none().bounding([Capability::CAP_SYS_ADMIN]);
    for (what, sandbox, expected) in [
        ("root", base().user(0, 0).capabilities(Capabilities::keep([Capability::CAP_KILL])), (0, kill, kill, 0)),
        ("root without any", base().user(0, 0).capabilities(Capabilities::none()), (0, 0, 0, 0)),
        ("a user", user().capabilities(Capabilities::keep([Capability::CAP_KILL])), (0, 0, kill, 0)),
        ("a user with SYS_ADMIN in its bounding set", user().capabilities(bounding), (0, 0, admin, 0)),
        (
            "a user with an ambient one",
            user().capabilities(Capabilities::none().bounding([Capability::CAP_KILL]).ambient([Capability::CAP_KILL])),
            (kill, kill, kill, kill),
        ),
    ] {
        let (inheritable, permitted, bounding, ambient) = expected;
        let expected = of_itself(inheritable, permitted, bounding, ambient);
        let sandbox = sandbox.seccomp(profile());
        assert_eq!(stdout(&common::shell(sandbox.clone(), OF_ITSELF)), expected, "{what}");
        let child = sandbox.command("sleep").arg("60").spawn().unwrap();
        let output = child.exec_output(Command::new("sh").args(["-c", OF_ITSELF])).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{what}, a further program");
    }
    // A user whose capabilities nobody has set has none all the same.
    let text = stdout(&common::shell(user().seccomp(profile()), OF_ITSELF));
    assert!(
        text.contains(&format!("CapPrm:{:016x}CapEff:{:016x}", 0, 0)) && text.ends_with("NoNewPrivs:0Seccomp:2"),
        "{text}"
    );
    // From the pool, too.
    let pool = base().user(0, 0).capabilities(Capabilities::none()).seccomp(profile()).pool(1).unwrap();
    let output = pool.output(Command::new("sh").args(["-c", OF_ITSELF])).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), of_itself(0, 0, 0, 0));
}

#[test]
fn a_set_user_id_program_gives_its_rights_only_where_it_is_allowed() {
    if common::needs_root("a set-user-ID program of root's") {
        return;
    }
    let _clean = common::clean();
    let dir = common::TempDir::new();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("id");
    std::fs::copy("/usr/bin/id", &program).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let sandbox = || Sandbox::new().user(65534, 65534).command(&program).arg("-u").stderr(Stdio::null());
    if stdout(&sandbox()) != "0" {
        return common::skip("the temporary directory is nosuid", false);
    }
    assert_eq!(stdout(&sandbox().seccomp(Seccomp::default())), "65534");
    assert_eq!(stdout(&sandbox().seccomp(Seccomp::default().allow_new_privs(true))), "0");
}

#[test]
fn what_contradicts_a_filter_without_no_new_privs_is_refused() {
    let _clean = common::clean();
    let sandbox = || Sandbox::new().command("true").seccomp(Seccomp::default().allow_new_privs(true));
    for (sandbox, remedy) in [
        (sandbox().no_new_privs(true), "leave out one of the two"),
        (sandbox().landlock(Landlock::new().read("/")), "leave out one of the two"),
        (sandbox().pid_ns().init(true), "leave out init()"),
    ] {
        let error = sandbox.spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
    if !common::is_root() {
        let error = sandbox().spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("user_ns()"), "{error}");
    }
}
