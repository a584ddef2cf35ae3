//! The control groups that a program is shown: its own limits, read-only, and nobody else's.

use crate::common;
use ringfence::{
    Bytes, Cgroupfs, Command, Enforcement, ErrorKind, Feature, MountOptions, Namespaces, RootFs, Sandbox, Sysfs, Tmpfs,
};

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
    for (refused, word) in [(sandbox(), "memory_limit()"), (sandbox().cgroup_ns(), "memory_limit()")] {
        let error = refused.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// A sandbox with limits and its groups at /sys/fs/cgroup, in a cgroup namespace or without.
fn listed(sandbox: Sandbox, in_namespace: bool, mount: Cgroupfs) -> Sandbox {
    let sandbox = limited(sandbox.cgroup_parent(common::cgroup_parent())).pid_ns().rootfs(RootFs::programs());
    let sandbox = if in_namespace { sandbox.cgroup_ns() } else { sandbox };
    sandbox.mount(mount)
}

/// The sandboxes in which groups are shown: as root without and with a user namespace, else with one.
fn both_users() -> Vec<Sandbox> {
    let with_user = common::as_ourselves(Sandbox::new());
    if common::is_root() { vec![Sandbox::new(), with_user] } else { vec![with_user] }
}

fn groups() -> Cgroupfs {
    Cgroupfs::new("/sys/fs/cgroup")
}

fn words(words: &str) -> MountOptions {
    MountOptions::parse(words.split(' '))
}

/// Changes what can be changed, and says what could.
const CHANGE: &str = "cd /sys/fs/cgroup
    for d in . pids memory unified; do
        [ -d $d ] || continue
        mkdir $d/new 2>/dev/null && echo made
        [ -e $d/pids.max ] && (echo 66 > $d/pids.max) 2>/dev/null && echo raised
    done; true";

#[test]
fn without_a_namespace_the_directories_of_the_group_are_bound() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let mut neighbour = limited(common::strict()).command("sleep").arg("60").spawn().unwrap();
    for sandbox in both_users() {
        for mount in [groups(), groups().options(words("nosuid noexec nodev relatime ro"))] {
            let sandbox = listed(sandbox.clone(), false, mount);
            let all = format!("{READ}; {CHANGE}; ls -d */*/ 2>/dev/null; ls others 2>/dev/null; true");
            let expected = format!("{LIMIT}\n77");
            assert_eq!(common::stdout(&common::shell(sandbox.clone(), &all)), expected);
            // Each spawn has a group of its own.
            let prepared = common::shell(sandbox, READ).prepare().unwrap();
            for _ in 0..2 {
                let output = prepared.output().unwrap();
                assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{output:?}");
            }
        }
    }
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
}

#[test]
fn a_mount_of_the_list_has_each_hierarchy_of_the_group() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    // What the program is in, but for the caller's own groups.
    let script = "cat /proc/self/cgroup; echo; ls -A /sys/fs/cgroup";
    for (in_namespace, sandbox) in
        [true, false].into_iter().flat_map(|in_ns| both_users().into_iter().map(move |s| (in_ns, s)))
    {
        let text = common::stdout(&common::shell(listed(sandbox, in_namespace, groups()), script));
        let (own, shown) = text.split_once("\n\n").unwrap();
        if common::is_v2() {
            assert!(shown.contains("cgroup.controllers") && shown.contains("memory.max"), "{text}");
            continue;
        }
        let parts: Vec<Vec<&str>> = own.lines().map(|line| line.splitn(3, ':').collect()).collect();
        // Without the namespace the group's name tells which are its own.
        let is_own = |path: &str| if in_namespace { path == "/" } else { path.contains("ringfence") };
        for part in &parts {
            let name = match part[1] {
                "" => "unified",
                names => names.strip_prefix("name=").unwrap_or(names),
            };
            let name = name.split(',').next().unwrap();
            if shown.lines().any(|shown| shown == name) {
                assert!(is_own(part[2]), "{name} is somebody else's: {text}");
            } else {
                assert!(in_namespace || !is_own(part[2]), "{name} is missing: {text}");
            }
        }
        for name in ["memory", "pids"] {
            assert!(shown.lines().any(|shown| shown == name), "{text}");
        }
    }
}

#[test]
fn a_writable_mount_is_writable_and_said_to_be() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    for sandbox in both_users() {
        for (mount, writable) in [
            (groups().writable(), true),
            (groups().options(words("nosuid rw")), true),
            (groups().options(words("nosuid")), false),
            (groups().options(words("rw ro")), false),
        ] {
            let sandbox = common::shell(listed(sandbox.clone(), true, mount), CHANGE);
            let enforced = sandbox.check().unwrap();
            let open =
                |how: Option<&Enforcement>| matches!(how, Some(Enforcement::Partial(gap)) if gap.contains("writable"));
            let is_delegated = std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains("nsdelegate");
            assert_eq!(open(enforced.get(Feature::PidsLimit)), writable && !(is_delegated && common::is_v2()));
            assert_eq!(common::stdout(&sandbox).contains("made"), writable);
        }
    }
    let error = listed(common::sandbox(), false, groups().writable()).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("add cgroup_ns()"), "{error}");
}

#[test]
fn attributes_hold_for_each_hierarchy_and_other_words_are_refused() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    for (in_namespace, sandbox) in
        [true, false].into_iter().flat_map(|in_ns| both_users().into_iter().map(move |s| (in_ns, s)))
    {
        // In a user namespace the times of access of a bind are locked.
        let word = if in_namespace { "noatime" } else { "nosymfollow" };
        if !in_namespace && common::kernel() < (5, 14) {
            continue;
        }
        let mount = groups().options(words("ro").option(word));
        let text = common::stdout(&common::shell(listed(sandbox, in_namespace, mount), "cat /proc/self/mountinfo"));
        let lines = text.lines().filter(|line| line.contains(" /sys/fs/cgroup") && line.contains(" - cgroup"));
        let lines: Vec<&str> = lines.collect();
        assert!(!lines.is_empty(), "{text}");
        for line in lines {
            let own = line.split(' ').nth(5).unwrap();
            for word in ["ro", "nosuid", "nodev", "noexec", word] {
                assert!(own.split(',').any(|own| own == word), "{word}: {line}");
            }
        }
    }
    for refused in ["rbind", "remount", "tmpcopyup", "idmap", "sync", "nsdelegate"] {
        let error = listed(common::sandbox(), true, groups().options(words(refused))).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{refused}: {error}");
    }
}
