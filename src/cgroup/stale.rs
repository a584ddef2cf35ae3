//! Removes the groups of an owner that died.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, Statfs, statfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::controllers::{Controllers, Version};
use super::part::Part;
use super::{kernfs, kill, parents};
use crate::error::{Error, ErrorKind, Result, Step};

/// The longest wait for one group.
const BOUND: Duration = Duration::from_secs(1);
/// The pause between two attempts at a group in which something ends.
const PAUSE: Duration = Duration::from_millis(5);

/// Removes the groups directly below `dir` that carry `token`, and returns their number. A group
/// whose name begins with `owned` and the token is killed first. A group whose name begins with
/// `kept` and the token is removed only if no process runs in it. Every group is tried, and the
/// first failure is returned. A missing `dir` has no groups.
pub(crate) fn sweep(dir: &Path, token: &str, owned: &str, kept: &str) -> Result<usize> {
    if token.is_empty() || token.contains(['/', '-']) {
        return Err(Error::new(Step::Reap, Errno::EINVAL).at(token));
    }
    let fail = |errno| Error::new(Step::Reap, errno).at(dir);
    let fd = match kernfs::open_dir(dir) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(0),
        Err(errno) => return Err(fail(errno)),
    };
    let (owned, kept) = (format!("{owned}{token}-"), format!("{kept}{token}-"));
    let (mut removed, mut failure) = (0, None);
    for name in kernfs::subgroups(fd.as_fd()).map_err(fail)? {
        let name = name.as_bytes();
        let path = dir.join(OsStr::from_bytes(name));
        let outcome = if name.starts_with(owned.as_bytes()) {
            clear(&path, Some(BOUND))
        } else if name.starts_with(kept.as_bytes()) {
            clear(&path, None)
        } else {
            continue;
        };
        match outcome {
            Ok(cleared) => removed += usize::from(cleared),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(removed), Err)
}

/// Kills what is in the group at `path` and removes the group, which may be gone. Waits up to
/// `timeout` for processes to end.
pub(crate) fn end(path: &Path, timeout: Duration) -> Result<()> {
    if is_cgroup(path)? { clear(path, Some(timeout)).map(drop) } else { Ok(()) }
}

/// Returns whether there is a group at `path`. Anything but a group is an error.
fn is_cgroup(path: &Path) -> Result<bool> {
    let is_cgroup = |fs: Statfs| matches!(fs.filesystem_type(), CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC);
    match statfs(path).map(is_cgroup) {
        Ok(true) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Ok(false) => Err(Error::new(Step::Reap, Errno::EXDEV).at(path).detail("not a control group")),
        Err(errno) => Err(Error::new(Step::Reap, errno).at(path)),
    }
}

/// Removes the group at `path`, which may be gone, as soon as nothing is in it: within `timeout`.
/// What runs in it is left alone.
pub(crate) fn remove_empty(path: &Path, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    if !is_cgroup(path)? {
        return Ok(());
    }
    loop {
        match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => break,
            Err(Errno::EBUSY) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(errno) => {
                let error = Error::new(Step::RemoveCgroup, errno).at(path).with_kind(ErrorKind::Control);
                return Err(error.hint("something runs in it, and it is not known to be the sandbox's"));
            }
        }
    }
    path.parent().into_iter().for_each(|base| parents::remove_empty(base, Path::new("/")));
    Ok(())
}

/// Removes a parent group, if nothing is in it: its maker may have ended before it was marked.
pub(crate) fn remove_parent(path: &Path) {
    if is_cgroup(path).unwrap_or(false) {
        // Others may have come below it.
        let _ = unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir);
    }
}

/// Removes a group. With `kill_for`, kills what is in it first, and waits so long for the end.
fn clear(path: &Path, kill_for: Option<Duration>) -> Result<bool> {
    let fail = |errno| Error::new(Step::Reap, errno).at(path);
    let part = match inspect(path) {
        Err(Errno::ENOENT) => return Ok(false),
        other => other.map_err(fail)?,
    };
    if kill_for.is_none() && part.is_populated().map_err(fail)? {
        return Ok(false);
    }
    if let Some(bound) = kill_for {
        kill::kill(&[&part], bound)?;
    }
    part.remove(Instant::now() + kill_for.unwrap_or(BOUND), &|| {})?;
    Ok(true)
}

/// Opens a group. The files of the group tell which hierarchy it is in.
fn inspect(path: &Path) -> nix::Result<Part> {
    let has = |file: &str| path.join(file).exists();
    let version = if has("cgroup.events") { Version::V2 } else { Version::V1 };
    let mut controllers = Controllers::empty();
    controllers.set(Controllers::PIDS, has("pids.max"));
    controllers.set(Controllers::FREEZER, has("freezer.state") || has("cgroup.freeze"));
    Part::open(version, controllers, path, Path::new("/"))
}
