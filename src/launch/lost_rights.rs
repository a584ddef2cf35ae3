//! The capabilities that the caller had when it prepared a sandbox, and has lost since.

use caps::{CapSet, Capability, CapsHashSet};

use crate::error::Error;

/// The effective capabilities of the thread that prepared a sandbox.
#[derive(Debug)]
pub(super) struct Rights(CapsHashSet);

impl Rights {
    /// Returns the rights of the calling thread. Without them, nothing is ever lost.
    pub(super) fn now() -> Self {
        Rights(caps::read(None, CapSet::Effective).unwrap_or_default())
    }

    /// Returns the names of the capabilities that the calling thread has lost. Of several, the one
    /// counts that a setup needs most.
    pub(super) fn lost(&self) -> Option<String> {
        let now = caps::read(None, CapSet::Effective).ok()?;
        let lost: Vec<Capability> = self.0.difference(&now).copied().collect();
        if lost.contains(&Capability::CAP_SYS_ADMIN) {
            return Some(Capability::CAP_SYS_ADMIN.to_string());
        }
        let mut names: Vec<String> = lost.iter().map(Capability::to_string).collect();
        names.sort();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Returns a hint at the loss, for a step that the kernel has forbidden.
    pub(super) fn hint(&self, error: &Error) -> Option<String> {
        if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
            return None;
        }
        let names = self.lost()?;
        Some(format!(
            "the caller had {names} when it prepared the sandbox, and has lost it since: prepare the sandbox again with \
             the rights that are left, or spawn with those of before"
        ))
    }
}
