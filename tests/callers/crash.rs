//! An owner that is killed: what runs inside dies with it, and what it made is cleared by the next.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{self, probe};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence::{Child, RootFs, Sandbox, reap_stale};

common::callers! {
    |words|
    "owns-many" => owns_many(),
    "owns-scratch" => owns_scratch(Path::new(words[1]), Path::new(words[2])),
    "owns-groups" => owns_groups(words[1]),
    "owns-unmourned" => owns_unmourned(Path::new(words[1]), Path::new(words[2])),
    "leaves-one-running" => leaves_one_running(),
    "leaves-one-with-scratch" => leaves_one_with_scratch(Path::new(words[1]), Path::new(words[2]), words[3]),
    "is-killed-while-spawning" => is_killed_while_spawning(Path::new(words[1]), Path::new(words[2])),
}

pub(super) fn sleeps(sandbox: Sandbox) -> Sandbox {
    sandbox.command("/bin/sleep").arg("1000").stdin(ringfence::Stdio::null())
}

/// Tells the pids and waits to be killed.
fn show(children: &[Child]) -> ! {
    println!("{}", children.iter().map(|child| child.id().to_string()).collect::<Vec<_>>().join(" "));
    loop {
        thread::park();
    }
}

/// An owner as a process of its own.
struct Owner {
    process: std::process::Child,
    out: BufReader<ChildStdout>,
}

impl Owner {
    fn start(what: &str) -> Owner {
        let mut process = probe::caller(what).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        Owner { process, out }
    }

    /// The processes that the owner names on its next line, held by descriptors: pids can be used again.
    fn programs(&mut self) -> Vec<OwnedFd> {
        self.pids().into_iter().map(pidfd).collect()
    }

    fn pids(&mut self) -> Vec<i32> {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the owner said {line:?}");
        line.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    fn kill(self) {
        drop(self);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn pidfd(pid: i32) -> OwnedFd {
    // SAFETY: no pointers, and the descriptor is the kernel's newest.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(fd >= 0, "there is no process {pid}");
        std::os::fd::FromRawFd::from_raw_fd(fd as i32)
    }
}

/// Whether the process ends within `timeout`.
fn ends(fd: &OwnedFd, timeout: Duration) -> bool {
    use std::os::fd::AsFd;
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis() as u16;
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) if Instant::now() >= until => return false,
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            other => return other.unwrap() == 1,
        }
    }
}

pub(super) fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn owns_many() {
    let base = common::sandbox;
    let plain = sleeps(base()).spawn().unwrap();
    let apart = sleeps(base().pid_ns()).spawn().unwrap();
    let with_init = sleeps(base().pid_ns().init(true)).spawn().unwrap();
    let of_a_thread = thread::spawn(move || [sleeps(base()), sleeps(base().pid_ns())].map(|s| s.spawn().unwrap()));
    let [first, second] = of_a_thread.join().unwrap();
    let detached = sleeps(base()).spawn().unwrap();
    let more = detached.id();
    detached.detach().unwrap();
    print!("{more} ");
    show(&[plain, apart, with_init, first, second]);
}

#[test]
fn programs_die_with_a_killed_owner() {
    let _clean = common::clean();
    let mut owner = Owner::start("owns-many");
    let programs = owner.programs();
    assert_eq!(programs.len(), 6);
    // They live, whatever became of the thread that spawned them.
    assert!(!programs.iter().any(|fd| ends(fd, Duration::from_millis(20))));
    owner.kill();
    let until = Instant::now() + Duration::from_secs(2);
    for (i, fd) in programs.iter().enumerate() {
        assert!(ends(fd, until.saturating_duration_since(Instant::now())), "program {i} lives on");
    }
}

fn leaves_one_running() {
    let child = sleeps(common::sandbox().die_with_owner(false).pid_ns().init(true)).spawn().unwrap();
    let plain = sleeps(common::sandbox().die_with_owner(false)).spawn().unwrap();
    println!("{} {}", child.id(), plain.id());
    child.detach().unwrap();
    plain.detach().unwrap();
    show(&[]);
}

