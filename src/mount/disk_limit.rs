//! Limits on what a directory of the host takes on disk: project quotas. The caller sets them
//! before the child exists.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::sys::by_fd;
use crate::sys::quota::{self, Project};
use crate::units::Bytes;

/// The projects that are given to directories: from here on, by the directory's inode.
const FIRST_PROJECT: u32 = quota::FIRST_OWN;

/// The most that a directory on disk may take, with all that is below it: space and files.
///
/// The limit is a project quota of the file system, as xfs_quota(8) and setquota(8) set it: ext4
/// with the features `quota` and `project`, mounted with `prjquota` (4.5), or XFS with `prjquota`.
/// It takes CAP_SYS_ADMIN, and Linux 5.14. Beyond it, the program gets EDQUOT, or ENOSPC on XFS.
///
/// A directory that is empty gets a project of its own; one that is the top of a project, which what
/// is made in it inherits, keeps it. Project and limit stay with the directory, as its files do: they
/// hold for the next sandbox, which may set another limit, and for whoever else writes there. Files
/// that somebody had put there before the directory had its project do not count.
///
/// No other user may be able to exchange the directory, or one above it. What is mounted below the
/// directory has no limit, and is not shown. On an XFS with a realtime device, its owner may put a
/// file there, where the limit does not hold.
///
/// A program could give files of its own to another project, and root is not held by quotas: a
/// sandbox with such a limit needs [`user_ns`](crate::Sandbox::user_ns), in which the kernel lets
/// nobody do either. For writes that are to vanish with the sandbox there are
/// [`Overlay::tmpfs`](crate::Overlay::tmpfs) and [`RootFs::tmpfs`](crate::RootFs::tmpfs), on any
/// file system.
///
/// ```no_run
/// use ringfence::{Bind, Bytes, DiskLimit, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let limit = DiskLimit::new(Bytes::gib(2)).inodes(100_000);
/// let work = Bind::new("/srv/build/17", "/work").disk_limit(limit);
/// Sandbox::strict().mount(work).command("make").cwd("/work").status()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimit {
    pub(crate) bytes: Bytes,
    pub(crate) inodes: Option<u64>,
}

impl DiskLimit {
    /// Limits the space on disk, rounded up to a KiB: blocks that hold data, and those of the
    /// directories themselves.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        DiskLimit { bytes: bytes.into(), inodes: None }
    }

    /// Limits the number of files, directories and links as well, that of the top directory
    /// included.
    pub fn inodes(mut self, most: u64) -> Self {
        self.inodes = Some(most);
        self
    }

    /// Returns the contradictions in the limit.
    pub(super) fn invalid(self) -> Option<Problem> {
        let none = self.bytes.get() == 0 || self.inodes == Some(0);
        (none || self.bytes.get() > i64::MAX as u64).then(|| {
            let reason = "the kernel would take the limit for none";
            Problem::invalid("disk_limit", reason, "give at least one KiB and one inode, or mount read-only")
        })
    }

    /// Limits what `dirs` take together. They are on one file system, and in one project from then
    /// on.
    pub(super) fn set(self, dirs: &[&Path]) -> Result<()> {
        let mut project = None;
        let mut top = None;
        for dir in dirs {
            let fd = open(dir).map_err(|errno| Error::new(Step::DiskLimit, errno).at(dir))?;
            let id = join(fd.as_fd(), project).map_err(|error| error.at(*dir))?;
            project = Some(id);
            top = Some((fd, *dir, id));
        }
        let Some((fd, dir, id)) = top else { return Ok(()) };
        quota::limit(fd.as_fd(), id, self.bytes.get(), self.inodes.unwrap_or(0)).map_err(|errno| explain(errno).at(dir))
    }
}

