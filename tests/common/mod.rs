//! The harness of all integration tests: one test at a time in a process, a look for leaks after each, programs to run
//! inside, and a root file system made of the host's /usr.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod calls;
pub mod everyday;
pub mod handover;
pub mod place;
pub mod probe;
pub mod refuse;
mod watchdog;
pub mod workers;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use ringfence::{Bind, Capabilities, IdMap, Sandbox};

/// The table of a module's callers: what this test binary does, before its tests could begin, where
/// [`caller`](probe::caller) has started it, by the first of the words that it was given. No name
/// stands in two tables of a binary.
#[allow(unused_macros, reason = "not every test binary has callers")]
macro_rules! callers {
    ($($name:literal => $does:expr,)+) => { $crate::common::callers! { |_words| $($name => $does,)+ } };
    (|$words:ident| $($name:literal => $does:expr,)+) => {
        #[used]
        #[unsafe(link_section = ".init_array")]
        static BEFORE_MAIN: extern "C" fn() = before_main;

        #[allow(unreachable_code, reason = "some callers never end")]
        extern "C" fn before_main() {
            let Some(what) = $crate::common::probe::is_caller(&[$($name),+]) else { return };
            let $words: Vec<&str> = what.split(' ').collect();
            match what.split(' ').next().unwrap() {
                $($name => $does,)+
                other => unreachable!("{other} is not in the table"),
            }
            std::process::exit(0);
        }
    };
}
#[allow(unused_imports, reason = "not every test binary has callers")]
pub(crate) use callers;

/// Whether the tests run as root, who can make every namespace, or as an ordinary user, who needs `user_ns`.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A sandbox that may make namespaces, whoever runs the tests.
pub fn sandbox() -> Sandbox {
    if is_root() { Sandbox::new() } else { Sandbox::new().user_ns() }
}

/// A user namespace whose root is who runs the tests, outside as well.
pub fn as_ourselves(sandbox: Sandbox) -> Sandbox {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    sandbox.user_ns().uid_map(IdMap::new(0, uid, 1)).gid_map(IdMap::new(0, gid, 1))
}

/// A sandbox whose program may mount, make sandboxes of its own and look into its init, whoever runs the tests.
pub fn mounting() -> Sandbox {
    if is_root() { Sandbox::new() } else { Sandbox::new().user_ns().capabilities(Capabilities::all_but([])) }
}

