//! The body of an upload, which is read in pieces as the connection accepts them, and read anew for
//! each try.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::progress::BETWEEN_EVENTS;

const PIECE: usize = 256 << 10;
/// The speed, in bytes a second, at which a registry must check and store what it has received.
const STORE_SPEED: u64 = 8 << 20;

/// A file to upload.
#[derive(Clone)]
pub(super) struct Upload {
    open: Arc<dyn Fn() -> io::Result<File> + Send + Sync>,
    listener: Arc<dyn Fn(u64) + Send + Sync>,
    size: u64,
    sent: Arc<AtomicU64>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("size", &self.size).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Upload {
    /// Creates an upload. `open` opens the file at its start, once for each try. `listener` is
    /// called repeatedly with the number of bytes sent.
    pub(super) fn new(
        size: u64,
        open: impl Fn() -> io::Result<File> + Send + Sync + 'static,
        listener: impl Fn(u64) + Send + Sync + 'static,
    ) -> Self {
        Upload { open: Arc::new(open), listener: Arc::new(listener), size, sent: Arc::default() }
    }

    /// Returns the part of the upload with `length` bytes from offset `from`. The listener gets the
    /// offset in the whole file.
    pub(super) fn part(&self, from: u64, length: u64) -> Upload {
        let (open, listener) = (self.open.clone(), self.listener.clone());
        let open = move || {
            let mut file = open()?;
            file.seek(io::SeekFrom::Start(from)).map(|_| file)
        };
        Upload::new(length, open, move |sent| listener(from + sent))
    }

    /// Returns the body for one try.
    pub(super) fn body(&self) -> reqwest::Body {
        let (give, pieces) = mpsc::channel(2);
        let (open, size) = (self.open.clone(), self.size);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read(open(), size, |piece| give.blocking_send(Ok(piece)).is_ok()) {
                // Sending fails only after the request has ended.
                let _ = give.blocking_send(Err(error));
            }
        });
        self.sent.store(0, Ordering::Relaxed);
        let told = Instant::now();
        reqwest::Body::wrap(Pieces { pieces, told, upload: self.clone(), left: self.size })
    }

    pub(super) fn stall_monitor(&self, stall: Duration) -> StallMonitor {
        StallMonitor { sent: self.sent.clone(), size: self.size, seen: 0, settled: None, stall }
    }
}

/// Reads `size` bytes, until `give` returns false.
fn read(file: io::Result<File>, size: u64, give: impl Fn(Bytes) -> bool) -> io::Result<()> {
    let mut file = file?.take(size);
    let mut left = size;
    while left > 0 {
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        file.read_exact(&mut piece)?;
        left -= piece.len() as u64;
        if !give(piece.into()) {
            break;
        }
    }
    Ok(())
}

struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    upload: Upload,
    told: Instant,
    left: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces.poll_recv(context).map(|piece| {
            piece.map(|piece| {
                let piece = piece?;
                self.left = self.left.saturating_sub(piece.len() as u64);
                self.upload.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                if self.told.elapsed() >= BETWEEN_EVENTS || self.left == 0 {
                    self.told = Instant::now();
                    (self.upload.listener)(self.upload.size - self.left);
                }
                Ok(Frame::data(piece))
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A monitor that tells whether an upload without a response still makes progress.
pub(super) struct StallMonitor {
    sent: Arc<AtomicU64>,
    size: u64,
    seen: u64,
    settled: Option<Instant>,
    stall: Duration,
}

impl StallMonitor {
    /// Returns true if bytes were sent since the last call, or if the registry may still be storing
    /// what it has received.
    pub(super) fn has_progress(&mut self) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        if sent < self.size {
            return std::mem::replace(&mut self.seen, sent) < sent;
        }
        let since = *self.settled.get_or_insert_with(Instant::now);
        since.elapsed() < self.stall + Duration::from_secs(self.size / STORE_SPEED)
    }
}
