//! From a policy to a running child: what is made outside, and the order in which policies become ops.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::errno::Errno;

use super::Sandbox;
use super::judge::Judgement;
use super::supervise::{Listening, Supervisor};
use crate::cgroup::{self, Device, DeviceAccess, Devices, Group, Host};
use crate::child::{Child, Parts, Watch};
use crate::error::{Error, Result, Step};
use crate::mount::{self, Context, Upper};
use crate::namespace::{IdMap, IdMaps, Namespaces, Writer};
use crate::owner::{self, Claim, Scratch};
use crate::plan::{Plan, PlanFd, Slot};
use crate::program::{Resource, lower_groups, lower_ids};
use crate::security::Seccomp;
use crate::spawn::{self, FailurePage, Launch, Running};
use crate::stdio::{Stdio, Streams};
use crate::stub::wire::{code, record};
use crate::sys::fork_mark::PerProcess;

/// The group to which terminals belong.
const TTY_GROUP: u32 = 5;
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a group that was made for nothing may take to go.
const UNDO_TIMEOUT: Duration = Duration::from_secs(1);
const DEATH_SIGNAL: u64 = libc::SIGKILL as u64;

/// What is made outside for one sandbox. Dropping it takes everything away again.
#[derive(Debug, Default)]
struct Made {
    claim: Option<Claim>,
    scratch: Option<Scratch>,
    group: Option<Group>,
    site: Site,
    failure: Option<FailurePage>,
    /// Where the sandbox's mount namespace is made from, if not from the caller's. It is made once, and stays.
    template: Option<BorrowedFd<'static>>,
}

/// Where the group stands.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) parent: Option<PathBuf>,
    /// The caller may not put the child there by itself.
    #[cfg(feature = "systemd")]
    pub(super) fence: Option<super::scope::Fence>,
}

impl Site {
    /// The host as it is for groups here.
    fn host<'s>(&'s self, host: &'s Host) -> &'s Host {
        #[cfg(feature = "systemd")]
        if let Some(fence) = &self.fence {
            return &fence.host;
        }
        host
    }

    /// What puts a child into its group where the caller may not.
    fn entrance(&self, _group: Option<&Group>, _patience: Duration) -> Option<Box<dyn Fn(i32) -> Result<()>>> {
        #[cfg(feature = "systemd")]
        if let (Some(fence), Some(group)) = (&self.fence, _group) {
            return Some(fence.entrance(group, _patience));
        }
        None
    }
}

impl Made {
    /// The v2 group that the child is born in.
    fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().filter(|group| !group.is_in_oom_group() && !self.is_fenced()).and_then(Group::v2_dir)
    }

    fn is_fenced(&self) -> bool {
        #[cfg(feature = "systemd")]
        return self.site.fence.is_some();
        #[cfg(not(feature = "systemd"))]
        return false;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Nobody is in the group.
        let group_gone = self.group.take().is_none_or(|group| group.remove(UNDO_TIMEOUT).is_ok());
        let scratch_gone = self.scratch.as_mut().is_none_or(|scratch| scratch.remove(None).is_ok());
        if !(group_gone && scratch_gone) {
            self.claim.take().into_iter().for_each(Claim::leave);
        }
    }
}

