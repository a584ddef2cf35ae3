//! The one public error: which step failed, on which path, with which errno, and what to do about it.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::feature::Feature;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the form `step on path: ERRNO (text); hint`.
///
/// ```
/// use ringfence::{ErrorKind, Sandbox};
///
/// let error = Sandbox::new().hostname("box").check().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(error.to_string().contains("uts_ns"));
/// ```
///
/// `Debug` says the same behind the [`kind`](Error::kind), since that is what a `main` that returns a `Result` prints; `{:#?}`
/// shows the fields.
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Error(Box<Inner>);

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { fmt::Debug::fmt(&self.0, f) } else { write!(f, "{:?}: {self}", self.kind()) }
    }
}

/// The sort of an [`Error`], for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The policy contradicts itself; [`Error::problems`] lists every conflict.
    Invalid,
    /// This host cannot do what the policy asks; [`Error::problems`] lists every reason with its remedy.
    Unsupported,
    /// A step of the setup failed: [`Error::step`] says which.
    Setup,
    /// The sandbox stood, but the program could not be executed in it.
    Exec,
    /// The setup did not finish within [`setup_timeout`](crate::Sandbox::setup_timeout), or the peer stopped answering.
    Timeout,
    /// The setup process ended before it could report.
    SetupDied,
    /// The program has ended, but someone else took its exit status: the caller ignores SIGCHLD or waits for any
    /// child, and the kernel (before 6.15) keeps no copy.
    StatusLost,
    /// An operation on a live sandbox failed: a wait, a signal, a statistic, an update.
    Control,
    /// Reading or writing the store of images failed: [`Error::step`] says where.
    #[cfg(feature = "image")]
    Store,
    /// The store has no such image, layer or blob.
    #[cfg(feature = "image")]
    NotFound,
    /// Bytes are not what their digest, their length or their format says.
    #[cfg(feature = "image")]
    Corrupt,
    /// Something is larger than the limit that is set for it.
    #[cfg(feature = "image")]
    TooLarge,
    /// Another process, or a running sandbox, holds it.
    #[cfg(feature = "image")]
    InUse,
    /// A registry cannot be reached, is overloaded, or broke off more often than was to be borne. Later it may work.
    #[cfg(feature = "registry")]
    Unavailable,
    /// A registry wants other credentials, or none will do.
    #[cfg(feature = "registry")]
    Denied,
    /// A registry broke the rules of its protocol: it lied about a length, redirected to where nothing may go, or made no
    /// sense.
    #[cfg(feature = "registry")]
    Protocol,
}

