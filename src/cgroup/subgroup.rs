//! Groups below that of a sandbox, for a further program.
//!
//! Programs inside make them, and may take them away at any time. Their names are followed from the
//! open directory of the sandbox's group, one by one, and never through a link or upwards.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::controllers::{Controllers, Version};
use super::group::Group;
use super::host::Host;
use super::part::Part;
use crate::error::{Error, Problem, Result, Step};

const SUBJECT: &str = "subgroup";

/// A group below that of a sandbox, as a command asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subgroup {
    /// Names of v1 controllers; `None` for all hierarchies.
    pub(crate) controllers: Option<String>,
    pub(crate) path: PathBuf,
}

impl Subgroup {
    /// Returns the problem of a path that would lead out of the sandbox's group.
    pub(crate) fn invalid(&self) -> Option<Problem> {
        let path = self.path.as_os_str();
        let reason = if self.path.components().any(|part| part == Component::ParentDir) {
            format!("bad sub cgroup path: {}: `..` components are not allowed", self.path.display())
        } else if path.len() >= libc::PATH_MAX as usize || path.as_encoded_bytes().contains(&0) {
            "bad sub cgroup path: it is longer than a path may be, or has a NUL".to_owned()
        } else {
            return None;
        };
        Some(Problem::invalid(SUBJECT, reason, "name a group below that of the sandbox"))
    }

    fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.path.components().filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
    }

    /// Returns whether this is the sandbox's group itself.
    pub(crate) fn is_top(&self) -> bool {
        self.names().next().is_none()
    }

    /// Returns the controllers of this name each, and those that nobody knows.
    fn named(&self) -> impl Iterator<Item = (&str, Controllers)> {
        self.controllers.iter().flat_map(|list| list.split(',')).map(|name| (name, Controllers::named(name)))
    }

    fn is_about(&self, part: &Part) -> bool {
        let here = |(_, controller)| part.version == Version::V1 && part.controllers.intersects(controller);
        self.controllers.is_none() || self.named().any(here)
    }
}

impl Group {
    /// Returns the group as a further program enters it: in each hierarchy the one below that
    /// `wanted` names, or the group itself.
    ///
    /// A path without controllers is one in every hierarchy. Beside v1 hierarchies, a v2 group may
    /// lack it: who makes groups by hand makes them where the limits are.
    pub(crate) fn below(&self, wanted: &[Subgroup], host: &Host) -> Result<Group> {
        let v1 = || self.parts().filter(|part| part.version == Version::V1);
        let unknown = |(name, controller): &(&str, Controllers)| {
            !v1().any(|part| !controller.is_empty() && part.controllers.contains(*controller)) || name.is_empty()
        };
        if let Some((name, _)) = wanted.iter().flat_map(Subgroup::named).find(unknown) {
            let reason = format!("unknown controller {name}: the sandbox has no group in a v1 hierarchy of it");
            let problem = Problem::invalid(SUBJECT, reason, "give the path alone, which holds for all hierarchies");
            return Err(Error::refused(vec![problem]));
        }
        let mut parts = Vec::new();
        for part in self.parts() {
            let about: Vec<&Subgroup> = wanted.iter().filter(|subgroup| subgroup.is_about(part)).collect();
            if about.windows(2).any(|two| two[0].names().ne(two[1].names())) {
                let reason = format!("two groups are named for one hierarchy, {}", part.mount.display());
                return Err(Error::refused(vec![Problem::invalid(SUBJECT, reason, "name one group for each")]));
            }
            let names: PathBuf = about.first().map(|subgroup| subgroup.names().collect()).unwrap_or_default();
            let optional = part.version == Version::V2 && v1().next().is_some();
            parts.push(
                match open_below(part, &names) {
                    Err(Errno::ENOENT) if optional => open_below(part, Path::new("")),
                    opened => opened,
                }
                .map_err(|errno| Error::new(Step::JoinCgroup, errno).at(part.path.join(&names)))?,
            );
        }
        Ok(Group::of_parts(host, parts))
    }

    /// Returns the group with that v2 group below it in which a process is, or nothing if the
    /// process is in the group itself, or not in it. `theirs` is its `/proc/PID/cgroup`.
    ///
    /// A v2 group that passes controllers on takes no process: those inside have moved down before.
    pub(crate) fn below_as(&self, theirs: &str, host: &Host) -> Option<Group> {
        let (v2, hierarchy) = (self.v2()?, host.v2()?);
        let place = hierarchy.mount.join(hierarchy.place_of(theirs)?);
        let rest = place.strip_prefix(&v2.path).ok().filter(|rest| !rest.as_os_str().is_empty())?;
        let below = |part: &Part| {
            let rest = if part.version == Version::V2 { rest } else { Path::new("") };
            open_below(part, rest).ok()
        };
        Some(Group::of_parts(host, self.parts().map(below).collect::<Option<Vec<_>>>()?))
    }
}

/// Opens the directory of the group below a part; without a path, that of the part.
fn open_below(part: &Part, path: &Path) -> nix::Result<Part> {
    let mut below = part.again()?;
    for name in path {
        below = below.sub(name)?;
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subgroup(path: &str) -> Subgroup {
        Subgroup { controllers: None, path: path.into() }
    }

    #[test]
    fn a_path_is_counted_from_the_group_on_and_never_leads_up() {
        for (path, names) in [("", ""), ("/", ""), (".", ""), ("/a/b/", "a/b"), ("a//./b", "a/b")] {
            assert!(subgroup(path).invalid().is_none(), "{path}");
            assert_eq!(subgroup(path).names().collect::<PathBuf>(), Path::new(names), "{path}");
            assert_eq!(subgroup(path).is_top(), names.is_empty(), "{path}");
        }
        for path in ["..", "a/..", "/../a", "a/../a", "a\0b", &"a/".repeat(3000)] {
            assert!(subgroup(path).invalid().is_some(), "{path}");
        }
        crate::fuzz::texts(&["a/b/../c"], |text| drop(subgroup(text).invalid()));
    }
}
