//! The record of one owner: a file in a private directory, locked while the owner lives.
//!
//! The token, which is the name of the file, contains the device and the inode of the file itself,
//! and everything that the owner leaves has the token in its name. So every name refers to exactly
//! one file, whose lock decides. A program of the same user may create files of this name
//! elsewhere, or replace the file; these are other files with other inodes, and have no effect.

use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::dir;
use crate::error::{Error, Result, Step};
use crate::sys::{file_size, random, table};

/// The length of a token: four random bytes, four bytes of the device and eight of the inode, in
/// hexadecimal.
const TOKEN_LENGTH: usize = 32;
/// The prefix of names of records that do not have their token yet.
const NEW: &str = ".new-";
/// The largest part of a record that is read, in bytes: some thousands of directories.
const SIZE_MAX: u64 = 1 << 20;
/// The directories in which every user may make others.
const SHARED: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// The record of this process.
#[derive(Debug)]
pub(super) struct OwnerRecord {
    file: Flock<File>,
    dir: OwnedFd,
    path: PathBuf,
    token: String,
}

/// The result of reading a record.
#[derive(Debug)]
pub(super) enum RecordState {
    /// The owner lives, or the record is gone.
    Live,
    /// The file does not match its name: another program has put it there.
    Planted,
    /// The owner is dead. The record stays locked while this value lives.
    Stale(Flock<File>, Vec<u8>),
}

impl OwnerRecord {
    /// Creates and locks a record. If a reaper removes the file before it is locked, creates it
    /// again.
    pub(super) fn make() -> Result<OwnerRecord> {
        let (dir, base) = runtime_dir()?;
        let failed = |errno| Error::new(Step::Owner, errno).at(&base);
        loop {
            let (new, random) = random::hex::<8>().and_then(|new| Ok((new, random::hex::<4>()?))).map_err(failed)?;
            let new = format!("{NEW}{new}");
            let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
            let file = openat(&dir, new.as_str(), flags | OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR);
            let file = File::from(file.map_err(failed)?);
            match OwnerRecord::name(file, dir.as_fd(), &new, &random) {
                Ok((file, token)) => {
                    let path = base.join(&token);
                    return Ok(OwnerRecord { file, dir, path, token });
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => {
                    let _ = unlinkat(&dir, new.as_str(), UnlinkatFlags::NoRemoveDir);
                    return Err(failed(errno));
                }
            }
        }
    }

    /// Locks the file and gives it its name. Fails with ENOENT if a reaper has removed the file.
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
        file_size::append(&self.file, text).map_err(|error| Error::io(Step::Owner, &error).at(&self.path))
    }

    /// Removes the record when it lists nothing.
    pub(super) fn remove(self) {
        let _ = unlinkat(&self.dir, self.token.as_str(), UnlinkatFlags::NoRemoveDir);
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns true if `name` is a token.
pub(super) fn is_token(name: &str) -> bool {
    name.len() == TOKEN_LENGTH && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Returns true if `name` is that of a record that is being created.
pub(super) fn is_new(name: &str) -> bool {
    name.starts_with(NEW)
}

/// Returns the part of a token that identifies the file.
fn inode_text(stat: &FileStat) -> String {
    // The kernel's form: 12 bits of the major number, 20 bits of the minor number.
    let device = (major(stat.st_dev) << 20 | minor(stat.st_dev) & 0xf_ffff) & 0xffff_ffff;
    format!("{device:08x}{:016x}", stat.st_ino)
}

/// Reads the record `name` in `dir`.
pub(super) fn read(dir: BorrowedFd<'_>, name: &str) -> nix::Result<RecordState> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(RecordState::Live),
        Err(Errno::ELOOP | Errno::EACCES | Errno::ENXIO) => return Ok(RecordState::Planted),
        other => File::from(other?),
    };
    let stat = fstat(&file)?;
    let is_file = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    let is_named = is_new(name) || name.ends_with(&inode_text(&stat));
    if !is_file || !is_named || stat.st_uid != Uid::effective().as_raw() {
        return Ok(RecordState::Planted);
    }
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => return Ok(RecordState::Live),
        other => other.map_err(|(_, errno)| errno)?,
    };
    if fstat(file.as_fd())?.st_nlink == 0 {
        return Ok(RecordState::Live);
    }
    let mut text = Vec::new();
    let read = (&mut *file).take(SIZE_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(if text.len() as u64 > SIZE_MAX { RecordState::Planted } else { RecordState::Stale(file, text) })
}

/// Returns the directories that records may be in, the preferred one first. Each belongs to the
/// user and is closed to others.
pub(super) fn runtime_dirs() -> Vec<PathBuf> {
    let mut dirs = known_dirs();
    dirs.extend(SHARED.iter().flat_map(|shared| further_dirs(Path::new(shared))));
    dirs
}

/// Returns those that are to be looked at for one record. The shared ones, which may have any number of
/// entries, are read only where another user has taken a name that is known ahead.
pub(super) fn likely_dirs() -> Vec<PathBuf> {
    let is_taken = |dir: &PathBuf| dir.symlink_metadata().is_ok() && open_private(dir).is_none();
    if known_dirs().iter().any(is_taken) { runtime_dirs() } else { known_dirs() }
}

/// Returns those that have names which are known ahead.
fn known_dirs() -> Vec<PathBuf> {
    let uid = Uid::effective();
    let mut dirs = Vec::new();
    if uid.is_root() {
        dirs.push(PathBuf::from("/run/ringfence"));
    } else if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        dirs.push(PathBuf::from(dir).join("ringfence"));
    }
    dirs.push(PathBuf::from(format!("/run/user/{uid}/ringfence")));
    // Any user may have taken these names, so a directory that is not private is skipped.
    dirs.extend(SHARED.map(|shared| Path::new(shared).join(shared_name())));
    dirs
}

/// Returns the name of the user's directory in a shared one.
fn shared_name() -> String {
    format!("ringfence-{}", Uid::effective())
}

/// Returns the directories of the user in a shared one that nobody could foretell: those for which
/// another user had taken the name. As the shared one is sticky, nobody takes these away.
fn further_dirs(shared: &Path) -> Vec<PathBuf> {
    let (prefix, uid) = (format!("{}-", shared_name()), Uid::effective().as_raw());
    let names = fs::read_dir(shared).into_iter().flatten().flatten();
    let named = names.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
    let own = named.filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == uid));
    own.map(|entry| entry.path()).collect()
}

