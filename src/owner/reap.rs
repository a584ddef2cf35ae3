//! Clearing what dead owners left.

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::record::{self, Found};
use super::scratch::{self, Removal};
use super::{KEPT, OWNED, dir, own_token};
use crate::cgroup;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::pidfd;

/// How long the removal of one scratch directory may take. What is left stays on record.
const REMOVAL: Duration = Duration::from_secs(60);
/// How long a process may take to die.
const DEATH: u16 = 5000;
/// How many names of a shared directory are read.
const NAMES_MAX: usize = 1 << 20;

/// What [`reap_stale`] found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// Owners that had died.
    pub owners: usize,
    /// Control groups, with the processes in them.
    pub cgroups: usize,
    /// Scratch directories.
    pub scratch_dirs: usize,
    /// Records and directories that were left where they are: they have names of the library's, and are not what these names
    /// say, or not the caller's. Somebody else has put them there.
    pub passed_over: usize,
}

/// Clears what dead owners left: control groups with the processes still in them, and scratch directories. What a living
/// owner holds is never touched, and what was told to outlive its owner
/// ([`die_with_owner(false)`](crate::Sandbox::die_with_owner)) only once nothing runs in it.
///
/// An owner counts as living while it, or a fork of it that has not called exec, lives. Only owners of the same user are
/// looked at. A record proves nothing but of the owner that made it, so a program that may write where records stand gains
/// nothing by writing one; what such a program, or another user, has put there is counted in
/// [`passed_over`](Reaped::passed_over) and keeps nothing else from being cleared.
///
/// # What is not found
///
/// A sandbox without a control group and without a scratch directory leaves nothing, and no record. With an
/// [`init`](crate::Sandbox::init) it dies with its owner whatever its program does. Without one a program can take its death
/// signal off, and run on; where it has a scratch directory it is found by that, and killed, but not what it has started outside
/// of a [`pid_ns`](crate::Sandbox::pid_ns).
///
/// # Errors
///
/// The last thing that could not be removed; what is left stays on record for a later call.
pub fn reap_stale() -> Result<Reaped> {
    let mut reaped = Reaped::default();
    let own = own_token();
    let mut result = Ok(());
    for path in record::runtime_dirs() {
        let Some(runtime) = record::open_private(&path) else { continue };
        let names = match dir::names(runtime.as_fd(), NAMES_MAX) {
            Ok(names) => names,
            Err(errno) => {
                result = Err(Error::new(Step::Reap, errno).at(&path));
                continue;
            }
        };
        let names = names.iter().filter_map(|name| name.to_str().ok()).filter(|name| own.as_deref() != Some(*name));
        for name in names.filter(|name| record::is_token(name) || record::is_new(name)) {
            if let Err(error) = reap_owner(runtime.as_fd(), &path, name, &mut reaped) {
                result = Err(error);
            }
        }
    }
    result.map(|()| reaped)
}

/// The record stays locked until it is removed: of two reapers one waits for nothing, and finds nothing.
fn reap_owner(runtime: BorrowedFd<'_>, base: &Path, name: &str, reaped: &mut Reaped) -> Result<()> {
    let failed = |errno| Error::new(Step::Reap, errno).at(base.join(name));
    let (_lock, text) = match record::look(runtime, name).map_err(failed)? {
        Found::Nothing => return Ok(()),
        Found::Planted => {
            reaped.passed_over += 1;
            return Ok(());
        }
        Found::Stale(lock, text) => (lock, text),
    };
    let mut stale = Stale { token: name, kept: false, has_groups: false, result: Ok(()) };
    if record::is_token(name) {
        for entry in text.split(|byte| *byte == 0) {
            let Some(space) = entry.iter().position(|byte| *byte == b' ') else { continue };
            let dir = PathBuf::from(OsString::from_vec(entry[space + 1..].to_vec()));
            stale.clear(&entry[..space], &dir, reaped);
        }
    }
    stale.result?;
    if !stale.kept {
        reaped.owners += usize::from(record::is_token(name));
        unlinkat(runtime, name, UnlinkatFlags::NoRemoveDir).map_err(failed)?;
    }
    Ok(())
}

