//! The working directory that is made, and the labels of security modules.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::common;
use ringfence::{ErrorKind, RootFs, Sandbox, Step};

/// A program on a root of its own, in a working directory that is made.
fn working(root: &common::TempDir, cwd: &str) -> Sandbox {
    common::on_root(common::sandbox(), root).cwd(cwd).make_cwd(true).command("/bin/pwd")
}

#[test]
fn a_working_directory_is_made_with_all_that_is_missing_above() {
    let _clean = common::clean();
    let root = common::root_dir();
    let missing = common::on_root(common::sandbox(), &root).cwd("/tmp/a/b").command("/bin/pwd");
    let error = missing.output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::ENOENT)), "{error}");
    for _ in 0..2 {
        assert_eq!(common::stdout(&working(&root, "/tmp//./a/b/")), "/tmp/a/b");
    }
    for part in ["tmp/a", "tmp/a/b"] {
        let made = fs::metadata(root.path().join(part)).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o755, "{part}");
        assert_eq!(made.uid(), nix::unistd::geteuid().as_raw(), "{part}");
    }
    assert_eq!(common::stdout(&working(&root, "work")), "/work", "a relative path begins at the root");
    assert_eq!(common::stdout(&working(&root, "/")), "/");
}

/// It is entered before the program gets its user: as with other runtimes.
#[test]
fn a_program_begins_in_a_made_directory_that_its_user_may_not_enter() {
    let _clean = common::clean();
    if common::needs_root("another user") {
        return;
    }
    let root = common::root_dir();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = root.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let sandbox = working(&root, "/closed/in").user(1000, 1000).command("/bin/sh");
    let output = sandbox.args(["-c", "pwd; id -u"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "/closed/in\n1000\n");
}

/// The program's user could not make it, and does not own it: as with other runtimes.
#[test]
fn a_working_directory_is_made_by_the_user_of_the_setup() {
    let _clean = common::clean();
    if common::needs_root("another user") {
        return;
    }
    let root = common::root_dir();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let sandbox = working(&root, "/home/web").user(1000, 1000).command("/bin/sh");
    let output = sandbox.args(["-c", "pwd; id -u; mkdir x 2>/dev/null || echo refused"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "/home/web\n1000\nrefused\n");
    assert_eq!(fs::metadata(root.path().join("home/web")).unwrap().uid(), 0);
}

#[test]
fn no_link_leads_a_working_directory_out_of_the_root() {
    let _clean = common::clean();
    let (root, outside) = (common::root_dir(), common::TempDir::new());
    let target = outside.path().join("made");
    symlink(outside.path(), root.path().join("absolute")).unwrap();
    symlink(format!("../../../../../../..{}", outside.path().display()), root.path().join("relative")).unwrap();
    symlink("/tmp/elsewhere", root.path().join("dangling")).unwrap();
    for link in ["absolute", "relative"] {
        let error = working(&root, &format!("/{link}/made")).output().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::ENOENT)), "{link}: {error}");
        assert!(!target.exists(), "{link}");
    }
    let error = working(&root, "/dangling").output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::ENOENT)), "{error}");
    assert!(!root.path().join("tmp/elsewhere").exists());
    // A link within the root is followed.
    symlink("/tmp", root.path().join("inside")).unwrap();
    assert_eq!(common::stdout(&working(&root, "/inside/made")), "/tmp/made");
    assert!(root.path().join("tmp/made").is_dir());
    // Nor do the links of /proc, to what the setup has open.
    let through = working(&root, "/proc/self/fd/3/made");
    let through = if common::is_root() { through.pid_ns() } else { through.user_ns().pid_ns() };
    let error = through.output().unwrap_err();
    assert_eq!(error.step(), Step::Cwd, "{error}");
    let proc_link = working(&root, "/proc/self/cwd/made");
    let proc_link = if common::is_root() { proc_link.pid_ns() } else { proc_link.user_ns().pid_ns() };
    let error = proc_link.output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::ELOOP)), "{error}");
}

