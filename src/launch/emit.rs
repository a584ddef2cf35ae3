//! The order of the ops: first those of the setup, which are the same for every run of a policy,
//! then those of one run.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use caps::Capability;
use nix::errno::Errno;

use crate::error::{Result, Step};
use crate::judge::Judgement;
use crate::mount::{Context, Further, ShownGroups};
use crate::namespace::{IdMaps, Namespaces, Writer};
use crate::plan::{Arg, ExecFlags, Plan, PlanFd, Request, RunFd, Slot};
use crate::policy::Policy;
use crate::program::{Attributes, Invocation, Program, Resource, emit_cwd_ahead, emit_groups, emit_ids};
use crate::security::{Modules, Seccomp};
use crate::spawn::{self, FailurePage};
use crate::stdio::{self, Fds, Master, Streams};
use crate::sys::fork_mark::PerProcess;

/// The group of terminals, `tty`.
const TTY_GROUP: u32 = 5;
/// The signal for the program when its owner dies.
const DEATH_SIGNAL: u64 = libc::SIGKILL as u64;

/// The program of one run, with its streams.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) invocation: Invocation,
    pub(crate) streams: Streams,
    /// The further descriptors that the policy does not have.
    pub(crate) fds: Fds,
}

/// The facts, other than the policy, that decide the ops of a setup. Setups of one policy with
/// equal keys have the same ops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SetupKey {
    /// True if the caller may not put the child into its group.
    pub(super) bounded: bool,
    /// The directories of the groups that the stub enters by itself, one for each file that it
    /// writes to; where the groups' names differ from run to run, the directories above.
    pub(super) groups: Vec<PathBuf>,
    /// The template from which the sandbox's mount namespace is made; `None` for the caller's
    /// namespace.
    pub(super) template: Option<RawFd>,
    pub(super) scratch: Option<PathBuf>,
    /// The control groups that the program is shown.
    pub(super) shown: ShownGroups,
    /// The path on the host of the terminal that the program inherits.
    pub(super) terminal: Option<PathBuf>,
    /// The place of the terminal that the program has of its own.
    pub(super) pty: Pty,
    /// True if mounts exchange the id of the maps for another.
    pub(super) exchanges: bool,
    /// True if the caller has made the device nodes.
    pub(super) nodes: bool,
}

/// The place of the terminal of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Pty {
    /// The program has no terminal of its own.
    #[default]
    None,
    /// On the sandbox's own devpts.
    Inside,
    /// On the caller's devpts.
    Outside,
}

impl SetupKey {
    /// Returns the key of a setup without a control group and a scratch directory.
    pub(super) fn without_resources(template: Option<BorrowedFd<'_>>, exchanges: bool) -> Self {
        SetupKey { template: template.map(|fd| fd.as_raw_fd()), exchanges, ..SetupKey::default() }
    }
}

/// The ops of a setup, and the slots that the ops of a run need.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) key: SetupKey,
    pub(super) plan: Plan,
    /// The slot with the address of the failure page.
    failure: Option<Slot>,
}

