//! An owner that is killed at each step of its work: before each system call by which the library, or a stub of its, changes
//! something on the host.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;

use ringfence::{Bytes, Created, ErrorKind, Sandbox, reap_stale};

use crate::common::refuse::{Call, Only, call, die_at};
use crate::common::{self, probe};
use crate::crash::{entries, groups, overlay, records_of, sleeps, user_of};

common::callers! {
    |words|
    "dies-while-spawning" => dies_while_spawning(words[1].parse().unwrap(), Dirs::of(&words[2..])),
    "dies-while-creating" => dies_while_creating(words[1].parse().unwrap(), Dirs::of(&words[2..])),
}

/// Files are made by openat(2) with this flag alone.
fn makes(args: &[u64; 6]) -> bool {
    args[2] & libc::O_CREAT as u64 != 0
}

/// The calls that make, name, fill, give away and remove things, or begin a process.
const STEPS: [Call; 16] = [
    Call { number: libc::SYS_openat, only: Only::Ours(makes) },
    call(libc::SYS_mkdirat),
    call(libc::SYS_renameat2),
    call(libc::SYS_linkat),
    call(libc::SYS_unlinkat),
    call(libc::SYS_write),
    call(libc::SYS_fchown),
    call(libc::SYS_fchmod),
    call(libc::SYS_setxattr),
    call(libc::SYS_fsetxattr),
    call(libc::SYS_bind),
    call(libc::SYS_clone3),
    call(libc::SYS_clone),
    call(libc::SYS_sendmsg),
    call(libc::SYS_sendto),
    call(libc::SYS_flock),
];

/// Those that the C library makes in their place on older architectures.
#[cfg(target_arch = "x86_64")]
const OLDER: [Call; 6] = [
    call(libc::SYS_mkdir),
    call(libc::SYS_rename),
    call(libc::SYS_renameat),
    call(libc::SYS_unlink),
    call(libc::SYS_rmdir),
    call(libc::SYS_link),
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [Call; 0] = [];

/// Where a sandbox with a scratch directory, and a control group where there can be one, leaves what it leaves.
struct Dirs {
    root: PathBuf,
    dir: PathBuf,
    /// A group below one that does not exist either.
    parent: Option<PathBuf>,
}

impl Dirs {
    fn of(words: &[&str]) -> Dirs {
        let parent = words.get(2).map(PathBuf::from);
        Dirs { root: words[0].into(), dir: words[1].into(), parent }
    }

    fn sandbox(&self) -> Sandbox {
        let null = ringfence::Stdio::null;
        let sandbox = sleeps(overlay(&self.root, &self.dir)).user_ns().init(true).stdout(null()).stderr(null());
        match &self.parent {
            Some(parent) => sandbox.cgroup_parent(parent).pids_limit(50).memory_limit(Bytes::mib(64)),
            None => sandbox,
        }
    }

    fn groups(&self) -> Vec<PathBuf> {
        let top = self.parent.iter().filter_map(|parent| parent.strip_prefix("/").ok()?.parent()?.to_str());
        top.flat_map(groups).collect()
    }

    fn is_empty(&self) -> bool {
        (entries(&self.dir).len(), records_of(&self.dir), self.groups().len()) == (0, 0, 0)
    }
}

fn doom(nth: usize) {
    die_at(&STEPS.into_iter().chain(OLDER).collect::<Vec<_>>(), nth);
}

fn dies_while_spawning(nth: usize, place: Dirs) {
    doom(nth);
    let mut child = place.sandbox().spawn().unwrap();
    child.kill().unwrap();
    child.close().unwrap();
    println!("whole");
}

fn dies_while_creating(nth: usize, place: Dirs) {
    doom(nth);
    place.sandbox().create(place.dir.join("box")).unwrap();
    println!("whole");
}

/// The records that have no name yet, and whose owner is gone.
fn unnamed_records() -> usize {
    let dirs = common::record_dirs().into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    dirs.filter(|entry| entry.file_name().to_string_lossy().starts_with(".new-") && common::is_stale(&entry.path()))
        .count()
}

/// Has `what` done, and killed at each of its steps; after each, `clear` takes away what is found by itself.
fn is_killed_at_each_step(what: &str, clear: impl Fn(&Dirs)) {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let (root, dir) = (common::root_dir(), common::TempDir::new());
    let (root, dir) = (root.path().to_owned(), dir.path());
    let has_groups = common::is_root() || !common::no_cgroups();
    let parent = has_groups.then(|| common::cgroup_parent().join("inner"));
    let place = Dirs { root, dir: dir.to_owned(), parent };
    let words = [Some(&place.root), Some(&place.dir), place.parent.as_ref()].into_iter().flatten();
    let words: Vec<String> = words.map(|path| path.display().to_string()).collect();
    let mut left = 0;
    for nth in 0.. {
        let mut caller = probe::caller(&format!("{what} {nth} {}", words.join(" ")));
        let output = caller.stdin(Stdio::null()).output().unwrap();
        let is_whole = output.stdout == b"whole\n";
        assert!(is_whole || output.status.signal() == Some(libc::SIGKILL), "step {nth}: {output:?}");
        left += usize::from(!is_whole && !place.is_empty());
        clear(&place);
        common::eventually(&format!("nothing is left after step {nth}"), || {
            let _ = reap_stale();
            user_of(&place.dir).is_none() && place.is_empty() && unnamed_records() == 0
        });
        if is_whole {
            println!("{what}: {nth} steps, {left} of which left something");
            assert!((6..nth).contains(&left), "the kills were not in the middle");
            return;
        }
    }
}

#[test]
fn whichever_step_of_a_spawn_the_owner_is_killed_at_nothing_stays_that_cannot_be_cleared() {
    is_killed_at_each_step("dies-while-spawning", |_| ());
}

#[test]
fn whichever_step_of_a_create_the_owner_is_killed_at_nothing_stays_that_cannot_be_cleared() {
    is_killed_at_each_step("dies-while-creating", |place| match Created::open(place.dir.join("box")) {
        Ok(created) => created.remove().unwrap(),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    });
}
