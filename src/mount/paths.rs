//! Paths of the two sides: targets inside the sandbox, and sources on the host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::flags::MountFlags;
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

/// Returns the flags of the mount on which `path` stands.
pub(super) fn flags_of(path: &Path) -> Result<MountFlags> {
    let flags = statvfs(path).map_err(|errno| Error::new(Step::OpenSource, errno).at(path))?.flags().bits();
    let pairs = [
        (libc::ST_RDONLY, MountFlags::READ_ONLY),
        (libc::ST_NOSUID, MountFlags::NO_SUID),
        (libc::ST_NODEV, MountFlags::NO_DEV),
        (libc::ST_NOEXEC, MountFlags::NO_EXEC),
        (libc::ST_NOATIME, MountFlags::NO_ATIME),
        (libc::ST_NODIRATIME, MountFlags::NO_DIR_ATIME),
        // ST_NOSYMFOLLOW, since 5.10.
        (0x2000, MountFlags::NO_SYMFOLLOW),
    ];
    Ok(pairs.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, flag)| flag).collect())
}

/// A flag of statfs(2), which not every C library names.
#[cfg(feature = "oci")]
const ST_RELATIME: libc::c_ulong = 0x1000;

/// Returns the flags of the mount on which `path` stands, as mount(2) has them. A mount has one way
/// of keeping times of access, also where statfs(2) has no flag for it.
#[cfg(feature = "oci")]
pub(super) fn ms_flags_of(path: &Path) -> Result<u64> {
    let flags = statvfs(path).map_err(|errno| Error::new(Step::OpenSource, errno).at(path))?.flags().bits();
    let named = flags_of(path)?.ms();
    Ok(match (named & libc::MS_NOATIME, flags & ST_RELATIME) {
        (0, 0) => named | libc::MS_STRICTATIME,
        (0, _) => named | libc::MS_RELATIME,
        _ => named,
    })
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
