//! The entry of a further program into a sandbox that runs.
//!
//! Identity first, visible last: the stub joins all namespaces in one call, and takes on the
//! program's user, capabilities and rules while it is still outside of the pid namespace, where no
//! process inside can see it. Only then is it cloned into the pid namespace, with nothing of the
//! host's open any more.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;

use super::emit::{Run, emit_beginning, emit_failure_page, emit_join_cgroups, emit_setup_ids, emit_undumpable};
use super::entrance::Entrance;
use super::inputs::refuse_frozen;
use super::listener::ListenerChannel;
use super::location::{GroupMover, scope_mover};
use super::rights::Terms;
use super::run_setup::is_clone_too_old;
use crate::cgroup::{self, Group, Subgroup};
use crate::child::{Child, Enter, Facts, Inside, Resources, Started, Watch};
use crate::command::Command;
use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::judge::Judgement;
use crate::namespace::Namespaces;
use crate::plan::{Plan, PlanFd, Request, RunFds};
use crate::policy::Policy;
use crate::program::{Attributes, Scheduler};
use crate::security::{Modules, Seccomp, emit_no_new_privs};
use crate::spawn::{self, FailurePage, Launch};
use crate::stdio::{self, Master, Stdio, Streams};
use crate::sys::{by_fd, pidfd, table};
use crate::text::Writer;

/// The descriptors by which a stub enters.
pub(super) struct Way<'w> {
    pidfd: BorrowedFd<'w>,
    /// The root directory of the sandbox's first process.
    root: Option<OwnedFd>,
    /// The files to which the stub writes to enter the control group, with the group's directories.
    procs: Vec<(OwnedFd, PathBuf)>,
    /// Has systemd put the stub into the group, where the caller may not.
    mover: Option<GroupMover>,
    failure: Option<FailurePage>,
    ruleset: Option<BorrowedFd<'w>>,
    /// The master of the program's terminal.
    terminal: Option<OwnedFd>,
}

impl<'w> Way<'w> {
    /// The way into the namespaces of a process, and into nothing else.
    #[cfg(test)]
    pub(super) fn by(pidfd: BorrowedFd<'w>) -> Self {
        let (procs, mover, failure, ruleset) = (Vec::new(), None, None, None);
        Way { pidfd, root: None, procs, mover, failure, ruleset, terminal: None }
    }
}

impl Enter for Entrance {
    fn record(&self, line: &mut Writer) {
        self.write(line);
    }

    fn enter(&self, running: &Inside<'_>, command: &Command, default: &[Stdio; 3]) -> Result<Child> {
        let (terms, problems) = self.terms(command);
        let (policy, judgement) = (&*terms.policy, &*terms.judgement);
        policy.check_entry(&terms, command, running, self.has_boundary, problems)?;
        let below = group_below(running, command)?;
        // The group that the program enters.
        let target = below.as_ref().or(running.group);
        target.map_or(Ok(()), refuse_frozen).map_err(|error| error.with_kind(ErrorKind::Control))?;
        let mut channel = policy.listen(judgement, None)?;
        let stdio = Stdio::choose(command.streams.each_ref().map(Option::as_ref), default);
        let mut run = Run {
            invocation: command.invocation(&policy.invocation()),
            streams: Streams::open(stdio)?,
            fds: command.fds.clone(),
        };
        terms.user_outside.into_iter().for_each(|user| run.streams.give_to(user));
        if let Some(user) = terms.user_outside.filter(|_| command.gives_streams()) {
            run.streams.give_inherited_to(user);
        }
        let mut way = policy.way_into(judgement, running, target, self.ruleset.as_ref().map(AsFd::as_fd))?;
        let root = way.root.as_ref().map(AsFd::as_fd);
        let terminal = run.streams.has_pty().then(|| stdio::open_terminal(root, terms.user_outside)).transpose()?;
        way.terminal = terminal;
        let schedule = policy.scheduling_after_fork().map(|scheduler| move |pid| scheduler.set(pid));
        let launch = |way: &Way<'_>, group: Option<BorrowedFd<'_>>| {
            let plan = policy.emit_entry(&terms, way, &run, command)?;
            spawn::start(&Launch {
                cgroup: group,
                enter: way.mover.as_deref(),
                schedule: schedule.as_ref().map(|schedule| schedule as &dyn Fn(i32) -> Result<()>),
                seen_inside: true,
                listener: channel.as_ref().and_then(ListenerChannel::sender),
                supervisor: channel.as_ref().and_then(ListenerChannel::remote),
                failure: way.failure.as_ref(),
                ..Launch::new(&plan, policy.setup_timeout())
            })
        };
        // Who runs on other processors until it is in the group enters by itself, as does who
        // enters a group that was made inside: whoever is born in a group in which cgroup.kill was
        // used is killed (6.14).
        let is_born = |group: &&Group| {
            let enters_by_itself = command.first_affinity().is_some() || below.is_some();
            !group.refuses_births() && !enters_by_itself && way.mover.is_none()
        };
        let birth = target.filter(is_born).and_then(Group::v2_dir);
        let entered = match birth.map(|group| launch(&way, Some(group))) {
            Some(Err(error)) if is_clone_too_old(&error) => None,
            done => done,
        };
        let stub = entered.unwrap_or_else(|| {
            if let Some(group) = target.filter(|_| way.mover.is_none()) {
                way.procs = group.entries(true)?;
            }
            launch(&way, None)
        });
        let stub = match stub {
            Err(error) if takes_no_process(&error) && below.is_none() && way.mover.is_none() => {
                match group_of_first(running)? {
                    Some(lower) => {
                        way.procs = lower.entries(true)?;
                        launch(&way, None)
                    }
                    None => Err(error),
                }
            }
            done => done,
        };
        let stub = stub.map_err(|error| judgement.explain_by_profile(error))?;
        Child::new(Started {
            terminal: way.terminal.take(),
            running: stub.into_running(),
            at: Instant::now(),
            // The program is not the first of the namespace: its end ends nothing else.
            facts: Facts {
                own_pid_ns: false,
                reaped_at_once: !command.is_left_to_parent(),
                left_to_parent: command.is_left_to_parent(),
                ..policy.facts(judgement, &run.streams)
            },
            enforced: judgement.enforced_with(&run.streams.sinks),
            streams: std::mem::take(&mut run.streams.outside),
            resources: Resources::default(),
            output_limit: policy.limit_of_output(),
            notifications: channel.as_mut().and_then(ListenerChannel::notifications),
            denials: channel.and_then(|channel| channel.denials),
            watch: Watch { wall_time: policy.wall_time, cpu_time: None },
            enter: None,
        })
    }
}

