//! A mounted hierarchy of control groups.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use procfs::process::MountInfo;

use super::controllers::{Controllers, Version};
use crate::proc::mountinfo::unescape;

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(super) version: Version,
    pub(super) controllers: Controllers,
    pub(super) mount: PathBuf,
    /// The group at the top of the mount, as seen from the caller's cgroup namespace.
    pub(super) root: PathBuf,
    /// The directory of the caller's own group, if the mount shows it.
    pub(super) own: Option<PathBuf>,
    /// The options of mount(8) with which a v1 hierarchy is mounted once more.
    pub(super) options: Arc<str>,
}

impl Hierarchy {
    /// Builds the hierarchy of a mount, or returns `None` if it has no controller of use. `own` is
    /// the text of `/proc/self/cgroup`.
    pub(super) fn of(mount: &MountInfo, at: PathBuf, own: &str) -> Option<Hierarchy> {
        let (version, controllers) = if mount.fs_type == "cgroup2" {
            let listed = std::fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
            let listed: Controllers = listed.split_whitespace().map(Controllers::named).collect();
            (Version::V2, listed | Controllers::INHERENT)
        } else {
            let word = |(key, value): (&String, &Option<String>)| match value {
                Some(value) => Controllers::named(&format!("{key}={value}")),
                None => Controllers::named(key),
            };
            (Version::V1, mount.super_options.iter().map(word).collect())
        };
        if controllers.is_empty() {
            return None;
        }
        let root = unescape(mount.root.as_bytes());
        let own = own_path(own, version, controllers)
            .and_then(|path| Some(below(&at, path.strip_prefix(&root).ok()?)))
            .filter(|path| is_plain(path));
        Some(Hierarchy { version, controllers, mount: at, root, own, options: options(mount) })
    }

    /// Returns the path of a process in this hierarchy. `own` is its `/proc/PID/cgroup`.
    pub(super) fn path_in(&self, own: &str) -> Option<PathBuf> {
        own_path(own, self.version, self.controllers).filter(|path| is_plain(path))
    }

    /// Returns the group of a process, counted from the mount. `theirs` is its `/proc/PID/cgroup`.
    pub(super) fn place_of(&self, theirs: &str) -> Option<PathBuf> {
        let path = self.path_in(theirs)?;
        let rest = path.strip_prefix(&self.root).ok()?;
        Some(rest.components().filter(|part| matches!(part, Component::Normal(_))).collect())
    }

    /// Returns whether this is a v1 hierarchy that has `controller`.
    pub(super) fn is_v1_with(&self, controller: Controllers) -> bool {
        self.version == Version::V1 && self.controllers.contains(controller)
    }

    /// Returns the directory below which groups are made: the caller's own group, or `parent`
    /// counted from the root of the hierarchy. A mount may show only a part of the hierarchy, as in
    /// a container. A path outside of that part is counted from the top of the mount.
    pub(super) fn base(&self, parent: Option<&Path>) -> Option<PathBuf> {
        let Some(parent) = parent else { return self.own.clone() };
        if !parent.is_absolute() || !is_plain(parent) {
            return None;
        }
        Some(below(&self.mount, parent.strip_prefix(&self.root).unwrap_or(parent)))
    }
}

/// Returns the options that tell one v1 hierarchy from another.
fn options(mount: &MountInfo) -> Arc<str> {
    const NOT_THE_HIERARCHYS: [&str; 5] = ["ro", "rw", "seclabel", "clone_children", "release_agent"];
    let options = mount.super_options.iter().filter(|(key, _)| !NOT_THE_HIERARCHYS.contains(&key.as_str()));
    let words = options.map(|(key, value)| value.as_ref().map_or(key.clone(), |value| format!("{key}={value}")));
    let mut words: Vec<String> = words.collect();
    words.sort();
    words.join(",").into()
}

/// Finds the caller's path in the lines `ID:CONTROLLERS:PATH`. The line of v2 has no controllers.
fn own_path(text: &str, version: Version, controllers: Controllers) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let found = match version {
            Version::V2 => names.is_empty(),
            Version::V1 => names.split(',').any(|name| controllers.intersects(Controllers::named(name))),
        };
        found.then(|| PathBuf::from(path))
    })
}

/// Returns whether the path has no `..`. The kernel shows groups outside of the cgroup namespace's
/// root with `..`.
fn is_plain(path: &Path) -> bool {
    path.components().all(|c| c != Component::ParentDir)
}

/// Joins an absolute or relative `path` to `dir`.
pub(super) fn below(dir: &Path, path: &Path) -> PathBuf {
    let rest: PathBuf =
        path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)).collect();
    if rest.as_os_str().is_empty() { dir.to_owned() } else { dir.join(rest) }
}