/// Opens a directory that the caller owns and that others cannot write to. Returns `None` for
/// anything else.
pub(super) fn open_private(path: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open(path, flags, Mode::empty()).and_then(table::above_stdio).ok()?;
    let only_read = Mode::from_bits_truncate(0o055);
    fstat(&opened).is_ok_and(|stat| dir::is_private(&stat, only_read)).then_some(opened)
}

fn runtime_dir() -> Result<(OwnedFd, PathBuf)> {
    runtime_dir_of(&known_dirs(), &SHARED.map(Path::new))
}

fn runtime_dir_of(known: &[PathBuf], shared: &[&Path]) -> Result<(OwnedFd, PathBuf)> {
    let (mut last, mut is_taken) = (Error::new(Step::Owner, Errno::ENOENT), false);
    for path in known {
        match make_private(path) {
            Ok(made) => return Ok(made),
            Err(error) => {
                is_taken |= error.raw_os_error() == Some(libc::EPERM);
                last = error;
            }
        }
    }
    // Another user may have taken all of these names, and nobody else can take one that is random.
    for shared in shared.iter().filter(|_| is_taken) {
        if let Some(made) = further_dirs(shared).iter().find_map(|path| make_private(path).ok()) {
            return Ok(made);
        }
        let Ok(random) = random::hex::<8>() else { continue };
        let path = shared.join(format!("{}-{random}", shared_name()));
        match make_private(&path) {
            Ok(made) => return Ok(made),
            // It has nothing in it. This process may have run out of descriptors.
            Err(_) => _ = fs::remove_dir(&path),
        }
    }
    Err(last)
}

/// Makes a directory that only the user can use, unless it is there.
fn make_private(path: &Path) -> Result<(OwnedFd, PathBuf)> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::io(Step::Owner, &error).at(path)),
        _ => open_private(path).map(|opened| (opened, path.to_owned())).ok_or_else(|| not_private(path)),
    }
}

fn not_private(path: &Path) -> Error {
    // A process that has run out of descriptors cannot open the file either.
    match fs::File::open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => Error::io(Step::Owner, &error).at(path),
        _ => Error::new(Step::Owner, Errno::EPERM).at(path).detail("not a directory that only the caller can use"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_that_another_user_has_taken_stop_nobody() {
        let shared = std::env::temp_dir().join(format!("rf-taken-{}", std::process::id()));
        let taken = shared.join(shared_name());
        fs::create_dir(&shared).unwrap();
        let known = std::slice::from_ref(&taken);
        let find = || runtime_dir_of(known, &[&shared]).map(|(_, path)| path);
        let first = find();
        // Nobody but root can give a directory away; one that is open to others counts as little.
        fs::set_permissions(&taken, fs::Permissions::from_mode(0o777)).unwrap();
        // Somebody else's can have such a name as well.
        let open = shared.join(format!("{}-0", shared_name()));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let (second, third) = (find(), find());
        let all: Vec<_> = further_dirs(&shared).into_iter().filter(|dir| *dir != open).collect();
        fs::remove_dir_all(&shared).unwrap();
        assert_eq!(first.unwrap(), taken);
        let second = second.unwrap();
        assert!(second != taken && second != open, "{second:?}");
        assert_eq!((third.unwrap(), all), (second.clone(), vec![second]), "it is found again");
    }

    #[test]
    fn only_tokens_are_records() {
        assert!(is_token("0123456789abcdef0123456789abcdef"));
        let short = "0123456789abcdef";
        for name in ["", short, "0123456789ABCDEF0123456789ABCDEF", "../3456789abcdef0123456789abcdef"] {
            assert!(!is_token(name), "{name}");
        }
    }
}
