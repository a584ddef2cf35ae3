//! Nothing of the caller's process changes, however much it spawns, while its threads work the allocator.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{self, probe};
use ringfence::{Namespaces, Resource, RootFs, Sandbox, Verdict};

common::callers! {
    "looks-at-itself" => looks_at_itself(),
}

fn prctl(option: libc::c_int) -> i32 {
    // SAFETY: these options read a value and take no pointer.
    unsafe { libc::prctl(option, 0, 0, 0, 0) }
}

/// The lines of a status file that say what the process is, not what it has used.
fn status(path: &Path) -> String {
    const USED: [&str; 19] = [
        "State",
        "VmPeak",
        "VmSize",
        "VmLck",
        "VmPin",
        "VmHWM",
        "VmRSS",
        "RssAnon",
        "RssFile",
        "RssShmem",
        "VmData",
        "VmPTE",
        "VmSwap",
        "voluntary_ctxt_switches",
        "nonvoluntary_ctxt_switches",
        "Threads",
        "SigQ",
        "FDSize",
        "VmStk",
    ];
    let text = fs::read_to_string(path.join("status")).unwrap();
    let name = |line: &&str| line.split(':').next().unwrap().to_owned();
    text.lines().filter(|line| !USED.contains(&name(line).as_str())).map(|line| format!("{line}\n")).collect()
}

fn links(dir: &Path) -> BTreeMap<String, String> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.filter_map(|path| Some((name(&path), fs::read_link(&path).ok()?.to_string_lossy().into_owned()))).collect()
}

/// The caller's threads, without those of the library.
fn threads() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap();
        if !comm.starts_with("ringfence") {
            let namespaces = links(&task.path().join("ns"));
            all.push((
                task.file_name().to_string_lossy().into_owned(),
                format!("{}{namespaces:#?}", status(&task.path())),
            ));
        }
    }
    all
}

/// Everything that a process can be asked about itself, by name.
fn state() -> BTreeMap<&'static str, String> {
    let me = Path::new("/proc/self");
    let read = |name: &str| fs::read_to_string(me.join(name)).unwrap_or_else(|error| format!("{name}: {error}"));
    let actions = (1..=64).map(|signal| {
        // SAFETY: with a null pointer for the new one, the action is only read.
        unsafe {
            let mut old = std::mem::zeroed::<libc::sigaction>();
            let result = libc::sigaction(signal, std::ptr::null(), &mut old);
            (signal, result, old.sa_sigaction, old.sa_flags)
        }
    });
    let mut stack = std::mem::MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: only the old one is asked for.
    assert_eq!(unsafe { libc::sigaltstack(std::ptr::null(), stack.as_mut_ptr()) }, 0);
    // The directory that lists the descriptors is one of them, and gone when it is looked up.
    let descriptors: BTreeMap<String, String> =
        links(&me.join("fd")).into_iter().filter(|(_, to)| !is_of_the_library(to)).collect();
    // SAFETY: these calls take no pointer.
    let (session, group, nice) =
        unsafe { (libc::getsid(0), libc::getpgid(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    BTreeMap::from([
        (
            "threads, their status (ids, groups, umask, capabilities, signals, seccomp) and namespaces",
            format!("{:#?}", threads()),
        ),
        (
            "working directory and root",
            format!("{:?} {:?}", fs::read_link("/proc/self/cwd"), fs::read_link("/proc/self/root")),
        ),
        ("environment", format!("{:?}", std::env::vars_os().collect::<Vec<_>>())),
        ("dumpable", prctl(libc::PR_GET_DUMPABLE).to_string()),
        ("subreaper", {
            let mut value = 0i32;
            // SAFETY: the place is a local.
            unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut value) };
            value.to_string()
        }),
        ("death signal", {
            let mut value = 0i32;
            // SAFETY: the place is a local.
            unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut value) };
            value.to_string()
        }),
        ("securebits", prctl(libc::PR_GET_SECUREBITS).to_string()),
        ("keep capabilities", prctl(libc::PR_GET_KEEPCAPS).to_string()),
        ("no new privileges", prctl(libc::PR_GET_NO_NEW_PRIVS).to_string()),
        ("timer slack", prctl(libc::PR_GET_TIMERSLACK).to_string()),
        ("oom score", read("oom_score_adj")),
        ("personality", read("personality")),
        ("limits", read("limits")),
        ("control groups", read("cgroup")),
        ("mounts", read("mountinfo")),
        ("id maps", read("uid_map") + &read("gid_map") + &read("setgroups")),
        ("signal actions", format!("{:?}", actions.collect::<Vec<_>>())),
        // SAFETY: zeroed bytes are a valid stack_t, and the kernel has filled it in.
        ("signal stack", format!("{:?}", unsafe { stack.assume_init() }.ss_flags)),
        ("session, process group, nice value", format!("{session} {group} {nice}")),
        ("descriptors", format!("{descriptors:#?}")),
        ("host name", read("/proc/sys/kernel/hostname")),
        ("children", children()),
    ])
}