/// A step of making, running or removing a sandbox, named after the system call or file that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Judging the policy before anything is done.
    Validate,
    /// Finding out what the host offers.
    Detect,
    /// Starting the thread that clones.
    Spawner,
    /// Making the pipes and descriptors of the program.
    Stdio,
    /// Opening a file or directory that the policy names.
    OpenSource,
    /// Registering the owner, so that `reap_stale` can tell the living from the dead.
    Owner,
    /// Making a scratch directory.
    Scratch,
    /// Making a control group.
    CreateCgroup,
    /// Writing a limit.
    SetLimit,
    /// Setting which devices a control group may use: `bpf(2)`, or `devices.allow` and `devices.deny`.
    DeviceRules,
    /// Having systemd make a scope, or move a process into one.
    SystemdScope,
    /// Entering a control group.
    JoinCgroup,
    /// `clone3(2)` or `clone(2)`.
    Clone,
    /// Executing the stub, the small program that sets the sandbox up.
    LoadStub,
    /// The stub reading its plan.
    ReadPlan,
    /// Writing `/proc/PID/uid_map`, `gid_map` or `setgroups`.
    WriteIdMap,
    /// `setns(2)`.
    JoinNamespace,
    /// `unshare(2)`.
    Unshare,
    /// Writing `/proc/sys/user/max_user_namespaces`, or another limit of that directory.
    LimitNamespaces,
    /// Writing `/proc/self/timens_offsets`.
    TimeOffsets,
    /// `sethostname(2)`.
    Hostname,
    /// `setdomainname(2)`.
    Domainname,
    /// Bringing the loopback interface up.
    Loopback,
    /// `landlock_create_ruleset(2)`, `landlock_add_rule(2)` or `landlock_restrict_self(2)`.
    Landlock,
    /// Making the mounts private.
    Propagation,
    /// `open_tree(2)`: taking a copy of a mount.
    OpenTree,
    /// Finding, or making, the place of a mount inside the root.
    MountTarget,
    /// `fsopen(2)`, `fsconfig(2)`, `fsmount(2)` or `mount(2)`.
    Mount,
    /// `move_mount(2)`.
    MoveMount,
    /// `mount_setattr(2)`.
    MountAttr,
    /// `mount_setattr(2)` with `MOUNT_ATTR_IDMAP`.
    IdMapMount,
    /// Covering a path up, or making it read-only.
    Mask,
    /// Filling `/dev`.
    Dev,
    /// `pivot_root(2)`.
    PivotRoot,
    /// `umount2(2)` of the host's root.
    DetachOldRoot,
    /// `chdir(2)` to the program's working directory.
    Cwd,
    /// `setsid(2)` or `setpgid(2)`.
    Session,
    /// `umask(2)`.
    Umask,
    /// `prlimit(2)`.
    Rlimit,
    /// `setgroups(2)`.
    Groups,
    /// `setresgid(2)`.
    Gid,
    /// `setresuid(2)`.
    Uid,
    /// `capset(2)`, the bounding and the ambient set, securebits.
    Capabilities,
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    NoNewPrivs,
    /// `keyctl(2)`: joining a session keyring.
    Keyring,
    /// `prctl(2)`: dumpable, death signal, name.
    Prctl,
    /// The owner died during the setup.
    OwnerAlive,
    /// Placing descriptors with `dup3(2)`.
    PlaceFd,
    /// `close_range(2)`.
    CloseFds,
    /// Restoring signal dispositions and the mask.
    Signals,
    /// The init process starting the program.
    Fork,
    /// `seccomp(2)`: putting the program under its filter.
    Seccomp,
    /// Hearing or answering what a filter asks: `seccomp_unotify(2)`.
    Notify,
    /// `execve(2)` of the program.
    Exec,
    /// Waiting for the setup's report.
    Report,
    /// `waitid(2)`.
    Wait,
    /// Sending a signal.
    Signal,
    /// Killing the sandbox.
    Kill,
    /// Reading the program's output.
    Output,
    /// Reading statistics.
    Stats,
    /// Reading pressure stall information, or waiting for it.
    Pressure,
    /// Freezing or thawing.
    Freeze,
    /// Removing a control group.
    RemoveCgroup,
    /// Removing a scratch directory.
    RemoveScratch,
    /// Clearing what dead owners left.
    Reap,
    /// Opening a store of images.
    #[cfg(feature = "image")]
    OpenStore,
    /// Waiting for a lock of a store: `flock(2)`.
    #[cfg(feature = "image")]
    LockStore,
    /// Reading or changing a store's `index.json`.
    #[cfg(feature = "image")]
    ImageIndex,
    /// Understanding the name of an image.
    #[cfg(feature = "image")]
    ImageName,
    /// Reading a manifest or a configuration.
    #[cfg(feature = "image")]
    ImageManifest,
    /// Reading a blob.
    #[cfg(feature = "image")]
    ReadBlob,
    /// Writing a blob.
    #[cfg(feature = "image")]
    WriteBlob,
    /// Unpacking a layer.
    #[cfg(feature = "image")]
    UnpackLayer,
    /// Finding the user that an image names in the image's own databases.
    #[cfg(feature = "image")]
    ImageUser,
    /// Writing a directory as a layer of an image.
    #[cfg(feature = "image")]
    PackLayer,
    /// Running a program as a step of a build.
    #[cfg(feature = "image")]
    BuildRun,
    /// Taking images in from an archive or a directory.
    #[cfg(feature = "image")]
    ImportImage,
    /// Writing images out to an archive or a directory.
    #[cfg(feature = "image")]
    ExportImage,
    /// Removing what no image of a store needs.
    #[cfg(feature = "image")]
    PruneStore,
    /// Making ready to speak to a registry: names, certificates, threads.
    #[cfg(feature = "registry")]
    Registry,
    /// Reading the login for a registry.
    #[cfg(feature = "registry")]
    Credentials,
    /// Getting a token for a registry.
    #[cfg(feature = "registry")]
    Authenticate,
    /// Getting a manifest or an index from a registry.
    #[cfg(feature = "registry")]
    PullManifest,
    /// Getting a layer or a configuration from a registry.
    #[cfg(feature = "registry")]
    PullBlob,
    /// Sending a layer or a configuration to a registry.
    #[cfg(feature = "registry")]
    PushBlob,
    /// Sending a manifest or an index to a registry.
    #[cfg(feature = "registry")]
    PushManifest,
}