impl Policy {
    /// Refuses a command that execve(2) cannot take, and a sandbox that no further program can
    /// enter, or whose end would not end it.
    fn check_entry(
        &self,
        terms: &Terms,
        command: &Command,
        running: &Inside<'_>,
        has_boundary: bool,
        more: Vec<Problem>,
    ) -> Result<()> {
        let judgement = &*terms.judgement;
        let mut problems = command.invalid();
        problems.extend(more);
        problems.extend(self.unpassable(&command.fds, judgement));
        problems.extend(self.terminal_without_session(&command.streams));
        problems.extend(self.uncounted(&command.streams).filter(|_| self.has_to_count()));
        if !self.namespaces.new.contains(Namespaces::PID) && running.group.is_none() {
            let reason = "without a pid namespace and without a limit, nothing ends a further program with its sandbox";
            problems.push(Problem::unsupported("exec", reason, "add pid_ns(), or a limit such as pids_limit()"));
        }
        let comes_early = judgement.seccomp.as_ref().is_some_and(|filter| self.comes_ahead(filter));
        if self.scheduling_after_fork().is_some() && comes_early {
            let reason = "a further program is forked into its pid namespace with its filter, and no child gets this \
                          scheduling";
            let remedy = "choose a scheduler other than deadline, without reset_on_fork()";
            problems.push(Problem::unsupported("exec", reason, remedy));
        }
        problems.extend(self.seen_with_admin(terms));
        problems.extend(self.absent_affinity());
        if has_boundary {
            let reason = "only systemd may put a process into the sandbox's scope";
            let remedy = "run the caller in the same delegated subtree, with cgroup_parent()";
            problems.push(Problem::unsupported("exec", reason, remedy));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::refused(problems)) }
    }

    /// Returns a problem if a process inside could take CAP_SYS_ADMIN from one that enters: it may
    /// trace, and the filter without `no_new_privs` can be installed only where it is seen.
    fn seen_with_admin(&self, terms: &Terms) -> Option<Problem> {
        let (judgement, apart) = (&terms.judgement, self.namespaces.apart());
        let filter = judgement.seccomp.as_ref().filter(|profile| profile.allows_new_privs())?;
        let traces = terms.is_traced && judgement.security.admin_until_exec;
        let is_seen = apart.contains(Namespaces::PID) && !filter.comes_before_the_entry();
        (is_seen && traces && !apart.contains(Namespaces::USER)).then(|| {
            let reason = "the filter refuses what the entry still needs, so that a program inside with CAP_SYS_PTRACE \
                          could take CAP_SYS_ADMIN from it";
            let remedy = "allow clone, capset, prctl and the like, leave out CAP_SYS_PTRACE, or add user_ns()";
            Problem::unsupported("exec", reason, remedy)
        })
    }

    /// Returns the scheduling that the fork into the pid namespace would not hand down. The owner
    /// sets it when the last stub asks, which has no right to that any more.
    fn scheduling_after_fork(&self) -> Option<Scheduler> {
        let forks = self.namespaces.apart().contains(Namespaces::PID) && !self.program.attributes.survive_fork();
        self.program.attributes.scheduler.filter(|_| forks)
    }

    /// Returns whether the filter is installed before the fork into the pid namespace.
    fn comes_ahead(&self, filter: &Seccomp) -> bool {
        let own_pid_ns = self.namespaces.apart().contains(Namespaces::PID);
        filter.allows_new_privs() && own_pid_ns && filter.comes_before_the_entry()
    }

    /// Opens what a stub needs to enter.
    fn way_into<'w>(
        &self,
        judgement: &Judgement,
        running: &Inside<'w>,
        target: Option<&Group>,
        ruleset: Option<BorrowedFd<'w>>,
    ) -> Result<Way<'w>> {
        let root = self.namespaces.apart().contains(Namespaces::MOUNT).then(|| open_root(running)).transpose()?;
        let failure = judgement.seccomp.as_ref().is_some_and(Seccomp::needs_failure_page);
        Ok(Way {
            pidfd: running.pidfd,
            root,
            procs: target.map_or(Ok(Vec::new()), |group| group.entries(false))?,
            mover: scope_mover(running.group, target, self.setup_timeout())?,
            failure: failure.then(FailurePage::new).transpose()?,
            ruleset,
            terminal: None,
        })
    }

    /// Writes the plan of the entry.
    pub(super) fn emit_entry(&self, terms: &Terms, way: &Way<'_>, run: &Run, command: &Command) -> Result<Plan> {
        let judgement = &*terms.judgement;
        let (apart, own_pid_ns) = (self.namespaces.apart(), self.namespaces.apart().contains(Namespaces::PID));
        let mut plan = Plan::new();
        let umask = emit_beginning(&mut plan);
        if way.mover.is_some() {
            plan.request(Step::JoinCgroup, Request::ControlGroup);
        }
        self.program.attributes.emit_badness(&mut plan);
        self.security.labels.emit(&mut plan, Modules::default());
        self.security.emit_keyring(&mut plan);
        let failure = way.failure.is_some().then(|| emit_failure_page(&mut plan));
        emit_undumpable(&mut plan);
        if let Some(processors) = command.first_affinity() {
            let program = Attributes { cpu_affinity: Some(processors.clone()), ..Attributes::default() };
            program.emit(&mut plan);
        }
        emit_join_cgroups(&mut plan, way.procs.iter().map(|(_, group)| group.as_path()));
        emit_joins(&mut plan, apart, way);
        // From here on paths are those of the sandbox.
        let landlock = self.landlock.as_ref().and_then(|rules| rules.emit_filled(&mut plan, &judgement.landlock));
        judgement.maps.iter().for_each(|maps| emit_setup_ids(&mut plan, maps));
        let ahead = command.cwd_ahead();
        if ahead.is_some() {
            run.invocation.emit_cwd_ahead(&mut plan);
        }
        let later = self.scheduling_after_fork();
        let attributes = &self.program.attributes;
        let scheduler = attributes.scheduler.filter(|_| later.is_none());
        self.emit_identity(&mut plan, judgement, &Attributes { scheduler, ..attributes.clone() });
        let filter = judgement.seccomp.as_ref();
        let new_privs = filter.is_some_and(Seccomp::allows_new_privs);
        if !self.program.init && !new_privs && !terms.keeps_new_privs {
            // A program that is the first process itself could have made the mount namespace in
            // which set-user-ID programs are looked up.
            emit_no_new_privs(&mut plan);
        }
        self.program.emit_umask(&mut plan, umask);
        let slave = way.terminal.as_ref().map(|master| {
            let number = plan.fd(PlanFd::Held(master.as_raw_fd()));
            stdio::emit_slave(&mut plan, Master::Passed(number))
        });
        landlock.iter().for_each(|ruleset| ruleset.emit_restriction(&mut plan));
        if judgement.security.capabilities.is_none() {
            plan.clear_inheritable();
        }
        run.invocation.emit_cwd(&mut plan, self.mounts.root.is_some(), ahead);
        slave.into_iter().for_each(|slave| stdio::emit_slave_as_streams(&mut plan, slave));
        let parent = run.streams.emit_alone(&mut plan, &run.fds);
        // As soon as it is seen inside, it has the program's capabilities and no more.
        let ahead = filter.filter(|profile| self.comes_ahead(profile));
        if let Some(profile) = ahead {
            profile.emit_ahead(&mut plan);
            judgement.security.emit_without_admin(&mut plan, self.user_inside().0 == 0);
        }
        if own_pid_ns {
            emit_undumpable(&mut plan);
            plan.reclone();
        }
        self.emit_owner(&mut plan, parent);
        self.program.emit_session(&mut plan, own_pid_ns || run.streams.has_pty());
        run.streams.emit_controlling(&mut plan);
        if later.is_some() {
            plan.request(Step::Scheduler, Request::Scheduling);
        }
        self.emit_exec(&mut plan, judgement, filter.filter(|_| ahead.is_none()), failure, run);
        let given = RunFds {
            failure_page: way.failure.as_ref().map(AsFd::as_fd),
            cgroup_procs: way.procs.iter().map(|(procs, _)| procs.as_fd()).collect(),
            ruleset: way.ruleset,
            terminal: None,
            nodes: None,
        };
        plan.for_run(&given, None)
    }
}

