//! What a builder has been told so far, as `std::process::Command` tells it.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::Sandbox;
use crate::cgroup::Limits;
use crate::units::Bytes;

/// # What was asked for
///
/// ```
/// use ringfence::{Bytes, Limits, Sandbox};
///
/// let small = Limits::new().memory(Bytes::mib(64)).pids(16);
/// let sandbox = Sandbox::new().command("sort").arg("-u").limits(small.clone());
/// assert_eq!(sandbox.get_command(), "sort");
/// assert_eq!(sandbox.get_limits(), &small);
/// ```
impl Sandbox {
    /// The program: what [`command`](Sandbox::command) named, else what an image executes by default, else `/bin/sh`.
    pub fn get_command(&self) -> &OsStr {
        self.policy.program.words().0
    }

    /// The arguments of the program, without its name.
    pub fn get_args(&self) -> impl Iterator<Item = &OsStr> {
        self.policy.program.words().1.into_iter()
    }

    /// The variables that were set, each with its value, and those that were taken away, each with `None`.
    pub fn get_envs(&self) -> impl Iterator<Item = (&OsStr, Option<&OsStr>)> {
        self.policy.program.env.iter().map(|(name, value)| (name.as_os_str(), value.as_deref()))
    }

    /// The working directory, if it was named.
    pub fn get_cwd(&self) -> Option<&Path> {
        self.policy.program.cwd.as_deref()
    }

    /// The limits of the control group.
    pub fn get_limits(&self) -> &Limits {
        &self.policy.limits
    }

    /// The limit of [`wall_time`](Sandbox::wall_time).
    pub fn get_wall_time(&self) -> Option<Duration> {
        self.policy.wall_time
    }

    /// The limit of [`cpu_time`](Sandbox::cpu_time).
    pub fn get_cpu_time(&self) -> Option<Duration> {
        self.policy.cpu_time
    }

    /// The limit of [`output_limit`](Sandbox::output_limit).
    pub fn get_output_limit(&self) -> Option<Bytes> {
        self.policy.output_limit.map(Bytes::new)
    }
}
