//! Places that a hostile root, or a program in it, exchanges for others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ringfence::{ErrorKind, Mount, MountOptions, RawMount, RootFs, Sandbox, Step, Tmpfs};

use crate::{attack, common, patience};

/// A root, and a directory of the host's that it must not reach, with one file.
struct Hostile {
    root: common::TempDir,
    victim: common::TempDir,
}

impl Hostile {
    fn new() -> Hostile {
        let hostile = Hostile { root: common::root_dir(), victim: common::TempDir::new() };
        fs::write(hostile.victim().join("file"), "whole").unwrap();
        hostile
    }

    fn root(&self) -> &Path {
        self.root.path()
    }

    fn victim(&self) -> &Path {
        self.victim.path()
    }

    /// A link from the root to the victim, absolute and, in another root, relative.
    fn links(&self) -> [PathBuf; 2] {
        let up = "../".repeat(self.root().components().count());
        [self.victim().to_owned(), PathBuf::from(up).join(self.victim().strip_prefix("/").unwrap())]
    }

    fn sandbox(&self, script: &str) -> Sandbox {
        common::on_root(common::sh(script), &self.root)
    }

    #[track_caller]
    fn is_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.victim()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "something was made, or taken away, in the host's directory");
        assert_eq!(fs::read_to_string(self.victim().join("file")).unwrap(), "whole");
    }
}

/// Replaces a directory by a link, and back, as fast as it can, while `race` runs.
fn while_swapping(at: &Path, link: &Path, race: impl FnOnce()) {
    let other = at.with_extension("other");
    symlink(link, &other).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let here = nix::fcntl::AT_FDCWD;
            let mut swaps = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                nix::fcntl::renameat2(here, at, here, &other, exchange).unwrap();
                swaps += 1;
            }
            swaps
        });
        // A failed assertion ends the swapping too.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(race));
        stop.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|failure| std::panic::resume_unwind(failure));
        assert!(swapper.join().unwrap() > 0, "nothing was raced");
    });
    if at.is_symlink() {
        fs::remove_file(at).unwrap();
        fs::rename(&other, at).unwrap();
    } else {
        fs::remove_file(&other).unwrap();
    }
}

