//! Uploads a blob (OCI distribution specification 1.1, "Pushing blobs"): in one request if it is
//! small, or else as a stream or in chunks, continuing after interruptions.

use oci_spec::image::Descriptor;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, Url};

use super::failure::{Failure, Retry, Subject};
use super::http::{Call, Payload};
use super::repository::Repository;
use super::upload::Upload;
use crate::error::ErrorKind;

/// The largest blob that is sent in one request, in bytes. Sending it again costs less than asking
/// for the state.
const WHOLE: u64 = 4 << 20;
/// The largest and the smallest chunk, in bytes, for a registry that has refused a larger body
/// (413), or a proxy that has.
const LARGEST_PIECE: u64 = 16 << 20;
const SMALLEST_PIECE: u64 = 256 << 10;
/// The largest minimum size of a chunk, in bytes, that a registry may ask for.
const LARGEST_MINIMUM: u64 = 1 << 30;

/// An upload session of the registry.
#[derive(Debug, Clone)]
pub(super) struct UploadSession {
    place: Url,
    /// The number of bytes that the registry has.
    pub(super) at: u64,
    /// The number of bytes in one request: the largest number and, except for the last request, the
    /// smallest.
    piece: u64,
    least: u64,
    /// True if the registry accepts the blob in one request only.
    whole: bool,
}

/// The answer of a registry to a new upload.
enum UploadStart {
    /// The registry has mounted the blob from the named repository.
    Mounted,
    At(UploadSession),
}

/// A blob to upload.
pub(super) struct BlobUpload<'s> {
    pub(super) repository: &'s Repository,
    pub(super) subject: &'s Subject,
    pub(super) blob: &'s Descriptor,
    /// Another repository that has the blob.
    pub(super) source: Option<&'s String>,
    pub(super) upload: &'s Upload,
}

