//! Safe paths to the place of a mount: a process that may write to a directory above the place
//! could rename that directory, and put another one there.
//!
//! A directory on which something is mounted can neither be renamed nor removed in its mount
//! namespace (EBUSY), so each directory on the path is bound onto itself. A link has no such
//! protection.

use crate::syscall::{Errno, nr, syscall};
use crate::target::O_NOFOLLOW;
use crate::wire::target;

const PATH_MAX: usize = 4096;
const LINKS_MAX: u32 = 40;
const O_PATH_CLOEXEC: u64 = 0o10000000 | 0o2000000;
const AT_EMPTY_PATH: u64 = 0x1000;
const EMPTY: &[u8; 1] = b"\0";

/// Opens `path` below `root`, as openat2(2) does with RESOLVE_IN_ROOT, and pins the directories on
/// the path. Creates nothing.
#[inline(never)]
pub fn open(root: u64, path: *const u8, kind: u64) -> Result<u64, Errno> {
    let mut rest = Rest::new();
    let mut len = 0;
    // SAFETY: a string of the plan's, which ends with a NUL.
    while unsafe { path.add(len).read() } != 0 {
        len += 1;
    }
    rest.put(path, len)?;
    let top = look(root)?.mount;
    let mut walk = Walk { root, top, kind, at: root, mount: top, depth: 0 };
    let found = walk.run(&mut rest);
    if found != Ok(walk.at) {
        walk.leave();
    }
    found
}

/// The rest of the path, at the end of a buffer. The targets of links are written before the rest.
struct Rest {
    text: [u8; PATH_MAX],
    start: usize,
}

impl Rest {
    fn new() -> Self {
        Rest { text: [0; PATH_MAX], start: PATH_MAX - 1 }
    }

    /// Writes `len` bytes before the rest.
    fn put(&mut self, from: *const u8, len: usize) -> Result<(), Errno> {
        let start = self.start.checked_sub(len).ok_or(Errno::NAMETOOLONG)?;
        // SAFETY: `len` bytes can be read, as the callers say, and as many stand free below
        // `self.start`.
        unsafe { core::ptr::copy_nonoverlapping(from, self.text.as_mut_ptr().add(start), len) };
        self.start = start;
        Ok(())
    }

    fn byte(&self) -> u8 {
        self.text.get(self.start).copied().unwrap_or(0)
    }

    fn skip_slashes(&mut self) {
        while self.byte() == b'/' {
            self.start += 1;
        }
    }

    /// Returns the next component, with a NUL at its end, or null if there is none.
    fn next(&mut self) -> *const u8 {
        self.skip_slashes();
        let name = self.start;
        if self.byte() == 0 {
            return core::ptr::null();
        }
        while self.byte() != b'/' && self.byte() != 0 {
            self.start += 1;
        }
        if let Some(end) = self.text.get_mut(self.start).filter(|end| **end == b'/') {
            *end = 0;
            self.start += 1;
        }
        self.skip_slashes();
        // SAFETY: within the buffer.
        unsafe { self.text.as_ptr().add(name) }
    }

    fn is_done(&self) -> bool {
        self.byte() == 0
    }
}

struct Walk {
    root: u64,
    /// The mount whose top is the root.
    top: u64,
    kind: u64,
    /// The directory that the walk has reached, its mount, and its depth below the root.
    at: u64,
    mount: u64,
    depth: u32,
}

impl Walk {
    fn run(&mut self, rest: &mut Rest) -> Result<u64, Errno> {
        let mut links = 0;
        loop {
            let name = rest.next();
            if name.is_null() {
                return if self.at == self.root { Err(Errno::BUSY) } else { Ok(self.at) };
            }
            // SAFETY: a component ends with a NUL, and the last byte of the buffer is one.
            let (first, second) = unsafe { (name.read(), if name.read() == b'.' { name.add(1).read() } else { 1 }) };
            // SAFETY: the second byte was no NUL.
            let is_up = first == b'.' && second == b'.' && unsafe { name.add(2).read() } == 0;
            if first == b'.' && second == 0 || is_up && self.depth == 0 {
                continue;
            }
            let flags = O_PATH_CLOEXEC | O_NOFOLLOW;
            let fd = match syscall(nr::OPENAT, [self.at, name as u64, flags, 0, 0, 0]) {
                Err(Errno::NOENT) => return Err(self.missing()?),
                other => other?,
            };
            let found = match look(fd) {
                Ok(found) => found,
                Err(errno) => return Err(close(fd, errno)),
            };
            if found.mode == S_IFLNK {
                links += 1;
                self.follow(fd, links, rest)?;
            } else if found.mode == S_IFDIR {
                let depth = if is_up { self.depth - 1 } else { self.depth + 1 };
                self.enter(fd, &found, depth, rest.is_done())?;
            } else if rest.is_done() {
                return if self.kind & target::FILE == 0 { Err(close(fd, Errno::NOTDIR)) } else { Ok(fd) };
            } else {
                let errno = self.missing();
                return Err(close(fd, errno?));
            }
        }
    }

    /// Enters a directory, and pins it unless it is the place itself.
    fn enter(&mut self, fd: u64, found: &Found, depth: u32, is_place: bool) -> Result<(), Errno> {
        let loose = match is_place || found.is_mounted {
            true => Ok(false),
            false => self.may_change(fd, found.mount),
        };
        let next = loose.and_then(|loose| if loose { bind_onto_itself(fd) } else { Ok(fd) });
        let next = next.map_err(|errno| close(fd, errno))?;
        self.leave();
        // The copy is never the root's own mount.
        let mount = if next == fd { found.mount } else { 0 };
        (self.at, self.mount, self.depth) = (next, mount, depth);
        Ok(())
    }

