//! From a policy to a running child.

use std::time::Instant;

use super::compiled::Compiled;
use super::listener::Supervisor;
use super::park::exchanging_user_ns;
use super::set_up::{Done, End};
use super::setup::Run;
use crate::cgroup::Stats;
use crate::child::Child;
use crate::error::Result;
use crate::policy::Policy;
use crate::stdio::{Stdio, Streams};

impl Policy {
    /// Does everything from the judgement up to the program's exec; `default` stands for streams that were not told.
    pub(crate) fn spawn(&self, default: &[Stdio; 3], supervisor: Option<Supervisor>) -> Result<Child> {
        let begun = self.begin();
        let compiled = Compiled::new(self, false)?;
        let streams = Streams::open(self.stdio.choose(None, default))?;
        let run = Run { invocation: self.program.invocation(), streams };
        self.start(&compiled, run, supervisor, begun)
    }

    /// Returns the time, for a spawn that is timed.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.timings.then(Instant::now)
    }

    /// Makes the inputs, takes the setup to the program's exec, and gives the handle.
    pub(crate) fn start(
        &self,
        compiled: &Compiled,
        mut run: Run,
        supervisor: Option<Supervisor>,
        begun: Option<Instant>,
    ) -> Result<Child> {
        let listening = self.listen(&compiled.judgement, supervisor)?;
        let mut inputs = self.make_inputs(compiled, exchanging_user_ns)?;
        let listener = listening.as_ref().map(|listening| &listening.sender);
        let Done { stub, .. } = self.set_up(compiled, &mut inputs, &End::Exec { run: &run, listener, begun })?;
        self.handle(compiled, stub.into_running(), &mut inputs, &mut run.streams, listening, Stats::default())
    }
}
