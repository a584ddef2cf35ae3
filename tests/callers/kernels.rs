//! Older kernels, and filters around the caller that do not know newer calls. Each case is a process of its own: this
//! binary again, under a seccomp filter that refuses the calls in question with ENOSYS, as such a kernel does, or with
//! EPERM, as such a filter may. Threads and children inherit it, and so do the stub and the program.
//!
//! The filter asks a thread of the case what to answer, which counts: a case that passes without a refusal proves
//! nothing, and fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{
    self, answers, probe,
    refuse::{Call, Only, all_refused, call, errno_of, has_refused, refuse},
};
use nix::errno::Errno;
use ringfence::{
    Bind, Cgroupfs, Command, Enforced, Enforcement, Error, ErrorKind, Feature, Landlock, MountOptions, Namespaces,
    RootFs, Sandbox, Stdio, Step, Tmpfs, Verdict,
};

/// The C library makes threads with it too, and takes only ENOSYS for an answer.
const CLONE3: Call = Call { number: libc::SYS_clone3, only: Only::Ours(|args| clone_flags(args) & CLONE_THREAD == 0) };
const CLONE_INTO_CGROUP: Call =
    Call { number: libc::SYS_clone3, only: Only::Ours(|args| clone_flags(args) & 1 << 33 != 0) };
const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;
const WAITID_PIDFD: Call = Call { number: libc::SYS_waitid, only: Only::Equal(0, libc::P_PIDFD) };
/// The file came with 5.14.
const CGROUP_KILL: Call =
    Call { number: libc::SYS_openat, only: Only::Ours(|args| path(args).ends_with(b"cgroup.kill")) };
const PIDFD_OPEN: Call = call(libc::SYS_pidfd_open);
const PIDFD_SEND_SIGNAL: Call = call(libc::SYS_pidfd_send_signal);
const OPENAT2: Call = call(libc::SYS_openat2);
const CLOSE_RANGE: Call = call(libc::SYS_close_range);
/// 5.9 and 5.10 know the call and not this flag.
const CLOSE_RANGE_CLOEXEC: Call =
    Call { number: libc::SYS_close_range, only: Only::Equal(2, libc::CLOSE_RANGE_CLOEXEC) };
const MOUNT_SETATTR: Call = call(libc::SYS_mount_setattr);
const OPEN_TREE: Call = call(libc::SYS_open_tree);
const MOVE_MOUNT: Call = call(libc::SYS_move_mount);
const FSOPEN: Call = call(libc::SYS_fsopen);
/// FSCONFIG_SET_FD, of which overlayfs knows nothing before 6.13.
const FSCONFIG_SET_FD: Call = Call { number: libc::SYS_fsconfig, only: Only::Equal(1, 5) };
const LANDLOCK: Call = call(libc::SYS_landlock_create_ruleset);
const FSMOUNT: Call = call(libc::SYS_fsmount);
/// Of either version.
const CGROUPFS: Call = Call { number: libc::SYS_fsopen, only: Only::Named("cgroup") };

fn clone_flags(args: &[u64; 6]) -> u64 {
    // SAFETY: the thread that calls, one of this process, stands still and gave struct clone_args, which flags begin.
    unsafe { *(args[0] as *const u64) }
}

fn path(args: &[u64; 6]) -> &[u8] {
    // SAFETY: the thread that calls, one of this process, stands still and gave a string with its NUL.
    unsafe { std::ffi::CStr::from_ptr(args[1] as *const libc::c_char) }.to_bytes()
}

