//! Result files, taken out of a directory that a program could write to: never through a link, and
//! never more than was allowed.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::by_fd;
use crate::sys::file_size::NewFile;
use crate::units::Bytes;

const BYTES: Bytes = Bytes::gib(1);
const ENTRIES: u64 = 10_000;
/// The most directories above a file. Each takes a descriptor while its files are copied.
const DEPTH: usize = 64;
const PIECE: usize = 256 << 10;
/// The mode of a directory that is made.
const DIRECTORY: Mode = Mode::from_bits_truncate(0o755);

/// Takes the files that a program has left out of a directory: the directory behind a writable
/// [`bind`](crate::Sandbox::bind), or the upper of a [`RootFs`](crate::RootFs).
///
/// What the program left may be made to deceive: a link to a file of the host's, a FIFO that blocks
/// the reader, a sparse file of terabytes, a directory that becomes a link while it is read. So no
/// link is followed, only regular files and directories are opened, and bytes, entries and depth
/// (64 directories) have limits. Take the files once the sandbox has ended, if they are to be
/// complete; nothing bad happens before.
///
/// ```
/// use ringfence::{Collector, Sandbox};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let work = std::env::temp_dir().join(format!("ringfence-doc-collect-{}", std::process::id()));
/// std::fs::create_dir(&work)?;
/// let script = "echo 42 > answer; ln -s /etc/passwd stolen";
/// Sandbox::new().args(["-c", script]).cwd(&work).status()?;
///
/// let collector = Collector::new(&work).bytes_limit(1 << 20);
/// assert_eq!(collector.read("answer")?, b"42\n");
/// assert!(collector.read("stolen").is_err());
/// # std::fs::remove_dir_all(&work)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a collector does nothing by itself"]
#[derive(Debug, Clone)]
pub struct Collector {
    dir: PathBuf,
    bytes: Bytes,
    entries: u64,
}

/// The result of [`Collector::copy_to`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The files that were copied, each with its size, by their paths below the directory.
    pub files: Vec<(PathBuf, Bytes)>,
    /// The entries that are neither files nor directories, which are not copied.
    pub skipped: Vec<PathBuf>,
}

impl Collector {
    /// Takes files out of `dir`. The caller trusts the path to `dir`, and nothing below `dir`.
    ///
    /// At most 1 GiB and 10,000 entries are taken, unless the calls below say otherwise.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Collector { dir: dir.into(), bytes: BYTES, entries: ENTRIES }
    }

    /// Sets the most bytes that one call reads, holes included.
    pub fn bytes_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.bytes = limit.into();
        self
    }

    /// Sets the most files, directories and other entries that [`copy_to`](Collector::copy_to)
    /// looks at.
    pub fn entries_limit(mut self, limit: u64) -> Self {
        self.entries = limit;
        self
    }

    /// Reads one file, at a path below the directory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for a path that is absolute or contains
    /// `..`, and for anything but a regular file, a link above all; [`ErrorKind::TooLarge`].
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let shown = self.dir.join(path);
        let names = components(path).ok_or_else(|| invalid("the path leads out of the directory").at(&shown))?;
        let Some((last, above)) = names.split_last() else { return Err(invalid("the path names no file").at(&shown)) };
        let mut dir = self.open_dir()?;
        for name in above {
            dir = by_fd::open(dir.as_fd(), name.as_c_str()).map_err(|errno| failed(errno).at(&shown))?;
        }
        let mut left = self.bytes.get();
        let mut bytes = Vec::new();
        let file = open_file(dir.as_fd(), last).map_err(|errno| failed(errno).at(&shown))?;
        copy(file, &mut bytes, &mut left).map_err(|error| self.copy_error(error).at(&shown))?;
        Ok(bytes)
    }

    /// Copies all files and directories to `target`, a directory that does not exist yet. The
    /// copies belong to the caller; files have mode 0644, or 0755 if their owner may execute them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] beyond a limit, and whatever reading or writing meets. After an
    /// error `target` does not exist.
    pub fn copy_to(&self, target: impl AsRef<Path>) -> Result<Collected> {
        let target = target.as_ref();
        let not_made = |errno| Error::new(Step::Collect, errno).at(target).hint("the target is made by the copy");
        let Some(name) = target.file_name() else { return Err(not_made(Errno::EEXIST)) };
        let above = target.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let above = by_fd::open_named(above).map_err(not_made)?;
        mkdirat(&above, name, DIRECTORY).map_err(not_made)?;
        let mut state =
            Copying { target, bytes: self.bytes.get(), entries: self.entries, collected: Collected::default() };
        let to = by_fd::open(above.as_fd(), name).map_err(not_made)?;
        match self.open_dir().and_then(|dir| self.copy_dir(&dir, &to, Path::new(""), 0, &mut state)) {
            Ok(()) => Ok(state.collected),
            Err(error) => {
                // Everything in it was made by this call. What has the name by now goes if it is empty.
                let _ = fs::remove_dir_all(format!("{}/.", by_fd::path_of(&to)));
                let _ = unlinkat(&above, name, UnlinkatFlags::RemoveDir);
                Err(error)
            }
        }
    }

    /// Copies what is in `dir`, which is `path` below the directory, to `to`. What is made there is
    /// made by descriptor: who may write to the target leads no copy elsewhere.
    fn copy_dir(&self, dir: &OwnedFd, to: &OwnedFd, path: &Path, depth: usize, state: &mut Copying<'_>) -> Result<()> {
        let here = self.dir.join(path);
        if depth > DEPTH {
            return Err(too_large(format!("more than {DEPTH} directories within one another")).at(here));
        }
        // One more than may be looked at tells that there are too many.
        let most = usize::try_from(state.entries).unwrap_or(usize::MAX).saturating_add(1);
        let mut names = by_fd::names(dir.as_fd(), most).map_err(|errno| failed(errno).at(&here))?;
        names.sort();
        for name in names {
            let below = path.join(OsStr::from_bytes(name.as_bytes()));
            let shown = self.dir.join(&below);
            let Some(entries) = state.entries.checked_sub(1) else {
                return Err(too_large(format!("more than {} entries", self.entries)).at(shown).hint(RAISE));
            };
            state.entries = entries;
            let (found, stat) = match find(dir.as_fd(), &name) {
                // The program still runs, and has removed the entry.
                Err(Errno::ENOENT) => continue,
                result => result.map_err(|errno| failed(errno).at(&shown))?,
            };
            match kind(&stat) {
                SFlag::S_IFDIR => {
                    let inner = by_fd::open(found.as_fd(), c".").map_err(|errno| failed(errno).at(&shown))?;
                    let made = mkdirat(to, name.as_c_str(), DIRECTORY).and_then(|()| by_fd::open(to.as_fd(), &*name));
                    let made = made.map_err(|errno| Error::new(Step::Collect, errno).at(state.target.join(&below)))?;
                    self.copy_dir(&inner, &made, &below, depth + 1, state)?;
                }
                SFlag::S_IFREG => {
                    let file = reopen(&found).map_err(|errno| failed(errno).at(&shown))?;
                    let mode = if stat.st_mode & 0o100 == 0 { 0o644 } else { 0o755 };
                    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let made = openat(to, name.as_c_str(), flags, Mode::from_bits_truncate(mode));
                    let made = made.map_err(|errno| Error::new(Step::Collect, errno).at(state.target.join(&below)))?;
                    let size = copy(file, &mut NewFile::new(&File::from(made)), &mut state.bytes);
                    let size = size.map_err(|error| self.copy_error(error).at(&shown))?;
                    state.collected.files.push((below, Bytes::new(size)));
                }
                _ => state.collected.skipped.push(below),
            }
        }
        Ok(())
    }

    fn open_dir(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(&self.dir, flags, Mode::empty()).map_err(|errno| failed(errno).at(&self.dir))
    }

    fn copy_error(&self, error: CopyError) -> Error {
        match error {
            CopyError::Io(error) => Error::io(Step::Collect, &error),
            CopyError::TooLarge => too_large(format!("more than {} bytes", self.bytes.get())).hint(RAISE),
        }
    }
}

