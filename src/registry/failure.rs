//! Failures of one HTTP exchange, and whether another try may succeed.

use std::error::Error as Cause;
use std::io;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Step};

/// A failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) retry: Retry,
}

/// The time of the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    /// After a pause that this library chooses.
    Soon,
    /// After the pause that the registry asks for.
    After(Duration),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, retry: Retry::Never }
    }
}

/// The operation and its object, which all errors of one exchange have in common.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) step: Step,
    pub(super) name: String,
}

impl Subject {
    pub(super) fn new(step: Step, name: impl Into<String>) -> Self {
        Subject { step, name: name.into() }
    }

    pub(super) fn error(&self, kind: ErrorKind, detail: impl Into<String>) -> Error {
        Error::message(kind, self.step, detail).at(&self.name)
    }

    /// Returns a failure for a registry that violates the protocol, which is not retried.
    pub(super) fn protocol(&self, detail: impl Into<String>) -> Failure {
        self.error(ErrorKind::Protocol, detail).hint("this registry cannot be used as it is").into()
    }

    /// Returns a failure for a peer that was silent for too long.
    pub(super) fn stalled(&self, after: Duration) -> Failure {
        let detail = format!("the registry was silent, or almost silent, for {after:?}");
        let error = self.error(ErrorKind::Timeout, detail).hint("try later, or raise stall_timeout");
        Failure { error, retry: Retry::Soon }
    }

    /// Returns a failure for a connection that broke or could not be established.
    pub(super) fn broken(&self, detail: impl Into<String>) -> Failure {
        let error = self.error(ErrorKind::Unavailable, detail).hint("is the registry running, and its name correct?");
        Failure { error, retry: Retry::Soon }
    }

    /// Converts an error of the HTTP library.
    pub(super) fn transport(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure {
                error: self.error(ErrorKind::Timeout, "no connection in time").hint("is the registry reachable?"),
                retry: Retry::Soon,
            };
        }
        if error.is_builder() || error.is_request() && error.url().is_none() {
            return self.error(ErrorKind::Invalid, causes(error)).into();
        }
        match tls_failure(error) {
            Some(tls) => self.error(ErrorKind::Unavailable, tls.to_string()).hint(tls_hint(tls)).into(),
            None => self.broken(causes(error)),
        }
    }
}

/// Returns the cause of an error. The `source` of an `io::Error` skips the error that it wraps.
fn cause<'a>(error: &'a (dyn Cause + 'static)) -> Option<&'a (dyn Cause + 'static)> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.map(|inner| inner as &(dyn Cause + 'static)).or_else(|| error.source())
}

/// Returns the chain of causes in one line, without the URL, whose query may contain a secret.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::from(if error.is_connect() { "cannot connect" } else { "the connection failed" });
    for behind in std::iter::successors(error.source(), |next| cause(*next)).map(ToString::to_string) {
        if !text.ends_with(&behind) {
            text = format!("{text}: {behind}");
        }
    }
    text
}

/// Returns the TLS error in the chain of causes, if there is one.
fn tls_failure(error: &reqwest::Error) -> Option<&rustls::Error> {
    std::iter::successors(error.source(), |next| cause(*next)).find_map(|next| next.downcast_ref())
}

fn tls_hint(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidMessage(_) => {
            "the registry does not speak TLS; where that is meant, plain_http allows it"
        }
        rustls::Error::InvalidCertificate(_) if error.to_string().contains("CaUsedAsEndEntity") => {
            "the registry shows an authority's certificate as its own: have it made as a server's \
             (openssl req -x509 -addext basicConstraints=critical,CA:FALSE …), and give that with ca_pem"
        }
        rustls::Error::InvalidCertificate(_) => {
            "if the registry has a certificate authority of its own, give it with ca_pem"
        }
        _ => "TLS 1.2 or 1.3 is needed",
    }
}