/// A file in memory that holds `text`, read from its beginning.
pub fn text(text: &str) -> OwnedFd {
    let file = nix::sys::memfd::memfd_create(c"rf-text", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = fs::File::from(file);
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// `sh -c script` in such a sandbox.
pub fn sh(text: &str) -> Sandbox {
    shell(sandbox(), text)
}

/// `sh -c text` in this one.
pub fn shell(sandbox: Sandbox, text: &str) -> Sandbox {
    sandbox.command("/bin/sh").args(["-c", text])
}

/// The parts of `uname -r` that count.
pub fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map(|n| n.trim().parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A program that repeats each line that it is given does so.
#[track_caller]
pub fn answers(child: &mut ringfence::Child) {
    use std::io::{BufRead, BufReader, Write};
    child.stdin.as_mut().unwrap().write_all(b"there?\n").unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there?\n");
}

/// Runs to the end and gives stdout; anything but exit 0 fails the test with what was written.
#[track_caller]
pub fn stdout(sandbox: &Sandbox) -> String {
    let output = sandbox.output().unwrap_or_else(|error| panic!("spawn: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.outcome.success(), "{}\nstdout: {text}\nstderr: {errors}", output.outcome.verdict());
    text.trim_end().to_owned()
}

/// Says loudly that a test did not run. Where nothing may be skipped (CI=true as root), that is a failure, unless this
/// kernel lacks the feature.
#[track_caller]
pub fn skip(reason: &str, kernel_lacks_it: bool) {
    let reason = reason.replace('\n', "; ");
    let place = std::panic::Location::caller();
    eprintln!("SKIPPED: {place}: {reason}");
    if let Some(list) = std::env::var_os("RINGFENCE_SKIPPED") {
        use std::io::Write;
        let mut list = fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "{place}: {reason}").unwrap();
    }
    place::skipped(format!("{place}: {reason}"));
    let strict = std::env::var_os("CI").is_some_and(|ci| ci == "true") && is_root();
    assert!(!strict || kernel_lacks_it, "under CI a test may not be skipped: {reason}");
}

/// True, after saying so, where a test needs root and has it not.
#[track_caller]
pub fn needs_root(what: &str) -> bool {
    if !is_root() {
        skip(&format!("{what} needs root"), false);
    }
    !is_root()
}

/// Returns whether systemd runs this host: sd_booted(3).
pub fn runs_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// True, after saying so, on a host that systemd does not run.
#[track_caller]
pub fn no_systemd() -> bool {
    if !runs_systemd() {
        skip("systemd does not run this host", true);
    }
    !runs_systemd()
}

/// Makes this process, which has one thread, an ordinary user.
pub fn become_ordinary() {
    use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
    if is_root() {
        setgroups(&[]).unwrap();
        setgid(Gid::from_raw(65534)).unwrap();
        setuid(Uid::from_raw(65534)).unwrap();
        // A change of user makes the files in /proc root's.
        nix::sys::prctl::set_dumpable(true).unwrap();
        place::records_of_its_own();
    }
}

/// Makes this process, which has one thread, an ordinary user of a user namespace below which there can be no other.
pub fn become_ordinary_without_user_namespaces() {
    become_ordinary();
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap();
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("gid_map", format!("{gid} {gid} 1")), ("uid_map", format!("{uid} {uid} 1"))]
    {
        fs::write(format!("/proc/self/{file}"), text).unwrap();
    }
    // The sysctl is the user namespace's own.
    fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
    caps::clear(None, caps::CapSet::Effective).unwrap();
    caps::clear(None, caps::CapSet::Permitted).unwrap();
}

/// The control group that an ordinary user may use, as in `tests/vm/guest`; without one, only root has groups.
fn delegated() -> Option<PathBuf> {
    std::env::var_os("RINGFENCE_TEST_CGROUP_PARENT").map(PathBuf::from)
}

/// The control group below which this process's tests make theirs. Removed by the sandboxes themselves.
pub fn cgroup_parent() -> PathBuf {
    delegated().unwrap_or_else(|| "/".into()).join(format!("ringfence-tests-{}", std::process::id()))
}

/// Whether all that was asked for holds, as far as it can: an ordinary user's group belongs to the program, too, unless
/// that has a root; root with all its capabilities can leave what is around it; and no kernel counts all memory.
pub fn holds(enforced: &ringfence::Enforced) -> bool {
    use ringfence::Enforcement::{Full, Partial};
    enforced.iter().all(|(_, how)| match how {
        Full => true,
        Partial(gap) if gap.starts_with("no control group counts") => true,
        Partial(gap) if is_root() => gap.starts_with("the program has CAP_"),
        Partial(gap) => gap.starts_with("the group belongs to the caller's user"),
        _ => false,
    })
}

/// Whether limits are those of cgroup v2 here.
pub fn is_v2() -> bool {
    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|text| text.contains("memory"))
}

/// The directory of the group that a process has in the hierarchy of a v1 controller, or without one on v2 (`""`: the v2
/// group in any case).
pub fn group_of(pid: u32, controller: &str) -> PathBuf {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |line: &str| line.splitn(3, ':').nth(2).unwrap().trim_start_matches('/').to_owned();
    let has = |names: &str| !controller.is_empty() && names.split(',').any(|name| name == controller);
    let v1 = own.lines().find(|line| line.split(':').nth(1).is_some_and(has));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let wanted = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        if v1.is_some() { words[2] == "cgroup" && has(words[3]) } else { words[2] == "cgroup2" }
    };
    let mount = mounts.lines().find(wanted).unwrap_or_else(|| panic!("no hierarchy for {controller:?}"));
    let line = v1.or_else(|| own.lines().find(|line| line.starts_with("0::"))).unwrap();
    Path::new(mount.split(' ').nth(1).unwrap()).join(path(line))
}

/// True, after saying so, where no control group can be made: for an ordinary user without a delegated one, or on a host
/// that shows its groups read-only.
#[track_caller]
pub fn no_cgroups() -> bool {
    if !is_root() && delegated().is_none() {
        return needs_root("a control group");
    }
    let wanted = sandbox().cgroup_parent(cgroup_parent()).memory_limit(1 << 30).pids_limit(1000).cpu_limit(1.0);
    match wanted.check() {
        Ok(_) => false,
        Err(error) => {
            assert!(delegated().is_none(), "the delegated group is of no use: {error}");
            skip(&format!("no control group: {error}"), false);
            true
        }
    }
}

/// Holds off the other tests of this process.
pub struct Turn {
    _turn: MutexGuard<'static, ()>,
}

/// Looks for leaks when it is dropped.
pub struct Look {
    before: State,
}

/// Holds off the other tests of this process, and looks for leaks when it is dropped.
pub struct Clean {
    _look: Look,
    _turn: Turn,
}

/// Waits, up to a minute, for what does not come at once: what a drop cannot remove in its time, a thread of the library's
/// does.
#[track_caller]
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "not so after a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a sandbox could leave behind, of this process's own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    fds: Vec<String>,
    sockets: usize,
    roots: usize,
    children: BTreeSet<String>,
    mounts: Vec<String>,
    cgroups: BTreeSet<PathBuf>,
    scratch: BTreeSet<PathBuf>,
    records: BTreeSet<PathBuf>,
}

