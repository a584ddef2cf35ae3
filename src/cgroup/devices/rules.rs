//! The list of device rules that a caller gives.

use super::device::{Device, DeviceAccess, Kind, MAJOR_MAX, MINOR_MAX, Rule};
use super::table::{Table, decide};
use crate::error::Problem;
use crate::feature::Feature;

/// Limits the rules: every wildcard may meet every other one, so the table grows with the square.
pub(super) const RULES_MAX: usize = 500;
/// Limits the branches: before 5.2 a program may have 4,096 instructions. A branch is one of them,
/// and about forty more surround the branches.
const BRANCHES_MAX: usize = 4000;

/// The devices that the programs in a sandbox may open and make. `Devices` is a list of rules. For
/// each of reading, writing and making a node, the last rule that matches decides. A device that no
/// rule matches is denied.
///
/// On hosts with cgroup v2 a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` enforces the rules
/// (4.15). The program needs the crate feature `devices` (on by default) and, in the first user
/// namespace, CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN (5.8). On hosts with v1 only, and where
/// the caller cannot load programs, `devices.allow` enforces the rules, which needs root and no
/// crate feature. Groups above the sandbox can deny more: a device that they deny stays denied.
///
/// The rules apply from the first moment of the sandbox, and therefore to its own mounts too: a
/// block device that the sandbox mounts must be allowed. Where making the nodes of `/dev` is
/// denied, the nodes of the host are bind-mounted. The kernel checks the rules when a device is
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
    /// Returns an empty list, which denies every device.
    pub fn none() -> Self {
        Devices::default()
    }

    /// Returns rules for the devices that programs commonly need: `null`, `zero`, `full`, `random`,
    /// `urandom`, `tty`, `ptmx` and the terminals in `pts`. These are the default devices of the
    /// OCI runtime specification. Programs may also make nodes of these devices, and of no others.
    pub fn standard() -> Self {
        Devices::none().allow_standard()
    }

    /// Adds rules that allow the [`standard`](Devices::standard) devices.
    pub(crate) fn allow_standard(self) -> Self {
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
        devices.into_iter().fold(self, |all, device| all.allow(device, DeviceAccess::all()))
    }

    /// Adds a rule that allows access.
    pub fn allow(self, device: Device, access: DeviceAccess) -> Self {
        self.rule(device, access, true)
    }

    /// Adds a rule that denies access. cgroup v1 cannot except a device from a wider rule that
    /// allows many, unless that rule allows every device: on v1 this is an error.
    pub fn deny(self, device: Device, access: DeviceAccess) -> Self {
        self.rule(device, access, false)
    }

    /// Returns whether the rules allow all of `access` to `device`. For a wildcard, they must allow
    /// it to every device that matches.
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

    /// Returns the rules: a device, what may be done with it, and whether that is allowed.
    #[cfg(feature = "serde")]
    pub(crate) fn rules(&self) -> impl Iterator<Item = (Device, DeviceAccess, bool)> {
        self.rules.iter().map(|rule| (rule.device, rule.access, rule.allow))
    }

    /// Returns the resolved rules for devices of one type.
    pub(super) fn table(&self, kind: Kind) -> Table {
        Table::new(&self.rules, kind)
    }

    pub(super) fn rule(mut self, device: Device, access: DeviceAccess, allow: bool) -> Self {
        self.rules.push(Rule { device, access, allow });
        self
    }

    /// Returns the rules that no kernel could enforce.
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