/// Once from an empty mount namespace, where the host is not there to be reached; once, for a raw mount may name what is the
/// host's, from a copy of the host's, where the resolution alone holds.
fn from_both(sandbox: Sandbox) -> [Sandbox; 2] {
    [sandbox.clone(), sandbox.mount(RawMount::new("tmpfs", "/other", "tmpfs"))]
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2026-87766. Targets that are made, and mounted on, while the
/// directory above them turns into a link to the host and back.
#[test]
fn a_target_that_is_swapped_for_a_link_stays_inside() {
    let _clean = common::clean();
    let hostile = Hostile::new();
    let data = hostile.root().join("data");
    fs::create_dir(&data).unwrap();
    let sandbox = hostile.sandbox("echo attacked > /data/sub/file; ls /data/sub").tmpfs("/data/sub", 1 << 20);
    let sandbox = sandbox.bind_ro("/etc/hostname", "/data/single");
    let sandboxes = from_both(sandbox);
    let mut spawned = [0, 0];
    while_swapping(&data, hostile.victim(), || {
        let until = Instant::now() + patience();
        while Instant::now() < until {
            for (sandbox, spawned) in sandboxes.iter().zip(&mut spawned) {
                // A link that leads nowhere below the root is an error, and no way out.
                *spawned += u32::from(sandbox.output().is_ok());
                let _ = fs::remove_dir(data.join("sub"));
                let _ = fs::remove_file(data.join("single"));
                hostile.is_untouched();
            }
        }
    });
    assert!(spawned.iter().all(|count| *count > 0), "not one got through: {spawned:?}");
    // The same by path, as `mkdir -p` and an open do it.
    let naive = |attempts: u32| {
        (0..attempts).any(|_| {
            let _ = fs::create_dir_all(data.join("sub"));
            let out = hostile.victim().join("sub").exists();
            let _ = fs::remove_dir(data.join("sub"));
            out
        })
    };
    let mut led_out = false;
    while_swapping(&data, hostile.victim(), || led_out = naive(100_000));
    assert!(led_out, "the race is one that can be lost");
}

/// So does a working directory that is made.
#[test]
fn a_working_directory_whose_way_is_swapped_for_a_link_is_made_inside() {
    let _clean = common::clean();
    let hostile = Hostile::new();
    let data = hostile.root().join("data");
    fs::create_dir(&data).unwrap();
    let sandboxes = from_both(hostile.sandbox("echo attacked > file; pwd").cwd("/data/sub/work").make_cwd(true));
    let mut spawned = [0, 0];
    while_swapping(&data, hostile.victim(), || {
        let until = Instant::now() + patience();
        while Instant::now() < until {
            for (sandbox, spawned) in sandboxes.iter().zip(&mut spawned) {
                *spawned += u32::from(sandbox.output().is_ok());
                let _ = fs::remove_dir_all(data.join("sub"));
                hostile.is_untouched();
            }
        }
    });
    assert!(spawned.iter().all(|count| *count > 0), "not one got through: {spawned:?}");
}

/// What a copy of a tmpfs begins with goes into the tmpfs, whatever the path leads to by then: to a
/// directory that only the sandbox's setup may change, and back.
#[test]
fn a_copied_directory_that_is_swapped_for_a_link_is_not_copied_elsewhere() {
    let _clean = common::clean();
    let hostile = Hostile::new();
    let (cache, other) = (hostile.root().join("data/cache"), hostile.root().join("other"));
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("planted"), "").unwrap();
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    let words = || MountOptions::parse(["tmpcopyup", "size=1m"]);
    let mounts: [Mount; 2] = [
        Tmpfs::new("/data/cache").copy_up().size(1 << 20).into(),
        RawMount::new("tmpfs", "/data/cache", "tmpfs").options(words()).into(),
    ];
    let mut made = [0, 0];
    while_swapping(&cache, Path::new("/other"), || {
        let until = Instant::now() + patience();
        while Instant::now() < until {
            for (mount, made) in mounts.iter().zip(&mut made) {
                // A link that the program could replace is refused.
                *made += u32::from(hostile.sandbox("true").mount(mount.clone()).output().is_ok());
                assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "a copy went where the link leads");
                assert_eq!(fs::metadata(&other).unwrap().mode() & 0o7777, 0o700);
            }
        }
    });
    assert!(made.iter().all(|count| *count > 0), "not one got through: {made:?}");
}

/// CVE-2019-19921. A /proc, or /sys, that is a link is refused.
#[test]
fn a_proc_that_is_a_link_is_refused() {
    let _clean = common::clean();
    let hostile = Hostile::new();
    fs::remove_dir(hostile.root().join("proc")).unwrap();
    fs::create_dir(hostile.root().join("elsewhere")).unwrap();
    symlink("/elsewhere", hostile.root().join("proc")).unwrap();
    let error = hostile.sandbox("true").pid_ns().spawn().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::MountTarget, Some(libc::ELOOP)), "{error}");
    // Something that is not the kernel's own is mounted through such a link, inside.
    let through = hostile.sandbox("cat /elsewhere/hostname").read_only_root(true).bind_ro("/etc", "/proc");
    assert!(common::stdout(&through).len() > 1);
    hostile.is_untouched();
}

/// CVE-2026-41579, CVE-2026-47766. /dev in the root is a link to a directory of the host's.
#[test]
fn a_dev_that_is_a_link_changes_nothing_on_the_host() {
    let _clean = common::clean();
    let hostile = Hostile::new();
    for link in hostile.links() {
        let dev = hostile.root().join("dev");
        let _ = fs::remove_dir(&dev);
        let _ = fs::remove_file(&dev);
        symlink(&link, &dev).unwrap();
        let error = hostile.sandbox("true").spawn().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::MountTarget, Some(libc::ELOOP)), "{error}");
        hostile.is_untouched();
    }
    // By path a node would have been made there.
    fs::write(hostile.root().join("dev/null"), "").unwrap();
    assert!(hostile.victim().join("null").exists());
}

