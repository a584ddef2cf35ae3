//! An ordinary user: ranges of ids through newuidmap(1), the full sandbox, and what is said where something is missing.
//! Run as root, each of these users is a process of its own, in a mount namespace with an /etc of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{self, TempDir, probe, shell};
use ringfence::{Error, ErrorKind, IdMap, RootFs, Sandbox, Step};

common::callers! {
    |words|
    "has-ranges" => has_ranges(Path::new(words[1])),
    "has-ranges-by-number" => has_ranges_by_number(),
    "has-no-ranges" => has_no_ranges(),
    "has-ranges-elsewhere" => has_ranges_elsewhere(),
    "lacks-the-programs" => lacks_the_programs(Path::new(words[1])),
    "gains-nothing" => gains_nothing(),
    "program-hangs" => program_hangs(Path::new(words[1])),
    "ignores-sigchld-and-has-ranges" => ignores_sigchld(),
    "is-in-a-group" => is_in_a_group(Path::new(words[1])),
    "has-everything" => has_everything(Path::new(words[1])),
    "has-everything-and-ranges" => has_everything_and_ranges(Path::new(words[1])),
}

/// True, after saying so, where these tests cannot have an ordinary user who is granted ids.
#[track_caller]
fn no_ranges() -> bool {
    if common::needs_root("an /etc/subuid of one's own") {
        return true;
    }
    let installed = Path::new("/usr/bin/newuidmap").exists() && Path::new("/usr/bin/newgidmap").exists();
    if !installed {
        common::skip("newuidmap and newgidmap (the package uidmap) are not installed", false);
    }
    !installed
}

/// A mount namespace with an /etc to which these files are added.
fn own_etc(files: &[(&str, &str)]) {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let dir = TempDir::new();
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let [upper, work] = ["upper", "work"].map(|name| dir.path().join(name));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
    nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    for (name, text) in files {
        fs::write(Path::new("/etc").join(name), text).unwrap();
    }
}

