//! What a program has changed in the upper of an overlay, listed and committed into the directory below.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use crate::common::refuse::{Call, Only, refuse};
use crate::common::{self, TempDir, probe};
use ringfence::{ChangeKind, Changes, ErrorKind, RootFs, UpperDir};

common::callers! {
    |words|
    "discards" => discards(Path::new(words[1])),
}

/// A place with `upper`, `work` and `below`, as an overlay has them.
struct Layers {
    dir: TempDir,
}

impl Layers {
    fn new() -> Layers {
        let layers = Layers { dir: TempDir::new() };
        for name in ["upper", "work", "below"] {
            fs::create_dir(layers.path(name)).unwrap();
        }
        layers
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn upper(&self) -> UpperDir {
        UpperDir::new(self.path("upper"), self.path("below"))
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }
}

fn listed(changes: &Changes) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

/// Everything in a directory: paths with the kind, mode and contents or target of each.
fn tree(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(path) = dirs.pop() {
        for entry in fs::read_dir(dir.join(&path)).unwrap().flatten() {
            let path = path.join(entry.file_name());
            let meta = entry.metadata().unwrap();
            let kind = meta.file_type();
            let contents = if kind.is_file() {
                fs::read(entry.path()).unwrap()
            } else if kind.is_symlink() {
                fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
            } else {
                Vec::new()
            };
            if kind.is_dir() {
                dirs.push(path.clone());
            }
            all.push((path, meta.mode(), contents));
        }
    }
    all.sort();
    all
}

/// What the sandboxes of the test change, with all that overlayfs has a mark for.
const SCRIPT: &str = "cd /data
    echo new >added; mkdir -p dir/deep; echo deep >dir/deep/file; echo more >>kept/changed
    rm gone; rm -r gone-dir; rm -r emptied; mkdir emptied; echo fresh >emptied/fresh
    rm file-to-dir; mkdir file-to-dir; rm -r dir-to-file; echo now >dir-to-file
    ln -s /etc/passwd link; mkfifo pipe; chmod 0750 mode; chmod 0640 kept/mode; mv moved was-moved
    cat /data/added";

fn lower_of(layers: &Layers) {
    for path in ["kept/changed", "kept/same", "kept/mode", "gone", "gone-dir/a/b", "emptied/old", "emptied/deep/old"] {
        layers.write(&format!("below/data/{path}"), "old\n");
    }
    for path in ["file-to-dir", "dir-to-file/inner", "mode/file", "moved"] {
        layers.write(&format!("below/data/{path}"), "old\n");
    }
}

#[test]
fn a_commit_gives_what_the_program_has_seen() {
    let _clean = common::clean();
    let layers = Layers::new();
    lower_of(&layers);
    fs::create_dir_all(layers.path("shown")).unwrap();
    // What the program makes belongs to whoever runs the test, outside too.
    let base =
        if common::is_root() { ringfence::Sandbox::new() } else { common::as_ourselves(ringfence::Sandbox::new()) };
    for dir in ["bin", "sbin", "lib", "lib64", "lib32"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(dir)) {
            symlink(target, layers.path("below").join(dir)).unwrap();
        }
    }
    fs::create_dir(layers.path("below/usr")).unwrap();
    fs::set_permissions(layers.path("below/data"), fs::Permissions::from_mode(0o777)).unwrap();
    let before = tree(&layers.path("below/data"));
    let root = RootFs::overlay([layers.path("below")]).upper(layers.path("upper"), layers.path("work"));
    let sandbox = base.rootfs(root).bind_ro("/usr", "/usr").default_mounts(false);
    // A copy, made by the program, of what it sees at its end.
    let sandbox = sandbox.bind(layers.path("shown"), "/mnt");
    let output = common::shell(sandbox, &format!("{SCRIPT}; cp -a /data/. /mnt")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), errors.as_str()), ("new\n", ""));
    assert_eq!(tree(&layers.path("below/data")), before, "nothing is there before the commit");

    let mut changes = layers.upper().changes().unwrap();
    let shown: Vec<_> = listed(&changes).into_iter().filter(|line| line.contains("data/")).collect();
    let expected = [
        r#"A "data/added""#,
        r#"A "data/dir""#,
        r#"R "data/dir-to-file""#,
        r#"A "data/dir/deep""#,
        r#"A "data/dir/deep/file""#,
        r#"R "data/emptied""#,
        r#"A "data/emptied/fresh""#,
        r#"R "data/file-to-dir""#,
        r#"D "data/gone""#,
        r#"D "data/gone-dir""#,
        r#"M "data/kept/changed""#,
        r#"M "data/kept/mode""#,
        r#"A "data/link""#,
        r#"M "data/mode""#,
        r#"D "data/moved""#,
        r#"A "data/pipe""#,
        r#"A "data/was-moved""#,
    ];
    let mut sorted = shown.clone();
    sorted.sort_by(|a, b| a[2..].cmp(&b[2..]));
    let mut wanted = expected.to_vec();
    wanted.sort_by(|a, b| a[2..].cmp(&b[2..]));
    assert_eq!(sorted, wanted);
    changes.commit().unwrap();
    assert!(changes.is_empty() && changes.committed().len() >= expected.len());
    assert_eq!(tree(&layers.path("below/data")), tree(&layers.path("shown")));
    assert!(fs::metadata(layers.path("below/data/pipe")).unwrap().file_type().is_fifo());
    // The same upper on what is below now removes nothing more, and a second commit changes nothing.
    let mut again = layers.upper().changes().unwrap();
    assert!(again.iter().all(|change| change.kind != ChangeKind::Removed));
    again.commit().unwrap();
    assert_eq!(tree(&layers.path("below/data")), tree(&layers.path("shown")));
    layers.upper().discard().unwrap();
    assert!(layers.upper().changes().unwrap().is_empty());
    assert_eq!(fs::read_dir(layers.path("upper")).unwrap().count(), 0);
    assert_eq!(tree(&layers.path("below/data")), tree(&layers.path("shown")));
}

