//! Every step fails: what is left behind is nothing, and what is told is the step. And the judgement before it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{self, Turn};
use ringfence::{
    Bind, Dev, Error, ErrorKind, HidePid, IdMap, Mqueue, Namespaces, Overlay, Proc, Resource, RootFs, Sandbox, Step,
    Sysfs, TimeOffset, Tmpfs,
};

const RICH: [Step; 6] = [Step::Prctl, Step::Uid, Step::MountTarget, Step::PlaceFd, Step::Rlimit, Step::Hostname];

/// An errno that no step takes for a reason to go on in another way.
const ERRNO: i32 = libc::EDOM;

/// A policy with something of everything.
struct Rich {
    root: common::TempDir,
    scratch: common::TempDir,
    data: common::TempDir,
}

impl Drop for Rich {
    /// overlayfs leaves a directory of mode 000 in its work directory, which an ordinary user must open up first.
    fn drop(&mut self) {
        let inner = self.data.path().join("work/work");
        if inner.exists() {
            fs::set_permissions(inner, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }
    }
}

impl Rich {
    fn new() -> Rich {
        let rich = Rich { root: common::root_dir(), scratch: common::TempDir::new(), data: common::TempDir::new() };
        for name in ["file", "lower/a", "upper/b", "work"] {
            let path = rich.data.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name == "work" { fs::create_dir(path).unwrap() } else { fs::write(path, name).unwrap() }
        }
        rich
    }

    fn sandbox(&self, base: Sandbox) -> Sandbox {
        let data = |name: &str| self.data.path().join(name);
        let rootfs = RootFs::overlay([self.root.path()]).scratch_in(self.scratch.path());
        base.namespaces(Namespaces::all() - Namespaces::USER)
            .hostname("box")
            .domainname("boxes")
            .monotonic_offset(TimeOffset::Ahead(Duration::from_secs(3600)))
            .rootfs(rootfs)
            .mount(Bind::new("/usr", "/usr").read_only())
            .bind_ro(data("file"), "/mnt/file")
            .bind(data("lower"), "/mnt/dir")
            .mount(Overlay::new("/mnt/merged", [data("lower")]).upper(data("upper"), data("work")))
            .tmpfs("/tmp", 1 << 20)
            .mount(Tmpfs::new("/run").size(1u64 << 20).noexec().read_only())
            .mount(Proc::new("/proc").hidepid(HidePid::Invisible))
            .mount(Dev::new("/dev"))
            .mount(Mqueue::new("/dev/mqueue"))
            .mount(Sysfs::new("/sys"))
            .user(7, 7)
            .umask(0o27)
            .cwd("/tmp")
            .rlimit(Resource::OpenFiles, 100, 200)
            .rlimit(Resource::Core, 0, 0)
            .fd(5, fs::File::open("/dev/null").unwrap())
            .fd(9, fs::File::open("/dev/zero").unwrap())
            .init(true)
            .wall_time(Duration::from_secs(60))
            .command("/bin/true")
    }