/// Puts `over` in the place of a program.
fn replace(program: &str, over: &Path) {
    use nix::mount::{MsFlags, mount};
    mount(Some(over), program, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

const BY_NAME: [(&str, &str); 2] = [("subuid", "nobody:100000:65536\n"), ("subgid", "nobody:200000:65536\n")];

fn become_granted() {
    own_etc(&BY_NAME);
    common::become_ordinary();
}

const TELL: &str = "while read i o n; do echo u $i $o $n; done </proc/self/uid_map
    while read i o n; do echo g $i $o $n; done </proc/self/gid_map; cat /proc/self/setgroups; id -u; id -G";

fn has_ranges(dir: &Path) {
    become_granted();
    let sandbox = shell(Sandbox::new().user_ns().map_subids(), TELL);
    let maps = "u 0 65534 1\nu 1 100000 65536\ng 0 65534 1\ng 1 200000 65536\nallow";
    assert_eq!(common::stdout(&sandbox), format!("{maps}\n0\n0"));
    assert_eq!(common::stdout(&sandbox.user(1000, 1001).groups([7, 8])), format!("{maps}\n1000\n1001 7 8"));
    // Lines of one's own, none of which is the caller's id.
    let given = Sandbox::new().user_ns().uid_map(IdMap::new(0, 100_000, 10)).gid_map(IdMap::new(0, 200_005, 10));
    assert_eq!(common::stdout(&shell(given, TELL)), "u 0 100000 10\ng 0 200005 10\nallow\n0\n0");
    // A range of users, and only the own group, which does not give setgroups(2).
    let given = Sandbox::new().user_ns().uid_map(IdMap::new(0, 100_000, 10)).gid_map(IdMap::new(0, 65534, 1));
    let text = common::stdout(&shell(given, TELL));
    assert_eq!(text, "u 0 100000 10\ng 0 65534 1\ndeny\n0\n0");
    let script = format!("cd {} && touch root && chown 5:6 root && mv root user && touch root", dir.display());
    common::stdout(&shell(Sandbox::new().user_ns().map_subids().pid_ns().net_ns(), &script));
    let owner = |name: &str| fs::metadata(dir.join(name)).map(|meta| (meta.uid(), meta.gid())).unwrap();
    assert_eq!((owner("root"), owner("user")), ((65534, 65534), (100_004, 200_005)));
    // What a scratch directory would be left with.
    let scratch =
        Sandbox::new().user_ns().map_subids().rootfs(RootFs::overlay(["/usr"]).scratch()).check().unwrap_err();
    assert!(scratch.to_string().contains("subordinate ids"), "{scratch}");
}

fn has_ranges_by_number() {
    own_etc(&[("subuid", "other:1:5\n65534:300000:5\n65534:400000:5\n"), ("subgid", "65534:300000:10\n")]);
    common::become_ordinary();
    let maps = "u 0 65534 1\nu 1 300000 5\nu 6 400000 5\ng 0 65534 1\ng 1 300000 10\nallow\n0\n0";
    assert_eq!(common::stdout(&shell(Sandbox::new().user_ns().map_subids(), TELL)), maps);
}

/// The same error from a look beforehand and from the attempt.
#[track_caller]
fn refused(sandbox: &Sandbox) -> Error {
    let error = sandbox.check().unwrap_err();
    assert_eq!(sandbox.spawn().unwrap_err().to_string(), error.to_string());
    error
}

fn has_no_ranges() {
    own_etc(&[("subuid", "other:100000:65536\n"), ("subgid", "nobody:200000:5\n")]);
    common::become_ordinary();
    let error = refused(&Sandbox::new().user_ns().map_subids());
    assert_eq!((error.kind(), error.problems().len()), (ErrorKind::Unsupported, 1), "{error}");
    let text = error.to_string();
    assert!(text.contains("/etc/subuid gives nobody no range; as root: add the line nobody:100000:65536"), "{text}");
    let range = IdMap::new(0, 200_000, 6);
    let error = refused(&Sandbox::new().user_ns().uid_map(range).gid_map(range));
    let subjects: Vec<&str> = error.problems().iter().map(|problem| problem.subject.as_str()).collect();
    assert_eq!(subjects, ["uid_map", "gid_map"], "{error}");
    assert!(error.problems()[1].reason.contains("/etc/subgid gives nobody not the 6 ids from 200000 on"), "{error}");
    assert!(error.problems().iter().all(|problem| problem.remedy.contains("map ids of that range")), "{error}");
}

/// Nobody can look beforehand, and newgidmap refuses: its own words are the error's.
fn has_ranges_elsewhere() {
    own_etc(&[("nsswitch.conf", "passwd: files\nsubid: nothing\n"), BY_NAME[0], BY_NAME[1]]);
    common::become_ordinary();
    let error = refused(&Sandbox::new().user_ns().map_subids().uid_map(IdMap::new(0, 1, 2)));
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let range = IdMap::new(0, 1, 2);
    let sandbox = Sandbox::new().user_ns().uid_map(range).gid_map(range);
    sandbox.check().unwrap();
    let error = sandbox.command("/bin/true").spawn().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::WriteIdMap), "{error}");
    assert!(error.path().unwrap().ends_with("newgidmap") && error.to_string().contains("newgidmap: "), "{error}");
}

fn lacks_the_programs(dir: &Path) {
    own_etc(&BY_NAME);
    let plain = dir.join("plain");
    fs::copy("/usr/bin/newgidmap", &plain).unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).unwrap();
    replace("/usr/bin/newuidmap", Path::new("/dev/null"));
    replace("/usr/bin/newgidmap", &plain);
    common::become_ordinary();
    let error = refused(&Sandbox::new().user_ns().map_subids());
    let text = error.to_string();
    assert_eq!((error.kind(), error.problems().len()), (ErrorKind::Unsupported, 2), "{text}");
    assert!(text.contains("not installed; install the package uidmap") && text.contains("neither set-uid"), "{text}");
    // The own id by itself needs neither.
    assert_eq!(common::stdout(&shell(Sandbox::new().user_ns(), "id -u")), "0");
}

fn gains_nothing() {
    own_etc(&BY_NAME);
    common::become_ordinary();
    nix::sys::prctl::set_no_new_privs().unwrap();
    let error = refused(&Sandbox::new().user_ns().map_subids());
    assert!(error.to_string().contains("no_new_privs"), "{error}");
}

