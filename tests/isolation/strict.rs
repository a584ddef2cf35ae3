//! The preset for untrusted code: what it sets, and how it is relaxed.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::common::{self, stdout, strict_probe, strict_sh};
use ringfence::{Bytes, Capabilities, Capability, Enforcement, ErrorKind, Feature, Namespaces};
use ringfence::{Resource, RootFs, Sandbox, Stdio, Verdict};

/// The kinds of namespaces of the program that are not this process's.
fn apart(sandbox: Sandbox) -> BTreeSet<String> {
    let text = stdout(&sandbox.command("/bin/sh").args(["-c", "ls -l /proc/self/ns | grep -o '[a-z_]* -> .*'"]));
    let is_own =
        |kind: &str, link: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str() == Some(link);
    let lines = text.lines().filter_map(|line| line.split_once(" -> ")).filter(|(kind, link)| !is_own(kind, link));
    lines.map(|(kind, _)| kind.to_owned()).filter(|kind| !kind.ends_with("_for_children")).collect()
}

#[test]
fn every_namespace_is_apart() {
    let _clean = common::clean();
    let all = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"].map(str::to_owned);
    assert_eq!(apart(common::strict()), all.into());
    assert!(!apart(common::strict().share(Namespaces::NET)).contains("net"));
}

#[test]
fn the_program_is_nobody_and_may_nothing() {
    let _clean = common::clean();
    let said = stdout(&strict_sh("id -u; id -g; id -G; grep -E '^(Cap|NoNewPrivs)' /proc/self/status | cut -f2"));
    let zero = "0000000000000000";
    let expected = format!("65534\n65534\n65534\n{zero}\n{zero}\n{zero}\n{zero}\n{zero}\n1");
    assert_eq!(said, expected);
    let outside = stdout(&strict_sh("cat /proc/self/uid_map /proc/self/gid_map"));
    let words: Vec<&str> = outside.split_whitespace().collect();
    assert_eq!((words[0], words[2], words.len()), ("65534", "1", 6), "{outside}");
    if common::is_root() {
        assert_ne!(words[1], "0", "root of the host is not in the map");
    }
}

#[test]
fn the_environment_is_three_variables() {
    let _clean = common::clean();
    assert_eq!(
        stdout(&common::strict().command("/usr/bin/env").env("EXTRA", "1")),
        "EXTRA=1\nHOME=/tmp\nLANG=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
}

#[test]
fn the_root_holds_programs_and_nothing_can_be_written_but_in_tmp() {
    let _clean = common::clean();
    let listed = stdout(&strict_sh("ls /; ls /etc"));
    let names: BTreeSet<&str> = listed.lines().collect();
    let links = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "gnu"];
    let of_host = [
        "ld.so.cache",
        "alternatives",
        "localtime",
        "timezone",
        "ssl",
        "pki",
        "fonts",
        "mime.types",
        "protocols",
        "services",
        "mono",
        "fpc.cfg",
        "perl",
        "python3",
        "R",
    ];
    let own = ["passwd", "group", "hosts", "nsswitch.conf"];
    let files = of_host.into_iter().chain(own);
    let may: BTreeSet<&str> =
        ["usr", "etc", "proc", "dev", "sys", "tmp"].into_iter().chain(links).chain(files).collect();
    let of_toolchains = |name: &str| ["java-", "fpc-", "python3."].iter().any(|prefix| name.starts_with(prefix));
    let beside: Vec<_> = names.iter().filter(|name| !may.contains(*name) && !of_toolchains(name)).collect();
    assert!(beside.is_empty() && own.iter().all(|name| names.contains(name)), "{listed}");
    // Keys of the host's are not among the certificates.
    assert_eq!(stdout(&strict_sh("ls -d /etc/ssl/private /etc/shadow /etc/ssh 2>/dev/null; true")), "");
    let script = "for d in / /usr /etc /dev /proc /sys /sys/fs/cgroup /tmp /dev/shm; do echo x > $d/file && echo $d; done 2>/dev/null; true";
    assert_eq!(stdout(&strict_sh(script)), "/tmp\n/dev/shm");
}

#[test]
fn any_root_is_read_only_until_it_is_told_otherwise() {
    let _clean = common::clean();
    let root = common::root_dir();
    std::os::unix::fs::PermissionsExt::set_mode(&mut fs::metadata(root.path()).unwrap().permissions(), 0o777);
    fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let sandbox =
        strict_sh("echo x 2>/dev/null > /file && echo written; true").rootfs(root.path()).bind_ro("/usr", "/usr");
    assert_eq!(stdout(&sandbox), "");
    assert_eq!(stdout(&sandbox.read_only_root(false)), "written");
}

#[test]
fn disks_in_memory_are_bounded_in_bytes_and_files() {
    let _clean = common::clean();
    let df =
        "df -k /tmp /dev /dev/shm | awk 'NR > 1 { print $2 }'; df -i /tmp /dev /dev/shm | awk 'NR > 1 { print $2 }'";
    let numbers: Vec<u64> = stdout(&strict_sh(df)).lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() == 6 && numbers.iter().all(|n| (1..=65_536).contains(n)), "{numbers:?}");
}