/// A dead owner whose things are being cleared.
struct Stale<'r> {
    token: &'r str,
    /// Something is to stay.
    kept: bool,
    has_groups: bool,
    /// The last failure: one thing that cannot be removed keeps none of the others.
    result: Result<()>,
}

impl Stale<'_> {
    fn clear(&mut self, kind: &[u8], dir: &Path, reaped: &mut Reaped) {
        let result = match kind {
            b"cgroup" => self.clear_groups(dir, reaped),
            b"level" => {
                remove_level(dir);
                Ok(())
            }
            b"scratch" => self.clear_scratch(dir, reaped),
            _ => Err(Error::message(ErrorKind::Setup, Step::Reap, "a record of another version").at(self.token)),
        };
        if let Err(error) = result {
            self.result = Err(error);
        }
    }

    fn clear_groups(&mut self, dir: &Path, reaped: &mut Reaped) -> Result<()> {
        self.has_groups = true;
        let removed = cgroup::sweep(dir, self.token, OWNED, KEPT);
        self.kept |= holds(dir, &format!("{KEPT}{}-", self.token));
        reaped.cgroups += removed?;
        Ok(())
    }

    /// Removes the scratch directories of this owner's that stand in `dir`.
    fn clear_scratch(&mut self, path: &Path, reaped: &mut Reaped) -> Result<()> {
        let failed = |errno| Error::new(Step::Reap, errno).at(path);
        let Ok(dir) = dir::open_named(path) else { return Ok(()) };
        let (owned, outliving) = (format!("{OWNED}{}-", self.token), format!("{KEPT}{}-", self.token));
        for name in dir::names(dir.as_fd(), NAMES_MAX).map_err(failed)? {
            if scratch::has_prefix(&name, &owned) {
                end_process(dir.as_fd(), &name).map_err(failed)?;
            } else if !scratch::has_prefix(&name, &outliving) {
                continue;
            } else if self.is_in_use(dir.as_fd(), &name) {
                self.kept = true;
                continue;
            }
            let until = Some(Instant::now() + REMOVAL);
            match scratch::remove_below(dir.as_fd(), scratch::as_os_str(&name), None, until).map_err(failed)? {
                Removal::Removed => reaped.scratch_dirs += 1,
                Removal::Foreign => reaped.passed_over += 1,
                Removal::Gone => {}
            }
        }
        Ok(())
    }

    /// Whether a sandbox that outlives its owner still has the directory: its group is there, or its process.
    fn is_in_use(&self, dir: BorrowedFd<'_>, name: &CStr) -> bool {
        if self.has_groups {
            return self.kept;
        }
        scratch::process_of(dir, scratch::as_os_str(name)).is_none_or(|process| !matches!(process.open(), Ok(None)))
    }
}

/// Kills the process that has a scratch directory mounted: where it has taken its death signal off, it still runs.
fn end_process(dir: BorrowedFd<'_>, name: &CString) -> nix::Result<()> {
    let Some(process) = scratch::process_of(dir, scratch::as_os_str(name)) else { return Ok(()) };
    let Some(process) = process.open()? else { return Ok(()) };
    match pidfd::send_signal(process.as_fd(), libc::SIGKILL) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(()),
        other => return other,
    }
    // Where there is no pidfd the wait ends at once, and the removal waits for nobody.
    match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::from(DEATH)) {
        Ok(0) => Err(Errno::ETIMEDOUT),
        _ => Ok(()),
    }
}

/// Removes a level of control groups, if it is one and empty. Somebody else's group, or a kept one, may stand in it.
fn remove_level(dir: &Path) {
    let is_cgroup =
        |fs: nix::sys::statfs::Statfs| matches!(fs.filesystem_type(), CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC);
    if statfs(dir).is_ok_and(is_cgroup) {
        let _ = fs::remove_dir(dir);
    }
}

/// Whether an entry of `dir` has a name that begins with `prefix`.
fn holds(dir: &Path, prefix: &str) -> bool {
    fs::read_dir(dir)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().as_bytes().starts_with(prefix.as_bytes())))
}
