//! A copy of a directory in a new tmpfs. The directory is part of a root that may be hostile: no
//! link is followed, nothing that is mounted below is entered, no device node is made.
//!
//! The tmpfs bounds the copy: a file that does not fit is ENOSPC. Holes of files stay holes.

use crate::syscall::{Errno, nr, syscall};
use crate::target::O_NOFOLLOW;
use crate::wire::copy_up;

/// The most directories within one another. Each holds two descriptors.
const DEPTH_MAX: usize = 128;
/// The most bytes of entries that are read at once. The longest entry has 280.
const ENTRIES: usize = 1024;
/// The most bytes that are copied at once, the most of one attribute, and of the names of all.
const CHUNK: usize = 64 << 10;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const O_DIRECTORY: u64 = if cfg!(target_arch = "aarch64") { 0o40000 } else { 0o200000 };
const O_CLOEXEC: u64 = 0o2000000;
const DOT: &[u8; 2] = b".\0";
/// The set-user-ID and the set-group-ID bit.
const SET_IDS: u64 = 0o6000;

/// Copies what is in the directory `from` to the empty directory `to`, and gives `to` the
/// attributes of `from`, as far as the bits of `kept` ([`copy_up`]) say.
pub fn copy(from: u64, to: u64, kept: u64) -> Result<u64, Errno> {
    let copy = Copy { room: Room::new()?, nosuid: is_nosuid(from)? };
    let dot = DOT.as_ptr() as u64;
    let top = copy.stat(from, dot)?;
    let (from, to) = (open_dir(from, dot)?, open_dir(to, dot)?);
    if kept & copy_up::NOTHING_INSIDE == 0 {
        copy.directory(from, to, top, 0)?;
    }
    copy.finish((&top, from), (to, dot), to, kept)?;
    close(from);
    close(to);
    Ok(0)
}

struct Copy {
    room: Room,
    /// Set-user-ID bits and file capabilities have no effect in the root.
    nosuid: bool,
}

impl Copy {
    /// Copies the entries of a directory, of which `dir` says what it is.
    fn directory(&self, from: u64, to: u64, dir: Stat, depth: usize) -> Result<(), Errno> {
        // The number of a record's bytes, and its name, in a struct linux_dirent64.
        const LENGTH: usize = 16;
        const NAME: usize = 19;
        let entries = self.room.entries(depth)?;
        loop {
            let len = syscall(nr::GETDENTS64, [from, entries, ENTRIES as u64, 0, 0, 0])?;
            let mut at = 0;
            while at < len {
                let entry = (entries + at) as *const u8;
                // SAFETY: the kernel has written whole records up to `len`, each with its length.
                let size = unsafe { entry.add(LENGTH).cast::<u16>().read_unaligned() };
                // SAFETY: a record ends with its name, which ends with a NUL.
                let (name, start) = unsafe { (entry.add(NAME), entry.add(NAME).cast::<[u8; 2]>().read()) };
                // SAFETY: a name of two dots ends with a third byte.
                let is_dots = start == [b'.', 0] || start == *b".." && unsafe { name.add(2).read() } == 0;
                if !is_dots {
                    self.entry(from, to, name as u64, dir, depth)?;
                }
                at += u64::from(size.max(1));
            }
            if len == 0 {
                return Ok(());
            }
        }
    }

    fn entry(&self, from: u64, to: u64, name: u64, dir: Stat, depth: usize) -> Result<(), Errno> {
        let stat = match self.stat(from, name) {
            // Another process has removed the file.
            Err(Errno::NOENT) => return Ok(()),
            result => result?,
        };
        if stat.is_mount {
            return Ok(());
        }
        match stat.kind() {
            Kind::File => self.file(from, to, name),
            Kind::Directory => self.subdirectory(from, to, name, dir, depth),
            Kind::Link => {
                let text = self.room.data();
                let len = syscall(nr::READLINKAT, [from, name, text, CHUNK as u64 - 1, 0, 0])?;
                // SAFETY: `len` is below the size of the room.
                unsafe { ((text + len) as *mut u8).write(0) };
                syscall(nr::SYMLINKAT, [text, to, name, 0, 0, 0])?;
                self.attributes(&stat, to, name, copy_up::MODE).map(drop)
            }
            Kind::Fifo => {
                const S_IFIFO_0600: u64 = 0o10600;
                syscall(nr::MKNODAT, [to, name, S_IFIFO_0600, 0, 0, 0])?;
                self.attributes(&stat, to, name, 0).map(drop)
            }
            // A device would open where the root lets none open; a socket has nobody behind it.
            Kind::Other => Ok(()),
        }
    }

