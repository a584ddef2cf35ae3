//! A reason why a policy is refused.

use std::fmt;

use super::{ErrorKind, in_one_line};
use crate::feature::Feature;

/// One conflict in a policy, or one request that this host cannot fulfil, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The builder call or the host feature with the problem.
    pub subject: String,
    /// The reason for the problem.
    pub reason: String,
    /// The remedy of the problem.
    pub remedy: String,
    /// The feature that the sandbox can go without by [`best_effort`](crate::Sandbox::best_effort),
    /// if there is one.
    pub feature: Option<Feature>,
    pub(crate) kind: ErrorKind,
}

impl Problem {
    /// Makes the problem of a policy that contradicts itself.
    pub(crate) fn invalid(subject: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem {
            subject: subject.into(),
            reason: reason.into(),
            remedy: remedy.into(),
            feature: None,
            kind: ErrorKind::Invalid,
        }
    }

    /// Makes the problem of a request that this host cannot fulfil.
    pub(crate) fn unsupported(subject: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { kind: ErrorKind::Unsupported, ..Problem::invalid(subject, reason, remedy) }
    }

    /// Notes the feature that the caller may choose to go without.
    pub(crate) fn for_feature(self, feature: Feature) -> Self {
        Problem { feature: Some(feature), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_one_line(format!("{}: {}; {}", self.subject, self.reason, self.remedy)))
    }
}
