//! Mount flags for kernels without mount_setattr(2) (5.12): one mount(2) call for each mount in
//! `/proc/self/mountinfo`. The changes are visible only in the sandbox's mount namespace.

use crate::syscall::{AT_FDCWD, Errno, nr, syscall};

const MS_RDONLY: u64 = 1;
const MS_NOSUID: u64 = 2;
const MS_NODEV: u64 = 4;
const MS_NOEXEC: u64 = 8;
const MS_REMOUNT: u64 = 32;
const MS_NOSYMFOLLOW: u64 = 256;
const MS_NOATIME: u64 = 1024;
const MS_NODIRATIME: u64 = 2048;
const MS_RELATIME: u64 = 1 << 21;
const MS_STRICTATIME: u64 = 1 << 24;
/// The flags for access times.
const ATIME: u64 = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;
const MS_BIND: u64 = 4096;
/// The most text and the most mounts that are read. A host has a few hundred mounts, of some
/// hundred bytes each.
const TEXT_MAX: usize = 8 << 20;
const MOUNTS_MAX: usize = 32 << 10;
const PATH_MAX: usize = 4096;

/// Sets and clears flags of the mount whose root is `tree`, and with `recursive` of all mounts
/// below it.
///
/// A mount that is covered by another mount is skipped: only a process that removes the upper mount
/// can reach the lower one, and such a process may change flags as well. Any other mount that
/// cannot be reached is an error.
pub fn set_flags(tree: u64, set: u64, clear: u64, recursive: bool) -> Result<u64, Errno> {
    let memory = Memory::new()?;
    let text = memory.read(b"/proc/self/mountinfo\0")?;
    let top = mount_of(tree)?;
    let own = lines(text).find(|line| line.id == top).ok_or(Errno::NOENT)?;
    change(tree, own.flags, set, clear)?;
    let mut count = 0;
    if recursive {
        memory.put(count, top);
        count += 1;
    }
    // mountinfo lists a mount after the mount that it is mounted on.
    for line in lines(text).filter(|line| line.id != top) {
        if !(0..count).any(|i| memory.get(i) == line.parent) {
            continue;
        }
        if count == MOUNTS_MAX {
            return Err(Errno::TOOBIG);
        }
        memory.put(count, line.id);
        count += 1;
        let fd = open_below(tree, own.path, line.path)?;
        let found = mount_of(fd);
        let result = match found {
            Ok(id) if id == line.id => change(fd, line.flags, set, clear),
            Ok(id) if lines(text).any(|other| other.id == id && other.path == line.path) => Ok(()),
            // Another process is renaming directories of the source.
            Ok(_) => Err(Errno::AGAIN),
            Err(errno) => Err(errno),
        };
        let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
        result?;
    }
    Ok(0)
}

/// Changes the flags of one mount. mount(2) with MS_REMOUNT and MS_BIND replaces all flags, except
/// that the flags for access times stay if none of them is given.
fn change(fd: u64, flags: u64, set: u64, clear: u64) -> Result<(), Errno> {
    let mut wanted = flags & !clear | set;
    if wanted == flags {
        return Ok(());
    }
    if (set | clear) & ATIME == 0 {
        wanted &= !ATIME;
    } else if wanted & (MS_NOATIME | MS_RELATIME | MS_STRICTATIME) == 0 {
        // What was cleared is the whole field, which leaves relatime; a mount that has neither name
        // in mountinfo is strict.
        wanted |= if clear & MS_RELATIME != 0 { MS_RELATIME } else { MS_STRICTATIME };
    }
    let mut name = Name::new(b"/proc/self/fd/");
    name.number(fd);
    syscall(nr::MOUNT, [0, name.as_ptr(), 0, wanted | MS_REMOUNT | MS_BIND, 0, 0]).map(drop)
}

/// Returns the id of the mount that a descriptor is on, from fdinfo, which has it since 3.15.
/// statx(2) has it only since 5.8.
fn mount_of(fd: u64) -> Result<u64, Errno> {
    let mut name = Name::new(b"/proc/self/fdinfo/");
    name.number(fd);
    let mut text = [0u8; 512];
    let len = read_file(name.as_ptr(), &mut text)?;
    let mut lines = text.get(..len).unwrap_or(&[]).split(|byte| *byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(b"mnt_id:")).ok_or(Errno::NOENT)?;
    number(line.trim_ascii()).ok_or(Errno::INVAL)
}

/// Opens the place that the kernel calls `path` through the root of the tree, which the kernel
/// calls `top`. The names in mountinfo contain no symbolic links; a link that is there now is
/// opened itself, and is on another mount.
fn open_below(tree: u64, top: &[u8], path: &[u8]) -> Result<u64, Errno> {
    const O_PATH_NOFOLLOW_CLOEXEC: u64 = 0o10000000 | crate::target::O_NOFOLLOW | 0o2000000;
    let below = path.strip_prefix(top).ok_or(Errno::AGAIN)?;
    let below = below.strip_prefix(b"/").unwrap_or(below);
    if below.is_empty() {
        // A mount covers the root of the tree, where `/..` of the program may lead.
        return Err(Errno::BUSY);
    }
    let mut name = Name::new(b"");
    // mountinfo writes blanks and backslashes as three octal digits.
    let mut rest = below;
    while let [byte, after @ ..] = rest {
        rest = after;
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] if *byte == b'\\' => {
                name.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            _ => name.push(*byte),
        }
    }
    syscall(nr::OPENAT, [tree, name.as_ptr(), O_PATH_NOFOLLOW_CLOEXEC, 0, 0, 0])
}

