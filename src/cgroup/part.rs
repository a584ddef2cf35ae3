//! The directory of a sandbox's group in one hierarchy.

use std::cell::RefCell;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::controllers::{Controllers, Version};
use super::hierarchy::Hierarchy;
use super::remedies::DELEGATE;
use super::{cpuset, kernfs, mark, parents};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::table;

const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// After EBUSY for this long, the processes that keep the group are not simply exiting.
const SLOW_EXIT: Duration = Duration::from_millis(2);

/// The directory of a sandbox's group in one hierarchy, which stays open.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) version: Version,
    /// All controllers of the hierarchy on v1, the requested ones on v2.
    pub(super) controllers: Controllers,
    pub(super) path: PathBuf,
    /// The mount point of the hierarchy.
    pub(super) mount: PathBuf,
    dir: OwnedFd,
    /// What the directory was before the sandbox came, if it existed. Such a directory stays.
    pub(super) adopted: Option<Adopted>,
    /// True once the directory was removed.
    gone: AtomicBool,
}

/// What a sandbox gives back of a group that existed before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Adopted {
    /// A kill without `cgroup.kill` closes the group to forks by this file.
    pub(super) pids_max: Option<String>,
    /// The name of the sandbox by which the directory is marked.
    pub(super) mark: Option<String>,
}

impl Part {
    /// Makes the directory. An existing directory belongs to somebody else and is an error.
    pub(super) fn create(
        hierarchy: &Hierarchy,
        parent: Option<&Path>,
        name: &str,
        requested: Controllers,
    ) -> Result<Part> {
        let base = hierarchy.base(parent).ok_or_else(|| {
            Error::new(Step::CreateCgroup, Errno::ENOENT)
                .at(&hierarchy.mount)
                .detail("the caller's own group is not visible there")
                .hint("name a group with cgroup_parent")
        })?;
        let fail = |errno| creation_failed(errno, &base.join(name));
        let controllers = if hierarchy.version == Version::V1 { hierarchy.controllers } else { requested };
        let path = parents::make_below(hierarchy, &base, name, parent.is_some()).map_err(fail)?;
        let made = cpuset::fill(hierarchy, &path)
            .and_then(|()| Part::open(hierarchy.version, controllers, &path, &hierarchy.mount));
        made.map_err(|errno| {
            let _ = unlinkat(AT_FDCWD, &path, UnlinkatFlags::RemoveDir);
            parents::remove_empty(&base, &hierarchy.mount);
            fail(errno)
        })
    }

    /// Opens an existing directory.
    pub(super) fn open(version: Version, controllers: Controllers, path: &Path, mount: &Path) -> nix::Result<Part> {
        let dir = kernfs::open_dir(path)?;
        Ok(Part {
            version,
            controllers,
            path: path.to_owned(),
            mount: mount.to_owned(),
            dir,
            adopted: None,
            gone: AtomicBool::new(false),
        })
    }

