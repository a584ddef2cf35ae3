//! Where the caller stands among the groups of cgroup v2, and what it is told when it stands in the wrong place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::{self, probe};
use ringfence::{Bytes, Enforcement, ErrorKind, Feature, Landlock, RootFs, Sandbox, Step, Verdict};

common::callers! {
    |words|
    "tells" => tells(words[1]),
    "runs-below" => runs_below(words[1]),
    "is-in-a-container" => is_in_a_container(),
}

const V2: &str = "/sys/fs/cgroup";

/// True, after saying so, where there is no v2 hierarchy with the memory controller to try this on.
#[track_caller]
fn no_v2() -> bool {
    if !common::is_v2() {
        common::skip("this host has no cgroup v2 with controllers", true);
    }
    !common::is_v2() || common::no_cgroups()
}

/// A group of the test's own, with a leaf. Removed when dropped.
struct Outer {
    path: PathBuf,
}

impl Outer {
    fn new() -> Outer {
        let name = common::cgroup_parent().with_file_name(format!("ringfence-outer-{}", std::process::id()));
        let path = Path::new(V2).join(name.strip_prefix("/").unwrap());
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("leaf")).unwrap();
        Outer { path }
    }

    fn name(&self) -> &str {
        self.path.to_str().unwrap().strip_prefix(V2).unwrap()
    }

    /// A caller that starts in `group` below this one.
    fn caller(&self, group: &str, what: &str) -> std::process::Command {
        let mut command = std::process::Command::new("/bin/sh");
        let procs = self.path.join(group).join("cgroup.procs");
        let text = format!("echo $$ >{} && exec {}", procs.display(), std::env::current_exe().unwrap().display());
        command.args(["-c", &text]).env("RINGFENCE_CALLER", what).stdin(Stdio::null());
        command
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        for dir in [self.path.join("leaf"), self.path.clone()] {
            // Of a caller that has just been waited for nothing is left.
            fs::remove_dir(dir).unwrap();
        }
    }
}

/// Asks for limits without a parent, or below one, and says what check and spawn say.
fn tells(parent: &str) {
    let base = common::sandbox().memory_limit(Bytes::mib(64)).pids_limit(10).command("/bin/true");
    let sandbox = if parent == "-" { base } else { base.cgroup_parent(parent) };
    let error = sandbox.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let features: Vec<_> = error.problems().iter().filter_map(|problem| problem.feature).collect();
    assert_eq!(features, [Feature::MemoryLimit, Feature::PidsLimit]);
    let again = sandbox.spawn().unwrap_err();
    assert_eq!((again.kind(), again.to_string()), (ErrorKind::Unsupported, error.to_string()));
    println!("{error}");
}

#[test]
fn a_caller_in_the_group_that_would_have_to_pass_controllers_on_is_told() {
    let _clean = common::clean();
    if no_v2() {
        return;
    }
    let outer = Outer::new();
    for parent in ["-", outer.name()] {
        let text = probe::succeeds(outer.caller(".", &format!("tells {parent}")));
        assert!(text.contains("processes live in it"), "{text}");
        assert!(text.contains(outer.path.to_str().unwrap()), "{text}");
        assert!(text.contains("cgroup_parent") && text.contains("child group"), "{text}");
        // Not even a try has changed it into a threaded group, or left one in it.
        assert_eq!(fs::read_to_string(outer.path.join("cgroup.type")).unwrap().trim(), "domain");
        assert_eq!(fs::read_to_string(outer.path.join("cgroup.subtree_control")).unwrap().trim(), "");
    }
}

fn runs_below(parent: &str) {
    let limits = common::sandbox().cgroup_parent(parent).memory_limit(Bytes::mib(64)).pids_limit(10).cpu_limit(0.5);
    let text = common::stdout(&limits.command("/bin/cat").arg("/proc/self/cgroup"));
    assert!(text.lines().any(|line| line.starts_with(&format!("0::{parent}/rf-"))), "{text}");
}

