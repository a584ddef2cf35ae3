//! What forbids namespaces, each simulated in namespaces of the test's own: a look beforehand names it with the remedy, and
//! a spawn says the same.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{self, TempDir, probe};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ringfence::{Bytes, Error, ErrorKind, Feature, Mount, Overlay, Proc, Resource, RootFs, Sandbox, Sysfs};

common::callers! {
    |words|
    "has-no-user-namespaces" => has_no_user_namespaces(),
    "has-no-net-namespaces" => has_no_net_namespaces(),
    "is-near-the-outer-limit" => is_near_the_outer_limit(),
    "is-nested-deep" => is_nested_deep(),
    "is-under-chroot" => is_under_chroot(Path::new(words[1])),
    "has-no-proc" => has_no_proc(),
    "is-filtered" => is_filtered(),
    "has-a-covered-proc" => has_a_covered_proc(),
    "follows-the-readme" => follows_the_readme(),
}

/// The same error from a look beforehand and from the attempt, of one problem.
#[track_caller]
fn refused(sandbox: &Sandbox, reason: &str, remedy: &str) -> Error {
    let sandbox = sandbox.clone().command("/bin/true");
    let error = sandbox.check().unwrap_err();
    assert_eq!((error.kind(), error.problems().len()), (ErrorKind::Unsupported, 1), "{error}");
    let problem = &error.problems()[0];
    assert!(problem.reason.contains(reason) && problem.remedy.contains(remedy), "{error}");
    assert_eq!(sandbox.spawn().unwrap_err().to_string(), error.to_string());
    error
}

/// A user namespace that maps the caller's ids to themselves, or root to them.
fn enter_user_namespace(as_root: bool) {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    let line = |id: u32| format!("{} {id} 1", if as_root { 0 } else { id });
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("gid_map", line(gid.as_raw())), ("uid_map", line(uid.as_raw()))]
    {
        fs::write(format!("/proc/self/{file}"), text).unwrap();
    }
}

#[track_caller]
fn works(sandbox: &Sandbox) {
    sandbox.check().unwrap();
    assert!(sandbox.clone().command("/bin/true").status().unwrap().success());
}

fn has_no_user_namespaces() {
    // A spawn would start a thread, and with two of them none of the following could be done.
    Sandbox::new().user_ns().check().unwrap();
    common::become_ordinary_without_user_namespaces();
    let sysctl = "/proc/sys/user/max_user_namespaces is 0";
    refused(&Sandbox::new().user_ns(), sysctl, "sysctl user.max_user_namespaces=10000");
    refused(&Sandbox::new().user_ns().pid_ns().net_ns(), sysctl, "as root");
    works(&Sandbox::new());
}

fn has_no_net_namespaces() {
    enter_user_namespace(true);
    fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
    for sandbox in [Sandbox::new().net_ns(), Sandbox::new().user_ns().net_ns().pid_ns()] {
        refused(&sandbox, "/proc/sys/user/max_net_namespaces is 0", "user.max_net_namespaces=");
    }
    works(&Sandbox::new().user_ns().pid_ns());
}

/// The limit is reached in the namespace around, whose sysctl cannot be seen.
fn is_near_the_outer_limit() {
    enter_user_namespace(true);
    fs::write("/proc/sys/user/max_user_namespaces", "1").unwrap();
    enter_user_namespace(true);
    refused(&Sandbox::new().user_ns(), "ENOSPC): a limit of a namespace around the caller", "outside");
}

fn is_nested_deep() {
    while Sandbox::new().user_ns().check().is_ok() {
        enter_user_namespace(true);
    }
    refused(&Sandbox::new().user_ns(), "nest 32 deep", "nest less");
}

