//! Detached mounts, which are not mounted anywhere yet, and a mount namespace that is almost empty:
//! open_tree(2), mount_setattr(2), fsopen(2), pivot_root(2).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, fchdir, read, unlinkat};

use super::{nsfs, table};

const AT_EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
const AT_RECURSIVE: u64 = 0x8000;
const CWD: u64 = libc::AT_FDCWD as u64;
pub(crate) const FSOPEN_CLOEXEC: u64 = 1;
pub(crate) const FSCONFIG_SET_FLAG: u64 = 0;
pub(crate) const FSCONFIG_SET_STRING: u64 = 1;
pub(crate) const FSCONFIG_SET_FD: u64 = 5;
pub(crate) const FSCONFIG_CMD_CREATE: u64 = 6;
pub(crate) const FSMOUNT_CLOEXEC: u64 = 1;

fn call(number: libc::c_long, args: [u64; 6]) -> Result<u64, Errno> {
    // SAFETY: the callers in this file pass numbers, and strings with a NUL that live across the
    // call.
    let result = unsafe { super::raw::syscall(number as usize, args) };
    if (-4095..0).contains(&result) { Err(Errno::from_raw(-result as i32)) } else { Ok(result as u64) }
}

fn call_for_fd(number: libc::c_long, args: [u64; 6]) -> Result<OwnedFd, Errno> {
    call(number, args).map(|fd| table::own(fd as RawFd)).and_then(table::above_stdio)
}

/// Copies the mount at `path`, and with `recursive` the mounts below it:
/// `open_tree(OPEN_TREE_CLONE)`, 5.2. If the descriptor is dropped before the copy is attached
/// somewhere, the copy ends.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    const OPEN_TREE_CLONE: u64 = 1;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u64 | if recursive { AT_RECURSIVE } else { 0 };
    call_for_fd(libc::SYS_open_tree, [CWD, path.as_ptr() as u64, flags, 0, 0, 0])
}

/// Copies the detached tree `tree`, with all that is mounted in it: since 6.15.
pub(crate) fn clone_detached(tree: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const OPEN_TREE_CLONE: u64 = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u64 | AT_EMPTY_PATH | AT_RECURSIVE;
    call_for_fd(libc::SYS_open_tree, [tree.as_raw_fd() as u64, c"".as_ptr() as u64, flags, 0, 0, 0])
}

/// Makes the mounts of a detached tree private, read-only, and deaf to set-user-id bits and device
/// nodes: mount_setattr(2), 5.12.
pub(crate) fn close_tree(tree: BorrowedFd<'_>) -> Result<(), Errno> {
    const RDONLY_NOSUID_NODEV: u64 = 1 | 2 | 4;
    set_attr(tree, [RDONLY_NOSUID_NODEV, 0, libc::MS_PRIVATE, 0], true)
}

/// Attaches a detached tree to `name` in the directory `dir`, which may be in a detached tree
/// itself since 6.15.
pub(crate) fn attach(tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    const MOVE_MOUNT_F_EMPTY_PATH: u64 = 0x4;
    let name = CString::new(name.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let (tree, dir) = (tree.as_raw_fd() as u64, dir.as_raw_fd() as u64);
    let args = [tree, c"".as_ptr() as u64, dir, name.as_ptr() as u64, MOVE_MOUNT_F_EMPTY_PATH, 0];
    call(libc::SYS_move_mount, args).map(drop)
}

/// A file by its place: two files are the same if all of this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    /// The number of the mount, which no other mount has before the next boot.
    pub(crate) mount: u64,
    inode: u64,
    device: (u32, u32),
    mode: u16,
    /// When the inode was changed, in seconds and nanoseconds, where that counts.
    pub(crate) changed: Option<(i64, u32)>,
}

impl FileId {
    /// Returns whether the file is a symbolic link.
    pub(crate) fn is_link(&self) -> bool {
        u32::from(self.mode) & libc::S_IFMT == libc::S_IFLNK
    }