common::callers! {
    |words|
    "clone3" => only(&[CLONE3], errno_of(&words)),
    "clone-into-cgroup" => born_outside(errno_of(&words)),
    "cgroup-kill" => groups_die(&[CGROUP_KILL], errno_of(&words)),
    "pidfd-open" => groups_die(&[CGROUP_KILL, PIDFD_OPEN], errno_of(&words)),
    "pidfd-send-signal" => only(&[PIDFD_SEND_SIGNAL], errno_of(&words)),
    "pidfds" => groups_die(&[CGROUP_KILL, PIDFD_OPEN, PIDFD_SEND_SIGNAL, WAITID_PIDFD], errno_of(&words)),
    "waitid" => only(&[WAITID_PIDFD], errno_of(&words)),
    "openat2" => openat2(errno_of(&words)),
    "close-range" => close_range(&[CLOSE_RANGE], errno_of(&words)),
    "close-range-cloexec" => close_range(&[CLOSE_RANGE_CLOEXEC], errno_of(&words)),
    "mount-setattr" => mount_setattr(errno_of(&words)),
    "open-tree" => is_told(OPEN_TREE, errno_of(&words), &[Step::OpenTree]),
    "move-mount" => is_told(MOVE_MOUNT, errno_of(&words), &[Step::MoveMount]),
    "fsopen" => is_told(FSOPEN, errno_of(&words), &[Step::Mount]),
    "fsmount" => is_told(FSMOUNT, errno_of(&words), &[Step::Mount]),
    "cgroupfs" => without_groups(errno_of(&words)),
    "fsconfig-set-fd" => layers_by_name(errno_of(&words)),
    "landlock" => landlock(errno_of(&words)),
    "old" => groups_die(&OLD, errno_of(&words)),
}

/// What Linux 5.4, the oldest that is enough, has not.
const OLD: [Call; 5] = [CLONE_INTO_CGROUP, CGROUP_KILL, OPENAT2, CLOSE_RANGE, MOUNT_SETATTR];

/// The calls fail with `errno` in a case of its own, which passes.
#[track_caller]
fn run_with(case: &str, errnos: &[Errno]) {
    for errno in errnos {
        eprintln!("{case}: {errno}");
        probe::succeeds(probe::caller(&format!("{case} {}", *errno as i32)));
    }
}

#[track_caller]
fn run(case: &str) {
    run_with(case, &[Errno::ENOSYS, Errno::EPERM]);
}

/// All of a sandbox that takes newer calls: namespaces, root, mounts, limits.
fn whole(root: &common::TempDir) -> Sandbox {
    let sandbox = common::on_root(common::sandbox(), root).pid_ns().ipc_ns().uts_ns().net_ns().hostname("box");
    let sandbox = sandbox.mount(Tmpfs::new("/tmp").mode(0o1777));
    if common::is_root() {
        sandbox.cgroup_parent(common::cgroup_parent()).pids_limit(20).memory_limit(256 << 20)
    } else {
        sandbox
    }
}

/// Whatever a sandbox does under the filter: start, tell, kill, fail, vanish.
fn everything_works(calls: &[Call], errno: Errno) {
    refuse(calls, errno);
    let _clean = common::clean();
    let root = common::root_dir();
    let text = common::stdout(&whole(&root).command("sh").args(["-c", "echo $$ $(hostname); touch /usr/x || echo no"]));
    assert_eq!(text, "1 box\nno");
    let outcome = whole(&root).command("sh").args(["-c", "exit 7"]).status().unwrap();
    assert_eq!(outcome.verdict(), Verdict::Exited(7));

    let mut child = whole(&root).command("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    answers(&mut child);
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal(libc::SIGTERM).unwrap();
    // pid 1 of a namespace is deaf to it.
    answers(&mut child);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Signaled(libc::SIGKILL));

    let child = whole(&root).init(true).command("sleep").arg("60").spawn().unwrap();
    let pid = child.id();
    drop(child);
    is_gone(pid);

    let start = Instant::now();
    let slept = whole(&root).command("sleep").arg("60").wall_time(Duration::from_millis(100)).status().unwrap();
    assert_eq!(slept.verdict(), Verdict::WallTime);
    assert!(start.elapsed() < Duration::from_secs(30));

    let error = whole(&root).command("/no/such/program").spawn().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::ENOENT)));
}

fn only(calls: &[Call], errno: Errno) {
    everything_works(calls, errno);
    all_refused(calls);
}

/// Without a pid namespace a control group tells who is to die.
fn groups_die(calls: &[Call], errno: Errno) {
    everything_works(calls, errno);
    let _clean = common::clean();
    let forks = "setsid sleep 60 & setsid sleep 60 & echo up; wait";
    let sandbox = common::sh(forks).cgroup_parent(common::cgroup_parent()).pids_limit(9);
    let mut child = sandbox.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(Path::new(&format!("/proc/{}/root", child.id())).exists());
    drop(child);
    all_refused(calls);
}

