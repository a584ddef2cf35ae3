//! The group of one sandbox, with a directory in each hierarchy that the sandbox needs.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::host::Host;
use super::limits::Limits;
use super::limits::controller_of;
use super::part::Part;
use super::pressure::{Pressure, PressureTrigger, PsiResource, PsiThreshold};
use super::remedies::DELEGATE;
use super::stats::Stats;
use super::write::Write;
use super::{adopt, devices, freezer, kernfs, kill, mark, placement, pressure, support, v1, v2};
use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::feature::Feature;

/// The longest time that a killed group without `cgroup.kill` may take to become empty.
const KILL_BOUND: Duration = Duration::from_secs(1);

/// The place of a new group in each hierarchy.
struct NewGroup<'a> {
    /// The group above, counted from the root of the hierarchy, or the caller's own.
    parent: Option<&'a Path>,
    name: &'a str,
    /// The name of the sandbox, if the caller has named the group itself: it may exist, and stands
    /// in every hierarchy.
    exact: Option<&'a str>,
    /// The process that keeps the scope whose group this is until the sandbox has it.
    keeper: Option<i32>,
}

impl NewGroup<'_> {
    /// Returns whether a group without limits goes without the part that failed.
    fn may_leave_out(&self, error: &Error) -> bool {
        match error.raw_os_error() {
            Some(libc::EEXIST) => false,
            errno => self.exact.is_none() || matches!(errno, Some(libc::EACCES | libc::EPERM | libc::EROFS)),
        }
    }
}

/// The control group of one sandbox. Dropping the value only closes descriptors. The owner calls
/// [`kill`](Group::kill) and [`remove`](Group::remove) at the right time.
#[derive(Debug)]
pub(crate) struct Group {
    parts: Vec<Part>,
    /// `cgroup.procs` of each v1 part, open until the child has joined.
    procs: Vec<OwnedFd>,
    killed: AtomicBool,
    /// True if `memory.oom.group` was set when the group was made.
    oom_group: bool,
    /// True if groups of the v2 hierarchy can have memory limits.
    v2_memory: bool,
    /// Set for a group that the caller has named.
    _hold: Option<adopt::Hold>,
}

impl Group {
    /// Makes the group and writes its limits. The group stands below `parent`, which is counted
    /// from the root of each hierarchy, or below the caller's own group. On failure everything is
    /// undone. If the host cannot enforce the limits, the error lists the reasons.
    pub(crate) fn create(
        host: &Host,
        parent: Option<&Path>,
        name: &str,
        limits: &Limits,
        account_cpu: bool,
    ) -> Result<Group> {
        Group::build(host, &NewGroup { parent, name, exact: None, keeper: None }, limits, account_cpu)
    }

    /// Makes the group at `path`, counted from the root of each hierarchy, in every hierarchy of v1
    /// and in v2. Where the directory exists, it is taken if nothing is in it and it is not frozen;
    /// then [`remove`](Group::remove) leaves it. Hierarchies that the caller may not write to, and
    /// that no limit needs, are left out. The group is marked as that of the sandbox `owner`. The
    /// process `keeper` may be in it: then it is that of a scope, and what systemd does not remove
    /// of it goes with the sandbox.
    pub(crate) fn create_or_adopt(
        host: &Host,
        path: &Path,
        owner: &str,
        limits: &Limits,
        account_cpu: bool,
        keeper: Option<i32>,
    ) -> Result<Group> {
        let invalid = || Error::new(Step::CreateCgroup, Errno::EINVAL).at(path);
        if placement::invalid_group(path).is_some() {
            return Err(invalid());
        }
        let name = path.file_name().and_then(OsStr::to_str).ok_or_else(invalid)?;
        let hold = adopt::Hold::new(path)?;
        let new = NewGroup { parent: path.parent(), name, exact: Some(owner), keeper };
        let mut group = Group::build(host, &new, limits, account_cpu)?;
        // Nobody else has the name of the scope. On v1 systemd knows some hierarchies alone, and an
        // earlier scope of that name may have left directories in the others.
        let is_left = |part: &&mut Part| {
            keeper.is_some() && part.version == Version::V1 && !part.controllers.contains(Controllers::SYSTEMD)
        };
        group.parts.iter_mut().filter(is_left).for_each(|part| part.adopted = None);
        Ok(Group { _hold: Some(hold), ..group })
    }