impl Sandbox {
    /// Does everything up to the program's exec; `default` stands for streams that were not told.
    pub(super) fn launch(&self, default: &[Stdio; 3], supervisor: Option<Supervisor>) -> Result<Child> {
        let judgement = self.judge(false)?;
        let listening = self.listen(&judgement, supervisor)?;
        let mut streams = self.stdio.open(default)?;
        let mut made = self.make(&judgement)?;
        let sender = listening.as_ref().map(|listening| &listening.sender);
        let mut running = self.run(&judgement, &streams, &made, sender);
        // Rules of a group above can forbid making nodes, too.
        if made.template.is_some() && running.as_ref().is_err_and(mount::lacks_node) {
            made.template = None;
            running = self.run(&judgement, &streams, &made, sender);
        }
        let running = running.map_err(|error| match &judgement.seccomp {
            Some(profile) => self.explain(profile.explain(error)),
            None => self.explain(error),
        })?;
        let started = Instant::now();
        made.group.iter_mut().for_each(Group::joined);
        let [stdin, stdout, stderr] = std::mem::take(&mut streams.outside);
        Child::start(Parts {
            running,
            started,
            streams: (stdin, stdout, stderr),
            group: made.group.take(),
            scratch: made.scratch.take(),
            claim: made.claim.take(),
            enforced: judgement.enforced,
            own_pid_ns: self.namespaces.new.contains(Namespaces::PID),
            own_process_group: self.program.leads_group(self.namespaces.new.contains(Namespaces::PID)),
            output_limit: self.output_limit,
            seccomp: judgement.seccomp.is_some(),
            asks: listening.is_some(),
            notifications: listening.and_then(Listening::notifications),
            watch: Watch {
                wall_time: self.wall_time,
                cpu_time: self.cpu_time.filter(|_| judgement.account_cpu),
                cpu_rlimit: self.cpu_time.filter(|_| !judgement.account_cpu),
            },
        })
    }

    /// What a look beforehand would have said about a step that the kernel has forbidden.
    fn explain(&self, error: Error) -> Error {
        let forbids = [libc::EPERM, libc::EACCES, libc::ENOSPC, libc::EUSERS, libc::ENOSYS, libc::EINVAL];
        let steps = [Step::Clone, Step::Unshare, Step::WriteIdMap, Step::Capabilities, Step::Mount, Step::Propagation];
        let is_forbidden = error.raw_os_error().is_some_and(|errno| forbids.contains(&errno));
        if !(is_forbidden && steps.contains(&error.step()) && self.fail_at.is_none()) {
            return error;
        }
        match self.refused_by_kernel() {
            problems if problems.is_empty() => error,
            problems => Error::refused(problems),
        }
    }

    /// Runs the plan. A kernel before 5.7, or a seccomp filter around us, knows no birth inside a v2 group: the stub then
    /// enters it by itself, and does so in every spawn to come.
    fn run(
        &self,
        judgement: &Judgement,
        streams: &Streams,
        made: &Made,
        listener: Option<&Sender<OwnedFd>>,
    ) -> Result<Running> {
        static STUB_ENTERS: AtomicBool = AtomicBool::new(false);
        let group = made.group.as_ref();
        if !STUB_ENTERS.load(Ordering::Relaxed)
            && let Some(cgroup) = made.birthplace()
        {
            let plan = self.plan(judgement, streams, made, None)?;
            match self.run_plan(judgement, &plan, made, Some(cgroup), listener) {
                Err(error) if is_clone_too_old(&error) => {}
                result => return result,
            }
        }
        let procs = group.filter(|_| !made.is_fenced()).map(Group::v2_procs).transpose()?.flatten();
        let enters = procs.is_some();
        let plan = self.plan(judgement, streams, made, procs)?;
        let running = self.run_plan(judgement, &plan, made, None, listener)?;
        STUB_ENTERS.fetch_or(enters && !group.is_some_and(Group::is_in_oom_group), Ordering::Relaxed);
        Ok(running)
    }

    /// How long a setup may take.
    pub(super) fn patience(&self) -> Duration {
        self.setup_timeout.unwrap_or(SETUP_TIMEOUT)
    }

    fn run_plan(
        &self,
        judgement: &Judgement,
        plan: &Plan,
        made: &Made,
        cgroup: Option<BorrowedFd<'_>>,
        listener: Option<&Sender<OwnedFd>>,
    ) -> Result<Running> {
        let enter = made.site.entrance(made.group.as_ref(), self.patience());
        spawn::launch(&Launch {
            plan,
            namespaces: self.namespaces.at_clone(made.template.is_some()).bits(),
            cgroup,
            id_maps: judgement.maps.as_ref().filter(|maps| maps.writer != Writer::Inside),
            enter: enter.as_deref(),
            seen_inside: self.program.init || !self.namespaces.join.is_empty(),
            init: self.program.init,
            deadline: self.patience(),
            listener,
            failure: made.failure.as_ref(),
            fail: self.fail_at,
        })
    }

