//! A root of the host's programs that the library makes once and copies for each sandbox: no sandbox finds what another
//! did to it, and what changes on the host shows in the next one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc;

use crate::common::{self, TempDir, probe};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use ringfence::{Bind, Capabilities, Capability, MemoryFile, RootFs, Sandbox, Stdio, Tmpfs};

common::callers! {
    |words|
    "follows-its-host" => follows_its_host(Path::new(words[1])),
    "may-not-list-etc" => may_not_list_etc(),
}

/// The kernel mounts on detached trees, and copies them.
fn is_kept_here() -> bool {
    common::is_root() && common::kernel() >= (6, 15)
}

/// A sandbox of nobody's on the host's programs, with all capabilities inside but that for mounts, with which the setup
/// makes a root of its own.
fn mighty() -> Sandbox {
    let all = Capabilities::all_but([Capability::CAP_SYS_ADMIN]);
    Sandbox::new()
        .user_ns()
        .pid_ns()
        .net_ns()
        .ipc_ns()
        .rootfs(RootFs::programs())
        .user(65_534, 65_534)
        .capabilities(all)
}

fn ask(sandbox: &Sandbox, script: &str) -> String {
    common::stdout(&common::shell(sandbox.clone(), script))
}

/// Whether the roots of two sandboxes that are there at once are one file system.
fn shares_its_root(sandbox: &Sandbox) -> bool {
    let name = "stat -c '%d %i' /";
    let first =
        common::shell(sandbox.clone(), &format!("{name}; read end")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut first = first.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let second = ask(sandbox, name);
    drop(first.stdin.take());
    first.wait().unwrap();
    line.trim_end() == second
}

#[test]
fn one_root_serves_the_sandboxes_of_one_policy() {
    let _clean = common::clean();
    for sandbox in [common::strict(), mighty()] {
        assert_eq!(shares_its_root(&sandbox), is_kept_here(), "{sandbox:?}");
    }
    // Whose files would belong to another has a root of its own.
    let own = Sandbox::new().user_ns().pid_ns().rootfs(RootFs::programs());
    assert!(!shares_its_root(&own));
    assert_eq!(ask(&own, "stat -c %u / /etc /etc/passwd"), "0\n0\n0");
}

#[test]
fn no_sandbox_changes_the_root_of_another() {
    let _clean = common::clean();
    let changes = "for act in 'touch /x' 'mkdir /etc/x' 'chmod 777 /etc/passwd' 'chown 1:1 /' 'rm /etc/hosts' \
        'mv /etc/group /etc/g' 'ln -s x /y' 'rmdir /tmp' 'touch -d @0 /etc/hosts' 'mknod /p p' 'touch /usr/x' \
        'touch /etc/ssl/certs/x'; do $act 2>/dev/null && echo \"$act\"; done; \
        (echo x >>/etc/passwd) 2>/dev/null && echo passwd; echo end";
    let files = "/ /etc /etc/passwd /etc/group /etc/hosts";
    let list = &format!("stat -c '%n %a %u %g %s' {files}; cat /etc/passwd; ls -a / /etc");
    let times = &format!("stat -c %y {files}");
    let host = fs::File::open("/proc/self/mountinfo").unwrap();
    let before = [list, times].map(|script| ask(&mighty(), script));
    assert_eq!(ask(&common::strict(), changes), "end");
    // The sandbox owns nothing there, but has the capabilities that open files to whoever does.
    assert_eq!(ask(&mighty(), changes), "end");
    // Below, it may mount; what it was given stays closed.
    let below = format!(
        "unshare -Urm sh -c 'for how in remount,rw remount,bind,rw; do \
            for at in / /usr /etc/ssl/certs; do mount -o $how $at 2>/dev/null && echo $how $at; done; done; \
            umount -l /etc/ssl/certs 2>/dev/null && echo gone; sh -c \"$0\"' '{}'",
        changes.replace('\'', "'\\''")
    );
    assert_eq!(ask(&mighty(), &below), "end");
    assert_eq!(ask(&mighty(), list), before[0]);
    // A root that is made for each sandbox has times of its own, and so has the next one once somebody has mounted
    // something on the host.
    let after = ask(&mighty(), times);
    let mut polled = [PollFd::new(host.as_fd(), PollFlags::POLLPRI)];
    poll(&mut polled, PollTimeout::ZERO).unwrap();
    let is_other = polled[0].revents().unwrap().contains(PollFlags::POLLPRI);
    assert!(!is_kept_here() || is_other || after == before[1], "{after}\n{before:?}");
}

#[test]
fn a_kept_root_has_the_places_of_its_mounts() {
    let _clean = common::clean();
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/file"), "found").unwrap();
    let file = dir.path().join("d/file");
    let sandbox = mighty()
        .mount(Bind::new(dir.path().join("d"), "/work/a/b").read_only())
        .mount(Bind::new(&file, "/work/a/b/file").read_only())
        .mount(Bind::new(&file, "/etc/extra/file").read_only())
        .mount(Bind::new(&file, "/etc/protocols").read_only())
        .mount(MemoryFile::new("/etc/told", "told"))
        .mount(Tmpfs::new("/var/tmp"));
    let script = "cat /work/a/b/file /etc/extra/file /etc/protocols /etc/told; touch /var/tmp/x; \
        stat -c ' %a' / /etc /work /work/a /etc/passwd /etc/extra";
    for _ in 0..2 {
        assert_eq!(ask(&sandbox, script), "foundfoundfoundtold 755\n 755\n 755\n 755\n 644\n 755");
    }
    assert_eq!(shares_its_root(&sandbox), is_kept_here());
    // Nothing else can be made there, so that a root of its own is made for it.
    let linked = mighty().symlink("/etc/passwd", "/link");
    assert_eq!(ask(&linked, "readlink /link"), "/etc/passwd");
    assert!(!shares_its_root(&linked));
}

/// In a mount namespace of its own, on an overlay of the host's root, so that all may change.
fn follows_its_host(scratch: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let [upper, work, root] = ["upper", "work", "root"].map(|name| scratch.join(name));
    for dir in [&upper, &work, &root] {
        fs::create_dir(dir).unwrap();
    }
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(&*options)).unwrap();
    for dir in ["proc", "dev", "run", "sys"] {
        let place = root.join(dir);
        mount(Some(&Path::new("/").join(dir)), &place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
    }
    nix::unistd::chdir(&root).unwrap();
    nix::unistd::pivot_root(".", ".").unwrap();
    umount2(".", MntFlags::MNT_DETACH).unwrap();
    nix::unistd::chdir("/").unwrap();

    fs::write("/etc/protocols", "old").unwrap();
    let _ = fs::remove_file("/etc/mime.types");
    // Times of /etc are told apart only by what is older than they are exact.
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let sandbox = mighty();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    assert!(shares_its_root(&sandbox), "the root is not kept here");
    // The caller's umask is nothing to the files in it.
    assert_eq!(ask(&sandbox, "stat -c %a / /etc /etc/ssl /etc/passwd"), "755\n755\n755\n644");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let prepared = common::shell(sandbox.clone(), "cat /etc/protocols; ls /etc").prepare().unwrap();
    let seen = || String::from_utf8(prepared.output().unwrap().stdout).unwrap();
    assert!(seen().starts_with("old") && !seen().contains("java-99"), "{}", seen());

    // A file takes the place of another, as ldconfig(8) does it.
    fs::write("/etc/new", "new").unwrap();
    fs::rename("/etc/new", "/etc/protocols").unwrap();
    assert!(seen().starts_with("new"), "{}", seen());
    assert!(ask(&sandbox, "cat /etc/protocols").starts_with("new"));
    // What was written to a file that stays shows, too.
    fs::write("/etc/protocols", "newer").unwrap();
    assert!(seen().starts_with("newer"));
    // Names come and go.
    fs::create_dir("/etc/java-99-test").unwrap();
    assert!(seen().contains("java-99"), "{}", seen());
    symlink("/usr", "/etc/mime.types").unwrap();
    assert_eq!(ask(&sandbox, "readlink /etc/mime.types"), "/usr");
    fs::remove_file("/etc/mime.types").unwrap();
    symlink("/tmp", "/etc/mime.types").unwrap();
    assert_eq!(ask(&sandbox, "readlink /etc/mime.types"), "/tmp");
    fs::remove_dir("/etc/java-99-test").unwrap();
    assert!(!seen().contains("java-99"), "{}", seen());

    std::thread::sleep(std::time::Duration::from_millis(2_100));
    assert!(shares_its_root(&sandbox));
    // Who unpacks an archive sets the times of its directories.
    let modified = fs::metadata("/etc").unwrap().modified().unwrap();
    fs::create_dir("/etc/java-98-test").unwrap();
    fs::File::open("/etc").unwrap().set_modified(modified).unwrap();
    assert!(seen().contains("java-98"), "{}", seen());

    std::thread::sleep(std::time::Duration::from_millis(2_100));
    assert!(shares_its_root(&sandbox));
    // What is mounted on the host is shown, and not kept busy.
    mount(Some("tmpfs"), "/usr/local", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::write("/usr/local/mounted", "").unwrap();
    let list = "ls /usr/local";
    assert_eq!(ask(&sandbox, list), "mounted");
    assert!(!shares_its_root(&sandbox));
    umount2("/usr/local", MntFlags::empty()).unwrap();
    assert!(!ask(&sandbox, list).contains("mounted"));
    assert!(shares_its_root(&sandbox));
    // A thread with mounts of its own.
    let mounted = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("tmpfs"), "/usr/local", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::write("/usr/local/of-the-thread", "").unwrap();
        let sandbox = mighty();
        (ask(&sandbox, list), shares_its_root(&sandbox))
    });
    assert_eq!(mounted.join().unwrap(), ("of-the-thread".to_owned(), false));
    assert!(!ask(&sandbox, list).contains("of-the-thread"));
    goes_and_comes_back(&sandbox);
    lacks_descriptors(&sandbox);
    leaves_its_root(&sandbox);
}

