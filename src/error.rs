//! The one public error of the crate: the failed step, its path and errno, and the remedy.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::feature::Feature;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of this crate, in the form `step on path: ERRNO (text); hint`.
///
/// ```
/// use ringfence::{ErrorKind, Sandbox};
///
/// let error = Sandbox::new().hostname("box").check().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(error.to_string().contains("uts_ns"));
/// ```
///
/// `Debug` prints the same text behind the [`kind`](Error::kind), because a `main` that returns a
/// `Result` prints that; `{:#?}` prints the fields.
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Error(Box<Inner>);

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { fmt::Debug::fmt(&self.0, f) } else { write!(f, "{:?}: {self}", self.kind()) }
    }
}

/// The sort of an [`Error`], for callers that decide by it.
///
/// ```
/// use ringfence::{ErrorKind, Sandbox};
///
/// let error = Sandbox::new().command("/no/such/program").spawn().unwrap_err();
/// match error.kind() {
///     ErrorKind::Exec => println!("there is no such program: {error}"),
///     ErrorKind::Unsupported => error.problems().iter().for_each(|problem| println!("{problem}")),
///     _ => println!("{error}"),
/// }
/// # assert_eq!(error.kind(), ErrorKind::Exec);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The policy contradicts itself; [`Error::problems`] lists every conflict.
    Invalid,
    /// This host cannot carry out the policy; [`Error::problems`] lists every reason with its
    /// remedy.
    Unsupported,
    /// A step of the setup failed: [`Error::step`] names it.
    Setup,
    /// The sandbox was ready, but the program could not be executed in it.
    Exec,
    /// The setup did not finish within [`setup_timeout`](crate::Sandbox::setup_timeout), or the
    /// peer stopped answering.
    Timeout,
    /// The setup process ended before it could report.
    SetupDied,
    /// The program has ended, but its exit status was taken by another waiter: the caller ignores
    /// SIGCHLD or waits for any child, and the kernel (before 6.15) keeps no copy.
    StatusLost,
    /// An operation on a live sandbox failed: a wait, a signal, a statistic, an update.
    Control,
    /// Reading or writing the store of images failed: [`Error::step`] names the step.
    #[cfg(feature = "image")]
    Store,
    /// The store has no such image, layer or blob, or the directory no such file; or the sandbox of
    /// a [`Ticket`](crate::Ticket) has ended.
    NotFound,
    /// Bytes are not what their digest, their length or their format says.
    #[cfg(feature = "image")]
    Corrupt,
    /// An input is larger than the limit that is set for it.
    TooLarge,
    /// The item is held by another process, or by a running sandbox.
    #[cfg(feature = "image")]
    InUse,
    /// A registry cannot be reached, is overloaded, or broke off more often than the limit of
    /// retries. A later attempt may succeed.
    #[cfg(feature = "registry")]
    Unavailable,
    /// A registry wants other credentials, or accepts none.
    #[cfg(feature = "registry")]
    Denied,
    /// A registry broke the rules of its protocol: its length was false, its redirect led to a
    /// forbidden place, or its answer made no sense.
    #[cfg(feature = "registry")]
    Protocol,
}

