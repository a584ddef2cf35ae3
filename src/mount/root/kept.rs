//! A root of the host's programs that is kept: the caller makes it once, and copies it for each
//! sandbox by one open_tree(2), in place of a mount for each path.
//!
//! The original is a detached tree, on which the host's paths are mounted (6.15). Its tmpfs is
//! read-only for every mount of it, and belongs to the caller's user namespace: no program in a
//! user namespace of its own can make it writable, whatever it may do to its copy of the mount. So
//! what one sandbox leaves there, another cannot find.
//!
//! A root is kept as long as a new one would be the same: none of the paths is another file, /etc
//! has the same names, and nothing was mounted or unmounted. It has nothing but the mount of the
//! caller's own root, so that it keeps no file system busy that could be unmounted else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use nix::unistd::{symlinkat, write};

use super::etc;
use super::host_paths::host_paths;
use crate::proc::mountinfo;
use crate::sys::fork_mark::PerProcess;
use crate::sys::fsmount::FileSystem;
use crate::sys::mount::{self, FileId};
use crate::sys::shortage::is_shortage;
use crate::sys::{background, mutex};

/// The most roots that are kept: one for each list of mounts. Each is a descriptor of the caller's.
const MOST: usize = 4;
/// A change of a directory shows in its time for certain if the one before is as old as this.
const TICK: Duration = Duration::from_secs(2);

static KEPT: PerProcess<Mutex<AllKept>> = PerProcess::new();

/// What a sandbox needs of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mount) struct Wanted {
    /// The program's user and group inside.
    pub(in crate::mount) user: (u32, u32),
    /// The targets of mounts in the root, and whether each is a file.
    pub(in crate::mount) targets: Vec<(PathBuf, bool)>,
}

/// The roots that are kept, the oldest first.
#[derive(Debug, Default)]
struct AllKept {
    roots: Vec<Arc<Kept>>,
    /// The mounts of which the roots were made.
    mounts: Option<MountTable>,
}

/// A root with what it depends on.
#[derive(Debug)]
struct Kept {
    wanted: Wanted,
    /// The root, unless this host's cannot be kept.
    tree: Option<OwnedFd>,
    host: Arc<Host>,
}

/// The mounts of a namespace, which say by poll(2) that something was mounted or unmounted.
#[derive(Debug)]
struct MountTable(OwnedFd);

impl MountTable {
    /// Opens the mounts of the calling thread's namespace.
    fn open() -> Result<Self, Errno> {
        on_own_thread(mount::open_table).map(MountTable)
    }

    /// Returns whether the mounts have changed since the last call: the kernel tells it once.
    fn has_changed(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        let told = fds[0].revents().unwrap_or(PollFlags::POLLERR);
        polled.is_err() || told.intersects(PollFlags::POLLPRI | PollFlags::POLLERR)
    }
}

/// The files of the host that make up the root.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    root: FileId,
    /// /etc, whose names are looked through, with the time of its last change. Nobody can set that
    /// time, as who unpacks an archive sets the one of the last modification.
    etc: FileId,
    paths: Vec<(PathBuf, Option<FileId>)>,
}

impl Host {
    fn now(paths: impl IntoIterator<Item = PathBuf>) -> Result<Host, Errno> {
        let root = mount::file_id(Path::new("/"))?;
        // The directory itself, also where /etc is a link.
        let etc = mount::changed_file_id(Path::new("/etc/."))?;
        let id = |path: PathBuf| match mount::file_id(&path) {
            Err(Errno::ENOSYS) => Err(Errno::ENOSYS),
            found => Ok((path, found.ok())),
        };
        Ok(Host { root, etc, paths: paths.into_iter().map(id).collect::<Result<_, _>>()? })
    }

    /// Returns whether this is what the host still has.
    fn is_current(&self) -> bool {
        let paths = self.paths.iter().map(|(path, _)| path.clone());
        Host::now(paths).is_ok_and(|now| now == *self)
    }

    /// Returns the paths that are shown by a bind.
    fn bound(&self) -> impl Iterator<Item = (&Path, FileId)> {
        self.paths.iter().filter_map(|(path, id)| Some((path.as_path(), (*id).filter(|id| !id.is_link())?)))
    }

    /// Returns whether the next change of /etc is sure to show in its time.
    fn is_certain(&self) -> bool {
        let seconds = self.etc.changed.and_then(|(seconds, _)| seconds.try_into().ok());
        let Some(changed) = seconds.and_then(|it| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(it))) else {
            return false;
        };
        SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK)
    }

    /// Returns whether a root of these files holds no mount but the caller's root.
    fn is_plain(&self, mountinfo: &str) -> bool {
        let places = mountinfo::mount_points(mountinfo);
        self.bound()
            .all(|(path, id)| id.mount == self.root.mount && !places.iter().any(|place| place.starts_with(path)))
    }
}

