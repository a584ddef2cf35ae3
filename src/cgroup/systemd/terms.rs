//! The limits of a unit in the terms of cgroup v1, where systemd has its controllers there: other
//! properties than those of v2, and the rules for devices, which systemd would lift else whenever
//! it loads its units again.

use std::path::Path;

use super::properties::{Property, cpu_quota};
use super::value::Value;
use crate::cgroup::controllers::Version;
use crate::cgroup::devices::v1::{Access, List};
use crate::cgroup::host::Host;
use crate::cgroup::limits::Limits;
use crate::cgroup::resources::BLKIO_WEIGHTS;
use crate::cgroup::v1::shares_of_weight;
use crate::units::Bytes;

/// The least and the greatest `CPUShares` of systemd.
const SHARES: [u64; 2] = [2, 1 << 18];
/// The name of terminals, which have eight majors. The kernel opens them by the devpts that they
/// stand in alone (4.7), so that a rule for more of them opens no other one.
const TERMINALS: &str = "pts";

/// Returns the properties that say what the limits say on v1.
pub(super) fn properties_on_v1(limits: &Limits) -> Vec<Property> {
    let more = &limits.resources;
    let mut all = cpu_quota(limits);
    let mut put = |name: &str, value: Option<u64>| all.extend(value.map(|value| (name.to_owned(), Value::U64(value))));
    put("MemoryLimit", limits.memory.map(Bytes::get));
    put("TasksMax", limits.pids);
    let shares = more.cpu_shares.or(limits.cpu_weight.map(shares_of_weight));
    put("CPUShares", shares.filter(|_| limits.cpu_idle != Some(true)).map(|shares| shares.clamp(SHARES[0], SHARES[1])));
    let weight = more.blkio_weight.or(limits.io_weight);
    put("BlockIOWeight", weight.map(|weight| weight.clamp(BLKIO_WEIGHTS[0], BLKIO_WEIGHTS[1])));
    all
}

/// Returns the rules for devices of the unit with the group `group`, as `DeviceAllow` takes them,
/// if systemd would undo them: on v2 they are a program, which it leaves alone, and a list that
/// allows everything is what a unit has without any.
pub(super) fn devices_allowed(host: &Host, limits: &Limits, group: &Path) -> Option<Vec<(String, String)>> {
    let hierarchy = host.device_hierarchy(group.parent());
    let list = limits.devices.as_ref().filter(|_| hierarchy.is_some_and(|it| it.version == Version::V1))?;
    let table = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    Some(device_allow(&List::new(list)?.allowed()?, &table))
}

/// Returns why the rules for devices cannot be those of a unit, and the remedy.
pub(super) fn devices_obstacle(host: &Host, limits: &Limits, parent: Option<&Path>) -> Option<Obstacle> {
    let is_on_v1 = host.device_hierarchy(parent).is_some_and(|hierarchy| hierarchy.version == Version::V1);
    let list = limits.devices.as_ref().filter(|_| is_on_v1).and_then(List::new)?;
    let denies_some = list.allowed().is_none() && !list.allows_all();
    let reason =
        "systemd denies no single devices on cgroup v1, and lifts such rules whenever it loads its units again";
    denies_some.then_some((reason, "begin with a rule that denies everything, or use the driver cgroupfs"))
}

/// A reason, and its remedy.
type Obstacle = (&'static str, &'static str);

/// Returns the devices of an allowing list as `DeviceAllow` takes them, with the letters of the
/// access. `table` is the text of `/proc/devices`: systemd names a whole major by its driver. What
/// it cannot name without allowing more is left out, and is lost with the next reload.
pub(super) fn device_allow(list: &[Access], table: &str) -> Vec<(String, String)> {
    let drivers = drivers(table);
    list.iter().filter_map(|access| Some((name_of(access, list, &drivers)?, access.letters.clone()))).collect()
}

/// A driver in `/proc/devices`.
struct Driver<'t> {
    is_block: bool,
    major: u32,
    name: &'t str,
}

fn drivers(table: &str) -> Vec<Driver<'_>> {
    let mut is_block = false;
    let mut all = Vec::new();
    for line in table.lines() {
        match line.trim() {
            "Character devices:" => is_block = false,
            "Block devices:" => is_block = true,
            line => {
                let words = line.split_once(' ').map(|(major, name)| (major.parse(), name.trim()));
                if let Some((Ok(major), name)) = words {
                    all.push(Driver { is_block, major, name });
                }
            }
        }
    }
    all
}