#[test]
fn no_user_namespace_can_be_made_inside() {
    let _clean = common::clean();
    // The filter refuses it first; without one the limit does.
    let script = "unshare -U true 2>/dev/null && echo made || echo refused";
    assert_eq!(stdout(&strict_sh(script)), "refused");
    assert_eq!(stdout(&strict_sh(script).seccomp(None)), "refused");
    assert_eq!(stdout(&strict_sh(script).seccomp(None).max_user_namespaces(10)), "made");
    assert_eq!(stdout(&strict_sh("cat /proc/sys/user/max_user_namespaces")), "0");
}

#[test]
fn time_memory_and_processes_are_limited() {
    let _clean = common::clean();
    let slow = strict_sh("sleep 100").wall_time(Duration::from_millis(200));
    assert_eq!(slow.status().unwrap().verdict(), Verdict::WallTime);
    if common::no_cgroups() {
        return;
    }
    let hog = strict_probe("hog 600000000").memory_limit(Bytes::mib(100)).status().unwrap();
    assert_eq!(hog.verdict(), Verdict::OutOfMemory);
    let hog = strict_probe("hog 800000000").swap_limit(0u64).best_effort(Feature::SwapLimit).status().unwrap();
    assert_eq!(hog.verdict(), Verdict::OutOfMemory);
    let forks: u64 = stdout(&strict_probe("forks 400")).parse().unwrap();
    assert!((200..256).contains(&forks), "{forks}");
}

/// With a limit of 0 the kernel starts a program that core_pattern pipes to; with 1 it starts none, and a file would take a
/// page.
#[test]
fn a_crash_leaves_no_core_and_calls_nobody() {
    let _clean = common::clean();
    let limit = |sandbox: Sandbox| {
        let said = stdout(&sandbox.command("/bin/cat").arg("/proc/self/limits"));
        let line = said.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap().to_owned();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit(common::strict()), ["1", "1"]);
    assert_eq!(limit(common::strict().rlimit(ringfence::Resource::Core, 0, 0)), ["0", "0"]);
    let crash = strict_sh("cd /tmp; sh -c 'kill -SEGV $$'; echo $?; ls -A");
    assert_eq!(stdout(&crash), "139");
}

#[test]
fn without_control_groups_it_is_refused() {
    let _clean = common::clean();
    if common::is_root() {
        return common::skip("root has control groups", true);
    }
    let error = Sandbox::strict().cgroup_parent("/nowhere").spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let features: BTreeSet<_> = error.problems().iter().filter_map(|problem| problem.feature).collect();
    assert!(features.is_superset(&[Feature::MemoryLimit, Feature::PidsLimit].into()), "{error}");
}

#[test]
fn each_part_can_be_relaxed() {
    let _clean = common::clean();
    let root = common::strict()
        .user(0, 0)
        .capabilities(Capabilities::keep([ringfence::Capability::CAP_SYS_ADMIN]))
        .share(Namespaces::NET | Namespaces::TIME)
        .rootfs(RootFs::host())
        .default_masks(false)
        .no_new_privs(false)
        .seccomp(None)
        .session_keyring(false)
        .max_user_namespaces(5)
        .memory_limit(Bytes::gib(1))
        .init(false)
        .rlimit(ringfence::Resource::OpenFiles, 64, 64)
        .command("/bin/sh")
        .args(["-c", "echo $$; ulimit -n; id -u; grep -c . /proc/interrupts; cat /proc/sys/user/max_user_namespaces"]);
    let said = stdout(&root);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!((words[0], words[1], words[2], words[4]), ("1", "64", "0", "5"));
    assert_ne!(words[3], "0");
}

#[test]
fn check_tells_what_holds() {
    let _clean = common::clean();
    let sandbox = common::strict();
    let enforced = sandbox.check().unwrap();
    for feature in [Feature::MemoryLimit, Feature::PidsLimit, Feature::BoundingSet, Feature::Seccomp] {
        assert!(enforced.get(feature).is_some(), "{feature}");
    }
    assert_eq!(enforced.get(Feature::BoundingSet), Some(&Enforcement::Full));
    // The caller's own streams, passed on, would not be counted.
    let silent = sandbox.clone().stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = silent.command("/bin/true").spawn().unwrap();
    assert_eq!(child.enforced(), &enforced);
    child.wait().unwrap();
    let error = common::strict().share(Namespaces::PID).check().unwrap_err();
    assert!(error.to_string().contains("pid_ns()"), "{error}");
}

/// The features that a policy asks for, and those among them that have a gap.
fn features(sandbox: &Sandbox) -> (BTreeSet<Feature>, BTreeSet<Feature>) {
    let enforced = sandbox.check().unwrap();
    let gaps = enforced.iter().filter(|(_, how)| **how != Enforcement::Full).map(|(feature, _)| feature).collect();
    (enforced.iter().map(|(feature, _)| feature).collect(), gaps)
}

