//! Which devices a program may open and make: the rules against the real kernel, on cgroup v2 and on v1.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{self, cgroup_parent, on_root, probe, root_dir, stdout};
use ringfence::{
    Child, Device, DeviceAccess, Devices, Enforcement, ErrorKind, Feature, Limits, RootFs, Sandbox, Stdio, Step,
};

common::callers! {
    "is-told" => is_told(),
}

const READ: DeviceAccess = DeviceAccess::READ;
const WRITE: DeviceAccess = DeviceAccess::WRITE;
const MKNOD: DeviceAccess = DeviceAccess::MKNOD;

/// `/dev/kmsg`, which every host has and no program needs.
fn kmsg() -> Device {
    Device::char(1, 11)
}

fn with(devices: Devices) -> Sandbox {
    Sandbox::new().cgroup_parent(cgroup_parent()).devices(devices)
}

/// What comes of the tries, with the host's own /dev.
#[track_caller]
fn tried(devices: Devices, tries: &str) -> String {
    stdout(&probe::run(with(devices), &format!("devices {tries}")))
}

/// True, after saying so, where no device rules can be had.
#[track_caller]
fn no_rules() -> bool {
    if common::needs_root("a device rule") {
        return true;
    }
    let checked = with(Devices::none()).check();
    if let Err(error) = &checked {
        common::skip(&format!("no device rules: {error}"), false);
    }
    checked.is_err()
}

/// Whether the rules are a BPF program here.
fn is_program() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    cfg!(feature = "devices") && mounts.contains(" - cgroup2 ")
}

#[test]
fn what_is_not_listed_cannot_be_opened() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let tries = "rw:/dev/null r:/dev/zero w:/dev/full r:/dev/urandom r:/dev/kmsg";
    assert_eq!(tried(Devices::standard(), tries), "ok ok ok ok EPERM");
    assert_eq!(tried(Devices::standard().allow(kmsg(), READ), tries), "ok ok ok ok ok");
    // The same without rules.
    assert_eq!(stdout(&probe::run(Sandbox::new(), &format!("devices {tries}"))), "ok ok ok ok ok");
}

#[test]
fn no_rules_allow_nothing() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let dir = common::TempDir::new();
    let path = dir.path().display();
    let tries = format!("r:/dev/null w:/dev/null r:/dev/zero rw:/dev/full m:c:1:3:{path}/null m:b:7:0:{path}/loop");
    assert_eq!(tried(Devices::none(), &tries), "EPERM EPERM EPERM EPERM EPERM EPERM");
    // A rule of one device is one for all others.
    let sandbox = Sandbox::new().cgroup_parent(cgroup_parent()).device_allow(Device::null(), READ | WRITE);
    assert_eq!(stdout(&probe::run(sandbox, "devices rw:/dev/null r:/dev/zero")), "ok EPERM");
}

#[test]
fn the_last_rule_that_matches_decides_about_each_access() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let tries = "r:/dev/null w:/dev/null rw:/dev/null r:/dev/zero";
    let all = DeviceAccess::all();
    let denied_later = Devices::none().allow(Device::null(), all).deny(Device::null(), WRITE);
    assert_eq!(tried(denied_later, tries), "ok EPERM EPERM EPERM");
    let allowed_later = Devices::none().deny(Device::null(), all).allow(Device::null(), READ | WRITE);
    assert_eq!(tried(allowed_later, tries), "ok ok ok EPERM");
    let in_two_steps = Devices::none().allow(Device::char(1, None), READ).allow(Device::null(), WRITE);
    assert_eq!(tried(in_two_steps, tries), "ok ok ok ok");
    let all_but = Devices::none().allow(Device::any(), all).deny(Device::null(), READ);
    assert_eq!(tried(all_but, tries), "EPERM ok EPERM ok");
}

#[test]
fn a_hole_in_a_wider_rule_is_one_or_an_error() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let hole = Devices::none().allow(Device::char(1, None), READ).deny(kmsg(), READ);
    if is_program() {
        return assert_eq!(tried(hole, "r:/dev/null r:/dev/zero r:/dev/kmsg"), "ok ok EPERM");
    }
    let sandbox = with(hole).command("/bin/true");
    for error in [sandbox.check().unwrap_err(), sandbox.spawn().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.problems()[0].feature, Some(Feature::Devices));
        assert!(error.to_string().contains("one by one"), "{error}");
    }
    let child = sandbox.best_effort(Feature::Devices).spawn().unwrap();
    assert!(matches!(child.enforced().get(Feature::Devices), Some(Enforcement::Missing(_))));
}

