//! What went wrong with one exchange, and whether another try may go better.

use std::error::Error as Cause;
use std::io;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Step};

/// A failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: Again,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    /// After a wait of our own choice.
    Soon,
    /// After the wait that the registry asked for.
    After(Duration),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, again: Again::Never }
    }
}

/// What is being done to what: the part that every error of one exchange shares.
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

    /// The registry does not keep to the protocol; another try would end no better.
    pub(super) fn protocol(&self, detail: impl Into<String>) -> Failure {
        self.error(ErrorKind::Protocol, detail).hint("this registry cannot be used as it is").into()
    }

    /// The peer did not do anything for too long.
    pub(super) fn stalled(&self, after: Duration) -> Failure {
        let detail = format!("nothing, or next to nothing, came within {after:?}");
        let error = self.error(ErrorKind::Timeout, detail).hint("try later, or raise stall_timeout");
        Failure { error, again: Again::Soon }
    }

    /// The connection broke, or never stood.
    pub(super) fn broken(&self, detail: impl Into<String>) -> Failure {
        let error = self.error(ErrorKind::Unavailable, detail).hint("is the registry up, and its name right?");
        Failure { error, again: Again::Soon }
    }

    /// What the HTTP library calls an error.
    pub(super) fn transport(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure {
                error: self.error(ErrorKind::Timeout, "no connection in time").hint("is the registry reachable?"),
                again: Again::Soon,
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

/// What is behind an error. std's own `source` of an `io::Error` skips the error that it wraps.
fn cause<'a>(error: &'a (dyn Cause + 'static)) -> Option<&'a (dyn Cause + 'static)> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.map(|inner| inner as &(dyn Cause + 'static)).or_else(|| error.source())
}

/// The chain of causes in one line, without the address, which may hold a secret in its query.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::from(if error.is_connect() { "cannot connect" } else { "the connection failed" });
    for behind in std::iter::successors(error.source(), |next| cause(*next)).map(ToString::to_string) {
        if !text.ends_with(&behind) {
            text = format!("{text}: {behind}");
        }
    }
    text
}

/// The failure of TLS that is at the bottom of an error, if one is.
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
