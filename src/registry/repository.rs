//! A repository of a registry: requests with authorization and retries, and the meaning of
//! responses.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use oci_spec::image::Descriptor;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::auth::{Auth, denied};
use super::failure::{Again, Failure, Subject};
use super::progress::{Event, Progress};
use super::wire::{Call, Wire};
use crate::error::{Error, ErrorKind, Result, Step};

/// The largest body of an error response that is read, in bytes.
const LARGEST_EXPLANATION: usize = 64 << 10;
/// The first pause before a retry, which doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The number of retries, and the longest pause that a registry may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    pub(super) count: u32,
    pub(super) longest_wait: Duration,
}

pub(super) struct Repository {
    pub(super) wire: Wire,
    pub(super) auth: Auth,
    pub(super) base: Url,
    /// The registry's host as in references.
    pub(super) host: String,
    /// The name of the repository, without the registry.
    pub(super) name: String,
    pub(super) retries: Retries,
    pub(super) progress: Progress,
    /// The number of bytes of blobs that have arrived so far.
    pub(super) arrived: AtomicU64,
}

impl Repository {
    /// Returns the URL of a resource of the repository: `manifests/1`, `blobs/sha256:…`.
    pub(super) fn url(&self, thing: &str) -> Result<Url> {
        self.base
            .join(&format!("v2/{}/{thing}", self.name))
            .map_err(|error| Error::message(ErrorKind::Invalid, Step::Registry, error.to_string()).at(&self.name))
    }

    /// Returns the name of a blob for error messages.
    pub(super) fn name_of(&self, blob: &Descriptor) -> String {
        format!("{}/{}@{}", self.host, self.name, blob.digest())
    }

    /// Sends a request, and repeats it with an authorization if the registry asks for one. Returns
    /// the response if its status is one of `good`.
    pub(super) async fn call(&self, subject: &Subject, call: &Call, good: &[u16]) -> Result<Response, Failure> {
        // An upload may go to another server, which must not get the credentials.
        let ours = call.url.origin() == self.base.origin();
        let shown = self.auth.current().await.filter(|_| ours);
        let mut response = self.wire.send(subject, call, shown.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED && ours && response.url().origin() == self.base.origin() {
            let new = self.auth.renew(&self.wire, &self.base, response.headers(), shown.as_ref()).await?;
            response = self.wire.send(subject, call, Some(&new)).await?;
        }
        if good.contains(&response.status().as_u16()) {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        // An explanation that does not arrive in time is left out.
        let body = self.wire.flow(response).collect(subject, LARGEST_EXPLANATION).await;
        let mut why = explanation(body.ok().flatten().as_deref().unwrap_or_default());
        if matches!(status.as_u16(), 401 | 403)
            && let Some(fault) = self.auth.fault().await
        {
            why = [why, fault].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        }
        Err(refused(subject, status, &headers, &why))
    }

    /// Repeats `work` until it succeeds, fails permanently, or has failed too often.
    pub(super) async fn persist<T, W>(&self, subject: &Subject, work: impl Fn() -> W) -> Result<T>
    where
        W: Future<Output = Result<T, Failure>>,
    {
        let mut tries = Tries::new(self);
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                Err(failure) => tries.after(subject, failure).await?,
            }
        }
    }
}

/// The tries of one operation.
pub(super) struct Tries<'a> {
    repository: &'a Repository,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(repository: &'a Repository) -> Self {
        Tries { repository, failed: 0 }
    }

    /// Resets the count of failures after progress.
    pub(super) fn forget(&mut self) {
        self.failed = 0;
    }

    /// Waits for the next try, or returns the failure if there is none.
    pub(super) async fn after(&mut self, subject: &Subject, failure: Failure) -> Result<()> {
        let Retries { count, longest_wait } = self.repository.retries;
        let Failure { error, again } = failure;
        let wait = match again {
            Again::Never => return Err(error),
            _ if self.failed >= count => return Err(error),
            Again::After(wait) if wait > longest_wait => {
                return Err(error.hint(format!("the registry asks to wait for {wait:?}: more than longest_wait")));
            }
            Again::After(wait) => wait,
            Again::Soon => own_wait(self.failed).min(longest_wait),
        };
        self.failed += 1;
        let name = subject.name.clone();
        self.repository.progress.tell(|| Event::Retry { name, attempt: self.failed, wait, reason: error.to_string() });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Returns a pause that doubles each time, less a random part of up to a half, so that many clients
/// do not return at the same time.
fn own_wait(failed: u32) -> Duration {
    let whole = FIRST_WAIT.saturating_mul(1 << failed.min(10)).min(LONGEST_WAIT);
    let random = RandomState::new().hash_one(failed) % 512;
    whole - whole.mul_f64(random as f64 / 1024.0)
}

/// Returns the failure for a response with an unexpected status.
pub(super) fn refused(subject: &Subject, status: StatusCode, headers: &HeaderMap, explanation: &str) -> Failure {
    let detail = if explanation.is_empty() { status.to_string() } else { format!("{status}: {explanation}") };
    let later = || {
        let again = retry_after(headers, SystemTime::now()).map_or(Again::Soon, Again::After);
        let error = subject.error(ErrorKind::Unavailable, detail.clone()).hint("the registry has trouble: try later");
        Failure { error, again }
    };
    match status.as_u16() {
        401 | 403 => denied(subject, detail),
        404 => subject.error(ErrorKind::NotFound, detail).hint("is the name right, and may you see it?").into(),
        408 | 429 | 500 | 502..=504 => later(),
        _ => subject.protocol(detail),
    }
}

/// Parses `Retry-After`, which has seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[derive(Deserialize)]
struct Explanation {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    code: String,
    message: Option<String>,
}

/// Returns the first reason in the body of an error (OCI distribution specification, "Error
/// Codes"), in one line without control characters.
fn explanation(body: &[u8]) -> String {
    let Ok(Explanation { errors }) = serde_json::from_slice(body) else { return String::new() };
    let Some(Reason { code, message }) = errors.into_iter().next() else { return String::new() };
    let text = message.filter(|text| !text.is_empty()).map_or(code.clone(), |text| format!("{code} ({text})"));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
        };
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(of("Sun, 06 Nov 1994 08:40:37 GMT"), Some(Duration::ZERO), "a date that is over");
        assert_eq!(of("soon"), None);
        assert_eq!(of("-1"), None);
        assert_eq!(of("18446744073709551616"), None);
    }

    #[test]
    fn an_explanation_is_one_short_harmless_line() {
        let of = |text: &str| explanation(text.as_bytes());
        assert_eq!(of(r#"{"errors":[{"code":"DENIED","message":"no\u001b[2J"}]}"#), "DENIED (no [2J)");
        assert_eq!(of(r#"{"errors":[{"code":"DENIED"}]}"#), "DENIED");
        assert_eq!(of(r#"{"errors":[]}"#), "");
        assert_eq!(of("<html>"), "");
        assert_eq!(of(&format!(r#"{{"errors":[{{"code":"{}"}}]}}"#, "x".repeat(9000))).len(), 200);
    }

    #[test]
    fn waits_grow_and_end_growing() {
        for failed in 0..40 {
            let whole = Duration::from_millis(200).saturating_mul(1 << failed.min(10)).min(LONGEST_WAIT);
            let wait = own_wait(failed);
            assert!(wait <= whole && wait >= whole / 2, "{failed}: {wait:?}");
        }
    }
}
