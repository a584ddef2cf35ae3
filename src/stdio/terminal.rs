//! A terminal of the program's own: the ops that open its slave, and make it the controlling
//! terminal.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::fchown;

use crate::error::{Error, Result, Step};
use crate::plan::{Arg, Plan, Slot};
use crate::sys::terminal;

/// The number of rows and columns of a terminal. A size of 0 means that it is not known.
///
/// ```
/// use ringfence::{Sandbox, Stdio, TerminalSize};
/// use std::io::Read;
///
/// let size = TerminalSize { columns: 100, rows: 30 };
/// let mut child = Sandbox::new().command("stty").arg("size").stdin(Stdio::pty(size)).spawn()?;
/// let mut terminal = child.terminal.take().expect("the other end of the terminal");
/// let mut text = [0; 7];
/// terminal.read_exact(&mut text)?;
/// assert_eq!(&text, b"30 100\r");
/// child.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TerminalSize {
    /// The number of lines.
    pub rows: u16,
    /// The number of characters in a line.
    pub columns: u16,
}

/// The streams of a program that are its terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct TerminalStreams {
    pub(super) size: TerminalSize,
    pub(super) is_terminal: [bool; 3],
}

/// The master of a program's terminal, inside the stub.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Master {
    /// The stub has opened the master on the sandbox's devpts. The owner gets it.
    Made(Slot),
    /// The owner has opened the master, and has passed a copy with this number.
    Passed(i32),
}

impl TerminalStreams {
    /// Sets the size of the terminal, and makes it the controlling terminal of the session that the
    /// stub leads. Its foreground process group is the program's then.
    pub(super) fn emit_controlling(self, plan: &mut Plan) {
        let Some(number) = self.is_terminal.iter().position(|is| *is) else { return };
        // struct winsize: rows, columns, and the width and height in pixels, which nobody knows.
        let size: Vec<u8> = [self.size.rows, self.size.columns, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let size = plan.bytes(&size);
        plan.call(Step::Terminal, libc::SYS_ioctl, [number.into(), libc::TIOCSWINSZ.into(), size.into()]);
        plan.call(Step::Terminal, libc::SYS_ioctl, [number.into(), libc::TIOCSCTTY.into(), 0.into()]);
    }
}

/// Opens the slave, and closes the master. Returns the slot with the slave.
///
/// The slave is opened as late as this, and below an init, so that no other process has the slave.
/// When a session leader ends, the kernel hangs up its terminal if it is still open elsewhere, and
/// throws away what was not read yet.
pub(crate) fn emit_slave(plan: &mut Plan, master: Master) -> Slot {
    let number = match master {
        Master::Made(slot) => Arg::from(slot),
        Master::Passed(number) => Arg::from(number),
    };
    let slave = plan.slot();
    let args = [number, libc::TIOCGPTPEER.into(), terminal::FLAGS.bits().into()];
    plan.call(Step::Terminal, libc::SYS_ioctl, args).store(slave);
    match master {
        Master::Made(slot) => {
            plan.send_terminal(slot);
            plan.close(Step::Terminal, slot);
        }
        Master::Passed(_) => drop(plan.call(Step::Terminal, libc::SYS_close, [number])),
    }
    slave
}

/// Makes the slave all three streams. From here on, no slot may hold another descriptor that is in
/// use: it could be one of the three.
pub(crate) fn emit_slave_as_streams(plan: &mut Plan, slave: Slot) {
    // Its copy, like the slave itself, is closed by the exec.
    let above = [slave.into(), libc::F_DUPFD_CLOEXEC.into(), 3.into()];
    plan.call(Step::PlaceFd, libc::SYS_fcntl, above).store(slave);
    for stream in 0..3 {
        plan.call(Step::PlaceFd, libc::SYS_dup3, [slave.into(), stream.into(), 0.into()]);
    }
    plan.close(Step::Terminal, slave);
}

/// Makes a terminal which belongs to `user`, and returns its master: on the devpts of the root
/// directory `root`, or where that has none for the caller on the caller's. A caller who may not
/// give files away leaves the terminal as it is.
pub(crate) fn open_terminal(root: Option<BorrowedFd<'_>>, user: Option<(u32, u32)>) -> Result<OwnedFd> {
    let failed = |errno| Error::new(Step::Terminal, errno).at("/dev/ptmx");
    let inside = root.and_then(|root| terminal::open_master_in(root).ok());
    let master = inside.map_or_else(terminal::open_master, Ok).map_err(failed)?;
    if let Some((uid, _)) = user {
        let slave = terminal::open_slave(master.as_fd()).map_err(failed)?;
        let _ = fchown(slave, Some(uid.into()), None);
    }
    Ok(master)
}
