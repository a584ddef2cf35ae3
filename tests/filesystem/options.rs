//! Options of mounts, by their words: what /proc/self/mountinfo says inside, where mounts made later show, who owns the
//! files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Gid, Uid};
use ringfence::{
    Bind, Bytes, Capabilities, ErrorKind, IdMap, Mount, MountOptions, Propagation, RawMount, RootFs, Sandbox, Stdio,
    Step, Tmpfs,
};

use crate::common::refuse::{Call, Only, all_refused, before};
use crate::common::{self, probe};

common::callers! {
    "exchanges-at-mount" => exchanges_at_mount(""),
    "exchanges-at-remount" => exchanges_at_mount("remount "),
}

fn options(words: &str) -> MountOptions {
    MountOptions::parse(words.split(' '))
}

/// A mount as mountinfo has it: the options of the mount, the tags of its propagation, the options of its file system.
#[derive(Debug)]
struct Line {
    own: Vec<String>,
    tags: Vec<String>,
    superblock: Vec<String>,
}

impl Line {
    fn has(&self, word: &str) -> bool {
        self.own.iter().any(|own| own == word)
    }

    fn tag(&self, word: &str) -> bool {
        self.tags.iter().any(|tag| tag.split(':').next() == Some(word))
    }
}

/// The topmost mount at `at` of the text of a mountinfo.
fn line(text: &str, at: &str) -> Line {
    let found = text.lines().rev().find(|line| line.split(' ').nth(4) == Some(at));
    let found = found.unwrap_or_else(|| panic!("{at} is not mounted:\n{text}"));
    let (before, after) = found.split_once(" - ").unwrap();
    let split = |text: &str| text.split(',').map(str::to_owned).collect();
    let tags = before.split(' ').skip(6).map(str::to_owned).collect();
    Line { own: split(before.split(' ').nth(5).unwrap()), tags, superblock: split(after.split(' ').nth(2).unwrap()) }
}

/// The mountinfo inside, with these mounts.
fn table(sandbox: Sandbox, mounts: impl IntoIterator<Item = Mount>) -> String {
    let root = common::root_dir();
    let sandbox = common::on_root(sandbox, &root).pid_ns();
    common::stdout(&common::shell(mounts.into_iter().fold(sandbox, Sandbox::mount), "cat /proc/self/mountinfo"))
}

/// The sandboxes in which mounts are tried: as root without and with a user namespace, else with one.
fn both() -> Vec<Sandbox> {
    let with_user = common::as_ourselves(Sandbox::new());
    if common::is_root() { vec![Sandbox::new(), with_user] } else { vec![with_user] }
}

/// The attributes of a mount that are on and off as the words of mountinfo.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("nodiratime", "diratime"),
    ("nosymfollow", "symfollow"),
];

#[test]
fn each_attribute_of_a_new_file_system_shows_in_the_mount_table() {
    let _clean = common::clean();
    let symlinks = common::kernel() >= (5, 14);
    for sandbox in both() {
        let known = || ATTRIBUTES.into_iter().filter(|(word, _)| symlinks || *word != "nosymfollow");
        let mounts = known().enumerate().flat_map(|(i, (set, clear))| {
            let fs = |name: &str, words: &str| -> Mount {
                RawMount::new("tmpfs", format!("/tmp/{name}{i}"), "tmpfs").options(options(words)).into()
            };
            [
                fs("set", set),
                fs("below", &format!("r{set}")),
                fs("clear", &format!("{set} {clear}")),
                fs("twice", &format!("{set} r{clear}")),
            ]
        });
        let text = table(sandbox, mounts.collect::<Vec<_>>());
        for (i, (set, _)) in known().enumerate() {
            for (name, has) in [("set", true), ("below", true), ("clear", false), ("twice", false)] {
                let line = line(&text, &format!("/tmp/{name}{i}"));
                assert_eq!(line.has(set), has, "{name} {set}: {line:?}");
            }
        }
    }
}

