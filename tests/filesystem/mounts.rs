//! Each kind of mount: what it shows, what it forbids, where it ends up, in which order.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common;
use ringfence::{
    Bind, Bytes, Dev, ErrorKind, HidePid, Mount, Mqueue, Overlay, Proc, RawMount, RootFs, Sandbox, Step, Sysfs, Tmpfs,
};

/// `script` on a root of its own.
fn on(root: &common::TempDir, script: &str) -> Sandbox {
    common::on_root(common::sh(script), root)
}

/// Runs `script` on a new root with these mounts.
fn with<M: Into<Mount>>(mounts: impl IntoIterator<Item = M>, script: &str) -> String {
    let root = common::root_dir();
    common::stdout(&mounts.into_iter().fold(on(&root, script).pid_ns(), Sandbox::mount))
}

/// A directory of the host's with a file in it.
fn source() -> common::TempDir {
    let dir = common::TempDir::new();
    fs::write(dir.path().join("file"), "host").unwrap();
    dir
}

#[test]
fn a_bind_is_written_through_and_a_read_only_one_is_not() {
    let _clean = common::clean();
    let dir = source();
    let script = "cat /b/file; touch /b/new 2>/dev/null || echo sealed; chmod 600 /b/file 2>/dev/null || echo sealed";
    assert_eq!(with([Bind::new(dir.path(), "/b").read_only()], script), "hostsealed\nsealed");
    assert!(!dir.path().join("new").exists());
    assert_eq!(with([Bind::new(dir.path(), "/b")], script), "host");
    assert!(dir.path().join("new").exists());
}

#[test]
fn an_optional_bind_is_made_if_its_source_exists() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let (there, missing) = (dir.path().join("there"), dir.path().join("missing"));
    fs::write(&there, "words").unwrap();
    let root = common::root_dir();
    let sandbox = || common::on_root(common::mounting(), &root).bind_ro_try(&there, "/one").bind_try(&missing, "/two");
    sandbox().check().unwrap();
    assert_eq!(common::stdout(&common::shell(sandbox(), "cat /one; ls -d /two 2>/dev/null; true")), "words");
    fs::write(&missing, "more").unwrap();
    assert_eq!(common::stdout(&common::shell(sandbox(), "cat /one /two")), "wordsmore");
    // Another error than that it does not exist is one.
    let beyond = there.join("below-a-file");
    assert!(common::on_root(common::mounting(), &root).bind_try(&beyond, "/x").command("true").output().is_err());
    assert!(sandbox().bind(dir.path().join("never"), "/three").check().is_err());
}

#[test]
fn a_bind_takes_submounts_along_or_leaves_them_out() {
    let _clean = common::clean();
    let (dir, at) = (source(), common::TempDir::new());
    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    // Without a root of its own the list's first mount stands on the host's tree, where the second finds it.
    let script = format!(
        "touch {}/made; cd {}; ls . sub | tr '\\n' ' '; for d in . sub; do touch $d/x 2>/dev/null || echo $d sealed; done",
        sub.display(),
        at.path().display()
    );
    let run = |bind: Bind| common::stdout(&common::sh(&script).mount(Tmpfs::new(&sub)).mount(bind));
    let bind = || Bind::new(dir.path(), at.path());
    assert_eq!(run(bind()), ".: file sub  sub: made");
    fs::remove_file(dir.path().join("x")).unwrap();
    assert_eq!(run(bind().non_recursive()), ".: file sub  sub:");
    fs::remove_file(dir.path().join("x")).unwrap();
    fs::remove_file(sub.join("x")).unwrap();
    assert_eq!(run(bind().read_only()), ".: file sub  sub: made . sealed\nsub sealed");
    assert_eq!(run(bind().read_only().non_recursive()), ".: file sub  sub: . sealed\nsub sealed");
}

