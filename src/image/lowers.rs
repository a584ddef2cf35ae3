//! The lower layers of a layer, as overlayfs shows them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::tree::{self, InRoot, is_opaque, is_whiteout, kind_of};

const LINKS_MAX: usize = 40;
/// The largest number of names that are looked up for one path.
const STEPS_MAX: usize = 10_000;

/// The roots of unpacked layers, the topmost first.
#[derive(Debug)]
pub(super) struct Lowers {
    roots: Vec<OwnedFd>,
}

/// The result of a lookup in the merged layers.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// The directories that overlayfs merges, the topmost first.
    Directory(Vec<OwnedFd>),
    /// A file that is not a directory: the directory of the layer that has it, and its status.
    Other(OwnedFd, FileStat),
}

impl Lowers {
    pub(super) fn new(roots: Vec<OwnedFd>) -> Lowers {
        Lowers { roots }
    }

    pub(super) fn open(roots: &[PathBuf]) -> nix::Result<Lowers> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = |path: &PathBuf| nix::fcntl::open(Path::new(path), flags, Mode::empty());
        Ok(Lowers { roots: roots.iter().map(open).collect::<nix::Result<_>>()? })
    }

    pub(super) fn roots(&self) -> &[OwnedFd] {
        &self.roots
    }

    /// Looks up `path`, in which no component may be a link.
    pub(super) fn find(&self, path: &[u8]) -> nix::Result<Found> {
        let own = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE);
        let mut found = Found::Directory(self.roots.iter().map(own).collect::<nix::Result<_>>()?);
        for name in tree::names(path) {
            let Found::Directory(dirs) = found else { return Ok(Found::Nothing) };
            found = within(&dirs, OsStr::from_bytes(name))?;
        }
        match found {
            Found::Directory(dirs) if dirs.is_empty() => Ok(Found::Nothing),
            found => Ok(found),
        }
    }

    /// Reads the regular file at `path`, following links within the layers. Returns `None` if there
    /// is no such file, and EFBIG if it is larger than `limit` bytes.
    pub(super) fn read(&self, path: &[u8], limit: u64) -> nix::Result<Option<Vec<u8>>> {
        let Some(path) = self.resolve(path)? else { return Err(Errno::ELOOP) };
        let (Found::Other(dir, stat), Some(name)) = (self.find(&path)?, tree::names(&path).last()) else {
            return Ok(None);
        };
        if kind_of(&stat) != SFlag::S_IFREG {
            return Ok(None);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = openat(&dir, OsStr::from_bytes(name), flags, Mode::empty())?;
        let mut bytes = Vec::new();
        let read = File::from(file).take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        if bytes.len() as u64 > limit { Err(Errno::EFBIG) } else { Ok(Some(bytes)) }
    }

    /// Resolves all links in `path`. Returns `None` if there are too many links. Components of the
    /// path may be missing.
    pub(super) fn resolve(&self, path: &[u8]) -> nix::Result<Option<InRoot>> {
        let mut todo: Vec<Vec<u8>> = tree::names(path).map(<[u8]>::to_vec).collect();
        todo.reverse();
        let mut done = Vec::<Vec<u8>>::new();
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(name),
            }
            steps += done.len();
            if steps > STEPS_MAX {
                return Ok(None);
            }
            let Found::Other(dir, stat) = self.find(&done.join(&b'/'))? else { continue };
            if kind_of(&stat) != SFlag::S_IFLNK {
                continue;
            }
            links += 1;
            let Some(name) = done.pop().filter(|_| links <= LINKS_MAX) else { return Ok(None) };
            let target = readlinkat(&dir, OsStr::from_bytes(&name))?.into_vec();
            if target.starts_with(b"/") {
                done.clear();
            }
            let names: Vec<Vec<u8>> = tree::names(&target).map(<[u8]>::to_vec).collect();
            todo.extend(names.into_iter().rev());
        }
        Ok(Some(done.join(&b'/')))
    }
}

/// Looks up a name in merged directories.
fn within(dirs: &[OwnedFd], name: &OsStr) -> nix::Result<Found> {
    Ok(within_as(dirs, name)?.0)
}

/// Does the same, and returns as well which of `dirs` have the directories that are found.
pub(super) fn within_as(dirs: &[OwnedFd], name: &OsStr) -> nix::Result<(Found, Vec<usize>)> {
    let (mut found, mut places) = (Vec::new(), Vec::new());
    for (place, dir) in dirs.iter().enumerate() {
        let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno),
        };
        if is_whiteout(&stat) {
            break;
        }
        if kind_of(&stat) != SFlag::S_IFDIR {
            if found.is_empty() {
                let dir = dir.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
                return Ok((Found::Other(dir, stat), places));
            }
            break;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let inner = openat(dir, name, flags, Mode::empty())?;
        let hides = is_opaque(&inner)?;
        found.push(inner);
        places.push(place);
        if hides {
            break;
        }
    }
    Ok((if found.is_empty() { Found::Nothing } else { Found::Directory(found) }, places))
}

impl Found {
    /// Returns the topmost directory and its status.
    pub(super) fn top(&self) -> nix::Result<Option<(&OwnedFd, FileStat)>> {
        match self {
            Found::Directory(dirs) => dirs.first().map(|dir| Ok((dir, fstat(dir)?))).transpose(),
            _ => Ok(None),
        }
    }
}
