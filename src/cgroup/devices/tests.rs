//! Compares the resolved table with the rules as written, applied to one device at a time.

use super::device::{Device, DeviceAccess, Kind};
use super::rules::Devices;

/// Applies the rules literally, as the documentation of [`Devices`] describes them.
pub(super) fn decide(devices: &Devices, kind: Kind, major: u32, minor: u32) -> DeviceAccess {
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

/// A very simple random number generator (xorshift), so that a failure can be repeated.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// Returns random rules about few devices, so that the rules overlap.
    pub(super) fn devices(&mut self) -> Devices {
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

/// Returns every device that random rules can distinguish.
pub(super) fn all_devices() -> impl Iterator<Item = (Kind, u32, u32)> {
    let numbers = || (0..6).flat_map(|major| (0..6).map(move |minor| (major, minor)));
    [Kind::Block, Kind::Char].into_iter().flat_map(move |kind| numbers().map(move |(a, i)| (kind, a, i)))
}

#[test]
fn a_table_says_what_the_rules_say() {
    let mut random = Random(0x5eed);
    for _ in 0..800 {
        let devices = random.devices();
        for (kind, major, minor) in all_devices() {
            let table = devices.table(kind);
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
            // 0 stands for any number; no rule names 5.
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
    let devices = Devices::none().allow(Device::any(), rw).deny(Device::null(), rw).allow(Device::char(1, None), rw);
    assert_eq!(devices.table(Kind::Char), devices.table(Kind::Block));
    let empty = Devices::none().deny(Device::tty(), rw).table(Kind::Char);
    assert!(empty.named.is_empty() && empty.others.named.is_empty() && empty.others.others.is_empty());
}

/// The lists that engines write for `linux.resources.devices` of the OCI specification.
#[test]
fn rules_are_applied_in_the_order_of_the_list() {
    let (all, rw) = (DeviceAccess::all(), DeviceAccess::READ | DeviceAccess::WRITE);
    let none = DeviceAccess::empty();
    let null = (Kind::Char, 1, 3);
    let denied_first = Devices::standard().deny(Device::any(), all).allow(Device::null(), rw);
    let allowed_last = Devices::none().deny(Device::null(), all).allow(Device::any(), all);
    let denied_last = Devices::standard().deny(Device::any(), all);
    let a_letter = Devices::none().deny(Device::any(), all).allow(Device::char(1, None), all);
    let a_letter = a_letter.deny(Device::null(), DeviceAccess::MKNOD);
    let blocks = Devices::none().deny(Device::any(), all).allow(Device::block(None, None), DeviceAccess::MKNOD);
    for (devices, (kind, major, minor), want) in [
        (&denied_first, null, rw),
        (&denied_first, (Kind::Char, 1, 5), none),
        (&allowed_last, null, all),
        (&denied_last, null, none),
        (&a_letter, null, rw),
        (&a_letter, (Kind::Char, 1, 5), all),
        (&a_letter, (Kind::Block, 1, 3), none),
        (&blocks, (Kind::Block, 8, 0), DeviceAccess::MKNOD),
        (&blocks, null, none),
    ] {
        let table = devices.table(kind);
        let got = table.named.get(&major).unwrap_or(&table.others).get(minor);
        assert_eq!((got, decide(devices, kind, major, minor)), (want, want), "{kind:?} {major}:{minor} {devices:?}");
    }
}
