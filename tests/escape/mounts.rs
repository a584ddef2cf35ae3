//! What is mounted, and what can be done about it from inside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag};
use ringfence::{Bind, Capabilities, RawMount, RootFs, Sandbox, Sysfs};

use crate::{attack, attack_at, attack_inside, attack_strict, common};

/// Settings of the whole machine by which a program of the attacker's would be run, or the machine ended. They are opened,
/// and never written to.
const LEVERS: [&str; 11] = [
    "/proc/sys/fs/file-max",
    "/proc/sys/kernel/threads-max",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];
/// Files that tell of the machine.
const SECRETS: [&str; 8] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/interrupts",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/sched_debug",
    "/sys/firmware",
];

fn there<'p>(paths: &[&'p str]) -> Vec<&'p str> {
    paths.iter().copied().filter(|path| fs::symlink_metadata(path).is_ok()).collect()
}

/// CVE-2022-0492, and the classics: core_pattern, sysrq, modprobe, uevent_helper and the like.
#[test]
fn no_lever_of_the_machine_can_be_opened() {
    let _clean = common::clean();
    let levers = there(&LEVERS);
    assert!(levers.len() >= 5, "{levers:?}");
    let open = format!("open-write {}", levers.join(" "));
    let with_sys = || common::strict().mount(Sysfs::new("/sys"));
    let strict = attack_inside(with_sys(), &open);
    // Even as the namespace's root with every capability and no filter, there is nothing to be opened.
    let root = attack_inside(with_sys().user(0, 0).seccomp(None).capabilities(all()), &open);
    for path in &levers {
        assert!(["EROFS", "EACCES"].contains(&strict.get(path)), "{path}: {strict:?}");
        assert!(["EROFS", "EACCES"].contains(&root.get(path)), "{path}: {root:?}");
    }
    if common::is_root() {
        // Root without a user namespace is held by the read-only mounts alone; without those by nothing.
        let host = || Sandbox::new().pid_ns().rootfs(RootFs::host());
        let masked = attack_inside(host().default_masks(true), &open);
        let bare = attack_inside(host(), &open);
        for path in levers.iter().filter(|path| path.starts_with("/proc")) {
            assert_eq!((masked.get(path), bare.get(path)), ("EROFS", "ok"), "{path}");
        }
    }
}

fn all() -> Capabilities {
    Capabilities::keep(caps::all().into_iter().filter(|capability| capability.index() <= last()))
}

fn last() -> u8 {
    fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap()
}

/// Files that tell of the machine, such as its memory, keys and timers: they tell nothing.
#[test]
fn no_secret_of_the_machine_can_be_read() {
    let _clean = common::clean();
    let secrets = there(&SECRETS);
    let read = format!("read {}", secrets.join(" "));
    let strict = attack_inside(common::strict().mount(Sysfs::new("/sys")), &read);
    for path in &secrets {
        assert!(["0", "EACCES", "EPERM"].contains(&strict.get(path)), "{path}: {strict:?}");
    }
    let bare = attack_inside(common::strict().mount(Sysfs::new("/sys")).default_masks(false), &read);
    assert_ne!(bare.get("/proc/interrupts"), "0");
    assert_ne!(bare.get("/sys/firmware"), "0");
}

/// A program writes to control groups, or mounts them: no hierarchy is there, or can be mounted; on
/// the host's root it is read-only.
#[test]
fn control_groups_are_not_the_programs() {
    let _clean = common::clean();
    let strict = attack_strict("mounts /tmp");
    assert_eq!((strict.get("cgroup2"), strict.get("proc")), ("EPERM", "EPERM"));
    let unfiltered = attack_inside(common::strict().seccomp(None), "mounts /tmp");
    assert_eq!(
        (unfiltered.get("cgroup2"), unfiltered.get("tmpfs")),
        ("EPERM", "EPERM"),
        "without capabilities neither"
    );
    let root = common::sandbox().pid_ns().cgroup_ns().mount_ns();
    assert_eq!(attack(root, "mounts /mnt").get("tmpfs"), "ok", "with them it mounts");
    let files: Vec<String> = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| Some(format!("{}/cgroup.procs", line.split(' ').nth(4)?)))
        .filter(|path| Path::new(path).exists())
        .collect();
    if files.is_empty() || !common::is_root() {
        return;
    }
    let open = format!("open-write {}", files.join(" "));
    let host = attack_inside(common::sandbox().rootfs(RootFs::host()), &open);
    let bare = attack(common::sandbox(), &open);
    for path in &files {
        assert_eq!((host.get(path), bare.get(path)), ("EROFS", "ok"));
    }
}