#[track_caller]
fn is_gone(pid: u32) {
    let until = Instant::now() + Duration::from_secs(5);
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < until, "{pid} lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The group is entered by the stub: whatever the program starts is inside as well.
fn born_outside(errno: Errno) {
    only(&[CLONE_INTO_CGROUP], errno);
    let _clean = common::clean();
    let parent = common::cgroup_parent();
    let sandbox = common::sh("cat /proc/self/cgroup").cgroup_parent(&parent).pids_limit(9);
    let text = common::stdout(&sandbox);
    let name = parent.file_name().unwrap().to_str().unwrap();
    assert!(text.lines().any(|line| line.starts_with("0::") && line.contains(name)), "{text}");
    assert!(!has_refused(), "a kernel without it is asked once");
}

/// Plain targets are found, and made; those behind a link are not.
fn openat2(errno: Errno) {
    only(&[OPENAT2], errno);
    let _clean = common::clean();
    let root = common::root_dir();
    let tmpfs = |at: &str| whole(&root).mount(Tmpfs::new(at)).command("sh").args(["-c", "stat -f -c %T /made/deep"]);
    assert_eq!(common::stdout(&tmpfs("/made/deep")), "tmpfs");
    std::os::unix::fs::symlink("made", root.path().join("link")).unwrap();
    let error = tmpfs("/link/deep").spawn().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::MountTarget, Some(libc::ELOOP)), "{error}");
    assert!(error.to_string().contains("openat2"), "{error}");
    all_refused(&[OPENAT2]);
}

/// What the caller has open without close-on-exec does not reach the program, whatever its number.
fn close_range(calls: &[Call], errno: Errno) {
    let high = 900;
    // SAFETY: numbers only.
    unsafe {
        assert_eq!(libc::dup2(2, high), high);
        let low = libc::rlimit { rlim_cur: 256, rlim_max: 256 };
        if calls[0].number == libc::SYS_close_range {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const low);
        }
    }
    everything_works(calls, errno);
    let _clean = common::clean();
    let root = common::root_dir();
    let text = common::stdout(&probe::at(whole(&root), "/probe", "fds"));
    let numbers: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{text}");
    all_refused(calls);
}

/// The directories of [`mount_tree`] on which something is mounted.
const MOUNTED: [&str; 6] = ["", "a", "a/deep", "b c", "d\\e\n#", "covered"];

/// A mount with others below it: in odd places, with flags of their own, one over the other, and on a file. The mount
/// namespace is this process's own, and an ordinary user's user namespace is.
fn mount_tree(at: &Path) {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let user = if common::is_root() { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    unshare(user | CloneFlags::CLONE_NEWNS).unwrap();
    if !user.is_empty() {
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).unwrap();
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).unwrap();
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (i, dir) in MOUNTED.iter().chain(["covered"].iter()).enumerate() {
        let flags = if i % 2 == 0 { MsFlags::empty() } else { quiet | MsFlags::MS_NOATIME };
        let place = at.join(dir);
        fs::create_dir_all(&place).unwrap();
        mount(Some("tmpfs"), &place, Some("tmpfs"), flags, Some("size=64k,mode=777")).unwrap();
    }
    for file in ["file", "over"] {
        fs::write(at.join(file), "x").unwrap();
    }
    mount(Some(&at.join("file")), &at.join("over"), none, MsFlags::MS_BIND, none).unwrap();
}

/// What in the tree, which stands at `tree` inside, can be written to; and the flags that its mounts have.
fn look_at(sandbox: Sandbox, tree: &str) -> (Vec<String>, Vec<(String, String)>) {
    let script = "cd $1; shift; for d in \"$@\"; do echo x 2>/dev/null >\"./$d\" && echo \"$d\"; done; \
        echo --; cat /proc/self/mountinfo";
    let places = MOUNTED.iter().map(|dir| Path::new(dir).join("x").to_str().unwrap().to_owned()).chain(["over".into()]);
    let arguments = ["-c", script, "sh", tree].map(str::to_owned).into_iter().chain(places);
    let text = common::stdout(&sandbox.command("/bin/sh").args(arguments));
    let (written, mounts) = text.split_once("--\n").unwrap();
    let mounts = mounts.lines().map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[4].to_owned(), fields[5].to_owned())
    });
    let mounts = mounts.filter(|(path, _)| Path::new(path).starts_with(tree)).collect();
    (written.lines().map(str::to_owned).collect(), mounts)
}

