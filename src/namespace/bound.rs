//! Namespaces at paths: a bind mount of a namespace's file keeps the namespace, as `ip netns` does.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::kinds::Namespaces;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::nsfs;

/// A directory in which namespaces are bound, each on a file of the name that it has below
/// `/proc/PID/ns`.
#[derive(Debug)]
pub(crate) struct BoundDir {
    dir: OwnedFd,
    path: PathBuf,
    /// Those that are bound.
    bound: Vec<Namespaces>,
}

/// The name of a descriptor, which leads to exactly what it is of.
fn by_number(fd: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/thread-self/fd/{}", fd.as_raw_fd()).into()
}

fn same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

impl BoundDir {
    /// Opens the directory. Nobody but the caller may change what is in it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::io(Step::HoldNamespace, &error).at(path);
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let dir = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let about = dir.metadata().map_err(failed)?;
        if about.uid() != Uid::effective().as_raw() || about.mode() & 0o022 != 0 {
            let detail = "the directory is another user's, or others may write to it";
            let error = Error::message(ErrorKind::Invalid, Step::HoldNamespace, detail).at(path);
            return Err(error.hint("give a directory of the caller's own, with mode 0755 or less"));
        }
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(BoundDir { dir: dir.into(), path, bound: Vec::new() })
    }

    /// Binds a namespace. What is bound already stays bound if this fails.
    pub(crate) fn bind(&mut self, kind: Namespaces, namespace: BorrowedFd<'_>) -> Result<()> {
        let path = self.path.join(kind.name());
        let failed = |errno| Error::new(Step::HoldNamespace, errno).at(&path);
        let (file, is_new) = self.file(kind).map_err(|errno| match errno {
            Errno::EEXIST => {
                failed(errno).hint("something is at this path: if it is a namespace, open() the directory")
            }
            errno => failed(errno),
        })?;
        let none = None::<&Path>;
        let done = mount(Some(&by_number(namespace)), &by_number(file.as_fd()), none, MsFlags::MS_BIND, none);
        if let Err(errno) = done {
            if is_new {
                let _ = unlinkat(&self.dir, kind.name(), UnlinkatFlags::NoRemoveDir);
            }
            let hint = "a bind needs CAP_SYS_ADMIN in the user namespace of the caller's mount namespace";
            return Err(failed(errno).hint(hint));
        }
        self.bound.push(kind);
        Ok(())
    }

    /// Makes the file on which a namespace is bound, or takes an empty one that is there: one that
    /// a reboot or a crash has left. EEXIST is anything else.
    fn file(&self, kind: Namespaces) -> Result<(OwnedFd, bool), Errno> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match openat(&self.dir, kind.name(), flags, Mode::empty()) {
            Err(Errno::EEXIST) => {}
            made => return made.map(|file| (file, true)),
        }
        let file = self.look(kind)?;
        let about = fstat(&file)?;
        let is_left = SFlag::from_bits_truncate(about.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG
            && (about.st_size, about.st_nlink, about.st_uid) == (0, 1, Uid::effective().as_raw())
            && !nsfs::is_namespace(file.as_fd());
        if is_left { Ok((file, false)) } else { Err(Errno::EEXIST) }
    }

    /// Looks what is at the name of a kind.
    fn look(&self, kind: Namespaces) -> Result<OwnedFd, Errno> {
        openat(&self.dir, kind.name(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Opens the namespaces that are bound in the directory.
    pub(crate) fn namespaces(&mut self) -> Result<Vec<(Namespaces, OwnedFd)>> {
        let mut found = Vec::new();
        for kind in (Namespaces::all() - Namespaces::PID - Namespaces::MOUNT).iter() {
            let path = self.path.join(kind.name());
            let failed = |errno| Error::new(Step::HoldNamespace, errno).at(&path);
            let place = match self.look(kind) {
                Err(Errno::ENOENT) => continue,
                place => place.map_err(failed)?,
            };
            if !nsfs::is_namespace(place.as_fd()) {
                let error = Error::message(ErrorKind::Invalid, Step::HoldNamespace, "no namespace is bound here");
                return Err(error.at(&path).hint("remove the file"));
            }
            let file = File::open(by_number(place.as_fd()))
                .map_err(|error| Error::io(Step::HoldNamespace, &error).at(&path))?;
            let other = super::kind_of(file.as_fd()).map_err(failed)?;
            if other != kind {
                let detail = format!("this is a {} namespace", other.name());
                return Err(Error::message(ErrorKind::Invalid, Step::HoldNamespace, detail).at(&path));
            }
            self.bound.push(kind);
            found.push((kind, file.into()));
        }
        Ok(found)
    }

    /// Takes away the bind and the file of each namespace, unless another was bound there since.
    pub(crate) fn remove(&mut self, held: &[(Namespaces, BorrowedFd<'_>)]) -> Result<()> {
        let mut first = Ok(());
        for kind in std::mem::take(&mut self.bound) {
            let namespace = held.iter().find(|(held, _)| *held == kind).map(|(_, fd)| *fd);
            let removed = namespace.map_or(Ok(()), |namespace| self.remove_one(kind, namespace));
            let removed =
                removed.map_err(|errno| Error::new(Step::HoldNamespace, errno).at(self.path.join(kind.name())));
            first = first.and(removed);
        }
        first
    }

    fn remove_one(&self, kind: Namespaces, namespace: BorrowedFd<'_>) -> Result<(), Errno> {
        let ours = fstat(namespace)?;
        let is_ours = |place: Result<OwnedFd, Errno>| match place {
            Ok(place) => fstat(&place).map(|there| same(&there, &ours)),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        };
        if !is_ours(self.look(kind))? {
            return Ok(());
        }
        umount2(&by_number(self.dir.as_fd()).join(kind.name()), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        if nsfs::is_namespace(self.look(kind)?.as_fd()) {
            // It was bound on another.
            return Ok(());
        }
        unlinkat(&self.dir, kind.name(), UnlinkatFlags::NoRemoveDir)
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
