//! Device nodes and who may use them: `linux.devices`, `linux.resources.devices`.

use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::cgroup::{Device, DeviceAccess, Devices};
use crate::mount::DeviceNode;
use crate::oci::problems::{Problems, is_plain_absolute};
use crate::sandbox::Sandbox;

/// The devices that the specification gives every container, with their numbers.
const NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
/// The symbolic links that the specification gives every container: what they lead to, and where
/// they stand.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// The kernel's `dev_t` has 12 bits for the major number and 20 for the minor one.
const NUMBERS_MAX: [i64; 2] = [(1 << 12) - 1, (1 << 20) - 1];

/// Adds the default devices, but for those that the configuration has itself.
pub(super) fn with_default_nodes(mut sandbox: Sandbox, listed: &[LinuxDevice]) -> Sandbox {
    let is_listed = |path: &str| listed.iter().any(|device| device.path() == Path::new(path));
    for (path, major, minor) in NODES.into_iter().filter(|(path, ..)| !is_listed(path)) {
        sandbox = sandbox.mount(DeviceNode::character(path, major, minor));
    }
    for (to, path) in LINKS.into_iter().filter(|(_, path)| !is_listed(path)) {
        sandbox = sandbox.symlink(to, path);
    }
    sandbox
}

/// Adds the devices of the configuration that are to be made.
pub(super) fn with_nodes(
    mut sandbox: Sandbox,
    listed: &[LinuxDevice],
    is_made: impl Fn(&LinuxDevice) -> bool,
    problems: &mut Problems,
) -> Sandbox {
    for (i, device) in listed.iter().enumerate().filter(|(_, device)| is_made(device)) {
        let property = format!("linux.devices[{i}]");
        if !is_plain_absolute(device.path()) {
            problems.invalid(format!("{property}.path"), "it is not absolute, or has `..`", "give the path inside");
            continue;
        }
        let numbers = [device.major(), device.minor()];
        let fit = numbers.iter().zip(NUMBERS_MAX).all(|(number, most)| (0..=most).contains(number));
        let is_fifo = device.typ() == LinuxDeviceType::P;
        if !fit && !is_fifo {
            problems.invalid(&property, "there is no device with these numbers", "correct major and minor");
            continue;
        }
        let [major, minor] = numbers.map(|number| u32::try_from(number).unwrap_or(0));
        let node = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceNode::character(device.path(), major, minor),
            LinuxDeviceType::B => DeviceNode::block(device.path(), major, minor),
            LinuxDeviceType::P => DeviceNode::fifo(device.path()),
            LinuxDeviceType::A => {
                problems.invalid(format!("{property}.type"), "`a` is no device", "write one of c, b, u and p");
                continue;
            }
        };
        // Engines give the whole st_mode.
        let mode = device.file_mode().unwrap_or(0o666);
        if mode & 0o7000 != 0 {
            let reason = "set-ID bits and the sticky bit mean nothing on a device";
            problems.refused(format!("{property}.fileMode"), reason);
        }
        let node = node.mode(mode & 0o777).owner(device.uid().unwrap_or(0), device.gid().unwrap_or(0)).in_root();
        sandbox = sandbox.mount(node);
    }
    sandbox
}

/// Returns the rules of the control group: none but those of the list, and the default devices.
pub(super) fn rules(listed: &[LinuxDeviceCgroup], problems: &mut Problems) -> Devices {
    let mut devices = Devices::none();
    for (i, rule) in listed.iter().enumerate() {
        let property = format!("linux.resources.devices[{i}]");
        let number = |number: Option<i64>, most: i64| match number {
            // -1 stands for any, as in the kernel's `*`.
            None | Some(-1) => Some(None),
            Some(number) => u32::try_from(number).ok().filter(|_| number <= most).map(Some),
        };
        let numbers = (number(rule.major(), NUMBERS_MAX[0]), number(rule.minor(), NUMBERS_MAX[1]));
        let (Some(major), Some(minor)) = numbers else {
            problems.invalid(&property, "there is no device with these numbers", "correct major and minor");
            continue;
        };
        let device = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::C | LinuxDeviceType::U => Device::char(major, minor),
            LinuxDeviceType::B => Device::block(major, minor),
            LinuxDeviceType::A if (major, minor) == (None, None) => Device::any(),
            LinuxDeviceType::A => {
                let reason = "the kernel passes over the numbers of a rule of the type `a`";
                problems.invalid(format!("{property}.type"), reason, "write c or b, or leave the numbers out");
                continue;
            }
            LinuxDeviceType::P => {
                problems.invalid(format!("{property}.type"), "a FIFO is no device", "write one of a, c, b and u");
                continue;
            }
        };
        let Some(access) = access_of(rule.access().as_deref()) else {
            problems.invalid(format!("{property}.access"), "it has other letters than r, w and m", "correct it");
            continue;
        };
        devices = if rule.allow() { devices.allow(device, access) } else { devices.deny(device, access) };
    }
    devices.allow_standard()
}

/// Returns the access that letters stand for; no letters stand for all. As with runc, the letter
/// `a`, which is a type, stands for no access beside others: warnings tell of it.
fn access_of(letters: Option<&str>) -> Option<DeviceAccess> {
    let Some(letters) = letters.filter(|letters| !letters.is_empty()) else { return Some(DeviceAccess::all()) };
    let one = |letter| match letter {
        'r' => Some(DeviceAccess::READ),
        'w' => Some(DeviceAccess::WRITE),
        'm' => Some(DeviceAccess::MKNOD),
        _ => None,
    };
    let of_access = || letters.chars().filter(|letter| *letter != 'a');
    if of_access().next().is_none() { None } else { of_access().map(one).collect() }
}

/// Returns whether a rule for devices has the letter of a type among those of its access.
pub(in crate::oci) fn has_type_as_access(rule: &LinuxDeviceCgroup) -> bool {
    let letters = rule.access().as_deref().unwrap_or_default();
    letters.contains('a') && access_of(Some(letters)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_access_are_all_or_none() {
        assert_eq!(access_of(Some("rw")), Some(DeviceAccess::READ | DeviceAccess::WRITE));
        assert_eq!((access_of(None), access_of(Some("rx"))), (Some(DeviceAccess::all()), None));
        assert_eq!((access_of(Some("ra")), access_of(Some("a"))), (Some(DeviceAccess::READ), None));
    }

    #[test]
    fn default_devices_stay_allowed_behind_a_rule_that_denies_all() {
        let rule: LinuxDeviceCgroup = serde_json::from_str(r#"{"allow": false, "access": "rwm"}"#).unwrap();
        let mut problems = Problems::default();
        let devices = rules(&[rule], &mut problems);
        assert!(devices.allows(Device::null(), DeviceAccess::all()));
        assert!(!devices.allows(Device::char(10, 229), DeviceAccess::READ));
        problems.unless_any(()).unwrap();
    }
}