#[test]
fn each_way_of_keeping_access_times_shows_in_the_mount_table() {
    let _clean = common::clean();
    // What mountinfo says: a strict mount has neither word.
    let cases = [
        ("defaults", "relatime"),
        ("noatime", "noatime"),
        ("relatime", "relatime"),
        ("strictatime", ""),
        ("noatime atime", "relatime"),
        ("strictatime nostrictatime", "relatime"),
        ("norelatime", "relatime"),
        ("rnoatime", "noatime"),
        ("rstrictatime", ""),
        ("rrelatime", "relatime"),
        ("noatime ratime", "relatime"),
        ("strictatime rnostrictatime", "relatime"),
        ("rnorelatime", "relatime"),
    ];
    let dir = common::TempDir::new();
    for (number, sandbox) in both().into_iter().enumerate() {
        // In a user namespace a bind keeps the way of the host.
        let is_bound = common::is_root() && number == 0;
        let name = |kind: &str, i: usize| format!("/tmp/{kind}{i}");
        let mut mounts: Vec<Mount> = Vec::new();
        for (i, (words, _)) in cases.iter().enumerate() {
            mounts.push(RawMount::new("tmpfs", name("fs", i), "tmpfs").options(options(words)).into());
            if is_bound {
                mounts.push(Bind::new(dir.path(), name("bind", i)).options(options(words)).into());
            }
        }
        let text = table(sandbox, mounts);
        for (i, (words, shown)) in cases.iter().enumerate() {
            for kind in ["fs", "bind"].into_iter().take(if is_bound { 2 } else { 1 }) {
                if kind == "bind" && *words == "defaults" {
                    continue;
                }
                let line = line(&text, &name(kind, i));
                let found = ["noatime", "relatime"].into_iter().find(|word| line.has(word)).unwrap_or_default();
                assert_eq!(found, *shown, "{kind} {words}: {line:?}");
            }
        }
    }
}

#[test]
fn flags_of_a_file_system_show_in_the_mount_table() {
    let _clean = common::clean();
    for sandbox in both() {
        let cases = [("sync", "sync"), ("dirsync", "dirsync"), ("lazytime", "lazytime"), ("ro", "ro")];
        let mut mounts: Vec<Mount> = Vec::new();
        for (word, _) in cases {
            mounts.push(RawMount::new("tmpfs", format!("/tmp/{word}"), "tmpfs").options(options(word)).into());
        }
        let back =
            options("sync async lazytime nolazytime silent loud iversion noiversion mand nomand defaults size=8k");
        mounts.push(RawMount::new("tmpfs", "/tmp/back", "tmpfs").options(back).into());
        mounts.push(RawMount::new("tmpfs", "/tmp/quiet", "tmpfs").options(options("silent iversion mode=700")).into());
        let text = table(sandbox, mounts);
        for (word, shown) in cases {
            let line = line(&text, &format!("/tmp/{word}"));
            assert!(line.superblock.iter().any(|option| option == shown), "{word}: {line:?}");
        }
        let back = line(&text, "/tmp/back");
        assert!(!back.superblock.iter().any(|option| ["sync", "lazytime", "mand"].contains(&option.as_str())));
        assert!(back.superblock.iter().any(|option| option == "size=8k"), "{back:?}");
        assert!(line(&text, "/tmp/quiet").superblock.iter().any(|option| option == "mode=700"));
    }
}

