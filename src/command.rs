//! A program for a prepared sandbox, or for one of a pool, with its streams.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use crate::cgroup::Subgroup;
use crate::error::Problem;
use crate::program::{Attributes, Invocation, IoPriority, Program, Resource, Scheduler};
use crate::security::{Capabilities, Labels, Modules, Privileges, RemoteSupervisor};
use crate::stdio::{Fds, Stdio};

/// A program for a prepared policy: [`Prepared::with`](crate::Prepared::with),
/// [`Pool::spawn`](crate::Pool::spawn). Both also take a path or a name instead: `"true"` is
/// `Command::new("true")`.
///
/// The policy fills in what the command leaves open: the environment begins as that of the policy's
/// own program, and the working directory and the streams are those of the policy. The descriptors
/// of the policy come along. The arguments are those of the command alone.
///
/// ```
/// use ringfence::{Command, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let prepared = Sandbox::new().env("WHO", "you").prepare()?;
/// let greeting = Command::new("sh").args(["-c", "echo $WHO, $WHAT"]).env("WHAT", "hello");
/// let output = prepared.with(greeting).output()?;
/// assert_eq!(output.stdout, b"you, hello\n");
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Command {
    program: Program,
    rights: Rights,
    pub(crate) streams: [Option<Stdio>; 3],
    pub(crate) fds: Fds,
    /// Nobody here reaps the program once its handle is detached.
    left_to_parent: bool,
    /// The caller's own streams become the program's user's.
    gives_streams: bool,
    /// The supervisor of the filter of a further program, in another process.
    supervisor: Option<RemoteSupervisor>,
}

/// The rights of a further program that are not those of its sandbox.
#[derive(Debug, Clone, Default)]
struct Rights {
    capabilities: Option<Capabilities>,
    no_new_privs: Option<bool>,
    labels: Labels,
    /// The processors on which the program runs until it is in the control group.
    first_affinity: Option<BTreeSet<usize>>,
    /// The program begins in its working directory also if its own user may not enter that.
    cwd_ahead: bool,
    /// The control groups that the program enters instead of that of the sandbox.
    subgroups: Vec<Subgroup>,
}

impl Command {
    /// Makes a command for `program`: a path inside the sandbox, or a bare name that is looked up
    /// in the sandbox's PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = Program { command: Some(program.as_ref().to_owned()), ..Program::default() };
        Command {
            program,
            rights: Rights::default(),
            streams: [None, None, None],
            fds: Fds::new(),
            left_to_parent: false,
            gives_streams: false,
            supervisor: None,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.program.args.push(arg.as_ref().to_owned());
        self
    }

    /// Sets the first word of the program's argument list, which else is the command as it was
    /// given. Many programs take it as their name: busybox, shells (`-sh` is a login shell).
    pub fn argv0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.program.argv0 = Some(name.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.program.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the program's environment, which begins as that of the policy.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.program.env.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Sets variables in the program's environment.
    pub fn envs(self, vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Self {
        vars.into_iter().fold(self, |command, (name, value)| command.env(name, value))
    }

    /// Removes a variable from the program's environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.program.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Begins with an empty environment instead of the policy's, and removes all variables that
    /// were set so far.
    pub fn env_clear(mut self) -> Self {
        self.program.env_clear = true;
        self.program.env.clear();
        self
    }

    /// Sets the working directory, as a path inside. Without this call, the policy's holds.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.program.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets the standard input of the program.
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[0] = Some(stdio.into());
        self
    }

    /// Sets the standard output of the program.
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[1] = Some(stdio.into());
        self
    }

    /// Sets the standard error of the program.
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Self {
        self.streams[2] = Some(stdio.into());
        self
    }

