//! What a program may take of a disk, and how it tries to take more. Needs a file system with project quotas at the
//! temporary directory, as the machine of the row `v2` has it (tests/vm/run).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use ringfence::{Bind, Bytes, DiskLimit, ErrorKind, Overlay, RootFs, Sandbox, Step};

use crate::attack::say;
use crate::{attack_inside, common};

const MOST: Bytes = Bytes::mib(1);

/// `struct fsxattr`, with the ioctls that read and write it.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    unused: [u32; 2],
    project: u32,
    rest: [u32; 3],
}

mod ioctls {
    nix::ioctl_read!(get, b'X', 31, super::Attributes);
    nix::ioctl_write_ptr!(set, b'X', 32, super::Attributes);
}

/// The attack: a file of the program's own, and its directory, are taken out of their project.
pub fn leave_project(dir: &str) {
    let file = Path::new(dir).join("own");
    say("make", fs::write(&file, "x").map(|()| "ok"));
    for (name, path) in [("file", file.as_path()), ("dir", Path::new(dir))] {
        let Ok(opened) = File::open(path) else { return say("open", Err::<&str, _>(io::Error::last_os_error())) };
        let mut attributes = Attributes::default();
        // SAFETY: the descriptor is open, and the struct lives across both calls.
        let left = unsafe {
            ioctls::get(opened.as_raw_fd(), &raw mut attributes).and_then(|_| {
                attributes.project = 0;
                attributes.flags &= !0x200;
                ioctls::set(opened.as_raw_fd(), &raw const attributes)
            })
        };
        say(name, left.map(|_| "left").map_err(io::Error::from));
    }
    let mut taken = 0;
    let block = vec![1; 64 << 10];
    let mut big = File::create(Path::new(dir).join("big")).unwrap();
    while taken < 4 << 20 && io::Write::write_all(&mut big, &block).and_then(|()| big.sync_all()).is_ok() {
        taken += block.len();
    }
    say("taken", Ok(taken));
}

/// A directory that everybody may write to.
fn open_dir() -> common::TempDir {
    let dir = common::TempDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

/// True, after saying so, where the temporary directory has no project quotas, or the user may set none.
#[track_caller]
fn no_quotas() -> bool {
    if common::needs_root("a quota") {
        return true;
    }
    let dir = open_dir();
    let sandbox = common::strict().mount(Bind::new(dir.path(), "/w").disk_limit(DiskLimit::new(MOST)));
    let problems = sandbox.check().err().map(|error| error.to_string()).unwrap_or_default();
    let lacking = problems.contains("project quotas") || problems.contains("quotactl_fd");
    if lacking {
        common::skip("the temporary directory has no project quotas", true);
    }
    lacking
}

/// The space that a directory takes with all in it, in bytes, and the number of files.
fn taken(dir: &Path) -> (u64, u64) {
    let mut sum = (fs::metadata(dir).unwrap().blocks() * 512, 1);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let below = if entry.file_type().unwrap().is_dir() {
            taken(&entry.path())
        } else {
            (entry.metadata().unwrap().blocks() * 512, 1)
        };
        sum = (sum.0 + below.0, sum.1 + below.1);
    }
    sum
}

/// Fills a directory with one large file, then with empty ones, and says how many of these there are.
fn filling(sandbox: Sandbox, dir: &str) -> Sandbox {
    let script = format!(
        "dd if=/dev/zero of={dir}/big bs=65536 count=64 2>/dev/null && echo all; sync {dir}/big; i=0
         while [ $i -lt 50 ] && (: >{dir}/$i) 2>/dev/null; do i=$((i + 1)); done; echo $i"
    );
    sandbox.command("sh").args(["-c", &script])
}

#[test]
fn a_bound_directory_takes_no_more_than_its_limit() {
    let _clean = common::clean();
    if no_quotas() {
        return;
    }
    let (dir, beside) = (open_dir(), open_dir());
    let bind = Bind::new(dir.path(), "/w").disk_limit(DiskLimit::new(MOST).inodes(10));
    let sandbox = common::strict().mount(bind).bind(beside.path(), "/beside");
    // The directory and the large file are two of the ten.
    assert_eq!(common::stdout(&filling(sandbox.clone(), "/w")), "8");
    let (bytes, files) = taken(dir.path());
    assert!(bytes <= MOST.get() && bytes > MOST.get() / 2 && files == 10, "{bytes} bytes in {files} files");
    assert_eq!(common::stdout(&filling(sandbox, "/beside")), "all\n50");
}

