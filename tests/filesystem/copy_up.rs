//! A tmpfs that begins with what the root has at its place: what is copied, and what a hostile root cannot do with that.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use ringfence::{Bind, Bytes, Error, ErrorKind, Mount, MountOptions, RawMount, RootFs, Sandbox, Step, Tmpfs};

use crate::common;

/// Both ways of asking for a copy at `at`.
fn both_ways(at: &str) -> [Mount; 2] {
    let words = MountOptions::parse(["tmpcopyup", "nosuid", "nodev", "size=1m"]);
    [Tmpfs::new(at).copy_up().size(Bytes::mib(1)).into(), RawMount::new("tmpfs", at, "tmpfs").options(words).into()]
}

/// The sandboxes in which copies are made: as root without and with a user namespace, else with one.
fn both_users() -> Vec<Sandbox> {
    let with_user = common::as_ourselves(Sandbox::new());
    if common::is_root() { vec![Sandbox::new(), with_user] } else { vec![with_user] }
}

/// A root with an empty /data.
fn root_with_data() -> common::TempDir {
    let root = common::root_dir();
    fs::create_dir(root.path().join("data")).unwrap();
    root
}

fn write(root: &common::TempDir, path: &str, text: &str, mode: u32) {
    let path = root.path().join("data").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What the script writes with these mounts on the root.
fn run(sandbox: Sandbox, root: &common::TempDir, mount: Mount, script: &str) -> String {
    common::stdout(&common::shell(common::on_root(sandbox, root).mount(mount), script))
}

/// The failure to copy with these mounts.
fn failure(sandbox: Sandbox, root: &common::TempDir, mount: Mount) -> Error {
    common::shell(common::on_root(sandbox, root).mount(mount), "true").output().unwrap_err()
}

#[test]
fn a_tmpfs_begins_with_the_contents_modes_times_and_links_of_the_root() {
    let _clean = common::clean();
    let root = root_with_data();
    write(&root, "file", "text", 0o604);
    write(&root, "a/b/c/deep", "deep", 0o640);
    write(&root, "big", &"0123456789abcdef".repeat(20_000), 0o644);
    fs::set_permissions(root.path().join("data/a"), fs::Permissions::from_mode(0o710)).unwrap();
    fs::set_permissions(root.path().join("data"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("/etc/nowhere", root.path().join("data/dangling")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for path in ["data/file", "data/a", "data"] {
        fs::File::open(root.path().join(path)).unwrap().set_modified(time).unwrap();
    }
    let script = "cd /data; stat -c '%a %Y' . file a; stat -c '%a' a/b/c/deep; cat file a/b/c/deep; echo; \
                  readlink dangling; cksum < big; stat -f -c %T .; \
                  echo changed > file; rm -r a dangling; echo new > new; cat file new";
    let sum = {
        let other = common::root_dir();
        fs::copy(root.path().join("data/big"), other.path().join("big")).unwrap();
        common::stdout(&common::shell(common::on_root(common::sandbox(), &other), "cksum < /big"))
    };
    for sandbox in both_users() {
        for mount in both_ways("/data") {
            let text = run(sandbox.clone(), &root, mount, script);
            let expected = format!(
                "751 1000000000\n604 1000000000\n710 1000000000\n640\ntextdeep\n/etc/nowhere\n{sum}\ntmpfs\nchanged\nnew"
            );
            assert_eq!(text, expected);
        }
    }
    assert_eq!(fs::read_to_string(root.path().join("data/file")).unwrap(), "text", "the root stays as it was");
    assert!(root.path().join("data/a/b/c/deep").exists() && !root.path().join("data/new").exists());
}

#[test]
fn each_spawn_of_a_prepared_sandbox_has_a_copy_of_its_own() {
    let _clean = common::clean();
    let root = root_with_data();
    write(&root, "file", "text", 0o644);
    let mount = Tmpfs::new("/data").copy_up();
    let sandbox = common::on_root(common::as_ourselves(Sandbox::new()), &root).mount(mount);
    let prepared = common::shell(sandbox, "cat /data/*; echo more > /data/more").prepare().unwrap();
    for text in ["text", "text", "other"] {
        fs::write(root.path().join("data/file"), text).unwrap();
        let output = prepared.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), text);
    }
}

#[test]
fn what_is_asked_of_the_directory_itself_holds() {
    let _clean = common::clean();
    let root = root_with_data();
    write(&root, "file", "text", 0o644);
    let asked: [Mount; 2] = [
        Tmpfs::new("/data").copy_up().mode(0o700).read_only().into(),
        RawMount::new("tmpfs", "/data", "tmpfs").options(MountOptions::parse(["tmpcopyup", "mode=700", "ro"])).into(),
    ];
    for sandbox in both_users() {
        for mount in &asked {
            let script = "stat -c %a /data; cat /data/file; touch /data/x 2>/dev/null || echo -n ' kept'";
            assert_eq!(run(sandbox.clone(), &root, mount.clone(), script), "700\ntext kept");
        }
    }
}

#[test]
fn a_missing_directory_is_an_empty_tmpfs() {
    let _clean = common::clean();
    let root = common::root_dir();
    for mount in both_ways("/tmp/none") {
        assert_eq!(run(common::as_ourselves(Sandbox::new()), &root, mount, "ls -A /tmp/none"), "");
    }
}

#[test]
fn an_overlay_is_copied_as_it_is_put_together() {
    let _clean = common::clean();
    let (lower, upper) = (root_with_data(), root_with_data());
    write(&lower, "below", "lower", 0o644);
    write(&lower, "both", "lower", 0o644);
    write(&upper, "both", "upper", 0o644);
    let root = || RootFs::overlay([upper.path(), lower.path()]);
    for root in [root(), root().tmpfs(Bytes::mib(1))] {
        for mount in both_ways("/data") {
            let sandbox = common::sandbox().rootfs(root.clone()).mount(Bind::new("/usr", "/usr").read_only());
            let sandbox = common::shell(sandbox.mount(mount), "cd /data; cat below both; echo x > below");
            assert_eq!(common::stdout(&sandbox), "lowerupper");
        }
    }
}

#[test]
fn a_copy_is_bounded_by_the_tmpfs() {
    let _clean = common::clean();
    let sized = || Tmpfs::new("/data").copy_up().size(Bytes::kib(64));
    let long = root_with_data();
    write(&long, "a/long", &"x".repeat(100_000), 0o644);
    let many = root_with_data();
    (0..200).for_each(|i| write(&many, &format!("{i}"), "", 0o644));
    for sandbox in both_users() {
        for (root, tmpfs) in [(&long, sized()), (&many, sized().inodes(100))] {
            let error = failure(sandbox.clone(), root, tmpfs.into());
            assert_eq!((error.step(), error.raw_os_error()), (Step::CopyUp, Some(libc::ENOSPC)), "{error}");
            assert_eq!((error.kind(), error.path()), (ErrorKind::Setup, Some(Path::new("/data"))));
            assert!(error.to_string().contains("give it more"), "{error}");
        }
        assert_eq!(run(sandbox, &many, sized().into(), "ls /data | wc -l"), "200");
    }
}

#[test]
fn holes_stay_holes() {
    let _clean = common::clean();
    let root = root_with_data();
    let file = fs::File::create(root.path().join("data/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1 << 29).unwrap();
    file.set_len(1 << 30).unwrap();
    drop(file);
    if fs::metadata(root.path().join("data/sparse")).unwrap().blocks() > 1000 {
        return common::skip("the temporary directory is on a file system without holes", true);
    }
    let script = "cd /data; stat -c %s sparse; tail -c +536870913 sparse | head -c 6";
    for mount in both_ways("/data") {
        assert_eq!(run(common::as_ourselves(Sandbox::new()), &root, mount, script), "1073741824\nmiddle");
    }
}

#[test]
fn directories_too_deep_are_refused() {
    let _clean = common::clean();
    for (depth, fits) in [(127, true), (128, false), (1000, false)] {
        let root = root_with_data();
        let mut dir = root.path().join("data");
        (0..depth).for_each(|_| dir.push("d"));
        fs::create_dir_all(&dir).unwrap();
        let mount = || Tmpfs::new("/data").copy_up().into();
        let sandbox = common::as_ourselves(Sandbox::new());
        if fits {
            let script = "n=0; cd /data; while cd d 2>/dev/null; do n=$((n+1)); done; echo $n";
            assert_eq!(run(sandbox, &root, mount(), script), depth.to_string());
        } else {
            let error = failure(sandbox, &root, mount());
            assert_eq!((error.step(), error.raw_os_error()), (Step::CopyUp, Some(libc::ENAMETOOLONG)), "{error}");
        }
    }
}

#[test]
fn no_link_of_the_root_leads_out() {
    let _clean = common::clean();
    let (secret, root) = (common::TempDir::new(), common::root_dir());
    fs::write(secret.path().join("secret"), "secret").unwrap();
    fs::create_dir_all(root.path().join("real/inside")).unwrap();
    fs::write(root.path().join("real/file"), "real").unwrap();
    symlink(secret.path(), root.path().join("real/dir")).unwrap();
    symlink(secret.path().join("secret"), root.path().join("real/secret")).unwrap();
    symlink("..", root.path().join("real/inside/up")).unwrap();
    // The target itself is a link that would leave, and ends inside. In a root that the program can write to it is refused.
    symlink("../../../../real", root.path().join("data")).unwrap();
    for sandbox in both_users().into_iter().map(|sandbox| sandbox.read_only_root(true)) {
        for mount in both_ways("/data") {
            let text = run(
                sandbox.clone(),
                &root,
                mount,
                "cd /real; cat file; for l in dir secret inside/up; do readlink $l; done; cat secret 2>/dev/null || echo none",
            );
            let links = [secret.path().to_owned(), secret.path().join("secret")].map(|path| path.display().to_string());
            assert_eq!(text, format!("real{}\n{}\n..\nnone", links[0], links[1]));
        }
        // Out of the root there is nothing: a link to the secret's directory is a place that is made inside.
        symlink(secret.path(), root.path().join("out")).unwrap();
        let result = common::shell(
            common::on_root(sandbox, &root).mount(Tmpfs::new("/out").copy_up()),
            "ls -A /out; cat /out/secret 2>/dev/null",
        );
        if let Ok(output) = result.output() {
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "the secret was copied");
        }
        fs::remove_file(root.path().join("out")).unwrap();
    }
}

#[test]
fn what_is_mounted_below_is_left_out() {
    let _clean = common::clean();
    let (root, other) = (root_with_data(), common::TempDir::new());
    fs::write(other.path().join("other"), "other").unwrap();
    write(&root, "bound/own", "own", 0o644);
    write(&root, "memory/own", "own", 0o644);
    write(&root, "file", "own", 0o644);
    for sandbox in both_users() {
        for mount in both_ways("/data") {
            let sandbox = common::on_root(sandbox.clone(), &root)
                .mount(Bind::new(other.path(), "/data/bound"))
                .tmpfs("/data/memory", Bytes::mib(1))
                .mount(mount);
            assert_eq!(common::stdout(&common::shell(sandbox, "ls -A /data")), "file");
        }
    }
}

#[test]
fn owners_and_set_ids_are_those_of_the_root_where_they_may_be() {
    let _clean = common::clean();
    if common::needs_root("to give files to others") {
        return;
    }
    let root = root_with_data();
    for (name, mode) in [("plain", 0o664), ("suid", 0o4775), ("sgid", 0o2755)] {
        write(&root, name, "", mode);
        let path = root.path().join("data").join(name);
        chown(&path, Some(1234), Some(5678)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    write(&root, "mine", "", 0o4755);
    chown(root.path().join("data"), Some(1234), Some(5678)).unwrap();
    symlink("x", root.path().join("data/link")).unwrap();
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        &root.path().join("data/link"),
        Some(7.into()),
        Some(8.into()),
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .unwrap();
    let script = "cd /data; stat -c '%n %u:%g %a' . link mine plain sgid suid | sed 's/ 777$//'";
    let on = |rootfs: RootFs, sandbox: Sandbox, mount| {
        let sandbox = sandbox.rootfs(rootfs).mount(Bind::new("/usr", "/usr").read_only()).mount(mount);
        common::stdout(&common::shell(sandbox, script))
    };
    for mount in both_ways("/data") {
        let suid = on(RootFs::dir(root.path()).suid(), Sandbox::new(), mount.clone());
        let all =
            ". 1234:5678 755\nlink 7:8\nmine 0:0 4755\nplain 1234:5678 664\nsgid 1234:5678 2755\nsuid 1234:5678 4775";
        assert_eq!(suid, all);
        // The bits have no effect on this root, and would have on a tmpfs that lets them.
        let nosuid = on(RootFs::dir(root.path()), Sandbox::new(), mount.clone());
        assert_eq!(nosuid, all.replace(" 4", " ").replace(" 2755", " 755"));
        // Nobody of the sandbox is 1234: neither the set-user-ID bit nor what the group may do goes to its root.
        let mapped = on(RootFs::dir(root.path()).suid(), common::as_ourselves(Sandbox::new()), mount);
        assert_eq!(mapped, ". 0:0 755\nlink 0:0\nmine 0:0 4755\nplain 0:0 644\nsgid 0:0 755\nsuid 0:0 755");
    }
}

#[test]
fn no_device_node_is_copied() {
    let _clean = common::clean();
    if common::needs_root("to make device nodes") {
        return;
    }
    let root = root_with_data();
    let path = |name: &str| root.path().join("data").join(name);
    write(&root, "file", "", 0o644);
    mknod(&path("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    mknod(&path("disk"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o666), makedev(7, 0)).unwrap();
    mknod(&path("fifo"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
    for mount in [both_ways("/data")[1].clone(), Tmpfs::new("/data").copy_up().dev().into()] {
        let text = run(Sandbox::new(), &root, mount, "cd /data; ls; stat -c '%F %a' fifo");
        assert_eq!(text, "fifo\nfile\nfifo 640");
    }
    assert_eq!(fs::metadata(path("null")).unwrap().rdev(), makedev(1, 3));
}

/// Sets an attribute of a file.
fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    let (path, name) = (CString::new(path.as_os_str().as_bytes()).unwrap(), CString::new(name).unwrap());
    // SAFETY: both strings end with a NUL, and the value has the length that is told.
    unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) == 0 }
}

#[test]
fn extended_attributes_come_along() {
    let _clean = common::clean();
    let root = root_with_data();
    write(&root, "a/file", "", 0o644);
    let path = |name: &str| root.path().join("data").join(name);
    let long = "y".repeat(2000);
    if !set_xattr(&path("a/file"), "user.one", b"value") {
        return common::skip("the temporary directory is on a file system without user attributes", true);
    }
    if common::kernel() < (6, 6) {
        return common::skip("tmpfs has attributes of users since Linux 6.6", true);
    }
    assert!(set_xattr(&path("a/file"), "user.two", long.as_bytes()) && set_xattr(&path("a"), "user.dir", b"dir"));
    for sandbox in both_users() {
        for mount in both_ways("/data") {
            let sandbox = || common::on_root(sandbox.clone(), &root).mount(mount.clone());
            let shown = |what: &str| common::stdout(&common::probe::at(sandbox(), "/probe", what));
            assert_eq!(shown("xattrs /data/a/file user.one user.two user.three"), format!("value\n{long}\n-"));
            assert_eq!(shown("xattrs /data/a user.dir"), "dir");
        }
    }
}

#[test]
fn capabilities_of_files_come_along_where_they_have_an_effect() {
    let _clean = common::clean();
    if common::needs_root("to give files capabilities") {
        return;
    }
    let root = root_with_data();
    write(&root, "file", "", 0o755);
    // CAP_CHOWN, permitted and effective, version 2.
    let value = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(set_xattr(&root.path().join("data/file"), "security.capability", &value));
    for mount in both_ways("/data") {
        for (rootfs, has) in [(RootFs::dir(root.path()).suid(), true), (RootFs::dir(root.path()), false)] {
            let probe = std::env::current_exe().unwrap();
            let sandbox = Sandbox::new().rootfs(rootfs).mount(Bind::new("/usr", "/usr").read_only());
            let sandbox = sandbox.bind_ro(probe, "/probe").mount(mount.clone());
            let what = "xattrs /data/file security.capability";
            let text = common::stdout(&common::probe::at(sandbox, "/probe", what));
            assert_eq!(text != "-", has, "{text:?}");
        }
    }
}

/// An access list, as `system.posix_acl_access` has it: version 2, then tag, rights and id of each entry.
fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |(tag, rights, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
}

#[test]
fn a_list_that_is_lost_gives_nobody_more() {
    let _clean = common::clean();
    if common::needs_root("to give files to others") {
        return;
    }
    let root = root_with_data();
    write(&root, "file", "", 0o600);
    // The owner all, user 1,234 rw, the group nothing, at most rw, others nothing: the mode says 0660.
    let none = u32::MAX;
    let list = access_list(&[(1, 6, none), (2, 6, 1234), (4, 0, none), (16, 6, none), (32, 0, none)]);
    if !set_xattr(&root.path().join("data/file"), "system.posix_acl_access", &list) {
        return common::skip("the temporary directory is on a file system without access lists", true);
    }
    assert_eq!(fs::metadata(root.path().join("data/file")).unwrap().mode() & 0o777, 0o660);
    for mount in both_ways("/data") {
        let mode = |sandbox| run(sandbox, &root, mount.clone(), "stat -c %a /data/file");
        assert_eq!(mode(Sandbox::new()), "660", "the list came along");
        let mapped = mode(common::as_ourselves(Sandbox::new()));
        assert_eq!(mapped, "600", "user 1,234 is nobody in the sandbox, and the group is given nothing");
    }
}

#[test]
fn only_a_new_tmpfs_takes_a_copy() {
    let _clean = common::clean();
    let words = |words: &[&str]| MountOptions::parse(words);
    let refused: [Mount; 3] = [
        RawMount::new("proc", "/data", "proc").options(words(&["tmpcopyup"])).into(),
        RawMount::new("", "/data", "").options(words(&["tmpcopyup", "remount"])).into(),
        Bind::new("/usr", "/data").options(words(&["rbind", "tmpcopyup"])).into(),
    ];
    for mount in refused {
        let error = common::sandbox().rootfs(RootFs::programs()).mount(mount).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("tmpcopyup"), "{error}");
    }
}

#[test]
fn a_link_that_the_program_could_have_made_shows_no_closed_directory() {
    let _clean = common::clean();
    let root = root_with_data();
    write(&root, "closed/secret", "secret", 0o644);
    fs::set_permissions(root.path().join("data/closed"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("closed", root.path().join("data/cache")).unwrap();
    for mount in both_ways("/data/cache") {
        let error = failure(common::sandbox(), &root, mount);
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
    }
}
