//! Result files, taken out of a directory that a program could fill with traps.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::common::refuse::{Call, Only, refuse};
use crate::common::{self, probe};
use ringfence::{Bytes, Collector, ErrorKind};

common::callers! {
    |words|
    "collects" => collects(Path::new(words[1])),
    "collects-too-much" => collects_too_much(Path::new(words[1])),
}

#[test]
fn files_are_read_and_copied_with_their_directories() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::write(from.join("a/b/words"), "words").unwrap();
    fs::write(from.join("run"), "#!/bin/sh").unwrap();
    fs::set_permissions(from.join("run"), fs::Permissions::from_mode(0o6711)).unwrap();
    let collector = Collector::new(&from);
    assert_eq!(collector.read("a/b/words").unwrap(), b"words");
    assert_eq!(collector.read("./a//b/./words").unwrap(), b"words");
    let collected = collector.copy_to(&to).unwrap();
    assert_eq!(collected.files, [("a/b/words".into(), Bytes::new(5)), ("run".into(), Bytes::new(9))]);
    assert!(collected.skipped.is_empty());
    assert_eq!(fs::read(to.join("a/b/words")).unwrap(), b"words");
    assert_eq!(fs::metadata(to.join("run")).unwrap().mode() & 0o7777, 0o755, "nothing sets ids");
    let error = collector.copy_to(&to).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    assert!(to.join("run").exists(), "what was there before stays");
}

/// What a program leaves by a script, in a bind of its own.
fn left_by(script: &str) -> common::TempDir {
    let dir = common::TempDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let sandbox = common::sandbox().rootfs(ringfence::RootFs::host()).bind(dir.path(), "/mnt").cwd("/mnt");
    assert!(common::shell(sandbox, script).status().unwrap().success());
    dir
}