impl Step {
    /// The step as it reads in an error message.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Validate => "validate policy",
            Step::Detect => "inspect host",
            Step::Spawner => "start spawner thread",
            Step::Stdio => "prepare stdio",
            Step::OpenSource => "open",
            Step::Owner => "register owner",
            Step::Scratch => "make scratch directory",
            Step::CreateCgroup => "create cgroup",
            Step::SetLimit => "set limit",
            Step::DeviceRules => "set device rules",
            Step::SystemdScope => "ask systemd for a scope",
            Step::JoinCgroup => "join cgroup",
            Step::Clone => "clone",
            Step::LoadStub => "execute stub",
            Step::ReadPlan => "read plan",
            Step::WriteIdMap => "write id map",
            Step::JoinNamespace => "setns",
            Step::Unshare => "unshare",
            Step::LimitNamespaces => "limit namespaces",
            Step::TimeOffsets => "set time offsets",
            Step::Hostname => "sethostname",
            Step::Domainname => "setdomainname",
            Step::Loopback => "bring loopback up",
            Step::Landlock => "landlock",
            Step::Propagation => "make mounts private",
            Step::OpenTree => "open_tree",
            Step::MountTarget => "find mount target",
            Step::Mount => "mount",
            Step::MoveMount => "move_mount",
            Step::MountAttr => "mount_setattr",
            Step::IdMapMount => "map ids of mount",
            Step::Mask => "mask",
            Step::Dev => "fill /dev",
            Step::PivotRoot => "pivot_root",
            Step::DetachOldRoot => "detach old root",
            Step::Cwd => "chdir",
            Step::Session => "set session",
            Step::Umask => "umask",
            Step::Rlimit => "setrlimit",
            Step::Groups => "setgroups",
            Step::Gid => "setresgid",
            Step::Uid => "setresuid",
            Step::Capabilities => "set capabilities",
            Step::NoNewPrivs => "set no_new_privs",
            Step::Keyring => "join session keyring",
            Step::Prctl => "prctl",
            Step::OwnerAlive => "check owner",
            Step::PlaceFd => "place descriptor",
            Step::CloseFds => "close descriptors",
            Step::Signals => "reset signals",
            Step::Fork => "start program under init",
            Step::Seccomp => "install seccomp filter",
            Step::Notify => "answer system call",
            Step::Exec => "exec",
            Step::Report => "wait for setup",
            Step::Wait => "wait",
            Step::Signal => "signal",
            Step::Kill => "kill",
            Step::Output => "read output",
            Step::Stats => "read statistics",
            Step::Pressure => "watch pressure",
            Step::Freeze => "freeze",
            Step::RemoveCgroup => "remove cgroup",
            Step::RemoveScratch => "remove scratch directory",
            Step::Reap => "reap stale sandboxes",
            #[cfg(feature = "image")]
            Step::OpenStore => "open store",
            #[cfg(feature = "image")]
            Step::LockStore => "lock store",
            #[cfg(feature = "image")]
            Step::ImageIndex => "index of store",
            #[cfg(feature = "image")]
            Step::ImageName => "name of image",
            #[cfg(feature = "image")]
            Step::ImageManifest => "read manifest",
            #[cfg(feature = "image")]
            Step::ReadBlob => "read blob",
            #[cfg(feature = "image")]
            Step::WriteBlob => "write blob",
            #[cfg(feature = "image")]
            Step::UnpackLayer => "unpack layer",
            #[cfg(feature = "image")]
            Step::ImageUser => "find user of image",
            #[cfg(feature = "image")]
            Step::PackLayer => "pack layer",
            #[cfg(feature = "image")]
            Step::BuildRun => "run step of build",
            #[cfg(feature = "image")]
            Step::ImportImage => "import image",
            #[cfg(feature = "image")]
            Step::ExportImage => "export image",
            #[cfg(feature = "image")]
            Step::PruneStore => "prune store",
            #[cfg(feature = "registry")]
            Step::Registry => "prepare for registry",
            #[cfg(feature = "registry")]
            Step::Credentials => "read credentials",
            #[cfg(feature = "registry")]
            Step::Authenticate => "authenticate",
            #[cfg(feature = "registry")]
            Step::PullManifest => "pull manifest",
            #[cfg(feature = "registry")]
            Step::PullBlob => "pull blob",
            #[cfg(feature = "registry")]
            Step::PushBlob => "push blob",
            #[cfg(feature = "registry")]
            Step::PushManifest => "push manifest",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One conflict in a policy, or one thing that this host cannot do, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The builder call or host feature that it is about.
    pub subject: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// The feature that [`best_effort`](crate::Sandbox::best_effort) could give up, if there is one.
    pub feature: Option<Feature>,
    pub(crate) kind: ErrorKind,
}

