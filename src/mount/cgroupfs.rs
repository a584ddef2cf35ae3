//! The control groups of the sandbox, shown to the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::attributes::Attributes;
use super::calls::{
    attach_at, attach_in, attach_to, emit_target, make_dir, make_link, set_attributes, set_flags, set_propagation,
};
use super::context::Context;
use super::flags::MountFlags;
use super::fs_context::{emit_new_mount, make_mount, open_context, set_word};
use super::host_tree::emit_host_tree;
use super::options::MountOptions;
use super::paths::flags_of;
use crate::error::{Problem, Result, Step};
use crate::plan::{PlaceFlags, Plan, Slot};

/// The path at which programs look for control groups: cgroups(7).
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";
/// The directory of hierarchies in which the sandbox has no group.
const COVERED: &str = "others";
/// The directory of v2 beside hierarchies of v1.
const UNIFIED: &str = "unified";
const FLAGS: MountFlags =
    MountFlags::READ_ONLY.union(MountFlags::NO_SUID).union(MountFlags::NO_DEV).union(MountFlags::NO_EXEC);

/// The sandbox's own control groups: cgroups(7). A runtime that sizes itself by its limits, such as
/// a JVM, looks for them here. Read-only, unless [`writable`](Cgroupfs::writable) is called.
///
/// [`Sandbox::strict`](crate::Sandbox::strict) and images have this mount at `/sys/fs/cgroup` by
/// default. Where a security module or a filter around the caller refuses to mount it, these go
/// without, and [`Feature::Cgroupfs`](crate::Feature::Cgroupfs) tells why; a mount of the list is
/// an error then. On v2 the mount shows the sandbox's group. On v1 there is a directory for each
/// hierarchy in which the sandbox has a group, named by its controllers, with a link for each of
/// several (`cpu` → `cpu,cpuacct`); v2 beside them is `unified`. The default mount leaves out
/// hierarchies without limits.
///
/// With [`cgroup_ns`](crate::Sandbox::cgroup_ns) the file systems are mounted in that namespace, at
/// whose root the sandbox's group stands. Without, the directories of the group are bound, and
/// nothing of other groups is there, while `/proc/PID/cgroup` has the host's paths. Either way a
/// limit is needed, or [`Sandbox::cgroup`](crate::Sandbox::cgroup), without which there is no
/// group.
///
/// ```no_run
/// use ringfence::{Bytes, Cgroupfs, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let sandbox = Sandbox::new().pid_ns().cgroup_ns().rootfs("/srv/alpine");
/// let sandbox = sandbox.memory_limit(Bytes::mib(64)).mount(Cgroupfs::new("/sys/fs/cgroup"));
/// sandbox.command("nginx").status()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Cgroupfs {
    pub(super) target: PathBuf,
    /// The file systems are mounted on a new /sys, which has nothing else. A root without a /sys
    /// gets none.
    pub(super) with_sys: bool,
    /// Hierarchies that tell no limits are shown, too.
    pub(super) all: bool,
    pub(crate) writable: bool,
    pub(super) options: Option<Box<MountOptions>>,
    /// The groups, which exist only when a sandbox is made.
    pub(super) groups: ShownGroups,
}

