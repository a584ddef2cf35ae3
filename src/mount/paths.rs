//! Paths of the two sides: targets inside the sandbox, and sources on the host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::error::{Error, Result, Step};

/// Returns the path without empty and `.` components.
pub(super) fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Returns a path of the host as the stub opens it: absolute. The file at `path` has to exist.
pub(super) fn source(path: &Path) -> Result<PathBuf> {
    let failed = |error: &std::io::Error| Error::io(Step::OpenSource, error).at(path);
    let path = absolute(path).map_err(|error| failed(&error))?;
    fs::metadata(&path).map_err(|error| failed(&error).hint("the path is one of the host's and has to exist"))?;
    Ok(path)
}

/// Returns whether the mount on which `path` stands is read-only.
pub(super) fn is_read_only(path: &Path) -> Result<bool> {
    let flags = statvfs(path).map_err(|errno| Error::new(Step::OpenSource, errno).at(path))?.flags();
    Ok(flags.contains(FsFlags::ST_RDONLY))
}

/// Returns whether the file at `path` belongs to the user or to the group.
pub(super) fn belongs_to(path: &Path, (uid, gid): (u32, u32)) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.uid() == uid || meta.gid() == gid)
}