/// A directory kept open across chroot(2): it is no way back up.
#[test]
fn the_old_root_is_gone() {
    let _clean = common::clean();
    let (root, outside) = (common::root_dir(), common::TempDir::new());
    let marker = outside.path().join("marker");
    fs::write(&marker, "host").unwrap();
    let marker = marker.to_str().unwrap();
    let escape = |sandbox| common::probe::at(common::on_root(sandbox, &root), "/probe", &format!("escape {marker}"));
    assert_eq!(common::stdout(&escape(common::sandbox().pid_ns())), "looked everywhere");
    let naive = attack(common::sandbox(), &format!("chroot-naive {} {marker}", root.path().display()));
    assert_eq!(naive.get("marker"), "true", "a root that is only chroot(2)'s is left");
}

/// The disk as a device node of the program's own: nodes cannot be made, or have no power.
#[test]
fn device_nodes_are_powerless() {
    let _clean = common::clean();
    let strict = attack_strict("nodes /tmp");
    assert_eq!((strict.get("mknod-kmsg"), strict.get("mknod-zero")), ("EPERM", "EPERM"));
    assert_eq!(
        attack_strict("exists /dev/kmsg /dev/mem /dev/sda /dev/kvm").0.iter().filter(|a| a.1 == "true").count(),
        0
    );
    if common::is_root() {
        let root = common::root_dir();
        let sandbox = || common::on_root(Sandbox::new(), &root);
        let nodes = |sandbox: Sandbox| attack_inside(sandbox, "nodes /tmp/dir");
        let quiet = nodes(sandbox().tmpfs("/tmp", 64 << 20).tmpfs("/tmp/dir", 1 << 20));
        assert_eq!((quiet.get("mknod-zero"), quiet.get("open-zero")), ("ok", "EACCES"), "a tmpfs is nodev");
        let loud = nodes(sandbox().tmpfs("/tmp", 64 << 20).mount(RawMount::new("tmpfs", "/tmp/dir", "tmpfs")));
        assert_eq!((loud.get("mknod-zero"), loud.get("open-zero")), ("ok", "ok"));
    }
}

/// A device node that lies in what the caller binds: it is as powerless as one that is made inside.
#[test]
fn nodes_in_what_is_bound_are_powerless() {
    if common::needs_root("making a device node") {
        return;
    }
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let (node, all) = (dir.path().join("zero"), Mode::from_bits_truncate(0o666));
    nix::sys::stat::mknod(&node, SFlag::S_IFCHR, all, nix::sys::stat::makedev(1, 5)).unwrap();
    fs::set_permissions(&node, PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let open = |bind: Bind| {
        let script = "head -c1 /data/zero 2>&1 | tr '\\0' Z";
        common::stdout(&common::strict().mount(bind).args(["-c", script]))
    };
    let quiet = open(Bind::new(dir.path(), "/data"));
    assert!(quiet.contains("Permission denied"), "{quiet}");
    assert_eq!(open(Bind::new(dir.path(), "/data").dev()), "Z");
}

/// A writable mount below a read-only root: it is read-only, too.
#[test]
fn a_read_only_root_is_so_throughout() {
    let _clean = common::clean();
    let root = common::root_dir();
    fs::create_dir(root.path().join("data")).unwrap();
    let usr = format!("{}/usr", root.path().display());
    let sandbox = common::mounting().mount_ns().mount(Bind::new("/usr", usr).read_only());
    let answers = attack(sandbox, &format!("submount {}", root.path().display()));
    assert_eq!((answers.get("read-only"), answers.get("writable")), ("refused", "written"));
}

/// A program remounts, or takes a cover off: read-only stays read-only for whoever lacks
/// CAP_SYS_ADMIN, for uid 0 of a user namespace too, unless the caller gives it that, and for who
/// makes another user namespace inside.
#[test]
fn flags_cannot_be_taken_off() {
    let _clean = common::clean();
    let strict = attack_inside(common::strict().seccomp(None), "remount /usr");
    assert_eq!((strict.get("remount"), strict.get("umount"), strict.get("write")), ("EPERM", "EPERM", "EROFS"));
    let dir = common::TempDir::new();
    let with = || Sandbox::new().user_ns().rootfs(RootFs::host()).bind_ro(dir.path(), "/mnt");
    let root = attack_inside(with(), "remount /mnt");
    assert_eq!((root.get("remount"), root.get("umount"), root.get("write")), ("EPERM", "EPERM", "EROFS"));
    let below_init = attack_inside(with().pid_ns().init(true), "remount /mnt");
    assert_eq!((below_init.get("remount"), below_init.get("write")), ("EPERM", "EROFS"));
    let nested = attack_inside(with(), "nested-remount /mnt");
    assert_eq!((nested.get("remount"), nested.get("umount"), nested.get("write")), ("EPERM", "EINVAL", "EROFS"));
    // A cover without a root or a mount of the sandbox's own.
    let covered = Sandbox::new().user_ns().read_only_path(dir.path());
    let at = dir.path().display();
    let alone = attack(covered.clone(), &format!("remount {at}"));
    assert_eq!((alone.get("remount"), alone.get("umount"), alone.get("write")), ("EPERM", "EPERM", "EROFS"));
    let given = attack_inside(with().capabilities(Capabilities::all_but([])), "remount /mnt");
    assert_eq!(given.get("remount"), "ok", "with the capability it is remounted");
}

/// A program that may remount makes writable what is read-only outside: the kernel has locked it.
#[test]
fn flags_of_the_hosts_own_mounts_are_locked() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let answers = attack(common::mounting().mount_ns(), &format!("locked {}", dir.path().display()));
    assert_eq!(answers.get("user-ns"), "refused");
    assert_eq!(answers.get("without"), "written", "without a user namespace it is remounted");
}