#[test]
fn flags_of_a_bind_show_in_the_mount_table() {
    let _clean = common::clean();
    let dir = source();
    let options = |bind: Bind| {
        let text = with([bind], "grep ' /b ' /proc/self/mountinfo | cut -d' ' -f6");
        ["ro", "nosuid", "nodev", "noexec"].map(|flag| text.split(',').any(|option| option == flag))
    };
    let bare = || Bind::new(dir.path(), "/b").suid().dev();
    let base = options(bare());
    for (i, bind) in [bare().read_only(), bare().nosuid(), bare().nodev(), bare().noexec()].into_iter().enumerate() {
        let mut expected = base;
        expected[i] = true;
        assert_eq!(options(bind), expected);
    }
    let mut quiet = base;
    (quiet[1], quiet[2]) = (true, true);
    assert_eq!(options(Bind::new(dir.path(), "/b")), quiet);
    let every = Bind::new(dir.path(), "/b").read_only().nosuid().nodev().noexec();
    assert_eq!(options(every), [true; 4]);
}

#[test]
fn flags_of_the_hosts_mount_are_kept() {
    let _clean = common::clean();
    let (dir, other) = (source(), source());
    let sandbox = common::sh(&format!("grep ' {} ' /proc/self/mountinfo", other.path().display()));
    let sandbox = sandbox.mount(Tmpfs::new(dir.path()).noexec()).bind(dir.path(), other.path());
    let text = common::stdout(&sandbox);
    assert!(["nosuid", "nodev", "noexec"].iter().all(|flag| text.contains(flag)), "{text}");
}

#[test]
fn nothing_is_executed_from_a_noexec_mount() {
    let _clean = common::clean();
    let dir = source();
    let script = dir.path().join("script");
    fs::write(&script, "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(with([Bind::new(dir.path(), "/b")], "/b/script"), "ran");
    assert_eq!(with([Bind::new(dir.path(), "/b").noexec()], "/b/script 2>/dev/null; echo $?"), "126");
    let root = common::root_dir();
    let direct = on(&root, "").mount(Bind::new(dir.path(), "/b").noexec()).command("/b/script");
    let error = direct.output().unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::EACCES)));
    assert!(error.remedy().unwrap().contains("noexec"));
}

