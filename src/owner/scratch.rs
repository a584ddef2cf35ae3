//! Directories that are removed with their sandbox.
//!
//! The program wrote their contents, with any depth and any names, and a process that it left may
//! rename entries during the removal. So creation and removal use file descriptors, and never
//! follow a link. The removal does not recurse, and keeps at most two directories open: a directory
//! found inside of another is moved up to the top, and removed later.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::{base, dir};
use crate::error::{Error, Result, Step};
use crate::proc::identity::Identity;
use crate::sys::file_size;
use crate::sys::quota::{self, Project};
use crate::sys::shortage::is_shortage;

/// The number of names that are read before any is removed, as removing entries disturbs the
/// reading of a directory.
const BATCH: usize = 512;
/// The number of attempts to move a directory whose permissions another process keeps removing.
const TRIES: usize = 100;
/// The file that identifies the process of the sandbox.
const PROCESS: &CStr = c"process";

/// A directory that is removed with its sandbox.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    id: dir::Id,
    /// True if nothing is left to remove, or if another process has to remove it.
    done: bool,
}

/// The result of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    Removed,
    /// The directory did not exist.
    Gone,
    /// The entry is not a directory, is not the caller's, or is open to others: another program has
    /// put it there.
    Foreign,
}

impl Scratch {
    /// Creates the directory `name` in `base`, closed to others. In it, creates a directory with
    /// `upper` and `work`, which belong to `owner`.
    pub(super) fn make(base: &Path, name: &str, owner: Option<(u32, u32)>) -> Result<Scratch> {
        base::scratch_base(base)?;
        let path = base.join(name);
        let failed = |errno| {
            let error = Error::new(Step::Scratch, errno).at(&path);
            if is_shortage(errno) { error } else { error.hint("choose another directory with RootFs::scratch_in()") }
        };
        let name = CString::new(name).map_err(|_| failed(Errno::EINVAL))?;
        let above = dir::open_named(base).map_err(failed)?;
        let top = dir::make(above.as_fd(), &name, Mode::S_IRWXU);
        let top = top.inspect_err(|errno| remove_partial(above.as_fd(), &name, *errno)).map_err(failed)?;
        let id = dir::id_of(&fstat(&top).map_err(failed)?);
        let scratch = Scratch { path: path.clone(), id, done: false };
        let open = Mode::from_bits_truncate(0o755);
        let layers = dir::make(top.as_fd(), c"layers", open).map_err(failed)?;
        for (name, mode) in [(c"upper", open), (c"work", Mode::S_IRWXU)] {
            let made = dir::make(layers.as_fd(), name, mode).map_err(failed)?;
            if let Some((uid, gid)) = owner {
                fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
            }
        }
        Ok(scratch)
    }

    #[cfg(feature = "image")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory that contains `upper` and `work`. It is open to all users that can
    /// reach it.
    pub(crate) fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// Records the process that has the directory mounted. Without a control group, a later process
    /// could not find it otherwise.
    pub(crate) fn record_process(&self, process: BorrowedFd<'_>) -> Result<()> {
        let failed = |errno| Error::new(Step::Scratch, errno).at(&self.path);
        let line = match Identity::of(process) {
            // The process has ended already.
            Err(Errno::ESRCH) => return Ok(()),
            other => other.map_err(failed)?.to_line(),
        };
        let top = dir::open_named(&self.path).map_err(failed)?;
        if dir::id_of(&fstat(&top).map_err(failed)?) != self.id {
            return Err(failed(Errno::ESTALE));
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&top, PROCESS, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed)?;
        file_size::append(&File::from(file), line.as_bytes())
            .map_err(|error| Error::io(Step::Scratch, &error).at(&self.path))
    }

    /// Removes the directory with its contents. Fails with ETIMEDOUT after `until`; a later call
    /// continues.
    pub(crate) fn remove(&mut self, until: Option<Instant>) -> Result<()> {
        if !self.done {
            remove_known(&self.path, Some(self.id), until)?;
            self.done = true;
        }
        Ok(())
    }

    /// Leaves the directory to its owner.
    pub(crate) fn forget(mut self) {
        self.done = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays on record for reap_stale, as the last owner of the scratch
        // directory has ensured.
        let _ = self.remove(None);
    }
}

