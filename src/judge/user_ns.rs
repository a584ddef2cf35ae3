//! The judgement about user namespaces: the mapped ids, the writer of the maps, and the settings
//! that forbid them.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use caps::Capability;
use nix::unistd::{Gid, Uid, User, getgroups};

use super::capabilities::has_capability;
use crate::error::Problem;
use crate::mount::{self, OwnedFiles, Upper};
use crate::namespace::{IdMap, IdMaps, LINES_MAX, Namespaces, Outside, Programs, Writer, is_own, unprivileged_id};
use crate::policy::Policy;
use crate::proc::subid::{self, SubIds};

/// The caller's ids, which are outside ids.
#[derive(Debug, Clone, Copy)]
struct CallerIds {
    uid: u32,
    gid: u32,
}

impl Policy {
    /// Returns the maps of a new user namespace: those of the policy, else one line for the user of
    /// the program, and one for its group.
    pub(super) fn id_maps(&self, problems: &mut Vec<Problem>) -> Option<IdMaps> {
        let ns = &self.namespaces;
        if !ns.new.contains(Namespaces::USER) {
            return None;
        }
        let own = CallerIds { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() };
        let (uid, gid) = self.user_inside();
        let given = |map: &[IdMap], id, own| if map.is_empty() { vec![IdMap::new(id, own, 1)] } else { map.to_vec() };
        let (uid_map, gid_map) = if ns.subids {
            let before = problems.len();
            let maps = (granted("subuid", own.uid, own, problems), granted("subgid", own.gid, own, problems));
            if problems.len() > before {
                return None;
            }
            maps
        } else {
            let outside = outside_ids(own);
            (given(&ns.uid_map, uid, outside.uid), given(&ns.gid_map, gid, outside.gid))
        };
        for (call, map, id) in [("uid_map", &uid_map, uid), ("gid_map", &gid_map, gid)] {
            if !map.iter().any(|line| line.covers(id)) {
                let reason = format!("the program runs as id {id}, which is not mapped");
                problems.push(Problem::invalid(call, reason, "map that id, or choose another with user()"));
            }
            if map.len() > LINES_MAX {
                let reason = format!("the map has {} lines, and the kernel takes at most {LINES_MAX}", map.len());
                problems.push(Problem::invalid(call, reason, "join ranges that follow one another"));
            }
        }
        problems.extend(self.unmapped_group(&gid_map));
        let mut ids = IdMaps {
            uid: uid_map,
            gid: gid_map,
            deny_setgroups: false,
            writer: Writer::Inside,
            outside: Outside::Mapped,
        };
        self.choose_writer(&mut ids, own, problems);
        if ids.writer == Writer::Caller {
            ids.outside = self.outside(&ids);
        }
        Some(ids)
    }

    /// Chooses the ids that each sandbox of this policy has outside. A sandbox can have an id of
    /// its own if the policy names no map, and no file belongs to the id of the map.
    fn outside(&self, ids: &IdMaps) -> Outside {
        let ns = &self.namespaces;
        let is_given = ns.subids || !ns.uid_map.is_empty() || !ns.gid_map.is_empty();
        let Some(stays) = ids.single().filter(|_| !is_given && ns.new.contains(Namespaces::MOUNT)) else {
            return Outside::Mapped;
        };
        if self.stdio.extra.iter().any(|(_, fd)| mount::exposes_files_of(fd.as_fd(), stays)) {
            return Outside::Mapped;
        }
        match self.mounts.owned_files(stays) {
            OwnedFiles::None => Outside::Leased,
            OwnedFiles::Mappable if !self.may_remount() => Outside::Exchanged,
            _ => Outside::Mapped,
        }
    }

    /// Returns whether the program could remove flags from mounts. The flags of mounts that the
    /// caller has copied are not locked.
    fn may_remount(&self) -> bool {
        self.privileges().capabilities.is_none_or(|given| given.reaches(Capability::CAP_SYS_ADMIN))
    }

    /// Returns a problem for a group that is not mapped, because setgroups(2) takes only groups
    /// that the user namespace maps.
    fn unmapped_group(&self, gid_map: &[IdMap]) -> Option<Problem> {
        let groups = self.program.groups.as_deref().unwrap_or_default();
        let group = groups.iter().find(|group| !gid_map.iter().any(|line| line.covers(**group)))?;
        let reason = format!("group {group} is not mapped");
        Some(Problem::invalid("groups", reason, "leave out the group, or map it with gid_map()"))
    }

    /// Chooses the writer of the maps, and whether setgroups(2) is given up.
    fn choose_writer(&self, ids: &mut IdMaps, own: CallerIds, problems: &mut Vec<Problem>) {
        let privileged = has_capability(Capability::CAP_SETUID) && has_capability(Capability::CAP_SETGID);
        let wants_groups = self.program.groups.as_ref().is_some_and(|groups| !groups.is_empty());
        // Root's own supplementary groups can be dropped only while setgroups(2) is allowed. Then
        // root has to write the map.
        let drops_groups = privileged && (wants_groups || getgroups().is_ok_and(|groups| !groups.is_empty()));
        // Before the ids of mounts are mapped, the caller waits until the user namespace has its
        // maps.
        let from_outside = drops_groups || privileged && self.mounts.maps_ids();
        if ids.is_single(own.uid, own.gid) && !from_outside {
            ids.deny_setgroups = true;
        } else if privileged {
            ids.writer = Writer::Caller;
        } else {
            // A map of the caller's own group alone does not give the right to setgroups(2).
            ids.deny_setgroups = is_own(&ids.gid, own.gid);
            match Programs::find() {
                Ok(programs) => ids.writer = Writer::Programs(programs),
                Err(missing) => problems.extend(missing),
            }
            problems.extend(not_granted("uid_map", "subuid", &ids.uid, own.uid, own));
            problems.extend(not_granted("gid_map", "subgid", &ids.gid, own.gid, own));
            problems.extend(self.scratch_of_others());
        }
        if wants_groups && ids.deny_setgroups {
            let reason = "an ordinary user's user namespace has no supplementary groups";
            let remedy = "leave out the groups, map a range with map_subids() or gid_map(), or run as root";
            problems.push(Problem::unsupported("groups", reason, remedy));
        }
    }

