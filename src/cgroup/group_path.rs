//! The place of a sandbox's group as text, by which a later process finds the group again.
//!
//! A place has the path below the mount of its hierarchy, and the inode of the directory, which no
//! other group has until the next boot.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};

use super::controllers::{Controllers, Version};
use super::group::Group;
use super::hierarchy::below;
use super::host::Host;
use super::part::Part;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::text::{escape, hex, number, unescape};

/// The longest path of a group.
const PATH_MAX: usize = 4096;

/// The place of a group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupPath {
    version: Version,
    controllers: Controllers,
    inode: u64,
    /// The path from the mount of the hierarchy.
    path: PathBuf,
}

impl GroupPath {
    /// Returns the place as a word of letters, digits and `:./_%-`.
    pub(crate) fn to_text(&self) -> String {
        let version = if self.version == Version::V1 { 1 } else { 2 };
        let path = escape(self.path.as_os_str().as_bytes());
        format!("{version}:{:x}:{}:{path}", self.controllers.bits(), self.inode)
    }

    /// Reads what [`to_text`](GroupPath::to_text) has written. `name` is the name that the group must
    /// have.
    pub(crate) fn from_text(text: &str, name: &str) -> Option<GroupPath> {
        let words: Vec<&str> = text.split(':').collect();
        let [version, controllers, inode, path] = words[..] else { return None };
        let version = match version {
            "1" => Version::V1,
            "2" => Version::V2,
            _ => return None,
        };
        let controllers = Controllers::from_bits(hex(controllers)?.try_into().ok()?)?;
        let path = PathBuf::from(OsString::from_vec(unescape(path)?));
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let clean = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
        let short = path.as_os_str().len() <= PATH_MAX && !path.as_os_str().as_bytes().contains(&0);
        let named = path.file_name().is_some_and(|last| last.as_bytes() == name.as_bytes());
        (plain && clean && short && named).then_some(GroupPath { version, controllers, inode: number(inode)?, path })
    }

    pub(super) fn is_of(&self, version: Version) -> bool {
        self.version == version
    }

    /// Returns the path from the mount of the hierarchy.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether two places are in one hierarchy.
    pub(crate) fn is_beside(&self, other: &GroupPath) -> bool {
        self.version == other.version && (self.version == Version::V2 || self.controllers == other.controllers)
    }

    /// Opens the group. Returns `None` if the group is gone, also if another one is in its place.
    fn open(&self, host: &Host) -> Result<Option<Part>> {
        let fits = |hierarchy: &Controllers| match self.version {
            Version::V1 => *hierarchy == self.controllers,
            Version::V2 => true,
        };
        let found = host.hierarchies.iter().find(|h| h.version == self.version && fits(&h.controllers));
        let Some(hierarchy) = found else {
            return Err(Error::message(ErrorKind::Control, Step::Attach, "the group's hierarchy is not mounted here")
                .at(&self.path)
                .hint("attach where the control groups are those of the process that has started the sandbox"));
        };
        let path = hierarchy.mount.join(&self.path);
        let failed = |errno| Error::new(Step::Attach, errno).at(&path).with_kind(ErrorKind::Control);
        let part = match Part::open(self.version, self.controllers, &path, &hierarchy.mount) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let magic = if self.version == Version::V1 { CGROUP_SUPER_MAGIC } else { CGROUP2_SUPER_MAGIC };
        let kind = fstatfs(part.dir()).map_err(failed)?.filesystem_type();
        let inode = fstat(part.dir().as_fd()).map_err(failed)?.st_ino;
        Ok((kind == magic && inode == self.inode).then_some(part))
    }

    /// Returns whether a process is in the group or below it. `own` is its `/proc/PID/cgroup`.
    fn holds(&self, host: &Host, own: &str) -> bool {
        host.hierarchies.iter().any(|hierarchy| {
            let fits = hierarchy.version == self.version
                && (self.version == Version::V2 || hierarchy.controllers == self.controllers);
            let at = || {
                let path = hierarchy.path_in(own)?;
                Some(below(Path::new(""), path.strip_prefix(&hierarchy.root).ok()?))
            };
            fits && at().is_some_and(|at| at.starts_with(&self.path))
        })
    }
}

impl Group {
    /// Returns the places of the group.
    pub(crate) fn places(&self) -> Result<Vec<GroupPath>> {
        let place = |part: &Part| {
            let failed = |errno| part.error(Step::Attach, errno);
            let path = part.path.strip_prefix(&part.mount).map_err(|_| failed(Errno::ENOENT))?.to_owned();
            let inode = fstat(part.dir()).map_err(failed)?.st_ino;
            Ok(GroupPath { version: part.version, controllers: part.controllers, inode, path })
        };
        self.parts().map(place).collect()
    }

    /// Opens the group at these places. Returns `None` if it is gone. Parts of it may be gone: then
    /// its owner is about to remove it.
    pub(crate) fn find(host: &Host, places: &[GroupPath]) -> Result<Option<Group>> {
        let mut parts = Vec::new();
        for place in places {
            parts.extend(place.open(host)?);
        }
        Ok((!parts.is_empty() && parts.len() == places.len()).then(|| Group::of_parts(host, parts)))
    }
}

/// Returns whether the process with this `/proc/PID/cgroup` is in the group at these places, or
/// below it.
pub(crate) fn holds(host: &Host, places: &[GroupPath], own: &str) -> bool {
    places.iter().all(|place| place.holds(host, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_were_written() {
        for text in ["2:1c0:77:rk-a-1", "1:1:18446744073709551615:a%20b/c.slice/rk-a-1"] {
            assert_eq!(GroupPath::from_text(text, "rk-a-1").unwrap().to_text(), text);
        }
    }

    #[test]
    fn a_place_outside_of_the_mount_or_of_another_name_is_refused() {
        for path in
            ["", "/rk-a-1", "../rk-a-1", "a/../rk-a-1", "./rk-a-1", "rk-a-1/", "a//rk-a-1", "rk-a-2", "rk-a-1/x"]
        {
            assert_eq!(GroupPath::from_text(&format!("2:1c0:77:{path}"), "rk-a-1"), None, "{path}");
        }
        for text in ["", "3:1:1:rk-a-1", "2:1ffff:1:rk-a-1", "2:1:-1:rk-a-1", "2:1:1:rk-a-1%00", "2:1:1"] {
            assert_eq!(GroupPath::from_text(text, "rk-a-1"), None, "{text}");
        }
        crate::fuzz::texts(&["2:1c0:77:a%20b/rk-a-1"], |text| drop(GroupPath::from_text(text, "rk-a-1")));
    }
}
