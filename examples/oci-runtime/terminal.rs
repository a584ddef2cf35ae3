//! The terminal of this command, and that of a program, with what is typed and shown between them.
//!
//! This command's terminal is in raw mode meanwhile, so that each key means what it means at the
//! program's. However the program or this command ends, the terminal is as it was before; only a SIGKILL
//! of this command itself leaves no time for that.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use ringfence::{Terminal, TerminalSize};
use rustix::termios::tcgetwinsize;

const BUFFER: usize = 16 << 10;

/// The terminal of this command.
pub struct Host {
    /// The terminal, which may not be what is read.
    tty: OwnedFd,
    before: Termios,
    signals: SignalFd,
}

/// The end of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All is shown that the program has printed.
    Shown,
    /// This command's own terminal is gone.
    Gone,
}

impl Host {
    /// Finds the terminal, and blocks the signals that mean something meanwhile. To be called before
    /// there are other threads, which leave these signals to this value then.
    pub fn open() -> io::Result<Host> {
        let tty = host_terminal()?;
        let before = tcgetattr(&tty)?;
        let mut all = passed_on();
        all.add(Signal::SIGTSTP);
        all.thread_block()?;
        Ok(Host { tty, before, signals: SignalFd::new(&all)? })
    }

    /// Gives the program's terminal the size of this one, and this one the raw mode until the value is
    /// dropped.
    ///
    /// A program that has not begun gets `plain` line ends, which are made here, so that there are none of
    /// a terminal where stdout is none. Of one that has begun, some may be made already.
    pub fn enter(&self, terminal: &Terminal, plain: bool) -> io::Result<Raw<'_>> {
        terminal.resize(self.size()?)?;
        if plain {
            let mut settings = tcgetattr(terminal)?;
            settings.output_flags.remove(OutputFlags::ONLCR);
            tcsetattr(terminal, SetArg::TCSANOW, &settings)?;
        }
        let raw = Raw { host: self, plain };
        raw.enter()?;
        Ok(raw)
    }

    /// Returns the size of this terminal.
    pub fn size(&self) -> io::Result<TerminalSize> {
        let size = tcgetwinsize(&self.tty)?;
        Ok(TerminalSize { rows: size.ws_row, columns: size.ws_col })
    }
}

/// The terminal of this command in raw mode. It is put back on every way out, a panic included.
pub struct Raw<'h> {
    host: &'h Host,
    plain: bool,
}

