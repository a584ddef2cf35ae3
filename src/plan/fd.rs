//! The descriptors that are sent with a plan.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use crate::error::{Error, Result, Step};
use crate::sys::mount::Relation;
use crate::sys::{mount, mutex};

/// The name of a descriptor that each run provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunFd {
    /// The page in which the stub leaves the errno of a silent failure.
    FailurePage,
    /// The `cgroup.procs` with this index, to which the stub writes itself.
    CgroupProcs(usize),
    /// The Landlock ruleset.
    Ruleset,
    /// The master of the program's terminal.
    Terminal,
    /// The file system with the device nodes that the caller has made.
    Nodes,
}

/// The descriptors that one run provides, by their names.
#[derive(Debug, Default)]
pub(crate) struct RunFds<'f> {
    pub(crate) failure_page: Option<BorrowedFd<'f>>,
    pub(crate) cgroup_procs: Vec<BorrowedFd<'f>>,
    pub(crate) ruleset: Option<BorrowedFd<'f>>,
    pub(crate) terminal: Option<BorrowedFd<'f>>,
    pub(crate) nodes: Option<BorrowedFd<'f>>,
}

impl<'f> RunFds<'f> {
    fn get(&self, name: RunFd) -> Option<BorrowedFd<'f>> {
        match name {
            RunFd::FailurePage => self.failure_page,
            RunFd::CgroupProcs(number) => self.cgroup_procs.get(number).copied(),
            RunFd::Ruleset => self.ruleset,
            RunFd::Terminal => self.terminal,
            RunFd::Nodes => self.nodes,
        }
    }
}

/// A descriptor that is sent with a plan. The plan may share the descriptor's owner with the
/// policy, so that one policy can spawn many times.
#[derive(Debug, Clone)]
pub(crate) enum PlanFd {
    Shared(Arc<OwnedFd>),
    /// A descriptor that the caller holds open until the plan has run: one of its 0, 1 and 2, or
    /// the template's.
    Held(RawFd),
    /// A copy of a mount. Each run makes its own copy, because an attached copy cannot be used
    /// again.
    Tree(Arc<Tree>),
    /// A descriptor that is made for each run.
    Made(Arc<Made>),
    /// A descriptor that each run provides.
    OfRun(RunFd),
}

impl PlanFd {
    /// Returns the number of the descriptor. Returns -1, which is never a descriptor, if the run
    /// has not opened the descriptor yet.
    pub(crate) fn raw(&self) -> RawFd {
        match self {
            PlanFd::Shared(fd) => fd.as_raw_fd(),
            PlanFd::Held(fd) => *fd,
            PlanFd::Tree(_) | PlanFd::Made(_) | PlanFd::OfRun(_) => -1,
        }
    }

    pub(super) fn open(&self, given: &RunFds<'_>, ids: Option<BorrowedFd<'_>>) -> Result<PlanFd> {
        match self {
            PlanFd::Tree(tree) => Ok(tree.open(ids)?.into()),
            PlanFd::Made(made) => Ok(made.open()?.into()),
            PlanFd::OfRun(name) => {
                let fd = given.get(*name).ok_or_else(|| Error::new(Step::ReadPlan, Errno::EBADF))?;
                Ok(PlanFd::Held(fd.as_raw_fd()))
            }
            other => Ok(other.clone()),
        }
    }

    pub(super) fn release(&self) {
        match self {
            PlanFd::Tree(tree) => drop(tree.take()),
            PlanFd::Made(made) => drop(made.take()),
            PlanFd::Shared(_) | PlanFd::Held(_) | PlanFd::OfRun(_) => {}
        }
    }
}

impl From<OwnedFd> for PlanFd {
    fn from(fd: OwnedFd) -> Self {
        PlanFd::Shared(Arc::new(fd))
    }
}

/// A descriptor that is made anew for each run.
pub(crate) struct Made {
    make: Box<dyn Fn() -> Result<OwnedFd> + Send + Sync>,
    /// The first one, which was made to find out whether it can be made.
    first: Mutex<Option<OwnedFd>>,
}

impl Made {
    pub(crate) fn new(first: OwnedFd, make: impl Fn() -> Result<OwnedFd> + Send + Sync + 'static) -> Made {
        Made { make: Box::new(make), first: Mutex::new(Some(first)) }
    }

    fn take(&self) -> Option<OwnedFd> {
        mutex::lock(&self.first).take()
    }

    fn open(&self) -> Result<OwnedFd> {
        self.take().map_or_else(|| (self.make)(), Ok)
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("first", &self.first).finish_non_exhaustive()
    }
}

/// A mount of the host that is to be copied.
#[derive(Debug)]
pub(crate) struct Tree {
    path: PathBuf,
    recursive: bool,
    relation: Relation,
    /// If true, the copy shows the ids of its files as the user namespace of the run maps them.
    mapped: bool,
    /// The user namespace of the mount's own that maps the ids of its files, and whether also those
    /// of what is mounted below.
    ids: Option<(Arc<OwnedFd>, bool)>,
    /// The first copy, which was made to find out whether a copy can be made.
    first: Mutex<Option<OwnedFd>>,
}

impl Tree {
    pub(crate) fn new(path: &Path, recursive: bool, relation: Relation) -> Result<Tree, Errno> {
        let first = Mutex::new(Some(copy(path, recursive, relation)?));
        Ok(Tree { path: path.to_owned(), recursive, relation, mapped: false, ids: None, first })
    }

    pub(crate) fn with_mapped_ids(self, mapped: bool) -> Tree {
        Tree { mapped, ..self }
    }

    /// Maps the ids of the files by this user namespace, and with `recursive` also those of what is
    /// mounted below.
    pub(crate) fn with_ids(self, user_ns: Arc<OwnedFd>, recursive: bool) -> Tree {
        Tree { ids: Some((user_ns, recursive)), ..self }
    }

    fn take(&self) -> Option<OwnedFd> {
        mutex::lock(&self.first).take()
    }

    fn open(&self, ids: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
        let failed = |step| move |errno| Error::new(step, errno).at(&self.path);
        let tree = match self.take() {
            Some(first) => first,
            None => copy(&self.path, self.recursive, self.relation).map_err(failed(Step::OpenTree))?,
        };
        if self.mapped {
            let ids = ids.ok_or(Errno::EBADF).map_err(failed(Step::IdMapMount))?;
            mount::map_ids(tree.as_fd(), ids, self.recursive).map_err(failed(Step::IdMapMount))?;
        }
        if let Some((user_ns, recursive)) = &self.ids {
            mount::map_ids(tree.as_fd(), user_ns.as_fd(), *recursive).map_err(failed(Step::IdMapMount))?;
        }
        Ok(tree)
    }
}

fn copy(path: &Path, recursive: bool, relation: Relation) -> Result<OwnedFd, Errno> {
    let tree = mount::clone_tree(path, recursive)?;
    mount::relate(tree.as_fd(), relation)?;
    Ok(tree)
}
