//! An interactive shell in a sandbox for untrusted code, with a terminal of its own:
//!
//!     cargo run --release --example shell -- --work . bash
//!
//! The caller's terminal is in raw mode meanwhile, so that each key goes to the terminal inside:
//! Ctrl-C, Ctrl-Z and Ctrl-D mean there what they mean in every terminal. A new size of the window is
//! passed on. However the program or this command ends, the terminal is as it was before; only a
//! SIGKILL of this command itself leaves no time for that.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use ringfence::{Bytes, Child, Feature, Outcome, Sandbox, Stdio, Terminal, TerminalSize};
use rustix::termios::tcgetwinsize;

/// The time that a program has to end, once its terminal has been hung up.
const GRACE: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const BUFFER: usize = 16 << 10;

/// Opens a shell in a sandbox.
#[derive(Parser, Debug)]
#[command(name = "shell")]
struct Args {
    /// Show this directory at /work, writable, and begin there
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Most memory of all processes together
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    memory: Bytes,
    /// The program and its arguments [default: bash, or sh]
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    program: Vec<OsString>,
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() {
    std::process::exit(run(std::env::args_os()));
}

/// Does what the arguments say, and returns the exit code: the program's, 128 + N if signal N ended
/// the program or this command, 125 if there is no sandbox.
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(text) => {
            let _ = text.print();
            return if text.use_stderr() { 125 } else { 0 };
        }
    };
    match shell(&args) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(stderr(), "shell: {error}");
            125
        }
    }
}

fn shell(args: &Args) -> io::Result<i32> {
    // First of all: threads that are started later leave these signals to the descriptor.
    let signals = Signals::block()?;
    let raw = Raw::of_stdin()?;
    let mut child = sandbox(args, size()?).spawn()?;
    let terminal = child.terminal.take().ok_or_else(|| io::Error::other("the sandbox has no terminal"))?;
    for (feature, why) in child.enforced().iter() {
        if let ringfence::Enforcement::Missing(why) = why {
            let _ = writeln!(stderr(), "shell: without {feature}: {why}");
        }
    }
    raw.enter()?;
    let ended_by = relay(&raw, terminal, &signals);
    let outcome = end(child, &ended_by);
    // Before anything is printed.
    drop(raw);
    let outcome = outcome?;
    Ok(match ended_by? {
        Some(signal) => 128 + signal as i32,
        None => code(&outcome),
    })
}

fn sandbox(args: &Args, size: TerminalSize) -> Sandbox {
    let default = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let program = args.program.first().cloned().unwrap_or_else(|| default.into());
    let sandbox = Sandbox::strict()
        .command(program)
        .args(args.program.iter().skip(1))
        .stdin(Stdio::pty(size))
        .env("TERM", std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()))
        .memory_limit(args.memory)
        .best_effort(Feature::MemoryLimit)
        .best_effort(Feature::PidsLimit)
        // Whoever sits at the terminal ends it.
        .wall_time(DAY)
        .output_limit(Bytes::gib(1 << 10));
    match &args.work {
        Some(dir) => sandbox.bind(dir, "/work").cwd("/work"),
        None => sandbox.cwd("/tmp"),
    }
}

fn size() -> io::Result<TerminalSize> {
    let size = tcgetwinsize(stdin())?;
    Ok(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

fn code(outcome: &Outcome) -> i32 {
    let status = outcome.status();
    if !matches!(outcome.verdict(), ringfence::Verdict::Exited(_)) {
        let _ = writeln!(stderr(), "shell: {}", outcome.verdict());
    }
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Copies between the two terminals until all is shown that the program printed, or a signal asks
/// this command to end. Which one is returned.
fn relay(raw: &Raw, mut terminal: Terminal, signals: &Signals) -> io::Result<Option<Signal>> {
    // A program that reads nothing must not keep its output from being shown.
    let flags = OFlag::from_bits_retain(fcntl(&terminal, FcntlArg::F_GETFL)?);
    fcntl(&terminal, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // Nor may a terminal that shows nothing keep a signal from being heard, so that a thread writes.
    let (shown, showing) = io::pipe()?;
    let shows = terminal.try_clone()?;
    std::thread::Builder::new().spawn(move || (show(shows), drop(showing)))?;
    // What was typed, and is not taken yet.
    let mut typed: Vec<u8> = Vec::new();
    loop {
        // More is read when what was typed before is taken.
        let (takes, keys) = match typed.is_empty() {
            true => (PollFlags::empty(), PollFlags::POLLIN),
            false => (PollFlags::POLLOUT, PollFlags::empty()),
        };
        let stdin = stdin();
        let mut fds = [
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
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
        if signalled && let Some(signal) = signals.next()? {
            match signal {
                Signal::SIGWINCH => terminal.resize(size()?)?,
                Signal::SIGTSTP => {
                    raw.leave()?;
                    raise(Signal::SIGSTOP)?;
                    raw.enter()?;
                    terminal.resize(size()?)?;
                }
                signal => return Ok(Some(signal)),
            }
        }
        if ended {
            return Ok(None);
        }
        if types {
            typed = read_keys(stdin.as_fd())?;
            if typed.is_empty() {
                return Ok(Some(Signal::SIGHUP));
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

/// Ends the sandbox, unless the program has ended by itself: first by SIGHUP, which a shell passes on
/// to its jobs.
fn end(mut child: Child, ended_by: &io::Result<Option<Signal>>) -> Result<Outcome, ringfence::Error> {
    if !matches!(ended_by, Ok(None)) {
        // ESRCH: it has just ended.
        let _ = child.signal(Signal::SIGHUP as i32);
        if child.wait_timeout(GRACE)?.is_none() {
            child.kill()?;
        }
    }
    child.wait()
}

/// The signals that mean something to this command, as a descriptor.
struct Signals(SignalFd);

impl Signals {
    fn block() -> io::Result<Signals> {
        let all = [Signal::SIGWINCH, Signal::SIGTSTP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
        let all = all.into_iter().collect::<SigSet>();
        all.thread_block()?;
        Ok(Signals(SignalFd::new(&all)?))
    }

    fn next(&self) -> io::Result<Option<Signal>> {
        let info = self.0.read_signal()?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
    }
}

/// The caller's terminal, which is put back on every way out, a panic included.
struct Raw {
    before: Termios,
}

impl Raw {
    fn of_stdin() -> io::Result<Raw> {
        let before = tcgetattr(stdin()).map_err(|errno| match errno {
            Errno::ENOTTY => io::Error::other("stdin is no terminal"),
            errno => errno.into(),
        })?;
        Ok(Raw { before })
    }

    fn enter(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        Ok(tcsetattr(stdin(), SetArg::TCSANOW, &raw)?)
    }

    fn leave(&self) -> io::Result<()> {
        Ok(tcsetattr(stdin(), SetArg::TCSANOW, &self.before)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // EIO: the terminal is gone, too.
        let _ = self.leave();
    }
}