impl Raw<'_> {
    fn enter(&self) -> io::Result<()> {
        let mut raw = self.host.before.clone();
        cfmakeraw(&mut raw);
        if self.plain {
            raw.output_flags = self.host.before.output_flags;
        }
        Ok(tcsetattr(&self.host.tty, SetArg::TCSANOW, &raw)?)
    }

    fn leave(&self) -> io::Result<()> {
        Ok(tcsetattr(&self.host.tty, SetArg::TCSANOW, &self.host.before)?)
    }

    /// Copies between the two terminals until all is shown that the program has printed. Signals that
    /// are not about the terminal are passed on.
    pub fn relay(&self, mut terminal: Terminal, pass_on: impl Fn(i32)) -> io::Result<Ended> {
        // A program that reads nothing must not keep its output from being shown.
        let flags = OFlag::from_bits_retain(fcntl(&terminal, FcntlArg::F_GETFL)?);
        fcntl(&terminal, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // Nor may a terminal that shows nothing keep a signal from being heard, so that a thread writes.
        let (shown, showing) = io::pipe()?;
        let shows = terminal.try_clone()?;
        std::thread::Builder::new().spawn(move || (show(shows), drop(showing)))?;
        // What was typed, and is not taken yet.
        let mut typed: Vec<u8> = Vec::new();
        let mut reads = true;
        loop {
            // More is read when what was typed before is taken.
            let (takes, keys) = match typed.is_empty() {
                true if reads => (PollFlags::empty(), PollFlags::POLLIN),
                true => (PollFlags::empty(), PollFlags::empty()),
                false => (PollFlags::POLLOUT, PollFlags::empty()),
            };
            let stdin = stdin();
            let mut fds = [
                PollFd::new(self.host.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(shown.as_fd(), PollFlags::POLLIN),
                PollFd::new(stdin.as_fd(), keys),
                PollFd::new(terminal.as_fd(), takes),
            ];
            // Of a terminal without a program only the end of what it shows is of interest.
            let watched = if takes.is_empty() { 3 } else { 4 };
            match poll(&mut fds[..watched], PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let [signalled, ended, types, takes] = fds.map(|fd| fd.any() == Some(true));
            // A hang-up is told of unasked.
            let types = types && reads;
            if signalled {
                self.heed(&terminal, &pass_on)?;
            }
            if ended {
                return Ok(Ended::Shown);
            }
            if types {
                typed = read_keys(stdin.as_fd())?;
                if typed.is_empty() {
                    if self.reads_terminal() {
                        return Ok(Ended::Gone);
                    }
                    // The end of a file is not that of the terminal.
                    reads = false;
                }
            }
            if types || takes {
                match terminal.write(&typed) {
                    Ok(count) => drop(typed.drain(..count)),
                    Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
                    // EIO: nobody has the terminal open any more.
                    Err(_) => typed.clear(),
                }
            }
        }
    }

    fn reads_terminal(&self) -> bool {
        !matches!(tcgetattr(stdin()), Err(Errno::ENOTTY | Errno::EINVAL))
    }

    /// Does what a signal asks for.
    fn heed(&self, terminal: &Terminal, pass_on: impl Fn(i32)) -> io::Result<()> {
        let Some(info) = self.host.signals.read_signal()? else { return Ok(()) };
        let number = info.ssi_signo.cast_signed();
        match Signal::try_from(number) {
            // A terminal that is gone has no size.
            Ok(Signal::SIGWINCH) => self.host.size().and_then(|size| terminal.resize(size)).or(Ok(())),
            Ok(Signal::SIGTSTP) => {
                self.leave()?;
                raise(Signal::SIGSTOP)?;
                self.enter()?;
                terminal.resize(self.host.size()?)
            }
            // Realtime signals have no name.
            _ => {
                pass_on(number);
                Ok(())
            }
        }
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // EIO: the terminal is gone, too.
        let _ = self.leave();
    }
}

/// The signals that are meant for the program: all but those of this command's own children and
/// sockets, and those by which its shell stops it. SIGKILL and SIGSTOP cannot be passed on.
pub fn passed_on() -> SigSet {
    let mut set = SigSet::all();
    let own = [
        Signal::SIGCHLD,
        Signal::SIGURG,
        Signal::SIGPIPE,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGKILL,
        Signal::SIGSTOP,
    ];
    own.into_iter().for_each(|signal| set.remove(signal));
    set
}

/// Finds the terminal of this command: that of a stream, or else the one that controls it.
fn host_terminal() -> io::Result<OwnedFd> {
    let (stdin, stdout, stderr) = (stdin(), stdout(), std::io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    match streams.into_iter().find(|stream| tcgetattr(stream).is_ok()) {
        Some(stream) => stream.try_clone_to_owned(),
        None => {
            let missing = || {
                io::Error::other(
                    "there is no terminal: leave it out (process.terminal, --tty), or detach with --console-socket",
                )
            };
            Ok(File::options().read(true).write(true).open("/dev/tty").map_err(|_| missing())?.into())
        }
    }
}

/// Shows what the program prints, to the end, or until nobody looks any more.
fn show(mut terminal: Terminal) {
    let mut bytes = [0; BUFFER];
    loop {
        let _ = poll(&mut [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        match terminal.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                if stdout().write_all(&bytes[..count]).and_then(|()| stdout().flush()).is_err() {
                    return;
                }
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(_) => return,
        }
    }
}

/// Reads keys, past the buffer of `std::io::Stdin`, of which poll(2) knows nothing. Nothing: the
/// terminal is gone.
fn read_keys(stdin: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; BUFFER];
    let count = match nix::unistd::read(stdin, &mut bytes) {
        Err(Errno::EIO) => 0,
        result => result?,
    };
    bytes.truncate(count);
    Ok(bytes)
}
