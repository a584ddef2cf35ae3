//! The list of rules that a caller gives.

use super::device::{Device, DeviceAccess, Kind, MAJOR_MAX, MINOR_MAX, Rule};
use super::table::{Table, decide};
use crate::error::Problem;
use crate::feature::Feature;

/// Each wildcard may meet each other one: the table grows with the square.
pub(super) const RULES_MAX: usize = 500;
/// A program may have 4,096 instructions before 5.2. A branch of it is one, and some forty are around them.
const BRANCHES_MAX: usize = 4000;

/// The devices that the programs in a sandbox may open and make: a list of rules, of which the last that matches
/// decides, for each of reading, writing and making by itself. What no rule matches is denied.
///
/// It is enforced by a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` on hosts with cgroup v2 (4.15), which needs the crate
/// feature `devices` (on by default), and CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN (5.8), in the first user namespace;
/// on hosts with v1 only, or where programs cannot be had, by `devices.allow`, which needs root and no crate feature.
/// Groups above can deny more: nothing is allowed that they do not allow.
///
/// The rules hold from the sandbox's first moment, so for its own mounts too: a block device that is to be mounted has to
/// be allowed, and where making the nodes of `/dev` is not, those of the host are bound. They are asked when a device is
/// opened; a descriptor that the caller passes in is open already.
///
/// ```no_run
/// use ringfence::{Device, DeviceAccess, Devices, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let read_write = DeviceAccess::READ | DeviceAccess::WRITE;
/// let devices = Devices::standard().allow(Device::at("/dev/kvm")?, read_write);
/// let mut child = Sandbox::new().rootfs("/srv/alpine").devices(devices).spawn()?;
/// # child.wait()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    pub(super) rules: Vec<Rule>,
}

impl Devices {
    /// No rule, so no device at all.
    pub fn none() -> Self {
        Devices::default()
    }

    /// What programs expect, and no more: `null`, `zero`, `full`, `random`, `urandom`, `tty`, `ptmx` and the terminals in
    /// `pts`, which are the default devices of the OCI's runtime specification. Their nodes may be made, too; those of
    /// other devices may not.
    pub fn standard() -> Self {
        let devices = [
            Device::null(),
            Device::zero(),
            Device::full(),
            Device::random(),
            Device::urandom(),
            Device::tty(),
            Device::ptmx(),
            Device::pts(),
        ];
        devices.into_iter().fold(Devices::none(), |all, device| all.allow(device, DeviceAccess::all()))
    }

    /// Adds a rule that allows.
    pub fn allow(self, device: Device, access: DeviceAccess) -> Self {
        self.rule(device, access, true)
    }

    /// Adds a rule that denies. cgroup v1 cannot take a device out of the many that a wider rule allows, unless that rule
    /// allows everything: there, it is an error.
    pub fn deny(self, device: Device, access: DeviceAccess) -> Self {
        self.rule(device, access, false)
    }

    /// Whether a request for all of `access` to `device` is allowed; of a wildcard, to each device that it stands for.
    ///
    /// ```
    /// use ringfence::{Device, DeviceAccess, Devices};
    ///
    /// assert!(Devices::standard().allows(Device::null(), DeviceAccess::READ | DeviceAccess::WRITE));
    /// assert!(!Devices::standard().allows(Device::char(1, None), DeviceAccess::READ));
    /// ```
    pub fn allows(&self, device: Device, access: DeviceAccess) -> bool {
        if let Device { kind: Some(kind), major: Some(major), minor: Some(minor) } = device {
            return decide(&self.rules, kind, major, minor).contains(access);
        }
        let of = |kind| device.kind.is_none_or(|one| one == kind);
        let mut kinds = [Kind::Block, Kind::Char].into_iter().filter(|kind| of(*kind));
        kinds.all(|kind| self.table(kind).allows(device.major, device.minor, access))
    }

    /// The rules about devices of one type, resolved.
    pub(super) fn table(&self, kind: Kind) -> Table {
        Table::new(&self.rules, kind)
    }

    pub(super) fn rule(mut self, device: Device, access: DeviceAccess, allow: bool) -> Self {
        self.rules.push(Rule { device, access, allow });
        self
    }

    /// What no kernel could mean.
    pub(in crate::cgroup) fn invalid(&self) -> Vec<Problem> {
        let subject = Feature::Devices.as_str();
        let bad = self.rules.iter().map(|rule| rule.device).filter(|device| !device.is_valid());
        let reason = |device| format!("{device} has a number that no device can have");
        let remedy = format!("majors end at {MAJOR_MAX}, minors at {MINOR_MAX}");
        let mut problems: Vec<_> = bad.map(|device| Problem::invalid(subject, reason(device), &*remedy)).collect();
        let branches = || [Kind::Char, Kind::Block].map(|kind| self.table(kind).branches()).iter().sum::<usize>();
        if self.rules.len() > RULES_MAX || branches() > BRANCHES_MAX {
            let reason = format!("{} rules are too many for the kernel", self.rules.len());
            problems.push(Problem::invalid(subject, reason, "use wildcards for whole majors"));
        }
        problems
    }
}