#[test]
fn a_caller_in_a_leaf_of_its_delegated_group_has_everything() {
    let _clean = common::clean();
    if no_v2() {
        return;
    }
    let outer = Outer::new();
    probe::succeeds(outer.caller("leaf", &format!("runs-below {}", outer.name())));
    let enabled = fs::read_to_string(outer.path.join("cgroup.subtree_control")).unwrap();
    for controller in ["memory", "pids", "cpu"] {
        assert!(enabled.split_whitespace().any(|name| name == controller), "{enabled}");
    }
}

/// The steps of a spawn, found by letting each op fail; the exec is the last.
fn steps(sandbox: &Sandbox) -> Vec<Step> {
    let mut steps = Vec::new();
    for index in 0..200 {
        match sandbox.clone().fail_at(index, libc::EDOM).status() {
            Err(error) => steps.push(error.step()),
            // A fallback that was not needed.
            Ok(outcome) => assert!(outcome.success()),
        }
        if steps.last() == Some(&Step::Exec) {
            return steps;
        }
    }
    panic!("no exec in {steps:?}");
}

#[test]
fn a_program_is_born_in_its_group() {
    let _clean = common::clean();
    if no_v2() {
        return;
    }
    let sandbox = common::sandbox().cgroup_parent(common::cgroup_parent()).memory_limit(Bytes::mib(64));
    let steps = steps(&sandbox.command("/bin/true"));
    // Only a fallback would have to enter: clone3 itself put the stub there (5.7).
    assert!(!steps.contains(&Step::JoinCgroup), "{steps:?}");
}

#[test]
fn below_a_group_that_dies_as_one_the_program_enters_by_itself() {
    let _clean = common::clean();
    if no_v2() {
        return;
    }
    let outer = Outer::new();
    let below = common::sandbox().cgroup_parent(outer.name()).memory_limit(Bytes::mib(32)).swap_limit(0);
    // The first sandbox has the memory controller enabled above it.
    assert!(below.clone().command("/bin/true").status().unwrap().success());
    let above = outer.path.parent().unwrap().join("cgroup.subtree_control");
    assert!(fs::read_to_string(above).unwrap().contains("memory"));
    fs::write(outer.path.join("memory.oom.group"), "1").unwrap();
    let limited = below.clone().command("/bin/true");
    // One without a limit of memory of its own dies with the others as well.
    let unlimited = common::sandbox().cgroup_parent(outer.name()).pids_limit(10).command("/bin/true");
    for sandbox in [limited, unlimited] {
        let steps = steps(&sandbox);
        assert!(steps.contains(&Step::JoinCgroup), "{steps:?}");
    }
    let output = probe::run(below, "hog 200000000").output().unwrap();
    assert_eq!(output.outcome.verdict(), Verdict::OutOfMemory);
}

/// As a container engine starts an unprivileged container.
fn is_in_a_container() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    umount2(V2, MntFlags::MNT_DETACH).unwrap();
    mount(Some("cgroup2"), V2, Some("cgroup2"), MsFlags::empty(), none).unwrap();
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, V2, none, read_only, none).unwrap();
    for parent in ["-", "/", "/jobs"] {
        tells(parent);
    }
    // Without limits it is a host as any other.
    let outcome = common::sandbox().command("/bin/true").status().unwrap();
    assert_eq!(outcome.verdict(), Verdict::Exited(0));
}

#[test]
fn a_container_that_sees_its_groups_read_only_is_told_so() {
    let _clean = common::clean();
    if common::needs_root("mounting a hierarchy") || no_v2() {
        return;
    }
    let outer = Outer::new();
    // An engine that passes nothing on, and one that does.
    let text = probe::succeeds(outer.caller("leaf", "is-in-a-container"));
    assert_eq!(text.matches("was not given the memory controller").count(), 3, "{text}");
    assert!(text.contains("cgroup.subtree_control of the groups above"), "{text}");
    let control = "cgroup.subtree_control";
    fs::write(Path::new(V2).join(control), "+memory +pids").unwrap();
    fs::write(outer.path.join(control), "+memory +pids").unwrap();
    let text = probe::succeeds(outer.caller("leaf", "is-in-a-container"));
    assert_eq!(text.matches("is mounted read-only").count(), 6, "{text}");
    assert!(text.contains("mount it writable"), "{text}");
}

