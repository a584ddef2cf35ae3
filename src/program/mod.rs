//! The program itself: its path and arguments, its user, its environment and its limits.
//!
//! Stage: inside, on the new root, just before the exec. The user changes after everything that
//! needs privileges, the working directory after the user, and the descriptors and limits of the
//! process change last.

mod attributes;
mod scheduler;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::resource;

pub(crate) use attributes::Attributes;
pub use attributes::{IoPriority, MemoryPolicy, MemoryPolicyFlags, Personality};
pub use scheduler::{Scheduler, SchedulerFlags};

use crate::error::{Problem, Step};
use crate::plan::{Added, Arg, Exec, ExecFlags, Plan, Slot, has_nul};

/// The directories that are searched for the program when its environment has no PATH.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The program of a sandbox that names none.
const DEFAULT_COMMAND: &str = "/bin/sh";

/// A resource of a process that setrlimit(2) limits.
///
/// ```
/// use ringfence::{Resource, Sandbox};
///
/// let sandbox = Sandbox::new().rlimit(Resource::OpenFiles, 16, 16).rlimit(Resource::Core, 0, 0);
/// let output = sandbox.command("sh").args(["-c", "ulimit -n; ulimit -c"]).output()?;
/// assert_eq!(output.stdout, b"16\n0\n");
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Address space, in bytes (`RLIMIT_AS`).
    AddressSpace,
    /// Size of a core file, in bytes (`RLIMIT_CORE`).
    Core,
    /// Processor time of one process, in seconds (`RLIMIT_CPU`).
    Cpu,
    /// Data segment, in bytes (`RLIMIT_DATA`).
    Data,
    /// Size of a file that is written, in bytes (`RLIMIT_FSIZE`).
    FileSize,
    /// Locks of files; Linux has not counted them since 2.4.25 (`RLIMIT_LOCKS`).
    Locks,
    /// Locked memory, in bytes (`RLIMIT_MEMLOCK`).
    MemLock,
    /// POSIX message queues, in bytes (`RLIMIT_MSGQUEUE`).
    MessageQueue,
    /// Ceiling of the nice value, as 20 - nice (`RLIMIT_NICE`).
    Nice,
    /// One more than the highest descriptor number (`RLIMIT_NOFILE`).
    OpenFiles,
    /// Processes and threads of the real user (`RLIMIT_NPROC`).
    Processes,
    /// Ceiling of the realtime priority (`RLIMIT_RTPRIO`).
    RealtimePriority,
    /// Realtime processor time without a blocking call, in microseconds (`RLIMIT_RTTIME`).
    RealtimeTime,
    /// Resident memory, in bytes; Linux has not limited it since 2.4.30 (`RLIMIT_RSS`).
    ResidentSet,
    /// Queued signals (`RLIMIT_SIGPENDING`).
    SignalsPending,
    /// Stack of the first thread, in bytes (`RLIMIT_STACK`).
    Stack,
}

impl Resource {
    fn raw(self) -> resource::Resource {
        match self {
            Resource::AddressSpace => resource::Resource::RLIMIT_AS,
            Resource::Core => resource::Resource::RLIMIT_CORE,
            Resource::Cpu => resource::Resource::RLIMIT_CPU,
            Resource::Data => resource::Resource::RLIMIT_DATA,
            Resource::FileSize => resource::Resource::RLIMIT_FSIZE,
            Resource::Locks => resource::Resource::RLIMIT_LOCKS,
            Resource::MemLock => resource::Resource::RLIMIT_MEMLOCK,
            Resource::MessageQueue => resource::Resource::RLIMIT_MSGQUEUE,
            Resource::Nice => resource::Resource::RLIMIT_NICE,
            Resource::OpenFiles => resource::Resource::RLIMIT_NOFILE,
            Resource::Processes => resource::Resource::RLIMIT_NPROC,
            Resource::RealtimePriority => resource::Resource::RLIMIT_RTPRIO,
            Resource::RealtimeTime => resource::Resource::RLIMIT_RTTIME,
            Resource::ResidentSet => resource::Resource::RLIMIT_RSS,
            Resource::SignalsPending => resource::Resource::RLIMIT_SIGPENDING,
            Resource::Stack => resource::Resource::RLIMIT_STACK,
        }
    }

    /// Returns the kernel's number.
    pub(crate) fn number(self) -> u32 {
        self.raw() as u32
    }

