//! The rules as lines for `devices.allow` and `devices.deny` of cgroup v1.
//!
//! A v1 group has a default and a list of exceptions. If the default denies, a request is allowed
//! when one exception covers all of the request. If the default allows, a request is denied when
//! one exception covers a part of the request. Exceptions cannot have exceptions: a narrower
//! exception can add to a wider one, and never take access back.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::device::{Device, DeviceAccess, Kind};
use super::rules::Devices;
use super::table::{Minors, Table};
use crate::cgroup::kernfs;
use crate::cgroup::part::Part;
use crate::error::{Result, Step};

const ALLOW: &CStr = c"devices.allow";
const DENY: &CStr = c"devices.deny";
const LIST: &CStr = c"devices.list";

/// The reason and the remedy for rules that have no [`List`].
pub(in crate::cgroup) const NOT_EXPRESSIBLE: (&str, &str) = (
    "cgroup v1 cannot take a device out of the many that a wider rule allows",
    "allow the devices one by one, or begin with a rule that allows everything",
);

/// The contents that the device files of a group shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) struct List {
    allows_by_default: bool,
    exceptions: Vec<(Device, DeviceAccess)>,
}

/// What a list that denies the rest allows of one device, or of all with a part of its numbers.
#[cfg(feature = "oci")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) struct Access {
    pub(in crate::cgroup) is_block: bool,
    pub(in crate::cgroup) major: Option<u32>,
    pub(in crate::cgroup) minor: Option<u32>,
    pub(in crate::cgroup) letters: String,
}

#[cfg(feature = "oci")]
impl List {
    /// Returns what the list allows; `None` for one that allows the rest.
    pub(in crate::cgroup) fn allowed(&self) -> Option<Vec<Access>> {
        let access = |(device, access): &(Device, DeviceAccess)| {
            let (is_block, letters) = (device.kind == Some(Kind::Block), letters(*access));
            Access { is_block, major: device.major, minor: device.minor, letters }
        };
        (!self.allows_by_default).then(|| self.exceptions.iter().map(access).collect())
    }

    /// Returns whether the list allows everything.
    pub(in crate::cgroup) fn allows_all(&self) -> bool {
        self.allows_by_default && self.exceptions.is_empty()
    }
}

impl List {
    /// Returns the list for the rules, or `None` if v1 cannot express them.
    pub(in crate::cgroup) fn new(devices: &Devices) -> Option<List> {
        let tables = [Kind::Char, Kind::Block].map(|kind| (kind, devices.table(kind)));
        [false, true].into_iter().find_map(|allows_by_default| {
            let mut exceptions = Vec::new();
            for (kind, table) in &tables {
                exceptions.extend(exceptions_of(*kind, table, allows_by_default)?);
            }
            Some(List { allows_by_default, exceptions })
        })
    }

    /// Returns the writes for a new group, which starts with the rules of its parent.
    fn writes(&self) -> Vec<(&'static CStr, String)> {
        let default = if self.allows_by_default { ALLOW } else { DENY };
        std::iter::once((default, "a".to_owned())).chain(self.exception_writes()).collect()
    }

    /// Returns the writes for a group whose `devices.list` reads `current`. A device that stays
    /// allowed is never denied in between. A default that stays the same needs no `a`, which the
    /// kernel refuses (EINVAL) when the group has children.
    fn updates(&self, current: &str) -> Vec<(&'static CStr, String)> {
        // A group that allows by default shows one line, without its exceptions.
        if self.allows_by_default || current.starts_with('a') {
            return self.writes();
        }
        let wanted: Vec<String> = self.exceptions.iter().map(|exception| line(*exception)).collect();
        let stale = current.lines().filter_map(|old| {
            let (device, letters) = old.trim().rsplit_once(' ')?;
            let kept = wanted.iter().find_map(|new| new.strip_prefix(device)?.strip_prefix(' ')).unwrap_or_default();
            let gone: String = letters.chars().filter(|letter| !kept.contains(*letter)).collect();
            (!gone.is_empty()).then(|| (DENY, format!("{device} {gone}")))
        });
        self.exception_writes().chain(stale).collect()
    }

    fn exception_writes(&self) -> impl Iterator<Item = (&'static CStr, String)> {
        let file = if self.allows_by_default { DENY } else { ALLOW };
        self.exceptions.iter().map(move |exception| (file, line(*exception)))
    }
}

