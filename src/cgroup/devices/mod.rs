//! Which devices may be opened and made.
//!
//! [`Devices`] is a list of rules. [`table`] resolves it, once for both kernel interfaces: a program for cgroup v2
//! ([`program`], [`filter`]) and the lines of `devices.allow` for v1 ([`v1`]).

#[cfg_attr(not(feature = "devices"), path = "no_filter.rs")]
pub(super) mod filter;
#[cfg(feature = "devices")]
mod program;
mod table;
pub(super) mod v1;

use std::fmt;
use std::path::Path;

use bitflags::bitflags;
use nix::sys::stat::{major, minor, stat};
use table::Table;

use crate::{Error, ErrorKind, Feature, Problem, Result, Step};

/// The kernel's `dev_t` has 12 bits for the major number and 20 for the minor one.
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;
/// Each wildcard may meet each other one: the table grows with the square.
const RULES_MAX: usize = 500;
/// A program may have 4,096 instructions before 5.2. A branch of it is one, and some forty are around them.
const BRANCHES_MAX: usize = 4000;

bitflags! {
    /// What a rule is about: the `rwm` of the kernel's `devices.allow`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct DeviceAccess: u8 {
        /// Making the node: mknod(2).
        const MKNOD = 1;
        /// Opening it to read.
        const READ = 1 << 1;
        /// Opening it to write.
        const WRITE = 1 << 2;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Block,
    Char,
}

/// One device, or every device that has a part of its numbers. The numbers are those of `ls -l` and of the kernel's
/// [list](https://www.kernel.org/doc/html/latest/admin-guide/devices.html).
///
/// ```
/// use ringfence::Device;
///
/// assert_eq!(Device::char(1, 3), Device::null());
/// assert_eq!(Device::char(136, None).to_string(), "c 136:*");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
}

impl Device {
    /// A character device; `None` stands for any number.
    pub fn char(major: impl Into<Option<u32>>, minor: impl Into<Option<u32>>) -> Self {
        Device { kind: Some(Kind::Char), major: major.into(), minor: minor.into() }
    }

    /// A block device; `None` stands for any number.
    pub fn block(major: impl Into<Option<u32>>, minor: impl Into<Option<u32>>) -> Self {
        Device { kind: Some(Kind::Block), major: major.into(), minor: minor.into() }
    }

    /// Every device of both types.
    pub const fn any() -> Self {
        Device { kind: None, major: None, minor: None }
    }

    /// `/dev/null`.
    pub const fn null() -> Self {
        Device::memory(3)
    }

    /// `/dev/zero`.
    pub const fn zero() -> Self {
        Device::memory(5)
    }

    /// `/dev/full`.
    pub const fn full() -> Self {
        Device::memory(7)
    }

    /// `/dev/random`.
    pub const fn random() -> Self {
        Device::memory(8)
    }

    /// `/dev/urandom`.
    pub const fn urandom() -> Self {
        Device::memory(9)
    }

    /// `/dev/tty`, which leads to the terminal of the session.
    pub const fn tty() -> Self {
        Device { kind: Some(Kind::Char), major: Some(5), minor: Some(0) }
    }

    /// `/dev/ptmx`, which makes a new terminal in the devpts beside it.
    pub const fn ptmx() -> Self {
        Device { kind: Some(Kind::Char), major: Some(5), minor: Some(2) }
    }

    /// The terminals in `/dev/pts`.
    pub const fn pts() -> Self {
        Device { kind: Some(Kind::Char), major: Some(136), minor: None }
    }

    const fn memory(minor: u32) -> Self {
        Device { kind: Some(Kind::Char), major: Some(1), minor: Some(minor) }
    }

    /// The device that the node at `path` leads to now, as in `Device::at("/dev/kvm")`.
    ///
    /// # Errors
    /// If there is no such path, or it is no device.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let stat = stat(path).map_err(|errno| Error::new(Step::OpenSource, errno).at(path))?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFBLK => Kind::Block,
            libc::S_IFCHR => Kind::Char,
            _ => return Err(Error::message(ErrorKind::Invalid, Step::OpenSource, "it is no device node").at(path)),
        };
        let number = |part: u64| u32::try_from(part).ok();
        Ok(Device { kind: Some(kind), major: number(major(stat.st_rdev)), minor: number(minor(stat.st_rdev)) })
    }

    fn is_valid(&self) -> bool {
        self.major.is_none_or(|n| n <= MAJOR_MAX) && self.minor.is_none_or(|n| n <= MINOR_MAX)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        f.write_str(match self.kind {
            None => "a",
            Some(Kind::Block) => "b",
            Some(Kind::Char) => "c",
        })?;
        write!(f, " {}:{}", number(self.major), number(self.minor))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Rule {
    device: Device,
    access: DeviceAccess,
    allow: bool,
}

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
    rules: Vec<Rule>,
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
            return table::decide(&self.rules, kind, major, minor).contains(access);
        }
        let of = |kind| device.kind.is_none_or(|one| one == kind);
        let mut kinds = [Kind::Block, Kind::Char].into_iter().filter(|kind| of(*kind));
        kinds.all(|kind| Table::new(self, kind).allows(device.major, device.minor, access))
    }

    fn rule(mut self, device: Device, access: DeviceAccess, allow: bool) -> Self {
        self.rules.push(Rule { device, access, allow });
        self
    }

    /// What no kernel could mean.
    pub(super) fn invalid(&self) -> Vec<Problem> {
        let subject = Feature::Devices.as_str();
        let bad = self.rules.iter().map(|rule| rule.device).filter(|device| !device.is_valid());
        let reason = |device| format!("{device} has a number that no device can have");
        let remedy = format!("majors end at {MAJOR_MAX}, minors at {MINOR_MAX}");
        let mut problems: Vec<_> = bad.map(|device| Problem::invalid(subject, reason(device), &*remedy)).collect();
        let branches = || [Kind::Char, Kind::Block].map(|kind| Table::new(self, kind).branches()).iter().sum::<usize>();
        if self.rules.len() > RULES_MAX || branches() > BRANCHES_MAX {
            let reason = format!("{} rules are too many for the kernel", self.rules.len());
            problems.push(Problem::invalid(subject, reason, "use wildcards for whole majors"));
        }
        problems
    }
}