/// Opens the groups below that of the sandbox that the command names.
fn group_below(running: &Inside<'_>, command: &Command) -> Result<Option<Group>> {
    match (running.group, command.subgroups()) {
        (_, []) => Ok(None),
        (Some(group), wanted) => group.below(wanted, cgroup::host()?).map(Some),
        (None, wanted) if wanted.iter().all(Subgroup::is_top) => Ok(None),
        (None, _) => {
            let reason = "the sandbox has no control group";
            Err(Error::refused(vec![Problem::unsupported("subgroup", reason, "leave it out, or set a limit")]))
        }
    }
}

/// Returns whether a v2 group has refused a process, as it passes controllers on to the groups
/// below.
fn takes_no_process(error: &Error) -> bool {
    [Step::Clone, Step::JoinCgroup].contains(&error.step()) && error.raw_os_error() == Some(libc::EBUSY)
}

/// Opens the group below that of the sandbox in which the sandbox's first process is.
fn group_of_first(running: &Inside<'_>) -> Result<Option<Group>> {
    let theirs = by_fd::short_text(format!("/proc/{}/cgroup", running.pid).as_ref());
    // As long as nobody has reaped the process, the pid was its own.
    let theirs = theirs.ok().filter(|_| pidfd::pid_of(running.pidfd) == Some(running.pid));
    let Some((theirs, group)) = theirs.zip(running.group) else { return Ok(None) };
    let lower = group.below_as(&theirs, cgroup::host()?);
    lower.as_ref().map_or(Ok(()), refuse_frozen).map_err(|error| error.with_kind(ErrorKind::Control))?;
    Ok(lower)
}