/// Flags hold on each mount of a tree, and those that were there before stay.
fn mount_setattr(errno: Errno) {
    let source = common::TempDir::new();
    let at = source.path();
    mount_tree(at);
    only(&[MOUNT_SETATTR], errno);
    let _clean = common::clean();
    let root = common::root_dir();
    let open = whole(&root).mount(Bind::new(at, "/tree"));
    // The odd name takes two lines.
    assert_eq!(look_at(open, "/tree").0.len(), MOUNTED.len() + 2);

    let (written, mounts) = look_at(whole(&root).bind_ro(at, "/tree"), "/tree");
    assert_eq!(written, [""; 0]);
    assert_eq!(mounts.len(), MOUNTED.len() + 2);
    let writable: Vec<_> = mounts.iter().filter(|(_, flags)| !flags.starts_with("ro")).collect();
    // What another mount covers nobody can reach.
    assert!(matches!(writable[..], [(path, _)] if path == "/tree/covered"), "{writable:?}");
    let kept = mounts.iter().filter(|(_, flags)| flags.contains("nosuid,nodev,noexec,noatime")).count();
    assert_eq!(kept, MOUNTED.len() / 2, "{mounts:?}");

    let noexec = Bind::new(at.join("file"), "/file").noexec().nosuid().read_only();
    let (_, mounts) = look_at(whole(&root).mount(noexec), "/file");
    assert!(matches!(&mounts[..], [(_, flags)] if flags.starts_with("ro,nosuid,nodev,noexec")), "{mounts:?}");
    if common::is_root() {
        access_times(at, &root);
        // A user namespace keeps what was mounted before it over what lies below.
        let alone = Bind::new(at, "/tree").read_only().non_recursive();
        assert!(look_at(whole(&root).mount(alone), "/tree").0.is_empty());
    }
    all_refused(&[MOUNT_SETATTR]);
    roots_are_read_only(at);
    all_refused(&[MOUNT_SETATTR]);
}

/// The ways of keeping access times are one field, of which mount(2) takes all or nothing.
fn access_times(tree: &Path, root: &common::TempDir) {
    let shown = |name: &str, words: &str| {
        let bind = Bind::new(tree.join(name), format!("/place-{name}")).options(MountOptions::parse(words.split(' ')));
        let (_, mounts) = look_at(whole(root).mount(bind), &format!("/place-{name}"));
        let [(_, flags)] = &mounts[..] else { panic!("{mounts:?}") };
        flags.split(',').filter(|flag| flag.ends_with("atime")).collect::<Vec<_>>().join(",")
    };
    for (name, words, found) in [
        // The first is `relatime` outside, the second `noatime`.
        ("file", "ro nosuid", "relatime"),
        ("file", "noatime", "noatime"),
        ("file", "strictatime", ""),
        ("file", "strictatime nodiratime", "nodiratime"),
        ("file", "nodiratime", "nodiratime,relatime"),
        ("file", "noatime nodiratime", "noatime,nodiratime"),
        ("file", "strictatime rnoatime", "noatime"),
        ("a", "bind ro exec", "noatime"),
        ("a", "bind atime", "relatime"),
        ("a", "bind nodiratime", "noatime,nodiratime"),
        ("a", "bind relatime nodiratime", "nodiratime,relatime"),
        ("a", "bind strictatime", ""),
    ] {
        assert_eq!(shown(name, words), found, "{name} {words}");
    }
}

/// A root of which nothing can be written, and the host's own.
fn roots_are_read_only(tree: &Path) {
    let host = common::sandbox().rootfs(RootFs::host()).pid_ns();
    assert!(look_at(host, tree.to_str().unwrap()).0.is_empty());
    for name in ["usr", "proc", "dev", "bin", "lib", "lib64", "sbin"] {
        match fs::read_link(Path::new("/").join(name)) {
            Ok(link) => std::os::unix::fs::symlink(link, tree.join(name)).unwrap(),
            Err(_) => fs::create_dir(tree.join(name)).unwrap(),
        }
    }
    let root = common::sandbox().rootfs(RootFs::dir(tree).read_only()).pid_ns().bind_ro("/usr", "/usr");
    assert!(look_at(root, "/").0.is_empty());
}