fn program_hangs(dir: &Path) {
    own_etc(&BY_NAME);
    let hangs = dir.join("hangs");
    fs::write(&hangs, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(&hangs, fs::Permissions::from_mode(0o4755)).unwrap();
    replace("/usr/bin/newuidmap", &hangs);
    common::become_ordinary();
    let sandbox = shell(Sandbox::new().user_ns().map_subids(), "true").setup_timeout(Duration::from_millis(200));
    let start = Instant::now();
    let error = sandbox.spawn().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Timeout, Step::WriteIdMap), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(children, "", "the program, or what it was to map, lives on");
}

fn ignores_sigchld() {
    become_granted();
    // SAFETY: no handler is involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut child = shell(Sandbox::new().user_ns().map_subids().pid_ns().init(true).user(9, 9), "id -u; exit 3")
        .stdout(ringfence::Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

/// CVE-2014-8989: the file is everybody's, but not that group's.
fn is_in_a_group(dir: &Path) {
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(4242)]).unwrap();
    nix::unistd::setgid(nix::unistd::Gid::from_raw(65534)).unwrap();
    nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).unwrap();
    nix::sys::prctl::set_dumpable(true).unwrap();
    let file = dir.join("file");
    let read = |with: &str| {
        let output = shell(Sandbox::new().user_ns(), &format!("{with} cat {} 2>&1", file.display())).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(read("").contains("Permission denied"));
    let text = read("setpriv --clear-groups");
    assert!(text.contains("setgroups failed: Operation not permitted"), "{text}");
    assert_eq!(common::stdout(&shell(Sandbox::new().user_ns(), "cat /proc/self/setgroups")), "deny");
}

/// Every namespace, layers, /proc and /dev at once, with the one id that needs nobody's help.
fn has_everything(dir: &Path) {
    common::become_ordinary();
    everything(Sandbox::new().user_ns(), dir, "0");
}

fn has_everything_and_ranges(dir: &Path) {
    become_granted();
    everything(Sandbox::new().user_ns().map_subids(), dir, "0");
    everything(Sandbox::new().user_ns().map_subids().user(1000, 1000).init(true), dir, "1000");
}

fn everything(sandbox: Sandbox, lower: &Path, uid: &str) {
    let kinds = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"];
    let outside = kinds.map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
    let script = "set -e
        for n in user pid mnt net ipc uts cgroup time; do readlink /proc/self/ns/$n; done
        id -u; hostname; ls -d /proc/[0-9]* | wc -l
        echo x >/tmp/new; echo y >/etc/file; cat /etc/file; rm /etc/gone; ! test -e /etc/gone
        echo z >/dev/null; head -c 4 /dev/zero | wc -c; echo s >/dev/shm/s; test -c /dev/tty
        grep -q 'lo:' /proc/net/dev; test $(wc -l </proc/net/dev) = 3
        ! echo w >/usr/w";
    let sandbox = sandbox
        .namespaces(ringfence::Namespaces::all())
        .hostname("box")
        .rootfs(RootFs::overlay([lower.to_owned(), lower.with_extension("below")]))
        .bind_ro("/usr", "/usr")
        .command("/bin/sh")
        .args(["-c", &format!("{{ {script}; }} 2>/dev/null")]);
    let text = common::stdout(&sandbox);
    let lines: Vec<&str> = text.lines().collect();
    for ((kind, outside), inside) in kinds.iter().zip(&outside).zip(&lines) {
        assert_ne!(outside, Path::new(inside), "{kind}");
    }
    assert!(lines[8..10] == [uid, "box"] && lines[11..] == ["y", "4"], "{text}");
    assert!(lines[10].parse::<u32>().unwrap() <= 4, "{text}");
    assert!(!lower.join("tmp/new").exists() && fs::read_to_string(lower.join("etc/file")).unwrap() == "lower");
}