/// Writes the rules to a group. `living` says that the group has rules already.
pub(in crate::cgroup) fn write(part: &Part, devices: &Devices, living: bool) -> Result<()> {
    let Some(list) = List::new(devices) else {
        return Err(part.error(Step::DeviceRules, Errno::EINVAL).detail(NOT_EXPRESSIBLE.0).hint(NOT_EXPRESSIBLE.1));
    };
    let writes = if living {
        let current = kernfs::read(part.dir(), LIST).map_err(|errno| part.failed(Step::DeviceRules, errno, LIST))?;
        list.updates(&current)
    } else {
        list.writes()
    };
    for (file, line) in writes {
        write_line(part.dir(), file, &line).map_err(|errno| {
            let error = part.failed(Step::DeviceRules, errno, file).detail(format!("writing {line:?}"));
            match (errno, file == ALLOW) {
                (Errno::EPERM, true) => error.hint("the group above does not allow all of that"),
                (Errno::EPERM, false) => error.hint("it needs CAP_SYS_ADMIN"),
                _ => error,
            }
        })?;
    }
    Ok(())
}

/// Writes one line. The kernel refuses access that the group above denies (EPERM). For a rule about
/// a single device, the remaining letters are then written one by one, which gives the same result
/// as on v2. For a wildcard the error stays, because nobody can tell what would be allowed.
fn write_line(dir: BorrowedFd<'_>, file: &CStr, line: &str) -> nix::Result<()> {
    match (kernfs::write(dir, file, line), line.rsplit_once(' ')) {
        (Err(Errno::EPERM), Some((device, letters))) if file == ALLOW && !device.contains('*') => {
            let each = letters.chars().map(|letter| kernfs::write(dir, file, &format!("{device} {letter}")));
            each.filter(|result| *result != Err(Errno::EPERM)).collect()
        }
        (result, _) => result,
    }
}

/// Formats an exception, as in `c 1:3 rwm`.
fn line((device, access): (Device, DeviceAccess)) -> String {
    format!("{device} {}", letters(access))
}

fn letters(access: DeviceAccess) -> String {
    let letters = [(DeviceAccess::READ, 'r'), (DeviceAccess::WRITE, 'w'), (DeviceAccess::MKNOD, 'm')];
    letters.iter().filter(|(bit, _)| access.contains(*bit)).map(|(_, letter)| *letter).collect()
}

/// Returns the exceptions for one type of devices, or `None` if a narrower exception would have to
/// take access back.
fn exceptions_of(kind: Kind, table: &Table, allows: bool) -> Option<Vec<(Device, DeviceAccess)>> {
    // If the default allows, the exceptions contain the access that is denied.
    let except = |access: DeviceAccess| if allows { !access } else { access };
    let mut all = Vec::new();
    let mut put = |major, minor, access: DeviceAccess| {
        if !access.is_empty() {
            all.push((Device { kind: Some(kind), major, minor }, access));
        }
    };
    let widest = except(table.others.others);
    put(None, None, widest);
    for (minor, access) in &table.others.named {
        put(None, Some(*minor), except(*access));
    }
    let mut widens = table.others.named.values().all(|access| except(*access).contains(widest));
    for (major, minors) in &table.named {
        put(Some(*major), None, except(minors.others));
        for (minor, access) in &minors.named {
            put(Some(*major), Some(*minor), except(*access));
        }
        widens &= widens_from(minors, &table.others, except);
    }
    widens.then_some(all)
}