#[test]
fn a_node_is_made_where_that_is_allowed_and_still_not_opened() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let dir = common::TempDir::new();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let tries = format!("m:c:1:3:{} m:c:1:11:{} m:b:7:0:{}", at("null"), at("kmsg"), at("loop"));
    assert_eq!(tried(Devices::standard(), &tries), "ok EPERM EPERM");
    fs::remove_file(at("null")).unwrap();
    let tries = format!("{tries} r:{}", at("kmsg"));
    assert_eq!(tried(Devices::standard().allow(Device::any(), MKNOD), &tries), "ok ok ok EPERM");
}

#[test]
fn the_rules_hold_before_the_program_begins() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    // The setup itself may not make nodes: those in /dev are the host's.
    let host = fs::metadata("/dev/null").unwrap().dev().to_string();
    let inside = |devices| {
        let sandbox = with(devices).rootfs(RootFs::host()).pid_ns();
        stdout(&sandbox.command("/bin/stat").args(["-c", "%d", "/dev/null"]))
    };
    assert_eq!(inside(Devices::none()), host);
    assert_ne!(inside(Devices::standard()), host);
    // And no program is ever faster than they are.
    for _ in 0..20 {
        assert_eq!(tried(Devices::none(), "r:/dev/null"), "EPERM");
    }
}

#[test]
fn nodes_that_a_group_above_forbids_to_make_are_the_hosts() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let above = Again::new(Devices::none().allow(Device::any(), READ | WRITE), "r:/dev/null");
    // Without the terminals: of their wildcard v1 could not say what the group above leaves.
    let nodes = [Device::null(), Device::zero(), Device::full(), Device::random(), Device::urandom(), Device::tty()];
    let nodes = nodes.into_iter().fold(Devices::none(), |all, node| all.allow(node, DeviceAccess::all()));
    let sandbox = Sandbox::new().cgroup_parent(group_of(&above.child)).devices(nodes);
    let root = root_dir();
    let sandbox = on_root(sandbox.pid_ns(), &root).command("/bin/sh");
    let host = fs::metadata("/dev/full").unwrap();
    let tries = "chmod 666 /dev/full; chown 0:0 /dev/full; touch /dev/full; echo x >/dev/null && echo $?";
    let text = stdout(&sandbox.clone().args(["-c", &format!("exec 2>&1; stat -c %d /dev/null; {tries}")]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[lines.len() - 1]), (host.dev().to_string().as_str(), "0"), "{text}");
    // Root inside has no power over them.
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
    let after = fs::metadata("/dev/full").unwrap();
    assert_eq!((after.ctime(), after.ctime_nsec()), (host.ctime(), host.ctime_nsec()));
    above.child.close().unwrap();
}

#[test]
fn the_standard_devices_of_a_root_of_its_own_work() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let root = root_dir();
    let tries = "rw:/dev/null r:/dev/zero w:/dev/full r:/dev/random r:/dev/urandom rw:/dev/ptmx";
    for sandbox in [with(Devices::standard()), with(Devices::standard()).user_ns()] {
        let sandbox = on_root(sandbox.pid_ns(), &root);
        assert_eq!(stdout(&probe::at(sandbox.clone(), "/probe", &format!("devices {tries}"))), "ok ok ok ok ok ok");
        assert_eq!(stdout(&probe::at(sandbox, "/probe", "pty")), "/dev/pts/0 through");
    }
}

#[test]
fn a_descriptor_that_is_passed_in_is_open_already() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let zero = fs::File::open("/dev/zero").unwrap();
    let sandbox = with(Devices::none()).fd(3, zero).command("/bin/sh").args(["-c", "head -c 5 <&3 | wc -c"]);
    assert_eq!(stdout(&sandbox), "5");
}

/// The same tries again and again, each time after a word from outside.
struct Again {
    child: Child,
    lines: std::io::Lines<BufReader<ringfence::OutputStream>>,
}

impl Again {
    fn new(devices: Devices, tries: &str) -> Again {
        let sandbox = probe::run(with(devices), &format!("devices-again {tries}"));
        let mut child = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Again { child, lines }
    }

    fn tried(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.lines.next().unwrap().unwrap()
    }
}

