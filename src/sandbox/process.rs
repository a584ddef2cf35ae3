//! The setters for the program's process: who it is, how it is scheduled, what it inherits.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::Sandbox;
use crate::program::{IoPriority, MemoryPolicy, Personality, Scheduler, Session};

/// # The process
impl Sandbox {
    /// Sets the user and the group of the program, as ids inside. The supplementary groups are
    /// dropped, unless [`groups`](Sandbox::groups) sets some.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().user_ns().user(1000, 1000);
    /// assert_eq!(sandbox.args(["-c", "id -u; id -g"]).output()?.stdout, b"1000\n1000\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.policy.program.user = Some((uid, gid));
        self
    }

    /// Sets the supplementary groups of the program. setgroups(2).
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().user(1000, 1000).groups([27, 100]);
    /// assert_eq!(sandbox.command("id").arg("-G").output()?.stdout, b"1000 27 100\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn groups(mut self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.policy.program.groups = Some(gids.into_iter().collect());
        self
    }

    /// Sets the signal with which [`Child::stop`](crate::Child::stop) asks the program to end;
    /// SIGTERM by default.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use ringfence::Sandbox;
    ///
    /// // nginx finishes the requests that it has on SIGQUIT.
    /// let mut child = Sandbox::new().command("nginx").stop_signal(libc::SIGQUIT).spawn()?;
    /// child.stop(Duration::from_secs(5))?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn stop_signal(mut self, signal: i32) -> Self {
        self.policy.program.stop_signal = Some(signal);
        self
    }

    /// Sets the umask: the permission bits that new files do not get. The default is the caller's
    /// umask. umask(2).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::new().umask(0o027).args(["-c", "umask"]).output()?;
    /// assert_eq!(output.stdout, b"0027\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn umask(mut self, mask: u32) -> Self {
        self.policy.program.umask = Some(mask & 0o777);
        self
    }

    /// Sets the session and the process group of the program: see [`Session`].
    ///
    /// ```
    /// use ringfence::{Sandbox, Session};
    ///
    /// // The first field after the name is the state, then come the parent, the group and the session.
    /// let script = "set -- $(cut -d')' -f2 /proc/$$/stat); [ $3 = $$ ] && [ $4 = $$ ]";
    /// let sandbox = Sandbox::new().session(Session::New).args(["-c", script]);
    /// assert!(sandbox.status()?.success());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn session(mut self, session: Session) -> Self {
        self.policy.program.session = Some(session);
        self
    }

    /// Passes `fd` on as descriptor `number`, at least 3. The program has no other open descriptor
    /// above stderr, except for those of its [`Command::fd`](crate::Command::fd).
    ///
    /// ```
    /// use std::io::{Read, pipe};
    ///
    /// use ringfence::Sandbox;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut reader, writer) = pipe()?;
    /// let mut child = Sandbox::new().fd(3, writer).args(["-c", "echo result >&3"]).spawn()?;
    /// child.wait()?;
    /// let mut line = [0; 7];
    /// reader.read_exact(&mut line)?;
    /// assert_eq!(&line, b"result\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fd(mut self, number: RawFd, fd: impl Into<OwnedFd>) -> Self {
        self.policy.stdio.extra.push((number, Arc::new(fd.into())));
        self
    }

    /// Sets whether a small init runs as pid 1 above the program, reaps orphans and passes signals
    /// on; needs [`pid_ns`](Sandbox::pid_ns).
    ///
    /// The program is then pid 2, and an ordinary process. Without an init, the program is pid 1,
    /// and ignores every signal from inside for which it has set no action, that of its own
    /// abort(3) included.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # let sandbox = Sandbox::new();
    /// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    /// let output = sandbox.pid_ns().init(true).args(["-c", "echo $$"]).output()?;
    /// assert_eq!(output.stdout, b"2\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn init(mut self, wanted: bool) -> Self {
        self.policy.program.init = wanted;
        self
    }

    /// Sets whether the program is killed when the caller's process ends without dropping the
    /// handle, for instance by SIGKILL. The program is killed by default. For a program that shall
    /// outlive its owner, give up the handle by [`Child::detach`](crate::Child::detach).
    ///
    /// The kernel kills the program by its parent-death signal, prctl(2), which the program could
    /// clear. A program that tries to survive needs an [`init`](Sandbox::init), whose own end also
    /// ends the pid namespace.
    pub fn die_with_owner(mut self, dies: bool) -> Self {
        self.policy.program.outlive_owner = !dies;
        self
    }

    /// Sets the most time that the setup may take before the spawn fails; 30 seconds by default.
    ///
    /// The calling thread itself looks up the paths of the host that the policy names. A file
    /// system that does not answer, such as one of FUSE or NFS whose server is gone, can block the
    /// thread for longer.
    ///
    /// ```no_run
    /// use ringfence::{ErrorKind, Sandbox};
    /// use std::time::Duration;
    ///
    /// let sandbox = Sandbox::new().rootfs("/net/slow").setup_timeout(Duration::from_secs(2));
    /// match sandbox.command("true").spawn() {
    ///     Err(error) if error.kind() == ErrorKind::Timeout => println!("the server is silent"),
    ///     other => drop(other?),
    /// }
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn setup_timeout(mut self, timeout: Duration) -> Self {
        self.policy.setup_timeout = Some(timeout);
        self
    }

    /// Sets whether a spawn measures its phases: [`Child::timings`](crate::Child::timings). It does
    /// not by default. The spawns of a [`Pool`](crate::Pool) have nothing to set up, and never have
    /// timings.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let child = Sandbox::new().timings(true).command("true").spawn()?;
    /// let timings = child.timings().expect("they were asked for");
    /// assert!(timings.total() > std::time::Duration::ZERO);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn timings(mut self, wanted: bool) -> Self {
        self.policy.timings = wanted;
        self
    }
}

/// # Scheduling, memory placement, settings of the kernel
///
/// Programs of [`Child::exec`](crate::Child::exec) have the same. A setting that is not made is
/// the caller's.
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
    ///
    /// ```
    /// use ringfence::{Sandbox, Scheduler};
    ///
    /// let sandbox = Sandbox::new().scheduler(Scheduler::batch(10)).command("true");
    /// assert!(sandbox.status()?.success());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.policy.program.attributes.scheduler = Some(scheduler);
        self
    }

    /// Sets the priority of the program's input and output: ioprio_set(2).
    ///
    /// ```
    /// use ringfence::{IoPriority, Sandbox};
    ///
    /// // The disk is the sandbox's only while nobody else wants it.
    /// assert!(Sandbox::new().io_priority(IoPriority::idle()).command("true").status()?.success());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
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

    /// Sets a setting of the kernel in a namespace of the sandbox, by its name in sysctl(8):
    /// `net.*` needs [`net_ns`](Sandbox::net_ns); `fs.mqueue.*` and those of System V IPC
    /// (`kernel.shmmax`, `kernel.sem`, …) need [`ipc_ns`](Sandbox::ipc_ns); or a namespace of that
    /// kind that is joined and not the caller's own. Anything else would be the whole machine's,
    /// and is refused. So is a setting of a new namespace where a user namespace is joined. A later
    /// call for a name replaces an earlier one.
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