    /// What the failures left on the host.
    fn nothing_left(&self, after: &str) {
        assert_eq!(fs::read_dir(self.scratch.path()).unwrap().count(), 0, "{after}: a scratch directory");
        // Targets are made on the overlay, whose lower directory stays as it was.
        assert!(!self.root.path().join("mnt").exists(), "{after}: a mount target");
    }
}

/// Lets one op after the other fail. Gives how many ops there are, and how many of them did not run.
#[track_caller]
fn each_op_fails(turn: &Turn, rich: &Rich, sandbox: &Sandbox, wanted: &[Step]) -> (u32, u32) {
    assert!(sandbox.status().unwrap().success());
    rich.nothing_left("success");
    let mut passed_over = Vec::new();
    let mut steps: BTreeMap<String, u32> = BTreeMap::new();
    for index in 0..1000 {
        // Looks for descriptors, processes, mounts, groups and records when it is dropped.
        let _clean = common::look(turn);
        match sandbox.clone().fail_at(index, ERRNO).spawn() {
            // A fallback that was not needed: the op before it went well.
            Ok(mut child) => {
                assert!(child.wait().unwrap().success());
                passed_over.push(index);
            }
            Err(error) => {
                let text = format!("op {index}: {error}");
                assert_eq!(error.raw_os_error(), Some(ERRNO), "{text}");
                assert!(error.to_string().contains(error.step().as_str()), "{text}");
                *steps.entry(error.step().to_string()).or_default() += 1;
                if error.step() == Step::Exec {
                    assert_eq!(error.kind(), ErrorKind::Exec, "{text}");
                    finish(sandbox, index + 1);
                    for step in wanted {
                        assert!(steps.contains_key(step.as_str()), "no {step} among {steps:?}");
                    }
                    return (index + 1, passed_over.len() as u32);
                }
                assert_eq!(error.kind(), ErrorKind::Setup, "{text}");
            }
        }
        rich.nothing_left(&format!("op {index}"));
    }
    panic!("the plan has no exec: {steps:?}")
}

/// The exec is the last op: an index beyond it lets nothing fail.
#[track_caller]
fn finish(sandbox: &Sandbox, beyond: u32) {
    for index in [beyond, beyond + 1, u32::MAX - 1] {
        assert!(sandbox.clone().fail_at(index, ERRNO).status().unwrap().success(), "op {index}");
    }
}

#[test]
fn whichever_op_fails_nothing_is_left() {
    let turn = common::turn();
    if common::needs_root("a second user inside without a user namespace") {
        return;
    }
    let rich = Rich::new();
    let (ops, passed_over) = each_op_fails(&turn, &rich, &rich.sandbox(Sandbox::new()), &RICH);
    assert!(ops > 100, "{ops}");
    assert!(passed_over * 2 < ops, "{passed_over} of {ops} did not run");
}

#[test]
fn whichever_op_fails_in_a_user_namespace_nothing_is_left() {
    let turn = common::turn();
    let rich = Rich::new();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    // The directories are the caller's.
    let own = Sandbox::new().user_ns().uid_map(IdMap::new(7, uid, 1)).gid_map(IdMap::new(7, gid, 1));
    let sandbox = rich.sandbox(own);
    // Device nodes cannot be made there: the fallbacks run.
    let (ops, passed_over) = each_op_fails(&turn, &rich, &sandbox, &RICH);
    assert!(ops > 100, "{ops}");
    assert!(passed_over * 4 < ops, "{passed_over} of {ops} did not run");
}

#[test]
fn whichever_op_fails_under_limits_nothing_is_left() {
    let turn = common::turn();
    if common::needs_root("a second user inside without a user namespace") || common::no_cgroups() {
        return;
    }
    let rich = Rich::new();
    let limits = Sandbox::new().cgroup_parent(common::cgroup_parent()).memory_limit(64 << 20).pids_limit(20);
    // On v2 the clone itself puts the stub into its group.
    let wanted: &[Step] = if common::is_v2() { &[Step::Unshare] } else { &[Step::JoinCgroup, Step::Unshare] };
    let (ops, _) = each_op_fails(&turn, &rich, &rich.sandbox(limits), wanted);
    assert!(ops > 100, "{ops}");
}

#[test]
fn an_op_that_fails_while_maps_are_written_from_outside_leaves_nothing() {
    let turn = common::turn();
    if common::needs_root("a map of more than one id") {
        return;
    }
    let sandbox = Sandbox::new().user_ns().uid_map(IdMap::new(0, 100_000, 100)).gid_map(IdMap::new(0, 100_000, 100));
    let wanted = [Step::WriteIdMap, Step::Groups, Step::Uid];
    let (ops, _) = each_op_fails(&turn, &Rich::new(), &sandbox.command("/bin/true"), &wanted);
    assert!(ops > 10, "{ops}");
}

/// A failure of the parent's own part leaves nothing either.
#[test]
fn what_cannot_be_made_outside_is_told_with_its_path() {
    let _clean = common::clean();
    let (root, scratch) = (common::root_dir(), common::TempDir::new());
    let missing = scratch.path().join("missing");
    let base = || common::sandbox().command("/bin/true");
    let overlay = || RootFs::overlay([root.path()]);
    let cases: [(&str, Sandbox, Step, i32); 5] = [
        ("no root", base().rootfs(&missing), Step::OpenSource, libc::ENOENT),
        ("no lower", base().rootfs(RootFs::overlay([&missing])), Step::OpenSource, libc::ENOENT),
        ("no base of the scratch", base().rootfs(overlay().scratch_in(&missing)), Step::Scratch, libc::ENOENT),
        ("no source", base().bind(&missing, "/tmp/x"), Step::OpenSource, libc::ENOENT),
        (
            "no source after a scratch",
            base().rootfs(overlay().scratch_in(scratch.path())).bind(&missing, "/x"),
            Step::OpenSource,
            libc::ENOENT,
        ),
    ];
    for (what, sandbox, step, errno) in cases {
        let error = sandbox.spawn().unwrap_err();
        assert_eq!(
            (error.step(), error.raw_os_error(), error.kind()),
            (step, Some(errno), ErrorKind::Setup),
            "{what}: {error}"
        );
        assert!(error.path().is_some_and(|path| path.starts_with(&missing)), "{what}: {error}");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn a_root_that_is_a_file_is_told_with_its_path() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let file = dir.path().join("root.tar");
    fs::write(&file, "").unwrap();
    let error = common::sandbox().rootfs(&file).command("/bin/true").spawn().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::OpenSource, Some(libc::ENOTDIR)), "{error}");
    assert_eq!(error.path(), Some(file.as_path()), "{error}");
    assert!(error.remedy().unwrap().contains("unpack"), "{error}");
}