/// The sockets of the threads that clone, the one that holds ids, the eventfd and the epoll set of the one that watches, the
/// mount namespace to start from, and the mount with the null device of the programs.
fn is_of_the_library(link: &str) -> bool {
    link.starts_with("socket:")
        || link.starts_with("mnt:")
        || link == "anon_inode:[eventfd]"
        || link == "anon_inode:[eventpoll]"
        || link.starts_with("/proc/")
        || link == "/"
}

fn children() -> String {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect()
}

/// Sandboxes of every sort: good, bad, killed, timed out, with and without namespaces.
fn spawn_all_sorts(root: &common::TempDir) {
    let base = common::sandbox;
    let rich = common::on_root(base(), root)
        .rootfs(RootFs::overlay([root.path()]).scratch())
        .bind_ro("/usr", "/usr")
        .namespaces(Namespaces::all() - Namespaces::USER)
        .hostname("box")
        .umask(0o77)
        .rlimit(Resource::Core, 0, 0)
        .init(true);
    assert!(rich.clone().command("/bin/true").status().unwrap().success());
    assert!(Sandbox::new().user_ns().pid_ns().command("/bin/true").status().unwrap().success());
    assert!(Sandbox::new().command("/bin/true").cwd("/").env_clear().env("A", "b").status().unwrap().success());
    assert_eq!(common::stdout(&common::sh("cd /; umask 0; ulimit -n 5; echo x")), "x");
    assert!(base().command("/no/such").spawn().is_err());
    assert!(rich.clone().command("/no/such").spawn().is_err());
    assert!(rich.clone().command("/bin/true").fail_at(12, libc::EDOM).spawn().is_err());
    assert!(base().hostname("box").spawn().is_err());
    drop(base().command("/bin/sleep").arg("1000").spawn().unwrap());
    base().pid_ns().command("/bin/true").spawn().unwrap().detach().unwrap();
    let timed = base().command("/bin/sleep").arg("1000").wall_time(Duration::from_millis(5));
    assert_eq!(timed.status().unwrap().verdict(), Verdict::WallTime);
    if common::is_root() {
        let user = Sandbox::new().user(65534, 65534).command("/bin/true");
        assert!(user.status().unwrap().success());
        let limited = Sandbox::new().cgroup_parent(common::cgroup_parent()).memory_limit(64 << 20);
        assert!(limited.command("/bin/true").status().unwrap().success());
    }
}

/// A process with settings of its own, so that a default that is put back would show.
fn looks_at_itself() {
    use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
    extern "C" fn handler(_: libc::c_int) {}
    let root = common::root_dir();
    let dir = common::TempDir::new();
    std::env::set_current_dir(dir.path()).unwrap();
    // SAFETY: there is one thread; the handler does nothing.
    unsafe {
        libc::umask(0o27);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::prctl(libc::PR_SET_TIMERSLACK, 70_000);
        libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
        signal(Signal::SIGUSR1, SigHandler::Handler(handler)).unwrap();
        signal(Signal::SIGPIPE, SigHandler::SigIgn).unwrap();
    }
    fs::write("/proc/self/oom_score_adj", "17").unwrap();
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR2);
    mask.thread_block().unwrap();
    let open = fs::File::open("/dev/zero").unwrap();
    // SAFETY: a plain descriptor number; not close-on-exec.
    assert!(unsafe { libc::dup2(open.as_raw_fd(), 77) } == 77);
    let (stop, running) = (AtomicBool::new(false), Barrier::new(4));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                running.wait();
                let mut kept = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    kept.push(vec![0u8; 1 + kept.len() * 97 % 9000]);
                    kept.truncate(100 * usize::from(kept.len() < 200));
                }
            });
        }
        running.wait();
        let before = state();
        assert!(before.values().all(|value| !value.is_empty() || value == &before["children"]));
        assert_eq!((before["oom score"].trim(), before["subreaper"].as_str()), ("17", "1"));
        let result = std::panic::catch_unwind(|| {
            (0..25).for_each(|_| spawn_all_sorts(&root));
            compare(&before);
        });
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let links = links(Path::new("/proc/self/fd"));
    let count = |kind| links.values().filter(|to| to.starts_with(kind)).count();
    let (sockets, namespaces) = (count("socket:"), count("mnt:"));
    let mounts = links.values().filter(|to| *to == "/").count();
    let cores = thread::available_parallelism().unwrap().get();
    assert!((1..=cores).contains(&sockets), "{sockets} sockets");
    assert!(namespaces <= 1, "{namespaces} mount namespaces");
    assert!(mounts <= 1, "{mounts} mounts");
    std::env::set_current_dir("/").unwrap();
}

/// A detached program is reaped a moment after its end.
fn compare(before: &BTreeMap<&str, String>) {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !children().trim().is_empty() && std::time::Instant::now() < until {
        thread::yield_now();
    }
    let after = state();
    let changed: Vec<_> = before.iter().filter(|(name, value)| after[*name] != **value).collect();
    for (name, value) in &changed {
        for (old, new) in value.split("\\n").zip(after[*name].split("\\n")).filter(|(old, new)| old != new) {
            eprintln!("{name}: {old:?} became {new:?}");
        }
    }
    assert!(changed.is_empty(), "{:?}", changed.iter().map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn nothing_of_the_caller_changes() {
    let _clean = common::clean();
    probe::succeeds(probe::caller("looks-at-itself"));
}