    fn subdirectory(&self, from: u64, to: u64, name: u64, dir: Stat, depth: usize) -> Result<(), Errno> {
        let inside = open_dir(from, name)?;
        let stat = self.stat(inside, DOT.as_ptr() as u64)?;
        // Kernels before 5.8 do not tell the root of a mount.
        if stat.device != dir.device {
            close(inside);
            return Ok(());
        }
        syscall(nr::MKDIRAT, [to, name, 0o700, 0, 0, 0])?;
        let copy = open_dir(to, name)?;
        self.directory(inside, copy, stat, depth + 1)?;
        self.finish((&stat, inside), (to, name), copy, 0)?;
        close(inside);
        close(copy);
        Ok(())
    }

    fn file(&self, from: u64, to: u64, name: u64) -> Result<(), Errno> {
        const O_NONBLOCK_NOCTTY: u64 = 0o4000 | 0o400;
        const O_WRONLY_CREAT_EXCL: u64 = 0o1 | 0o100 | 0o200;
        let file = syscall(nr::OPENAT, [from, name, O_NOFOLLOW | O_NONBLOCK_NOCTTY | O_CLOEXEC, 0, 0, 0])?;
        let stat = self.stat_open(file)?;
        if !matches!(stat.kind(), Kind::File) {
            // Another process has put something else there.
            return Err(Errno::AGAIN);
        }
        let flags = O_WRONLY_CREAT_EXCL | O_NOFOLLOW | O_CLOEXEC;
        let copy = syscall(nr::OPENAT, [to, name, flags, 0o600, 0, 0])?;
        self.contents(file, copy, stat.size)?;
        self.finish((&stat, file), (to, name), copy, 0)?;
        close(file);
        close(copy);
        Ok(())
    }