#[test]
fn every_conflict_is_told_at_once_and_nothing_is_made() {
    let _clean = common::clean();
    let scratch = common::TempDir::new();
    let missing = Path::new("/no/such/root");
    let base = common::sandbox()
        .rootfs(RootFs::overlay([missing]).scratch_in(scratch.path()))
        .hostname("box")
        .domainname("x".repeat(65))
        .mount(Proc::new("/proc").hidepid(HidePid::NoAccess))
        .init(true)
        .boottime_offset(TimeOffset::Behind(Duration::from_secs(1)))
        .mount(Tmpfs::new("/a/../../b"))
        .mount(Tmpfs::new("relative"))
        .bind("/usr\0", "/usr")
        .rlimit(Resource::Core, 2, 1)
        .arg("a\0b")
        .env("A=B", "")
        .env("C", "d\0")
        .cwd("/e\0")
        .uid_map(IdMap::new(0, 1000, 10))
        .uid_map(IdMap::new(10, 1009, 1))
        .fd(2, fs::File::open("/dev/null").unwrap())
        .wall_time(Duration::ZERO)
        .cpu_time(Duration::ZERO);
    let error = base.check().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::Validate));
    let text = error.to_string();
    // Each with a word of its reason.
    for (subject, reason) in [
        ("hostname", "host's own name"),
        ("domainname", "host's own name"),
        ("domainname", "no name"),
        ("hidepid", "pid namespace"),
        ("init", "pid 1"),
        ("boottime_offset", "time namespace"),
        ("mount", "contains `..`"),
        ("mount", "not absolute"),
        ("mount", "NUL"),
        ("rlimit", "above the hard limit"),
        ("command", "\"a\\0b\" contains a NUL"),
        ("env", "\"C\" contains a NUL"),
        ("cwd", "NUL"),
        ("uid_map", "ids in common"),
        ("env", "`=`"),
        ("fd", "2"),
        ("wall_time", "no time"),
        ("cpu_time", "no time"),
    ] {
        let found = error.problems().iter().any(|p| p.subject == subject && p.reason.contains(reason));
        assert!(found, "no {subject} with {reason:?} in\n{text}");
    }
    assert!(error.problems().iter().all(|p| !p.remedy.is_empty() && text.contains(&p.remedy)), "{text}");
    let told = |error: Error| (error.kind(), error.to_string());
    let all = [base.spawn().map(drop), base.output().map(drop), base.status().map(drop)];
    for result in all {
        assert_eq!(told(result.unwrap_err()), (ErrorKind::Invalid, text.clone()), "check and spawn differ");
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

/// Groups that the user namespace does not know: setgroups(2) would say EINVAL.
#[test]
fn groups_that_are_not_mapped_are_refused_beforehand() {
    let _clean = common::clean();
    let maps = |groups: &[u32]| common::strict().groups(groups.iter().copied());
    let error = maps(&[27]).check().unwrap_err();
    assert!(
        error.problems().iter().any(|problem| problem.subject == "groups" && !problem.remedy.is_empty()),
        "{error}"
    );
    assert_eq!(maps(&[27]).spawn().unwrap_err().to_string(), error.to_string());
    assert!(maps(&[]).check().is_ok());
}

#[test]
fn an_ordinary_user_is_told_to_add_a_user_namespace() {
    let _clean = common::clean();
    if common::is_root() {
        let exe = std::env::current_exe().unwrap();
        let dir = common::TempDir::new();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let copy = dir.path().join("failures");
        fs::copy(exe, &copy).unwrap();
        let name = "failures::an_ordinary_user_is_told_to_add_a_user_namespace";
        let again = Sandbox::new().user(65534, 65534).command(copy).args(["--exact", name]).cwd("/");
        let text = common::stdout(&again.env("TMPDIR", "/tmp").env("HOME", "/tmp"));
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    let error = Sandbox::new().pid_ns().check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.remedy().unwrap().contains("user_ns()"), "{error}");
    assert_eq!(Sandbox::new().pid_ns().spawn().unwrap_err().to_string(), error.to_string());
    let many = Sandbox::new().user_ns().uid_map(IdMap::new(0, 100_000, 10)).groups([5]).check().unwrap_err();
    let subjects: Vec<&str> = many.problems().iter().map(|problem| problem.subject.as_str()).collect();
    assert!(subjects.contains(&"uid_map") && subjects.contains(&"groups"), "{many}");
    assert!(Sandbox::new().user_ns().pid_ns().check().is_ok());
}