impl BlobUpload<'_> {
    /// Uploads the blob and returns true, or has the registry mount it and returns false. `session`
    /// is the session of an earlier try, and afterwards that of this one.
    pub(super) async fn send(&self, session: &mut Option<UploadSession>) -> Result<bool, Failure> {
        let mut own = match session.take() {
            Some(left) => match self.ask(&left).await {
                Err(failure) if failure.retry != Retry::Never => {
                    *session = Some(left);
                    return Err(failure);
                }
                Ok(Some(own)) => own,
                // The upload may have been completed all the same.
                _ if exists(self.repository, self.subject, self.blob).await? => return Ok(true),
                _ => match self.begin(None).await? {
                    UploadStart::Mounted => return Ok(true),
                    UploadStart::At(own) => own,
                },
            },
            None => match self.begin(self.source).await? {
                UploadStart::Mounted => return Ok(false),
                UploadStart::At(own) => own,
            },
        };
        let size = self.blob.size();
        loop {
            *session = Some(own.clone());
            let is_whole = own.at == 0 && (own.whole || size <= WHOLE.min(own.piece));
            let response = if own.at == size || is_whole { self.finish(&own).await? } else { self.go_on(&own).await? };
            match response.status().as_u16() {
                413 if own.whole => return Err(self.too_large(size)),
                413 => own = self.smaller(&own)?,
                // A registry that does not support streams may not support chunks either.
                400 | 404 | 405 | 501 => own.whole = true,
                // The registry has more or fewer bytes than expected: the next try asks for the
                // state.
                416 => {
                    let error = self.subject.error(ErrorKind::Protocol, "the registry refuses the next chunk");
                    return Err(Failure { error, retry: Retry::Soon });
                }
                status if own.at == size || is_whole => {
                    *session = None;
                    // A status other than 201 does not mean that the upload is complete.
                    let done = status == 201 || exists(self.repository, self.subject, self.blob).await?;
                    return if done {
                        Ok(true)
                    } else {
                        Err(self.subject.protocol("it took the blob, and has it not"))
                    };
                }
                _ => own = self.after_piece(&own, &response)?,
            }
        }
    }

    async fn begin(&self, source: Option<&String>) -> Result<UploadStart, Failure> {
        let mut url = self.repository.url("blobs/uploads/")?;
        if let Some(source) = source {
            let digest = self.blob.digest().to_string();
            url.query_pairs_mut().append_pair("mount", &digest).append_pair("from", source);
        }
        let mut call = Call::new(Method::POST, url);
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.repository.call(self.subject, &call, &[200, 201, 202]).await?;
        if response.status() == 201 {
            return match source {
                Some(_) => Ok(UploadStart::Mounted),
                None if exists(self.repository, self.subject, self.blob).await? => Ok(UploadStart::Mounted),
                None => Err(self.subject.protocol("the registry says that it has a blob that was not sent")),
            };
        }
        let place = self.location(&response)?;
        let place = place.ok_or_else(|| self.subject.protocol("the registry does not say where to send the blob"))?;
        let told = response.headers().get("oci-chunk-min-length").and_then(|least| least.to_str().ok()?.parse().ok());
        let least = told.unwrap_or(SMALLEST_PIECE).clamp(1, LARGEST_MINIMUM);
        Ok(UploadStart::At(UploadSession { place, at: 0, piece: u64::MAX, least, whole: false }))
    }

    /// Asks for the state of an upload. Returns `None` if the registry does not say, or has
    /// nothing, which some registries write as `0-0`.
    async fn ask(&self, left: &UploadSession) -> Result<Option<UploadSession>, Failure> {
        let call = Call::new(Method::GET, left.place.clone());
        let response = self.repository.call(self.subject, &call, &[200, 202, 204]).await?;
        let at = received(response.headers()).filter(|at| *at > 1 && *at <= self.blob.size());
        let place = self.location(&response)?.unwrap_or_else(|| left.place.clone());
        Ok(at.map(|at| UploadSession { place, at, ..left.clone() }))
    }

    /// Sends the next chunk: all the rest if the registry accepts it at once.
    async fn go_on(&self, own: &UploadSession) -> Result<Response, Failure> {
        let rest = self.blob.size() - own.at;
        let count = own.piece.min(rest);
        let mut call = Call::new(Method::PATCH, own.place.clone());
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // A stream of the whole blob has no range, as in docker.
        if own.at > 0 || count < rest {
            let range = HeaderValue::from_str(&format!("{}-{}", own.at, own.at + count - 1));
            let range = range.map_err(|error| self.subject.error(ErrorKind::Protocol, error.to_string()))?;
            call.headers.insert(CONTENT_RANGE, range);
        }
        call.payload = Payload::Blob(self.upload.part(own.at, count));
        let mut good = vec![200, 201, 202, 204, 413, 416];
        if own.at == 0 && own.piece == u64::MAX {
            good.extend([400, 404, 405, 501]);
        }
        self.repository.call(self.subject, &call, &good).await
    }

    /// Sends the last request, which names the digest. It includes the blob if none of it has been
    /// sent.
    async fn finish(&self, own: &UploadSession) -> Result<Response, Failure> {
        let mut place = own.place.clone();
        place.query_pairs_mut().append_pair("digest", self.blob.digest().as_ref());
        let mut call = Call::new(Method::PUT, place);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if own.at == 0 {
            call.payload = Payload::Blob(self.upload.clone());
        } else {
            call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        self.repository.call(self.subject, &call, &[200, 201, 202, 204, 413, 416]).await
    }

    fn smaller(&self, own: &UploadSession) -> Result<UploadSession, Failure> {
        let sent = own.piece.min(self.blob.size() - own.at);
        let piece = (sent / 2).clamp(own.least, LARGEST_PIECE.max(own.least));
        if piece >= sent { Err(self.too_large(sent)) } else { Ok(UploadSession { piece, ..own.clone() }) }
    }

    fn too_large(&self, size: u64) -> Failure {
        let detail = format!("the registry accepts neither a body of {size} bytes nor smaller ones");
        let error = self.subject.error(ErrorKind::Unsupported, detail);
        error.hint("raise the limit on request bodies in the registry, or in the proxy before it").into()
    }

    fn after_piece(&self, own: &UploadSession, response: &Response) -> Result<UploadSession, Failure> {
        let sent = own.at + own.piece.min(self.blob.size() - own.at);
        let at = received(response.headers()).unwrap_or(sent);
        if at <= own.at || at > sent {
            return Err(self
                .subject
                .protocol(format!("the registry was sent {sent} bytes, but says that it has {at}")));
        }
        let place = self.location(response)?.unwrap_or_else(|| own.place.clone());
        Ok(UploadSession { place, at, ..own.clone() })
    }

    /// Returns the URL for the next request. By the specification it may be on another server,
    /// which does not get the credentials.
    fn location(&self, response: &Response) -> Result<Option<Url>, Failure> {
        let Some(to) = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()) else { return Ok(None) };
        let place = self.repository.http.plain().resolve_redirect(response.url(), to);
        place.map(Some).map_err(|why| self.subject.protocol(format!("the URL for the blob is refused: {why}")))
    }
}

/// Returns the number of bytes that the registry has: `Range: 0-LAST`.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0").then(|| last.checked_add(1)).flatten()
}

/// Returns true if the registry has the blob. A registry that does not answer the question counts
/// as not having the blob.
pub(super) async fn exists(repository: &Repository, subject: &Subject, blob: &Descriptor) -> Result<bool, Failure> {
    let url = repository.url(&format!("blobs/{}", blob.digest()))?;
    let refused = [403, 405, 501];
    let response = repository.call(subject, &Call::new(Method::HEAD, url.clone()), &[200, 404, 403, 405, 501]).await?;
    if !refused.contains(&response.status().as_u16()) {
        return Ok(response.status() == 200);
    }
    let mut call = Call::new(Method::GET, url);
    call.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
    let response = repository.call(subject, &call, &[200, 206, 416, 404, 403, 405, 501]).await?;
    Ok(matches!(response.status().as_u16(), 200 | 206 | 416))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_how_much_there_is() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_str(text).unwrap());
            received(&headers)
        };
        assert_eq!((of("0-9"), of("bytes=0-9"), of("0-0")), (Some(10), Some(10), Some(1)));
        for text in ["", "0", "1-9", "0-", "-9", "0-x", "0--1", "0-18446744073709551615", "0-99999999999999999999"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(received(&HeaderMap::new()), None);
    }
}