    /// Returns whether the file is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        u32::from(self.mode) & libc::S_IFMT == libc::S_IFDIR
    }
}

/// Returns the file at `path`, and of a link the link. Of that the time of its last change counts,
/// as no mount holds it, and another file can have its inode later.
pub(crate) fn file_id(path: &Path) -> Result<FileId, Errno> {
    let id = changed_file_id(path)?;
    Ok(if id.is_link() { id } else { FileId { changed: None, ..id } })
}

/// Returns the file at `path` with the time of its last change: statx(2), with numbers of mounts
/// that are not given again since 6.8.
pub(crate) fn changed_file_id(path: &Path) -> Result<FileId, Errno> {
    const UNIQUE_MOUNT: u64 = 0x4000;
    const TYPE_INODE_CHANGED: u64 = 0x1 | 0x100 | 0x80;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut words = [0u64; 32];
    let (flags, mask) = (libc::AT_SYMLINK_NOFOLLOW as u64, TYPE_INODE_CHANGED | UNIQUE_MOUNT);
    call(libc::SYS_statx, [CWD, path.as_ptr() as u64, flags, mask, words.as_mut_ptr() as u64, 0])?;
    let byte = |at: usize| words[at / 8].to_ne_bytes()[at % 8];
    let half = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| byte(at + i)));
    if u64::from(half(0)) & UNIQUE_MOUNT == 0 {
        return Err(Errno::ENOSYS);
    }
    let mode = u16::from_ne_bytes([byte(28), byte(29)]);
    Ok(FileId {
        mount: words[18],
        inode: words[4],
        device: (half(136), half(140)),
        mode,
        changed: Some((words[12] as i64, half(104))),
    })
}

/// The root directory of a process: its mount and its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootId {
    /// The number that /proc/self/mountinfo has for the mount.
    pub(crate) mount: u64,
    inode: u64,
}

/// Returns the root directory of the calling thread: statx(2), with the mount since 5.8.
pub(crate) fn root_id() -> Result<RootId, Errno> {
    const INODE_AND_MOUNT: u64 = 0x100 | 0x1000;
    /// A struct statx.
    #[repr(C, align(8))]
    struct Room([u8; 256]);
    let mut room = Room([0; 256]);
    let path = c"/".as_ptr() as u64;
    call(libc::SYS_statx, [CWD, path, 0, INODE_AND_MOUNT, &raw mut room as u64, 0])?;
    let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| room.0[at + i]));
    Ok(RootId { mount: number(144), inode: number(32) })
}

/// Opens the mount namespace of the calling thread.
pub(crate) fn own_namespace() -> Option<OwnedFd> {
    open("/proc/thread-self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()
}

/// Returns the root of a mount namespace. The calling thread has it as its root from then on, with
/// which it is alone.
pub(crate) fn namespace_root(namespace: &OwnedFd) -> Result<RootId, Errno> {
    call(libc::SYS_unshare, [libc::CLONE_FS as u64, 0, 0, 0, 0, 0])?;
    call(libc::SYS_setns, [namespace.as_raw_fd() as u64, libc::CLONE_NEWNS as u64, 0, 0, 0, 0])?;
    root_id()
}

/// The tie between a copy of a mount and the mount that it was copied from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Relation {
    /// Mounts are not propagated either way.
    #[default]
    Private,
    /// Mounts that are made on the original show on the copy.
    Slave,
    /// Mounts that are made on either show on the other.
    Peer,
}

/// Makes the mounts of the tree private.
pub(crate) fn make_private(tree: BorrowedFd<'_>) -> Result<(), Errno> {
    relate(tree, Relation::Private)
}

/// Ties the mounts of a copied tree to the mounts that they were copied from, with
/// mount_setattr(2), 5.12. A copy is a peer by itself, where the original is shared.
pub(crate) fn relate(tree: BorrowedFd<'_>, relation: Relation) -> Result<(), Errno> {
    let propagation = match relation {
        Relation::Private => libc::MS_PRIVATE,
        Relation::Slave => libc::MS_SLAVE,
        Relation::Peer => return Ok(()),
    };
    set_attr(tree, [0, 0, propagation, 0], true)
}

