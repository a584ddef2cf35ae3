//! Collects the output of a program within a task.

use std::io::{self, ErrorKind as IoErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::stream::AsyncOutputStream;

const CHUNK: usize = 16 << 10;
/// The number of reads from one stream before the other stream, and other tasks, have their turn.
const TURNS: usize = 16;
/// A number of reads that empties even the largest pipe.
const TURNS_FOR_ALL: usize = 4096;

/// A stream that is read into memory.
#[derive(Debug)]
pub(super) struct Capture {
    stream: Option<AsyncOutputStream>,
    pub(super) bytes: Vec<u8>,
}

impl Capture {
    pub(super) fn new(stream: Option<AsyncOutputStream>) -> Self {
        Capture { stream, bytes: Vec::new() }
    }

    /// Reads what is available. Returns true if there may be more, and false if the task is woken
    /// when there is.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        for _ in 0..TURNS {
            let Some(stream) = &mut self.stream else { return Ok(false) };
            let mut buffer = ReadBuf::new(&mut chunk);
            match Pin::new(stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => result?,
            }
            match buffer.filled() {
                [] => self.stream = None,
                bytes => self.bytes.extend_from_slice(bytes),
            }
        }
        Ok(true)
    }

    /// Reads what is in the pipe after the end of the program, and does not wait. The reactor may
    /// hear of the end before it hears of the last bytes.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        for _ in 0..TURNS_FOR_ALL {
            let Some(stream) = &mut self.stream else { break };
            match stream.read_now(&mut chunk) {
                Ok(Some(0)) => self.stream = None,
                Ok(Some(count)) => self.bytes.extend_from_slice(&chunk[..count]),
                Ok(None) => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => break,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
