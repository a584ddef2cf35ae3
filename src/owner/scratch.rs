//! Directories that go with their sandbox, and their removal.
//!
//! What is in them was written by the program, which may have nested it as deep, and named it, as it liked. So the
//! removal neither recurses nor follows a link nor keeps more than two directories open: a directory found in another is
//! moved up to the top, where its turn comes.

use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use crate::error::{Error, Result, Step};

/// How many names are looked at before any is removed: a directory changes under a reader that removes from it.
const BATCH: usize = 512;

/// A directory that goes with the sandbox.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    /// Nothing is left to be removed, or it is not this process's to remove.
    done: bool,
}

impl Scratch {
    /// Makes a directory that nobody else may enter, and in it another, with `upper` and `work`, which belong to `owner`.
    pub(super) fn make(path: PathBuf, owner: Option<(u32, u32)>) -> Result<Scratch> {
        let failed = |path: &Path, error: &std::io::Error| {
            Error::io(Step::Scratch, error).at(path).hint("choose another directory with RootFs::scratch_in()")
        };
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| failed(&path, &error))?;
        let scratch = Scratch { path, done: false };
        let layers = scratch.layers();
        for (path, mode) in [(layers.clone(), 0o755), (layers.join("upper"), 0o755), (layers.join("work"), 0o700)] {
            DirBuilder::new().mode(mode).create(&path).map_err(|error| failed(&path, &error))?;
            // The caller's umask is not the sandbox's.
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(|error| failed(&path, &error))?;
            if let Some((uid, gid)) = owner.filter(|_| path != layers) {
                chown(&path, Some(uid), Some(gid)).map_err(|error| failed(&path, &error))?;
            }
        }
        Ok(scratch)
    }

    #[cfg(feature = "image")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that holds `upper` and `work`. It is open to all whom the way there is not closed to.
    pub(crate) fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// Removes it with all that is in it; ETIMEDOUT if that takes beyond `until`, and a later call goes on with it.
    pub(crate) fn remove(&mut self, until: Option<Instant>) -> Result<()> {
        if !self.done {
            remove_tree(&self.path, until)?;
            self.done = true;
        }
        Ok(())
    }

    /// Leaves it to its owner.
    pub(crate) fn forget(mut self) {
        self.done = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays on record for reap_stale: whoever drops a scratch for good has seen to that.
        let _ = self.remove(None);
    }
}

/// Removes the scratch directory at `path`, if it is one: the caller's own, and closed to others. Another user may have
/// put something of that name into a shared directory.
pub(crate) fn remove_tree(path: &Path, until: Option<Instant>) -> Result<()> {
    let failed = |errno| Error::new(Step::RemoveScratch, errno).at(path);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let top = match nix::fcntl::open(path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.map_err(failed)?,
    };
    let stat = fstat(&top).map_err(failed)?;
    if stat.st_uid != Uid::effective().as_raw() || stat.st_mode & 0o077 != 0 {
        return Err(failed(Errno::EPERM).detail("it is not the caller's own, or open to others"));
    }
    Clearing { top: top.as_fd(), until, moved: 0 }.run().map_err(failed)?;
    fs::remove_dir(path).map_err(|error| Error::io(Step::RemoveScratch, &error).at(path))
}

struct Clearing<'t> {
    top: BorrowedFd<'t>,
    until: Option<Instant>,
    /// How many directories were moved up, which gives each a name.
    moved: u64,
}