/// A directory with a node that everybody may open, and a set-user-ID program.
fn loud() -> common::TempDir {
    let dir = source();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&dir.path().join("null"), nix::sys::stat::SFlag::S_IFCHR, mode, null).unwrap();
    fs::set_permissions(dir.path().join("null"), PermissionsExt::from_mode(0o666)).unwrap();
    fs::copy("/usr/bin/id", dir.path().join("id")).unwrap();
    fs::set_permissions(dir.path().join("id"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn device_nodes_and_setuid_bits_are_without_effect_unless_asked_for() {
    if common::needs_root("making a device node and a setuid program") {
        return;
    }
    let _clean = common::clean();
    let dir = loud();
    let script = "cat /b/null 2>/dev/null && echo opened; /b/id -u";
    let run = |mount: Mount| {
        let root = common::root_dir();
        common::stdout(&on(&root, script).mount(mount).user(1000, 1000))
    };
    let bind = || Bind::new(dir.path(), "/b");
    assert_eq!(run(bind().into()), "1000");
    assert_eq!(run(bind().dev().into()), "opened\n1000");
    assert_eq!(run(bind().suid().into()), "0");
    assert_eq!(run(bind().suid().dev().into()), "opened\n0");
    let layers = || Overlay::new("/b", [dir.path(), Path::new("/usr/share")]);
    assert_eq!(run(layers().into()), "1000");
    assert_eq!(run(layers().suid().dev().into()), "opened\n0");
}

#[test]
fn roots_are_quiet_unless_asked_for_the_opposite() {
    if common::needs_root("making a device node and a setuid program") {
        return;
    }
    let _clean = common::clean();
    let dir = loud();
    let root = common::root_dir();
    for name in ["null", "id"] {
        let from = dir.path().join(name);
        assert!(Command::new("cp").arg("-a").args([&from, &root.path().join(name)]).status().unwrap().success());
    }
    let script = "cat /null 2>/dev/null && echo opened; /id -u";
    let run = |rootfs: RootFs| {
        let sandbox = common::on_root(Sandbox::new(), &root).rootfs(rootfs).user(1000, 1000);
        common::stdout(&sandbox.command("/bin/sh").args(["-c", script]))
    };
    let path = root.path();
    assert_eq!(run(RootFs::dir(path)), "1000");
    assert_eq!(run(RootFs::dir(path).read_only()), "1000");
    assert_eq!(run(RootFs::dir(path).dev()), "opened\n1000");
    assert_eq!(run(RootFs::dir(path).suid().read_only()), "0");
    assert_eq!(run(RootFs::overlay([path])), "1000");
    assert_eq!(run(RootFs::overlay([path]).suid().dev()), "opened\n0");
    let host = |rootfs: RootFs| {
        let script = format!("cat {0}/null 2>/dev/null && echo opened; {0}/id -u", dir.path().display());
        let sandbox = Sandbox::new().rootfs(rootfs).default_mounts(false).mount(Dev::new("/dev")).user(1000, 1000);
        common::stdout(&sandbox.args(["-c", &script]))
    };
    assert_eq!(host(RootFs::host()), "1000");
    assert_eq!(host(RootFs::host().suid().dev()), "opened\n0");
}

#[test]
fn the_hosts_own_dev_opens_devices_where_that_is_asked_for() {
    let _clean = common::clean();
    let root = common::root_dir();
    let run = |bind: Bind| {
        let script = "cat /dev/null 2>/dev/null && echo opened || echo closed";
        common::stdout(&on(&root, script).mount(bind))
    };
    assert_eq!(run(Bind::new("/dev", "/dev")), "closed");
    assert_eq!(run(Bind::new("/dev", "/dev").dev()), "opened");
}

#[test]
fn a_node_that_is_bound_by_itself_opens_its_device() {
    let _clean = common::clean();
    let run = |bind: Bind| with([bind], "cat /b 2>/dev/null && echo opened || echo closed");
    assert_eq!(run(Bind::new("/dev/null", "/b")), "opened");
    assert_eq!(run(Bind::new("/dev/null", "/b").nodev()), "closed");
}

#[test]
fn files_are_bound_and_targets_made_where_missing() {
    let _clean = common::clean();
    let (dir, root) = (source(), common::root_dir());
    let file = dir.path().join("file");
    let sandbox = on(&root, "cat /etc/file /a/deep/path/file /old; echo new >/old; ls /dirs/deep; touch /t/m/p/x");
    fs::write(root.path().join("old"), "hidden").unwrap();
    let sandbox = sandbox.bind_ro(&file, "/etc/file").bind_ro(&file, "/a/deep/path/file").bind(&file, "/old");
    let sandbox = sandbox.bind(dir.path(), "/dirs/deep").tmpfs("/t/m/p", 1 << 20);
    assert_eq!(common::stdout(&sandbox), "hosthosthostfile");
    assert_eq!(fs::read_to_string(&file).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(root.path().join("old")).unwrap(), "hidden");
    assert_eq!(fs::read(root.path().join("a/deep/path/file")).unwrap(), b"");
    assert_eq!(fs::read_dir(root.path().join("t/m/p")).unwrap().count(), 0);
}

/// The step, errno and path of the failure.
fn failure(sandbox: &Sandbox) -> (Step, i32, String) {
    let error = sandbox.output().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
    (error.step(), error.raw_os_error().unwrap(), error.path().unwrap().to_str().unwrap().to_owned())
}

#[test]
fn a_directory_on_a_file_and_a_file_on_a_directory_are_errors() {
    let _clean = common::clean();
    let (dir, root) = (source(), common::root_dir());
    fs::write(root.path().join("plain"), "").unwrap();
    let sandbox = on(&root, "").bind(dir.path(), "/plain");
    assert_eq!(failure(&sandbox), (Step::MountTarget, libc::ENOTDIR, "/plain".into()));
    let sandbox = on(&root, "").bind(dir.path().join("file"), "/etc");
    let error = sandbox.output().unwrap_err();
    assert_eq!((error.step(), error.path()), (Step::MoveMount, Some(Path::new("/etc"))), "{error}");
    assert!(error.remedy().unwrap().contains("both be files"), "{error}");
    let sandbox = on(&root, "").bind("/no/such/source", "/etc");
    assert_eq!(failure(&sandbox), (Step::OpenSource, libc::ENOENT, "/no/such/source".into()));
    let sandbox = on(&root, "").tmpfs("/plain/below", 1 << 20);
    assert_eq!(failure(&sandbox), (Step::MountTarget, libc::ENOTDIR, "/plain/below".into()));
}

#[test]
fn a_missing_target_on_a_read_only_tree_is_an_error_with_a_remedy() {
    let _clean = common::clean();
    let error = common::sandbox().rootfs(RootFs::host()).tmpfs("/rf-no-such-target", 1 << 20).output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::MountTarget, Some(libc::EROFS)), "{error}");
    assert!(error.remedy().unwrap().contains("read-only"), "{error}");
}