#[test]
fn rules_change_while_the_program_runs() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let mut again = Again::new(Devices::standard(), "rw:/dev/null r:/dev/kmsg");
    assert_eq!(again.tried(), "ok EPERM");
    for _ in 0..3 {
        for (devices, want) in [
            (Devices::none(), "EPERM EPERM"),
            (Devices::none().allow(kmsg(), READ), "EPERM ok"),
            (Devices::none().allow(Device::any(), DeviceAccess::all()).deny(kmsg(), READ), "ok EPERM"),
            (Devices::standard(), "ok EPERM"),
        ] {
            again.child.update(&Limits::new().devices(devices)).unwrap();
            assert_eq!(again.tried(), want);
        }
    }
    let error = again.child.update(&Limits::new().devices(Devices::none().allow(Device::char(5000, 0), READ)));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(again.tried(), "ok EPERM");
    again.child.close().unwrap();
    // A sandbox without rules has none to change.
    let plain = Sandbox::new().cgroup_parent(cgroup_parent()).pids_limit(9).command("/bin/cat").stdin(Stdio::piped());
    let plain = plain.spawn().unwrap();
    let error = plain.update(&Limits::new().devices(Devices::none())).unwrap_err();
    assert_eq!(error.problems()[0].feature, Some(Feature::Devices));
}

#[test]
fn a_group_below_has_no_more_than_the_one_above() {
    let _clean = common::clean();
    if no_rules() {
        return;
    }
    let above = Again::new(Devices::standard(), "r:/dev/null");
    let parent = group_of(&above.child);
    let inside = |devices| Sandbox::new().cgroup_parent(&parent).devices(devices);
    let sandbox = inside(Devices::none().allow(Device::null(), READ).allow(kmsg(), READ));
    assert_eq!(stdout(&probe::run(sandbox, "devices r:/dev/null r:/dev/kmsg r:/dev/zero")), "ok EPERM EPERM");
    let all = inside(Devices::none().allow(Device::any(), DeviceAccess::all()));
    let all = probe::run(all, "devices r:/dev/null r:/dev/kmsg r:/dev/zero");
    if is_program() {
        assert_eq!(stdout(&all), "ok EPERM ok");
    } else {
        // Of a wildcard v1 cannot say what is left.
        let error = all.spawn().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::DeviceRules, Some(libc::EPERM)), "{error}");
        assert!(error.to_string().contains("group above"), "{error}");
    }
    above.child.close().unwrap();
}

/// The group of a sandbox, from the root of each hierarchy.
fn group_of(child: &Child) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let line = text.lines().find(|line| line.contains("/rf-")).unwrap();
    line.splitn(3, ':').nth(2).unwrap().into()
}