/// Removes the directory `name` in `above` with its contents, if it exists, the caller owns it, and
/// it is closed to others. `path` is for the error.
#[cfg(feature = "image")]
pub(crate) fn remove_tree(above: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<()> {
    remove_named(above, name, None, None, path)
}

fn remove_known(path: &Path, id: Option<dir::Id>, until: Option<Instant>) -> Result<()> {
    let failed = |errno| Error::new(Step::RemoveScratch, errno).at(path);
    let above = match dir::open_named(path.parent().unwrap_or(Path::new("/"))) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.map_err(failed)?,
    };
    remove_named(above.as_fd(), path.file_name().unwrap_or_default(), id, until, path)
}

/// Removes `name` in `above`, whose path is `path`.
fn remove_named(
    above: BorrowedFd<'_>,
    name: &OsStr,
    id: Option<dir::Id>,
    until: Option<Instant>,
    path: &Path,
) -> Result<()> {
    let failed = |errno| Error::new(Step::RemoveScratch, errno).at(path);
    match remove_below(above, name, id, until).map_err(failed)? {
        Removal::Removed | Removal::Gone => Ok(()),
        Removal::Foreign => Err(failed(Errno::EPERM)
            .detail("the directory belongs to another user, is open to others, or is not the one that was made here")),
    }
}

/// Removes `name` in `above` with its contents. If `id` is given, the directory must have this id.
pub(super) fn remove_below(
    above: BorrowedFd<'_>,
    name: &OsStr,
    id: Option<dir::Id>,
    until: Option<Instant>,
) -> nix::Result<Removal> {
    let top = match dir::open(above, name) {
        Err(Errno::ENOENT) => return Ok(Removal::Gone),
        Err(Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(Removal::Foreign),
        other => other?,
    };
    let stat = fstat(&top)?;
    if !dir::is_private(&stat, Mode::S_IRWXU) || id.is_some_and(|id| id != dir::id_of(&stat)) {
        return Ok(Removal::Foreign);
    }
    let project = project_of(top.as_fd());
    Clearing { top: top.as_fd(), until, moved: 0 }.run()?;
    match unlinkat(above, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    project.into_iter().for_each(|project| quota::forget(top.as_fd(), project));
    Ok(Removal::Removed)
}

/// Returns the project by which the space of a scratch directory is limited.
fn project_of(top: BorrowedFd<'_>) -> Option<Project> {
    let layers = dir::open(top, c"layers").ok()?;
    quota::project_of(dir::open(layers.as_fd(), c"upper").ok()?.as_fd()).ok()
}

/// Returns the process that is recorded in a scratch directory.
pub(super) fn process_of(above: BorrowedFd<'_>, name: &OsStr) -> Option<Identity> {
    let top = dir::open(above, name).ok()?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(&top, PROCESS, flags, Mode::empty()).ok()?);
    let mut line = String::new();
    file.take(256).read_to_string(&mut line).ok()?;
    Identity::parse(&line)
}

/// Removes a directory that could not be created completely.
fn remove_partial(above: BorrowedFd<'_>, name: &CStr, errno: Errno) {
    if errno != Errno::EEXIST {
        let _ = unlinkat(above, name, UnlinkatFlags::RemoveDir);
    }
}

struct Clearing<'t> {
    top: BorrowedFd<'t>,
    until: Option<Instant>,
    /// The number of directories that were moved up, which is used to name them.
    moved: u64,
}