/// A program changes the mode of what masks a file: a null device, the host's where none can be
/// made, whose mode stays what it is.
#[test]
fn a_cover_is_not_the_programs_to_change() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    fs::write(dir.path().join("file"), "secret").unwrap();
    let shown = || common::sandbox().rootfs(RootFs::host()).bind_ro(dir.path(), "/mnt");
    assert_eq!(attack_inside(shown(), "read /mnt/file").get("/mnt/file"), "6");
    let masked = || shown().mask("/mnt/file");
    assert_eq!(attack_inside(masked(), "read /mnt/file").get("/mnt/file"), "0");
    assert_eq!(attack_inside(masked(), "same-mode /mnt/file").get("chmod"), "EROFS");
    // Without a root of its own nothing is made for it: the cover is the host's device.
    let file = dir.path().join("file");
    let bare = attack(common::sandbox().mask(&file), &format!("same-mode {}", file.display()));
    assert_eq!(bare.get("chmod"), "EROFS");
}

/// A program takes its root of layers away: what the root writes to lies below it where the sandbox
/// started from an empty mount namespace, and is closed; where the root was put in the place of
/// another, there is nothing.
#[test]
fn nothing_below_a_root_of_layers_can_be_used() {
    if common::needs_root("unmounting the root") {
        return;
    }
    let _clean = common::clean();
    let root = common::root_dir();
    let layers = common::on_root(common::sandbox(), &root).rootfs(RootFs::overlay([root.path()])).pid_ns();
    let answers = attack_inside(layers, "below");
    assert_eq!((answers.get("umount"), answers.get("setns")), ("ok", "ok"));
    let write = if answers.get("upper") == "ok" { "EROFS" } else { "ENOENT" };
    assert_eq!(answers.get("write"), write);
}

/// Mounts that spread: one made inside is not seen outside, nor the other way round, though the
/// caller's are shared.
#[test]
fn mounts_do_not_spread() {
    let _clean = common::clean();
    let (inside, outside) = (common::TempDir::new(), common::TempDir::new());
    let what = format!("propagation {} {}", inside.path().display(), outside.path().display());
    let answers = attack(common::sandbox().mount_ns(), &what);
    assert_eq!((answers.get("inside-seen-outside"), answers.get("outside-seen-inside")), ("false", "false"));
    assert_eq!(answers.get("unprotected"), "true");
}

/// A program fills the machine's memory with files: disks in memory end, in files and in bytes.
#[test]
fn what_is_in_memory_is_bounded() {
    let _clean = common::clean();
    for dir in ["/tmp", "/dev/shm"] {
        let answers = attack_strict(&format!("fill {dir}"));
        let number = |name: &str| answers.get(name).parse::<u64>().unwrap();
        assert!(number("files") <= 16_384 && answers.get("ends") == "ENOSPC", "{answers:?}");
        assert!(number("mib") <= 64, "{answers:?}");
    }
    let endless = RawMount::new("tmpfs", "/tmp/endless", "tmpfs").data("size=0,nr_inodes=0,mode=1777");
    let root = common::root_dir();
    let sandbox = common::on_root(common::sandbox(), &root).tmpfs("/tmp", 64 << 20).mount(endless);
    let answers = attack_inside(sandbox, "fill /tmp/endless");
    assert_eq!((answers.get("files"), answers.get("ends"), answers.get("mib")), ("40000", "none", "200"));
}

/// Libraries that the root's loader configuration names: it is read by the program alone, after
/// everything else is done.
#[test]
fn nothing_of_the_root_is_loaded_before_it_is_confined() {
    let _clean = common::clean();
    let root = common::root_dir();
    fs::write(root.path().join("etc/ld.so.preload"), "/tmp/attack.so\n").unwrap();
    let exe = std::env::current_exe().unwrap();
    let sandbox = common::on_root(common::sandbox().pid_ns().init(true), &root).bind_ro(exe, "/tmp/attack");
    let output = attack_at(sandbox, "/tmp/attack", "whoami").output().unwrap();
    // The dynamic linker of the program complains, once: neither the stub nor init has one.
    let complaints = String::from_utf8_lossy(&output.stderr).matches("attack.so").count();
    assert!(output.outcome.success() && complaints == 1, "{complaints}: {}", String::from_utf8_lossy(&output.stderr));
    // A helper that is linked dynamically, such as this shell, would have been one more.
    let helped = common::on_root(common::sh("/bin/true"), &root).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&helped.stderr).matches("attack.so").count(), 2);
}
