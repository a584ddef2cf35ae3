//! The master of the program's terminal.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;

use super::stream::{Meter, read_metered};
use crate::stdio::TerminalSize;
use crate::sys::terminal;

/// The other end of a program's terminal: the master of a pseudoterminal, pts(4). See
/// [`Stdio::pty`](crate::Stdio::pty).
///
/// Bytes that are written here are those that a user types: the byte 3 is Ctrl-C, 4 at the begin of
/// a line is the end of file, 26 is Ctrl-Z. The terminal echoes it, and a line ends with `\r\n`,
/// until the program sets the terminal otherwise. Bytes that are read here are those that the
/// program prints. The end of file comes when no process has the terminal open any more.
///
/// With an [`output_limit`](crate::Sandbox::output_limit) the terminal counts what is read, as an
/// [`OutputStream`](crate::OutputStream) does.
///
/// When the program ends, the kernel hangs the terminal up. Of what was printed just before, the
/// kernel may throw away what has not come to this end yet, as with every terminal.
///
/// When the last copy is dropped, the terminal is hung up: the foreground process group gets
/// SIGHUP, and reads an end of file.
///
/// ```
/// use std::io::{Read, Write};
///
/// use ringfence::{Sandbox, Stdio, TerminalSize};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let size = TerminalSize { rows: 24, columns: 80 };
/// let mut child = Sandbox::new().command("cat").stdin(Stdio::pty(size)).spawn()?;
/// let mut terminal = child.terminal.take().ok_or("no terminal")?;
/// terminal.write_all(b"hello\n\x04")?;
/// let mut shown = String::new();
/// terminal.read_to_string(&mut shown)?;
/// assert_eq!(shown, "hello\r\nhello\r\n");
/// assert!(child.wait()?.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    meter: Option<Arc<Meter>>,
}

impl Terminal {
    pub(crate) fn new(master: OwnedFd, meter: Option<Arc<Meter>>) -> Terminal {
        Terminal { master, meter }
    }

    /// Sets the size of the terminal. If it has changed, the foreground process group gets
    /// SIGWINCH.
    ///
    /// # Errors
    ///
    /// The errno of ioctl_tty(2), which the kernel has no reason for.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        terminal::set_size(self.master.as_fd(), size.rows, size.columns).map_err(io::Error::from)
    }

    /// Returns the size of the terminal, which the program may have changed.
    ///
    /// # Errors
    ///
    /// The errno of ioctl_tty(2), which the kernel has no reason for.
    pub fn size(&self) -> io::Result<TerminalSize> {
        let (rows, columns) = terminal::size(self.master.as_fd())?;
        Ok(TerminalSize { rows, columns })
    }

    /// Returns the path of the terminal in a root that shows its devpts: `/dev/pts/0`. The
    /// sandbox's own devpts is not the caller's, where this is another terminal, or none.
    /// ptsname(3).
    ///
    /// # Errors
    ///
    /// The errno of ioctl_tty(2), which the kernel has no reason for.
    pub fn name(&self) -> io::Result<PathBuf> {
        Ok(PathBuf::from(format!("/dev/pts/{}", terminal::number(self.master.as_fd())?)))
    }

    /// Returns a copy, with which another thread can read while this one writes. Both count for one
    /// output limit.
    ///
    /// # Errors
    ///
    /// EMFILE if the caller has too many open files.
    pub fn try_clone(&self) -> io::Result<Terminal> {
        Ok(Terminal { master: self.master.try_clone()?, meter: self.meter.clone() })
    }

    /// Types an end of file, as far as the program has not set the terminal otherwise. A program
    /// that reads nothing may have filled the buffer, and needs no end of file.
    pub(super) fn type_end_of_file(&self) {
        const END: &[u8] = &[4];
        let _ = nix::unistd::write(self, END);
    }
}

impl Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_metered(self.meter.as_deref(), || match nix::unistd::read(&self.master, buffer) {
            // No process has the slave open.
            Err(Errno::EIO) => Ok(0),
            result => Ok(result?),
        })
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        nix::unistd::write(&self.master, bytes).map_err(io::Error::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

impl AsRawFd for Terminal {
    fn as_raw_fd(&self) -> RawFd {
        self.master.as_raw_fd()
    }
}

impl From<Terminal> for OwnedFd {
    fn from(terminal: Terminal) -> OwnedFd {
        terminal.master
    }
}