/// Defines [`Step`]: each step with its documentation, and its text in an error message.
macro_rules! steps {
    ($(
        $(#[doc = $doc:literal])*
        $(#[cfg($cfg:meta)])?
        $step:ident => $text:literal,
    )*) => {
        /// A step of making, running or removing a sandbox. Most have the name of the system call
        /// or the file that does the step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Step { $(
            $(#[doc = $doc])*
            $(#[cfg($cfg)])?
            $step,
        )* }

        impl Step {
            /// Returns the text that names the step in an error message.
            pub fn as_str(self) -> &'static str {
                match self { $(
                    $(#[cfg($cfg)])?
                    Step::$step => $text,
                )* }
            }

            /// Returns the step with this text.
            pub(crate) fn of_text(text: &str) -> Option<Step> {
                $(
                    $(#[cfg($cfg)])?
                    if text == $text {
                        return Some(Step::$step);
                    }
                )*
                None
            }
        }
    };
}

steps! {
    /// Judging the policy before anything is done.
    Validate => "validate policy",
    /// Reading or writing a [`Profile`](crate::Profile).
    #[cfg(feature = "serde")]
    Profile => "read profile",
    /// Reading the `config.json` of a bundle.
    #[cfg(feature = "oci")]
    BundleConfig => "read bundle",
    /// Reading or writing the state of a container.
    #[cfg(feature = "oci")]
    ContainerState => "keep state of container",
    /// Running a hook of a container.
    #[cfg(feature = "oci")]
    Hook => "run hook",
    /// Sending the terminal of a container to an engine.
    #[cfg(feature = "oci")]
    ConsoleSocket => "send terminal",
    /// Sending the pidfd of a container to an engine.
    #[cfg(feature = "oci")]
    PidfdSocket => "send pidfd",
    /// Finding out the abilities of the host.
    Detect => "inspect host",
    /// Starting the thread that clones.
    Spawner => "start spawner thread",
    /// Making the pipes and descriptors of the program.
    Stdio => "prepare stdio",
    /// Opening a file or directory that the policy names.
    OpenSource => "open",
    /// Registering the owner, so that `reap_stale` can tell the living from the dead.
    Owner => "register owner",
    /// Making a scratch directory.
    Scratch => "make scratch directory",
    /// Limiting what a directory takes on disk: quotactl_fd(2).
    DiskLimit => "limit disk",
    /// Making a control group.
    CreateCgroup => "create cgroup",
    /// Writing a limit.
    SetLimit => "set limit",
    /// Setting the devices that a control group may use: `bpf(2)`, or `devices.allow` and
    /// `devices.deny`.
    DeviceRules => "set device rules",
    /// Asking systemd to make a scope, or to move a process into one.
    SystemdScope => "ask systemd for a scope",
    /// Entering a control group.
    JoinCgroup => "join cgroup",
    /// `clone3(2)` or `clone(2)`.
    Clone => "clone",
    /// Executing the stub, the small program that sets the sandbox up.
    LoadStub => "execute stub",
    /// Reading the plan, in the stub.
    ReadPlan => "read plan",
    /// Writing `/proc/PID/uid_map`, `gid_map` or `setgroups`.
    WriteIdMap => "write id map",
    /// Entering a sandbox that runs, for a further program.
    Enter => "enter sandbox",
    /// Finding a sandbox again that another process has started.
    Attach => "attach to sandbox",
    /// Creating a sandbox whose program a later process starts.
    Create => "create sandbox",
    /// Starting the program of a sandbox that was created before.
    Start => "start sandbox",
    /// Removing a sandbox that was created before.
    RemoveCreated => "remove sandbox",
    /// Watching for the events of a sandbox: `inotify(7)`, `cgroup.event_control`.
    Events => "watch events",
    /// `setns(2)`.
    JoinNamespace => "setns",
    /// Holding namespaces without a process: opening their files, and binding those at paths.
    HoldNamespace => "hold namespace",
    /// `unshare(2)`.
    Unshare => "unshare",
    /// Writing `/proc/sys/user/max_user_namespaces`, or another limit of that directory.
    LimitNamespaces => "limit namespaces",
    /// Writing `/proc/self/timens_offsets`.
    TimeOffsets => "set time offsets",
    /// `sethostname(2)`.
    Hostname => "sethostname",
    /// `setdomainname(2)`.
    Domainname => "setdomainname",
    /// Bringing the loopback interface up.
    Loopback => "bring loopback up",
    /// `landlock_create_ruleset(2)`, `landlock_add_rule(2)` or `landlock_restrict_self(2)`.
    Landlock => "landlock",
    /// Making the mounts private.
    Propagation => "set propagation of mount",
    /// `open_tree(2)`: copying a mount.
    OpenTree => "open_tree",
    /// Finding, or making, the target of a mount inside the root.
    MountTarget => "find mount target",
    /// `fsopen(2)`, `fsconfig(2)`, `fsmount(2)` or `mount(2)`.
    Mount => "mount",
    /// Copying a directory of the root into a new tmpfs.
    CopyUp => "copy into tmpfs",
    /// `move_mount(2)`.
    MoveMount => "move_mount",
    /// `mount_setattr(2)`.
    MountAttr => "mount_setattr",
    /// `mount_setattr(2)` with `MOUNT_ATTR_IDMAP`.
    IdMapMount => "map ids of mount",
    /// Masking a path, or making one read-only.
    Mask => "mask",
    /// Filling `/dev`.
    Dev => "fill /dev",
    /// `pivot_root(2)`.
    PivotRoot => "pivot_root",
    /// `umount2(2)` of the host's root.
    DetachOldRoot => "detach old root",
    /// `chdir(2)` to the program's working directory.
    Cwd => "chdir",
    /// Making the terminal of the program: `pts(4)`, `ioctl_tty(2)`.
    Terminal => "make terminal",
    /// `setsid(2)` or `setpgid(2)`.
    Session => "set session",
    /// `umask(2)`.
    Umask => "umask",
    /// `prlimit(2)`.
    Rlimit => "setrlimit",
    /// Writing `/proc/self/oom_score_adj`.
    OomScoreAdj => "set oom_score_adj",
    /// `sched_setattr(2)`.
    Scheduler => "set scheduler",
    /// `ioprio_set(2)`.
    IoPriority => "set I/O priority",
    /// `sched_setaffinity(2)`.
    CpuAffinity => "set cpu affinity",
    /// `set_mempolicy(2)`.
    MemoryPolicy => "set memory policy",
    /// `personality(2)`.
    Personality => "personality",
    /// Writing a file below `/proc/sys`.
    Sysctl => "set sysctl",
    /// `setgroups(2)`.
    Groups => "setgroups",
    /// `setresgid(2)`.
    Gid => "setresgid",
    /// `setresuid(2)`.
    Uid => "setresuid",
    /// `capset(2)`, the bounding and the ambient set, securebits.
    Capabilities => "set capabilities",
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    NoNewPrivs => "set no_new_privs",
    /// Writing `/proc/self/attr/exec` or `apparmor/exec`: the label of the program.
    Label => "set security label",
    /// `keyctl(2)`: joining a session keyring.
    Keyring => "join session keyring",
    /// `prctl(2)`: dumpable, death signal, name.
    Prctl => "prctl",
    /// Checking that the owner did not die during the setup.
    OwnerAlive => "check owner",
    /// Placing descriptors with `dup3(2)`.
    PlaceFd => "place descriptor",
    /// `close_range(2)`.
    CloseFds => "close descriptors",
    /// Restoring signal dispositions and the mask.
    Signals => "reset signals",
    /// Starting the program below the init process.
    Fork => "start program under init",
    /// `seccomp(2)`: putting the program under its filter.
    Seccomp => "install seccomp filter",
    /// Handing the listener of a filter to a supervisor in another process, over its socket.
    HandListenerOver => "hand listener over",
    /// Receiving or answering a question of a filter: `seccomp_unotify(2)`.
    Notify => "answer system call",
    /// `execve(2)` of the program.
    Exec => "exec",
    /// Waiting for the setup's report.
    Report => "wait for setup",
    /// `waitid(2)`.
    Wait => "wait",
    /// Sending a signal.
    Signal => "signal",
    /// Killing the sandbox.
    Kill => "kill",
    /// Taking result files out of a directory.
    Collect => "collect files",
    /// Listing the changes in an upper directory.
    Changes => "list the changes in an upper directory",
    /// Committing changes into the directory below.
    Commit => "commit changes",
    /// Emptying an upper directory.
    Discard => "discard changes",
    /// Reading the program's output.
    Output => "read output",
    /// Reading statistics.
    Stats => "read statistics",
    /// Reading pressure stall information, or waiting for it.
    Pressure => "watch pressure",
    /// Freezing or thawing.
    Freeze => "freeze",
    /// Removing a control group.
    RemoveCgroup => "remove cgroup",
    /// Removing a scratch directory.
    RemoveScratch => "remove scratch directory",
    /// Removing the sandboxes of dead owners.
    Reap => "reap stale sandboxes",
    /// Opening a store of images.
    #[cfg(feature = "image")]
    OpenStore => "open store",
    /// Waiting for a lock of a store: `flock(2)`.
    #[cfg(feature = "image")]
    LockStore => "lock store",
    /// Reading or changing a store's `index.json`.
    #[cfg(feature = "image")]
    ImageIndex => "index of store",
    /// Parsing the name of an image.
    #[cfg(feature = "image")]
    ImageName => "name of image",
    /// Reading a manifest or a configuration.
    #[cfg(feature = "image")]
    ImageManifest => "read manifest",
    /// Reading a blob.
    #[cfg(feature = "image")]
    ReadBlob => "read blob",
    /// Writing a blob.
    #[cfg(feature = "image")]
    WriteBlob => "write blob",
    /// Unpacking a layer.
    #[cfg(feature = "image")]
    UnpackLayer => "unpack layer",
    /// Finding the user that an image names in the image's own databases.
    #[cfg(feature = "image")]
    ImageUser => "find user of image",
    /// Writing a directory as a layer of an image.
    #[cfg(feature = "image")]
    PackLayer => "pack layer",
    /// Running a program as a step of a build.
    #[cfg(feature = "image")]
    BuildRun => "run step of build",
    /// Importing images from an archive or a directory.
    #[cfg(feature = "image")]
    ImportImage => "import image",
    /// Exporting images to an archive or a directory.
    #[cfg(feature = "image")]
    ExportImage => "export image",
    /// Removing blobs and layers that no image of a store needs.
    #[cfg(feature = "image")]
    PruneStore => "prune store",
    /// Preparing for a registry: names, certificates, threads.
    #[cfg(feature = "registry")]
    Registry => "prepare for registry",
    /// Reading the login for a registry.
    #[cfg(feature = "registry")]
    Credentials => "read credentials",
    /// Getting a token for a registry.
    #[cfg(feature = "registry")]
    Authenticate => "authenticate",
    /// Getting a manifest or an index from a registry.
    #[cfg(feature = "registry")]
    PullManifest => "pull manifest",
    /// Getting a layer or a configuration from a registry.
    #[cfg(feature = "registry")]
    PullBlob => "pull blob",
    /// Sending a layer or a configuration to a registry.
    #[cfg(feature = "registry")]
    PushBlob => "push blob",
    /// Sending a manifest or an index to a registry.
    #[cfg(feature = "registry")]
    PushManifest => "push manifest",
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One conflict in a policy, or one request that this host cannot fulfil, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The builder call or the host feature with the problem.
    pub subject: String,
    /// The reason for the problem.
    pub reason: String,
    /// The remedy of the problem.
    pub remedy: String,
    /// The feature that the sandbox can go without by [`best_effort`](crate::Sandbox::best_effort),
    /// if there is one.
    pub feature: Option<Feature>,
    pub(crate) kind: ErrorKind,
}

impl Problem {
    /// Makes the problem of a policy that contradicts itself.
    pub(crate) fn invalid(subject: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem {
            subject: subject.into(),
            reason: reason.into(),
            remedy: remedy.into(),
            feature: None,
            kind: ErrorKind::Invalid,
        }
    }

    /// Makes the problem of a request that this host cannot fulfil.
    pub(crate) fn unsupported(subject: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { kind: ErrorKind::Unsupported, ..Problem::invalid(subject, reason, remedy) }
    }

    /// Notes the feature that the caller may choose to go without.
    pub(crate) fn for_feature(self, feature: Feature) -> Self {
        Problem { feature: Some(feature), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.reason, self.remedy)
    }
}

/// The two forms of an [`Error`]: a failed step, and a refused policy.
#[derive(Debug, thiserror::Error)]
enum Inner {
    #[error("{}", describe(*step, path.as_deref(), detail.as_deref(), *errno, hint.as_deref()))]
    Failed {
        kind: ErrorKind,
        step: Step,
        path: Option<PathBuf>,
        detail: Option<String>,
        errno: Option<Errno>,
        hint: Option<String>,
    },
    #[error("{}", list(problems))]
    Refused { problems: Vec<Problem> },
}

/// Joins the parts of a failed step into one line.
fn describe(step: Step, path: Option<&Path>, detail: Option<&str>, errno: Option<Errno>, hint: Option<&str>) -> String {
    let mut text = step.as_str().to_owned();
    if let Some(path) = path {
        text += &format!(" {}", path.display());
    }
    if let Some(errno) = errno {
        text += &format!(": {errno:?} ({})", errno.desc());
    }
    if let Some(detail) = detail {
        text += &format!(": {detail}");
    }
    if let Some(hint) = hint {
        text += &format!("; {hint}");
    }
    text
}

/// Lists the problems, one in each line.
fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl Error {
    /// Makes the error of a failed step, with its errno.
    pub(crate) fn new(step: Step, errno: Errno) -> Self {
        Error(Box::new(Inner::Failed {
            kind: ErrorKind::Setup,
            step,
            path: None,
            detail: None,
            errno: Some(errno),
            hint: None,
        }))
    }

    /// Makes the error of a failed step without an errno; `detail` describes the failure.
    pub(crate) fn message(kind: ErrorKind, step: Step, detail: impl Into<String>) -> Self {
        Error(Box::new(Inner::Failed { kind, step, path: None, detail: Some(detail.into()), errno: None, hint: None }))
    }

    /// Makes the error of a step that failed in the standard library.
    pub(crate) fn io(step: Step, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Error::new(step, Errno::from_raw(errno)),
            None => Error::message(ErrorKind::Setup, step, error.to_string()),
        }
    }

    /// Makes the error of a refused policy, from all its problems.
    pub(crate) fn refused(problems: Vec<Problem>) -> Self {
        Error(Box::new(Inner::Refused { problems }))
    }

    /// Takes an error of this crate back out of an error of the standard library. Any other becomes
    /// one of `step` and `kind`.
    #[cfg(feature = "image")]
    pub(crate) fn from_io(step: Step, kind: ErrorKind, error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => Error::io(step, &error).with_kind(kind),
        }
    }

    /// Sets the kind.
    pub(crate) fn with_kind(mut self, new: ErrorKind) -> Self {
        if let Inner::Failed { kind, .. } = &mut *self.0 {
            *kind = new;
        }
        self
    }

    /// Names the file or the argument of the failed step.
    pub(crate) fn at(mut self, new: impl AsRef<OsStr>) -> Self {
        if let Inner::Failed { path, .. } = &mut *self.0 {
            *path = Some(PathBuf::from(new.as_ref()));
        }
        self
    }

    /// Adds a description of the failure.
    pub(crate) fn detail(mut self, new: impl Into<String>) -> Self {
        if let Inner::Failed { detail, .. } = &mut *self.0 {
            *detail = Some(new.into());
        }
        self
    }

    /// Adds a remedy.
    pub(crate) fn hint(mut self, new: impl Into<String>) -> Self {
        if let Inner::Failed { hint, .. } = &mut *self.0 {
            *hint = Some(new.into());
        }
        self
    }

    /// Returns the failed step as a problem of this host.
    #[cfg(feature = "systemd")]
    pub(crate) fn problem(&self, subject: &str) -> Problem {
        match &*self.0 {
            Inner::Failed { step, path, detail, errno, hint, .. } => {
                let reason = describe(*step, path.as_deref(), detail.as_deref(), *errno, None);
                Problem::unsupported(subject, reason, hint.as_deref().unwrap_or("see its journal"))
            }
            Inner::Refused { .. } => Problem::unsupported(subject, self.to_string(), ""),
        }
    }

    /// Returns the sort of the failure.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Inner::Failed { kind, .. } => *kind,
            Inner::Refused { problems } if problems.iter().any(|p| p.kind == ErrorKind::Invalid) => ErrorKind::Invalid,
            Inner::Refused { .. } => ErrorKind::Unsupported,
        }
    }

    /// Returns the step that failed.
    pub fn step(&self) -> Step {
        match &*self.0 {
            Inner::Failed { step, .. } => *step,
            Inner::Refused { .. } => Step::Validate,
        }
    }

    /// Returns the file, directory or program of the failed step.
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Inner::Failed { path, .. } => path.as_deref(),
            Inner::Refused { .. } => None,
        }
    }

    /// Returns the errno of the kernel, if a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match &*self.0 {
            Inner::Failed { errno, .. } => errno.map(|e| e as i32),
            Inner::Refused { .. } => None,
        }
    }

    /// Returns the remedy, if one is known.
    pub fn remedy(&self) -> Option<&str> {
        match &*self.0 {
            Inner::Failed { hint, .. } => hint.as_deref(),
            Inner::Refused { problems } => problems.first().map(|p| p.remedy.as_str()),
        }
    }

    /// Returns every conflict and every missing feature, for [`ErrorKind::Invalid`] and
    /// [`ErrorKind::Unsupported`].
    pub fn problems(&self) -> &[Problem] {
        match &*self.0 {
            Inner::Failed { .. } => &[],
            Inner::Refused { problems } => problems,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match (error.kind(), error.raw_os_error()) {
            (_, Some(errno)) => io::Error::from_raw_os_error(errno).kind(),
            (ErrorKind::Invalid, _) => io::ErrorKind::InvalidInput,
            (ErrorKind::Unsupported, _) => io::ErrorKind::Unsupported,
            (ErrorKind::Timeout, _) => io::ErrorKind::TimedOut,
            (ErrorKind::NotFound, _) => io::ErrorKind::NotFound,
            #[cfg(feature = "image")]
            (ErrorKind::Corrupt, _) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_of_an_error_is_readable() {
        let error = Error::new(Step::OpenSource, Errno::ENOENT).at("/srv/alpin").hint("the path has to exist");
        let text = "open /srv/alpin: ENOENT (No such file or directory); the path has to exist";
        assert_eq!((error.to_string(), format!("{error:?}")), (text.to_owned(), format!("Setup: {text}")));
        assert!(format!("{error:#?}").contains("errno: Some"));
    }
}
