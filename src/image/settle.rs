//! What of a layer depends on the layers below: done when those are there, and before the layer is.
//!
//! An archive may leave directories out that a layer below has: `usr/bin/x` without `usr` and `usr/bin`. For overlayfs they have
//! to be there, and theirs would be the owner, mode and attributes that count; so they get those of the layer below. Where
//! the layer below has a symbolic link in place of such a directory, the entries belong to where it leads. A hard link to a
//! file of a layer below needs a copy of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::lowers::{Found, Lowers};
use super::tree::{self, InRoot, Place, Tree, kind_of};
use super::unpack::{self, Ids, Link, Unpacked, failed, link, permissions, time};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::xattr;

/// Directories that may be led elsewhere by links of the layers below.
const MOVES_MAX: usize = 10_000;

/// Settles the layer on those below it.
pub(super) fn settle(layer: &mut Unpacked, lowers: &Lowers, ids: Ids) -> Result<()> {
    let mut settling = Settling { tree: &mut layer.tree, lowers, ids, times: BTreeMap::new() };
    settling.lead_elsewhere()?;
    for link in &layer.links {
        settling.link(link)?;
    }
    settling.take_over()?;
    settling.restore_times()
}

struct Settling<'l> {
    tree: &'l mut Tree,
    lowers: &'l Lowers,
    ids: Ids,
    /// Times of directories that were changed and that the layer tells about.
    times: BTreeMap<InRoot, FileStat>,
}

fn c_path(path: &[u8]) -> impl Fn(Errno) -> Error + '_ {
    move |errno| failed(errno, path)
}

