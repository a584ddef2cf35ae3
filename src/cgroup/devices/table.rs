//! The rules resolved: what is allowed for each device that some rule names, and for all others.

use std::collections::{BTreeMap, BTreeSet};

use super::{DeviceAccess, Devices, Kind, Rule};

/// What is allowed for the minor numbers of one or more majors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Minors {
    /// Only those that differ from the others.
    pub(super) named: BTreeMap<u32, DeviceAccess>,
    pub(super) others: DeviceAccess,
}

/// What is allowed for the devices of one type. Two lists of rules that mean the same have the same table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Only those that differ from the others.
    pub(super) named: BTreeMap<u32, Minors>,
    pub(super) others: Minors,
}

impl Table {
    pub(super) fn new(devices: &Devices, kind: Kind) -> Table {
        let matches = |rule: &&Rule| rule.device.kind.is_none_or(|of| of == kind);
        let rules: Vec<&Rule> = devices.rules.iter().filter(matches).collect();
        let others = Minors::new(&rules, None);
        let majors: BTreeSet<u32> = rules.iter().filter_map(|rule| rule.device.major).collect();
        let named = majors.into_iter().map(|major| (major, Minors::new(&rules, Some(major))));
        Table { named: named.filter(|(_, minors)| *minors != others).collect(), others }
    }

    /// Whether all of `access` is allowed to the device; without a number, to those of all numbers.
    pub(super) fn allows(&self, major: Option<u32>, minor: Option<u32>, access: DeviceAccess) -> bool {
        match major {
            Some(major) => self.named.get(&major).unwrap_or(&self.others).allows(minor, access),
            None => self.named.values().chain([&self.others]).all(|minors| minors.allows(minor, access)),
        }
    }

    /// How many tests and ends it takes to find a device in it.
    pub(super) fn branches(&self) -> usize {
        let minors = |minors: &Minors| minors.named.len() + 1;
        self.named.values().map(|one| 1 + minors(one)).sum::<usize>() + minors(&self.others)
    }
}

impl Minors {
    /// Those of `major`, or of the majors that no rule names.
    fn new(rules: &[&Rule], major: Option<u32>) -> Minors {
        let of_major = |rule: &&&Rule| rule.device.major.is_none() || rule.device.major == major;
        let rules: Vec<&Rule> = rules.iter().filter(of_major).copied().collect();
        let others = allowed(&rules, None);
        let minors: BTreeSet<u32> = rules.iter().filter_map(|rule| rule.device.minor).collect();
        let named = minors.into_iter().map(|minor| (minor, allowed(&rules, Some(minor))));
        Minors { named: named.filter(|(_, access)| *access != others).collect(), others }
    }

    fn allows(&self, minor: Option<u32>, access: DeviceAccess) -> bool {
        match minor {
            Some(minor) => self.get(minor).contains(access),
            None => self.named.values().chain([&self.others]).all(|allowed| allowed.contains(access)),
        }
    }

    pub(super) fn get(&self, minor: u32) -> DeviceAccess {
        self.named.get(&minor).copied().unwrap_or(self.others)
    }
}

/// The same for one device, without a table.
pub(super) fn decide(rules: &[Rule], kind: Kind, major: u32, minor: u32) -> DeviceAccess {
    let is = |wanted: Option<u32>, number| wanted.is_none_or(|wanted| wanted == number);
    let of_kind = |rule: &&Rule| rule.device.kind.is_none_or(|of| of == kind);
    let mut access = DeviceAccess::empty();
    for rule in rules.iter().filter(of_kind).filter(|r| is(r.device.major, major) && is(r.device.minor, minor)) {
        access.set(rule.access, rule.allow);
    }
    access
}

/// The last rule that matches decides about each sort of access.
fn allowed(rules: &[&Rule], minor: Option<u32>) -> DeviceAccess {
    let mut access = DeviceAccess::empty();
    for rule in rules.iter().filter(|rule| rule.device.minor.is_none() || rule.device.minor == minor) {
        access.set(rule.access, rule.allow);
    }
    access
}