impl Policy {
    /// Writes all ops that do not depend on the program. The module that writes a stage explains
    /// its place in the order.
    pub(super) fn emit_setup(
        &self,
        judgement: &Judgement,
        key: &SetupKey,
        template: Option<BorrowedFd<'_>>,
    ) -> Result<Setup> {
        let mut plan = Plan::new();
        let pid_ns = self.namespaces.apart().contains(Namespaces::PID);
        let umask = emit_beginning(&mut plan);
        if key.bounded {
            // At this point, the stub still looks like a process of the caller's user.
            plan.request(Step::JoinCgroup, Request::ControlGroup);
        }
        self.program.attributes.emit_badness(&mut plan);
        self.security.labels.emit(&mut plan, Modules::default());
        self.security.emit_keyring(&mut plan);
        let wants_page = judgement.seccomp.as_ref().is_some_and(Seccomp::needs_failure_page);
        let failure = wants_page.then(|| emit_failure_page(&mut plan));
        match &judgement.maps {
            Some(maps) => self.emit_maps(&mut plan, maps),
            None => self.namespaces.emit_time(&mut plan),
        }
        self.namespaces.emit_user_limits(&mut plan);
        self.namespaces.emit_sysctls(&mut plan);
        // From here on, no process of the same user may look into the stub or its descriptors
        // (CVE-2016-9962).
        emit_undumpable(&mut plan);
        emit_join_cgroups(&mut plan, key.groups.iter().map(PathBuf::as_path));
        let master = match key.pty {
            Pty::None => None,
            Pty::Inside => Some(Master::Made(plan.slot())),
            Pty::Outside => Some(Master::Passed(plan.run_fd(RunFd::Terminal))),
        };
        let made = if let Some(Master::Made(slot)) = master { Some(slot) } else { None };
        let context = Context { terminal: made, ..self.mount_context(judgement, key) };
        let scratch = key.scratch.as_deref();
        let ready = self.mounts.emit_detached_overlay(&mut plan, context, scratch)?;
        self.namespaces.emit(&mut plan, template)?;
        if self.namespaces.joins(Namespaces::USER) && self.program.user.is_some() {
            emit_root_of_joined(&mut plan);
            // A change of user makes a process dumpable again where fs.suid_dumpable says so.
            emit_undumpable(&mut plan);
        }
        if self.namespaces.new.contains(Namespaces::MOUNT) {
            let mounts = self.mounts.all(&self.surroundings(key.shown.clone()), key.terminal.as_deref());
            let made = self.program.cwd.as_deref().filter(|_| self.program.make_cwd);
            let further = Further { scratch, groups: &judgement.control_groups, workdir: made };
            self.mounts.emit(&mut plan, &mounts, context, ready, further)?;
            self.namespaces.emit_end(&mut plan)?;
        }
        // The ops between this and the last change of directory name absolute paths.
        self.cwd_ahead().into_iter().for_each(|cwd| emit_cwd_ahead(&mut plan, &Path::new("/").join(cwd)));
        let landlock = self
            .landlock
            .as_ref()
            .and_then(|rules| rules.emit(&mut plan, &judgement.landlock, self.program.outlive_owner));
        self.emit_identity(&mut plan, judgement, &self.program.attributes);
        // A change of user makes a process dumpable again where fs.suid_dumpable says so.
        emit_undumpable(&mut plan);
        self.emit_owner(&mut plan, Arg::PARENT);
        if self.program.init {
            plan.fork_init(self.durable);
        }
        self.program.emit_session(&mut plan, pid_ns || master.is_some());
        // Rules of Landlock could forbid to open the slave.
        let slave = master.map(|master| stdio::emit_slave(&mut plan, master));
        self.program.emit_umask(&mut plan, umask);
        landlock.iter().for_each(|ruleset| ruleset.emit_restriction(&mut plan));
        if judgement.security.capabilities.is_none() {
            plan.clear_inheritable();
        }
        slave.into_iter().for_each(|slave| stdio::emit_slave_as_streams(&mut plan, slave));
        Ok(Setup { key: key.clone(), plan, failure })
    }

    /// Returns the working directory that is entered before the program gets its user, as it is
    /// made by then.
    fn cwd_ahead(&self) -> Option<&Path> {
        self.program.cwd.as_deref().filter(|_| self.program.make_cwd)
    }

    /// Writes the ops of one run: working directory, streams and exec.
    pub(super) fn emit_run(&self, plan: &mut Plan, judgement: &Judgement, setup: &Setup, run: &Run) {
        run.invocation.emit_cwd(plan, self.mounts.root.is_some(), self.cwd_ahead());
        run.streams.emit(plan, &self.stdio.extra, &run.fds);
        run.streams.emit_controlling(plan);
        self.emit_exec(plan, judgement, judgement.seccomp.as_ref(), setup.failure, run);
    }

