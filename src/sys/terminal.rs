//! Pseudoterminals: pts(4), ioctl_tty(2).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::{Mode, fstat, makedev};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};

use super::{by_fd, table};

/// The flags with which both ends are opened. A session leader without a terminal would get the
/// slave as its own without `O_NOCTTY`.
pub(crate) const FLAGS: OFlag = OFlag::O_RDWR.union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Makes a terminal on the caller's devpts, and returns its master.
pub(crate) fn open_master() -> Result<OwnedFd, Errno> {
    unlocked(nix::fcntl::open("/dev/ptmx", FLAGS, Mode::empty())?)
}

/// Makes a terminal on the devpts that a root directory has at `/dev/pts`, and returns its master.
/// Fails with ENXIO if anything else is there: the root may be somebody else's. Needs openat2(2),
/// 5.6.
pub(crate) fn open_master_in(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let found = by_fd::look_as(root, "dev/pts/ptmx", OFlag::empty(), ResolveFlag::RESOLVE_IN_ROOT)?;
    let stat = fstat(&found)?;
    let is_ptmx = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == makedev(5, 2);
    if !is_ptmx || fstatfs(&found)?.filesystem_type() != DEVPTS_SUPER_MAGIC {
        return Err(Errno::ENXIO);
    }
    unlocked(by_fd::reopen(&found, FLAGS)?)
}

fn unlocked(master: OwnedFd) -> Result<OwnedFd, Errno> {
    let master = table::above_stdio(master)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the call reads an int, which lives across the call.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    Ok(master)
}

/// Opens the slave of a master, without a path: `TIOCGPTPEER`, 4.13.
pub(crate) fn open_slave(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: the argument is a number.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, FLAGS.bits()) }).map(table::own)
}

/// Sets the number of rows and of columns.
pub(crate) fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call reads a struct winsize, which lives across the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Returns the number of rows and of columns.
pub(crate) fn size(terminal: BorrowedFd<'_>) -> Result<(u16, u16), Errno> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes a struct winsize, which lives across the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Returns the number that the terminal has on its devpts.
pub(crate) fn number(master: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the call writes an unsigned int, which lives across the call.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    Ok(number)
}
