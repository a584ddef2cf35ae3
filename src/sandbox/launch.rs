//! From a policy to a running child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Sandbox;
use super::judge::{Judgement, UNCOUNTED};
use super::made::Made;
use super::setup::{Setup, Shape};
use super::supervise::{Listening, Supervisor};
use crate::cgroup::Group;
use crate::child::{Child, Parts, Past, Watch};
use crate::error::{Error, Result, Step};
use crate::feature::{Enforced, Enforcement, Feature};
use crate::mount;
use crate::namespace::{Namespaces, Outside, Writer};
use crate::plan::Plan;
use crate::program::Invocation;
use crate::spawn::{self, Launch, Running};
use crate::stdio::{Sink, Stdio, Streams};

const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// A policy that has been judged, with the setup that was last written for it.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) judgement: Judgement,
    template: Option<BorrowedFd<'static>>,
    /// The template turned out to be of no use.
    no_template: AtomicBool,
    /// Mounts turned out not to take ids that are exchanged.
    no_exchange: AtomicBool,
    setup: Mutex<Option<Arc<Setup>>>,
}

/// What one run executes, and where it reads and writes.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) invocation: Invocation,
    pub(super) streams: Streams,
}

/// What a setup ends in.
pub(super) struct Goal<'g, T> {
    /// A stub that waits, not a program.
    pub(super) parks: bool,
    /// When the spawn began, if it is to be timed.
    pub(super) begun: Option<Instant>,
    pub(super) listener: Option<&'g Sender<OwnedFd>>,
    /// Writes what follows the setup.
    pub(super) write: &'g dyn Fn(&mut Plan, &Arc<Setup>),
    pub(super) go: fn(&Launch<'_>) -> Result<T>,
}

impl Sandbox {
    /// Judges the policy, for as many runs as are wanted. `thorough` as for [`judge`](Sandbox::judge).
    pub(super) fn compile(&self, thorough: bool) -> Result<Compiled> {
        Ok(Compiled {
            judgement: self.judge(thorough)?,
            template: self.template(),
            no_template: AtomicBool::new(false),
            no_exchange: AtomicBool::new(false),
            setup: Mutex::default(),
        })
    }

    /// Does everything up to the program's exec; `default` stands for streams that were not told.
    pub(super) fn launch(&self, default: &[Stdio; 3], supervisor: Option<Supervisor>) -> Result<Child> {
        let begun = self.begin();
        let compiled = self.compile(false)?;
        let streams = Streams::open(self.stdio.choose(None, default))?;
        let run = Run { invocation: self.program.invocation(), streams };
        self.launch_compiled(&compiled, run, supervisor, begun)
    }