/// Returns a copy of the root that is wanted, which is kept from then on. Returns nothing where it
/// cannot be kept.
pub(in crate::mount) fn copy_kept(wanted: &Wanted) -> Option<OwnedFd> {
    let all = KEPT.get_or_try(|| Ok::<_, Errno>(Mutex::default())).ok()?;
    let found = mutex::lock(all).find(wanted);
    let kept = match found.filter(|kept| kept.host.is_current()) {
        Some(kept) => kept,
        None => keep(all, wanted)?,
    };
    mount::clone_detached(kept.tree.as_ref()?.as_fd()).ok()
}

impl AllKept {
    fn find(&mut self, wanted: &Wanted) -> Option<Arc<Kept>> {
        self.drop_if_changed();
        self.roots.iter().find(|kept| kept.wanted == *wanted).cloned()
    }

    fn drop_if_changed(&mut self) {
        if self.mounts.as_ref().is_some_and(MountTable::has_changed) {
            self.roots.clear();
        }
    }
}

/// Makes a root, finds out whether it can be kept, and keeps that. Returns nothing while it is not
/// certain. Nothing waits for a root that another thread makes: it may be for another list.
fn keep(all: &Mutex<AllKept>, wanted: &Wanted) -> Option<Arc<Kept>> {
    mutex::lock(all).roots.retain(|kept| kept.wanted != *wanted);
    // A kernel before 6.8 cannot tell.
    mount::file_id(Path::new("/")).ok()?;
    // The mounts of a thread that has left the process's go with the thread.
    let namespace = |path| std::fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
    if namespace("/proc/thread-self/ns/mnt")? != namespace("/proc/self/ns/mnt")? {
        return None;
    }
    // First what is cheap: a long table takes milliseconds.
    let host = Arc::new(Host::now(host_paths().ok()?).ok().filter(Host::is_certain)?);
    let mounts = MountTable::open().ok()?;
    // The thread may have another root than the process, on which the names depend.
    let text = mountinfo::read("/proc/thread-self/mountinfo").ok()?;
    let made = host.is_plain(&text).then(|| make(&host, wanted));
    if made.as_ref().is_some_and(|made| made.as_ref().is_err_and(|errno| is_shortage(*errno))) {
        return None;
    }
    let tree = made.and_then(Result::ok);
    let mut all = mutex::lock(all);
    // The other roots depend on the table that is there. The new one says nothing of the mounts of
    // another namespace, into which this process may go back.
    all.drop_if_changed();
    all.roots.retain(|kept| kept.wanted != *wanted && kept.host.root == host.root);
    if mounts.has_changed() || !host.is_current() {
        return None;
    }
    let kept = Arc::new(Kept { wanted: wanted.clone(), tree, host });
    if all.roots.len() >= MOST {
        all.roots.remove(0);
    }
    all.roots.push(Arc::clone(&kept));
    all.mounts = Some(mounts);
    Some(kept)
}

/// Makes a root of these paths with the targets that are wanted, for one sandbox. Needs
/// CAP_SYS_ADMIN over the caller's mounts.
pub(in crate::mount) fn make_new(paths: Vec<PathBuf>, wanted: &Wanted) -> Result<OwnedFd, Errno> {
    make(&Arc::new(Host::now(paths)?), wanted)
}

/// Makes a root on a thread of its own, as the umask is this process's.
fn make(host: &Arc<Host>, wanted: &Wanted) -> Result<OwnedFd, Errno> {
    let (host, wanted) = (Arc::clone(host), wanted.clone());
    on_own_thread(move || {
        mount::set_own_umask(0)?;
        make_here(&host, &wanted)
    })
}

fn on_own_thread(work: impl FnOnce() -> Result<OwnedFd, Errno> + Send + 'static) -> Result<OwnedFd, Errno> {
    background::spawn("ringfence-mounts", work).map_err(|_| Errno::EAGAIN)?.join().map_err(|_| Errno::EIO)?
}