#[test]
fn what_is_to_outlive_its_owner_does() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let mut owner = Owner::start("leaves-one-running");
    let pids = owner.pids();
    let programs: Vec<OwnedFd> = pids.iter().map(|pid| pidfd(*pid)).collect();
    owner.kill();
    reap_stale().unwrap();
    assert!(!programs.iter().any(|fd| ends(fd, Duration::from_millis(300))));
    for (pid, program) in pids.into_iter().zip(&programs) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        assert!(ends(program, Duration::from_secs(30)));
    }
}

pub(super) fn overlay(root: &Path, scratch: &Path) -> Sandbox {
    let rootfs = RootFs::overlay([root]).scratch_in(scratch);
    common::sandbox().pid_ns().rootfs(rootfs).bind_ro("/usr", "/usr")
}

fn owns_scratch(root: &Path, scratch: &Path) {
    let children = [0, 1].map(|_| sleeps(overlay(root, scratch)).spawn().unwrap());
    show(&children);
}

/// The records that list something below `dir`.
pub(super) fn records_of(dir: &Path) -> usize {
    let dirs = common::record_dirs().into_iter().filter_map(|dir| fs::read_dir(dir).ok());
    let text = dir.to_str().unwrap();
    dirs.flatten()
        .flatten()
        .filter(|e| fs::read(e.path()).is_ok_and(|t| String::from_utf8_lossy(&t).contains(text)))
        .count()
}

#[test]
fn what_a_dead_owner_made_is_cleared_and_what_a_living_one_holds_is_not() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let root = common::root_dir();
    let (dead, living, own) = (common::TempDir::new(), common::TempDir::new(), common::TempDir::new());
    let start = |dir: &common::TempDir| {
        let what = format!("owns-scratch {} {}", root.path().display(), dir.path().display());
        let mut owner = Owner::start(&what);
        let programs = owner.programs();
        assert_eq!((entries(dir.path()).len(), records_of(dir.path())), (2, 1));
        (owner, programs)
    };
    let ((killed, programs), (alive, lives)) = (start(&dead), start(&living));
    let mut ours = sleeps(overlay(root.path(), own.path())).spawn().unwrap();
    let held = (entries(living.path()), entries(own.path()));
    killed.kill();
    assert!(programs.iter().all(|fd| ends(fd, Duration::from_secs(30))));
    assert_eq!(entries(dead.path()).len(), 2, "nobody has cleared them yet");
    reap_stale().unwrap();
    assert_eq!((entries(dead.path()).len(), records_of(dead.path())), (0, 0));
    assert_eq!((entries(living.path()), entries(own.path())), held);
    assert_eq!((records_of(living.path()), records_of(own.path())), (1, 1));
    assert!(!lives.iter().any(|fd| ends(fd, Duration::ZERO)));
    assert!(ours.try_wait().unwrap().is_none());
    // A second call finds nothing of these, and the living one's turn comes.
    reap_stale().unwrap();
    alive.kill();
    assert!(lives.iter().all(|fd| ends(fd, Duration::from_secs(30))));
    reap_stale().unwrap();
    assert_eq!((entries(living.path()).len(), records_of(living.path())), (0, 0));
    drop(ours);
    common::eventually("ours is removed", || (entries(own.path()).len(), records_of(own.path())) == (0, 0));
}

/// The directories in which anybody of this user may make records, made if they are missing; those
/// go again.
struct RecordDirs {
    all: Vec<std::path::PathBuf>,
    made: Vec<std::path::PathBuf>,
}

impl RecordDirs {
    fn new() -> RecordDirs {
        let make = |dir: &std::path::PathBuf| {
            std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(dir).is_ok()
        };
        let mut all = common::record_dirs();
        let made = all.iter().filter(|dir| make(dir)).cloned().collect();
        all.retain(|dir| dir.is_dir());
        RecordDirs { all, made }
    }
}