    /// Copies the first `size` bytes of a file, without its holes.
    fn contents(&self, from: u64, to: u64, size: u64) -> Result<(), Errno> {
        const SEEK_DATA: u64 = 3;
        const SEEK_HOLE: u64 = 4;
        let mut at = 0;
        while at < size {
            let (start, end) = match syscall(nr::LSEEK, [from, at, SEEK_DATA, 0, 0, 0]) {
                Ok(start) => (start, syscall(nr::LSEEK, [from, start, SEEK_HOLE, 0, 0, 0]).unwrap_or(size)),
                // Nothing but a hole follows.
                Err(Errno::NXIO) => break,
                Err(_) => (at, size),
            };
            at = start.max(at);
            let end = end.min(size);
            while at < end {
                let wanted = (end - at).min(CHUNK as u64);
                match syscall(nr::PREAD64, [from, self.room.data(), wanted, at, 0, 0]) {
                    // Another process has cut the file.
                    Ok(0) => return syscall(nr::FTRUNCATE, [to, at, 0, 0, 0, 0]).map(drop),
                    Ok(len) => at += self.write(to, len, at)?,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        syscall(nr::FTRUNCATE, [to, size, 0, 0, 0, 0]).map(drop)
    }

    /// Writes `len` bytes of the room, and returns their number.
    fn write(&self, to: u64, len: u64, at: u64) -> Result<u64, Errno> {
        let mut written = 0;
        while written < len {
            let args = [to, self.room.data() + written, len - written, at + written, 0, 0];
            match syscall(nr::PWRITE64, args) {
                Ok(0) => return Err(Errno::IO),
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(len)
    }

    /// Gives the file `name` in the directory `to`, which is open as `copy`, all attributes of the
    /// open file `from`, except for those in `kept`.
    fn finish(&self, (stat, from): (&Stat, u64), (to, name): (u64, u64), copy: u64, kept: u64) -> Result<(), Errno> {
        // A change of owner takes set-user-ID bits and capabilities away.
        let mode = self.attributes(stat, to, name, kept)?;
        let has_lost_list = self.xattrs(from, copy)?;
        if has_lost_list && kept & copy_up::MODE == 0 {
            // The bits of the group were the most that the list gave to anyone.
            syscall(nr::FCHMODAT, [to, name, without_group(mode), 0, 0, 0])?;
        }
        Ok(())
    }

    /// Gives the file `name` in the directory `to` owner, mode and times, except for those in
    /// `kept`. Returns the mode.
    fn attributes(&self, stat: &Stat, to: u64, name: u64, kept: u64) -> Result<u64, Errno> {
        let mut mode = stat.mode & 0o7777;
        if kept & copy_up::OWNER == 0 {
            const SAME: u64 = u32::MAX as u64;
            let user = is_given(syscall(nr::FCHOWNAT, [to, name, stat.user, SAME, AT_SYMLINK_NOFOLLOW, 0]))?;
            let group = is_given(syscall(nr::FCHOWNAT, [to, name, SAME, stat.group, AT_SYMLINK_NOFOLLOW, 0]))?;
            if !user || !group {
                mode &= !SET_IDS;
            }
            if !group {
                // What the group might do, another might not.
                mode = without_group(mode);
            }
        }
        if self.nosuid && !matches!(stat.kind(), Kind::Directory) {
            mode &= !SET_IDS;
        }
        if kept & copy_up::MODE == 0 {
            syscall(nr::FCHMODAT, [to, name, mode, 0, 0, 0])?;
        }
        let times = stat.times.as_ptr() as u64;
        syscall(nr::UTIMENSAT, [to, name, times, AT_SYMLINK_NOFOLLOW, 0, 0])?;
        Ok(mode)
    }

    /// Copies the extended attributes that a program sets: those of users, access lists, and
    /// capabilities of files. One that the tmpfs cannot hold is left out. Returns whether that was
    /// the list of who may use the file.
    fn xattrs(&self, from: u64, to: u64) -> Result<bool, Errno> {
        let list = self.room.list();
        let len = match syscall(nr::FLISTXATTR, [from, list, CHUNK as u64 - 1, 0, 0, 0]) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            result => result?,
        };
        let (mut at, mut has_lost_list) = (0, false);
        while at < len {
            let name = list + at;
            let text = self.room.name(at, len);
            at += text.len() as u64 + 1;
            // Overlayfs would take its own marks for those of a layer.
            let is_copied = text.starts_with(b"user.") && !text.starts_with(b"user.overlay.")
                || text.starts_with(b"system.posix_acl_")
                || text == b"security.capability" && !self.nosuid;
            if !is_copied {
                continue;
            }
            let size = match syscall(nr::FGETXATTR, [from, name, self.room.data(), CHUNK as u64, 0, 0]) {
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCES) => continue,
                result => result?,
            };
            match syscall(nr::FSETXATTR, [to, name, self.room.data(), size, 0, 0]) {
                Ok(_) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) => {
                    has_lost_list |= text == b"system.posix_acl_access";
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(has_lost_list)
    }

    fn stat(&self, dir: u64, name: u64) -> Result<Stat, Errno> {
        const AT_NO_AUTOMOUNT: u64 = 0x800;
        self.statx([dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT])
    }

    fn stat_open(&self, file: u64) -> Result<Stat, Errno> {
        const AT_EMPTY_PATH: u64 = 0x1000;
        const EMPTY: &[u8; 1] = b"\0";
        self.statx([file, EMPTY.as_ptr() as u64, AT_EMPTY_PATH])
    }

    fn statx(&self, [file, name, flags]: [u64; 3]) -> Result<Stat, Errno> {
        const STATX_BASIC_STATS: u64 = 0x7ff;
        const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
        let stat = self.room.stat();
        syscall(nr::STATX, [file, name, flags, STATX_BASIC_STATS, stat, 0])?;
        let stat = stat as *const u8;
        // SAFETY: the room holds a struct statx, which the kernel has written: stx_attributes
        // stands at byte 8, stx_uid at 20, stx_gid at 24, stx_mode at 28, stx_size at 40, stx_atime
        // at 64, stx_mtime at 112, stx_dev_major and stx_dev_minor at 136. All are aligned.
        unsafe {
            let word = |at: usize| stat.add(at).cast::<u64>().read_volatile();
            let half = |at: usize| u64::from(stat.add(at).cast::<u32>().read_volatile());
            Ok(Stat {
                is_mount: word(8) & STATX_ATTR_MOUNT_ROOT != 0,
                user: half(20),
                group: half(24),
                mode: u64::from(stat.add(28).cast::<u16>().read_volatile()),
                size: word(40),
                times: [word(64), half(72), word(112), half(120)],
                device: word(136),
            })
        }
    }
}

/// What statx(2) says of a file.
#[derive(Clone, Copy)]
struct Stat {
    mode: u64,
    user: u64,
    group: u64,
    size: u64,
    /// Times of access and of modification, as utimensat(2) takes them.
    times: [u64; 4],
    device: u64,
    /// The file is the root of a mount.
    is_mount: bool,
}

enum Kind {
    File,
    Directory,
    Link,
    Fifo,
    Other,
}

impl Stat {
    fn kind(&self) -> Kind {
        match self.mode & 0o170000 {
            0o100000 => Kind::File,
            0o040000 => Kind::Directory,
            0o120000 => Kind::Link,
            0o010000 => Kind::Fifo,
            _ => Kind::Other,
        }
    }
}

/// Returns whether a file got its owner. An id that the user namespace does not map is EINVAL.
fn is_given(result: Result<u64, Errno>) -> Result<bool, Errno> {
    match result {
        Ok(_) => Ok(true),
        Err(Errno::INVAL | Errno::PERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Returns the mode in which the group may do no more than anyone else.
fn without_group(mode: u64) -> u64 {
    mode & (!0o070 | mode << 3)
}

fn open_dir(dir: u64, name: u64) -> Result<u64, Errno> {
    syscall(nr::OPENAT, [dir, name, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0, 0, 0])
}

fn close(fd: u64) {
    let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
}

fn is_nosuid(dir: u64) -> Result<bool, Errno> {
    const ST_NOSUID: u64 = 2;
    const FLAGS: usize = 10;
    let mut stat = [0u64; 15];
    syscall(nr::FSTATFS, [dir, stat.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    // SAFETY: a local of struct statfs's size that the kernel has written; f_flags is its word 10.
    Ok(unsafe { stat.as_ptr().add(FLAGS).read_volatile() } & ST_NOSUID != 0)
}

/// Memory for what is copied, the names of attributes, a struct statx, and the entries of each
/// directory that is open. Unused pages cost nothing.
struct Room {
    base: u64,
}

impl Room {
    const STAT: usize = 2 * CHUNK;
    const ALL_ENTRIES: usize = Room::STAT + 256;
    const SIZE: u64 = (Room::ALL_ENTRIES + DEPTH_MAX * ENTRIES) as u64;

    fn new() -> Result<Self, Errno> {
        const PROT_READ_WRITE: u64 = 3;
        const MAP_PRIVATE_ANONYMOUS_NORESERVE: u64 = 0x2 | 0x20 | 0x4000;
        let args = [0, Room::SIZE, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS_NORESERVE, u64::MAX, 0];
        Ok(Room { base: syscall(nr::MMAP, args)? })
    }

    fn data(&self) -> u64 {
        self.base
    }

    fn list(&self) -> u64 {
        self.base + CHUNK as u64
    }

    fn stat(&self) -> u64 {
        self.base + Room::STAT as u64
    }

    /// Returns the room for entries of the directory at this depth.
    fn entries(&self, depth: usize) -> Result<u64, Errno> {
        let place = self.base + (Room::ALL_ENTRIES + depth * ENTRIES) as u64;
        if depth < DEPTH_MAX { Ok(place) } else { Err(Errno::NAMETOOLONG) }
    }

    /// Returns the name that begins `at` in a list of `len` bytes, without its NUL.
    fn name(&self, at: u64, len: u64) -> &[u8] {
        // SAFETY: the kernel has written `len` bytes, fewer than the list has room for, and `at` is
        // below `len`. Nothing writes to the list while the name is looked at.
        let rest = unsafe { core::slice::from_raw_parts((self.list() + at) as *const u8, (len - at) as usize) };
        rest.split(|byte| *byte == 0).next().unwrap_or(rest)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = syscall(nr::MUNMAP, [self.base, Room::SIZE, 0, 0, 0, 0]);
    }
}
