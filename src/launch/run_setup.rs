//! The run of one sandbox's setup: from its inputs to a stub that executes the program, or waits
//! for one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use nix::errno::Errno;

use super::compiled::Compiled;
use super::emit::{Run, Setup};
use super::inputs::Inputs;
use crate::cgroup::Group;
use crate::error::{Error, Result, Step};
use crate::mount;
use crate::namespace::{Namespaces, Writer};
use crate::plan::{Note, Plan};
use crate::policy::Policy;
use crate::security::{RemoteConnection, RuleFile};
use crate::spawn::{self, Launch, Stub};
use crate::sys::mutex;

/// The ends of a setup.
pub(super) enum End<'e> {
    /// The stub executes a program.
    Exec {
        run: &'e Run,
        /// The channel for the filter's listener.
        listener: Option<&'e Sender<OwnedFd>>,
        /// The supervisor in another process that gets the listener.
        supervisor: Option<&'e RemoteConnection>,
        /// The time at which the spawn began, if the spawn is timed.
        begun: Option<Instant>,
    },
    /// The stub waits for its program.
    Park,
    /// The stub waits for a later process, which starts the program.
    Create(&'e Creation<'e>),
}

/// What a sandbox needs that a later process starts.
pub(super) struct Creation<'c> {
    pub(super) run: &'c Run,
    /// The socket on which the stub waits.
    pub(super) listener: BorrowedFd<'c>,
    /// The supervisor in another process that gets the listener of the filter.
    pub(super) supervisor: Option<&'c RemoteConnection>,
    /// Puts the stub on record, which is given by its pidfd. The notes are those of the ops that
    /// are still to come.
    pub(super) save: &'c Save<'c>,
    /// Runs what is to run before the root is entered.
    pub(super) hooks: Option<&'c RunHooks<'c>>,
}

/// Runs what is to run before the root of a stub is entered, which is given by its pidfd.
type RunHooks<'h> = dyn Fn(BorrowedFd<'_>, &Inputs) -> Result<()> + 'h;

/// Puts a stub on record.
type Save<'s> = dyn Fn(BorrowedFd<'_>, &Inputs, &[(u32, Note)]) -> Result<()> + 's;

/// A stub that has finished its setup, with that setup.
pub(super) struct FinishedSetup {
    pub(super) stub: Stub,
    pub(super) setup: Arc<Setup>,
}

impl Policy {
    /// Takes the setup to its end. If the host does not support a faster way, this and all later
    /// runs of the policy take the slower one.
    pub(super) fn run_setup(&self, compiled: &Compiled, inputs: &mut Inputs, end: &End<'_>) -> Result<FinishedSetup> {
        loop {
            let sparse = compiled.sparse();
            match self.try_setup(compiled, inputs, end) {
                Err(error) if self.takes_slower_way(compiled, inputs, sparse, &error) => {}
                done => {
                    let done = done.map_err(|error| compiled.explain_by_profile(error));
                    let done = done.map_err(|error| self.explain(compiled, error));
                    return done.map_err(|error| compiled.hint_at_lost_rights(error));
                }
            }
        }
    }

    /// Gives up the way that a setup has failed on, and returns false if there is no slower one. A
    /// way that is given up is not tried again. `sparse`: the setup was one from the sparse mount
    /// namespace.
    fn takes_slower_way(&self, compiled: &Compiled, inputs: &mut Inputs, sparse: bool, error: &Error) -> bool {
        if sparse && self.fail_at.is_none() && mount::may_miss_mounts(error) {
            compiled.give_up_sparse();
        } else if inputs.template.is_some() && mount::lacks_node(error) {
            // The rules of a parent group can forbid making nodes, too.
            compiled.give_up_template();
            inputs.template = None;
        } else if self.fail_at.is_none()
            && inputs.shows_groups()
            && self.mounts.shows_groups_by_default()
            && mount::may_refuse_groups(error)
        {
            // A sandbox that has not asked for its control groups by name goes without them.
            let why = mount::note_refused_groups(self.namespaces.apart().contains(Namespaces::USER), error);
            compiled.give_up_groups(why);
            inputs.give_up_groups();
        } else if let Some(ids) = inputs.exchange()
            && compiled.lacks_exchange(error)
        {
            error.path().into_iter().for_each(|path| mount::note_unmappable(path, ids));
            inputs.give_up_exchange(&compiled.judgement);
        } else {
            return false;
        }
        true
    }

    /// Runs the plan. If the kernel is older than 5.7, or a seccomp filter around the caller
    /// forbids it, the child cannot be born in a v2 group. Then the stub enters the group by
    /// itself, in this and all later spawns.
    fn try_setup(&self, compiled: &Compiled, inputs: &Inputs, end: &End<'_>) -> Result<FinishedSetup> {
        static STUB_ENTERS: AtomicBool = AtomicBool::new(false);
        let group = inputs.resources.group.as_ref();
        if !STUB_ENTERS.load(Ordering::Relaxed)
            && let Some(cgroup) = inputs.birth_group()
        {
            let (plan, setup) = self.plan(compiled, inputs, None, end)?;
            match self.run_plan(compiled, &plan, inputs, Some(cgroup), end) {
                Err(error) if is_clone_too_old(&error) => {}
                result => return result.map(|stub| FinishedSetup { stub, setup }),
            }
        }
        let procs = group.filter(|_| !inputs.has_boundary()).map(Group::v2_procs).transpose()?.flatten();
        let (plan, setup) = self.plan(compiled, inputs, procs.as_ref(), end)?;
        let stub = self.run_plan(compiled, &plan, inputs, None, end)?;
        STUB_ENTERS.fetch_or(procs.is_some() && !group.is_some_and(Group::refuses_births), Ordering::Relaxed);
        Ok(FinishedSetup { stub, setup })
    }

