//! Removes what dead owners left.

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

use super::record::{self, RecordState};
use super::scratch::{self, Removal};
use super::{KEPT, OWNED, dir, own_token};
use crate::cgroup;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::pidfd;

/// The time limit for removing one scratch directory. What is left stays on record.
const REMOVAL: Duration = Duration::from_secs(60);
/// The time limit for a process to die, in milliseconds.
const DEATH: u16 = 5000;
/// The largest number of names that are read from a shared directory.
const NAMES_MAX: usize = 1 << 20;

/// The number of objects that [`reap_stale`] found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// The number of dead owners.
    pub owners: usize,
    /// The number of control groups, removed with their processes.
    pub cgroups: usize,
    /// The number of scratch directories.
    pub scratch_dirs: usize,
    /// The number of records and directories that were left alone: they have a name of this
    /// library, but another user owns them or their content does not fit the name. Another program
    /// has put them there.
    pub passed_over: usize,
}

/// Removes what dead owners left: control groups with their remaining processes, and scratch
/// directories. What a living owner holds is never touched. What outlives its owner
/// ([`die_with_owner(false)`](crate::Sandbox::die_with_owner)) is removed only after all its
/// processes have ended.
///
/// An owner counts as alive while its process lives, or a fork of it that has not called exec. Only
/// owners of the same user are considered. A record is evidence for its own owner only, so a
/// program gains nothing by writing false records into the runtime directory. Records that such a
/// program, or another user, has put there are counted in [`passed_over`](Reaped::passed_over), and
/// do not prevent the removal of others.
///
/// # What is not found
///
/// A sandbox without a control group and a scratch directory leaves nothing, and has no record.
/// With an [`init`](crate::Sandbox::init) it always dies with its owner. Without one, a program can
/// clear its parent-death signal and keep running (prctl(2), `PR_SET_PDEATHSIG`). If it has a
/// scratch directory, it is found by that and killed, but processes that it started outside of a
/// [`pid_ns`](crate::Sandbox::pid_ns) are not.
///
/// # Errors
///
/// The last failure to remove something. What is left stays on record for a later call.
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

/// Removes what the owner of this name has left, if the owner is dead. What still runs stays.
pub(crate) fn reap_owner_of(name: &str) -> Result<()> {
    let Some(token) = token_of(name) else { return Ok(()) };
    for path in record::likely_dirs() {
        if let Some(runtime) = record::open_private(&path) {
            reap_owner(runtime.as_fd(), &path, token, &mut Reaped::default())?;
        }
    }
    Ok(())
}

/// Removes the scratch directories of this name in `base`, whether its owner lives or not.
pub(crate) fn remove_scratch_of(name: &str, base: &Path) -> Result<()> {
    let failed = |errno| Error::new(Step::RemoveScratch, errno).at(base);
    let dir = match dir::open_named(base) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.map_err(failed)?,
    };
    let prefix = format!("{name}-");
    let names = dir::names(dir.as_fd(), NAMES_MAX).map_err(failed)?;
    for name in names.iter().filter(|name| scratch::has_prefix(name, &prefix)) {
        let until = Some(Instant::now() + REMOVAL);
        scratch::remove_below(dir.as_fd(), scratch::as_os_str(name), None, until).map_err(failed)?;
    }
    Ok(())
}

/// Returns the token in the name of a control group or of a scratch directory.
pub(crate) fn token_of(name: &str) -> Option<&str> {
    let rest = [OWNED, KEPT].into_iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let (token, number) = rest.split_once('-')?;
    let is_number = !number.is_empty() && number.len() <= 20 && number.bytes().all(|byte| byte.is_ascii_digit());
    (record::is_token(token) && is_number).then_some(token)
}

/// The record stays locked until it is removed. A second reaper does not wait for the lock, and
/// finds nothing.
fn reap_owner(runtime: BorrowedFd<'_>, base: &Path, name: &str, reaped: &mut Reaped) -> Result<()> {
    let failed = |errno| Error::new(Step::Reap, errno).at(base.join(name));
    let (_lock, text) = match record::read(runtime, name).map_err(failed)? {
        RecordState::Live => return Ok(()),
        RecordState::Planted => {
            reaped.passed_over += 1;
            return Ok(());
        }
        RecordState::Stale(lock, text) => (lock, text),
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

/// A dead owner that is being cleaned up.
struct Stale<'r> {
    token: &'r str,
    /// True if something is kept.
    kept: bool,
    has_groups: bool,
    /// The last failure. One failure does not prevent the removal of the rest.
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
        self.kept |= has_entry(dir, &format!("{KEPT}{}-", self.token));
        reaped.cgroups += removed?;
        Ok(())
    }

    /// Removes this owner's scratch directories in `path`.
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

    /// Returns true if a sandbox that outlives its owner still uses the directory: its control
    /// group or its process exists.
    fn is_in_use(&self, dir: BorrowedFd<'_>, name: &CStr) -> bool {
        if self.has_groups {
            return self.kept;
        }
        scratch::process_of(dir, scratch::as_os_str(name)).is_none_or(|process| !matches!(process.open(), Ok(None)))
    }
}

/// Kills the process that has a scratch directory mounted. It still runs if it has cleared its
/// parent-death signal.
fn end_process(dir: BorrowedFd<'_>, name: &CString) -> nix::Result<()> {
    let Some(process) = scratch::process_of(dir, scratch::as_os_str(name)) else { return Ok(()) };
    let Some(process) = process.open()? else { return Ok(()) };
    match pidfd::send_signal(process.as_fd(), libc::SIGKILL) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(()),
        other => return other,
    }
    // Without a pidfd the wait ends at once, and the removal does not wait.
    match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::from(DEATH)) {
        Ok(0) => Err(Errno::ETIMEDOUT),
        _ => Ok(()),
    }
}

/// Removes a directory of control groups if it is empty. It may contain a group of another process,
/// or one that is kept.
fn remove_level(dir: &Path) {
    let is_cgroup =
        |fs: nix::sys::statfs::Statfs| matches!(fs.filesystem_type(), CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC);
    if statfs(dir).is_ok_and(is_cgroup) {
        let _ = fs::remove_dir(dir);
    }
}

/// Returns true if `dir` has an entry whose name begins with `prefix`.
fn has_entry(dir: &Path, prefix: &str) -> bool {
    fs::read_dir(dir)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().as_bytes().starts_with(prefix.as_bytes())))
}
