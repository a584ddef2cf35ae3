//! Namespaces that exist: where they come from, and what is found out about them before a child
//! exists.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::kinds::Namespaces;
use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::sys::{nsfs, pidfd, table};

/// An existing namespace, by what leads to it.
#[derive(Debug, Clone)]
pub(crate) enum JoinSource {
    /// An open file of it.
    Fd(Arc<OwnedFd>),
    /// A process that is in it, by its number.
    Pid(i32),
    /// A process that is in it, by its pidfd.
    Process(Arc<OwnedFd>),
    /// A file that shows it, such as one of `ip netns`.
    Path(PathBuf),
}

pub(super) const NO_PROCESS: &str = "there is no such process, or it is not yours to join";

pub(super) fn no_process(pid: i32, errno: Errno) -> Error {
    Error::new(Step::JoinNamespace, errno).at(format!("/proc/{pid}/ns")).hint(NO_PROCESS)
}

/// A process whose namespaces are joined. As long as nobody has reaped it, its pid is its own.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// `None` if the process had ended before it was looked for.
    pub(super) pidfd: Option<Arc<OwnedFd>>,
}

impl Process {
    /// Opens the process behind a number.
    pub(super) fn of_number(pid: i32) -> Result<Self> {
        let pidfd = match pidfd::open_any(pid) {
            // The files of the process in /proc, which are not there either, fail next and name the
            // path.
            Err(Errno::ESRCH | Errno::EINVAL) => None,
            opened => Some(Arc::new(opened.map_err(|errno| no_process(pid, errno))?)),
        };
        Ok(Process { pid, pidfd })
    }

    /// Finds the number of the process behind a pidfd.
    pub(super) fn of_pidfd(pidfd: &Arc<OwnedFd>) -> Result<Self> {
        let pid = pidfd::pid_of(pidfd.as_fd());
        let pid = pid.ok_or_else(|| Error::new(Step::JoinNamespace, Errno::ESRCH).at("pidfd").hint(NO_PROCESS))?;
        Ok(Process { pid, pidfd: Some(pidfd.clone()) })
    }

    /// Opens one namespace of the process.
    pub(super) fn open(&self, kind: Namespaces) -> Result<(OwnedFd, PathBuf)> {
        let path = PathBuf::from(format!("/proc/{}/ns/{}", self.pid, kind.name()));
        let failed = |error: io::Error| Error::io(Step::JoinNamespace, &error).at(&path).hint(NO_PROCESS);
        Ok((File::open(&path).map_err(failed)?.into(), path))
    }

    /// Fails if the number could be another process's by now.
    pub(super) fn check(&self) -> Result<()> {
        match &self.pidfd {
            Some(pidfd) if pidfd::pid_of(pidfd.as_fd()) == Some(self.pid) => Ok(()),
            _ => Err(no_process(self.pid, Errno::ESRCH)),
        }
    }
}

impl JoinSource {
    /// Returns the name of the builder's call.
    pub(crate) fn call(&self) -> &'static str {
        match self {
            JoinSource::Fd(_) => "join_fd",
            JoinSource::Pid(_) => "join_pid",
            JoinSource::Process(_) => "join_process",
            JoinSource::Path(_) => "join_path",
        }
    }

    /// Returns the problem of a source that is no namespace of this kind.
    pub(super) fn problem(&self, kind: Namespaces) -> Option<Problem> {
        match self {
            JoinSource::Fd(fd) => mismatch(fd.as_fd(), kind).map(|reason| {
                Problem::invalid("join_fd", reason, "give an open file of /proc/PID/ns, of the kind that is named")
            }),
            JoinSource::Process(pidfd) => pidfd::pid_of(pidfd.as_fd()).is_none().then(|| {
                let reason = "the descriptor is no pidfd of a process that this one can see, or the process has ended";
                Problem::invalid("join_process", reason, "give a pidfd of a process that runs")
            }),
            JoinSource::Path(path) => match open_file(path) {
                Ok(file) => mismatch(file.as_fd(), kind).map(|reason| {
                    let reason = format!("{}: {reason}", path.display());
                    Problem::invalid("join_path", reason, "name a file of a namespace of this kind")
                }),
                Err(Errno::EINVAL) => Some(Problem::invalid(
                    "join_path",
                    format!("{} is no file of a namespace", path.display()),
                    "name a file of /proc/PID/ns, or one on which such a file is bound",
                )),
                Err(errno) => Some(Problem::unsupported(
                    "join_path",
                    format!("{}: {errno}", path.display()),
                    "name a file of a namespace that this process may open",
                )),
            },
            JoinSource::Pid(_) => None,
        }
    }
}

/// Opens the file of a namespace by its path. EINVAL is any other file.
fn open_file(path: &Path) -> Result<OwnedFd, Errno> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let place = File::options().read(true).custom_flags(flags).open(path).map_err(errno)?;
    if !nsfs::is_namespace(place.as_fd()) {
        return Err(Errno::EINVAL);
    }
    // By the descriptor, as another file could stand at the path by now: a pipe, on which an open
    // would block, or a device, on which it would do something.
    let file = File::open(format!("/proc/thread-self/fd/{}", place.as_raw_fd())).map_err(errno)?;
    table::above_stdio(file.into())
}

/// Opens the file of a namespace of this kind by its path.
pub(super) fn open_path(path: &Path, kind: Namespaces) -> Result<OwnedFd> {
    let file = open_file(path).map_err(|errno| {
        let error = Error::new(Step::JoinNamespace, errno).at(path);
        if errno == Errno::EINVAL { error.hint("this is no file of a namespace") } else { error }
    })?;
    match mismatch(file.as_fd(), kind) {
        Some(reason) => Err(Error::message(ErrorKind::Setup, Step::JoinNamespace, reason).at(path)),
        None => Ok(file),
    }
}

/// Returns the kind of the namespace behind a descriptor: EINVAL if there is none.
pub(crate) fn kind_of(fd: BorrowedFd<'_>) -> Result<Namespaces, Errno> {
    match nsfs::kind_of(fd) {
        Ok(kind) => Ok(Namespaces::from_bits_retain(kind)),
        // Before 4.11, only its name tells: `net:[4026531840]`.
        Err(Errno::ENOTTY) => {
            let link = std::fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()));
            let name =
                link.ok().and_then(|link| link.to_str().and_then(|text| text.split(':').next().map(str::to_owned)));
            Namespaces::all().iter().find(|kind| name.as_deref() == kind.file()).ok_or(Errno::EINVAL)
        }
        Err(errno) => Err(errno),
    }
}

/// Says what a descriptor is that is no namespace of this kind.
fn mismatch(fd: BorrowedFd<'_>, kind: Namespaces) -> Option<String> {
    match kind_of(fd) {
        Ok(other) if other == kind => None,
        Ok(other) => Some(format!("this is a {} namespace, not a {} namespace", other.name(), kind.name())),
        Err(_) => Some(format!("this is no file of a namespace, where a {} namespace is wanted", kind.name())),
    }
}

/// Returns whether a file is that of the namespace of this kind in which this process is. The
/// kernel refuses to join such a user namespace (EINVAL).
pub(super) fn is_own(kind: Namespaces, fd: BorrowedFd<'_>) -> bool {
    let own = kind.file().and_then(|name| std::fs::metadata(format!("/proc/thread-self/ns/{name}")).ok());
    own.is_some_and(|own| fstat(fd).is_ok_and(|theirs| (theirs.st_dev, theirs.st_ino) == (own.dev(), own.ino())))
}