    /// Writes all ops of one run. `procs` is the `cgroup.procs` of a v2 group that the child is not
    /// born in.
    fn plan(
        &self,
        compiled: &Compiled,
        inputs: &Inputs,
        procs: Option<&OwnedFd>,
        end: &End<'_>,
    ) -> Result<(Plan, Arc<Setup>)> {
        let setup = compiled.setup(self, &inputs.key(procs), inputs.template)?;
        let mut plan = setup.plan.for_run(&inputs.run_fds(procs), inputs.exchange())?;
        match end {
            End::Exec { run, .. } => self.emit_run(&mut plan, &compiled.judgement, &setup, run),
            End::Park => self.emit_parking(&mut plan, &compiled.judgement),
            End::Create(Creation { run, listener, .. }) => {
                self.emit_create(&mut plan, &compiled.judgement, &setup, run, *listener);
            }
        }
        Ok((plan, setup))
    }

    /// Starts a child that runs the plan.
    fn run_plan(
        &self,
        compiled: &Compiled,
        plan: &Plan,
        inputs: &Inputs,
        cgroup: Option<BorrowedFd<'_>>,
        end: &End<'_>,
    ) -> Result<Stub> {
        let enter = inputs.location.group_mover(inputs.resources.group.as_ref(), self.setup_timeout());
        let (listener, supervisor, timed) = match *end {
            End::Exec { listener, supervisor, begun, .. } => (listener, supervisor, begun),
            End::Create(creation) => (None, creation.supervisor, None),
            End::Park => (None, None, None),
        };
        let save = |pidfd: BorrowedFd<'_>| {
            let End::Create(creation) = end else { return Err(Error::new(Step::Create, Errno::EPROTO)) };
            let notes = plan.behind_start().map_or_else(Vec::new, |first| plan.notes_from(first));
            (creation.save)(pidfd, inputs, &notes)
        };
        let before_entry = if let End::Create(Creation { hooks, .. }) = end { *hooks } else { None };
        let hooks = before_entry.map(|run| move |pidfd: BorrowedFd<'_>| run(pidfd, inputs));
        mutex::lock(&inputs.rule_files).clear();
        let take_file = |file: OwnedFd| mutex::lock(&inputs.rule_files).extend(RuleFile::of(file.as_fd()));
        spawn::start(&Launch {
            namespaces: self.namespaces.at_clone(inputs.template.is_some()).bits(),
            cgroup,
            sparse: compiled.sparse(),
            id_maps: inputs.maps.as_ref().filter(|maps| maps.writer != Writer::Inside),
            enter: enter.as_deref(),
            save: if let End::Create(_) = end { Some(&save) } else { None },
            hooks: hooks.as_ref().map(|hooks| hooks as &dyn Fn(BorrowedFd<'_>) -> Result<()>),
            rule_files: (self.landlock.is_some() && self.program.outlive_owner).then_some(&take_file),
            seen_inside: self.program.init || !self.namespaces.join.is_empty(),
            init: self.program.init,
            parks: matches!(end, End::Park),
            listener,
            supervisor,
            failure: inputs.failure.as_ref(),
            fail: self.fail_at,
            timed,
            ..Launch::new(plan, self.setup_timeout())
        })
    }

    /// Explains a step that the kernel has forbidden, by the checks of the judgement.
    fn explain(&self, compiled: &Compiled, error: Error) -> Error {
        let forbids = [libc::EPERM, libc::EACCES, libc::ENOSPC, libc::EUSERS, libc::ENOSYS, libc::EINVAL];
        let steps = [Step::Clone, Step::Unshare, Step::WriteIdMap, Step::Capabilities, Step::Mount, Step::Propagation];
        let is_forbidden = error.raw_os_error().is_some_and(|errno| forbids.contains(&errno));
        let may_tell = self.fail_at.is_none() && !compiled.has_lost_rights();
        if !(is_forbidden && steps.contains(&error.step()) && may_tell) {
            return error;
        }
        match self.refused_by_kernel() {
            problems if problems.is_empty() => error,
            problems => Error::refused(problems),
        }
    }
}

/// Returns whether clone3 failed because the kernel does not know it, or CLONE_INTO_CGROUP, or
/// because a seccomp filter makes it look so.
pub(super) fn is_clone_too_old(error: &Error) -> bool {
    let too_old = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::E2BIG];
    error.step() == Step::Clone && error.raw_os_error().is_some_and(|errno| too_old.contains(&errno))
}
