//! Paths that are covered up, and paths that can only be read.

use std::fs;

use crate::common::{self, probe, sh, stdout};
use ringfence::{ErrorKind, RootFs, Sandbox, Step};

/// What the probe says of each path, in their order.
fn said(sandbox: Sandbox, what: &str, paths: &[&str]) -> Vec<String> {
    let sandbox = sandbox.bind_ro(std::env::current_exe().unwrap(), "/tmp/probe");
    let text = stdout(&probe::at(sandbox, "/tmp/probe", &format!("{what} {}", paths.join(" "))));
    text.lines().filter_map(|line| line.split_once('=')).map(|(_, said)| said.to_owned()).collect()
}

#[test]
fn the_kernels_own_files_tell_nothing_and_take_nothing() {
    let _clean = common::clean();
    let secrets = ["/proc/acpi", "/proc/interrupts", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/kcore"];
    let secrets: Vec<&str> = secrets.into_iter().filter(|path| fs::metadata(path).is_ok()).collect();
    assert!(secrets.len() >= 3, "{secrets:?}");
    let open = common::sandbox().pid_ns().rootfs(RootFs::host());
    let masked = open.clone().default_masks(true);
    for (path, length) in secrets.iter().zip(said(masked.clone(), "read", &secrets)) {
        assert_eq!(length, "0", "{path}");
    }
    let levers = ["/proc/sys/kernel/threads-max", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"];
    let levers: Vec<&str> = levers.into_iter().filter(|path| fs::metadata(path).is_ok()).collect();
    // An ordinary user is refused by the files' modes already.
    let refusal = if common::is_root() { "EROFS" } else { "EACCES" };
    assert_eq!(said(masked.clone(), "open-write", &levers), vec![refusal; levers.len()]);
    // A trigger for pressure takes no rights (6.5), but memory and time of the kernel's.
    if fs::read("/proc/pressure/cpu").is_ok() {
        assert_eq!(said(masked, "open-write", &["/proc/pressure/cpu"]), ["EROFS"]);
        let given = said(open.clone(), "open-write", &["/proc/pressure/cpu"]);
        assert!(given == ["opened"] || common::kernel() < (6, 5), "{given:?}");
    }
    // The same without masks: something is read, and root opens the levers.
    assert_ne!(said(open.clone(), "read", &["/proc/interrupts"]), ["0"]);
    if common::is_root() {
        assert_eq!(said(open, "open-write", &levers), vec!["opened"; levers.len()]);
    }
}

#[test]
fn what_is_masked_is_empty_inside_and_whole_outside() {
    let _clean = common::clean();
    let root = common::root_dir();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path("etc/secrets/deep")).unwrap();
    for name in ["etc/token", "etc/secrets/key", "etc/secrets/deep/key"] {
        fs::write(path(name), "hidden").unwrap();
    }
    let script =
        "cat /etc/token; echo gone > /etc/token; ls -A /etc/secrets; echo x > /etc/secrets/new || echo refused";
    let sandbox = common::on_root(sh(script), &root).stderr(ringfence::Stdio::null());
    let masked = sandbox.clone().mask("/etc/token").mask("/etc/secrets").mask("/etc/missing").mask("/etc/token/below");
    assert_eq!(stdout(&masked), "refused");
    assert_eq!(fs::read_to_string(path("etc/token")).unwrap(), "hidden");
    assert_eq!(stdout(&sandbox), "hiddendeep\nkey");
    assert_eq!(fs::read_to_string(path("etc/token")).unwrap(), "gone\n", "without a mask it is written to");
}

#[test]
fn covers_allow_nothing_that_they_need_not() {
    let _clean = common::clean();
    let root = common::root_dir();
    fs::create_dir(root.path().join("etc/secrets")).unwrap();
    fs::write(root.path().join("etc/token"), "hidden").unwrap();
    let script = "while read -r _ _ _ _ at flags _; do echo $at,$flags,; done </proc/self/mountinfo | grep ^/etc/";
    let sandbox = common::on_root(sh(script), &root).pid_ns().mask("/etc/secrets").mask("/etc/token");
    let text = stdout(&sandbox);
    for (at, kept) in
        [("/etc/secrets", &["ro", "nosuid", "nodev", "noexec"][..]), ("/etc/token", &["ro", "nosuid", "noexec"])]
    {
        let flags = text.lines().find(|line| line.starts_with(at)).unwrap();
        assert!(kept.iter().all(|flag| flags.contains(&format!(",{flag},"))), "{flags}");
    }
}

#[test]
fn many_directories_are_masked_at_once() {
    let _clean = common::clean();
    let root = common::root_dir();
    let names: Vec<String> = (0..100).map(|i| format!("/etc/{i}")).collect();
    for name in &names {
        fs::create_dir(root.path().join(&name[1..])).unwrap();
        fs::write(root.path().join(&name[1..]).join("file"), "x").unwrap();
    }
    let sandbox = common::on_root(sh("cat /etc/*/file 2>/dev/null; ls -d /etc/* | wc -l"), &root);
    let masked = names.iter().fold(sandbox, |sandbox, name| sandbox.mask(name));
    assert_eq!(stdout(&masked), "100");
}

#[test]
fn a_read_only_path_is_so_with_all_below_it() {
    let _clean = common::clean();
    let root = common::root_dir();
    fs::create_dir_all(root.path().join("etc/data/sub")).unwrap();
    fs::write(root.path().join("etc/file"), "x").unwrap();
    let script = "for f in /etc/data/a /etc/data/sub/b /etc/file /etc/other; do
        echo y > $f && echo $f; done 2>/dev/null; true";
    let sandbox = common::on_root(sh(script), &root).tmpfs("/etc/data/sub", 1 << 20);
    let kept = sandbox.clone().read_only_path("/etc/data").read_only_path("/etc/file");
    assert_eq!(stdout(&kept), "/etc/other");
    // What is not there could be made, unless the root is read-only too.
    let missing = kept.read_only_path("/etc/missing");
    assert_eq!(missing.spawn().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(stdout(&missing.read_only_root(true).tmpfs("/etc/data/sub", 1 << 20)), "");
    assert_eq!(stdout(&sandbox), "/etc/data/a\n/etc/data/sub/b\n/etc/file\n/etc/other");
}

#[test]
fn a_link_below_the_root_stays_below_it() {
    let _clean = common::clean();
    let (root, outside) = (common::root_dir(), common::TempDir::new());
    fs::write(outside.path().join("file"), "host").unwrap();
    fs::write(root.path().join("etc/target"), "inner").unwrap();
    std::os::unix::fs::symlink("/etc/target", root.path().join("etc/link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("file"), root.path().join("etc/out")).unwrap();
    let sandbox = common::on_root(sh("cat /etc/target"), &root).read_only_root(true);
    assert_eq!(stdout(&sandbox.clone().mask("/etc/link")), "");
    assert_eq!(stdout(&sandbox.clone().mask("/etc/out")), "inner", "there is no such file below the root");
    // The program could exchange it.
    for link in ["/etc/link", "/etc/out"] {
        let error = sandbox.clone().read_only_root(false).mask(link).spawn().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::MountTarget, Some(libc::ELOOP)));
    }
}

#[test]
fn paths_that_are_none_are_refused_and_steps_told() {
    let _clean = common::clean();
    for path in ["etc", "/a/../b", "/", "/a\0b"] {
        assert_eq!(Sandbox::new().mask(path).check().unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(Sandbox::new().read_only_path(path).check().unwrap_err().kind(), ErrorKind::Invalid);
    }
    let sandbox = common::sandbox().command("/bin/true").pid_ns().rootfs(RootFs::host()).default_masks(true);
    let mut seen = false;
    for index in 0..400 {
        // An op that is passed over does not fail.
        let error = sandbox.clone().fail_at(index, libc::EDOM).status().err();
        seen |= error.is_some_and(|error| error.step() == Step::Mask && error.path().is_some());
    }
    assert!(seen);
}