    /// Returns the resource of this number of the kernel's.
    pub(crate) fn of_number(number: u32) -> Option<Self> {
        const ALL: [Resource; 16] = [
            Resource::AddressSpace,
            Resource::Core,
            Resource::Cpu,
            Resource::Data,
            Resource::FileSize,
            Resource::Locks,
            Resource::MemLock,
            Resource::MessageQueue,
            Resource::Nice,
            Resource::OpenFiles,
            Resource::Processes,
            Resource::RealtimePriority,
            Resource::RealtimeTime,
            Resource::ResidentSet,
            Resource::SignalsPending,
            Resource::Stack,
        ];
        ALL.into_iter().find(|resource| resource.number() == number)
    }

    /// Returns the caller's own soft and hard limit.
    pub(crate) fn caller_limits(self) -> Option<(u64, u64)> {
        resource::getrlimit(self.raw()).ok()
    }
}

/// The session and the process group of the program: setsid(2), setpgid(2).
///
/// ```
/// use ringfence::{Sandbox, Session};
///
/// let sandbox = Sandbox::new().session(Session::New).command("sh");
/// let leads = "read pid name state parent group session rest < /proc/$$/stat; [ $session = $$ ]";
/// assert!(sandbox.args(["-c", leads]).status()?.success());
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Session {
    /// The caller's session and process group: terminal signals reach both processes, and a program
    /// that signals its own group signals the caller.
    Inherit,
    /// A new process group in the caller's session.
    NewGroup,
    /// A new session, without a controlling terminal unless the program has one of its own
    /// ([`Stdio::pty`](crate::Stdio::pty)). The default with `pid_ns`, and with such a terminal.
    New,
}

/// The program's part of a policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub(crate) command: Option<OsString>,
    /// There is no program, and the command is never executed.
    pub(crate) is_absent: bool,
    pub(crate) args: Vec<OsString>,
    /// The first word of the program's argument list, where it is not the command.
    pub(crate) argv0: Option<OsString>,
    /// The command of an image, for a sandbox without a program of its own: the words that stay
    /// (the entrypoint), and the words that arguments replace.
    pub(crate) default: (Vec<OsString>, Vec<OsString>),
    pub(crate) stop_signal: Option<i32>,
    pub(crate) env_clear: bool,
    /// The variables that were set, each with its value, and those that were removed, with `None`.
    pub(crate) env: BTreeMap<OsString, Option<OsString>>,
    pub(crate) cwd: Option<PathBuf>,
    /// The working directory is made where it is missing.
    pub(crate) make_cwd: bool,
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) umask: Option<u32>,
    pub(crate) attributes: Attributes,
    pub(crate) rlimits: Vec<(Resource, u64, u64)>,
    pub(crate) session: Option<Session>,
    pub(crate) init: bool,
    pub(crate) outlive_owner: bool,
}