/// Returns why what is written to `dir` cannot be limited, with a remedy.
pub(super) fn unsupported(dir: &Path) -> Option<(String, &'static str)> {
    // A directory that is missing is told elsewhere.
    let dir = open(dir).ok()?;
    match quota::enforces_projects(dir.as_fd()) {
        Ok(true) => None,
        Ok(false) => Some((
            "the file system enforces no project quotas".to_owned(),
            "mount an ext4 or XFS with prjquota for it, or use tmpfs(size)",
        )),
        Err(Errno::ENOSYS) => Some(("quotactl_fd(2) came with Linux 5.14".to_owned(), "use tmpfs(size)")),
        Err(errno) => Some((format!("the quotas of the file system cannot be read: {errno}"), "use tmpfs(size)")),
    }
}

fn open(dir: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(dir, flags, Mode::empty())
}

/// Puts a directory into `project`, or into its own, and returns which that is.
fn join(dir: BorrowedFd<'_>, project: Option<u32>) -> Result<u32> {
    let own = quota::project_of(dir).map_err(explain)?;
    if own.id == 0 || is_below_project(dir, own)? {
        let id = project.map_or_else(|| free(dir), Ok)?;
        quota::set_project(dir, Project { id, inherited: true }).map_err(explain)?;
        // Whatever is made from now on belongs to the project: what is there now may not.
        if !is_empty(dir)? {
            quota::set_project(dir, own).map_err(explain)?;
            let reason = if own.id == 0 {
                "the directory is not empty, and belongs to no project".to_owned()
            } else {
                format!("the directory is not empty, and of project {}, as is the one above", own.id)
            };
            let hint = "limit an empty directory, or give this one and its files to a project first: chattr -R +P -p";
            return Err(Error::message(ErrorKind::Setup, Step::DiskLimit, reason).hint(hint));
        }
        return Ok(id);
    }
    if own.inherited && project.is_none_or(|project| project == own.id) {
        return Ok(own.id);
    }
    let reason = if own.inherited { "another than the upper's" } else { "which its files do not inherit" };
    let reason = format!("the directory is of project {}, {reason}", own.id);
    let hint = "give the directory and its files to one project: chattr -R +P -p";
    Err(Error::message(ErrorKind::Setup, Step::DiskLimit, reason).hint(hint))
}

/// Returns whether the project of a directory is that of the directory above: its limit is not the
/// directory's own.
fn is_below_project(dir: BorrowedFd<'_>, own: Project) -> Result<bool> {
    let failed = |errno| Error::new(Step::DiskLimit, errno);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let above = openat(dir, "..", flags, Mode::empty()).map_err(failed)?;
    let (here, there) = (fstat(dir).map_err(failed)?, fstat(&above).map_err(failed)?);
    if here.st_dev != there.st_dev || here.st_ino == there.st_ino {
        return Ok(false);
    }
    Ok(quota::project_of(above.as_fd()).map_err(explain)?.id == own.id)
}

fn is_empty(dir: BorrowedFd<'_>) -> Result<bool> {
    by_fd::names(dir, 1).map(|names| names.is_empty()).map_err(|errno| Error::new(Step::DiskLimit, errno))
}

/// Returns a project to which nothing belongs. Its number comes of the directory's inode, so that two
/// directories hardly ever take the same at the same time; they would share a limit.
fn free(dir: BorrowedFd<'_>) -> Result<u32> {
    const TRIES: u32 = 64;
    let inode = fstat(dir).map_err(|errno| Error::new(Step::DiskLimit, errno))?.st_ino;
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below 2³⁰")]
    let number = (inode % u64::from(FIRST_PROJECT)) as u32;
    for step in 0..TRIES {
        let id = FIRST_PROJECT + (number + step) % FIRST_PROJECT;
        if !quota::is_used(dir, id).map_err(explain)? {
            return Ok(id);
        }
    }
    Err(explain(Errno::EBUSY).hint("give the directory to a project of your own: chattr +P -p"))
}

fn explain(errno: Errno) -> Error {
    let error = Error::new(Step::DiskLimit, errno);
    match errno {
        Errno::EPERM | Errno::EACCES => error.hint("project quotas are set by root of the host (CAP_SYS_ADMIN)"),
        Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ESRCH => {
            error.hint("mount an ext4 or XFS with prjquota for the directory, or use tmpfs(size)")
        }
        _ => error,
    }
}
