//! Files of a store: opened where they are, and through no link.
//!
//! Nobody but the store's owner and root writes to its directories, which [`own_directory`] sees to. What stands there as a
//! link nevertheless was there before the store was, or was unpacked by somebody into it: it is refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::Uid;

use crate::error::{Error, ErrorKind, Result, Step};

/// Opens a file that is to be read.
pub(super) fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

/// Opens a file as `options` say. A link is ELOOP (`O_NOFOLLOW`), and a FIFO is not waited for.
pub(super) fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")),
    }
}

/// Opens a directory. A link is ENOTDIR.
pub(super) fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// Whether anything stands there, be it a link.
pub(super) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Whether a directory stands there, and no link to one.
pub(super) fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// Refuses a directory that is none, is a link, or that others than its owner and root may write to. The owner has to be
/// root or the caller.
pub(super) fn own_directory(path: &Path) -> Result<()> {
    let failed = |error: &io::Error| Error::io(Step::OpenStore, error).with_kind(ErrorKind::Store).at(path);
    let metadata = path.symlink_metadata().map_err(|error| failed(&error))?;
    let refuse = |detail: String| {
        let error = Error::message(ErrorKind::Store, Step::OpenStore, detail).at(path);
        Err(error.hint("a store's directories belong to its user, are closed to others, and are no links: use another"))
    };
    if !metadata.is_dir() {
        return refuse("it is no directory".to_owned());
    }
    if metadata.mode() & 0o022 != 0 {
        return refuse(format!("others may write to it (mode {:o})", metadata.mode() & 0o7777));
    }
    if metadata.uid() != 0 && metadata.uid() != Uid::effective().as_raw() {
        return refuse(format!("it belongs to the user {}", metadata.uid()));
    }
    Ok(())
}

/// Refuses what stands at the place of a file of the store and is none. Nothing there is fine.
pub(super) fn own_file(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(Step::OpenStore, &error).with_kind(ErrorKind::Store).at(path)),
        Ok(_) => {
            let error = Error::message(ErrorKind::Store, Step::OpenStore, "it is no regular file").at(path);
            Err(error.hint("somebody has put it into the store: use another, or remove it"))
        }
    }
}