/// CVE-2025-52565, CVE-2026-88264, CVE-2026-88265. Without a /dev of its own, the root's devices
/// are links.
#[test]
fn devices_that_are_links_are_not_touched() {
    use std::os::unix::fs::MetadataExt;
    let _clean = common::clean();
    let hostile = Hostile::new();
    for name in ["console", "null", "tty", "ptmx", "stdin"] {
        symlink(hostile.victim().join("file"), hostile.root().join("dev").join(name)).unwrap();
        symlink(hostile.victim().join("made"), hostile.root().join("dev").join(format!("{name}2"))).unwrap();
    }
    let before = fs::metadata(hostile.victim().join("file")).unwrap();
    let sandbox = hostile.sandbox("cat; echo out; echo err >&2").default_mounts(false).user(0, 0);
    let output = sandbox.stdin(ringfence::Stdio::null()).output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let after = fs::metadata(hostile.victim().join("file")).unwrap();
    assert_eq!((before.mode(), before.uid(), before.ctime()), (after.mode(), after.uid(), after.ctime()));
    hostile.is_untouched();
    // What opens the root's own /dev/null by path, opens the host's file.
    fs::write(hostile.root().join("dev/null"), "attacked").unwrap();
    assert_eq!(fs::read_to_string(hostile.victim().join("file")).unwrap(), "attacked");
}

/// CVE-2025-31133. What a mask is made of is looked at by descriptor.
#[test]
fn a_mask_is_the_null_device_or_nothing() {
    let _clean = common::clean();
    let root = common::root_dir();
    fs::write(root.path().join("etc/file"), "shown").unwrap();
    fs::write(root.path().join("etc/victim"), "whole").unwrap();
    symlink("/etc/victim", root.path().join("dev/null")).unwrap();
    let outer = |sandbox: Sandbox| {
        let sandbox = common::on_root(sandbox, &root).default_mounts(false);
        let exe = std::env::current_exe().unwrap();
        crate::attack_at(sandbox.bind_ro(exe, "/tmp/attack"), "/tmp/attack", "null-device /etc/victim")
    };
    let sandbox = outer(common::mounting().pid_ns()).mount(ringfence::Proc::new("/proc"));
    let answers = crate::Answers::of(&common::stdout(&sandbox));
    let refused = answers.get("spawn");
    assert!(refused.contains("mask /dev/null") && refused.contains("ENODEV"), "{refused}");
    assert_eq!((answers.get("unchanged"), answers.get("by-path")), ("whole", "attacked"));
}

/// CVE-2025-52881. Id maps and settings are written to the kernel's files, and to none that stands
/// in their place.
#[test]
fn nothing_is_written_to_a_proc_that_is_none() {
    let _clean = common::clean();
    let root = common::root_dir();
    let proc = root.path().join("proc");
    for dir in ["self/fd", "sys/user", "self/ns"] {
        fs::create_dir_all(proc.join(dir)).unwrap();
    }
    fs::write(root.path().join("etc/victim"), "whole").unwrap();
    for file in ["self/uid_map", "self/gid_map", "self/setgroups", "sys/user/max_user_namespaces"] {
        symlink("/etc/victim", proc.join(file)).unwrap();
    }
    let exe = std::env::current_exe().unwrap();
    let sandbox = common::on_root(common::sandbox(), &root).default_mounts(false).bind_ro(exe, "/tmp/attack");
    let sandbox = sandbox.bind("/dev/null", "/dev/null");
    let answers = crate::Answers::of(&common::stdout(&crate::attack_at(sandbox, "/tmp/attack", "fake-proc")));
    for name in ["spawn", "limit"] {
        assert!(answers.get(name).contains("EXDEV"), "{answers:?}");
    }
    assert_eq!((answers.get("victim"), answers.get("after")), ("whole", "attacked"));
}

