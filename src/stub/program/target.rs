//! The place of a mount inside a root that may be hostile: the stub finds the place, and creates it
//! if it is missing, without ever leaving the root.

use crate::pinned;
use crate::syscall::{AT_FDCWD, Errno, nr, syscall};
use crate::wire::target;

const O_DIRECTORY: u64 = if cfg!(target_arch = "aarch64") { 0o40000 } else { 0o200000 };
pub const O_NOFOLLOW: u64 = if cfg!(target_arch = "aarch64") { 0o100000 } else { 0o400000 };
const O_PATH_CLOEXEC: u64 = 0o10000000 | 0o2000000;
const PATH_MAX: usize = 4096;
/// The most dangling links on the way to a place. Each takes two paths of stack.
const LINKS_MAX: u32 = 8;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// Opens `path` below `root`. `path` is absolute or relative, and has no `.`, `..` or empty
/// components. The function writes to `path` while it works, and restores it.
pub fn resolve(root: u64, path: *mut u8, kind: u64) -> Result<u64, Errno> {
    if kind & target::PINNED == 0 {
        return find(root, path, kind, LINKS_MAX);
    }
    if kind & target::EXISTING == 0 {
        close_unless(find(root, path, kind, LINKS_MAX)?, root);
    }
    pinned::open(root, path, kind)
}

/// Opens the path, and creates it if it is missing. `links` is the number of dangling links that
/// may still be followed.
fn find(root: u64, path: *mut u8, kind: u64, links: u32) -> Result<u64, Errno> {
    match open(root, path, kind) {
        Err(Errno::NOENT) if kind & target::EXISTING == 0 => {}
        result => return result,
    }
    make(root, path, kind, links)
}

/// Creates every missing component, of which the last is one, and opens the path. Each name is
/// created in a directory that was itself opened below `root`.
fn make(root: u64, path: *mut u8, kind: u64, links: u32) -> Result<u64, Errno> {
    const S_IFREG_0644: u64 = 0o100644;
    let mut parent = root;
    let mut start = skip_slashes(path, 0);
    loop {
        let end = component_end(path, start);
        let cut = Cut::new(path, end);
        let last = cut.was_end;
        let name = path as u64 + start as u64;
        let is_file = last && kind & target::FILE != 0;
        let found = if last { Err(Errno::NOENT) } else { open(root, path, kind & !target::FILE) };
        let next = match found {
            Err(Errno::NOENT) => {
                let made = if is_file {
                    syscall(nr::MKNODAT, [parent, name, S_IFREG_0644, 0, 0, 0])
                } else {
                    syscall(nr::MKDIRAT, [parent, name, 0o755, 0, 0, 0])
                };
                match made {
                    // Another process has created the name meanwhile. Or the name is a dangling
                    // link, which the open does not find.
                    Ok(_) | Err(Errno::EXIST) => open(root, path, if is_file { kind } else { kind & !target::FILE }),
                    Err(errno) => Err(errno),
                }
            }
            other => other,
        };
        drop(cut);
        if let Err(Errno::NOENT) = next
            && kind & target::DANGLING != 0
            && links > 0
        {
            let found = beyond(root, (parent, path), start..end, kind, links - 1);
            close_unless(parent, root);
            return found;
        }
        close_unless(parent, root);
        parent = next?;
        if last {
            return Ok(parent);
        }
        start = skip_slashes(path, end);
    }
}