/// Layers are mounted by name: by links where there are many.
fn layers_by_name(errno: Errno) {
    refuse(&[FSCONFIG_SET_FD], errno);
    let _clean = common::clean();
    let (dir, scratch, base) = (common::TempDir::new(), common::TempDir::new(), common::root_dir());
    let layers: Vec<_> = (0..100).map(|i| dir.path().join(format!("{i}-{}", "x".repeat(200)))).collect();
    for (i, layer) in layers.iter().enumerate() {
        fs::create_dir(layer).unwrap();
        fs::write(layer.join(format!("of-{i}")), "").unwrap();
    }
    let [upper, work] = ["upper", "work"].map(|name| dir.path().join(name.repeat(40)));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    for count in [1, 100] {
        let root = || RootFs::overlay(layers[..count].iter().map(AsRef::as_ref).chain([base.path()]));
        for root in [root(), root().upper(&upper, &work), root().scratch_in(scratch.path())] {
            let script = "ls -d /of-* | wc -l; echo x >/new && cat /new; ls -d /../upper 2>/dev/null || :";
            let sandbox = common::sh(script).rootfs(root).bind_ro("/usr", "/usr").default_masks(true).pid_ns();
            assert_eq!(common::stdout(&sandbox), format!("{count}\nx"));
        }
    }
    assert!(upper.join("new").exists());
    all_refused(&[FSCONFIG_SET_FD]);
}

/// What cannot be enforced is refused, or left out for who said so.
fn landlock(errno: Errno) {
    refuse(&[LANDLOCK], errno);
    let _clean = common::clean();
    let sandbox = common::sh("true").landlock(Landlock::new().execute("/"));
    for error in [sandbox.check().unwrap_err(), sandbox.spawn().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(
            error.problems().iter().map(|problem| problem.feature).collect::<Vec<_>>(),
            [Some(Feature::LandlockFiles)]
        );
    }
    let mut child = sandbox.best_effort(Feature::LandlockFiles).spawn().unwrap();
    let enforced = child.enforced().get(Feature::LandlockFiles).cloned();
    assert!(matches!(enforced, Some(Enforcement::Missing(_))), "{enforced:?}");
    assert!(child.wait().unwrap().success());
    all_refused(&[LANDLOCK]);
}

/// There is no fallback: the error says what is missing, and nothing is left behind.
fn is_told(call: Call, errno: Errno, steps: &[Step]) {
    refuse(&[call], errno);
    let _clean = common::clean();
    let root = common::root_dir();
    let error: Error = whole(&root).command("true").spawn().unwrap_err();
    assert!(steps.contains(&error.step()), "{error}");
    assert_eq!(error.raw_os_error(), Some(errno as i32), "{error}");
    assert!(error.to_string().contains("Linux 5.2"), "{error}");
    all_refused(&[call]);
}

#[test]
fn without_clone3() {
    let _clean = common::clean();
    run("clone3");
}

#[test]
fn without_clone_into_cgroup() {
    let _clean = common::clean();
    if common::needs_root("a control group") || !has_v2_group() {
        return;
    }
    // E2BIG from 5.3 and 5.4, EINVAL from 5.5 and 5.6, the others from filters.
    run_with("clone-into-cgroup", &[Errno::E2BIG, Errno::EINVAL, Errno::ENOSYS, Errno::EPERM]);
}

/// True where a sandbox's group has a v2 part; where not, says so.
#[track_caller]
fn has_v2_group() -> bool {
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - cgroup2 ");
    if !mounted {
        common::skip("this host has no cgroup2 mount", true);
    }
    mounted
}

#[test]
fn without_cgroup_kill() {
    let _clean = common::clean();
    if common::needs_root("a control group") || !has_v2_group() {
        return;
    }
    run_with("cgroup-kill", &[Errno::ENOENT]);
}

#[test]
fn without_pidfd_open() {
    let _clean = common::clean();
    if common::needs_root("a control group") {
        return;
    }
    run("pidfd-open");
}

#[test]
fn without_pidfd_send_signal() {
    let _clean = common::clean();
    run("pidfd-send-signal");
}