    /// Writes the ops of a program that a later process starts: those of a run, with the wait for
    /// that process as soon as the descriptors have their numbers. `listener` is where the stub
    /// waits.
    pub(super) fn emit_create(
        &self,
        plan: &mut Plan,
        judgement: &Judgement,
        setup: &Setup,
        run: &Run,
        listener: BorrowedFd<'_>,
    ) {
        let listener = plan.fd(PlanFd::Held(listener.as_raw_fd()));
        run.invocation.emit_cwd(plan, self.mounts.root.is_some(), self.cwd_ahead());
        let (parent, listener) = run.streams.emit_waiting(plan, &self.stdio.extra, listener);
        run.streams.emit_controlling(plan);
        if !self.program.is_absent {
            run.invocation.emit_find(plan);
        }
        let filter = judgement.seccomp.as_ref();
        let ahead = filter.filter(|profile| self.filter_comes_before_the_start(profile));
        if let Some(profile) = ahead {
            profile.emit_ahead(plan);
            judgement.security.emit_without_admin(plan, self.user_inside().0 == 0);
        }
        plan.await_start(listener, parent);
        self.emit_exec(plan, judgement, filter.filter(|_| ahead.is_none()), setup.failure, run);
    }

    /// Returns whether this filter is installed before the stub waits for a later process, which
    /// starts the program.
    pub(super) fn filter_comes_before_the_start(&self, profile: &Seccomp) -> bool {
        // A supervisor that is named gets the listener from the create. And where others are in the
        // pid namespace already, they could take over who waits without the filter.
        let wanted = if profile.has_listener() { self.supervisor.is_some() } else { self.waits_among_others() };
        wanted && profile.comes_before_the_start()
    }

    /// Returns whether a stub that waits can be traced by a process inside that has CAP_SYS_PTRACE:
    /// processes of other sandboxes see it, and belong to the same user namespace.
    pub(super) fn waits_among_others(&self) -> bool {
        self.namespaces.joins(Namespaces::PID) && !self.namespaces.apart().contains(Namespaces::USER)
    }

    /// Writes the ops that let the stub wait for a program.
    pub(super) fn emit_parking(&self, plan: &mut Plan, judgement: &Judgement) {
        let parent = self.stdio.emit_extra(plan);
        if let Some(profile) = ahead(judgement) {
            profile.emit_ahead(plan);
        }
        plan.park(parent);
    }

    /// Writes the plan of the program, for a stub that has waited for it. The streams come with
    /// this plan, and the program's own descriptors after it.
    pub(super) fn emit_fire(&self, judgement: &Judgement, setup: &Setup, run: &Run) -> Plan {
        let mut plan = setup.plan.continued();
        run.invocation.emit_cwd(&mut plan, self.mounts.root.is_some(), self.cwd_ahead());
        stdio::emit_received(&mut plan, &run.fds);
        let filter = judgement.seccomp.as_ref().filter(|_| ahead(judgement).is_none());
        self.emit_exec(&mut plan, judgement, filter, setup.failure, run);
        plan
    }

    /// Emits the last ops of a run: limits of the process, signal mask, filter and exec. `filter`
    /// is the filter that is still to be installed, `failure` the slot with the address of the
    /// failure page.
    pub(super) fn emit_exec(
        &self,
        plan: &mut Plan,
        judgement: &Judgement,
        filter: Option<&Seccomp>,
        failure: Option<Slot>,
        run: &Run,
    ) {
        self.emit_limits_of_process(plan, judgement, &run.streams);
        emit_unblock_signals(plan);
        let mut how =
            filter.map_or(ExecFlags::empty(), |profile| profile.emit(plan, self.supervisor.is_some() || self.durable));
        if judgement.seccomp.as_ref().is_some_and(Seccomp::asks_about_exec) {
            how |= ExecFlags::ASKED;
        }
        run.invocation.emit_exec(plan, how, failure);
    }

    /// Emits the maps of a new user namespace, and the ids that the setup has in it.
    fn emit_maps(&self, plan: &mut Plan, maps: &IdMaps) {
        self.namespaces.emit_maps(plan, maps);
        self.namespaces.emit_time(plan);
        emit_setup_ids(plan, maps);
    }

    /// Emits what makes the stub the program's user, with the rights of that and no others.
    pub(super) fn emit_identity(&self, plan: &mut Plan, judgement: &Judgement, attributes: &Attributes) {
        let may_set_groups = judgement.maps.as_ref().is_none_or(|maps| !maps.deny_setgroups);
        self.program.emit_raised_rlimits(plan);
        attributes.emit(plan);
        judgement.security.emit_keep(plan);
        self.program.emit_user(plan, may_set_groups, self.namespaces.joins(Namespaces::USER));
        judgement.security.emit(plan, judgement.bounding, self.user_inside().0 == 0);
    }

