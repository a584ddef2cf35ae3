//! Downloads one blob into the store, and continues after interruptions.

use std::io::{self, Write as _};
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use oci_spec::image::Descriptor;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::failure::{Failure, Subject};
use super::http::Call;
use super::progress::{BETWEEN_EVENTS, Event, Progress};
use super::repository::{Repository, Tries};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::{BlobWriter, Store};

/// The number of bytes of progress after which earlier failures no longer count.
const PROGRESS_BYTES: u64 = 1 << 20;
/// The number of pieces between the connection and the disk. A piece has some 10 to 400 KiB.
const IN_FLIGHT: usize = 8;

/// Downloads a blob into the store, unless the store has it. Returns the number of bytes that came
/// over the network.
pub(super) async fn download(repository: &Repository, store: &Store, blob: &Descriptor) -> Result<u64> {
    let subject = Subject::new(Step::PullBlob, repository.name_of(blob));
    let (mut moved, mut second) = (0, false);
    loop {
        let Some(writer) = begin(store, blob).await? else { return Ok(moved) };
        let mut fetch =
            Fetch { repository, subject: &subject, blob, moved: 0, pieces: 0, tries: Tries::new(repository) };
        fetch.pieces += u32::from(writer.written() > 0);
        let writer = fetch.whole(writer).await?;
        moved += fetch.moved;
        match blocking(&subject, move || writer.commit()).await? {
            Ok(()) => return Ok(moved),
            // The part that another writer left may have been wrong. The store has removed all of
            // it.
            Err(error) if error.kind() == ErrorKind::Corrupt && fetch.pieces > 1 && !second => second = true,
            Err(error) => return Err(error.hint("the registry sends bytes that differ from its manifest")),
        }
    }
}

/// Returns a writer for the blob, or `None` if the store has the blob, perhaps from another writer.
async fn begin(store: &Store, blob: &Descriptor) -> Result<Option<BlobWriter>> {
    let subject = Subject::new(Step::PullBlob, blob.digest().to_string());
    let (store, blob) = (store.clone(), blob.clone());
    blocking(&subject, move || store.write_blob(&blob)).await?
}

/// Runs a function that waits for disks or locks on a thread where it blocks no other task.
pub(super) async fn blocking<T: Send + 'static>(
    subject: &Subject,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(|task_failed| subject.error(ErrorKind::Setup, task_failed.to_string()))
}

struct Fetch<'a> {
    repository: &'a Repository,
    subject: &'a Subject,
    blob: &'a Descriptor,
    moved: u64,
    /// The number of responses that the blob consists of.
    pieces: u32,
    tries: Tries<'a>,
}