/// Two layers; everybody may read them.
fn layers() -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new();
    let (top, below) = (dir.path().join("layer"), dir.path().join("layer.below"));
    for path in [&top, &below, &top.join("etc"), &below.join("etc"), &below.join("usr"), &top.join("tmp")] {
        fs::create_dir(path).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"].into_iter().filter(|name| Path::new("/usr").join(name).exists()) {
        std::os::unix::fs::symlink(format!("usr/{name}"), below.join(name)).unwrap();
    }
    fs::write(top.join("etc/file"), "lower").unwrap();
    fs::write(below.join("etc/file"), "below").unwrap();
    fs::write(below.join("etc/gone"), "below").unwrap();
    // Overlayfs can copy up only what belongs to an id of the user namespace.
    let owner = common::is_root().then_some(65534);
    for path in [
        &top,
        &below,
        &top.join("etc"),
        &below.join("etc"),
        &top.join("tmp"),
        &top.join("etc/file"),
        &below.join("etc/gone"),
    ] {
        std::os::unix::fs::chown(path, owner, owner).unwrap();
        let mode = if path.is_dir() { 0o777 } else { 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    (dir, top)
}

fn open_dir() -> TempDir {
    let dir = TempDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

#[test]
fn an_ordinary_user_has_the_ranges_that_it_is_granted() {
    let _clean = common::clean();
    if no_ranges() {
        return;
    }
    let dir = open_dir();
    probe::succeeds(probe::caller(&format!("has-ranges {}", dir.path().display())));
    probe::succeeds(probe::caller("has-ranges-by-number"));
}

#[test]
fn what_is_missing_for_ranges_is_named_with_its_remedy() {
    let _clean = common::clean();
    if no_ranges() {
        return;
    }
    probe::succeeds(probe::caller("has-no-ranges"));
    probe::succeeds(probe::caller("has-ranges-elsewhere"));
    let dir = open_dir();
    probe::succeeds(probe::caller(&format!("lacks-the-programs {}", dir.path().display())));
    probe::succeeds(probe::caller("gains-nothing"));
}

#[test]
fn a_mapping_program_that_hangs_is_given_up_with_the_setup() {
    let _clean = common::clean();
    if no_ranges() {
        return;
    }
    let dir = open_dir();
    probe::succeeds(probe::caller(&format!("program-hangs {}", dir.path().display())));
}

#[test]
fn a_caller_that_ignores_sigchld_has_ranges_too() {
    let _clean = common::clean();
    if no_ranges() {
        return;
    }
    probe::succeeds(probe::caller("ignores-sigchld-and-has-ranges"));
}

#[test]
fn root_has_ranges_without_the_programs() {
    let _clean = common::clean();
    if common::needs_root("writing a map of a range") {
        return;
    }
    let range = IdMap::new(0, 100_000, 65_536);
    let text = common::stdout(&shell(Sandbox::new().user_ns().uid_map(range).gid_map(range), TELL));
    assert_eq!(text, "u 0 100000 65536\ng 0 100000 65536\nallow\n0\n0");
}

#[test]
fn groups_that_shut_out_cannot_be_dropped() {
    let _clean = common::clean();
    if common::needs_root("a group of somebody else's") {
        return;
    }
    let dir = open_dir();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    let shut_out = |gid| {
        std::os::unix::fs::chown(&file, None, Some(gid)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
    };
    shut_out(4242);
    probe::succeeds(probe::caller(&format!("is-in-a-group {}", dir.path().display())));
    // Where setgroups(2) is left allowed, the same steps lead to the file.
    shut_out(100_005);
    let range = IdMap::new(0, 100_000, 10);
    let sandbox = Sandbox::new().user_ns().uid_map(range).gid_map(range).groups([5]);
    let read = |with: &str| format!("{with} cat {}", file.display());
    let user = "setpriv --reuid 3 --regid 3";
    assert!(!shell(sandbox.clone(), &read(&format!("{user} --keep-groups"))).output().unwrap().outcome.success());
    assert_eq!(common::stdout(&shell(sandbox, &read(&format!("{user} --clear-groups")))), "text");
}

#[test]
fn an_ordinary_user_has_every_part_of_the_sandbox_at_once() {
    let _clean = common::clean();
    let (_dir, top) = layers();
    probe::succeeds(probe::caller(&format!("has-everything {}", top.display())));
}

#[test]
fn the_same_with_ranges_of_ids() {
    let _clean = common::clean();
    if no_ranges() {
        return;
    }
    let (_dir, top) = layers();
    probe::succeeds(probe::caller(&format!("has-everything-and-ranges {}", top.display())));
}