impl Problem {
    /// A contradiction within the policy.
    pub(crate) fn invalid(subject: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem {
            subject: subject.into(),
            reason: reason.into(),
            remedy: remedy.into(),
            feature: None,
            kind: ErrorKind::Invalid,
        }
    }

    /// Something that this host cannot do.
    pub(crate) fn unsupported(subject: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { kind: ErrorKind::Unsupported, ..Problem::invalid(subject, reason, remedy) }
    }

    /// The same, and the caller may choose to go without `feature`.
    pub(crate) fn for_feature(self, feature: Feature) -> Self {
        Problem { feature: Some(feature), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.reason, self.remedy)
    }
}

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

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl Error {
    /// A failed step, with the errno that it failed with.
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

    /// A failed step without an errno: `detail` says what happened.
    pub(crate) fn message(kind: ErrorKind, step: Step, detail: impl Into<String>) -> Self {
        Error(Box::new(Inner::Failed { kind, step, path: None, detail: Some(detail.into()), errno: None, hint: None }))
    }

    /// A failed step of std's own.
    pub(crate) fn io(step: Step, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Error::new(step, Errno::from_raw(errno)),
            None => Error::message(ErrorKind::Setup, step, error.to_string()),
        }
    }

    /// Everything that speaks against the policy.
    pub(crate) fn refused(problems: Vec<Problem>) -> Self {
        Error(Box::new(Inner::Refused { problems }))
    }

    /// What a reader or writer of this crate's own says through std's error, or std's own error.
    #[cfg(feature = "image")]
    pub(crate) fn from_io(step: Step, kind: ErrorKind, error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => Error::io(step, &error).with_kind(kind),
        }
    }

    pub(crate) fn with_kind(mut self, new: ErrorKind) -> Self {
        if let Inner::Failed { kind, .. } = &mut *self.0 {
            *kind = new;
        }
        self
    }

    /// Names the file or argument that the step was about.
    pub(crate) fn at(mut self, new: impl AsRef<OsStr>) -> Self {
        if let Inner::Failed { path, .. } = &mut *self.0 {
            *path = Some(PathBuf::from(new.as_ref()));
        }
        self
    }

    pub(crate) fn detail(mut self, new: impl Into<String>) -> Self {
        if let Inner::Failed { detail, .. } = &mut *self.0 {
            *detail = Some(new.into());
        }
        self
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, new: impl Into<String>) -> Self {
        if let Inner::Failed { hint, .. } = &mut *self.0 {
            *hint = Some(new.into());
        }
        self
    }

    /// The failed step as something that this host cannot do.
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

    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Inner::Failed { kind, .. } => *kind,
            Inner::Refused { problems } if problems.iter().any(|p| p.kind == ErrorKind::Invalid) => ErrorKind::Invalid,
            Inner::Refused { .. } => ErrorKind::Unsupported,
        }
    }

    /// The step that failed.
    pub fn step(&self) -> Step {
        match &*self.0 {
            Inner::Failed { step, .. } => *step,
            Inner::Refused { .. } => Step::Validate,
        }
    }

    /// The file, directory or program that the step was about.
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Inner::Failed { path, .. } => path.as_deref(),
            Inner::Refused { .. } => None,
        }
    }

    /// The kernel's errno, if a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match &*self.0 {
            Inner::Failed { errno, .. } => errno.map(|e| e as i32),
            Inner::Refused { .. } => None,
        }
    }

    /// What to do about it, where that is known.
    pub fn remedy(&self) -> Option<&str> {
        match &*self.0 {
            Inner::Failed { hint, .. } => hint.as_deref(),
            Inner::Refused { problems } => problems.first().map(|p| p.remedy.as_str()),
        }
    }

    /// Every conflict and every missing feature, for [`ErrorKind::Invalid`] and [`ErrorKind::Unsupported`].
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
            #[cfg(feature = "image")]
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
    fn what_a_main_prints_can_be_read() {
        let error = Error::new(Step::OpenSource, Errno::ENOENT).at("/srv/alpin").hint("the path has to exist");
        let text = "open /srv/alpin: ENOENT (No such file or directory); the path has to exist";
        assert_eq!((error.to_string(), format!("{error:?}")), (text.to_owned(), format!("Setup: {text}")));
        assert!(format!("{error:#?}").contains("errno: Some"));
    }
}
