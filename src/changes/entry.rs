//! One entry of the upper: what it is, and whether it may be committed.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::upper::UpperDir;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{by_fd, xattr};

/// The prefixes of the marks of overlayfs. The second one is that of mounts in a user namespace
/// (`userxattr`).
const MARKS: [&str; 2] = ["trusted.overlay.", "user.overlay."];
const OPAQUE: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];
/// The marks of an upper that is not complete by itself.
const INCOMPLETE: [&CStr; 6] = [
    c"trusted.overlay.redirect",
    c"user.overlay.redirect",
    c"trusted.overlay.metacopy",
    c"user.overlay.metacopy",
    c"trusted.overlay.whiteout",
    c"user.overlay.whiteout",
];
pub(super) const CAPABILITY: &CStr = c"security.capability";

/// The kind of an entry.
#[derive(Debug)]
pub(super) enum Kind {
    /// A mark that what is below was removed.
    Whiteout,
    /// A directory, open for reading. If it is opaque, nothing of the one below is in it.
    Directory {
        dir: OwnedFd,
        opaque: bool,
    },
    /// A regular file, open for reading.
    File(OwnedFd),
    Link,
    /// A FIFO, a socket or a device, which is not opened.
    Special,
}

/// An entry that has been looked at by descriptor: another one may have its name by now.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) stat: FileStat,
}

impl Entry {
    /// Looks at the entry `name` of a directory of the upper, and refuses what may not be
    /// committed.
    pub(super) fn find(upper: &UpperDir, dir: BorrowedFd<'_>, name: &OsStr, step: Step) -> Result<Entry> {
        let failed = |errno| failed(step, errno);
        let found = openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
        let found = found.map_err(failed)?;
        let stat = fstat(&found).map_err(failed)?;
        let kind = match kind_of(&stat) {
            SFlag::S_IFDIR => {
                // The O_PATH descriptor is the very directory; `.` of it is no other.
                let dir = by_fd::open(found.as_fd(), c".").map_err(failed)?;
                refuse_incomplete(dir.as_fd(), step)?;
                let opaque = is_opaque(dir.as_fd()).map_err(failed)?;
                Kind::Directory { dir, opaque }
            }
            SFlag::S_IFREG => {
                let file = by_fd::reopen(&found, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map_err(failed)?;
                refuse_incomplete(file.as_fd(), step)?;
                let sets_ids = stat.st_mode & (Mode::S_ISUID | Mode::S_ISGID).bits() != 0;
                let powers = || xattr::get(file.as_fd(), CAPABILITY).map(|value| value.is_some());
                if !upper.set_ids && (sets_ids || powers().map_err(failed)?) {
                    let text = "the file has a set-user-ID or set-group-ID bit, or capabilities";
                    return Err(refused(step, text).hint("allow such files with UpperDir::set_ids()"));
                }
                Kind::File(file)
            }
            SFlag::S_IFLNK => Kind::Link,
            SFlag::S_IFCHR if stat.st_rdev == 0 => Kind::Whiteout,
            SFlag::S_IFCHR | SFlag::S_IFBLK if !upper.devices => {
                return Err(refused(step, "this is a device").hint("allow devices with UpperDir::devices()"));
            }
            _ => Kind::Special,
        };
        Ok(Entry { kind, stat })
    }

    /// Returns the size of a file, and 0 for all else.
    pub(super) fn size(&self) -> u64 {
        if let Kind::File(_) = self.kind { u64::try_from(self.stat.st_size).unwrap_or_default() } else { 0 }
    }
}

pub(super) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Returns whether an attribute is one that a commit takes along.
pub(super) fn is_kept(name: &CStr, set_ids: bool) -> bool {
    let text = name.to_bytes();
    let is_mark = MARKS.iter().any(|mark| text.starts_with(mark.as_bytes()));
    let is_acl = text == b"system.posix_acl_access" || text == b"system.posix_acl_default";
    !is_mark && (text.starts_with(b"user.") || is_acl || (set_ids && name == CAPABILITY))
}

fn refuse_incomplete(file: BorrowedFd<'_>, step: Step) -> Result<()> {
    if has_any(file, &INCOMPLETE).map_err(|errno| failed(step, errno))? {
        let text = "a mark of overlayfs says that this is incomplete without other layers (redirect, metacopy)";
        return Err(refused(step, text).hint("have the library mount the overlay, which leaves no such marks"));
    }
    Ok(())
}

fn has_any(file: BorrowedFd<'_>, names: &[&CStr]) -> nix::Result<bool> {
    for name in names {
        if xattr::get(file, name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether nothing of the directory below is in this one. A mount honours one kind of
/// marks, and takes the other for attributes, which the program may set or bring up from below.
/// overlayfs sets an origin on each directory that it copies up (4.12): so beside a `trusted` mark
/// a `user` one means nothing.
fn is_opaque(dir: BorrowedFd<'_>) -> nix::Result<bool> {
    let [trusted, user] = OPAQUE;
    let is_trusted = xattr::list(dir)?.iter().any(|name| name.to_bytes().starts_with(MARKS[0].as_bytes()));
    Ok(xattr::get(dir, if is_trusted { trusted } else { user })?.as_deref() == Some(b"y"))
}

pub(super) fn failed(step: Step, errno: Errno) -> Error {
    Error::new(step, errno).with_kind(ErrorKind::Control)
}

pub(super) fn refused(step: Step, text: &str) -> Error {
    Error::message(ErrorKind::Invalid, step, text)
}

pub(super) fn too_large(step: Step, text: String) -> Error {
    let hint = "raise the limit of the UpperDir, or limit the program";
    Error::message(ErrorKind::TooLarge, step, text).hint(hint)
}