impl Clearing<'_> {
    fn run(&mut self) -> nix::Result<()> {
        loop {
            let names = dir::names(self.top, BATCH)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                self.clear(&name)?;
            }
        }
    }

    /// Removes one entry of the top directory. If another process replaces the entry meanwhile, the
    /// next pass finds it.
    fn clear(&mut self, name: &CStr) -> nix::Result<()> {
        self.in_time()?;
        if unlink(self.top, name)? {
            return Ok(());
        }
        let Some(inner) = found(dir::open_own(self.top, name))? else { return Ok(()) };
        loop {
            let names = dir::names(inner.as_fd(), BATCH)?;
            if names.is_empty() {
                break;
            }
            for name in names {
                self.in_time()?;
                if !unlink(inner.as_fd(), &name)? {
                    self.move_up(inner.as_fd(), &name)?;
                }
            }
        }
        match unlinkat(self.top, name, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    fn in_time(&self) -> nix::Result<()> {
        if self.until.is_some_and(|until| Instant::now() >= until) { Err(Errno::ETIMEDOUT) } else { Ok(()) }
    }

    /// Moves a directory up to the top. This needs only the owner's permissions on the moved
    /// directory.
    fn move_up(&mut self, from: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
        for _ in 0..TRIES {
            if found(dir::open_own(from, name))?.is_none() {
                return Ok(());
            }
            self.moved += 1;
            let free = CString::new(format!("{:x}", self.moved)).map_err(|_| Errno::EINVAL)?;
            match renameat(from, name, self.top, free.as_c_str()) {
                // The name is taken, or leads to another directory by now.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR | Errno::EISDIR | Errno::EACCES) => {}
                Err(Errno::ENOENT) => return Ok(()),
                result => return result,
            }
        }
        Err(Errno::EACCES)
    }
}

/// Returns the opened directory, or `None` if there is none.
fn found<T>(opened: nix::Result<T>) -> nix::Result<Option<T>> {
    match opened {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        other => other.map(Some),
    }
}

/// Removes an entry that is not a directory. Returns true if the entry is gone.
fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<bool> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        // POSIX specifies EPERM for directories; Linux also uses it for files that nobody may
        // remove.
        Err(Errno::EPERM) if dir::open_own(dir, name).is_ok() => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Returns true if an entry of a shared directory may be a scratch directory, by its name.
pub(super) fn has_prefix(name: &CStr, prefix: &str) -> bool {
    name.to_bytes().starts_with(prefix.as_bytes())
}

pub(super) fn as_os_str(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    use nix::sys::stat::{FchmodatFlags, fchmodat, mkdirat};

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("rftest-scratch-{}-{name}", std::process::id()))
    }

    fn make(name: &str) -> Scratch {
        let path = place(name);
        Scratch::make(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap(), None).unwrap()
    }

    #[test]
    fn a_tree_too_deep_for_a_path_is_removed() {
        let mut scratch = make("deep");
        let mut dir = nix::fcntl::open(&scratch.layers().join("upper"), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            mkdirat(&dir, c"1", Mode::S_IRWXU).unwrap();
            let file = openat(&dir, c"file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::empty());
            drop(file.unwrap());
            dir = openat(&dir, c"1", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        let first = scratch.layers().join("upper/1");
        fchmodat(AT_FDCWD, &first, Mode::empty(), FchmodatFlags::FollowSymlink).unwrap();
        assert!(scratch.remove(Some(Instant::now())).is_err(), "no time is no time");
        scratch.remove(None).unwrap();
        assert!(!scratch.path.exists());
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let victim = place("victim");
        fs::create_dir_all(victim.join("work")).unwrap();
        fs::set_permissions(victim.join("work"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut scratch = make("links");
        symlink(&victim, scratch.layers().join("upper/link")).unwrap();
        fs::remove_dir(scratch.layers().join("work")).unwrap();
        symlink(&victim, scratch.layers().join("work")).unwrap();
        scratch.remove(None).unwrap();
        let mode = fs::metadata(victim.join("work")).unwrap().permissions().mode();
        fs::remove_dir_all(&victim).unwrap();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn what_is_open_to_others_or_a_link_or_another_directory_is_not_touched() {
        let open = place("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let link = place("link");
        symlink(&open, &link).unwrap();
        let errors = [&open, &link].map(|path| remove_known(path, None, None).is_err());
        fs::remove_file(&link).unwrap();
        fs::remove_dir(&open).unwrap();
        let mut scratch = make("exchanged");
        fs::rename(&scratch.path, place("moved")).unwrap();
        fs::create_dir(&scratch.path).unwrap();
        fs::set_permissions(&scratch.path, fs::Permissions::from_mode(0o700)).unwrap();
        let other = scratch.remove(None).is_err();
        fs::remove_dir(&scratch.path).unwrap();
        fs::rename(place("moved"), &scratch.path).unwrap();
        scratch.remove(None).unwrap();
        assert_eq!((errors, other), ([true, true], true));
    }

    fn exchange(a: &Path, b: &Path) -> nix::Result<()> {
        renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE)
    }

    /// A file and a directory that must not change.
    struct Victims(PathBuf);

    impl Victims {
        fn new(name: &str) -> Victims {
            let top = place(name);
            fs::create_dir_all(top.join("dir/inner")).unwrap();
            fs::write(top.join("file"), "").unwrap();
            for (path, mode) in [("file", 0o644), ("dir", 0o755), ("dir/inner", 0o755)] {
                fs::set_permissions(top.join(path), fs::Permissions::from_mode(mode)).unwrap();
            }
            Victims(top)
        }

        fn state(&self) -> Vec<(u32, u32)> {
            let of = |path| fs::metadata(self.0.join(path)).map(|meta| (meta.mode(), meta.uid())).unwrap();
            ["file", "dir", "dir/inner"].map(of).to_vec()
        }
    }

    impl Drop for Victims {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The number of names that are exchanged during a removal.
    const PAIRS: usize = 12;

    /// Returns the duration of a race.
    fn patience() -> Duration {
        Duration::from_secs(if std::env::var_os("CI").is_some() { 8 } else { 3 })
    }

    /// Runs `race` repeatedly while `swap` runs in another thread, until the flag given to `swap`
    /// is set: for the duration of a race, and on a busy machine on until `met` says that both have
    /// met, for a minute at most.
    fn beside(swap: impl Fn(&AtomicBool) + Sync, race: impl Fn(u32), met: impl Fn() -> bool) {
        struct Stop<'s>(&'s AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| swap(&stop));
            // If the race fails, the other thread ends as well.
            let _stop = Stop(&stop);
            let begun = Instant::now();
            let goes_on = || begun.elapsed() < if met() { patience() } else { Duration::from_secs(60) };
            (0..).take_while(|_| goes_on()).for_each(&race);
        });
    }

    /// A remaining process of the program replaces directories by links to files that are not its
    /// own.
    #[test]
    fn a_removal_changes_nothing_beside_the_directory_whatever_is_exchanged_meanwhile() {
        let victims = Victims::new("removal-victims");
        let before = victims.state();
        let upper = place("removal/layers/upper");
        // The removal may read the names in either order, so the exchange goes both ways.
        let pairs: Vec<[PathBuf; 2]> =
            (0..PAIRS).map(|i| [upper.join(format!("in/d{i}")), upper.join(format!("in/l{i}"))]).collect();
        let swap = |stop: &AtomicBool| {
            while !stop.load(Ordering::Relaxed) {
                for [dir, link] in pairs.iter().chain(pairs.iter().rev()) {
                    let _ = (exchange(dir, link), exchange(dir, link), exchange(dir, link));
                }
            }
        };
        beside(
            swap,
            |_| {
                let mut scratch = make("removal");
                fs::create_dir(upper.join("in")).unwrap();
                for ([dir, link], to) in pairs.iter().zip(["file", "dir", "dir/inner"].iter().cycle()) {
                    let _ = fs::DirBuilder::new().mode(0o500).create(dir);
                    let _ = symlink(victims.0.join(to), link);
                }
                scratch.remove(Some(Instant::now() + Duration::from_secs(10))).unwrap();
            },
            || true,
        );
        assert_eq!(victims.state(), before);
    }

    /// A process that may rename entries of the base puts links in place of what is created there.
    #[test]
    fn a_making_changes_nothing_beside_the_directory_whatever_is_exchanged_meanwhile() {
        let victims = Victims::new("making-victims");
        fs::create_dir_all(victims.0.join("dir/layers/upper")).unwrap();
        let before = victims.state();
        let base = place("making");
        fs::create_dir(&base).unwrap();
        let (scratch, aside, link) = (base.join("scratch"), base.join("aside"), base.join("link"));
        symlink(victims.0.join("dir"), &link).unwrap();
        let swap = |stop: &AtomicBool| {
            while !stop.load(Ordering::Relaxed) {
                // What is made in the directory while it is removed keeps it, and is removed here.
                let _ = fs::remove_dir_all(&aside);
                // First the link takes the place of the directory, and then nothing does.
                if fs::rename(&scratch, &aside).is_ok() {
                    let _ = fs::rename(&link, &scratch);
                    thread::sleep(Duration::from_micros(200));
                    let _ = fs::rename(&scratch, &link);
                }
            }
        };
        let tried = AtomicBool::new(false);
        beside(
            swap,
            |_| {
                match Scratch::make(&base, "scratch", Some((1, 1))) {
                    Ok(mut made) => drop(made.remove(None)),
                    Err(_) => tried.store(true, Ordering::Relaxed),
                }
                let inner = fs::metadata(victims.0.join("dir/layers/upper")).unwrap();
                assert_eq!(inner.uid(), Uid::effective().as_raw(), "somebody else's directory was given away");
            },
            || tried.load(Ordering::Relaxed),
        );
        let _ = fs::remove_dir_all(&base);
        assert_eq!(victims.state(), before);
        assert!(tried.load(Ordering::Relaxed), "nothing was exchanged in time");
    }
}