#[test]
fn attributes_of_a_bind_hold_for_it_alone_or_for_what_is_below() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for sandbox in both() {
        // Without a root of its own, the list's first mount is one below the source.
        let at = common::TempDir::new();
        let top = at.path().to_str().unwrap();
        let run = |words: &str| {
            let sandbox = common::shell(sandbox.clone().pid_ns(), "cat /proc/self/mountinfo");
            let below = Tmpfs::new(dir.path().join("sub")).suid().dev();
            let bind = Bind::new(dir.path(), at.path()).options(options(words));
            let text = common::stdout(&sandbox.mount(below).mount(bind));
            let has_below = text.lines().any(|line| line.split(' ').nth(4) == Some(&format!("{top}/sub")));
            (line(&text, top), has_below.then(|| line(&text, &format!("{top}/sub"))))
        };
        let (own, below) = run("rbind ro nosuid nodev");
        assert!(own.has("ro") && own.has("nosuid") && own.has("nodev"), "{own:?}");
        let below = below.unwrap();
        assert!(!below.has("ro") && !below.has("nosuid") && !below.has("nodev"), "{below:?}");
        let (own, below) = run("rbind rro rnosuid");
        assert!(own.has("ro") && own.has("nosuid"), "{own:?}");
        let below = below.unwrap();
        assert!(below.has("ro") && below.has("nosuid"), "{below:?}");
        let (own, below) = run("rbind ro rnoexec rrw");
        assert!(!own.has("ro") && own.has("noexec") && below.unwrap().has("noexec"), "the r word is later: {own:?}");
        assert!(run("bind ro").1.is_none(), "what is below stays out");
    }
}

#[test]
fn a_remount_changes_what_is_mounted_already() {
    let _clean = common::clean();
    for sandbox in both() {
        let tmpfs = |at: &str| RawMount::new("tmpfs", at, "tmpfs");
        let text = table(
            sandbox,
            [
                tmpfs("/tmp/one").options(options("nosuid")).into(),
                RawMount::new("none", "/tmp/one", "none").options(options("remount bind ro noexec")).into(),
                tmpfs("/tmp/two").options(options("size=8k")).into(),
                RawMount::new("none", "/tmp/two", "none").options(options("remount nodev size=16k")).into(),
            ],
        );
        let one = line(&text, "/tmp/one");
        assert!(one.has("ro") && one.has("noexec") && one.has("nosuid"), "{one:?}");
        assert!(one.superblock.iter().any(|option| option == "rw"), "the mount alone: {one:?}");
        let two = line(&text, "/tmp/two");
        assert!(two.has("nodev") && two.superblock.iter().any(|option| option == "size=16k"), "{two:?}");
        assert_eq!(text.lines().filter(|line| line.split(' ').nth(4) == Some("/tmp/one")).count(), 1);
    }
}

#[test]
fn each_propagation_shows_in_the_mount_table() {
    let _clean = common::clean();
    if common::kernel() < (5, 12) {
        return common::skip("propagation needs mount_setattr(2)", true);
    }
    let dir = common::TempDir::new();
    for sandbox in both() {
        let mut mounts: Vec<Mount> = Vec::new();
        for word in ["private", "shared", "unbindable", "rprivate", "rshared", "runbindable"] {
            mounts.push(RawMount::new("tmpfs", format!("/tmp/fs-{word}"), "tmpfs").options(options(word)).into());
            let words = if word.contains("shared") { format!("private {word}") } else { word.to_owned() };
            mounts.push(Bind::new(dir.path(), format!("/tmp/bind-{word}")).options(options(&words)).into());
        }
        let text = table(sandbox, mounts);
        for kind in ["fs", "bind"] {
            for (word, tag) in [("private", None), ("shared", Some("shared")), ("unbindable", Some("unbindable"))] {
                for name in [word.to_owned(), format!("r{word}")] {
                    let line = line(&text, &format!("/tmp/{kind}-{name}"));
                    let found = ["shared", "unbindable", "master"].into_iter().find(|tag| line.tag(tag));
                    assert_eq!(found, tag, "{kind} {name}: {line:?}");
                }
            }
        }
    }
}