impl Drop for RecordDirs {
    /// One in which another process has made something meanwhile stays.
    fn drop(&mut self) {
        self.made.iter().for_each(|dir| drop(fs::remove_dir(dir)));
    }
}

/// What a test has put where records stand goes with it.
struct Planted(Vec<std::path::PathBuf>);

impl Drop for Planted {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(fs::remove_file(path)));
    }
}

/// An owner of two sandboxes with scratch directories in `scratch`; its programs, and its token.
fn owner_of_scratch(root: &Path, scratch: &Path) -> (Owner, Vec<OwnedFd>, String) {
    let mut owner = Owner::start(&format!("owns-scratch {} {}", root.display(), scratch.display()));
    let programs = owner.programs();
    let token = entries(scratch)[0].split('-').nth(1).unwrap().to_owned();
    (owner, programs, token)
}

/// A program that may write where records stand gives another record for the owner's token, in its place as well, and
/// what it says would have the reaper remove what the living owner holds.
#[test]
fn no_record_speaks_for_an_owner_but_the_owners_own() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let (root, scratch) = (common::root_dir(), common::TempDir::new());
    let (owner, programs, token) = owner_of_scratch(root.path(), scratch.path());
    let held = entries(scratch.path());
    let text = format!("scratch {}\0cgroup /sys/fs/cgroup\0", scratch.path().display());
    let dirs = RecordDirs::new();
    let own = dirs.all.iter().map(|dir| dir.join(&token)).find(|path| path.exists()).expect("the owner's record");
    let elsewhere: Vec<_> = dirs.all.iter().map(|dir| dir.join(&token)).filter(|path| *path != own).collect();
    elsewhere.iter().for_each(|path| fs::write(path, &text).unwrap());
    let planted = Planted(elsewhere);
    assert!(!planted.0.is_empty());
    let reaped = reap_stale().unwrap();
    assert!(reaped.passed_over >= planted.0.len(), "{reaped:?}");
    // In the place of its own.
    let aside = own.with_extension("aside");
    fs::rename(&own, &aside).unwrap();
    fs::write(&own, &text).unwrap();
    reap_stale().unwrap();
    assert_eq!(entries(scratch.path()), held, "a planted record was believed");
    assert!(!programs.iter().any(|fd| ends(fd, Duration::from_millis(100))), "a living owner's program was killed");
    fs::rename(&aside, &own).unwrap();
    owner.kill();
    assert!(programs.iter().all(|fd| ends(fd, Duration::from_secs(30))));
    reap_stale().unwrap();
    assert_eq!(entries(scratch.path()), Vec::<String>::new());
}