impl Program {
    /// Returns the problems of a program that the kernel cannot take.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let words = self.command.iter().chain(&self.argv0).chain(&self.args).find(|word| has_nul(word));
        let variable = self.env.iter().find(|(name, value)| has_nul(name) || value.as_ref().is_some_and(has_nul));
        let with_nul = [
            ("command", "the program or argument", words.map(OsString::as_os_str)),
            ("env", "the variable", variable.map(|(name, _)| name.as_os_str())),
            ("cwd", "the directory", self.cwd.as_ref().map(|dir| dir.as_os_str()).filter(|dir| has_nul(dir))),
        ];
        for (call, what, text) in with_nul {
            let Some(text) = text else { continue };
            let reason = format!("{what} {text:?} contains a NUL byte");
            problems.push(Problem::invalid(
                call,
                reason,
                "remove the NUL byte, at which the kernel would end the string",
            ));
        }
        if self.env.keys().any(|name| name.is_empty() || name.as_bytes().contains(&b'=')) {
            let reason = "the name of a variable is empty or contains `=`";
            problems.push(Problem::invalid("env", reason, "give the name and the value as two arguments"));
        }
        if self.command.as_ref().is_some_and(|command| command.is_empty()) {
            problems.push(Problem::invalid("command", "the program has an empty name", "name the program"));
        }
        let ids = self.user.iter().flat_map(|(uid, gid)| [uid, gid]).chain(self.groups.iter().flatten());
        if ids.into_iter().any(|id| *id == u32::MAX) {
            // setresuid(2) takes this number as "leave the id as it is": the program would keep the
            // caller's id.
            let reason = "4,294,967,295 is not an id: to the kernel, it means no id";
            problems.push(Problem::invalid("user", reason, "give lower ids"));
        }
        for (resource, soft, hard) in &self.rlimits {
            if soft > hard {
                let reason = format!("{resource:?}: the soft limit {soft} is above the hard limit {hard}");
                problems.push(Problem::invalid("rlimit", reason, "give a soft limit that is not above the hard limit"));
            }
        }
        problems
    }

    /// Returns the invocation of this program, in the current environment of the caller.
    pub(crate) fn invocation(&self) -> Invocation {
        let (command, args) = self.command_line();
        Invocation {
            command: command.to_owned(),
            argv0: self.argv0.clone(),
            args: args.into_iter().map(OsStr::to_owned).collect(),
            environment: Arc::new(self.environment(std::env::vars_os())),
            cwd: self.cwd.clone(),
        }
    }

    /// Returns the program and its arguments.
    pub(crate) fn command_line(&self) -> (&OsStr, Vec<&OsStr>) {
        if let Some(command) = &self.command {
            return (command, self.args.iter().map(OsString::as_os_str).collect());
        }
        let (entrypoint, cmd) = &self.default;
        let args = if self.args.is_empty() { cmd } else { &self.args };
        let mut words = entrypoint.iter().chain(args).map(OsString::as_os_str);
        match words.next().filter(|_| !(entrypoint.is_empty() && cmd.is_empty())) {
            Some(command) => (command, words.collect()),
            None => (OsStr::new(DEFAULT_COMMAND), self.args.iter().map(OsString::as_os_str).collect()),
        }
    }

    /// Returns the invocation of this program, with the environment and the working directory of
    /// `outer` where this program has none of its own.
    pub(crate) fn invocation_within(&self, outer: &Invocation) -> Invocation {
        let environment = if self.env.is_empty() && !self.env_clear {
            outer.environment.clone()
        } else {
            Arc::new(self.environment(outer.environment.iter().cloned()))
        };
        Invocation {
            command: self.command.clone().unwrap_or(DEFAULT_COMMAND.into()),
            argv0: self.argv0.clone(),
            args: self.args.clone(),
            environment,
            cwd: self.cwd.clone().or_else(|| outer.cwd.clone()),
        }
    }

    /// Returns the variables of the program: those in `given`, with the program's changes.
    fn environment(&self, given: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
        let inherited = (!self.env_clear).then_some(given);
        let kept = inherited.into_iter().flatten().filter(|(name, _)| !self.env.contains_key(name));
        let set = self.env.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        kept.chain(set).collect()
    }

    /// Emits the supplementary groups, the gid and the uid, in this order: each change takes away
    /// the right to the one before. `joined` says that the user namespace existed before the
    /// sandbox.
    pub(crate) fn emit_user(&self, plan: &mut Plan, may_set_groups: bool, joined: bool) {
        match &self.groups {
            Some(groups) if may_set_groups => drop(emit_groups(plan, groups)),
            // The user namespace of an ordinary user may forbid a change of the groups.
            None if joined => drop(emit_groups(plan, &[]).tolerate(Errno::EPERM)),
            None if may_set_groups && self.user.is_some() => drop(emit_groups(plan, &[])),
            _ => {}
        }
        match self.user {
            Some((uid, gid)) => emit_ids(plan, uid, gid),
            None if joined => emit_ids_as_seen(plan),
            None => {}
        }
    }

    /// `apart`: the program has a pid namespace or a terminal of its own, and by that a session.
    fn session(&self, apart: bool) -> Session {
        self.session.unwrap_or(if apart { Session::New } else { Session::Inherit })
    }

    /// Returns whether the program leads a process group of its own, which can be signalled as a
    /// whole.
    pub(crate) fn leads_group(&self, apart: bool) -> bool {
        self.session(apart) != Session::Inherit
    }

    /// Emits the change of the session or of the process group.
    pub(crate) fn emit_session(&self, plan: &mut Plan, apart: bool) {
        match self.session(apart) {
            Session::Inherit => {}
            Session::NewGroup => drop(plan.call(Step::Session, libc::SYS_setpgid, [0.into(), 0.into()])),
            Session::New => drop(plan.call(Step::Session, libc::SYS_setsid, [])),
        }
    }

    /// Raises hard limits beyond the caller's. This needs CAP_SYS_RESOURCE, so it happens before
    /// the program gets its user and its capabilities. The soft limits come last, because they
    /// would limit the setup as well.
    pub(crate) fn emit_raised_rlimits(&self, plan: &mut Plan) {
        for (resource, _, hard) in &self.rlimits {
            if let Some((soft, _)) = resource.caller_limits().filter(|(_, own)| hard > own) {
                emit_rlimit(plan, *resource, soft, *hard);
            }
        }
    }

    /// Emits the soft and hard limits of the process.
    pub(crate) fn emit_rlimits(&self, plan: &mut Plan) {
        for (resource, soft, hard) in &self.rlimits {
            emit_rlimit(plan, *resource, *soft, *hard);
        }
    }

    /// Emits the umask. `inherited` holds the caller's umask, which the stub has saved.
    pub(crate) fn emit_umask(&self, plan: &mut Plan, inherited: Slot) {
        let mask = self.umask.map_or(Arg::from(inherited), Arg::from);
        plan.call(Step::Umask, libc::SYS_umask, [mask]);
    }
}

