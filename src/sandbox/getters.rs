//! Getters of the builder, like those of `std::process::Command`.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::Sandbox;
use crate::cgroup::Limits;
use crate::units::Bytes;

/// # Getters
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
    /// Returns the program: the one of [`command`](Sandbox::command), else the default of an image,
    /// else `/bin/sh`.
    pub fn get_command(&self) -> &OsStr {
        self.policy.program.command_line().0
    }

    /// Returns the arguments of the program, without its name.
    pub fn get_args(&self) -> impl Iterator<Item = &OsStr> {
        self.policy.program.command_line().1.into_iter()
    }

    /// Returns the variables that were set, each with its value, and those that were removed, each
    /// with `None`.
    pub fn get_envs(&self) -> impl Iterator<Item = (&OsStr, Option<&OsStr>)> {
        self.policy.program.env.iter().map(|(name, value)| (name.as_os_str(), value.as_deref()))
    }

    /// Returns the working directory, if one was set.
    pub fn get_cwd(&self) -> Option<&Path> {
        self.policy.program.cwd.as_deref()
    }

    /// Returns the limits of the control group.
    ///
    /// ```
    /// use ringfence::{Bytes, Limits, Sandbox};
    ///
    /// let sandbox = Sandbox::new().memory_limit(Bytes::mib(64));
    /// assert_eq!(sandbox.get_limits(), &Limits::new().memory(Bytes::mib(64)));
    /// ```
    pub fn get_limits(&self) -> &Limits {
        &self.policy.limits
    }

    /// Returns the limit of [`wall_time`](Sandbox::wall_time).
    pub fn get_wall_time(&self) -> Option<Duration> {
        self.policy.wall_time
    }

    /// Returns the limit of [`cpu_time`](Sandbox::cpu_time).
    pub fn get_cpu_time(&self) -> Option<Duration> {
        self.policy.cpu_time
    }

    /// Returns the limit of [`output_limit`](Sandbox::output_limit).
    pub fn get_output_limit(&self) -> Option<Bytes> {
        self.policy.output_limit.map(Bytes::new)
    }
}
