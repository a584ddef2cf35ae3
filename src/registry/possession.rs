//! Verifies that a registry has a blob that the store has, as a tenant must not get what another
//! tenant has pulled for a digest alone.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, SeekFrom};

use oci_spec::image::Descriptor;
use reqwest::Method;
use reqwest::header::{HeaderValue, RANGE};

use super::download::{blocking, starts_at};
use super::failure::{Failure, Subject};
use super::http::Call;
use super::repository::Repository;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::Store;

/// The number of bytes that are compared. They arrive with the first packets of the response.
const PIECE: u64 = 16 << 10;

/// Downloads a random piece of the blob, and compares it with the store's. A 200 answer to a `HEAD`
/// request proves nothing, as a hostile registry can send it for every digest.
pub(super) async fn prove(repository: &Repository, store: &Store, blob: &Descriptor) -> Result<()> {
    let subject = &Subject::new(Step::PullBlob, repository.name_of(blob));
    let length = PIECE.min(blob.size());
    let start = RandomState::new().hash_one(blob.size()) % (blob.size() - length + 1);
    let (own, digest) = (store.clone(), blob.digest().clone());
    let read = move || -> Result<Vec<u8>> {
        let failed = |error: &std::io::Error| Error::io(Step::ReadBlob, error).with_kind(ErrorKind::Store);
        let gone = || Error::message(ErrorKind::NotFound, Step::ReadBlob, "it is gone from the store");
        let mut file = own.blob(&digest)?.ok_or_else(gone)?;
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(start)).map_err(|error| failed(&error))?;
        file.take(length).read_to_end(&mut piece).map_err(|error| failed(&error))?;
        Ok(piece)
    };
    let piece = &blocking(subject, read).await??;
    repository.persist(subject, || compare(repository, subject, blob, start, piece)).await
}

async fn compare(
    repository: &Repository,
    subject: &Subject,
    blob: &Descriptor,
    start: u64,
    piece: &[u8],
) -> Result<(), Failure> {
    let mut call = Call::new(Method::GET, repository.url(&format!("blobs/{}", blob.digest()))?);
    if piece.len() as u64 != blob.size() {
        let range = HeaderValue::from_str(&format!("bytes={start}-{}", start + piece.len() as u64 - 1));
        call.headers.insert(RANGE, range.map_err(|error| subject.protocol(error.to_string()))?);
    }
    let response = repository.call(subject, &call, &[200, 206]).await?;
    let mut skip = match response.status().as_u16() {
        200 => start,
        _ if starts_at(response.headers()).is_none_or(|told| told == start) => 0,
        _ => return Err(subject.protocol("the registry sends a part that was not asked for")),
    };
    let (mut flow, mut left) = (repository.http.body(response), piece);
    while !left.is_empty() {
        let Some(mut came) = flow.next(subject).await? else {
            return Err(subject.broken(format!("it ends {} bytes too early", left.len())));
        };
        let known = usize::try_from(skip).unwrap_or(usize::MAX).min(came.len());
        skip -= known as u64;
        let came = came.split_off(known);
        let (now, later) = left.split_at(came.len().min(left.len()));
        if !came.starts_with(now) {
            return Err(other(subject));
        }
        left = later;
    }
    Ok(())
}

fn other(subject: &Subject) -> Failure {
    let error = subject.error(ErrorKind::Corrupt, "the registry sends bytes that do not have this digest");
    error.hint("the registry sends bytes that differ from its manifest").into()
}
