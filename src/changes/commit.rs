//! The commit: one change after the other, made to the directory below.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};

use super::entry::{Entry, Kind, failed, is_kept, kind_of, refused, too_large};
use super::tree::{Walk, open, open_named, remove};
use super::upper::{Change, ChangeKind, UpperDir, at};
use crate::error::{Error, Result, Step};
use crate::sys::file_size::NewFile;
use crate::sys::{by_fd, random, xattr};

const STEP: Step = Step::Commit;
const PIECE: usize = 256 << 10;
/// The mode of what is not complete yet.
const CLOSED: Mode = Mode::S_IRWXU;

/// A commit that has begun.
pub(super) struct Commit<'u> {
    upper: &'u UpperDir,
    top: Walk,
    below: Walk,
    /// The number of bytes of files that may still be written.
    bytes: u64,
    /// The name under which a file is made.
    unnamed: CString,
}

/// Why a change could not be made.
enum Fault {
    Errno(Errno),
    TooLarge,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Fault::Errno(errno)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Errno(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

impl<'u> Commit<'u> {
    pub(super) fn begin(upper: &'u UpperDir) -> Result<Self> {
        let named = |path: &PathBuf| open_named(path).map_err(|errno| failed(STEP, errno).at(path));
        let number = random::number().map_err(|errno| failed(STEP, errno))?;
        let unnamed = CString::new(format!(".ringfence-{number:016x}")).unwrap_or_default();
        let (top, below) = (Walk::new(named(&upper.upper)?), Walk::new(named(&upper.below)?));
        Ok(Commit { upper, top, below, bytes: upper.bytes.get(), unnamed })
    }

    /// Makes one change. Returns true for a directory whose owner, mode and time are still to be
    /// set.
    pub(super) fn make(&mut self, change: &Change) -> Result<bool> {
        let (above, name) = split(&change.path);
        let upper = self.upper;
        let in_upper = |error: Error| at(upper, &change.path, error);
        let in_below = |fault: Fault| {
            let error = match fault {
                Fault::Errno(errno) => failed(STEP, errno),
                Fault::TooLarge => too_large(STEP, format!("the files have more than {} bytes", upper.bytes.get())),
            };
            error.at(upper.below.join(&change.path))
        };
        let below = self.below.dir(above).map_err(|errno| in_below(errno.into()))?;
        if change.kind == ChangeKind::Removed {
            return remove(below, name).map(|()| false).map_err(|errno| in_below(errno.into()));
        }
        let top = self.top.dir(above).map_err(|errno| in_upper(failed(STEP, errno)))?;
        let entry = Entry::find(upper, top, name, STEP).map_err(in_upper)?;
        let target = Target { dir: below, name, unnamed: &self.unnamed, set_ids: upper.set_ids };
        let made = match &entry.kind {
            Kind::Whiteout => {
                return Err(in_upper(refused(STEP, "this is a whiteout now: a process still changes it")));
            }
            Kind::Directory { .. } => {
                target.make_dir(change.kind).map_err(in_below)?;
                return Ok(true);
            }
            Kind::File(file) => target.make_file(file, &entry.stat, &mut self.bytes),
            Kind::Link => readlinkat(top, name).map_err(Fault::from).and_then(|to| target.make_link(&to, &entry.stat)),
            Kind::Special => target.make_special(&entry.stat),
        };
        if made.is_err() {
            // What is left of the attempt has no value, and none if it is gone already.
            let _ = unlinkat(below, self.unnamed.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
        made.map(|()| false).map_err(in_below)
    }

    /// Sets owner, mode, attributes and time of a directory whose contents are complete.
    pub(super) fn finish_dir(&mut self, path: &Path) -> Result<()> {
        let (above, name) = split(path);
        let (upper, below) = (self.upper, &mut self.below);
        let in_upper = |error: Error| at(upper, path, error);
        let in_below = |errno| failed(STEP, errno).at(upper.below.join(path));
        let top = self.top.dir(above).map_err(|errno| in_upper(failed(STEP, errno)))?;
        let entry = Entry::find(upper, top, name, STEP).map_err(in_upper)?;
        let Kind::Directory { dir: from, .. } = &entry.kind else {
            return Err(in_upper(refused(STEP, "this is no directory now: a process still changes it")));
        };
        let parent = below.dir(above).map_err(in_below)?;
        let to = open(parent, name).map_err(in_below)?;
        set_facts(from.as_fd(), &to, &entry.stat, upper.set_ids).map_err(in_below)
    }
}

/// The place of one change in the directory below.
struct Target<'p> {
    dir: BorrowedFd<'p>,
    name: &'p OsStr,
    unnamed: &'p CStr,
    set_ids: bool,
}

impl Target<'_> {
    fn make_dir(&self, kind: ChangeKind) -> Result<(), Fault> {
        if kind == ChangeKind::Changed {
            return Ok(());
        }
        // A commit that is repeated finds the directory that it has made.
        if kind == ChangeKind::Replaced {
            remove(self.dir, self.name)?;
        }
        match mkdirat(self.dir, self.name, CLOSED) {
            Err(Errno::EEXIST) => Ok(open(self.dir, self.name).map(drop)?),
            made => Ok(made?),
        }
    }

    fn make_file(&self, from: &OwnedFd, stat: &FileStat, bytes: &mut u64) -> Result<(), Fault> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let to = openat(self.dir, self.unnamed, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        copy(&File::from(from.try_clone()?), &File::from(to.try_clone()?), bytes)?;
        set_facts(from.as_fd(), &to, stat, self.set_ids)?;
        self.put()
    }

    fn make_link(&self, target: &OsStr, stat: &FileStat) -> Result<(), Fault> {
        symlinkat(target, self.dir, self.unnamed)?;
        self.set_owner(&self.made(SFlag::S_IFLNK)?, stat)?;
        let (accessed, modified) = times(stat);
        utimensat(self.dir, self.unnamed, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
        self.put()
    }

    fn make_special(&self, stat: &FileStat) -> Result<(), Fault> {
        mknodat(self.dir, self.unnamed, kind_of(stat), Mode::empty(), stat.st_rdev)?;
        let made = self.made(kind_of(stat))?;
        self.set_owner(&made, stat)?;
        by_fd::chmod(&made, mode(stat))?;
        self.put()
    }

    /// Finds what was just made. Who may write to the directory, and reads it, knows the name, and
    /// could have put a link or a file there.
    fn made(&self, kind: SFlag) -> nix::Result<OwnedFd> {
        let found = by_fd::look(self.dir, self.unnamed)?;
        let stat = fstat(&found)?;
        if kind_of(&stat) == kind && stat.st_nlink == 1 { Ok(found) } else { Err(Errno::ESTALE) }
    }

    fn set_owner(&self, made: &OwnedFd, stat: &FileStat) -> nix::Result<()> {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchownat(made, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
    }

    /// Gives what is complete its name.
    fn put(&self) -> Result<(), Fault> {
        let is_dir = match fstatat(self.dir, self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => kind_of(&stat) == SFlag::S_IFDIR,
            Err(Errno::ENOENT) => false,
            Err(errno) => return Err(errno.into()),
        };
        if is_dir {
            remove(self.dir, self.name)?;
        }
        Ok(renameat(self.dir, self.unnamed, self.dir, self.name)?)
    }
}

fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
}

/// Copies a file, and takes its bytes off `left`: it may grow while it is read.
fn copy(mut from: &File, to: &File, left: &mut u64) -> Result<(), Fault> {
    let mut to = NewFile::new(to);
    let mut buffer = vec![0; PIECE];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        *left = left.checked_sub(count as u64).ok_or(Fault::TooLarge)?;
        to.write_all(buffer.get(..count).unwrap_or_default())?;
    }
}

/// Gives a file or directory the attributes, owner, mode and times of another. The mode comes after
/// the owner, whose change takes set-user-ID bits away.
fn set_facts(from: BorrowedFd<'_>, to: &OwnedFd, stat: &FileStat, set_ids: bool) -> nix::Result<()> {
    let now = fstat(to)?;
    if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
        fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    for name in xattr::list(from)?.iter().filter(|name| is_kept(name, set_ids)) {
        if let Some(value) = xattr::get(from, name)? {
            xattr::set(to.as_fd(), name, &value)?;
        }
    }
    fchmod(to, mode(stat))?;
    let (accessed, modified) = times(stat);
    futimens(to, &accessed, &modified)
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}