    /// Returns the facts from outside of the mounts on which their ops depend.
    fn mount_context(&self, judgement: &Judgement, key: &SetupKey) -> Context {
        let maps = judgement.maps.as_ref();
        Context {
            template: key.template.is_some(),
            in_place: self.mounts.stops_before_entry,
            no_pivot: self.mounts.no_pivot,
            terminal: None,
            nodes: key.nodes,
            user_ns: self.namespaces.apart().contains(Namespaces::USER),
            other_user: is_other_user(judgement),
            mapped: maps.filter(|_| key.exchanges).and_then(IdMaps::single),
            caller_copies: caller_copies(judgement),
            user: self.user_inside(),
            tty_group: maps.map_or(!self.namespaces.joins(Namespaces::USER) && caller_knows_tty_group(), |maps| {
                maps.gid.iter().any(|line| line.covers(TTY_GROUP))
            }),
        }
    }

    /// Sets the death signal, after the last change of user, which would clear the signal. Then
    /// checks that the owner is still alive. `parent` is the pipe of the thread that cloned.
    pub(super) fn emit_owner(&self, plan: &mut Plan, parent: Arg) {
        // A sandbox that a later process starts gets rid of the signal once it is on record. An
        // init could not.
        if !self.program.outlive_owner || self.durable && !self.program.init {
            let signal = DEATH_SIGNAL;
            plan.call(Step::Prctl, libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), signal.into()]);
        }
        plan.check_owner(parent);
    }

    /// Emits the rlimits of the program, with those that stand in for limits of processor time and
    /// output.
    fn emit_limits_of_process(&self, plan: &mut Plan, judgement: &Judgement, streams: &Streams) {
        if let Some(limit) = self.cpu_time.filter(|_| !judgement.account_cpu) {
            let seconds = limit.as_secs().saturating_add(u64::from(limit.subsec_nanos() > 0));
            let program =
                Program { rlimits: vec![(Resource::Cpu, seconds, seconds.saturating_add(1))], ..Default::default() };
            program.emit_rlimits(plan);
        }
        self.program.emit_rlimits(plan);
        if let (Some(limit), Some(size)) = (self.output_limit, streams.largest_file()) {
            let asked = |(resource, soft, _): &(Resource, u64, u64)| (*resource == Resource::FileSize).then_some(*soft);
            let asked = self.program.rlimits.iter().filter_map(asked).min();
            let own = Resource::FileSize.caller_limits().map_or(u64::MAX, |(_, hard)| hard);
            let most = size.saturating_add(limit).min(asked.unwrap_or(u64::MAX)).min(own);
            Program { rlimits: vec![(Resource::FileSize, most, most)], ..Program::default() }.emit_rlimits(plan);
        }
    }
}

/// Returns the filter of a sandbox that waits, if that comes before the program.
fn ahead(judgement: &Judgement) -> Option<&Seccomp> {
    judgement.seccomp.as_ref().filter(|profile| profile.comes_before_the_program())
}

/// Returns whether the setup runs as a user to whom the caller's files may be closed.
fn is_other_user(judgement: &Judgement) -> bool {
    judgement.maps.as_ref().is_some_and(|maps| maps.writer == Writer::Caller)
}

/// Returns whether the caller, and not the stub, copies the host's mounts.
pub(super) fn caller_copies(judgement: &Judgement) -> bool {
    let given = judgement.security.capabilities.as_ref();
    let may_remount = given.is_none_or(|given| given.reaches(Capability::CAP_SYS_ADMIN));
    is_other_user(judgement) && !may_remount
}