/// To be called first in every test that spawns.
pub fn clean() -> Clean {
    clean_in(turn())
}

/// The same, where the test has its turn already.
pub fn clean_in(turn: Turn) -> Clean {
    Clean { _look: look(&turn), _turn: turn }
}

/// For a test that looks for leaks more than once, or not all the time.
pub fn turn() -> Turn {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    watchdog::begin();
    Turn { _turn: turn }
}

impl Drop for Turn {
    fn drop(&mut self) {
        watchdog::end();
    }
}

/// The most mounts that the library keeps, each a descriptor: roots of the host's programs, one for each list of mounts, and
/// the mount of the null device.
pub const KEPT_MOUNTS: usize = 5;

/// A look for leaks from here to where it is dropped.
pub fn look(_turn: &Turn) -> Look {
    static WARM: Once = Once::new();
    assert!(std::env::var_os("RINGFENCE_CALLER").is_none(), "no table has this caller");
    WARM.call_once(warm_up);
    Look { before: State::now() }
}

/// Has the library make what it keeps for good.
fn warm_up() {
    // The library's own threads, with their descriptors, are there for good once they have been started.
    let warm = Sandbox::new().command("/bin/true").wall_time(Duration::from_secs(60)).status().unwrap();
    assert!(warm.success());
    // As is the mount namespace from which those with a root of their own start, where there can be one.
    drop(sandbox().command("/bin/true").rootfs(ringfence::RootFs::host()).status());
    // And the thread from whose mount namespace those with a user namespace start.
    let in_user_ns = sandbox().user_ns().capabilities(Capabilities::none()).rootfs(ringfence::RootFs::programs());
    drop(in_user_ns.command("/bin/true").status());
}

impl Drop for Look {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // What a drop could not finish in its 50 ms a thread of the library's does.
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let now = State::now();
            if self.before.covers(&now) {
                return;
            }
            let children = || now.children.iter().map(|pid| what_is(pid)).collect::<String>();
            assert!(Instant::now() < until, "left behind:\nbefore {:#?}\nafter {now:#?}\n{}", self.before, children());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What a process is and does, for whoever has to find out why it is still there.
fn what_is(pid: &str) -> String {
    let read = |file: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_else(|error| error.to_string());
        text.replace('\0', " ")
    };
    let files = ["status", "syscall", "wchan", "cgroup", "cmdline", "stack"];
    files.iter().map(|file| format!("-- {pid} {file}\n{}\n", read(file))).collect()
}

impl State {
    fn now() -> State {
        let links: Vec<String> = entries("/proc/self/fd")
            .iter()
            .filter_map(|fd| fs::read_link(fd).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .filter(|link| !link.starts_with("/proc/"))
            // Those of which each exchanges an id on mounts are kept for the next sandbox;
            // tests/isolation/idmaps.rs counts them.
            .filter(|link| !link.starts_with("user:["))
            .collect();
        let (sockets, fds): (Vec<String>, Vec<String>) =
            links.into_iter().partition(|link| link.starts_with("socket:"));
        let (roots, mut fds): (Vec<String>, Vec<String>) = fds.into_iter().partition(|link| link == "/");
        fds.sort();
        let children = entries("/proc/self/task")
            .iter()
            .filter_map(|task| fs::read_to_string(task.join("children")).ok())
            .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let is_ours = |record: &PathBuf| {
            let text = fs::read(record).unwrap_or_default();
            place::is_of_this(&String::from_utf8_lossy(&text)) && is_stale(record)
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts.lines().filter(|mount| !place::is_of_others(mount));
        State {
            fds,
            sockets: sockets.len(),
            roots: roots.len(),
            children,
            mounts: mounts
                .filter_map(|mount| mount.split(' ').nth(4))
                .filter(|at| !place::is_mount_of_others(at))
                .map(str::to_owned)
                .collect(),
            cgroups: cgroups(),
            scratch: entries(std::env::temp_dir()).into_iter().filter(|path| is_scratch(path)).collect(),
            records: record_dirs().iter().flat_map(entries).filter(is_ours).collect(),
        }
    }

    /// Sockets may grow by one for each thread that clones, of which there is at most one a core, and by the one that holds the
    /// ids of root's sandboxes.
    fn covers(&self, after: &State) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // What other processes had there before may go meanwhile.
        after.sockets <= self.sockets + cores + 1
            && after.roots <= self.roots.max(KEPT_MOUNTS)
            && after.mounts == self.mounts
            // A test that looks for nothing, and takes no turn, may have had one.
            && after.children.is_subset(&self.children)
            // A thread of the library's may have been busy with what the test before it left.
            && is_part(&after.fds, &self.fds)
            && after.cgroups.is_subset(&self.cgroups)
            && after.scratch.is_subset(&self.scratch)
            && after.records.is_subset(&self.records)
    }
}

/// Whether nobody holds the record. One that this process holds shows among its descriptors.
pub fn is_stale(record: &Path) -> bool {
    let Ok(file) = fs::File::open(record) else { return false };
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockSharedNonblock).is_ok()
}