/// CVE-2025-52881 again: nor are they written to what the root itself calls /proc, since the host's
/// is still there then.
#[test]
fn a_roots_own_proc_gets_nothing() {
    let _clean = common::clean();
    let hostile = Hostile::new();
    for dir in ["proc/self", "proc/sys/user"] {
        fs::create_dir_all(hostile.root().join(dir)).unwrap();
    }
    for file in ["self/uid_map", "self/gid_map", "self/timens_offsets", "sys/user/max_user_namespaces"] {
        symlink(hostile.victim().join("file"), hostile.root().join("proc").join(file)).unwrap();
    }
    let sandbox = hostile.sandbox("cat /proc/self/uid_map").default_mounts(false);
    let sandbox = common::as_ourselves(sandbox).max_user_namespaces(0).time_ns();
    let sandbox = sandbox.monotonic_offset(ringfence::TimeOffset::Ahead(std::time::Duration::from_secs(1)));
    assert!(!sandbox.output().unwrap().outcome.success(), "there is no such file inside");
    hostile.is_untouched();
    fs::write(hostile.root().join("proc/self/uid_map"), "attacked").unwrap();
    assert_eq!(fs::read_to_string(hostile.victim().join("file")).unwrap(), "attacked", "by path it would have been");
}

/// CVE-2026-55686. The working directory is a link out.
#[test]
fn a_working_directory_is_found_inside() {
    let _clean = common::clean();
    let hostile = Hostile::new();
    for (number, link) in hostile.links().iter().enumerate() {
        let name = format!("work{number}");
        symlink(link, hostile.root().join(&name)).unwrap();
        symlink(link.join("new"), hostile.root().join(format!("{name}-new"))).unwrap();
        for cwd in [format!("/{name}"), format!("/{name}-new")] {
            let error = hostile.sandbox("ls").cwd(&cwd).spawn().unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::Cwd, Some(libc::ENOENT)), "{error}");
        }
        let host = common::sh("ls").mount_ns().cwd(hostile.root().join(&name));
        assert_eq!(common::stdout(&host), "file", "without a root of its own it leads there");
    }
    hostile.is_untouched();
}

/// CVE-2025-31133 as a race: a path that is to be masked, or made read-only, turns into a link
/// meanwhile. It is found below the root, and leads nowhere.
#[test]
fn a_masked_path_that_is_swapped_for_a_link_covers_nothing_outside() {
    let _clean = common::clean();
    let hostile = Hostile::new();
    let data = hostile.root().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "inner").unwrap();
    let sandboxes = from_both(hostile.sandbox("cat /data/file").mask("/data/file").read_only_path("/data"));
    let mut masked = [0, 0];
    while_swapping(&data, hostile.victim(), || {
        let until = Instant::now() + patience();
        while Instant::now() < until {
            for (sandbox, masked) in sandboxes.iter().zip(&mut masked) {
                if let Ok(output) = sandbox.output() {
                    assert_ne!(output.stdout, b"whole", "the host's file was read");
                    *masked += u32::from(output.outcome.success() && output.stdout.is_empty());
                }
            }
        }
    });
    assert!(masked.iter().all(|count| *count > 0), "not one was masked: {masked:?}");
    hostile.is_untouched();
    assert_eq!(common::stdout(&hostile.sandbox("cat /data/file")), "inner", "without a mask it is read");
}

