//! The systemd scope that a caller requests.

use crate::error::Problem;

/// A transient scope of systemd, below which the groups of sandboxes are made. See
/// [`Sandbox::systemd_scope`](crate::Sandbox::systemd_scope).
///
/// Each process has one scope for each different value of this type. The first sandbox makes the
/// scope, which ends with the process and its last sandbox.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemdScope {
    pub(crate) slice: Option<String>,
    pub(crate) description: Option<String>,
}

impl SystemdScope {
    /// Describes a scope at systemd's default place: in `system.slice`, or in `app.slice` of the
    /// user.
    pub fn new() -> Self {
        SystemdScope::default()
    }

    /// Puts the scope into a slice, as in `batch.slice`, which systemd makes if missing. The limits
    /// of the slice apply to all sandboxes in it together. See systemd.slice(5).
    pub fn slice(self, name: impl Into<String>) -> Self {
        SystemdScope { slice: Some(name.into()), ..self }
    }

    /// Sets the description that `systemctl status` shows. The default is "Sandboxes of process
    /// 1234".
    pub fn description(self, text: impl Into<String>) -> Self {
        SystemdScope { description: Some(text.into()), ..self }
    }

    /// Returns the problem of a name or text that systemd would refuse.
    pub(crate) fn invalid(&self) -> Option<Problem> {
        let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if let Some(slice) = &self.slice {
            let stem = slice.strip_suffix(".slice").unwrap_or_default();
            if stem.is_empty() || !stem.chars().all(fits) || slice.len() > 255 {
                let reason = format!("{slice:?} is no name of a slice");
                return Some(Problem::invalid("systemd_scope", reason, "write it as in batch.slice"));
            }
        }
        let text = self.description.as_deref().unwrap_or_default();
        text.contains(char::is_control).then(|| {
            Problem::invalid("systemd_scope", "a description is one line of text", "leave control characters out")
        })
    }
}
