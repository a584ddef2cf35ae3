//! The resolved rules: the access to each device that a rule names, and to all other devices.

use std::collections::{BTreeMap, BTreeSet};

use super::device::{DeviceAccess, Kind, Rule};

/// The access to the minor numbers of one or more majors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Minors {
    /// Contains only minors whose access differs from `others`.
    pub(super) named: BTreeMap<u32, DeviceAccess>,
    pub(super) others: DeviceAccess,
}

/// The access to the devices of one type. Two lists of rules with the same meaning have the same
/// table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Contains only majors whose access differs from `others`.
    pub(super) named: BTreeMap<u32, Minors>,
    pub(super) others: Minors,
}

impl Table {
    pub(super) fn new(rules: &[Rule], kind: Kind) -> Table {
        let matches = |rule: &&Rule| rule.device.kind.is_none_or(|of| of == kind);
        let rules: Vec<&Rule> = rules.iter().filter(matches).collect();
        let others = Minors::new(&rules, None);
        let majors: BTreeSet<u32> = rules.iter().filter_map(|rule| rule.device.major).collect();
        let named = majors.into_iter().map(|major| (major, Minors::new(&rules, Some(major))));
        Table { named: named.filter(|(_, minors)| *minors != others).collect(), others }
    }

    /// Returns whether all of `access` to the device is allowed. `None` stands for all numbers.
    pub(super) fn allows(&self, major: Option<u32>, minor: Option<u32>, access: DeviceAccess) -> bool {
        match major {
            Some(major) => self.named.get(&major).unwrap_or(&self.others).allows(minor, access),
            None => self.named.values().chain([&self.others]).all(|minors| minors.allows(minor, access)),
        }
    }

    /// Returns how many tests and ends a program needs to find a device in the table.
    pub(super) fn branches(&self) -> usize {
        let minors = |minors: &Minors| minors.named.len() + 1;
        self.named.values().map(|one| 1 + minors(one)).sum::<usize>() + minors(&self.others)
    }
}

impl Minors {
    /// Resolves the minors of `major`, or with `None` those of every major that no rule names.
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

/// Returns the access to one device without building a table.
pub(super) fn decide(rules: &[Rule], kind: Kind, major: u32, minor: u32) -> DeviceAccess {
    let is = |wanted: Option<u32>, number| wanted.is_none_or(|wanted| wanted == number);
    let of_kind = |rule: &&Rule| rule.device.kind.is_none_or(|of| of == kind);
    let mut access = DeviceAccess::empty();
    for rule in rules.iter().filter(of_kind).filter(|r| is(r.device.major, major) && is(r.device.minor, minor)) {
        access.set(rule.access, rule.allow);
    }
    access
}

/// Returns the access that the rules give to `minor`, or with `None` to every minor that no rule
/// names. For each kind of access the last matching rule decides.
fn allowed(rules: &[&Rule], minor: Option<u32>) -> DeviceAccess {
    let mut access = DeviceAccess::empty();
    for rule in rules.iter().filter(|rule| rule.device.minor.is_none() || rule.device.minor == minor) {
        access.set(rule.access, rule.allow);
    }
    access
}
