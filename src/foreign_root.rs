//! Lookups in a root directory that may belong to somebody who means harm, such as that of a
//! sandbox that runs: below a descriptor, with links that end inside, and in bounded time.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::{Mode, fstat};

use crate::sys::by_fd;

/// The longest wait for a file system of a sandbox, which may be one that never answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks something up in a thread: one that waits for a file system of FUSE cannot be ended.
pub(crate) fn in_time<T: Send + 'static>(look: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("lookup".into()).spawn(move || drop(sender.send(look()))).ok()?;
    receiver.recv_timeout(PATIENCE).ok().flatten()
}

/// Opens a directory for lookups below it.
pub(crate) fn directory(path: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty()).ok()
}

/// Opens a regular file, and nothing else: the open of a device may do something.
pub(crate) fn open_file(dir: &OwnedFd, name: &OsStr, how: ResolveFlag) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let pinned = by_fd::look_as(dir.as_fd(), name, OFlag::empty(), how).ok()?;
    let is_file = fstat(&pinned).ok()?.st_mode & libc::S_IFMT == libc::S_IFREG;
    let file = is_file.then(|| by_fd::reopen(&pinned.as_fd(), flags))?;
    file.ok().map(File::from)
}

/// Returns the permission bits of a directory below a root directory. What set-ids mean for a
/// directory is at most the group of new files, so they are no privilege.
pub(crate) fn mode_in(root: PathBuf, path: PathBuf) -> Option<u32> {
    in_time(move || {
        let root = directory(&root)?;
        let found = by_fd::look_as(root.as_fd(), &path, OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT).ok()?;
        Some(fstat(&found).ok()?.st_mode & 0o7777)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_mode_is_that_of_a_directory_in_the_root() {
        let dir = std::env::temp_dir().join(format!("ringfence-modes-{}", std::process::id()));
        fs::create_dir_all(dir.join("root/tmp")).unwrap();
        fs::create_dir_all(dir.join("outside")).unwrap();
        fs::set_permissions(dir.join("root/tmp"), Permissions::from_mode(0o7735)).unwrap();
        fs::write(dir.join("root/file"), "").unwrap();
        symlink("/tmp", dir.join("root/inside")).unwrap();
        symlink(dir.join("outside"), dir.join("root/out")).unwrap();
        let mode = |path: &str| mode_in(dir.join("root"), path.into());
        let found = ["/tmp", "/inside", "/file", "/out", "/missing"].map(mode);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [Some(0o7735), Some(0o7735), None, None, None]);
    }

    #[test]
    fn a_lookup_that_hangs_is_left_alone() {
        let began = std::time::Instant::now();
        let (keep, hangs) = mpsc::channel::<()>();
        assert_eq!(in_time(move || hangs.recv().ok()), None);
        assert!(began.elapsed() >= PATIENCE);
        drop(keep);
    }
}
