//! What reading and writing the keys have in common.

use std::ffi::OsStr;

use crate::error::{Error, ErrorKind, Result, Step};

/// Calls a setter if there is a value.
pub(super) fn set<S, T>(builder: S, value: Option<T>, setter: impl FnOnce(S, T) -> S) -> S {
    match value {
        Some(value) => setter(builder, value),
        None => builder,
    }
}

/// Calls a setter without a parameter if the key is true.
pub(super) fn when<S>(builder: S, value: Option<bool>, setter: impl FnOnce(S) -> S) -> S {
    if value == Some(true) { setter(builder) } else { builder }
}

/// Returns the error for a setting that has no text form.
pub(super) fn no_text(call: &str, what: &str) -> Error {
    Error::message(ErrorKind::Invalid, Step::Profile, format!("{call}: {what} has no text form"))
}

pub(super) fn text(call: &str, value: impl AsRef<OsStr>) -> Result<String> {
    let value = value.as_ref();
    let no_utf8 = || no_text(call, &format!("{value:?}, which is no UTF-8,"));
    value.to_str().map(str::to_owned).ok_or_else(no_utf8)
}

/// Returns the key of a switch that is off by default.
pub(super) fn yes(value: bool) -> Option<bool> {
    value.then_some(true)
}