#[test]
fn symbolic_links_in_the_root_never_lead_a_target_out() {
    let _clean = common::clean();
    let (dir, outside, root) = (source(), source(), common::root_dir());
    let links = [
        ("absolute", outside.path().to_owned()),
        ("relative", Path::new("../../../../../..").join(outside.path().strip_prefix("/").unwrap())),
    ];
    // The root holds a directory of the same name as the host's, which is where the links end.
    let shadow = root.path().join(outside.path().strip_prefix("/").unwrap());
    fs::create_dir_all(&shadow).unwrap();
    for (name, to) in links {
        symlink(&to, root.path().join(name)).unwrap();
        let script = format!("cat /{name}/made/file {0}/made/file; touch {0}/made/through", outside.path().display());
        let sandbox = on(&root, &script).bind(dir.path(), format!("/{name}/made"));
        assert_eq!(common::stdout(&sandbox), "hosthost");
        assert!(shadow.join("made").is_dir(), "made inside");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing made outside");
        fs::remove_dir(shadow.join("made")).unwrap();
    }
    symlink(outside.path().join("file"), root.path().join("direct")).unwrap();
    fs::write(shadow.join("file"), "").unwrap();
    let sandbox = on(&root, "cat /direct; echo changed >/direct").bind(dir.path().join("file"), "/direct");
    assert_eq!(common::stdout(&sandbox), "host");
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "changed\n");
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "host");
}

#[test]
fn links_to_nowhere_lead_inside_and_circles_are_errors_of_the_target() {
    let _clean = common::clean();
    let (dir, root) = (source(), common::root_dir());
    let link = |to: &Path, name: &str| symlink(to, root.path().join(name)).unwrap();
    link(&dir.path().join("file"), "dangling");
    link(Path::new("/no/such/dir"), "nowhere");
    link(Path::new("circle"), "circle");
    link(Path::new("/ping"), "pong");
    link(Path::new("pong"), "ping");
    let file = dir.path().join("file");
    // What is missing behind a link is made in the root.
    for (target, made) in [("/dangling", &file), ("/nowhere/x", &PathBuf::from("/no/such/dir/x"))] {
        assert_eq!(common::stdout(&on(&root, &format!("cat {target}")).bind(&file, target)), "host");
        assert_eq!(fs::read(root.path().join(made.strip_prefix("/").unwrap())).unwrap(), b"");
    }
    assert!(!Path::new("/no/such").exists());
    for target in ["/circle", "/circle/x", "/ping/x/y"] {
        let sandbox = on(&root, "").bind(&file, target);
        assert_eq!(failure(&sandbox), (Step::MountTarget, libc::ELOOP, target.into()));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "host");
    // The kernel's own links lead out as well.
    for target in ["/proc/self/root/x", "/proc/self/cwd/x", "/proc/1/root/x"] {
        let sandbox = on(&root, "").pid_ns().bind(&file, target);
        assert_eq!(failure(&sandbox), (Step::MountTarget, libc::ELOOP, target.into()));
    }
}

#[test]
fn a_root_whose_proc_dev_or_sys_is_a_link_is_refused() {
    let _clean = common::clean();
    for (name, mount) in [("proc", None), ("dev", None), ("sys", Some(Sysfs::new("/sys")))] {
        let root = common::root_dir();
        let _ = fs::remove_dir(root.path().join(name));
        symlink("/tmp", root.path().join(name)).unwrap();
        let sandbox = mount.into_iter().fold(on(&root, "").pid_ns().net_ns(), Sandbox::mount);
        let target = format!("/{name}");
        assert_eq!(failure(&sandbox), (Step::MountTarget, libc::ELOOP, target));
    }
}

