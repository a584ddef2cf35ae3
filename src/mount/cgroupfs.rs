//! The control groups of the sandbox, shown to the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::calls::{attach_at, attach_in, attach_to, emit_target, make_dir, make_link, set_flags};
use super::flags::MountFlags;
use super::fs_context::{emit_new_mount, make_mount, open_context, set_flag, set_option};
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};

/// The path at which programs look for control groups: cgroups(7).
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";
/// The directory of hierarchies in which the sandbox has no group.
const COVERED: &str = "others";
const FLAGS: MountFlags =
    MountFlags::READ_ONLY.union(MountFlags::NO_SUID).union(MountFlags::NO_DEV).union(MountFlags::NO_EXEC);

/// The sandbox's own control groups, read-only: cgroups(7). A runtime that sizes itself by its
/// limits, such as a JVM, looks for them here.
///
/// [`Sandbox::strict`](crate::Sandbox::strict) and images have this mount at `/sys/fs/cgroup` by
/// default. On v2 the mount shows the sandbox's group. On v1 there is a directory for each
/// hierarchy in which the sandbox has limits, named by its controllers. The mount needs a cgroup
/// namespace of the sandbox's own, at whose root its group stands, and a limit, without which there
/// is no group.
#[derive(Debug, Clone)]
pub struct Cgroupfs {
    pub(super) target: PathBuf,
    /// The file systems are mounted on a new /sys, which has nothing else. A root without a /sys
    /// gets none.
    pub(super) with_sys: bool,
    /// The groups, which exist only when a sandbox is made.
    pub(super) groups: ShownGroups,
}

impl Cgroupfs {
    /// Shows the groups at `target`, commonly `/sys/fs/cgroup`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Cgroupfs { target: target.into(), with_sys: false, groups: ShownGroups::default() }
    }
}

/// The hierarchies that the program is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShownGroups {
    /// True if the sandbox's group on v2 is shown.
    pub(crate) v2: bool,
    /// The v1 hierarchies in which the sandbox has a group: their mount options.
    pub(crate) v1: Vec<Arc<str>>,
    /// Further v1 hierarchies without which a JVM does not believe that there are any. They are
    /// mounted and covered.
    pub(crate) covered: Vec<Arc<str>>,
}

impl ShownGroups {
    /// Returns whether there is nothing to show.
    pub(crate) fn is_empty(&self) -> bool {
        !self.v2 && self.v1.is_empty()
    }
}

/// Shows the groups, if there are any, at the target `at`. `pins`: see
/// [`pinning`](super::pinning).
pub(super) fn emit_cgroupfs(plan: &mut Plan, cgroupfs: &Cgroupfs, root: Slot, at: &Path, pins: PlaceFlags) {
    let groups = &cgroupfs.groups;
    if groups.is_empty() {
        return;
    }
    let pins = pins | PlaceFlags::NO_SYMLINKS;
    if !cgroupfs.with_sys {
        return emit_groups(plan, groups, at, |plan, tree| attach_at(plan, tree, root, at, pins));
    }
    // A root that is the caller's does not get a /sys that it lacks.
    let (place, sys) = (plan.slot(), plan.slot());
    emit_target(plan, root, at, pins | PlaceFlags::EXISTING, place).tolerate_all();
    let found = plan.len();
    emit_empty(plan, sys, at);
    attach_to(plan, Step::Mount, sys, place, at);
    for dir in ["fs", "fs/cgroup"] {
        make_dir(plan, Step::Mount, sys.into(), dir).at(at);
    }
    emit_groups(plan, groups, at, |plan, tree| attach_in(plan, tree, sys, "fs/cgroup", at));
    set_flags(plan, sys, FLAGS, MountFlags::empty(), false, at);
    plan.close(Step::Mount, sys);
    plan.close(Step::Mount, place);
    plan.depend_from(found);
}

/// Mounts the hierarchies on the directory where `place` attaches a tree.
fn emit_groups(plan: &mut Plan, groups: &ShownGroups, at: &Path, place: impl FnOnce(&mut Plan, Slot)) {
    let top = plan.slot();
    if groups.v1.is_empty() {
        emit_new_mount(plan, "cgroup2", &[], FLAGS, top, at);
        place(plan, top);
        return plan.close(Step::Mount, top);
    }
    emit_empty(plan, top, at);
    place(plan, top);
    for options in &groups.v1 {
        let name = controllers(options).collect::<Vec<_>>().join(",");
        make_dir(plan, Step::Mount, top.into(), &name).at(at);
        emit_hierarchy(plan, options, top, &name, at);
        for controller in controllers(options).filter(|controller| *controller != name) {
            make_link(plan, Step::Mount, &name, top.into(), controller).at(at);
        }
    }
    if groups.v2 {
        let tree = plan.slot();
        make_dir(plan, Step::Mount, top.into(), "unified").at(at);
        emit_new_mount(plan, "cgroup2", &[], FLAGS, tree, at);
        attach_in(plan, tree, top, "unified", at);
        plan.close(Step::Mount, tree);
    }
    if !groups.covered.is_empty() {
        make_dir(plan, Step::Mount, top.into(), COVERED).at(at);
        groups.covered.iter().for_each(|options| emit_hierarchy(plan, options, top, COVERED, at));
        let cover = plan.slot();
        emit_new_mount(plan, "tmpfs", &[("size", "4k"), ("nr_inodes", "2"), ("mode", "555")], FLAGS, cover, at);
        attach_in(plan, cover, top, COVERED, at);
        plan.close(Step::Mount, cover);
    }
    set_flags(plan, top, FLAGS, MountFlags::empty(), false, at);
    plan.close(Step::Mount, top);
}

/// Makes an empty file system for directories, and leaves a detached mount of it in `tree`.
fn emit_empty(plan: &mut Plan, tree: Slot, at: &Path) {
    let options = [("source", "tmpfs"), ("size", "64k"), ("nr_inodes", "64"), ("mode", "755")];
    emit_new_mount(plan, "tmpfs", &options, FLAGS - MountFlags::READ_ONLY, tree, at);
}

/// Mounts the v1 hierarchy with these options on `name` in the directory `dir`.
fn emit_hierarchy(plan: &mut Plan, options: &str, dir: Slot, name: &str, at: &Path) {
    let (context, tree) = (open_context(plan, "cgroup", at), plan.slot());
    for option in options.split(',') {
        match option.split_once('=') {
            Some((key, value)) => set_option(plan, context, key, value, at),
            None => set_flag(plan, context, option, at),
        }
    }
    make_mount(plan, context, FLAGS, tree, at);
    attach_in(plan, tree, dir, name, at);
    plan.close(Step::Mount, tree);
}

/// Returns the controllers among the mount options of a v1 hierarchy.
fn controllers(options: &str) -> impl Iterator<Item = &str> {
    const OTHERS: [&str; 4] = ["xattr", "noprefix", "cpuset_v2_mode", "favordynmods"];
    options.split(',').filter(|option| !option.contains('=') && !OTHERS.contains(option))
}