#[test]
fn every_wall_that_was_asked_for_is_listed() {
    let _clean = common::clean();
    use Feature::{
        BoundingSet, CgroupNs, DefaultMasks, IpcNs, Mask, MountNs, NetNs, NoNewPrivs, OutputLimit, PidNs, ReadOnlyPath,
        ReadOnlyRoot, Rlimit, Seccomp, SessionKeyring, TimeNs, User, UserLimit, UserNs, UtsNs, WallTime,
    };
    let namespaces = [UserNs, PidNs, MountNs, NetNs, IpcNs, UtsNs, CgroupNs, TimeNs];
    let (asked, gaps) = features(&common::strict().mask("/usr/x").read_only_path("/usr/y"));
    let others =
        [Feature::RootFs, ReadOnlyRoot, DefaultMasks, Mask, ReadOnlyPath, User, NoNewPrivs, SessionKeyring, UserLimit];
    for feature in namespaces.into_iter().chain(others).chain([Rlimit, WallTime, Seccomp, OutputLimit, BoundingSet]) {
        assert!(asked.contains(&feature), "{feature}");
        assert!(!gaps.contains(&feature), "{feature}");
    }
    assert_eq!(features(&Sandbox::new()), Default::default());
    if !common::is_root() {
        return;
    }
    // Root with all that root may do gets out of whatever is around it; one that may not, does not.
    let root = || Sandbox::new().pid_ns().rootfs(RootFs::programs()).rlimit(Resource::OpenFiles, 9, 9);
    let walls = BTreeSet::from([PidNs, MountNs, Feature::RootFs, ReadOnlyRoot, Rlimit]);
    assert_eq!(features(&root()), (walls.clone(), walls.clone()));
    assert_eq!(features(&root().capabilities(Capabilities::none())).1, BTreeSet::new());
    // Another user has none, unless a file gives it some.
    let user = || root().user(65534, 65534);
    assert_eq!((features(&user()).1, features(&user().no_new_privs(true)).1), (walls.clone(), BTreeSet::new()));
    let held = "sed -n 's/^Cap\\(Prm\\|Eff\\):.*[1-9a-f].*/held/p' /proc/self/status";
    assert_eq!(stdout(&common::shell(user().no_new_privs(true), held)), "");
    // Files by their handles, and devices.
    let kept = |capability| features(&root().capabilities(Capabilities::keep([capability]))).1;
    assert_eq!(kept(Capability::CAP_DAC_READ_SEARCH), [PidNs, MountNs, Feature::RootFs, ReadOnlyRoot].into());
    assert_eq!(kept(Capability::CAP_MKNOD), [Feature::RootFs].into());
    assert_eq!(features(&root().user_ns().max_user_namespaces(0)).1, [UserLimit].into());
    // In a user namespace it could still undo what is mounted.
    let (_, gaps) = features(&root().user_ns().capabilities(Capabilities::all_but([])));
    assert_eq!(gaps, [ReadOnlyRoot].into());
}

#[test]
fn what_the_caller_names_may_lie_in_a_directory_that_is_closed_to_others() {
    let _clean = common::clean();
    let closed = common::TempDir::new();
    let root = closed.path().join("root");
    for dir in ["usr", "proc", "dev", "tmp", "data"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    fs::write(closed.path().join("file"), "given").unwrap();
    fs::set_permissions(closed.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let sandbox = strict_sh("cat /tmp/file; cat /data/host 2>/dev/null; echo; echo x 2>/dev/null >/tmp/file; echo $?");
    let sandbox = sandbox.bind_ro(closed.path().join("file"), "/tmp/file");
    assert_eq!(stdout(&sandbox), "given\n2");
    assert_eq!(stdout(&sandbox.rootfs(&root).bind_ro("/usr", "/usr")), "given\n2");
}

#[test]
fn the_host_has_a_name_of_its_own_until_names_are_shared() {
    let _clean = common::clean();
    assert_eq!(stdout(&strict_sh("uname -n")), "sandbox");
    assert_eq!(stdout(&strict_sh("uname -n").hostname("other")), "other");
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    assert_eq!(stdout(&strict_sh("uname -n").share(Namespaces::UTS)), own);
}

/// The number alone would be of no use: the filter refuses the calls as well.
#[test]
fn user_namespaces_that_are_allowed_can_be_made() {
    let _clean = common::clean();
    let script = "unshare --user true 2>/dev/null && echo made || echo refused";
    assert_eq!(stdout(&strict_sh(script)), "refused");
    assert_eq!(stdout(&strict_sh(script).max_user_namespaces(4)), "made");
    assert_eq!(stdout(&strict_sh(script).max_user_namespaces(4).max_user_namespaces(0)), "refused");
    // A profile of the caller's own is left as it is.
    let own = ringfence::Seccomp::default().rule(ringfence::Rule::new(["sync"], ringfence::Action::EPERM));
    assert_eq!(stdout(&strict_sh(script).max_user_namespaces(4).seccomp(own)), "refused");
}