#[test]
fn a_tmpfs_has_its_size_mode_and_number_of_files() {
    let _clean = common::clean();
    let mount = Tmpfs::new("/t").size(Bytes::mib(1)).mode(0o1750).inodes(10);
    let script = "stat -c %a /t; head -c 3000000 /dev/zero >/t/big 2>/dev/null; stat -c %s /t/big;
        i=0; while touch /t/$i 2>/dev/null; do i=$((i+1)); done; echo $i; rm /t/*; echo again >/t/x; cat /t/x";
    assert_eq!(with([mount], script), "1750\n1048576\n8\nagain");
    let flags = "grep ' /t ' /proc/self/mountinfo | grep nosuid | grep nodev | grep -c noexec";
    assert_eq!(with([Tmpfs::new("/t").noexec()], flags), "1");
    assert_eq!(with([Tmpfs::new("/t").read_only()], "touch /t/x 2>/dev/null || echo sealed"), "sealed");
    let defaults = "stat -c %a /t; head -c 70000000 /dev/zero >/t/big 2>/dev/null; stat -c %s /t/big";
    assert_eq!(with([Tmpfs::new("/t")], defaults), "755\n67108864");
}

#[test]
fn proc_shows_processes_only_or_hides_them() {
    let _clean = common::clean();
    let run = |proc: Proc, script: &str| {
        let root = common::root_dir();
        common::stdout(&on(&root, script).pid_ns().mount(proc))
    };
    let subset = "[ -e /proc/self/status ] && echo yes; [ -e /proc/uptime ] || echo no; [ -e /proc/sys ] || echo no";
    assert_eq!(run(Proc::new("/proc").subset_pid(), subset), "yes\nno\nno");
    assert_eq!(run(Proc::new("/proc"), subset), "yes");
    let options = "grep ' /proc ' /proc/self/mountinfo";
    for (hidepid, name) in [
        (HidePid::NoAccess, "hidepid=noaccess"),
        (HidePid::Invisible, "hidepid=invisible"),
        (HidePid::Ptraceable, "hidepid=ptraceable"),
    ] {
        let text = run(Proc::new("/proc").hidepid(hidepid), options);
        assert!(text.contains(name) && text.contains("nosuid,nodev,noexec"), "{text}");
    }
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!own.contains("hidepid=invisible"), "the host's is as it was");
    let error = Sandbox::new().mount(Proc::new("/proc").hidepid(HidePid::Invisible)).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn hidepid_hides_the_processes_of_others() {
    if common::needs_root("a second user inside") {
        return;
    }
    let _clean = common::clean();
    let script = "exec 2>/dev/null; setpriv --reuid 1000 --regid 1000 --clear-groups sh -c \
        '[ -e /proc/1 ] && echo listed; cat /proc/1/status >/dev/null && echo readable'; echo end";
    let run = |hidepid: HidePid| {
        let root = common::root_dir();
        common::stdout(&on(&root, script).pid_ns().mount(Proc::new("/proc").hidepid(hidepid)))
    };
    assert_eq!(run(HidePid::Off), "listed\nreadable\nend");
    assert_eq!(run(HidePid::NoAccess), "listed\nend");
    assert_eq!(run(HidePid::Invisible), "end");
}

#[test]
fn dev_has_the_nodes_that_programs_expect_and_no_others() {
    let _clean = common::clean();
    let root = common::root_dir();
    let script = "cd /dev; echo *; echo x >null && cat null; head -c 3 zero | od -An -tx1 | tr -d ' \\n'; echo;
        echo x 2>/dev/null >full || echo full; [ $(head -c 9 random | wc -c) = 9 ] && [ $(head -c 9 urandom | wc -c) = 9 ] && echo random;
        [ -c tty ] && readlink fd stdin stdout stderr ptmx; stat -c %a,%T,%t null shm; touch shm/x && ls shm; echo y | cat /dev/stdin";
    let text = common::stdout(&on(&root, script).pid_ns());
    let expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n000000\nfull\nrandom\n\
        /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n666,3,1\n1777,0,0\nx\ny";
    assert_eq!(text, expected);
    let shm = on(&root, "head -c 3000000 /dev/zero >/dev/shm/big 2>/dev/null; stat -c %s /dev/shm/big");
    assert_eq!(common::stdout(&shm.mount(Dev::new("/dev").shm_size(Bytes::mib(1)))), "1048576");
}

#[test]
fn terminals_are_the_sandboxs_own() {
    let _clean = common::clean();
    let root = common::root_dir();
    let sandbox = common::probe::at(common::on_root(common::sandbox(), &root), "/probe", "pty");
    assert_eq!(common::stdout(&sandbox), "/dev/pts/0 through");
    let before = fs::metadata("/dev/null").unwrap();
    assert!(before.file_type().is_char_device());
}

#[test]
fn sysfs_is_read_only_and_shows_the_network_namespaces_devices() {
    let _clean = common::clean();
    let root = common::root_dir();
    let script = "ls /sys/class/net; echo 1 2>/dev/null >/sys/class/net/lo/ifalias || echo sealed";
    assert_eq!(common::stdout(&on(&root, script).net_ns().mount(Sysfs::new("/sys"))), "lo\nsealed");
}

#[test]
fn message_queues_are_those_of_the_ipc_namespace() {
    let _clean = common::clean();
    let root = common::root_dir();
    let script = "ls /dev/mqueue | wc -l; touch /dev/mqueue/rf-test; ls /dev/mqueue; cut -d: -f1 /dev/mqueue/rf-test";
    let sandbox = on(&root, script).ipc_ns().mount(Mqueue::new("/dev/mqueue"));
    for _ in 0..2 {
        let text = common::stdout(&sandbox);
        assert!(text.starts_with("0\nrf-test\nQSIZE"), "{text}");
    }
}

#[test]
fn an_overlay_merges_directories_at_any_place() {
    let _clean = common::clean();
    let (a, b, upper, work) = (source(), source(), common::TempDir::new(), common::TempDir::new());
    fs::write(a.path().join("file"), "a").unwrap();
    fs::write(b.path().join("only"), "b").unwrap();
    let overlay = || Overlay::new("/o", [a.path(), b.path()]);
    let script = "cat /o/file /o/only; touch /o/new 2>/dev/null || echo sealed";
    assert_eq!(with([overlay()], script), "absealed");
    let inner = upper.path().join("upper");
    fs::create_dir(&inner).unwrap();
    fs::create_dir(upper.path().join("work")).unwrap();
    assert_eq!(with([overlay().upper(&inner, upper.path().join("work"))], script), "ab");
    assert!(inner.join("new").exists() && !a.path().join("new").exists());
    let _ = fs::remove_dir(upper.path().join("work/work"));
    let error = common::sandbox().mount(overlay().upper(&inner, work.path().join("no"))).output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::OpenSource, Some(libc::ENOENT)), "{error}");
}

#[test]
fn a_raw_mount_is_what_mount_2_makes_of_it() {
    let _clean = common::clean();
    let raw = RawMount::new("src", "/r", "tmpfs").flags(libc::MS_NOEXEC).data("size=8k,mode=1700");
    let text = with([raw], "stat -c %a /r; grep ' /r ' /proc/self/mountinfo");
    assert!(text.starts_with("1700\n") && text.contains("noexec") && text.contains("tmpfs src rw,size=8k"), "{text}");
    let root = common::root_dir();
    let sandbox = on(&root, "").mount(RawMount::new("x", "/r", "no-such-fs"));
    assert_eq!(failure(&sandbox), (Step::Mount, libc::ENODEV, "/r".into()));
}

#[test]
fn later_mounts_stand_on_earlier_ones() {
    let _clean = common::clean();
    let dir = source();
    let tmpfs = || Mount::from(Tmpfs::new("/d"));
    let bind = |target: &str| Mount::from(Bind::new(dir.path(), target));
    let look = "cat /d/file /d/x/file 2>/dev/null; echo .";
    assert_eq!(with([tmpfs(), bind("/d/x")], look), "host.");
    assert_eq!(with([bind("/d/x"), tmpfs()], look), ".");
    assert_eq!(with([bind("/d"), tmpfs()], look), ".");
    assert_eq!(with([tmpfs(), bind("/d")], look), "host.");
    assert_eq!(with([bind("/d"), tmpfs(), bind("/d")], "grep -c ' /d ' /proc/self/mountinfo; cat /d/file"), "3\nhost");
}

#[test]
fn a_mount_of_ones_own_takes_the_place_of_a_default() {
    let _clean = common::clean();
    let root = common::root_dir();
    let sandbox = on(&root, "ls -A /dev /proc | tr '\\n' ' '").pid_ns();
    let own = sandbox.clone().mount(Tmpfs::new("/dev")).mount(Tmpfs::new("/proc"));
    assert_eq!(common::stdout(&own), "/dev: /proc:".replace(": ", ":  "));
    let none = sandbox.default_mounts(false);
    assert_eq!(common::stdout(&none), "/dev: /proc:".replace(": ", ":  "));
    assert!(File::open(root.path().join("dev/null")).is_err());
}

/// Each of them is a descriptor, and one message to the thread that clones takes 253.
#[test]
fn as_many_files_are_bound_and_passed_as_the_caller_may_open() {
    let _clean = common::clean();
    let dir = source();
    let from = dir.path().join("file");
    let bound = |sandbox: Sandbox| (0..600).fold(sandbox, |sandbox, i| sandbox.bind_ro(&from, format!("/tmp/b/{i}")));
    let count = ["-c", "cat /tmp/b/* | wc -c"];
    let passed = |sandbox: Sandbox| (0..400).fold(sandbox, |sandbox, i| sandbox.fd(3 + i, File::open(&from).unwrap()));
    for sandbox in [common::strict(), common::sandbox().rootfs(RootFs::programs())] {
        let policy = bound(sandbox.clone()).command("/bin/sh").args(count);
        policy.check().unwrap();
        assert_eq!(common::stdout(&policy), "2400");
        let policy = passed(sandbox).command("/bin/sh").args(["-c", "ls /proc/self/fd | wc -l; cat /proc/self/fd/402"]);
        policy.check().unwrap();
        assert_eq!(common::stdout(&policy.pid_ns()), "404\nhost");
    }
    let pool = bound(common::strict()).pool(1).unwrap();
    pool.wait_ready(Duration::from_secs(60)).unwrap();
    let output = pool.output(ringfence::Command::new("/bin/sh").args(count)).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "2400");
}

#[test]
fn an_overlay_in_memory_takes_writes_up_to_its_size() {
    let _clean = common::clean();
    let (root, lower, second) = (common::root_dir(), common::TempDir::new(), common::TempDir::new());
    fs::write(lower.path().join("file"), "lower").unwrap();
    fs::write(second.path().join("below"), "second").unwrap();
    fs::set_permissions(lower.path(), fs::Permissions::from_mode(0o751)).unwrap();
    let script = "cd /work; stat -c %a .; cat file; echo -n ' changed' >> file; cat file; echo
        ls; dd if=/dev/zero of=big bs=64k count=1000 2>&1 | grep -o 'No space left on device'
        [ $(stat -c %s big) -le 1048576 ] && rm big && echo again > again && cat again";
    let with_user = common::as_ourselves(Sandbox::new());
    let sandboxes = if common::is_root() { vec![Sandbox::new(), with_user] } else { vec![with_user] };
    for sandbox in sandboxes {
        let one = Overlay::new("/work", [lower.path()]);
        let two = Overlay::new("/work", [lower.path(), second.path()]);
        for (overlay, names) in [(one, "file"), (two, "below\nfile")] {
            let prepared = common::on_root(sandbox.clone(), &root).mount(overlay.tmpfs(Bytes::mib(1)));
            let prepared = common::shell(prepared, script).prepare().unwrap();
            for _ in 0..2 {
                let output = prepared.output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let expected = format!("751\nlowerlower changed\n{names}\nNo space left on device\nagain\n");
                assert_eq!(text, expected, "{output:?}");
            }
        }
        let kept = Overlay::new("/work", [lower.path()]).tmpfs(Bytes::mib(1)).read_only();
        let sandbox = common::on_root(sandbox, &root).mount(kept);
        assert_eq!(
            common::stdout(&common::shell(sandbox, "cat /work/file; touch /work/x 2>&1 | grep -o Read-only")),
            "lowerRead-only"
        );
    }
    assert_eq!(fs::read_to_string(lower.path().join("file")).unwrap(), "lower", "the directory stays as it was");
    assert_eq!(fs::read_dir(lower.path()).unwrap().count(), 1);
}
