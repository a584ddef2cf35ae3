//! A blob on its way to a registry (distribution specification 1.1, "Pushing blobs"): in one request if it is small, else in a
//! stream or in pieces, which go on where they broke off.

use oci_spec::image::Descriptor;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, Url};

use super::failure::{Again, Failure, Subject};
use super::repository::Repository;
use super::upload::Upload;
use super::wire::{Call, Payload};
use crate::error::ErrorKind;

/// A blob up to here takes one request: what is sent once more costs less than asking.
const WHOLE: u64 = 4 << 20;
/// The largest piece for a registry, or a proxy before it, that has refused a larger body (413), and the smallest.
const LARGEST_PIECE: u64 = 16 << 20;
const SMALLEST_PIECE: u64 = 256 << 10;
/// More than this no registry may ask a piece to have.
const LARGEST_MINIMUM: u64 = 1 << 30;

/// An upload that the registry knows of.
#[derive(Debug, Clone)]
pub(super) struct Session {
    place: Url,
    /// How many bytes the registry has.
    pub(super) at: u64,
    /// How many one request may carry, and has to, but for the last.
    piece: u64,
    least: u64,
    /// It takes bodies in one request alone.
    whole: bool,
}

/// What a registry says to a new upload.
enum Begun {
    /// It has the blob, from the repository that was named.
    Mounted,
    At(Session),
}

/// One blob that is to be sent.
pub(super) struct Sending<'s> {
    pub(super) repository: &'s Repository,
    pub(super) subject: &'s Subject,
    pub(super) blob: &'s Descriptor,
    /// Another repository that has it.
    pub(super) source: Option<&'s String>,
    pub(super) upload: &'s Upload,
}

impl Sending<'_> {
    /// Has the registry mount the blob, which is `false`, or sends it. `session` is what an earlier try has left, and is what
    /// this one leaves.
    pub(super) async fn send(&self, session: &mut Option<Session>) -> Result<bool, Failure> {
        let mut own = match session.take() {
            Some(left) => match self.ask(&left).await {
                Err(failure) if failure.again != Again::Never => {
                    *session = Some(left);
                    return Err(failure);
                }
                Ok(Some(own)) => own,
                // It may have been finished all the same.
                _ if exists(self.repository, self.subject, self.blob).await? => return Ok(true),
                _ => match self.begin(None).await? {
                    Begun::Mounted => return Ok(true),
                    Begun::At(own) => own,
                },
            },
            None => match self.begin(self.source).await? {
                Begun::Mounted => return Ok(false),
                Begun::At(own) => own,
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
                // What knows no streams may know no pieces either.
                400 | 404 | 405 | 501 => own.whole = true,
                // It has more or less than was thought: the next try asks.
                416 => {
                    let error = self.subject.error(ErrorKind::Protocol, "it refuses the piece that comes next");
                    return Err(Failure { error, again: Again::Soon });
                }
                status if own.at == size || is_whole => {
                    *session = None;
                    // Others than 201 do not say that it is done.
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

    async fn begin(&self, source: Option<&String>) -> Result<Begun, Failure> {
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
                Some(_) => Ok(Begun::Mounted),
                None if exists(self.repository, self.subject, self.blob).await? => Ok(Begun::Mounted),
                None => Err(self.subject.protocol("it says that it has what it was not sent")),
            };
        }
        let place = self.location(&response)?;
        let place = place.ok_or_else(|| self.subject.protocol("it does not say where the blob is to be sent"))?;
        let told = response.headers().get("oci-chunk-min-length").and_then(|least| least.to_str().ok()?.parse().ok());
        let least = told.unwrap_or(SMALLEST_PIECE).clamp(1, LARGEST_MINIMUM);
        Ok(Begun::At(Session { place, at: 0, piece: u64::MAX, least, whole: false }))
    }

    /// What the registry has of an upload; none if it does not say, or has nothing, which some call `0-0`.
    async fn ask(&self, left: &Session) -> Result<Option<Session>, Failure> {
        let call = Call::new(Method::GET, left.place.clone());
        let response = self.repository.call(self.subject, &call, &[200, 202, 204]).await?;
        let at = received(response.headers()).filter(|at| *at > 1 && *at <= self.blob.size());
        let place = self.location(&response)?.unwrap_or_else(|| left.place.clone());
        Ok(at.map(|at| Session { place, at, ..left.clone() }))
    }

    /// The next piece: the rest, if the registry takes it at once.
    async fn go_on(&self, own: &Session) -> Result<Response, Failure> {
        let rest = self.blob.size() - own.at;
        let count = own.piece.min(rest);
        let mut call = Call::new(Method::PATCH, own.place.clone());
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // A stream of all has no range, as docker sends it.
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

    /// The last request, which names the digest, with the blob if none of it has been sent.
    async fn finish(&self, own: &Session) -> Result<Response, Failure> {
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

    fn smaller(&self, own: &Session) -> Result<Session, Failure> {
        let sent = own.piece.min(self.blob.size() - own.at);
        let piece = (sent / 2).clamp(own.least, LARGEST_PIECE.max(own.least));
        if piece >= sent { Err(self.too_large(sent)) } else { Ok(Session { piece, ..own.clone() }) }
    }

    fn too_large(&self, size: u64) -> Failure {
        let detail = format!("it takes no body of {size} bytes, nor smaller ones");
        let error = self.subject.error(ErrorKind::Unsupported, detail);
        error.hint("raise the limit of bodies of the registry, or of the proxy before it").into()
    }

    fn after_piece(&self, own: &Session, response: &Response) -> Result<Session, Failure> {
        let sent = own.at + own.piece.min(self.blob.size() - own.at);
        let at = received(response.headers()).unwrap_or(sent);
        if at <= own.at || at > sent {
            return Err(self.subject.protocol(format!("it was sent {sent} bytes, and says that it has {at}")));
        }
        let place = self.location(response)?.unwrap_or_else(|| own.place.clone());
        Ok(Session { place, at, ..own.clone() })
    }

    /// Where the blob is to be sent from now on: by the specification it may be anywhere, and credentials then stay here.
    fn location(&self, response: &Response) -> Result<Option<Url>, Failure> {
        let Some(to) = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()) else { return Ok(None) };
        let place = self.repository.wire.plain().judge(response.url(), to);
        place.map(Some).map_err(|why| self.subject.protocol(format!("the place for the blob is refused: {why}")))
    }
}

/// How many bytes the registry says that it has: `Range: 0-LAST`.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0").then(|| last.checked_add(1)).flatten()
}

/// Whether the registry has the blob. One that answers no question about it is taken not to.
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
