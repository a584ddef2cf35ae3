//! The meaning of responses that are not successful.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use super::failure::{Failure, Retry, Subject};
use crate::error::ErrorKind;

/// Returns the failure for missing or refused credentials.
pub(super) fn denied(subject: &Subject, detail: impl Into<String>) -> Failure {
    let error = subject.error(ErrorKind::Denied, detail);
    error.hint("log in with docker or podman, or set credentials; otherwise only public images are available").into()
}

/// Returns the failure for a response with an unexpected status.
pub(super) fn refused(subject: &Subject, status: StatusCode, headers: &HeaderMap, explanation: &str) -> Failure {
    let detail = if explanation.is_empty() { status.to_string() } else { format!("{status}: {explanation}") };
    let later = || {
        let retry = retry_after(headers, SystemTime::now()).map_or(Retry::Soon, Retry::After);
        let error = subject
            .error(ErrorKind::Unavailable, detail.clone())
            .hint("the registry has a temporary problem: try later");
        Failure { error, retry }
    };
    match status.as_u16() {
        401 | 403 => denied(subject, detail),
        404 => subject
            .error(ErrorKind::NotFound, detail)
            .hint("is the name correct, and are you allowed to see it?")
            .into(),
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
pub(super) fn explanation(body: &[u8]) -> String {
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
}