/// Creates what the dangling link at `name` of the path leads to, and the rest of the path there,
/// and opens that. The link is in the directory `parent`. The kernel keeps `..` inside of `root`.
fn beyond(
    root: u64,
    (parent, path): (u64, *mut u8),
    name: core::ops::Range<usize>,
    kind: u64,
    links: u32,
) -> Result<u64, Errno> {
    let mut text = [0u8; PATH_MAX];
    let cut = Cut::new(path, name.end);
    let at = path as u64 + name.start as u64;
    let len = syscall(nr::READLINKAT, [parent, at, text.as_mut_ptr() as u64, PATH_MAX as u64 - 1, 0, 0]);
    drop(cut);
    let len = len? as usize;
    // A relative link begins in its directory.
    let is_absolute = byte(text.as_ptr(), 0) == b'/';
    let mut new = NewPath { text: [0; PATH_MAX], len: 0 };
    new.put(path, if is_absolute { 0 } else { name.start })?;
    new.put(text.as_ptr(), len)?;
    new.put(path.wrapping_add(name.end), length(path, name.end))?;
    find(root, new.text.as_mut_ptr(), kind, links)
}

/// A path that is put together. It ends with a NUL.
struct NewPath {
    text: [u8; PATH_MAX],
    len: usize,
}

impl NewPath {
    fn put(&mut self, from: *const u8, count: usize) -> Result<(), Errno> {
        if count >= PATH_MAX - self.len {
            return Err(Errno::NAMETOOLONG);
        }
        for i in 0..count {
            // SAFETY: the sum is below the length of the array.
            unsafe { self.text.as_mut_ptr().add(self.len + i).write(byte(from, i)) };
        }
        self.len += count;
        Ok(())
    }
}

/// Returns the number of bytes from `at` to the end of the path.
fn length(path: *const u8, at: usize) -> usize {
    let mut end = at;
    while byte(path, end) != 0 {
        end += 1;
    }
    end - at
}

/// Ends the path at an offset, until the value is dropped.
struct Cut {
    place: *mut u8,
    byte: u8,
    was_end: bool,
}