const RAISE: &str = "raise the limit of the Collector, or limit the program (Tmpfs::size, output_limit)";

/// The state of one copy: what is left of the limits, and what was copied.
struct Copying<'c> {
    target: &'c Path,
    bytes: u64,
    entries: u64,
    collected: Collected,
}

enum CopyError {
    Io(io::Error),
    TooLarge,
}

/// Copies a file, and takes its bytes off `left`. Returns the number of bytes.
fn copy(mut file: File, to: &mut impl Write, left: &mut u64) -> Result<u64, CopyError> {
    let mut buffer = vec![0; PIECE];
    let mut copied = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Io(error)),
        };
        *left = left.checked_sub(count as u64).ok_or(CopyError::TooLarge)?;
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(CopyError::Io)?;
        copied += count as u64;
    }
}

fn failed(errno: Errno) -> Error {
    let error = Error::new(Step::Collect, errno);
    match errno {
        Errno::ENOENT => error.with_kind(ErrorKind::NotFound),
        // A link, or something else than what was looked for.
        Errno::ELOOP | Errno::ENOTDIR | Errno::EBADF => {
            let detail = "this is a link, or neither a regular file nor a directory";
            Error::message(ErrorKind::Invalid, Step::Collect, detail)
                .hint("no link is followed, and only files are read")
        }
        _ => error.with_kind(ErrorKind::Control),
    }
}

fn invalid(detail: &str) -> Error {
    let hint = "give a path below the directory, without `..`";
    Error::message(ErrorKind::Invalid, Step::Collect, detail).hint(hint)
}

fn too_large(detail: String) -> Error {
    Error::message(ErrorKind::TooLarge, Step::Collect, detail)
}

/// Returns the names of a path that stays below where it begins.
fn components(path: &Path) -> Option<Vec<CString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(CString::new(name.as_bytes()).ok()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(names)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Finds an entry without opening what it is: a descriptor of a link is the link's own.
fn find(dir: BorrowedFd<'_>, name: &CString) -> nix::Result<(OwnedFd, FileStat)> {
    let found = openat(dir, name.as_c_str(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let stat = fstat(&found)?;
    Ok((found, stat))
}

/// Opens a regular file for reading: EBADF for anything else.
fn open_file(dir: BorrowedFd<'_>, name: &CString) -> nix::Result<File> {
    let (found, stat) = find(dir, name)?;
    if kind(&stat) == SFlag::S_IFREG { reopen(&found) } else { Err(Errno::EBADF) }
}

/// Opens the very file that was found, for reading.
fn reopen(found: &OwnedFd) -> nix::Result<File> {
    by_fd::reopen(found, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(File::from)
}
