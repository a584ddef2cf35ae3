//! Devices, and single rules about devices.

use std::fmt;
use std::path::Path;

use bitflags::bitflags;
use nix::sys::stat::{major, minor, stat};

use crate::error::{Error, ErrorKind, Result, Step};

/// The kernel's `dev_t` has 12 bits for the major number and 20 for the minor one.
pub(super) const MAJOR_MAX: u32 = (1 << 12) - 1;
pub(super) const MINOR_MAX: u32 = (1 << 20) - 1;

bitflags! {
    /// The kinds of access that a rule covers: the letters `rwm` of the kernel's `devices.allow`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct DeviceAccess: u8 {
        /// Making the device node with mknod(2).
        const MKNOD = 1;
        /// Opening the device to read.
        const READ = 1 << 1;
        /// Opening the device to write.
        const WRITE = 1 << 2;
    }
}

/// The two types of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Char,
}

/// One device, or all devices that share a part of their numbers. The numbers are those that `ls
/// -l` shows and that the kernel's
/// [list](https://www.kernel.org/doc/html/latest/admin-guide/devices.html) names.
///
/// ```
/// use ringfence::Device;
///
/// assert_eq!(Device::char(1, 3), Device::null());
/// assert_eq!(Device::char(136, None).to_string(), "c 136:*");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl Device {
    /// Names a character device. `None` stands for any number.
    pub fn char(major: impl Into<Option<u32>>, minor: impl Into<Option<u32>>) -> Self {
        Device { kind: Some(Kind::Char), major: major.into(), minor: minor.into() }
    }

    /// Names a block device. `None` stands for any number.
    pub fn block(major: impl Into<Option<u32>>, minor: impl Into<Option<u32>>) -> Self {
        Device { kind: Some(Kind::Block), major: major.into(), minor: minor.into() }
    }

    /// Names every device of both types.
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

    /// `/dev/tty`, the terminal of the calling session.
    pub const fn tty() -> Self {
        Device { kind: Some(Kind::Char), major: Some(5), minor: Some(0) }
    }

    /// `/dev/ptmx`, which makes a new terminal in the devpts next to it.
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

    /// Returns the device behind the node at `path`, as in `Device::at("/dev/kvm")`.
    ///
    /// # Errors
    /// Fails if the path does not exist or is not a device node.
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

    /// Returns whether the kernel's `dev_t` can hold the numbers.
    pub(super) fn is_valid(&self) -> bool {
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

/// One rule: whether the access to a device is allowed or denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) device: Device,
    pub(super) access: DeviceAccess,
    pub(super) allow: bool,
}
