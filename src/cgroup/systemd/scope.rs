//! The scope that a caller asks for.

use crate::error::Problem;

/// A transient scope of systemd's, below which the groups of sandboxes are made: see
/// [`Sandbox::systemd_scope`](crate::Sandbox::systemd_scope).
///
/// Each process has one for each different value of this type, made with the first sandbox and gone with the process
/// and its last sandbox.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemdScope {
    pub(crate) slice: Option<String>,
    pub(crate) description: Option<String>,
}

impl SystemdScope {
    /// A scope where systemd puts those that ask for nothing: `system.slice`, or `app.slice` of the user.
    pub fn new() -> Self {
        SystemdScope::default()
    }

    /// The slice that it belongs to, as in `batch.slice`; made by systemd if missing. What limits that slice limits
    /// all sandboxes in it together. systemd.slice(5).
    pub fn slice(self, name: impl Into<String>) -> Self {
        SystemdScope { slice: Some(name.into()), ..self }
    }

    /// What `systemctl status` calls it. Without this call "Sandboxes of process 1234".
    pub fn description(self, text: impl Into<String>) -> Self {
        SystemdScope { description: Some(text.into()), ..self }
    }

    /// What systemd would take for no name or text.
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