/// Joins all namespaces of the sandbox in one call, setns(2) with a pidfd, and its root.
fn emit_joins(plan: &mut Plan, apart: Namespaces, way: &Way<'_>) {
    if apart.is_empty() {
        return;
    }
    let number = plan.fd(PlanFd::Held(way.pidfd.as_raw_fd()));
    plan.call(Step::JoinNamespace, libc::SYS_setns, [number.into(), apart.bits().into()])
        .at("the namespaces of the sandbox")
        .hint("joining all namespaces of a process needs Linux 5.8, and a process that still runs");
    let Some(root) = &way.root else { return };
    // The namespace's own root may lie above: that of a caller who is in a chroot(2).
    let (number, here) = (plan.fd(PlanFd::Held(root.as_raw_fd())), plan.string("."));
    plan.call(Step::PivotRoot, libc::SYS_fchdir, [number.into()]).at("/");
    plan.call(Step::PivotRoot, libc::SYS_chroot, [here.into()]).at("/");
}

/// Opens the root directory of the sandbox's first process.
pub(super) fn open_root(running: &Inside<'_>) -> Result<OwnedFd> {
    let path = format!("/proc/{}/root", running.pid);
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let root = File::options().read(true).custom_flags(flags).open(&path);
    // A process that is ending has no root any more. As long as nobody has reaped the process, the
    // pid was its own.
    let is_gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    if root.as_ref().is_err_and(is_gone) || pidfd::pid_of(running.pidfd) != Some(running.pid) {
        return Err(Error::new(Step::Enter, Errno::ESRCH));
    }
    let root = root.map_err(|error| Error::io(Step::Enter, &error).at(&path))?;
    table::above_stdio(root.into()).map_err(|errno| Error::new(Step::Enter, errno))
}
