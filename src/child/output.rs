//! Collects the output of a program, within a limit.

use std::io::{ErrorKind as IoErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Child, Output, Terminal};
use crate::error::{Error, Result, Step};

/// The number of reads from one stream before the other stream has its turn. A flood on one stream
/// does not delay the other.
const TURNS: usize = 16;
/// A number of reads that empties even the largest pipe.
const TURNS_FOR_ALL: usize = 4096;

/// A stream that is read into memory.
struct Capture<R> {
    stream: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Capture<R> {
    fn new(stream: Option<R>) -> Result<Self> {
        if let Some(stream) = &stream {
            let set = |fd: BorrowedFd<'_>| {
                let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
                fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
            };
            set(stream.as_fd()).map_err(|errno| Error::new(Step::Output, errno))?;
        }
        Ok(Capture { stream, bytes: Vec::new() })
    }

    /// Returns the stream as one of those to wait for, if it has not ended.
    fn poll_fd(&self) -> Option<PollFd<'_>> {
        self.stream.as_ref().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN))
    }

    /// Reads what is available, with at most this number of reads.
    fn drain(&mut self, turns: usize) -> Result<()> {
        let mut chunk = [0; 16 << 10];
        for _ in 0..turns {
            let Some(stream) = &mut self.stream else { break };
            match stream.read(&mut chunk) {
                Ok(0) => self.stream = None,
                Ok(n) => self.bytes.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == IoErrorKind::WouldBlock => break,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(Step::Output, &error)),
            }
        }
        Ok(())
    }
}

/// # Collecting the output
impl Child {
    /// Closes the program's stdin, waits for the end of the program, and collects what the program
    /// writes to the streams that were piped. Output to a terminal of its own
    /// ([`Stdio::pty`](crate::Stdio::pty)) counts as stdout, and the terminal is typed an end of
    /// file instead of being closed.
    ///
    /// Beyond [`output_limit`](crate::Sandbox::output_limit) everything in the sandbox is killed,
    /// and the output up to then is kept. A descendant that holds a pipe open after the end of the
    /// sandbox does not delay this call.
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// use ringfence::{Sandbox, Stdio};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let wc = Sandbox::new().command("wc").arg("-c");
    /// let mut child = wc.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    /// child.stdin.as_mut().ok_or("no pipe")?.write_all(b"four")?;
    /// let output = child.wait_with_output()?;
    /// assert_eq!(output.stdout.trim_ascii(), b"4");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`wait`](Child::wait).
    pub fn wait_with_output(mut self) -> Result<Output> {
        drop((self.stdin.take(), self.notifications.take()));
        let mut stdout = Capture::new(self.stdout.take())?;
        let mut terminal = Capture::new(self.terminal.take())?;
        terminal.stream.iter().for_each(Terminal::type_end_of_file);
        let mut stderr = Capture::new(self.stderr.take())?;
        let shared = self.shared()?.clone();
        shared.attend();
        loop {
            // The check comes before the pipes are emptied: then the pipes hold everything that was
            // written before the end.
            let ended = shared.wait(Some(Instant::now()))?.is_some();
            let turns = if ended { TURNS_FOR_ALL } else { TURNS };
            stdout.drain(turns)?;
            terminal.drain(turns)?;
            stderr.drain(turns)?;
            if ended || self.meter.as_ref().is_some_and(|meter| meter.has_ended_program()) {
                break;
            }
            let streams = [stdout.poll_fd(), terminal.poll_fd(), stderr.poll_fd()];
            wait_for_more(streams, shared.pidfd())?;
        }
        let outcome = self.wait()?;
        let truncated = self.meter.as_ref().is_some_and(|meter| meter.is_over());
        stdout.bytes.append(&mut terminal.bytes);
        Ok(Output { outcome, stdout: stdout.bytes, stderr: stderr.bytes, truncated, denials: self.denials() })
    }
}

fn wait_for_more(streams: [Option<PollFd<'_>>; 3], pidfd: BorrowedFd<'_>) -> Result<()> {
    let mut fds = vec![PollFd::new(pidfd, PollFlags::POLLIN)];
    fds.extend(streams.into_iter().flatten());
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Error::new(Step::Output, errno)),
    }
}
