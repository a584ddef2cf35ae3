//! The start of a program: from a policy to a running child.

use std::time::Instant;

use super::compiled::Compiled;
use super::emit::Run;
use super::listener::{ListenerChannel, Supervisor};
use super::park::user_ns_with;
use super::run_setup::{End, FinishedSetup};
use crate::cgroup::Stats;
use crate::child::Child;
use crate::error::Result;
use crate::policy::Policy;
use crate::stdio::{Fds, Stdio, Streams};

impl Policy {
    /// Does everything from the judgement to the exec of the program. `default` has the streams for
    /// those that were not set.
    pub(crate) fn spawn(&self, default: &[Stdio; 3], supervisor: Option<Supervisor>) -> Result<Child> {
        let begun = self.begin();
        let compiled = Compiled::new(self, false)?;
        let streams = Streams::open(self.stdio.choose(None, default))?;
        let run = Run { invocation: self.invocation(), streams, fds: Fds::new() };
        self.start(&compiled, run, supervisor, begun)
    }

    /// Returns the time, for a spawn that is timed.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.timings.then(Instant::now)
    }

    /// Makes the inputs, runs the setup to the exec of the program, and returns the handle.
    pub(crate) fn start(
        &self,
        compiled: &Compiled,
        mut run: Run,
        supervisor: Option<Supervisor>,
        begun: Option<Instant>,
    ) -> Result<Child> {
        let channel = self.listen(&compiled.judgement, supervisor)?;
        let mut inputs = self.make_inputs(compiled, user_ns_with)?;
        self.user_outside(&inputs).into_iter().for_each(|user| run.streams.give_to(user));
        if run.streams.has_pty() {
            self.open_terminal(&mut inputs)?;
        } else if self.mounts.root.is_some() {
            inputs.terminal = run.streams.inherited_terminal();
        }
        let supervisor = channel.as_ref().and_then(ListenerChannel::remote);
        let listener = channel.as_ref().and_then(ListenerChannel::sender);
        let FinishedSetup { stub, .. } =
            self.run_setup(compiled, &mut inputs, &End::Exec { run: &run, listener, supervisor, begun })?;
        self.handle(compiled, stub.into_running(), &mut inputs, &mut run.streams, channel, Stats::default())
    }
}