fn make_here(host: &Host, wanted: &Wanted) -> Result<OwnedFd, Errno> {
    let options = [(c"source", c"tmpfs"), (c"size", c"1m"), (c"nr_inodes", c"1024"), (c"mode", c"755")];
    let new = FileSystem::tmpfs(&options)?;
    let root = new.root();
    let name = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    for (path, id) in host.paths.iter().filter_map(|(path, id)| Some((path, (*id)?))) {
        if id.is_link() {
            let to = std::fs::read_link(path).map_err(|_| Errno::ESTALE)?;
            make_parents(root, &name(path))?;
            symlinkat(&to, root, &name(path))?;
            continue;
        }
        make_target(root, &name(path), !id.is_dir())?;
        let tree = mount::clone_tree(path, true)?;
        mount::close_tree(tree.as_fd())?;
        mount::attach(tree.as_fd(), root, &name(path))?;
    }
    make_target(root, Path::new("etc"), false)?;
    for (name, text) in etc::files(wanted.user) {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(root, name, flags, Mode::from_bits_truncate(0o644))?;
        let written = write(&file, text.as_bytes())?;
        if written != text.len() {
            return Err(Errno::EIO);
        }
    }
    for (target, is_file) in &wanted.targets {
        make_target(root, &name(target), *is_file)?;
    }
    new.set_read_only()?;
    Ok(new.into_mount())
}

/// Makes the place of a mount, with the directories above it, as far as they are missing. What lies
/// below a bind is there or cannot be made.
///
/// # Errors
///
/// ELOOP for a link: what the link leads to may have to be made as well.
fn make_target(root: BorrowedFd<'_>, path: &Path, is_file: bool) -> Result<(), Errno> {
    let Some(above) = make_parents(root, path)? else { return Ok(()) };
    let Some(name) = path.file_name() else { return Err(Errno::EINVAL) };
    let made = if is_file {
        mknodat(&above, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)
    } else {
        mkdirat(&above, name, Mode::from_bits_truncate(0o755))
    };
    match made {
        Err(Errno::EEXIST) => {
            open_below(above.as_fd(), Path::new(name), OFlag::empty(), ResolveFlag::empty()).map(drop)
        }
        other => other,
    }
}

/// Makes the directories above `path`, and returns the last one, unless it lies below a bind.
fn make_parents(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let mut above = root.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    for name in path.parent().into_iter().flat_map(Path::components) {
        let name: &Path = name.as_ref();
        match mkdirat(&above, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        above = match open_below(above.as_fd(), name, OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_NO_XDEV) {
            Err(Errno::EXDEV) => return Ok(None),
            found => found?,
        };
    }
    Ok(Some(above))
}

fn open_below(dir: BorrowedFd<'_>, name: &Path, flags: OFlag, resolve: ResolveFlag) -> Result<OwnedFd, Errno> {
    let links = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags).resolve(resolve | links);
    openat2(dir, name, how)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::fchmod;
    use nix::unistd::Uid;

    use super::*;

    fn wanted() -> Wanted {
        let targets = [("/proc", false), ("/srv/data", false), ("/etc/told", true), ("/usr/none", false)];
        Wanted { user: (65_534, 65_534), targets: targets.map(|(path, is_file)| (path.into(), is_file)).into() }
    }

    #[test]
    fn nothing_can_be_written_to_a_root_whatever_the_flags_of_its_mount() {
        if !Uid::effective().is_root() {
            assert!(make_new(host_paths().unwrap(), &wanted()).is_err() && copy_kept(&wanted()).is_none());
            return;
        }
        // A kernel before 6.15 mounts on no detached tree.
        let Ok(root) = make_new(host_paths().unwrap(), &wanted()) else {
            return assert!(copy_kept(&wanted()).is_none());
        };
        let mode = Mode::from_bits_truncate(0o700);
        let file = openat(&root, "etc/passwd", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(mkdirat(&root, "x", mode), Err(Errno::EROFS));
        assert_eq!(fchmod(&file, mode), Err(Errno::EROFS));
        assert_eq!(mkdirat(&root, "usr/none", mode), Err(Errno::EROFS));
        for (name, is_there) in [("srv/data", true), ("etc/told", true), ("usr/none", false), ("bin/sh", true)] {
            let found = openat(&root, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
            assert_eq!(found.is_ok(), is_there, "{name}");
        }
    }

    #[test]
    fn a_target_behind_a_link_is_not_made() {
        if !Uid::effective().is_root() {
            return;
        }
        let root = FileSystem::tmpfs(&[(c"size", c"64k")]).unwrap();
        symlinkat("missing", root.root(), "link").unwrap();
        for target in ["link", "link/below"] {
            assert_eq!(make_target(root.root(), Path::new(target), false), Err(Errno::ELOOP), "{target}");
        }
        make_target(root.root(), Path::new("a/b"), true).unwrap();
        make_target(root.root(), Path::new("a/b"), true).unwrap();
        assert_eq!(make_target(root.root(), Path::new("a/b/c"), false), Err(Errno::ENOTDIR));
    }
}