    fn build(host: &Host, new: &NewGroup<'_>, limits: &Limits, account_cpu: bool) -> Result<Group> {
        let NewGroup { parent, name, exact, keeper: _ } = *new;
        if name.is_empty() || name.contains('/') || name.starts_with('.') && exact.is_none() {
            return Err(Error::new(Step::CreateCgroup, Errno::EINVAL).at(name));
        }
        let mut group = Group {
            parts: Vec::new(),
            procs: Vec::new(),
            killed: AtomicBool::new(false),
            oom_group: limits.oom_group == Some(true),
            v2_memory: host.v2().is_some_and(|hierarchy| hierarchy.controllers.contains(Controllers::MEMORY)),
            _hold: None,
        };
        let built = group
            .make_parts(host, new, limits, account_cpu)
            .and_then(|()| refuse(group.unsupported(limits)))
            .and_then(|()| refuse(host.unprotected(limits, parent)))
            .and_then(|()| {
                // systemd gives a scope its controllers.
                if new.exact.is_some() && new.keeper.is_none() {
                    group.enable_what_there_is(host)?;
                }
                group.write_limits(host, limits)
            })
            .and_then(|()| group.open_procs());
        match built {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = group.remove(Duration::ZERO);
                let problems = host.problems(limits, account_cpu, parent);
                Err(if problems.is_empty() { error } else { Error::refused(problems) })
            }
        }
    }

    /// Returns the directories that a group at `path`, counted from the root of each hierarchy,
    /// would have, and those above them, as far as they do not exist: the lowest first.
    pub(crate) fn missing(host: &Host, path: &Path) -> Vec<PathBuf> {
        let is_missing = |dir: &&Path| dir.symlink_metadata().is_err();
        let bases = host.hierarchies.iter().filter_map(|hierarchy| hierarchy.base(Some(path)));
        bases.flat_map(|base| base.ancestors().take_while(is_missing).map(PathBuf::from).collect::<Vec<_>>()).collect()
    }

    /// Returns the group with these parts, which another process has made.
    pub(super) fn of_parts(host: &Host, parts: Vec<Part>) -> Group {
        let memory = parts.iter().find(|part| part.version == Version::V2);
        let oom_group = memory.and_then(|part| part.text(c"memory.oom.group").ok().flatten());
        Group {
            parts,
            procs: Vec::new(),
            killed: AtomicBool::new(false),
            oom_group: oom_group.is_some_and(|text| text.trim() == "1"),
            v2_memory: host.v2().is_some_and(|hierarchy| hierarchy.controllers.contains(Controllers::MEMORY)),
            _hold: None,
        }
    }

    /// Makes the directories. v2 comes first: an ability that v2 has without controllers is not
    /// needed on v1.
    fn make_parts(&mut self, host: &Host, new: &NewGroup<'_>, limits: &Limits, account_cpu: bool) -> Result<()> {
        let mut needed = limits.controllers();
        if let Some(hierarchy) = host.v2() {
            let mut here = needed & hierarchy.controllers;
            if needed.contains(Controllers::DEVICES) && host.device_hierarchy(new.parent) == Some(hierarchy) {
                here |= Controllers::DEVICES;
            }
            self.add(host, hierarchy, new, here, here.is_empty())?;
            needed -= here;
        }
        if account_cpu && self.parts.is_empty() {
            needed |= Controllers::CPUACCT;
        }
        let held = self.parts.first().is_some_and(|part| part.controllers.contains(Controllers::FREEZER));
        let useful = if held { Controllers::empty() } else { Controllers::FREEZER | Controllers::PIDS };
        for hierarchy in host.hierarchies.iter().filter(|h| h.version == Version::V1) {
            let here = needed & hierarchy.controllers;
            if new.exact.is_some() || hierarchy.controllers.intersects(needed | useful) {
                self.add(host, hierarchy, new, here, here.is_empty())?;
                needed -= here;
            }
        }
        if needed.is_empty() && !self.parts.is_empty() {
            return Ok(());
        }
        let detail = match needed.iter().next() {
            Some(controller) => format!("this host has no {} controller", controller.name()),
            None => "no hierarchy takes a group".to_owned(),
        };
        Err(Error::message(ErrorKind::Unsupported, Step::CreateCgroup, detail).hint(DELEGATE))
    }

    /// Adds a part. With `optional` set, which means that no limit needs the part, a refusal by the
    /// host is no error.
    fn add(
        &mut self,
        host: &Host,
        hierarchy: &Hierarchy,
        new: &NewGroup<'_>,
        requested: Controllers,
        optional: bool,
    ) -> Result<()> {
        let made = match (Part::create(hierarchy, new.parent, new.name, requested), new.exact) {
            (Err(error), Some(owner)) if error.raw_os_error() == Some(libc::EEXIST) => {
                let base = hierarchy.base(new.parent).ok_or(error)?;
                adopt::adopt(hierarchy, &base.join(new.name), requested, owner, new.keeper)
            }
            (made, _) => made,
        };
        match made {
            // From here on the part is removed with the others, whatever fails.
            Ok(part) => self.parts.push(part),
            Err(error) if optional && new.may_leave_out(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let Some(part) = self.parts.last_mut().filter(|part| part.version == Version::V2) else { return Ok(()) };
        if let (Some(owner), None) = (new.exact, &part.adopted) {
            let marked = mark::set(part.version, part.dir(), owner, true);
            marked.map_err(|errno| part.error(Step::CreateCgroup, errno).hint(adopt::NAME_ANOTHER))?;
        }
        part.controllers |= Controllers::INHERENT;
        // Every v2 group except the root has `cgroup.freeze` since 5.2.
        let freezes = match host.v2_freezes.get() {
            Some(freezes) => *freezes,
            None => {
                let found = part.text(c"cgroup.freeze")?.is_some();
                *host.v2_freezes.get_or_init(|| found)
            }
        };
        part.controllers.set(Controllers::FREEZER, freezes);
        Ok(())
    }

    fn write_limits(&self, host: &Host, limits: &Limits) -> Result<()> {
        let memory = self.part(Controllers::MEMORY).filter(|part| part.version == Version::V1);
        if let (Some(part), true) = (memory, limits.swap_stands_alone()) {
            return Err(part
                .failed(Step::SetLimit, Errno::EINVAL, c"memory.memsw.limit_in_bytes")
                .hint("set memory_limit too"));
        }
        for part in &self.parts {
            let writes = match (part.version, &part.adopted) {
                (Version::V1, None) => v1::writes(limits),
                // The group has the limits of an earlier use.
                (Version::V1, Some(_)) => v1_updates(part, limits)?,
                (Version::V2, _) => v2::writes(limits),
            };
            // Before 5.11 the kernel would not charge groups inside this group to this group.
            if host.flat_memory && part.version == Version::V1 && part.controllers.contains(Controllers::MEMORY) {
                write_file(part, c"memory.use_hierarchy", "1")?;
            }
            let mut enabled = false;
            for write in writes.iter().filter(|write| part.controllers.contains(write.controller())) {
                let mut written = write.carry_out(part.dir());
                // The files of a v2 controller appear when the controller is enabled one level up.
                // The write itself finds that out, so that later spawns read nothing.
                if written == Err(Errno::ENOENT) && part.version == Version::V2 && !enabled {
                    self.enable(host, part, limits)?;
                    enabled = true;
                    written = write.carry_out(part.dir());
                }
                written.map_err(|errno| refused(part, errno, write))?;
            }
        }
        let adopted = self.part(Controllers::DEVICES).is_some_and(|part| part.adopted.is_some());
        self.write_device_rules(limits, adopted)
    }

    fn write_device_rules(&self, limits: &Limits, living: bool) -> Result<()> {
        let (Some(rules), Some(part)) = (&limits.devices, self.part(Controllers::DEVICES)) else { return Ok(()) };
        match (part.version, living) {
            (Version::V1, _) => devices::v1::write(part, rules, living),
            (Version::V2, false) => devices::filter::attach(part, rules),
            (Version::V2, true) => devices::filter::replace(part, rules),
        }
    }

    fn enable(&self, host: &Host, part: &Part, limits: &Limits) -> Result<()> {
        match (host.v2(), part.path.parent()) {
            (Some(hierarchy), Some(base)) => {
                v2::enable(&hierarchy.mount, base, limits.controllers() & hierarchy.controllers)
            }
            _ => Ok(()),
        }
    }

    /// Enables every controller for a group that the caller has named, on a host with v2 alone: others
    /// read its usage there, and a container may want it for groups of its own. What cannot be
    /// enabled is left out; for limits, the error comes when they are written.
    fn enable_what_there_is(&mut self, host: &Host) -> Result<()> {
        let has_v1 = host.hierarchies.iter().any(|hierarchy| hierarchy.version == Version::V1);
        let (Some(hierarchy), Some(part), false) = (host.v2(), self.parts.first_mut(), has_v1) else { return Ok(()) };
        let Some(base) = part.path.parent() else { return Ok(()) };
        let all = hierarchy.controllers - Controllers::INHERENT;
        if v2::enable(&hierarchy.mount, base, all).is_err() {
            all.iter().for_each(|one| drop(v2::enable(&hierarchy.mount, base, one)));
        }
        let given = part.text(c"cgroup.controllers")?.unwrap_or_default();
        part.controllers |= given.split_whitespace().map(Controllers::named).collect::<Controllers>();
        Ok(())
    }

    fn open_procs(&mut self) -> Result<()> {
        self.procs = self.entered(false).map(Part::open_procs).collect::<Result<_>>()?;
        Ok(())
    }

    pub(super) fn part(&self, controller: Controllers) -> Option<&Part> {
        self.parts.iter().find(|part| part.controllers.contains(controller))
    }

    /// Returns the directories of the group, one for each hierarchy.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    pub(super) fn v2(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.version == Version::V2)
    }

    /// Returns the part that lists and counts processes at the least cost.
    fn tracker(&self) -> Result<&Part> {
        self.parts.first().ok_or_else(|| Error::new(Step::Stats, Errno::ENOENT))
    }

    /// Returns the path of the first part, which ends with the name of the group.
    pub(crate) fn name(&self) -> &Path {
        self.parts.first().map_or(Path::new(""), |part| &part.path)
    }

    /// Returns the v2 directory (`O_PATH`) for `CLONE_INTO_CGROUP` (5.7).
    pub(crate) fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        self.v2().map(Part::dir)
    }

    /// Opens `cgroup.procs` of the v2 part, for a kernel without `CLONE_INTO_CGROUP`.
    pub(crate) fn v2_procs(&self) -> Result<Option<OwnedFd>> {
        self.v2().map(Part::open_procs).transpose()
    }

    /// Returns the parts that a process enters by itself: those on v1, and with `v2` that on v2.
    fn entered(&self, v2: bool) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(move |part| v2 || part.version == Version::V1)
    }

    /// Opens the files to which a process writes to enter the group, each with the directory of its
    /// part: those of the v1 parts, and with `v2` that of the v2 part as well.
    pub(crate) fn entries(&self, v2: bool) -> Result<Vec<(OwnedFd, PathBuf)>> {
        self.entered(v2).map(|part| Ok((part.open_procs()?, part.path.clone()))).collect()
    }

    /// Returns the directories above those of [`entries`](Group::entries).
    pub(crate) fn entered_below(&self, v2: bool) -> Vec<PathBuf> {
        self.entered(v2).filter_map(|part| part.path.parent()).map(Path::to_owned).collect()
    }

    /// Returns the writable `cgroup.procs` of each v1 part. The child writes `0` to each.
    pub(crate) fn v1_procs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.procs.iter().map(AsFd::as_fd)
    }

    /// Closes the descriptors that the child needed to join.
    pub(crate) fn joined(&mut self) {
        self.procs = Vec::new();
    }

    /// Returns the parent directory in each hierarchy, as [`sweep`](super::sweep) takes it.
    #[cfg(test)]
    pub(crate) fn parent_dirs(&self) -> Vec<PathBuf> {
        self.parts.iter().filter_map(|part| part.path.parent().map(PathBuf::from)).collect()
    }

    /// Returns the frozen group that would freeze a child cloned into this group. The kernel would
    /// hang such a clone.
    pub(crate) fn frozen_above(&self) -> Result<Option<PathBuf>> {
        let Some(part) = self.part(Controllers::FREEZER) else { return Ok(None) };
        freezer::frozen_above(part).map_err(|errno| part.error(Step::Freeze, errno))
    }

    /// Reads all statistics of the group.
    pub(crate) fn stats(&self) -> Result<Stats> {
        let mut stats = self.totals()?;
        for part in &self.parts {
            match part.version {
                Version::V1 => v1::read_current(part, &mut stats)?,
                Version::V2 => v2::read_current(part, &mut stats)?,
            }
        }
        Ok(stats)
    }

    /// Reads the statistics that stay valid after the last process has ended. That is half of the
    /// files, and happens at the end of every sandbox.
    pub(crate) fn totals(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for part in &self.parts {
            match part.version {
                Version::V1 => v1::read_totals(part, &mut stats)?,
                Version::V2 => v2::read_totals(part, &mut stats)?,
            }
        }
        Ok(stats)
    }

    /// Resets the peaks where the kernel can (v1), and returns what was counted until now.
    pub(crate) fn count_from_here(&self) -> Result<Stats> {
        let memory = self.part(Controllers::MEMORY).filter(|part| part.version == Version::V1);
        memory.map_or(Ok(()), |part| write_file(part, c"memory.max_usage_in_bytes", "0"))?;
        self.totals()
    }

    /// Reads the pressure of the group, which needs a v2 part.
    pub(crate) fn pressure(&self, resource: PsiResource) -> Result<Pressure> {
        pressure::read(self.v2().ok_or_else(pressure::without_v2)?, resource)
    }

    /// Sets up a trigger for pressure on the group, which needs a v2 part.
    pub(crate) fn pressure_trigger(&self, resource: PsiResource, threshold: PsiThreshold) -> Result<PressureTrigger> {
        pressure::trigger(self.v2().ok_or_else(pressure::without_v2)?, resource, threshold)
    }

    /// Reads the CPU time used so far, from one file.
    pub(crate) fn cpu_usage(&self) -> Result<Option<Duration>> {
        match self.part(Controllers::CPUACCT) {
            Some(part) if part.version == Version::V2 => v2::cpu_usage(part),
            Some(part) => v1::cpu_usage(part),
            None => Ok(None),
        }
    }

    /// Returns whether a stub enters the group by itself, instead of being born there: its death by
    /// the OOM killer would be that of the sandbox; or it would be killed at once. A kernel with
    /// `kill_seq` (6.14) kills whoever is cloned into a group in which `cgroup.kill` was ever used,
    /// if it was not used as often in the caller's own: and a group that existed before may be one.
    pub(crate) fn refuses_births(&self) -> bool {
        self.is_in_oom_group() || self.v2().is_some_and(|part| part.adopted.is_some())
    }

    /// Returns whether this group or a group above has `memory.oom.group` set, so that the OOM
    /// killer takes all processes together.
    fn is_in_oom_group(&self) -> bool {
        // This holds whether or not this group has a memory limit itself.
        let Some(v2) = self.v2().filter(|_| self.v2_memory) else { return false };
        let set = |dir: &Path| std::fs::read_to_string(dir.join("memory.oom.group")).is_ok_and(|t| t.trim() == "1");
        self.oom_group || v2.path.ancestors().skip(1).take_while(|dir| dir.starts_with(&v2.mount)).any(set)
    }

    /// Returns the limits that this group cannot have.
    fn unsupported(&self, limits: &Limits) -> Vec<Problem> {
        let mut problems = Vec::new();
        for feature in limits.features() {
            let part = self.part(controller_of(feature));
            let missing = support::unsupported_on(part.map_or(Version::V1, |part| part.version), feature);
            let problem = match (part, missing) {
                (_, Some((reason, remedy))) => Problem::unsupported(feature.as_str(), reason, remedy),
                (None, None) => not_in_group(feature.as_str()),
                (Some(_), None) => continue,
            };
            problems.push(problem.for_feature(feature));
        }
        let here = self.v2().map_or(Controllers::empty(), |part| part.controllers);
        problems.extend(support::unified_without(limits, here));
        problems
    }

    /// Changes limits of the living group. Each limit needs a controller that the group has.
    pub(crate) fn update(&self, limits: &Limits) -> Result<()> {
        refuse(limits.invalid())?;
        refuse(self.unsupported(limits))?;
        if let Some(part) = self.part(Controllers::MEMORY)
            && let Some(base) = part.path.parent()
        {
            refuse(support::unprotected(&part.mount, limits, base))?;
        }
        for part in &self.parts {
            let writes = if part.version == Version::V2 { v2::writes(limits) } else { v1_updates(part, limits)? };
            let mut left = writes.iter().filter(|write| part.controllers.contains(write.controller())).peekable();
            while let Some(write) = left.next() {
                let done = match (write.carry_out(part.dir()), left.peek()) {
                    // With the old quota, a shorter period may be more than the group above has.
                    (Err(Errno::EINVAL), Some(quota)) if write.is_period_of(quota) => {
                        quota.carry_out(part.dir()).and_then(|()| write.carry_out(part.dir()))
                    }
                    (done, _) => done,
                };
                done.map_err(|errno| match errno {
                    Errno::ENOENT => refused(part, errno, write),
                    _ => refused(part, errno, write).with_kind(ErrorKind::Control),
                })?;
            }
        }
        self.write_device_rules(limits, true).map_err(|error| error.with_kind(ErrorKind::Control))
    }

    /// Freezes every process and waits until all are frozen. If that takes longer than `timeout`,
    /// the group is thawed again and the error is ETIMEDOUT.
    pub(crate) fn freeze(&self, timeout: Duration) -> Result<()> {
        let part = self.freezer()?;
        let fail = |errno| match errno {
            Errno::ECANCELED => part.error(Step::Freeze, errno).hint("it was thawed, or killed, before it stood still"),
            errno => part.error(Step::Freeze, errno),
        };
        if freezer::freeze(part, timeout).map_err(fail)? {
            return Ok(());
        }
        freezer::thaw(part).map_err(fail)?;
        Err(fail(Errno::ETIMEDOUT).hint("a process is in uninterruptible sleep"))
    }

    /// Lets every process of a frozen group run again.
    pub(crate) fn thaw(&self) -> Result<()> {
        let part = self.freezer()?;
        freezer::thaw(part).map_err(|errno| part.error(Step::Freeze, errno))
    }

    fn freezer(&self) -> Result<&Part> {
        self.part(Controllers::FREEZER).ok_or_else(|| {
            Error::message(ErrorKind::Unsupported, Step::Freeze, "the sandbox is in no group that can be frozen")
                .hint("mount cgroup2 (Linux 5.2) or the v1 freezer")
        })
    }

    /// Returns every process, including those of groups made inside. A process outside of the
    /// caller's pid namespace has the number 0.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let part = self.tracker()?;
        part.processes().map_err(|errno| part.failed(Step::Stats, errno, c"cgroup.procs"))
    }

    /// Returns whether anything runs in the group or in a group made inside.
    pub(crate) fn is_populated(&self) -> Result<bool> {
        let part = self.tracker()?;
        part.is_populated().map_err(|errno| part.failed(Step::Stats, errno, c"cgroup.events"))
    }

    /// Sends SIGKILL to every process. With `cgroup.kill` (5.14) the call does not wait. Without
    /// it, the call returns when the group is empty, or fails with EBUSY after a second.
    pub(crate) fn kill(&self) -> Result<()> {
        self.killed.store(true, Ordering::Release);
        kill::kill(&self.parts.iter().collect::<Vec<_>>(), KILL_BOUND)
    }

    /// Lets run what the program has frozen in v1 groups of its own, so that it can be killed.
    pub(crate) fn thaw_below(&self) {
        self.parts.iter().for_each(freezer::thaw_below);
    }

    /// Removes the directories in which nothing runs, with all groups made inside.
    pub(crate) fn remove_empty(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        for part in &self.parts {
            let is_populated = part.is_populated().map_err(|errno| part.error(Step::RemoveCgroup, errno))?;
            if !is_populated {
                part.remove(deadline, &|| {})?;
            }
        }
        Ok(())
    }

    /// Removes the group, all groups made inside, and the parent groups that this process made if
    /// they are empty. Waits up to `timeout` for processes to end. The call may be repeated, after
    /// a failure and after a success.
    pub(crate) fn remove(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut failure = None;
        for part in self.parts.iter().rev() {
            // A process that left the v2 part by itself survived cgroup.kill, but is still in the
            // v1 parts.
            let on_delay = || {
                if self.killed.load(Ordering::Acquire) {
                    let _ = kill::signal(part);
                }
            };
            if let Err(error) = part.remove(deadline, &on_delay) {
                failure = failure.or(Some(error));
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Returns the writes that change the limits of a v1 group.
fn v1_updates(part: &Part, limits: &Limits) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if part.controllers.contains(Controllers::MEMORY) {
        writes = v1::memory_updates(part.dir(), limits).map_err(|errno| {
            part.failed(Step::SetLimit, errno, c"memory.memsw.limit_in_bytes").hint("set memory_limit too")
        })?;
    }
    writes.extend(v1::updates(limits));
    Ok(writes)
}

fn write_file(part: &Part, file: &'static std::ffi::CStr, value: &str) -> Result<()> {
    kernfs::write(part.dir(), file, value).map_err(|errno| part.failed(Step::SetLimit, errno, file))
}

/// Explains that the kernel refuses a value or does not have the file.
fn refused(part: &Part, errno: Errno, write: &Write) -> Error {
    let error = part.failed(Step::SetLimit, errno, &write.file).detail(format!("writing {:?}", write.value));
    if errno == Errno::ENOENT {
        let error = error.with_kind(ErrorKind::Unsupported);
        return match support::missing_file(write.feature) {
            Some((reason, remedy)) => error.hint(format!("{reason}: {remedy}")),
            None if write.feature == Feature::SwapLimit => error.hint("this kernel does not account for swap"),
            None => error,
        };
    }
    let hint = match (errno, write.controller(), write.feature) {
        (Errno::EBUSY, Controllers::MEMORY, _) => "more than that is in use and cannot be reclaimed",
        (Errno::ENODEV | Errno::ENXIO, Controllers::IO, _) => {
            "limits are for whole disks: IoLimit::for_path finds the one"
        }
        (Errno::EINVAL | Errno::EACCES | Errno::ERANGE | Errno::ENOSPC, Controllers::CPUSET, _) => {
            "the group above does not have all of these"
        }
        (Errno::EOPNOTSUPP, _, Feature::IoWeight) => "the scheduler of this disk weighs nothing: choose bfq for it",
        (Errno::EINVAL, _, Feature::CpuRealtime) => "the groups above do not have that much, or the period is shorter",
        (Errno::EINVAL | Errno::ENODEV, _, Feature::NetworkPriority) => "the caller has no interface of this name",
        (Errno::ENODEV, _, Feature::Rdma) => "the caller has no device of this name",
        (Errno::EINVAL, _, Feature::CpuBurst) => "a burst is at most what cpu_limit gives in one period",
        (Errno::EINVAL, _, Feature::CpuWeight) => "a group with cpu_idle has no weight",
        (Errno::EINVAL, _, Feature::CpuLimit) => {
            "the group above has less, the value is out of range, or a cpu_burst is in the way: set both"
        }
        _ => return error,
    };
    error.hint(hint)
}

fn refuse(problems: Vec<Problem>) -> Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(Error::refused(problems)) }
}

fn not_in_group(feature: &str) -> Problem {
    let reason = "the sandbox was made without a group of this controller";
    Problem::unsupported(feature, reason, "set a limit of the same sort at spawn, however high")
}
