//! The setters of the program's scheduling, memory placement and settings of the kernel.

use super::Sandbox;
use crate::program::{IoPriority, MemoryPolicy, Personality, Scheduler};

/// # Scheduling, memory placement, settings of the kernel
///
/// Programs of [`Child::exec`](crate::Child::exec) have the same. What is not set is the caller's.
impl Sandbox {
    /// Sets how readily the kernel takes the program when memory runs out, from -1000 (never) to
    /// 1000: `oom_score_adj`, proc_pid_oom_score_adj(5). A number below the one that the caller was
    /// given needs CAP_SYS_RESOURCE on the host; without it the spawn fails with EACCES. The
    /// program can raise its number, and take that back.
    ///
    /// ```
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = ringfence::Sandbox::new().oom_score_adj(500);
    /// let output = sandbox.command("cat").arg("/proc/self/oom_score_adj").output()?;
    /// assert_eq!(output.stdout, b"500\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn oom_score_adj(mut self, badness: i32) -> Self {
        self.policy.program.attributes.oom_score_adj = Some(badness);
        self
    }

    /// Sets how the program is scheduled: sched_setattr(2). A limit of processor time for the whole
    /// sandbox is [`cpu_limit`](Sandbox::cpu_limit).
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.policy.program.attributes.scheduler = Some(scheduler);
        self
    }

    /// Sets the priority of the program's input and output: ioprio_set(2).
    pub fn io_priority(mut self, priority: IoPriority) -> Self {
        self.policy.program.attributes.io_priority = Some(priority);
        self
    }

    /// Sets the processors on which the program runs, by their numbers: sched_setaffinity(2). The
    /// program can change that; [`cpuset`](Sandbox::cpuset) is a limit that it cannot change. The
    /// kernel leaves out processors that the program's cpuset has not; if none is left, the spawn
    /// fails with EINVAL.
    ///
    /// ```
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let output = ringfence::Sandbox::new().cpu_affinity([0]).command("nproc").output()?;
    /// assert_eq!(output.stdout, b"1\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn cpu_affinity(mut self, processors: impl IntoIterator<Item = usize>) -> Self {
        self.policy.program.attributes.cpu_affinity = Some(processors.into_iter().collect());
        self
    }

    /// Sets the memory nodes from which the program's memory comes: set_mempolicy(2). A kernel
    /// without NUMA answers ENOSYS. The limit that the program cannot change is
    /// [`cpuset_mems`](Sandbox::cpuset_mems).
    pub fn memory_policy(mut self, policy: MemoryPolicy) -> Self {
        self.policy.program.attributes.memory_policy = Some(policy);
        self
    }

    /// Sets the execution domain of the program: personality(2). An empty set is plain Linux, with
    /// addresses that differ in each run.
    pub fn personality(mut self, personality: Personality) -> Self {
        self.policy.program.attributes.personality = Some(personality);
        self
    }

    /// Sets a setting of the kernel in a namespace of the sandbox's own, by its name in sysctl(8):
    /// `net.*` needs [`net_ns`](Sandbox::net_ns); `fs.mqueue.*` and those of System V IPC
    /// (`kernel.shmmax`, `kernel.sem`, …) need [`ipc_ns`](Sandbox::ipc_ns). Anything else would be
    /// the whole machine's, and is refused. So is every setting where a user namespace is joined. A
    /// later call for a name replaces an earlier one.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = ringfence::Sandbox::new().net_ns().sysctl("net.ipv4.ping_group_range", "0 2147483647");
    /// # drop(sandbox.status()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.policy.namespaces.sysctls.insert(name.into(), value.into());
        self
    }
}
