//! Checks the base directories of scratch directories.
//!
//! The mounts of a sandbox refer to its scratch directory by path. So only the caller and root may
//! be able to replace a part of that path. A user can rename entries of a directory that the user
//! owns, or that the user may write to and that is not sticky.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
#[cfg(feature = "image")]
use nix::unistd::Gid;
use nix::unistd::Uid;

use crate::error::{Error, Result, Step};
use crate::proc::user_ns;
use crate::sys::fork_mark::PerProcess;

/// The hint for a scratch directory.
const SCRATCH_IN: &str =
    "choose a directory of your own, below directories of your own or root's, with RootFs::scratch_in()";

/// Refuses a directory that another user could replace, or that has such a parent directory.
/// Returns the path that was checked, which has no links: those of the caller's path may belong to
/// others.
pub(crate) fn refuse_exchangeable(base: &Path, step: Step, hint: &str) -> Result<PathBuf> {
    refuse(base, step, None).map_err(|error| error.hint(hint))
}

/// Refuses a directory whose path leads through a link, or whose name another user could give to
/// another directory. The directory itself may be anybody's. The error has no hint.
pub(crate) fn refuse_exchangeable_name(dir: &Path, step: Step) -> Result<()> {
    let failed = |error: &std::io::Error| Error::io(step, error).at(dir);
    let named = std::path::absolute(dir).map_err(|error| failed(&error))?;
    let real = fs::canonicalize(dir).map_err(|error| failed(&error))?;
    if real != named {
        return Err(Error::new(step, Errno::ELOOP).at(dir));
    }
    real.parent().map_or(Ok(()), |above| refuse(above, step, None).map(drop))
}

/// Does what [`refuse_exchangeable`] does, but trusts the members of the caller's own group, if its
/// number is that of the caller's user: where every user has a group of its own, directories are
/// often open to it.
#[cfg(feature = "image")]
pub(crate) fn refuse_exchangeable_by_others(base: &Path, step: Step, hint: &str) -> Result<PathBuf> {
    let (user, group) = (Uid::effective(), Gid::effective().as_raw());
    let trusted = Some(group).filter(|group| *group == user.as_raw());
    refuse(base, step, trusted).map_err(|error| error.hint(hint))
}

fn refuse(base: &Path, step: Step, trusted: Option<u32>) -> Result<PathBuf> {
    let failed = |path: &Path, error: &std::io::Error| Error::io(step, error).at(path);
    let real = fs::canonicalize(base).map_err(|error| failed(base, &error))?;
    for dir in real.ancestors() {
        let meta = fs::symlink_metadata(dir).map_err(|error| failed(dir, &error))?;
        let sticky = meta.mode() & libc::S_ISVTX != 0;
        let others = if Some(meta.gid()) == trusted { 0o002 } else { 0o022 };
        let reason = if !is_trusted(meta.uid()) {
            format!("user {}, its owner, could replace what is made here", meta.uid())
        } else if meta.mode() & others != 0 && !sticky {
            "others may write to it, and could replace what is made here".to_owned()
        } else {
            continue;
        };
        return Err(Error::new(step, Errno::EPERM).at(dir).detail(reason));
    }
    Ok(real)
}

/// Checks the directory for a scratch directory, and returns its path without links.
pub(crate) fn scratch_base(base: &Path) -> Result<PathBuf> {
    refuse_exchangeable(base, Step::Scratch, SCRATCH_IN)
}

/// Returns true for the caller, for root, and, in a user namespace, for owners without an id there:
/// these are outside, where root made the directories of a container.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw() || Some(uid) == unknown_uid()
}

/// Returns the uid that owners without an id in the caller's user namespace appear to have, or
/// `None` if all owners have ids.
fn unknown_uid() -> Option<u32> {
    static UNKNOWN: PerProcess<Option<u32>> = PerProcess::new();
    let found = UNKNOWN.get_or_try(|| {
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
        Ok::<_, Errno>(overflow.and_then(|text| text.trim().parse().ok()).filter(|_| !user_ns::is_initial()))
    });
    found.ok().copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn what_another_user_could_exchange_is_refused() {
        let top = std::env::temp_dir().join(format!("rftest-base-{}", std::process::id()));
        let base = top.join("base");
        fs::create_dir_all(&base).unwrap();
        let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let mut seen = Vec::new();
        for (outer, inner) in
            [(0o755, 0o700), (0o1777, 0o700), (0o777, 0o700), (0o755, 0o777), (0o755, 0o1777), (0o775, 0o700)]
        {
            allow(&top, outer);
            allow(&base, inner);
            seen.push(refuse_exchangeable(&base, Step::Scratch, SCRATCH_IN).is_ok());
        }
        allow(&top, 0o755);
        allow(&base, 0o755);
        let mut others = Vec::new();
        if Uid::effective().is_root() {
            for dir in [&base, &top] {
                chown(dir, Some(1000), None).unwrap();
                others.push(refuse_exchangeable(&base, Step::Scratch, SCRATCH_IN).is_ok());
                chown(dir, Some(0), None).unwrap();
            }
        }
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(seen, [true, true, false, false, true, false]);
        assert!(!others.contains(&true), "{others:?}");
    }
}