/// The process itself goes to another mount namespace, and comes back to its own, where something was mounted meanwhile.
fn goes_and_comes_back(sandbox: &Sandbox) {
    let list = "ls /usr/local";
    let own = fs::File::open("/proc/self/ns/mnt").unwrap();
    let (left, has_left) = mpsc::channel();
    let stays = std::thread::spawn(move || {
        has_left.recv().unwrap();
        mount(Some("tmpfs"), "/usr/local", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::write("/usr/local/meanwhile", "").unwrap();
    });
    assert!(!ask(sandbox, list).contains("meanwhile") && shares_its_root(sandbox));
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    let other = sandbox.clone().mount(Tmpfs::new("/var/other"));
    assert!(shares_its_root(&other));
    left.send(()).unwrap();
    stays.join().unwrap();
    unshare(CloneFlags::CLONE_FS).unwrap();
    setns(own, CloneFlags::CLONE_NEWNS).unwrap();
    assert_eq!(ask(sandbox, list), "meanwhile");
    umount2("/usr/local", MntFlags::empty()).unwrap();
}

/// The process has only so many descriptors for a moment.
fn lacks_descriptors(sandbox: &Sandbox) {
    for left in 3..16 {
        let sandbox = sandbox.clone().mount(Tmpfs::new(format!("/var/{left}")));
        let mut taken = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            taken.push(file);
        }
        taken.truncate(taken.len() - left);
        let _ = common::shell(sandbox.clone(), ":").spawn();
        drop(taken);
        assert!(shares_its_root(&sandbox), "with {left} left");
    }
}