/// Another process exchanges the directory above the target for one in which something else is mounted, just when the
/// mount is made, or is changed.
fn exchanges_at_mount(first_word: &str) {
    const QUIET: &str = "nosuid nodev noexec sync";
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_SYNCHRONOUS;
    let flags = if first_word.is_empty() { flags } else { flags | libc::MS_REMOUNT };
    let calls = [Call { number: libc::SYS_mount, only: Only::Equal(3, flags as u32) }];
    let root = common::root_dir();
    let (one, other) = (root.path().join("one"), root.path().join("other"));
    before(&calls, move || {
        let (cwd, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
        nix::fcntl::renameat2(cwd, &one, cwd, &other, flags).unwrap();
    });
    let _clean = common::clean();
    for sandbox in both() {
        for dir in ["one/in", "other/in"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let sandbox = common::on_root(sandbox, &root).pid_ns();
        let sandbox = sandbox.mount(RawMount::new("bystander", "/other/in", "tmpfs"));
        let sandbox =
            if first_word.is_empty() { sandbox } else { sandbox.mount(RawMount::new("meant", "/one/in", "tmpfs")) };
        let words = options(&format!("{first_word}{QUIET} nosymfollow unbindable"));
        let sandbox = sandbox.mount(RawMount::new("meant", "/one/in", "tmpfs").options(words));
        let text = common::stdout(&common::shell(sandbox, "cat /proc/self/mountinfo"));
        let of = |source: &str| {
            let named = |line: &&str| line.split(' ').rev().nth(1) == Some(source);
            let found = text.lines().find(named).unwrap_or_else(|| panic!("no {source}:\n{text}"));
            line(found, found.split(' ').nth(4).unwrap())
        };
        let (meant, bystander) = (of("meant"), of("bystander"));
        assert!(meant.has("nosymfollow") && meant.tag("unbindable"), "{meant:?}");
        assert!(!bystander.has("nosymfollow") && !bystander.tag("unbindable"), "{bystander:?}");
        all_refused(&calls);
    }
}

#[test]
fn an_exchange_while_a_mount_is_made_gives_no_other_mount_its_options() {
    let _clean = common::clean();
    if common::kernel() < (5, 14) {
        return common::skip("nosymfollow needs Linux 5.14", true);
    }
    for case in ["exchanges-at-mount", "exchanges-at-remount"] {
        probe::succeeds(probe::caller(case));
    }
}

#[test]
fn the_root_gets_its_propagation() {
    let _clean = common::clean();
    for sandbox in both() {
        for (propagation, tag) in [
            (Propagation::Private, None),
            (Propagation::RPrivate, None),
            (Propagation::Shared, Some("shared")),
            (Propagation::RShared, Some("shared")),
            (Propagation::Unbindable, Some("unbindable")),
            (Propagation::RSlave, None),
        ] {
            let dir = common::root_dir();
            let sandbox = common::on_root(sandbox.clone(), &dir).pid_ns();
            let sandbox = sandbox.rootfs(RootFs::dir(dir.path()).propagation(propagation)).tmpfs("/tmp", Bytes::mib(1));
            let text = common::stdout(&common::shell(sandbox, "cat /proc/self/mountinfo"));
            let (root, below) = (line(&text, "/"), line(&text, "/tmp"));
            let found = |line: &Line| ["shared", "unbindable", "master"].into_iter().find(|tag| line.tag(tag));
            assert_eq!(found(&root), tag, "{propagation:?}: {root:?}");
            let expected = tag.filter(|_| propagation == Propagation::RShared);
            assert_eq!(found(&below), expected, "{propagation:?}: {below:?}");
        }
    }
}

/// A shared mount of the host's, in a directory of the test's own.
struct SharedMount(common::TempDir);

impl SharedMount {
    fn new() -> Self {
        let dir = common::TempDir::new();
        let none = None::<&str>;
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        mount(none, dir.path(), none, MsFlags::MS_SHARED, none).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        SharedMount(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Mounts a tmpfs with a file on a directory of this one.
    fn mount_below(&self) {
        let sub = self.path().join("sub");
        mount(Some("tmpfs"), &sub, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        fs::write(sub.join("late"), "").unwrap();
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        while umount2(&self.path().join("sub"), MntFlags::MNT_DETACH).is_ok() {}
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// What the program sees of a mount that is made below the source while it runs.
fn late(sandbox: Sandbox, words: &str) -> String {
    let (source, root) = (SharedMount::new(), common::root_dir());
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let bind = Bind::new(source.path(), "/srv").options(options(words));
    let sandbox = common::on_root(sandbox, &root).pid_ns().mount(bind);
    let script = "read line; echo $line; read line; ls /srv/sub; true";
    let mut child = common::shell(sandbox, script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    common::answers(&mut child);
    source.mount_below();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.outcome.success());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn mounts_made_on_the_host_later_come_into_a_slave() {
    let _clean = common::clean();
    if common::needs_root("to mount on the host") {
        return;
    }
    let ids = IdMap::new(0, 100_000, 1000);
    let mapped = Sandbox::new().user_ns().uid_map(ids).gid_map(ids);
    for sandbox in both().into_iter().chain([mapped]) {
        for (words, seen) in [("rbind", ""), ("rbind rprivate", ""), ("rbind rslave", "late"), ("bind slave", "late")] {
            assert_eq!(late(sandbox.clone(), words), seen, "{words}");
        }
        assert_eq!(late(sandbox.clone(), "rbind rshared"), "late");
        assert_eq!(late(sandbox, "rbind rslave rshared nosuid"), "late");
    }
}

#[test]
fn a_mount_goes_out_of_a_shared_bind_and_of_no_other() {
    let _clean = common::clean();
    if common::needs_root("to mount on the host") {
        return;
    }
    let user = || common::as_ourselves(Sandbox::new()).capabilities(Capabilities::all_but([]));
    let same = || [IdMap::new(0, 0, 65_536)];
    // The caller copies a mount whose ids it maps, and the sandbox one whose ids it does not.
    let mapped = || options("rbind rshared ridmap").id_maps(same(), same());
    for (sandbox, words, goes_out) in [
        (Sandbox::new(), options("rbind rshared"), true),
        (Sandbox::new(), options("rbind rslave"), false),
        (Sandbox::new(), options("rbind rslave rshared"), false),
        (Sandbox::new(), options("rbind"), false),
        (user(), options("rbind rshared"), false),
        (user(), mapped(), false),
    ] {
        let (source, root) = (SharedMount::new(), common::root_dir());
        let bind = Bind::new(source.path(), "/srv").options(words.clone());
        let sandbox = common::on_root(sandbox, &root).pid_ns().mount(bind);
        let sandbox = common::shell(sandbox, "mount -t tmpfs tmpfs /srv/sub && touch /srv/sub/made");
        let Some(output) = maps_ids(sandbox.output()) else { return };
        assert!(output.outcome.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(source.path().join("sub/made").exists(), goes_out, "{words:?}");
    }
}

#[test]
fn nothing_is_mounted_on_a_shared_bind() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let shared =
        || Sandbox::new().rootfs(RootFs::programs()).mount(Bind::new(dir.path(), "/srv").options(options("rshared")));
    for sandbox in
        [shared().tmpfs("/srv/sub", Bytes::mib(1)), shared().mask("/srv/x"), shared().tmpfs("/srv/", Bytes::mib(1))]
    {
        let error = common::as_ourselves(sandbox).check().unwrap_err();
        assert!(error.to_string().contains("shared bind"), "{error}");
    }
    common::as_ourselves(shared().tmpfs("/srv2", Bytes::mib(1))).check().unwrap();
}

#[test]
fn no_link_makes_a_mount_of_the_setup_go_out() {
    let _clean = common::clean();
    if common::needs_root("to mount on the host") {
        return;
    }
    let (source, root) = (SharedMount::new(), common::root_dir());
    fs::create_dir(root.path().join("srv")).unwrap();
    symlink("srv", root.path().join("a")).unwrap();
    let shared = |at: &str| Bind::new(source.path(), at).options(options("rbind rshared"));
    let on_root = || common::on_root(Sandbox::new(), &root).pid_ns();
    let sandbox = on_root().mount(shared("/srv")).tmpfs("/a/sub", Bytes::mib(1));
    common::stdout(&common::shell(sandbox, "ls /srv"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let sub = source.path().join("sub");
    let is_sub = |line: &&str| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == sub);
    assert_eq!(mounts.lines().find(is_sub), None, "a mount of the sandbox's is on the host");
    // Nor does a link lead to where a shared bind goes.
    let layers = on_root().rootfs(RootFs::overlay([root.path()])).mount(shared("/a"));
    let error = common::shell(layers, "true").output().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::MountTarget, Some(libc::ELOOP)), "{error}");
}

#[test]
fn attributes_that_are_locked_in_a_user_namespace_stay() {
    let _clean = common::clean();
    if common::needs_root("to mount on the host") {
        return;
    }
    let source = common::TempDir::new();
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    mount(Some("tmpfs"), source.path(), Some("tmpfs"), closed, Some("size=64k")).unwrap();
    let with = |sandbox: Sandbox, words: &str| {
        let root = common::root_dir();
        let bind = Bind::new(source.path(), "/srv").options(options(words));
        let sandbox = common::on_root(sandbox, &root).pid_ns().mount(bind);
        common::shell(sandbox, "cat /proc/self/mountinfo").output()
    };
    let shown = |sandbox, words| line(&String::from_utf8_lossy(&with(sandbox, words).unwrap().stdout), "/srv");
    let results = std::panic::catch_unwind(|| {
        let user = || common::as_ourselves(Sandbox::new());
        let kept = shown(user(), "rbind rw suid dev exec atime diratime symfollow");
        assert!(["ro", "nosuid", "nodev", "noexec", "noatime"].iter().all(|word| kept.has(word)), "{kept:?}");
        // The file system's own times are locked: what a word sets is not dropped, but refused.
        let error = with(user(), "rbind strictatime").unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::MountAttr, Some(libc::EPERM)), "{error}");
        assert_eq!(error.kind(), ErrorKind::Setup);
        let error = with(user(), "rbind rrw").unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::MountAttr, Some(libc::EPERM)), "{error}");
        let opened = shown(Sandbox::new(), "rbind suid dev exec atime");
        assert!(["nosuid", "nodev", "noexec", "noatime"].iter().all(|word| !opened.has(word)), "{opened:?}");
        assert!(opened.has("ro"), "no word was about it: {opened:?}");
    });
    umount2(source.path(), MntFlags::MNT_DETACH).unwrap();
    results.unwrap();
}

/// A sandbox whose root is 100,000 outside, on a root that belongs to it.
fn mapped(root: &common::TempDir) -> Sandbox {
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(root.path(), Some(100_000), Some(100_000)).unwrap();
    let ids = IdMap::new(0, 100_000, 65_536);
    common::on_root(Sandbox::new().user_ns().uid_map(ids).gid_map(ids), root).pid_ns()
}

/// A directory of the first of these owners, with a file of each of them.
fn owned(owners: &[u32]) -> common::TempDir {
    let dir = common::TempDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(dir.path(), owners.first().copied(), owners.first().copied()).unwrap();
    for owner in owners {
        let path = dir.path().join(owner.to_string());
        fs::write(&path, "").unwrap();
        chown(&path, Some(*owner), Some(*owner)).unwrap();
    }
    dir
}

/// Whether the host's temporary directory maps ids, which the first id-mapped bind shows.
pub(super) fn maps_ids(output: ringfence::Result<ringfence::Output>) -> Option<ringfence::Output> {
    match output {
        Err(error) if error.step() == Step::IdMapMount && error.raw_os_error() == Some(libc::EINVAL) => {
            common::skip("the temporary directory is on a file system that maps no ids", true);
            None
        }
        other => Some(other.unwrap_or_else(|error| panic!("{error}"))),
    }
}

#[test]
fn an_id_mapped_bind_shows_and_makes_files_of_other_owners() {
    let _clean = common::clean();
    if common::needs_root("to map the ids of a mount") {
        return;
    }
    if common::kernel() < (5, 12) {
        return common::skip("id-mapped mounts need Linux 5.12", true);
    }
    let script = "stat -c '%n %u:%g' /srv/* && touch /srv/new && stat -c '%u:%g' /srv/new";
    // Anna is 1,000 on disk, and root of the sandbox is 100,000 outside.
    let lines = || [IdMap::new(1000, 100_000, 1)];
    let given: [fn(&Path) -> Bind; 2] = [
        |dir| Bind::new(dir, "/srv").id_mapped([IdMap::new(1000, 100_000, 1)], [IdMap::new(1000, 100_000, 1)]),
        |dir| {
            let maps = || [IdMap::new(1000, 100_000, 1)];
            Bind::new(dir, "/srv").options(MountOptions::parse(["rbind", "ridmap", "nosuid"]).id_maps(maps(), maps()))
        },
    ];
    for bind in given {
        let (dir, root) = (owned(&[1000, 1001]), common::root_dir());
        let prepared = common::shell(mapped(&root).mount(bind(dir.path())), script).prepare().unwrap();
        for _ in 0..2 {
            let Some(output) = maps_ids(prepared.output()) else { return };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(
                text,
                "/srv/1000 0:0\n/srv/1001 65534:65534\n0:0\n",
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let meta = fs::metadata(dir.path().join("new")).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1000, 1000), "on disk");
            fs::remove_file(dir.path().join("new")).unwrap();
        }
    }
    // Without a user namespace as well.
    let (dir, root) = (owned(&[1000]), common::root_dir());
    let bind =
        Bind::new(dir.path(), "/srv").id_mapped([IdMap::new(1000, 0, 1)], lines().map(|l| IdMap::new(l.inside, 0, 1)));
    let sandbox = common::on_root(Sandbox::new(), &root).mount(bind);
    assert_eq!(common::stdout(&common::shell(sandbox, script)), "/srv/1000 0:0\n0:0");
    let meta = fs::metadata(dir.path().join("new")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1000, 1000));
}

#[test]
fn a_bind_takes_the_maps_of_the_sandbox() {
    let _clean = common::clean();
    if common::needs_root("to map the ids of a mount") {
        return;
    }
    let script = "stat -c '%n %u:%g' /srv/* && touch /srv/new && chown 7:8 /srv/new";
    let (dir, root) = (owned(&[0, 1000]), common::root_dir());
    let bind = Bind::new(dir.path(), "/srv").options(options("rbind ridmap"));
    let sandbox = mapped(&root).mount(bind);
    let Some(output) = maps_ids(common::shell(sandbox, script).output()) else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/srv/0 0:0\n/srv/1000 1000:1000\n");
    let meta = fs::metadata(dir.path().join("new")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (7, 8), "on disk");
    let without = Sandbox::new().rootfs(RootFs::programs()).mount(Bind::new("/etc", "/srv").options(options("idmap")));
    let error = without.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn a_user_who_may_not_map_ids_is_told() {
    let _clean = common::clean();
    if Uid::effective().is_root() {
        return;
    }
    let own = (Uid::effective().as_raw(), Gid::effective().as_raw());
    let bind = Bind::new("/etc", "/srv").id_mapped([IdMap::new(0, own.0, 1)], [IdMap::new(0, own.1, 1)]);
    let error = common::sandbox().rootfs(RootFs::programs()).mount(bind).check().unwrap_err();
    assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
}
