//! Opens files of a store without following a symbolic link in the last component (`O_NOFOLLOW`).
//!
//! [`check_directory`] ensures that only the store's owner and root can write to its directories. A
//! link found there all the same is older than the store, or was unpacked into it, and is refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::Uid;

use crate::error::{Error, ErrorKind, Result, Step};

/// Opens a file for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

/// Opens a file with `options`. The open fails with ELOOP for a link (`O_NOFOLLOW`), and does not
/// block on a FIFO (`O_NONBLOCK`).
pub(super) fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "this is not a regular file")),
    }
}

/// Opens a directory. The open fails with ENOTDIR for a link.
pub(super) fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// Returns true if a file of any type exists at `path`, even a dangling link.
pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Returns true if a directory exists at `path`. A link to a directory does not count.
pub(super) fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// Refuses `path` if it is not a directory, if it is a link, if users other than its owner and root
/// may write to it, or if its owner is neither root nor the caller.
pub(super) fn check_directory(path: &Path) -> Result<()> {
    let failed = |error: &io::Error| Error::io(Step::OpenStore, error).with_kind(ErrorKind::Store).at(path);
    let metadata = path.symlink_metadata().map_err(|error| failed(&error))?;
    let refuse = |detail: String| {
        let error = Error::message(ErrorKind::Store, Step::OpenStore, detail).at(path);
        let hint = "the directories of a store must belong to its user, be closed to others, and not be links";
        Err(error.hint(hint))
    };
    if !metadata.is_dir() {
        return refuse("this is not a directory".to_owned());
    }
    if metadata.mode() & 0o022 != 0 {
        return refuse(format!("other users may write to it (mode {:o})", metadata.mode() & 0o7777));
    }
    if metadata.uid() != 0 && metadata.uid() != Uid::effective().as_raw() {
        return refuse(format!("it belongs to the user {}", metadata.uid()));
    }
    Ok(())
}

/// Refuses `path` if it exists and is not a regular file.
pub(super) fn check_file(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(Step::OpenStore, &error).with_kind(ErrorKind::Store).at(path)),
        Ok(_) => {
            let error = Error::message(ErrorKind::Store, Step::OpenStore, "this is not a regular file").at(path);
            Err(error.hint("another program has put it into the store: remove it, or use another store"))
        }
    }
}