fn is_under_chroot(root: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    for dir in ["proc", "dev"] {
        fs::create_dir(root.join(dir)).unwrap();
        mount(Some(&Path::new("/").join(dir)), &root.join(dir), none, MsFlags::MS_BIND, none).unwrap();
    }
    Sandbox::new().user_ns().check().unwrap();
    // A mount of its own: the kernel lets it be left by pivot_root(2).
    mount(Some(root), root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
    let climbs = Sandbox::new().pid_ns().rootfs("/");
    climbs.check().unwrap();
    nix::unistd::chroot(root).unwrap();
    nix::unistd::chdir("/").unwrap();
    refused(&Sandbox::new().user_ns(), "chroot(2)", "pivot_root(2)");
    // Whose program may call chroot(2) once more would climb out of both roots.
    let chroots = ringfence::Capabilities::keep([ringfence::Capability::CAP_SYS_CHROOT]);
    for sandbox in [climbs.clone(), climbs.clone().no_pivot(true).capabilities(chroots)] {
        refused(&sandbox, "CAP_SYS_CHROOT would climb out", "capabilities()");
    }
    let kept = ringfence::Capabilities::keep([ringfence::Capability::CAP_CHOWN]);
    climbs.clone().capabilities(kept).check().unwrap();
    climbs.user(1, 1).no_new_privs(true).check().unwrap();
}

/// Whether its root is one of chroot(2), nobody can tell then.
fn has_no_proc() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    nix::mount::umount2("/proc", nix::mount::MntFlags::MNT_DETACH).unwrap();
    refused(&Sandbox::new().rootfs("/"), "has no /proc", "mount /proc");
    works(&Sandbox::new().rootfs("/").user(1, 1).no_new_privs(true));
}

/// As a container's default filter has it.
fn is_filtered() {
    Sandbox::new().user_ns().check().unwrap();
    let user = libc::CLONE_NEWUSER as u32;
    let refuse = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
    let code = |code: u32| code as u16;
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let (equal, bits) =
        (code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K));
    let give = code(libc::BPF_RET | libc::BPF_K);
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        op(load, 0, 0, 0),
        op(equal, 3, 0, libc::SYS_clone3 as u32),
        op(equal, 0, 3, libc::SYS_clone as u32),
        op(load, 0, 0, 16),
        op(bits, 2, 1, user),
        op(give, 0, 0, refuse(libc::ENOSYS)),
        op(give, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(give, 0, 0, refuse(libc::EPERM)),
    ];
    nix::sys::prctl::set_no_new_privs().unwrap();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and what it points to live across the call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
    refused(&Sandbox::new().user_ns(), "a seccomp filter around the caller", "allow clone(2)");
    works(&Sandbox::new());
}

fn has_a_covered_proc() {
    enter_user_namespace(true);
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let all = Sandbox::new().user_ns().pid_ns().net_ns();
    works(&all);
    works(&all.clone().mount(Sysfs::new("/sys")));
    mount(Some("/dev/null"), "/proc/interrupts", none, MsFlags::MS_BIND, none).unwrap();
    refused(&all, "proc is covered at /proc/interrupts", "unmask");
    refused(&all.clone().mount(Proc::new("/tmp")).default_mounts(false), "/proc/interrupts", "unmask");
    mount(Some("tmpfs"), "/sys/kernel", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let sysfs: Mount = Sysfs::new("/sys").into();
    refused(&all.clone().default_mounts(false).mount(sysfs), "sysfs is covered at /sys/kernel", "leave out the mount");
    works(&all.default_mounts(false));
}

#[test]
fn limits_of_namespaces_are_named() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("has-no-user-namespaces"));
    probe::succeeds(probe::caller("has-no-net-namespaces"));
    probe::succeeds(probe::caller("is-near-the-outer-limit"));
}

#[test]
fn namespaces_nested_too_deep_are_named() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("is-nested-deep"));
}

#[test]
fn a_caller_under_chroot_is_told_so() {
    let _clean = common::clean();
    if common::needs_root("chroot(2)") {
        return;
    }
    let root = TempDir::new();
    probe::succeeds(probe::caller(&format!("is-under-chroot {}", root.path().display())));
}

#[test]
fn a_caller_without_proc_is_told_so() {
    let _clean = common::clean();
    if common::needs_root("an umount") {
        return;
    }
    probe::succeeds(probe::caller("has-no-proc"));
}

#[test]
fn a_seccomp_filter_around_the_caller_is_named() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("is-filtered"));
}

#[test]
fn what_covers_proc_and_sys_is_named() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("has-a-covered-proc"));
}

#[test]
fn a_look_beforehand_starts_nothing() {
    let _clean = common::clean();
    let sandbox = common::sandbox().namespaces(ringfence::Namespaces::all());
    let before = fs::read_to_string("/proc/thread-self/children").unwrap();
    // SAFETY: no memory is involved; nobody else of this process waits.
    let child_of_ours = || unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    for _ in 0..100 {
        sandbox.check().unwrap();
        assert!(child_of_ours() <= 0);
    }
    assert_eq!(fs::read_to_string("/proc/thread-self/children").unwrap(), before);
}