    /// Passes `fd` on as descriptor `number`, at least 3, beside those of the policy
    /// ([`Sandbox::fd`](crate::Sandbox::fd)). Only this program gets it: a sandbox of a
    /// [`Pool`](crate::Pool) does not hold it while it waits. The descriptor of the command stays
    /// open, so a command that is cloned passes the same one on again.
    ///
    /// # Errors
    ///
    /// The spawn fails with [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a number that is
    /// below 3, above 65,535, or taken by another descriptor of the command or the policy. It fails
    /// with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for more descriptors than
    /// `RLIMIT_NOFILE` allows, and for a directory if each sandbox of the policy has an id of its
    /// own ([`user_ns`](crate::Sandbox::user_ns)): files made there would belong to the next
    /// sandbox with that id. The policy can pass a directory.
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// use ringfence::{Command, Sandbox};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prepared = Sandbox::new().prepare()?;
    /// let (question, mut writer) = std::io::pipe()?;
    /// writer.write_all(b"what?")?;
    /// drop(writer);
    /// let command = Command::new("sh").args(["-c", "cat <&3"]).fd(3, question);
    /// assert_eq!(prepared.with(command).output()?.stdout, b"what?");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fd(mut self, number: RawFd, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push((number, Arc::new(fd.into())));
        self
    }

    /// Returns the problems of a command that execve(2) cannot take, or that no kernel could give
    /// these rights.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = self.program.invalid();
        problems.extend(self.program.attributes.invalid(false));
        problems.extend(self.rights.capabilities.iter().flat_map(Capabilities::invalid));
        problems.extend(self.rights.labels.invalid());
        problems.extend(self.rights.labels.unsupported(Modules::default()));
        problems.extend(self.rights.subgroups.iter().filter_map(Subgroup::invalid));
        problems
    }

    /// Returns the problems of a command for a sandbox that has its rights before it has a program.
    pub(crate) fn with_rights(&self) -> Vec<Problem> {
        let (program, rights) = (&self.program, &self.rights);
        let said = [
            ("user", program.user.is_some()),
            ("groups", program.groups.is_some()),
            ("umask", program.umask.is_some()),
            ("rlimit", !program.rlimits.is_empty()),
            ("scheduling", program.attributes != Attributes::default()),
            ("capabilities", rights.capabilities.is_some()),
            ("no_new_privs", rights.no_new_privs.is_some()),
            ("label", !rights.labels.is_empty()),
            ("subgroup", !rights.subgroups.is_empty()),
        ];
        let reason = "the policy has been prepared with rights of its own, and only a further program can have others";
        let remedy = "set it in the policy, or start the program with exec()";
        let problem = |(name, _)| Problem::unsupported(name, reason, remedy);
        said.into_iter().filter(|(_, is_said)| *is_said).map(problem).collect()
    }

    /// Writes what the command says over the program of the sandbox. A user comes with the groups
    /// that the command names, or with none.
    pub(crate) fn adjust(&self, program: &mut Program) {
        let said = &self.program;
        if said.user.is_some() {
            program.user = said.user;
            program.groups = Some(said.groups.clone().unwrap_or_default());
        } else if said.groups.is_some() {
            program.groups.clone_from(&said.groups);
        }
        program.umask = said.umask.or(program.umask);
        for limit in &said.rlimits {
            program.rlimits.retain(|(resource, ..)| *resource != limit.0);
            program.rlimits.push(*limit);
        }
        let (to, from) = (&mut program.attributes, &said.attributes);
        to.oom_score_adj = from.oom_score_adj.or(to.oom_score_adj);
        to.scheduler = from.scheduler.or(to.scheduler);
        to.io_priority = from.io_priority.or(to.io_priority);
        if from.cpu_affinity.is_some() {
            to.cpu_affinity.clone_from(&from.cpu_affinity);
        }
    }

    /// Writes what the command says over the privileges of the sandbox.
    pub(crate) fn adjust_privileges(&self, privileges: &mut Privileges) {
        let Rights { capabilities, no_new_privs, labels, .. } = &self.rights;
        if capabilities.is_some() {
            privileges.capabilities.clone_from(capabilities);
        }
        privileges.no_new_privs = no_new_privs.unwrap_or(privileges.no_new_privs);
        if labels.apparmor.is_some() {
            privileges.labels.apparmor.clone_from(&labels.apparmor);
        }
        if labels.selinux.is_some() {
            privileges.labels.selinux.clone_from(&labels.selinux);
        }
    }

    pub(crate) fn says_user(&self) -> bool {
        self.program.user.is_some()
    }

    /// Returns the supplementary groups that the command names.
    pub(crate) fn said_groups(&self) -> Option<&[u32]> {
        self.program.groups.as_deref()
    }

    pub(crate) fn says_capabilities(&self) -> bool {
        self.rights.capabilities.is_some()
    }

    pub(crate) fn says_label(&self) -> bool {
        !self.rights.labels.is_empty()
    }

    pub(crate) fn said_no_new_privs(&self) -> Option<bool> {
        self.rights.no_new_privs
    }

    pub(crate) fn gives_streams(&self) -> bool {
        self.gives_streams
    }

    pub(crate) fn is_left_to_parent(&self) -> bool {
        self.left_to_parent
    }

    pub(crate) fn first_affinity(&self) -> Option<&BTreeSet<usize>> {
        self.rights.first_affinity.as_ref()
    }

    pub(crate) fn subgroups(&self) -> &[Subgroup] {
        &self.rights.subgroups
    }

    /// Returns the working directory, if it is entered before the program gets its user.
    pub(crate) fn cwd_ahead(&self) -> Option<&Path> {
        self.program.cwd.as_deref().filter(|_| self.rights.cwd_ahead)
    }

    /// Enters the working directory before the program gets its user.
    #[cfg(feature = "oci")]
    pub(crate) fn with_cwd_ahead(mut self) -> Self {
        self.rights.cwd_ahead = true;
        self
    }

    pub(crate) fn supervisor(&self) -> Option<&RemoteSupervisor> {
        self.supervisor.as_ref()
    }

    /// Has the questions of the filter of a further program answered by this supervisor.
    #[cfg(feature = "oci")]
    pub(crate) fn supervised(mut self, supervisor: RemoteSupervisor) -> Self {
        self.supervisor = Some(supervisor);
        self
    }

    /// Gives the caller's own streams to the program's user, who can open them by name then.
    #[cfg(feature = "oci")]
    pub(crate) fn with_streams_given(mut self) -> Self {
        self.gives_streams = true;
        self
    }

    /// Leaves the program to the process that becomes its parent when this one ends.
    #[cfg(feature = "oci")]
    pub(crate) fn left_to_parent(mut self) -> Self {
        self.left_to_parent = true;
        self
    }

    /// Runs the program on these processors until it is in the control group, whose own hold then.
    #[cfg(feature = "oci")]
    pub(crate) fn with_first_affinity(mut self, processors: BTreeSet<usize>) -> Self {
        self.rights.first_affinity = Some(processors);
        self
    }

    /// Returns the invocation of this command, with the policy's own invocation as the base.
    pub(crate) fn invocation(&self, policy: &Invocation) -> Invocation {
        self.program.invocation_within(policy)
    }
}

