//! The control groups that a program is shown: its own limits, read-only, and nobody else's.

use crate::common;
use ringfence::{Bytes, Cgroupfs, Command, ErrorKind, Namespaces, RootFs, Sandbox, Sysfs, Tmpfs};

const LIMIT: u64 = 48 << 20;
/// Prints the memory limit and the number of the limit on processes, as a runtime reads them.
const READ: &str = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes pids.max pids/pids.max 2>/dev/null";

fn limited(sandbox: Sandbox) -> Sandbox {
    sandbox.memory_limit(Bytes::new(LIMIT)).pids_limit(77)
}

#[test]
fn a_program_finds_its_limits() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let (root, bare) = (common::root_dir(), common::root_dir());
    std::fs::create_dir(root.path().join("sys")).unwrap();
    let listed =
        || common::sandbox().cgroup_parent(common::cgroup_parent()).pid_ns().cgroup_ns().rootfs(RootFs::programs());
    let sandboxes = [
        ("strict", common::strict()),
        ("strict on a directory", common::strict().rootfs(root.path()).bind_ro("/usr", "/usr")),
        ("strict on layers", common::strict().rootfs(RootFs::overlay([root.path()])).bind_ro("/usr", "/usr")),
        ("strict on the host's root", common::strict().rootfs(RootFs::host())),
        ("strict with a tmpfs at /sys", common::strict().tmpfs("/sys", 1 << 20)),
        ("strict with sysfs", common::strict().mount(Sysfs::new("/sys"))),
        ("a mount of the list", listed().mount(Cgroupfs::new("/sys/fs/cgroup"))),
    ];
    for (what, sandbox) in sandboxes {
        let sandbox = limited(sandbox);
        if what == "strict with sysfs" && sandbox.check().is_err() {
            common::skip("sysfs is covered around this process", false);
            continue;
        }
        let expected = format!("{LIMIT}\n77");
        let shell = if what.contains("layers") { "/usr/bin/sh" } else { "/bin/sh" };
        let command = || Command::new(shell).args(["-c", READ]);
        let single = sandbox.prepare().unwrap().with(command()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&single.stdout).trim(), expected, "{what}: {single:?}");
        let pooled = sandbox.pool(1).unwrap().output(command()).unwrap();
        assert_eq!(String::from_utf8_lossy(&pooled.stdout).trim(), expected, "{what}, from a pool: {pooled:?}");
    }
    let without =
        common::shell(limited(common::strict()).rootfs(bare.path()).bind_ro("/usr", "/usr"), "ls -d /sys || echo none");
    assert_eq!(common::stdout(&without), "none");
    assert!(
        !bare.path().join("sys").exists() && !root.path().join("sys/fs").exists(),
        "nothing is made in the callers root"
    );
}

#[test]
fn what_is_shown_is_read_only_and_the_sandboxs_own() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let mut neighbour = limited(common::strict()).command("sleep").arg("60").spawn().unwrap();
    // Whoever the program is, and whatever it may do to files.
    let mut sandboxes = vec![("strict", limited(common::strict()))];
    let root = limited(common::sandbox().cgroup_parent(common::cgroup_parent()))
        .pid_ns()
        .cgroup_ns()
        .rootfs(RootFs::programs());
    sandboxes.push(("root inside", root.mount(Cgroupfs::new("/sys/fs/cgroup"))));
    let script = "cd /sys/fs/cgroup
        for f in *.max */*.max cgroup.procs */cgroup.procs */tasks */*limit_in_bytes; do
            [ -e $f ] && (echo 0 >$f) 2>/dev/null && echo written $f; done
        for d in . */; do mkdir $d/new 2>/dev/null && echo made $d/new; done
        ls -d */*/ 2>/dev/null
        cat cgroup.procs */cgroup.procs 2>/dev/null | sort -u | grep -c . | sed 's/^[1-9]$/few/'
        ls others 2>/dev/null; true";
    for (what, sandbox) in sandboxes {
        assert_eq!(common::stdout(&common::shell(sandbox, script)), "few", "{what}");
    }
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
}

#[test]
fn a_change_of_limits_is_seen() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let script = format!("read go; {READ}");
    let sandbox = common::shell(limited(common::strict()), &script);
    let mut child = sandbox.stdin(ringfence::Stdio::piped()).stdout(ringfence::Stdio::piped()).spawn().unwrap();
    child.update(&ringfence::Limits::new().pids(88)).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{LIMIT}\n88"));
}

#[test]
fn without_a_group_or_a_namespace_nothing_is_shown() {
    let _clean = common::clean();
    let list = "ls /sys/fs/cgroup 2>/dev/null | wc -l";
    let shared = common::shell(common::strict().share(Namespaces::CGROUP), list);
    assert_eq!(common::stdout(&shared), "0");
    let replaced = common::shell(common::strict().mount(Tmpfs::new("/sys/fs/cgroup")), list);
    assert_eq!(common::stdout(&replaced), "0");
    let off = common::shell(common::strict().default_mounts(false).tmpfs("/dev", 1 << 20), list);
    assert_eq!(common::stdout(&off), "0");
    let mount = || Cgroupfs::new("/sys/fs/cgroup");
    let sandbox =
        || common::sandbox().cgroup_parent(common::cgroup_parent()).pid_ns().rootfs(RootFs::programs()).mount(mount());
    for (refused, word) in [(limited(sandbox()), "cgroup_ns()"), (sandbox().cgroup_ns(), "memory_limit()")] {
        let error = refused.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}