/// Returns whether every exception for one major covers the exceptions for all majors that match
/// the same device.
fn widens_from(minors: &Minors, wider: &Minors, except: impl Fn(DeviceAccess) -> DeviceAccess) -> bool {
    let named = minors.named.keys().chain(wider.named.keys()).all(|minor| {
        let here = except(minors.get(*minor));
        here.contains(except(minors.others)) && here.contains(except(wider.get(*minor)))
    });
    named && except(minors.others).contains(except(wider.others))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Random, all_devices, decide};
    use super::*;

    /// Decides like the kernel's devcgroup_check_permission.
    fn permits(list: &List, kind: Kind, (major, minor): (u32, u32), request: DeviceAccess) -> bool {
        let mut matching = list.exceptions.iter().filter(|(device, _)| {
            device.kind == Some(kind)
                && device.major.is_none_or(|n| n == major)
                && device.minor.is_none_or(|n| n == minor)
        });
        if list.allows_by_default {
            !matching.any(|(_, access)| access.intersects(request))
        } else {
            matching.any(|(_, access)| access.contains(request))
        }
    }

    fn requests() -> impl Iterator<Item = DeviceAccess> {
        let read_write = DeviceAccess::READ | DeviceAccess::WRITE;
        [DeviceAccess::READ, DeviceAccess::WRITE, read_write, DeviceAccess::MKNOD].into_iter()
    }

    #[test]
    fn a_list_permits_what_the_rules_allow() {
        let mut random = Random(0x11575);
        let (mut said, mut both) = (0, 0);
        for _ in 0..2000 {
            let devices = random.devices();
            let Some(list) = List::new(&devices) else { continue };
            said += 1;
            both += usize::from(list.allows_by_default);
            for (kind, major, minor) in all_devices() {
                let allowed = decide(&devices, kind, major, minor);
                for request in requests() {
                    let got = permits(&list, kind, (major, minor), request);
                    assert_eq!(
                        got,
                        allowed.contains(request),
                        "{request:?} {kind:?} {major}:{minor} {devices:?} {list:?}"
                    );
                }
            }
        }
        assert!(said > 400 && both > 2, "only {said} and {both} were said at all");
    }

    fn lines(devices: &Devices) -> Option<Vec<String>> {
        let writes = List::new(devices)?.writes();
        Some(writes.iter().map(|(file, text)| format!("{} {text}", file.to_str().unwrap())).collect())
    }

    #[test]
    fn rules_are_lines() {
        assert_eq!(lines(&Devices::none()).unwrap(), ["devices.deny a"]);
        let standard = lines(&Devices::standard()).unwrap();
        assert_eq!(standard[0], "devices.deny a");
        assert!(standard.contains(&"devices.allow c 1:3 rwm".to_owned()), "{standard:?}");
        assert!(standard.contains(&"devices.allow c 136:* rwm".to_owned()), "{standard:?}");
        assert_eq!(standard.len(), 9);
        let all = Devices::none().allow(Device::any(), DeviceAccess::all());
        assert_eq!(lines(&all).unwrap(), ["devices.deny a", "devices.allow c *:* rwm", "devices.allow b *:* rwm"]);
        let but = all.clone().deny(Device::block(8, None), DeviceAccess::WRITE);
        assert_eq!(lines(&but).unwrap(), ["devices.allow a", "devices.deny b 8:* w"]);
    }

    #[test]
    fn a_hole_in_a_wider_rule_cannot_be_said() {
        let memory = Devices::none().allow(Device::char(1, None), DeviceAccess::all());
        assert_eq!(lines(&memory.clone().deny(Device::null(), DeviceAccess::WRITE)), None);
        assert!(lines(&memory.clone().deny(Device::tty(), DeviceAccess::WRITE)).is_some());
        // A rule that denies a major cannot leave out a minor that is allowed for all majors.
        let minors = Devices::none().allow(Device::char(None, 3), DeviceAccess::all());
        assert_eq!(lines(&minors.deny(Device::char(1, None), DeviceAccess::all())), None);
    }

    #[test]
    fn an_update_denies_only_what_is_no_longer_allowed() {
        let rules = Devices::none().allow(Device::null(), DeviceAccess::READ).allow(Device::tty(), DeviceAccess::READ);
        let list = List::new(&rules).unwrap();
        let writes = list.updates("c 1:3 rw\nc 1:5 rwm\nc 5:* rwm\nc 5:0 r\n");
        let writes: Vec<_> = writes.iter().map(|(file, text)| format!("{} {text}", file.to_str().unwrap())).collect();
        let allowed = ["devices.allow c 1:3 r", "devices.allow c 5:0 r"];
        assert_eq!(writes[..2], allowed);
        assert_eq!(writes[2..], ["devices.deny c 1:3 w", "devices.deny c 1:5 rwm", "devices.deny c 5:* rwm"]);
        assert_eq!(list.updates("a *:* rwm\n"), list.writes());
        crate::fuzz::texts(&["c 1:3 rw\nc 1:5 rwm\nb 8:* r\n", "a *:* rwm\n"], |text| drop(list.updates(text)));
    }
}