#[test]
fn without_waiting_by_pidfd() {
    let _clean = common::clean();
    run_with("waitid", &[Errno::EINVAL, Errno::ENOSYS, Errno::EPERM]);
}

#[test]
fn without_any_call_for_pidfds() {
    let _clean = common::clean();
    if common::needs_root("a control group") {
        return;
    }
    run("pidfds");
}

#[test]
fn without_openat2() {
    let _clean = common::clean();
    run("openat2");
}

#[test]
fn without_close_range() {
    let _clean = common::clean();
    run("close-range");
    run_with("close-range-cloexec", &[Errno::EINVAL]);
}

#[test]
fn without_mount_setattr() {
    let _clean = common::clean();
    run("mount-setattr");
}

#[test]
fn without_all_that_came_after_linux_5_4() {
    let _clean = common::clean();
    if common::needs_root("a control group") || !has_v2_group() {
        return;
    }
    run("old");
}

#[test]
fn without_landlock() {
    let _clean = common::clean();
    run_with("landlock", &[Errno::ENOSYS, Errno::EOPNOTSUPP, Errno::EPERM]);
}

#[test]
fn without_the_calls_for_detached_mounts() {
    let _clean = common::clean();
    for case in ["open-tree", "move-mount", "fsopen", "fsmount"] {
        run(case);
    }
}

#[test]
fn without_layers_by_descriptor() {
    let _clean = common::clean();
    if common::needs_root("the mount namespace to start from") {
        return;
    }
    run_with("fsconfig-set-fd", &[Errno::EINVAL, Errno::ENOSYS, Errno::EPERM]);
}

/// A security module, or a filter, that lets nobody mount control groups.
#[test]
fn a_default_mount_of_groups_that_is_refused_refuses_no_sandbox() {
    let _clean = common::clean();
    if common::no_cgroups() || common::needs_root("the look into the stub, for what it mounts,") {
        return;
    }
    run_with("cgroupfs", &[Errno::EACCES, Errno::EPERM, Errno::ENODEV]);
}

fn without_groups(errno: Errno) {
    refuse(&[CGROUPFS], errno);
    let _clean = common::clean();
    let limited = |sandbox: Sandbox| sandbox.memory_limit(64 << 20).pids_limit(20);
    let is_told = |enforced: &Enforced| {
        let told = enforced.get(Feature::Cgroupfs);
        let Some(Enforcement::Missing(why)) = told else { panic!("{told:?}") };
        assert!(why.contains(errno.desc()) && why.contains("; let the security module"), "{why}");
        assert!(!enforced.is_full());
    };
    let script = "ls -A /sys/fs/cgroup 2>/dev/null; echo begun";
    let strict = limited(common::strict());
    let mut child = strict.clone().command("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    all_refused(&[CGROUPFS]);
    is_told(child.enforced());
    let mut further = child.exec("true").unwrap();
    is_told(further.enforced());
    assert!(further.wait().unwrap().success());
    answers(&mut child);
    drop(child);
    let strict = strict.command("sh").args(["-c", script]);
    is_told(&strict.check().unwrap());
    let (prepared, pool) = (strict.prepare().unwrap(), strict.pool(1).unwrap());
    is_told(prepared.enforced());
    let outputs = [strict.output(), prepared.output(), pool.output(Command::new("sh").args(["-c", script]))];
    for output in outputs.map(Result::unwrap) {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "begun\n", "{output:?}");
    }
    assert!(!has_refused(), "the host is known to refuse");
    // A check without a user namespace tries by itself; on a directory as the root, /sys is made as well.
    let root = common::root_dir();
    std::fs::create_dir(root.path().join("sys")).unwrap();
    let plain = limited(common::strict()).share(Namespaces::USER).rootfs(root.path()).bind_ro("/usr", "/usr");
    is_told(&plain.check().unwrap());
    all_refused(&[CGROUPFS]);
    assert_eq!(common::stdout(&plain.command("sh").args(["-c", "ls -A /sys; echo begun"])), "begun");
    // What was asked for by name is an error.
    let named = limited(common::sandbox().cgroup_parent(common::cgroup_parent()));
    let named = named.pid_ns().cgroup_ns().rootfs(RootFs::programs()).mount(Cgroupfs::new("/sys/fs/cgroup"));
    let error = named.command("true").spawn().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(errno as i32)), "{error}");
}