    /// The empty mount namespace, where it can be used: it belongs to the caller's user namespace, and the host's files
    /// cannot be found from it.
    fn template(&self) -> Option<BorrowedFd<'static>> {
        let fits = self.namespaces.new.contains(Namespaces::MOUNT)
            && !self.namespaces.new.contains(Namespaces::USER)
            && self.namespaces.join.is_empty()
            // Where its rules forbid making a node, the host's own is bound.
            && self.limits.devices.as_ref().is_none_or(may_make_nodes)
            && self.mounts.fits_template();
        if fits && may_use_template() { mount::template() } else { None }
    }

    /// The control group and the scratch directory, each on record before it exists.
    fn make(&self, judgement: &Judgement) -> Result<Made> {
        let mut made = Made::default();
        if judgement.seccomp.as_ref().is_some_and(Seccomp::needs_failure_page) {
            made.failure = Some(FailurePage::new()?);
        }
        made.template = self.template();
        let wants_group = !judgement.limits.is_empty() || judgement.account_cpu;
        let scratch_base = match self.mounts.root.as_ref().map(|root| &root.upper) {
            Some(Upper::Scratch(base)) => Some(base.clone().unwrap_or_else(std::env::temp_dir)),
            _ => None,
        };
        if !wants_group && scratch_base.is_none() {
            return Ok(made);
        }
        // Held by what it is the record of: it may go only after the rest has.
        let claim = made.claim.insert(owner::claim(self.program.outlive_owner)?);
        if wants_group {
            let host = cgroup::host()?;
            made.site = self.site(judgement, host)?;
            let (host, parent) = (made.site.host(host), made.site.parent.as_deref());
            claim.record_cgroups(&host.bases(&judgement.limits, parent))?;
            let group = Group::create(host, parent, claim.name(), &judgement.limits, judgement.account_cpu);
            let group = group.map_err(|error| self.as_checked(error))?;
            made.group = Some(group);
            refuse_frozen(made.group.as_ref())?;
        }
        if let Some(base) = scratch_base {
            let base = std::path::absolute(&base).map_err(|error| Error::io(Step::Scratch, &error).at(&base))?;
            made.scratch = Some(claim.make_scratch(&base)?);
        }
        Ok(made)
    }

    /// What `check` says to a failure of a group in a scope.
    pub(super) fn as_checked(&self, error: Error) -> Error {
        #[cfg(feature = "systemd")]
        if self.systemd_scope.is_some() {
            return self.judge(true).err().unwrap_or(error);
        }
        error
    }

    fn site(&self, _judgement: &Judgement, _host: &Host) -> Result<Site> {
        #[cfg(feature = "systemd")]
        if let Some(scope) = &self.systemd_scope {
            return self.site_in_scope(scope, &_judgement.limits, _host);
        }
        Ok(Site {
            parent: self.cgroup_parent.clone(),
            #[cfg(feature = "systemd")]
            fence: None,
        })
    }

    /// All ops, in their order. Each stage has its reason in the module that writes it.
    /// `enter` is the `cgroup.procs` of a v2 group that the child is not born into.
    fn plan(&self, judgement: &Judgement, streams: &Streams, made: &Made, enter: Option<OwnedFd>) -> Result<Plan> {
        let mut plan = Plan::new();
        let pid_ns = self.namespaces.apart().contains(Namespaces::PID);
        let umask = lower_beginning(&mut plan);
        if made.is_fenced() {
            // While the stub still looks like a process of the caller's user.
            plan.op(Step::JoinCgroup, code::SYNC, [record::NEED_GROUP.into()]);
        }
        self.security.lower_keyring(&mut plan);
        let failure = made.failure.as_ref().map(|page| lower_failure_page(&mut plan, page));
        match &judgement.maps {
            Some(maps) => self.lower_maps(&mut plan, maps),
            None => self.namespaces.lower_time(&mut plan),
        }
        self.namespaces.lower_max_user_namespaces(&mut plan);
        // From here on nobody of the same user may look into the stub or its descriptors (CVE-2016-9962).
        plan.call(Step::Prctl, libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 0.into(), 0.into(), 0.into(), 0.into()]);
        lower_join_cgroups(&mut plan, made.group.as_ref(), enter);
        self.namespaces.lower(&mut plan, made.template)?;
        if self.namespaces.new.contains(Namespaces::MOUNT) {
            let scratch = made.scratch.as_ref().map(Scratch::path);
            self.mounts.lower(&mut plan, self.mount_context(judgement, made), scratch)?;
        }
        let landlock = self.landlock.as_ref().map(|rules| rules.lower(&mut plan, &judgement.landlock)).transpose()?;
        let may_set_groups = judgement.maps.as_ref().is_none_or(|maps| !maps.deny_setgroups);
        judgement.security.lower_keep(&mut plan);
        self.program.lower_user(&mut plan, may_set_groups);
        judgement.security.lower(&mut plan, judgement.bounding);
        self.lower_owner(&mut plan);
        if self.program.init {
            plan.op(Step::Fork, code::INIT, []);
        }
        self.program.lower_session(&mut plan, pid_ns);
        self.program.lower_cwd(&mut plan, self.mounts.root.is_some());
        self.program.lower_umask(&mut plan, umask);
        landlock.flatten().iter().for_each(|ruleset| ruleset.lower_restriction(&mut plan));
        streams.lower(&mut plan, &self.stdio.extra);
        self.lower_limits_of_process(&mut plan, judgement);
        if judgement.security.capabilities.is_none() {
            plan.op(Step::Capabilities, code::CLEAR_INHERITABLE, []);
        }
        lower_unblock_signals(&mut plan);
        let how = judgement.seccomp.as_ref().map_or(0, |profile| profile.lower(&mut plan));
        self.program.lower_exec(&mut plan, how, failure);
        Ok(plan)
    }

    fn lower_maps(&self, plan: &mut Plan, maps: &IdMaps) {
        self.namespaces.lower_maps(plan, maps);
        self.namespaces.lower_time(plan);
        if maps.writer == Writer::Inside {
            return;
        }
        // Files can be made only by an id that the namespace knows, and the caller's may not be one.
        let first = |lines: &[IdMap]| {
            if lines.iter().any(|line| line.covers(0)) { 0 } else { lines.first().map_or(0, |line| line.inside) }
        };
        if !maps.deny_setgroups {
            lower_groups(plan, &[]);
        }
        lower_ids(plan, first(&maps.uid), first(&maps.gid));
    }

    fn mount_context(&self, judgement: &Judgement, made: &Made) -> Context {
        let maps = judgement.maps.as_ref();
        Context {
            template: made.template.is_some(),
            user_ns: self.namespaces.apart().contains(Namespaces::USER),
            pid_ns: self.namespaces.apart().contains(Namespaces::PID),
            ahead: self.namespaces.unprivileged_ids && maps.is_some_and(|maps| maps.writer == Writer::Caller),
            tty_group: maps.map_or(!self.namespaces.joins(Namespaces::USER) && caller_knows_tty_group(), |maps| {
                maps.gid.iter().any(|line| line.covers(TTY_GROUP))
            }),
        }
    }

    /// The death signal (after the last change of user, which clears it), then a look whether the owner is still there.
    fn lower_owner(&self, plan: &mut Plan) {
        if !self.program.outlive_owner {
            let signal = DEATH_SIGNAL;
            plan.call(Step::Prctl, libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), signal.into()]);
        }
        plan.op(Step::OwnerAlive, code::OWNER_ALIVE, []);
    }

    fn lower_limits_of_process(&self, plan: &mut Plan, judgement: &Judgement) {
        if let Some(limit) = self.cpu_time.filter(|_| !judgement.account_cpu) {
            let seconds = limit.as_secs().saturating_add(u64::from(limit.subsec_nanos() > 0));
            let program = crate::program::Program {
                rlimits: vec![(Resource::Cpu, seconds, seconds.saturating_add(1))],
                ..Default::default()
            };
            program.lower_rlimits(plan);
        }
        self.program.lower_rlimits(plan);
    }
}