/// For tests: the rules as they are written, applied to one device.
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cgroup::devices::Device;

    /// What the documentation of [`Devices`] says, word by word.
    pub(in crate::cgroup) fn decide(devices: &Devices, kind: Kind, major: u32, minor: u32) -> DeviceAccess {
        let mut access = DeviceAccess::empty();
        for one in [DeviceAccess::READ, DeviceAccess::WRITE, DeviceAccess::MKNOD] {
            let last = devices.rules.iter().rev().find(|rule| {
                rule.access.contains(one)
                    && rule.device.kind.is_none_or(|k| k == kind)
                    && rule.device.major.is_none_or(|n| n == major)
                    && rule.device.minor.is_none_or(|n| n == minor)
            });
            if last.is_some_and(|rule| rule.allow) {
                access |= one;
            }
        }
        access
    }

    /// A random number generator of the simplest sort (xorshift), so that a failure can be repeated.
    pub(in crate::cgroup) struct Random(pub(in crate::cgroup) u64);

    impl Random {
        pub(in crate::cgroup) fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }

        /// Rules about few devices, so that they overlap.
        pub(in crate::cgroup) fn devices(&mut self) -> Devices {
            let mut devices = Devices::none();
            for _ in 0..self.below(12) {
                let kind = [None, Some(Kind::Block), Some(Kind::Char), Some(Kind::Char)][self.below(4) as usize];
                let mut number = || Some(self.below(5) as u32).filter(|n| *n > 0);
                let device = Device { kind, major: number(), minor: number() };
                let access = DeviceAccess::from_bits_truncate(self.below(8) as u8);
                devices = devices.rule(device, access, self.below(5) > 1);
            }
            devices
        }
    }

    /// Every device that random rules could tell apart.
    pub(in crate::cgroup) fn all_devices() -> impl Iterator<Item = (Kind, u32, u32)> {
        let numbers = || (0..6).flat_map(|major| (0..6).map(move |minor| (major, minor)));
        [Kind::Block, Kind::Char].into_iter().flat_map(move |kind| numbers().map(move |(a, i)| (kind, a, i)))
    }

    #[test]
    fn a_table_says_what_the_rules_say() {
        let mut random = Random(0x5eed);
        for _ in 0..800 {
            let devices = random.devices();
            for (kind, major, minor) in all_devices() {
                let table = Table::new(&devices, kind);
                let got = table.named.get(&major).unwrap_or(&table.others).get(minor);
                assert_eq!(got, decide(&devices, kind, major, minor), "{kind:?} {major}:{minor} in {devices:?}");
                let one = Device { kind: Some(kind), major: Some(major), minor: Some(minor) };
                assert!(devices.allows(one, got) && (got.is_all() || !devices.allows(one, DeviceAccess::all())));
            }
        }
    }

    #[test]
    fn a_wildcard_is_allowed_if_every_device_is() {
        let mut random = Random(0xa11);
        for _ in 0..150 {
            let devices = random.devices();
            for (kind, major, minor) in all_devices() {
                // 0 stands for any number; 5 is one that no rule names.
                let number = |n| Some(n).filter(|n| *n > 0);
                let wildcard = Device { kind: Some(kind), major: number(major), minor: number(minor) };
                let of = |number: Option<u32>| number.map_or(0..=5, |n| n..=n);
                let pairs = of(wildcard.major).flat_map(|major| of(wildcard.minor).map(move |minor| (major, minor)));
                let all = pairs.map(|(major, minor)| decide(&devices, kind, major, minor));
                let all = all.fold(DeviceAccess::all(), |all, one| all & one);
                assert!(devices.allows(wildcard, all), "{wildcard:?} {devices:?}");
                assert!(all.is_all() || !devices.allows(wildcard, DeviceAccess::all()), "{wildcard:?} {devices:?}");
            }
        }
    }

    #[test]
    fn what_makes_no_difference_is_not_in_the_table() {
        let rw = DeviceAccess::READ | DeviceAccess::WRITE;
        let devices =
            Devices::none().allow(Device::any(), rw).deny(Device::null(), rw).allow(Device::char(1, None), rw);
        assert_eq!(Table::new(&devices, Kind::Char), Table::new(&devices, Kind::Block));
        let empty = Table::new(&Devices::none().deny(Device::tty(), rw), Kind::Char);
        assert!(empty.named.is_empty() && empty.others.named.is_empty() && empty.others.others.is_empty());
    }
}