impl Cut {
    fn new(path: *mut u8, at: usize) -> Self {
        // SAFETY: `at` is at most the place of the terminating NUL, and the plan is mapped writable
        // and private.
        unsafe {
            let place = path.add(at);
            let byte = place.read();
            place.write(0);
            Cut { place, byte, was_end: byte == 0 }
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // SAFETY: the place that `new` wrote to.
        unsafe { self.place.write(self.byte) };
    }
}

fn byte(path: *const u8, at: usize) -> u8 {
    // SAFETY: callers stop at the terminating NUL.
    unsafe { path.add(at).read() }
}

fn skip_slashes(path: *const u8, mut at: usize) -> usize {
    while byte(path, at) == b'/' {
        at += 1;
    }
    at
}

fn component_end(path: *const u8, mut at: usize) -> usize {
    while byte(path, at) != b'/' && byte(path, at) != 0 {
        at += 1;
    }
    at
}

fn close_unless(fd: u64, keep: u64) {
    if fd != keep {
        let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
    }
}

/// Opens what is mounted on a directory, which is open, and no matter by which name: `..` of a
/// lookup's root stays there, and goes on to what covers it.
pub fn top(place: u64) -> Result<u64, Errno> {
    const UP: &[u8; 3] = b"..\0";
    open_in_root(place, UP.as_ptr(), O_DIRECTORY, 0)
}

/// Opens `path`: a symbolic link, absolute or with `..`, ends inside `root`.
fn open(root: u64, path: *mut u8, kind: u64) -> Result<u64, Errno> {
    let directory = if kind & target::FILE == 0 { O_DIRECTORY } else { 0 };
    let links = if kind & target::NO_SYMLINKS != 0 { RESOLVE_NO_SYMLINKS } else { 0 };
    match open_in_root(root, path, directory, links) {
        // EPERM comes from an outer filter that does not know the call. The kernel itself never
        // returns EPERM for O_PATH.
        Err(Errno::NOSYS | Errno::PERM) => walk(root, path, directory),
        result => result,
    }
}

/// Calls `openat2(RESOLVE_IN_ROOT)` (5.6).
fn open_in_root(root: u64, path: *const u8, directory: u64, links: u64) -> Result<u64, Errno> {
    let how = [O_PATH_CLOEXEC | directory, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | links];
    let size = core::mem::size_of_val(&how) as u64;
    for _ in 0..128 {
        match syscall(nr::OPENAT2, [root, path as u64, how.as_ptr() as u64, size, 0, 0]) {
            // A rename or a mount by another process raced with a `..`: the kernel asks for another
            // try.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens `path` on kernels without openat2: one component at a time, and refuses every symbolic
/// link.
fn walk(root: u64, path: *mut u8, directory: u64) -> Result<u64, Errno> {
    const DOT: &[u8; 2] = b".\0";
    let mut fd = root;
    let mut start = skip_slashes(path, 0);
    if byte(path, start) == 0 {
        return syscall(nr::OPENAT, [root, DOT.as_ptr() as u64, O_PATH_CLOEXEC | O_DIRECTORY, 0, 0, 0]);
    }
    loop {
        let end = component_end(path, start);
        let cut = Cut::new(path, end);
        let last = cut.was_end;
        let flags = O_PATH_CLOEXEC | O_NOFOLLOW | if last { directory } else { O_DIRECTORY };
        let name = path as u64 + start as u64;
        let next = match syscall(nr::OPENAT, [fd, name, flags, 0, 0, 0]) {
            // A file that is no directory may be a link.
            Err(Errno::NOTDIR) => {
                syscall(nr::OPENAT, [fd, name, flags & !O_DIRECTORY, 0, 0, 0]).and_then(refuse_link).and_then(|file| {
                    close_unless(file, root);
                    Err(Errno::NOTDIR)
                })
            }
            result => result,
        };
        drop(cut);
        close_unless(fd, root);
        fd = next?;
        if last {
            return refuse_link(fd);
        }
        start = skip_slashes(path, end);
    }
}

/// Refuses a symbolic link, which `O_PATH | O_NOFOLLOW` opens itself.
fn refuse_link(fd: u64) -> Result<u64, Errno> {
    match stat(fd) {
        Ok((mode, _)) if mode & 0o170000 != 0o120000 => Ok(fd),
        other => {
            close_unless(fd, AT_FDCWD);
            Err(other.err().unwrap_or(Errno::LOOP))
        }
    }
}

/// Checks the type of a file, as st_mode has it, and the numbers of the device, 0 for other files.
pub fn is_device(fd: u64, kind: u64, number: (u64, u64)) -> Result<u64, Errno> {
    let (mode, (major, minor)) = stat(fd)?;
    let found = (u64::from(mode) & 0o170000, u64::from(major), u64::from(minor));
    if found == (kind, number.0, number.1) { Ok(0) } else { Err(Errno::NODEV) }
}

/// Returns the mode of a file, and the numbers of the device that the file stands for.
fn stat(fd: u64) -> Result<(u16, (u32, u32)), Errno> {
    const AT_EMPTY_PATH: u64 = 0x1000;
    const EMPTY: &[u8; 1] = b"\0";
    stat_at(fd, EMPTY.as_ptr() as u64, AT_EMPTY_PATH)
}

/// Returns the type of the file at `path`, as st_mode has it.
pub fn type_of(path: u64) -> Result<u16, Errno> {
    stat_at(AT_FDCWD, path, 0).map(|(mode, _)| mode & 0o170000)
}

fn stat_at(dir: u64, path: u64, flags: u64) -> Result<(u16, (u32, u32)), Errno> {
    const STATX_TYPE: u64 = 1;
    let mut stat = [0u64; 32];
    syscall(nr::STATX, [dir, path, flags, STATX_TYPE, stat.as_mut_ptr() as u64, 0])?;
    let stat = stat.as_ptr();
    // SAFETY: a local of struct statx's size that the kernel has written; stx_mode stands at byte
    // 28, stx_rdev_major and stx_rdev_minor at byte 128.
    unsafe {
        let mode = stat.cast::<u16>().add(14).read_volatile();
        let device = stat.cast::<u32>().add(32);
        Ok((mode, (device.read_volatile(), device.add(1).read_volatile())))
    }
}