#[test]
fn a_limit_stays_with_the_directory_and_can_be_set_anew() {
    let _clean = common::clean();
    if no_quotas() {
        return;
    }
    let dir = open_dir();
    let write = |limit: Option<u64>, name: &str| {
        let bind = Bind::new(dir.path(), "/w");
        let bind = limit.into_iter().fold(bind, |bind, most| bind.disk_limit(DiskLimit::new(Bytes::kib(most))));
        let script =
            format!("dd if=/dev/zero of=/w/{name} bs=1024 count=400 2>/dev/null && sync /w/{name} && echo whole");
        let output = common::strict().mount(bind).command("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim() == "whole"
    };
    assert!(write(Some(600), "a"));
    assert!(!write(Some(600), "b"), "what an earlier sandbox has left counts");
    assert!(!write(None, "c"), "the limit holds for a sandbox that names none");
    assert!(write(Some(4000), "d"));
}

#[test]
fn an_upper_takes_no_more_than_its_limit() {
    let _clean = common::clean();
    if no_quotas() {
        return;
    }
    let (lower, upper, work) = (open_dir(), open_dir(), open_dir());
    let overlay = || Overlay::new("/w", [lower.path()]).upper(upper.path(), work.path());
    // Twice: the work directory has in it what overlayfs made there.
    for _ in 0..2 {
        let sandbox = common::strict().mount(overlay().disk_limit(DiskLimit::new(MOST)));
        let said = common::stdout(&filling(sandbox, "/w"));
        assert!(!said.contains("all"), "{said}");
        let bytes = taken(upper.path()).0;
        assert!(bytes <= MOST.get() && bytes > MOST.get() / 2, "{bytes}");
    }
}

#[test]
fn a_scratch_directory_takes_no_more_than_its_limit() {
    let _clean = common::clean();
    if no_quotas() {
        return;
    }
    let (base, root) = (common::TempDir::new(), common::root_dir());
    let overlay = RootFs::overlay([root.path()]).scratch_in(base.path()).disk_limit(DiskLimit::new(MOST));
    let script = "dd if=/dev/zero of=/big bs=65536 count=64 2>/dev/null; sync /big; wc -c </big";
    let sandbox = common::sandbox().user_ns().pid_ns().rootfs(overlay).bind_ro("/usr", "/usr");
    let taken: u64 = common::stdout(&sandbox.command("sh").args(["-c", script])).trim().parse().unwrap();
    assert!(taken <= MOST.get() && taken > MOST.get() / 2, "{taken}");
}

/// ioctl_xfs_fssetxattr(2): the owner of a file may change its project, outside of a user namespace.
#[test]
fn a_program_takes_nothing_out_of_the_limit() {
    let _clean = common::clean();
    if no_quotas() {
        return;
    }
    // As a user, and as root of its own user namespace with all capabilities.
    for sandbox in [common::strict(), common::strict().user(0, 0)] {
        let dir = open_dir();
        let bind = Bind::new(dir.path(), "/w").disk_limit(DiskLimit::new(MOST));
        let answers = attack_inside(sandbox.mount(bind), "leave-project /w");
        assert_eq!(answers.get("make"), "ok");
        assert!(["EINVAL", "EPERM"].contains(&answers.get("file")), "{answers:?}");
        assert!(["EINVAL", "EPERM", "EACCES"].contains(&answers.get("dir")), "{answers:?}");
        let taken: u64 = answers.get("taken").parse().unwrap();
        assert!(taken <= MOST.get() && taken > 0, "{taken}");
    }
}

#[test]
fn what_cannot_be_limited_is_refused_with_a_remedy() {
    let _clean = common::clean();
    let dir = open_dir();
    let bind = |limit: DiskLimit| Bind::new(dir.path(), "/w").disk_limit(limit);
    let problems = |sandbox: &Sandbox| -> Vec<String> {
        let error = sandbox.check().expect_err("check");
        assert_eq!(sandbox.spawn().expect_err("spawn").kind(), error.kind());
        error.problems().iter().map(ToString::to_string).filter(|problem| problem.contains("disk_limit")).collect()
    };
    // A tmpfs has no quotas of projects.
    let shm = common::strict().command("true").mount(Bind::new("/dev/shm", "/w").disk_limit(DiskLimit::new(MOST)));
    assert!(problems(&shm).iter().any(|problem| problem.contains("project quotas")));
    let alone = Sandbox::new().mount_ns().command("true").mount(bind(DiskLimit::new(MOST)));
    assert!(problems(&alone).iter().any(|problem| problem.contains("add user_ns()")));
    for none in [DiskLimit::new(0), DiskLimit::new(MOST).inodes(0)] {
        let sandbox = common::strict().command("true").mount(bind(none));
        assert!(problems(&sandbox).iter().any(|problem| problem.contains("take the limit for none")));
    }
    let nowhere = RootFs::overlay([dir.path()]).tmpfs(MOST).disk_limit(DiskLimit::new(MOST));
    let sandbox = common::strict().command("true").rootfs(nowhere);
    assert!(problems(&sandbox).iter().any(|problem| problem.contains("no directory on disk")));
}

#[test]
fn a_directory_with_files_and_without_a_project_is_refused() {
    let _clean = common::clean();
    if no_quotas() {
        return;
    }
    let dir = open_dir();
    fs::write(dir.path().join("file"), "x").unwrap();
    let bind = Bind::new(dir.path(), "/w").disk_limit(DiskLimit::new(MOST));
    let error = common::strict().command("true").mount(bind).spawn().unwrap_err();
    assert_eq!((error.kind(), error.step(), error.path()), (ErrorKind::Setup, Step::DiskLimit, Some(dir.path())));
    assert!(error.to_string().contains("chattr"), "{error}");
}

#[test]
fn the_limit_of_a_directory_above_stays_its_own() {
    let _clean = common::clean();
    if no_quotas() {
        return;
    }
    let base = open_dir();
    let limited = |dir: &Path, most: u64| {
        common::strict().mount(Bind::new(dir, "/w").disk_limit(DiskLimit::new(Bytes::kib(most))))
    };
    assert!(common::stdout(&limited(base.path(), 600).command("true")).is_empty());
    // As in /tmp: nobody but the owners exchanges what is there.
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let sub = base.path().join("sub");
    fs::create_dir(&sub).unwrap();
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o777)).unwrap();
    let write =
        |name: &str| ["-c".to_owned(), format!("dd if=/dev/zero of=/w/{name} bs=1024 count=900 && sync /w/{name}")];
    assert!(limited(&sub, 4000).command("sh").args(write("a")).status().unwrap().success());
    let plain = common::strict().bind(base.path(), "/w");
    assert!(!plain.command("sh").args(write("b")).status().unwrap().success(), "the base has another limit now");
    // A directory with files, below a project, has no limit of its own to set.
    let full = base.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "x").unwrap();
    let error = limited(&full, 4000).command("true").spawn().unwrap_err();
    assert!(error.to_string().contains("as is the one above"), "{error}");
}

#[test]
fn a_directory_that_somebody_else_could_exchange_is_refused() {
    let _clean = common::clean();
    if common::needs_root("another user") {
        return;
    }
    let (base, link) = (common::TempDir::new(), common::TempDir::new());
    let (theirs, linked) = (base.path().join("theirs"), link.path().join("linked"));
    fs::create_dir_all(theirs.join("work")).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    std::os::unix::fs::symlink(base.path(), &linked).unwrap();
    for dir in [theirs.join("work"), linked] {
        let bind = Bind::new(&dir, "/w").disk_limit(DiskLimit::new(MOST));
        let error = common::strict().command("true").mount(bind).check().unwrap_err();
        let told = error.problems().iter().any(|problem| problem.remedy.contains("by a path without links"));
        assert!(told, "{error}");
    }
    // Nothing waits for the other end of a pipe.
    let pipe = base.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let bind = Bind::new(&pipe, "/w").disk_limit(DiskLimit::new(MOST));
    let _ = common::strict().command("true").mount(bind).check();
}
