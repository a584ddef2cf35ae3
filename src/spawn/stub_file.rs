//! The file of the stub, which can be executed, and which no sandbox can replace or change.
//!
//! Processes in a sandbox can reach the file of an init, and of a process that enters the sandbox,
//! through /proc/PID/exe (CVE-2019-5736). Nobody can write to a sealed memfd, and a memfd that can
//! be reached belongs to one spawn alone. If the exec of a memfd is forbidden, each spawn has a
//! file of its own. For a caller with CAP_SYS_ADMIN, the file is on a file system of its own, which
//! is read-only as a whole and mounted nowhere. For other callers, it is a file without a name,
//! which nobody writes to while it runs, and which nobody executes again.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::stub::PROGRAM;
use crate::sys::fsmount::FileSystem;
use crate::sys::{by_fd, file_size};

/// Returns the name that the stub gives itself (`PR_SET_NAME`), which distinguishes it from the
/// program.
pub(crate) fn stub_name() -> &'static CStr {
    c"ringfence-stub"
}

/// True after a memfd could be made but not executed, and a file could be executed.
static MEMFD_REFUSED: AtomicBool = AtomicBool::new(false);

/// Returns true if spawns use files from the beginning.
pub(super) fn is_memfd_refused() -> bool {
    MEMFD_REFUSED.load(Ordering::Relaxed)
}

/// Notes that a file was executed where a memfd was not.
pub(super) fn refuse_memfd() {
    MEMFD_REFUSED.store(true, Ordering::Relaxed);
}

/// Returns true if a policy forbids to make or execute a memfd with this errno: EACCES by
/// vm.memfd_noexec, EACCES or EPERM by a security module, and ENOSYS or EPERM by a filter.
pub(super) fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM | Errno::ENOSYS)
}

/// Makes the stub file for one spawn.
pub(super) fn for_one_spawn(as_file: bool) -> Result<OwnedFd, Errno> {
    match memfd() {
        Ok(memfd) if !as_file => Ok(memfd),
        Err(errno) if !is_refusal(errno) => Err(errno),
        _ => file(),
    }
}

/// Makes the stub in a sealed memfd: nobody can write to it, not even a process that opens it
/// through /proc/PID/exe.
pub(super) fn memfd() -> Result<OwnedFd, Errno> {
    const F_SEAL_EXEC: libc::c_int = 0x20;
    let name = stub_name();
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // MFD_EXEC came with 6.3; older kernels make every memfd executable and refuse the flag.
    let fd = match memfd_create(name, flags | MFdFlags::from_bits_retain(libc::MFD_EXEC)) {
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    write(&fd)?;
    // F_SEAL_EXEC came with 6.3. The seal keeps the executable bits as they are.
    let _ = fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(F_SEAL_EXEC)));
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(fd)
}

fn write(fd: &OwnedFd) -> Result<(), Errno> {
    file_size::check(PROGRAM.len() as u64)?;
    let mut rest = PROGRAM;
    while !rest.is_empty() {
        rest = &rest[nix::unistd::write(fd, rest)?..];
    }
    Ok(())
}

fn file() -> Result<OwnedFd, Errno> {
    match on_detached_mount() {
        Err(Errno::EPERM | Errno::ENOSYS) => unnamed_file(),
        result => result,
    }
}

const EXECUTABLE: Mode = Mode::S_IRUSR.union(Mode::S_IXUSR);

/// Makes the file in a tmpfs that ends with the last holder of the file.
fn on_detached_mount() -> Result<OwnedFd, Errno> {
    let file_system = FileSystem::tmpfs(&[(c"size", c"64k"), (c"nr_inodes", c"2"), (c"mode", c"500")])?;
    let name = stub_name();
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let writer = openat(file_system.root(), name, flags, EXECUTABLE)?;
    write(&writer)?;
    // A file that is open for writing cannot be executed.
    drop(writer);
    file_system.set_read_only()?;
    openat(file_system.root(), name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// Makes a file without a name in a directory where an ordinary user may write and execute files.
fn unnamed_file() -> Result<OwnedFd, Errno> {
    let own = PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()));
    let dirs = [own, std::env::temp_dir(), "/dev/shm".into(), "/var/tmp".into()];
    let made = dirs.iter().find_map(|dir| unnamed_file_in(dir).ok());
    made.ok_or(Errno::EACCES)
}

fn unnamed_file_in(dir: &Path) -> Result<OwnedFd, Errno> {
    let writer = open(dir, OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC, EXECUTABLE)?;
    if fstatvfs(&writer)?.flags().contains(FsFlags::ST_NOEXEC) {
        return Err(Errno::EACCES);
    }
    write(&writer)?;
    // The same file, not for writing.
    by_fd::reopen(&writer, OFlag::O_PATH)
}
