//! A sandbox whose program a later process starts, after this one may have ended.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::compiled::Compiled;
use super::emit::Run;
use super::entrance::Entrance;
use super::hooks::{Hooks, Unentered};
use super::inputs::{Belongings, Inputs};
use super::park::user_ns_with;
use super::run_setup::{Creation, End, FinishedSetup};
#[cfg(feature = "oci")]
use super::unit::Standing;
use crate::cgroup::Group;
use crate::child::{Enter, Left};
use crate::error::{Error, Problem, Result};
use crate::owner::{Claim, Scratch};
use crate::plan::Note;
use crate::policy::Policy;
use crate::security::{RemoteConnection, Seccomp};
use crate::spawn::FailurePage;
use crate::stdio::{Fds, Stdio, Streams};
use crate::sys::pidfd;

/// The record of a sandbox that outlives its creator.
pub(crate) trait Ledger {
    /// Notes what is about to be made.
    fn announce(&self, belongings: &Belongings) -> Result<()>;

    /// Returns an empty file that a later process finds again, for the errno of an exec that its
    /// filter lets nobody report.
    fn failure_page(&self) -> Result<File>;

    /// Notes that the sandbox is ready. The notes are those of the ops that a start runs.
    /// `listens`: a start brings the listener of the program's filter.
    fn save(&self, left: &Left<'_>, notes: &[(u32, Note)], listens: bool) -> Result<()>;
}

/// A stub that waits for a later process. It stays when this value is dropped.
#[derive(Debug)]
pub(crate) struct CreatedStub {
    pub(crate) pidfd: OwnedFd,
    /// The master of the program's terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// The claim on what was made for the sandbox.
    pub(crate) claim: Option<Claim>,
}

impl Policy {
    /// Makes the sandbox, whose stub then waits on `listener`. On failure nothing is left but what
    /// the ledger has written.
    ///
    /// `hooks` run when the mounts of the sandbox are made, and before its root is entered.
    pub(crate) fn create(
        &self,
        ledger: &dyn Ledger,
        listener: BorrowedFd<'_>,
        hooks: Option<&Hooks<'_>>,
    ) -> Result<CreatedStub> {
        let mut policy = Policy { durable: true, ..self.clone() };
        policy.program.outlive_owner = true;
        policy.mounts.stops_before_entry = hooks.is_some();
        let compiled = Compiled::new(&policy, false)?;
        let problems = policy.bound_to_caller(&compiled);
        if !problems.is_empty() {
            return Err(Error::refused(problems));
        }
        let default = Stdio::inherited();
        let streams = Streams::open(policy.stdio.choose(None, &default))?;
        let run = Run { invocation: policy.invocation(), streams, fds: Fds::new() };
        let supervisor = policy.supervisor_of_create(&compiled, hooks.is_some())?;
        let announce = |belongings: &Belongings| ledger.announce(belongings);
        let mut inputs = policy.make_noted_inputs(&compiled, user_ns_with, &announce)?;
        if let Some(user) = policy.user_outside(&inputs).filter(|_| policy.stdio.gives) {
            run.streams.give_inherited_to(user);
        }
        if inputs.failure.is_some() {
            inputs.failure = Some(FailurePage::in_file(ledger.failure_page()?)?);
        }
        if run.streams.has_pty() {
            policy.open_terminal(&mut inputs)?;
        } else if policy.mounts.root.is_some() {
            inputs.terminal = run.streams.inherited_terminal();
        }
        let save = |pidfd: BorrowedFd<'_>, inputs: &Inputs, notes: &[(u32, Note)]| {
            policy.save(&compiled, ledger, pidfd, inputs, notes)
        };
        let run_hooks = hooks.map(|run| {
            let policy = &policy;
            move |pidfd: BorrowedFd<'_>, inputs: &Inputs| {
                inputs.end_keeper()?;
                run(&Unentered::new(policy, inputs, pidfd)?)
            }
        });
        let hooks = run_hooks.as_ref().map(|run| run as &dyn Fn(BorrowedFd<'_>, &Inputs) -> Result<()>);
        let creation = Creation { run: &run, listener, supervisor: supervisor.as_ref(), save: &save, hooks };
        let FinishedSetup { stub, .. } = policy.run_setup(&compiled, &mut inputs, &End::Create(&creation))?;
        let mut resources = std::mem::take(&mut inputs.resources);
        // The sandbox has these until a later process removes them. An id that was leased is never
        // given back.
        resources.group.iter_mut().for_each(Group::joined);
        resources.scratch.take().into_iter().for_each(Scratch::forget);
        #[cfg(feature = "oci")]
        inputs.standing.take().into_iter().for_each(Standing::leave);
        let running = stub.into_running();
        let terminal = running.terminal.or_else(|| inputs.master.take());
        Ok(CreatedStub { pidfd: running.pidfd, terminal, claim: resources.claim.take() })
    }

    /// Returns the supervisor that gets the listener of the filter from the create, if there is one.
    /// With hooks it is looked for late, as a hook may start it.
    fn supervisor_of_create(&self, compiled: &Compiled, late: bool) -> Result<Option<RemoteConnection>> {
        let asks = compiled.judgement.seccomp.as_ref().is_some_and(Seccomp::has_listener);
        let Some(supervisor) = self.supervisor.as_ref().filter(|_| asks) else { return Ok(None) };
        let patience = self.setup_timeout();
        if late { Ok(Some(supervisor.connect_late(patience))) } else { supervisor.connect(patience).map(Some) }
    }

    fn save(
        &self,
        compiled: &Compiled,
        ledger: &dyn Ledger,
        pidfd: BorrowedFd<'_>,
        inputs: &Inputs,
        notes: &[(u32, Note)],
    ) -> Result<()> {
        inputs.end_keeper()?;
        let resources = &inputs.resources;
        if let (Some(group), Some(claim), Some(_)) = (&resources.group, &resources.claim, &self.cgroup) {
            // A hook may have left something running.
            let is_alone = !self.program.init && !self.mounts.stops_before_entry;
            group.refuse_shared_birth(claim.name(), pidfd::pid_of(pidfd).filter(|_| is_alone))?;
        }
        // If there is a group, `reap_stale` finds the process in the group.
        if let Some(scratch) = resources.scratch.as_ref().filter(|_| resources.group.is_none()) {
            scratch.record_process(pidfd)?;
        }
        let enter: Arc<dyn Enter> = Arc::new(Entrance {
            policy: compiled.entry.clone(),
            judgement: compiled.judgement.clone(),
            user_outside: self.user_outside(inputs),
            // Whether a caller may put a process into a scope of the sandbox's own is for each
            // caller to find out.
            has_boundary: inputs.has_boundary() && !self.has_unit(),
            ruleset: None,
            rule_files: inputs.known_rule_files(),
        });
        let name = resources.claim.as_ref().map(|claim| claim.name().to_owned());
        let late = |profile: &Seccomp| profile.has_listener() && !self.filter_comes_before_the_start(profile);
        let listens = compiled.judgement.seccomp.as_ref().is_some_and(late);
        ledger.save(&Left { pidfd, group: resources.group.as_ref(), name, enter: &enter }, notes, listens)
    }

    /// Returns the problems of what needs the caller for as long as the program runs.
    fn bound_to_caller(&self, compiled: &Compiled) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |is_set: bool, subject: &str, reason: &str, remedy: &str| {
            if is_set {
                problems.push(Problem::unsupported(subject, reason, remedy));
            }
        };
        // The limit of output is the size of files here, which the kernel limits: no output is
        // read.
        let watches = "the process that creates the sandbox would have to watch it, and may end before the program";
        for (stream, name) in self.stdio.streams.iter().zip(["stdin", "stdout", "stderr"]) {
            let ends_here = stream.as_ref().is_some_and(Stdio::ends_in_caller);
            let reason = "the other end of the stream would end with the process that creates the sandbox";
            refuse(ends_here, name, reason, "pass a file, a FIFO or a socket that another process holds");
        }
        refuse(
            self.wall_time.is_some(),
            "wall_time",
            watches,
            "stop the sandbox from a process that stays, by its ticket",
        );
        let shows = self.output_limit.is_some() && self.stdio.streams.iter().flatten().any(Stdio::is_pty);
        let remedy = "leave out the limit where the program has a terminal, or use best_effort(Feature::OutputLimit)";
        refuse(shows && self.has_to_count(), "output_limit", watches, remedy);
        let remedy = "limit the time of each process with rlimit(Resource::Cpu)";
        refuse(self.cpu_time.is_some() && compiled.judgement.account_cpu, "cpu_time", watches, remedy);
        let reason = "the process that creates the sandbox would have to answer the filter's questions";
        refuse(self.denials, "denials", reason, "leave out denials()");
        let late =
            compiled.judgement.seccomp.as_ref().is_some_and(|profile| !self.filter_comes_before_the_start(profile));
        let reason = "the filter does not let the one that waits for its start do so, and then the start brings the \
                      listener";
        let remedy = "let the filter allow accept4, ppoll, read, sendto, capset, rt_sigaction and prctl, without \
                      questions, or use Created::start_with_listener()";
        refuse(self.supervisor.is_some() && late, "notify_socket", reason, remedy);
        let among_others = self.waits_among_others();
        let reason = "the filter comes with the start, and until then a process of the joined pid namespace with \
                      CAP_SYS_PTRACE could take over the one that waits";
        let remedy = "let the filter allow accept4, ppoll, read, sendto, capset, rt_sigaction and prctl, without \
                      questions, or join the user namespace, too";
        refuse(among_others && late, "seccomp", reason, remedy);
        let reason = "hooks run while the one that waits has all rights of the setup, and a process of the joined pid \
                      namespace with CAP_SYS_PTRACE could take it over";
        refuse(
            among_others && self.mounts.stops_before_entry,
            "hooks",
            reason,
            "make a pid namespace, or join the user namespace, too",
        );
        refuse(self.timings, "timings", "nobody could read them", "leave out timings()");
        #[cfg(feature = "systemd")]
        refuse(
            self.systemd_scope.is_some(),
            "systemd_scope",
            "the scope ends with the process that creates the sandbox",
            "name a group with cgroup_parent()",
        );
        let guarded = self.mounts.root.as_ref().is_some_and(|root| root.guard.is_some());
        let reason = "the store keeps the layers of an image only as long as the process that creates the sandbox";
        refuse(guarded, "image", reason, "unpack the image into a directory, and pass that to rootfs()");
        problems
    }
}