/// Whether the rules let the setup make the nodes of a /dev.
fn may_make_nodes(rules: &Devices) -> bool {
    let mut nodes = mount::NODES.iter().map(|(_, major, minor)| Device::char(*major, *minor));
    nodes.all(|node| rules.allows(node, DeviceAccess::MKNOD))
}

/// What setns(2) into it, chroot(2) and mknod(2) ask for; the caller may have given up one of these.
fn may_use_template() -> bool {
    let needed = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT, Capability::CAP_MKNOD];
    caps::read(None, CapSet::Effective).is_ok_and(|held| needed.iter().all(|capability| held.contains(capability)))
}

/// The stub's name, default signal actions, and a umask that leaves modes alone; gives the slot with the old one.
pub(super) fn lower_beginning(plan: &mut Plan) -> Slot {
    let name = plan.string(spawn::stub_name().to_string_lossy().as_ref());
    plan.call(Step::Prctl, libc::SYS_prctl, [libc::PR_SET_NAME.into(), name.into()]);
    plan.op(Step::Signals, code::RESET_SIGNALS, []);
    let umask = plan.slot();
    plan.call(Step::Umask, libc::SYS_umask, [0.into()]).store(umask);
    umask
}

/// A page that outlives the descriptors and an init's fork, and ends with the exec; gives the slot with its address.
fn lower_failure_page(plan: &mut Plan, page: &FailurePage) -> Slot {
    let (number, slot) = (plan.fd(PlanFd::Held(page.as_fd().as_raw_fd())), plan.slot());
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    let args = [0.into(), FailurePage::SIZE.into(), access.into(), flags.into(), number.into(), 0.into()];
    plan.call(Step::Report, libc::SYS_mmap, args).store(slot);
    slot
}

