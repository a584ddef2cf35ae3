//! Pseudoterminals: pts(4), ioctl_tty(2).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::table;

/// The flags with which both ends are opened. A session leader without a terminal would get the
/// slave as its own without `O_NOCTTY`.
pub(crate) const FLAGS: OFlag = OFlag::O_RDWR.union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Makes a terminal on the caller's devpts, and returns its master.
pub(crate) fn open_master() -> Result<OwnedFd, Errno> {
    let master = table::above_stdio(nix::fcntl::open("/dev/ptmx", FLAGS, Mode::empty())?)?;
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