/// Links, FIFOs, directories and garbage with the names of records and of a dead owner's things keep nothing from being
/// cleared, and are left.
#[test]
fn what_others_have_put_there_is_passed_over_and_blocks_nothing() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let (root, scratch) = (common::root_dir(), common::TempDir::new());
    let (owner, programs, token) = owner_of_scratch(root.path(), scratch.path());
    let dirs = RecordDirs::new();
    let dir = dirs.all.last().unwrap();
    let name = |digit: char| dir.join(String::from(digit).repeat(32));
    let planted = Planted("abcd".chars().map(name).collect());
    nix::unistd::mkfifo(&name('a'), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", name('b')).unwrap();
    fs::write(name('c'), "scratch /\0nonsense \0").unwrap();
    fs::File::create(name('d')).unwrap().set_len(1 << 30).unwrap();
    let foreign = scratch.path().join(format!("rf-{token}-99-open"));
    fs::create_dir(&foreign).unwrap();
    fs::set_permissions(&foreign, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let link = scratch.path().join(format!("rf-{token}-98-link"));
    std::os::unix::fs::symlink(root.path(), &link).unwrap();
    owner.kill();
    assert!(programs.iter().all(|fd| ends(fd, Duration::from_secs(30))));
    let reaped = reap_stale().unwrap();
    assert!(reaped.passed_over >= 6 && reaped.scratch_dirs >= 2, "{reaped:?}");
    assert_eq!(entries(scratch.path()).len(), 2, "{:?}", entries(scratch.path()));
    assert!(foreign.exists() && root.path().join("usr").exists());
    drop(planted);
}

/// A program that has taken its death signal off, in a pid namespace without an init and without a control group.
fn owns_unmourned(root: &Path, scratch: &Path) {
    let exe = std::env::current_exe().unwrap();
    let sandbox = overlay(root, scratch).bind_ro(exe, "/probe").stdin(ringfence::Stdio::null());
    let mut child = probe::at(sandbox, "/probe", "unmourned").stdout(ringfence::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    show(&[child]);
}

#[test]
fn a_program_that_survives_its_owner_is_found_by_its_scratch_directory() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let (root, scratch) = (common::root_dir(), common::TempDir::new());
    let mut owner = Owner::start(&format!("owns-unmourned {} {}", root.path().display(), scratch.path().display()));
    let programs = owner.programs();
    owner.kill();
    assert!(!ends(&programs[0], Duration::from_millis(300)), "it has not taken its death signal off");
    reap_stale().unwrap();
    let found = ends(&programs[0], Duration::from_secs(30));
    if !found {
        // SAFETY: no pointers.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, programs[0].as_raw_fd(), libc::SIGKILL, 0usize, 0) };
    }
    assert!(found, "it runs on, and nobody can find it any more");
    assert_eq!((entries(scratch.path()), records_of(scratch.path())), (Vec::new(), 0));
}

/// The directories of this name in all hierarchies of control groups.
pub(super) fn groups(name: &str) -> Vec<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    mounts.map(|mount| Path::new(mount).join(name)).filter(|path| path.exists()).collect()
}

fn limited(parent: &str) -> Sandbox {
    Sandbox::new().cgroup_parent(format!("/{parent}")).memory_limit(64 << 20).pids_limit(30)
}

fn owns_groups(parent: &str) {
    // Not even a program that has shaken off its death signal, and left children behind, escapes.
    let script = "sleep 1000 & setsid sleep 1000 & echo $! >&2; exec sleep 1000";
    let shaken = limited(parent).command("/bin/sh").args(["-c", script]).stdin(ringfence::Stdio::null());
    let mut first = shaken.stderr(ringfence::Stdio::piped()).spawn().unwrap();
    let mut orphan = String::new();
    BufReader::new(first.stderr.take().unwrap()).read_line(&mut orphan).unwrap();
    print!("{} ", orphan.trim());
    show(&[first, sleeps(limited(parent).pid_ns()).spawn().unwrap()]);
}

#[test]
fn groups_of_a_dead_owner_go_with_all_that_runs_in_them() {
    if common::needs_root("a top-level control group") || common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let _reaping = common::reaping();
    let (dead, living) =
        (format!("ringfence-crash-{}", std::process::id()), format!("ringfence-live-{}", std::process::id()));
    let (mut killed, mut alive) =
        (Owner::start(&format!("owns-groups {dead}")), Owner::start(&format!("owns-groups {living}")));
    let (programs, lives) = (killed.programs(), alive.programs());
    assert!(!groups(&dead).is_empty() && !groups(&living).is_empty());
    killed.kill();
    assert!(programs[1..].iter().all(|fd| ends(fd, Duration::from_secs(30))));
    assert!(!ends(&programs[0], Duration::from_millis(50)), "without a pid namespace the orphan is reap_stale's");
    reap_stale().unwrap();
    assert!(ends(&programs[0], Duration::from_secs(30)), "the orphan lives on");
    assert_eq!(groups(&dead), Vec::<std::path::PathBuf>::new());
    assert!(!lives.iter().any(|fd| ends(fd, Duration::ZERO)) && !groups(&living).is_empty());
    alive.kill();
    reap_stale().unwrap();
    assert!(lives.iter().all(|fd| ends(fd, Duration::from_secs(30))));
    assert_eq!(groups(&living), Vec::<std::path::PathBuf>::new());
}

