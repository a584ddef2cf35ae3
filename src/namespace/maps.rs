//! The id maps of a user namespace: user_namespaces(7).

use std::time::Instant;

use nix::errno::Errno;

use super::lease::Lease;
use super::newidmap::{self, Programs};
use crate::error::{Error, Result, Step};
use crate::idmap::{IdMap, is_own};

/// The writer of the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The process inside, which may map one id, its own.
    Inside,
    /// The caller, who has CAP_SETUID and CAP_SETGID over its own user namespace.
    Caller,
    /// The system's set-uid programs.
    Programs(Programs),
}

/// The user and group that a run has outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Those of the maps.
    Mapped,
    /// An id that no other run has, as long as there is one.
    Leased,
    /// A leased id, with id-mapped mounts that exchange it for the maps' own.
    Exchanged,
}

/// The maps of one user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) uid: Vec<IdMap>,
    pub(crate) gid: Vec<IdMap>,
    /// setgroups(2) is given up, which an unprivileged gid map demands (CVE-2014-8989).
    pub(crate) deny_setgroups: bool,
    pub(crate) writer: Writer,
    pub(crate) outside: Outside,
}

impl IdMaps {
    /// Returns the maps of one run, with the id that the run has leased outside.
    pub(crate) fn for_run(&self, lease: &Lease) -> IdMaps {
        let outside = |lines: &[IdMap]| lines.iter().map(|line| IdMap { outside: lease.id(), ..*line }).collect();
        IdMaps { uid: outside(&self.uid), gid: outside(&self.gid), ..self.clone() }
    }

    /// Returns the files below `/proc/PID`, in the order in which they are written, with their
    /// text.
    pub(crate) fn files(&self) -> Vec<(&'static str, String)> {
        let text = |maps: &[IdMap]| maps.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count)).collect();
        let setgroups = self.deny_setgroups.then(|| ("setgroups", "deny".to_owned()));
        setgroups.into_iter().chain([("gid_map", text(&self.gid)), ("uid_map", text(&self.uid))]).collect()
    }

    /// Returns the user and the group outside, where there is one of each.
    pub(crate) fn single(&self) -> Option<(u32, u32)> {
        match (&self.uid[..], &self.gid[..]) {
            ([uid], [gid]) => Some((uid.outside, gid.outside)),
            _ => None,
        }
    }

    /// Returns the user and group that these are outside, if they are mapped.
    pub(crate) fn outside_of(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        let outside = |lines: &[IdMap], id: u32| {
            let line = lines.iter().find(|line| line.covers(id))?;
            Some(line.outside + (id - line.inside))
        };
        Some((outside(&self.uid, uid)?, outside(&self.gid, gid)?))
    }

    /// Returns whether the process inside may write the maps itself: each maps one id, its own.
    pub(crate) fn is_single(&self, euid: u32, egid: u32) -> bool {
        is_own(&self.uid, euid) && is_own(&self.gid, egid)
    }

    /// Returns the user and group as which the setup makes files, where those are not the caller's:
    /// root inside, else the first ids. Files can be made only by an id that the namespace knows.
    pub(crate) fn setup(&self) -> Option<(IdMap, IdMap)> {
        let first = |lines: &[IdMap]| lines.iter().find(|line| line.inside == 0).or(lines.first()).copied();
        if self.writer == Writer::Inside { None } else { first(&self.uid).zip(first(&self.gid)) }
    }

    /// Writes the maps of the process `pid`, which waits for them.
    pub(crate) fn write(&self, pid: i32, until: Instant) -> Result<()> {
        if let Writer::Programs(programs) = &self.writer {
            // newgidmap denies setgroups(2) by itself where /etc/subgid gives none of the ids.
            newidmap::run(&programs.newgidmap, pid, "gid_map", &self.gid, until)?;
            return newidmap::run(&programs.newuidmap, pid, "uid_map", &self.uid, until);
        }
        for (file, text) in self.files() {
            let path = format!("/proc/{pid}/{file}");
            std::fs::write(&path, text).map_err(|error| {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
                Error::new(Step::WriteIdMap, errno).at(&path)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setgroups_is_denied_before_the_gid_map() {
        let maps = IdMaps {
            uid: vec![IdMap::new(0, 1000, 1)],
            gid: vec![IdMap::new(0, 100, 1)],
            deny_setgroups: true,
            writer: Writer::Inside,
            outside: Outside::Mapped,
        };
        let files = maps.files();
        assert_eq!(files.iter().map(|f| f.0).collect::<Vec<_>>(), ["setgroups", "gid_map", "uid_map"]);
        assert_eq!(files[1].1, "0 100 1\n");
        assert!(maps.is_single(1000, 100) && !maps.is_single(1001, 100));
    }
}