/// Sets the stub's name, the default actions of signals, and an umask that does not change modes.
/// Returns the slot with the old umask.
pub(super) fn emit_beginning(plan: &mut Plan) -> Slot {
    let name = plan.string(spawn::stub_name().to_string_lossy().as_ref());
    plan.call(Step::Prctl, libc::SYS_prctl, [libc::PR_SET_NAME.into(), name.into()]);
    plan.reset_signals();
    let umask = plan.slot();
    plan.call(Step::Umask, libc::SYS_umask, [0.into()]).store(umask);
    umask
}

/// Maps the failure page, which stays when the descriptors are closed and an init forks, and ends
/// with the exec. Returns the slot with its address.
pub(super) fn emit_failure_page(plan: &mut Plan) -> Slot {
    let (number, slot) = (plan.run_fd(RunFd::FailurePage), plan.slot());
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    let args = [0.into(), FailurePage::SIZE.into(), access.into(), flags.into(), number.into(), 0.into()];
    plan.call(Step::Report, libc::SYS_mmap, args).store(slot);
    slot
}

/// Keeps other processes of the same user from looking into the stub: prctl(2), `PR_SET_DUMPABLE`.
pub(super) fn emit_undumpable(plan: &mut Plan) {
    plan.call(Step::Prctl, libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 0.into(), 0.into(), 0.into(), 0.into()]);
}

/// Takes the ids of the joined user namespace's root, so that files can be made in file systems
/// that belong to it. A namespace without such ids leaves the stub as it is.
fn emit_root_of_joined(plan: &mut Plan) {
    for (step, call) in [(Step::Gid, libc::SYS_setresgid), (Step::Uid, libc::SYS_setresuid)] {
        plan.call(step, call, [0.into(), 0.into(), 0.into()]).at("0").tolerate(Errno::EINVAL).tolerate(Errno::EPERM);
    }
}

/// Emits the ids that the setup has in a user namespace with these maps.
pub(super) fn emit_setup_ids(plan: &mut Plan, maps: &IdMaps) {
    let Some((uid, gid)) = maps.setup() else { return };
    if !maps.deny_setgroups {
        emit_groups(plan, &[]);
    }
    emit_ids(plan, uid.inside, gid.inside);
}

/// Lets the stub enter its groups: those on v1, and those on v2 that it was not born in.
pub(super) fn emit_join_cgroups<'g>(plan: &mut Plan, groups: impl IntoIterator<Item = &'g Path>) {
    let own = plan.string("0");
    for (number, group) in groups.into_iter().enumerate() {
        let number = plan.run_fd(RunFd::CgroupProcs(number));
        plan.call(Step::JoinCgroup, libc::SYS_write, [number.into(), own.into(), 1.into()]).at(group);
    }
}

/// Emits an empty signal mask.
pub(super) fn emit_unblock_signals(plan: &mut Plan) {
    let none = plan.words(&[0]);
    let set_mask = libc::SIG_SETMASK;
    plan.call(Step::Signals, libc::SYS_rt_sigprocmask, [set_mask.into(), none.into(), 0.into(), 8.into()]);
}

/// Returns whether the group of terminals is mapped for the caller, who may be in a user namespace
/// already.
fn caller_knows_tty_group() -> bool {
    static KNOWS: PerProcess<bool> = PerProcess::new();
    let known = KNOWS
        .get_or_try(|| Ok::<_, Errno>(maps_tty_group(&fs::read_to_string("/proc/self/gid_map").unwrap_or_default())));
    known.is_ok_and(|known| *known)
}

/// Returns whether a gid_map maps the group of terminals. A line has the first id inside, the first
/// id outside, and the count.
fn maps_tty_group(map: &str) -> bool {
    let lines = map.lines().map(|line| line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>());
    let gid = u64::from(TTY_GROUP);
    lines.flatten().any(|line| matches!(line[..], [first, _, count] if gid >= first && gid - first < count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminals_group_is_found_in_a_map() {
        assert!(maps_tty_group("0 0 4294967295\n") && maps_tty_group("0 1000 1\n5 100004 1\n"));
        assert!(!maps_tty_group("0 1000 5\n6 100000 9\n") && !maps_tty_group("5\n"));
        crate::fuzz::texts(&["         0          0 4294967295\n", "0 1000 1\n1 100000 65536\n"], |text| {
            let _ = maps_tty_group(text);
        });
    }
}