    /// Returns a problem for a scratch directory: the caller may not remove the files that
    /// subordinate users leave there.
    fn scratch_of_others(&self) -> Option<Problem> {
        matches!(self.mounts.root.as_ref()?.upper, Upper::Scratch(_)).then(|| {
            let reason = "directories that belong to subordinate ids could not be removed afterwards";
            Problem::unsupported("rootfs", reason, "use RootFs::tmpfs(), or an upper directory of the caller's")
        })
    }
}

/// Returns the ids that the program has outside. If the caller may choose, these are nobody's,
/// because the sandboxes of root would else be root towards files, signals and /proc/sys. Else they
/// are the caller's, who may map no other.
fn outside_ids(own: CallerIds) -> CallerIds {
    if !has_capability(Capability::CAP_SETUID) || !has_capability(Capability::CAP_SETGID) {
        return own;
    }
    let nobody = |path, own| fs::read_to_string(path).ok().and_then(|map| unprivileged_id(&map)).unwrap_or(own);
    CallerIds { uid: nobody("/proc/self/uid_map", own.uid), gid: nobody("/proc/self/gid_map", own.gid) }
}

const ETC: &str = "/etc";

/// Calls `then` with the caller as the files of subordinate ids name users.
fn with_user<T>(own: CallerIds, then: impl FnOnce(subid::User<'_>) -> T) -> T {
    let name = User::from_uid(Uid::from_raw(own.uid)).ok().flatten().map(|user| user.name);
    then(subid::User { name: name.as_deref(), uid: own.uid })
}

/// Returns the map of root to the caller, and of the ids from 1 on to the ranges in /etc/subuid or
/// /etc/subgid.
fn granted(file: &str, own_id: u32, own: CallerIds, problems: &mut Vec<Problem>) -> Vec<IdMap> {
    let ranges = with_user(own, |user| subid::read(Path::new(ETC), file, user));
    if ranges.is_empty() {
        problems.push(no_ranges("map_subids", file, "no range", own));
    }
    map_behind_root(own_id, &ranges)
}

/// Returns the lines of a map: root to `own_id`, and the ids from 1 on to `ranges`, without a gap.
fn map_behind_root(own_id: u32, ranges: &[SubIds]) -> Vec<IdMap> {
    let mut lines = vec![IdMap::new(0, own_id, 1)];
    let mut next = 1u32;
    for range in ranges {
        // The last id, 4,294,967,295, means "no id".
        let count = range.count.min((u32::MAX - 1).saturating_sub(next));
        lines.extend((count > 0).then(|| IdMap::new(next, range.first, count)));
        next += count;
    }
    lines
}

/// Makes the problem of subordinate ids that a file does not grant.
fn no_ranges(call: &str, file: &str, what: &str, own: CallerIds) -> Problem {
    let shown = with_user(own, |user| user.name.map_or_else(|| user.uid.to_string(), str::to_owned));
    let reason = format!("/etc/{file} gives {shown} {what}");
    let remedy = if subid::are_elsewhere(Path::new(ETC)) {
        "/etc/nsswitch.conf names another source: name the ranges with uid_map() and gid_map()".to_owned()
    } else {
        format!(
            "as root: add the line {shown}:100000:65536, or another unused range, to /etc/{file}; then map ids of that range \
             alone, or call map_subids()"
        )
    };
    Problem::unsupported(call, reason, remedy)
}

/// Returns a problem for the first line that newuidmap(1) or newgidmap(1) would refuse.
fn not_granted(call: &str, file: &str, map: &[IdMap], own_id: u32, own: CallerIds) -> Option<Problem> {
    if subid::are_elsewhere(Path::new(ETC)) {
        return None;
    }
    let ranges = with_user(own, |user| subid::read(Path::new(ETC), file, user));
    let may =
        |line: &&IdMap| is_own(std::slice::from_ref(*line), own_id) || subid::cover(&ranges, line.outside, line.count);
    let line = map.iter().find(|line| !may(line))?;
    Some(no_ranges(call, file, &format!("not the {} ids from {} on", line.count, line.outside), own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_root_without_a_gap() {
        let ranges = [SubIds { first: 100_000, count: 65_536 }, SubIds { first: 500_000, count: 10 }];
        let lines = [IdMap::new(0, 1000, 1), IdMap::new(1, 100_000, 65_536), IdMap::new(65_537, 500_000, 10)];
        assert_eq!(map_behind_root(1000, &ranges), lines);
        let all = [SubIds { first: 1, count: u32::MAX - 1 }; 2];
        assert!(map_behind_root(0, &all).iter().all(IdMap::is_valid));
    }
}