impl Fetch<'_> {
    /// Sends requests until the writer has all bytes.
    async fn whole(&mut self, mut writer: BlobWriter) -> Result<BlobWriter> {
        loop {
            let from = writer.written();
            let result;
            (writer, result) = self.attempt(writer).await?;
            let got = writer.written() - from;
            if got >= PROGRESS_BYTES {
                self.tries.forget();
            }
            match result {
                Ok(()) => return Ok(writer),
                Err(failure) => self.tries.after(self.subject, failure).await?,
            }
        }
    }

    /// Sends one request for the missing bytes. Returns the writer in every case.
    async fn attempt(&mut self, writer: BlobWriter) -> Result<(BlobWriter, Result<(), Failure>)> {
        let from = writer.written();
        self.send_moved(from);
        if from == self.blob.size() {
            return Ok((writer, Ok(())));
        }
        let (response, skip) = match self.request(from).await {
            Ok(answer) => answer,
            Err(failure) => return Ok((writer, Err(failure))),
        };
        self.pieces += 1;
        let mut sink = Sink::new(writer);
        let fetched = self.pump(response, skip, from, &mut sink).await;
        let (writer, written) = sink.finish(self.subject).await?;
        // An error of the disk comes first, as other errors follow from it.
        let result =
            written.map_err(|error| Error::from_io(Step::WriteBlob, ErrorKind::Store, error).into()).and(fetched);
        Ok((writer, result))
    }

    /// Sends the request. Returns the response, and the number of its bytes that the writer already
    /// has.
    async fn request(&self, from: u64) -> Result<(Response, u64), Failure> {
        let mut call = Call::new(Method::GET, self.repository.url(&format!("blobs/{}", self.blob.digest()))?);
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            call.headers.insert(RANGE, range.map_err(|error| self.subject.protocol(error.to_string()))?);
        }
        let mut response = self.repository.call(self.subject, &call, &[200, 206, 416]).await?;
        if response.status() == 416 && from > 0 {
            call.headers.remove(RANGE);
            response = self.repository.call(self.subject, &call, &[200]).await?;
        }
        let skip = match response.status().as_u16() {
            200 => from,
            206 if from > 0 && starts_at(response.headers()).is_none_or(|start| start == from) => 0,
            206 => return Err(self.subject.protocol("the registry sends a part that was not asked for")),
            status => return Err(self.subject.protocol(format!("it answers {status} to no range at all"))),
        };
        let rest = self.blob.size() - from + skip;
        match length(response.headers()).filter(|told| *told != rest) {
            Some(told) => {
                Err(self.subject.protocol(format!("the registry announces {told} bytes, but {rest} are expected")))
            }
            None => Ok((response, skip)),
        }
    }

    /// Passes the body on to the writer, without its first `skip` bytes.
    async fn pump(&mut self, response: Response, skip: u64, from: u64, sink: &mut Sink) -> Result<(), Failure> {
        let (mut flow, mut skip, mut done) = (self.repository.http.body(response), skip, from);
        let mut told = Instant::now();
        while let Some(mut piece) = flow.next(self.subject).await? {
            self.moved += piece.len() as u64;
            self.repository.arrived.fetch_add(piece.len() as u64, Ordering::Relaxed);
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= known as u64;
            let piece = piece.split_off(known);
            done += piece.len() as u64;
            if done > self.blob.size() {
                let detail = format!("it sends more than the {} bytes of the blob", self.blob.size());
                return Err(self.subject.protocol(detail));
            }
            if !piece.is_empty() && !sink.take(piece).await {
                return Ok(());
            }
            if told.elapsed() >= BETWEEN_EVENTS {
                told = Instant::now();
                self.send_moved(done);
            }
        }
        if done < self.blob.size() {
            return Err(self.subject.broken(format!("it ends after {done} of {} bytes", self.blob.size())));
        }
        self.send_moved(done);
        Ok(())
    }

    fn send_moved(&self, done: u64) {
        send_moved(&self.repository.progress, self.blob, done);
    }
}

pub(super) fn send_moved(progress: &Progress, blob: &Descriptor, done: u64) {
    progress.send(|| Event::Moved { digest: blob.digest().to_string(), done, size: blob.size() });
}

/// Returns the first byte of a `Content-Range: bytes FIRST-LAST/ALL` header.
pub(super) fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The writer on a thread that may wait for the disk. If this value is dropped, the thread ends,
/// and the bytes written so far stay.
struct Sink {
    give: Option<mpsc::Sender<Bytes>>,
    thread: JoinHandle<(BlobWriter, io::Result<()>)>,
}

impl Sink {
    fn new(mut writer: BlobWriter) -> Self {
        let (give, mut pieces) = mpsc::channel::<Bytes>(IN_FLIGHT);
        let thread = spawn_blocking(move || {
            while let Some(piece) = pieces.blocking_recv() {
                if let Err(error) = writer.write_all(&piece) {
                    return (writer, Err(error));
                }
            }
            (writer, Ok(()))
        });
        Sink { give: Some(give), thread }
    }

    /// Passes a piece to the writer. Returns false if the writer has failed; `finish` then returns
    /// the error.
    async fn take(&mut self, piece: Bytes) -> bool {
        match &self.give {
            Some(give) => give.send(piece).await.is_ok(),
            None => false,
        }
    }

    async fn finish(mut self, subject: &Subject) -> Result<(BlobWriter, io::Result<()>)> {
        self.give = None;
        self.thread.await.map_err(|task_failed| subject.error(ErrorKind::Setup, task_failed.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_where_it_starts() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_static(text));
            starts_at(&headers)
        };
        assert_eq!(of("bytes 7-9/10"), Some(7));
        assert_eq!(of("bytes 0-9/*"), Some(0));
        assert_eq!(of("bytes */10"), None);
        assert_eq!(of("lines 1-2/3"), None);
    }
}