impl Clearing<'_> {
    fn run(&mut self) -> nix::Result<()> {
        loop {
            let names = some_names(self.top)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                self.clear(&name)?;
            }
        }
    }

    /// Removes one entry of the top.
    fn clear(&mut self, name: &CStr) -> nix::Result<()> {
        if !is_dir(self.top, name)? {
            return unlink(self.top, name, UnlinkatFlags::NoRemoveDir);
        }
        let dir = open_dir(self.top, name)?;
        loop {
            let names = some_names(dir.as_fd())?;
            if names.is_empty() {
                break;
            }
            for inner in names {
                self.in_time()?;
                if is_dir(dir.as_fd(), &inner)? {
                    self.move_up(dir.as_fd(), &inner)?;
                } else {
                    unlink(dir.as_fd(), &inner, UnlinkatFlags::NoRemoveDir)?;
                }
            }
        }
        self.in_time()?;
        unlink(self.top, name, UnlinkatFlags::RemoveDir)
    }

    fn in_time(&self) -> nix::Result<()> {
        if self.until.is_some_and(|until| Instant::now() >= until) { Err(Errno::ETIMEDOUT) } else { Ok(()) }
    }

    /// Only the owner's own rights on the moved directory are needed, which overlayfs and programs like to take away.
    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
        drop(open_dir(dir, name)?);
        loop {
            self.moved += 1;
            let free = CString::new(format!("{:x}", self.moved)).map_err(|_| Errno::EINVAL)?;
            match renameat(dir, name, self.top, free.as_c_str()) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                result => return result,
            }
        }
    }
}

/// Up to [`BATCH`] names in a directory.
fn some_names(dir: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut reader = Dir::openat(dir, c".", flags, Mode::empty())?;
    let names = reader.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    names
        .filter(|name| name.as_ref().is_ok_and(|n| !matches!(n.as_bytes(), b"." | b"..")) || name.is_err())
        .take(BATCH)
        .collect()
}

fn is_dir(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<bool> {
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Opens a directory, giving its owner the right to change it. Nobody else can exchange the name meanwhile: the top is
/// closed to others, and the program has ended.
fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let own = Mode::S_IRWXU;
    fchmodat(dir, name, own, FchmodatFlags::FollowSymlink)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn unlink(dir: BorrowedFd<'_>, name: &CStr, flag: UnlinkatFlags) -> nix::Result<()> {
    match unlinkat(dir, name, flag) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Whether an entry of a shared directory may be a scratch directory, by its name.
pub(super) fn has_prefix(name: &std::ffi::OsStr, prefix: &str) -> bool {
    name.as_bytes().starts_with(prefix.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("rftest-scratch-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_tree_too_deep_for_a_path_is_removed() {
        let mut scratch = Scratch::make(place("deep"), None).unwrap();
        let mut dir = nix::fcntl::open(&scratch.layers().join("upper"), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&dir, c"1", Mode::S_IRWXU).unwrap();
            let file = openat(&dir, c"file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::empty());
            drop(file.unwrap());
            dir = openat(&dir, c"1", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        fchmodat(nix::fcntl::AT_FDCWD, &scratch.layers().join("upper/1"), Mode::empty(), FchmodatFlags::FollowSymlink)
            .unwrap();
        assert!(scratch.remove(Some(Instant::now())).is_err(), "no time is no time");
        scratch.remove(None).unwrap();
        assert!(!scratch.path.exists());
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let victim = place("victim");
        fs::create_dir_all(victim.join("work")).unwrap();
        fs::set_permissions(victim.join("work"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut scratch = Scratch::make(place("links"), None).unwrap();
        symlink(&victim, scratch.layers().join("upper/link")).unwrap();
        fs::remove_dir(scratch.layers().join("work")).unwrap();
        symlink(&victim, scratch.layers().join("work")).unwrap();
        scratch.remove(None).unwrap();
        let mode = fs::metadata(victim.join("work")).unwrap().permissions().mode();
        fs::remove_dir_all(&victim).unwrap();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn what_is_open_to_others_or_a_link_is_not_touched() {
        let open = place("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let link = place("link");
        symlink(&open, &link).unwrap();
        let errors = [remove_tree(&open, None), remove_tree(&link, None)].map(|result| result.is_err());
        fs::remove_file(&link).unwrap();
        fs::remove_dir(&open).unwrap();
        assert_eq!(errors, [true, true]);
    }
}