/// A directory that is the program's to change, with something in it that is not.
fn work() -> common::TempDir {
    let work = common::TempDir::new();
    let hooks = work.path().join("a/.git/hooks");
    fs::create_dir_all(&hooks).unwrap();
    fs::write(hooks.join("hook"), "whole").unwrap();
    for dir in [&hooks, &work.path().join("a/.git"), &work.path().join("a"), work.path()] {
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    work
}

/// Puts a hook of its own where the other is, in each way; says what it was told.
const REPLACE: &str = "cd ${WORK:-/mnt}
    for dir in a/.git/hooks a/.git a; do mv $dir ${dir}2 && echo moved $dir; done
    mkdir -p a/.git/hooks && echo evil >a/.git/hooks/hook && echo written
    rm -rf a/.git; true";

#[track_caller]
fn is_whole(work: &common::TempDir) {
    assert_eq!(fs::read_to_string(work.path().join("a/.git/hooks/hook")).unwrap(), "whole");
    assert!(!["a2", "a/.git2", "a/.git/hooks2"].iter().any(|name| work.path().join(name).exists()));
}

/// The program renames the writable directory above a place that is read-only, or covered, and
/// makes another in its place.
#[test]
fn the_way_to_a_protected_path_cannot_be_renamed() {
    let _clean = common::clean();
    let work = work();
    let at = |name: &str| work.path().join(name);
    let own = || common::sandbox().rootfs(RootFs::host()).bind(work.path(), "/mnt");
    let protected = [
        own().bind_ro(at("a/.git/hooks"), "/mnt/a/.git/hooks"),
        own().bind_ro(at("a/.git/hooks/hook"), "/mnt/a/.git/hooks/hook"),
        own().read_only_path("/mnt/a/.git/hooks"),
        own().mask("/mnt/a/.git/hooks"),
        own().mask("/mnt/a/.git/hooks/hook"),
        own().tmpfs("/mnt/a/.git/hooks", 1 << 20),
        // From a copy of the host's mounts.
        own().read_only_path("/mnt/a/.git/hooks").mount(RawMount::new("tmpfs", "/media", "tmpfs")),
        // On the host's own root the working directory lies below what is made fast.
        common::sandbox().read_only_path(at("a/.git/hooks")).env("WORK", work.path()).cwd(at("a")),
    ];
    for sandbox in protected {
        let outcome = sandbox.command("/bin/sh").args(["-c", REPLACE]).output().unwrap();
        let (text, errors) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
        assert!(!text.contains("moved") && errors.contains("busy"), "{text}{errors}");
        is_whole(&work);
    }
    // Mounted and no more, it is got around.
    let script = format!("mount -o bind a/.git/hooks a/.git/hooks && mount -o remount,bind,ro a/.git/hooks\n{REPLACE}");
    let naive = common::mounting().mount_ns().env("WORK", work.path()).cwd(work.path()).command("/bin/sh");
    let text = common::stdout(&naive.args(["-c", &script]));
    assert_eq!(text, "moved a/.git\nmoved a\nwritten");
}

/// A working directory that the program takes over from its caller leads over what is made fast, too.
#[test]
fn the_callers_working_directory_is_no_way_around() {
    let _clean = common::clean();
    let work = work();
    let exe = std::env::current_exe().unwrap();
    let mut caller = std::process::Command::new(exe);
    let what = format!("protects {}", work.path().join("a/.git/hooks").display());
    caller.env("RINGFENCE_ATTACK", what).current_dir(work.path().join("a"));
    let answers = crate::Answers::of(&common::probe::succeeds(caller));
    assert_eq!((answers.get("rename"), answers.get("write")), ("refused", "refused"));
    is_whole(&work);
}

/// The program exchanges a link that leads to a protected path: where it could, the link is not
/// accepted.
#[test]
fn a_link_to_a_protected_path_is_refused_where_it_could_be_exchanged() {
    let _clean = common::clean();
    let work = work();
    symlink(".git", work.path().join("a/link")).unwrap();
    symlink("/nowhere", work.path().join("a/dangling")).unwrap();
    let own = || common::sandbox().rootfs(RootFs::host()).bind(work.path(), "/mnt").command("/bin/true");
    for place in ["/mnt/a/link/hooks", "/mnt/a/link", "/mnt/a/dangling"] {
        let refused = [own().read_only_path(place), own().mask(place), own().bind_ro("/etc", place)];
        for sandbox in refused.iter().filter(|_| !place.ends_with("dangling")).chain(&refused[..2]) {
            let error = sandbox.spawn().unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::MountTarget, Some(libc::ELOOP)), "{error}");
            assert!(error.remedy().unwrap().contains("name the path that it leads to"), "{error}");
        }
    }
    // Where it stands on what is read-only, or is no protection, it is followed, and the way behind it made fast.
    let root = common::root_dir();
    fs::create_dir(root.path().join("mnt")).unwrap();
    symlink("mnt/a/.git", root.path().join("repository")).unwrap();
    symlink("../mnt/a/../a/.git", root.path().join("etc/repository")).unwrap();
    for place in ["/repository/hooks", "/etc/repository/hooks"] {
        let linked = common::on_root(common::sandbox(), &root).read_only_root(true).bind(work.path(), "/mnt");
        let output = linked.read_only_path(place).command("/bin/sh").args(["-c", REPLACE]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty() && errors.contains("busy"), "{errors}");
        is_whole(&work);
    }
    assert!(own().bind("/etc", "/mnt/a/link/hooks").status().unwrap().success());
}