/// # Rights of a further program
///
/// A program of [`Child::exec`](crate::Child::exec) and [`Attached::exec`](crate::Attached::exec)
/// has the rights of the sandbox's own program, but for what is said here. That may also be more:
/// it is the caller's authority which the program gets then, as far as the kernel lets the caller
/// give it (in a sandbox with a user namespace, that is everything inside of that). The filter, the
/// rules of Landlock, the namespaces and the root are the sandbox's in any case, and the control
/// group is that of the sandbox or one below.
///
/// No process of the sandbox sees the new program before that has its rights, and no others. But
/// from then on a process inside that may trace, with `CAP_SYS_PTRACE`, may take the program over
/// with all that it has; and programs, libraries and terminals are those that the sandbox's
/// programs have left there.
///
/// A [`Prepared`](crate::Prepared) and a [`Pool`](crate::Pool) refuse a command that says any of
/// this ([`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported)): their policies have been
/// compiled.
///
/// ```
/// use ringfence::{Capabilities, Command, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// # let root = nix::unistd::geteuid().is_root();
/// # let sandbox = if root { Sandbox::new() } else { Sandbox::new().user_ns() };
/// let child = sandbox.pid_ns().command("sleep").arg("60").spawn()?;
/// let script = Command::new("sh").args(["-c", "umask; grep CapEff /proc/self/status"]);
/// let output = child.exec_output(script.umask(0o077).capabilities(Capabilities::none()))?;
/// assert_eq!(output.stdout, b"0077\nCapEff:\t0000000000000000\n");
/// # Ok(())
/// # }
/// ```
impl Command {
    /// Sets the user and the group of the program, as ids inside. The supplementary groups are
    /// dropped, unless [`groups`](Command::groups) sets some; in a user namespace that forbids
    /// setgroups(2), they stay the caller's. uid 0 gets the capabilities that the bounding set of
    /// the sandbox allows, unless [`capabilities`](Command::capabilities) says otherwise.
    ///
    /// ```no_run
    /// use ringfence::{Command, Sandbox};
    ///
    /// let mut child = Sandbox::new().user(1000, 1000).command("server").spawn()?;
    /// // A repair by root of the same sandbox, with the right for that and no other.
    /// let repair = Command::new("chown").args(["1000", "/var/lib/server"]).user(0, 0);
    /// child.exec_output(repair)?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.program.user = Some((uid, gid));
        self
    }

    /// Sets the supplementary groups of the program: setgroups(2). Where the user namespace of the
    /// sandbox forbids that, groups are an error.
    pub fn groups(mut self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.program.groups = Some(gids.into_iter().collect());
        self
    }

    /// Sets the umask: the permission bits that new files do not get. umask(2).
    pub fn umask(mut self, mask: u32) -> Self {
        self.program.umask = Some(mask & 0o777);
        self
    }

    /// Sets a limit of the process: setrlimit(2). `u64::MAX` is no limit. A hard limit above the
    /// caller's needs `CAP_SYS_RESOURCE` on the host.
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        self.program.rlimits.retain(|(known, ..)| *known != resource);
        self.program.rlimits.push((resource, soft, hard));
        self
    }

    /// Sets the five capability sets, which may have more than those of the sandbox's program.
    ///
    /// `CAP_SYS_ADMIN` is more than that program could have in a user namespace of root's: the flags
    /// that mounts have on the host are not locked, as the sandbox was made without it.
    pub fn capabilities(mut self, sets: Capabilities) -> Self {
        self.rights.capabilities = Some(sets);
        self
    }

    /// Sets whether an exec of the program can give privileges, as set-user-ID files do
    /// (`PR_SET_NO_NEW_PRIVS`, prctl(2)). Without this call it is as in the sandbox, and without an
    /// [`init`](crate::Sandbox::init) none gives any. `false` in a sandbox with a filter needs
    /// `CAP_SYS_ADMIN` for the installation of the filter; the program does not have it.
    pub fn no_new_privs(mut self, wanted: bool) -> Self {
        self.rights.no_new_privs = Some(wanted);
        self
    }

    /// Runs the program under this profile of AppArmor, as
    /// [`Sandbox::apparmor_profile`](crate::Sandbox::apparmor_profile).
    pub fn apparmor_profile(mut self, name: impl Into<String>) -> Self {
        self.rights.labels.apparmor = Some(name.into());
        self
    }

    /// Runs the program with this label of SELinux, as
    /// [`Sandbox::selinux_label`](crate::Sandbox::selinux_label).
    pub fn selinux_label(mut self, label: impl Into<String>) -> Self {
        self.rights.labels.selinux = Some(label.into());
        self
    }

    /// Sets how readily the kernel takes the program when memory runs out, as
    /// [`Sandbox::oom_score_adj`](crate::Sandbox::oom_score_adj).
    pub fn oom_score_adj(mut self, badness: i32) -> Self {
        self.program.attributes.oom_score_adj = Some(badness);
        self
    }

    /// Sets how the program is scheduled, as [`Sandbox::scheduler`](crate::Sandbox::scheduler).
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.program.attributes.scheduler = Some(scheduler);
        self
    }

    /// Sets the priority of the program's input and output: ioprio_set(2).
    pub fn io_priority(mut self, priority: IoPriority) -> Self {
        self.program.attributes.io_priority = Some(priority);
        self
    }

    /// Starts the program in a control group below that of the sandbox, which has to exist by then:
    /// the program is held by the limits of both. `path` is counted from the sandbox's group on,
    /// with a `/` at its beginning as well; `..` is refused, and no link is followed. cgroups(7).
    ///
    /// On a host with v1 hierarchies the group has to exist in each of them. In v2 beside them, the
    /// program is in the sandbox's own group if there is none of that name.
    ///
    /// Without this call the program starts in the sandbox's own group. Where that is a v2 group
    /// which has passed controllers on, and takes no process for that, the program starts in the
    /// group of the sandbox's first process. A path of `/` is the sandbox's own group and no other.
    pub fn subgroup(mut self, path: impl AsRef<Path>) -> Self {
        self.rights.subgroups.push(Subgroup { controllers: None, path: path.as_ref().to_owned() });
        self
    }

    /// Does the same in the v1 hierarchies of these controllers alone, as in `cpu,cpuacct`. In the
    /// others, the program starts in the sandbox's own group, unless a further call says otherwise.
    pub fn subgroup_of(mut self, controllers: impl Into<String>, path: impl AsRef<Path>) -> Self {
        let controllers = Some(controllers.into());
        self.rights.subgroups.push(Subgroup { controllers, path: path.as_ref().to_owned() });
        self
    }

    /// Sets the processors on which the program runs, as
    /// [`Sandbox::cpu_affinity`](crate::Sandbox::cpu_affinity).
    pub fn cpu_affinity(mut self, processors: impl IntoIterator<Item = usize>) -> Self {
        self.program.attributes.cpu_affinity = Some(processors.into_iter().collect());
        self
    }
}

impl<P: AsRef<OsStr>> From<P> for Command {
    fn from(program: P) -> Self {
        Command::new(program)
    }
}

impl From<&Command> for Command {
    fn from(command: &Command) -> Self {
        command.clone()
    }
}