fn leaves_one_with_scratch(root: &Path, scratch: &Path, parent: &str) {
    let sandbox = overlay(root, scratch).cgroup_parent(format!("/{parent}")).pids_limit(10).die_with_owner(false);
    let child = sleeps(sandbox).spawn().unwrap();
    println!("{}", child.id());
    child.detach().unwrap();
    show(&[]);
}

#[test]
fn what_outlives_its_owner_is_cleared_once_it_has_ended() {
    if common::needs_root("a top-level control group") || common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    let _reaping = common::reaping();
    let (root, scratch) = (common::root_dir(), common::TempDir::new());
    let parent = format!("ringfence-kept-{}", std::process::id());
    let dirs = format!("{} {}", root.path().display(), scratch.path().display());
    let mut owner = Owner::start(&format!("leaves-one-with-scratch {dirs} {parent}"));
    let pid = owner.pids()[0];
    let program = pidfd(pid);
    owner.kill();
    reap_stale().unwrap();
    assert!(!ends(&program, Duration::from_millis(100)));
    assert_eq!((entries(scratch.path()).len(), groups(&parent).is_empty()), (1, false), "it was in use");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(ends(&program, Duration::from_secs(30)));
    // Its zombie holds the group until the host's pid 1 has reaped it.
    let until = Instant::now() + Duration::from_secs(30);
    while entries(scratch.path()).len() + groups(&parent).len() > 0 {
        assert!(Instant::now() < until, "{:?} {:?}", entries(scratch.path()), groups(&parent));
        reap_stale().unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(records_of(scratch.path()), 0);
}

fn is_killed_while_spawning(root: &Path, scratch: &Path) {
    println!("0");
    let sandbox = sleeps(overlay(root, scratch).init(true));
    loop {
        drop(sandbox.spawn().unwrap());
    }
}

#[test]
fn an_owner_killed_in_the_middle_of_a_spawn_leaves_nothing_that_cannot_be_cleared() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let (root, scratch) = (common::root_dir(), common::TempDir::new());
    let dirs = format!("{} {}", root.path().display(), scratch.path().display());
    for round in 0..25u32 {
        let mut owner = Owner::start(&format!("is-killed-while-spawning {dirs}"));
        owner.pids();
        thread::sleep(Duration::from_micros(u64::from(round) * 1700));
        owner.kill();
        let until = Instant::now() + Duration::from_secs(2);
        // Whatever was inside, stub or program, has the scratch directory in its mounts, or its name in its plan.
        while let Some(pid) = user_of(scratch.path()) {
            assert!(Instant::now() < until, "round {round}: process {pid} lives on");
            thread::sleep(Duration::from_millis(1));
        }
        reap_stale().unwrap();
        assert_eq!((entries(scratch.path()), records_of(scratch.path())), (Vec::new(), 0), "round {round}");
    }
}

/// A process that has an overlay mounted whose upper directory is below `dir`.
pub(super) fn user_of(dir: &Path) -> Option<String> {
    let text = dir.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut users =
        processes.filter(|p| fs::read_to_string(p.path().join("mountinfo")).is_ok_and(|t| t.contains(text)));
    users.next().map(|process| process.file_name().to_string_lossy().into_owned())
}

/// What a program leaves on its scratch directory is its own affair, and no danger to its owner.
#[test]
fn a_tree_too_deep_for_recursion_is_cleared() {
    let _clean = common::clean();
    let (root, scratch) = (common::root_dir(), common::TempDir::new());
    let sandbox = common::on_root(common::sandbox().pid_ns(), &root);
    let sandbox = sandbox.rootfs(RootFs::overlay([root.path()]).scratch_in(scratch.path()));
    common::stdout(&probe::at(sandbox, "/probe", "deep /tmp 15000"));
    // What a wait cannot remove in its time, a thread of the library's does.
    let until = Instant::now() + Duration::from_secs(240);
    while records_of(scratch.path()) > 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((entries(scratch.path()), records_of(scratch.path())), (Vec::new(), 0));
}
