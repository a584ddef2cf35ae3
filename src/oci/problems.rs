//! What is wrong with a configuration, each with the path of its property.

use crate::error::{Error, Problem, Result};

/// The problems of a configuration. The subject of each is the path of the property in
/// `config.json`: `linux.resources.memory.kernel`, `mounts[3].destination`.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a value that contradicts the specification.
    pub(super) fn invalid(&mut self, property: impl AsRef<str>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem::invalid(property.as_ref(), reason, remedy));
    }

    /// Notes a property that this library does not carry out.
    pub(super) fn refused(&mut self, property: impl AsRef<str>, reason: impl Into<String>) {
        self.0.push(Problem::unsupported(property.as_ref(), reason, "leave the property out"));
    }

    /// Notes a property that this library does not carry out, if it is set.
    pub(super) fn refuse_if(&mut self, set: bool, property: impl AsRef<str>, reason: &str) {
        if set {
            self.refused(property, reason);
        }
    }

    /// Notes all problems of a part that was read by itself.
    pub(super) fn add(&mut self, property: &str, error: &Error) {
        match error.problems() {
            [] => self.invalid(property, error.to_string(), error.remedy().unwrap_or("see the specification")),
            problems => {
                for problem in problems {
                    self.0.push(Problem { subject: property.to_owned(), ..problem.clone() });
                }
            }
        }
    }

    /// Returns `value` if there is no problem, else the error of all.
    pub(super) fn unless_any<T>(self, value: T) -> Result<T> {
        if self.0.is_empty() { Ok(value) } else { Err(Error::refused(self.0)) }
    }
}

/// Returns whether a path is absolute and stays where it points to.
pub(super) fn is_plain_absolute(path: &std::path::Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir)
}
