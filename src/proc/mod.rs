//! Readers of what the kernel and the system tell as text. They take the text, or the root that a path begins at.

pub(crate) mod identity;
pub(crate) mod mountinfo;
pub(crate) mod subid;
pub(crate) mod user_ns;