#[test]
fn a_number_that_no_device_has_is_refused() {
    let _clean = common::clean();
    for device in [Device::char(4096, 0), Device::block(None, 1 << 20)] {
        let error = with(Devices::standard().allow(device, READ)).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&device.to_string()), "{error}");
    }
    let many = (0..600).fold(Devices::none(), |all, n| all.allow(Device::char(n, 0), READ));
    assert_eq!(with(many).check().unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_device_is_known_by_its_node() {
    assert_eq!(Device::at("/dev/null").unwrap(), Device::null());
    assert_eq!(Device::at("/dev/../dev/zero").unwrap(), Device::zero());
    assert_eq!(Device::at("/dev").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(Device::at("/dev/none/such").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(Device::block(8, None).to_string(), "b 8:*");
    assert_eq!(Device::any().to_string(), "a *:*");
}

/// What an ordinary user is told.
fn is_told() {
    let sandbox = Sandbox::new().user_ns().devices(Devices::standard()).command("/bin/true");
    for error in [sandbox.check().unwrap_err(), sandbox.spawn().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let problem = &error.problems()[0];
        assert_eq!(problem.feature, Some(Feature::Devices), "{error}");
        let remedies = ["root", "feature `devices`", "cgroup_parent", "mount cgroup2", "writable"];
        assert!(remedies.iter().any(|remedy| problem.remedy.contains(remedy)), "{error}");
    }
    let mut child = sandbox.best_effort(Feature::Devices).spawn().unwrap();
    assert!(matches!(child.enforced().get(Feature::Devices), Some(Enforcement::Missing(_))));
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_ordinary_user_is_told_and_can_go_without() {
    let _clean = common::clean();
    if !common::is_root() {
        return is_told();
    }
    let dir = common::TempDir::new();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("devices");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let caller = Sandbox::new().user(65534, 65534).command(copy).env("RINGFENCE_CALLER", "is-told").cwd("/");
    stdout(&caller);
}

/// bpf(2) as the tests need it.
mod bpf {
    use super::*;

    const ATTACH: i64 = 8;
    const GET_FD_BY_ID: i64 = 13;
    const QUERY: i64 = 16;
    const LOAD: i64 = 5;

    fn call(command: i64, words: &mut [u32; 16]) -> Result<i32, nix::errno::Errno> {
        // SAFETY: 64 zeroed or set bytes, which is what these commands read and write, and pointers in them that live.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), 64) };
        nix::errno::Errno::result(result).map(|fd| fd as i32)
    }

    fn pointer<T>(words: &mut [u32], to: *const T) {
        let address = to as u64;
        (words[0], words[1]) = (address as u32, (address >> 32) as u32);
    }

    /// The numbers of the device programs of a group.
    pub fn attached(group: &Path) -> Vec<u32> {
        let dir = fs::File::open(group).unwrap();
        let mut ids = [0u32; 8];
        let mut words = [0; 16];
        (words[0], words[1], words[6]) = (dir.as_raw_fd() as u32, 6, 8);
        pointer(&mut words[4..6], ids.as_mut_ptr());
        call(QUERY, &mut words).unwrap();
        ids[..words[6] as usize].to_vec()
    }

    pub fn is_loaded(id: u32) -> bool {
        let mut words = [0; 16];
        words[0] = id;
        let found = call(GET_FD_BY_ID, &mut words);
        // SAFETY: the descriptor was just made.
        found.map(|fd| unsafe { libc::close(fd) }).is_ok()
    }

    /// Attaches a program that allows everything, and no other below it.
    pub fn attach_exclusively(group: &Path) {
        let code: [u64; 2] = [0x1_0000_00b7, 0x95].map(u64::to_le);
        let mut words = [0; 16];
        (words[0], words[1]) = (15, 2);
        pointer(&mut words[2..4], code.as_ptr());
        pointer(&mut words[4..6], c"MIT".as_ptr());
        let program = call(LOAD, &mut words).unwrap();
        let dir = fs::File::open(group).unwrap();
        let mut words = [0; 16];
        (words[0], words[1], words[2]) = (dir.as_raw_fd() as u32, program as u32, 6);
        call(ATTACH, &mut words).unwrap();
        // SAFETY: the descriptor was made above.
        unsafe { libc::close(program) };
    }
}

fn has_v1() -> bool {
    fs::read_to_string("/proc/self/cgroup").unwrap().contains(":devices:")
}

fn v2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap().into()
}

#[test]
fn the_program_goes_with_the_group() {
    let _clean = common::clean();
    if no_rules() || !is_program() {
        return;
    }
    let mut again = Again::new(Devices::standard(), "r:/dev/kmsg");
    let group = v2_mount().join(group_of(&again.child).strip_prefix("/").unwrap());
    let first = bpf::attached(&group);
    again.child.update(&Limits::new().devices(Devices::none())).unwrap();
    assert_eq!(again.tried(), "EPERM");
    let second = bpf::attached(&group);
    assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} {second:?}");
    assert!(bpf::is_loaded(second[0]));
    // The handle alone keeps nothing.
    again.child.kill().unwrap();
    again.child.wait().unwrap();
    // The kernel frees it a grace period after the group.
    let start = Instant::now();
    while bpf::is_loaded(first[0]) || bpf::is_loaded(second[0]) {
        assert!(start.elapsed() < Duration::from_secs(5), "{first:?} or {second:?} is still loaded");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_program_above_that_admits_no_others_is_named() {
    let _clean = common::clean();
    if no_rules() || !is_program() {
        return;
    }
    let outer = v2_mount().join(format!("rftest-outer-{}", std::process::id()));
    fs::create_dir(&outer).unwrap();
    bpf::attach_exclusively(&outer);
    let name = Path::new("/").join(outer.file_name().unwrap());
    let sandbox = Sandbox::new().cgroup_parent(&name).devices(Devices::standard()).command("/bin/true");
    let results = [sandbox.check().map(drop), sandbox.status().map(drop)];
    fs::remove_dir(&outer).unwrap();
    for result in results {
        // Where there is a v1 hierarchy as well, that takes the rules.
        let (Err(error), false) = (&result, has_v1()) else {
            assert!(result.is_ok() && has_v1(), "{result:?}");
            continue;
        };
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(&outer.display().to_string()), "{error}");
        assert!(error.to_string().contains("admits no others"), "{error}");
    }
}