#[test]
fn owner_mode_time_and_attributes_are_those_of_the_upper() {
    let _clean = common::clean();
    let layers = Layers::new();
    layers.write("upper/dir/file", "text");
    layers.write("upper/closed/file", "text");
    layers.write("below/dir/file", "old");
    let owner =
        if common::is_root() { (4242, 4343) } else { (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()) };
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for (path, mode) in [("dir/file", 0o640), ("dir", 0o750), ("closed", 0o500)] {
        let path = layers.path("upper").join(path);
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    let path = CString::new(layers.path("upper/dir/file").as_os_str().as_bytes()).unwrap();
    // SAFETY: the strings end with a NUL, and the value has the length that is given.
    let kept = unsafe { libc::setxattr(path.as_ptr(), c"user.kept".as_ptr(), c"yes".as_ptr().cast(), 3, 0) } == 0;
    layers.upper().changes().unwrap().commit().unwrap();
    for (name, mode) in [("dir/file", 0o640), ("dir", 0o750), ("closed", 0o500)] {
        let meta = fs::metadata(layers.path("below").join(name)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (mode, owner.0, owner.1), "{name}");
        assert_eq!(meta.modified().unwrap(), time, "{name}");
    }
    assert_eq!(fs::read(layers.path("below/closed/file")).unwrap(), b"text", "it was made before it was closed");
    let path = CString::new(layers.path("below/dir/file").as_os_str().as_bytes()).unwrap();
    let mut value = [0u8; 8];
    // SAFETY: the strings end with a NUL, and the kernel writes at most as much as there is.
    let got = unsafe { libc::getxattr(path.as_ptr(), c"user.kept".as_ptr(), value.as_mut_ptr().cast(), 8) };
    assert!(!kept || (got == 3 && &value[..3] == b"yes"));
    fs::set_permissions(layers.path("upper/closed"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(layers.path("below/closed"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn names_are_any_bytes() {
    let _clean = common::clean();
    let layers = Layers::new();
    let names: [&[u8]; 5] = [b"line\nbreak", b"\xff\xfe", b"..hidden", b" ", b"$(reboot)"];
    for name in names {
        fs::write(layers.path("upper").join(OsStr::from_bytes(name)), name).unwrap();
    }
    let mut changes = layers.upper().changes().unwrap();
    assert!(listed(&changes).iter().all(|line| !line.contains('\n')), "{:?}", listed(&changes));
    changes.commit().unwrap();
    for name in names {
        assert_eq!(fs::read(layers.path("below").join(OsStr::from_bytes(name))).unwrap(), name);
    }
    assert_eq!(fs::read_dir(layers.path("below")).unwrap().count(), names.len());
}

#[test]
fn powers_and_devices_are_refused_before_anything_is_changed() {
    let _clean = common::clean();
    let layers = Layers::new();
    layers.write("upper/a-first", "text");
    layers.write("upper/tool", "text");
    for mode in [0o4755, 0o2755] {
        fs::set_permissions(layers.path("upper/tool"), fs::Permissions::from_mode(mode)).unwrap();
        let error = layers.upper().changes().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("set-user-ID") && error.path().unwrap().ends_with("upper/tool"), "{error}");
    }
    assert_eq!(fs::read_dir(layers.path("below")).unwrap().count(), 0);
    layers.upper().set_ids(true).changes().unwrap().commit().unwrap();
    assert_eq!(fs::metadata(layers.path("below/tool")).unwrap().mode() & 0o7777, 0o2755);
    fs::remove_file(layers.path("upper/tool")).unwrap();
    if common::needs_root("a device node") {
        return;
    }
    mknod(&layers.path("upper/null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    let error = layers.upper().changes().unwrap_err();
    assert!(error.to_string().contains("device"), "{error}");
    layers.upper().devices(true).changes().unwrap().commit().unwrap();
    assert_eq!(fs::metadata(layers.path("below/null")).unwrap().rdev(), makedev(1, 3));
}

#[test]
fn an_upper_that_changes_after_the_list_gets_no_powers() {
    let _clean = common::clean();
    let layers = Layers::new();
    layers.write("upper/a", "a");
    layers.write("upper/b", "b");
    layers.write("upper/c", "c");
    let mut changes = layers.upper().changes().unwrap();
    fs::set_permissions(layers.path("upper/b"), fs::Permissions::from_mode(0o4755)).unwrap();
    let error = changes.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    // It says exactly what was done, and goes on from there.
    assert_eq!(changes.committed().iter().map(|change| change.path.to_str().unwrap()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(listed(&changes), [r#"A "b""#, r#"A "c""#]);
    assert_eq!(tree(&layers.path("below")).len(), 1);
    fs::set_permissions(layers.path("upper/b"), fs::Permissions::from_mode(0o755)).unwrap();
    changes.commit().unwrap();
    assert_eq!((tree(&layers.path("below")).len(), changes.committed().len()), (3, 3));
}

#[test]
fn links_lead_nowhere() {
    let _clean = common::clean();
    let layers = Layers::new();
    let victim = layers.path("victim");
    layers.write("victim/file", "precious");
    // A link in the upper is a link below.
    symlink(&victim, layers.path("upper/link")).unwrap();
    symlink(victim.join("file"), layers.path("upper/file")).unwrap();
    layers.upper().changes().unwrap().commit().unwrap();
    assert_eq!(fs::read_link(layers.path("below/link")).unwrap(), victim);
    // Now a directory and a file of the upper stand where links are below.
    layers.upper().discard().unwrap();
    layers.write("upper/link/file", "evil");
    layers.write("upper/file", "evil");
    let mut changes = layers.upper().changes().unwrap();
    assert_eq!(listed(&changes), [r#"R "file""#, r#"R "link""#, r#"A "link/file""#]);
    changes.commit().unwrap();
    assert_eq!(fs::read(layers.path("below/link/file")).unwrap(), b"evil");
    assert_eq!(tree(&victim).len(), 1);
    assert_eq!(fs::read(victim.join("file")).unwrap(), b"precious");
    // The directory below got a link after the list.
    layers.upper().discard().unwrap();
    layers.write("upper/link/file", "evil");
    let mut changes = layers.upper().changes().unwrap();
    fs::remove_dir_all(layers.path("below/link")).unwrap();
    symlink(&victim, layers.path("below/link")).unwrap();
    changes.commit().unwrap_err();
    assert_eq!(fs::read(victim.join("file")).unwrap(), b"precious");
}

/// Ends the other thread, also where the test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn links_that_take_turns_with_directories_lead_nowhere() {
    let _clean = common::clean();
    let layers = Layers::new();
    layers.write("victim/secret", "precious");
    layers.write("upper/turns/secret", "harmless");
    layers.write("other/secret", "harmless");
    let (turns, other) = (layers.path("upper/turns"), layers.path("link"));
    symlink(layers.path("victim"), &other).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let (cwd, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
                let _ = nix::fcntl::renameat2(cwd, &turns, cwd, &other, flags);
            }
        });
        let _stop = Stop(&over);
        for _ in 0..500 {
            if let Ok(mut changes) = layers.upper().changes() {
                let _ = changes.commit();
            }
            let committed = fs::symlink_metadata(layers.path("below/turns"));
            if committed.is_ok_and(|meta| meta.is_dir()) {
                if let Ok(text) = fs::read(layers.path("below/turns/secret")) {
                    assert_eq!(text, b"harmless");
                }
                fs::remove_dir_all(layers.path("below/turns")).unwrap();
            } else {
                let _ = fs::remove_file(layers.path("below/turns"));
            }
            assert_eq!(fs::read(layers.path("victim/secret")).unwrap(), b"precious");
        }
    });
    assert_eq!(tree(&layers.path("victim")).len(), 1);
}

/// Who may write to the directory below exchanges what a commit has just made there for a link, each time it sees the name.
#[test]
fn what_is_being_made_and_is_exchanged_for_a_link_changes_nothing_elsewhere() {
    let _clean = common::clean();
    let layers = Layers::new();
    layers.write("victim", "precious");
    fs::set_permissions(layers.path("victim"), fs::Permissions::from_mode(0o600)).unwrap();
    for number in 0..200 {
        let fifo = layers.path(&format!("upper/{number}"));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666)).unwrap();
    }
    let (below, link) = (layers.path("below"), layers.path("link"));
    let (over, exchanged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let swap = |name: &Path| {
        let (cwd, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
        if nix::fcntl::renameat2(cwd, name, cwd, &link, flags).is_ok() {
            exchanged.fetch_add(1, Ordering::Relaxed);
            fs::remove_file(&link).unwrap();
            symlink(layers.path("victim"), &link).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            symlink(layers.path("victim"), &link).unwrap();
            while !over.load(Ordering::Relaxed) {
                let seen = fs::read_dir(&below).unwrap().flatten().map(|entry| entry.path());
                let Some(name) = seen.into_iter().find(|path| path.to_string_lossy().contains(".ringfence-")) else {
                    continue;
                };
                // All that one commit makes has this name at first.
                (0..20_000).for_each(|_| swap(&name));
            }
        });
        let _stop = Stop(&over);
        let began = Instant::now();
        let most = |met: bool| Duration::from_secs(if met { 3 } else { 60 });
        while began.elapsed() < most(exchanged.load(Ordering::Relaxed) > 20) {
            let _ = layers.upper().changes().unwrap().commit();
            let victim = fs::metadata(layers.path("victim")).unwrap();
            assert_eq!(victim.permissions().mode() & 0o7777, 0o600, "the mode went through the link");
            for made in fs::read_dir(&below).unwrap().flatten() {
                fs::remove_file(made.path()).unwrap();
            }
        }
    });
    assert!(exchanged.load(Ordering::Relaxed) > 0, "nothing was exchanged in time");
    assert_eq!(fs::read(layers.path("victim")).unwrap(), b"precious");
}

/// Where the upper is that another process discards.
static DISCARDED: OnceLock<PathBuf> = OnceLock::new();

/// Exchanges a directory of the upper for a link, at the call by which it is opened, and lets the call through.
fn exchange(_: &[u64; 6]) -> bool {
    let dir = DISCARDED.get().unwrap();
    let (cwd, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
    let _ = nix::fcntl::renameat2(cwd, &dir.join("upper/dir"), cwd, &dir.join("link"), flags);
    false
}

fn discards(dir: &Path) {
    DISCARDED.set(dir.to_owned()).unwrap();
    refuse(&[Call { number: libc::SYS_openat2, only: Only::Ours(exchange) }], Errno::EPERM);
    println!("{}", UpperDir::new(dir.join("upper"), dir.join("below")).discard().is_ok());
}

/// A process that the program has left exchanges a directory for a link, just when it is opened.
#[test]
fn a_discard_removes_nothing_through_a_link_that_takes_the_place_of_a_directory() {
    let _clean = common::clean();
    let layers = Layers::new();
    layers.write("victim/in/file", "precious");
    layers.write("upper/dir/in/file", "harmless");
    symlink("../victim", layers.path("link")).unwrap();
    let before = tree(&layers.path("victim"));
    let discard = || probe::succeeds(probe::caller(&format!("discards {}", layers.dir.path().display())));
    assert_eq!(discard(), "false", "the link was opened");
    assert!(layers.path("link").is_dir() && layers.path("upper/dir").is_symlink(), "nothing was exchanged");
    assert_eq!(tree(&layers.path("victim")), before, "removed through a link");
    // The next one removes the link itself.
    assert_eq!(discard(), "true");
    assert_eq!(tree(&layers.path("victim")), before);
    assert_eq!(fs::read_dir(layers.path("upper")).unwrap().count(), 0);
}

#[test]
fn fifos_are_not_opened() {
    let _clean = common::clean();
    let layers = Layers::new();
    for path in ["upper/new", "upper/over-file", "below/under-file"] {
        mkfifo(&layers.path(path), Mode::S_IRWXU).unwrap();
    }
    layers.write("below/over-file", "old");
    layers.write("upper/under-file", "new");
    layers.upper().changes().unwrap().commit().unwrap();
    for name in ["new", "over-file"] {
        assert!(fs::symlink_metadata(layers.path("below").join(name)).unwrap().file_type().is_fifo());
    }
    assert_eq!(fs::read(layers.path("below/under-file")).unwrap(), b"new");
}

#[test]
fn bombs_meet_a_limit() {
    let _clean = common::clean();
    let layers = Layers::new();
    let sparse = fs::File::create(layers.path("upper/sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let error = layers.upper().changes().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    sparse.set_len(1 << 10).unwrap();
    // It grows after the list.
    let mut changes = layers.upper().bytes_limit(1 << 20).changes().unwrap();
    sparse.set_len(1 << 30).unwrap();
    assert_eq!(changes.commit().unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(tree(&layers.path("below")).is_empty(), "what was begun is gone");
    fs::remove_file(layers.path("upper/sparse")).unwrap();
    for number in 0..100 {
        layers.write(&format!("upper/{number}"), "");
    }
    assert_eq!(layers.upper().entries_limit(99).changes().unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(layers.upper().entries_limit(100).changes().unwrap().iter().count(), 100);
}

/// Makes directories within one another, each with the name `d`.
fn deepen(top: &Path, depth: usize) {
    let mut dir = fs::File::open(top).map(std::os::fd::OwnedFd::from).unwrap();
    for _ in 0..depth {
        nix::sys::stat::mkdirat(&dir, c"d", Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        dir = nix::fcntl::openat(&dir, c"d", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn deep_trees_are_committed_as_far_as_they_have_a_path_and_discarded_whatever_they_are() {
    let _clean = common::clean();
    let layers = Layers::new();
    deepen(&layers.path("upper"), 800);
    let mut changes = layers.upper().changes().unwrap();
    assert_eq!(changes.iter().count(), 800);
    changes.commit().unwrap();
    assert_eq!(layers.upper().changes().unwrap().iter().count(), 0, "the two are alike now");
    // The same tree is removed from below by one mark.
    layers.upper().discard().unwrap();
    layers.write("upper/d", "a file now");
    layers.upper().changes().unwrap().commit().unwrap();
    assert!(fs::metadata(layers.path("below/d")).unwrap().is_file());
    layers.upper().discard().unwrap();
    deepen(&layers.path("upper"), 3000);
    assert_eq!(layers.upper().changes().unwrap_err().kind(), ErrorKind::TooLarge);
    layers.upper().discard().unwrap();
    assert!(layers.upper().changes().unwrap().is_empty());
}

/// A mount outside of a user namespace honours `trusted` marks. A program that may write to a directory can give it a `user`
/// mark, and one that is there below comes up with it.
#[test]
fn a_mark_that_the_mount_did_not_make_hides_nothing() {
    let _clean = common::clean();
    if common::needs_root("an overlay outside of a user namespace") {
        return;
    }
    let layers = Layers::new();
    layers.write("below/dir/theirs/file", "kept");
    let path = CString::new(layers.path("below/dir").as_os_str().as_bytes()).unwrap();
    // SAFETY: the strings end with a NUL, and the value has the length that is given.
    let set = unsafe { libc::setxattr(path.as_ptr(), c"user.overlay.opaque".as_ptr(), c"y".as_ptr().cast(), 1, 0) };
    if set != 0 {
        return common::skip("the file system has no attributes of users", true);
    }
    fs::create_dir(layers.path("below/usr")).unwrap();
    for dir in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), layers.path("below").join(dir)).unwrap();
    }
    let root = RootFs::overlay([layers.path("below")]).upper(layers.path("upper"), layers.path("work"));
    let sandbox = ringfence::Sandbox::new().rootfs(root).bind_ro("/usr", "/usr").default_mounts(false);
    assert_eq!(common::stdout(&common::shell(sandbox, "echo new >/dir/new; cat /dir/theirs/file")), "kept");
    let mut changes = layers.upper().changes().unwrap();
    let shown: Vec<_> = listed(&changes).into_iter().filter(|line| line.contains("dir")).collect();
    assert_eq!(shown, [r#"A "dir/new""#]);
    changes.commit().unwrap();
    assert_eq!(fs::read_to_string(layers.path("below/dir/theirs/file")).unwrap(), "kept");
}

#[test]
fn marks_that_lead_elsewhere_are_refused() {
    let _clean = common::clean();
    let layers = Layers::new();
    fs::create_dir(layers.path("upper/dir")).unwrap();
    let path = CString::new(layers.path("upper/dir").as_os_str().as_bytes()).unwrap();
    // SAFETY: the strings end with a NUL, and the value has the length that is given.
    let set = unsafe { libc::setxattr(path.as_ptr(), c"user.overlay.redirect".as_ptr(), c"/x".as_ptr().cast(), 2, 0) };
    if set != 0 {
        return common::skip("the file system has no attributes of users", true);
    }
    let error = layers.upper().changes().unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("redirect"), "{error}");
    let same = UpperDir::new(layers.path("below"), layers.path("below")).changes().unwrap_err();
    assert_eq!(same.kind(), ErrorKind::Invalid);
}

#[test]
fn what_is_mounted_below_is_no_part_of_a_change() {
    let _clean = common::clean();
    if common::needs_root("a mount on the directory below") {
        return;
    }
    let layers = Layers::new();
    fs::create_dir_all(layers.path("below/dir/mounted")).unwrap();
    layers.write("elsewhere/precious", "mine");
    let change = |layers: &Layers, what: &str| {
        fs::remove_dir_all(layers.path("upper")).unwrap();
        fs::create_dir_all(layers.path("upper")).unwrap();
        match what {
            "removed" => mknod(&layers.path("upper/dir"), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).unwrap(),
            "replaced" => layers.write("upper/dir", "a file now"),
            "emptied" => {
                layers.write("upper/dir/x", "");
                fs::remove_file(layers.path("upper/dir/x")).unwrap();
                mknod(&layers.path("upper/dir/mounted"), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).unwrap();
            }
            "added to" => layers.write("upper/dir/mounted/precious", "theirs"),
            _ => {
                fs::create_dir_all(layers.path("upper/dir/mounted")).unwrap();
                fs::set_permissions(layers.path("upper/dir/mounted"), fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
    };
    // The mounts are those of one thread.
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let mount = |source: Option<&Path>, target: &Path, flags| {
                nix::mount::mount(source, target, None::<&str>, flags, None::<&str>).unwrap();
            };
            use nix::mount::MsFlags;
            mount(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE);
            let (from, to) = (layers.path("elsewhere"), layers.path("below/dir/mounted"));
            fs::set_permissions(&from, fs::Permissions::from_mode(0o755)).unwrap();
            mount(Some(&from), &to, MsFlags::MS_BIND);
            for what in ["removed", "replaced", "emptied", "added to", "closed"] {
                change(&layers, what);
                let committed = layers.upper().changes().and_then(|mut changes| changes.commit());
                assert_eq!(
                    fs::read_to_string(layers.path("elsewhere/precious")).ok().as_deref(),
                    Some("mine"),
                    "{what}"
                );
                assert_eq!(fs::metadata(&from).unwrap().mode() & 0o777, 0o755, "{what}");
                let error = committed.expect_err(what);
                assert!(error.kind() == ErrorKind::Control && error.raw_os_error().is_some(), "{what}: {error}");
            }
        });
        mounting.join().unwrap();
    });
}
