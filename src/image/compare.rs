//! Compares two unpacked trees: names, types, modes, owners, times, attributes and contents.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use super::store_path::StorePath;
use super::tree::{is_whiteout, kind_of};
use crate::sys::{by_fd, xattr};

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const BUFFER: usize = 256 << 10;

/// Returns the first path at which the trees differ, and a description of the difference.
pub(super) fn difference(one: &StorePath, other: &StorePath) -> io::Result<Option<(PathBuf, String)>> {
    let (one, other): (OwnedFd, OwnedFd) = (one.open_dir()?.into(), other.open_dir()?.into());
    // A tree may have any number of directories, so none that is still to be compared is open.
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let open = |top: &OwnedFd| by_fd::open_deep(top.as_fd(), path.as_os_str().as_bytes());
        let (left, right) = (open(&one)?, open(&other)?);
        let (here, there) = (names(&left)?, names(&right)?);
        if let Some(name) = here.symmetric_difference(&there).next() {
            let what = if here.contains(name) { "it is not in the archive" } else { "it is gone" };
            return Ok(Some((path.join(OsStr::from_bytes(name.to_bytes())), what.to_owned())));
        }
        for name in here {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            if let Some(what) = entry(&left, &right, &name)? {
                return Ok(Some((path, what)));
            }
            if kind_of(&fstatat(&left, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?) == SFlag::S_IFDIR {
                todo.push(path);
            }
        }
    }
    Ok(None)
}

fn names(dir: &OwnedFd) -> nix::Result<BTreeSet<CString>> {
    let mut dir = Dir::openat(dir, c".", DIRECTORY, Mode::empty())?;
    let names = dir.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    let names = names.filter(|name| !name.as_ref().is_ok_and(|name| matches!(name.to_bytes(), b"." | b"..")));
    names.collect()
}

/// Returns the difference between the entries of one name in both directories.
fn entry(left: &OwnedFd, right: &OwnedFd, name: &CString) -> nix::Result<Option<String>> {
    let stat = |dir: &OwnedFd| fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
    let (here, there) = (stat(left)?, stat(right)?);
    if is_whiteout(&here) && is_whiteout(&there) {
        return Ok(None);
    }
    let kind = kind_of(&here);
    let is_file = kind == SFlag::S_IFREG;
    type Figure = (&'static str, fn(&FileStat) -> i64);
    let figures: [Figure; 6] = [
        ("mode", |stat| stat.st_mode.into()),
        ("owner", |stat| stat.st_uid.into()),
        ("group", |stat| stat.st_gid.into()),
        ("device", |stat| stat.st_rdev as i64),
        ("time", |stat| stat.st_mtime),
        ("nanoseconds", |stat| stat.st_mtime_nsec),
    ];
    for (what, figure) in figures {
        if figure(&here) != figure(&there) {
            return Ok(Some(format!("its {what} is {}, and not {}", figure(&here), figure(&there))));
        }
    }
    if is_file && (here.st_size, here.st_nlink) != (there.st_size, there.st_nlink) {
        let (size, links) = (here.st_size, here.st_nlink);
        let text = format!("it has {size} bytes and {links} names, and not {} and {}", there.st_size, there.st_nlink);
        return Ok(Some(text));
    }
    if kind == SFlag::S_IFLNK {
        let target = |dir: &OwnedFd| readlinkat(dir, name.as_c_str());
        return Ok((target(left)? != target(right)?).then(|| "its target differs".to_owned()));
    }
    if !is_file && kind != SFlag::S_IFDIR {
        return Ok(None);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let open = |dir: &OwnedFd| openat(dir, name.as_c_str(), flags, Mode::empty());
    let (here, there) = match (open(left), open(right)) {
        // The owner, an ordinary user, may not read the file.
        (Err(Errno::EACCES), Err(Errno::EACCES)) => return Ok(None),
        (here, there) => (here?, there?),
    };
    let attributes = |file: &OwnedFd| -> nix::Result<BTreeSet<(CString, Option<Vec<u8>>)>> {
        let names = xattr::list(file.as_fd())?;
        names.into_iter().map(|name| Ok((name.clone(), xattr::get(file.as_fd(), &name)?))).collect()
    };
    if attributes(&here)? != attributes(&there)? {
        return Ok(Some("its attributes differ".to_owned()));
    }
    if is_file && !same_bytes(File::from(here), File::from(there)).map_err(|error| errno(&error))? {
        return Ok(Some("its bytes differ".to_owned()));
    }
    Ok(None)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Compares the contents of two files of the same length.
fn same_bytes(mut left: File, mut right: File) -> std::io::Result<bool> {
    let (mut here, mut there) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let count = left.read(&mut here)?;
        if count == 0 {
            return Ok(true);
        }
        let (here, there) = (here.get(..count).unwrap_or_default(), there.get_mut(..count).unwrap_or_default());
        match right.read_exact(there) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if here != there {
            return Ok(false);
        }
    }
}