/// What a spawn would be refused for is found beforehand, with what is to be done about it.
#[test]
fn a_look_beforehand_finds_what_a_spawn_would_fail_at() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let nowhere = dir.path().join("nowhere");
    let long = "x".repeat(128 << 10);
    let plain = common::sandbox;
    let root = |sandbox: Sandbox| sandbox.rootfs(RootFs::programs());
    let own = |resource| nix::sys::resource::getrlimit(resource).unwrap().1;
    let (files, stack) = (own(nix::sys::resource::Resource::RLIMIT_NOFILE), 1 << 20);
    let open = || fs::File::open(&file).unwrap();
    let mut table = vec![
        ("nowhere", root(plain()).bind(&nowhere, "/mnt")),
        ("nowhere", root(plain()).bind_ro(nowhere.join("below"), "/mnt")),
        ("nowhere", plain().rootfs(&nowhere)),
        ("no directory", plain().rootfs(&file)),
        ("nowhere", plain().rootfs(RootFs::overlay([nowhere.clone()]))),
        ("nowhere", plain().rootfs(RootFs::overlay([dir.path()]).upper(&nowhere, dir.path()))),
        ("nowhere", root(plain()).mount(Overlay::new("/mnt", [&nowhere]))),
        ("caller's working directory", root(plain()).bind("no/where", "/mnt")),
        ("is empty", plain().rootfs("")),
        ("an empty path", root(plain()).bind("", "/mnt")),
        ("one argument", plain().arg(&long)),
        ("one argument", plain().env("X", &long)),
        ("together", plain().args(vec![&long[1..]; 50])),
        ("together", plain().rlimit(Resource::Stack, stack, stack).args(vec![&long[1..]; 4])),
        ("nr_open", plain().rlimit(Resource::OpenFiles, 1, u64::MAX)),
        ("above the caller's", plain().user_ns().rlimit(Resource::OpenFiles, 1, files + 1)),
        ("open files", plain().fd(60_000, open())),
        ("0 is taken", plain().fd(0, open())),
        ("groups", plain().user_ns().groups([27])),
    ];
    if common::is_root() {
        table.push(("groups", Sandbox::strict().groups([27])));
    }
    if !common::no_cgroups() {
        table.push(("processors", plain().cgroup_parent(common::cgroup_parent()).cpuset("4000")));
    }
    for (reason, sandbox) in table {
        let sandbox = sandbox.command("/bin/true");
        let error = sandbox.check().expect_err(reason);
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert!(error.problems().iter().all(|problem| !problem.remedy.is_empty()), "{error:?}");
        assert!(sandbox.spawn().is_err(), "{reason}: a spawn is not refused");
    }
    let most = plain().args(vec![&long[1..]; 8]).rlimit(Resource::OpenFiles, 64, files);
    works(&root(most).bind(&file, "/mnt"));
}

/// The sandbox of the first program in the README.
fn first_program(sandbox: Sandbox) -> Sandbox {
    let sandbox = sandbox.command("sh").args(["-c", "echo 45"]).rootfs(RootFs::host()).pid_ns().net_ns();
    let sandbox = sandbox.user(65534, 65534).memory_limit(Bytes::mib(64)).pids_limit(16);
    sandbox.wall_time(Duration::from_secs(30))
}

fn follows_the_readme() {
    common::become_ordinary();
    let error = first_program(Sandbox::new()).output().unwrap_err();
    assert!(error.to_string().contains("add user_ns()"), "{error}");
    let sandbox = first_program(Sandbox::new().user_ns());
    // Without a delegated group each limit says in its line what there is to add.
    if let Err(error) = sandbox.output() {
        assert_eq!(error.problems().len(), 2, "{error}");
        for problem in error.problems() {
            let remedy = &problem.remedy;
            // On v1 systemd gives users nothing.
            let way = if common::is_v2() { "systemd_scope()" } else { "chown -R" };
            let words = ["cgroup_parent()", way, "best_effort()"];
            assert!(words.iter().all(|word| remedy.contains(word)) && !remedy.contains('\n'), "{remedy}");
        }
    }
    let without = sandbox.best_effort(Feature::MemoryLimit).best_effort(Feature::PidsLimit);
    assert_eq!(common::stdout(&without), "45");
}

#[test]
fn the_first_program_of_the_readme_runs_or_is_told_what_to_add() {
    let _clean = common::clean();
    if common::is_root() && !common::no_cgroups() {
        let sandbox = first_program(Sandbox::new().cgroup_parent(common::cgroup_parent()));
        assert_eq!(common::stdout(&sandbox), "45");
    }
    probe::succeeds(probe::caller("follows-the-readme"));
}