/// The program makes what was to be read-only and was missing: it would be writable.
#[test]
fn what_is_to_be_read_only_has_to_be_there() {
    let _clean = common::clean();
    let work = work();
    let own = || common::sandbox().rootfs(RootFs::host()).bind(work.path(), "/mnt").command("/bin/true");
    for place in ["/mnt/missing", "/mnt/a/.git/missing/config", "/mnt/a/.git/hooks/hook/below"] {
        let error = own().read_only_path(place).spawn().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::MountTarget, Some(libc::ENOENT)), "{error}");
        assert!(error.remedy().unwrap().contains("has to exist already"), "{error}");
    }
    // Nobody can make it where nothing can be written.
    assert!(own().read_only_path("/etc/missing/file").status().unwrap().success());
    let below = own().read_only_path("/mnt/a").read_only_path("/mnt/a/missing");
    assert!(below.status().unwrap().success());
    // A cover has nothing to hide.
    assert!(own().mask("/mnt/missing").status().unwrap().success());
}

/// CVE-2026-3888, CVE-2021-44731. Scratch directories have no name that could be guessed, and are
/// nobody else's.
#[test]
fn scratch_directories_are_new_closed_and_unguessable() {
    use std::os::unix::fs::MetadataExt;
    let _clean = common::clean();
    let (root, base) = (common::root_dir(), common::TempDir::new());
    let sandbox = common::on_root(common::sh("sleep 100"), &root);
    let sandbox = sandbox.rootfs(RootFs::overlay([root.path()]).scratch_in(base.path())).pid_ns();
    let children = [sandbox.spawn().unwrap(), sandbox.spawn().unwrap()];
    let mut names: Vec<_> = fs::read_dir(base.path()).unwrap().map(|entry| entry.unwrap()).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    assert_eq!(names.len(), 2);
    for dir in &names {
        let meta = dir.metadata().unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid()), (0o700, nix::unistd::geteuid().as_raw()));
    }
    drop(children);
    // Somebody who knew the name would have it first: the next one is another.
    let taken = names.iter().map(|dir| dir.path()).collect::<Vec<_>>();
    for path in &taken {
        let gone = Instant::now() + std::time::Duration::from_secs(5);
        while path.exists() && Instant::now() < gone {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        symlink("/nowhere", path).unwrap();
    }
    drop(sandbox.spawn().unwrap());
    assert!(taken.iter().all(|path| path.is_symlink()), "what was not the library's is left alone");
}

/// CVE-2021-43784. Start-up data that is too long is an error of its own kind.
#[test]
fn what_is_too_long_is_told() {
    let _clean = common::clean();
    let long = format!("/{}", "a".repeat(70_000));
    let deep = "/a".repeat(40_000);
    for path in [&long, &deep] {
        let errors = [
            Sandbox::new().cwd(path).spawn().map(drop).unwrap_err(),
            common::sandbox().mount(Tmpfs::new(path)).spawn().map(drop).unwrap_err(),
            common::sandbox().bind(path, "/mnt").spawn().map(drop).unwrap_err(),
            common::sandbox().mask(path).spawn().map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG), "{error}");
        }
    }
    let error = Sandbox::new().command("/bin/true").arg("x".repeat(4 << 20)).spawn().unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::E2BIG)));
    assert_eq!(attack(Sandbox::new().arg("x".repeat(100_000)), "whoami").0.len(), 1, "what is not too long passes");
}
