//! The record of one owner: a file in a directory of the user's, locked for as long as the owner lives.
//!
//! Its name, the token, holds the device and the inode of the file itself, and everything of its owner's carries the token in
//! its name. So a thing names the one file whose lock decides over it. A program that runs as the same user may write files
//! of that name elsewhere, or in the place of this one: they are other files, and prove nothing.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::{dir, random_hex};
use crate::error::{Error, Result, Step};
use crate::sys::table;

/// Four random bytes, the device in four, and the inode in eight, as text.
const TOKEN_LENGTH: usize = 32;
/// Names of records that have no token yet begin so.
const NEW: &str = ".new-";
/// The most that is read of one: some thousands of directories.
const SIZE_MAX: u64 = 1 << 20;

/// The record of this process.
#[derive(Debug)]
pub(super) struct Record {
    file: Flock<File>,
    dir: OwnedFd,
    path: PathBuf,
    token: String,
}

/// What a look at a record of somebody's has found.
#[derive(Debug)]
pub(super) enum Found {
    /// Its owner lives, or there is none any more.
    Nothing,
    /// It is not what its name says: somebody has put it there.
    Planted,
    /// Nobody holds it. It is locked as long as this is kept.
    Stale(Flock<File>, Vec<u8>),
}

impl Record {
    /// Makes and locks a record. A reaper may take the file between its making and its locking; then it is made again.
    pub(super) fn make() -> Result<Record> {
        let (dir, base) = runtime_dir()?;
        let failed = |errno| Error::new(Step::Owner, errno).at(&base);
        loop {
            let (new, random) = random_hex(8).and_then(|new| Ok((new, random_hex(4)?))).map_err(failed)?;
            let new = format!("{NEW}{new}");
            let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
            let file = openat(&dir, new.as_str(), flags | OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR);
            let file = File::from(file.map_err(failed)?);
            match Record::name(file, dir.as_fd(), &new, &random) {
                Ok((file, token)) => {
                    let path = base.join(&token);
                    return Ok(Record { file, dir, path, token });
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => {
                    let _ = unlinkat(&dir, new.as_str(), UnlinkatFlags::NoRemoveDir);
                    return Err(failed(errno));
                }
            }
        }
    }

    /// Locks the file and gives it its name; ENOENT if a reaper was faster.
    fn name(file: File, dir: BorrowedFd<'_>, new: &str, random: &str) -> nix::Result<(Flock<File>, String)> {
        let file = File::from(table::above_stdio(file.into())?);
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let token = format!("{random}{}", inode_text(&fstat(file.as_fd())?));
        renameat(dir, new, dir, token.as_str())?;
        Ok((file, token))
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn append(&mut self, text: &[u8]) -> Result<()> {
        self.file.write_all(text).map_err(|error| Error::io(Step::Owner, &error).at(&self.path))
    }

    /// Takes it away, when it is a record of nothing.
    pub(super) fn remove(self) {
        let _ = unlinkat(&self.dir, self.token.as_str(), UnlinkatFlags::NoRemoveDir);
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a name is a token.
pub(super) fn is_token(name: &str) -> bool {
    name.len() == TOKEN_LENGTH && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a name is one of a record that was being made.
pub(super) fn is_new(name: &str) -> bool {
    name.starts_with(NEW)
}

/// The part of a token that names the file.
fn inode_text(stat: &FileStat) -> String {
    // As the kernel keeps it: 12 bits of the driver's number, 20 of the device's.
    let device = (major(stat.st_dev) << 20 | minor(stat.st_dev) & 0xf_ffff) & 0xffff_ffff;
    format!("{device:08x}{:016x}", stat.st_ino)
}

/// Looks at the record `name` in `dir`.
pub(super) fn look(dir: BorrowedFd<'_>, name: &str) -> nix::Result<Found> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Found::Nothing),
        Err(Errno::ELOOP | Errno::EACCES | Errno::ENXIO) => return Ok(Found::Planted),
        other => File::from(other?),
    };
    let stat = fstat(&file)?;
    let is_file = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    let is_named = is_new(name) || name.ends_with(&inode_text(&stat));
    if !is_file || !is_named || stat.st_uid != Uid::effective().as_raw() {
        return Ok(Found::Planted);
    }
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => return Ok(Found::Nothing),
        other => other.map_err(|(_, errno)| errno)?,
    };
    if fstat(file.as_fd())?.st_nlink == 0 {
        return Ok(Found::Nothing);
    }
    let mut text = Vec::new();
    let read = (&mut *file).take(SIZE_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(if text.len() as u64 > SIZE_MAX { Found::Planted } else { Found::Stale(file, text) })
}

/// The directories in which records may stand, the best first: each is the user's own, closed to others.
pub(super) fn runtime_dirs() -> Vec<PathBuf> {
    let uid = Uid::effective();
    let mut dirs = Vec::new();
    if uid.is_root() {
        dirs.push(PathBuf::from("/run/ringfence"));
    } else if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        dirs.push(PathBuf::from(dir).join("ringfence"));
    }
    dirs.push(PathBuf::from(format!("/run/user/{uid}/ringfence")));
    // Anybody may have taken these names; a directory that is not private is passed over.
    dirs.extend(["/tmp", "/var/tmp", "/dev/shm"].map(|dir| PathBuf::from(format!("{dir}/ringfence-{uid}"))));
    dirs
}

/// Opens a directory of the caller's that others cannot write to; none if it is something else, or not there.
pub(super) fn open_private(path: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open(path, flags, Mode::empty()).and_then(table::above_stdio).ok()?;
    let only_read = Mode::from_bits_truncate(0o055);
    fstat(&opened).is_ok_and(|stat| dir::is_private(&stat, only_read)).then_some(opened)
}

fn runtime_dir() -> Result<(OwnedFd, PathBuf)> {
    let mut last = None;
    for path in runtime_dirs() {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                last = Some(Error::io(Step::Owner, &error).at(&path));
                continue;
            }
            _ => {}
        }
        match open_private(&path) {
            Some(opened) => return Ok((opened, path)),
            None => last = Some(not_private(&path)),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Step::Owner, Errno::ENOENT)))
}

fn not_private(path: &Path) -> Error {
    // A process out of descriptors cannot open it either.
    match fs::File::open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => Error::io(Step::Owner, &error).at(path),
        _ => Error::new(Step::Owner, Errno::EPERM).at(path).detail("not a directory of the caller's alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_are_records() {
        assert!(is_token("0123456789abcdef0123456789abcdef"));
        let short = "0123456789abcdef";
        for name in ["", short, "0123456789ABCDEF0123456789ABCDEF", "../3456789abcdef0123456789abcdef"] {
            assert!(!is_token(name), "{name}");
        }
    }
}