impl Cgroupfs {
    /// Shows the groups at `target`, commonly `/sys/fs/cgroup`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        let (target, groups) = (target.into(), ShownGroups::default());
        Cgroupfs { target, with_sys: false, all: true, writable: false, options: None, groups }
    }

    /// Shows the groups that tell limits.
    pub(super) fn of_limits(target: impl Into<PathBuf>) -> Self {
        Cgroupfs { all: false, ..Cgroupfs::new(target) }
    }

    /// Lets the program write to its groups, and make groups below, as far as it owns them: an init
    /// or a container engine inside needs that. The program can raise its own limits, unless the
    /// host has mounted v2 with `nsdelegate`; [`Sandbox::check`](crate::Sandbox::check) and
    /// [`Child::enforced`](crate::Child::enforced) say so. Needs
    /// [`cgroup_ns`](crate::Sandbox::cgroup_ns).
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// Takes the options of mount(8), as a mount of the type `cgroup` has them in the OCI runtime
    /// specification. Writable only by the word `rw`, and then as by
    /// [`writable`](Cgroupfs::writable). Attributes hold for all hierarchies.
    pub fn options(mut self, options: MountOptions) -> Self {
        let asked = options.attributes_of_new();
        self.writable = asked.clears(MountFlags::READ_ONLY);
        self.options = Some(Box::new(options));
        self
    }

    /// Returns whether the mount has options, for which a profile has no key.
    #[cfg(feature = "serde")]
    pub(crate) fn has_options(&self) -> bool {
        self.options.is_some()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Returns the contradictions in the options.
    pub(super) fn invalid(&self) -> Vec<Problem> {
        self.options.iter().flat_map(|options| options.invalid_for_groups()).collect()
    }

    /// Returns the flags of each hierarchy's mount.
    fn flags(&self) -> MountFlags {
        if self.writable { FLAGS - MountFlags::READ_ONLY } else { FLAGS }
    }
}

/// The group's directory on v2, and those on v1 with the options of their hierarchies.
type Dirs = (Option<PathBuf>, Vec<(Arc<str>, PathBuf)>);

/// The hierarchies that the program is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShownGroups {
    /// True if the sandbox's group on v2 tells limits.
    pub(crate) v2: bool,
    /// True if the sandbox has a group on v2.
    pub(crate) has_v2: bool,
    /// The v1 hierarchies in which the sandbox has a group that tells limits: their mount options.
    pub(crate) v1: Vec<Arc<str>>,
    /// The v1 hierarchies in which the sandbox has a group that tells none.
    pub(crate) silent: Vec<Arc<str>>,
    /// Further v1 hierarchies without which a JVM does not believe that there are any. They are
    /// mounted and covered.
    pub(crate) covered: Vec<Arc<str>>,
    /// The directories of the groups, where there is no cgroup namespace: all that is shown.
    pub(crate) dirs: Option<Dirs>,
}

impl ShownGroups {
    /// Returns whether there is nothing to show.
    pub(crate) fn is_empty(&self) -> bool {
        !self.v2 && !self.has_v2 && self.v1.is_empty() && self.silent.is_empty() && self.dirs.is_none()
    }

    /// Returns the groups that tell limits, in a namespace of the sandbox's own.
    pub(super) fn telling(&self) -> ShownGroups {
        ShownGroups { has_v2: self.v2, silent: Vec::new(), dirs: None, ..self.clone() }
    }
}

