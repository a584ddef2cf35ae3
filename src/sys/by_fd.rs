//! Directories and files by descriptor. A name is looked up once, and never through a link; later
//! operations apply to the file that was found, even if its name then belongs to another file.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file_size;

/// The flags for a directory that is no link.
pub(crate) const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens a directory that the caller named. Links in the path are the caller's own, and are
/// followed.
pub(crate) fn open_named(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens the directory `name` in `dir` for reading. Fails with ENOTDIR or ELOOP if it is not a
/// directory.
pub(crate) fn open<P: ?Sized + NixPath>(dir: BorrowedFd<'_>, name: &P) -> nix::Result<OwnedFd> {
    openat(dir, name, OFlag::O_RDONLY | DIR, Mode::empty())
}

/// Opens the directory at `path` below `dir` for reading, also where the path is longer than the
/// kernel takes; `dir` itself is another descriptor of the same open file. For trees to which nobody
/// else writes: a link on the way would be followed.
#[cfg(feature = "image")]
pub(crate) fn open_deep(dir: BorrowedFd<'_>, path: &[u8]) -> nix::Result<OwnedFd> {
    const MOST: usize = 4095;
    let mut rest = path;
    let mut above: Option<OwnedFd> = None;
    loop {
        let from = above.as_ref().map_or(dir, AsFd::as_fd);
        if rest.is_empty() {
            return from.try_clone_to_owned().map_err(|_| Errno::EMFILE);
        }
        if rest.len() <= MOST {
            return open(from, rest);
        }
        let cut = rest.iter().take(MOST + 1).rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        let (first, behind) = rest.split_at(cut);
        above = Some(openat(from, first, OFlag::O_PATH | DIR, Mode::empty())?);
        rest = behind.get(1..).unwrap_or_default();
    }
}

/// Returns a path that leads to the file behind an `O_PATH` descriptor, and to no other. The thread
/// may have a table of descriptors of its own, which `/proc/self` would not show (3.17).
pub(crate) fn path_of(fd: &impl AsFd) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens the very file that a descriptor stands for, with other flags.
pub(crate) fn reopen(fd: &impl AsFd, flags: OFlag) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path_of(fd).as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens the very directory that a descriptor stands for, for reading. That takes no look into /proc,
/// but the right to search the directory.
pub(crate) fn reopen_dir(fd: &impl AsFd) -> nix::Result<OwnedFd> {
    open(fd.as_fd(), c".")
}

/// Finds what has the name, whatever it is: a link itself, not what it leads to.
pub(crate) fn look<P: ?Sized + NixPath>(dir: BorrowedFd<'_>, name: &P) -> nix::Result<OwnedFd> {
    openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Finds what a path below `dir` leads to, as `how` has it resolved, and returns an `O_PATH`
/// descriptor: openat2(2), 5.6. No magic link of /proc is followed.
pub(crate) fn look_as<P: ?Sized + NixPath>(
    dir: BorrowedFd<'_>,
    path: &P,
    flags: OFlag,
    how: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_PATH | OFlag::O_CLOEXEC;
    openat2(dir, path, OpenHow::new().flags(flags).resolve(how | ResolveFlag::RESOLVE_NO_MAGICLINKS))
}

/// Sets the mode of the very file behind an `O_PATH` descriptor, which is no link. chmod(2) takes
/// no such descriptor (fchmodat2(2) does, since Linux 6.6), but its path in /proc.
pub(crate) fn chmod(fd: &impl AsFd, mode: Mode) -> nix::Result<()> {
    fchmodat(AT_FDCWD, path_of(fd).as_str(), mode, FchmodatFlags::FollowSymlink)
}

/// Writes the file `name` in `dir`, in place of the one that has the name: first whole as `new`,
/// then under its name. Nothing is flushed to a disk.
///
/// The two exchange their names, renameat2(2) (3.15), and the old file goes. Under a rename onto
/// the old one, ext4 and btrfs write the new one out at once: 1 to 2 ms for a file of a page.
pub(crate) fn replace(dir: BorrowedFd<'_>, new: &str, name: &str, text: &[u8]) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    file_size::append(&File::from(openat(dir, new, flags, Mode::S_IRUSR | Mode::S_IWUSR)?), text)?;
    match rename((dir, new), (dir, name), libc::RENAME_EXCHANGE) {
        Ok(()) => {
            // An old file that stays is written over the next time.
            let _ = unlinkat(dir, new, UnlinkatFlags::NoRemoveDir);
            Ok(())
        }
        // There is none yet, or the file system knows no exchange.
        Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS) => Ok(renameat(dir, new, dir, name)?),
        Err(errno) => Err(errno.into()),
    }
}

/// Renames a file: renameat2(2), 3.15, for which not every C library has a function.
pub(crate) fn rename<P: NixPath + ?Sized>(
    (from, old): (BorrowedFd<'_>, &P),
    (to, new): (BorrowedFd<'_>, &P),
    flags: u32,
) -> nix::Result<()> {
    let call = |old: &CStr, new: &CStr| {
        let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
        // SAFETY: renameat2(2) reads two strings, which the borrows keep.
        unsafe { libc::syscall(libc::SYS_renameat2, from, old.as_ptr(), to, new.as_ptr(), flags) }
    };
    Errno::result(old.with_nix_path(|old| new.with_nix_path(|new| call(old, new)))??).map(drop)
}

/// Reads the file `name` in `dir`, which is no link, and waits for no other end of a pipe. Fails
/// with EFBIG if it has more than `most` bytes.
pub(crate) fn read(dir: BorrowedFd<'_>, name: &str, most: usize) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    let size = usize::try_from(file.metadata()?.len()).map_or(most, |size| size.min(most));
    let mut text = Vec::with_capacity(size + 1);
    file.take(most as u64 + 1).read_to_end(&mut text)?;
    if text.len() > most { Err(Errno::EFBIG.into()) } else { Ok(text) }
}

/// Reads a file of /proc or /sys, which mostly has less than a page: with a page for the beginning,
/// that takes two reads, and nobody asks for a size that such a file does not have.
///
/// A process in a sandbox may have any bytes as its name, and may be in a group of any name. So
/// bytes that are no UTF-8 are no error: U+FFFD stands in their place.
pub(crate) fn short_text(path: &Path) -> io::Result<String> {
    short_text_of(File::open(path)?)
}

/// Does the same for a file that is open.
pub(crate) fn short_text_of(file: File) -> io::Result<String> {
    const PAGE: usize = 4096;
    let mut bytes = Vec::with_capacity(PAGE);
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Returns up to `most` names of a directory.
pub(crate) fn names(dir: BorrowedFd<'_>, most: usize) -> nix::Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut reader = Dir::openat(dir, c".", flags, Mode::empty())?;
    let names = reader.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    names
        .filter(|name| name.as_ref().is_ok_and(|n| !matches!(n.as_bytes(), b"." | b"..")) || name.is_err())
        .take(most)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[cfg(feature = "image")]
    #[test]
    fn a_directory_is_found_behind_a_path_that_is_too_long() {
        let top = std::env::temp_dir().join(format!("rf-deep-{}", std::process::id()));
        fs::create_dir(&top).unwrap();
        let root: OwnedFd = File::open(&top).unwrap().into();
        let mut dir = root.try_clone().unwrap();
        let name = "d".repeat(250);
        for _ in 0..40 {
            nix::sys::stat::mkdirat(&dir, name.as_str(), Mode::S_IRWXU).unwrap();
            dir = open(dir.as_fd(), name.as_str()).unwrap();
        }
        let id = |dir: &OwnedFd| nix::sys::stat::fstat(dir).map(|stat| stat.st_ino);
        for (depth, there) in [(0, id(&root)), (40, id(&dir))] {
            let found = open_deep(root.as_fd(), vec![name.as_str(); depth].join("/").as_bytes()).unwrap();
            assert_eq!(id(&found), there, "{depth}");
        }
        let errors =
            [[name.as_str(); 41].join("/"), "d".repeat(5000)].map(|path| open_deep(root.as_fd(), path.as_bytes()));
        let removed = std::process::Command::new("rm").arg("-rf").arg(&top).status();
        assert_eq!(errors.map(|error| error.unwrap_err()), [Errno::ENOENT, Errno::ENAMETOOLONG]);
        assert!(removed.unwrap().success());
    }

    #[test]
    fn a_file_that_is_replaced_is_read_whole() {
        let path = std::env::temp_dir().join(format!("rf-replace-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let dir = open_named(&path).unwrap();
        let texts = [vec![b'a'; 5000], vec![b'b'; 10], Vec::new()];
        replace(dir.as_fd(), "new", "file", &texts[0]).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for text in texts.iter().cycle().take(300) {
                    replace(dir.as_fd(), "new", "file", text).unwrap();
                }
            });
            while !writer.is_finished() {
                assert!(texts.contains(&fs::read(path.join("file")).unwrap()));
            }
        });
        // One that was killed may have left the other name.
        fs::write(path.join("new"), "older").unwrap();
        replace(dir.as_fd(), "new", "file", b"last").unwrap();
        assert_eq!(fs::read(path.join("file")).unwrap(), b"last");
        assert_eq!(names(dir.as_fd(), 9).unwrap(), [c"file".to_owned()]);
        assert_eq!(replace(dir.as_fd(), "new", "no/file", b"").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(read(dir.as_fd(), "file", 4).unwrap(), b"last");
        assert_eq!(read(dir.as_fd(), "file", 3).unwrap_err().raw_os_error(), Some(libc::EFBIG));
        std::os::unix::fs::symlink("file", path.join("link")).unwrap();
        assert_eq!(read(dir.as_fd(), "link", 4).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        fs::remove_dir_all(&path).unwrap();
    }
}
