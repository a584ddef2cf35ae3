//! A repository of a registry: requests with authorization and retries.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use oci_spec::image::Descriptor;
use reqwest::{Response, StatusCode, Url};

use super::auth::Auth;
use super::failure::{Failure, Retry, Subject};
use super::http::{Call, HttpClient};
use super::progress::{Event, Progress};
use super::response::{explanation, refused};
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
    pub(super) http: HttpClient,
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
        let mut response = self.http.send(subject, call, shown.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED && ours && response.url().origin() == self.base.origin() {
            let new = self.auth.renew(&self.http, &self.base, response.headers(), shown.as_ref()).await?;
            response = self.http.send(subject, call, Some(&new)).await?;
        }
        if good.contains(&response.status().as_u16()) {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        // An explanation that does not arrive in time is left out.
        let body = self.http.body(response).collect(subject, LARGEST_EXPLANATION).await;
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
        let Failure { error, retry } = failure;
        let wait = match retry {
            Retry::Never => return Err(error),
            _ if self.failed >= count => return Err(error),
            Retry::After(wait) if wait > longest_wait => {
                return Err(error.hint(format!("the registry asks to wait for {wait:?}: more than longest_wait")));
            }
            Retry::After(wait) => wait,
            Retry::Soon => own_wait(self.failed).min(longest_wait),
        };
        self.failed += 1;
        let name = subject.name.clone();
        self.repository.progress.send(|| Event::Retry { name, attempt: self.failed, wait, reason: error.to_string() });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_growing() {
        for failed in 0..40 {
            let whole = Duration::from_millis(200).saturating_mul(1 << failed.min(10)).min(LONGEST_WAIT);
            let wait = own_wait(failed);
            assert!(wait <= whole && wait >= whole / 2, "{failed}: {wait:?}");
        }
    }
}