/// Shows the groups, if there are any, at the target `at`. `pins`: see
/// [`pinning`](super::pinning).
pub(super) fn emit_cgroupfs(
    plan: &mut Plan,
    cgroupfs: &Cgroupfs,
    root: Slot,
    at: &Path,
    pins: PlaceFlags,
    context: Context,
) -> Result<()> {
    let groups = if cgroupfs.all { cgroupfs.groups.clone() } else { cgroupfs.groups.telling() };
    if groups.is_empty() {
        return Ok(());
    }
    let pins = pins | PlaceFlags::NO_SYMLINKS;
    if !cgroupfs.with_sys {
        let attach = |plan: &mut Plan, tree| attach_at(plan, tree, root, at, pins);
        return match &groups.dirs {
            Some(dirs) => emit_dirs(plan, cgroupfs, dirs, at, context, attach),
            None => {
                emit_groups(plan, cgroupfs, &groups, at, attach);
                Ok(())
            }
        };
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
    emit_groups(plan, cgroupfs, &groups, at, |plan, tree| attach_in(plan, tree, sys, "fs/cgroup", at));
    set_flags(plan, sys, FLAGS, MountFlags::empty(), false, at);
    plan.close(Step::Mount, sys);
    plan.close(Step::Mount, place);
    plan.depend_from(found);
    Ok(())
}

/// Mounts the hierarchies on the directory where `place` attaches a tree.
fn emit_groups(
    plan: &mut Plan,
    cgroupfs: &Cgroupfs,
    groups: &ShownGroups,
    at: &Path,
    place: impl FnOnce(&mut Plan, Slot),
) {
    let (top, flags) = (plan.slot(), cgroupfs.flags());
    if groups.v1.is_empty() && groups.silent.is_empty() {
        emit_new_mount(plan, "cgroup2", &[], flags, top, at);
        place(plan, top);
        emit_options(plan, cgroupfs, top, MountFlags::empty(), at);
        return plan.close(Step::Mount, top);
    }
    emit_empty(plan, top, at);
    place(plan, top);
    for options in groups.v1.iter().chain(&groups.silent) {
        let name = make_place(plan, options, top, at);
        emit_hierarchy(plan, options, flags, top, &name, at);
    }
    if groups.v2 || groups.has_v2 {
        let tree = plan.slot();
        make_dir(plan, Step::Mount, top.into(), UNIFIED).at(at);
        emit_new_mount(plan, "cgroup2", &[], flags, tree, at);
        attach_in(plan, tree, top, UNIFIED, at);
        plan.close(Step::Mount, tree);
    }
    if !groups.covered.is_empty() {
        make_dir(plan, Step::Mount, top.into(), COVERED).at(at);
        groups.covered.iter().for_each(|options| emit_hierarchy(plan, options, FLAGS, top, COVERED, at));
        let cover = plan.slot();
        emit_new_mount(plan, "tmpfs", &[("size", "4k"), ("nr_inodes", "2"), ("mode", "555")], FLAGS, cover, at);
        attach_in(plan, cover, top, COVERED, at);
        plan.close(Step::Mount, cover);
    }
    emit_options(plan, cgroupfs, top, MountFlags::empty(), at);
    set_flags(plan, top, FLAGS, MountFlags::empty(), false, at);
    plan.close(Step::Mount, top);
}

/// Binds the directories of the groups, read-only, in the same way: without a namespace, a mount of
/// the file systems would show all groups of the host.
fn emit_dirs(
    plan: &mut Plan,
    cgroupfs: &Cgroupfs,
    (v2, v1): &Dirs,
    at: &Path,
    context: Context,
    place: impl FnOnce(&mut Plan, Slot),
) -> Result<()> {
    let top = plan.slot();
    let dirs = v1.iter().map(|(_, dir)| dir).chain(v2);
    let kept = dirs.map(|dir| flags_of(dir)).collect::<Result<Vec<_>>>()?.into_iter().collect();
    if let (Some(dir), []) = (v2, &v1[..]) {
        emit_host_tree(plan, dir, false, false, top, context)?;
        place(plan, top);
        set_flags(plan, top, FLAGS, MountFlags::empty(), false, at);
        emit_options(plan, cgroupfs, top, kept, at);
        plan.close(Step::Mount, top);
        return Ok(());
    }
    emit_empty(plan, top, at);
    place(plan, top);
    let v1 = v1.iter().map(|(options, dir)| (Some(options), dir));
    for (options, dir) in v1.chain(v2.iter().map(|dir| (None, dir))) {
        let tree = plan.slot();
        emit_host_tree(plan, dir, false, false, tree, context)?;
        let name = match options {
            Some(options) => make_place(plan, options, top, at),
            None => {
                make_dir(plan, Step::Mount, top.into(), UNIFIED).at(at);
                UNIFIED.to_owned()
            }
        };
        attach_in(plan, tree, top, &name, at);
        set_flags(plan, tree, FLAGS, MountFlags::empty(), false, at);
        plan.close(Step::Mount, tree);
    }
    emit_options(plan, cgroupfs, top, kept, at);
    set_flags(plan, top, FLAGS, MountFlags::empty(), false, at);
    plan.close(Step::Mount, top);
    Ok(())
}

/// Gives all hierarchies the attributes that the caller has asked for. Whether they are read-only
/// is settled. `kept`: the flags that binds have on the host, where the kernel may lock them.
fn emit_options(plan: &mut Plan, cgroupfs: &Cgroupfs, top: Slot, kept: MountFlags, at: &Path) {
    let Some(options) = &cgroupfs.options else { return };
    let mut asked: Attributes = options.attributes_of_new();
    asked.forget(MountFlags::READ_ONLY);
    set_attributes(plan, top, asked, kept, true, at);
    for propagation in &options.propagation {
        set_propagation(plan, top, propagation.ms(), propagation.is_recursive(), at);
    }
}

/// Makes the directory of a v1 hierarchy in the directory `top`, with a link for each of several
/// controllers, and returns its name.
fn make_place(plan: &mut Plan, options: &str, top: Slot, at: &Path) -> String {
    let name = name_of(options);
    make_dir(plan, Step::Mount, top.into(), &name).at(at);
    for controller in controllers(options).filter(|controller| *controller != name) {
        make_link(plan, Step::Mount, &name, top.into(), controller).at(at);
    }
    name
}

/// Makes an empty file system for directories, and leaves a detached mount of it in `tree`.
fn emit_empty(plan: &mut Plan, tree: Slot, at: &Path) {
    let options = [("source", "tmpfs"), ("size", "64k"), ("nr_inodes", "64"), ("mode", "755")];
    emit_new_mount(plan, "tmpfs", &options, FLAGS - MountFlags::READ_ONLY, tree, at);
}

/// Mounts the v1 hierarchy with these options on `name` in the directory `dir`.
fn emit_hierarchy(plan: &mut Plan, options: &str, flags: MountFlags, dir: Slot, name: &str, at: &Path) {
    let (context, tree) = (open_context(plan, "cgroup", at), plan.slot());
    for option in options.split(',') {
        set_word(plan, context, option.as_ref(), at);
    }
    make_mount(plan, context, flags, tree, at);
    attach_in(plan, tree, dir, name, at);
    plan.close(Step::Mount, tree);
}

/// Returns the controllers among the mount options of a v1 hierarchy.
fn controllers(options: &str) -> impl Iterator<Item = &str> {
    const OTHERS: [&str; 4] = ["xattr", "noprefix", "cpuset_v2_mode", "favordynmods"];
    options.split(',').filter(|option| !option.contains('=') && !OTHERS.contains(option))
}

/// Returns the name of a v1 hierarchy with these mount options: its controllers, or the name that
/// it has without any.
fn name_of(options: &str) -> String {
    let named = || options.split(',').find_map(|option| option.strip_prefix("name="));
    let all = controllers(options).collect::<Vec<_>>().join(",");
    if all.is_empty() { named().unwrap_or_default().to_owned() } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_is_named_by_its_controllers() {
        let names = |options| (name_of(options), controllers(options).map(str::to_owned).collect::<Vec<_>>());
        let of = |name: &str, all: &[&str]| (name.to_owned(), all.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(names("cpu,cpuacct"), of("cpu,cpuacct", &["cpu", "cpuacct"]));
        assert_eq!(names("memory,noprefix"), of("memory", &["memory"]));
        assert_eq!(names("name=systemd,xattr"), of("systemd", &[]));
        assert_eq!(names("cpuset,name=old"), of("cpuset", &["cpuset"]));
    }

    #[test]
    fn the_default_mount_has_only_what_tells_limits() {
        let all = ShownGroups {
            has_v2: true,
            silent: vec!["devices".into()],
            dirs: Some((None, Vec::new())),
            ..ShownGroups::default()
        };
        assert!(all.telling().is_empty() && !all.is_empty());
    }
}