    /// Returns the same directory with a descriptor of its own.
    pub(super) fn again(&self) -> nix::Result<Part> {
        let Part { version, controllers, path, mount, dir, adopted, gone } = self;
        let dir = dir.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))?;
        let gone = AtomicBool::new(gone.load(Ordering::Acquire));
        Ok(Part {
            version: *version,
            controllers: *controllers,
            path: path.clone(),
            mount: mount.clone(),
            dir,
            adopted: adopted.clone(),
            gone,
        })
    }

    /// Opens the group `name` directly below this one.
    pub(super) fn sub(self, name: &OsStr) -> nix::Result<Part> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(self.dir(), name, flags, Mode::empty()).and_then(table::above_stdio)?;
        Ok(Part { path: self.path.join(name), dir, ..self })
    }

    /// Returns the open directory (`O_PATH`).
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Returns the error of `step` at one of the group's files.
    pub(super) fn failed(&self, step: Step, errno: Errno, file: &CStr) -> Error {
        self.error(step, errno).at(kernfs::join(&self.path, file))
    }

    /// Returns the error of `step` at the group.
    pub(super) fn error(&self, step: Step, errno: Errno) -> Error {
        let error = Error::new(step, errno).at(&self.path);
        match step {
            Step::CreateCgroup | Step::SetLimit | Step::DeviceRules => error,
            _ => error.with_kind(ErrorKind::Control),
        }
    }

    /// Reads a file. Returns `None` if the kernel does not have the file.
    pub(super) fn text(&self, file: &CStr) -> Result<Option<String>> {
        kernfs::read_optional(self.dir(), file).map_err(|errno| self.failed(Step::Stats, errno, file))
    }

    /// Reads a number from a file. Returns `None` if the kernel does not have the file, or if the
    /// file says `max`.
    pub(super) fn number(&self, file: &CStr) -> Result<Option<u64>> {
        kernfs::number(self.dir(), file).map_err(|errno| self.failed(Step::Stats, errno, file))
    }

    /// Writes a file if the group has it. Returns whether the group has the file.
    pub(super) fn write_optional(&self, file: &CStr, value: &str) -> nix::Result<bool> {
        match kernfs::write(self.dir(), file, value) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Opens the file to which a child with one thread writes `0` to move itself. On v1 that is
    /// `tasks`: a thread that moves only itself does not take the kernel's lock over all forks and
    /// exits (since 5.16). Taking that lock waits for all processors.
    pub(super) fn open_procs(&self) -> Result<OwnedFd> {
        let file = if self.version == Version::V1 { c"tasks" } else { c"cgroup.procs" };
        openat(self.dir(), file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
            .and_then(table::above_stdio)
            .map_err(|errno| self.failed(Step::CreateCgroup, errno, file))
    }

    /// Visits the group and all groups below it.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(BorrowedFd<'_>) -> nix::Result<()>) -> nix::Result<()> {
        kernfs::walk(self.dir(), visit, &mut |_, _| Ok(()))
    }

    /// Returns every process in the group and below, with its number in this pid namespace (0 for a
    /// process outside of it).
    pub(super) fn processes(&self) -> nix::Result<Vec<i32>> {
        let mut pids = Vec::new();
        self.walk(&mut |dir| {
            match kernfs::read(dir, c"cgroup.procs") {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                // This is a threaded group. Its processes are listed in the domain above, which is
                // this group or one below it.
                Err(Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
            Ok(())
        })?;
        Ok(pids)
    }

    /// Returns whether a process lives in the group or below.
    pub(super) fn is_populated(&self) -> nix::Result<bool> {
        match kernfs::read_optional(self.dir(), c"cgroup.events") {
            Ok(Some(text)) => Ok(kernfs::field(&text, "populated") == Some(1)),
            Ok(None) => match self.processes() {
                Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
                other => Ok(!other?.is_empty()),
            },
            Err(Errno::ENODEV) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Removes the group and all groups below it; of an adopted one only those below. A group is
    /// busy while one of its processes is still exiting, so the function retries on EBUSY until
    /// `deadline`. It calls `on_delay` from time to time when that takes long.
    pub(super) fn remove(&self, deadline: Instant, on_delay: &dyn Fn()) -> Result<()> {
        if self.gone.load(Ordering::Acquire) {
            return Ok(());
        }
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let removed = match &self.adopted {
                Some(adopted) => self.give_back(adopted),
                None => unlinkat(AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir),
            };
            let errno = match removed {
                Ok(()) | Err(Errno::ENOENT) => break,
                Err(errno) => errno,
            };
            if !matches!(errno, Errno::EBUSY | Errno::ENOTEMPTY) {
                return Err(self.error(Step::RemoveCgroup, errno));
            }
            if self.remove_below(deadline).unwrap_or(false) {
                continue;
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(self.error(Step::RemoveCgroup, errno).hint("processes are left in it"));
            }
            if now - start > SLOW_EXIT {
                on_delay();
            }
            std::thread::sleep(pause.min(deadline - now));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.gone.store(true, Ordering::Release);
        if let Some(base) = self.path.parent() {
            parents::remove_empty(base, &self.mount);
        }
        Ok(())
    }

    /// Leaves an adopted group as empty as it was. Fails like rmdir(2) while something is in it.
    fn give_back(&self, adopted: &Adopted) -> nix::Result<()> {
        let gone = |errno| if errno == Errno::ENODEV { Errno::ENOENT } else { errno };
        if !kernfs::subgroups(self.dir()).map_err(gone)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        if !kernfs::read(self.dir(), c"cgroup.procs").map_err(gone)?.is_empty() {
            return Err(Errno::EBUSY);
        }
        if let Some(pids_max) = &adopted.pids_max {
            self.write_optional(c"pids.max", pids_max).map_err(gone)?;
        }
        if let Some(name) = &adopted.mark {
            mark::remove(self.version, self.dir(), name).map_err(gone)?;
        }
        Ok(())
    }

    /// Removes the groups that were made inside, deepest first. Returns whether there were any and
    /// all are gone.
    fn remove_below(&self, deadline: Instant) -> nix::Result<bool> {
        let removed = RefCell::new(false);
        kernfs::walk(
            self.dir(),
            &mut |_| if Instant::now() < deadline { Ok(()) } else { Err(Errno::ETIMEDOUT) },
            &mut |above, name| {
                unlinkat(above, name, UnlinkatFlags::RemoveDir)?;
                *removed.borrow_mut() = true;
                Ok(())
            },
        )?;
        Ok(removed.into_inner())
    }
}

/// Explains why the directory could not be made.
fn creation_failed(errno: Errno, path: &Path) -> Error {
    let error = Error::new(Step::CreateCgroup, errno).at(path);
    match errno {
        Errno::EEXIST => error.hint("a group of this name is not ours to use"),
        Errno::EACCES | Errno::EPERM | Errno::EROFS => error.hint(DELEGATE),
        Errno::EAGAIN => error.hint("cgroup.max.descendants or cgroup.max.depth of a group above is reached"),
        Errno::ENOSPC => {
            error.hint("the kernel takes no more groups, or the parent cpuset has no cpus or memory nodes")
        }
        _ => error,
    }
}