/// On v1 the stub enters by itself; on v2 it was born inside, or `enter` is where it enters.
fn lower_join_cgroups(plan: &mut Plan, group: Option<&Group>, enter: Option<OwnedFd>) {
    let Some(group) = group else { return };
    let held = group.v1_procs().map(|fd| PlanFd::Held(fd.as_raw_fd()));
    let own = plan.string("0");
    for fd in held.chain(enter.map(PlanFd::from)) {
        let number = plan.fd(fd);
        plan.call(Step::JoinCgroup, libc::SYS_write, [number.into(), own.into(), 1.into()]).at(group.name());
    }
}

/// Whether clone3 failed because it, or CLONE_INTO_CGROUP, is not there, or looks so from inside a filter.
fn is_clone_too_old(error: &Error) -> bool {
    let too_old = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::E2BIG];
    error.step() == Step::Clone && error.raw_os_error().is_some_and(|errno| too_old.contains(&errno))
}

/// Whether the terminals' group exists for the caller, who may be in a user namespace already.
fn caller_knows_tty_group() -> bool {
    static KNOWS: PerProcess<bool> = PerProcess::new();
    let known = KNOWS
        .get_or_try(|| Ok::<_, Errno>(maps_tty_group(&fs::read_to_string("/proc/self/gid_map").unwrap_or_default())));
    known.is_ok_and(|known| *known)
}

/// Reads a gid_map: lines of first id inside, first id outside, count.
fn maps_tty_group(map: &str) -> bool {
    let lines = map.lines().map(|line| line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>());
    let gid = u64::from(TTY_GROUP);
    lines.flatten().any(|line| matches!(line[..], [first, _, count] if gid >= first && gid - first < count))
}

pub(super) fn lower_unblock_signals(plan: &mut Plan) {
    let none = plan.words(&[0]);
    let set_mask = libc::SIG_SETMASK;
    plan.call(Step::Signals, libc::SYS_rt_sigprocmask, [set_mask.into(), none.into(), 0.into(), 8.into()]);
}

/// A clone into a frozen group hangs in the kernel, where no signal reaches it.
fn refuse_frozen(group: Option<&Group>) -> Result<()> {
    let frozen = group.map(Group::frozen_above).transpose()?.flatten();
    match frozen {
        Some(path) => Err(Error::message(crate::ErrorKind::Setup, Step::JoinCgroup, "the control group is frozen")
            .at(path)
            .hint("thaw it first, or choose another with cgroup_parent()")),
        None => Ok(()),
    }
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
