//! Files whose contents the caller gives, and directories and links that are made inside.

use std::fs;
use std::os::unix::fs::symlink;

use crate::common;
use ringfence::{Bind, Command, ErrorKind, MemoryFile, RootFs, Sandbox, Tmpfs};

/// Sandboxes on each kind of root, where /usr is the host's.
fn on_each_root(host: &common::TempDir) -> Vec<(&'static str, Sandbox)> {
    vec![
        ("a directory", common::on_root(common::mounting(), host).pid_ns()),
        ("layers", common::mounting().pid_ns().rootfs(RootFs::overlay([host.path()])).bind_ro("/usr", "/usr")),
        ("programs", common::mounting().pid_ns().rootfs(RootFs::programs())),
        ("programs, strict", common::strict()),
        ("programs, without a user namespace", common::sandbox().pid_ns().rootfs(RootFs::programs())),
        ("the caller's", common::mounting().pid_ns().tmpfs("/mnt", 1 << 20)),
    ]
}

#[test]
fn a_file_from_memory_is_what_it_is_said_to_be() {
    let _clean = common::clean();
    for round in ["alone", "prepared", "pool"] {
        let host = common::root_dir();
        fs::create_dir_all(host.path().join("mnt")).unwrap();
        for (root, sandbox) in on_each_root(&host) {
            let big = "x".repeat(300_000);
            let sandbox = if root == "the caller's" { sandbox } else { sandbox.tmpfs("/mnt", 1 << 20) };
            let sandbox = sandbox
                .file("/mnt/plain", "text")
                .file("/mnt/empty", "")
                .file("/mnt/deep/er/big", &big)
                .mount(MemoryFile::new("/mnt/script", "#!/bin/sh\necho ran\n").mode(0o755))
                .mount(MemoryFile::new("/mnt/noexec", "#!/bin/sh\necho ran\n").mode(0o755).noexec())
                .mount(MemoryFile::new("/mnt/notes", "old").mode(0o666).writable());
            let script =
                "cd /mnt; cat plain; wc -c <empty; wc -c <deep/er/big; ./script; ./noexec 2>/dev/null || echo no
                          (echo x >plain) 2>/dev/null || echo sealed; chmod 777 plain 2>/dev/null || echo kept
                          stat -c %a plain script; echo new >notes; cat notes; rm plain 2>/dev/null || echo held
                          grep -c 'files from memory\\| /mnt/[a-z]* /../' /proc/self/mountinfo";
            let command = Command::new("/bin/sh").args(["-c", script]);
            let output = match round {
                "alone" => sandbox.command("/bin/sh").args(["-c", script]).output(),
                "prepared" => sandbox.prepare().unwrap().with(command).output(),
                _ => sandbox.pool(1).unwrap().output(command),
            };
            let output = output.unwrap_or_else(|error| panic!("{round}, {root}: {error}"));
            let said = String::from_utf8_lossy(&output.stdout);
            let expected = "text0\n300000\nran\nno\nsealed\nkept\n644\n755\nnew\nheld\n0\n";
            assert_eq!(said, expected, "{round}, {root}: {output:?}");
        }
    }
}

#[test]
fn a_file_from_memory_covers_what_is_there_and_changes_nothing_of_it() {
    let _clean = common::clean();
    let root = common::root_dir();
    let place = root.path().join("kept");
    fs::write(&place, "the host's").unwrap();
    let outside = common::TempDir::new();
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    symlink(outside.path().join("victim"), root.path().join("link")).unwrap();
    let sandbox = || common::on_root(common::mounting(), &root).pid_ns();
    let sealed = common::shell(sandbox().file("/kept", "mine"), "cat /kept");
    assert_eq!(common::stdout(&sealed), "mine");
    let written = sandbox().mount(MemoryFile::new("/kept", "mine").mode(0o666).writable());
    assert_eq!(common::stdout(&common::shell(written, "echo more >>/kept; cat /kept")), "minemore");
    assert_eq!(fs::read_to_string(&place).unwrap(), "the host's");
    // A link is looked up inside, where it leads nowhere.
    assert!(common::shell(sandbox().file("/link", "mine"), "true").output().is_err());
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "untouched");
}

#[test]
fn what_writable_files_take_is_bounded() {
    let _clean = common::clean();
    let sandbox = common::mounting().rootfs(RootFs::programs());
    let sandbox = sandbox.mount(MemoryFile::new("/f", "").mode(0o666).writable());
    let script = "head -c 4000000 /dev/zero >/f 2>/dev/null; wc -c </f";
    let size: u64 = common::stdout(&common::shell(sandbox, script)).parse().unwrap();
    assert!((1 << 20..=1 << 21).contains(&size), "{size}");
}

#[test]
fn directories_and_links_stand_where_they_were_asked_for() {
    let _clean = common::clean();
    let sandbox = || common::mounting().rootfs(RootFs::programs());
    let made = sandbox().dir("/a/b").symlink("b", "/a/c").symlink("/nowhere", "/x/y/z").tmpfs("/t", 1 << 20);
    let made = made.dir("/t/u").symlink("../a", "/t/v").file("/a/b/f", "text");
    let script = "cat /a/c/f; echo; readlink /x/y/z; ls -d /t/u; ls -L /t/v/";
    assert_eq!(common::stdout(&common::shell(made.clone(), script)), "text\n/nowhere\n/t/u\nb\nc");
    let pool = made.pool(1).unwrap();
    for _ in 0..2 {
        let output = pool.output(Command::new("/bin/sh").args(["-c", script])).unwrap();
        assert!(output.outcome.success(), "{output:?}");
    }
    // A directory that is there already is none to make, and a link replaces nothing.
    assert_eq!(common::stdout(&common::shell(sandbox().dir("/usr"), "echo ran")), "ran");
    let error = sandbox().symlink("/x", "/usr").command("true").output().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
}

#[test]
fn nothing_is_made_in_a_directory_of_the_callers() {
    let _clean = common::clean();
    let (root, dir) = (common::root_dir(), common::TempDir::new());
    let sandbox = || common::on_root(common::mounting(), &root);
    let bind = || Bind::new(dir.path(), "/b");
    for refused in [
        sandbox().dir("/new"),
        sandbox().symlink("x", "/new"),
        sandbox().mount(bind()).dir("/b/new"),
        sandbox().tmpfs("/b", 1 << 20).mount(bind()).symlink("x", "/b/new"),
        common::mounting().dir("/new"),
    ] {
        let error = refused.command("true").output().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("stay there"), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(!root.path().join("new").exists());
    assert!(common::shell(sandbox().mount(Tmpfs::new("/b")).dir("/b/new"), "true").output().is_ok());
}

#[test]
fn more_than_a_plan_holds_is_refused() {
    let half = vec![0u8; 33 << 20];
    let error = common::mounting().rootfs(RootFs::programs()).file("/a", &half).file("/b", &half).check().unwrap_err();
    assert!(error.to_string().contains("64.0 MiB"), "{error}");
}
