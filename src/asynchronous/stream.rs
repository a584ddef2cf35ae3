//! The caller's ends of a program's pipes, for tasks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::process::ChildStdin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::child::{Meter, OutputStream};

/// The number of reads that are thrown away before another task has its turn.
const TURNS: usize = 16;

/// The writing end of a program's stdin, for tasks. `shutdown` closes it, and so does a drop: the
/// program then reads the end of its input.
#[derive(Debug)]
pub struct AsyncStdin {
    pipe: Option<Sender>,
}

impl AsyncStdin {
    pub(super) fn new(stdin: ChildStdin) -> io::Result<AsyncStdin> {
        Ok(AsyncStdin { pipe: Some(Sender::from_owned_fd(stdin.into())?) })
    }

    fn pipe(&mut self) -> io::Result<Pin<&mut Sender>> {
        self.pipe.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncWrite for AsyncStdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pipe()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pipe()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe = None;
        Poll::Ready(Ok(()))
    }
}

/// The reading end of a program's stdout or stderr, for tasks.
///
/// The stream counts what is read as [`OutputStream`] does: beyond
/// [`output_limit`](crate::Sandbox::output_limit) everything in the sandbox is killed and the
/// stream ends. With [`output_cut`](crate::Sandbox::output_cut), the rest is read and thrown away
/// instead.
#[derive(Debug)]
pub struct AsyncOutputStream {
    pipe: Receiver,
    meter: Option<Arc<Meter>>,
}

impl AsyncOutputStream {
    pub(super) fn new(stream: OutputStream) -> io::Result<AsyncOutputStream> {
        let (pipe, meter) = stream.into_parts();
        Ok(AsyncOutputStream { pipe: Receiver::from_owned_fd(pipe)?, meter })
    }

    /// Returns true if this stream and the other one together received more than
    /// [`output_limit`](crate::Sandbox::output_limit) allows.
    pub fn is_truncated(&self) -> bool {
        self.meter.as_ref().is_some_and(|meter| meter.is_over())
    }

    /// Counts bytes that were read, and returns how many may be passed on. `None` means that the
    /// next read may bring some.
    fn pass(&self, count: usize) -> Option<usize> {
        match &self.meter {
            Some(meter) if count > 0 => meter.pass(count),
            _ => Some(count),
        }
    }

    /// Reads what is in the pipe, whether or not the reactor has heard of it. Returns `None` for
    /// bytes that were thrown away.
    pub(super) fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(self.pass(nix::unistd::read(&self.pipe, buffer)?))
    }
}

impl AsyncRead for AsyncOutputStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        for _ in 0..TURNS {
            ready!(Pin::new(&mut self.pipe).poll_read(cx, buffer))?;
            let kept = self.pass(buffer.filled().len() - before);
            buffer.set_filled(before + kept.unwrap_or(0));
            if kept.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsFd for AsyncOutputStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