impl Settling<'_> {
    /// Moves what stands in implied directories that are links in a layer below.
    fn lead_elsewhere(&mut self) -> Result<()> {
        let mut todo: Vec<InRoot> = self.tree.implied.iter().rev().cloned().collect();
        let mut moves = 0;
        while let Some(path) = todo.pop() {
            let fail = c_path(&path);
            let Found::Other(_, stat) = self.lowers.find(&path).map_err(&fail)? else { continue };
            if kind_of(&stat) != SFlag::S_IFLNK {
                continue;
            }
            let Some(target) = self.lowers.resolve(&path).map_err(&fail)? else { continue };
            let within = target.starts_with(&path) && target.get(path.len()).is_none_or(|byte| *byte == b'/');
            let file = matches!(self.lowers.find(&target).map_err(&fail)?, Found::Other(..));
            if within || file || !self.is_dir(&path)? {
                continue;
            }
            moves += 1;
            if moves > MOVES_MAX {
                let detail = "too many directories that layers below lead elsewhere";
                return Err(Error::message(ErrorKind::TooLarge, Step::UnpackLayer, detail));
            }
            let before = self.tree.implied.clone();
            self.relocate(&path, &target).map_err(&fail)?;
            // Implied directories went along, and new ones came.
            let moved = |implied: &InRoot| implied.strip_prefix(path.as_slice()).map(<[u8]>::to_vec);
            let along: Vec<InRoot> = before.iter().filter_map(moved).collect();
            for rest in along {
                let old = [path.as_slice(), &rest].concat();
                self.tree.implied.remove(&old);
                todo.retain(|path| *path != old);
                if !rest.is_empty() {
                    let new = in_target(&target, &rest);
                    self.tree.implied.insert(new.clone());
                    todo.push(new);
                }
            }
        }
        Ok(())
    }

    fn is_dir(&mut self, path: &[u8]) -> Result<bool> {
        let stat = match self.tree.find(path).map_err(c_path(path))? {
            Some(place) => place.stat().map_err(c_path(path))?,
            None => None,
        };
        Ok(stat.is_some_and(|stat| kind_of(&stat) == SFlag::S_IFDIR))
    }

    fn relocate(&mut self, path: &[u8], target: &[u8]) -> nix::Result<()> {
        let Some(place) = self.tree.find(path)? else { return Ok(()) };
        self.keep_times(target)?;
        let to = self.tree.dir(target)?;
        merge(&place.open_dir()?, &to)?;
        unlinkat(&place.dir, place.name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        self.tree.moved();
        Ok(())
    }

    /// Notes the times of a directory, and of those above it, which is about to be changed.
    fn keep_times(&mut self, path: &[u8]) -> nix::Result<()> {
        let mut next = Some(path);
        while let Some(path) = next {
            if !self.tree.implied.contains(path) && !self.times.contains_key(path) {
                let stat = match self.tree.find(path)? {
                    Some(place) => place.stat()?,
                    None => Some(fstat(self.tree.root())?),
                };
                if let Some(stat) = stat.filter(|stat| kind_of(stat) == SFlag::S_IFDIR) {
                    self.times.insert(path.to_vec(), stat);
                }
            }
            next = tree::split(path).map(|(dir, _)| dir);
        }
        Ok(())
    }

    /// Gives implied directories what they are in the layers below.
    fn take_over(&mut self) -> Result<()> {
        for path in self.tree.implied.clone().iter().rev() {
            let fail = c_path(path);
            let place = self.tree.find(path).map_err(&fail)?;
            let opened = match place {
                Some(place) => place.open_dir(),
                None if path.is_empty() => self.tree.root().as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE),
                None => continue,
            };
            let dir = match opened {
                Ok(dir) => dir,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                Err(errno) => return Err(fail(errno)),
            };
            let below = self.lowers.find(path).map_err(&fail)?;
            match below.top().map_err(&fail)? {
                Some((from, stat)) => self.copy_attributes(from, &stat, &dir).map_err(&fail)?,
                None => {
                    fchmod(&dir, permissions(0o755)).map_err(&fail)?;
                    futimens(&dir, &time((0, 0)), &time((0, 0))).map_err(&fail)?;
                }
            }
        }
        Ok(())
    }

    fn copy_attributes(&self, from: &OwnedFd, stat: &FileStat, to: impl AsFd) -> nix::Result<()> {
        if self.ids == Ids::Kept {
            fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        }
        for name in xattr::list(from.as_fd())? {
            let is_overlays = tree::OPAQUE.contains(&name.as_c_str());
            if let (false, Some(value)) = (is_overlays, xattr::get(from.as_fd(), &name)?) {
                match xattr::set(to.as_fd(), &name, &value) {
                    Ok(()) | Err(Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        fchmod(&to, permissions(stat.st_mode))?;
        set_times(&to, stat)
    }

    /// Makes a hard link to a file of a layer below, of which this layer gets a copy.
    fn link(&mut self, wanted: &Link) -> Result<()> {
        let fail = c_path(&wanted.path);
        for path in [&wanted.path, &wanted.target] {
            self.keep_times(tree::split(path).unwrap_or_default().0).map_err(&fail)?;
        }
        let missing = || {
            let detail = format!("a hard link to {}, which is not there", unpack::shown(&wanted.target));
            Error::message(ErrorKind::Corrupt, Step::UnpackLayer, detail).at(unpack::shown(&wanted.path))
        };
        let here = match self.tree.find(&wanted.target).map_err(&fail)? {
            Some(place) => place.stat().map_err(&fail)?.map(|stat| (place, stat)),
            None => None,
        };
        let source = match here {
            Some((_, stat)) if tree::is_whiteout(&stat) || kind_of(&stat) == SFlag::S_IFDIR => return Err(missing()),
            Some((place, _)) => place,
            None => {
                let resolved = self.lowers.resolve(parent(&wanted.target)).map_err(&fail)?.ok_or_else(missing)?;
                let mut path = resolved;
                tree::push(&mut path, tree::split(&wanted.target).unwrap_or_default().1);
                let Found::Other(dir, stat) = self.lowers.find(&path).map_err(&fail)? else { return Err(missing()) };
                if kind_of(&stat) != SFlag::S_IFREG {
                    return Err(missing());
                }
                let to = self.tree.place(&path).map_err(&fail)?.ok_or_else(missing)?;
                if to.stat().map_err(&fail)?.is_none() {
                    self.copy_up(&dir, &stat, &to).map_err(|error| {
                        Error::from_io(Step::UnpackLayer, ErrorKind::Store, error).at(unpack::shown(&wanted.target))
                    })?;
                }
                to
            }
        };
        let place = self.tree.place(&wanted.path).map_err(&fail)?.ok_or_else(missing)?;
        match link(&source, &place) {
            // A later entry has taken the place.
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(fail(errno)),
        }
    }

    fn copy_up(&self, from: &OwnedFd, stat: &FileStat, to: &Place) -> io::Result<()> {
        let source = Place { dir: from.as_fd().try_clone_to_owned()?.into(), name: to.name.clone() };
        let source = source.open(OFlag::O_RDONLY)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let copy = File::from(openat(&to.dir, to.name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        io::copy(&mut File::from(source.try_clone()?), &mut &copy)?;
        self.copy_attributes(&source, stat, &copy)?;
        Ok(())
    }

    fn restore_times(&mut self) -> Result<()> {
        for (path, stat) in std::mem::take(&mut self.times).iter().rev() {
            let fail = c_path(path);
            let set = match self.tree.find(path).map_err(&fail)? {
                Some(place) => place.open_dir().and_then(|dir| set_times(dir, stat)),
                None => set_times(self.tree.root(), stat),
            };
            set.map_err(&fail)?;
        }
        Ok(())
    }
}

fn parent(path: &[u8]) -> &[u8] {
    tree::split(path).unwrap_or_default().0
}

/// A path that begins with `/`, below another.
fn in_target(target: &[u8], rest: &[u8]) -> InRoot {
    let mut path = target.to_vec();
    tree::names(rest).for_each(|name| tree::push(&mut path, name));
    path
}

fn set_times(file: impl AsFd, stat: &FileStat) -> nix::Result<()> {
    let (seen, changed) =
        (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec));
    futimens(file, &seen, &changed)
}

/// Moves all that is in one directory into another; directories that both have become one. No deeper than PATH_MAX lets the
/// archive's paths be.
fn merge(from: &OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    let mut pairs = vec![(from.try_clone().map_err(|_| Errno::EMFILE)?, to.try_clone().map_err(|_| Errno::EMFILE)?)];
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut emptied = Vec::new();
    while let Some((from, to)) = pairs.pop() {
        let mut reader = Dir::openat(&from, c".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let names: Vec<_> = reader.iter().map(|e| e.map(|e| e.file_name().to_owned())).collect::<nix::Result<_>>()?;
        for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
            match renameat2(&from, name.as_c_str(), &to, name.as_c_str(), RenameFlags::RENAME_NOREPLACE) {
                Err(Errno::EEXIST) => {}
                result => {
                    result?;
                    continue;
                }
            }
            let open = |dir: &OwnedFd| openat(dir, name.as_c_str(), flags, Mode::empty());
            match (open(&from), open(&to)) {
                (Ok(inner_from), Ok(inner_to)) => {
                    pairs.push((inner_from, inner_to));
                    emptied.push((from.try_clone().map_err(|_| Errno::EMFILE)?, name.clone()));
                }
                // What the archive says of the one path contradicts what it says of the other.
                _ => return Err(Errno::ENOTDIR),
            }
        }
    }
    emptied.iter().rev().try_for_each(|(dir, name)| unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir))
}
