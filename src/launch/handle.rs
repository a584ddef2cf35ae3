//! The handle of a running program.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::compiled::Compiled;
use super::entrance::Entrance;
use super::inputs::Inputs;
use super::listener::ListenerChannel;
use crate::cgroup::{Group, Stats};
use crate::child::{Child, Facts, Started, Watch};
use crate::error::Result;
use crate::policy::Policy;
use crate::spawn::Running;
use crate::stdio::Streams;

impl Policy {
    /// Makes the handle, which takes over all resources. `before` holds the statistics of the group
    /// from before the program.
    pub(super) fn handle(
        &self,
        compiled: &Compiled,
        mut running: Running,
        inputs: &mut Inputs,
        streams: &mut Streams,
        mut channel: Option<ListenerChannel>,
        before: Stats,
    ) -> Result<Child> {
        let at = Instant::now();
        let judgement = &*compiled.judgement_of_run();
        let user_outside = self.user_outside(inputs);
        let mut resources = std::mem::take(&mut inputs.resources);
        resources.group.iter_mut().for_each(Group::joined);
        // If there is a group, `reap_stale` finds the process in the group.
        let scratch = resources.scratch.as_ref().filter(|_| resources.group.is_none());
        let noted = scratch.map_or(Ok(()), |scratch| scratch.record_process(running.pidfd.as_fd()));
        let terminal = running.terminal.take().or_else(|| inputs.master.take());
        let child = Child::new(Started {
            running,
            terminal,
            at,
            streams: std::mem::take(&mut streams.outside),
            resources,
            facts: Facts { reaped_at_once: channel.is_some(), before, ..self.facts(judgement, streams) },
            enforced: judgement.enforced_with(&streams.sinks),
            output_limit: self.limit_of_output(),
            notifications: channel.as_mut().and_then(ListenerChannel::notifications),
            denials: channel.and_then(|channel| channel.denials),
            watch: Watch { wall_time: self.wall_time, cpu_time: self.cpu_time.filter(|_| judgement.account_cpu) },
            enter: Some(Arc::new(Entrance::new(compiled, user_outside, inputs))),
        })?;
        // If this is an error, the dropped handle ends the program.
        noted.map(|()| child)
    }
}
