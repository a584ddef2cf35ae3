//! The facts of a policy by which a handle ends a program, and tells how it ended.

use crate::cgroup::Stats;
use crate::child::{Facts, OutputLimit};
use crate::judge::Judgement;
use crate::namespace::Namespaces;
use crate::policy::Policy;
use crate::security::Seccomp;
use crate::stdio::Streams;

impl Policy {
    /// Returns the facts about the first program of a sandbox, without those of one run.
    pub(super) fn facts(&self, judgement: &Judgement, streams: &Streams) -> Facts {
        let own_pid_ns = self.namespaces.new.contains(Namespaces::PID);
        Facts {
            own_pid_ns,
            own_process_group: self.program.leads_group(own_pid_ns || streams.has_pty()),
            cpu_rlimit: self.cpu_time.filter(|_| !judgement.account_cpu),
            seccomp: judgement.seccomp.is_some(),
            reaped_at_once: false,
            makes_no_siblings: judgement.seccomp.as_ref().is_some_and(Seccomp::is_default),
            left_to_parent: false,
            writes_file: self.output_limit.is_some() && streams.largest_file().is_some(),
            wall_time_grace: self.wall_time_grace,
            stop_signal: self.program.stop_signal.unwrap_or(libc::SIGTERM),
            before: Stats::default(),
        }
    }

    /// Returns the limit of what the program writes.
    pub(super) fn limit_of_output(&self) -> Option<OutputLimit> {
        self.output_limit.map(|bytes| OutputLimit { bytes, cuts: self.output_cut })
    }
}