#[test]
fn a_group_of_somebody_else_is_not_for_an_ordinary_user() {
    let _clean = common::clean();
    if common::is_root() {
        if no_v2() {
            return;
        }
        let dir = common::TempDir::new();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = dir.path().join("delegation");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let sandbox = Sandbox::new().user(65534, 65534).command(copy).env("RINGFENCE_CALLER", "tells /jobs").cwd("/");
        let text = common::stdout(&sandbox);
        assert!(text.contains("not writable") && text.contains("Delegate=yes"), "{text}");
    }
}

/// The files of an ordinary user's group belong to who the program is outside. Each policy is told as holding in full, and
/// keeps the program from its own group, or as holding in part.
#[test]
fn a_limit_that_holds_in_full_is_not_lifted_by_the_program() {
    let _clean = common::clean();
    if no_v2() || common::is_root() {
        return;
    }
    let own = common::cgroup_parent();
    let attack = format!(
        "for procs in /sys/fs/cgroup{0}/rf-*/cgroup.procs /tmp/x{0}/rf-*/cgroup.procs /tmp/x/fs/cgroup{0}/rf-*/cgroup.procs; do
            dir=${{procs%/*}}
            (echo 7 >$dir/cgroup.max.descendants) 2>/dev/null && echo lifted
            (echo 0 >$dir/../../session/cgroup.procs) 2>/dev/null && echo left
        done
        unshare -UrCm sh -c 'mount -t cgroup2 none /mnt && echo 7 >/mnt/cgroup.max.descendants' 2>/dev/null && echo lifted
        true",
        own.display()
    );
    let limited = || common::sandbox().cgroup_parent(&own).memory_limit(Bytes::mib(64)).pids_limit(50);
    let reads = || Landlock::new().read("/").execute("/").write("/dev");
    // What Landlock lacks before Linux 6.2 is to refuse truncating.
    let ruled = |rules| limited().landlock(rules).best_effort(Feature::LandlockFiles);
    let seen = |sandbox: &Sandbox| {
        let sandbox = sandbox.clone().command("/bin/sh").args(["-c", &attack]);
        let enforced = sandbox.check().unwrap();
        let of = |feature| enforced.get(feature).unwrap().clone();
        // Locks of ranges are memory that the limit does not count, whoever owns the group.
        let gap = |how: &Enforcement| matches!(how, Enforcement::Partial(gap) if gap.contains("leave the group"));
        assert_eq!(gap(&of(Feature::MemoryLimit)), gap(&of(Feature::PidsLimit)));
        (of(Feature::PidsLimit) == Enforcement::Full, common::stdout(&sandbox))
    };
    for (sandbox, holds, done) in [
        (limited(), false, "lifted\nleft"),
        (ruled(reads()), true, ""),
        (ruled(reads().write("/sys/fs")), false, "lifted\nleft"),
        (limited().mount_ns(), false, ""),
        (limited().mount_ns().cgroup_ns(), true, ""),
        (limited().mount_ns().max_user_namespaces(0), true, ""),
        (limited().rootfs(RootFs::dir("/")).cgroup_ns(), true, ""),
        (limited().rootfs(RootFs::programs()).bind("/sys", "/tmp/x").cgroup_ns(), true, ""),
        (limited().rootfs(RootFs::programs()).bind(V2, "/tmp/x").cgroup_ns(), true, ""),
        (limited().rootfs(RootFs::programs()), false, ""),
        (common::strict().bind("/sys", "/tmp/x"), true, ""),
    ] {
        let (full, said) = seen(&sandbox);
        assert_eq!((full, said.as_str()), (holds, done), "{sandbox:?}");
    }
}