#[test]
fn a_working_directory_that_cannot_be_made_is_an_error() {
    let _clean = common::clean();
    let root = common::root_dir();
    let read_only = common::sandbox().rootfs(RootFs::dir(root.path()).read_only()).bind_ro("/usr", "/usr");
    let read_only = read_only.make_cwd(true).command("/bin/sh").args(["-c", "pwd; mkdir x 2>/dev/null || echo no"]);
    let error = read_only.clone().cwd("/usr/no/such").output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::EROFS)), "{error}");
    assert!(error.remedy().unwrap().contains("read-only"), "{error}");
    // The root itself is read-only for the program alone.
    let read_only = read_only.cwd("/tmp/a");
    assert_eq!(common::stdout(&read_only), "/tmp/a\nno");
    assert_eq!(common::stdout(&read_only.tmpfs("/tmp", 1 << 20)), "/tmp/a");
    fs::write(root.path().join("file"), "").unwrap();
    let error = working(&root, "/file").output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::ENOTDIR)), "{error}");
    let without_root = common::sandbox().cwd("/no/such/dir").make_cwd(true);
    for (sandbox, reason) in [
        (without_root, "on the host"),
        (common::on_root(common::sandbox(), &root).make_cwd(true), "no working directory"),
        (working(&root, "/tmp/../x"), "`..`"),
    ] {
        let error = sandbox.check().unwrap_err();
        assert_eq!(error.problems()[0].subject, "make_cwd", "{error}");
        assert!(error.problems()[0].reason.contains(reason), "{error}");
    }
}

#[test]
fn a_working_directory_is_made_for_prepared_sandboxes_too() {
    let _clean = common::clean();
    let root = common::root_dir();
    let prepared = working(&root, "/tmp/p").prepare().unwrap();
    assert_eq!(prepared.output().unwrap().stdout, b"/tmp/p\n");
    fs::remove_dir(root.path().join("tmp/p")).unwrap();
    assert_eq!(prepared.output().unwrap().stdout, b"/tmp/p\n");
}

/// Whether this kernel has the module.
fn has_module(name: &str) -> bool {
    match name {
        "apparmor" => fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|y| y.starts_with('Y')),
        _ => fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("selinuxfs")),
    }
}

#[test]
fn a_label_that_the_kernel_cannot_give_is_an_error_that_names_it() {
    let _clean = common::clean();
    let apparmor = Sandbox::new().apparmor_profile("ringfence-no-such-profile").command("/bin/true");
    let selinux = Sandbox::new().selinux_label("ringfence:no:such:label").command("/bin/true");
    for (sandbox, module, call) in [(apparmor, "apparmor", "apparmor_profile"), (selinux, "selinux", "selinux_label")] {
        let error = sandbox.output().unwrap_err();
        if has_module(module) {
            assert_eq!(error.step(), Step::Label, "{error}");
        } else {
            assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Validate), "{error}");
            assert_eq!(error.problems()[0].subject, call, "{error}");
            assert!(error.problems()[0].reason.to_lowercase().contains(module), "{error}");
        }
        let checked = sandbox.check();
        assert_eq!(checked.is_err(), !has_module(module), "{checked:?}");
    }
    let error = Sandbox::new().apparmor_profile("a\nb").check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn a_program_runs_under_the_label_that_it_is_given() {
    let _clean = common::clean();
    if !has_module("apparmor") {
        return common::skip("a kernel without AppArmor", true);
    }
    // Everywhere there; who is confined may not leave it, and gets EACCES.
    let sandbox = common::sandbox().pid_ns().apparmor_profile("unconfined").command("/bin/cat");
    match sandbox.arg("/proc/self/attr/current").output() {
        Ok(output) => assert_eq!(output.stdout.trim_ascii_end(), b"unconfined"),
        Err(error) => {
            assert_eq!((error.step(), error.raw_os_error()), (Step::Label, Some(libc::EACCES)), "{error}");
        }
    }
}