/// Maps the ids of the mount, and with `recursive` of those below it, as the user namespace does:
/// mount_setattr(2), 5.12. The kernel allows this once, and only while the mount is detached.
pub(crate) fn map_ids(tree: BorrowedFd<'_>, user_ns: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    set_attr(tree, [MOUNT_ATTR_IDMAP, 0, 0, user_ns.as_raw_fd() as u64], recursive)
}

/// Calls mount_setattr(2), 5.12, with a struct mount_attr: attr_set, attr_clr, propagation,
/// userns_fd.
fn set_attr(tree: BorrowedFd<'_>, attr: [u64; 4], recursive: bool) -> Result<(), Errno> {
    let size = size_of_val(&attr) as u64;
    let tree = tree.as_raw_fd() as u64;
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    call(libc::SYS_mount_setattr, [tree, c"".as_ptr() as u64, flags, attr.as_ptr() as u64, size, 0]).map(drop)
}

/// Puts the calling thread into a mount namespace whose root is an empty, read-only tmpfs, and
/// returns the namespace. Call this on a thread that ends afterwards.
///
/// This function tries everything that a sandbox needs to start from such a namespace. If one thing
/// fails, the namespace is not used.
pub(crate) fn empty_namespace() -> Result<OwnedFd, Errno> {
    let slash = c"/".as_ptr() as u64;
    let namespace = libc::CLONE_NEWNS as u64;
    call(libc::SYS_unshare, [namespace, 0, 0, 0, 0, 0])?;
    call(libc::SYS_mount, [0, slash, 0, libc::MS_REC | libc::MS_PRIVATE, 0, 0])?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let own = table::above_stdio(open("/proc/thread-self/ns/mnt", flags, Mode::empty())?)?;
    if !nsfs::is_namespace(own.as_fd()) {
        return Err(Errno::ENOTTY);
    }
    let root = new_tmpfs(c"2")?;
    // The kernel refuses this in a user namespace, where device nodes must be bound from the host's
    // /dev.
    mknodat(&root, "null", SFlag::S_IFCHR, Mode::empty(), makedev(1, 3))?;
    unlinkat(&root, "null", UnlinkatFlags::NoRemoveDir)?;
    enter_alone(&root)?;
    let closed = libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    call(libc::SYS_mount, [0, slash, 0, closed, 0, 0])?;
    make_private(root.as_fd())?;
    drop(clone_tree(Path::new("/"), true)?);
    // This needs CAP_SYS_CHROOT, as does the chroot(2) at the end of a sandbox's setup.
    call(libc::SYS_setns, [own.as_raw_fd() as u64, namespace, 0, 0, 0, 0])?;
    Ok(own)
}

/// Puts the calling thread into a mount namespace that has of the caller's only /proc, with what is
/// mounted on it, and /dev itself. From here on, the thread has a root, a working directory and an
/// umask of its own.
///
/// # Errors
///
/// EXDEV if one of `devices` in /dev is mounted by itself, as containers have it: only the empty
/// file below would be seen.
pub(crate) fn enter_sparse_namespace(devices: &[&str]) -> Result<(), Errno> {
    const MOVE_MOUNT_F_EMPTY_PATH: u64 = 0x4;
    let [slash, empty] = [c"/", c""].map(|text| text.as_ptr() as u64);
    call(libc::SYS_unshare, [(libc::CLONE_FS | libc::CLONE_NEWNS) as u64, 0, 0, 0, 0, 0])?;
    call(libc::SYS_mount, [0, slash, 0, libc::MS_REC | libc::MS_PRIVATE, 0, 0])?;
    let root = new_tmpfs(c"3")?;
    let mut trees = Vec::new();
    for (path, recursive) in [(c"/proc", true), (c"/dev", false)] {
        let name = path.to_str().map_err(|_| Errno::EINVAL)?;
        mkdirat(&root, name.trim_start_matches('/'), Mode::from_bits_truncate(0o555))?;
        trees.push((clone_tree(Path::new(name), recursive)?, path));
    }
    let [_, (copy, path)] = &trees[..] else { return Err(Errno::EINVAL) };
    let dir = open(*path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let file = |dir: BorrowedFd<'_>, name: &str| {
        fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(|about| (about.st_dev, about.st_ino))
    };
    if devices.iter().any(|name| file(copy.as_fd(), name) != file(dir.as_fd(), name)) {
        return Err(Errno::EXDEV);
    }
    drop(dir);
    enter_alone(&root)?;
    for (tree, path) in trees {
        let args = [tree.as_raw_fd() as u64, empty, CWD, path.as_ptr() as u64, MOVE_MOUNT_F_EMPTY_PATH, 0];
        call(libc::SYS_move_mount, args)?;
    }
    let closed = libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    call(libc::SYS_mount, [0, slash, 0, closed, 0, 0]).map(drop)
}