#[test]
fn no_link_is_followed_and_nothing_else_is_opened() {
    let _clean = common::clean();
    let script = "ln -s /etc/passwd link; ln -s / root; mkdir in; ln -s ../../.. in/up; mkfifo fifo; \
                  echo fine >fine; ln -s fine beside; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'";
    let dir = left_by(script);
    let (collector, start) = (Collector::new(dir.path()), Instant::now());
    for path in ["link", "root/etc/passwd", "in/up/etc/passwd", "fifo", "socket", "beside", "in", "fine/below"] {
        let error = collector.read(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{path}: {error}");
        assert!(error.remedy().is_some() && error.path().is_some_and(|at| at.ends_with(path)), "{path}: {error}");
    }
    for path in ["../x", "/etc/passwd", "in/../../x", "", "."] {
        assert_eq!(collector.read(path).unwrap_err().kind(), ErrorKind::Invalid, "{path}");
    }
    assert_eq!(collector.read("never").unwrap_err().kind(), ErrorKind::NotFound);
    let target = common::TempDir::new();
    let collected = collector.copy_to(target.path().join("to")).unwrap();
    assert_eq!(collected.files, [("fine".into(), Bytes::new(5))]);
    let skipped = ["beside", "fifo", "in/up", "link", "root", "socket"].map(std::path::PathBuf::from);
    assert_eq!(collected.skipped, skipped);
    assert!(start.elapsed() < Duration::from_secs(20), "nothing is waited for: {:?}", start.elapsed());
}

#[test]
fn nothing_goes_beyond_the_limits_and_nothing_is_left_of_what_does() {
    let _clean = common::clean();
    let dir = left_by("truncate -s 1T huge");
    let target = common::TempDir::new();
    let to = target.path().join("to");
    let small = Collector::new(dir.path()).bytes_limit(1u64 << 20);
    for error in [small.read("huge").unwrap_err(), small.copy_to(&to).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    }
    let many = left_by("for i in 1 2 3 4 5 6; do echo $i >$i; done");
    assert_eq!(Collector::new(many.path()).entries_limit(6).copy_to(&to).unwrap().files.len(), 6);
    fs::remove_dir_all(&to).unwrap();
    let few = Collector::new(many.path()).entries_limit(5);
    assert_eq!(few.copy_to(&to).unwrap_err().kind(), ErrorKind::TooLarge);
    let exact = Collector::new(many.path()).bytes_limit(12u64);
    assert_eq!(exact.copy_to(&to).unwrap().files.len(), 6);
    fs::remove_dir_all(&to).unwrap();
    assert_eq!(exact.bytes_limit(11u64).copy_to(&to).unwrap_err().kind(), ErrorKind::TooLarge);
    let deep = left_by("i=0; while [ $i -lt 100 ]; do mkdir d; cd d; i=$((i + 1)); done");
    assert_eq!(Collector::new(deep.path()).copy_to(&to).unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(!to.exists());
}

/// A program that still runs puts a link in the place of a directory, and of a file, again and again.
#[test]
fn an_exchange_meanwhile_leads_nowhere() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let (secret, from) = (dir.path().join("secret"), dir.path().join("from"));
    fs::create_dir_all(secret.join("d")).unwrap();
    fs::write(secret.join("d/file"), "secret").unwrap();
    fs::create_dir_all(from.join("d")).unwrap();
    fs::write(from.join("d/file"), "own").unwrap();
    symlink(secret.join("d"), from.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut read, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = || {
                use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
                let (one, other) = (from.join("d"), from.join("link"));
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
            };
            while !stop.load(Ordering::Relaxed) {
                exchange();
            }
        });
        let (collector, until) = (Collector::new(&from), Instant::now() + Duration::from_secs(30));
        let target = dir.path().join("to");
        while (read < 200 || refused < 200) && Instant::now() < until {
            match collector.read(Path::new("d/file")) {
                Ok(bytes) => {
                    assert_eq!(bytes, b"own");
                    read += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
                    refused += 1;
                }
            }
            if let Ok(collected) = collector.copy_to(&target) {
                for (path, _) in collected.files {
                    assert_eq!(fs::read(target.join(path)).unwrap(), b"own");
                }
                fs::remove_dir_all(&target).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused: nothing was exchanged in time");
}

/// Where the files are that another process collects.
static COLLECTED: OnceLock<PathBuf> = OnceLock::new();

/// Exchanges a directory of the target for a link, at the call by which a file is made in it, and lets the call through.
fn exchange_target(args: &[u64; 6]) -> bool {
    if args[2] & libc::O_CREAT as u64 != 0 {
        let dir = COLLECTED.get().unwrap();
        let (made, link) = (dir.join("to/d"), dir.join("link"));
        let _ = renameat2(AT_FDCWD, &made, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE);
    }
    false
}

fn collects(dir: &Path) {
    COLLECTED.set(dir.to_owned()).unwrap();
    refuse(&[Call { number: libc::SYS_openat, only: Only::Ours(exchange_target) }], Errno::EPERM);
    let collected = Collector::new(dir.join("from")).copy_to(dir.join("to")).unwrap();
    println!("{}", collected.files.len());
}

/// Who may write to the target puts a link in the place of a directory that was made there, just when a file is made in it.
#[test]
fn no_copy_goes_through_a_link_that_takes_the_place_of_a_directory() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    fs::create_dir_all(dir.path().join("from/d")).unwrap();
    fs::write(dir.path().join("from/d/file"), "planted").unwrap();
    fs::create_dir(dir.path().join("victim")).unwrap();
    symlink("../victim", dir.path().join("link")).unwrap();
    let files = probe::succeeds(probe::caller(&format!("collects {}", dir.path().display())));
    assert!(dir.path().join("to/d").is_symlink(), "nothing was exchanged");
    assert_eq!(fs::read_dir(dir.path().join("victim")).unwrap().count(), 0, "a file was made elsewhere");
    assert_eq!((files.as_str(), fs::read(dir.path().join("link/file")).unwrap().as_slice()), ("1", &b"planted"[..]));
}

/// Exchanges the directory above the target for a link, at the first call that makes a file there, and lets it through.
fn exchange_above(args: &[u64; 6]) -> bool {
    if args[2] & libc::O_CREAT as u64 != 0 {
        let dir = COLLECTED.get().unwrap();
        let (up, link) = (dir.join("up"), dir.join("link"));
        if !up.is_symlink() {
            let _ = renameat2(AT_FDCWD, &up, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE);
        }
    }
    false
}

fn collects_too_much(dir: &Path) {
    COLLECTED.set(dir.to_owned()).unwrap();
    refuse(&[Call { number: libc::SYS_openat, only: Only::Ours(exchange_above) }], Errno::EPERM);
    let error = Collector::new(dir.join("from")).bytes_limit(3u64).copy_to(dir.join("up/to")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

/// What a copy has made before it failed is removed where it was made.
#[test]
fn no_removal_goes_through_a_link_that_takes_the_place_of_the_directory_above() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    for path in ["from/d", "up", "victim/to/d"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    fs::write(dir.path().join("from/d/file"), "words").unwrap();
    fs::write(dir.path().join("victim/to/d/file"), "whole").unwrap();
    symlink(dir.path().join("victim"), dir.path().join("link")).unwrap();
    probe::succeeds(probe::caller(&format!("collects-too-much {}", dir.path().display())));
    assert!(dir.path().join("up").is_symlink(), "nothing was exchanged");
    assert_eq!(fs::read(dir.path().join("victim/to/d/file")).unwrap(), b"whole");
    assert!(!dir.path().join("link/to").exists(), "what the copy had made is gone");
}