/// Whether every one of `part`, of which there may be several alike, is in `whole`. Both are sorted.
fn is_part(part: &[String], whole: &[String]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|one| rest.any(|other| other == one))
}

fn is_scratch(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("rf-") || name.starts_with("rk-")
}

/// The directories in which this user's records stand, or may stand, the best first.
pub fn record_dirs() -> Vec<PathBuf> {
    let uid = nix::unistd::geteuid();
    let best = if uid.is_root() {
        Some("/run/ringfence".into())
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("ringfence"))
    };
    let others = [format!("/tmp/ringfence-{uid}"), format!("/dev/shm/ringfence-{uid}")];
    best.into_iter().chain(others.map(PathBuf::from)).collect()
}

/// Holds off the tests of all other processes, too, that clear what dead owners left: whoever
/// clears takes what another test still wants to find.
pub fn reaping() -> nix::fcntl::Flock<fs::File> {
    // Everybody can lock it, and nothing is left of that.
    let place = fs::File::open("/tmp").unwrap();
    nix::fcntl::Flock::lock(place, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap()
}

fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Groups named as the library's or the tests' own, of this process, in all hierarchies.
fn cgroups() -> BTreeSet<PathBuf> {
    let own = cgroup_parent();
    let own = own.strip_prefix("/").unwrap_or(&own);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let parents: Vec<PathBuf> = mounts.map(|mount| Path::new(mount).join(own)).filter(|path| path.exists()).collect();
    parents.iter().flat_map(entries).filter(|path| path.is_dir()).chain(parents.iter().cloned()).collect()
}

/// A directory of the test's own, removed when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        TempDir::in_dir(&std::env::temp_dir())
    }

    pub fn in_dir(above: &Path) -> TempDir {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let name = format!("rftest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            // A test may have covered /tmp.
            fs::create_dir_all(above).unwrap();
            let path = above.join(name);
            match fs::create_dir(&path) {
                // A process of this number was killed here once.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| TempDir(path)).unwrap(),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A root directory with the links that lead into /usr, on which [`on_root`] binds the host's /usr.
pub fn root_dir() -> TempDir {
    let dir = TempDir::new();
    for name in ["usr", "etc", "tmp", "proc", "dev"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        if Path::new("/usr").join(name).exists() {
            symlink(format!("usr/{name}"), dir.path().join(name)).unwrap();
        }
    }
    dir
}

/// The sandbox on that root: /usr is the host's, and this test program stands at /probe.
pub fn on_root(sandbox: Sandbox, root: &TempDir) -> Sandbox {
    let exe = std::env::current_exe().unwrap();
    sandbox.rootfs(root.path()).mount(Bind::new("/usr", "/usr").read_only()).bind_ro(exe, "/probe")
}

/// The preset for untrusted code, with a control group where the user can have one.
pub fn strict() -> Sandbox {
    let sandbox = Sandbox::strict().cgroup_parent(cgroup_parent());
    if is_root() || delegated().is_some() {
        return sandbox;
    }
    sandbox.best_effort(ringfence::Feature::MemoryLimit).best_effort(ringfence::Feature::PidsLimit)
}

/// `sh -c script` in it.
pub fn strict_sh(script: &str) -> Sandbox {
    strict().command("/bin/sh").args(["-c", script])
}

/// A probe in it.
pub fn strict_probe(what: &str) -> Sandbox {
    probe::at(strict().bind_ro(std::env::current_exe().unwrap(), "/probe"), "/probe", what)
}
