//! The attributes of files that a layer copies from the layers below.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::tree;
use super::unpack::{Ids, permissions};
use crate::sys::xattr;

/// Copies the owner, the extended attributes, the mode and the times of a file. overlayfs's own
/// attributes are left out, and so are those that the file system or the kernel refuses.
pub(super) fn copy_attributes(ids: Ids, from: BorrowedFd<'_>, stat: &FileStat, to: impl AsFd) -> nix::Result<()> {
    if ids == Ids::Kept {
        fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    for name in xattr::list(from)? {
        let is_overlays = tree::OPAQUE.contains(&name.as_c_str());
        if let (false, Some(value)) = (is_overlays, xattr::get(from, &name)?) {
            match xattr::set(to.as_fd(), &name, &value) {
                Ok(()) | Err(Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    fchmod(&to, permissions(stat.st_mode))?;
    let seen = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    futimens(&to, &seen, &TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}
