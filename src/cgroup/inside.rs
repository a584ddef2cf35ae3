//! Whether the first process of a sandbox is in the groups that a text names, and in no other
//! sandbox's below them: the text may be forged.
//!
//! A group of the sandbox's own has its name in its path. A group that the caller has named is
//! known by its [`mark`]. Where groups have none, on v1 alone and before Linux 5.7, the process has
//! to be in that very group: a group above it has fewer limits.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::controllers::Version;
use super::group_path::GroupPath;
use super::hierarchy::{Hierarchy, below};
use super::host::Host;
use super::named::NamedDir;
use super::{kernfs, mark};

/// A directory of the group in one hierarchy, and where the process is there, both counted from the
/// mount.
#[derive(Debug)]
struct Stand<'h> {
    hierarchy: &'h Hierarchy,
    group: PathBuf,
    process: PathBuf,
}

impl Stand<'_> {
    /// Returns the mark of the group. An error is not the absence of a mark.
    fn mark(&self) -> nix::Result<Option<Vec<u8>>> {
        mark_of(self.hierarchy, &self.group)
    }
}

/// Returns whether the process with this `/proc/PID/cgroup` is in the group that the caller has
/// named for the sandbox `owner`, in each hierarchy in which that group stands.
pub(crate) fn is_in_named(host: &Host, dirs: &[NamedDir], owner: &str, theirs: &str) -> bool {
    let stand = |dir: &NamedDir| {
        let hierarchy = dir.hierarchy(host)?;
        let group = dir.path().strip_prefix(&hierarchy.mount).ok()?.to_owned();
        let process = hierarchy.place_of(theirs)?;
        process.starts_with(&group).then_some(Stand { hierarchy, group, process })
    };
    let Some(stands) = dirs.iter().map(stand).collect::<Option<Vec<_>>>() else { return false };
    let Some(path) = path_of(&stands) else { return false };
    let count = |hierarchy: &Hierarchy| stands.iter().filter(|stand| stand.hierarchy.mount == hierarchy.mount).count();
    let is_left_out = |hierarchy: &Hierarchy| {
        // Without this directory, a further program would be without its limits.
        let place = hierarchy.place_of(theirs).map(|place| hierarchy.mount.join(place));
        let group = hierarchy.base(Some(&path));
        count(hierarchy) == 0 && place.zip(group).is_some_and(|(place, group)| place.starts_with(group))
    };
    if host.hierarchies.iter().any(|hierarchy| count(hierarchy) > 1 || is_left_out(hierarchy)) {
        return false;
    }
    let v2 = stands.iter().find(|stand| stand.hierarchy.version == Version::V2);
    match v2.map_or(Ok(None), Stand::mark) {
        Ok(Some(mark)) => {
            mark == owner.as_bytes() && v2.is_some_and(|v2| !has_marks(v2.hierarchy, &v2.group, &v2.process))
        }
        Ok(None) => stands.iter().any(|stand| stand.group == stand.process),
        Err(_) => false,
    }
}

/// Returns the path from the root of every hierarchy, which the caller gave. A mount may show only
/// a part of its hierarchy; then the path may have been counted from the mount.
fn path_of(stands: &[Stand<'_>]) -> Option<PathBuf> {
    let same = |path: &dyn Fn(&Stand<'_>) -> PathBuf| {
        let first = path(stands.first()?);
        stands.iter().all(|stand| path(stand) == first).then_some(first)
    };
    same(&|stand| stand.hierarchy.root.join(&stand.group)).or_else(|| same(&|stand| Path::new("/").join(&stand.group)))
}

/// Returns whether the process is in the named group of a sandbox, of which these places know
/// nothing: this process is not in that group, and the places do not lead below it. `theirs` and
/// `own` are the `/proc/PID/cgroup` of both.
pub(crate) fn is_in_another_named(host: &Host, places: &[GroupPath], theirs: &str, own: &str) -> bool {
    let Some(hierarchy) = host.v2() else { return false };
    // A process outside of the cgroup namespace of this one is not seen in any group.
    let Some(place) = hierarchy.place_of(theirs) else { return false };
    let own = hierarchy.place_of(own).unwrap_or_default();
    let shared: PathBuf =
        place.iter().zip(own.iter()).take_while(|(one, other)| one == other).map(|(one, _)| one).collect();
    let given = places.iter().filter(|place| place.is_of(Version::V2)).map(GroupPath::path);
    let known = given.chain([shared.as_path()]).max_by_key(|path| path.components().count()).unwrap_or(Path::new(""));
    has_marks(hierarchy, known, &place)
}

/// Returns whether a group below `above`, down to `place`, has the mark of a sandbox, as far as
/// anything tells.
fn has_marks(hierarchy: &Hierarchy, above: &Path, place: &Path) -> bool {
    let below = place.ancestors().take_while(|path| *path != above && path.starts_with(above));
    below.into_iter().any(|path| !matches!(mark_of(hierarchy, path), Ok(None)))
}

fn mark_of(hierarchy: &Hierarchy, path: &Path) -> nix::Result<Option<Vec<u8>>> {
    if hierarchy.version == Version::V1 {
        return Ok(None);
    }
    match kernfs::open_dir(&below(&hierarchy.mount, path)) {
        Ok(dir) => {
            use std::os::fd::AsFd;
            mark::get(hierarchy.version, dir.as_fd())
        }
        // A group that is gone has nobody in it.
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_that_the_caller_gave_is_the_same_in_every_hierarchy() {
        let hierarchy = |version, mount: &str, root: &str| Hierarchy {
            version,
            controllers: super::super::controllers::Controllers::empty(),
            mount: mount.into(),
            root: root.into(),
            own: None,
            options: "".into(),
        };
        let (whole, part) = (hierarchy(Version::V2, "/c", "/"), hierarchy(Version::V1, "/m", "/a"));
        let stand = |hierarchy, group: &str| Stand { hierarchy, group: group.into(), process: group.into() };
        assert_eq!(path_of(&[stand(&whole, "a/b"), stand(&part, "b")]), Some("/a/b".into()));
        assert_eq!(path_of(&[stand(&whole, "b"), stand(&part, "b")]), Some("/b".into()));
        assert_eq!(path_of(&[stand(&whole, "a"), stand(&part, "b")]), None);
        assert_eq!(path_of(&[]), None);
    }
}
