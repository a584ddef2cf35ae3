//! Device nodes beside those of every /dev.

use std::os::unix::fs::{FileTypeExt, symlink};

use ringfence::{Dev, DeviceNode, ErrorKind, MountOptions, RawMount, RootFs, Sandbox, Step, Tmpfs};

use crate::common;

/// A root of the programs, with a /dev of its own.
fn sandbox() -> Sandbox {
    common::mounting().rootfs(RootFs::programs()).mount(Dev::new("/dev"))
}

/// What `stat` says of a path: type, numbers in hexadecimal, mode, owner.
fn stat_of(sandbox: Sandbox, path: &str) -> String {
    common::stdout(&sandbox.command("stat").args(["-c", "%F %t:%T %a %u:%g", path]))
}

#[test]
fn nodes_have_their_numbers_mode_and_owner() {
    let _clean = common::clean();
    if common::needs_root("device nodes") {
        return;
    }
    let character = DeviceNode::character("/dev/deep/er/zero", 1, 5).mode(0o640).owner(12, 34);
    assert_eq!(
        stat_of(sandbox().mount(character.clone()), "/dev/deep/er/zero"),
        "character special file 1:5 640 12:34"
    );
    let read = sandbox().mount(character).command("head").args(["-c", "2", "/dev/deep/er/zero"]);
    assert_eq!(read.output().unwrap().stdout, [0, 0]);
    let block = DeviceNode::block("/dev/disk", 7, 200);
    assert_eq!(stat_of(sandbox().mount(block), "/dev/disk"), "block special file 7:c8 666 0:0");
    let fifo = DeviceNode::fifo("/dev/queue").mode(0o600).owner(1, 2);
    assert_eq!(stat_of(sandbox().mount(fifo.clone()), "/dev/queue"), "fifo 0:0 600 1:2");
    let tmpfs = || sandbox().mount(Tmpfs::new("/nodes").dev());
    assert_eq!(
        stat_of(tmpfs().mount(DeviceNode::character("/nodes/x", 1, 3)), "/nodes/x"),
        "character special file 1:3 666 0:0"
    );
}

#[test]
fn in_a_user_namespace_root_makes_the_node_and_others_bind_the_hosts_if_it_is_that_device() {
    let _clean = common::clean();
    let sandbox = || sandbox().user_ns();
    // One that every host has, under a name that a /dev of ours has not.
    let shown = |number| sandbox().mount(DeviceNode::character("/dev/ptmx2", 5, number));
    if common::is_root() {
        assert_eq!(stat_of(shown(2), "/dev/ptmx2"), "character special file 5:2 666 0:0");
    } else {
        let error = shown(2).command("true").spawn().map(drop).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::Dev, Some(libc::ENOENT)), "{error}");
        assert!(error.to_string().contains("the host has none"), "{error}");
    }
    let Some((name, major, minor)) =
        [("kmsg", 1, 11), ("fuse", 10, 229), ("net/tun", 10, 200)].into_iter().find(|(name, ..)| {
            std::fs::metadata(format!("/dev/{name}")).is_ok_and(|node| node.file_type().is_char_device())
        })
    else {
        return common::skip("the host has neither kmsg nor fuse nor tun", false);
    };
    let path = format!("/dev/{name}");
    let text = stat_of(sandbox().mount(DeviceNode::character(&path, major, minor).owner(0, 0)), &path);
    assert!(text.starts_with(&format!("character special file {major:x}:{minor:x} ")), "{text}");
    let other = || sandbox().mount(DeviceNode::character(&path, major, minor + 1));
    if common::is_root() {
        let number = format!("character special file {major:x}:{:x} ", minor + 1);
        assert!(stat_of(other(), &path).starts_with(&number));
    } else {
        let error = other().command("true").spawn().map(drop).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::Dev, Some(libc::ENODEV)), "{error}");
    }
    assert_eq!(stat_of(sandbox().mount(DeviceNode::fifo("/dev/queue")), "/dev/queue"), "fifo 0:0 666 0:0");
}