/// A line of mountinfo: proc_pid_mountinfo(5).
struct Line<'t> {
    id: u64,
    parent: u64,
    path: &'t [u8],
    /// The flags, as `MS_*`.
    flags: u64,
}

fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
        let (path, options) = (fields.nth(2)?, fields.next()?);
        let flags = options.split(|byte| *byte == b',').fold(0, |flags, option| {
            flags
                | match option {
                    b"ro" => MS_RDONLY,
                    b"nosuid" => MS_NOSUID,
                    b"nodev" => MS_NODEV,
                    b"noexec" => MS_NOEXEC,
                    b"nosymfollow" => MS_NOSYMFOLLOW,
                    b"noatime" => MS_NOATIME,
                    b"nodiratime" => MS_NODIRATIME,
                    b"relatime" => MS_RELATIME,
                    _ => 0,
                }
        });
        Some(Line { id, parent, path, flags })
    })
}

fn number(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let value = text.iter().try_fold(0u64, |value, byte| value.checked_mul(10)?.checked_add(digit(byte)?));
    value.filter(|_| !text.is_empty())
}

/// A path that is built piece by piece.
struct Name {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl Name {
    fn new(text: &[u8]) -> Self {
        let mut name = Name { bytes: [0; PATH_MAX], len: 0 };
        text.iter().for_each(|byte| name.push(*byte));
        name
    }

    /// Adds a byte. If the path is too long, the byte is lost and the path names another file; the
    /// check of its mount detects that. The last byte stays 0.
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len).filter(|_| self.len < PATH_MAX - 1) {
            *place = byte;
            self.len += 1;
        }
    }

    fn number(&mut self, value: u64) {
        if value > 9 {
            self.number(value / 10);
        }
        self.push(b'0' + (value % 10) as u8);
    }

    fn as_ptr(&self) -> u64 {
        self.bytes.as_ptr() as u64
    }
}

/// Reads a file from its beginning until `into` is full.
fn read_file(path: u64, into: &mut [u8]) -> Result<usize, Errno> {
    const O_RDONLY_CLOEXEC: u64 = 0o2000000;
    let fd = syscall(nr::OPENAT, [AT_FDCWD, path, O_RDONLY_CLOEXEC, 0, 0, 0])?;
    let mut len = 0;
    let result = loop {
        let rest = into.get_mut(len..).unwrap_or(&mut []);
        match syscall(nr::READ, [fd, rest.as_mut_ptr() as u64, rest.len() as u64, 0, 0, 0]) {
            Ok(0) => break Ok(len),
            Ok(read) => len += read as usize,
            Err(Errno::INTR) => {}
            Err(errno) => break Err(errno),
        }
    };
    let _ = syscall(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
    result
}

/// The room for a text, and for the ids of mounts after it. Unused pages cost nothing, and the exec
/// frees them.
struct Memory {
    base: *mut u8,
}

impl Memory {
    fn new() -> Result<Self, Errno> {
        const PROT_READ_WRITE: u64 = 3;
        const MAP_PRIVATE_ANONYMOUS_NORESERVE: u64 = 0x2 | 0x20 | 0x4000;
        let size = (TEXT_MAX + MOUNTS_MAX * size_of::<u64>()) as u64;
        let base = syscall(nr::MMAP, [0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS_NORESERVE, u64::MAX, 0])?;
        Ok(Memory { base: base as *mut u8 })
    }

    fn read(&self, path: &[u8]) -> Result<&[u8], Errno> {
        // SAFETY: the first TEXT_MAX bytes of the mapping, which is zeroed and which nobody else
        // refers to yet.
        let text = unsafe { core::slice::from_raw_parts_mut(self.base, TEXT_MAX) };
        match read_file(path.as_ptr() as u64, text)? {
            TEXT_MAX => Err(Errno::TOOBIG),
            len => text.get(..len).ok_or(Errno::INVAL),
        }
    }

    fn place(&self, index: usize) -> *mut u64 {
        // SAFETY: the mapping holds MOUNTS_MAX words behind the text, and `index` is below that.
        unsafe { self.base.add(TEXT_MAX).cast::<u64>().add(index % MOUNTS_MAX) }
    }

    fn put(&self, index: usize, id: u64) {
        // SAFETY: a word of the mapping, behind the text.
        unsafe { self.place(index).write(id) };
    }

    fn get(&self, index: usize) -> u64 {
        // SAFETY: as for `put`.
        unsafe { self.place(index).read() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let size = (TEXT_MAX + MOUNTS_MAX * size_of::<u64>()) as u64;
        let _ = syscall(nr::MUNMAP, [self.base as u64, size, 0, 0, 0, 0]);
    }
}