/// The command, the environment and the working directory of one run.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    command: OsString,
    argv0: Option<OsString>,
    args: Vec<OsString>,
    environment: Arc<Vec<(OsString, OsString)>>,
    cwd: Option<PathBuf>,
}

impl Invocation {
    /// Sets a variable that the environment does not have.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) {
        if self.environment.iter().all(|(other, _)| other != name) {
            Arc::make_mut(&mut self.environment).push((name.into(), value.into()));
        }
    }

    /// Returns the paths inside at which the kernel may find the program, in the order of PATH.
    fn candidates(&self) -> Vec<PathBuf> {
        let name = Path::new(&self.command);
        if name.as_os_str().as_bytes().contains(&b'/') {
            return vec![name.to_owned()];
        }
        let path = self.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        std::env::split_paths(path.unwrap_or(DEFAULT_PATH.as_ref()))
            .map(|dir| if dir.as_os_str().is_empty() { name.into() } else { dir.join(name) })
            .collect()
    }

    fn argv0(&self) -> &OsString {
        self.argv0.as_ref().unwrap_or(&self.command)
    }

    /// Returns the size in bytes of the longest string that execve(2) copies, and the size of all
    /// strings together with their pointers.
    pub(crate) fn size(&self) -> (u64, u64) {
        let words = std::iter::once(self.argv0()).chain(&self.args).map(|word| word.len());
        let variables = self.environment.iter().map(|(name, value)| name.len() + 1 + value.len());
        let place = size_of::<usize>();
        let longest_and_all = words.chain(variables).map(|len| len + 1);
        let (longest, all) =
            longest_and_all.fold((0, 2 * place), |(longest, all), len| (longest.max(len), all + len + place));
        (longest as u64, all as u64)
    }

    /// Emits the change to the working directory, if one was named. On a root of the sandbox's own,
    /// the op also checks that the directory lies inside.
    /// `ahead` is the directory that was entered [ahead](Invocation::emit_cwd_ahead): the program
    /// begins there also if its own user may not enter it.
    pub(crate) fn emit_cwd(&self, plan: &mut Plan, own_root: bool, ahead: Option<&Path>) {
        let Some(cwd) = &self.cwd else { return };
        // A relative path begins at the root, wherever the setup stands by now.
        let path = if own_root { plan.string(Path::new("/").join(cwd)) } else { plan.string(cwd) };
        let entered = plan.call(Step::Cwd, libc::SYS_chdir, [path.into()]).at(cwd);
        if ahead == Some(cwd) {
            entered.tolerate(Errno::EACCES).skip_on_success(1);
            plan.check_cwd_ahead().at(cwd);
        }
        if own_root {
            plan.check_cwd().at(cwd);
        }
    }

    /// Emits the change to the working directory with the rights of the setup. A failure leaves the
    /// root, and is for [`emit_cwd`](Invocation::emit_cwd) to tell.
    pub(crate) fn emit_cwd_ahead(&self, plan: &mut Plan) {
        if let Some(cwd) = &self.cwd {
            emit_cwd_ahead(plan, cwd);
        }
    }

    /// Emits the search for the program, for an exec that comes later.
    pub(crate) fn emit_find(&self, plan: &mut Plan) {
        let candidates = self.candidates();
        let paths = plan.strings(candidates.iter().map(|path| [path.as_os_str()]));
        plan.find_program(paths).at(&self.command);
    }

    /// Emits the exec, the last op. `failure` holds the address of the failure page, for an exec
    /// that cannot report its error over the socket.
    pub(crate) fn emit_exec(&self, plan: &mut Plan, flags: ExecFlags, failure: Option<Slot>) {
        let candidates = self.candidates();
        let argv = plan.strings(std::iter::once(self.argv0()).chain(&self.args).map(|arg| [arg.as_os_str()]));
        let envp = plan.strings(self.environment.iter().map(|(name, value)| [name.as_os_str(), "=".as_ref(), value]));
        let paths = plan.strings(candidates.iter().map(|path| [path.as_os_str()]));
        let dirs = plan.strings(candidates.iter().map(|path| [path.as_os_str(), "/".as_ref()]));
        plan.exec(Exec { paths, dirs, argv, envp, flags, failure }).at(&self.command);
    }
}