#[test]
fn a_node_stands_only_where_it_vanishes_and_opens_its_device() {
    let _clean = common::clean();
    let root = common::root_dir();
    let on_host = || common::on_root(common::sandbox(), &root);
    let null = |at: &str| DeviceNode::character(at, 1, 3);
    let read_only = common::mounting().rootfs(RootFs::programs()).mount(Dev::new("/dev").read_only());
    for (sandbox, reason) in [
        (on_host().mount(null("/node")), "directory of the host"),
        (sandbox().bind("/tmp", "/mnt").mount(null("/mnt/node")), "directory of the host"),
        (sandbox().mount(null("/node")), "opens no devices"),
        (sandbox().mount(Tmpfs::new("/nodes")).mount(null("/nodes/x")), "opens no devices"),
        (read_only.mount(null("/dev/x")), "read-only"),
    ] {
        let error = sandbox.command("true").spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert!(!root.path().join("node").exists() && !std::path::Path::new("/tmp/node").exists());
    // A node replaces nothing.
    let error = sandbox().mount(null("/dev/zero")).command("true").spawn().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Dev, Some(libc::EEXIST)), "{error}");
}

/// CVE-2026-41579 and its like: nothing is made or given away behind a link that the image's author has put there.
#[test]
fn no_link_leads_a_node_out() {
    let _clean = common::clean();
    if common::needs_root("device nodes") {
        return;
    }
    let (lower, victim) = (common::TempDir::new(), common::TempDir::new());
    std::fs::write(victim.path().join("file"), "").unwrap();
    symlink(victim.path(), lower.path().join("out")).unwrap();
    symlink(victim.path().join("file"), lower.path().join("leaf")).unwrap();
    let before = std::fs::metadata(victim.path().join("file")).unwrap();
    let sandbox = || common::mounting().rootfs(RootFs::overlay([lower.path()]).dev());
    for (at, errno) in [("/out/node", libc::ELOOP), ("/leaf", libc::EEXIST), ("/leaf/node", libc::ELOOP)] {
        let node = DeviceNode::character(at, 1, 3).owner(1, 1).mode(0o600);
        let error = sandbox().mount(node).command("/true").spawn().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{at}: {error}");
    }
    use std::os::unix::fs::MetadataExt;
    let after = std::fs::metadata(victim.path().join("file")).unwrap();
    assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()));
    assert_eq!(std::fs::read_dir(victim.path()).unwrap().count(), 1);
}

#[test]
fn nodes_and_links_stand_on_a_tmpfs_by_mount() {
    let _clean = common::clean();
    let tmpfs = |words: &[&str]| RawMount::new("tmpfs", "/dev", "tmpfs").options(MountOptions::parse(words));
    let null = || DeviceNode::character("/dev/null", 1, 3);
    let sandbox = || common::sandbox().default_mounts(false).rootfs(RootFs::programs()).cwd("/");
    let said = sandbox().mount(tmpfs(&["nosuid", "mode=755"])).mount(null()).symlink("null", "/dev/nothing");
    let script = "echo x > /dev/nothing; stat -c '%F' /dev/null; test -e /dev/zero || echo alone";
    assert_eq!(common::stdout(&common::shell(said, script)), "character special file\nalone");
    // It is none of the host's directories, but where it opens no devices a node means nothing.
    let error = sandbox().mount(tmpfs(&["nodev"])).mount(null()).check().unwrap_err();
    assert!(error.to_string().contains("opens no devices"), "{error}");
    // One that is not mounted by the list is the host's.
    let on_host = sandbox().bind("/tmp", "/dev").mount(tmpfs(&["remount", "nosuid"])).mount(null());
    assert!(on_host.check().unwrap_err().to_string().contains("directory of the host"));
}