fn name_of(access: &Access, list: &[Access], drivers: &[Driver<'_>]) -> Option<String> {
    let kind = if access.is_block { "block" } else { "char" };
    let major = match (access.major, access.minor) {
        (None, None) => return Some(format!("{kind}-*")),
        (Some(major), Some(minor)) => return Some(format!("/dev/{kind}/{major}:{minor}")),
        (None, Some(_)) => return None,
        (Some(major), None) => major,
    };
    // The name is a pattern to systemd, and stands for all majors that have it.
    let allows = |driver: &Driver<'_>| {
        let same = |other: &&Access| other.is_block == access.is_block && other.minor.is_none();
        let covers = |other: &Access| other.major.is_none_or(|major| major == driver.major);
        let is_allowed = |letter: char| list.iter().filter(same).any(|it| covers(it) && it.letters.contains(letter));
        access.letters.chars().all(is_allowed)
    };
    let of_kind = || drivers.iter().filter(|driver| driver.is_block == access.is_block);
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let fits = |driver: &&Driver<'_>| {
        driver.major == major
            && is_plain(driver.name)
            && (driver.name == TERMINALS || of_kind().filter(|other| other.name == driver.name).all(allows))
    };
    of_kind().find(fits).map(|driver| format!("{kind}-{}", driver.name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cgroup::resources::Resources;
    use crate::cgroup::{Device, DeviceAccess, Devices};

    const TABLE: &str = "\
Character devices:
  1 mem
  4 /dev/vc/0
  4 tty
  4 ttyS
  5 /dev/tty
136 pts
137 pts
250 a*b

Block devices:
  8 sd
 65 sd
253 device-mapper
";

    fn allowed(devices: &Devices) -> Vec<String> {
        let list = List::new(devices).unwrap();
        device_allow(&list.allowed().unwrap(), TABLE)
            .iter()
            .map(|(name, letters)| format!("{name} {letters}"))
            .collect()
    }

    #[test]
    fn each_limit_has_the_property_of_v1() {
        let more = Resources::new().cpu_shares(512).cpu_quota(Duration::from_millis(50)).blkio_weight(20);
        let limits = Limits::new().memory(1 << 20).pids(7).resources(more.memory_reservation(4096));
        let number = |name: &str, value| (name.to_owned(), Value::U64(value));
        let expected = [
            number("CPUQuotaPerSecUSec", 500_000),
            number("CPUQuotaPeriodUSec", 100_000),
            number("MemoryLimit", 1 << 20),
            number("TasksMax", 7),
            number("CPUShares", 512),
            number("BlockIOWeight", 20),
        ];
        assert_eq!(properties_on_v1(&limits), expected);
        let limits = Limits::new().cpu_weight(100).io_weight(5000);
        assert_eq!(properties_on_v1(&limits), [number("CPUShares", 1024), number("BlockIOWeight", 1000)]);
        assert_eq!(properties_on_v1(&limits.cpu_idle(true)).len(), 1);
        let most = Limits::new().resources(Resources::new().cpu_shares(u64::MAX));
        assert_eq!(properties_on_v1(&most), [number("CPUShares", 1 << 18)]);
    }

    #[test]
    fn devices_are_named_as_systemd_knows_them() {
        let read = DeviceAccess::READ;
        let devices = Devices::none()
            .allow(Device::char(None, None), DeviceAccess::MKNOD)
            .allow(Device::null(), DeviceAccess::all())
            .allow(Device::pts(), read)
            .allow(Device::block(253, 7), read);
        assert_eq!(
            allowed(&devices),
            ["char-* m", "char-mem m", "/dev/char/1:3 rwm", "char-pts rm", "/dev/block/253:7 r"]
        );
        // One driver that has two majors is named only where both are allowed.
        let one = Devices::none().allow(Device::block(8, None), read);
        assert_eq!(allowed(&one), [""; 0]);
        assert_eq!(allowed(&one.clone().allow(Device::block(65, None), DeviceAccess::WRITE)), [""; 0]);
        assert_eq!(allowed(&one.allow(Device::block(65, None), read)), ["block-sd r", "block-sd r"]);
    }

    #[test]
    fn what_systemd_cannot_name_alone_is_left_out() {
        let read = DeviceAccess::READ;
        // A pattern, a path, none, and a minor of every major.
        for device in [Device::char(250, None), Device::char(5, None), Device::char(9, None), Device::char(None, 3)] {
            assert_eq!(allowed(&Devices::none().allow(device, read)), [""; 0], "{device}");
        }
        assert_eq!(allowed(&Devices::none().allow(Device::char(4, None), read)), ["char-tty r"]);
        crate::fuzz::texts(&[TABLE], |text| drop(drivers(text)));
    }
}