    /// Writes the target of a link before the rest of the path.
    fn follow(&mut self, fd: u64, links: u32, rest: &mut Rest) -> Result<(), Errno> {
        let refused = self.kind & target::NO_SYMLINKS != 0 || links > LINKS_MAX;
        let loose = self.kind & target::NO_LOOSE_LINKS != 0 && !refused && self.may_change(self.at, self.mount)?;
        if refused || loose {
            return Err(close(fd, Errno::LOOP));
        }
        let mut text = [0u8; PATH_MAX];
        let args = [fd, EMPTY.as_ptr() as u64, text.as_mut_ptr() as u64, PATH_MAX as u64 - 1, 0, 0];
        let len = syscall(nr::READLINKAT, args);
        close(fd, Errno::LOOP);
        let len = len? as usize;
        rest.put(b"/".as_ptr(), 1)?;
        rest.put(text.as_ptr(), len)?;
        if rest.byte() == b'/' {
            self.leave();
            (self.at, self.mount, self.depth) = (self.root, self.top, 0);
        }
        Ok(())
    }

    /// Returns the errno for a missing component. If the component must exist, the errno depends on
    /// whether the program could create it.
    fn missing(&self) -> Result<Errno, Errno> {
        let needed = self.kind & target::NOT_TO_BE_MADE != 0;
        Ok(if needed && !self.may_change(self.at, self.mount)? { Errno::NODATA } else { Errno::NOENT })
    }

    /// Returns true if the program may change the names in a directory, as far as the mount of the
    /// directory allows it.
    fn may_change(&self, dir: u64, mount: u64) -> Result<bool, Errno> {
        const ST_RDONLY: u64 = 1;
        const PROC_SUPER_MAGIC: u64 = 0x9fa0;
        const SYSFS_MAGIC: u64 = 0x6265_6572;
        if mount == self.top && self.kind & target::FIXED_ROOT != 0 {
            return Ok(false);
        }
        let mut stat = [0u64; 15];
        syscall(nr::FSTATFS, [dir, stat.as_mut_ptr() as u64, 0, 0, 0, 0])?;
        let stat = stat.as_ptr();
        // SAFETY: a local of struct statfs's size that the kernel has written; f_type is its first
        // word, f_flags its 11th.
        let (kind, flags) = unsafe { (stat.read_volatile(), stat.add(10).read_volatile()) };
        Ok(flags & ST_RDONLY == 0 && ![PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&kind))
    }

    fn leave(&mut self) {
        if self.at != self.root {
            close(self.at, Errno::BADF);
            self.at = self.root;
        }
    }
}

/// Closes a descriptor, and returns the errno.
fn close(fd: u64, errno: Errno) -> Errno {
    let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
    errno
}

/// Binds a directory onto itself. Returns the descriptor of the copy, and closes the one of the
/// directory. The copy includes the mounts below.
fn bind_onto_itself(dir: u64) -> Result<u64, Errno> {
    const OPEN_TREE_CLONE: u64 = 1;
    const AT_RECURSIVE: u64 = 0x8000;
    const O_CLOEXEC: u64 = 0o2000000;
    const BOTH_EMPTY: u64 = 0x4 | 0x40;
    let empty = EMPTY.as_ptr() as u64;
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | O_CLOEXEC | AT_EMPTY_PATH;
    let tree = syscall(nr::OPEN_TREE, [dir, empty, flags, 0, 0, 0])?;
    match syscall(nr::MOVE_MOUNT, [tree, empty, dir, empty, BOTH_EMPTY, 0]) {
        Ok(_) => {
            close(dir, Errno::BADF);
            Ok(tree)
        }
        Err(errno) => Err(close(tree, errno)),
    }
}

const S_IFDIR: u16 = 0o040000;
const S_IFLNK: u16 = 0o120000;

struct Found {
    mode: u16,
    mount: u64,
    /// True if something is mounted on the file.
    is_mounted: bool,
}

/// Returns the mode and the mount of a file. Fails with ENOSYS before kernel 5.8, which does not
/// distinguish mounts.
fn look(fd: u64) -> Result<Found, Errno> {
    const STATX_TYPE: u64 = 1;
    const STATX_MNT_ID: u64 = 0x1000;
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    let mut stat = [0u64; 32];
    let mask = STATX_TYPE | STATX_MNT_ID;
    syscall(nr::STATX, [fd, EMPTY.as_ptr() as u64, AT_EMPTY_PATH, mask, stat.as_mut_ptr() as u64, 0])?;
    let stat = stat.as_ptr();
    // SAFETY: a local of struct statx's size that the kernel has written: stx_mask is its first
    // half word, stx_attributes the word at byte 8, stx_mode stands at byte 28, stx_attributes_mask
    // at 56, stx_mnt_id at 144.
    let (told, attributes, mode, known, mount) = unsafe {
        let word = |at: usize| stat.add(at).read_volatile();
        (stat.cast::<u32>().read_volatile(), word(1), stat.cast::<u16>().add(14).read_volatile(), word(7), word(18))
    };
    if u64::from(told) & STATX_MNT_ID == 0 || known & STATX_ATTR_MOUNT_ROOT == 0 {
        return Err(Errno::NOSYS);
    }
    Ok(Found { mode: mode & 0o170000, mount, is_mounted: attributes & STATX_ATTR_MOUNT_ROOT != 0 })
}