/// The process takes another mount for its root, and unmounts the one that it had.
fn leaves_its_root(sandbox: &Sandbox) {
    assert!(shares_its_root(sandbox));
    let (none, new) = (None::<&str>, "/new-root");
    for dir in [new, "/old"] {
        fs::create_dir(dir).unwrap();
    }
    mount(Some("/"), new, none, MsFlags::MS_BIND, none).unwrap();
    nix::unistd::pivot_root(new, "/new-root/old").unwrap();
    nix::unistd::chdir("/").unwrap();
    for dir in ["proc", "dev", "run", "sys"] {
        umount2(&Path::new("/old").join(dir), MntFlags::MNT_DETACH).unwrap();
    }
    assert_eq!(umount2("/old", MntFlags::empty()), Ok(()));
}

#[test]
fn what_changes_on_the_host_shows_in_the_next_sandbox() {
    let _clean = common::clean();
    if common::needs_root("an overlay over the root") {
        return;
    }
    if !is_kept_here() {
        return common::skip("a root is kept since Linux 6.15", true);
    }
    let dir = TempDir::new();
    probe::succeeds(probe::caller(&format!("follows-its-host {}", dir.path().display())));
}

/// An ordinary user in a mount namespace where /etc has no names for it.
fn may_not_list_etc() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(None::<&str>, "/etc", Some("tmpfs"), MsFlags::empty(), Some("mode=711")).unwrap();
    common::become_ordinary();
    let error = Sandbox::new().user_ns().rootfs(RootFs::programs()).command("/bin/true").status().unwrap_err();
    println!("{error}");
}

/// A root without the toolchains would be another than the one that was asked for.
#[test]
fn a_caller_that_may_not_list_etc_gets_an_error_and_no_smaller_root() {
    let _clean = common::clean();
    if common::needs_root("a mount at /etc") {
        return;
    }
    let told = probe::succeeds(probe::caller("may-not-list-etc"));
    assert!(told.starts_with("open /etc: EACCES (Permission denied); "), "{told}");
}