/// Opens the mounts of the calling thread's namespace to be polled: proc_pid_mountinfo(5). What is
/// read there is nothing.
///
/// As long as it is open, the kernel holds the root that the thread had: a process that goes on to
/// another root could not unmount its own. So the thread, which ends afterwards, gets an empty one.
pub(crate) fn open_table() -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let own = open("/proc/thread-self", flags | OFlag::O_DIRECTORY, Mode::empty())?;
    call(libc::SYS_unshare, [libc::CLONE_FS as u64, 0, 0, 0, 0, 0])?;
    fchdir(&new_tmpfs(c"2")?)?;
    call(libc::SYS_chroot, [c".".as_ptr() as u64, 0, 0, 0, 0, 0])?;
    table::above_stdio(openat(&own, "mountinfo", flags, Mode::empty())?)
}

/// Gives the calling thread an umask of its own, with its root and working directory, and sets it.
pub(crate) fn set_own_umask(mask: u32) -> Result<(), Errno> {
    call(libc::SYS_unshare, [libc::CLONE_FS as u64, 0, 0, 0, 0, 0])?;
    set_umask(mask);
    Ok(())
}

/// Sets the umask of the calling thread, which must have one of its own.
pub(crate) fn set_umask(mask: u32) {
    // umask(2) always succeeds.
    let _ = call(libc::SYS_umask, [u64::from(mask), 0, 0, 0, 0, 0]);
}

/// Returns the umask of the calling thread, without changing it: proc(5), 4.7.
pub(crate) fn umask() -> Result<u32, Errno> {
    let file = open("/proc/thread-self/status", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = [0; 256];
    let len = read(&file, &mut text)?;
    let text = text.get(..len).and_then(|text| std::str::from_utf8(text).ok());
    let mask = text.and_then(|text| text.lines().find_map(|line| line.strip_prefix("Umask:")));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).ok_or(Errno::ENOSYS)
}

/// Builds an overlay whose layers are given as descriptors of a file system that is mounted nowhere
/// (6.15). Nothing of the overlay stays: the function only tests the kernel.
pub(crate) fn overlay_by_descriptors() -> Result<(), Errno> {
    let layers = new_tmpfs(c"16")?;
    let overlay = open_context(c"overlay")?;
    for (key, name) in [(c"lowerdir+", c"lower"), (c"upperdir", c"upper"), (c"workdir", c"work")] {
        mkdirat(&layers, name, Mode::S_IRWXU)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = table::above_stdio(openat(&layers, name, flags, Mode::empty())?)?;
        let args = [overlay.as_raw_fd() as u64, FSCONFIG_SET_FD, key.as_ptr() as u64, 0, dir.as_raw_fd() as u64, 0];
        call(libc::SYS_fsconfig, args)?;
    }
    new_mount(&overlay).map(drop)
}