/// Emits the change to the working directory with the rights of the setup.
pub(crate) fn emit_cwd_ahead(plan: &mut Plan, cwd: &Path) {
    let path = plan.string(cwd);
    plan.call(Step::Cwd, libc::SYS_chdir, [path.into()]).at(cwd).tolerate_all();
}

fn emit_rlimit(plan: &mut Plan, resource: Resource, soft: u64, hard: u64) {
    let limits = plan.words(&[soft, hard]);
    let args = [0.into(), resource.number().into(), limits.into(), 0.into()];
    plan.call(Step::Rlimit, libc::SYS_prlimit64, args).at(format!("{resource:?}"));
}

/// Emits the change of the gid and the uid, in all three of their forms.
pub(crate) fn emit_ids(plan: &mut Plan, uid: u32, gid: u32) {
    plan.call(Step::Gid, libc::SYS_setresgid, [gid.into(), gid.into(), gid.into()]).at(gid.to_string());
    plan.call(Step::Uid, libc::SYS_setresuid, [uid.into(), uid.into(), uid.into()]).at(uid.to_string());
}

/// Gives the program the ids outside that it sees inside. A process that joins a user namespace
/// without its ids sees itself as nobody there, but to every file it is still its old user, even
/// root.
fn emit_ids_as_seen(plan: &mut Plan) {
    let calls =
        [(Step::Gid, libc::SYS_getgid, libc::SYS_setresgid), (Step::Uid, libc::SYS_getuid, libc::SYS_setresuid)];
    for (step, get, set) in calls {
        let id = plan.slot();
        plan.call(step, get, []).store(id);
        plan.call(step, set, [id.into(), id.into(), id.into()]).at("as the joined user namespace has it");
    }
}

/// Emits the change of the supplementary groups.
pub(crate) fn emit_groups<'p>(plan: &'p mut Plan, groups: &[u32]) -> Added<'p> {
    let bytes: Vec<u8> = groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
    let list = plan.bytes(&bytes);
    plan.call(Step::Groups, libc::SYS_setgroups, [groups.len().into(), list.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(command: &str, path: Option<&str>) -> Invocation {
        let environment = path.map(|path| ("PATH".into(), path.into())).into_iter().collect();
        Invocation {
            command: command.into(),
            argv0: None,
            args: Vec::new(),
            environment: Arc::new(environment),
            cwd: None,
        }
    }

    #[test]
    fn a_bare_name_is_looked_for_in_the_given_path() {
        let found = invocation("ls", Some("/a::/b")).candidates();
        assert_eq!(found, [Path::new("/a/ls"), Path::new("ls"), Path::new("/b/ls")]);
        assert_eq!(invocation("./ls", None).candidates(), [Path::new("./ls")]);
    }

    #[test]
    fn the_environment_is_the_callers_with_changes() {
        let env = [("A".into(), Some("1".into())), ("PATH".into(), None)].into();
        let mut program = Program { env, ..Program::default() };
        assert!(program.invocation().environment.iter().all(|(name, _)| name != "PATH"));
        program.env_clear = true;
        let own = program.invocation();
        assert_eq!(*own.environment, [("A".into(), "1".into())]);
        let unchanged = Program::default().invocation_within(&own);
        assert!(Arc::ptr_eq(&unchanged.environment, &own.environment));
        let changed = Program { env: [("B".into(), Some("2".into()))].into(), ..Program::default() };
        let changed = changed.invocation_within(&own).environment;
        assert_eq!(*changed, [("A".into(), "1".into()), ("B".into(), "2".into())]);
    }
}