    /// The time, for a spawn that is timed.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.timings.then(Instant::now)
    }

    /// One run of a policy that has been judged.
    pub(super) fn launch_compiled(
        &self,
        compiled: &Compiled,
        mut run: Run,
        supervisor: Option<Supervisor>,
        begun: Option<Instant>,
    ) -> Result<Child> {
        let listening = self.listen(&compiled.judgement, supervisor)?;
        let mut made = self.make(compiled)?;
        let goal = Goal {
            parks: false,
            begun,
            listener: listening.as_ref().map(|listening| &listening.sender),
            write: &|plan, setup| self.emit_run(plan, &compiled.judgement, setup, &run),
            go: spawn::launch,
        };
        let running = self.set_up(compiled, &mut made, &goal)?;
        self.child(compiled, running, made, &mut run.streams, listening, Past::default())
    }

    /// Takes the setup to its goal.
    pub(super) fn set_up<T>(&self, compiled: &Compiled, made: &mut Made, goal: &Goal<'_, T>) -> Result<T> {
        let mut done = self.run(compiled, made, goal);
        // Rules of a group above can forbid making nodes, too.
        if made.template.is_some() && done.as_ref().is_err_and(mount::lacks_node) {
            compiled.no_template.store(true, Ordering::Relaxed);
            made.template = None;
            done = self.run(compiled, made, goal);
        }
        if let (Err(error), Some(ids)) = (&done, made.exchange())
            && compiled.lacks_exchange(error)
        {
            error.path().into_iter().for_each(|path| mount::note_unmappable(path, ids));
            made.give_up_exchange(&compiled.judgement);
            done = self.run(compiled, made, goal);
        }
        done.map_err(|error| self.explain_by_profile(compiled, error)).map_err(|error| self.explain(error))
    }

    pub(super) fn explain_by_profile(&self, compiled: &Compiled, error: Error) -> Error {
        match &compiled.judgement.seccomp {
            Some(profile) => profile.explain(error),
            None => error,
        }
    }

    /// The handle of a program that runs. `past`: what was before it.
    pub(super) fn child(
        &self,
        compiled: &Compiled,
        running: Running,
        mut made: Made,
        streams: &mut Streams,
        listening: Option<Listening>,
        past: Past,
    ) -> Result<Child> {
        let started = Instant::now();
        let judgement = &compiled.judgement;
        made.group.iter_mut().for_each(Group::joined);
        let [stdin, stdout, stderr] = std::mem::take(&mut streams.outside);
        let own_pid_ns = self.namespaces.new.contains(Namespaces::PID);
        // Where there is a group, whoever clears up finds the process in that.
        let scratch = made.scratch.as_ref().filter(|_| made.group.is_none());
        let noted = scratch.map_or(Ok(()), |scratch| scratch.note(running.pidfd.as_fd()));
        let child = Child::start(Parts {
            running,
            started,
            streams: (stdin, stdout, stderr),
            group: made.group.take(),
            scratch: made.scratch.take(),
            claim: made.claim.take(),
            lease: made.lease.take(),
            enforced: self.enforced_with(judgement, streams),
            own_pid_ns,
            own_process_group: self.program.leads_group(own_pid_ns),
            output_limit: self.output_limit,
            output_cut: self.output_cut,
            writes_file: self.output_limit.is_some() && streams.largest_file().is_some(),
            seccomp: judgement.seccomp.is_some(),
            asks: listening.is_some(),
            notifications: listening.and_then(Listening::notifications),
            stop_signal: self.program.stop_signal.unwrap_or(libc::SIGTERM),
            held: self.mounts.root.as_ref().and_then(|root| root.guard.clone()),
            watch: Watch {
                wall_time: self.wall_time,
                cpu_time: self.cpu_time.filter(|_| judgement.account_cpu),
                cpu_rlimit: self.cpu_time.filter(|_| !judgement.account_cpu),
            },
            past,
        })?;
        // Dropped with an error, the handle ends the program.
        noted.map(|()| child)
    }

    /// What holds in a run with these streams.
    fn enforced_with(&self, judgement: &Judgement, streams: &Streams) -> Enforced {
        let mut enforced = judgement.enforced.clone();
        if enforced.get(Feature::OutputLimit) == Some(&Enforcement::Full) {
            if streams.sinks.contains(&Sink::Elsewhere) {
                enforced.set(Feature::OutputLimit, Enforcement::Missing(UNCOUNTED.into()));
            } else if streams.sinks.contains(&Sink::Callers) {
                let gap = "what goes to the caller's own stdout or stderr, passed on, is not counted";
                enforced.set(Feature::OutputLimit, Enforcement::Partial(gap));
            }
        }
        enforced
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
    fn run<T>(&self, compiled: &Compiled, made: &Made, goal: &Goal<'_, T>) -> Result<T> {
        static STUB_ENTERS: AtomicBool = AtomicBool::new(false);
        let group = made.group.as_ref();
        if !STUB_ENTERS.load(Ordering::Relaxed)
            && let Some(cgroup) = made.birthplace()
        {
            let plan = self.plan(compiled, made, None, goal)?;
            match self.run_plan(&plan, made, Some(cgroup), goal) {
                Err(error) if is_clone_too_old(&error) => {}
                result => return result,
            }
        }
        let procs = group.filter(|_| !made.is_fenced()).map(Group::v2_procs).transpose()?.flatten();
        let plan = self.plan(compiled, made, procs.as_ref(), goal)?;
        let done = self.run_plan(&plan, made, None, goal)?;
        STUB_ENTERS.fetch_or(procs.is_some() && !group.is_some_and(Group::is_in_oom_group), Ordering::Relaxed);
        Ok(done)
    }

    /// All ops of one run. `procs` are those of a v2 group that the child is not born into.
    fn plan<T>(&self, compiled: &Compiled, made: &Made, procs: Option<&OwnedFd>, goal: &Goal<'_, T>) -> Result<Plan> {
        let setup = self.setup(compiled, &made.shape(procs), made.template)?;
        let mut plan = setup.plan.for_run(&made.run_fds(procs), made.exchange())?;
        (goal.write)(&mut plan, &setup);
        Ok(plan)
    }

    /// The setup that was written last, if it is of this shape and can be used again; else a new one.
    pub(super) fn setup(
        &self,
        compiled: &Compiled,
        shape: &Shape,
        template: Option<BorrowedFd<'_>>,
    ) -> Result<Arc<Setup>> {
        let last = || compiled.setup.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(setup) = last().as_ref().filter(|setup| setup.shape == *shape) {
            return Ok(setup.clone());
        }
        let setup = Arc::new(self.emit_setup(&compiled.judgement, shape, template)?);
        if !setup.plan.is_single_use() {
            *last() = Some(setup.clone());
        }
        Ok(setup)
    }

    /// How long a setup may take.
    pub(super) fn patience(&self) -> Duration {
        self.setup_timeout.unwrap_or(SETUP_TIMEOUT)
    }

    fn run_plan<T>(&self, plan: &Plan, made: &Made, cgroup: Option<BorrowedFd<'_>>, goal: &Goal<'_, T>) -> Result<T> {
        let enter = made.site.entrance(made.group.as_ref(), self.patience());
        (goal.go)(&Launch {
            plan,
            namespaces: self.namespaces.at_clone(made.template.is_some()).bits(),
            cgroup,
            id_maps: made.maps.as_ref().filter(|maps| maps.writer != Writer::Inside),
            enter: enter.as_deref(),
            seen_inside: self.program.init || !self.namespaces.join.is_empty(),
            init: self.program.init,
            parks: goal.parks,
            deadline: self.patience(),
            listener: goal.listener,
            failure: made.failure.as_ref(),
            fail: self.fail_at,
            timed: goal.begun,
        })
    }
}

impl Compiled {
    pub(super) fn template(&self) -> Option<BorrowedFd<'static>> {
        self.template.filter(|_| !self.no_template.load(Ordering::Relaxed))
    }

    /// Whether mounts may show the ids of runs as others.
    pub(super) fn exchanges(&self) -> bool {
        let wanted = self.judgement.maps.as_ref().is_some_and(|maps| maps.outside == Outside::Exchanged);
        wanted && !self.no_exchange.load(Ordering::Relaxed)
    }

    /// Whether a step failed because a mount does not map ids; then none is asked to any more.
    pub(super) fn lacks_exchange(&self, error: &Error) -> bool {
        let lacks = error.step() == Step::IdMapMount;
        self.no_exchange.fetch_or(lacks, Ordering::Relaxed);
        lacks
    }
}

/// Whether clone3 failed because it, or CLONE_INTO_CGROUP, is not there, or looks so from inside a filter.
fn is_clone_too_old(error: &Error) -> bool {
    let too_old = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::E2BIG];
    error.step() == Step::Clone && error.raw_os_error().is_some_and(|errno| too_old.contains(&errno))
}