/// Makes a tmpfs with room for this number of files and directories, including its root.
pub(crate) fn new_tmpfs(inodes: &CStr) -> Result<OwnedFd, Errno> {
    let context = open_context(c"tmpfs")?;
    for (key, value) in [(c"size", c"4k"), (c"nr_inodes", inodes), (c"mode", c"555")] {
        let number = context.as_raw_fd() as u64;
        let args = [number, FSCONFIG_SET_STRING, key.as_ptr() as u64, value.as_ptr() as u64, 0, 0];
        call(libc::SYS_fsconfig, args)?;
    }
    new_mount(&context)
}

/// Makes a null device, `dev/null` in a file system of its own that is mounted nowhere, and
/// read-only: one can write to the device, but not change its mode, owner or times.
pub(crate) fn closed_null() -> Result<OwnedFd, Errno> {
    const RDONLY_NOSUID_NOEXEC: u64 = 1 | 2 | 8;
    let root = new_tmpfs(c"3")?;
    mkdirat(&root, "dev", Mode::from_bits_truncate(0o755))?;
    let everybody = Mode::from_bits_truncate(0o666);
    mknodat(&root, "dev/null", SFlag::S_IFCHR, everybody, makedev(1, 3))?;
    // The umask is this process's.
    fchmodat(&root, "dev/null", everybody, FchmodatFlags::FollowSymlink)?;
    set_attr(root.as_fd(), [RDONLY_NOSUID_NOEXEC, 0, 0, 0], false)?;
    Ok(root)
}

fn open_context(fstype: &CStr) -> Result<OwnedFd, Errno> {
    call_for_fd(libc::SYS_fsopen, [fstype.as_ptr() as u64, FSOPEN_CLOEXEC, 0, 0, 0, 0])
}

fn new_mount(context: &OwnedFd) -> Result<OwnedFd, Errno> {
    let number = context.as_raw_fd() as u64;
    call(libc::SYS_fsconfig, [number, FSCONFIG_CMD_CREATE, 0, 0, 0, 0])?;
    call_for_fd(libc::SYS_fsmount, [number, FSMOUNT_CLOEXEC, 0, 0, 0, 0])
}

/// Makes `root` the root of the calling thread's mount namespace, and removes all other mounts from
/// the namespace.
fn enter_alone(root: &OwnedFd) -> Result<(), Errno> {
    const MOVE_MOUNT_F_EMPTY_PATH: u64 = 0x4;
    let [slash, here, empty] = [c"/", c".", c""].map(|text| text.as_ptr() as u64);
    let tree = root.as_raw_fd() as u64;
    call(libc::SYS_move_mount, [tree, empty, CWD, slash, MOVE_MOUNT_F_EMPTY_PATH, 0])?;
    fchdir(root)?;
    call(libc::SYS_pivot_root, [here, here, 0, 0, 0, 0])?;
    call(libc::SYS_umount2, [here, libc::MNT_DETACH as u64, 0, 0, 0, 0])?;
    call(libc::SYS_chdir, [slash, 0, 0, 0, 0, 0])?;
    // `/` is the new root, and `/..` is what is mounted on top of it: there must be nothing.
    if mount_id(c"/")? == mount_id(c"/..")? { Ok(()) } else { Err(Errno::EBUSY) }
}

/// Returns the id of a mount: STATX_MNT_ID, 5.8.
fn mount_id(path: &CStr) -> Result<u64, Errno> {
    const STATX_MNT_ID: u64 = 0x1000;
    const MNT_ID_WORD: usize = 18;
    let mut stat = [0u64; 32];
    call(libc::SYS_statx, [CWD, path.as_ptr() as u64, 0, STATX_MNT_ID, stat.as_mut_ptr() as u64, 0])?;
    // stx_mask is the first half word.
    let mask = u64::from(u32::from_ne_bytes({
        let bytes = stat[0].to_ne_bytes();
        [bytes[0], bytes[1], bytes[2], bytes[3]]
    }));
    if mask & STATX_MNT_ID != 0 { Ok(stat[MNT_ID_WORD]) } else { Err(Errno::ENOSYS) }
}
