//! Groups that existed before the sandbox, and stay after it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::part::{Adopted, Part};
use super::{cpuset, freezer, kernfs, mark};
use crate::error::{Error, Result, Step};
use crate::sys::fork_mark::PerProcess;
use crate::sys::mutex;

/// The named groups that sandboxes of this process have. A group is empty also between its making
/// and the birth of the first process.
static TAKEN: PerProcess<Mutex<HashSet<PathBuf>>> = PerProcess::new();

/// Keeps a named group for one sandbox of this process.
#[derive(Debug)]
pub(super) struct Hold {
    registry: &'static Mutex<HashSet<PathBuf>>,
    path: PathBuf,
}

impl Hold {
    pub(super) fn new(path: &Path) -> Result<Hold> {
        let fail = |errno| Error::new(Step::CreateCgroup, errno).at(path);
        let taken = TAKEN.get_or_try(|| Ok::<_, Errno>(Mutex::default())).map_err(fail)?;
        let path: PathBuf = path.components().collect();
        if mutex::lock(taken).insert(path.clone()) {
            return Ok(Hold { registry: taken, path });
        }
        Err(fail(Errno::EBUSY).detail("another sandbox of this process has it").hint(NAME_ANOTHER))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A forked copy gives nothing back: the parent process has the group.
        if TAKEN.is_current(self.registry) {
            mutex::lock(self.registry).remove(&self.path);
        }
    }
}

/// The remedy for a group that is in use.
pub(super) const NAME_ANOTHER: &str = "name a group in which nothing is, or none that exists";

/// Takes an existing directory in which nothing is but the process `keeper`, for the sandbox
/// `name`.
pub(super) fn adopt(
    hierarchy: &Hierarchy,
    path: &Path,
    requested: Controllers,
    name: &str,
    keeper: Option<i32>,
) -> Result<Part> {
    let fail = |errno| Error::new(Step::CreateCgroup, errno).at(path);
    let mut part = open(hierarchy, path).map_err(fail)?;
    let pids_max = kernfs::read_optional(part.dir(), c"pids.max").map_err(fail)?.map(|text| text.trim().to_owned());
    let refuse_in_use = || match in_use(&part, keeper).map_err(fail)? {
        Some((errno, reason)) => Err(fail(errno).detail(reason).hint(NAME_ANOTHER)),
        None => Ok(()),
    };
    refuse_in_use()?;
    mark::set(part.version, part.dir(), name, false).map_err(fail)?;
    // Whoever gives the directory back for an earlier sandbox freezes it, and then looks at the
    // mark.
    refuse_in_use()?;
    part.adopted = Some(Adopted { pids_max, mark: Some(name.to_owned()) });
    cpuset::fill(hierarchy, path).map_err(fail)?;
    if hierarchy.version == Version::V2 {
        part.controllers = requested;
    }
    Ok(part)
}

/// Opens an existing directory. The controllers of a v2 group are those that are enabled for it.
pub(super) fn open(hierarchy: &Hierarchy, path: &Path) -> nix::Result<Part> {
    let mut part = Part::open(hierarchy.version, hierarchy.controllers, path, &hierarchy.mount)?;
    if hierarchy.version == Version::V2 {
        let listed = kernfs::read(part.dir(), c"cgroup.controllers")?;
        let listed: Controllers = listed.split_whitespace().map(Controllers::named).collect();
        part.controllers = listed | Controllers::INHERENT;
        let freezes = kernfs::read_optional(part.dir(), c"cgroup.freeze")?.is_some();
        part.controllers.set(Controllers::FREEZER, freezes);
    }
    Ok(part)
}

/// Returns why no sandbox can have this group for its own. The process `keeper` may be in it.
pub(super) fn in_use(part: &Part, keeper: Option<i32>) -> nix::Result<Option<(Errno, &'static str)>> {
    let read = |file| kernfs::read_optional(part.dir(), file);
    let kind = read(c"cgroup.type")?;
    if part.version == Version::V2 && kind.is_none() {
        return Ok(Some((Errno::EINVAL, "it is the root of the hierarchy")));
    }
    if !kernfs::subgroups(part.dir())?.is_empty() {
        return Ok(Some((Errno::ENOTEMPTY, "other groups are in it")));
    }
    if kind.is_some_and(|kind| kind.trim() != "domain") {
        return Ok(Some((Errno::EOPNOTSUPP, "it is threaded")));
    }
    let procs = kernfs::read(part.dir(), c"cgroup.procs")?;
    if procs.lines().any(|pid| keeper.is_none() || pid.parse().ok() != keeper) {
        return Ok(Some((Errno::EBUSY, "processes run in it")));
    }
    if part.controllers.contains(Controllers::FREEZER) && freezer::frozen_above(part)?.is_some() {
        return Ok(Some((Errno::EBUSY, "it is frozen")));
    }
    let delegates = read(c"cgroup.subtree_control")?.is_some_and(|enabled| !enabled.trim().is_empty());
    Ok(delegates.then_some((Errno::EBUSY, "controllers are enabled for groups in it")))
}
